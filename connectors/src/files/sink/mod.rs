//! Files as sinks: text, JSON lines, CSV, Parquet and ORC, appended to a directory.
//!
//! Commit: by a line in a log, then by renaming; idempotent by the epochs in the log. See `commit`.
//!
//! What a run of a query stages waits in `_highwater_staged/<query>/<generation>/` below the output directory, on the same
//! file system; the query's log is in `_highwater_log/<query>/`. Several queries may write into one directory.

mod batch;
mod commit;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod directory_tests;
mod encode;
mod encoding;
mod error;
mod lines;
mod spill;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use highwater_engine::sink::{
    OutputMode, Placement, SaveMode, Sink, SinkError, SinkFactory, SinkFormat, SinkRequest,
    SinkWriter,
};
use highwater_engine::source::FormatError;
use highwater_text::options::{OptionError, Options};
use highwater_text::type_name::type_sql;
use orc_rust::compression::CompressionType as OrcCompression;
use parquet::basic::Compression;

use encoding::OutEncoding;
pub use error::FileSinkError;
use lines::LineStyle;

use super::nullable;
use commit::FileSink;
pub use commit::check_output;
use highwater_text::csv::{CSV_WRITE_KNOWN, CsvStyle};
use highwater_text::options::{duration_us, invalid, positive};
use highwater_text::time::Zone;
use highwater_text::times::zone_of;
use writer::FileWriter;

/// What the files hold.
#[derive(Debug, Clone)]
enum OutFormat {
    Parquet(Compression),
    Orc(Option<OrcCompression>),
    Json {
        gzip: bool,
        lines: LineStyle,
    },
    Text {
        gzip: bool,
        lines: LineStyle,
    },
    Csv {
        gzip: bool,
        lines: LineStyle,
        style: CsvStyle,
    },
}

impl OutFormat {
    fn encoding(&self) -> OutEncoding {
        match self {
            OutFormat::Json { lines, .. }
            | OutFormat::Text { lines, .. }
            | OutFormat::Csv { lines, .. } => lines.encoding,
            OutFormat::Parquet(_) | OutFormat::Orc(_) => OutEncoding::Utf8,
        }
    }
}

/// A sink of files, understood.
#[derive(Debug, Clone)]
struct SinkConfig {
    connector: &'static str,
    path: String,
    directory: PathBuf,
    format: OutFormat,
    /// How names of files end, dot included.
    ending: String,
    /// The query's id, as a part of names.
    query: String,
    /// Of the run: what it stages is in a directory of its own.
    generation: u64,
    zone: Zone,
    /// Columns that become directories.
    partitions: Vec<usize>,
    /// The others, which are in the files.
    data_columns: Vec<usize>,
    data_schema: SchemaRef,
    /// Runs that are older are forgotten: readers that honour the log see them no more.
    retention_us: Option<i64>,
    /// No file has more rows.
    file_rows_max: Option<u64>,
}

/// The formats of files that can be written, by name.
pub fn sinks() -> Vec<(&'static str, Arc<dyn SinkFormat>)> {
    ["text", "json", "csv", "parquet", "orc"]
        .into_iter()
        .map(|name| (name, Arc::new(FileFormat { name }) as Arc<dyn SinkFormat>))
        .collect()
}

struct FileFormat {
    name: &'static str,
}

const NOT_BUILT: &[&str] = &["mergeSchema", "datetimeRebaseMode"];

fn refuse<T>(message: String) -> Result<T, FormatError> {
    Err(FormatError::Invalid {
        message,
        class: None,
    })
}

/// Refuses a name that is there twice.
fn twice(
    owner: &str,
    what: &str,
    names: &[&String],
    same: impl Fn(&str, &str) -> bool,
) -> Result<(), FormatError> {
    for (at, name) in names.iter().enumerate() {
        if names[..at].iter().any(|other| same(other, name)) {
            return Err(FormatError::Invalid {
                class: Some("COLUMN_ALREADY_EXISTS"),
                message: format!(
                    "{owner} cannot write column \"{name}\" twice: {what} are {names:?}; name each once"
                ),
            });
        }
    }
    Ok(())
}

