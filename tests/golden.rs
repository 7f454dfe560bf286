//! Recorded answers of the model: the same, or a refusal by name; never different.
//!
//! `tests/golden/scenarios` holds small queries with the rows that Spark 4.3 emitted at each step. A scenario whose
//! query we refuse counts as refused; the number that is the same must not fall.

#[path = "golden/json.rs"]
mod json;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use datafusion::arrow::datatypes::Field;
use datafusion::arrow::record_batch::RecordBatch;
use highwater::{
    DataFrame, Error, JoinKind, OutputMode, Session, StreamingQuery, Trigger, type_text,
};
use json::{cell, same_rows};
use serde_json::Value;

/// How many scenarios were the same when this was last raised.
const SAME_AT_LEAST: usize = 136;

/// What the model refuses and an incremental engine answers; `tests/oracle.rs` checks that it answers rightly.
const ANSWERED: &[&str] = &["count_distinct", "sum_distinct_complete"];

enum Outcome {
    Same,
    /// Different from the model where we mean to be: a rule says why.
    ByRule,
    Refused(String),
    Different(String),
}

#[test]
fn every_scenario_is_the_same_or_refused() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/scenarios");
    let mut paths: Vec<PathBuf> = Vec::new();
    for group in fs::read_dir(root).expect("scenarios") {
        paths.extend(
            fs::read_dir(group.expect("a group").path())
                .expect("files")
                .map(|file| file.expect("a file").path()),
        );
    }
    paths.sort();
    let only = std::env::var("SCENARIO").unwrap_or_default();
    paths.retain(|path| path.display().to_string().contains(&only));
    assert!(!paths.is_empty(), "no scenario is called {only}");
    let (mut same, mut by_rule) = (0, 0);
    let (mut refused, mut different) = (Vec::new(), Vec::new());
    for (index, path) in paths.iter().enumerate() {
        let scenario: Value =
            serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON");
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // Answers must not depend on the number of workers: take turns.
        match play(&scenario, 1 + index % 3) {
            Outcome::Same => same += 1,
            Outcome::ByRule => by_rule += 1,
            Outcome::Refused(why) => refused.push(format!("{name}: {why}")),
            Outcome::Different(how) => different.push(format!("{name}: {how}")),
        }
    }
    println!(
        "{same} same, {by_rule} by rule, {} refused, {} different",
        refused.len(),
        different.len()
    );
    if std::env::var("REFUSED").is_ok() {
        println!("{}", refused.join("\n"));
    }
    assert!(different.is_empty(), "different:\n{}", different.join("\n"));
    assert!(
        !only.is_empty() || same >= SAME_AT_LEAST,
        "{same} are the same, {SAME_AT_LEAST} were"
    );
}

/// Runs a scenario to its end or to the error, and compares.
fn play(scenario: &Value, workers: usize) -> Outcome {
    let dir = tempfile::tempdir().expect("a directory");
    let session = Session::with_workers(workers).expect("a session");
    let mut ran = Vec::new();
    let error = run(scenario, &session, dir.path(), &mut ran).err();
    let expected = scenario["expect"].as_array().cloned().unwrap_or_default();
    let ordered = scenario["ordered"].as_bool().unwrap_or(false);
    for (step, (want, (have, watermark))) in expected.iter().zip(&ran).enumerate() {
        if want["watermark"] != *watermark && marks_survive(scenario, step) {
            return Outcome::ByRule;
        }
        if want["watermark"] != *watermark {
            let want = &want["watermark"];
            let how = format!("step {step}: the watermark is {watermark}, not {want}");
            return Outcome::Different(how);
        }
        let want = want["rows"].as_array().cloned().unwrap_or_default();
        if !same_rows(&want, have, ordered) {
            return Outcome::Different(format!(
                "step {step}: expected {}, got {}",
                Value::from(want),
                Value::from(have.clone())
            ));
        }
    }
    match (error, scenario.get("error")) {
        (None, None) if ran.len() == expected.len() => Outcome::Same,
        (None, None) => {
            Outcome::Different(format!("{} steps instead of {}", ran.len(), expected.len()))
        }
        (None, Some(_)) if ANSWERED.iter().any(|name| scenario["name"] == *name) => Outcome::Same,
        (None, Some(error)) => {
            Outcome::Different(format!("answered, but the model refuses: {error}"))
        }
        (Some(error), None) => match is_refusal(&error) {
            true => Outcome::Refused(error.to_string()),
            false => Outcome::Different(format!("failed: {error}")),
        },
        // The model's own class, or our word that we cannot do it yet: both keep the user from a wrong answer.
        (Some(error), Some(wanted)) => {
            let same = error.class().as_deref() == wanted["class"].as_str()
                && wanted["message_contains"]
                    .as_str()
                    .is_some_and(|part| error.to_string().contains(part));
            if same {
                Outcome::Same
            } else {
                Outcome::Refused(format!("{error} (the model: {wanted})"))
            }
        }
    }
}

