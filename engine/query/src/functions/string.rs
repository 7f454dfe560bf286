//! Texts.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, Int32Array, StringArray,
    StringBuilder,
};
use arrow::datatypes::{DataType, Int32Type};
use datafusion::common::ScalarValue;

use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::{Args, split};
use crate::coerce;
use crate::error::{QueryError, RunError};

type Result<T> = std::result::Result<T, QueryError>;

/// A function of one text that is never null for one.
fn map(
    name: &str,
    params: &str,
    value: Typed,
    f: impl Fn(&str) -> Cow<'_, str> + Send + Sync + 'static,
) -> Typed {
    Kernel::over_arrays(
        name,
        params,
        vec![value],
        DataType::Utf8,
        Can::NotFail,
        move |args, rows| {
            let texts = args[0].as_string::<i32>();
            let mut out = StringBuilder::with_capacity(rows, texts.value_data().len());
            for text in texts {
                match text {
                    Some(text) => out.append_value(f(text)),
                    None => out.append_null(),
                }
            }
            Ok(Arc::new(out.finish()))
        },
    )
}

/// A function of rows of texts and integers, null where one of them is.
fn rows_to_text(
    name: &str,
    args: Vec<Typed>,
    can: Can,
    f: impl Fn(&Row<'_>) -> Run<Option<String>> + Send + Sync + 'static,
) -> Typed {
    Kernel::over_arrays(name, "", args, DataType::Utf8, can, move |args, rows| {
        let mut out = StringBuilder::new();
        for row in 0..rows {
            match args.iter().any(|a| a.is_null(row)) {
                true => out.append_null(),
                false => out.append_option(f(&Row { args, row })?),
            }
        }
        Ok(Arc::new(out.finish()))
    })
}

fn rows_to_int(
    name: &str,
    args: Vec<Typed>,
    f: impl Fn(&Row<'_>) -> i32 + Send + Sync + 'static,
) -> Typed {
    Kernel::over_arrays(
        name,
        "",
        args,
        DataType::Int32,
        Can::NotFail,
        move |args, rows| {
            let values = (0..rows)
                .map(|row| (!args.iter().any(|a| a.is_null(row))).then(|| f(&Row { args, row })));
            Ok(Arc::new(values.collect::<Int32Array>()))
        },
    )
}

fn rows_to_bool(
    name: &str,
    args: Vec<Typed>,
    f: impl Fn(&str, &str) -> bool + Send + Sync + 'static,
) -> Typed {
    Kernel::over_arrays(
        name,
        "",
        args,
        DataType::Boolean,
        Can::NotFail,
        move |args, _| {
            let (left, right) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
            let values = left.iter().zip(right).map(|(l, r)| Some(f(l?, r?)));
            Ok(Arc::new(values.collect::<BooleanArray>()))
        },
    )
}

/// One row of arguments, none of them null.
struct Row<'a> {
    args: &'a [ArrayRef],
    row: usize,
}

impl Row<'_> {
    fn text(&self, nth: usize) -> &str {
        self.args[nth].as_string::<i32>().value(self.row)
    }

    fn int(&self, nth: usize) -> i32 {
        self.args[nth].as_primitive::<Int32Type>().value(self.row)
    }
}

/// `length` elements of a sequence of `size` from `start`, which counts from one, from the end if negative.
fn window(start: i32, length: i32, size: usize) -> std::ops::Range<usize> {
    let size = size as i64;
    let start = match i64::from(start) {
        start if start > 0 => start - 1,
        start if start < 0 => size + start,
        _ => 0,
    };
    let end = start.saturating_add(i64::from(length)).clamp(0, size);
    let start = start.clamp(0, size);
    start as usize..end.max(start) as usize
}

fn substring(text: &str, start: i32, length: i32) -> &str {
    if text.is_ascii() {
        return &text[window(start, length, text.len())];
    }
    let range = window(start, length, text.chars().count());
    let at = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(i, _)| i);
    let (from, to) = (at(range.start), at(range.end));
    &text[from..to]
}

