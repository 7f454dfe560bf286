//! Which rows of a scenario were in time, told from its text and its rows alone: the watermarks that it declares, and
//! how far each step's rows move them.

use std::collections::BTreeMap;

use highwater::parse_schema;
use serde_json::{Map, Value, json};

use crate::play::Played;
use crate::rules::{conditions, for_each_text, words_of};

/// A watermark that a scenario declares for a stream.
pub(crate) struct Mark {
    stream: String,
    column: String,
    delay_us: i64,
}

/// A column of a stream without a watermark that is equal to the event time of another in the pairs of a join: a row
/// finds no partner once the watermark has reached it.
struct LateKey {
    stream: String,
    column: String,
    /// What the stream is called in the query.
    alias: String,
    /// The equality as it is written.
    equality: String,
}

/// The column that tells the rows whose key is not late.
const CAN_PAIR: &str = "can_pair";

/// Until when a row is in time.
#[derive(Clone, Copy)]
enum Until {
    /// Its own time has passed.
    Time,
    /// The last window has that it is in, of windows with this width and slide.
    Window(i64, i64),
    /// Nothing can come any more to its session with this gap.
    Session(i64),
}

impl Until {
    fn of(self, time_us: i64) -> i64 {
        match self {
            Until::Time => time_us,
            Until::Window(width, slide) => time_us - time_us.rem_euclid(slide) + width,
            Until::Session(gap) => time_us + gap,
        }
    }

    /// True if a row can be late for some of its windows and in time for others.
    fn is_partly(self) -> bool {
        matches!(self, Until::Window(width, slide) if width != slide)
    }
}

/// The scenario with only the rows that were in time, in each way in which they may be told; of what was played, as
/// many as dropped late rows.
pub(crate) fn in_time(scenario: &Value, played: &Played) -> Result<Vec<Value>, String> {
    let marks = marks(scenario);
    let late_keys = marks
        .as_ref()
        .map_or_else(|_| Vec::new(), |marks| late_keys(scenario, marks));
    if late_keys.is_empty() && played.steps.iter().all(|step| step.late == Some(0)) {
        return Ok(vec![scenario.clone()]);
    }
    let marks = marks?;
    follows(scenario, played, &marks)?;
    let ways = std::iter::once(Until::Time).chain(windows(&text_of(scenario)));
    let ways = ways.map(|until| kept(scenario, played, &marks, until));
    let ways = ways.flatten().map(|way| pairing(way, played, &late_keys));
    let ways: Vec<Value> = ways.collect();
    match ways.is_empty() {
        // What came too late were pairs.
        true if joins(scenario) => Ok(vec![scenario.clone()]),
        true => Err("late rows were dropped, and none of its rows is late".into()),
        false => Ok(ways),
    }
}

/// The same scenario and rows so late that everything before them is final.
pub(crate) fn flushed(scenario: &Value) -> Value {
    let mut add = Map::new();
    let streams = scenario["streams"].as_object().into_iter().flatten();
    for (number, (name, stream)) in streams.enumerate() {
        let schema = stream["schema"].as_str().expect("a schema");
        let schema = parse_schema(schema).expect("a schema");
        let cell = |data_type: String| match data_type.as_str() {
            "Utf8" => json!(format!("~{name}")),
            text if text.starts_with("Timestamp") => json!("2100-01-01T00:00:00Z"),
            text if text.starts_with("Int") => json!(111 + number),
            _ => Value::Null,
        };
        let fields = schema.fields().iter();
        let row: Map<String, Value> = fields
            .map(|field| (field.name().clone(), cell(field.data_type().to_string())))
            .collect();
        add.insert(name.clone(), json!([row]));
    }
    let mut scenario = scenario.clone();
    let steps = scenario["steps"].as_array_mut().expect("steps");
    steps.push(json!({ "add": add }));
    scenario
}

fn text_of(scenario: &Value) -> String {
    let parts = ["views", "sql", "ops"].map(|part| scenario[part].to_string());
    parts.join(" ")
}

