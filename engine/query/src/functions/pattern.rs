//! LIKE, and regular expressions.
//!
//! Java's and Rust's regular expressions agree on what people write; what the `regex` crate does not know (look-around,
//! back references, possessive quantifiers) is refused when the query is resolved, if the pattern is a constant.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, ListBuilder, StringArray, StringBuilder,
};
use arrow::datatypes::{DataType, Field, Int32Type};
use regex::Regex;

use super::Args;
use super::kernel::{Can, Kernel, Result as Run, Typed};
use crate::coerce;
use crate::error::{QueryError, RunError};
use crate::expr::LikeKind;
use crate::types::list_of;

type Result<T> = std::result::Result<T, QueryError>;

/// The patterns of one batch, each compiled once.
pub(super) struct Patterns<F> {
    compile: F,
    compiled: HashMap<String, Arc<Regex>>,
    last: Option<(String, Arc<Regex>)>,
}

impl<F: Fn(&str) -> Run<Regex>> Patterns<F> {
    pub(super) fn new(compile: F) -> Self {
        Patterns {
            compile,
            compiled: HashMap::new(),
            last: None,
        }
    }

    pub(super) fn get(&mut self, pattern: &str) -> Run<Arc<Regex>> {
        if let Some((known, regex)) = &self.last
            && known == pattern
        {
            return Ok(Arc::clone(regex));
        }
        let regex = match self.compiled.get(pattern) {
            Some(regex) => Arc::clone(regex),
            None => {
                let regex = Arc::new((self.compile)(pattern)?);
                self.compiled
                    .insert(pattern.to_string(), Arc::clone(&regex));
                regex
            }
        };
        self.last = Some((pattern.to_string(), Arc::clone(&regex)));
        Ok(regex)
    }
}

/// A regular expression of Java's.
pub(super) fn java(function: &str, pattern: &str) -> Run<Regex> {
    // In Java \w, \d, \s and \b know ASCII only unless told otherwise; what is around them knows Unicode.
    let ascii = ascii_classes(pattern);
    Regex::new(&ascii).map_err(|error| {
        let message = format!(
            "The value of parameter(s) `regexp` in `{function}` is invalid: '{pattern}' ({}).",
            error.to_string().lines().last().unwrap_or_default()
        );
        RunError::raise("INVALID_PARAMETER_VALUE.PATTERN", message)
    })
}

fn ascii_classes(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    let mut in_class = 0usize;
    while let Some(c) = chars.next() {
        match c {
            '[' => in_class += 1,
            ']' => in_class = in_class.saturating_sub(1),
            '\\' => {
                let next = chars.next();
                match (next, in_class > 0) {
                    (Some('w'), true) => out.push_str("a-zA-Z0-9_"),
                    (Some('d'), true) => out.push_str("0-9"),
                    (Some('s'), true) => out.push_str(r" \t\n\x0B\x0C\r"),
                    (Some('w'), false) => out.push_str("[a-zA-Z0-9_]"),
                    (Some('W'), false) => out.push_str("[^a-zA-Z0-9_]"),
                    (Some('d'), false) => out.push_str("[0-9]"),
                    (Some('D'), false) => out.push_str("[^0-9]"),
                    (Some('s'), false) => out.push_str(r"[ \t\n\x0B\x0C\r]"),
                    (Some('S'), false) => out.push_str(r"[^ \t\n\x0B\x0C\r]"),
                    (next, _) => {
                        out.push('\\');
                        out.extend(next);
                    }
                }
                continue;
            }
            _ => {}
        }
        out.push(c);
    }
    out
}

/// Refuses constant patterns with what only Java's regular expressions know.
fn check_constant(function: &str, pattern: &Typed) -> Result<()> {
    let Some(text) = pattern.constant_text() else {
        return Ok(());
    };
    let advanced = [
        "(?=", "(?!", "(?<=", "(?<!", "(?>", "*+", "++", "?+", "}+", "\\1", "\\k<", "&&", "\\G",
        "\\Q",
    ];
    // Some of these compile here and mean something else.
    match advanced.iter().find(|a| text.contains(**a)) {
        Some(_) => Err(QueryError::unsupported(format!(
            "the regular expression '{text}' in {function}"
        ))),
        None => Ok(()),
    }
}

