//! Percentiles and the mode in words: calls of them, though what is aggregated are the values.

use super::text;
use crate::functions::Rank;

/// How the values of a group are told where it is not told what is asked of them.
pub(super) const ALL_VALUES: &str = "all values";

/// The question about `values`: of a group, or of rows that a window function looks at.
pub(super) fn asked_of(rank: &Rank, values: &str) -> String {
    let inner = values.strip_prefix(ALL_VALUES);
    let Some(inner) = inner.and_then(|inner| inner.strip_prefix('(')) else {
        return asked(rank, values);
    };
    let (args, rest) = arguments(inner);
    format!("{}{rest}", asked(rank, &args.join(", ")))
}

/// The question about the values of an expression that is written so.
pub(super) fn asked(rank: &Rank, value: &str) -> String {
    match rank {
        Rank::Percentiles {
            at,
            array,
            descending,
            continuous,
        } => {
            let share = shares(at, *array);
            let how = if *descending { " DESC" } else { "" };
            match (continuous, descending) {
                (true, false) => match weighed(value) {
                    Some((value, times)) => format!("percentile({value}, {share}, {times})"),
                    None => format!("percentile({value}, {share})"),
                },
                (true, true) => {
                    format!("percentile_cont({share}) WITHIN GROUP (ORDER BY {value}{how})")
                }
                _ => format!("percentile_disc({share}) WITHIN GROUP (ORDER BY {value}{how})"),
            }
        }
        Rank::Values { at, array } => {
            format!("percentile_approx({value}, {})", shares(at, *array))
        }
        Rank::Mode { greatest: false } => format!("mode({value})"),
        Rank::Mode { greatest: true } => format!("mode() WITHIN GROUP (ORDER BY {value} DESC)"),
    }
}

fn shares(at: &[f64], array: bool) -> String {
    let at: Vec<String> = at.iter().map(|at| text::double(*at)).collect();
    match array {
        true => format!("array({})", at.join(", ")),
        false => at.join(", "),
    }
}

/// The value, and how often it is there, of a struct of both.
fn weighed(value: &str) -> Option<(&str, &str)> {
    let (args, rest) = arguments(value.strip_prefix("struct(")?);
    match args.as_slice() {
        [value, times] if rest.is_empty() => Some((*value, *times)),
        _ => None,
    }
}

/// The arguments of a call, of the text after its parenthesis, and what comes after the closing one.
fn arguments(text: &str) -> (Vec<&str>, &str) {
    let (mut args, mut depth, mut quoted, mut start) = (Vec::new(), 0, false, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '\'' => quoted = !quoted,
            _ if quoted => {}
            '(' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            ')' => {
                args.push(text[start..at].trim());
                return (args, &text[at + 1..]);
            }
            ',' if depth == 0 => {
                args.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    args.push(text[start..].trim());
    (args, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_is_told_of_what_it_is_about() {
        let percentiles = |descending, continuous| Rank::Percentiles {
            at: vec![0.5],
            array: false,
            descending,
            continuous,
        };
        for (rank, values, expected) in [
            (
                percentiles(false, true),
                "all values(if(a, ')', b)) OVER (PARTITION BY k)",
                "percentile(if(a, ')', b), 0.5) OVER (PARTITION BY k)",
            ),
            (
                percentiles(false, true),
                "all values(struct(f(a, b), 2))",
                "percentile(f(a, b), 0.5, 2)",
            ),
            (
                percentiles(true, false),
                "all values(v)",
                "percentile_disc(0.5) WITHIN GROUP (ORDER BY v DESC)",
            ),
            (
                Rank::Mode { greatest: false },
                "some_list",
                "mode(some_list)",
            ),
        ] {
            assert_eq!(asked_of(&rank, values), expected);
        }
    }
}
