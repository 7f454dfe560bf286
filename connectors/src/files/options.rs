//! Options that all file formats share.

use glob::Pattern;
use highwater_engine::options::{OptionError, Options};
use highwater_engine::source::{FormatError, SourceRequest};

use super::listing::spell_out;
use crate::options::{duration_us, flag, invalid, positive};
use crate::time::{Zone, parse_timestamp};

/// Which files are read, and how many at a time.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// An epoch admits at most so many files.
    pub files_per_trigger_max: Option<u64>,
    /// An epoch admits at most so many bytes, but always one file.
    pub bytes_per_trigger_max: Option<u64>,
    /// Newest files first.
    pub latest_first: bool,
    /// Files of one name are one file, whatever their directories.
    pub file_name_only: bool,
    /// Files are remembered, and new ones noticed, only if they are not older than the newest by more than this.
    pub file_age_max_us: i64,
    /// File names must match one of these.
    pub path_glob_filter: Option<Vec<Pattern>>,
    /// Files in directories below are read too.
    pub recursive: bool,
    /// Files must be older.
    pub modified_before_us: Option<i64>,
    /// Files must be newer.
    pub modified_after_us: Option<i64>,
    /// What cannot be read of a damaged file is skipped.
    pub ignore_corrupt: bool,
    /// Files that are gone when they are to be read are skipped.
    pub ignore_missing: bool,
}

impl Default for FileOptions {
    fn default() -> Self {
        FileOptions {
            files_per_trigger_max: None,
            bytes_per_trigger_max: None,
            latest_first: false,
            file_name_only: false,
            file_age_max_us: 7 * 86_400_000_000,
            path_glob_filter: None,
            recursive: false,
            modified_before_us: None,
            modified_after_us: None,
            ignore_corrupt: false,
            ignore_missing: false,
        }
    }
}

/// The names, for `Options::only`.
pub(super) const KNOWN: &[&str] = &[
    "path",
    "maxFilesPerTrigger",
    "maxBytesPerTrigger",
    "latestFirst",
    "fileNameOnly",
    "maxFileAge",
    "pathGlobFilter",
    "recursiveFileLookup",
    "modifiedBefore",
    "modifiedAfter",
    "ignoreCorruptFiles",
    "ignoreMissingFiles",
];

/// Names of the model that are not built.
pub(super) const NOT_BUILT: &[&str] = &[
    "maxCachedFiles",
    "discardCachedInputRatio",
    "cleanSource",
    "sourceArchiveDir",
    "ignoredPathSegmentRegex",
    "archivePathFilter",
    "basePath",
];

impl FileOptions {
    pub(super) fn parse(owner: &str, request: &SourceRequest) -> Result<Self, FormatError> {
        let options = &request.options;
        let defaults = FileOptions::default();
        let parsed = FileOptions {
            files_per_trigger_max: positive(options, owner, "maxFilesPerTrigger")?,
            bytes_per_trigger_max: positive(options, owner, "maxBytesPerTrigger")?,
            latest_first: flag(options, owner, "latestFirst")?,
            file_name_only: flag(options, owner, "fileNameOnly")?,
            file_age_max_us: duration_us(options, owner, "maxFileAge")?
                .unwrap_or(defaults.file_age_max_us),
            path_glob_filter: patterns(options, owner)?,
            recursive: flag(options, owner, "recursiveFileLookup")?,
            modified_before_us: instant(options, owner, "modifiedBefore", &request.time_zone)?,
            modified_after_us: instant(options, owner, "modifiedAfter", &request.time_zone)?,
            ignore_corrupt: flag(options, owner, "ignoreCorruptFiles")?,
            ignore_missing: flag(options, owner, "ignoreMissingFiles")?,
        };
        if parsed.files_per_trigger_max.is_some() && parsed.bytes_per_trigger_max.is_some() {
            return Err(FormatError::Invalid {
                message: format!(
                    "{owner} takes option \"maxFilesPerTrigger\" or \"maxBytesPerTrigger\", not both"
                ),
                class: None,
            });
        }
        for name in ["modifiedBefore", "modifiedAfter"] {
            if request.streaming && options.get(name).is_some() {
                return Err(FormatError::Invalid {
                    message: format!(
                        "option \"{name}\" of {owner} selects files of a batch read; a stream takes all that arrive"
                    ),
                    class: None,
                });
            }
        }
        Ok(parsed)
    }
}

fn patterns(options: &Options, owner: &str) -> Result<Option<Vec<Pattern>>, OptionError> {
    let name = "pathGlobFilter";
    let Some(value) = options.get(name) else {
        return Ok(None);
    };
    let parsed = spell_out(value)
        .iter()
        .map(|pattern| Pattern::new(pattern))
        .collect::<Result<Vec<_>, _>>();
    match parsed {
        Ok(patterns) => Ok(Some(patterns)),
        Err(error) => Err(invalid(owner, name, value, error.msg)),
    }
}

fn instant(
    options: &Options,
    owner: &str,
    name: &str,
    time_zone: &str,
) -> Result<Option<i64>, OptionError> {
    let Some(value) = options.get(name) else {
        return Ok(None);
    };
    let zone = Zone::parse(time_zone).unwrap_or(Zone::UTC);
    match parse_timestamp(value.as_bytes(), &zone) {
        Some(us) => Ok(Some(us)),
        None => Err(invalid(
            owner,
            name,
            value,
            "it is a timestamp like \"2024-01-05T10:00:00\"",
        )),
    }
}
