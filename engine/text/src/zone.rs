//! Time zones: between what clocks show and instants.

use chrono::{LocalResult, NaiveDateTime, Offset, TimeZone};

use crate::time::number;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// What turns a local time into an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// Seconds east of Greenwich.
    Fixed(i32),
    /// A region with its own rules.
    Region(chrono_tz::Tz),
}

impl Zone {
    /// Greenwich.
    pub const UTC: Zone = Zone::Fixed(0);

    /// Reads `Z`, `+02:00`, `-8`, `+0530`, `GMT+1`, `UTC`, `Europe/Berlin`.
    pub fn parse(text: &str) -> Option<Zone> {
        let text = text.trim();
        if text == "Z" {
            return Some(Zone::UTC);
        }
        let rest = ["UTC", "GMT", "UT"]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix))
            .unwrap_or(text);
        if rest.is_empty() && !text.is_empty() {
            return Some(Zone::UTC);
        }
        match rest.as_bytes().first()? {
            b'+' | b'-' => fixed_offset(rest.as_bytes()),
            _ => text.parse().ok().map(Zone::Region),
        }
    }

    /// The instant at which clocks here show `local_us`. One that is skipped moves forward by the gap; of two, the
    /// earlier one.
    pub fn instant(&self, local_us: i64) -> Option<i64> {
        match self {
            Zone::Fixed(seconds) => local_us.checked_sub(i64::from(*seconds) * SECOND),
            Zone::Region(region) => {
                let local = naive(local_us)?;
                let offset = match region.offset_from_local_datetime(&local) {
                    LocalResult::Single(offset) | LocalResult::Ambiguous(offset, _) => offset.fix(),
                    // In a gap Java applies the offset from before it.
                    LocalResult::None => region
                        .offset_from_local_datetime(&naive(local_us - DAY)?)
                        .earliest()?
                        .fix(),
                };
                local_us.checked_sub(i64::from(offset.local_minus_utc()) * SECOND)
            }
        }
    }

    /// Seconds east of Greenwich at an instant.
    pub fn offset_at(&self, instant_us: i64) -> i32 {
        match self {
            Zone::Fixed(seconds) => *seconds,
            Zone::Region(region) => naive(instant_us).map_or(0, |utc| {
                region
                    .offset_from_utc_datetime(&utc)
                    .fix()
                    .local_minus_utc()
            }),
        }
    }

    /// The zone of that name: `Z`, `+02:00`, `UTC+2`, `Europe/Berlin`.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.trim();
        if matches!(name, "Z" | "z" | "UTC" | "GMT" | "UT") {
            return Some(Zone::Fixed(0));
        }
        let offset = ["UTC", "GMT", "UT"]
            .iter()
            .find_map(|p| name.strip_prefix(p))
            .unwrap_or(name);
        if let Some(digits) = offset.strip_prefix(['+', '-']) {
            let mut parts = digits.split(':');
            let mut next = |max: i32| match parts.next() {
                None => Some(0),
                Some(p) if matches!(p.len(), 1 | 2) => {
                    p.parse().ok().filter(|n| (0..=max).contains(n))
                }
                Some(_) => None,
            };
            let seconds = next(18)? * 3600 + next(59)? * 60 + next(59)?;
            if parts.next().is_some() {
                return None;
            }
            return Some(Zone::Fixed(if offset.starts_with('-') {
                -seconds
            } else {
                seconds
            }));
        }
        name.parse().ok().map(Zone::Region)
    }

    /// What the zone adds to a kernel's identity.
    pub fn suffix(self) -> String {
        match self {
            Zone::Fixed(0) => String::new(),
            Zone::Fixed(seconds) => format!(" at {seconds}"),
            Zone::Region(tz) => format!(" at {tz}"),
        }
    }

    /// The wall clock's microseconds at an instant.
    pub fn to_local(self, micros: i64) -> i64 {
        let seconds = match self {
            Zone::Fixed(seconds) => seconds,
            Zone::Region(tz) => match chrono::DateTime::from_timestamp_micros(micros) {
                Some(instant) => tz
                    .offset_from_utc_datetime(&instant.naive_utc())
                    .fix()
                    .local_minus_utc(),
                None => 0,
            },
        };
        micros.saturating_add(i64::from(seconds) * 1_000_000)
    }

    /// The instant at which the wall clock shows so many microseconds; the earlier of two, and across a gap the later.
    pub fn to_utc(self, local: i64) -> i64 {
        let seconds = match self {
            Zone::Fixed(seconds) => i64::from(seconds),
            Zone::Region(tz) => {
                let Some(wall) = chrono::DateTime::from_timestamp_micros(local) else {
                    return local;
                };
                let wall = wall.naive_utc();
                match tz.offset_from_local_datetime(&wall) {
                    LocalResult::Single(offset) | LocalResult::Ambiguous(offset, _) => {
                        i64::from(offset.fix().local_minus_utc())
                    }
                    LocalResult::None => {
                        // Java takes the offset before the gap, which lands after it.
                        let before = wall
                            .checked_sub_signed(chrono::TimeDelta::hours(3))
                            .unwrap_or(wall);
                        i64::from(
                            tz.offset_from_local_datetime(&before)
                                .earliest()
                                .map_or(0, |o| o.fix().local_minus_utc()),
                        )
                    }
                }
            }
        };
        local.saturating_sub(seconds * 1_000_000)
    }
}

fn naive(us: i64) -> Option<NaiveDateTime> {
    chrono::DateTime::from_timestamp_micros(us).map(|utc| utc.naive_utc())
}

/// `+h`, `+hh`, `+h:m`, `+hh:mm`, `+hhmm`, `+hh:mm:ss`, `+hhmmss`; at most 18 hours.
fn fixed_offset(text: &[u8]) -> Option<Zone> {
    let (sign, digits) = match text {
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let mut parts = [0i64; 3];
    if digits.contains(&b':') {
        let mut fields = digits.split(|b| *b == b':');
        for part in &mut parts {
            let Some(field) = fields.next() else { break };
            *part = number(field, 1, 2)?;
        }
        if fields.next().is_some() {
            return None;
        }
    } else {
        match digits.len() {
            1 | 2 => parts[0] = number(digits, 1, 2)?,
            4 | 6 => {
                for (part, pair) in parts.iter_mut().zip(digits.chunks(2)) {
                    *part = number(pair, 2, 2)?;
                }
            }
            _ => return None,
        }
    }
    let [hours, minutes, seconds] = parts;
    if hours > 18 || minutes > 59 || seconds > 59 {
        return None;
    }
    Some(Zone::Fixed(
        (sign * (hours * 3600 + minutes * 60 + seconds)) as i32,
    ))
}
