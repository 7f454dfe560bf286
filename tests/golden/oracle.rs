//! Judges the answer to a query that the model refuses: the same query, as a batch, over the rows up to each step that
//! were in time.

use std::collections::BTreeMap;

use highwater::{OutputMode, Session};
use serde_json::{Value, json};

use crate::in_time::{are_partly_late, flushed, follows, in_time, marks, span_us, time_us};
use crate::json::{same_rows, without};
use crate::play::{Played, Step, lines, mode_of, objects, play, query, static_view, static_views};

/// What is wrong with the rows of a scenario, if something is.
pub(crate) fn judge_rows(scenario: &Value, played: &Played) -> Result<(), String> {
    if let Some(tables) = within_watermark(scenario, played) {
        let have = played.steps.iter().map(|step| &step.rows);
        let wrong = have
            .zip(&tables)
            .position(|(rows, table)| !rows.is_empty() && !same_rows(table, rows, false));
        return wrong.map_or(Ok(()), |step| {
            Err(format!("step {step}: the table is not {:?}", tables[step]))
        });
    }
    any_way(scenario, played, |timely| {
        (0..played.steps.len()).try_for_each(|step| judge_step(timely, played, step))
    })
}

/// The same, and whether its watermarks are those that its rows make, each stream's for itself.
pub(crate) fn judge_marks(scenario: &Value, played: &Played) -> Result<(), String> {
    follows(scenario, played, &marks(scenario)?)?;
    judge(scenario, played)
}

/// What is wrong with the rows of a scenario, or with those that wait for the watermark and never come out.
pub(crate) fn judge(scenario: &Value, played: &Played) -> Result<(), String> {
    judge_rows(scenario, played)?;
    let waits = played.steps.last().is_some_and(|s| !s.watermark.is_null());
    match waits && mode_of(scenario) == OutputMode::Append {
        true => comes_out(scenario),
        false => Ok(()),
    }
}

/// The table after each step, where the first row of each key is asked for until the watermark reaches its time and the
/// delay: of a stream itself, in complete mode, in which no row is late.
fn within_watermark(scenario: &Value, played: &Played) -> Option<Vec<Vec<Value>>> {
    let ops = scenario["ops"].as_array()?;
    let [table, mark, first] = ops.as_slice() else {
        return None;
    };
    let names = [table, mark, first].map(|op| op[0].as_str().unwrap_or_default());
    let wanted = ["table", "withWatermark", "dropDuplicatesWithinWatermark"];
    if names != wanted || mode_of(scenario) != OutputMode::Complete {
        return None;
    }
    let delay_us = span_us(mark[2].as_str()?)?;
    let (mut known, mut table_rows, mut tables) = (BTreeMap::new(), Vec::new(), Vec::new());
    let steps = scenario["steps"].as_array()?;
    for (step, have) in steps.iter().zip(&played.steps) {
        let Some(rows) = step["add"][table[1].as_str()?].as_array() else {
            tables.push(table_rows.clone()); // no epoch
            continue;
        };
        for row in rows {
            let keys = first[1].as_array()?.iter();
            let key: Vec<String> = keys
                .map(|name| row[name.as_str().unwrap_or_default()].to_string())
                .collect();
            let time = time_us(&row[mark[1].as_str()?]).unwrap_or(0);
            known.entry(key).or_insert_with(|| {
                table_rows.push(row.clone());
                time + delay_us
            });
        }
        let now = time_us(&have.watermark)?;
        known.retain(|_, until| *until > now);
        tables.push(table_rows.clone());
    }
    Some(tables)
}

/// Tries each way to tell which rows were in time: one must fit all steps.
fn any_way(
    scenario: &Value,
    played: &Played,
    fits: impl Fn(&Value) -> Result<(), String>,
) -> Result<(), String> {
    let mut wrong = Ok(());
    for timely in in_time(scenario, played)? {
        wrong = fits(&timely);
        if wrong.is_ok() {
            break;
        }
    }
    wrong
}

/// Rows that wait for the watermark come out when it has passed everything: none is forgotten.
fn comes_out(scenario: &Value) -> Result<(), String> {
    let longer = flushed(scenario);
    let played = play(&longer, 1);
    let Some(last) = played.steps.last().filter(|_| played.ended.is_none()) else {
        return Err("it ends when its watermark moves on".into());
    };
    let (end, text) = (played.steps.len() - 1, last.watermark.as_str());
    // Where a filter leaves out the rows that should move it, it stays; and of windows that lack a row another answer
    // has come out.
    if text.is_none_or(|at| at <= "2099") || are_partly_late(scenario, &played) {
        return Ok(());
    }
    any_way(&longer, &played, |timely| {
        let mut without_end = timely.clone();
        without_end["steps"][end] = json!({});
        let wanted = Asked::of(&without_end);
        let answer = batch_answer(&wanted.whole, end)?;
        let emitted: Vec<Value> = played.steps.iter().flat_map(|s| s.rows.clone()).collect();
        let missing = match (wanted.limit, &wanted.keys) {
            (None, None) => without(&answer, &emitted),
            _ => Vec::new(),
        };
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!("never came out: {}", Value::from(missing))),
        }
    })
}

/// A query, and what its answer is of the whole of another one: where it says only which rows, not which of them.
struct Asked {
    /// The scenario whose answer is whole.
    whole: Value,
    /// How many of its rows.
    limit: Option<usize>,
    /// How many rows are left out before.
    skip: usize,
    /// One row for each value of these columns.
    keys: Option<Vec<String>>,
}

