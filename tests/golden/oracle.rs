//! Judges the answer to a query that the model refuses: the same query, as a batch, over the rows up to each step.

use std::collections::BTreeMap;

use highwater::{OutputMode, Session};
use serde_json::Value;

use crate::json::{same_rows, without};
use crate::play::{Played, lines, mode_of, objects, query, static_view, static_views};

/// What is wrong with the rows of a scenario, if something is.
pub(crate) fn judge(scenario: &Value, played: &Played) -> Result<(), String> {
    if played.steps.iter().any(|step| step.late != Some(0)) {
        return Err("late rows were dropped, which a batch knows nothing of".into());
    }
    (0..played.steps.len()).try_for_each(|step| judge_step(scenario, played, step))
}

fn judge_step(scenario: &Value, played: &Played, number: usize) -> Result<(), String> {
    let answer = batch_answer(scenario, number)?;
    let steps = &played.steps[..=number];
    let emitted: Vec<Value> = steps.iter().flat_map(|step| step.rows.clone()).collect();
    let check = |fits: bool, what: &str, rows: &[Value]| match fits {
        true => Ok(()),
        false => {
            let (answer, rows) = (Value::from(answer.clone()), Value::from(rows.to_vec()));
            Err(format!("step {number}: as a batch {answer}, {what} {rows}"))
        }
    };
    let has_watermark = !steps[number].watermark.is_null();
    match mode_of(scenario) {
        // No rows, no epoch, no table.
        OutputMode::Complete if scenario["steps"][number].get("add").is_none() => Ok(()),
        OutputMode::Complete => {
            let last = &steps[number].rows;
            let ordered = scenario["ordered"] == true;
            check(same_rows(&answer, last, ordered), "the table is", last)
        }
        OutputMode::Update => {
            let rows = accumulated(played, &emitted, &answer);
            check(same_rows(&answer, &rows, false), "by keys", &rows)
        }
        // What the watermark has not made final is not out yet.
        _ if has_watermark => {
            let wrong = without(&emitted, &answer);
            check(wrong.is_empty(), "as final rows", &emitted)
        }
        _ => check(same_rows(&answer, &emitted, false), "as rows", &emitted),
    }
}

fn batch_answer(scenario: &Value, number: usize) -> Result<Vec<Value>, String> {
    let dir = tempfile::tempdir().expect("a directory");
    let session = Session::new().expect("a session");
    let failed = |error: highwater::Error| format!("as a batch: {error}");
    for (name, stream) in scenario["streams"].as_object().into_iter().flatten() {
        let steps = scenario["steps"].as_array().into_iter().flatten();
        let steps = steps.take(number + 1);
        let all: String = steps.map(|step| lines(&step["add"][name])).collect();
        let schema = stream["schema"].as_str().expect("a schema");
        static_view(&session, dir.path(), name, schema, &all).map_err(failed)?;
    }
    static_views(scenario, &session, dir.path()).map_err(failed)?;
    let rows = query(scenario, &session).and_then(|frame| frame.collect());
    Ok(rows.map_err(failed)?.iter().flat_map(objects).collect())
}

/// The last row under each key, where the key is as many leading columns as tell the rows of the answer apart.
fn accumulated(played: &Played, emitted: &[Value], answer: &[Value]) -> Vec<Value> {
    let schema = played.schema.as_deref().unwrap_or_default();
    let columns = highwater::parse_schema(schema).expect("our own text");
    let names: Vec<String> = columns.fields().iter().map(|f| f.name().clone()).collect();
    let key = |row: &Value, width: usize| -> String {
        let cells: Vec<&Value> = names[..width].iter().map(|name| &row[name]).collect();
        serde_json::to_string(&cells).expect("JSON")
    };
    let tells_apart = |width: &usize| {
        let mut keys: Vec<String> = answer.iter().map(|row| key(row, *width)).collect();
        keys.sort();
        keys.windows(2).all(|pair| pair[0] != pair[1])
    };
    let Some(width) = (0..=names.len()).find(tells_apart) else {
        return emitted.to_vec(); // rows without a key: each counts
    };
    let last = emitted.iter().map(|row| (key(row, width), row.clone()));
    last.collect::<BTreeMap<_, _>>().into_values().collect()
}
