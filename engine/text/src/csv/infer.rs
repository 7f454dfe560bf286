//! Finds a schema that fits given rows, as Spark's batch reader does when it is given none.
//!
//! The first row names the columns, or counts them. Unless types are asked for, all are STRING; else a column is the
//! narrowest of INT, BIGINT, DECIMAL (without a fraction), DOUBLE, DATE, TIMESTAMP, BOOLEAN and STRING that has all
//! its cells. Spark tries a cell from the type on that its column has so far, not from the narrowest: so does this.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::cells::Cells;
use super::column::float;
use super::options::CsvOptions;
use super::rows::Rows;
use crate::number::parse_i64;
use crate::sample;
use crate::time::parse_date;

/// Formats of dates whose dates are timestamps too, unless timestamps have a format.
const DATES_IN_TIMESTAMPS: [&str; 7] = [
    "yyyy-MM-dd",
    "yyyy-M-d",
    "yyyy-M-dd",
    "yyyy-MM-d",
    "yyyy-MM",
    "yyyy-M",
    "yyyy",
];

/// What is known of a column so far.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Only nulls.
    Null,
    Int,
    Long,
    /// So many digits, none of them behind the point.
    Decimal(u8),
    Double,
    Date,
    Timestamp,
    Boolean,
    String,
}

/// Learns from the texts of files.
pub struct CsvInference {
    options: CsvOptions,
    names: Option<Vec<String>>,
    kinds: Vec<Kind>,
    cells: Cells,
    header_ahead: bool,
    rows: u64,
}

impl CsvInference {
    /// One that has seen nothing.
    pub fn new(options: CsvOptions) -> Self {
        CsvInference {
            options,
            names: None,
            kinds: Vec::new(),
            cells: Cells::default(),
            header_ahead: false,
            rows: 0,
        }
    }

    /// The next text is the first of a file.
    pub fn begin_file(&mut self) {
        self.header_ahead = self.options.header;
    }

    /// Whether more rows would tell nothing new.
    pub fn knows_enough(&self) -> bool {
        self.names.is_some() && !self.options.infer
    }

    /// Looks at the rows of a text and answers how many bytes it took: none of a row that is not whole yet.
    pub fn look_at(&mut self, text: &[u8], last: bool) -> usize {
        let options = self.options.clone();
        let mut rows = Rows::new(text, last, &options);
        for row in rows.by_ref() {
            if options.is_row(row) {
                self.row(row);
            }
            if self.knows_enough() {
                break;
            }
        }
        rows.consumed()
    }

    /// The schema so far; `None` if no row was seen.
    pub fn schema(&self) -> Option<Schema> {
        let names = self.names.as_ref()?;
        let fields = names.iter().zip(&self.kinds).map(|(name, kind)| {
            let data_type = match kind {
                _ if !self.options.infer => DataType::Utf8,
                Kind::Int => DataType::Int32,
                Kind::Long => DataType::Int64,
                Kind::Decimal(digits) => DataType::Decimal128(*digits, 0),
                Kind::Double => DataType::Float64,
                Kind::Date => DataType::Date32,
                Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                Kind::Boolean => DataType::Boolean,
                Kind::Null | Kind::String => DataType::Utf8,
            };
            Field::new(name, data_type, true)
        });
        Some(Schema::new(fields.collect::<Vec<_>>()))
    }

    pub(super) fn row(&mut self, row: &[u8]) {
        self.cells.cut(row, &self.options.dialect);
        if self.names.is_none() {
            let cells = (0..self.cells.count())
                .map(|at| String::from_utf8_lossy(self.cells.get(row, at).0).into_owned());
            let names = names(cells.collect(), &self.options);
            self.kinds = vec![Kind::Null; names.len()];
            self.names = Some(names);
        }
        if std::mem::take(&mut self.header_ahead) || !self.options.infer {
            return;
        }
        self.rows += 1;
        if !sample::takes(self.rows, self.options.sampling_ratio) {
            return;
        }
        // Cells beyond the first row's make a row bad, not a column.
        for (at, kind) in self.kinds.iter_mut().enumerate().take(self.cells.count()) {
            let (cell, quoted) = self.cells.get(row, at);
            let cell = String::from_utf8_lossy(cell);
            let cell = match cell.is_empty() && quoted {
                true => self.options.empty_value.as_str(),
                false => cell.as_ref(),
            };
            if !cell.is_empty() && cell != self.options.null_value && *kind != Kind::String {
                *kind = merge(*kind, kind_of(cell, *kind, &self.options), &self.options);
            }
        }
    }
}

