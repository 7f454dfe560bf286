//! Cuts a line into cells, as univocity does for Spark.
//!
//! Not `csv-core`: there an escape character swallows itself before any character (`"C:\temp"` would lose its
//! backslash); here it escapes only the quote and itself. And a quote that stands within a quoted cell without being
//! escaped makes the cell plain text up to the next separator, opening quote included, or what `StrayQuote` says.

use std::str::FromStr;

/// What a quote within a quoted cell does that is not escaped, if neither a separator nor the end follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StrayQuote {
    /// It is text, and the cell goes on to a quote that closes it.
    StopAtClosingQuote,
    /// What the cell has so far is cut at separators; its last piece goes on as a quoted cell, without the quote. So
    /// univocity has it; its documentation promises plain text instead.
    BackToDelimiter,
    /// The cell was none with quotes: it is plain text up to the next separator, quotes included.
    #[default]
    StopAtDelimiter,
    /// The cell is null.
    SkipValue,
    /// The row cannot be read, and no mode looks over it.
    RaiseError,
}

impl FromStr for StrayQuote {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.trim().to_ascii_uppercase().as_str() {
            "STOP_AT_CLOSING_QUOTE" => StrayQuote::StopAtClosingQuote,
            "BACK_TO_DELIMITER" => StrayQuote::BackToDelimiter,
            "STOP_AT_DELIMITER" => StrayQuote::StopAtDelimiter,
            "SKIP_VALUE" => StrayQuote::SkipValue,
            "RAISE_ERROR" => StrayQuote::RaiseError,
            _ => {
                return Err(
                    "it is STOP_AT_CLOSING_QUOTE, BACK_TO_DELIMITER, STOP_AT_DELIMITER, \
                     SKIP_VALUE or RAISE_ERROR"
                        .into(),
                );
            }
        })
    }
}

/// What the characters of a file mean.
#[derive(Debug, Clone)]
pub struct Dialect {
    pub(super) separator: u8,
    pub(super) quote: Option<u8>,
    pub(super) escape: Option<u8>,
    /// What escapes the escape; not given, that is the escape itself if it is another character than the quote.
    pub(super) escape_of_escape: Option<Option<u8>>,
    pub(super) trim_start: bool,
    pub(super) trim_end: bool,
    pub(super) stray: StrayQuote,
}