impl Asked {
    fn of(scenario: &Value) -> Self {
        let mut asked = Asked {
            whole: scenario.clone(),
            limit: None,
            skip: 0,
            keys: None,
        };
        if scenario["ordered"] == true {
            return asked;
        }
        if let Some(sql) = scenario["sql"].as_str() {
            let last = |sql: &str, word: &str| -> Option<(String, usize)> {
                let (head, count) = sql.trim().rsplit_once(' ')?;
                let head = head.trim_end();
                let before = head.len().checked_sub(word.len())?;
                let is_word = head[before..].eq_ignore_ascii_case(word);
                let count = count.parse().ok().filter(|_| is_word)?;
                Some((head[..before].trim_end().to_string(), count))
            };
            let mut sql = sql.to_string();
            if let Some((head, count)) = last(&sql, "OFFSET") {
                (sql, asked.skip, asked.limit) = (head, count, Some(usize::MAX));
            }
            if let Some((head, count)) = last(&sql, "LIMIT") {
                (sql, asked.limit) = (head, Some(count));
            }
            asked.whole["sql"] = json!(sql);
        }
        let last = scenario["ops"].as_array().and_then(|ops| ops.last());
        let Some(last) = last else {
            return asked;
        };
        let columns = |list: &Value| -> Option<Vec<String>> {
            let names = list.as_array()?.iter();
            Some(names.filter_map(Value::as_str).map(Into::into).collect())
        };
        match last[0].as_str() {
            Some("limit") => asked.limit = last[1].as_u64().map(|count| count as usize),
            // In complete mode nothing is forgotten, so that these are the same.
            Some("dropDuplicates" | "dropDuplicatesWithinWatermark") => {
                asked.keys = Some(columns(&last[1]).unwrap_or_default());
            }
            _ => return asked,
        }
        let ops = asked.whole["ops"].as_array_mut().expect("a list");
        ops.pop();
        asked
    }

    /// The columns that tell rows apart, of one row.
    fn key(&self, row: &Value) -> String {
        let keys = self.keys.iter().flatten();
        let mut cells: Vec<&Value> = keys.map(|name| &row[name]).collect();
        if cells.is_empty() {
            cells.push(row);
        }
        let text = Value::from(cells.into_iter().cloned().collect::<Vec<_>>()).to_string();
        text.replace("-0.0", "0.0") // which are equal
    }

    /// Whether `rows` are an answer, where `answer` is the whole; or, not `complete`, a part of one.
    fn fits(&self, answer: &[Value], rows: &[Value], ordered: bool, complete: bool) -> bool {
        let sorted_keys = |rows: &[Value]| {
            let mut keys: Vec<String> = rows.iter().map(|row| self.key(row)).collect();
            keys.sort();
            keys
        };
        let known = without(rows, answer).is_empty();
        match (self.limit, &self.keys) {
            (None, None) if complete => same_rows(answer, rows, ordered),
            (None, None) => known,
            (Some(limit), _) => {
                let most = limit.min(answer.len().saturating_sub(self.skip));
                known && rows.len() <= most && (!complete || rows.len() == most)
            }
            (None, Some(_)) => {
                let (have, mut all) = (sorted_keys(rows), sorted_keys(answer));
                all.dedup();
                let once = have.windows(2).all(|pair| pair[0] != pair[1]);
                known && once && (!complete || have == all)
            }
        }
    }
}

fn judge_step(scenario: &Value, played: &Played, number: usize) -> Result<(), String> {
    let asked = Asked::of(scenario);
    let mut answer = batch_answer(&asked.whole, number)?;
    if mode_of(scenario) == OutputMode::Append && are_partly_late(scenario, played) {
        // What was final before a row came that is late there is an answer about the rows before it.
        for before in 0..number {
            let more = batch_answer(&asked.whole, before)?;
            answer.extend(without(&more, &answer));
        }
    }
    let steps = &played.steps[..=number];
    let emitted: Vec<Value> = steps.iter().flat_map(|step| step.rows.clone()).collect();
    let check = |rows: &[Value], complete: bool, what: &str| {
        let ordered = scenario["ordered"] == true;
        if asked.fits(&answer, rows, ordered, complete) {
            return Ok(());
        }
        let (answer, rows) = (Value::from(answer.clone()), Value::from(rows.to_vec()));
        Err(format!("step {number}: as a batch {answer}, {what} {rows}"))
    };
    let has_watermark = !steps[number].watermark.is_null();
    match mode_of(scenario) {
        // No rows, no epoch, no table.
        OutputMode::Complete if scenario["steps"][number].get("add").is_none() => Ok(()),
        OutputMode::Complete => {
            let Step { rows, .. } = &steps[number];
            check(rows, true, "the table is")
        }
        // What is closed is as it was then.
        OutputMode::Update if are_partly_late(scenario, played) => {
            check(&steps[number].rows, false, "as changed rows")
        }
        OutputMode::Update => {
            let rows = accumulated(played, &emitted, &answer);
            check(&rows, true, "by keys")
        }
        // What the watermark has not made final is not out yet.
        _ if has_watermark => check(&emitted, false, "as final rows"),
        _ => check(&emitted, true, "as rows"),
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