/// LIKE's pattern as a regular expression.
fn like_regex(pattern: &str, escape: char, ignore_case: bool) -> Run<Regex> {
    let mut out = String::from(if ignore_case { "(?is)^" } else { "(?s)^" });
    let mut chars = pattern.chars();
    let invalid = |what: String| RunError::raise("INVALID_FORMAT.ESC_IN_THE_MIDDLE", what);
    while let Some(c) = chars.next() {
        if c == escape {
            match chars.next() {
                Some(next) if next == escape || matches!(next, '%' | '_') => {
                    out.push_str(&regex::escape(&next.to_string()))
                }
                Some(next) => {
                    let message = format!(
                        "The format is invalid: '{pattern}'. The escape character is not allowed to precede '{next}'."
                    );
                    return Err(invalid(message));
                }
                None => {
                    let message = format!(
                        "The format is invalid: '{pattern}'. The escape character is not allowed to end with."
                    );
                    return Err(RunError::raise("INVALID_FORMAT.ESC_AT_THE_END", message));
                }
            }
            continue;
        }
        match c {
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out.push('$');
    Regex::new(&out).map_err(|e| RunError::raise("INVALID_PARAMETER_VALUE.PATTERN", e.to_string()))
}

/// `value LIKE pattern` and its family.
pub(crate) fn like(
    kind: LikeKind,
    value: Typed,
    pattern: Typed,
    escape: Option<char>,
) -> Result<Typed> {
    let name = match kind {
        LikeKind::Like => "like",
        LikeKind::ILike => "ilike",
        LikeKind::RLike => "rlike",
    };
    let value = coerce::argument(name, 0, value, &DataType::Utf8)?;
    let pattern = coerce::argument(name, 1, pattern, &DataType::Utf8)?;
    if kind == LikeKind::RLike {
        check_constant(name, &pattern)?;
    }
    let escape = escape.unwrap_or('\\');
    let compile = move |pattern: &str| match kind {
        LikeKind::Like => like_regex(pattern, escape, false),
        LikeKind::ILike => like_regex(pattern, escape, true),
        LikeKind::RLike => java("rlike", pattern),
    };
    let safe = pattern
        .constant_text()
        .is_some_and(|text| compile(text).is_ok());
    let can = if safe { Can::NotFail } else { Can::Fail };
    let params = if escape == '\\' {
        String::new()
    } else {
        escape.to_string()
    };
    Ok(Kernel::over_arrays(
        name,
        params,
        vec![value, pattern],
        DataType::Boolean,
        can,
        move |args, _| {
            let (values, patterns) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
            let mut compiled = Patterns::new(compile);
            let matched =
                values
                    .iter()
                    .zip(patterns)
                    .map(|(value, pattern)| match (value, pattern) {
                        (Some(value), Some(pattern)) => {
                            Ok(Some(compiled.get(pattern)?.is_match(value)))
                        }
                        _ => Ok(None),
                    });
            Ok(Arc::new(matched.collect::<Run<BooleanArray>>()?))
        },
    ))
}

/// The arguments as texts and integers, row by row.
fn texts(args: &[ArrayRef]) -> (&StringArray, &StringArray) {
    (args[0].as_string(), args[1].as_string())
}

fn group_error(function: &str, groups: usize, group: i32) -> datafusion::common::DataFusionError {
    let message = format!(
        "The value of parameter(s) `idx` in `{function}` is invalid: Expects group index between 0 and {groups}, but got {group}."
    );
    RunError::raise("INVALID_PARAMETER_VALUE.REGEX_GROUP_INDEX", message)
}

fn extract(name: &'static str, args: Vec<Typed>) -> Typed {
    Kernel::over_arrays(
        name,
        "",
        args,
        DataType::Utf8,
        Can::Fail,
        move |args, rows| {
            let ((values, patterns), groups) = (texts(args), args[2].as_primitive::<Int32Type>());
            let mut compiled = Patterns::new(|p: &str| java(name, p));
            let mut out = StringBuilder::new();
            for row in 0..rows {
                if values.is_null(row) || patterns.is_null(row) || groups.is_null(row) {
                    out.append_null();
                    continue;
                }
                let regex = compiled.get(patterns.value(row))?;
                let Some(found) = regex.captures(values.value(row)) else {
                    out.append_value("");
                    continue;
                };
                let group = groups.value(row);
                let (count, at) = (
                    regex.captures_len() - 1,
                    usize::try_from(group).unwrap_or(usize::MAX),
                );
                if at > count {
                    return Err(group_error(name, count, group));
                }
                out.append_value(found.get(at).map_or("", |m| m.as_str()));
            }
            Ok(Arc::new(out.finish()))
        },
    )
}

fn extract_all(args: Vec<Typed>) -> Typed {
    let name = "regexp_extract_all";
    Kernel::over_arrays(
        name,
        "",
        args,
        list_of(DataType::Utf8),
        Can::Fail,
        move |args, rows| {
            let ((values, patterns), groups) = (texts(args), args[2].as_primitive::<Int32Type>());
            let mut compiled = Patterns::new(|p: &str| java(name, p));
            let field = Arc::new(Field::new_list_field(DataType::Utf8, true));
            let mut out = ListBuilder::new(StringBuilder::new()).with_field(field);
            for row in 0..rows {
                if values.is_null(row) || patterns.is_null(row) || groups.is_null(row) {
                    out.append_null();
                    continue;
                }
                let regex = compiled.get(patterns.value(row))?;
                let group = groups.value(row);
                let (count, at) = (
                    regex.captures_len() - 1,
                    usize::try_from(group).unwrap_or(usize::MAX),
                );
                for found in regex.captures_iter(values.value(row)) {
                    if at > count {
                        return Err(group_error(name, count, group));
                    }
                    out.values()
                        .append_value(found.get(at).map_or("", |m| m.as_str()));
                }
                out.append(true);
            }
            Ok(Arc::new(out.finish()))
        },
    )
}

/// Java's replacement text: `$1` is a group, a backslash takes the next character as it is.
fn expand(replacement: &str, found: &regex::Captures<'_>, out: &mut String) -> Run<()> {
    let mut chars = replacement.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            '$' => {
                let Some(first) = chars.peek().and_then(|c| c.to_digit(10)) else {
                    return Err(RunError::raise(
                        "INVALID_PARAMETER_VALUE.PATTERN",
                        "Illegal group reference in the replacement",
                    ));
                };
                chars.next();
                let mut group = first as usize;
                if group >= found.len() {
                    return Err(RunError::raise(
                        "INVALID_PARAMETER_VALUE.PATTERN",
                        format!("No group {group}"),
                    ));
                }
                while let Some(next) = chars.peek().and_then(|c| c.to_digit(10)) {
                    let longer = group * 10 + next as usize;
                    if longer >= found.len() {
                        break;
                    }
                    group = longer;
                    chars.next();
                }
                out.push_str(found.get(group).map_or("", |m| m.as_str()));
            }
            c => out.push(c),
        }
    }
    Ok(())
}

