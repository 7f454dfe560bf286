//! The digits that Java 17 writes a number with, which are not always the fewest that read back: `1.23456791E11` of a
//! float, where `1.2345679E11` would do.
//!
//! Digits come one by one from the number as a fraction of integers (Steele and White, "How to print floating-point
//! numbers accurately") until what is left is below half the distance to the next number. Java estimates that distance,
//! writes large integers as such, and never stops at the first digit of an exponent form; so does this.

/// Decimal digits and the power of ten of the first one.
#[derive(Debug, Default)]
pub(crate) struct Digits {
    bytes: [u8; 24],
    len: usize,
    pub(crate) exponent: i32,
}

impl Digits {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).expect("digits are ASCII")
    }

    fn push(&mut self, digit: u8) {
        self.bytes[self.len] = b'0' + digit;
        self.len += 1;
    }

    /// Adds one to the last digit.
    fn round_up(&mut self) {
        for at in (0..self.len).rev() {
            if self.bytes[at] != b'9' {
                self.bytes[at] += 1;
                return;
            }
            self.bytes[at] = b'0';
        }
        self.bytes[0] = b'1';
        self.exponent += 1;
    }

    /// The digits of an integer, its trailing zeros left off, after dropping `dropped` of them.
    fn of_integer(value: u64, dropped: u32) -> Self {
        let power = 10u64.pow(dropped);
        let mut rest = value / power + u64::from(dropped > 0 && value % power >= power / 2);
        let mut exponent = dropped as i32;
        while rest.is_multiple_of(10) {
            rest /= 10;
            exponent += 1;
        }
        let mut digits = Digits::default();
        let count = rest.ilog10() as usize + 1;
        for at in (0..count).rev() {
            digits.bytes[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        digits.len = count;
        digits.exponent = exponent + count as i32 - 1;
        digits
    }
}

const FRACTION_BITS: i32 = 52;

/// Of a positive, finite number.
pub(crate) fn of_double(value: f64) -> Digits {
    let bits = value.to_bits();
    let (exponent, fraction) = (
        (bits >> FRACTION_BITS) as i32 & 0x7ff,
        bits & ((1 << 52) - 1),
    );
    if exponent == 0 {
        let shift = fraction.leading_zeros() as i32 - (63 - FRACTION_BITS);
        return digits(
            1 - shift - 1023,
            fraction << shift,
            FRACTION_BITS + 1 - shift,
        );
    }
    digits(exponent - 1023, fraction | 1 << 52, FRACTION_BITS + 1)
}

/// Of a positive, finite number.
pub(crate) fn of_float(value: f32) -> Digits {
    let bits = value.to_bits();
    let (exponent, fraction) = (
        (bits >> 23) as i32 & 0xff,
        u64::from(bits & ((1 << 23) - 1)),
    );
    let aligned = fraction << (FRACTION_BITS - 23);
    if exponent == 0 {
        let shift = aligned.leading_zeros() as i32 - (63 - FRACTION_BITS);
        return digits(1 - shift - 127, aligned << shift, 24 - shift);
    }
    digits(exponent - 127, aligned | 1 << 52, 24)
}

/// How many bits a power of five has, as Java estimates.
fn five_bits(power: i32) -> i32 {
    match power {
        0 => 0,
        1..27 => (5u64.pow(power as u32).ilog2() + 1) as i32,
        _ => power * 3,
    }
}

/// The digits of `fraction * 2^(exponent - 52)`, of whose bits so many mean something.
fn digits(exponent: i32, fraction: u64, significant: i32) -> Digits {
    let tail = fraction.trailing_zeros() as i32;
    let used = FRACTION_BITS + 1 - tail;
    // Bits behind the point.
    let tiny = (used - exponent - 1).max(0);
    if (-21..=62).contains(&exponent) && tiny == 0 && used < 64 {
        // Digits below the last bit that means something say nothing.
        let blind = match exponent - significant - 1 {
            bits @ 2..64 if exponent > significant => (f64::from(bits) * 2f64.log10()) as u32,
            _ => 0,
        };
        let value = match exponent >= FRACTION_BITS {
            true => fraction << (exponent - FRACTION_BITS),
            false => fraction >> (FRACTION_BITS - exponent),
        };
        return Digits::of_integer(value, blind);
    }
    let power = estimate(fraction, exponent);
    // The number is value / scale, and half the distance to the next is margin / scale, as powers of five and two.
    let (value_fives, scale_fives) = ((-power).max(0), power.max(0));
    let mut value_twos = value_fives + tiny + exponent;
    let mut scale_twos = scale_fives + tiny;
    let mut margin_twos = value_twos - significant;
    let fraction = fraction >> tail;
    value_twos -= used - 1;
    let common = value_twos.min(scale_twos);
    value_twos -= common;
    scale_twos -= common;
    margin_twos -= common;
    if used == 1 {
        // Below a power of two numbers are twice as dense.
        margin_twos -= 1;
    }
    if margin_twos < 0 {
        value_twos -= margin_twos;
        scale_twos -= margin_twos;
        margin_twos = 0;
    }
    let value_bits = used + value_twos + five_bits(value_fives);
    let ten_bits = scale_twos + 1 + five_bits(scale_fives + 1);
    let shape = Shape {
        power,
        fraction,
        fives: (value_fives as u32, scale_fives as u32),
        twos: (value_twos as u32, scale_twos as u32, margin_twos as u32),
    };
    match value_bits.max(ten_bits) {
        ..32 => shape.in_32_bits(),
        32..64 => shape.in_64_bits(),
        _ => shape.in_many_bits(),
    }
}

/// The power of ten of the first digit, or one more.
#[expect(clippy::approx_constant, reason = "Java estimates with these digits")]
fn estimate(fraction: u64, exponent: i32) -> i32 {
    let mantissa = f64::from_bits(1023 << 52 | fraction & ((1 << 52) - 1));
    let log =
        (mantissa - 1.5) * 0.289529654 + 0.176091259 + f64::from(exponent) * 0.301029995663981;
    log.floor() as i32
}

struct Shape {
    power: i32,
    fraction: u64,
    /// Of the value, and the margin, and of the scale.
    fives: (u32, u32),
    /// Of the value, the scale, the margin.
    twos: (u32, u32, u32),
}

/// Where the digits end.
struct End {
    low: bool,
    high: bool,
    /// Twice what is left, compared with one at the last digit.
    rest: std::cmp::Ordering,
}

/// The digits with arithmetic in one width: Java lets the margin overflow and then stops, and the two widths overflow at
/// different places.
macro_rules! in_bits {
    ($name:ident, $int:ty) => {
        fn $name(self) -> Digits {
            let power_of =
                |fives: u32, twos: u32| (5 as $int).wrapping_pow(fives).wrapping_shl(twos);
            let mut power = self.power;
            let mut rest =
                (self.fraction as $int).wrapping_mul((5 as $int).wrapping_pow(self.fives.0));
            rest = rest.wrapping_shl(self.twos.0);
            let scale = power_of(self.fives.1, self.twos.1);
            let mut margin = power_of(self.fives.0, self.twos.2);
            let tens = scale.wrapping_mul(10);
            let mut digits = Digits::default();
            let first = rest / scale;
            rest = (rest % scale).wrapping_mul(10);
            margin = margin.wrapping_mul(10);
            let (mut low, mut high) = (rest < margin, rest.wrapping_add(margin) > tens);
            match first == 0 && !high {
                true => power -= 1,
                false => digits.push(first as u8),
            }
            if Self::goes_on(power) {
                (low, high) = (false, false);
            }
            while !low && !high {
                let digit = rest / scale;
                rest = (rest % scale).wrapping_mul(10);
                margin = margin.wrapping_mul(10);
                (low, high) = match margin > 0 {
                    true => (rest < margin, rest.wrapping_add(margin) > tens),
                    false => (true, true),
                };
                digits.push(digit as u8);
            }
            let rest = rest.wrapping_shl(1).wrapping_sub(tens).cmp(&0);
            Self::rounded(digits, power, End { low, high, rest })
        }
    };
}

impl Shape {
    /// Whether more than one digit is wanted in any case.
    fn goes_on(power: i32) -> bool {
        !(-3..8).contains(&power)
    }

    fn rounded(mut digits: Digits, power: i32, end: End) -> Digits {
        use std::cmp::Ordering;
        digits.exponent = power;
        let odd = digits.bytes[digits.len - 1] % 2 == 1;
        let up = match (end.high, end.low) {
            (true, true) => end.rest == Ordering::Greater || end.rest == Ordering::Equal && odd,
            (high, _) => high,
        };
        if up {
            digits.round_up();
        }
        digits
    }

    in_bits!(in_32_bits, i32);
    in_bits!(in_64_bits, i64);

    fn in_many_bits(self) -> Digits {
        let mut power = self.power;
        let mut rest = Big::of(self.fraction, self.fives.0, self.twos.0);
        let scale = Big::of(1, self.fives.1, self.twos.1);
        let mut margin = Big::of(1, self.fives.0, self.twos.2);
        margin.times(10);
        let mut tens = scale.clone();
        tens.times(10);
        let mut digits = Digits::default();
        let first = rest.take_digit(&scale);
        let (mut low, mut high) = (rest.lt(&margin), tens.at_most_sum(&rest, &margin));
        match first == 0 && !high {
            true => power -= 1,
            false => digits.push(first),
        }
        if Self::goes_on(power) {
            (low, high) = (false, false);
        }
        while !low && !high {
            let digit = rest.take_digit(&scale);
            margin.times(10);
            (low, high) = (rest.lt(&margin), tens.at_most_sum(&rest, &margin));
            digits.push(digit);
        }
        rest.times(2);
        let rest = rest.cmp(&tens);
        Self::rounded(digits, power, End { low, high, rest })
    }
}

/// A natural number of up to 1,280 bits, the lowest word first.
#[derive(Clone)]
struct Big {
    words: [u32; 40],
    len: usize,
}

impl Big {
    fn of(value: u64, fives: u32, twos: u32) -> Self {
        let mut big = Big {
            words: [0; 40],
            len: 2,
        };
        (big.words[0], big.words[1]) = (value as u32, (value >> 32) as u32);
        for _ in 0..fives / 13 {
            big.times(5u32.pow(13));
        }
        big.times(5u32.pow(fives % 13));
        big.times(1 << (twos % 32));
        let words = (twos / 32) as usize;
        big.words.copy_within(0..big.len, words);
        big.words[..words].fill(0);
        big.len += words;
        big
    }

    fn times(&mut self, factor: u32) {
        let mut carry = 0;
        for word in &mut self.words[..self.len] {
            let product = u64::from(*word) * u64::from(factor) + carry;
            (*word, carry) = (product as u32, product >> 32);
        }
        if carry > 0 {
            self.words[self.len] = carry as u32;
            self.len += 1;
        }
    }

    /// How often `scale` goes into this, below ten; keeps ten times what is left.
    fn take_digit(&mut self, scale: &Big) -> u8 {
        let mut digit = 0;
        while !self.lt(scale) {
            let mut borrow = 0;
            for (at, word) in self.words.iter_mut().enumerate() {
                let wanted = u64::from(scale.words[at]) + borrow;
                borrow = u64::from(u64::from(*word) < wanted);
                *word = u64::from(*word).wrapping_sub(wanted) as u32;
            }
            digit += 1;
        }
        self.times(10);
        digit
    }

    fn lt(&self, other: &Big) -> bool {
        self.cmp(other).is_lt()
    }

    fn cmp(&self, other: &Big) -> std::cmp::Ordering {
        self.words.iter().rev().cmp(other.words.iter().rev())
    }

    fn at_most_sum(&self, a: &Big, b: &Big) -> bool {
        let mut sum = a.clone();
        let mut carry = 0;
        for (word, other) in sum.words.iter_mut().zip(b.words) {
            let total = u64::from(*word) + u64::from(other) + carry;
            (*word, carry) = (total as u32, total >> 32);
        }
        self.cmp(&sum).is_le()
    }
}

#[cfg(test)]
mod tests {
    use crate::{push_f32, push_f64};

    #[test]
    fn doubles_have_the_digits_of_java() {
        for (value, expected) in [
            (2e23, "1.9999999999999998E23"),
            (2f64.powi(-44), "5.6843418860808015E-14"),
            (f64::from_bits(1), "4.9E-324"),
            (f64::from_bits(3), "1.5E-323"),
            (f64::MAX, "1.7976931348623157E308"),
            (f64::MIN_POSITIVE, "2.2250738585072014E-308"),
            (9007199254740992.0, "9.007199254740992E15"),
            (-1.1e-5, "-1.1E-5"),
            (0.002, "0.002"),
            (1234567.891, "1234567.891"),
            (8.41e21, "8.409999999999999E21"),
            (1e22, "1.0E22"),
        ] {
            let mut text = String::new();
            push_f64(&mut text, value);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn floats_have_the_digits_of_java() {
        for (value, expected) in [
            (123456789012.0, "1.23456791E11"),
            (f32::from_bits(1), "1.4E-45"),
            (f32::MAX, "3.4028235E38"),
            (f32::MIN_POSITIVE, "1.17549435E-38"),
            (33554432.0, "3.3554432E7"),
            (8.5e9, "8.4999997E9"),
            (-0.1, "-0.1"),
        ] {
            let mut text = String::new();
            push_f32(&mut text, value);
            assert_eq!(text, expected);
        }
    }
}