/// What the columns are called; a name that several have gets their places behind it.
fn names(cells: Vec<String>, options: &CsvOptions) -> Vec<String> {
    let (mut seen, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for cell in &cells {
        let folded = cell.to_lowercase();
        if !seen.insert(folded.clone()) {
            twice.insert(folded);
        }
    }
    let name = |(at, cell): (usize, String)| match options.header {
        true if cell.is_empty() || cell == options.null_value => format!("_c{at}"),
        true if twice.contains(&cell.to_lowercase()) => format!("{cell}{at}"),
        true => cell,
        false => format!("_c{at}"),
    };
    cells.into_iter().enumerate().map(name).collect()
}

/// The first kind that has the cell, from `from` on.
fn kind_of(cell: &str, from: Kind, options: &CsvOptions) -> Kind {
    let text = cell.as_bytes();
    let long = || parse_i64(text);
    let tries: [&dyn Fn() -> Option<Kind>; 7] = [
        &|| {
            let fits = long().is_some_and(|value| i32::try_from(value).is_ok());
            fits.then_some(Kind::Int)
        },
        &|| long().map(|_| Kind::Long),
        &|| whole_digits(text).map(Kind::Decimal),
        &|| float(cell, options).map(|_| Kind::Double),
        &|| is_date(text, options).then_some(Kind::Date),
        &|| options.times.timestamp(text).map(|_| Kind::Timestamp),
        &|| {
            let is = |word: &str| cell.eq_ignore_ascii_case(word);
            (is("true") || is("false")).then_some(Kind::Boolean)
        },
    ];
    let first = match from {
        Kind::Null | Kind::Int => 0,
        Kind::Long => 1,
        Kind::Decimal(_) => 2,
        Kind::Double => 3,
        Kind::Date => 4,
        Kind::Timestamp => 5,
        Kind::Boolean => 6,
        Kind::String => 7,
    };
    let found = tries[first..].iter().find_map(|kind| kind());
    found.unwrap_or(Kind::String)
}

/// Without a format, a date has all its digits and nothing behind them: a timestamp begins with a date too.
fn is_date(text: &[u8], options: &CsvOptions) -> bool {
    if !options.prefer_date {
        return false;
    }
    match &options.date_format {
        Some(_) => options.times.date(text).is_some(),
        None => {
            let strict = matches!(text, [b'0'..=b'9', _, _, _, b'-', _, _, b'-', _, _]);
            strict && parse_date(text).is_some()
        }
    }
}

/// How many digits a number has that has no fraction, as `java.math.BigDecimal` counts them; commas are left out.
fn whole_digits(text: &[u8]) -> Option<u8> {
    let text: Vec<u8> = text.iter().copied().filter(|byte| *byte != b',').collect();
    let unsigned = text.strip_prefix(b"-").or(text.strip_prefix(b"+"));
    let unsigned = unsigned.unwrap_or(&text);
    let (mantissa, power) = match unsigned.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&unsigned[..at], parse_i64(&unsigned[at + 1..])?),
        None => (unsigned, 0),
    };
    let point = mantissa.iter().position(|byte| *byte == b'.');
    let fraction = point.map_or(0, |at| mantissa.len() - at - 1);
    let digits: Vec<u8> = mantissa.iter().copied().filter(|b| *b != b'.').collect();
    let is_number = !digits.is_empty()
        && digits.len() + usize::from(point.is_some()) == mantissa.len()
        && digits.iter().all(u8::is_ascii_digit);
    if !is_number || i64::try_from(fraction).ok()? != power {
        return None;
    }
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    let digits = (digits.len() - zeros).max(1);
    u8::try_from(digits).ok().filter(|digits| *digits <= 38)
}

/// The narrowest kind that has the cells of both.
fn merge(a: Kind, b: Kind, options: &CsvOptions) -> Kind {
    use Kind::*;
    let digits = |kind| match kind {
        Int => 10,
        Long => 20,
        Decimal(digits) => digits,
        _ => 0,
    };
    match (a, b) {
        (a, b) if a == b => a,
        (Null, other) | (other, Null) => other,
        (Int, Long) | (Long, Int) => Long,
        (Int | Long | Decimal(_), Int | Long | Decimal(_)) => Decimal(digits(a).max(digits(b))),
        (Int | Long | Decimal(_), Double) | (Double, Int | Long | Decimal(_)) => Double,
        (Date, Timestamp) | (Timestamp, Date) => {
            let format = options.date_format.as_deref().unwrap_or("yyyy-MM-dd");
            match !options.timestamp_format_given && DATES_IN_TIMESTAMPS.contains(&format) {
                true => Timestamp,
                false => String,
            }
        }
        _ => String,
    }
}

#[cfg(test)]
mod tests {
    use crate::options::Options;

    use super::*;
    use crate::time::Zone;
    use crate::times::ReadTimes;

    fn inferred(set: &[(&str, &str)], text: &str) -> Vec<String> {
        let mut options = Options::default();
        for (name, value) in [("inferSchema", "true")].iter().chain(set) {
            options.set(name, *value);
        }
        let times = ReadTimes::parse("a test", &options, Zone::UTC, "UTC").unwrap();
        let options = CsvOptions::parse("a test", &options, times).unwrap();
        let mut inference = CsvInference::new(options);
        inference.begin_file();
        inference.look_at(text.as_bytes(), true);
        let schema = inference.schema().unwrap_or(Schema::empty());
        let shown = schema.fields().iter();
        shown
            .map(|field| format!("{} {}", field.name(), field.data_type()))
            .collect()
    }

