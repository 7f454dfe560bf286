//! Options of formats whose files are lines of text.

use highwater_engine::options::{OptionError, Options};
use highwater_engine::text::TimePattern;

use super::encoding::OutEncoding;
use super::layout::Layout;
use crate::lines::line_separator;
use crate::options::{flag, flag_or, invalid};
use crate::view::TimePatterns;

/// How lines are written.
#[derive(Debug, Clone)]
pub(super) struct LineStyle {
    /// What ends a line.
    pub(super) separator: String,
    pub(super) times: TimePatterns,
    /// Fields of JSON that are null are written too.
    pub(super) null_fields: bool,
    /// JSON in ASCII, with escapes for what is not.
    pub(super) ascii: bool,
    /// JSON over several lines, and its fields in the order of their names.
    pub(super) layout: Layout,
    pub(super) encoding: OutEncoding,
}

/// Options of which the value that says what is done anyway is taken, and others are refused.
const FIXED: &[(&str, &str, &[&str])] = &[
    ("text", "encoding", &["utf-8", "utf8"]),
    ("json csv", "locale", &["en-us", "en_us"]),
];

const TIMES: &[&str] = &["dateFormat", "timestampFormat", "timestampNTZFormat"];

fn fixed(format: &str) -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    let mine = move |formats: &str| formats.split(' ').any(|name| name == format);
    FIXED
        .iter()
        .filter(move |(formats, ..)| mine(formats))
        .map(|(_, name, values)| (*name, *values))
}

impl LineStyle {
    /// The names of its options.
    pub(super) fn known(format: &str) -> Vec<&'static str> {
        let own: &[&str] = match format {
            "text" => &["lineSep"],
            "csv" => &["lineSep", "encoding", "charset"],
            "json" => &[
                "lineSep",
                "encoding",
                "charset",
                "pretty",
                "sortKeys",
                "ignoreNullFields",
                "writeNonAsciiCharacterAsCodePoint",
            ],
            _ => &[],
        };
        let times = match format {
            "json" | "csv" => TIMES,
            _ => &[],
        };
        let fixed: Vec<&str> = fixed(format).map(|(name, _)| name).collect();
        [own, times, &fixed].concat()
    }

    pub(super) fn parse(
        format: &str,
        owner: &str,
        options: &Options,
        time_zone: &str,
    ) -> Result<Self, OptionError> {
        for (name, values) in fixed(format) {
            if let Some(value) = options.get(name)
                && !values.contains(&value.trim().to_ascii_lowercase().as_str())
            {
                let reason = format!("only \"{}\" is supported", values[0]);
                return Err(invalid(owner, name, value, &reason));
            }
        }
        let separator = line_separator(owner, format, options)?;
        let pattern = |name: &str, zone: &str| {
            let Some(text) = options.get(name) else {
                return Ok(None);
            };
            TimePattern::new(text, zone)
                .map(Some)
                .map_err(|reason| invalid(owner, name, text, &reason))
        };
        Ok(LineStyle {
            separator: separator.unwrap_or_else(|| "\n".into()),
            times: TimePatterns {
                date: pattern("dateFormat", "UTC")?,
                timestamp: pattern("timestampFormat", time_zone)?,
                timestamp_ntz: pattern("timestampNTZFormat", "UTC")?,
            },
            null_fields: !flag_or(options, owner, "ignoreNullFields", true)?,
            ascii: flag(options, owner, "writeNonAsciiCharacterAsCodePoint")?,
            layout: Layout {
                pretty: flag(options, owner, "pretty")?,
                sorted: flag(options, owner, "sortKeys")?,
            },
            encoding: match format {
                "text" => OutEncoding::Utf8,
                _ => OutEncoding::parse(owner, options)?,
            },
        })
    }
}

/// Escapes what is not ASCII; in JSON it can only be within strings.
pub(super) fn push_ascii(out: &mut String, text: &str) {
    let mut units = [0; 2];
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut units) {
            out.push_str(&format!("\\u{unit:04X}"));
        }
    }
}
