//! Lines in bytes: a line ends with `\n`, `\r\n` or `\r`, as Hadoop's reader has it.

use crate::options::{OptionError, Options};

use crate::options::invalid;

/// What somebody wants lines of `format` to end with, read or written: option `lineSep`. `\\n`, `\\r` and `\\t` stand
/// for what they do in Java.
pub fn line_separator(
    owner: &str,
    format: &str,
    options: &Options,
) -> Result<Option<String>, OptionError> {
    let name = "lineSep";
    let Some(value) = options.get(name) else {
        return Ok(None);
    };
    let plain = value.replace("\\n", "\n").replace("\\r", "\r");
    let plain = plain.replace("\\t", "\t");
    match plain.chars().count() {
        0 => Err(invalid(owner, name, value, "it is at least one character")),
        3.. if format == "csv" => Err(invalid(owner, name, value, "it is one or two characters")),
        _ => Ok(Some(plain)),
    }
}

/// What ends a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LineEnd {
    /// `\n`, `\r\n` or `\r`.
    #[default]
    Any,
    /// These bytes and nothing else.
    Just(Vec<u8>),
}

impl LineEnd {
    /// The lines of `text`.
    pub fn lines<'a>(&'a self, text: &'a [u8]) -> Lines<'a> {
        match self {
            LineEnd::Any => Lines::new(text),
            LineEnd::Just(end) => Lines {
                rest: text,
                returns: false,
                end: Some(end),
                consumed: 0,
            },
        }
    }

    /// How much of `text` is whole lines.
    pub fn whole(&self, text: &[u8]) -> usize {
        match self {
            LineEnd::Any => whole_lines(text),
            // From the front: ends that overlap are cut as reading cuts them.
            LineEnd::Just(end) => memchr::memmem::find_iter(text, end)
                .last()
                .map_or(0, |at| at + end.len()),
        }
    }
}

/// The lines of `text` without their ends; a last one need not have one.
pub struct Lines<'a> {
    rest: &'a [u8],
    /// What ends a line, if that is something special.
    end: Option<&'a [u8]>,
    /// Carriage returns are looked for only in text that has some.
    returns: bool,
    consumed: usize,
}

impl<'a> Lines<'a> {
    /// Those of `text`, whichever way they end.
    pub fn new(text: &'a [u8]) -> Self {
        Lines {
            rest: text,
            end: None,
            returns: memchr::memchr(b'\r', text).is_some(),
            consumed: 0,
        }
    }

    /// How many bytes the lines handed out so far had, ends included.
    pub fn consumed(&self) -> usize {
        self.consumed
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        if let Some(separator) = self.end {
            let found = memchr::memmem::find(self.rest, separator);
            let end = found.unwrap_or(self.rest.len());
            let (line, behind) = self.rest.split_at(end);
            let skipped = separator.len().min(behind.len());
            self.consumed += end + skipped;
            self.rest = &behind[skipped..];
            return Some(line);
        }
        let end = match self.returns {
            false => memchr::memchr(b'\n', self.rest),
            true => memchr::memchr2(b'\n', b'\r', self.rest),
        };
        let end = end.unwrap_or(self.rest.len());
        let line = &self.rest[..end];
        let behind = match &self.rest[end..] {
            [b'\r', b'\n', ..] => end + 2,
            [_, ..] => end + 1,
            [] => end,
        };
        self.consumed += behind;
        self.rest = &self.rest[behind..];
        Some(line)
    }
}

/// How much of `text` is whole lines: behind the last line end that is certain to be one. A final `\r` is not, for
/// its `\n` may follow.
pub fn whole_lines(text: &[u8]) -> usize {
    if let Some(at) = memchr::memrchr(b'\n', text) {
        return at + 1;
    }
    let known = text.len().saturating_sub(1);
    memchr::memrchr(b'\r', &text[..known]).map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let lines: Vec<&[u8]> = Lines::new(text.as_bytes()).collect();
        let expected: Vec<&[u8]> = expected.iter().map(|line| line.as_bytes()).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn all_three_ends_end_a_line() {
        check("a\nb\r\nc\rd", &["a", "b", "c", "d"]);
        check("a\n\n", &["a", ""]);
        check("\r\r\n", &["", ""]);
        check("", &[]);
    }

    #[test]
    fn an_end_of_its_own_is_the_only_one() {
        let end = LineEnd::Just(b"||".to_vec());
        let lines: Vec<&[u8]> = end.lines(b"a\nb||c|||d").collect();
        assert_eq!(lines, [&b"a\nb"[..], b"c", b"|d"]);
        assert_eq!(end.whole(b"a\nb||c|||d"), 8);
        assert_eq!(end.whole(b"a|||"), 3);
        assert_eq!(end.whole(b"a\n"), 0);
        assert_eq!(LineEnd::Any.whole(b"a\nb"), 2);
    }

    #[test]
    fn a_final_return_waits_for_its_newline() {
        assert_eq!(whole_lines(b"a\nb\r"), 2);
        assert_eq!(whole_lines(b"a\rb\r"), 2);
        assert_eq!(whole_lines(b"a\r\n"), 3);
        assert_eq!(whole_lines(b"ab"), 0);
    }
}
