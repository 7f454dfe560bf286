//! Dates and timestamps as text, read and written as Spark does.
//!
//! Reading follows Spark's cast from string, which its file formats use unless they are given a pattern: fields may
//! be short (`2024-1-5`), a timestamp may end after any field, a zone follows the seconds. Most timestamps in files
//! are of the fixed width `2024-01-05T10:00:00.123Z`; they take a path without branches per field.

use crate::write;
pub use crate::zone::Zone;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// A run of `least..=most` digits.
pub fn number(digits: &[u8], least: usize, most: usize) -> Option<i64> {
    if digits.len() < least || digits.len() > most || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Hinnant's algorithm: years start in March, so that the leap day is the last day.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn is_date(year: i64, month: i64, day: i64) -> bool {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return false,
    };
    (1..=last).contains(&day)
}

/// Takes `least..=most` digits off the front.
fn take(text: &mut &[u8], least: usize, most: usize) -> Option<i64> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let value = number(&text[..digits], least, most)?;
    *text = &text[digits..];
    Some(value)
}

/// Takes a date off the front: year, then perhaps month and day. What follows is left.
fn take_date(text: &mut &[u8]) -> Option<i64> {
    let sign = match text.first()? {
        b'-' => -1,
        b'+' => 1,
        _ => 0,
    };
    if sign != 0 {
        *text = &text[1..];
    }
    let year = take(text, 4, 6)? * if sign == 0 { 1 } else { sign };
    let (mut month, mut day) = (1, 1);
    if let [b'-', rest @ ..] = text {
        *text = rest;
        month = take(text, 1, 2)?;
        if let [b'-', rest @ ..] = text {
            *text = rest;
            day = take(text, 1, 2)?;
            return is_date(year, month, day).then(|| days_from_civil(year, month, day));
        }
    }
    // Only a full date can be followed by anything.
    (text.is_empty() && is_date(year, month, day)).then(|| days_from_civil(year, month, day))
}

/// Spark's trim: blanks and control characters.
fn trim(text: &[u8]) -> &[u8] {
    let blank = |b: &u8| *b <= b' ' || *b == 0x7f;
    let start = text.iter().position(|b| !blank(b)).unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|b| !blank(b))
        .map_or(start, |at| at + 1);
    &text[start..end]
}

/// Reads a date as days since 1970-01-01. What follows a full date after a blank or a `T` does not matter.
pub fn parse_date(text: &[u8]) -> Option<i32> {
    let mut rest = trim(text);
    let days = take_date(&mut rest)?;
    match rest.first() {
        None | Some(b' ' | b'T') => i32::try_from(days).ok(),
        Some(_) => None,
    }
}

/// Reads a timestamp as microseconds since 1970-01-01 UTC; `zone` is where one without a zone was written.
pub fn parse_timestamp(text: &[u8], zone: &Zone) -> Option<i64> {
    if let Some((local_us, utc)) = fixed_width(text) {
        return match utc || *zone == Zone::UTC {
            true => Some(local_us),
            false => zone.instant(local_us),
        };
    }
    let (local_us, own_zone) = local_timestamp(text)?;
    own_zone.as_ref().unwrap_or(zone).instant(local_us)
}

/// Reads a timestamp without a time zone as microseconds since 1970-01-01; one with a zone is refused.
pub fn parse_timestamp_ntz(text: &[u8]) -> Option<i64> {
    match local_timestamp(text)? {
        (local_us, None) => Some(local_us),
        (_, Some(_)) => None,
    }
}