/// The watermarks that SQL and operations declare, each over a stream itself.
pub(crate) fn marks(scenario: &Value) -> Result<Vec<Mark>, String> {
    let unknown = || "late rows were dropped by a watermark that is not over a stream".to_string();
    let mut found = Vec::new();
    let mut add = |stream: &str, column: &str, delay: &str| {
        let stream = stream.trim_start_matches(|c: char| !c.is_alphanumeric());
        let delay_us = span_us(delay).ok_or_else(unknown)?;
        if scenario["streams"].get(stream).is_none() {
            return Err(unknown());
        }
        found.push(Mark {
            stream: stream.to_string(),
            column: column.to_string(),
            delay_us,
        });
        Ok(())
    };
    let text = text_of(scenario);
    let words: Vec<&str> = text.split_whitespace().collect();
    for (at, _) in words
        .iter()
        .enumerate()
        .filter(|(_, word)| word.eq_ignore_ascii_case("WATERMARK"))
    {
        // FROM stream WATERMARK column DELAY OF INTERVAL 10 SECONDS
        let Some(clause) = words.get(at.wrapping_sub(1)..at + 7) else {
            return Err(unknown());
        };
        if !clause[3].eq_ignore_ascii_case("DELAY") {
            return Err(unknown());
        }
        let unit = clause[7].trim_end_matches(|c: char| !c.is_alphabetic());
        add(clause[0], clause[2], &format!("{} {unit}", clause[6]))?;
    }
    let mut lists = vec![&scenario["views"], &scenario["ops"]];
    while let Some(list) = lists.pop() {
        let Some(list) = list.as_array() else {
            continue;
        };
        lists.extend(list);
        for pair in list.windows(2) {
            if pair[1][0] == "withWatermark" {
                let word = |value: &Value| value.as_str().unwrap_or_default().to_string();
                let stream = match pair[0][0] == "table" {
                    true => word(&pair[0][1]),
                    false => return Err(unknown()),
                };
                add(&stream, &word(&pair[1][1]), &word(&pair[1][2]))?;
            }
        }
    }
    match found.is_empty() {
        true => Err(unknown()),
        false => Ok(found),
    }
}

/// `10 SECONDS`, in microseconds.
pub(crate) fn span_us(text: &str) -> Option<i64> {
    let (number, unit) = text.trim().split_once(' ')?;
    let unit_us = match unit.trim().to_lowercase().trim_end_matches('s') {
        "second" => 1_000_000,
        "minute" => 60_000_000,
        "hour" => 3_600_000_000,
        "day" => 86_400_000_000,
        _ => return None,
    };
    Some(number.trim().parse::<i64>().ok()? * unit_us)
}

/// The windows of a text, and its sessions with one gap.
fn windows(text: &str) -> Vec<Until> {
    let pieces: Vec<&str> = text.split("window(").collect();
    let until = |pair: &[&str]| {
        let arguments = pair[1].split(')').next()?.split(',').skip(1);
        let spans = arguments.map(|span| span_us(span.trim().trim_matches('\'')));
        Some(match spans.collect::<Option<Vec<i64>>>()?.as_slice() {
            [gap] if pair[0].ends_with("session_") => Until::Session(*gap),
            [width] => Until::Window(*width, *width),
            [width, slide] => Until::Window(*width, *slide),
            _ => return None,
        })
    };
    pieces.windows(2).filter_map(until).collect()
}

/// True if rows were late, and may have been for some of their windows only, as windows overlap, or only as pairs.
pub(crate) fn are_partly_late(scenario: &Value, played: &Played) -> bool {
    let mut windows = windows(&text_of(scenario)).into_iter();
    let partly = windows.any(Until::is_partly) || joins(scenario);
    partly && played.steps.iter().any(|step| step.late != Some(0))
}

fn joins(scenario: &Value) -> bool {
    !conditions(scenario).is_empty()
}

/// Checks that the watermark of each step is what the rows before it, or with it, make it: all of them, or those that
/// have no null, as rows without a key may have no partner.
pub(crate) fn follows(scenario: &Value, played: &Played, marks: &[Mark]) -> Result<(), String> {
    let told = |whole: bool| {
        let told = watermarks(scenario, marks, whole);
        let have = played.steps.iter().map(|step| time_us(&step.watermark));
        have.zip(told.windows(2)).position(|(have, pair)| {
            let [before, now] = [pair[0], pair[1]].map(Some);
            have != before && have != now
        })
    };
    match (told(false), told(true)) {
        (None, _) | (_, None) => Ok(()),
        (Some(number), _) => Err(format!(
            "step {number}: the watermark is {}, which its rows do not tell",
            played.steps[number].watermark
        )),
    }
}

/// The watermark at the start and after each step; by rows without nulls, if they have to be `whole`.
fn watermarks(scenario: &Value, marks: &[Mark], whole: bool) -> Vec<i64> {
    let policy = &scenario["options"]["spark.sql.streaming.multipleWatermarkPolicy"];
    let mut latest: Vec<Option<i64>> = vec![None; marks.len()];
    let mut found = vec![0];
    for step in scenario["steps"].as_array().into_iter().flatten() {
        for (mark, latest) in marks.iter().zip(&mut latest) {
            let rows = step["add"][&mark.stream].as_array().into_iter().flatten();
            let counts = |row: &&Value| {
                !whole
                    || row
                        .as_object()
                        .is_some_and(|row| row.values().all(|v| !v.is_null()))
            };
            let times = rows
                .filter(counts)
                .filter_map(|row| time_us(&row[&mark.column]));
            *latest = times.max().max(*latest);
        }
        let moved = marks.iter().zip(&latest).map(|(mark, latest)| {
            latest.map_or(0, |at| at.div_euclid(1_000) * 1_000 - mark.delay_us)
        });
        let next = match policy == "max" {
            true => moved.max(),
            false => moved.min(),
        };
        let before = found[found.len() - 1];
        found.push(next.unwrap_or_default().max(before));
    }
    found
}