    /// The type of a column with these cells, one to a line.
    fn check_as(set: &[(&str, &str)], cells: &str, expected: &str) {
        let text = cells.split(' ').collect::<Vec<_>>().join("\n");
        let found = inferred(set, &text.replace('_', " "));
        assert_eq!(found, [format!("_c0 {expected}")], "{cells}");
    }

    fn check(cells: &str, expected: &str) {
        check_as(&[], cells, expected);
    }

    const INSTANT: &str = "Timestamp(µs, \"UTC\")";

    #[test]
    fn numbers_take_the_narrowest_type() {
        check("1 -2 +3", "Int32");
        check("1 2147483648", "Int64");
        check("2147483648 1", "Int64");
        check("9223372036854775808", "Decimal128(19, 0)");
        check("1 9223372036854775808", "Decimal128(19, 0)");
        check("9999999999 12345678901234567890123", "Decimal128(23, 0)");
        check("123456789012345678901234567890123456789", "Float64");
        check("1 1.5", "Float64");
        check("1.5 1", "Float64");
        check("1e3", "Float64");
        check("1.5e1", "Decimal128(2, 0)");
        check("5.", "Decimal128(1, 0)");
        check("NaN Inf -Inf", "Float64");
        check("1_", "Float64");
        check("\"1,000\"", "Decimal128(4, 0)");
    }

    #[test]
    fn what_has_no_common_type_is_a_string() {
        check("1 x", "Utf8");
        check("1 true", "Utf8");
        check("true FALSE", "Boolean");
        check("true 1", "Utf8");
        check("2024-01-05 1", "Utf8");
        check("1 2024-01-05", "Utf8");
        check("1.5 2024-01-05", "Utf8");
        check("x 1", "Utf8");
    }

    #[test]
    fn nulls_tell_nothing() {
        assert_eq!(inferred(&[], "1,\n,\n,3"), ["_c0 Int32", "_c1 Int32"]);
        assert_eq!(inferred(&[], ",\n,\"\""), ["_c0 Utf8", "_c1 Utf8"]);
        check_as(&[("nullValue", "NA")], "NA 1", "Int32");
        check("NA 1", "Utf8");
        check_as(&[("emptyValue", "7")], "\"\"", "Int32");
    }

    #[test]
    fn dates_and_timestamps_are_told_apart() {
        check("2024-01-05", "Date32");
        check("2024-01-05 2024-01-06T10:00:00", INSTANT);
        check("2024-01-06T10:00:00 2024-01-05", INSTANT);
        check("2024-01-05_10:00:00", INSTANT);
        check("2024-1-5", INSTANT);
        check("2024-01-05 2024", INSTANT);
        check("2024-13-05", "Utf8");
        check_as(&[("preferDate", "false")], "2024-01-05", INSTANT);
        let german = [("dateFormat", "dd.MM.yyyy")];
        check_as(&german, "05.01.2024", "Date32");
        check_as(&german, "05.01.2024 2024-01-05", "Utf8");
        check_as(&german, "2024-01-05", INSTANT);
        let stamped = [("timestampFormat", "dd.MM.yyyy_HH:mm".replace('_', " "))];
        let stamped = [(stamped[0].0, stamped[0].1.as_str())];
        check_as(&stamped, "05.01.2024_10:00", INSTANT);
        check_as(&stamped, "2024-01-05T10:00:00", "Utf8");
        check_as(&stamped, "2024-01-05 05.01.2024_10:00", "Utf8");
    }

    #[test]
    fn the_header_names_the_columns() {
        let header = [("header", "true")];
        assert_eq!(
            inferred(&header, "#a,,b,B,1\n1,2,x,true,1.5"),
            [
                "#a Int32",
                "_c1 Int32",
                "b2 Utf8",
                "B3 Boolean",
                "1 Float64"
            ]
        );
        assert_eq!(inferred(&header, "a,b\n"), ["a Utf8", "b Utf8"]);
        assert_eq!(inferred(&[], "a,b\n1,2"), ["_c0 Utf8", "_c1 Utf8"]);
        let plain = [("header", "true"), ("inferSchema", "false")];
        assert_eq!(inferred(&plain, "a,b\n1,2"), ["a Utf8", "b Utf8"]);
        assert!(inferred(&header, "").is_empty());
    }

    #[test]
    fn rows_of_another_length_tell_of_the_columns_they_have() {
        assert_eq!(inferred(&[], "1,2\n3\n4,5,x"), ["_c0 Int32", "_c1 Int32"]);
    }

    #[test]
    fn a_sample_of_rows_can_do() {
        let text: String = (0..1000).map(|n| format!("{n}\n")).collect();
        let late = format!("{text}x\n");
        assert_eq!(inferred(&[], &late), ["_c0 Utf8"]);
        let half = [("samplingRatio", "0.01")];
        assert_eq!(inferred(&half, &late), ["_c0 Int32"]);
    }

    #[test]
    fn quoted_rows_can_reach_over_lines() {
        let many = [("multiLine", "true"), ("header", "true")];
        assert_eq!(
            inferred(&many, "\"a\nb\",c\r\n\"x\ny\",1"),
            ["a\nb Utf8", "c Int32"]
        );
    }
}
