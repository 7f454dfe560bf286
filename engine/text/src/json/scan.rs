//! Walks over the bytes of one JSON text: the grammar, and nothing about columns.
//!
//! The grammar is what Jackson accepts under Spark's defaults: strict JSON, plus single quotes and `NaN`, `Infinity`.
//! Values that nobody wants are checked as strictly as wanted ones, so that whether a row is malformed does not
//! depend on which columns a query reads.

use super::escape::{hex4, unescape_one};
use super::plain::{plain_end, special_marks};
use super::simple::{TENS, leading_digits, skip_simple};

/// Objects and arrays within one another, the outermost counted; more is malformed, as it is to Jackson. It bounds the
/// stack of whoever reads values recursively.
const DEPTH_MAX: usize = 1000;

/// A longer number is malformed, as it is to Jackson.
const NUMBER_BYTES_MAX: usize = 1000;

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

    /// True, and past it, if blanks and then `byte` are here; else it stays.
    #[inline(never)]
    pub(super) fn eat_behind_blanks(&mut self, byte: u8) -> bool {
        let from = self.pos;
        self.blanks();
        let here = self.eat(byte);
        if !here {
            self.pos = from;
        }
        here
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
        self.text.get(self.pos..).unwrap_or_default()
    }

    /// Goes to where `rest` is what follows.
    #[inline(always)]
    pub(super) fn go_to(&mut self, rest: &[u8]) {
        self.pos = self.text.len() - rest.len();
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
                    at += self.escape_len(&self.text[at..])?;
                }
                Some(b'\n' | b'\r') if !self.dialect.many_lines => {
                    return Err(Malformed("a string does not end"));
                }
                Some(_) if self.dialect.control_chars => at += 1,
                Some(_) => return Err(Malformed("a string holds a control character")),
            }
        }
    }

    /// Appends the content of a string in double quotes to `out`, from behind its opening quote. Answers what is behind
    /// the closing one. It goes over the bytes once: they are copied as they are looked at.
    #[inline(always)]
    pub(super) fn copy_string(&self, text: &'a [u8], out: &mut Vec<u8>) -> Scan<&'a [u8]> {
        let Some((block, behind)) = text.split_first_chunk::<32>() else {
            return self.copy_rest_of_string(text, out);
        };
        // A copy of fixed length, of which too much is cut off again, takes no call and no branch on the length.
        let len = out.len();
        out.extend_from_slice(block);
        let marks = special_marks::<b'"'>(block);
        if marks == 0 {
            return self.copy_rest_of_string(behind, out);
        }
        let plain = marks.trailing_zeros() as usize;
        out.truncate(len + plain);
        match block[plain] {
            b'"' => Ok(&text[plain + 1..]),
            _ => self.copy_rest_of_string(&text[plain..], out),
        }
    }

    #[inline(never)]
    fn copy_rest_of_string(&self, text: &'a [u8], out: &mut Vec<u8>) -> Scan<&'a [u8]> {
        let mut rest = copy_plain(text, out);
        loop {
            match rest {
                [b'"', behind @ ..] => return Ok(behind),
                [b'\\', ..] => {
                    self.escape_len(rest)?;
                    rest = copy_short(unescape_one(rest, out), out);
                }
                [] => return Err(Malformed("a string does not end")),
                [b'\n' | b'\r', ..] if !self.dialect.many_lines => {
                    return Err(Malformed("a string does not end"));
                }
                [byte, behind @ ..] if self.dialect.control_chars => {
                    out.push(*byte);
                    rest = copy_plain(behind, out);
                }
                _ => return Err(Malformed("a string holds a control character")),
            }
        }
    }

    /// How long the escape is that `text` starts with.
    #[inline(always)]
    fn escape_len(&self, text: &[u8]) -> Scan<usize> {
        match text.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
            Some(b'\'') if self.dialect.single_quotes => Ok(2),
            Some(b'u') => match hex4(&text[2..]) {
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
            let (word, count) = leading_digits(word);
            if count == 0 {
                return self.pos - from;
            }
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
        match skip_simple(self.rest()) {
            Some(behind) => {
                self.go_to(behind);
                Ok(())
            }
            None => self.skip_other(depth),
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
        let byte = self.peek();
        if byte == b',' {
            self.pos += 1;
            self.blanks();
            return Ok(true);
        }
        if byte == close {
            self.pos += 1;
            return Ok(false);
        }
        self.more_behind_blanks(close)
    }

    #[inline(never)]
    fn more_behind_blanks(&mut self, close: u8) -> Scan<bool> {
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

/// Appends what `text` has before the end of a string in double quotes or an escape. Answers what is behind that.
#[inline(always)]
fn copy_plain<'a>(mut text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    while let Some((block, behind)) = text.split_first_chunk::<64>() {
        let len = out.len();
        out.extend_from_slice(block);
        let [low, high] = block.as_chunks::<32>().0 else {
            unreachable!("a block has two halves");
        };
        let marks =
            u64::from(special_marks::<b'"'>(low)) | u64::from(special_marks::<b'"'>(high)) << 32;
        if marks != 0 {
            let plain = marks.trailing_zeros() as usize;
            out.truncate(len + plain);
            return &text[plain..];
        }
        text = behind;
    }
    let (plain, behind) = text.split_at(plain_end::<b'"'>(text, 0));
    out.extend_from_slice(plain);
    behind
}

/// As `copy_plain`, where little is expected: texts with escapes have many.
#[inline(always)]
fn copy_short<'a>(text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let Some((block, behind)) = text.split_first_chunk::<32>() else {
        return copy_plain(text, out);
    };
    let len = out.len();
    out.extend_from_slice(block);
    let marks = special_marks::<b'"'>(block);
    if marks == 0 {
        return copy_plain(behind, out);
    }
    let plain = marks.trailing_zeros() as usize;
    out.truncate(len + plain);
    &text[plain..]
}