/// `yyyy-mm-ddThh:mm:ss.fffZ`, the form in which most programs write an instant, as microseconds since 1970-01-01.
/// Eight bytes are taken at a time.
#[inline]
pub fn parse_utc_millis(text: &[u8; 24]) -> Option<i64> {
    /// The number of each two neighbours at the place of the first, if digits are where `form` has zeros and the rest
    /// is as `form` has it.
    #[inline(always)]
    fn pairs(word: &[u8], form: &[u8; 8]) -> Option<[u8; 8]> {
        let word = word.first_chunk()?;
        let mut limits = [0x7f; 8];
        for (limit, byte) in limits.iter_mut().zip(form) {
            if *byte == b'0' {
                *limit = 0x76;
            }
        }
        // What is no digit, or not as it should be, sets its high bit or that of a byte above.
        let values = u64::from_le_bytes(*word) ^ u64::from_le_bytes(*form);
        let marks = values | values.wrapping_add(u64::from_le_bytes(limits));
        let pairs = values.wrapping_mul(10).wrapping_add(values >> 8);
        (marks & 0x8080_8080_8080_8080 == 0).then_some(pairs.to_le_bytes())
    }
    let date = pairs(&text[..8], b"0000-00-")?;
    let hours = pairs(&text[8..16], b"00T00:00")?;
    let seconds = pairs(&text[16..], b":00.000Z")?;
    let year = u32::from(date[0]) * 100 + u32::from(date[2]);
    let days = short_date(year, u32::from(date[5]), u32::from(hours[0]))?;
    let (hour, minute, second) = (hours[3], hours[6], seconds[1]);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let millis = u32::from(seconds[4]) * 10 + u32::from(text[22] - b'0');
    let minutes = u32::from(hour) * 60 + u32::from(minute);
    let millis = (minutes * 60 + u32::from(second)) * 1000 + millis;
    Some(days * DAY + i64::from(millis) * 1000)
}

/// `yyyy-mm-ddThh:mm:ss` with a blank or a T, up to nine fraction digits, and perhaps a `Z`. True if there was one.
fn fixed_width(text: &[u8]) -> Option<(i64, bool)> {
    let (head, tail) = text.split_first_chunk::<19>()?;
    let mut bad = 0u8;
    let mut pair = |at: usize| {
        let (tens, units) = (head[at].wrapping_sub(b'0'), head[at + 1].wrapping_sub(b'0'));
        bad |= u8::from(tens > 9) | u8::from(units > 9);
        u32::from(tens) * 10 + u32::from(units)
    };
    let year = pair(0) * 100 + pair(2);
    let (month, day, hour, minute, second) = (pair(5), pair(8), pair(11), pair(14), pair(17));
    if bad != 0
        || [head[4], head[7], head[13], head[16]] != *b"--::"
        || !matches!(head[10], b'T' | b' ')
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let days = short_date(year, month, day)?;
    let mut us = 0;
    let utc = match tail {
        [] => false,
        [b'Z'] => true,
        [b'.', fraction @ ..] => {
            let (fraction, utc) = match fraction {
                [fraction @ .., b'Z'] => (fraction, true),
                fraction => (fraction, false),
            };
            if fraction.len() > 9 {
                return None;
            }
            for (at, digit) in fraction.iter().enumerate() {
                let digit = digit.wrapping_sub(b'0');
                if digit > 9 {
                    return None;
                }
                if at < 6 {
                    us = us * 10 + i64::from(digit);
                }
            }
            us *= 10i64.pow(6 - fraction.len().min(6) as u32);
            utc
        }
        _ => return None,
    };
    let seconds = days * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    Some((seconds * SECOND + us, utc))
}

