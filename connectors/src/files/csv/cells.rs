//! Cuts a line into cells, as univocity does for Spark.
//!
//! Not `csv-core`: there an escape character swallows itself before any character (`"C:\temp"` would lose its
//! backslash); here it escapes only the quote and itself. And a quote that stands within a quoted cell without being
//! escaped makes the cell plain text up to the next separator, opening quote included.

/// What the characters of a file mean.
#[derive(Debug, Clone)]
pub(super) struct Dialect {
    pub(super) separator: u8,
    pub(super) quote: Option<u8>,
    pub(super) escape: Option<u8>,
    /// What escapes the escape; not given, that is the escape itself if it is another character than the quote.
    pub(super) escape_of_escape: Option<Option<u8>>,
    pub(super) trim_start: bool,
    pub(super) trim_end: bool,
}

impl Dialect {
    /// Where the quote is that closes a cell, looked for from `at` on. Tells of each escaping character on the way.
    fn closing(
        &self,
        line: &[u8],
        mut at: usize,
        quote: u8,
        mut escaping: impl FnMut(usize),
    ) -> Option<usize> {
        let escape = self.escape.unwrap_or(quote);
        let above = match self.escape_of_escape {
            Some(above) => above,
            None => (escape != quote).then_some(escape),
        };
        let third = above.unwrap_or(quote);
        loop {
            let next = at + memchr::memchr3(quote, escape, third, line.get(at..)?)?;
            let (found, follows) = (line[next], line.get(next + 1).copied());
            let escapes = (found == escape && follows == Some(quote))
                || (above == Some(found) && follows == Some(escape));
            if escapes {
                escaping(next);
                at = next + 2;
            } else if found == quote {
                return Some(next);
            } else {
                at = next + 1;
            }
        }
    }
}

/// Where the line end is that ends the first row of `text`, where quoted cells may hold line ends; none if it is not
/// there. Walks as `Cells::cut` does.
pub(super) fn record_end(text: &[u8], dialect: &Dialect) -> Option<usize> {
    let mut at = 0;
    loop {
        let mut open = at;
        if dialect.trim_start {
            while text
                .get(open)
                .is_some_and(|byte| *byte <= b' ' && *byte != dialect.separator && *byte != b'\n')
            {
                open += 1;
            }
        }
        if let Some(quote) = dialect.quote.filter(|quote| text.get(open) == Some(quote)) {
            at = dialect.closing(text, open + 1, quote, |_| {})? + 1;
        }
        // The rest of the cell, be it blanks or what makes it plain text.
        at += memchr::memchr2(dialect.separator, b'\n', text.get(at..)?)?;
        match text[at] {
            b'\n' => return Some(at),
            _ => at += 1,
        }
    }
}

/// A cell of the line cut last.
#[derive(Debug, Clone, Copy)]
struct Cell {
    start: usize,
    end: usize,
    /// It lies in the scratch bytes: its text was changed.
    changed: bool,
    quoted: bool,
}

/// The cells of one line.
#[derive(Default)]
pub(super) struct Cells {
    cells: Vec<Cell>,
    scratch: Vec<u8>,
}

