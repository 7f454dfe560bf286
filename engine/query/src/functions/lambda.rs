//! Functions that take functions: `transform`, `filter`, `aggregate` and their like.
//!
//! A lambda's body is resolved over its parameters as columns, and evaluated once per batch over all elements of all
//! lists; columns from outside travel along as further arguments, repeated for each element.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{filter, take};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::{ColumnarValue, Expr as DfExpr, ExprSchemable};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::kernel::{Can, Kernel, Result as Run, Typed};
use super::nested::{compact, map_types};
use super::{comparator, conditional, map};
use crate::coerce;
use crate::error::QueryError;
use crate::expr::Expr;
use crate::types::list_of;

type Result<T> = std::result::Result<T, QueryError>;

/// An argument of a higher-order function.
pub(crate) enum Arg {
    Value(Typed),
    Lambda { params: Vec<String>, body: Expr },
}

/// True for the functions that give the current time or date.
pub fn is_clock(name: &str) -> bool {
    ["now", "current_date", "current_time"].contains(&name)
}

/// Resolves a lambda's body with its parameters in scope.
pub(crate) type ResolveBody<'r> = dyn Fn(&[(String, Typed)], &Expr) -> Result<Typed> + 'r;

/// A lambda ready to run: its body over a batch of parameters and captured columns.
pub(super) struct Body {
    physical: Arc<dyn PhysicalExpr>,
    schema: Arc<Schema>,
    pub(super) captured: Vec<Typed>,
    pub(super) data_type: DataType,
    can: Can,
    pub(super) text: String,
}

impl Body {
    /// The body with each parameter a column of the given type; columns from outside become columns behind them.
    pub(super) fn new(
        lambda: (&[String], &Expr),
        types: &[DataType],
        resolve: &ResolveBody<'_>,
    ) -> Result<Body> {
        let (names, body) = lambda;
        if names.len() != types.len() {
            let message = format!(
                "Invalid lambda function call. A higher order function expects {} arguments, but got {}.",
                types.len(),
                names.len()
            );
            return Err(QueryError::new(
                "INVALID_LAMBDA_FUNCTION_CALL.NUM_ARGS_MISMATCH",
                message,
            ));
        }
        // Parameters of nested lambdas are told apart by their depth, so that equal lambdas have equal texts.
        let depth = DEPTH.get();
        let own = |i: usize| format!("\u{1}parameter {depth} {i}");
        let params: Vec<(String, Typed)> = names
            .iter()
            .zip(types)
            .enumerate()
            .map(|(i, (name, t))| {
                (
                    name.clone(),
                    Typed::new(DfExpr::Column(Column::new_unqualified(own(i))), t.clone()),
                )
            })
            .collect();
        DEPTH.set(depth + 1);
        let value = resolve(&params, body);
        DEPTH.set(depth);
        Body::over(value?, types, depth)
    }