/// The scenario without late rows; `None` if that leaves a step without any that says it had some.
fn kept(scenario: &Value, played: &Played, marks: &[Mark], until: Until) -> Option<Value> {
    let mut kept = scenario.clone();
    let columns: BTreeMap<&str, &str> = marks
        .iter()
        .map(|mark| (mark.stream.as_str(), mark.column.as_str()))
        .collect();
    let mut judges = Some(0);
    for (number, have) in played.steps.iter().enumerate() {
        let mut late = 0;
        for (stream, column) in &columns {
            let Some(rows) = kept["steps"][number]["add"][*stream].as_array_mut() else {
                continue;
            };
            let before = rows.len();
            rows.retain(|row| match (time_us(&row[*column]), judges) {
                (Some(time), Some(judges)) => until.of(time) > judges,
                _ => true,
            });
            late += before - rows.len();
        }
        if late == 0 && have.late != Some(0) && !until.is_partly() {
            return None;
        }
        judges = time_us(&have.watermark);
    }
    Some(kept)
}

fn late_keys(scenario: &Value, marks: &[Mark]) -> Vec<LateKey> {
    let text = words_of(&text_of(scenario).replace('"', " "));
    let words: Vec<&str> = text.split(' ').collect();
    let mut found = Vec::new();
    for (stream, told) in scenario["streams"].as_object().into_iter().flatten() {
        let uses: Vec<usize> = (1..words.len())
            .filter(|at| words[*at] == stream && ["from", "join", ","].contains(&words[at - 1]))
            .collect();
        // Where it is used twice, a row can be late in one use only.
        let (&[at], false) = (
            uses.as_slice(),
            marks.iter().any(|mark| mark.stream == *stream),
        ) else {
            continue;
        };
        let alias = match words.get(at + 1) {
            Some(&"as") => words.get(at + 2).copied().unwrap_or_default(),
            _ => stream.as_str(),
        };
        let schema = parse_schema(told["schema"].as_str().expect("a schema")).expect("a schema");
        for condition in conditions(scenario) {
            let words: Vec<&str> = condition.split(' ').collect();
            for equality in words.windows(3).filter(|words| words[1] == "=") {
                for (key, time) in [(equality[0], equality[2]), (equality[2], equality[0])] {
                    let column = key.strip_prefix(alias).and_then(|k| k.strip_prefix('.'));
                    let is_mark = |mark: &Mark| time.rsplit('.').next() == Some(&mark.column);
                    if let Some(column) = column
                        && schema.field_with_name(column).is_ok()
                        && marks.iter().any(is_mark)
                    {
                        found.push(LateKey {
                            stream: stream.clone(),
                            column: column.to_string(),
                            alias: alias.to_string(),
                            equality: equality.join(" "),
                        });
                    }
                }
            }
        }
    }
    found
}

/// The scenario where rows pair only if their keys are not late when they come.
fn pairing(mut scenario: Value, played: &Played, late_keys: &[LateKey]) -> Value {
    for key in late_keys {
        let mut judges = Some(0);
        for (number, have) in played.steps.iter().enumerate() {
            let rows = scenario["steps"][number]["add"][&key.stream].as_array_mut();
            for row in rows.into_iter().flatten() {
                let time = time_us(&row[&key.column]);
                row[CAN_PAIR] = json!(time > judges);
            }
            judges = time_us(&have.watermark);
        }
        let schema = scenario["streams"][&key.stream]["schema"].as_str();
        let schema = format!("{}, {CAN_PAIR} boolean", schema.expect("a schema"));
        scenario["streams"][&key.stream]["schema"] = json!(schema);
        let said = format!("{} AND {}.{CAN_PAIR}", key.equality, key.alias);
        for part in ["sql", "ops", "views"] {
            let say = |text: &mut String| *text = text.replace(&key.equality, &said);
            for_each_text(&mut scenario[part], &say);
        }
    }
    scenario
}

/// `2024-01-01T00:00:05.25Z` in microseconds since 1970.
pub(crate) fn time_us(value: &Value) -> Option<i64> {
    use datafusion::arrow::array::{AsArray, StringArray};
    use datafusion::arrow::compute::cast;
    use datafusion::arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
    let text = StringArray::from(vec![value.as_str()?]);
    let zone = Some("UTC".into());
    let times = cast(&text, &DataType::Timestamp(TimeUnit::Microsecond, zone)).ok()?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    times.iter().next().flatten()
}
