//! Java's date and time patterns: `yyyy-MM-dd HH:mm:ss.SSS`.

use crate::Zone;
use crate::calendar::{self, Civil, DAY};

/// One part of a pattern.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    /// A letter and how often it stands.
    Field(char, usize),
    OptionalStart,
    OptionalEnd,
}

/// A pattern taken apart.
#[derive(Debug, Clone)]
pub struct Pattern {
    parts: Vec<Part>,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// `January`, of 1.
pub fn month_name(month: i64) -> &'static str {
    MONTHS[(month - 1).clamp(0, 11) as usize]
}

/// The name of the weekday of a day, counted from 1970-01-01.
pub fn weekday_name(days: i64) -> &'static str {
    WEEKDAYS[calendar::weekday(days) as usize]
}

/// A pattern and the zone whose clock it shows, for files.
#[derive(Debug, Clone)]
pub struct TimePattern {
    pattern: Pattern,
    zone: Zone,
}

impl TimePattern {
    /// Understands a pattern like `dd.MM.yyyy HH:mm` by which times are written; an error says what is wrong with it or
    /// not supported.
    pub fn new(pattern: &str, zone: &str) -> Result<Self, String> {
        Self::parse(pattern, zone, false)
    }

    /// Understands a pattern by which times are read: not all that can be written can be.
    pub fn reading(pattern: &str, zone: &str) -> Result<Self, String> {
        Self::parse(pattern, zone, true)
    }

    fn parse(pattern: &str, zone: &str, parsing: bool) -> Result<Self, String> {
        let zone = Zone::named(zone).ok_or_else(|| format!("there is no time zone \"{zone}\""))?;
        match Pattern::parse(pattern, parsing) {
            Ok(pattern) => Ok(TimePattern { pattern, zone }),
            Err(Bad::Row(class, what)) => Err(format!("[{class}] {what}")),
            Err(Bad::Unsupported(what)) => Err(format!("{what} is not supported")),
        }
    }

    /// Writes an instant, in microseconds.
    pub fn push(&self, out: &mut String, us: i64) {
        out.push_str(&self.pattern.format(self.zone.to_local(us), us, self.zone));
    }

    /// The instant that `text` says, in microseconds, if it is just what the pattern describes.
    pub fn read(&self, text: &str) -> Option<i64> {
        self.pattern.read(text, self.zone)
    }

    /// The day that `text` says, counted from 1970-01-01: that of its own clock, whatever its zone.
    pub fn read_day(&self, text: &str) -> Option<i64> {
        let local = self.pattern.fields(text)?.local()?;
        Some(local.div_euclid(DAY))
    }

    /// What the clock shows that `text` tells of, in microseconds; `None` also if it tells a zone.
    pub fn read_clock(&self, text: &str) -> Option<i64> {
        let fields = self.pattern.fields(text)?;
        match fields.zone {
            None => fields.local(),
            Some(_) => None,
        }
    }
}

