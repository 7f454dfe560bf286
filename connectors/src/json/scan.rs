//! Walks over the bytes of one JSON text: the grammar, and nothing about columns.
//!
//! The grammar is what Jackson accepts under Spark's defaults: strict JSON, plus single quotes and `NaN`, `Infinity`.
//! Values that nobody wants are checked as strictly as wanted ones, so that whether a row is malformed does not
//! depend on which columns a query reads.

use super::plain::plain_end;

/// Deeper nesting than this is malformed: it bounds the stack.
const DEPTH_MAX: usize = 500;

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
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    pub(super) single_quotes: bool,
    /// `NaN`, `Infinity`
    pub(super) not_finite: bool,
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

    /// Goes over blanks.
    #[inline(always)]
    pub(super) fn blanks(&mut self) {
        if self.peek() <= b' ' {
            self.some_blanks();
        }
    }

    fn some_blanks(&mut self) {
        while match self.peek() {
            b' ' | b'\t' | b'\r' => true,
            b'\n' => self.dialect.many_lines,
            _ => false,
        } {
            self.pos += 1;
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
            Some(byte) => *byte == b'\n' && !self.dialect.many_lines,
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
                Some(_) => return Err(Malformed("a string holds a control character")),
            }
        }
    }

    /// How long the escape is that starts with the backslash at `at`.
    fn escape_len(&self, at: usize) -> Scan<usize> {
        match self.text.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
            Some(b'\'') if self.dialect.single_quotes => Ok(2),
            Some(b'u') => match self.text.get(at + 2..at + 6) {
                Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => Ok(6),
                _ => Err(Malformed("an escape is not \\u and four hex digits")),
            },
            _ => Err(Malformed("a string has an unknown escape")),
        }
    }

    /// Goes over a number.
    #[inline(always)]
    pub(super) fn number(&mut self) -> Scan<Number> {
        let start = self.pos;
        let negative = self.eat(b'-');
        let first = self.pos;
        let mut mantissa = 0u64;
        let digits = |cursor: &mut Self, mantissa: &mut u64| {
            let from = cursor.pos;
            loop {
                let digit = cursor.peek().wrapping_sub(b'0');
                if digit > 9 {
                    return cursor.pos - from;
                }
                *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
                cursor.pos += 1;
            }
        };
        let whole = digits(self, &mut mantissa);
        if whole == 0 {
            return Err(Malformed("a number has no digits"));
        }
        let leading_zero = self.text[first] == b'0';
        if leading_zero && whole > 1 {
            return Err(Malformed("a number starts with a zero"));
        }
        let mut number = Number {
            start,
            end: self.pos,
            negative,
            mantissa,
            digits: whole as u32 - u32::from(leading_zero),
            exponent: 0,
            integer: true,
        };
        if !matches!(self.peek(), b'.' | b'e' | b'E') {
            return Ok(number);
        }
        number.integer = false;
        if self.eat(b'.') {
            let fraction = digits(self, &mut mantissa);
            if fraction == 0 {
                return Err(Malformed("a number has no digits after its point"));
            }
            number.digits += fraction as u32;
            number.exponent = -(fraction.min(1 << 20) as i32);
        }
        number.mantissa = mantissa;
        if matches!(self.peek(), b'e' | b'E') {
            self.pos += 1;
            let down = self.eat(b'-');
            if !down {
                self.eat(b'+');
            }
            let mut power = 0u64;
            let count = digits(self, &mut power);
            if count == 0 {
                return Err(Malformed("a number has no digits in its exponent"));
            }
            let power = if count > 9 {
                1 << 20
            } else {
                power.min(1 << 20)
            } as i32;
            number.exponent += if down { -power } else { power };
        }
        number.end = self.pos;
        Ok(number)
    }

    /// Goes over `NaN`, `Infinity`, `INF`, signed or not.
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
                && (signed == 0 || value > 0.0)
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
            _ => self.skip_other(depth),
        }
    }

    #[inline(never)]
    fn skip_other(&mut self, depth: usize) -> Scan<()> {
        match self.start()? {
            Start::String => self.string().map(drop),
            Start::Number => self.number().map(drop),
            Start::Null => self.literal("null"),
            Start::True => self.literal("true"),
            Start::False => self.literal("false"),
            Start::NotFinite => self.not_finite().map(drop),
            Start::Object => self.skip_object(depth),
            Start::Array => self.skip_array(depth),
        }
    }

    fn skip_object(&mut self, depth: usize) -> Scan<()> {
        self.deeper(depth)?;
        self.pos += 1;
        self.blanks();
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            self.key()?;
            self.skip(depth + 1)?;
            if !self.more(b'}')? {
                return Ok(());
            }
        }
    }

    fn skip_array(&mut self, depth: usize) -> Scan<()> {
        self.deeper(depth)?;
        self.pos += 1;
        self.blanks();
        if self.eat(b']') {
            return Ok(());
        }
        loop {
            self.skip(depth + 1)?;
            if !self.more(b']')? {
                return Ok(());
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
    pub(super) fn key(&mut self) -> Scan<Text> {
        if self.start()? != Start::String {
            return Err(Malformed("a field has no quoted name"));
        }
        let name = self.string()?;
        self.blanks();
        if !self.eat(b':') {
            return Err(Malformed("a field name is not followed by a colon"));
        }
        self.blanks();
        Ok(name)
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
    while let Some(at) = memchr::memchr(b'\\', text) {
        out.extend_from_slice(&text[..at]);
        let plain = |byte: u8| (byte, 2);
        let (byte, len) = match text[at + 1] {
            b'b' => plain(8),
            b'f' => plain(12),
            b'n' => plain(b'\n'),
            b'r' => plain(b'\r'),
            b't' => plain(b'\t'),
            b'u' => {
                let first = hex4(&text[at + 2..]);
                let pair = match text.get(at + 6..at + 8) {
                    Some(b"\\u") if (0xd800..0xdc00).contains(&first) => hex4(&text[at + 8..]),
                    _ => 0,
                };
                let (code, len) = match (0xdc00..0xe000).contains(&pair) {
                    true => (0x10000 + ((first - 0xd800) << 10) + (pair - 0xdc00), 12),
                    false => (first, 6),
                };
                let mut buffer = [0; 4];
                let c = char::from_u32(code).unwrap_or('?');
                out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                text = &text[at + len..];
                continue;
            }
            other => plain(other),
        };
        out.push(byte);
        text = &text[at + len..];
    }
    out.extend_from_slice(text);
}

/// Four hex digits, checked before.
fn hex4(text: &[u8]) -> u32 {
    text[..4].iter().fold(0, |n, digit| {
        n * 16
            + (*digit as char)
                .to_digit(16)
                .expect("escapes are checked by the scan")
    })
}