impl FileFormat {
    /// What the files hold, and how their names end.
    fn format(
        &self,
        owner: &str,
        options: &Options,
        time_zone: &str,
    ) -> Result<(OutFormat, String), FormatError> {
        let codec = options.get("compression").map(str::to_ascii_lowercase);
        let refused = |codec: &str, reason: &str| invalid(owner, "compression", codec, reason);
        if self.name == "parquet" {
            let (compression, ending) = match codec.as_deref() {
                None | Some("snappy") => (Compression::SNAPPY, ".snappy"),
                Some("none" | "uncompressed") => (Compression::UNCOMPRESSED, ""),
                Some("gzip") => (Compression::GZIP(Default::default()), ".gz"),
                Some("zstd") => (Compression::ZSTD(Default::default()), ".zstd"),
                Some("lz4" | "lz4_raw") => (Compression::LZ4_RAW, ".lz4raw"),
                Some(codec) => {
                    let reason = "it is snappy, gzip, zstd, lz4_raw or none";
                    return Err(refused(codec, reason).into());
                }
            };
            return Ok((OutFormat::Parquet(compression), format!("{ending}.parquet")));
        }
        if self.name == "orc" {
            let (compression, ending) = match codec.as_deref() {
                None | Some("zstd") => (Some(OrcCompression::Zstd), ".zstd"),
                Some("snappy") => (Some(OrcCompression::Snappy), ".snappy"),
                Some("zlib") => (Some(OrcCompression::Zlib), ".zlib"),
                Some("lz4") => (Some(OrcCompression::Lz4), ".lz4"),
                Some("none" | "uncompressed") => (None, ""),
                Some(codec) => {
                    let reason = "it is zstd, snappy, zlib, lz4 or none";
                    return Err(refused(codec, reason).into());
                }
            };
            return Ok((OutFormat::Orc(compression), format!("{ending}.orc")));
        }
        let lines = LineStyle::parse(self.name, owner, options, time_zone)?;
        let gzip = match codec.as_deref() {
            None | Some("none" | "uncompressed") => false,
            Some("gzip") => true,
            Some(codec) => return Err(refused(codec, "it is gzip or none").into()),
        };
        let (format, ending) = match self.name {
            "json" => (OutFormat::Json { gzip, lines }, ".json".into()),
            "csv" => {
                let style = CsvStyle::parse(owner, options)?;
                let csv = OutFormat::Csv { gzip, lines, style };
                (csv, format!(".{}", extension(owner, options)?))
            }
            _ => (OutFormat::Text { gzip, lines }, ".txt".into()),
        };
        Ok((format, format!("{ending}{}", if gzip { ".gz" } else { "" })))
    }

    fn check_schema(&self, owner: &str, schema: &Schema) -> Result<(), FormatError> {
        if self.name == "text" && schema.fields().len() != 1 {
            return refuse(format!(
                "{owner} writes one column of type STRING; the query has {} columns: select one and cast it",
                schema.fields().len()
            ));
        }
        if self.name == "text" && schema.field(0).data_type() != &DataType::Utf8 {
            let column = schema.field(0);
            return refuse(format!(
                "{owner} writes one column of type STRING; column \"{}\" is of type {}: cast it",
                column.name(),
                type_sql(column.data_type())
            ));
        }
        if schema.fields().is_empty() {
            return refuse(format!(
                "{owner} needs at least one column that is in the files"
            ));
        }
        for field in schema.fields() {
            let data_type = field.data_type();
            let writable = match self.name {
                "csv" => !data_type.is_nested(),
                "parquet" => data_type != &DataType::Null,
                "orc" => encode::orc_writes(data_type),
                _ => true,
            };
            if !writable {
                return Err(FormatError::Invalid {
                    message: format!(
                        "{owner} cannot write column \"{}\" of type {}: cast it to a string",
                        field.name(),
                        type_sql(data_type)
                    ),
                    class: Some("UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE"),
                });
            }
        }
        Ok(())
    }
}

/// How names of CSV files end.
fn extension<'a>(owner: &str, options: &'a Options) -> Result<&'a str, OptionError> {
    let name = "extension";
    let Some(value) = options.get(name) else {
        return Ok("csv");
    };
    let letters = value.chars().all(char::is_alphabetic);
    let fits = (letters || value.chars().count() == 3) && !value.contains(['/', '\\', '\0']);
    match fits {
        true => Ok(value),
        false => Err(invalid(
            owner,
            name,
            value,
            "it is letters only, or three characters",
        )),
    }
}

