//! What can go wrong with files.

use std::io;

use highwater_engine::source::{FormatError, Retry, SourceError};

use super::avro::AvroError;
use highwater_text::json::JsonError;

/// What can go wrong with files.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Nothing is at the path.
    #[error("path \"{path}\" does not exist")]
    Missing {
        /// The path.
        path: String,
    },
    /// No file matches the pattern.
    #[error("no file matches \"{pattern}\"")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// The pattern is none.
    #[error("path \"{pattern}\" is no pattern: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// A file or directory cannot be read.
    #[error("could not read \"{path}\"")]
    Read {
        /// The path.
        path: String,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// A name cannot be written down.
    #[error("the name of file \"{path}\" is not UTF-8")]
    Name {
        /// The path, as far as it can be shown.
        path: String,
    },
    /// The name of a directory is no value of its column.
    #[error(
        "file \"{path}\" is in a directory that says {column}={value}, which is no {data_type}"
    )]
    PartitionValue {
        /// The file.
        path: String,
        /// The column.
        column: String,
        /// Its value, as the directory has it.
        value: String,
        /// Its type in the schema.
        data_type: String,
    },
    /// What was asked for is neither a file nor a directory.
    #[error("\"{path}\" is neither a file nor a directory")]
    NotAFile {
        /// The path.
        path: String,
    },
    /// A directory stands where a file was planned.
    #[error("\"{path}\" was planned as a file and is a directory now")]
    IsDirectory {
        /// The path.
        path: String,
    },
    /// Files that were read cannot be cleaned.
    #[error("option \"cleanSource\" cannot be used on \"{path}\": {reason}")]
    Clean {
        /// What is read.
        path: String,
        /// Why not.
        reason: String,
    },
    /// Another file is in the place of a planned one.
    #[error(
        "file \"{path}\" was replaced by another one since the epoch that reads it was planned ({was} bytes then, {now} now); put the planned one back, or skip it with option \"ignoreMissingFiles\""
    )]
    Replaced {
        /// The file.
        path: String,
        /// Its size when it was planned.
        was: u64,
        /// Its size now.
        now: u64,
    },
    /// A planned file is gone.
    #[error(
        "file \"{path}\" is gone since the epoch that reads it was planned; put it back, or skip it with option \"ignoreMissingFiles\""
    )]
    Vanished {
        /// The file.
        path: String,
    },
    /// A planned file was cut.
    #[error(
        "file \"{path}\" shrank from {was} to {now} bytes since the epoch that reads it was planned; put the planned one back, or, if it is to be read as it is, give it another name, by which it is new, and let option \"ignoreMissingFiles\" skip the planned one"
    )]
    Shrank {
        /// The file.
        path: String,
        /// Its size when it was planned.
        was: u64,
        /// Its size now.
        now: u64,
    },
    /// A compressed file is damaged.
    #[error(
        "file \"{path}\" is no whole {codec} file; option \"ignoreCorruptFiles\" skips what cannot be read"
    )]
    Compressed {
        /// The file.
        path: String,
        /// What it should be.
        codec: &'static str,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// A file is compressed in a way that is not built.
    #[error(
        "file \"{path}\" is compressed as \"{codec}\", which is not supported yet; gzip, zstd, bzip2, deflate, lz4 and snappy are"
    )]
    Codec {
        /// The file.
        path: String,
        /// Its ending.
        codec: String,
    },
    /// A line does not fit in memory.
    #[error("file \"{path}\" has a row of more than {bytes_max} bytes")]
    LineTooLong {
        /// The file.
        path: String,
        /// What fits.
        bytes_max: usize,
    },
    /// A JSON file cannot be decoded.
    #[error("file \"{path}\"{place}")]
    Json {
        /// The file.
        path: String,
        /// Which part of it, if not from the start.
        place: String,
        /// What the decoder says.
        #[source]
        source: JsonError,
    },
    /// A CSV file cannot be decoded.
    #[error("file \"{path}\"{place}: line {line} is malformed: {reason}")]
    Csv {
        /// The file.
        path: String,
        /// Which part of it, if not from the start.
        place: String,
        /// Counted from 1 within that part.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The header of a CSV file names other columns than the schema, and `enforceSchema` is off.
    #[error("the header of file \"{path}\" is \"{found}\", the schema says \"{wanted}\"")]
    Header {
        /// The file.
        path: String,
        /// Its header.
        found: String,
        /// The columns of the schema.
        wanted: String,
    },
    /// What could not be read cannot be written down either.
    #[error("could not write to \"{path}\", which option \"badRecordsPath\" says")]
    BadRecords {
        /// The directory.
        path: String,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// A column of the schema is not what the format can hold.
    #[error("column \"{column}\" of type {data_type} cannot be read from {format}")]
    Type {
        /// The column.
        column: String,
        /// Its type.
        data_type: String,
        /// The format.
        format: &'static str,
    },
    /// A Parquet file cannot be read.
    #[error(
        "file \"{path}\" is no readable Parquet file; option \"ignoreCorruptFiles\" skips what cannot be read"
    )]
    Parquet {
        /// The file.
        path: String,
        /// How it failed.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// An ORC file cannot be read.
    #[error(
        "file \"{path}\" is no readable ORC file: {reason}; option \"ignoreCorruptFiles\" skips what cannot be read"
    )]
    Orc {
        /// The file.
        path: String,
        /// How it failed.
        reason: String,
    },
    /// An Avro file cannot be read.
    #[error(
        "file \"{path}\" is no readable Avro file; option \"ignoreCorruptFiles\" skips what cannot be read"
    )]
    Avro {
        /// The file.
        path: String,
        /// How it failed.
        #[source]
        source: AvroError,
    },
    /// A file was written in a time zone that is none.
    #[error("file \"{path}\" was written in time zone \"{name}\", which is unknown")]
    TimeZone {
        /// The file.
        path: String,
        /// What it calls the time zone.
        name: String,
    },
    /// A column of a file has a type that the schema's does not include.
    #[error("column \"{column}\" of file \"{path}\" is {found}, which cannot be read as {wanted}")]
    ColumnType {
        /// The file.
        path: String,
        /// The column.
        column: String,
        /// Its type in the file.
        found: String,
        /// Its type in the schema.
        wanted: String,
    },
    /// A column has types that have no common one.
    #[error(
        "column \"{column}\" of file \"{path}\" is {found}, and {known} in files before it: option \"mergeSchema\" finds no \
         type for both; give a schema with .schema(\"name TYPE, ...\")"
    )]
    CannotMerge {
        /// The file.
        path: String,
        /// The column.
        column: String,
        /// Its type in the files before.
        known: String,
        /// Its type in the file.
        found: String,
    },
    /// Arrow refused what was built.
    #[error("could not build columns from file \"{path}\"")]
    Arrow {
        /// The file.
        path: String,
        /// What it says.
        #[source]
        source: arrow::error::ArrowError,
    },
    /// The engine's log holds something that no file source wrote.
    #[error("\"{text}\" is no {what} of a file source")]
    NotOurs {
        /// What was found.
        text: String,
        /// What was expected.
        what: &'static str,
    },
    /// The commit log of a directory that queries write is not as they wrote it.
    #[error("commit log \"{path}\" {reason}")]
    CommitLog {
        /// The file of the log.
        path: String,
        /// What is wrong, and the fix.
        reason: String,
    },
    /// A range of the log is not known.
    #[error("files {from} to {to} were planned by an earlier run, and it left no list of them")]
    Forgotten {
        /// The first one.
        from: u64,
        /// The one after the last.
        to: u64,
    },
}