    /// `value` is over columns that [`Body::new`] names, and others.
    fn over(value: Typed, types: &[DataType], depth: usize) -> Result<Body> {
        let mut captured: Vec<Typed> = vec![];
        let mut fields: Vec<Field> = types
            .iter()
            .enumerate()
            .map(|(i, t)| Field::new(format!("{i}"), t.clone(), true))
            .collect();
        let prefix = format!("\u{1}parameter {depth} ");
        let own = |name: &str| name.strip_prefix(&prefix).map(str::to_string);
        let text = value.expr.to_string();
        let mut outside: Vec<DfExpr> = vec![];
        let renamed = value.expr.clone().transform_up(|e| {
            let name = match &e {
                DfExpr::Column(column) => own(&column.name),
                DfExpr::OuterReferenceColumn(..) => None,
                // The current time is known outside.
                DfExpr::ScalarFunction(call) if is_clock(call.func.name()) => None,
                _ => return Ok(Transformed::no(e)),
            };
            let name = name.unwrap_or_else(|| {
                let at = outside.iter().position(|known| *known == e);
                let at = at.unwrap_or_else(|| {
                    outside.push(e);
                    outside.len() - 1
                });
                format!("outside {at}")
            });
            Ok(Transformed::yes(DfExpr::Column(Column::new_unqualified(
                name,
            ))))
        })?;
        for value in outside {
            let data_type = match &value {
                DfExpr::Column(column) => outside_type(column),
                DfExpr::OuterReferenceColumn(field, _) => Some(field.data_type().clone()),
                clock => Some(clock.get_type(&DFSchema::empty())?),
            };
            let Some(data_type) = data_type else {
                return Err(QueryError::unsupported(
                    "a lambda over this column from outside",
                ));
            };
            captured.push(Typed::new(value, data_type));
        }
        fields.extend(
            captured
                .iter()
                .enumerate()
                .map(|(i, c)| Field::new(format!("outside {i}"), c.data_type.clone(), true)),
        );
        let schema = Arc::new(Schema::new(fields));
        let df = DFSchema::try_from(Arc::clone(&schema))?;
        let physical = create_physical_expr(
            &renamed.data,
            &df,
            &ExecutionProps::new(),
            &Default::default(),
        )?;
        let can = if conditional::fallible(&value.expr) {
            Can::Fail
        } else {
            Can::NotFail
        };
        Ok(Body {
            physical,
            schema,
            captured,
            data_type: value.data_type,
            can,
            text,
        })
    }

    pub(super) fn run(
        &self,
        params: Vec<ArrayRef>,
        captured: &[ArrayRef],
        parents: &UInt32Array,
    ) -> Run<ArrayRef> {
        let mut columns = params;
        for column in captured {
            columns.push(take(column, parents, None)?);
        }
        let rows = parents.len();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        match self.physical.evaluate(&batch)? {
            ColumnarValue::Array(array) => Ok(array),
            ColumnarValue::Scalar(scalar) => scalar.to_array_of_size(rows),
        }
    }
}

thread_local! {
    static DEPTH: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    static OUTSIDE: std::cell::RefCell<Vec<(Column, DataType)>> = const { std::cell::RefCell::new(vec![]) };
}

/// Tells lambdas the types of the columns around them.
pub(crate) fn with_columns<T>(columns: Vec<(Column, DataType)>, resolve: impl FnOnce() -> T) -> T {
    let before = OUTSIDE.replace(columns);
    let result = resolve();
    OUTSIDE.replace(before);
    result
}

fn outside_type(column: &Column) -> Option<DataType> {
    OUTSIDE.with_borrow(|known| {
        known
            .iter()
            .find(|(c, _)| c == column)
            .map(|(_, t)| t.clone())
    })
}

/// For each element of all lists the row it belongs to.
pub(super) fn parents(offsets: &[i32]) -> UInt32Array {
    let rows = offsets.windows(2).enumerate();
    rows.flat_map(|(row, two)| std::iter::repeat_n(row as u32, (two[1] - two[0]) as usize))
        .collect()
}

/// For each element of all lists its place in its list.
fn places(offsets: &[i32]) -> ArrayRef {
    Arc::new(
        offsets
            .windows(2)
            .flat_map(|two| 0..two[1] - two[0])
            .collect::<arrow::array::Int32Array>(),
    )
}

pub(super) fn list_argument(name: &str, value: &Typed) -> Result<DataType> {
    match &value.data_type {
        DataType::List(element) => Ok(element.data_type().clone()),
        _ => Err(coerce::unexpected(name, 0, value, "ARRAY")),
    }
}

fn rebuilt(list: &ListArray, values: ArrayRef) -> Run<ArrayRef> {
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(
        field,
        list.offsets().clone(),
        values,
        list.nulls().cloned(),
    )?))
}

