//! Options that all file formats share.

use std::path::PathBuf;

use glob::Pattern;
use highwater_engine::source::{FormatError, SourceRequest};
use highwater_text::options::{OptionError, Options};

use regex::Regex;

use super::cleaner::Clean;
use super::listing::{local, spell_out};
use highwater_text::options::{duration_us, flag, invalid, positive};
use highwater_text::time::{Zone, parse_timestamp};

/// Which files are read, and how many at a time.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// An epoch admits at most so many files.
    pub files_per_trigger_max: Option<u64>,
    /// An epoch admits at most so many bytes, but always one file.
    pub bytes_per_trigger_max: Option<u64>,
    /// Newest files first.
    pub latest_first: bool,
    /// Files of one name are one file, whatever their directories.
    pub file_name_only: bool,
    /// Files are remembered, and new ones noticed, only if they are not older than the newest by more than this.
    pub file_age_max_us: i64,
    /// File names must match one of these.
    pub path_glob_filter: Option<Vec<Pattern>>,
    /// Files in directories below are read too.
    pub recursive: bool,
    /// Files must be older.
    pub modified_before_us: Option<i64>,
    /// Files must be newer.
    pub modified_after_us: Option<i64>,
    /// What cannot be read of a damaged file is skipped.
    pub ignore_corrupt: bool,
    /// Files that are gone when they are to be read are skipped.
    pub ignore_missing: bool,
    /// Names that are no data, of files and of directories; if not given, those that start with `.` or `_`.
    pub ignored_names: Option<Regex>,
    /// So many files that were found and not admitted are kept from one listing to the next.
    pub cached_files_max: Option<u64>,
    /// Nothing is listed while more than this share of an epoch's files (or bytes) waits.
    pub discard_ratio: f64,
    /// What happens to files that were read.
    pub clean: Clean,
    /// Where rows and files that cannot be read are told; they are left out then.
    pub bad_records: Option<PathBuf>,
}

impl Default for FileOptions {
    fn default() -> Self {
        FileOptions {
            files_per_trigger_max: None,
            bytes_per_trigger_max: None,
            latest_first: false,
            file_name_only: false,
            file_age_max_us: 7 * 86_400_000_000,
            path_glob_filter: None,
            recursive: false,
            modified_before_us: None,
            modified_after_us: None,
            ignore_corrupt: false,
            ignore_missing: false,
            ignored_names: None,
            cached_files_max: None,
            discard_ratio: 0.2,
            clean: Clean::Off,
            bad_records: None,
        }
    }
}

/// The names, for `Options::only`.
pub(super) const KNOWN: &[&str] = &[
    "path",
    "maxFilesPerTrigger",
    "maxBytesPerTrigger",
    "latestFirst",
    "fileNameOnly",
    "maxFileAge",
    "pathGlobFilter",
    "recursiveFileLookup",
    "modifiedBefore",
    "modifiedAfter",
    "ignoreCorruptFiles",
    "ignoreMissingFiles",
    "ignoredPathSegmentRegex",
    "maxCachedFiles",
    "discardCachedInputRatio",
    "cleanSource",
    "sourceArchiveDir",
    "badRecordsPath",
];

/// Options of the model that have no place here, and why.
pub(super) const REFUSED: &[(&str, &str)] = &[
    (
        "archivePathFilter",
        "it selects files within tar archives, and archives are not read",
    ),
    (
        "compression",
        "the ending of a file's name tells how it is compressed, and Parquet, ORC and Avro files tell it themselves",
    ),
    (
        "extension",
        "it names files that are written; option \"pathGlobFilter\" chooses those that are read",
    ),
    ("quoteAll", "it says how cells are written"),
    ("escapeQuotes", "it says how cells are written"),
    ("inputBufferSize", "files are read in blocks of one size"),
    (
        "basePath",
        "columns are told by the directories below the path that is read; read the base path, and filter by the column",
    ),
];

