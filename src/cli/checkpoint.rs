//! `highwater checkpoint show DIR`.

use highwater::checkpoint::inspect;

use super::{Failure, print, say};

/// Prints what a checkpoint directory holds, and what a restart would do.
pub(super) fn show(dir: &str) -> Result<(), Failure> {
    match inspect(dir) {
        Ok(summary) => {
            print(summary.to_string().trim_end());
            match summary.damaged.is_empty() {
                true => Ok(()),
                false => Err(Failure::Query),
            }
        }
        Err(error) => {
            say(&format!("{:?}", highwater::Error::from(error)));
            Err(Failure::Query)
        }
    }
}