impl Dialect {
    /// Behind the blanks that are at `at`. A separator is none, nor is a `line_end`.
    fn behind_blanks(&self, text: &[u8], at: usize, line_end: Option<u8>) -> usize {
        let blank = |byte: &u8| *byte <= b' ' && *byte != self.separator && Some(*byte) != line_end;
        let rest = text.get(at..).unwrap_or_default();
        at + rest.iter().take_while(|byte| blank(byte)).count()
    }

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
            open = dialect.behind_blanks(text, open, Some(b'\n'));
        }
        if let Some(quote) = dialect.quote.filter(|quote| text.get(open) == Some(quote)) {
            at = dialect.closing(text, open + 1, quote, |_| {})? + 1;
            let goes_on = dialect.stray == StrayQuote::StopAtClosingQuote;
            let ends = |behind: &u8| [dialect.separator, b'\n'].contains(behind);
            let behind = |at| text.get(dialect.behind_blanks(text, at, Some(b'\n')));
            while goes_on && !ends(behind(at)?) {
                at = dialect.closing(text, at, quote, |_| {})? + 1;
            }
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
pub struct Cells {
    cells: Vec<Cell>,
    scratch: Vec<u8>,
    /// A quote stands where none may.
    stray: bool,
}

impl Cells {
    /// Whether the line cut last has a quote for which nothing but an error was asked.
    pub fn has_stray_quote(&self) -> bool {
        self.stray
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.cells.len()
    }

    /// The text of a cell of `line`, and whether it was in quotes.
    #[inline]
    pub fn get<'a>(&'a self, line: &'a [u8], at: usize) -> (&'a [u8], bool) {
        let cell = self.cells[at];
        let text = if cell.changed { &self.scratch } else { line };
        (&text[cell.start..cell.end], cell.quoted)
    }

    /// Cuts `line`.
    pub fn cut(&mut self, line: &[u8], dialect: &Dialect) {
        self.cells.clear();
        self.scratch.clear();
        self.stray = false;
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
        let open = match dialect.trim_start {
            true => dialect.behind_blanks(line, start, None),
            false => start,
        };
        let Some(quote) = dialect.quote.filter(|quote| line.get(open) == Some(quote)) else {
            return self.plain(line, start, start, dialect);
        };
        let mut scratch = self.scratch.len();
        let (mut from, mut copied) = (open + 1, open + 1);
        // Until something is left out, the cell is a piece of the line.
        let mut changed = false;
        loop {
            let end = dialect.closing(line, from, quote, |next| {
                self.scratch.extend_from_slice(&line[copied..next]);
                changed = true;
                copied = next + 1;
            });
            let end = end.unwrap_or(line.len()); // never closed: the line ends the cell
            let behind = dialect.behind_blanks(line, (end + 1).min(line.len()), None);
            if line
                .get(behind)
                .is_none_or(|byte| *byte == dialect.separator)
            {
                self.push_quoted(line, (copied, end), changed.then_some(scratch));
                return behind;
            }
            // Of quotes in a row the last one may close the cell; the others are text.
            if line.get(end + 1) == Some(&quote) {
                from = end + 1;
                continue;
            }
            match dialect.stray {
                StrayQuote::StopAtClosingQuote => from = end + 1,
                StrayQuote::BackToDelimiter if behind == end + 1 => {
                    self.scratch.extend_from_slice(&line[copied..end]);
                    scratch = self.cut_scratch(scratch, dialect.separator);
                    changed = true;
                    // What follows the quote is text, whatever it is.
                    (copied, from) = (end + 1, end + 2);
                }
                StrayQuote::BackToDelimiter | StrayQuote::StopAtDelimiter => {
                    if !changed {
                        return self.plain(line, start, behind, dialect);
                    }
                    self.scratch.extend_from_slice(&line[copied..end]);
                    self.scratch.insert(scratch, quote);
                    return self.plain_behind(line, scratch, end, dialect);
                }
                StrayQuote::SkipValue | StrayQuote::RaiseError => {
                    self.stray |= dialect.stray == StrayQuote::RaiseError;
                    let separator = memchr::memchr(dialect.separator, &line[behind..]);
                    let end = separator.map_or(line.len(), |at| behind + at);
                    self.cells.push(Cell {
                        start: end,
                        end,
                        changed: false,
                        quoted: false,
                    });
                    return end;
                }
            }
        }
    }

    /// A quoted cell: the text at `rest` of the line, behind what the scratch bytes have from `scratch` on.
    fn push_quoted(&mut self, line: &[u8], rest: (usize, usize), scratch: Option<usize>) {
        if scratch.is_some() {
            self.scratch.extend_from_slice(&line[rest.0..rest.1]);
        }
        self.cells.push(Cell {
            start: scratch.unwrap_or(rest.0),
            end: scratch.map_or(rest.1, |_| self.scratch.len()),
            changed: scratch.is_some(),
            quoted: true,
        });
    }

    /// Cells from what the scratch bytes have from `start` on, one up to each separator. Answers where the last piece
    /// begins, which is none yet.
    fn cut_scratch(&mut self, mut start: usize, separator: u8) -> usize {
        while let Some(at) = memchr::memchr(separator, &self.scratch[start..]) {
            self.cells.push(Cell {
                start,
                end: start + at,
                changed: true,
                quoted: true,
            });
            start += at + 1;
        }
        start
    }

    /// A cell without quotes that begins with what the scratch bytes have from `scratch` on, and goes on in the line from
    /// `from` on. Answers where its separator is.
    fn plain_behind(
        &mut self,
        line: &[u8],
        scratch: usize,
        from: usize,
        dialect: &Dialect,
    ) -> usize {
        let end = memchr::memchr(dialect.separator, &line[from + 1..]);
        let end = end.map_or(line.len(), |at| from + 1 + at);
        self.scratch.extend_from_slice(&line[from..end]);
        let mut last = self.scratch.len();
        while dialect.trim_end && self.scratch[last - 1] <= b' ' {
            last -= 1;
        }
        self.cells.push(Cell {
            start: scratch,
            end: last,
            changed: true,
            quoted: false,
        });
        end
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
            stray: StrayQuote::default(),
        }
    }

    fn check_as(dialect: &Dialect, line: &str, expected: &[&str]) {
        let mut cells = Cells::default();
        cells.cut(line.as_bytes(), dialect);
        let found: Vec<&str> = (0..cells.count())
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
    fn escapes_ahead_of_a_stray_quote_are_spelled_out() {
        check(r#""a\"b"x,c"#, &[r#""a"b"x"#, "c"]);
    }

    #[test]
    fn stray_quotes_do_as_they_are_told() {
        use StrayQuote::*;
        let line = r#"1,"a"b,c" x,2,"d" e,"f""#;
        let check = |stray, expected: &[&str]| {
            let dialect = Dialect { stray, ..spark() };
            check_as(&dialect, line, expected);
        };
        check(
            StopAtDelimiter,
            &["1", r#""a"b"#, r#"c" x"#, "2", r#""d" e"#, "f"],
        );
        check(SkipValue, &["1", "", r#"c" x"#, "2", "", "f"]);
        check(RaiseError, &["1", "", r#"c" x"#, "2", "", "f"]);
        // The second cell is closed by the quote ahead of the d.
        check(StopAtClosingQuote, &["1", r#"a"b,c" x,2,"d" e,"f"#]);
        let closing = Dialect {
            stray: StopAtClosingQuote,
            ..spark()
        };
        check_as(&closing, r#""a"b",c"#, &[r#"a"b"#, "c"]);
        check_as(&closing, r#""a" "b" ,c"#, &[r#"a" "b"#, "c"]);
        check_as(&closing, r#""a"b\"c",d"#, &[r#"a"b"c"#, "d"]);
        check_as(&closing, r#""a"b,c"#, &[r#"a"b,c"#]);
        let back = Dialect {
            stray: BackToDelimiter,
            ..spark()
        };
        check_as(&back, r#""a,b"c,d"#, &["a", "bc,d"]);
        check_as(&back, r#""a,b"c,d",e"#, &["a", "bc,d", "e"]);
        check_as(&back, r#""a,b" c,d"#, &[r#""a,b" c"#, "d"]);
    }

    #[test]
    fn of_quotes_in_a_row_the_last_may_close_the_cell() {
        use StrayQuote::*;
        for (line, cell) in [
            (r#""a""",c"#, r#"a"""#),
            (r#""""",c"#, r#""""#),
            (r#"""",c"#, r#"""#),
            (r#""b"",c"#, r#"b""#),
        ] {
            for stray in [
                StopAtClosingQuote,
                BackToDelimiter,
                StopAtDelimiter,
                SkipValue,
                RaiseError,
            ] {
                check_as(&Dialect { stray, ..spark() }, line, &[cell, "c"]);
            }
        }
        let back = Dialect {
            stray: BackToDelimiter,
            ..spark()
        };
        check_as(&back, r#""he said ""hi""",x"#, &[r#"he said "hi"""#, "x"]);
        check_as(&back, r#""""a""",c"#, &[r#""a"""#, "c"]);
        check_as(&back, r#""a""b""c",d"#, &[r#"a"b"c"#, "d"]);
        check(r#""""a""",c"#, &[r#""""a""""#, "c"]);
    }

    #[test]
    fn only_one_way_makes_stray_quotes_errors() {
        let mut cells = Cells::default();
        for stray in [StrayQuote::RaiseError, StrayQuote::SkipValue] {
            for (line, is_stray) in [(r#"1,"a"b,"c""#, true), (r#"1,"a" ,b"c"#, false)] {
                cells.cut(line.as_bytes(), &Dialect { stray, ..spark() });
                let expected = is_stray && stray == StrayQuote::RaiseError;
                assert_eq!(cells.has_stray_quote(), expected, "{line}");
            }
        }
    }

    #[test]
    fn records_go_on_to_the_quote_that_closes() {
        let dialect = Dialect {
            stray: StrayQuote::StopAtClosingQuote,
            ..spark()
        };
        let end = |text: &str| record_end(text.as_bytes(), &dialect);
        assert_eq!(end("\"a\"b\nc\",d\ne"), Some(9));
        assert_eq!(end("\"a\"b\nc"), None);
        assert_eq!(end("\"a\" "), None);
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
            let strays = [
                StrayQuote::StopAtClosingQuote,
                StrayQuote::BackToDelimiter,
                StrayQuote::SkipValue,
            ];
            let others = strays.map(|stray| Dialect { stray, ..spark() });
            for dialect in [spark(), trim].into_iter().chain(others) {
                let mut cells = Cells::default();
                cells.cut(line.as_bytes(), &dialect);
                for at in 0..cells.count() {
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
