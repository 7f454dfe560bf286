//! When the next epoch starts.

use std::time::Duration;

/// The rule that starts the next epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trigger {
    /// As soon as there are rows.
    #[default]
    Default,
    /// Everything that is there when the query starts, in as many epochs as the limits ask for; then the query ends.
    AvailableNow,
    /// Everything that is there when the query starts, in one epoch, whatever the limits; then the query ends.
    Once,
    /// At most one epoch per interval, at its multiples since 1970. Moments that a slow epoch runs over are skipped.
    Every(Duration),
}

impl std::fmt::Display for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trigger::Default => f.write_str("as soon as there are rows"),
            Trigger::AvailableNow => f.write_str("availableNow"),
            Trigger::Once => f.write_str("once"),
            Trigger::Every(interval) => write!(f, "every {interval:?}"),
        }
    }
}

impl Trigger {
    /// True if the query ends with what is there when it starts.
    pub(crate) fn ends(self) -> bool {
        matches!(self, Trigger::AvailableNow | Trigger::Once)
    }

    /// A trigger as an option says it: `availableNow`, `10 seconds`, `once`, `processingTime 10 seconds`, `default`, and
    /// `continuous`, with or without an interval.
    pub fn parse(text: &str) -> Result<Self, crate::Error> {
        let lower = text.trim().to_lowercase();
        if let Some(interval) = lower.strip_prefix("continuous") {
            return match interval.trim() {
                "" => Ok(Trigger::Default),
                interval => Trigger::continuous(interval),
            };
        }
        match lower.as_str() {
            "default" => Ok(Trigger::Default),
            "availablenow" => Ok(Trigger::AvailableNow),
            "once" => Ok(Trigger::Once),
            interval => Trigger::every(interval.strip_prefix("processingtime").unwrap_or(interval))
                .map_err(|_| crate::Error::Refused {
                    class: None,
                    message: "it is availableNow, once, default, continuous, or an interval like \"10 seconds\""
                        .into(),
                }),
        }
    }

    /// What the model calls continuous processing: rows are taken as soon as they are there, which is the default. The
    /// interval, by which the model paces its checkpoints, is checked and not needed.
    pub fn continuous(interval: &str) -> Result<Self, crate::Error> {
        parse_interval(interval).map(|_| Trigger::Default)
    }

    /// `Trigger::Every` from words: "10 seconds", "1 minute", "250 milliseconds". An interval of zero is the default.
    pub fn every(interval: &str) -> Result<Self, crate::Error> {
        parse_interval(interval).map(|interval| match interval.is_zero() {
            true => Trigger::Default,
            false => Trigger::Every(interval),
        })
    }
}

/// An interval from words: "10 seconds", "1 minute 30 seconds", "250 milliseconds".
pub(crate) fn parse_interval(interval: &str) -> Result<Duration, crate::Error> {
    let wrong = || crate::Error::Refused {
        class: None,
        message: format!(
            "\"{interval}\" is no interval; write it like \"10 seconds\", \"500 milliseconds\" or \"1 minute\""
        ),
    };
    let lower = interval.trim().to_lowercase();
    let words: Vec<&str> = lower
        .strip_prefix("interval")
        .unwrap_or(&lower)
        .split_whitespace()
        .collect();
    let mut millis = 0u64;
    let (pairs, []) = words.as_chunks::<2>() else {
        return Err(wrong());
    };
    if pairs.is_empty() {
        return Err(wrong());
    }
    for [number, unit] in pairs {
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = match *unit {
            "millisecond" | "milliseconds" | "milli" | "millis" | "ms" => 1,
            "second" | "seconds" | "sec" | "secs" => 1_000,
            "minute" | "minutes" | "min" | "mins" => 60_000,
            "hour" | "hours" => 3_600_000,
            "day" | "days" => 86_400_000,
            "week" | "weeks" => 7 * 86_400_000,
            _ => return Err(wrong()),
        };
        millis = number
            .checked_mul(unit)
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(wrong)?;
    }
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_read_as_options_say_them() {
        for (text, trigger) in [
            ("availableNow", Trigger::AvailableNow),
            (" AVAILABLENOW", Trigger::AvailableNow),
            ("Once", Trigger::Once),
            ("default", Trigger::Default),
            ("continuous", Trigger::Default),
            ("continuous 1 second", Trigger::Default),
            ("10 seconds", Trigger::Every(Duration::from_secs(10))),
            (
                "processingTime 1 minute",
                Trigger::Every(Duration::from_secs(60)),
            ),
        ] {
            assert_eq!(Trigger::parse(text).ok(), Some(trigger), "{text}");
        }
        for wrong in ["", "never", "continuous soon", "10"] {
            assert!(Trigger::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn intervals_are_read_in_words() {
        assert_eq!(
            Trigger::every("10 seconds").ok(),
            Some(Trigger::Every(Duration::from_secs(10)))
        );
        assert_eq!(
            Trigger::every("250 milliseconds").ok(),
            Some(Trigger::Every(Duration::from_millis(250)))
        );
        assert_eq!(
            Trigger::every("5 ms").ok(),
            Some(Trigger::Every(Duration::from_millis(5)))
        );
        for wrong in [
            "",
            "10",
            "ten seconds",
            "10 fortnights",
            "5 m",
            "1 mss",
            "1 minute 5",
            "seconds 10",
            "99999999999999999999 days",
        ] {
            assert!(Trigger::every(wrong).is_err(), "{wrong}");
        }
    }
}
