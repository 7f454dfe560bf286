//! Spark's answers to some eighteen hundred expressions over a table of edge cases, and ours beside them.
//!
//! `tests/expressions/*.json` hold what Apache Spark 4.3.0 answered, row by row (`constants.json`: without a table).
//! An expression of ours is the *same*, or *refused* before any row, or *different*; the last must not happen.
//! `SHOW=1` lists what is refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::DataFusionError;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use highwater_operators::exact;
use highwater_query::{
    Catalog, Conf, Functions, QueryError, Resolver, error_class_of, parse_query, parse_schema,
    type_text, without_event_time,
};
use serde_json::{Value, json};

#[path = "expressions/values.rs"]
mod values;

/// As many as ever were the same: a change that loses one shows here.
const SAME_AT_LEAST: usize = 1805;

/// Rows where we keep to another answer, and why.
const EXCEPTIONS: [(&str, usize, &str); 7] = [
    ("date_format(tstr, 'yyyy')", 7, TODAY),
    ("to_timestamp(tstr)", 7, TODAY),
    ("try_to_timestamp(tstr)", 7, TODAY),
    ("cast(tstr as timestamp)", 7, TODAY),
    ("ts < tstr", 7, TODAY),
    ("ts <=> tstr", 7, TODAY),
    ("try_cast(tstr as timestamp)", 7, TODAY),
];
/// An epoch that is replayed the next day must give the same rows.
const TODAY: &str = "a time of day without a date is malformed, not today's";

struct Tables(LogicalPlan);

impl Catalog for Tables {
    fn table(&self, name: &[String], _: bool) -> Result<Option<LogicalPlan>, QueryError> {
        Ok((name == ["t"]).then(|| self.0.clone()))
    }
}

fn tables(batch: RecordBatch) -> Tables {
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
    Tables(
        LogicalPlanBuilder::scan("t", provider_as_source(Arc::new(table)), None)
            .unwrap()
            .build()
            .unwrap(),
    )
}

/// Why there is no answer.
enum Failure {
    Refused(QueryError),
    Failed { class: Option<String>, text: String },
}

/// A schema and its values.
type Answer<T> = Result<(Arc<Schema>, T), Failure>;

fn failed(error: DataFusionError) -> Failure {
    Failure::Failed {
        class: error_class_of(&error).map(str::to_string),
        text: error.to_string(),
    }
}

struct Pack {
    runtime: tokio::runtime::Runtime,
    context: SessionContext,
    functions: Functions,
    all: Tables,
    by_row: Vec<Tables>,
    by_group: Vec<Tables>,
}

/// The function table as a session has it: sums and statistics of floats are exact.
fn functions() -> Functions {
    let is_float = |kind: &DataType| matches!(kind, DataType::Float32 | DataType::Float64);
    let mut functions = Functions::standard();
    for function in exact::functions() {
        let name = function.name().trim_start_matches("exact_").to_string();
        functions.replace_aggregate(&name, is_float, function);
    }
    functions
}

impl Pack {
    fn new() -> Self {
        let table = read("table");
        let schema = parse_schema(table["schema"].as_str().unwrap()).unwrap();
        let rows = table["rows"].as_array().unwrap();
        let batch = values::batch(&schema, rows);
        let group = |g: &str| {
            let of_group: Vec<Value> = rows.iter().filter(|r| r["g"] == g).cloned().collect();
            tables(values::batch(&schema, &of_group))
        };
        Pack {
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
            context: SessionContext::new_with_config(
                SessionConfig::new().with_target_partitions(1),
            ),
            functions: functions(),
            by_row: (0..batch.num_rows())
                .map(|i| tables(batch.slice(i, 1)))
                .collect(),
            by_group: ["a", "b", "c"].map(group).into(),
            all: tables(batch),
        }
    }

    fn run(&self, sql: &str, tables: &Tables) -> Result<(Arc<Schema>, Vec<Vec<Value>>), Failure> {
        let conf = Conf::default();
        let resolver = Resolver::new(tables, &self.functions, &conf);
        let plan = parse_query(sql)
            .and_then(|plan| resolver.resolve(&plan))
            .map_err(Failure::Refused)?;
        let schema = Arc::new(plan.schema().as_arrow().clone());
        let plan = without_event_time(plan).map_err(failed)?;
        let frame = DataFrame::new(self.context.state(), plan);
        let batches = self.runtime.block_on(frame.collect()).map_err(failed)?;
        let mut rows = vec![];
        for batch in batches {
            for row in 0..batch.num_rows() {
                rows.push(
                    batch
                        .columns()
                        .iter()
                        .map(|c| values::json(c, row))
                        .collect(),
                );
            }
        }
        Ok((schema, rows))
    }
}

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/expressions/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

