//! What the escapes in JSON strings stand for.

use wide::u8x16;

/// Appends the content of a string that has escapes. A lone surrogate becomes `?`, as it does when Java writes one.
pub(super) fn unescape(mut text: &[u8], out: &mut Vec<u8>) {
    loop {
        while let Some((block, behind)) = text.split_first_chunk::<16>() {
            out.extend_from_slice(block);
            let backslashes = u8x16::new(*block).simd_eq(u8x16::splat(b'\\')).to_bitmask();
            if backslashes == 0 {
                text = behind;
                continue;
            }
            let plain = backslashes.trailing_zeros() as usize;
            out.truncate(out.len() - 16 + plain);
            text = unescape_one(&text[plain..], out);
        }
        let plain = text.iter().position(|byte| *byte == b'\\');
        out.extend_from_slice(&text[..plain.unwrap_or(text.len())]);
        match plain {
            Some(plain) => text = unescape_one(&text[plain..], out),
            None => return,
        }
    }
}

/// Appends what the escape at the start of `text` stands for. Answers what is behind it.
#[inline(always)]
pub(super) fn unescape_one<'a>(text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    const MEANT: [u8; 256] = {
        let mut meant = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            meant[byte] = byte as u8;
            byte += 1;
        }
        meant[b'b' as usize] = 8;
        meant[b'f' as usize] = 12;
        meant[b'n' as usize] = b'\n';
        meant[b'r' as usize] = b'\r';
        meant[b't' as usize] = b'\t';
        meant
    };
    if text[1] == b'u' {
        return unescape_code(text, out);
    }
    out.push(MEANT[usize::from(text[1])]);
    &text[2..]
}

fn unescape_code<'a>(text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let first = hex4(&text[2..]).unwrap_or_default();
    let pair = match text.get(6..8) {
        // What follows a backslash and a u was checked by the scan too.
        Some(b"\\u") if (0xd800..0xdc00).contains(&first) => hex4(&text[8..]).unwrap_or_default(),
        _ => 0,
    };
    let (code, len) = match (0xdc00..0xe000).contains(&pair) {
        true => (0x10000 + ((first - 0xd800) << 10) + (pair - 0xdc00), 12),
        false => (first, 6),
    };
    let c = char::from_u32(code).unwrap_or('?');
    let mut encoded = [0; 4];
    let end = out.len() + c.encode_utf8(&mut encoded).len();
    out.extend_from_slice(&encoded);
    out.truncate(end);
    &text[len..]
}

/// The number of four hex digits.
#[inline]
pub(super) fn hex4(text: &[u8]) -> Option<u32> {
    const VALUES: [u8; 256] = {
        let mut values = [0xff; 256];
        let mut digit = 0;
        while digit < 16 {
            values[b"0123456789abcdef"[digit] as usize] = digit as u8;
            values[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
            digit += 1;
        }
        values
    };
    let digits = text.first_chunk::<4>()?;
    let [a, b, c, d] = digits.map(|digit| u32::from(VALUES[usize::from(digit)]));
    (a | b | c | d < 16).then_some(a << 12 | b << 8 | c << 4 | d)
}
