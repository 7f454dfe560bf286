//! Walks over the bytes of one JSON text: the grammar, and nothing about columns.
//!
//! The grammar is what Jackson accepts under Spark's defaults: strict JSON, plus single quotes and `NaN`, `Infinity`.
//! Values that nobody wants are checked as strictly as wanted ones, so that whether a row is malformed does not
//! depend on which columns a query reads.

use wide::u8x16;

use super::plain::plain_end;

/// Objects and arrays within one another, the outermost counted; more is malformed, as it is to Jackson. It bounds the
/// stack of whoever reads values recursively.
const DEPTH_MAX: usize = 1000;

/// A longer number is malformed, as it is to Jackson.
const NUMBER_BYTES_MAX: usize = 1000;

const LOW: u64 = 0x0101_0101_0101_0101;

const TENS: [u64; 9] = [
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

/// Why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

pub(super) type Scan<T> = Result<T, Malformed>;

/// Where the content of a string lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text {
    pub(super) start: usize,
    pub(super) end: usize,
    /// It has escapes, all valid.
    pub(super) escaped: bool,
}

/// A number, taken apart while it was scanned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) negative: bool,
    /// All digits as one integer, if `digits` is at most 19.
    pub(super) mantissa: u64,
    /// How many digits, without leading zeros.
    pub(super) digits: u32,
    /// The power of ten the mantissa is to be multiplied with.
    pub(super) exponent: i32,
    /// Written without fraction and exponent.
    pub(super) integer: bool,
}

/// What a value is, told by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Null,
    True,
    False,
    String,
    Number,
    NotFinite,
    Object,
    Array,
}

/// A position in a text.
pub(super) struct Cursor<'a> {
    pub(super) text: &'a [u8],
    pub(super) pos: usize,
    dialect: Dialect,
}