fn substring_call(name: &str, value: Typed, start: Typed, length: Option<Typed>) -> Result<Typed> {
    let start = coerce::argument(name, 1, start, &DataType::Int32)?;
    let all = || Typed::literal(ScalarValue::Int32(Some(i32::MAX)));
    let length = coerce::argument(name, 2, length.unwrap_or_else(all), &DataType::Int32)?;
    if value.data_type == DataType::Binary {
        let args = vec![value, start, length];
        return Ok(Kernel::over_arrays(
            name,
            "",
            args,
            DataType::Binary,
            Can::NotFail,
            |args, rows| {
                let bytes = args[0].as_binary::<i32>();
                let mut out = BinaryBuilder::new();
                for row in 0..rows {
                    if args.iter().any(|a| a.is_null(row)) {
                        out.append_null();
                        continue;
                    }
                    let (r, value) = (Row { args, row }, bytes.value(row));
                    out.append_value(&value[window(r.int(1), r.int(2), value.len())]);
                }
                Ok(Arc::new(out.finish()))
            },
        ));
    }
    let value = coerce::argument(name, 0, value, &DataType::Utf8)?;
    Ok(rows_to_text(
        name,
        vec![value, start, length],
        Can::NotFail,
        |r| Ok(Some(substring(r.text(0), r.int(1), r.int(2)).to_string())),
    ))
}

/// Texts, bytes or arrays one after another.
fn concat(args: &Args) -> Result<Typed> {
    let values = args.at_least(0)?;
    if values
        .iter()
        .any(|v| matches!(v.data_type, DataType::List(_)))
    {
        let (values, _) = coerce::same_type("concat", values)?;
        let all = super::scalar("array", values, args.conf)?;
        let all = all.ok_or_else(|| super::unknown("array"))?;
        return super::scalar("flatten", vec![all], args.conf)?
            .ok_or_else(|| super::unknown("flatten"));
    }
    if !values.is_empty() && values.iter().all(|v| v.data_type == DataType::Binary) {
        return Ok(Kernel::over_arrays(
            "concat",
            "",
            values,
            DataType::Binary,
            Can::NotFail,
            |args, rows| {
                let mut out = BinaryBuilder::new();
                for row in 0..rows {
                    match args.iter().any(|a| a.is_null(row)) {
                        true => out.append_null(),
                        false => {
                            let parts: Vec<&[u8]> = args
                                .iter()
                                .map(|a| a.as_binary::<i32>().value(row))
                                .collect();
                            out.append_value(parts.concat());
                        }
                    }
                }
                Ok(Arc::new(out.finish()))
            },
        ));
    }
    let values = values
        .into_iter()
        .enumerate()
        .map(|(i, v)| match v.data_type {
            DataType::Binary => crate::functions::cast::implicit(v, &DataType::Utf8),
            _ => coerce::argument("concat", i, v, &DataType::Utf8),
        });
    let values = values.collect::<Result<Vec<_>>>()?;
    Ok(Kernel::over_arrays(
        "concat",
        "",
        values,
        DataType::Utf8,
        Can::NotFail,
        |args, rows| {
            let texts: Vec<&StringArray> = args.iter().map(|a| a.as_string()).collect();
            let bytes = texts.iter().map(|t| t.value_data().len()).sum();
            let mut out = StringBuilder::with_capacity(rows, bytes);
            for row in 0..rows {
                if texts.iter().any(|t| t.is_null(row)) {
                    out.append_null();
                    continue;
                }
                for text in &texts {
                    std::fmt::Write::write_str(&mut out, text.value(row)).map_err(|e| {
                        datafusion::common::DataFusionError::Internal(e.to_string())
                    })?;
                }
                out.append_value("");
            }
            Ok(Arc::new(out.finish()))
        },
    ))
}

