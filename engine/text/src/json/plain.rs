//! Where a run of plain string bytes ends: the inner loop of reading and writing JSON.
//!
//! Thirty-two bytes are judged at a time, by vector instructions that every processor of its kind has: most strings
//! are shorter, so that their length decides no branch. What is left of a text is judged eight bytes at a time.

use wide::u8x16;

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The first byte at or behind `at` that is `QUOTE`, a backslash or a control character; the end if there is none.
#[inline(always)]
pub(crate) fn plain_end<const QUOTE: u8>(text: &[u8], at: usize) -> usize {
    let mut rest = &text[at..];
    while let Some((block, behind)) = rest.split_first_chunk::<32>() {
        let marks = special_marks::<QUOTE>(block);
        if marks != 0 {
            return text.len() - rest.len() + marks.trailing_zeros() as usize;
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

/// One bit for each byte that is `QUOTE`, a backslash or a control character.
#[inline(always)]
pub(super) fn special_marks<const QUOTE: u8>(block: &[u8; 32]) -> u32 {
    let [low, high] = block.as_chunks::<16>().0 else {
        unreachable!("a block has two halves");
    };
    half_marks::<QUOTE>(low) | half_marks::<QUOTE>(high) << 16
}

#[inline(always)]
fn half_marks<const QUOTE: u8>(half: &[u8; 16]) -> u32 {
    let bytes = u8x16::new(*half);
    // The quote changes places with the blank; control characters stay below it. One comparison finds both.
    let moved = bytes ^ u8x16::splat(QUOTE ^ 0x20);
    let control_or_quote = moved.min(u8x16::splat(0x20)).simd_eq(moved);
    let backslash = bytes.simd_eq(u8x16::splat(b'\\'));
    (control_or_quote | backslash).to_bitmask()
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