impl SinkFormat for FileFormat {
    fn sink(&self, request: SinkRequest) -> Result<Arc<dyn SinkFactory>, FormatError> {
        let owner = format!("the {} sink", self.name);
        let mut known = vec!["path", "compression", "timeZone", "maxRecordsPerFile"];
        if request.streaming {
            known.push("retention");
        }
        if self.name == "csv" {
            known.extend(CSV_WRITE_KNOWN);
        }
        known.extend(LineStyle::known(self.name));
        request.options.only(&owner, &known, NOT_BUILT)?;
        if !matches!(request.mode, OutputMode::Append | OutputMode::Changes) {
            return refuse(format!(
                "data source {} does not support {} output mode; it appends, and what it wrote stays",
                self.name, request.mode
            ));
        }
        let path = match &request.path {
            Some(path) => path.clone(),
            None => request.options.required(&owner, "path")?.to_string(),
        };
        let plain = path
            .strip_prefix("file://")
            .or(path.strip_prefix("file:"))
            .unwrap_or(&path);
        if let Some((scheme, _)) = plain.split_once("://") {
            return refuse(format!(
                "output path \"{path}\": file system \"{scheme}\" is not supported yet, only local paths are"
            ));
        }
        let directory = std::path::absolute(plain).map_err(|source| FormatError::Outside {
            what: format!("output path \"{path}\""),
            source: Box::new(source),
        })?;
        if directory.is_file() {
            return refuse(FileSinkError::NotADirectory { path }.to_string());
        }
        let retention_us = duration_us(&request.options, &owner, "retention")?;
        if let (Some(value), Some(us)) = (request.options.get("retention"), retention_us)
            && us <= 0
        {
            return Err(invalid(&owner, "retention", value, "it is a positive time").into());
        }
        let (zone, name) = zone_of(&owner, &request.options, &request.time_zone)?;
        let (format, ending) = self.format(&owner, &request.options, name)?;
        let same = |a: &str, b: &str| match request.case_sensitive {
            true => a == b,
            false => a.to_lowercase() == b.to_lowercase(),
        };
        let names = request.schema.fields().iter().map(|field| field.name());
        let names: Vec<&String> = names.collect();
        twice(&owner, "the query's columns", &names, same)?;
        let by: Vec<&String> = request.partition_by.iter().collect();
        twice(&owner, "the columns to partition by", &by, same)?;
        let mut partitions = Vec::new();
        for name in &request.partition_by {
            match names.iter().position(|known| same(known, name)).ok_or(()) {
                Ok(at) if request.schema.field(at).data_type().is_nested() => {
                    return refuse(format!(
                        "{owner} cannot partition by column \"{name}\": it is nested"
                    ));
                }
                Ok(at) => partitions.push(at),
                Err(_) => {
                    return refuse(format!(
                        "{owner} cannot partition by column \"{name}\": there is none"
                    ));
                }
            }
        }
        let columns = 0..request.schema.fields().len();
        let data_columns: Vec<usize> = columns.filter(|at| !partitions.contains(at)).collect();
        let data_schema = request.schema.project(&data_columns);
        let data_schema = nullable(&data_schema.expect("these are its columns"));
        self.check_schema(&owner, &data_schema)?;
        let column = |field: &FieldRef| format!("{} {}", field.name(), field.data_type());
        let columns: Vec<String> = request.schema.fields().iter().map(column).collect();
        let partitioned: Vec<&str> = partitions.iter().map(|at| names[*at].as_str()).collect();
        let partitioning = match partitioned.as_slice() {
            [] => "none".into(),
            names => format!("by {}", names.join(", ")),
        };
        Ok(Arc::new(FileSinkFactory {
            columns: columns.join(", "),
            partitioning,
            config: Arc::new(SinkConfig {
                connector: self.name,
                path,
                directory,
                format,
                ending,
                query: in_a_name(&request.query_id),
                generation: 0,
                zone,
                partitions,
                data_columns,
                data_schema,
                retention_us,
                file_rows_max: positive(&request.options, &owner, "maxRecordsPerFile")?,
            }),
        }))
    }
}

/// A query's id as a part of file names: nothing that means something in a path.
fn in_a_name(query_id: &str) -> String {
    query_id.replace(
        |c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_',
        "_",
    )
}

struct FileSinkFactory {
    config: Arc<SinkConfig>,
    /// All columns with their types, in words.
    columns: String,
    /// The columns that become directories, in words.
    partitioning: String,
}

impl SinkFactory for FileSinkFactory {
    fn fixed(&self) -> Vec<(&'static str, String)> {
        let config = &self.config;
        vec![
            ("kind", config.connector.into()),
            ("path", config.directory.display().to_string()),
            ("columns", self.columns.clone()),
            ("partitioning", self.partitioning.clone()),
        ]
    }

    fn placement(&self) -> Placement {
        Placement::EveryWorker
    }

    fn groups_epochs(&self) -> bool {
        true
    }

    fn directory(&self) -> Option<&Path> {
        Some(&self.config.directory)
    }

    fn open_batch(&self, mode: Option<SaveMode>) -> Result<Option<Box<dyn Sink>>, SinkError> {
        batch::open(Arc::clone(&self.config), mode)
            .map_err(|error| error.of_sink(self.config.connector))
    }

    fn open(&self, generation: u64) -> Result<Box<dyn Sink>, SinkError> {
        let config = SinkConfig {
            generation,
            ..self.config.as_ref().clone()
        };
        match FileSink::open(Arc::new(config)) {
            Ok(sink) => Ok(Box::new(sink)),
            Err(error) => Err(error.of_sink(self.config.connector)),
        }
    }

    fn writer(
        &self,
        worker: usize,
        query_id: &str,
        generation: u64,
    ) -> Result<Box<dyn SinkWriter>, SinkError> {
        // In another process than the coordinator's, the request was made with an id of that process's own.
        let config = SinkConfig {
            query: in_a_name(query_id),
            generation,
            ..self.config.as_ref().clone()
        };
        Ok(Box::new(FileWriter::new(Arc::new(config), worker)))
    }
}
