//! Patterns that differ from row to row.

use highwater_text::pattern::{Bad, Pattern};

use crate::error::{QueryError, RunError};
use crate::functions::kernel::Result as Run;

fn raised(bad: Bad) -> datafusion::common::DataFusionError {
    match bad {
        Bad::Row(class, message) => RunError::raise(class, message),
        Bad::Unsupported(what) => QueryError::unsupported(what).into(),
    }
}

/// The pattern of each row, taken apart when it changes.
pub(super) struct Patterns {
    parsing: bool,
    last: Option<(String, Pattern)>,
}

impl Patterns {
    pub(super) fn new(parsing: bool) -> Self {
        Patterns {
            parsing,
            last: None,
        }
    }

    pub(super) fn get(&mut self, text: &str) -> Run<&Pattern> {
        if self.last.as_ref().is_none_or(|(known, _)| known != text) {
            let pattern = Pattern::parse(text, self.parsing).map_err(raised)?;
            self.last = Some((text.to_string(), pattern));
        }
        match &self.last {
            Some((_, pattern)) => Ok(pattern),
            None => Err(datafusion::common::DataFusionError::Internal(
                "a pattern was just read".into(),
            )),
        }
    }
}