/// `transform`, `filter`, `exists` and `forall` over a list.
fn over_list(
    name: &str,
    value: Typed,
    lambda: (&[String], &Expr),
    resolve: &ResolveBody<'_>,
) -> Result<Typed> {
    let element = list_argument(name, &value)?;
    let indexed = lambda.0.len() == 2 && matches!(name, "transform" | "filter");
    let types = if indexed {
        vec![element.clone(), DataType::Int32]
    } else {
        vec![element.clone()]
    };
    let body = Body::new(lambda, &types, resolve)?;
    if name != "transform" && !matches!(body.data_type, DataType::Boolean | DataType::Null) {
        return Err(QueryError::mismatch(
            "UNEXPECTED_INPUT_TYPE",
            format!("the lambda of {name} must be a condition"),
        ));
    }
    let returns = match name {
        "transform" => list_of(body.data_type.clone()),
        "filter" => value.data_type.clone(),
        _ => DataType::Boolean,
    };
    let args = std::iter::once(value)
        .chain(body.captured.clone())
        .collect();
    let kind = name.to_string();
    Ok(Kernel::over_arrays(
        name,
        body.text.clone(),
        args,
        returns,
        body.can,
        move |args, rows| {
            let list = compact(args[0].as_list())?;
            let offsets = list.value_offsets().to_vec();
            let mut params = vec![Arc::clone(list.values())];
            if indexed {
                params.push(places(&offsets));
            }
            let result = body.run(params, &args[1..], &parents(&offsets))?;
            if kind == "transform" {
                return rebuilt(&list, result);
            }
            let result = arrow::compute::cast(&result, &DataType::Boolean)?;
            let holds = result.as_boolean();
            let is = |i: usize| {
                if holds.is_valid(i) {
                    Some(holds.value(i))
                } else {
                    None
                }
            };
            if kind == "filter" {
                let keep: BooleanArray = (0..holds.len())
                    .map(|i| Some(is(i) == Some(true)))
                    .collect();
                let lengths = offsets
                    .windows(2)
                    .map(|two| (two[0]..two[1]).filter(|i| keep.value(*i as usize)).count());
                let field = Arc::new(Field::new_list_field(list.value_type(), true));
                let values = filter(list.values(), &keep)?;
                let offsets = OffsetBuffer::from_lengths(lengths);
                return Ok(Arc::new(ListArray::try_new(
                    field,
                    offsets,
                    values,
                    list.nulls().cloned(),
                )?));
            }
            // Three-valued: one that is known to decide, else unknown if any is, else the opposite.
            let decisive = kind == "exists";
            let verdicts = (0..rows).map(|row| {
                let range = offsets[row] as usize..offsets[row + 1] as usize;
                match list.is_valid(row) {
                    false => None,
                    true if range.clone().any(|i| is(i) == Some(decisive)) => Some(decisive),
                    true if range.clone().any(|i| is(i).is_none()) => None,
                    true => Some(!decisive),
                }
            });
            Ok(Arc::new(verdicts.collect::<BooleanArray>()))
        },
    ))
}