enum Outcome {
    Same,
    Refused(String),
    Different(String),
}
use Outcome::{Different, Refused, Same};

/// Names that are Spark's own, or that only describe its parser: any clear error will do.
fn class_matters(class: &str) -> bool {
    !class.starts_with("_LEGACY_") && !class.starts_with("PARSE_") && !class.ends_with("Exception")
}

fn check(pack: &Pack, kind: &str, case: &Value) -> Outcome {
    let expr = case["sql"].as_str().unwrap();
    let sql = match kind {
        "row" => format!("select id, {expr} as r from t order by id"),
        "one" => format!("select 1 as id, {expr} as r"),
        "agg" => format!(
            "select g, {expr} as r from (select * from t order by id) group by g order by g"
        ),
        _ => format!("select id, {expr} from t order by id"),
    };
    let answer = match pack.run(&sql, &pack.all) {
        Err(Failure::Refused(error)) => {
            let same = case["error"]
                .as_str()
                .is_some_and(|c| !class_matters(c) || error.class() == Some(c));
            return if same {
                Same
            } else {
                Refused(format!("{error}; Spark: {}", case["error"]))
            };
        }
        answer => answer,
    };
    if !case["error"].is_null() {
        return Different(format!("Spark refuses it: {}", case["error"]));
    }
    if kind == "gen" {
        return match answer {
            Ok((schema, rows)) => generated(case, &schema, rows),
            Err(Failure::Failed { text, .. }) => Different(text),
            Err(Failure::Refused(error)) => Refused(error.to_string()),
        };
    }
    let expected = case["values"].as_array().unwrap();
    let one_by_one = || -> Vec<_> {
        let parts = match kind {
            "row" => pack.by_row.as_slice(),
            "one" => std::slice::from_ref(&pack.all),
            _ => pack.by_group.as_slice(),
        };
        parts.iter().map(|part| pack.run(&sql, part)).collect()
    };
    let absent = expected.iter().any(|e| !e["$absent"].is_null());
    let answers: Vec<Answer<Option<Value>>> = match answer {
        Ok((schema, rows)) if rows.len() == expected.len() && !absent => rows
            .into_iter()
            .map(|mut row| Ok((Arc::clone(&schema), row.pop())))
            .collect(),
        _ => one_by_one()
            .into_iter()
            .map(|a| a.map(|(s, mut rows)| (s, rows.pop().and_then(|mut r| r.pop()))))
            .collect(),
    };
    let set = expr.contains("collect_set(") && !expr.contains("sort_array");
    let mut differences = String::new();
    for (nth, (expected, answer)) in expected.iter().zip(answers).enumerate() {
        if !expected["$skip"].is_null()
            || EXCEPTIONS
                .iter()
                .any(|(sql, row, _)| *sql == expr && *row == nth)
        {
            continue;
        }
        let wanted_error = expected["$error"].as_str();
        match answer {
            Err(Failure::Refused(error)) => return Different(format!("refused late: {error}")),
            Err(Failure::Failed { class, text }) => match wanted_error {
                Some(wanted) if !class_matters(wanted) || class.as_deref() == Some(wanted) => {}
                _ => write!(differences, "\n    row {nth}: {expected} but {text}").unwrap(),
            },
            Ok((schema, value)) => {
                let data_type = schema.field(1).data_type();
                let found = type_text(data_type);
                if found != case["type"].as_str().unwrap() {
                    return Different(format!("type {found}, not {}", case["type"]));
                }
                let same = match (&value, wanted_error, expected["$absent"].is_null()) {
                    (_, Some(_), _) => false,
                    (None, None, present) => !present,
                    (Some(value), None, present) => {
                        present && values::same(expected, value, data_type, set)
                    }
                };
                if !same {
                    let value = value.unwrap_or(json!("no row"));
                    write!(differences, "\n    row {nth}: {expected} but {value}").unwrap();
                }
            }
        }
    }
    if differences.is_empty() {
        Same
    } else {
        Different(differences)
    }
}

