//! Places where a crash test ends the process, as a power cut would: before and after every durable write.
//!
//! `HIGHWATER_CRASH_AT=name:3` ends the process when it reaches `name` for the third time, `*:17` at the 17th place
//! of any name. Release builds have none of it.

#[cfg(debug_assertions)]
mod armed {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, OnceLock, PoisonError};

    struct Armed {
        name: String,
        count: u64,
        reached: Mutex<BTreeMap<&'static str, u64>>,
    }

    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let read = || {
            let text = std::env::var("HIGHWATER_CRASH_AT").ok()?;
            let (name, count) = text.rsplit_once(':')?;
            Some(Armed {
                name: name.to_string(),
                count: count.parse().ok()?,
                reached: Mutex::default(),
            })
        };
        ARMED.get_or_init(read).as_ref()
    }

    pub(super) fn reach(name: &'static str) {
        let Some(armed) = armed() else { return };
        if armed.name != "*" && armed.name != name {
            return;
        }
        let mut reached = armed.reached.lock().unwrap_or_else(PoisonError::into_inner);
        *reached.entry(name).or_default() += 1;
        if reached.values().sum::<u64>() == armed.count {
            // No destructor runs and nothing is flushed.
            std::process::abort();
        }
    }
}

/// Says that the program has reached the place `name`, for example "commit.before".
#[inline]
pub fn reach(name: &'static str) {
    #[cfg(debug_assertions)]
    armed::reach(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}