/// Texts and the elements of arrays of texts, those that are not null, with a separator between them.
fn concat_ws(args: &Args) -> Result<Typed> {
    let list = crate::types::list_of(DataType::Utf8);
    let values = args
        .at_least(1)?
        .into_iter()
        .enumerate()
        .map(|(i, v)| match (&v.data_type, i) {
            (DataType::List(_), i) if i > 0 => coerce::argument("concat_ws", i, v, &list),
            _ => coerce::argument("concat_ws", i, v, &DataType::Utf8),
        });
    let values = values.collect::<Result<Vec<_>>>()?;
    Ok(Kernel::over_arrays(
        "concat_ws",
        "",
        values,
        DataType::Utf8,
        Can::NotFail,
        |args, rows| {
            let separators = args[0].as_string::<i32>();
            let mut out = StringBuilder::new();
            for row in 0..rows {
                if separators.is_null(row) {
                    out.append_null();
                    continue;
                }
                let mut parts: Vec<&str> = vec![];
                for arg in &args[1..] {
                    match arg.as_list_opt::<i32>() {
                        _ if arg.is_null(row) => {}
                        None => parts.push(arg.as_string::<i32>().value(row)),
                        Some(list) => {
                            let range = list.value_offsets()[row] as usize
                                ..list.value_offsets()[row + 1] as usize;
                            let texts = list.values().as_string::<i32>();
                            parts.extend(
                                range.filter(|&i| texts.is_valid(i)).map(|i| texts.value(i)),
                            );
                        }
                    }
                }
                out.append_value(parts.join(separators.value(row)));
            }
            Ok(Arc::new(out.finish()))
        },
    ))
}

/// Length in characters, octets or bits.
fn length(name: &str, value: Typed) -> Result<Typed> {
    let scale = if name == "bit_length" { 8 } else { 1 };
    let characters = !matches!(name, "octet_length" | "bit_length");
    if value.data_type == DataType::Binary {
        return Ok(Kernel::over_arrays(
            name,
            "",
            vec![value],
            DataType::Int32,
            Can::NotFail,
            move |args, _| {
                let bytes: &BinaryArray = args[0].as_binary();
                let lengths = bytes.iter().map(|b| b.map(|b| b.len() as i32 * scale));
                Ok(Arc::new(lengths.collect::<Int32Array>()))
            },
        ));
    }
    let value = coerce::argument(name, 0, value, &DataType::Utf8)?;
    Ok(rows_to_int(name, vec![value], move |r| match characters {
        true => r.text(0).chars().count() as i32,
        false => r.text(0).len() as i32 * scale,
    }))
}

/// Trims a set of characters (by default the blank) at one or both ends.
fn trim(name: &'static str, text: Typed, set: Option<Typed>) -> Result<Typed> {
    let text = coerce::argument(name, 0, text, &DataType::Utf8)?;
    let cut = |name: &str, text: &str, set: &dyn Fn(char) -> bool| -> String {
        match name {
            "ltrim" => text.trim_start_matches(set).to_string(),
            "rtrim" => text.trim_end_matches(set).to_string(),
            _ => text.trim_matches(set).to_string(),
        }
    };
    let Some(set) = set else {
        return Ok(match name {
            "ltrim" => map(name, "", text, |t| t.trim_start_matches(' ').into()),
            "rtrim" => map(name, "", text, |t| t.trim_end_matches(' ').into()),
            _ => map(name, "", text, |t| t.trim_matches(' ').into()),
        });
    };
    let set = coerce::argument(name, 1, set, &DataType::Utf8)?;
    Ok(rows_to_text(
        name,
        vec![text, set],
        Can::NotFail,
        move |r| {
            let set: Vec<char> = r.text(1).chars().collect();
            Ok(Some(cut(name, r.text(0), &|c| set.contains(&c))))
        },
    ))
}

fn pad(name: &str, args: &Args) -> Result<Typed> {
    let left = name == "lpad";
    let values = args.at_least(2)?;
    let binary = |value: Option<&Typed>| value.is_none_or(|v| v.data_type == DataType::Binary);
    if values[0].data_type == DataType::Binary && binary(values.get(2)) {
        return pad_binary(name, args);
    }
    let mut typed = args.typed(&[DataType::Utf8, DataType::Int32, DataType::Utf8], 2)?;
    if typed.len() == 2 {
        typed.push(Typed::literal(ScalarValue::Utf8(Some(" ".into()))));
    }
    Ok(rows_to_text(name, typed, Can::NotFail, move |r| {
        let (text, pad) = (r.text(0), r.text(2));
        let wanted = usize::try_from(r.int(1)).unwrap_or(0);
        let missing = wanted.saturating_sub(text.chars().count());
        if missing == 0 || pad.is_empty() {
            return Ok(Some(text.chars().take(wanted).collect()));
        }
        let padding: String = pad.chars().cycle().take(missing).collect();
        Ok(Some(if left {
            padding + text
        } else {
            text.to_string() + &padding
        }))
    }))
}

