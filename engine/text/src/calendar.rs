//! The proleptic Gregorian calendar, for every day that 32 bits can count.

/// Microseconds in a day.
pub const DAY: i64 = 86_400_000_000;

/// A day as year, month and day of the month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    /// Before year 1 there is year 0.
    pub year: i64,
    /// From 1.
    pub month: i64,
    /// From 1.
    pub day: i64,
}

impl Civil {
    /// The day that is so many days after 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
    pub fn of(days: i64) -> Self {
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + i64::from(month <= 2);
        Civil {
            year,
            month,
            day: doy - (153 * mp + 2) / 5 + 1,
        }
    }

    /// Days since 1970-01-01.
    pub fn days(self) -> i64 {
        let y = if self.month <= 2 {
            self.year - 1
        } else {
            self.year
        };
        let era = y.div_euclid(400);
        let yoe = y.rem_euclid(400);
        let mp = (self.month + 9) % 12;
        let doy = (153 * mp + 2) / 5 + self.day - 1;
        era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
    }

    /// From 1.
    pub fn quarter(self) -> i64 {
        (self.month - 1) / 3 + 1
    }

    /// The same day of another month, or its last.
    pub fn plus_months(self, months: i64) -> Self {
        let total = self.year * 12 + self.month - 1 + months;
        let (year, month) = (total.div_euclid(12), total.rem_euclid(12) + 1);
        Civil {
            year,
            month,
            day: self.day.min(month_length(year, month)),
        }
    }
}

/// Whether the year has a 29th of February.
pub fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// How many days a month has.
pub fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Monday is 0.
pub fn weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7)
}

/// The number of a day in its year, from 1.
pub fn day_of_year(days: i64) -> i64 {
    let year = Civil::of(days).year;
    days - Civil {
        year,
        month: 1,
        day: 1,
    }
    .days()
        + 1
}

/// ISO 8601's year and week.
pub fn iso_week(days: i64) -> (i64, i64) {
    // The week belongs to the year of its Thursday.
    let thursday = days - weekday(days) + 3;
    (
        Civil::of(thursday).year,
        (day_of_year(thursday) - 1) / 7 + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_agree() {
        for days in (-800_000..4_000_000).step_by(997).chain([
            -1,
            0,
            11_016,
            i64::from(i32::MIN),
            i64::from(i32::MAX),
        ]) {
            assert_eq!(Civil::of(days).days(), days);
        }
        assert_eq!(
            Civil::of(0),
            Civil {
                year: 1970,
                month: 1,
                day: 1
            }
        );
        assert_eq!(
            Civil::of(19_782),
            Civil {
                year: 2024,
                month: 2,
                day: 29
            }
        );
        assert_eq!(Civil::of(19_782).plus_months(12).day, 28);
        assert_eq!(iso_week(-1), (1970, 1));
        assert_eq!(weekday(0), 3);
    }
}
