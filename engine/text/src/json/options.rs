//! How JSON is read, by the names that users of the model know.

use crate::options::{OptionError, Options};

use super::limits::Limits;
use super::scan::Dialect;
use crate::mode::ParseMode;
use crate::options::{flag, flag_or};
use crate::sample;
use crate::time::Zone;
use crate::times::ReadTimes;

/// How JSON is read.
#[derive(Debug, Clone)]
pub struct JsonOptions {
    /// What happens to bad rows.
    pub mode: ParseMode,
    /// The name of the column that gets the text of bad rows, if the schema has it.
    pub column_name_of_corrupt_record: String,
    /// How dates and timestamps are read.
    pub times: ReadTimes,
    /// Strings and names may be in single quotes.
    pub allow_single_quotes: bool,
    /// `NaN` and `Infinity` are numbers.
    pub allow_non_numeric_numbers: bool,
    /// `/* comments */` and `// comments` are blanks.
    pub allow_comments: bool,
    /// Names need no quotes.
    pub allow_unquoted_field_names: bool,
    /// `007` is a number.
    pub allow_numeric_leading_zeros: bool,
    /// A backslash before any character stands for that character.
    pub allow_backslash_escaping_any_character: bool,
    /// Strings may hold control characters as they are.
    pub allow_unquoted_control_chars: bool,
    /// When a schema is looked for: numbers and booleans are strings.
    pub primitives_as_string: bool,
    /// When a schema is looked for: fractions, and strings that are numbers, are DECIMAL if they fit.
    pub prefers_decimal: bool,
    /// When a schema is looked for: a field that is always null is no column.
    pub drop_field_if_all_null: bool,
    /// When a schema is looked for: strings that are timestamps are TIMESTAMP.
    pub infer_timestamp: bool,
    /// When a schema is looked for: the share of the lines that is looked at.
    pub sampling_ratio: f64,
    /// Bounds on what a text may hold, if somebody asked for them.
    pub limits: Option<Limits>,
}

impl Default for JsonOptions {
    fn default() -> Self {
        JsonOptions {
            mode: ParseMode::Permissive,
            column_name_of_corrupt_record: "_corrupt_record".into(),
            times: ReadTimes::of_zone(Zone::UTC),
            allow_single_quotes: true,
            allow_non_numeric_numbers: true,
            allow_comments: false,
            allow_unquoted_field_names: false,
            allow_numeric_leading_zeros: false,
            allow_backslash_escaping_any_character: false,
            allow_unquoted_control_chars: false,
            primitives_as_string: false,
            prefers_decimal: false,
            drop_field_if_all_null: false,
            infer_timestamp: false,
            sampling_ratio: 1.0,
            limits: None,
        }
    }
}

/// The names, for `Options::only`.
pub const KNOWN: &[&str] = &[
    "mode",
    "columnNameOfCorruptRecord",
    "allowSingleQuotes",
    "allowNonNumericNumbers",
    "allowComments",
    "allowUnquotedFieldNames",
    "allowNumericLeadingZeros",
    "allowBackslashEscapingAnyCharacter",
    "allowUnquotedControlChars",
    "primitivesAsString",
    "prefersDecimal",
    "dropFieldIfAllNull",
    "inferTimestamp",
    "samplingRatio",
    "useUnsafeRow",
    "maxNestingDepth",
    "maxNumLen",
];

/// Names of the model that are not built.
pub const NOT_BUILT: &[&str] = &["timeFormat", "singleVariantColumn", "maxStringLen"];

impl JsonOptions {
    /// Reads options by name; `owner` is told in errors.
    pub fn parse(owner: &str, options: &Options, times: ReadTimes) -> Result<Self, OptionError> {
        let defaults = JsonOptions::default();
        let flag = |name| flag(options, owner, name);
        // It chooses between two layouts of rows in memory, of which there is one here.
        flag("useUnsafeRow")?;
        Ok(JsonOptions {
            mode: options.parse(owner, "mode")?.unwrap_or_default(),
            column_name_of_corrupt_record: options
                .get("columnNameOfCorruptRecord")
                .map_or(defaults.column_name_of_corrupt_record, str::to_string),
            times,
            allow_single_quotes: flag_or(options, owner, "allowSingleQuotes", true)?,
            allow_non_numeric_numbers: flag_or(options, owner, "allowNonNumericNumbers", true)?,
            allow_comments: flag("allowComments")?,
            allow_unquoted_field_names: flag("allowUnquotedFieldNames")?,
            allow_numeric_leading_zeros: flag("allowNumericLeadingZeros")?,
            allow_backslash_escaping_any_character: flag("allowBackslashEscapingAnyCharacter")?,
            allow_unquoted_control_chars: flag("allowUnquotedControlChars")?,
            primitives_as_string: flag("primitivesAsString")?,
            prefers_decimal: flag("prefersDecimal")?,
            drop_field_if_all_null: flag("dropFieldIfAllNull")?,
            infer_timestamp: flag("inferTimestamp")?,
            sampling_ratio: sample::ratio(owner, options)?,
            limits: Limits::parse(owner, options)?,
        })
    }

    pub(super) fn dialect(&self, many_lines: bool) -> Dialect {
        Dialect {
            single_quotes: self.allow_single_quotes,
            not_finite: self.allow_non_numeric_numbers,
            comments: self.allow_comments,
            unquoted_names: self.allow_unquoted_field_names,
            leading_zeros: self.allow_numeric_leading_zeros,
            any_escape: self.allow_backslash_escaping_any_character,
            control_chars: self.allow_unquoted_control_chars,
            many_lines,
        }
    }
}