fn generated(case: &Value, schema: &Schema, rows: Vec<Vec<Value>>) -> Outcome {
    let columns = &schema.fields()[1..];
    let found: Vec<String> = columns
        .iter()
        .map(|f| format!("{} {}", f.name(), type_text(f.data_type())))
        .collect();
    if found.join(", ") != case["type"].as_str().unwrap() {
        return Different(format!("type {}, not {}", found.join(", "), case["type"]));
    }
    let mut rest = rows;
    for expected in case["rows"].as_array().unwrap() {
        let wanted = expected.as_array().unwrap();
        let same = |row: &Vec<Value>| {
            row[0] == wanted[0]
                && columns
                    .iter()
                    .zip(&row[1..])
                    .zip(&wanted[1..])
                    .all(|((f, v), w)| values::same(w, v, f.data_type(), false))
        };
        match rest.iter().position(same) {
            Some(at) => drop(rest.remove(at)),
            None => return Different(format!("missing {expected}; there are {rest:?}")),
        }
    }
    if rest.is_empty() {
        Same
    } else {
        Different(format!("unexpected {rest:?}"))
    }
}

/// As many of the names as ever were the same.
const NAMED_AT_LEAST: usize = 607;

#[test]
fn columns_without_a_name_are_called_as_in_spark() {
    let file = read("names");
    let schema = parse_schema(file["schema"].as_str().unwrap()).unwrap();
    let tables = tables(values::batch(&schema, &[]));
    let (functions, conf) = (functions(), Conf::default());
    let resolver = Resolver::new(&tables, &functions, &conf);
    let (mut same, mut different) = (0, String::new());
    for case in file["cases"].as_array().unwrap() {
        let text = |nth: usize| case[nth].as_str().unwrap();
        let sql = format!("SELECT {} FROM t", text(0));
        match parse_query(&sql).and_then(|plan| resolver.resolve(&plan)) {
            Ok(plan) => {
                let field = plan.schema().field(0);
                let found = (field.name().as_str(), type_text(field.data_type()));
                if found == (text(1), text(2).to_string()) {
                    same += 1;
                } else {
                    writeln!(different, "{}: {found:?}, not {case}", text(0)).unwrap();
                }
            }
            Err(error) if std::env::var_os("SHOW").is_some() => {
                println!("refused: {}: {error}", text(0));
            }
            Err(_) => {}
        }
    }
    println!("names: {same} same");
    assert!(different.is_empty(), "{different}");
    assert!(same >= NAMED_AT_LEAST, "only {same} are the same");
}

#[test]
fn no_expression_answers_differently_from_spark() {
    let pack = Pack::new();
    let groups = [
        "aggregate",
        "arithmetic",
        "cast",
        "collection",
        "comparison",
        "constants",
        "datetime",
        "functions",
        "generator",
        "json",
        "math",
        "string",
        "window",
    ];
    let show = std::env::var_os("SHOW").is_some();
    let mut counts: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    let mut different = String::new();
    for group in groups {
        let file = read(group);
        let kind = file["kind"].as_str().unwrap();
        for case in file["cases"].as_array().unwrap() {
            let count = counts.entry(group).or_default();
            let sql = &case["sql"];
            match check(&pack, kind, case) {
                Same => count[0] += 1,
                Refused(why) => {
                    count[1] += 1;
                    if show {
                        println!("refused {group}: {sql}: {why}");
                    }
                }
                Different(why) => {
                    count[2] += 1;
                    writeln!(different, "{group}: {sql}: {why}").unwrap();
                }
            }
        }
    }
    println!(
        "{:>12} {:>6} {:>8} {:>10}",
        "", "same", "refused", "different"
    );
    let mut total = [0; 3];
    for (group, [same, refused, different]) in counts {
        println!("{group:>12} {same:>6} {refused:>8} {different:>10}");
        total = [total[0] + same, total[1] + refused, total[2] + different];
    }
    println!(
        "{:>12} {:>6} {:>8} {:>10}",
        "all", total[0], total[1], total[2]
    );
    assert!(
        total[2] == 0,
        "{} expressions answer differently:\n{different}",
        total[2]
    );
    assert!(
        total[0] >= SAME_AT_LEAST,
        "{} are the same, fewer than {SAME_AT_LEAST}",
        total[0]
    );
}
