//! Where a run of plain string bytes ends: the inner loop of reading and writing JSON.
//!
//! Blocks are judged whole, without a branch, so that the compiler makes vector instructions of it; the place within
//! a block is found eight bytes at a time. (The instruction that would tell the place at once cannot be reached
//! without `unsafe`.)

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The first byte at or behind `at` that is `QUOTE`, a backslash or a control character; the end if there is none.
#[inline(always)]
pub(crate) fn plain_end<const QUOTE: u8>(text: &[u8], at: usize) -> usize {
    let mut rest = &text[at..];
    while let Some((block, behind)) = rest.split_first_chunk::<16>() {
        let found = block
            .iter()
            .fold(false, |found, byte| found | is_special::<QUOTE>(byte));
        if found {
            break;
        }
        rest = behind;
    }
    while let Some((word, behind)) = rest.split_first_chunk::<8>() {
        let marks = special::<QUOTE>(u64::from_le_bytes(*word));
        if marks != 0 {
            return text.len() - rest.len() + (marks.trailing_zeros() / 8) as usize;
        }
        rest = behind;
    }
    let tail = rest.iter().position(is_special::<QUOTE>);
    text.len() - rest.len() + tail.unwrap_or(rest.len())
}

#[inline(always)]
fn is_special<const QUOTE: u8>(byte: &u8) -> bool {
    (*byte == QUOTE) | (*byte == b'\\') | (*byte < 0x20)
}

/// Marks the special bytes of `word`. Only the lowest mark is exact: borrows may spill into the bytes above it.
#[inline(always)]
fn special<const QUOTE: u8>(word: u64) -> u64 {
    let quote = word ^ (LOW * QUOTE as u64);
    let backslash = word ^ (LOW * b'\\' as u64);
    ((quote.wrapping_sub(LOW) & !quote)
        | (backslash.wrapping_sub(LOW) & !backslash)
        | (word.wrapping_sub(LOW * 0x20) & !word))
        & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place() {
        for place in 0..40 {
            for byte in 0..=255u8 {
                let mut text = [b'x'; 40];
                text[place] = byte;
                text[39] = b'"';
                let expected = match is_special::<b'"'>(&byte) {
                    true => place,
                    false => 39,
                };
                for from in 0..=place {
                    assert_eq!(
                        plain_end::<b'"'>(&text, from),
                        expected,
                        "{byte} at {place}"
                    );
                }
            }
        }
        assert_eq!(plain_end::<b'\''>(b"it's", 0), 2);
        assert_eq!(plain_end::<b'"'>("Zürich".as_bytes(), 0), 7);
    }
}
