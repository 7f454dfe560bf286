//! Readings of option values that several connectors share.

use highwater_engine::options::{OptionError, Options};

/// A value that has been refused.
pub(crate) fn invalid(owner: &str, name: &str, value: &str, reason: &str) -> OptionError {
    OptionError::Invalid {
        name: name.into(),
        owner: owner.into(),
        value: value.into(),
        reason: reason.into(),
    }
}

/// `true` or `false`, in any case; false if absent.
pub(crate) fn flag(options: &Options, owner: &str, name: &str) -> Result<bool, OptionError> {
    flag_or(options, owner, name, false)
}

/// `true` or `false`, in any case.
pub(crate) fn flag_or(
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
pub(crate) fn positive(
    options: &Options,
    owner: &str,
    name: &str,
) -> Result<Option<u64>, OptionError> {
    match options.get(name) {
        None => Ok(None),
        Some(value) => match value.trim().parse() {
            Ok(count) if count > 0 => Ok(Some(count)),
            _ => Err(invalid(owner, name, value, "it is a positive whole number")),
        },
    }
}

/// One character in ASCII; an empty value is none.
pub(crate) fn character(
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
pub(crate) fn separator(options: &Options, owner: &str) -> Result<u8, OptionError> {
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
pub(crate) fn duration_us(
    options: &Options,
    owner: &str,
    name: &str,
) -> Result<Option<i64>, OptionError> {
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