/// `lpad` and `rpad` of bytes, by default with zeros.
fn pad_binary(name: &str, args: &Args) -> Result<Typed> {
    let left = name == "lpad";
    let mut typed = args.typed(&[DataType::Binary, DataType::Int32, DataType::Binary], 2)?;
    if typed.len() == 2 {
        typed.push(Typed::literal(ScalarValue::Binary(Some(vec![0]))));
    }
    let returns = DataType::Binary;
    Ok(Kernel::over_arrays(
        name,
        "",
        typed,
        returns,
        Can::NotFail,
        move |args, rows| {
            let (values, pads) = (args[0].as_binary::<i32>(), args[2].as_binary::<i32>());
            let mut out = BinaryBuilder::new();
            for row in 0..rows {
                if args.iter().any(|a| a.is_null(row)) {
                    out.append_null();
                    continue;
                }
                let (value, pad) = (values.value(row), pads.value(row));
                let wanted = usize::try_from(Row { args, row }.int(1)).unwrap_or(0);
                let kept = &value[..value.len().min(wanted)];
                let padding = pad.iter().copied().cycle().take(wanted - kept.len());
                let padding: Vec<u8> = padding.collect();
                out.append_value(match left {
                    true => [&padding, kept].concat(),
                    false => [kept, &padding].concat(),
                });
            }
            Ok(Arc::new(out.finish()))
        },
    ))
}

/// Where `part` is in `text`, from one, looking from the character at `from`; zero if nowhere.
fn locate(part: &str, text: &str, from: i32) -> i32 {
    let Ok(skipped) = usize::try_from(i64::from(from) - 1) else {
        return 0;
    };
    let Some(start) = text
        .char_indices()
        .map(|(i, _)| i)
        .chain([text.len()])
        .nth(skipped)
    else {
        return 0;
    };
    match text[start..].find(part) {
        Some(found) => (skipped + text[start..start + found].chars().count()) as i32 + 1,
        None => 0,
    }
}

fn capitalized(text: &str) -> String {
    let mut start = true;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match start {
            true => out.extend(c.to_uppercase()),
            false => out.extend(c.to_lowercase()),
        }
        start = c == ' ';
    }
    out
}