impl Cells {
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// The text of a cell of `line`, and whether it was in quotes.
    #[inline]
    pub(super) fn get<'a>(&'a self, line: &'a [u8], at: usize) -> (&'a [u8], bool) {
        let cell = self.cells[at];
        let text = if cell.changed { &self.scratch } else { line };
        (&text[cell.start..cell.end], cell.quoted)
    }

    /// Cuts `line`.
    pub(super) fn cut(&mut self, line: &[u8], dialect: &Dialect) {
        self.cells.clear();
        self.scratch.clear();
        let quotes = dialect
            .quote
            .is_some_and(|quote| memchr::memchr(quote, line).is_some());
        let mut start = 0;
        loop {
            let end = match quotes {
                true => self.cell(line, start, dialect),
                false => self.plain(line, start, start, dialect),
            };
            match end {
                end if end < line.len() => start = end + 1,
                _ => return,
            }
        }
    }

    /// A cell without quotes that starts at `start`; its separator is looked for from `from` on. Answers where that is.
    #[inline]
    fn plain(&mut self, line: &[u8], start: usize, from: usize, dialect: &Dialect) -> usize {
        let end =
            memchr::memchr(dialect.separator, &line[from..]).map_or(line.len(), |at| from + at);
        let (mut first, mut last) = (start, end);
        if dialect.trim_start {
            while first < last && line[first] <= b' ' {
                first += 1;
            }
        }
        if dialect.trim_end {
            while first < last && line[last - 1] <= b' ' {
                last -= 1;
            }
        }
        self.cells.push(Cell {
            start: first,
            end: last,
            changed: false,
            quoted: false,
        });
        end
    }

    /// Any cell that starts at `start`. Answers where its separator is.
    fn cell(&mut self, line: &[u8], start: usize, dialect: &Dialect) -> usize {
        let mut open = start;
        if dialect.trim_start {
            while open < line.len() && line[open] <= b' ' && line[open] != dialect.separator {
                open += 1;
            }
        }
        let Some(quote) = dialect.quote.filter(|quote| line.get(open) == Some(quote)) else {
            return self.plain(line, start, start, dialect);
        };
        let scratch = self.scratch.len();
        let mut copied = open + 1;
        // Until something is left out, the cell is a piece of the line.
        let mut changed = false;
        let end = dialect.closing(line, open + 1, quote, |next| {
            self.scratch.extend_from_slice(&line[copied..next]);
            changed = true;
            copied = next + 1;
        });
        let end = end.unwrap_or(line.len()); // never closed: the line ends the cell
        let mut behind = (end + 1).min(line.len());
        while behind < line.len() && line[behind] <= b' ' && line[behind] != dialect.separator {
            behind += 1;
        }
        if behind < line.len() && line[behind] != dialect.separator {
            // The quote was none: the cell is what stands there.
            self.scratch.truncate(scratch);
            return self.plain(line, start, behind, dialect);
        }
        if changed {
            self.scratch.extend_from_slice(&line[copied..end]);
        }
        self.cells.push(Cell {
            start: if changed { scratch } else { open + 1 },
            end: if changed { self.scratch.len() } else { end },
            changed,
            quoted: true,
        });
        behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spark() -> Dialect {
        Dialect {
            separator: b',',
            quote: Some(b'"'),
            escape: Some(b'\\'),
            escape_of_escape: None,
            trim_start: false,
            trim_end: false,
        }
    }

    fn check_as(dialect: &Dialect, line: &str, expected: &[&str]) {
        let mut cells = Cells::default();
        cells.cut(line.as_bytes(), dialect);
        let found: Vec<&str> = (0..cells.len())
            .map(|at| std::str::from_utf8(cells.get(line.as_bytes(), at).0).unwrap())
            .collect();
        assert_eq!(found, expected, "{line}");
    }

    fn check(line: &str, expected: &[&str]) {
        check_as(&spark(), line, expected);
    }

    #[test]
    fn separators_separate() {
        check("a,b,,c", &["a", "b", "", "c"]);
        check("a,", &["a", ""]);
        check(",", &["", ""]);
        check(" a , b ", &[" a ", " b "]);
    }

    #[test]
    fn quotes_protect_separators() {
        check(r#""a,b",c"#, &["a,b", "c"]);
        check(r#""",x"#, &["", "x"]);
        check(r#"a"b,c"#, &[r#"a"b"#, "c"]);
        check(r#""a" ,b"#, &["a", "b"]);
    }

    #[test]
    fn the_escape_escapes_quotes_and_itself_only() {
        check(r#""say \"hi\"",x"#, &[r#"say "hi""#, "x"]);
        check(r#""C:\temp",x"#, &[r"C:\temp", "x"]);
        check(r#""a\\",x"#, &[r"a\", "x"]);
        check(r"a\,b", &[r"a\", "b"]);
    }

    #[test]
    fn a_quote_can_be_its_own_escape() {
        let dialect = Dialect {
            escape: Some(b'"'),
            ..spark()
        };
        check_as(&dialect, r#""say ""hi""",x"#, &[r#"say "hi""#, "x"]);
    }

    #[test]
    fn another_character_can_escape_the_escape() {
        let dialect = |above| Dialect {
            escape_of_escape: Some(above),
            ..spark()
        };
        check_as(&dialect(Some(b'#')), r#""a#\",x"#, &[r"a\", "x"]);
        check_as(&dialect(Some(b'#')), r#""a\\",x"#, &[r#"a\",x"#]);
        check_as(&dialect(None), r#""a\\"b",x"#, &[r#"a\"b"#, "x"]);
    }

    #[test]
    fn quoted_line_ends_do_not_end_a_row() {
        let end = |text: &str| record_end(text.as_bytes(), &spark());
        assert_eq!(end("a,b\nc"), Some(3));
        assert_eq!(end("\"a\nb\",c\nd"), Some(7));
        assert_eq!(end("x,\"a\\\"\nb\"\n"), Some(9));
        assert_eq!(end("\"a\nb\"c,d\n"), Some(8));
        assert_eq!(end("a\"b\nc"), Some(3));
        assert_eq!(end("\"a\nb"), None);
        assert_eq!(end(""), None);
    }

    #[test]
    fn a_stray_quote_makes_the_cell_plain_text() {
        check(r#""a"b,c"#, &[r#""a"b"#, "c"]);
        check(r#""a""b",c"#, &[r#""a""b""#, "c"]);
        check(r#""a"x\"y,c"#, &[r#""a"x\"y"#, "c"]);
    }

    #[test]
    fn a_quote_that_never_closes_takes_the_rest() {
        check(r#"a,"b,c"#, &["a", "b,c"]);
        check(r#"""#, &[""]);
    }

    #[test]
    fn blanks_can_be_trimmed() {
        let dialect = Dialect {
            trim_start: true,
            trim_end: true,
            ..spark()
        };
        check_as(&dialect, r#" a , "b " ,c"#, &["a", "b ", "c"]);
    }

    #[test]
    fn no_line_panics_and_plain_ones_are_split_at_separators() {
        let alphabet = ["a", ",", "\"", "\\", " ", "é", "\t"];
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % below
        };
        for _ in 0..100_000 {
            let line: String = (0..next(12))
                .map(|_| alphabet[next(alphabet.len())])
                .collect();
            let trim = Dialect {
                trim_start: true,
                trim_end: true,
                ..spark()
            };
            for dialect in [spark(), trim] {
                let mut cells = Cells::default();
                cells.cut(line.as_bytes(), &dialect);
                for at in 0..cells.len() {
                    let (cell, _) = cells.get(line.as_bytes(), at);
                    std::str::from_utf8(cell).unwrap();
                }
            }
            if !line.contains('"') {
                check(&line, &line.split(',').collect::<Vec<_>>());
            }
        }
    }
}
