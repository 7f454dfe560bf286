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
    /// At most one epoch per interval.
    Every(Duration),
}

impl std::fmt::Display for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trigger::Default => f.write_str("as soon as there are rows"),
            Trigger::AvailableNow => f.write_str("availableNow"),
            Trigger::Every(interval) => write!(f, "every {interval:?}"),
        }
    }
}

impl Trigger {
    /// A trigger as an option says it: `availableNow`, `10 seconds`, `processingTime 10 seconds`, `default`, and
    /// `continuous`, with or without an interval, which is the default here.
    pub fn parse(text: &str) -> Result<Self, crate::Error> {
        let text = text.trim();
        let lower = text.to_lowercase();
        let interval = |prefix: &str| lower.strip_prefix(prefix).map(str::trim);
        if lower == "default" {
            return Ok(Trigger::Default);
        }
        if lower == "availablenow" {
            return Ok(Trigger::AvailableNow);
        }
        if lower == "once" {
            return Err(crate::Error::not_yet(
                "trigger \"once\" (availableNow ends as well, in several epochs)",
            ));
        }
        if let Some(interval) = interval("continuous") {
            if !interval.is_empty() {
                Trigger::every(interval)?;
            }
            return Ok(Trigger::Default);
        }
        Trigger::every(interval("processingtime").unwrap_or(text)).map_err(|_| {
            crate::Error::Refused {
                class: None,
                message:
                    "it is availableNow, default, continuous, or an interval like \"10 seconds\""
                        .into(),
            }
        })
    }

    /// `Trigger::Every` from words: "10 seconds", "1 minute", "250 milliseconds".
    pub fn every(interval: &str) -> Result<Self, crate::Error> {
        let wrong = || crate::Error::Refused {
            class: None,
            message: format!(
                "\"{interval}\" is no interval; write it like \"10 seconds\", \"500 milliseconds\" or \"1 minute\""
            ),
        };
        let mut words = interval.split_whitespace();
        let (number, unit) = (
            words.next().ok_or_else(wrong)?,
            words.next().ok_or_else(wrong)?,
        );
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let millis = match unit.to_lowercase().trim_end_matches('s') {
            "millisecond" | "milli" | "m" => 1,
            "second" | "sec" => 1_000,
            "minute" | "min" => 60_000,
            "hour" => 3_600_000,
            "day" => 86_400_000,
            _ => return Err(wrong()),
        };
        if words.next().is_some() {
            return Err(wrong());
        }
        Ok(Trigger::Every(Duration::from_millis(
            number.checked_mul(millis).ok_or_else(wrong)?,
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_read_as_options_say_them() {
        for (text, trigger) in [
            ("availableNow", Trigger::AvailableNow),
            (" AVAILABLENOW", Trigger::AvailableNow),
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
        for wrong in [
            "",
            "10",
            "ten seconds",
            "10 fortnights",
            "1 minute 5",
            "99999999999999999999 days",
        ] {
            assert!(Trigger::every(wrong).is_err(), "{wrong}");
        }
    }
}