impl FileOptions {
    pub(super) fn parse(owner: &str, request: &SourceRequest) -> Result<Self, FormatError> {
        let options = &request.options;
        let defaults = FileOptions::default();
        let parsed = FileOptions {
            files_per_trigger_max: positive(options, owner, "maxFilesPerTrigger")?,
            bytes_per_trigger_max: positive(options, owner, "maxBytesPerTrigger")?,
            latest_first: flag(options, owner, "latestFirst")?,
            file_name_only: flag(options, owner, "fileNameOnly")?,
            file_age_max_us: duration_us(options, owner, "maxFileAge")?
                .unwrap_or(defaults.file_age_max_us),
            path_glob_filter: patterns(options, owner)?,
            recursive: flag(options, owner, "recursiveFileLookup")?,
            modified_before_us: instant(options, owner, "modifiedBefore", &request.time_zone)?,
            modified_after_us: instant(options, owner, "modifiedAfter", &request.time_zone)?,
            ignore_corrupt: flag(options, owner, "ignoreCorruptFiles")?,
            ignore_missing: flag(options, owner, "ignoreMissingFiles")?,
            ignored_names: ignored_names(options, owner)?,
            cached_files_max: count(options, owner, "maxCachedFiles")?,
            discard_ratio: match options.parse::<f64>(owner, "discardCachedInputRatio")? {
                None => defaults.discard_ratio,
                Some(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
                Some(ratio) => {
                    let (name, ratio) = ("discardCachedInputRatio", ratio.to_string());
                    return Err(invalid(owner, name, &ratio, "it is from 0.0 to 1.0").into());
                }
            },
            clean: clean(options, owner)?,
            bad_records: bad_records(options, owner)?,
        };
        if parsed.files_per_trigger_max.is_some() && parsed.bytes_per_trigger_max.is_some() {
            return Err(FormatError::Invalid {
                message: format!(
                    "{owner} takes option \"maxFilesPerTrigger\" or \"maxBytesPerTrigger\", not both"
                ),
                class: None,
            });
        }
        for name in ["modifiedBefore", "modifiedAfter"] {
            if request.streaming && options.get(name).is_some() {
                return Err(FormatError::Invalid {
                    message: format!(
                        "option \"{name}\" of {owner} selects files of a batch read; a stream takes all that arrive"
                    ),
                    class: None,
                });
            }
        }
        Ok(parsed)
    }
}

/// A count, of which zero is one too.
fn count(options: &Options, owner: &str, name: &str) -> Result<Option<u64>, OptionError> {
    let Some(value) = options.get(name) else {
        return Ok(None);
    };
    match value.trim().parse() {
        Ok(count) => Ok(Some(count)),
        Err(_) => Err(invalid(
            owner,
            name,
            value,
            "it is a whole number from 0 on",
        )),
    }
}

fn ignored_names(options: &Options, owner: &str) -> Result<Option<Regex>, OptionError> {
    let name = "ignoredPathSegmentRegex";
    // The model's way to say "nothing" looks ahead, which this engine of expressions does not.
    let pattern = match options.get(name) {
        None => return Ok(None),
        Some("" | "(?!)") => r"[^\s\S]",
        Some(pattern) => pattern,
    };
    match Regex::new(pattern) {
        Ok(regex) => Ok(Some(regex)),
        Err(error) => {
            let reason = match error {
                regex::Error::Syntax(text) => {
                    let last = text.lines().last().unwrap_or_default();
                    last.trim_start_matches("error: ").to_string()
                }
                other => other.to_string(),
            };
            Err(invalid(owner, name, pattern, &reason))
        }
    }
}

fn bad_records(options: &Options, owner: &str) -> Result<Option<PathBuf>, FormatError> {
    let Some(directory) = options.get("badRecordsPath") else {
        return Ok(None);
    };
    if options.get("mode").is_some() {
        return Err(FormatError::Invalid {
            message: format!(
                "{owner} takes option \"badRecordsPath\" or \"mode\", not both: bad rows are left out and kept there"
            ),
            class: None,
        });
    }
    let absolute = std::path::absolute(local(directory)?);
    let absolute = absolute.map_err(|source| FormatError::Outside {
        what: format!("option \"badRecordsPath\" of {owner}: \"{directory}\""),
        source: Box::new(source),
    })?;
    Ok(Some(absolute))
}

fn clean(options: &Options, owner: &str) -> Result<Clean, FormatError> {
    let archive = options.get("sourceArchiveDir");
    let value = options.get("cleanSource").unwrap_or("off");
    let clean = match value.trim().to_ascii_lowercase().as_str() {
        "off" => Clean::Off,
        "delete" => Clean::Delete,
        "archive" => {
            let directory = options.required(owner, "sourceArchiveDir")?;
            let plain = local(directory)?;
            let absolute = std::path::absolute(plain).map_err(|source| FormatError::Outside {
                what: format!("option \"sourceArchiveDir\" of {owner}: \"{directory}\""),
                source: Box::new(source),
            })?;
            Clean::Archive(absolute)
        }
        _ => {
            let reason = "it is archive, delete or off";
            return Err(invalid(owner, "cleanSource", value, reason).into());
        }
    };
    match (&clean, archive) {
        (Clean::Off | Clean::Delete, Some(directory)) => {
            let reason = "it needs option \"cleanSource\" to be archive";
            Err(invalid(owner, "sourceArchiveDir", directory, reason).into())
        }
        _ => Ok(clean),
    }
}

fn patterns(options: &Options, owner: &str) -> Result<Option<Vec<Pattern>>, OptionError> {
    let name = "pathGlobFilter";
    let Some(value) = options.get(name) else {
        return Ok(None);
    };
    let parsed = spell_out(value)
        .iter()
        .map(|pattern| Pattern::new(pattern))
        .collect::<Result<Vec<_>, _>>();
    match parsed {
        Ok(patterns) => Ok(Some(patterns)),
        Err(error) => Err(invalid(owner, name, value, error.msg)),
    }
}

fn instant(
    options: &Options,
    owner: &str,
    name: &str,
    time_zone: &str,
) -> Result<Option<i64>, OptionError> {
    let Some(value) = options.get(name) else {
        return Ok(None);
    };
    let zone = Zone::parse(time_zone).unwrap_or(Zone::UTC);
    match parse_timestamp(value.as_bytes(), &zone) {
        Some(us) => Ok(Some(us)),
        None => Err(invalid(
            owner,
            name,
            value,
            "it is a timestamp like \"2024-01-05T10:00:00\"",
        )),
    }
}
