//! Patterns of `to_number` and `to_char`: `S$9,999.99`.

use crate::error::QueryError;
use crate::text::push_plain_decimal;

/// One thing that a pattern asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Runs of digits with separators between them, from left to right.
    Digits(Vec<Group>),
    Point,
    Dollar,
    /// `S`: a plus or a minus.
    Sign,
    /// `MI`: a minus or nothing.
    Minus,
    /// `PR`: angle brackets around what is negative.
    Open,
    Close,
    Other(char),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// So many digits; `exact` ones are written as zeros where there are none.
    Run {
        count: usize,
        exact: bool,
    },
    Separator,
}

/// A pattern that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    tokens: Vec<Token>,
    whole: usize,
    fraction: usize,
}

impl Token {
    fn name(&self) -> String {
        match self {
            Token::Digits(_) => "digit sequence".into(),
            Token::Point => ". or D".into(),
            Token::Dollar => "$".into(),
            Token::Sign => "S".into(),
            Token::Minus => "MI".into(),
            Token::Open | Token::Close => "PR".into(),
            Token::Other(c) => format!("character '{c}'"),
        }
    }
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut found: Vec<Token> = vec![];
    let mut fraction = false;
    let mut rest = pattern;
    let group = |found: &mut Vec<Token>, group: Group| match found.last_mut() {
        Some(Token::Digits(groups)) => groups.push(group),
        _ => found.push(Token::Digits(vec![group])),
    };
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        match c {
            '0' | '9' => {
                length = rest.find(|c| c != '0' && c != '9').unwrap_or(rest.len());
                let run = Group::Run {
                    count: length,
                    exact: c == '0' && !fraction,
                };
                group(&mut found, run);
            }
            ',' | 'G' => group(&mut found, Group::Separator),
            '.' | 'D' => {
                fraction = true;
                found.push(Token::Point);
            }
            '$' => found.push(Token::Dollar),
            'S' => found.push(Token::Sign),
            'M' if rest.starts_with("MI") => {
                length = 2;
                found.push(Token::Minus);
            }
            'P' if rest.starts_with("PR") => {
                length = 2;
                found.insert(0, Token::Open);
                found.push(Token::Close);
            }
            other => found.push(Token::Other(other)),
        }
        rest = &rest[length..];
    }
    found
}

impl Template {
    /// The pattern, in upper or lower case.
    pub(super) fn read(pattern: &str) -> Result<Template, QueryError> {
        let pattern = pattern.to_uppercase();
        let invalid = |class: &str, why: &str| {
            let message = format!("The format is invalid: '{pattern}'. {why}");
            Err(QueryError::new(format!("INVALID_FORMAT.{class}"), message))
        };
        let tokens = tokens(&pattern);
        let is_digits = |t: &Token| matches!(t, Token::Digits(_));
        let (digits, dollar, point) = (
            tokens.iter().position(is_digits),
            tokens.iter().position(|t| *t == Token::Dollar),
            tokens.iter().position(|t| *t == Token::Point),
        );
        if pattern.is_empty() {
            return invalid("EMPTY", "The number format string cannot be empty.");
        }
        let Some(digits) = digits else {
            return invalid(
                "WRONG_NUM_DIGIT",
                "The format string requires at least one number digit.",
            );
        };
        if dollar.is_some_and(|dollar| digits < dollar) {
            return invalid(
                "CUR_MUST_BEFORE_DIGIT",
                "Currency characters must appear before digits in the number format.",
            );
        }
        if dollar.is_some_and(|dollar| point.is_some_and(|point| point < dollar)) {
            return invalid(
                "CUR_MUST_BEFORE_DEC",
                "Currency characters must appear before any decimal point in the number format.",
            );
        }
        let after = |at: usize| point.is_some_and(|point| at > point);
        for (at, token) in tokens.iter().enumerate() {
            let Token::Digits(groups) = token else {
                continue;
            };
            let lone = groups.first() == Some(&Group::Separator)
                || groups.last() == Some(&Group::Separator)
                || groups.windows(2).any(|two| two == [Group::Separator; 2]);
            if lone && !after(at) {
                return invalid(
                    "CONT_THOUSANDS_SEPS",
                    "Thousands separators (, or G) must have digits in between them in the number format.",
                );
            }
        }
        let separated = |t: &Token| matches!(t, Token::Digits(g) if g.contains(&Group::Separator));
        if (0..tokens.len()).any(|at| after(at) && separated(&tokens[at])) {
            return invalid(
                "THOUSANDS_SEPS_MUST_BEFORE_DEC",
                "Thousands separators (, or G) may not appear after the decimal point in the number format.",
            );
        }
        for once in [
            Token::Point,
            Token::Sign,
            Token::Minus,
            Token::Dollar,
            Token::Close,
        ] {
            if tokens.iter().filter(|t| **t == once).count() > 1 {
                let why = format!(
                    "At most one {} is allowed in the number format.",
                    once.name()
                );
                return invalid("WRONG_NUM_TOKEN", &why);
            }
        }
        // The order that they may have, each or none.
        let order: [&dyn Fn(&Token) -> bool; 8] = [
            &|t| *t == Token::Open,
            &|t| matches!(t, Token::Minus | Token::Sign),
            &|t| *t == Token::Dollar,
            &is_digits,
            &|t| *t == Token::Point,
            &is_digits,
            &|t| *t == Token::Dollar,
            &|t| matches!(t, Token::Minus | Token::Sign | Token::Close),
        ];
        let mut left = tokens.iter().peekable();
        for allowed in order {
            left.next_if(|token| allowed(token));
        }
        if let Some(token) = left.next() {
            let why = format!(
                "Found the unexpected {} in the format string; the structure of the format string must match: `[MI|S]` `[$]` `[0|9|G|,]*` `[.|D]` `[0|9]*` `[$]` `[PR|MI|S]`.",
                token.name()
            );
            return invalid("UNEXPECTED_TOKEN", &why);
        }
        let count = |fraction: bool| {
            let of = tokens
                .iter()
                .enumerate()
                .filter(|(at, _)| after(*at) == fraction);
            of.map(|(_, token)| match token {
                Token::Digits(groups) => groups.iter().map(Group::count).sum(),
                _ => 0,
            })
            .sum()
        };
        let (whole, fraction) = (count(false), count(true));
        Ok(Template {
            whole,
            fraction,
            tokens,
        })
    }

