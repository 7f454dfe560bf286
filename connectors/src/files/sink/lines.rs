//! Options of formats whose files are lines of text.

use highwater_text::options::{OptionError, Options};

use super::encoding::OutEncoding;
use highwater_text::json::{JsonWriting, WRITE_KNOWN};
use highwater_text::lines::line_separator;
use highwater_text::options::invalid;
use highwater_text::view::TimePatterns;

/// How lines are written.
#[derive(Debug, Clone)]
pub(super) struct LineStyle {
    /// What ends a line.
    pub(super) separator: String,
    pub(super) times: TimePatterns,
    /// In files of JSON.
    pub(super) json: JsonWriting,
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
            "json" => &["lineSep", "encoding", "charset"],
            _ => &[],
        };
        let times = match format {
            "json" | "csv" => TIMES,
            _ => &[],
        };
        let fixed: Vec<&str> = fixed(format).map(|(name, _)| name).collect();
        let json: &[&str] = match format {
            "json" => WRITE_KNOWN,
            _ => &[],
        };
        [own, json, times, &fixed].concat()
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
        Ok(LineStyle {
            separator: separator.unwrap_or_else(|| "\n".into()),
            times: TimePatterns::parse(owner, options, time_zone)?,
            json: JsonWriting::parse(owner, options)?,
            encoding: match format {
                "text" => OutEncoding::Utf8,
                _ => OutEncoding::parse(owner, options)?,
            },
        })
    }
}
