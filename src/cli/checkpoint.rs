//! `highwater checkpoint show DIR`.

use std::path::Path;

use highwater::checkpoint::inspect;
use highwater::connectors::files::check_output;

use super::run::told;
use super::{Failure, print, say};

/// Prints what a checkpoint directory holds, and what a restart would do.
pub(super) fn show(dir: &str) -> Result<(), Failure> {
    match inspect(dir) {
        Ok(mut summary) => {
            for output in &summary.outputs {
                if let Err(error) = check_output(Path::new(output), &summary.id) {
                    summary.refused.get_or_insert(error.to_string());
                }
            }
            print(summary.to_string().trim_end()).map_err(|error| told(&error, Failure::Query))?;
            match summary.damaged.is_empty() && summary.refused.is_none() {
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
