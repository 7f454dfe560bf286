//! Records of one line of JSON, with a line behind it that says whether they are whole.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::store::Store;
use super::{CheckpointError, check_version};

#[derive(Serialize, Deserialize)]
struct Seal {
    crc32: u32,
}

/// `record` as JSON, and its checksum. It must have a field `version`.
pub(super) fn sealed(record: &impl Serialize) -> Vec<u8> {
    let body = serde_json::to_string(record).expect("records are plain data");
    let crc32 = crc32fast::hash(body.as_bytes());
    let seal = serde_json::to_string(&Seal { crc32 }).expect("a number is plain data");
    format!("{body}\n{seal}\n").into_bytes()
}

/// Reads a sealed record, if it is there. One of format 1 may have no seal.
pub(super) fn unsealed<T: DeserializeOwned>(
    store: &dyn Store,
    name: &str,
) -> Result<Option<T>, CheckpointError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let damaged = |reason: String| CheckpointError::Damaged {
        path: format!("{}/{name}", store.location()),
        reason,
    };
    let not_json = |error: serde_json::Error| damaged(error.to_string());
    let Some(bytes) = store.get(name)? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| damaged(error.to_string()))?;
    let (body, seal) = text.split_once('\n').unwrap_or((text, ""));
    if !seal.is_empty() {
        let seal: Seal = serde_json::from_str(seal).map_err(not_json)?;
        if seal.crc32 != crc32fast::hash(body.as_bytes()) {
            return Err(damaged("its checksum is wrong".into()));
        }
    }
    let Versioned { version } = serde_json::from_str(body).map_err(not_json)?;
    check_version(store, name, version)?;
    if seal.is_empty() && version > 1 {
        return Err(damaged("it ends early".into()));
    }
    serde_json::from_str(body).map(Some).map_err(not_json)
}
