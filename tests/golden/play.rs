//! Runs a scenario as a user would: views over directories of files, one streaming query, restarts from its checkpoint.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use datafusion::arrow::datatypes::Field;
use datafusion::arrow::record_batch::RecordBatch;
use highwater::{DataFrame, Error, OutputMode, Session, StreamingQuery, Trigger, type_text};
use serde_json::Value;

use crate::frames::frame_of;
use crate::json::cell;

/// What a step gave.
pub(crate) struct Step {
    pub(crate) rows: Vec<Value>,
    /// As the recorded answers write it; null in a query without one.
    pub(crate) watermark: Value,
    /// Rows dropped by the watermark in the step, as the progress reports tell; `None` if they tell nothing.
    pub(crate) late: Option<u64>,
    /// Rows in state after it, as the progress reports tell.
    pub(crate) state_rows: Option<u64>,
}

/// When a query was refused, or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum When {
    /// The text or the operations.
    Analysis,
    /// Starting over empty sources.
    Start,
    /// This step.
    Run(usize),
}

pub(crate) struct Ended {
    pub(crate) when: When,
    pub(crate) error: Error,
}

/// What a scenario gave.
#[derive(Default)]
pub(crate) struct Played {
    pub(crate) schema: Option<String>,
    pub(crate) steps: Vec<Step>,
    pub(crate) ended: Option<Ended>,
}

/// The rows of each epoch since somebody looked.
type Epochs = Arc<Mutex<Vec<Vec<Value>>>>;

/// Runs a scenario to its end or to its error.
pub(crate) fn play(scenario: &Value, workers: usize) -> Played {
    let dir = tempfile::tempdir().expect("a directory");
    let session = Session::with_workers(workers).expect("a session");
    let mut played = Played::default();
    let ended = |when: When| move |error: Error| Ended { when, error };
    let done = analyse(scenario, &session, dir.path())
        .map_err(ended(When::Analysis))
        .and_then(|frame| {
            played.schema = Some(schema_of(&frame));
            run(scenario, &frame, dir.path(), &mut played.steps)
        });
    played.ended = done.err();
    played
}

fn analyse(scenario: &Value, session: &Session, dir: &Path) -> Result<DataFrame, Error> {
    for (option, value) in scenario["options"].as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), Into::into);
        session.set_conf(option, &text)?;
    }
    for (name, stream) in scenario["streams"].as_object().into_iter().flatten() {
        assert_eq!(stream["format"], "json", "the format of \"{name}\"");
        let input = dir.join(name);
        fs::create_dir(&input).expect("made");
        session
            .read_stream()
            .format("json")
            .schema(stream["schema"].as_str().expect("a schema"))?
            .path(&input)
            .load()?
            .create_or_replace_temp_view(name)?;
    }
    static_views(scenario, session, dir)?;
    query(scenario, session)
}

/// Makes the static views of a scenario.
pub(crate) fn static_views(scenario: &Value, session: &Session, dir: &Path) -> Result<(), Error> {
    for (name, table) in scenario["tables"].as_object().into_iter().flatten() {
        let schema = table["schema"].as_str().expect("a schema");
        static_view(session, dir, name, schema, &lines(&table["rows"]))?;
    }
    Ok(())
}

pub(crate) fn static_view(
    session: &Session,
    dir: &Path,
    name: &str,
    schema: &str,
    lines: &str,
) -> Result<(), Error> {
    let file = dir.join(format!("{name}.json"));
    fs::write(&file, lines).expect("written");
    let reader = session.read().format("json").schema(schema)?;
    let frame = reader.path(&file).load()?;
    frame.create_or_replace_temp_view(name)
}

/// The query, over views that exist.
pub(crate) fn query(scenario: &Value, session: &Session) -> Result<DataFrame, Error> {
    for view in scenario["views"].as_array().into_iter().flatten() {
        let name = view[0].as_str().expect("a name");
        frame_of(session, &view[1])?.create_or_replace_temp_view(name)?;
    }
    let query = scenario.get("sql").or(scenario.get("ops"));
    frame_of(session, query.expect("a query"))
}

pub(crate) fn mode_of(scenario: &Value) -> OutputMode {
    match scenario["mode"].as_str() {
        Some("append") => OutputMode::Append,
        Some("update") => OutputMode::Update,
        Some("complete") => OutputMode::Complete,
        other => panic!("no mode is called {other:?}"),
    }
}

