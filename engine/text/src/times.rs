//! How files tell dates and timestamps: as Spark casts texts, or by patterns that somebody gave.

use crate::options::{OptionError, Options};
use crate::pattern::TimePattern;

use crate::options::{flag, invalid};
use crate::time::{Zone, parse_date, parse_timestamp, parse_timestamp_ntz, parse_utc_millis};

/// The names, for `Options::only`.
pub const KNOWN: &[&str] = &[
    "timeZone",
    "dateFormat",
    "timestampFormat",
    "timestampNTZFormat",
    "enableDateTimeParsingFallback",
];

/// The time zone of a reader or writer, and its name: option `timeZone`, or else the session's.
pub fn zone_of<'a>(
    owner: &str,
    options: &'a Options,
    session: &'a str,
) -> Result<(Zone, &'a str), OptionError> {
    let name = options.get("timeZone").unwrap_or(session);
    match Zone::parse(name) {
        Some(zone) => Ok((zone, name)),
        None => Err(invalid(owner, "timeZone", name, "it is no time zone")),
    }
}

/// How dates and timestamps are read.
#[derive(Debug, Clone)]
pub struct ReadTimes {
    /// Where timestamps without a zone were written.
    pub zone: Zone,
    date: Option<TimePattern>,
    timestamp: Option<TimePattern>,
    timestamp_ntz: Option<TimePattern>,
    /// What does not fit a pattern is read without one.
    falls_back: bool,
}

impl ReadTimes {
    /// Without patterns.
    pub fn of_zone(zone: Zone) -> Self {
        ReadTimes {
            zone,
            date: None,
            timestamp: None,
            timestamp_ntz: None,
            falls_back: false,
        }
    }

    /// Reads options by name; `owner` is told in errors.
    pub fn parse(
        owner: &str,
        options: &Options,
        zone: Zone,
        zone_name: &str,
    ) -> Result<Self, OptionError> {
        let pattern = |name: &str| {
            let Some(text) = options.get(name) else {
                return Ok(None);
            };
            TimePattern::reading(text, zone_name)
                .map(Some)
                .map_err(|reason| invalid(owner, name, text, &reason))
        };
        Ok(ReadTimes {
            zone,
            date: pattern("dateFormat")?,
            timestamp: pattern("timestampFormat")?,
            timestamp_ntz: pattern("timestampNTZFormat")?,
            falls_back: flag(options, owner, "enableDateTimeParsingFallback")?,
        })
    }

    /// An instant, in microseconds.
    #[inline]
    pub fn timestamp(&self, text: &[u8]) -> Option<i64> {
        let usual = || parse_timestamp(text, &self.zone);
        match &self.timestamp {
            None => usual(),
            Some(pattern) => self.or_usual(by(text, |text| pattern.read(text)), usual),
        }
    }

    /// As `timestamp`, for texts of the form that is met most; `None` may also mean another form, or a pattern.
    #[inline]
    pub fn usual_instant(&self, text: &[u8; 24]) -> Option<i64> {
        match &self.timestamp {
            None => parse_utc_millis(text),
            Some(_) => None,
        }
    }

    /// A timestamp without a zone, in microseconds.
    #[inline]
    pub fn timestamp_ntz(&self, text: &[u8]) -> Option<i64> {
        match &self.timestamp_ntz {
            None => parse_timestamp_ntz(text),
            Some(pattern) => by(text, |text| pattern.read_clock(text)),
        }
    }

    /// A day, counted from 1970-01-01.
    #[inline]
    pub fn date(&self, text: &[u8]) -> Option<i32> {
        match &self.date {
            None => parse_date(text),
            Some(pattern) => {
                let day = by(text, |text| pattern.read_day(text)?.try_into().ok());
                self.or_usual(day, || parse_date(text))
            }
        }
    }

    /// Whether dates may be told in other ways than by a pattern.
    pub fn dates_are_free(&self) -> bool {
        self.date.is_none() || self.falls_back
    }

    fn or_usual<T>(&self, read: Option<T>, usual: impl FnOnce() -> Option<T>) -> Option<T> {
        match read {
            None if self.falls_back => usual(),
            read => read,
        }
    }
}

fn by<T>(text: &[u8], read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    read(std::str::from_utf8(text).ok()?)
}
