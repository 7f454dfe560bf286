//! The answers of DataFusion, and what makes two answers the same.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, SchemaRef};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Aggregate, AggregateUDF, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::create_physical_expr;
use datafusion::prelude::{SessionConfig, SessionContext, ident};
use datafusion::scalar::ScalarValue;
use highwater_operators::aggregate::{AggregateCall, Aggregation, Emit};

use crate::calls::parse;
use crate::data::{Epochs, schema};

/// A DataFusion session and the functions that cases may call.
pub(crate) struct Reference {
    context: SessionContext,
    functions: Vec<Arc<AggregateUDF>>,
    runtime: tokio::runtime::Runtime,
}

/// Grouping columns and calls over the test table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) keys: &'a [&'a str],
    pub(crate) calls: &'a str,
}

impl Reference {
    /// `spark` prefers Spark's functions to DataFusion's of the same name.
    pub(crate) fn new(spark: bool) -> Self {
        let config = SessionConfig::new().with_target_partitions(1);
        let mut functions = datafusion::functions_aggregate::all_default_aggregate_functions();
        functions.extend(highwater_operators::exact::functions());
        if spark {
            functions.splice(..0, datafusion_spark::all_default_aggregate_functions());
        }
        Reference {
            context: SessionContext::new_with_config(config),
            functions,
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
        }
    }

    fn plan(&self, case: Case<'_>, rows: Vec<RecordBatch>) -> LogicalPlan {
        let table = MemTable::try_new(schema(), vec![rows]).unwrap();
        let keys: Vec<Expr> = case.keys.iter().map(|key| ident(*key)).collect();
        let calls = match case.calls {
            "" => Vec::new(),
            calls => parse(calls, &self.functions),
        };
        let table = provider_as_source(Arc::new(table));
        LogicalPlanBuilder::scan("t", table, None)
            .and_then(|scan| scan.aggregate(keys, calls))
            .and_then(LogicalPlanBuilder::build)
            .unwrap_or_else(|error| panic!("{case:?}: {error}"))
    }

    /// The answer over epochs `..=epoch`.
    pub(crate) fn answer(&self, case: Case<'_>, epochs: &Epochs, epoch: usize) -> Vec<RecordBatch> {
        // Whatever DataFusion makes of -0.0 and of NaNs with other bits: a group of ours is one value.
        let normalised = epochs.rows[..=epoch].iter().map(|rows| {
            let columns = rows.columns().iter().map(one_zero_one_nan);
            RecordBatch::try_new(schema(), columns.collect()).unwrap()
        });
        let plan = self.plan(case, normalised.collect());
        let collect = async {
            self.context
                .execute_logical_plan(plan)
                .await?
                .collect()
                .await
        };
        self.runtime
            .block_on(collect)
            .unwrap_or_else(|error| panic!("{case:?}: {error}"))
    }

    /// The aggregation, as a planner would hand it to the operator.
    pub(crate) fn aggregation(&self, case: Case<'_>, emit: Emit) -> Aggregation {
        let plan = self.plan(case, Vec::new());
        let state = self.context.state();
        let plan = state
            .analyzer()
            .execute_and_check(plan, state.config_options(), |_, _| {})
            .unwrap_or_else(|error| panic!("{case:?}: {error}"));
        let aggregate = find(&plan).unwrap_or_else(|| panic!("no aggregate in {plan}"));
        let input = aggregate.input.schema();
        let properties = ExecutionProps::new();
        let planning = PhysicalPlanningContext::default();
        let keys = aggregate.group_expr.iter();
        let keys = keys
            .map(|key| create_physical_expr(key, input, &properties, &planning).unwrap())
            .collect();
        let calls = aggregate.aggr_expr.iter().map(|call| {
            let lowered =
                LoweredAggregateBuilder::new(call, input, input.as_arrow(), &properties, &planning)
                    .build()
                    .unwrap_or_else(|error| panic!("{case:?}: {error}"));
            AggregateCall {
                function: lowered.aggregate,
                filter: lowered.filter,
            }
        });
        let schema: SchemaRef = Arc::clone(aggregate.schema.inner());
        Aggregation {
            name: "aggregate".into(),
            keys,
            calls: calls.collect(),
            schema,
            emit,
            event_time: false,
            panes: None,
            gone: None,
        }
    }
}

/// Written apart from what the operators do, which it checks.
fn one_zero_one_nan(column: &ArrayRef) -> ArrayRef {
    match column.as_primitive_opt::<Float64Type>() {
        None => Arc::clone(column),
        Some(floats) => Arc::new(floats.unary::<_, Float64Type>(|x| {
            if x == 0.0 {
                0.0
            } else if x.is_nan() {
                f64::NAN
            } else {
                x
            }
        })),
    }
}

fn find(plan: &LogicalPlan) -> Option<&Aggregate> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => Some(aggregate),
        other => other.inputs().into_iter().find_map(find),
    }
}

/// A value that compares as people would.
#[derive(Clone)]
pub(crate) enum Cell {
    Number(f64),
    Text(String),
    Many(Vec<Cell>),
}

