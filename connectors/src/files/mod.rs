//! Files in a directory: text, JSON lines, CSV, Parquet, ORC and Avro, as streams and as batches.
//!
//! Split: a file, or a range of a long one. Offset: how many files were admitted. Replayable: as long as files that
//! are there do not change; one that shrinks or goes is an error, what is appended later is not read.
//!
//! Sinks commit by a log and by renaming: see `sink`. A directory that has such a log is read by it: see `committed`.

mod avro;
mod bad;
mod blocks;
mod cleaner;
mod codec;
mod committed;
mod csv;
mod encoding;
mod error;
mod fit;
mod fresh;
mod listing;
mod log;
mod looking;
mod options;
mod orc;
mod parquet;
mod partition;
mod places;
mod reader;
mod seen;
mod sink;
mod source;
mod split;
#[cfg(test)]
mod tests;
mod text;

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use highwater_engine::source::{
    FormatError, Reader, Source, SourceError, SourceFactory, SourceFormat, SourceRequest,
};
use highwater_text::options::Options;
use highwater_text::type_name::type_sql;

pub use avro::AvroError;
pub use cleaner::Clean;
pub use committed::{is_sink_directory, is_within_sink_directory};
pub use error::FileError;
pub use options::FileOptions;
pub use sink::{FileSinkError, check_output, sinks};
pub use source::FileSource;

use blocks::TextRules;
use highwater_text::csv::{self as cells, CsvOptions};
use highwater_text::json::{self, JsonDecoder, JsonOptions};
use highwater_text::mode::ParseMode;
use highwater_text::options::{flag, invalid};
use highwater_text::time::Zone;
use highwater_text::times::{self, ReadTimes, zone_of};
use listing::{Directory, Lister};
use looking::Looking;
use places::Places;
use reader::FileReader;
use split::FileSplit;

/// What the files hold.
#[derive(Debug, Clone)]
enum Format {
    Text,
    Json(JsonOptions),
    Csv(CsvOptions),
    Parquet,
    Orc,
    Avro,
}

/// A source of files, understood.
#[derive(Debug)]
struct FileConfig {
    connector: &'static str,
    path: String,
    options: FileOptions,
    format: Format,
    rules: TextRules,
    schema: SchemaRef,
    streaming: bool,
    zone: Zone,
}

/// The formats of files that can be read, by name.
pub fn sources() -> Vec<(&'static str, Arc<dyn SourceFormat>)> {
    ["text", "json", "csv", "parquet", "orc", "avro"]
        .into_iter()
        .map(|name| (name, Arc::new(FileFormat { name }) as Arc<dyn SourceFormat>))
        .collect()
}

/// One of the formats.
struct FileFormat {
    name: &'static str,
}

const TEXT_NOT_BUILT: &[&str] = &[];

const AVRO_NOT_BUILT: &[&str] = &[
    "avroSchema",
    "avroSchemaUrl",
    "recordName",
    "recordNamespace",
    "ignoreExtension",
    "mode",
    "datetimeRebaseMode",
    "positionalFieldMatching",
    "enableStableIdentifiersForUnionType",
    "stableIdentifierPrefixForUnionType",
    "recursiveFieldMaxDepth",
];

/// Options of which only the values that say what we do anyway are built.
const FIXED: &[(&str, &[&str])] = &[
    // Whether a row is malformed is judged by all columns.
    ("columnPruning", &["false"]),
    ("datetimeRebaseMode", &["corrected"]),
    ("int96RebaseMode", &["corrected"]),
    ("locale", &["en-us", "en_us"]),
];

impl FileFormat {
    fn owner(&self, streaming: bool) -> String {
        match streaming {
            true => format!("the {} stream", self.name),
            false => format!("the {} reader", self.name),
        }
    }

