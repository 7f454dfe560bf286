//! The files that a source has met: sixteen bytes for each, whatever its name is.
//!
//! A name is kept as 96 bits of a keyed hash: among ten million names two collide with a chance of one in 10^15, and
//! nobody can make names that do. Beside them stands the file's time in seconds, so that old files can be forgotten.
//!
//! Files older than the limit count as met, known or not. So forgetting one is always right, but costs a look at its
//! time whenever its directory is listed; names that are still listed are therefore kept (`purge`).

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

/// So many names are kept for nothing before it is worth while to go through all.
const PURGE_AT_LEAST: usize = 10_000;

/// 96 bits of hash, and a time in seconds that does not count in comparisons.
#[derive(Debug, Clone, Copy)]
struct Name {
    high: u64,
    low: u32,
    seconds: u32,
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.high == other.high && self.low == other.low
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.high);
    }
}

/// Names are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("names are written as one number");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Files that were met before.
pub(super) struct Seen {
    file_name_only: bool,
    names: HashSet<Name, BuildHasherDefault<AsItIs>>,
    keys: [RandomState; 2],
    /// Files older than this count as met.
    limit_us: i64,
}

/// Rounded up: a name is kept rather too long.
fn seconds(us: i64) -> u32 {
    us.saturating_add(999_999)
        .div_euclid(1_000_000)
        .clamp(0, i64::from(u32::MAX)) as u32
}

impl Seen {
    pub(super) fn new(file_name_only: bool) -> Self {
        Seen {
            file_name_only,
            names: HashSet::default(),
            keys: [RandomState::new(), RandomState::new()],
            limit_us: i64::MIN,
        }
    }

    fn name(&self, directory: &str, file: &str, modified_us: i64) -> Name {
        let directory = match self.file_name_only {
            true => "",
            false => directory,
        };
        let [high, low] = [0, 1].map(|at: usize| {
            let mut hasher = self.keys[at].build_hasher();
            hasher.write(directory.as_bytes());
            hasher.write_u8(b'/');
            hasher.write(file.as_bytes());
            hasher.finish()
        });
        Name {
            high,
            low: low as u32,
            seconds: seconds(modified_us),
        }
    }

    /// Whether the file has been met. One that has not may still be too old.
    pub(super) fn knows(&self, directory: &str, file: &str) -> bool {
        self.names.contains(&self.name(directory, file, 0))
    }

    /// Remembers a file. True if it is new: not met before, and not older than the limit.
    pub(super) fn meet(&mut self, directory: &str, file: &str, modified_us: i64) -> bool {
        let new = self.names.insert(self.name(directory, file, modified_us));
        new && modified_us >= self.limit_us
    }

    /// A file is to be met again.
    pub(super) fn unmeet(&mut self, directory: &str, file: &str) {
        let name = self.name(directory, file, 0);
        self.names.remove(&name);
    }

    pub(super) fn limit_us(&self) -> i64 {
        self.limit_us
    }

    /// From now on all files older than this count as met. The limit never goes back.
    pub(super) fn raise_limit(&mut self, limit_us: i64) {
        self.limit_us = self.limit_us.max(limit_us);
    }

    /// Drops names beyond the limit, if there are many more names than the `listed` files that they spare a look at.
    pub(super) fn purge(&mut self, listed: usize) {
        if self.names.len() > 2 * listed + PURGE_AT_LEAST {
            // A name's time was rounded up, so none goes too early.
            let limit = self.limit_us.div_euclid(1_000_000);
            self.names
                .retain(|name| i64::from(name.seconds) >= limit.min(i64::from(u32::MAX)));
            self.names.shrink_to(self.names.len() * 5 / 4);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_new_once() {
        let mut seen = Seen::new(false);
        assert!(!seen.knows("/in", "a"));
        assert!(seen.meet("/in", "a", 5));
        assert!(!seen.meet("/in", "a", 7));
        assert!(seen.knows("/in", "a") && !seen.knows("/i", "n/a") && !seen.knows("/other", "a"));
        seen.unmeet("/in", "a");
        assert!(seen.meet("/in", "a", 5));
    }

    #[test]
    fn names_alone_can_count() {
        let mut seen = Seen::new(true);
        assert!(seen.meet("/x", "a", 5));
        assert!(seen.knows("/y", "a"));
    }

    #[test]
    fn what_is_too_old_is_never_new() {
        let mut seen = Seen::new(false);
        seen.raise_limit(1_000);
        seen.raise_limit(10);
        assert_eq!(seen.limit_us(), 1_000);
        assert!(!seen.meet("/in", "old", 999));
        assert!(seen.meet("/in", "young", 1_000));
    }

    #[test]
    fn old_names_go_when_they_are_many() {
        let mut seen = Seen::new(false);
        for n in 0..30_000i64 {
            assert!(seen.meet("/in", &n.to_string(), n * 1_000_000 - 15_000_000_000));
        }
        seen.raise_limit(10_000 * 1_000_000 + 1);
        seen.purge(10_000);
        assert_eq!(seen.len(), 30_000, "they spare looks");
        seen.purge(9_999);
        // Seconds 10,000 and later: the limit is rounded down.
        assert_eq!(seen.len(), 5_000);
        assert!(!seen.meet("/in", "0", -15_000_000_000));
    }
}
