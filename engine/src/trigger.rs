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

impl Trigger {
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
