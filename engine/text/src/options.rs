//! Options of one reader or writer, by name.
//!
//! Names are case-insensitive, as users of the model expect. Whoever takes options must also refuse the rest
//! (`Options::only`): an option that is accepted and ignored is a wrong answer waiting to be found.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// An option that cannot be used as it was given.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OptionError {
    /// Nobody here knows the option.
    #[error("unknown option \"{name}\" of {owner}; it takes {known}")]
    Unknown {
        /// The option.
        name: String,
        /// Who was given it.
        owner: String,
        /// What would be taken.
        known: String,
    },
    /// The option is known from the model, and not built yet.
    #[error("option \"{name}\" of {owner} is not supported yet")]
    NotBuilt {
        /// The option.
        name: String,
        /// Who was given it, or not.
        owner: String,
    },
    /// A required option is absent.
    #[error("{owner} needs option \"{name}\"")]
    Missing {
        /// The option.
        name: String,
        /// Who was given it, or not.
        owner: String,
    },
    /// The value cannot be read.
    #[error("option \"{name}\" of {owner} cannot be \"{value}\": {reason}")]
    Invalid {
        /// The option.
        name: String,
        /// Who was given it.
        owner: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl OptionError {
    /// The option.
    pub fn name(&self) -> &str {
        match self {
            OptionError::Unknown { name, .. }
            | OptionError::NotBuilt { name, .. }
            | OptionError::Missing { name, .. }
            | OptionError::Invalid { name, .. } => name,
        }
    }
}

/// Options by case-insensitive name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    by_name: BTreeMap<String, (String, String)>,
}

impl Options {
    /// Sets one option; a later value replaces an earlier one.
    pub fn set(&mut self, name: &str, value: impl Display) {
        self.by_name
            .insert(name.to_lowercase(), (name.to_string(), value.to_string()));
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.by_name
            .get(&name.to_lowercase())
            .map(|(_, value)| value.as_str())
    }

    /// Removes and returns the value of `name`.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.by_name
            .remove(&name.to_lowercase())
            .map(|(_, value)| value)
    }

    /// The value of `name`, or an error that says `owner` needs it.
    pub fn required(&self, owner: &str, name: &str) -> Result<&str, OptionError> {
        self.get(name).ok_or_else(|| OptionError::Missing {
            name: name.into(),
            owner: owner.into(),
        })
    }

    /// The value of `name` read as a `T`.
    pub fn parse<T: FromStr>(&self, owner: &str, name: &str) -> Result<Option<T>, OptionError>
    where
        T::Err: Display,
    {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.trim().parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) => Err(OptionError::Invalid {
                name: name.into(),
                owner: owner.into(),
                value: value.into(),
                reason: T::Err::to_string(&error),
            }),
        }
    }

    /// Refuses every option outside `known`; one in `not_built` is refused by that name.
    pub fn only(&self, owner: &str, known: &[&str], not_built: &[&str]) -> Result<(), OptionError> {
        for (lower, (name, _)) in &self.by_name {
            if known.iter().any(|k| k.eq_ignore_ascii_case(lower)) {
                continue;
            }
            if not_built.iter().any(|k| k.eq_ignore_ascii_case(lower)) {
                return Err(OptionError::NotBuilt {
                    name: name.clone(),
                    owner: owner.into(),
                });
            }
            let known = if known.is_empty() {
                "none".to_string()
            } else {
                known.join(", ")
            };
            return Err(OptionError::Unknown {
                name: name.clone(),
                owner: owner.into(),
                known,
            });
        }
        Ok(())
    }

    /// All options as they were spelled.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_name
            .values()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A value that has been refused.
pub fn invalid(owner: &str, name: &str, value: &str, reason: &str) -> OptionError {
    OptionError::Invalid {
        name: name.into(),
        owner: owner.into(),
        value: value.into(),
        reason: reason.into(),
    }
}

/// `true` or `false`, in any case; false if absent.
pub fn flag(options: &Options, owner: &str, name: &str) -> Result<bool, OptionError> {
    flag_or(options, owner, name, false)
}

/// `true` or `false`, in any case.
pub fn flag_or(
    options: &Options,
    owner: &str,
    name: &str,
    default: bool,
) -> Result<bool, OptionError> {
    match options.get(name) {
        None => Ok(default),
        Some(value) if value.trim().eq_ignore_ascii_case("true") => Ok(true),
        Some(value) if value.trim().eq_ignore_ascii_case("false") => Ok(false),
        Some(value) => Err(invalid(owner, name, value, "it is true or false")),
    }
}

/// A positive count.
pub fn positive(options: &Options, owner: &str, name: &str) -> Result<Option<u64>, OptionError> {
    match options.get(name) {
        None => Ok(None),
        Some(value) => match value.trim().parse() {
            Ok(count) if count > 0 => Ok(Some(count)),
            _ => Err(invalid(owner, name, value, "it is a positive whole number")),
        },
    }
}

/// One character in ASCII; an empty value is none.
pub fn character(
    options: &Options,
    owner: &str,
    name: &str,
) -> Result<Option<Option<u8>>, OptionError> {
    let Some(value) = options.get(name) else {
        return Ok(None);
    };
    match value.as_bytes() {
        [] | [0] => Ok(Some(None)),
        [byte] if byte.is_ascii() => Ok(Some(Some(*byte))),
        b"\\t" => Ok(Some(Some(b'\t'))),
        b"\\\\" => Ok(Some(Some(b'\\'))),
        _ => Err(invalid(owner, name, value, "it is one ASCII character")),
    }
}

/// What separates cells: option `sep`, or else `delimiter`.
pub fn separator(options: &Options, owner: &str) -> Result<u8, OptionError> {
    for name in ["sep", "delimiter"] {
        match (character(options, owner, name)?, options.get(name)) {
            (Some(Some(separator)), _) => return Ok(separator),
            (_, Some("\0")) => return Ok(0),
            (_, Some(value)) => {
                return Err(invalid(owner, name, value, "it is one ASCII character"));
            }
            _ => {}
        }
    }
    Ok(b',')
}

/// A length of time in microseconds: `5s`, `10 minutes`, `7d`, `100ms`.
pub fn duration_us(options: &Options, owner: &str, name: &str) -> Result<Option<i64>, OptionError> {
    let Some(value) = options.get(name) else {
        return Ok(None);
    };
    let text = value.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "us" | "microsecond" | "microseconds" => Some(1),
        "ms" | "millisecond" | "milliseconds" => Some(1_000),
        "s" | "sec" | "second" | "seconds" => Some(1_000_000),
        "m" | "min" | "minute" | "minutes" => Some(60_000_000),
        "h" | "hour" | "hours" => Some(3_600_000_000),
        "d" | "day" | "days" => Some(86_400_000_000),
        _ => None,
    };
    let count: Option<i64> = text[..digits].parse().ok();
    match unit
        .zip(count)
        .and_then(|(unit, count)| count.checked_mul(unit))
    {
        Some(us) => Ok(Some(us)),
        None => Err(invalid(
            owner,
            name,
            value,
            "it is a number and a unit, like \"10s\" or \"7d\"",
        )),
    }
}