/// What a pattern is wrong about: an error of every row, or something that is not built.
pub enum Bad {
    /// The class of the error, and its text.
    Row(&'static str, String),
    /// What is not built.
    Unsupported(String),
}

impl Pattern {
    /// Takes a pattern apart by which moments are written, or read.
    pub fn parse(text: &str, parsing: bool) -> Result<Self, Bad> {
        let mut parts = vec![];
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\'' => {
                    let mut literal = String::new();
                    loop {
                        match chars.next() {
                            Some('\'') if chars.peek() == Some(&'\'') => {
                                chars.next();
                                literal.push('\'');
                            }
                            Some('\'') => break,
                            Some(other) => literal.push(other),
                            None => {
                                return Err(Bad::Row(
                                    "INVALID_DATETIME_PATTERN",
                                    format!("Unrecognized datetime pattern: {text}."),
                                ));
                            }
                        }
                    }
                    parts.push(Part::Text(if literal.is_empty() {
                        "'".into()
                    } else {
                        literal
                    }));
                }
                '[' => parts.push(Part::OptionalStart),
                ']' => parts.push(Part::OptionalEnd),
                c if c.is_ascii_alphabetic() => {
                    let mut count = 1;
                    while chars.peek() == Some(&c) {
                        chars.next();
                        count += 1;
                    }
                    check(c, count, text, parsing)?;
                    parts.push(Part::Field(c, count));
                }
                '#' | '{' | '}' => {
                    return Err(Bad::Row(
                        "INVALID_DATETIME_PATTERN.ILLEGAL_CHARACTER",
                        format!("Unrecognized datetime pattern: {text}."),
                    ));
                }
                c => parts.push(Part::Text(c.to_string())),
            }
        }
        Ok(Pattern { parts })
    }

    /// The moment as text: `micros` on the wall clock of `zone`.
    pub fn format(&self, local: i64, utc: i64, zone: Zone) -> String {
        let (days, time) = (local.div_euclid(DAY), local.rem_euclid(DAY));
        let date = Civil::of(days);
        let seconds = time / 1_000_000;
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let mut out = String::new();
        for part in &self.parts {
            let (letter, count) = match part {
                Part::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Part::OptionalStart | Part::OptionalEnd => continue,
                Part::Field(letter, count) => (*letter, *count),
            };
            let number = |value: i64| format!("{value:0count$}");
            let text = match letter {
                'y' | 'u' if count == 2 => format!("{:02}", date.year.rem_euclid(100)),
                'y' | 'u' => match date.year {
                    year if count >= 4 && year > 10i64.pow(count as u32) - 1 => format!("+{year}"),
                    year if year < 0 => format!("-{:0count$}", -year),
                    year => number(year),
                },
                'M' | 'L' => match count {
                    1 | 2 => number(date.month),
                    3 => month_name(date.month)[..3].to_string(),
                    _ => month_name(date.month).to_string(),
                },
                'd' => number(date.day),
                'D' => number(calendar::day_of_year(days)),
                'Q' | 'q' => match count {
                    1 | 2 => number(date.quarter()),
                    3 => format!("Q{}", date.quarter()),
                    _ => format!(
                        "{} quarter",
                        ["1st", "2nd", "3rd", "4th"][date.quarter() as usize - 1]
                    ),
                },
                'E' if count < 4 => weekday_name(days)[..3].to_string(),
                'E' => weekday_name(days).to_string(),
                'a' => (if hour < 12 { "AM" } else { "PM" }).to_string(),
                'h' => number(if hour % 12 == 0 { 12 } else { hour % 12 }),
                'K' => number(hour % 12),
                'k' => number(if hour == 0 { 24 } else { hour }),
                'H' => number(hour),
                'm' => number(minute),
                's' => number(second),
                'S' => format!("{:06}000", time % 1_000_000)[..count].to_string(),
                'V' => match zone {
                    Zone::Fixed(0) => "UTC".to_string(),
                    Zone::Fixed(seconds) => offset(seconds, 3, ""),
                    Zone::Region(tz) => tz.to_string(),
                },
                'X' => offset(((local - utc) / 1_000_000) as i32, count, "Z"),
                _ => offset(((local - utc) / 1_000_000) as i32, count, ""),
            };
            out.push_str(&text);
        }
        out
    }

    /// The moment that `text` says, if it is just what the pattern describes.
    pub fn read(&self, text: &str, zone: Zone) -> Option<i64> {
        let fields = self.fields(text)?;
        let zone = fields.zone.unwrap_or(zone);
        Some(zone.to_utc(fields.local()?))
    }

    /// What is wrong with a text that is not read, as the model goes on after "could not be parsed".
    pub fn fault(&self, text: &str) -> String {
        let mut fields = Fields {
            left: text.len(),
            ..Fields::default()
        };
        let index = |left: usize| text[..text.len() - left].encode_utf16().count();
        match fields.read(&self.parts, text) {
            None => format!(" at index {}", index(fields.left)),
            Some("") => match fields.wrong_value() {
                Some(wrong) => format!(": {wrong}"),
                None => String::new(),
            },
            Some(rest) => format!(", unparsed text found at index {}", index(rest.len())),
        }
    }

    /// What `text` says, if it is just what the pattern describes.
    fn fields(&self, text: &str) -> Option<Fields> {
        let mut fields = Fields::default();
        let rest = fields.read(&self.parts, text)?;
        rest.is_empty().then_some(fields)
    }
}