    fn check_options(&self, owner: &str, options: &Options) -> Result<(), FormatError> {
        for (name, reason) in options::REFUSED {
            if options.get(name).is_some() {
                return Err(FormatError::Invalid {
                    message: format!("option \"{name}\" of {owner} is not supported: {reason}"),
                    class: None,
                });
            }
        }
        let (known, not_built): (&[&str], &[&str]) = match self.name {
            "json" => (json::KNOWN, json::NOT_BUILT),
            "csv" => (cells::KNOWN, cells::NOT_BUILT),
            "parquet" => (&["mergeSchema"], &[]),
            "orc" => (&["mergeSchema", "timeZone"], &[]),
            "avro" => (&[], AVRO_NOT_BUILT),
            _ => (&[], TEXT_NOT_BUILT),
        };
        let mut known = [options::KNOWN, known].concat();
        let fixed: &[&str] = match self.name {
            "json" => &["locale"],
            "csv" => &["locale", "columnPruning"],
            "parquet" => &["datetimeRebaseMode", "int96RebaseMode"],
            _ => &[],
        };
        known.extend(match self.name {
            "text" => &["wholetext", "lineSep", "encoding"][..],
            "json" | "csv" => &["multiLine", "lineSep", "encoding", "charset"],
            _ => &[],
        });
        if matches!(self.name, "json" | "csv") {
            known.extend(times::KNOWN);
        }
        known.extend(fixed);
        options.only(owner, &known, not_built)?;
        for name in fixed {
            let Some(value) = options.get(name) else {
                continue;
            };
            let built = FIXED
                .iter()
                .find(|(fixed, _)| fixed == name)
                .expect("every fixed option is in the table")
                .1;
            // Where no row is dropped and none fails, it makes no difference.
            let permissive = |mode: &str| mode.trim().eq_ignore_ascii_case("permissive");
            if *name == "columnPruning"
                && value.eq_ignore_ascii_case("true")
                && options.get("mode").is_none_or(permissive)
                && options.get("badRecordsPath").is_none()
            {
                continue;
            }
            if !built.contains(&value.to_ascii_lowercase().as_str()) {
                let reason = format!("only \"{}\" is supported yet", built[0].escape_default());
                return Err(invalid(owner, name, value, &reason).into());
            }
        }
        Ok(())
    }

    fn format(
        &self,
        owner: &str,
        options: &Options,
        zone: Zone,
        zone_name: &str,
    ) -> Result<Format, FormatError> {
        let times = || ReadTimes::parse(owner, options, zone, zone_name);
        Ok(match self.name {
            "json" => Format::Json(JsonOptions::parse(owner, options, times()?)?),
            "csv" => Format::Csv(CsvOptions::parse(owner, options, times()?)?),
            "parquet" => Format::Parquet,
            "orc" => Format::Orc,
            "avro" => Format::Avro,
            _ => Format::Text,
        })
    }
}

/// Lines are one column, of strings. The schema may have others if directories tell them.
fn check_text(
    owner: &str,
    schema: &Schema,
    directories: &[Arc<Directory>],
) -> Result<(), FormatError> {
    let in_lines = |field: &&FieldRef| !partition::tells(directories, field.name());
    let fields: Vec<&FieldRef> = schema.fields().iter().filter(in_lines).collect();
    let (message, class) = match fields.as_slice() {
        [] => return Ok(()),
        [line] if line.data_type() == &DataType::Utf8 => return Ok(()),
        [line] => (
            format!(
                "{owner} reads lines as one column of type STRING; column \"{}\" is of type {}",
                line.name(),
                type_sql(line.data_type())
            ),
            Some("UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE"),
        ),
        several => {
            let names: Vec<&str> = several.iter().map(|field| field.name().as_str()).collect();
            let message = format!(
                "{owner} reads lines as one column of type STRING; the schema has {} that no directory tells: \"{}\"",
                names.len(),
                names.join("\", \"")
            );
            (message, None)
        }
    };
    Err(FormatError::Invalid { message, class })
}

/// Files promise nothing about nulls.
fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema
        .fields()
        .iter()
        .map(|field| match field.is_nullable() {
            true => Arc::clone(field),
            false => Arc::new(field.as_ref().clone().with_nullable(true)),
        });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

