//! Lines in bytes: a line ends with `\n`, `\r\n` or `\r`, as Hadoop's reader has it.

/// The lines of `text` without their ends; a last one need not have one.
pub(crate) struct Lines<'a> {
    rest: &'a [u8],
    /// Carriage returns are looked for only in text that has some.
    returns: bool,
    consumed: usize,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Lines {
            rest: text,
            returns: memchr::memchr(b'\r', text).is_some(),
            consumed: 0,
        }
    }

    /// How many bytes the lines handed out so far had, ends included.
    pub(crate) fn consumed(&self) -> usize {
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
pub(crate) fn whole_lines(text: &[u8]) -> usize {
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
    fn a_final_return_waits_for_its_newline() {
        assert_eq!(whole_lines(b"a\nb\r"), 2);
        assert_eq!(whole_lines(b"a\rb\r"), 2);
        assert_eq!(whole_lines(b"a\r\n"), 3);
        assert_eq!(whole_lines(b"ab"), 0);
    }
}