/// What is taken for JSON besides JSON.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Dialect {
    pub(super) single_quotes: bool,
    /// `NaN`, `Infinity`
    pub(super) not_finite: bool,
    /// `/* */` and `//`
    pub(super) comments: bool,
    pub(super) unquoted_names: bool,
    pub(super) leading_zeros: bool,
    /// A backslash before any character stands for that character.
    pub(super) any_escape: bool,
    pub(super) control_chars: bool,
    /// A line end is a blank; else nothing goes over it, and it is the end of the text.
    pub(super) many_lines: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8], dialect: Dialect) -> Self {
        Cursor {
            text,
            pos: 0,
            dialect,
        }
    }

    /// The byte here; 0, which is no JSON, at the end.
    #[inline(always)]
    pub(super) fn peek(&self) -> u8 {
        self.text.get(self.pos).copied().unwrap_or(0)
    }

    /// Goes over blanks, and comments if they are allowed.
    #[inline(always)]
    pub(super) fn blanks(&mut self) {
        let byte = self.peek();
        if byte <= b' ' || byte == b'/' {
            self.some_blanks();
        }
    }

    // Not inlined, so that going on is a branch, which is guessed, and not a sum that the next load waits for.
    #[inline(never)]
    fn some_blanks(&mut self) {
        loop {
            match self.peek() {
                b' ' | b'\t' => self.pos += 1,
                b'\n' | b'\r' if self.dialect.many_lines => self.pos += 1,
                b'/' if self.dialect.comments => match self.comment_end() {
                    Some(end) => self.pos = end,
                    None => return,
                },
                _ => return,
            }
        }
    }

    /// Where the comment here ends; it does not go over the end of the text.
    fn comment_end(&self) -> Option<usize> {
        let comment = &self.text[self.pos..];
        let line_end = || memchr::memchr2(b'\n', b'\r', comment).unwrap_or(comment.len());
        match comment.get(1)? {
            b'/' => Some(self.pos + line_end()),
            b'*' => {
                let end = 4 + memchr::memmem::find(&comment[2..], b"*/")?;
                (self.dialect.many_lines || end <= line_end()).then_some(self.pos + end)
            }
            _ => None,
        }
    }

    /// True, and past it, if `byte` is here.
    #[inline(always)]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let here = self.peek() == byte;
        self.pos += usize::from(here);
        here
    }

    pub(super) fn at_end(&self) -> bool {
        match self.text.get(self.pos) {
            None => true,
            Some(byte) => matches!(byte, b'\n' | b'\r') && !self.dialect.many_lines,
        }
    }

    /// What follows.
    #[inline(always)]
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.text[self.pos.min(self.text.len())..]
    }

    #[inline(always)]
    pub(super) fn start(&self) -> Scan<Start> {
        Ok(match self.peek() {
            b'"' => Start::String,
            b'0'..=b'9' => Start::Number,
            b'{' => Start::Object,
            b'[' => Start::Array,
            b'n' => Start::Null,
            b't' => Start::True,
            b'f' => Start::False,
            b'-' => match self.text.get(self.pos + 1) {
                Some(b'I') => Start::NotFinite,
                _ => Start::Number,
            },
            b'\'' if self.dialect.single_quotes => Start::String,
            b'N' | b'I' | b'+' if self.dialect.not_finite => Start::NotFinite,
            _ if self.at_end() => return Err(Malformed("the text ends where a value should be")),
            _ => return Err(Malformed("no value starts here")),
        })
    }

    /// Goes over a string, from its opening quote to behind its closing one.
    #[inline(always)]
    pub(super) fn string(&mut self) -> Scan<Text> {
        match self.peek() {
            b'\'' => self.string_in::<b'\''>(),
            _ => self.string_in::<b'"'>(),
        }
    }

    #[inline(always)]
    fn string_in<const QUOTE: u8>(&mut self) -> Scan<Text> {
        self.pos += 1;
        let start = self.pos;
        let mut escaped = false;
        let mut at = start;
        loop {
            at = plain_end::<QUOTE>(self.text, at);
            match self.text.get(at) {
                None => return Err(Malformed("a string does not end")),
                Some(&byte) if byte == QUOTE => {
                    self.pos = at + 1;
                    return Ok(Text {
                        start,
                        end: at,
                        escaped,
                    });
                }
                Some(b'\\') => {
                    escaped = true;
                    at += self.escape_len(at)?;
                }
                Some(b'\n' | b'\r') if !self.dialect.many_lines => {
                    return Err(Malformed("a string does not end"));
                }
                Some(_) if self.dialect.control_chars => at += 1,
                Some(_) => return Err(Malformed("a string holds a control character")),
            }
        }
    }

    /// How long the escape is that starts with the backslash at `at`.
    fn escape_len(&self, at: usize) -> Scan<usize> {
        match self.text.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
            Some(b'\'') if self.dialect.single_quotes => Ok(2),
            Some(b'u') => match hex4(&self.text[at + 2..]) {
                Some(_) => Ok(6),
                None => Err(Malformed("an escape is not \\u and four hex digits")),
            },
            Some(b'\n' | b'\r') if !self.dialect.many_lines => {
                Err(Malformed("a string does not end"))
            }
            Some(_) if self.dialect.any_escape => Ok(2),
            _ => Err(Malformed("a string has an unknown escape")),
        }
    }

    /// Goes over digits, which are appended to `mantissa`. Answers how many there were.
    #[inline(always)]
    fn digits(&mut self, mantissa: &mut u64) -> usize {
        let from = self.pos;
        while let Some(word) = self
            .text
            .get(self.pos..)
            .and_then(|rest| rest.first_chunk())
        {
            // Digits become 0 to 9. What is more sets its high bit here; only the lowest such mark is exact.
            let values = u64::from_le_bytes(*word) ^ (LOW * 0x30);
            let marks = (values.wrapping_add(LOW * 0x76) | values) & (LOW * 0x80);
            let count = (marks.trailing_zeros() / 8) as usize;
            if count == 0 {
                return self.pos - from;
            }
            // Leading zeros fill the word; then neighbours are joined three times.
            let word = values << (64 - 8 * count);
            let word = word.wrapping_mul(10).wrapping_add(word >> 8) & 0x00ff_00ff_00ff_00ff;
            let word = word.wrapping_mul(100).wrapping_add(word >> 16) & 0x0000_ffff_0000_ffff;
            let word = word.wrapping_mul(10_000).wrapping_add(word >> 32) & 0xffff_ffff;
            *mantissa = mantissa.wrapping_mul(TENS[count]).wrapping_add(word);
            self.pos += count;
            if count < 8 {
                return self.pos - from;
            }
        }
        loop {
            let digit = self.peek().wrapping_sub(b'0');
            if digit > 9 {
                return self.pos - from;
            }
            *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.pos += 1;
        }
    }

    /// Not inlined, for the reason that `some_blanks` is not.
    #[inline(never)]
    fn minus(&mut self) {
        self.pos += 1;
    }

    /// Goes over a number.
    #[inline(always)]
    pub(super) fn number(&mut self) -> Scan<Number> {
        let start = self.pos;
        let negative = self.peek() == b'-';
        if negative {
            self.minus();
        }
        let first = self.pos;
        let mut mantissa = 0u64;
        let whole = self.digits(&mut mantissa);
        if whole == 0 {
            return Err(Malformed("a number has no digits"));
        }
        let mut zeros = usize::from(self.text[first] == b'0');
        if zeros > 0 && whole > 1 {
            if !self.dialect.leading_zeros {
                return Err(Malformed("a number starts with a zero"));
            }
            let digits = &self.text[first..self.pos];
            zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        }
        let mut number = Number {
            start,
            end: self.pos,
            negative,
            mantissa,
            digits: (whole - zeros) as u32,
            exponent: 0,
            integer: true,
        };
        if matches!(self.peek(), b'.' | b'e' | b'E') {
            self.fraction(&mut number)?;
        }
        match self.pos - start > NUMBER_BYTES_MAX {
            true => Err(Malformed("a number has more than 1000 characters")),
            false => Ok(number),
        }
    }

    /// Goes over what follows the whole part of a number.
    #[inline(always)]
    fn fraction(&mut self, number: &mut Number) -> Scan<()> {
        number.integer = false;
        if self.eat(b'.') {
            let fraction = self.digits(&mut number.mantissa);
            if fraction == 0 {
                return Err(Malformed("a number has no digits after its point"));
            }
            number.digits += fraction as u32;
            number.exponent = -(fraction.min(1 << 20) as i32);
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.pos += 1;
            let down = self.eat(b'-');
            if !down {
                self.eat(b'+');
            }
            let mut power = 0u64;
            let count = self.digits(&mut power);
            if count == 0 {
                return Err(Malformed("a number has no digits in its exponent"));
            }
            let power = match count > 9 {
                true => 1 << 20,
                false => power.min(1 << 20),
            } as i32;
            number.exponent += if down { -power } else { power };
        }
        number.end = self.pos;
        Ok(())
    }

    /// Goes over `NaN`, `Infinity`, `+Infinity`, `-Infinity`, `+INF`, `-INF`.
    pub(super) fn not_finite(&mut self) -> Scan<f64> {
        let rest = self.rest();
        let (sign, word) = match rest {
            [b'-', word @ ..] => (-1.0, word),
            [b'+', word @ ..] => (1.0, word),
            word => (1.0, word),
        };
        let signed = rest.len() - word.len();
        for (name, value) in [
            ("Infinity", f64::INFINITY),
            ("INF", f64::INFINITY),
            ("NaN", f64::NAN),
        ] {
            if self.dialect.not_finite
                && word.starts_with(name.as_bytes())
                && match name {
                    "NaN" => signed == 0,
                    "INF" => signed == 1,
                    _ => true,
                }
            {
                self.pos += signed + name.len();
                return Ok(sign * value);
            }
        }
        Err(Malformed("no value starts here"))
    }

    /// Goes over `null`, `true` or `false`.
    #[inline(always)]
    pub(super) fn literal(&mut self, word: &'static str) -> Scan<()> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(Malformed("an unknown word stands where a value should be"));
        }
        self.pos += word.len();
        Ok(())
    }

    /// Goes over any value.
    #[inline(always)]
    pub(super) fn skip(&mut self, depth: usize) -> Scan<()> {
        match self.peek() {
            b'"' => self.string_in::<b'"'>().map(drop),
            b'0'..=b'9' => self.number().map(drop),
            _ => self.skip_other(depth),
        }
    }

    /// Without recursion: values that nobody wants may be nested as deeply as is allowed.
    #[inline(never)]
    fn skip_other(&mut self, depth: usize) -> Scan<()> {
        // One bit for each open bracket: whether it is that of an object.
        let mut objects = [0u64; DEPTH_MAX.div_ceil(64)];
        let mut open = 0;
        loop {
            match self.start()? {
                Start::String => drop(self.string()?),
                Start::Number => drop(self.number()?),
                Start::Null => self.literal("null")?,
                Start::True => self.literal("true")?,
                Start::False => self.literal("false")?,
                Start::NotFinite => drop(self.not_finite()?),
                start => {
                    self.deeper(depth + open)?;
                    self.pos += 1;
                    self.blanks();
                    let object = start == Start::Object;
                    if !self.eat(if object { b'}' } else { b']' }) {
                        let (word, bit) = (open / 64, 1 << (open % 64));
                        match object {
                            true => objects[word] |= bit,
                            false => objects[word] &= !bit,
                        }
                        open += 1;
                        if object {
                            self.key()?;
                        }
                        continue;
                    }
                }
            }
            loop {
                if open == 0 {
                    return Ok(());
                }
                let object = objects[(open - 1) / 64] >> ((open - 1) % 64) & 1 == 1;
                if self.more(if object { b'}' } else { b']' })? {
                    if object {
                        self.key()?;
                    }
                    break;
                }
                open -= 1;
            }
        }
    }

    /// Refuses to go deeper than the stack allows.
    pub(super) fn deeper(&self, depth: usize) -> Scan<()> {
        match depth < DEPTH_MAX {
            true => Ok(()),
            false => Err(Malformed("values are nested too deeply")),
        }
    }

    /// Goes over a key and its colon, to the value.
    #[inline(always)]
    pub(super) fn key(&mut self) -> Scan<Text> {
        let name = match self.peek() {
            b'"' => self.string_in::<b'"'>()?,
            _ => self.odd_name()?,
        };
        if !self.eat(b':') {
            self.blanks();
            if !self.eat(b':') {
                return Err(Malformed("a field name is not followed by a colon"));
            }
        }
        self.blanks();
        Ok(name)
    }

    /// Goes over a name that is not in double quotes.
    #[cold]
    fn odd_name(&mut self) -> Scan<Text> {
        if self.peek() == b'\'' && self.dialect.single_quotes {
            return self.string_in::<b'\''>();
        }
        let start = self.pos;
        if self.dialect.unquoted_names {
            // As Jackson has it: what Java allows in names, and some more.
            let is_part = |byte: u8| {
                byte.is_ascii_alphanumeric() || b"_$@#*-+".contains(&byte) || byte >= 0x80
            };
            while is_part(self.peek()) {
                self.pos += 1;
            }
        }
        match self.pos > start {
            true => Ok(Text {
                start,
                end: self.pos,
                escaped: false,
            }),
            false if self.at_end() => Err(Malformed("the text ends within an object or array")),
            false => Err(Malformed("a field has no quoted name")),
        }
    }

    /// Behind a value: false at the closing bracket, true before the next value.
    #[inline(always)]
    pub(super) fn more(&mut self, close: u8) -> Scan<bool> {
        self.blanks();
        if self.eat(b',') {
            self.blanks();
            return Ok(true);
        }
        if self.eat(close) {
            return Ok(false);
        }
        Err(match self.at_end() {
            true => Malformed("the text ends within an object or array"),
            false => Malformed("a comma or closing bracket is missing"),
        })
    }
}

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
fn unescape_one<'a>(text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let byte = match text[1] {
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return unescape_code(text, out),
        other => other,
    };
    out.push(byte);
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
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    &text[len..]
}

/// The number of four hex digits.
#[inline]
fn hex4(text: &[u8]) -> Option<u32> {
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