impl SourceFormat for FileFormat {
    fn source(&self, request: SourceRequest) -> Result<Arc<dyn SourceFactory>, FormatError> {
        let owner = self.owner(request.streaming);
        self.check_options(&owner, &request.options)?;
        let path = match &request.path {
            Some(path) => path.clone(),
            None => request.options.required(&owner, "path")?.to_string(),
        };
        let options = FileOptions::parse(&owner, &request)?;
        let (zone, name) = zone_of(&owner, &request.options, &request.time_zone)?;
        let rules = TextRules::parse(&owner, self.name, &request.options)?;
        let format = match self.format(&owner, &request.options, zone, name)? {
            Format::Csv(csv) => Format::Csv(csv::shaped(
                csv,
                &rules.shape,
                options.bad_records.is_some(),
            )),
            // Bad rows are told by the errors of this mode.
            Format::Json(json) if options.bad_records.is_some() => Format::Json(JsonOptions {
                mode: ParseMode::FailFast,
                ..json
            }),
            other => other,
        };
        // Told before the schema is: a wrong path is the likelier mistake.
        let mut lister = Lister::new(&path, &options)?;
        if request.streaming {
            cleaner::check(&options.clean, &path, &lister)?;
        }
        if let Some(directory) = &options.bad_records
            && lister.meets(directory)
        {
            let (name, value) = ("badRecordsPath", directory.display().to_string());
            let reason = "it lies where files are read from";
            return Err(invalid(&owner, name, &value, reason).into());
        }
        let directories = lister.directories()?;
        let schema = match (&request.schema, &format) {
            (Some(schema), Format::Text) => {
                check_text(&owner, schema, &directories)?;
                nullable(schema)
            }
            (Some(schema), _) => nullable(schema),
            (None, Format::Text) => {
                Arc::new(Schema::new(vec![Field::new("value", DataType::Utf8, true)]))
            }
            (None, _) if request.streaming => {
                return Err(FormatError::Invalid {
                    message: format!(
                        "schema must be specified when creating a streaming source: {owner} on \"{path}\" has none; \
                         give one with .schema(\"name TYPE, ...\")"
                    ),
                    class: Some("_LEGACY_ERROR_TEMP_2048"),
                });
            }
            (None, format) => {
                let merges = flag(&request.options, &owner, "mergeSchema")?;
                let looking = Looking::new(format, merges);
                nullable(&looking.look_into(&path, &options, &rules)?)
            }
        };
        // Columns that directories tell come behind; a stream knows those that are there when it is described.
        let data_schema = schema;
        let schema = partition::with_columns(&data_schema, request.schema.is_some(), &directories)?;
        // Types that the format cannot hold are told now, not when the first file comes.
        let all: Vec<usize> = (0..data_schema.fields().len()).collect();
        let probe = FileSplit::probe(&path);
        match &format {
            Format::Json(options) => {
                JsonDecoder::new(&data_schema, &all, options.clone()).map_err(|error| {
                    FormatError::Invalid {
                        message: error.to_string(),
                        class: None,
                    }
                })?;
            }
            Format::Csv(options) => {
                csv::CsvDecoder::new(&data_schema, &all, options.clone(), &probe)?;
            }
            Format::Text | Format::Parquet | Format::Orc | Format::Avro => {}
        }
        Ok(Arc::new(FileFactory {
            places: lister.places(),
            config: Arc::new(FileConfig {
                connector: self.name,
                path,
                options,
                format,
                rules,
                schema,
                streaming: request.streaming,
                zone,
            }),
        }))
    }
}

struct FileFactory {
    config: Arc<FileConfig>,
    places: Places,
}

impl SourceFactory for FileFactory {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.config.schema)
    }

    fn open(&self) -> Result<Box<dyn Source>, SourceError> {
        match FileSource::open(Arc::clone(&self.config)) {
            Ok(source) => Ok(Box::new(source)),
            Err(error) => Err(error.of_source(self.config.connector)),
        }
    }

    fn meets(&self, directory: &Path) -> bool {
        self.places.meets(directory)
    }

    fn holds(&self, directory: &Path, names: &[&str]) -> bool {
        self.places.holds(directory, names)
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(FileReader {
            config: Arc::clone(&self.config),
        })
    }
}