/// How close floats must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Close {
    /// As a part of their size.
    relative: f64,
    /// In any case.
    absolute: f64,
}

/// For functions that define an answer.
pub(crate) const CLOSE: Close = Close {
    relative: 1e-9,
    absolute: 1e-9,
};

/// For approximations over the few hundred small numbers of the test table.
pub(crate) const ROUGH: Close = Close {
    relative: 0.1,
    absolute: 2.0,
};

impl Cell {
    pub(crate) fn new(value: &ScalarValue) -> Cell {
        let many = |values: &dyn arrow::array::Array| {
            let cells = (0..values.len())
                .map(|i| Cell::new(&ScalarValue::try_from_array(values, i).unwrap()));
            Cell::Many(cells.collect())
        };
        match value {
            ScalarValue::Float64(Some(x)) => Cell::Number(*x),
            ScalarValue::Float32(Some(x)) => Cell::Number(f64::from(*x)),
            ScalarValue::List(list) if !value.is_null() => many(&list.value(0)),
            ScalarValue::Struct(fields) if !value.is_null() => {
                let cells = fields
                    .columns()
                    .iter()
                    .map(|column| Cell::new(&ScalarValue::try_from_array(column, 0).unwrap()));
                Cell::Many(cells.collect())
            }
            // Strings keep quotes so that a null is not the word NULL.
            ScalarValue::Utf8(Some(s))
            | ScalarValue::LargeUtf8(Some(s))
            | ScalarValue::Utf8View(Some(s)) => Cell::Text(format!("{s:?}")),
            other => Cell::Text(other.to_string()),
        }
    }

    pub(crate) fn same(&self, other: &Cell, close: Close) -> bool {
        match (self, other) {
            (Cell::Number(a), Cell::Number(b)) => {
                let allowed = close.absolute + close.relative * a.abs().max(b.abs());
                a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= allowed
            }
            (Cell::Text(a), Cell::Text(b)) => a == b,
            (Cell::Many(a), Cell::Many(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b, close))
            }
            _ => false,
        }
    }

    /// Sorts the elements of lists: for functions that return sets.
    pub(crate) fn sorted(mut self) -> Cell {
        if let Cell::Many(cells) = &mut self {
            cells.sort_by_key(|cell| format!("{cell:?}"));
        }
        self
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Number(x) => write!(f, "{x}"),
            Cell::Text(text) => write!(f, "{text}"),
            Cell::Many(cells) => write!(f, "{cells:?}"),
        }
    }
}

/// Rows by the text of their first `keys` columns.
pub(crate) type Table = BTreeMap<String, Vec<Cell>>;

/// The cells of each row.
pub(crate) fn rows_of(rows: &RecordBatch) -> Vec<Vec<Cell>> {
    let cell = |column, row| Cell::new(&ScalarValue::try_from_array(column, row).unwrap());
    (0..rows.num_rows())
        .map(|row| {
            rows.columns()
                .iter()
                .map(|column| cell(column, row))
                .collect()
        })
        .collect()
}

/// Adds `rows` to `table`: a later row of a key replaces an earlier one.
pub(crate) fn put(table: &mut Table, keys: usize, rows: &RecordBatch, sets: bool) {
    for mut cells in rows_of(rows) {
        if sets {
            cells = cells.into_iter().map(Cell::sorted).collect();
        }
        table.insert(format!("{:?}", &cells[..keys]), cells[keys..].to_vec());
    }
}

/// Takes out rows that leave, which must be there as they are, and puts in those that come: the last column says which.
pub(crate) fn change(table: &mut Table, keys: usize, rows: &RecordBatch, sets: bool) {
    for mut cells in rows_of(rows) {
        if sets {
            cells = cells.into_iter().map(Cell::sorted).collect();
        }
        let diff = cells.pop().map(|cell| format!("{cell:?}"));
        let (key, values) = (format!("{:?}", &cells[..keys]), cells[keys..].to_vec());
        match diff.as_deref() {
            Some("1") => {
                let before = table.insert(key.clone(), values);
                assert!(before.is_none(), "{key} came twice");
            }
            Some("-1") => {
                let before = table.remove(&key);
                let before = format!("{:?}", before.unwrap_or_default());
                assert_eq!(
                    before,
                    format!("{values:?}"),
                    "of {key} something else left"
                );
            }
            other => panic!("a diff of {other:?}"),
        }
    }
}

/// Panics with the first difference.
pub(crate) fn same(wanted: &Table, got: &Table, close: Close, context: &dyn Fn() -> String) {
    for (key, cells) in wanted {
        let Some(found) = got.get(key) else {
            panic!("{}: no row for {key}, wanted {cells:?}", context());
        };
        let equal =
            cells.len() == found.len() && cells.iter().zip(found).all(|(a, b)| a.same(b, close));
        assert!(
            equal,
            "{}: {key}: wanted {cells:?}, got {found:?}",
            context()
        );
    }
    if let Some(key) = got.keys().find(|key| !wanted.contains_key(*key)) {
        panic!("{}: a row for {key}, which should not be", context());
    }
}