/// Refuses the letters that Spark refuses, and those that are not built.
fn check(letter: char, count: usize, pattern: &str, parsing: bool) -> Result<(), Bad> {
    let crossing = || {
        let message = format!("Fail to recognize '{pattern}' pattern in the DateTimeFormatter.");
        Err(Bad::Row(
            "INCONSISTENT_BEHAVIOR_CROSS_VERSION.DATETIME_PATTERN_RECOGNITION",
            message,
        ))
    };
    let wrong = || {
        Err(Bad::Row(
            "INCONSISTENT_BEHAVIOR_CROSS_VERSION.DATETIME_PATTERN_RECOGNITION",
            format!("Too many pattern letters: {letter} in '{pattern}'."),
        ))
    };
    match letter {
        'Y' | 'W' | 'w' | 'c' | 'e' | 'A' | 'n' | 'N' | 'p' => crossing(),
        'E' | 'F' if parsing => crossing(),
        'Q' | 'q' if parsing => Err(Bad::Row(
            "INVALID_DATETIME_PATTERN.ILLEGAL_CHARACTER",
            format!(
                "Unrecognized datetime pattern: {pattern}. Illegal pattern character found in datetime pattern: {letter}. \
                 Please provide legal character."
            ),
        )),
        'y' if count <= 6 => Ok(()),
        'M' | 'L' | 'E' | 'Q' | 'q' if count <= 4 => Ok(()),
        'd' | 'h' | 'H' | 'k' | 'K' | 'm' | 's' if count <= 2 => Ok(()),
        'D' if count <= 3 => Ok(()),
        'a' if count == 1 => Ok(()),
        'S' if count <= 9 => Ok(()),
        'X' | 'x' if count <= 3 => Ok(()),
        'V' if count == 2 => Ok(()),
        'y' | 'M' | 'L' | 'E' | 'Q' | 'q' | 'd' | 'h' | 'H' | 'k' | 'K' | 'm' | 's' | 'D' | 'a'
        | 'S' => wrong(),
        _ => Err(Bad::Unsupported(format!("the time pattern '{pattern}'"))),
    }
}

fn offset(seconds: i32, count: usize, zero: &str) -> String {
    if seconds == 0 && !zero.is_empty() {
        return zero.to_string();
    }
    let sign = if seconds < 0 { '-' } else { '+' };
    let (h, m) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
    match count {
        1 if m == 0 => format!("{sign}{h:02}"),
        1 | 2 => format!("{sign}{h:02}{m:02}"),
        _ => format!("{sign}{h:02}:{m:02}"),
    }
}

/// What was read so far.
#[derive(Debug, Default, Clone)]
struct Fields {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    hour: Option<i64>,
    half: Option<i64>,
    /// From 0 to 11.
    half_hour: Option<i64>,
    /// From 1 to 12.
    clock_hour: Option<i64>,
    minute: Option<i64>,
    second: Option<i64>,
    micro: Option<i64>,
    zone: Option<Zone>,
    /// How many bytes of the text are behind the part that was read last.
    left: usize,
}

/// Whether numbers side by side, of which `parts` are all but the first, go on into a fraction. A year before them
/// takes the digits of the fraction too, as Java reads it, and so is none.
fn ends_in_fraction(parts: &[Part]) -> bool {
    let numbers = parts.iter().map_while(|part| match part {
        Part::Field('M' | 'L', 3..) => None,
        Part::Field(letter, _) if "MLdHhkKmsS".contains(*letter) => Some(*letter),
        _ => None,
    });
    numbers.into_iter().any(|letter| letter == 'S')
}

