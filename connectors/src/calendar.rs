//! The calendar of the time itself: Julius Caesar's up to 1582-10-04, ours from the day after, 1582-10-15, on. Java's
//! old classes count days by it, and so do ORC files and those that old versions of Spark wrote. The engine counts by
//! ours at all times; a day keeps the date that it shows.

use highwater_text::time::days_from_civil;

/// 1582-10-15, the first day of our calendar.
const FIRST: i64 = -141_427;
/// 1582-10-05 by our calendar, the first of the dates that were left out.
const LEFT_OUT: i64 = -141_437;
/// From 0000-03-01 by Caesar's calendar to 1970-01-01.
const CAESAR_DAYS: i64 = 719_470;
const DAY_US: i64 = 86_400_000_000;

/// The first microsecond of our calendar.
pub(crate) const FIRST_US: i64 = FIRST * DAY_US;

/// The day of our calendar with the date that day `days` has in the other one.
pub(crate) fn from_hybrid(days: i64) -> i64 {
    if days >= FIRST {
        return days;
    }
    // Years start in March, so that the leap day is the last day.
    let day = days + CAESAR_DAYS;
    let day_of_four = day.rem_euclid(1461);
    let year_of_four = (day_of_four / 365).min(3);
    let day_of_year = day_of_four - 365 * year_of_four;
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5;
    let year = day.div_euclid(1461) * 4 + year_of_four + i64::from(month > 9);
    // Counted from the first of the month: our calendar lacks some of Caesar's leap days.
    days_from_civil(year, (month + 2) % 12 + 1, 1) + day_of_month
}

/// The day of the other calendar with the date that day `days` has in ours; of dates that were left out, the first
/// one behind them.
pub(crate) fn to_hybrid(days: i64) -> i64 {
    if days >= LEFT_OUT {
        return days.max(FIRST);
    }
    let day = days + 719_468;
    let day_of_era = day.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let year = day.div_euclid(146_097) * 400 + year_of_era;
    365 * year + year.div_euclid(4) + day_of_year - CAESAR_DAYS
}

/// As `from_hybrid`, of what a clock shows, in microseconds.
pub(crate) fn from_hybrid_us(us: i64) -> Option<i64> {
    moved(us, from_hybrid)
}

/// As `to_hybrid`, of what a clock shows, in microseconds.
pub(crate) fn to_hybrid_us(us: i64) -> Option<i64> {
    moved(us, to_hybrid)
}

fn moved(us: i64, day: fn(i64) -> i64) -> Option<i64> {
    if us >= FIRST_US {
        return Some(us);
    }
    let (days, rest) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
    day(days).checked_mul(DAY_US)?.checked_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A date by our calendar, and its day by the other one, as Java tells it.
    #[test]
    fn dates_stay_what_they_are() {
        for (date, hybrid) in [
            ((1970, 1, 1), 0),
            ((1582, 10, 15), -141_427),
            ((1582, 10, 4), -141_428),
            ((1500, 3, 1), -171_595),
            ((1500, 2, 28), -171_597),
            ((1001, 1, 1), -353_914),
            ((4, 2, 29), -718_010),
            ((1, 1, 1), -719_164),
        ] {
            let (year, month, day) = date;
            let days = days_from_civil(year, month, day);
            assert_eq!(to_hybrid(days), hybrid, "{date:?}");
            assert_eq!(from_hybrid(hybrid), days, "{date:?}");
        }
        // 1500 had a leap day.
        assert_eq!(from_hybrid(-171_596), days_from_civil(1500, 3, 1));
        assert_eq!(to_hybrid(days_from_civil(1582, 10, 10)), FIRST);
        assert_eq!(from_hybrid_us(-1), Some(-1));
        assert_eq!(
            from_hybrid_us(FIRST_US - 1),
            Some(FIRST_US - 10 * DAY_US - 1)
        );
        assert_eq!(to_hybrid_us(i64::MIN), None);
    }

    #[test]
    fn every_day_of_ours_has_one_of_the_others() {
        for days in (-3_000_000..LEFT_OUT).step_by(7) {
            assert_eq!(from_hybrid(to_hybrid(days)), days);
        }
        assert_eq!(to_hybrid(LEFT_OUT - 1), FIRST - 1);
    }
}