/// As `is_date` and `days_from_civil`, for years of four digits: 32 bits are enough, and divide faster.
#[inline]
fn short_date(year: u32, month: u32, day: u32) -> Option<i64> {
    const DAYS: [u8; 16] = [0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0, 0, 0];
    // Zero wraps to a day that no month has.
    if month > 12 || day.wrapping_sub(1) >= u32::from(DAYS[month as usize & 15]) {
        return None;
    }
    let leap = || year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if month == 2 && day == 29 && !leap() {
        return None;
    }
    // Years start in March, 400 years early so that none is negative; 719,468 + 146,097 days before 1970-03-01.
    let (year, month) = match month <= 2 {
        true => (year + 399, month + 9),
        false => (year + 400, month - 3),
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some(i64::from(days) - 865_565)
}

/// The general form: any field may end it, fields may be short, a zone may follow the seconds.
fn local_timestamp(text: &[u8]) -> Option<(i64, Option<Zone>)> {
    let mut rest = trim(text);
    let days = take_date(&mut rest)?;
    let (mut hour, mut minute, mut second, mut us) = (0, 0, 0, 0);
    let mut zone = None;
    if !rest.is_empty() {
        if !matches!(rest[0], b' ' | b'T') {
            return None;
        }
        rest = &rest[1..];
        hour = take(&mut rest, 1, 2)?;
        if let [b':', after @ ..] = rest {
            rest = after;
            minute = take(&mut rest, 1, 2)?;
            if let [b':', after @ ..] = rest {
                rest = after;
                second = take(&mut rest, 1, 2)?;
                if let [b'.', after @ ..] = rest {
                    let digits = after.iter().take_while(|b| b.is_ascii_digit()).count();
                    us = number(&after[..digits.min(6)], 0, 6)?
                        * 10i64.pow(6 - digits.min(6) as u32);
                    rest = &after[digits..];
                }
                if !rest.is_empty() {
                    zone = Some(Zone::parse(std::str::from_utf8(rest).ok()?)?);
                    rest = &[];
                }
            }
        }
        if !rest.is_empty() || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
    }
    let local_us = days
        .checked_mul(DAY)?
        .checked_add((hour * 3600 + minute * 60 + second) * SECOND + us)?;
    Some((local_us, zone))
}

/// The clock of `zone` at an instant; of no zone, the time itself.
fn local(us: i64, zone: Option<&Zone>) -> (i64, i32) {
    let offset = zone.map_or(0, |zone| zone.offset_at(us));
    (us.saturating_add(i64::from(offset) * SECOND), offset)
}

/// Writes a timestamp as Spark's cast to string does: `2024-01-05 10:00:00.12`. No `zone`: it has none.
pub fn push_timestamp(out: &mut String, us: i64, zone: Option<&Zone>) {
    write::push_timestamp(out, local(us, zone).0);
}

/// Writes a timestamp as Spark's files hold it: `2024-01-05T10:00:00.120Z`, milliseconds and the offset.
pub fn push_timestamp_iso(out: &mut String, us: i64, zone: Option<&Zone>) {
    let (local_us, offset) = local(us, zone);
    write::push_timestamp_iso(out, local_us, zone.map(|_| offset));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The instant `text` means in UTC, written back.
    fn check(text: &str, expected: &str) {
        check_in("UTC", text, expected);
    }

    fn check_in(zone: &str, text: &str, expected: &str) {
        let zone = Zone::parse(zone).expect("a zone");
        let mut found = String::new();
        match parse_timestamp(text.as_bytes(), &zone) {
            Some(us) => push_timestamp(&mut found, us, Some(&Zone::UTC)),
            None => found.push_str("no"),
        }
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn timestamps_may_end_after_any_field() {
        check("2024", "2024-01-01 00:00:00");
        check("2024-2", "2024-02-01 00:00:00");
        check("2024-1-5", "2024-01-05 00:00:00");
        check("2024-01-05 7", "2024-01-05 07:00:00");
        check("2024-01-05 7:8", "2024-01-05 07:08:00");
        check("2024-01-05T07:08:09", "2024-01-05 07:08:09");
        check(" 2024-01-05 07:08:09. ", "2024-01-05 07:08:09");
    }

    #[test]
    fn fractions_are_cut_to_microseconds() {
        check("2024-01-05T07:08:09.1", "2024-01-05 07:08:09.1");
        check(
            "2024-01-05T07:08:09.123456789",
            "2024-01-05 07:08:09.123456",
        );
        check(
            "2024-01-05T7:08:09.1234567890Z",
            "2024-01-05 07:08:09.123456",
        );
    }

    #[test]
    fn a_zone_may_follow_the_seconds() {
        check("2024-01-05T07:08:09Z", "2024-01-05 07:08:09");
        check("2024-01-05T07:08:09+02:00", "2024-01-05 05:08:09");
        check("2024-01-05T07:08:09.5-8", "2024-01-05 15:08:09.5");
        check("2024-01-05T07:08:09 +0530", "2024-01-05 01:38:09");
        check("2024-01-05 07:08:09 Europe/Berlin", "2024-01-05 06:08:09");
        check("2024-01-05 07:08:09GMT+1", "2024-01-05 06:08:09");
        check("2024-01-05 07:08Z", "no");
    }

    #[test]
    fn the_session_zone_reads_what_has_none() {
        check_in(
            "Europe/Berlin",
            "2024-07-05T07:08:09",
            "2024-07-05 05:08:09",
        );
        check_in(
            "Europe/Berlin",
            "2024-07-05T07:08:09Z",
            "2024-07-05 07:08:09",
        );
        check_in(
            "Europe/Berlin",
            "2024-03-31T02:30:00",
            "2024-03-31 01:30:00",
        ); // a skipped hour
        check_in(
            "Europe/Berlin",
            "2024-10-27T02:30:00",
            "2024-10-27 00:30:00",
        ); // the first of two
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        for text in [
            "",
            "x",
            "24-01-05",
            "2024-13-01",
            "2024-02-30",
            "2024-01-05x",
            "2024-01-05 25:00:00",
            "2024-01-05T07:08:61",
            "2024-01-05T07:08:09+99:00",
            "12:30:00",
            "2024-01",
            "99999999",
        ] {
            match text {
                "2024-01" => check(text, "2024-01-01 00:00:00"),
                _ => check(text, "no"),
            }
        }
    }

    #[test]
    fn dates_ignore_what_follows_a_blank_or_a_t() {
        assert_eq!(parse_date(b"1970-01-02"), Some(1));
        assert_eq!(parse_date(b"1970-1-2T10:00"), Some(1));
        assert_eq!(parse_date(b"1969-12-31 x"), Some(-1));
        assert_eq!(parse_date(b"1970-01-02x"), None);
        assert_eq!(parse_date(b"2023-02-29"), None);
    }

    #[test]
    fn the_fast_path_agrees_with_the_general_one() {
        let alphabet = b"0123456789-:.TZ +";
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % below
        };
        for _ in 0..200_000 {
            let mut text = *b"2024-02-29T23:59:59.123456Z";
            let text = &mut text[..19 + next(9)];
            for _ in 0..next(3) {
                text[next(text.len())] = alphabet[next(alphabet.len())];
            }
            let general = local_timestamp(text)
                .and_then(|(us, zone)| zone.unwrap_or(Zone::Fixed(3600)).instant(us));
            let found = parse_timestamp(text, &Zone::Fixed(3600));
            assert_eq!(found, general, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn instants_of_the_usual_form_are_what_the_general_one_says() {
        let usual = *b"2024-02-29T23:59:58.127Z";
        for place in 0..usual.len() {
            for byte in 0..=255 {
                let mut text = usual;
                text[place] = byte;
                let general = local_timestamp(&text)
                    .and_then(|(us, zone)| zone.unwrap_or(Zone::Fixed(3600)).instant(us));
                // The general one takes more: a blank for the T, no Z.
                let of_form = byte.is_ascii_digit() && usual[place].is_ascii_digit();
                let expected = general.filter(|_| byte == usual[place] || of_form);
                let shown = String::from_utf8_lossy(&text);
                assert_eq!(parse_utc_millis(&text), expected, "{shown}");
            }
        }
    }

    #[test]
    fn short_dates_are_dates() {
        for year in 0..10_000 {
            for (month, day) in
                (0..100).flat_map(|month| [0, 1, 28, 29, 30, 31, 32].map(|day| (month, day)))
            {
                let (y, m, d) = (i64::from(year), i64::from(month), i64::from(day));
                let expected = is_date(y, m, d).then(|| days_from_civil(y, m, d));
                assert_eq!(
                    short_date(year, month, day),
                    expected,
                    "{year} {month} {day}"
                );
            }
        }
    }

    #[test]
    fn dates_that_are_written_are_read_back() {
        let mut date = String::new();
        for days in (-700_000..3_000_000).step_by(37) {
            date.clear();
            write::push_date(&mut date, i64::from(days));
            assert_eq!(parse_date(date.as_bytes()), Some(days), "{date}");
        }
    }

    #[test]
    fn files_hold_milliseconds_and_the_offset() {
        let mut out = String::new();
        push_timestamp_iso(&mut out, 1_704_067_200_120_999, Some(&Zone::UTC));
        out.push(' ');
        push_timestamp_iso(
            &mut out,
            1_704_067_200_000_000,
            Zone::parse("-03:30").as_ref(),
        );
        out.push(' ');
        push_timestamp_iso(&mut out, -1, None);
        assert_eq!(
            out,
            "2024-01-01T00:00:00.120Z 2023-12-31T20:30:00.000-03:30 1969-12-31T23:59:59.999"
        );
    }
}