/// The rule: each stream's own mark survives a restart, where the model keeps only their minimum and waits until every
/// stream has spoken again. It holds from the first restart on, in a query that follows several streams.
fn marks_survive(scenario: &Value, step: usize) -> bool {
    let steps = scenario["steps"].as_array().cloned().unwrap_or_default();
    let restarted = steps.iter().take(step + 1).any(|s| s["restart"] == true);
    let drains = step > 0 && scenario["trigger"] == "availableNow";
    let text = scenario.to_string().to_lowercase();
    let marks = text.matches("delay of").count() + text.matches("withwatermark").count();
    (restarted || drains) && marks > 1
}

fn is_refusal(error: &Error) -> bool {
    let text = error.to_string();
    [
        "not supported",
        "UNSUPPORTED",
        "UNRESOLVED_ROUTINE",
        "NOT_SUPPORTED",
    ]
    .iter()
    .any(|word| text.contains(word))
}

fn run(
    scenario: &Value,
    session: &Session,
    dir: &Path,
    ran: &mut Vec<(Vec<Value>, Value)>,
) -> Result<(), Error> {
    let _not_yet = |what: &str| Error::Refused {
        class: None,
        message: format!("{what} is not supported yet"),
    };
    for (option, value) in scenario["options"].as_object().into_iter().flatten() {
        session.set_conf(option, value.as_str().unwrap_or_default())?;
    }
    let list = |name: &str| scenario[name].as_object().cloned().unwrap_or_default();
    for (name, stream) in list("streams") {
        let input = dir.join(&name);
        fs::create_dir(&input).expect("made");
        let reader = session
            .read_stream()
            .format("json")
            .schema(stream["schema"].as_str().unwrap_or_default())?;
        reader
            .path(&input)
            .load()?
            .create_or_replace_temp_view(&name)?;
    }
    for (name, table) in list("tables") {
        let file = dir.join(format!("{name}.json"));
        fs::write(&file, lines(&table["rows"])).expect("written");
        let reader = session
            .read()
            .format("json")
            .schema(table["schema"].as_str().unwrap_or_default())?;
        reader
            .path(&file)
            .load()?
            .create_or_replace_temp_view(&name)?;
    }
    for view in scenario["views"].as_array().into_iter().flatten() {
        query(session, &view[1])?
            .create_or_replace_temp_view(view[0].as_str().unwrap_or_default())?;
    }
    let frame = query(
        session,
        scenario
            .get("sql")
            .or(scenario.get("ops"))
            .unwrap_or(&Value::Null),
    )?;
    if let Some(schema) = scenario["schema"].as_str() {
        let ours = schema_of(&frame);
        if ours != schema {
            return Err(Error::Run {
                message: format!("schema: expected {schema}, got {ours}"),
            });
        }
    }
    let mode = match scenario["mode"].as_str() {
        Some("append") => OutputMode::Append,
        Some("update") => OutputMode::Update,
        _ => OutputMode::Complete,
    };
    let drains = scenario["trigger"].as_str() == Some("availableNow");
    let epochs: Epochs = Epochs::default();
    let start = || -> Result<StreamingQuery, Error> {
        let taken = Arc::clone(&epochs);
        frame
            .write_stream()
            .output_mode(mode)
            .option("checkpointLocation", dir.join(".checkpoint").display())
            .trigger(match drains {
                true => Trigger::AvailableNow,
                false => Trigger::Default,
            })
            .for_each_batch(move |rows: DataFrame, _| -> Result<(), Error> {
                let rows = rows.collect()?.iter().flat_map(objects).collect();
                taken.lock().expect("no panic").push(rows);
                Ok(())
            })
            .start()
    };
    let mut running = match drains {
        true => None,
        false => Some(start()?),
    };
    let mut watermark = None;
    for (number, step) in scenario["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        if step["restart"].as_bool() == Some(true)
            && let Some(running) = running.take()
        {
            running.stop()?;
        }
        for (stream, rows) in step["add"].as_object().into_iter().flatten() {
            let hidden = dir.join(stream).join(format!(".{number}.json"));
            fs::write(&hidden, lines(rows)).expect("written");
            fs::rename(&hidden, dir.join(stream).join(format!("{number}.json"))).expect("renamed");
        }
        let query = match running.take() {
            Some(query) => query,
            None => start()?,
        };
        match drains {
            true => query.await_termination()?,
            false => query.process_all_available()?,
        }
        let mut new = std::mem::take(&mut *epochs.lock().expect("no panic"));
        let new = match mode {
            OutputMode::Complete => new.pop().unwrap_or_default(),
            _ => new.concat(),
        };
        watermark = query.committed().watermark_ms.or(watermark);
        ran.push((new, Value::from(watermark.map(iso_text))));
        running = Some(query).filter(|_| !drains);
    }
    running.map_or(Ok(()), |query| query.stop())
}