fn run(
    scenario: &Value,
    frame: &DataFrame,
    dir: &Path,
    steps: &mut Vec<Step>,
) -> Result<(), Ended> {
    let mode = mode_of(scenario);
    let drains = scenario["trigger"] == "availableNow";
    let epochs = Epochs::default();
    let start = || -> Result<StreamingQuery, Error> {
        let taken = Arc::clone(&epochs);
        let trigger = match drains {
            true => Trigger::AvailableNow,
            false => Trigger::Default,
        };
        let writer = frame
            .write_stream()
            .output_mode(mode)
            .option("checkpointLocation", dir.join(".checkpoint").display())
            .trigger(trigger);
        let writer = writer.for_each_batch(move |rows: DataFrame, _| -> Result<(), Error> {
            let rows = rows.collect()?.iter().flat_map(objects).collect();
            taken.lock().expect("no panic").push(rows);
            Ok(())
        });
        writer.start()
    };
    let begun = |error: Error| Ended {
        when: When::Start,
        error,
    };
    // Over empty sources, even where every step starts the query again: what is refused is refused now.
    let first = start().map_err(begun)?;
    match drains {
        true => first.await_termination().map_err(begun)?,
        false => first.process_all_available().map_err(begun)?,
    }
    let mut running = Some(first).filter(|_| !drains);
    let mut last = (None, Some(0));
    let mut take = |query: &StreamingQuery, reported: &mut Option<u64>| {
        let rows = std::mem::take(&mut *epochs.lock().expect("no panic"));
        let (step, next) = step_of(query, rows, mode, *reported, last);
        (*reported, last) = (
            next,
            (query.committed().watermark_ms.or(last.0), step.state_rows),
        );
        Step {
            watermark: Value::from(last.0.map(iso_text)),
            ..step
        }
    };
    let mut reported = None;
    let listed = scenario["steps"].as_array().expect("steps");
    for (number, step) in listed.iter().enumerate() {
        let failed = |error: Error| Ended {
            when: When::Run(number),
            error,
        };
        if step["restart"] == true
            && let Some(running) = running.take()
        {
            running.stop().map_err(failed)?;
        }
        // Held: what lands in several streams is seen at once.
        if let Some(query) = &running {
            query.pause();
        }
        land(step, number, dir);
        let query = match running.take() {
            Some(query) => {
                query.resume();
                query
            }
            None => start().map_err(failed)?,
        };
        match drains {
            true => query.await_termination().map_err(failed)?,
            false => query.process_all_available().map_err(failed)?,
        }
        steps.push(take(&query, &mut reported));
        running = Some(query).filter(|_| !drains);
    }
    match running {
        Some(query) => query.stop().map_err(|error| Ended {
            when: When::Run(listed.len()),
            error,
        }),
        None => Ok(()),
    }
}

/// A step's rows become one file per stream.
fn land(step: &Value, number: usize, dir: &Path) {
    for (stream, rows) in step["add"].as_object().into_iter().flatten() {
        let hidden = dir.join(stream).join(format!(".{number}.json"));
        fs::write(&hidden, lines(rows)).expect("written");
        fs::rename(&hidden, dir.join(stream).join(format!("{number}.json"))).expect("renamed");
    }
}

/// What the epochs since `reported` gave, and the last of them; without any, the state is what it was.
fn step_of(
    query: &StreamingQuery,
    mut epochs: Vec<Vec<Value>>,
    mode: OutputMode,
    reported: Option<u64>,
    (_, state_before): (Option<i64>, Option<u64>),
) -> (Step, Option<u64>) {
    let ran = !epochs.is_empty();
    let rows = match mode {
        OutputMode::Complete => epochs.pop().unwrap_or_default(),
        _ => epochs.concat(),
    };
    let mut step = Step {
        rows,
        watermark: Value::Null,
        late: Some(0),
        state_rows: state_before,
    };
    let mut last = reported;
    for progress in query.recent_progress() {
        if reported.is_some_and(|reported| progress.batch_id <= reported) {
            continue;
        }
        let operators = &progress.state_operators;
        let late = operators.iter().map(|o| o.num_rows_dropped_by_watermark);
        step.late = step.late.map(|sum| sum + late.sum::<u64>());
        step.state_rows = Some(operators.iter().map(|o| o.num_rows_total).sum());
        last = Some(progress.batch_id);
    }
    if ran && last == reported {
        (step.late, step.state_rows) = (None, None);
    }
    (step, last)
}

/// Rows as the recorded answers write them.
pub(crate) fn objects(batch: &RecordBatch) -> Vec<Value> {
    let schema = batch.schema();
    let row = |row: usize| {
        let cells = schema.fields().iter().zip(batch.columns());
        let cells = cells.map(|(field, column)| (field.name().clone(), cell(column, row)));
        Value::Object(cells.collect())
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Milliseconds since 1970 as the recorded answers write them.
fn iso_text(ms: i64) -> String {
    use datafusion::arrow::array::{Array, TimestampMillisecondArray};
    let time = TimestampMillisecondArray::from(vec![ms]);
    let text = time.value_as_datetime(0).expect("in range");
    assert!(time.is_valid(0));
    text.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn schema_of(frame: &DataFrame) -> String {
    let field = |field: &Arc<Field>| format!("{} {}", field.name(), type_text(field.data_type()));
    let schema = frame.schema();
    let fields = schema.fields().iter().map(field);
    fields.collect::<Vec<_>>().join(", ")
}

/// JSON lines.
pub(crate) fn lines(rows: &Value) -> String {
    let rows = rows.as_array().into_iter().flatten();
    rows.map(|row| spaced(row) + "\n").collect()
}

/// JSON with spaces where the recorder writes some: a text column takes the text of a nested value as it is.
fn spaced(value: &Value) -> String {
    match value {
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(spaced).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                format!("{}: {}", Value::from(name.as_str()), spaced(value))
            };
            let fields: Vec<String> = fields.iter().map(field).collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}
