//! Files that are empty because they were just made: whoever made one has hardly come to write to it yet, and planned
//! now, it would have no rows for ever.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use super::listing::{Found, inode, modified_us};

/// One that is still empty after so long is an empty file.
const FRESH: Duration = Duration::from_millis(10);

/// Looks again at those of `found` that were just made, once they could have been written.
pub(super) fn settle(found: &mut [Found]) {
    if let Some(left) = found.iter().filter_map(left).max() {
        sleep(left);
    }
    for file in found.iter_mut().filter(|file| file.size == 0) {
        // One that is gone is told where it is read.
        if let Ok(now) = fs::metadata(file.path())
            && let Ok(modified) = modified_us(&now)
        {
            (file.modified_us, file.size, file.inode) = (modified, now.len(), inode(&now));
        }
    }
}

/// How long a file stays fresh, if it is.
fn left(file: &Found) -> Option<Duration> {
    if file.size > 0 {
        return None;
    }
    #[allow(
        clippy::disallowed_methods,
        reason = "decides when a file is found, which the plan then holds"
    )]
    let now = SystemTime::now();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_micros(file.modified_us.max(0) as u64);
    FRESH.checked_sub(now.duration_since(modified).ok()?)
}
