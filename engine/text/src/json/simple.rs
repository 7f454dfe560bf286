//! Values in the forms that most of them have, read without a cursor: short numbers, and strings without escapes.
//!
//! Digits are taken eight at a time. What has another form is left to the cursor, which knows all of the grammar.

use super::plain::plain_end;

const LOW: u64 = 0x0101_0101_0101_0101;

pub(super) const TENS: [u64; 9] = [
    1,
    10,
    100,
    1000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
];

/// The natural number that `text` starts with, and what is behind it: at most 15 digits, and the end of a value.
#[inline(always)]
pub(super) fn short_natural(text: &[u8]) -> Option<(i64, &[u8])> {
    let (mut value, mut len) = leading_digits(text.first_chunk()?);
    if len == 8 {
        let (low, more) = leading_digits(text[8..].first_chunk()?);
        if more > 0 {
            value = value * TENS[more] + low;
            len = 8 + more;
        }
    }
    if len == 0 || len == 16 || (text[0] == b'0' && len > 1) {
        return None;
    }
    match text.get(len..)? {
        behind @ [b',' | b'}' | b']', ..] => Some((value as i64, behind)),
        _ => None,
    }
}

/// As `short_natural`, for a number of at most 7 digits and 7 more behind a point: digits, and how many are behind it.
#[inline(always)]
pub(super) fn short_fraction(text: &[u8]) -> Option<(u64, usize, &[u8])> {
    let (whole, len) = leading_digits(text.first_chunk()?);
    if len == 0 || len == 8 || (text[0] == b'0' && len > 1) || text[len] != b'.' {
        return None;
    }
    let text = &text[len + 1..];
    let (fraction, len) = leading_digits(text.first_chunk()?);
    if len == 0 || len == 8 {
        return None;
    }
    match text.get(len..)? {
        behind @ [b',' | b'}' | b']', ..] => Some((whole * TENS[len] + fraction, len, behind)),
        _ => None,
    }
}

/// Goes over a value that is a short string or number, most of which are written so.
#[inline(always)]
pub(super) fn skip_simple(text: &[u8]) -> Option<&[u8]> {
    match text.split_first()? {
        (b'"', behind) => {
            let plain = plain_end::<b'"'>(behind, 0);
            match behind.get(plain..)? {
                [b'"', behind @ ..] => Some(behind),
                _ => None,
            }
        }
        (b'0'..=b'9', _) => match short_natural(text) {
            Some((_, behind)) => Some(behind),
            None => Some(short_fraction(text)?.2),
        },
        _ => None,
    }
}

/// The number that the first bytes of `word` are, and of how many digits it is. Of no digit, the number is of no use.
#[inline(always)]
pub(super) fn leading_digits(word: &[u8; 8]) -> (u64, usize) {
    // Digits become 0 to 9. What is more sets its high bit here; only the lowest such mark is exact.
    let values = u64::from_le_bytes(*word) ^ (LOW * 0x30);
    let marks = (values.wrapping_add(LOW * 0x76) | values) & (LOW * 0x80);
    let bits = marks.trailing_zeros() & 0x78;
    // Leading zeros fill the word; then neighbours are joined three times.
    let word = values.wrapping_shl(64 - bits);
    let word = word.wrapping_mul(10).wrapping_add(word >> 8) & 0x00ff_00ff_00ff_00ff;
    let word = word.wrapping_mul(100).wrapping_add(word >> 16) & 0x0000_ffff_0000_ffff;
    let word = word.wrapping_mul(10_000).wrapping_add(word >> 32) & 0xffff_ffff;
    (word, (bits / 8) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers_are_read_whole_or_not_at_all() {
        for digits in 0..20 {
            let whole = &"9081726354433221100"[..digits];
            for end in [",", "}", "]", " ", ".", "e1", "x", ""] {
                let text = format!("{whole}{end}123456789012345678");
                let found = short_natural(text.as_bytes());
                let good = (1..16).contains(&digits) && [",", "}", "]"].contains(&end);
                let expected = good.then(|| (whole.parse().unwrap(), &text.as_bytes()[digits..]));
                assert_eq!(found, expected, "{text}");
                for places in 0..10 {
                    let fraction = &"078135624"[..places.min(9)];
                    let text = format!("{whole}.{fraction}{end}123456789");
                    let found = short_fraction(text.as_bytes());
                    let good = (1..8).contains(&digits)
                        && (1..8).contains(&places)
                        && [",", "}", "]"].contains(&end);
                    let expected = good.then(|| {
                        let behind = &text[digits + 1 + places..];
                        let all = format!("{whole}{fraction}").parse().unwrap();
                        (all, places, behind.as_bytes())
                    });
                    assert_eq!(found, expected, "{text}");
                }
            }
        }
    }

    #[test]
    fn zeros_stand_alone() {
        assert_eq!(short_natural(b"0,234567890").unwrap().0, 0);
        assert_eq!(short_natural(b"01,34567890"), None);
        assert_eq!(short_natural(b"00000000,0123456789"), None);
        assert_eq!(short_fraction(b"0.5,4567890").unwrap().0, 5);
        assert_eq!(short_fraction(b"00.5,567890"), None);
    }

    #[test]
    fn every_byte_but_a_digit_ends_a_number() {
        for byte in 0..=255u8 {
            let mut text = *b"1234567890";
            text[4] = byte;
            let (number, len) = leading_digits(text.first_chunk().unwrap());
            match byte {
                b'0'..=b'9' => assert_eq!(len, 8),
                _ => assert_eq!((number, len), (1234, 4)),
            }
        }
    }

    #[test]
    fn what_is_skipped_is_whole() {
        let skipped = |text: &'static str| skip_simple(text.as_bytes()).map(<[u8]>::len);
        assert_eq!(skipped("\"a b\",1"), Some(2));
        assert_eq!(skipped("\"a\\\"b\",1"), None);
        assert_eq!(skipped("\"a"), None);
        assert_eq!(skipped("12,        "), Some(9));
        assert_eq!(skipped("1.2]       "), Some(8));
        assert_eq!(skipped("null,      "), None);
        assert_eq!(skipped(""), None);
    }
}