/// `transform_keys`, `transform_values` and `map_filter`.
fn over_map(
    name: &str,
    value: Typed,
    lambda: (&[String], &Expr),
    resolve: &ResolveBody<'_>,
) -> Result<Typed> {
    let Some((k, v)) = map_types(&value.data_type) else {
        return Err(coerce::unexpected(name, 0, &value, "MAP"));
    };
    let body = Body::new(lambda, &[k.clone(), v.clone()], resolve)?;
    let returns = match name {
        "transform_keys" => crate::types::map_of(body.data_type.clone(), v),
        "transform_values" => crate::types::map_of(k, body.data_type.clone()),
        _ => value.data_type.clone(),
    };
    let args = std::iter::once(value)
        .chain(body.captured.clone())
        .collect();
    let kind = name.to_string();
    let can = if name == "transform_keys" {
        Can::Fail
    } else {
        body.can
    };
    Ok(Kernel::over_arrays(
        name,
        body.text.clone(),
        args,
        returns,
        can,
        move |args, _| {
            let map = args[0].as_map();
            // A sliced map holds entries of other rows.
            let (first, last) = (map.value_offsets()[0], map.value_offsets()[map.len()]);
            let of = |side: &ArrayRef| side.slice(first as usize, (last - first) as usize);
            let (keys, values) = (of(map.keys()), of(map.values()));
            let offsets: Vec<i32> = map.value_offsets().iter().map(|o| o - first).collect();
            let result = body.run(
                vec![Arc::clone(&keys), Arc::clone(&values)],
                &args[1..],
                &parents(&offsets),
            )?;
            let nulls = map.nulls().cloned();
            let buffer = OffsetBuffer::new(offsets.clone().into());
            match kind.as_str() {
                "transform_keys" => map::assemble(result, values, buffer, nulls),
                "transform_values" => map::assemble(keys, result, buffer, nulls),
                _ => {
                    let result = arrow::compute::cast(&result, &DataType::Boolean)?;
                    let holds = result.as_boolean();
                    let keep: BooleanArray = (0..holds.len())
                        .map(|i| Some(holds.is_valid(i) && holds.value(i)))
                        .collect();
                    let lengths = offsets
                        .windows(2)
                        .map(|two| (two[0]..two[1]).filter(|i| keep.value(*i as usize)).count());
                    map::assemble(
                        filter(&keys, &keep)?,
                        filter(&values, &keep)?,
                        OffsetBuffer::from_lengths(lengths),
                        nulls,
                    )
                }
            }
        },
    ))
}

/// `zip_with`: two lists side by side, the shorter one padded with nulls.
fn zip_with(
    left: Typed,
    right: Typed,
    lambda: (&[String], &Expr),
    resolve: &ResolveBody<'_>,
) -> Result<Typed> {
    let types = [
        list_argument("zip_with", &left)?,
        list_argument("zip_with", &right)?,
    ];
    let body = Body::new(lambda, &types, resolve)?;
    let zipped = super::nested::arrays_zip(vec!["l".into(), "r".into()], vec![left, right])?;
    let args = std::iter::once(zipped)
        .chain(body.captured.clone())
        .collect();
    let returns = list_of(body.data_type.clone());
    Ok(Kernel::over_arrays(
        "zip_with",
        body.text.clone(),
        args,
        returns,
        body.can,
        move |args, _| {
            let list = compact(args[0].as_list())?;
            let pairs = list.values().as_struct();
            let params = vec![Arc::clone(pairs.column(0)), Arc::clone(pairs.column(1))];
            rebuilt(
                &list,
                body.run(params, &args[1..], &parents(list.value_offsets()))?,
            )
        },
    ))
}

