//! How CSV is read, by the names that users of the model know.

use crate::options::{OptionError, Options};

use super::cells::{Cells, Dialect, StrayQuote};
use crate::lines::LineEnd;
use crate::mode::ParseMode;
use crate::options::{character, flag, flag_or, invalid, positive, separator};
use crate::sample;
use crate::time::Zone;
use crate::times::ReadTimes;

/// How CSV is read.
#[derive(Debug, Clone)]
pub struct CsvOptions {
    /// What characters mean.
    pub dialect: Dialect,
    /// The first row of a file has the names of the columns.
    pub header: bool,
    pub(super) comment: Option<u8>,
    pub(super) null_value: String,
    pub(super) empty_value: String,
    pub(super) nan_value: String,
    pub(super) positive_inf: String,
    pub(super) negative_inf: String,
    /// What happens to bad rows.
    pub mode: ParseMode,
    /// The name of the column that gets the text of bad rows, if the schema has it.
    pub column_name_of_corrupt_record: String,
    pub(super) times: ReadTimes,
    /// When a schema is looked for: columns have types, not strings only.
    pub(super) infer: bool,
    /// When a schema is looked for: what looks like a date is a DATE.
    pub(super) prefer_date: bool,
    /// When a schema is looked for: the format of dates that somebody gave.
    pub(super) date_format: Option<String>,
    /// When a schema is looked for: timestamps are of a format that somebody gave.
    pub(super) timestamp_format_given: bool,
    /// When a schema is looked for: the share of the rows that is looked at.
    pub(super) sampling_ratio: f64,
    pub(super) enforce_schema: bool,
    pub(super) max_columns: usize,
    pub(super) max_cell_chars: Option<usize>,
    /// What ends a row.
    pub line_end: LineEnd,
    pub(super) multi_line: bool,
    /// Bad rows are handed out instead of being read.
    pub keep_bad: bool,
}

/// The names, for `Options::only`.
pub const KNOWN: &[&str] = &[
    "header",
    "sep",
    "delimiter",
    "quote",
    "escape",
    "comment",
    "nullValue",
    "emptyValue",
    "nanValue",
    "positiveInf",
    "negativeInf",
    "mode",
    "columnNameOfCorruptRecord",
    "ignoreLeadingWhiteSpace",
    "ignoreTrailingWhiteSpace",
    "charToEscapeQuoteEscaping",
    "enforceSchema",
    "maxColumns",
    "maxCharsPerColumn",
    "multiLine",
    "inferSchema",
    "preferDate",
    "samplingRatio",
    "unescapedQuoteHandling",
];

/// Names of the model that are not built.
pub const NOT_BUILT: &[&str] = &["timeFormat"];

impl CsvOptions {
    /// Reads options by name; `owner` is told in errors.
    pub fn parse(owner: &str, options: &Options, times: ReadTimes) -> Result<Self, OptionError> {
        let text = |name: &str, default: &str| options.get(name).unwrap_or(default).to_string();
        let multi_line = flag(options, owner, "multiLine")?;
        let stray = options.parse(owner, "unescapedQuoteHandling")?;
        let stray = stray.unwrap_or_default();
        if multi_line && stray == StrayQuote::BackToDelimiter {
            let (name, value) = ("unescapedQuoteHandling", "BACK_TO_DELIMITER");
            let reason = "that is not supported together with option \"multiLine\"";
            return Err(invalid(owner, name, value, reason));
        }
        Ok(CsvOptions {
            dialect: Dialect {
                separator: separator(options, owner)?,
                quote: character(options, owner, "quote")?.unwrap_or(Some(b'"')),
                escape: character(options, owner, "escape")?.unwrap_or(Some(b'\\')),
                escape_of_escape: character(options, owner, "charToEscapeQuoteEscaping")?,
                trim_start: flag(options, owner, "ignoreLeadingWhiteSpace")?,
                trim_end: flag(options, owner, "ignoreTrailingWhiteSpace")?,
                stray,
            },
            header: flag(options, owner, "header")?,
            comment: character(options, owner, "comment")?.flatten(),
            null_value: text("nullValue", ""),
            empty_value: text("emptyValue", ""),
            nan_value: text("nanValue", "NaN"),
            positive_inf: text("positiveInf", "Inf"),
            negative_inf: text("negativeInf", "-Inf"),
            mode: options.parse(owner, "mode")?.unwrap_or_default(),
            column_name_of_corrupt_record: text("columnNameOfCorruptRecord", "_corrupt_record"),
            times,
            enforce_schema: flag_or(options, owner, "enforceSchema", true)?,
            max_columns: positive(options, owner, "maxColumns")?.map_or(20_480, |n| n as usize),
            max_cell_chars: match options.parse::<i64>(owner, "maxCharsPerColumn")? {
                None | Some(-1) => None,
                Some(chars) if chars > 0 => Some(chars as usize),
                Some(chars) => {
                    let reason = "it is a positive whole number, or -1 for no limit";
                    return Err(invalid(
                        owner,
                        "maxCharsPerColumn",
                        &chars.to_string(),
                        reason,
                    ));
                }
            },
            line_end: LineEnd::Any,
            multi_line,
            infer: flag(options, owner, "inferSchema")?,
            prefer_date: flag_or(options, owner, "preferDate", true)?,
            date_format: options.get("dateFormat").map(str::to_string),
            timestamp_format_given: options.get("timestampFormat").is_some(),
            sampling_ratio: sample::ratio(owner, options)?,
            keep_bad: false,
        })
    }

    /// What limit the line goes beyond that `cells` were cut of.
    pub fn over_limit(&self, cells: &Cells, line: &[u8]) -> Option<String> {
        let (most, longest) = (self.max_columns, self.max_cell_chars);
        if cells.count() > most {
            return Some(format!("it has more cells than maxColumns, {most}"));
        }
        let longest = longest.filter(|longest| line.len() > *longest)?;
        let is_longer = |at| {
            let cell = cells.get(line, at).0;
            cell.len() > longest && String::from_utf8_lossy(cell).chars().count() > longest
        };
        let found = (0..cells.count()).any(is_longer);
        found.then(|| format!("a cell is longer than maxCharsPerColumn, {longest}"))
    }

    /// The names in a header that does not agree with the schema, if it is asked to.
    pub fn other_header(
        &self,
        cells: &Cells,
        line: &[u8],
        names: &[String],
    ) -> Option<Vec<String>> {
        if self.enforce_schema {
            return None;
        }
        let found: Vec<String> = (0..cells.count())
            .map(|at| String::from_utf8_lossy(cells.get(line, at).0).into_owned())
            .collect();
        let agrees = found.len() == names.len()
            && found
                .iter()
                .zip(names)
                .all(|(a, b)| a.eq_ignore_ascii_case(b));
        (!agrees).then_some(found)
    }

    /// How single values are read that are no cells.
    pub fn of_values(zone: Zone) -> Self {
        CsvOptions::parse("", &Options::default(), ReadTimes::of_zone(zone))
            .expect("defaults are fine")
    }

    /// Blank lines and comments are no rows.
    pub fn is_row(&self, line: &[u8]) -> bool {
        line.iter().any(|byte| *byte > b' ')
            && self.comment.is_none_or(|comment| line[0] != comment)
    }
}