    /// How many digits a number of this pattern has, and how many of them after the point.
    pub(super) fn precision(&self) -> (usize, usize) {
        (self.whole + self.fraction, self.fraction)
    }

    /// The number that `text` is, without its point; `None` if it does not match.
    pub(super) fn parse(&self, text: &str) -> Option<i128> {
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut negative, mut fraction) = (0, false, false);
        let (mut opened, mut closed) = (false, false);
        let (mut before, mut behind) = (String::new(), String::new());
        for token in &self.tokens {
            let next = text.get(at).copied();
            match token {
                Token::Digits(groups) => {
                    let out = if fraction { &mut behind } else { &mut before };
                    at = digits(groups, &text, at, out)?;
                }
                Token::Point if next == Some('.') => {
                    fraction = true;
                    at += 1;
                }
                Token::Dollar if next.is_some() => {
                    if next != Some('$') {
                        return None;
                    }
                    at += 1;
                }
                Token::Sign | Token::Minus if next == Some('-') => {
                    negative = !negative;
                    at += 1;
                }
                Token::Sign if next == Some('+') => at += 1,
                Token::Open if next == Some('<') => {
                    opened = true;
                    at += 1;
                }
                Token::Close if next == Some('>') => {
                    if !opened {
                        return None;
                    }
                    closed = true;
                    negative = !negative;
                    at += 1;
                }
                _ => {}
            }
        }
        if at < text.len() || opened != closed || before.is_empty() && behind.is_empty() {
            return None;
        }
        let zeros = "0".repeat(self.fraction.saturating_sub(behind.len()));
        let value: i128 = format!("{before}{behind}{zeros}").parse().ok()?;
        Some(if negative { -value } else { value })
    }

    /// The number as the pattern says; `#` for digits where there are more than it has room for.
    pub(super) fn write(&self, unscaled: i128, scale: i8) -> String {
        let negative = unscaled < 0;
        let mut text = String::new();
        push_plain_decimal(&mut text, unscaled, scale);
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let whole = whole.trim_start_matches(['-', '0']);
        let fraction = fraction.trim_end_matches('0');
        let fits = whole.len() <= self.whole && fraction.len() <= self.fraction;
        let (whole, fraction) = match fits {
            true => (
                format!("{whole:>width$}", width = self.whole),
                format!("{fraction:0<width$}", width = self.fraction),
            ),
            false => ("#".repeat(self.whole), "#".repeat(self.fraction)),
        };
        let (mut whole, mut fraction) = (whole.chars(), fraction.chars());
        let mut reached = false;
        let mut out: Vec<char> = vec![];
        for token in &self.tokens {
            match token {
                Token::Digits(groups) => {
                    for group in groups {
                        match group {
                            Group::Run { count, .. } if reached => {
                                out.extend(fraction.by_ref().take(*count));
                            }
                            Group::Run { count, exact } => {
                                for digit in whole.by_ref().take(*count) {
                                    match digit {
                                        ' ' if *exact => out.push('0'),
                                        ' ' => push_blank(&mut out),
                                        digit => out.push(digit),
                                    }
                                }
                            }
                            Group::Separator if out.last().is_some_and(char::is_ascii_digit) => {
                                out.push(',');
                            }
                            Group::Separator => push_blank(&mut out),
                        }
                    }
                }
                Token::Point => {
                    if let Some(last) = out.last_mut().filter(|last| **last == ' ') {
                        *last = '0';
                    }
                    out.push('.');
                    reached = true;
                }
                Token::Dollar => out.push('$'),
                Token::Sign => {
                    strip_point(&mut out);
                    push_before_blanks(&mut out, if negative { '-' } else { '+' });
                }
                Token::Minus if negative => {
                    strip_point(&mut out);
                    push_before_blanks(&mut out, '-');
                }
                Token::Minus => out.push(' '),
                Token::Open if negative => out.push('<'),
                Token::Close => {
                    strip_point(&mut out);
                    match negative {
                        true => push_before_blanks(&mut out, '>'),
                        false => out.extend([' ', ' ']),
                    }
                }
                _ => {}
            }
        }
        strip_point(&mut out);
        match out.as_slice() {
            [] | ['+' | '-'] => "0".into(),
            out => out.iter().collect(),
        }
    }
}

