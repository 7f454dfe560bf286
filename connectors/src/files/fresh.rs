//! Files that are empty and were just made: whoever made one has hardly written to it yet. Read now, it would have no
//! rows for ever.

use std::fs;
use std::time::{Duration, SystemTime};

use super::listing::{Found, inode, modified_us};

/// One that is still empty after so long is meant to be.
const FRESH: Duration = Duration::from_secs(1);

/// Empty files that are looked at again.
#[derive(Default)]
pub(super) struct Fresh {
    files: Vec<Found>,
}

impl Fresh {
    /// Keeps a file that is fresh; gives back one that is not.
    pub(super) fn keep(&mut self, file: Found) -> Option<Found> {
        match is_fresh(&file) {
            true => self.files.push(file),
            false => return Some(file),
        }
        None
    }

    /// Those that are to be read now.
    pub(super) fn ripe(&mut self) -> Vec<Found> {
        let mut ripe = Vec::new();
        self.files.retain_mut(|file| {
            // One that is gone is told where it is read.
            if let Ok(now) = fs::metadata(file.path())
                && let Ok(modified) = modified_us(&now)
            {
                (file.modified_us, file.size, file.inode) = (modified, now.len(), inode(&now));
            }
            let fresh = is_fresh(file);
            if !fresh {
                ripe.push(file.clone());
            }
            fresh
        });
        ripe
    }
}

fn is_fresh(file: &Found) -> bool {
    #[allow(
        clippy::disallowed_methods,
        reason = "decides when a file is found, which the plan then holds"
    )]
    let now = SystemTime::now();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_micros(file.modified_us.max(0) as u64);
    file.size == 0 && now.duration_since(modified).is_ok_and(|age| age < FRESH)
}