fn replace(args: Vec<Typed>) -> Typed {
    let name = "regexp_replace";
    Kernel::over_arrays(
        name,
        "",
        args,
        DataType::Utf8,
        Can::Fail,
        move |args, rows| {
            let ((values, patterns), replacements) = (texts(args), args[2].as_string::<i32>());
            let starts = args[3].as_primitive::<Int32Type>();
            let mut compiled = Patterns::new(|p: &str| java(name, p));
            let mut out = StringBuilder::new();
            for row in 0..rows {
                if values.is_null(row)
                    || patterns.is_null(row)
                    || replacements.is_null(row)
                    || starts.is_null(row)
                {
                    out.append_null();
                    continue;
                }
                let (value, regex) = (values.value(row), compiled.get(patterns.value(row))?);
                let skipped = starts.value(row) - 1;
                let start = value
                    .char_indices()
                    .nth(usize::try_from(skipped).unwrap_or(0))
                    .map(|(i, _)| i);
                let Some(start) = start.or((skipped == 0).then_some(0)) else {
                    out.append_value(value);
                    continue;
                };
                let mut replaced = value[..start].to_string();
                let mut last = start;
                for found in regex.captures_iter(&value[start..]) {
                    let Some(whole) = found.get(0) else { continue };
                    replaced.push_str(&value[last..start + whole.start()]);
                    expand(replacements.value(row), &found, &mut replaced)?;
                    last = start + whole.end();
                }
                replaced.push_str(&value[last..]);
                out.append_value(replaced);
            }
            Ok(Arc::new(out.finish()))
        },
    )
}