impl Fields {
    fn read<'t>(&mut self, parts: &[Part], text: &'t str) -> Option<&'t str> {
        let mut rest = text;
        let mut i = 0;
        while i < parts.len() {
            self.left = rest.len();
            match &parts[i] {
                Part::Text(wanted) => rest = rest.strip_prefix(wanted.as_str())?,
                Part::OptionalStart => {
                    let mut depth = 1;
                    let end = (i + 1..parts.len()).find(|&j| {
                        match parts[j] {
                            Part::OptionalStart => depth += 1,
                            Part::OptionalEnd => depth -= 1,
                            _ => {}
                        }
                        depth == 0
                    });
                    let end = end.unwrap_or(parts.len());
                    let mut attempt = self.clone();
                    if let Some(after) = attempt.read(&parts[i + 1..end], rest) {
                        *self = attempt;
                        rest = after;
                    }
                    i = end;
                }
                Part::OptionalEnd => {}
                Part::Field(letter, count) => {
                    if matches!(letter, 'y' | 'u') && ends_in_fraction(&parts[i + 1..]) {
                        return None;
                    }
                    // Numbers that stand side by side have just the width they are written with.
                    let followed = matches!(parts.get(i + 1), Some(Part::Field(next, _)) if next.is_ascii_lowercase() || matches!(next, 'M' | 'H' | 'S'));
                    rest = self.field(*letter, *count, followed, rest)?;
                }
            }
            i += 1;
        }
        Some(rest)
    }

    fn field<'t>(
        &mut self,
        letter: char,
        count: usize,
        followed: bool,
        text: &'t str,
    ) -> Option<&'t str> {
        let number = |least: usize, most: usize| -> Option<(i64, &'t str)> {
            let end = text
                .bytes()
                .take(most)
                .position(|b| !b.is_ascii_digit())
                .unwrap_or(most.min(text.len()));
            if end < least {
                return None;
            }
            Some((text[..end].parse().ok()?, &text[end..]))
        };
        let plain = |most: usize| {
            if count == 1 && !followed {
                number(1, most)
            } else {
                number(count, count.max(1))
            }
        };
        let (slot, read) = match letter {
            'y' | 'u' if count == 2 => {
                let (value, rest) = number(2, 2)?;
                self.year = Some(2000 + value);
                return Some(rest);
            }
            'y' | 'u' => {
                let (negative, digits) = match text.strip_prefix('-') {
                    Some(digits) => (true, digits),
                    None => (false, text.strip_prefix('+').unwrap_or(text)),
                };
                let most = if followed { count } else { 9 };
                let end = digits
                    .bytes()
                    .take(most)
                    .position(|b| !b.is_ascii_digit())
                    .unwrap_or(most.min(digits.len()));
                if end < count.min(4) || end > count && count >= 4 && !text.starts_with(['+', '-'])
                {
                    return None;
                }
                let year: i64 = digits[..end].parse().ok()?;
                self.year = Some(if negative { -year } else { year });
                return Some(&digits[end..]);
            }
            'M' | 'L' if count > 2 => {
                let width = |month: &str| if count == 3 { 3 } else { month.len() };
                let found = MONTHS.iter().position(|month| {
                    let width = width(month);
                    text.get(..width)
                        .is_some_and(|text| text.eq_ignore_ascii_case(&month[..width]))
                })?;
                self.month = Some(found as i64 + 1);
                return Some(&text[width(MONTHS[found])..]);
            }
            'a' => {
                self.half = Some(match text.get(..2)?.to_ascii_uppercase().as_str() {
                    "AM" => 0,
                    "PM" => 12,
                    _ => return None,
                });
                return Some(&text[2..]);
            }
            'S' => {
                // The text may have fewer digits: `.5` is half a second.
                let (value, rest) = number(1, count)?;
                let digits = (text.len() - rest.len()) as u32;
                let micro = match digits <= 6 {
                    true => value * 10i64.pow(6 - digits),
                    false => value / 10i64.pow(digits - 6),
                };
                let before = self.micro.replace(micro);
                return before.is_none_or(|before| before == micro).then_some(rest);
            }
            'X' | 'x' | 'V' => {
                let end = text
                    .find(|c: char| {
                        !(c.is_alphanumeric() || matches!(c, '+' | '-' | ':' | '/' | '_'))
                    })
                    .unwrap_or(text.len());
                let name = &text[..end];
                if letter == 'x' && name == "Z"
                    || letter == 'X' && name.starts_with(|c: char| c.is_alphabetic() && c != 'Z')
                {
                    return None;
                }
                // `+0200`: the pattern says whether there is a colon.
                let hours = name.strip_prefix(['+', '-']);
                let spelled = match hours.and_then(|_| Some((name.get(..3)?, name.get(3..5)?))) {
                    Some((hours, minutes)) if name.len() == 5 => format!("{hours}:{minutes}"),
                    _ => name.to_string(),
                };
                self.zone = Some(Zone::named(&spelled)?);
                return Some(&text[end..]);
            }
            'M' | 'L' => (&mut self.month, plain(2)),
            'd' => (&mut self.day, plain(2)),
            'D' => (&mut self.day_of_year, number(count, 3)),
            'H' => (&mut self.hour, plain(2)),
            'k' => (
                &mut self.hour,
                plain(2).map(|(v, r)| (if v == 24 { 0 } else { v }, r)),
            ),
            'h' => (&mut self.clock_hour, plain(2)),
            'K' => (&mut self.half_hour, plain(2)),
            'm' => (&mut self.minute, plain(2)),
            's' => (&mut self.second, plain(2)),
            _ => return None,
        };
        let (value, rest) = read?;
        *slot = Some(value);
        Some(rest)
    }

    /// What is wrong with the numbers that were read, as Java says it.
    fn wrong_value(&self) -> Option<String> {
        let ranges = [
            (self.month, "MonthOfYear", 1, 12),
            (self.day, "DayOfMonth", 1, 31),
            (self.hour, "HourOfDay", 0, 23),
            (self.half_hour, "HourOfAmPm", 0, 11),
            (self.clock_hour, "ClockHourOfAmPm", 1, 12),
            (self.minute, "MinuteOfHour", 0, 59),
            (self.second, "SecondOfMinute", 0, 59),
        ];
        for (value, name, low, high) in ranges {
            if let Some(value) = value.filter(|value| !(low..=high).contains(value)) {
                return Some(format!(
                    "Invalid value for {name} (valid values {low} - {high}): {value}"
                ));
            }
        }
        let year = self.year.unwrap_or(1970);
        let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
        if self.day_of_year.is_some() || day <= calendar::month_length(year, month) {
            return None;
        }
        Some(match (month, day) {
            (2, 29) => format!("Invalid date 'February 29' as '{year}' is not a leap year"),
            _ => format!("Invalid date '{} {day}'", month_name(month).to_uppercase()),
        })
    }

    /// What the clock showed.
    fn local(&self) -> Option<i64> {
        let year = self.year.unwrap_or(1970);
        let (month, day) = match self.day_of_year {
            None => (self.month.unwrap_or(1), self.day.unwrap_or(1)),
            Some(number) => {
                let (mut month, mut day) = (1, number);
                while month < 12 && day > calendar::month_length(year, month) {
                    day -= calendar::month_length(year, month);
                    month += 1;
                }
                // What else is said of the date must agree.
                if self.month.is_some_and(|said| said != month)
                    || self.day.is_some_and(|said| said != day)
                {
                    return None;
                }
                (month, day)
            }
        };
        if !(1..=12).contains(&month) || day < 1 || day > calendar::month_length(year, month) {
            return None;
        }
        if self.wrong_value().is_some() {
            return None;
        }
        let half_hour = self.half_hour.or(self.clock_hour.map(|hour| hour % 12));
        let hour = match (self.hour, half_hour, self.half) {
            (Some(hour), ..) => hour,
            (None, Some(hour), half) => hour + half.unwrap_or(0),
            (None, None, _) => 0,
        };
        let (minute, second) = (self.minute.unwrap_or(0), self.second.unwrap_or(0));
        let time = ((hour * 60 + minute) * 60 + second) * 1_000_000 + self.micro.unwrap_or(0);
        Civil { year, month, day }
            .days()
            .checked_mul(DAY)?
            .checked_add(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UTC: Zone = Zone::Fixed(0);

    #[track_caller]
    fn check(pattern: &str, micros: i64, text: &str) {
        let Ok(pattern) = Pattern::parse(pattern, false) else {
            panic!("{pattern}")
        };
        assert_eq!(pattern.format(micros, micros, UTC), text);
        assert_eq!(pattern.read(text, UTC), Some(micros));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let moment = 1_709_214_330_123_456;
        check(
            "yyyy-MM-dd HH:mm:ss.SSSSSS",
            moment,
            "2024-02-29 13:45:30.123456",
        );
        check(
            "yyyyMMdd'T'HHmmss.SSSSSSX",
            moment,
            "20240229T134530.123456Z",
        );
        check(
            "MMM d, yyyy h:mm:ss.SSSSSS a",
            moment,
            "Feb 29, 2024 1:45:30.123456 PM",
        );
        check("d MMMM yyyy", 19_782 * DAY, "29 February 2024");
        check("yyyy-MM-dd[ HH:mm]xxx", 0, "1970-01-01 00:00+00:00");
    }

    #[test]
    fn files_have_instants_days_and_clocks() {
        let pattern = |text| TimePattern::reading(text, "Europe/Berlin").unwrap();
        let local = pattern("dd.MM.yyyy HH:mm");
        assert_eq!(local.read("01.07.2024 12:00"), Some(1_719_828_000_000_000));
        assert_eq!(
            local.read_clock("01.07.2024 12:00"),
            Some(1_719_835_200_000_000)
        );
        let zoned = pattern("yyyy-MM-dd HHxx");
        assert_eq!(zoned.read("1970-01-01 00+0200"), Some(-7_200_000_000));
        assert_eq!(zoned.read_day("1970-01-01 00+0200"), Some(0));
        assert_eq!(zoned.read_clock("1970-01-01 00+0200"), None);
        assert_eq!(pattern("d MMM yyyy").read_day("2 jan 1970"), Some(1));
        assert!(TimePattern::reading("E", "UTC").is_err());
        assert!(TimePattern::new("E", "UTC").is_ok());
    }

    #[test]
    fn what_does_not_fit_is_not_read() {
        let read = |pattern: &str, text: &str| {
            Pattern::parse(pattern, true)
                .ok()
                .and_then(|p| p.read(text, UTC))
        };
        assert_eq!(read("yyyy-MM-dd", "2024-2-8"), None);
        assert_eq!(read("yyyy-MM-dd", "2024-02-30"), None);
        assert_eq!(read("yyyy-MM-dd", "2024-02-08 "), None);
        assert_eq!(read("yyyy-M-d", "2024-2-8"), Some(19_761 * DAY));
        assert_eq!(read("yyyy[-MM]", "2024"), Some(19_723 * DAY));
    }

    #[test]
    fn fractions_may_be_shorter_than_their_pattern() {
        let read = |pattern: &str, text: &str| {
            Pattern::parse(pattern, true)
                .ok()
                .and_then(|p| p.read(text, UTC))
        };
        let at = |us: i64| Some(1_704_449_472_000_000 + us);
        let seconds = "yyyy-MM-dd HH:mm:ss";
        let check = |fraction: &str, text: &str, expected| {
            let text = format!("2024-01-05 10:11:12{text}");
            let found = read(&format!("{seconds}{fraction}"), &text);
            assert_eq!(found, expected, "{fraction} {text}");
        };
        check(".SSS", ".5", at(500_000));
        check(".SSSSSS", ".567", at(567_000));
        check("[.SSS]", ".5", at(500_000));
        check("[.SSS]", "", at(0));
        check(".SSSSSSS", ".1234567", at(123_456));
        check(".SSSSSSSSS", ".12345678", at(123_456));
        check(".SSSXXX", ".567+02:00", at(567_000 - 7_200_000_000));
        check(".SSS 'SS'", ".567 SS", at(567_000));
        check(".SSS", ".", None);
        check(".S", "", None);
        check(".SSS", ".1234", None);
        check(".SSS S", ".567 5", None);
        assert_eq!(
            read("SSS yyyy-MM-dd HH:mm:ss", "5 2024-01-05 10:11:12"),
            at(500_000)
        );
        // As Java has it, the year takes what a fraction of no fixed length leaves.
        assert_eq!(read("yyyyMMddHHmmssSSS", "20240105101112567"), None);
        assert_eq!(
            read("yyyyMMddHHmmss.SSS", "20240105101112.567"),
            at(567_000)
        );
        assert_eq!(read("HHmmssSSS", "00000156"), Some(1_560_000));
    }
}