impl Group {
    fn count(&self) -> usize {
        match self {
            Group::Run { count, .. } => *count,
            Group::Separator => 0,
        }
    }
}

/// Reads digits, separators and blanks from `at` on; their groups must fit the pattern's, from the last to the first.
fn digits(groups: &[Group], text: &[char], at: usize, out: &mut String) -> Option<usize> {
    let mut at = at;
    let mut found = vec![0];
    while let Some(c) = text.get(at) {
        match c {
            c if c.is_whitespace() => {}
            c if c.is_ascii_digit() => {
                out.push(*c);
                *found.last_mut()? += 1;
            }
            ',' => found.push(0),
            _ => break,
        }
        at += 1;
    }
    let runs = groups.iter().rev().filter_map(|group| match group {
        Group::Run { count, exact } => Some((*count, *exact)),
        Group::Separator => None,
    });
    if found.len() > runs.clone().count() {
        return None;
    }
    let found = found.iter().rev().copied().chain(std::iter::repeat(0));
    let fits = runs.zip(found).all(|((count, exact), found)| match exact {
        true => found == count,
        false => found <= count,
    });
    fits.then_some(at)
}

/// A blank, before the sign if there is one at the end.
fn push_blank(out: &mut Vec<char>) {
    let signs = out.iter().rev().take_while(|c| "+-<".contains(**c)).count();
    out.insert(out.len() - signs, ' ');
}

/// A sign, before the blanks at the end.
fn push_before_blanks(out: &mut Vec<char>, sign: char) {
    let blanks = out.iter().rev().take_while(|c| **c == ' ').count();
    out.insert(out.len() - blanks, sign);
}

/// A point with nothing behind it becomes a blank.
fn strip_point(out: &mut [char]) {
    if let Some(at) = out.iter().position(|c| *c == '.')
        && out.get(at + 1).is_none_or(|next| *next == ' ')
    {
        out[at] = ' ';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(pattern: &str) -> Template {
        Template::read(pattern).expect("the pattern is good")
    }

    #[track_caller]
    fn parses(text: &str, pattern: &str, expected: Option<i128>) {
        assert_eq!(template(pattern).parse(text), expected, "{text} {pattern}");
    }

    #[track_caller]
    fn writes(unscaled: i128, scale: i8, pattern: &str, expected: &str) {
        assert_eq!(
            template(pattern).write(unscaled, scale),
            expected,
            "{pattern}"
        );
    }

    #[test]
    fn texts_match_their_pattern_or_are_no_number() {
        parses("12,454.8-", "99,999.9S", Some(-124548));
        parses("$78.12", "$99.99", Some(7812));
        parses("454", "999", Some(454));
        parses("12", "000", None);
        parses("1234", "999", None);
        parses("<12>", "99pr", Some(-12));
        parses("<12", "99PR", None);
        parses("5", "9.9", Some(50));
        parses("", "9", None);
    }

    #[test]
    fn numbers_fill_their_pattern() {
        writes(454, 0, "999", "454");
        writes(45400, 2, "000D00", "454.00");
        writes(12454, 0, "99G999", "12,454");
        writes(-124548, 1, "99G999D9S", "12,454.8-");
        writes(-5, 0, "S99", " -5");
        writes(5, 0, "9PR", "5  ");
        writes(123, 0, "99", "##");
    }

    #[test]
    fn patterns_that_make_no_sense_are_refused() {
        for (pattern, class) in [
            ("", "EMPTY"),
            ("S", "WRONG_NUM_DIGIT"),
            ("9$", "CUR_MUST_BEFORE_DIGIT"),
            ("9,", "CONT_THOUSANDS_SEPS"),
            ("9.9,9", "THOUSANDS_SEPS_MUST_BEFORE_DEC"),
            ("9.9.9", "WRONG_NUM_TOKEN"),
            ("9x", "UNEXPECTED_TOKEN"),
        ] {
            let error = Template::read(pattern).expect_err(pattern);
            let expected = format!("INVALID_FORMAT.{class}");
            assert_eq!(error.class(), Some(expected.as_str()), "{pattern}");
        }
    }
}
