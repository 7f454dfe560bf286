//! A table in text, as Spark's `show` draws it.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;

use highwater_text::time::Zone;
use highwater_text::view::{TextStyle, TimePatterns, View};

/// How a table is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Show {
    /// At most so many rows.
    pub rows_max: usize,
    /// Cells are cut to so many characters and stand to the right; `None`: whole, and to the left.
    pub truncate: Option<usize>,
    /// Whose clock timestamps show.
    pub zone: Zone,
}

impl Default for Show {
    fn default() -> Self {
        Show {
            rows_max: 20,
            truncate: Some(20),
            zone: Zone::UTC,
        }
    }
}

/// Columns are never narrower.
const WIDTH_MIN: usize = 3;

/// Draws the first rows of `batches` as a table, with a last line if there are more.
pub fn show(
    schema: &Schema,
    batches: &[RecordBatch],
    options: &Show,
) -> Result<String, ArrowError> {
    let style = TextStyle {
        zone: &options.zone,
        null: "NULL",
        hex: true,
        iso: false,
        times: &TimePatterns::NONE,
    };
    let names = schema.fields().iter().map(|field| escape(field.name()));
    let mut table: Vec<Vec<String>> = vec![names.collect()];
    let mut more = false;
    for batch in batches {
        let room = options.rows_max.saturating_add(1) - table.len();
        more |= batch.num_rows() > room;
        if room == 0 || batch.num_rows() == 0 {
            continue;
        }
        let views: Vec<View> = batch
            .columns()
            .iter()
            .map(View::new)
            .collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows().min(room) {
            let cell = |view: &View| {
                let mut text = String::new();
                match view.is_null(row) {
                    true => text.push_str(style.null),
                    false => view.push_text(&mut text, row, &style),
                }
                cut(escape(&text), options.truncate)
            };
            table.push(views.iter().map(cell).collect());
        }
    }
    let mut drawn = draw(&table, options.truncate.is_some());
    if more {
        let rows = if options.rows_max == 1 { "row" } else { "rows" };
        drawn.push_str(&format!("only showing top {} {rows}\n", options.rows_max));
    }
    Ok(drawn)
}

fn draw(table: &[Vec<String>], to_the_right: bool) -> String {
    let mut widths = vec![WIDTH_MIN; table[0].len()];
    for row in table {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(width_of(cell));
        }
    }
    let mut rule = String::from("+");
    for width in &widths {
        rule.push_str(&"-".repeat(*width));
        rule.push('+');
    }
    rule.push('\n');
    let mut drawn = rule.clone();
    for (at, row) in table.iter().enumerate() {
        drawn.push('|');
        for (width, cell) in widths.iter().zip(row) {
            let blanks = " ".repeat(width - width_of(cell));
            match to_the_right {
                true => drawn.extend([blanks.as_str(), cell]),
                false => drawn.extend([cell, blanks.as_str()]),
            }
            drawn.push('|');
        }
        drawn.push('\n');
        if at == 0 {
            drawn.push_str(&rule);
        }
    }
    drawn.push_str(&rule);
    drawn
}

/// Characters that would break the table, made visible.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '\u{c}' => escaped.push_str("\\f"),
            '\u{8}' => escaped.push_str("\\b"),
            '\u{b}' => escaped.push_str("\\v"),
            '\u{7}' => escaped.push_str("\\a"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn cut(text: String, truncate: Option<usize>) -> String {
    let Some(chars_max) = truncate else {
        return text;
    };
    if text.chars().count() <= chars_max {
        return text;
    }
    // Too little room for dots.
    if chars_max < 4 {
        return text.chars().take(chars_max).collect();
    }
    text.chars()
        .take(chars_max - 3)
        .chain("...".chars())
        .collect()
}

/// How many columns of a terminal a text takes: wide characters take two.
fn width_of(text: &str) -> usize {
    let width = |c: char| match c as u32 {
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe10..=0xfe19
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x10000.. => 2,
        _ => 1,
    };
    text.chars().map(width).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};

    use super::*;

    fn words(words: &[Option<&str>]) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("word", DataType::Utf8, true),
            Field::new("count", DataType::Int64, true),
        ]);
        let counts = Int64Array::from_iter_values(1..=words.len() as i64);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(words.to_vec())),
            Arc::new(counts),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    fn check(batches: &[RecordBatch], options: Show, expected: &str) {
        let schema = words(&[]).schema();
        let shown = show(&schema, batches, &options).unwrap();
        assert_eq!(shown, expected.trim_start_matches('\n'));
    }

    #[test]
    fn cells_stand_to_the_right() {
        check(
            &[words(&[Some("apache")]), words(&[None, Some("日本")])],
            Show::default(),
            "
+------+-----+
|  word|count|
+------+-----+
|apache|    1|
|  NULL|    1|
|  日本|    2|
+------+-----+
",
        );
    }

    #[test]
    fn long_cells_are_cut() {
        check(
            &[words(&[
                Some("a very long text indeed"),
                Some("two\nlines"),
            ])],
            Show::default(),
            "
+--------------------+-----+
|                word|count|
+--------------------+-----+
|a very long text ...|    1|
|          two\\nlines|    2|
+--------------------+-----+
",
        );
    }

    #[test]
    fn whole_cells_stand_to_the_left() {
        let options = Show {
            truncate: None,
            ..Show::default()
        };
        check(
            &[words(&[Some("a very long text indeed")])],
            options,
            "
+-----------------------+-----+
|word                   |count|
+-----------------------+-----+
|a very long text indeed|1    |
+-----------------------+-----+
",
        );
    }

    #[test]
    fn more_rows_are_mentioned() {
        let options = Show {
            rows_max: 1,
            truncate: Some(3),
            ..Show::default()
        };
        check(
            &[words(&[Some("abcdef")]), words(&[Some("b")])],
            options,
            "
+----+-----+
|word|count|
+----+-----+
| abc|    1|
+----+-----+
only showing top 1 row
",
        );
    }

    #[test]
    fn a_table_can_be_empty() {
        check(
            &[],
            Show::default(),
            "
+----+-----+
|word|count|
+----+-----+
+----+-----+
",
        );
    }
}
