//! Finds the schema of a batch read that was given none, by looking into files.
//!
//! The first file tells it, unless what is looked for needs all of them.

use std::fs::File;

use arrow::datatypes::Schema;
use highwater_engine::source::FormatError;

use super::blocks::{self, Blocks, Shape, TextRules};
use super::error::FileError;
use super::fit::merged;
use super::listing::Lister;
use super::options::FileOptions;
use super::split::FileSplit;
use super::{Format, avro, orc, parquet};
use highwater_text::csv::CsvInference;
use highwater_text::json::{JsonError, JsonInference};
use highwater_text::lines::LineEnd;

/// What is known from the files so far.
pub(super) enum Looking<'a> {
    Rows(Box<CsvInference>),
    Json(Box<JsonInference>),
    /// Files that know their columns.
    Columns {
        format: &'a Format,
        /// All files are asked, not the first one only.
        merges: bool,
        known: Option<Schema>,
    },
}

impl<'a> Looking<'a> {
    pub(super) fn new(format: &'a Format, merges: bool) -> Self {
        match format {
            Format::Csv(options) => Looking::Rows(Box::new(CsvInference::new(options.clone()))),
            Format::Json(options) => Looking::Json(Box::new(JsonInference::new(options.clone()))),
            Format::Text | Format::Parquet | Format::Orc | Format::Avro => Looking::Columns {
                format,
                merges,
                known: None,
            },
        }
    }

    /// The schema that the files at `path` tell.
    pub(super) fn look_into(
        mut self,
        path: &str,
        options: &FileOptions,
        rules: &TextRules,
    ) -> Result<Schema, FormatError> {
        let skips = options.ignore_corrupt || options.bad_records.is_some();
        let unknown = |why: String| FormatError::Invalid {
            message: format!(
                "could not tell the schema of \"{path}\": {why}; give one with .schema(\"name TYPE, ...\") or, in SQL, as \
                 columns of the table"
            ),
            class: Some("UNABLE_TO_INFER_SCHEMA"),
        };
        let found = Lister::new(path, options)?.list_all()?;
        let files = found.len();
        for found in found {
            let split = &FileSplit::of(&found, false)[0];
            let file = match blocks::open(split, options.ignore_missing) {
                Ok(Some(file)) => file,
                Ok(None) => continue,
                Err(FileError::Vanished { path: file }) => {
                    return Err(unknown(format!(
                        "its file \"{file}\" is gone, which the log of the query that wrote it names; put it back, or pass \
                         over it with option \"ignoreMissingFiles\""
                    )));
                }
                Err(error) => return Err(error.into()),
            };
            match self.look_at(file, split, rules) {
                Ok(true) => break,
                Ok(false) => {}
                // Reading will pass over it too, and tell of it.
                Err(error) if skips && error.is_corruption() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let schema = match self {
            Looking::Rows(inference) => inference.schema(),
            Looking::Json(inference) => inference.schema(),
            Looking::Columns { known, .. } => known,
        };
        schema.ok_or_else(|| {
            unknown(match files {
                0 => "there is no file to read in it".into(),
                1 => "the file there has no rows, or is gone".into(),
                files => format!("none of its {files} files has rows, or they are gone"),
            })
        })
    }

    /// Looks at a file, and answers whether that was enough.
    fn look_at(
        &mut self,
        file: File,
        split: &FileSplit,
        rules: &TextRules,
    ) -> Result<bool, FileError> {
        match self {
            // An empty file has no rows, whatever it should have begun with.
            Looking::Columns { .. } if split.size == 0 => Ok(false),
            Looking::Columns {
                format,
                merges,
                known,
            } => {
                let found = match format {
                    Format::Orc => orc::schema_of(file, &split.path)?,
                    Format::Avro => avro::schema_of(file, split)?,
                    _ => parquet::schema_of(file, &split.path)?,
                };
                *known = Some(match known.take() {
                    None => found,
                    Some(known) => merged(&known, &found, &split.path)?,
                });
                Ok(!*merges)
            }
            Looking::Rows(inference) => {
                let mut blocks = Blocks::new(file, split, rules)?;
                inference.begin_file();
                while !inference.knows_enough() && !blocks.lines()?.is_empty() {
                    let (text, last) = blocks.at_hand();
                    match inference.look_at(text, last) {
                        0 => blocks.more()?,
                        taken => blocks.consume(taken),
                    }
                }
                Ok(inference.knows_enough())
            }
            Looking::Json(inference) => {
                let mut blocks = Blocks::new(file, split, rules)?;
                loop {
                    let lines = blocks.lines()?;
                    if lines.is_empty() {
                        return Ok(false);
                    }
                    let bytes = lines.len();
                    let looked = look_at_json(inference, lines, &rules.shape);
                    looked.map_err(|source| FileError::Json {
                        path: split.path.clone(),
                        place: split.place(),
                        source,
                    })?;
                    blocks.consume(bytes);
                }
            }
        }
    }
}

fn look_at_json(
    inference: &mut JsonInference,
    lines: &[u8],
    shape: &Shape,
) -> Result<(), JsonError> {
    match shape {
        Shape::Lines(LineEnd::Any) => inference.look_at(lines),
        Shape::Lines(end) => {
            let mut lines = end.lines(lines);
            lines.try_for_each(|line| inference.look_at_text(line))
        }
        Shape::Records | Shape::Whole => inference.look_at_text(lines),
    }
}
