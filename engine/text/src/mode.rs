//! What happens to a row that cannot be read.

use std::str::FromStr;

/// What happens to a row that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ParseMode {
    /// Its bad fields are null; the column of corrupt rows, if the schema has it, holds its text.
    #[default]
    Permissive,
    /// It is dropped.
    DropMalformed,
    /// The query fails.
    FailFast,
}

impl FromStr for ParseMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_uppercase().as_str() {
            "PERMISSIVE" => Ok(ParseMode::Permissive),
            "DROPMALFORMED" => Ok(ParseMode::DropMalformed),
            "FAILFAST" => Ok(ParseMode::FailFast),
            _ => Err("it is PERMISSIVE, DROPMALFORMED or FAILFAST".into()),
        }
    }
}