/// The functions of this family.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    use DataType::{Int32, Utf8};
    let with_default = |types: &[DataType], least: usize, default: i32| -> Result<Vec<Typed>> {
        let mut typed = args.typed(types, least)?;
        check_constant(name, &typed[1])?;
        if typed.len() < types.len() {
            typed.push(Typed::literal(datafusion::common::ScalarValue::Int32(
                Some(default),
            )));
        }
        Ok(typed)
    };
    Ok(Some(match name {
        "like" | "ilike" | "rlike" | "regexp" | "regexp_like" => {
            let [value, pattern] = args.exactly()?;
            let kind = match name {
                "like" => LikeKind::Like,
                "ilike" => LikeKind::ILike,
                _ => LikeKind::RLike,
            };
            like(kind, value, pattern, None)?
        }
        "regexp_extract" => extract("regexp_extract", with_default(&[Utf8, Utf8, Int32], 2, 1)?),
        "regexp_extract_all" => extract_all(with_default(&[Utf8, Utf8, Int32], 2, 1)?),
        "regexp_replace" => {
            let args = with_default(&[Utf8, Utf8, Utf8, Int32], 3, 1)?;
            if !matches!(args[3].constant(), Some(datafusion::common::ScalarValue::Int32(Some(n))) if *n > 0)
            {
                return Err(QueryError::unsupported(
                    "a start of regexp_replace that is not a positive constant",
                ));
            }
            replace(args)
        }
        "regexp_count" | "regexp_instr" | "regexp_substr" => {
            let args = args.typed(&[Utf8, Utf8], 2)?;
            check_constant(name, &args[1])?;
            let function = name.to_string();
            let returns = if name == "regexp_substr" { Utf8 } else { Int32 };
            Kernel::over_arrays(name, "", args, returns, Can::Fail, move |args, rows| {
                let (values, patterns) = texts(args);
                let mut compiled = Patterns::new(|p: &str| java(&function, p));
                let mut numbers: Vec<Option<i32>> = vec![];
                let mut pieces: Vec<Option<String>> = vec![];
                for row in 0..rows {
                    if values.is_null(row) || patterns.is_null(row) {
                        numbers.push(None);
                        pieces.push(None);
                        continue;
                    }
                    let (value, regex) = (values.value(row), compiled.get(patterns.value(row))?);
                    match function.as_str() {
                        "regexp_count" => numbers.push(Some(regex.find_iter(value).count() as i32)),
                        "regexp_instr" => {
                            numbers.push(Some(regex.find(value).map_or(0, |m| {
                                value[..m.start()].encode_utf16().count() as i32 + 1
                            })))
                        }
                        _ => pieces.push(regex.find(value).map(|m| m.as_str().to_string())),
                    }
                }
                Ok(match function.as_str() {
                    "regexp_substr" => Arc::new(StringArray::from(pieces)) as ArrayRef,
                    _ => Arc::new(Int32Array::from(numbers)),
                })
            })
        }
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_takes_percent_and_underscore() {
        let matches =
            |text: &str, pattern: &str| like_regex(pattern, '\\', false).unwrap().is_match(text);
        assert!(matches("Hello", "H%o"));
        assert!(matches("a\nb", "a_b"));
        assert!(matches("100%", "100\\%"));
        assert!(!matches("Hello", "h%"));
        assert!(like_regex("a\\b", '\\', false).is_err());
        assert!(like_regex("a\\", '\\', false).is_err());
    }

    #[test]
    fn classes_are_ascii() {
        assert_eq!(ascii_classes(r"(\w+)[\d,]\b"), r"([a-zA-Z0-9_]+)[0-9,]\b");
    }
}