/// `aggregate`: a fold, one step for the nth elements of all lists together.
fn fold(
    value: Typed,
    start: Typed,
    merge: (&[String], &Expr),
    finish: Option<(&[String], &Expr)>,
    resolve: &ResolveBody<'_>,
) -> Result<Typed> {
    let element = list_argument("aggregate", &value)?;
    let state = start.data_type.clone();
    let body = Body::new(merge, &[state.clone(), element], resolve)?;
    if body.data_type != state {
        let message = "the merge function of aggregate must return the type of the start value";
        return Err(QueryError::mismatch("UNEXPECTED_INPUT_TYPE", message));
    }
    let finish = finish
        .map(|finish| Body::new(finish, std::slice::from_ref(&state), resolve))
        .transpose()?;
    let returns = finish.as_ref().map_or(state, |f| f.data_type.clone());
    let can = match &finish {
        Some(f) if f.can == Can::Fail => Can::Fail,
        _ => body.can,
    };
    let text = format!("{} {}", body.text, finish.as_ref().map_or("", |f| &f.text));
    let merged = body.captured.len();
    let mut args = vec![value, start];
    args.extend(body.captured.clone());
    args.extend(finish.iter().flat_map(|f| f.captured.clone()));
    Ok(Kernel::over_arrays(
        "aggregate",
        text,
        args,
        returns,
        can,
        move |args, rows| {
            let list = args[0].as_list::<i32>();
            let mut state = Arc::clone(&args[1]);
            let length = |row: usize| {
                if list.is_null(row) {
                    0
                } else {
                    list.value_length(row)
                }
            };
            let steps = (0..rows).map(length).max().unwrap_or(0);
            for step in 0..steps {
                let active: UInt32Array = (0..rows)
                    .filter(|&row| step < length(row))
                    .map(|row| row as u32)
                    .collect();
                let elements: UInt32Array = active
                    .values()
                    .iter()
                    .map(|row| (list.value_offsets()[*row as usize] + step) as u32)
                    .collect();
                let params = vec![
                    take(&state, &active, None)?,
                    take(list.values(), &elements, None)?,
                ];
                let next = body.run(params, &args[2..2 + merged], &active)?;
                let mut source: Vec<(usize, usize)> = (0..rows).map(|row| (0, row)).collect();
                for (i, row) in active.values().iter().enumerate() {
                    source[*row as usize] = (1, i);
                }
                state = arrow::compute::interleave(&[state.as_ref(), next.as_ref()], &source)?;
            }
            let known: BooleanArray = (0..rows).map(|row| Some(list.is_null(row))).collect();
            let result = match &finish {
                None => state,
                Some(finish) => finish.run(
                    vec![state],
                    &args[2 + merged..],
                    &(0..rows as u32).collect(),
                )?,
            };
            Ok(arrow::compute::nullif(&result, &known)?)
        },
    ))
}

/// A call of the function called `name`.
pub(crate) fn call(name: &str, args: Vec<Arg>, resolve: &ResolveBody<'_>) -> Result<Typed> {
    use Arg::{Lambda, Value};
    match (name, args.as_slice()) {
        (
            "transform" | "filter" | "exists" | "any_match" | "forall" | "all_match",
            [Value(value), Lambda { params, body }],
        ) => {
            let name = match name {
                "any_match" => "exists",
                "all_match" => "forall",
                name => name,
            };
            over_list(name, value.clone(), (params, body), resolve)
        }
        (
            "transform_keys" | "transform_values" | "map_filter",
            [Value(value), Lambda { params, body }],
        ) => over_map(name, value.clone(), (params, body), resolve),
        ("zip_with", [Value(left), Value(right), Lambda { params, body }]) => {
            zip_with(left.clone(), right.clone(), (params, body), resolve)
        }
        ("array_sort", [Value(value), Lambda { params, body }]) => {
            comparator::sorted_by(value.clone(), (params, body), resolve)
        }
        ("map_zip_with", [Value(left), Value(right), Lambda { params, body }]) => {
            comparator::map_zip_with(left.clone(), right.clone(), (params, body), resolve)
        }
        ("aggregate" | "reduce", [Value(value), Value(start), Lambda { params, body }]) => {
            fold(value.clone(), start.clone(), (params, body), None, resolve)
        }
        (
            "aggregate" | "reduce",
            [
                Value(value),
                Value(start),
                Lambda { params, body },
                Lambda { params: p, body: b },
            ],
        ) => fold(
            value.clone(),
            start.clone(),
            (params, body),
            Some((p, b)),
            resolve,
        ),
        _ if takes_lambda(name) || !super::known::is_known(name) => Err(super::unknown(name)),
        _ => {
            let message = format!(
                "Invalid lambda function call. A lambda function should only be used in a higher order function, and `{name}` is none."
            );
            Err(QueryError::new(
                "INVALID_LAMBDA_FUNCTION_CALL.NON_HIGHER_ORDER_FUNCTION",
                message,
            ))
        }
    }
}

/// Whether the model's function of this name takes a lambda.
fn takes_lambda(name: &str) -> bool {
    let names = "transform filter exists any_match forall all_match transform_keys transform_values map_filter \
                 map_zip_with zip_with aggregate reduce array_sort";
    names.split_whitespace().any(|known| known == name)
}