/// The functions of this family.
pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    use DataType::{Int32, Utf8};
    let text = || Ok::<_, QueryError>(args.typed(&[Utf8], 1)?.remove(0));
    Ok(Some(match name {
        "split" => split::build(args)?,
        "upper" | "ucase" => map("upper", "", text()?, |t| t.to_uppercase().into()),
        "lower" | "lcase" => map("lower", "", text()?, |t| t.to_lowercase().into()),
        "initcap" => map(name, "", text()?, |t| capitalized(t).into()),
        "length" | "len" | "char_length" | "character_length" | "octet_length" | "bit_length" => {
            length(name, args.one()?)?
        }
        "trim" | "ltrim" | "rtrim" => {
            let side = match name {
                "ltrim" => "ltrim",
                "rtrim" => "rtrim",
                _ => "trim",
            };
            match args.len() {
                2 => {
                    let [set, text] = args.exactly()?;
                    trim(side, text, Some(set))?
                }
                _ => trim(side, args.one()?, None)?,
            }
        }
        "btrim" => match args.len() {
            2 => {
                let [text, set] = args.exactly()?;
                trim("trim", text, Some(set))?
            }
            _ => trim("trim", args.one()?, None)?,
        },
        "concat" => concat(args)?,
        "concat_ws" => concat_ws(args)?,
        "substring" | "substr" => {
            let mut values = args.at_least(0)?.into_iter();
            match (values.next(), values.next(), values.next(), values.next()) {
                (Some(value), Some(start), length, None) => {
                    substring_call(name, value, start, length)?
                }
                _ => return Err(args.wrong_number("[2, 3]")),
            }
        }
        "left" => {
            let [value, length] = args.exactly()?;
            substring_call(
                name,
                value,
                Typed::literal(ScalarValue::Int32(Some(1))),
                Some(length),
            )?
        }
        "right" => rows_to_text(name, args.typed(&[Utf8, Int32], 2)?, Can::NotFail, |r| {
            let count = r.text(0).chars().count();
            let wanted = usize::try_from(r.int(1)).unwrap_or(0).min(count);
            Ok(Some(r.text(0).chars().skip(count - wanted).collect()))
        }),
        "substring_index" => rows_to_text(
            name,
            args.typed(&[Utf8, Utf8, Int32], 3)?,
            Can::NotFail,
            |r| {
                let (text, separator, count) = (r.text(0), r.text(1), r.int(2));
                if separator.is_empty() || count == 0 {
                    return Ok(Some(String::new()));
                }
                let wanted = count.unsigned_abs() as usize;
                let cut = match count > 0 {
                    true => text
                        .match_indices(separator)
                        .nth(wanted - 1)
                        .map(|(i, _)| &text[..i]),
                    false => text
                        .rmatch_indices(separator)
                        .nth(wanted - 1)
                        .map(|(i, _)| &text[i + separator.len()..]),
                };
                Ok(Some(cut.unwrap_or(text).to_string()))
            },
        ),
        "replace" => {
            let mut typed = args.typed(&[Utf8, Utf8, Utf8], 2)?;
            if typed.len() == 2 {
                typed.push(Typed::literal(ScalarValue::Utf8(Some(String::new()))));
            }
            rows_to_text(name, typed, Can::NotFail, |r| {
                Ok(Some(match r.text(1) {
                    "" => r.text(0).to_string(),
                    from => r.text(0).replace(from, r.text(2)),
                }))
            })
        }
        "translate" => rows_to_text(
            name,
            args.typed(&[Utf8, Utf8, Utf8], 3)?,
            Can::NotFail,
            |r| {
                let (from, to): (Vec<char>, Vec<char>) =
                    (r.text(1).chars().collect(), r.text(2).chars().collect());
                let changed =
                    r.text(0)
                        .chars()
                        .filter_map(|c| match from.iter().position(|f| *f == c) {
                            Some(at) => to.get(at).copied(),
                            None => Some(c),
                        });
                Ok(Some(changed.collect()))
            },
        ),
        "repeat" => rows_to_text(name, args.typed(&[Utf8, Int32], 2)?, Can::Fail, |r| {
            let times = usize::try_from(r.int(1)).unwrap_or(0);
            if r.text(0).len().saturating_mul(times) > i32::MAX as usize {
                return Err(RunError::raise(
                    "ARITHMETIC_OVERFLOW",
                    "the repeated text is too long",
                ));
            }
            Ok(Some(r.text(0).repeat(times)))
        }),
        "space" => rows_to_text(name, args.typed(&[Int32], 1)?, Can::NotFail, |r| {
            Ok(Some(" ".repeat(usize::try_from(r.int(0)).unwrap_or(0))))
        }),
        "reverse"
            if matches!(
                args.values.first().map(|v| &v.data_type),
                Some(DataType::List(_))
            ) =>
        {
            return Ok(None);
        }
        "reverse" => map(name, "", text()?, |t| {
            t.chars().rev().collect::<String>().into()
        }),
        "lpad" | "rpad" => pad(name, args)?,
        "instr" => rows_to_int(name, args.typed(&[Utf8, Utf8], 2)?, |r| {
            locate(r.text(1), r.text(0), 1)
        }),
        "locate" | "position" => {
            let mut typed = args.typed(&[Utf8, Utf8, Int32], 2)?;
            if typed.len() == 2 {
                typed.push(Typed::literal(ScalarValue::Int32(Some(1))));
            }
            rows_to_int(name, typed, |r| locate(r.text(0), r.text(1), r.int(2)))
        }
        "find_in_set" => rows_to_int(name, args.typed(&[Utf8, Utf8], 2)?, |r| {
            match r.text(0).contains(',') {
                true => 0,
                false => r
                    .text(1)
                    .split(',')
                    .position(|p| p == r.text(0))
                    .map_or(0, |i| i as i32 + 1),
            }
        }),
        "startswith" => rows_to_bool(name, args.typed(&[Utf8, Utf8], 2)?, |t, p| t.starts_with(p)),
        "endswith" => rows_to_bool(name, args.typed(&[Utf8, Utf8], 2)?, |t, p| t.ends_with(p)),
        "contains" => rows_to_bool(name, args.typed(&[Utf8, Utf8], 2)?, |t, p| t.contains(p)),
        "overlay" => {
            let mut typed = args.typed(&[Utf8, Utf8, Int32, Int32], 3)?;
            if typed.len() == 3 {
                typed.push(Typed::literal(ScalarValue::Int32(Some(-1))));
            }
            rows_to_text(name, typed, Can::NotFail, |r| {
                let (text, new, at) = (r.text(0), r.text(1), r.int(2));
                let length = if r.int(3) < 0 {
                    new.chars().count() as i32
                } else {
                    r.int(3)
                };
                let head = substring(text, 1, at.saturating_sub(1));
                let tail = substring(text, at.saturating_add(length), i32::MAX);
                Ok(Some(format!("{head}{new}{tail}")))
            })
        }
        "ascii" => rows_to_int(name, vec![text()?], |r| {
            r.text(0).chars().next().map_or(0, |c| c as i32)
        }),
        "chr" | "char" => {
            let value = coerce::argument(name, 0, args.one()?, &DataType::Int64)?;
            Kernel::over_arrays(name, "", vec![value], Utf8, Can::NotFail, |args, _| {
                let codes = args[0].as_primitive::<arrow::datatypes::Int64Type>();
                let texts = codes.iter().map(|code| {
                    code.map(|code| match code {
                        code if code < 0 => String::new(),
                        code => char::from((code & 0xFF) as u8).to_string(),
                    })
                });
                Ok(Arc::new(texts.collect::<StringArray>()))
            })
        }
        "split_part" => rows_to_text(name, args.typed(&[Utf8, Utf8, Int32], 3)?, Can::Fail, |r| {
            let parts: Vec<&str> = match r.text(1) {
                "" => vec![r.text(0)],
                separator => r.text(0).split(separator).collect(),
            };
            let at = match i64::from(r.int(2)) {
                0 => {
                    return Err(RunError::raise(
                        "INVALID_INDEX_OF_ZERO",
                        "The index 0 is invalid. An index shall be either < 0 or > 0 (the first element has index 1).",
                    ));
                }
                at if at > 0 => at - 1,
                at => parts.len() as i64 + at,
            };
            let found = usize::try_from(at).ok().and_then(|at| parts.get(at));
            Ok(Some(found.map_or(String::new(), |p| p.to_string())))
        }),
        "levenshtein" if args.len() == 2 => rows_to_int(name, args.typed(&[Utf8, Utf8], 2)?, |r| {
            levenshtein(r.text(0), r.text(1))
        }),
        "soundex" => map(name, "", text()?, |t| soundex(t).into()),
        "quote" => map(name, "", text()?, |t| {
            format!("'{}'", t.replace('\'', "\\'")).into()
        }),
        "is_valid_utf8" => Kernel::over_arrays(
            name,
            "",
            vec![text()?],
            DataType::Boolean,
            Can::NotFail,
            |args, _| {
                Ok(Arc::new(
                    args[0]
                        .as_string::<i32>()
                        .iter()
                        .map(|t| t.map(|_| true))
                        .collect::<BooleanArray>(),
                ))
            },
        ),
        "make_valid_utf8" | "validate_utf8" | "try_validate_utf8" => text()?,
        _ => return Ok(None),
    }))
}

fn levenshtein(a: &str, b: &str) -> i32 {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<i32> = (0..=b.len() as i32).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i as i32 + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + i32::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// How a word sounds in English: its first letter and three digits; a text that begins otherwise as it is.
fn soundex(text: &str) -> String {
    // Vowels are '0' and part equal sounds; 'H' and 'W' are '7' and do not.
    const SOUNDS: &[u8; 26] = b"01230127022455012623017202";
    let sound = |byte: u8| {
        let letter = byte.to_ascii_uppercase();
        letter
            .is_ascii_uppercase()
            .then(|| SOUNDS[usize::from(letter - b'A')])
    };
    let Some((first, rest)) = text.as_bytes().split_first() else {
        return String::new();
    };
    let Some(mut before) = sound(*first) else {
        return text.to_string();
    };
    let mut out = String::from(char::from(first.to_ascii_uppercase()));
    for byte in rest {
        match sound(*byte) {
            None => before = b'0',
            Some(b'7') => {}
            Some(sound) => {
                if sound != b'0' && sound != before {
                    out.push(char::from(sound));
                }
                before = sound;
            }
        }
        if out.len() == 4 {
            break;
        }
    }
    format!("{out:0<4}")
}