impl FileError {
    /// Damage that `ignoreCorruptFiles` looks over.
    pub(super) fn is_corruption(&self) -> bool {
        match self {
            FileError::Compressed { .. } | FileError::Parquet { .. } | FileError::Orc { .. } => {
                true
            }
            FileError::Avro { source, .. } => source.is_corruption(),
            FileError::Read { source, .. } => source.kind() == io::ErrorKind::UnexpectedEof,
            _ => false,
        }
    }

    pub(super) fn of_source(self, connector: &'static str) -> SourceError {
        let retry = match &self {
            // A network file system may come back.
            FileError::Read { .. } => Retry::Later,
            _ => Retry::Never,
        };
        SourceError {
            connector,
            retry,
            source: Box::new(self),
        }
    }
}

impl From<FileError> for FormatError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Read { path, source } => FormatError::Outside {
                what: format!("could not read \"{path}\""),
                source: Box::new(source),
            },
            FileError::Avro { path, source } => FormatError::Outside {
                what: format!("file \"{path}\" is no readable Avro file"),
                source: Box::new(source),
            },
            FileError::Parquet { path, source } => FormatError::Outside {
                what: format!(
                    "file \"{path}\" is no readable Parquet file; option \"ignoreCorruptFiles\" skips what cannot be read"
                ),
                source: Box::new(source),
            },
            other => FormatError::Invalid {
                class: match &other {
                    FileError::Missing { .. } | FileError::NoMatch { .. } => Some("PATH_NOT_FOUND"),
                    FileError::CannotMerge { .. } => Some("CANNOT_MERGE_SCHEMAS"),
                    _ => None,
                },
                message: other.to_string(),
            },
        }
    }
}