/// The rows of each epoch since somebody looked.
type Epochs = Arc<Mutex<Vec<Vec<Value>>>>;

/// Rows as the recorded answers write them.
fn objects(batch: &RecordBatch) -> Vec<Value> {
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
    let field = |field: &std::sync::Arc<Field>| {
        format!("{} {}", field.name(), type_text(field.data_type()))
    };
    frame
        .schema()
        .fields()
        .iter()
        .map(field)
        .collect::<Vec<_>>()
        .join(", ")
}

fn lines(rows: &Value) -> String {
    rows.as_array()
        .into_iter()
        .flatten()
        .map(|row| format!("{row}\n"))
        .collect()
}

/// SQL text or a list of operations.
fn query(session: &Session, what: &Value) -> Result<DataFrame, Error> {
    if let Some(sql) = what.as_str() {
        return session.sql(sql);
    }
    let mut frame: Option<DataFrame> = None;
    for op in what.as_array().into_iter().flatten() {
        let text = |index: usize| op[index].as_str().unwrap_or_default();
        let texts = |index: usize| {
            op[index]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
        };
        let other = |index: usize| {
            if op[index].is_string() {
                session.table(text(index))
            } else {
                query(session, &op[index])
            }
        };
        let not_yet = |what: &str| Error::Refused {
            class: None,
            message: format!("{what} is not supported yet"),
        };
        let parse = |sql: &str| highwater::prelude::expr(sql).map_err(Error::from);
        let input = || frame.clone().expect("the first operation is a table");
        frame = Some(match text(0) {
            "table" => session.table(text(1))?,
            "alias" => input().alias(text(1))?,
            "select" => input().select_expr(texts(1))?,
            "where" => input().filter(text(1))?,
            "withColumn" => input().with_column(text(1), parse(text(2))?)?,
            "withWatermark" => input().with_watermark(text(1), text(2))?,
            "groupBy" => {
                let keys: Result<Vec<_>, _> = texts(1).map(parse).collect();
                let calls: Result<Vec<_>, _> = op[2]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|call| {
                        let [function, argument, alias] =
                            [0, 1, 2].map(|i| call[i].as_str().unwrap_or_default());
                        Ok::<_, Error>(parse(&format!("{function}({argument})"))?.alias(alias))
                    })
                    .collect();
                input().group_by(keys?)?.agg(calls?)?
            }
            "distinct" => input().distinct()?,
            "join" => {
                let kind = match text(3) {
                    "inner" => JoinKind::Inner,
                    "left_outer" => JoinKind::Left,
                    "right_outer" => JoinKind::Right,
                    "full_outer" => JoinKind::Full,
                    "left_semi" => JoinKind::LeftSemi,
                    "left_anti" => JoinKind::LeftAnti,
                    _ => JoinKind::Cross,
                };
                input().join(&other(1)?, text(2), kind)?
            }
            "union" => input().union(&other(1)?)?,
            "orderBy" => input().order_by(texts(1).map(parse).collect::<Result<Vec<_>, _>>()?)?,
            "limit" => input().limit(op[1].as_u64().unwrap_or(0))?,
            other => return Err(not_yet(&format!("the operation {other}"))),
        });
    }
    Ok(frame.expect("a query has an operation"))
}
