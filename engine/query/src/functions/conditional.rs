//! Logic and choice. What is not chosen is not evaluated, so what cannot be computed there does not fail.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::{BinaryExpr, Expr as DfExpr, Operator};

use super::kernel::{Can, Kernel, Typed};
use super::{Args, cast, interval};
use crate::coerce;
use crate::error::{QueryError, RunError};
use crate::expr::BinaryOp;

type Result<T> = std::result::Result<T, QueryError>;

/// Whether evaluating the expression can fail for some row: such an expression must not be evaluated for rows, or at
/// times, for which the query as written would not.
pub fn can_fail(expr: &DfExpr) -> bool {
    fallible(expr)
}

pub(crate) fn fallible(expr: &DfExpr) -> bool {
    expr.exists(|e| {
        Ok(match e {
            DfExpr::ScalarFunction(f) => {
                f.func.signature().volatility == datafusion::logical_expr::Volatility::Volatile
            }
            _ => false,
        })
    })
    .unwrap_or(true)
}

/// The parts of a conjunction, in order: it is true where each of them is.
pub fn conjuncts(expr: &DfExpr) -> Vec<DfExpr> {
    match expr {
        DfExpr::BinaryExpr(BinaryExpr { left, op, right }) if *op == Operator::And => {
            let mut parts = conjuncts(left);
            parts.extend(conjuncts(right));
            parts
        }
        DfExpr::Case(case) => match ordered_and(case) {
            Some((left, right)) => {
                let mut parts = conjuncts(left);
                parts.extend(conjuncts(right));
                parts
            }
            None => vec![expr.clone()],
        },
        DfExpr::Not(inner) => match inner.as_ref() {
            DfExpr::Not(inner) => conjuncts(inner),
            _ => vec![expr.clone()],
        },
        other => vec![other.clone()],
    }
}

/// The sides of an AND as [`and`] makes it where the right one can fail.
fn ordered_and(case: &Case) -> Option<(&DfExpr, &DfExpr)> {
    let [(when_false, is_false), (when_true, right)] = case.when_then_expr.as_slice() else {
        return None;
    };
    let is = |expr: &DfExpr, value: bool| *expr == constant(Some(value));
    let shape = is(when_false, false) && is(is_false, false) && is(when_true, true);
    let otherwise = operator(right.as_ref().clone(), Operator::And, constant(None));
    (shape && case.else_expr.as_deref() == Some(&otherwise))
        .then_some((case.expr.as_deref()?, right.as_ref()))
}

/// The conjunction of `parts`, in order: none is asked of rows that one before it leaves out.
pub fn all_of(parts: Vec<DfExpr>) -> Option<DfExpr> {
    let typed = parts.into_iter().map(boolean);
    typed.reduce(and).map(|all| all.expr)
}

fn boolean(expr: DfExpr) -> Typed {
    Typed::new(expr, DataType::Boolean)
}

fn constant(value: Option<bool>) -> DfExpr {
    DfExpr::Literal(ScalarValue::Boolean(value), None)
}

fn operator(left: DfExpr, op: Operator, right: DfExpr) -> DfExpr {
    DfExpr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

/// `left AND right`. A right side that can fail is not evaluated where the left one is false: DataFusion evaluates
/// whole columns, so this needs a CASE. Its operand keeps the optimizer from turning it back into an AND.
pub(crate) fn and(left: Typed, right: Typed) -> Typed {
    decided(left, Operator::And, false, right)
}

/// `left OR right`, as [`and`].
pub(crate) fn or(left: Typed, right: Typed) -> Typed {
    decided(left, Operator::Or, true, right)
}

/// `left op right`, which is `by` where the left side is.
fn decided(left: Typed, op: Operator, by: bool, right: Typed) -> Typed {
    if !fallible(&right.expr) {
        return boolean(operator(left.expr, op, right.expr));
    }
    let value = |value: bool| Box::new(constant(Some(value)));
    let with_null = operator(right.expr.clone(), op, constant(None));
    boolean(DfExpr::Case(Case::new(
        Some(Box::new(left.expr)),
        vec![(value(by), value(by)), (value(!by), Box::new(right.expr))],
        Some(Box::new(with_null)),
    )))
}

/// An operator's right side is not evaluated where the left one is null, so what fails there does not. Only where
/// asking twice for the left side is cheap: elsewhere the row fails.
pub(crate) fn null_guarded(left: &Typed, right: &Typed, whole: Typed) -> Typed {
    if !matches!(left.expr, DfExpr::Column(_)) || !fallible(&right.expr) {
        return whole;
    }
    let null = Typed::null(&whole.data_type);
    case(vec![(not(is_null(left.clone())), whole)], null)
}

pub(crate) fn not(value: Typed) -> Typed {
    boolean(DfExpr::Not(Box::new(value.expr)))
}

pub(crate) fn is_null(value: Typed) -> Typed {
    boolean(DfExpr::IsNull(Box::new(value.expr)))
}

pub(crate) fn is_true(value: Typed) -> Typed {
    boolean(DfExpr::IsTrue(Box::new(value.expr)))
}

/// `CASE WHEN ... THEN ... ELSE ... END`, all results of one type.
pub(crate) fn case(branches: Vec<(Typed, Typed)>, otherwise: Typed) -> Typed {
    let data_type = otherwise.data_type.clone();
    let guarded = data_type == DataType::Boolean
        && (fallible(&otherwise.expr) || branches.iter().any(|(_, then)| fallible(&then.expr)));
    if guarded {
        // The optimizer makes ANDs and ORs of a short CASE with boolean results, which evaluate everything.
        let nested = branches
            .into_iter()
            .rev()
            .fold(otherwise.expr, |rest, (when, then)| {
                let branch = (Box::new(constant(Some(true))), Box::new(then.expr));
                DfExpr::Case(Case::new(
                    Some(Box::new(when.expr)),
                    vec![branch],
                    Some(Box::new(rest)),
                ))
            });
        return Typed::new(nested, data_type);
    }
    let branches = branches
        .into_iter()
        .map(|(when, then)| (Box::new(when.expr), Box::new(then.expr)))
        .collect();
    Typed::new(
        DfExpr::Case(Case::new(None, branches, Some(Box::new(otherwise.expr)))),
        data_type,
    )
}

fn coalesce(values: Vec<Typed>) -> Result<Typed> {
    let (mut values, data_type) = coerce::same_type("coalesce", values)?;
    if values[1..].iter().any(|v| fallible(&v.expr)) {
        let last = values.pop().unwrap_or_else(|| Typed::null(&data_type));
        let branches = values
            .into_iter()
            .map(|v| (not(is_null(v.clone())), v))
            .collect();
        return Ok(case(branches, last));
    }
    Ok(Kernel::over_arrays(
        "coalesce",
        "",
        values,
        data_type,
        Can::NotFail,
        |args, _| {
            let mut result = Arc::clone(&args[0]);
            for next in &args[1..] {
                if result.null_count() == 0 {
                    break;
                }
                let known = arrow::compute::is_not_null(&result)?;
                result = arrow::compute::kernels::zip::zip(&known, &result, next)?;
            }
            Ok(result)
        },
    ))
}

/// The greatest or least value that is not null.
fn extreme(name: &str, values: Vec<Typed>) -> Result<Typed> {
    let (values, data_type) = coerce::same_type(name, values)?;
    for value in &values {
        super::compare::orderable(name, value)?;
    }
    let greatest = name == "greatest";
    let floats = super::compare::needs_normalizing(&data_type);
    Ok(Kernel::over_arrays(
        name,
        "",
        values,
        data_type,
        Can::NotFail,
        move |args, rows| {
            let options = arrow::compute::SortOptions {
                descending: false,
                nulls_first: true,
            };
            let mut result = Arc::clone(&args[0]);
            for next in &args[1..] {
                let order = arrow::array::make_comparator(next, &result, options)?;
                let take: arrow::array::BooleanArray = (0..rows)
                    .map(|row| {
                        let order = order(row, row);
                        let better = if greatest {
                            order.is_gt()
                        } else {
                            order.is_lt()
                        };
                        Some(
                            !next.is_null(row)
                                && (result.is_null(row)
                                    || better && !(floats && equal_zeros(next, &result, row))),
                        )
                    })
                    .collect();
                drop(order);
                result = arrow::compute::kernels::zip::zip(&take, next, &result)?;
            }
            Ok(result)
        },
    ))
}

/// Of two zeros that differ in sign only, the first stays.
fn equal_zeros(a: &dyn Array, b: &dyn Array, row: usize) -> bool {
    use arrow::datatypes::{Float32Type, Float64Type};
    match (
        a.as_primitive_opt::<Float64Type>(),
        b.as_primitive_opt::<Float64Type>(),
    ) {
        (Some(a), Some(b)) => a.value(row) == b.value(row),
        _ => match (
            a.as_primitive_opt::<Float32Type>(),
            b.as_primitive_opt::<Float32Type>(),
        ) {
            (Some(a), Some(b)) => a.value(row) == b.value(row),
            _ => false,
        },
    }
}

/// The functions of this family.
/// `decode(value, a, of_a, b, of_b, ..., otherwise)`: the result beside what the value is, NULL being equal to NULL.
fn decode(mut values: Vec<Typed>) -> Result<Typed> {
    let value = values.remove(0);
    let otherwise = match values.len() % 2 {
        1 => values.pop(),
        _ => None,
    };
    let (mut conditions, mut results) = (vec![], vec![]);
    for pair in values.chunks_exact(2) {
        let (value, wanted) = (value.clone(), pair[0].clone());
        conditions.push(super::compare::compare(
            BinaryOp::NullSafeEq,
            value,
            wanted,
            "decode",
        )?);
        results.push(pair[1].clone());
    }
    results.push(otherwise.unwrap_or_else(|| Typed::null(&DataType::Null)));
    let (mut results, _) = coerce::same_type("casewhen", results)?;
    let last = results
        .pop()
        .unwrap_or_else(|| Typed::null(&DataType::Null));
    Ok(case(conditions.into_iter().zip(results).collect(), last))
}

pub(super) fn build(name: &str, args: &Args) -> Result<Option<Typed>> {
    let zero_of =
        |like: &Typed| cast::implicit(Typed::literal(ScalarValue::Int32(Some(0))), &like.data_type);
    Ok(Some(match name {
        "coalesce" => coalesce(args.at_least(1)?)?,
        "ifnull" | "nvl" => coalesce(args.exactly::<2>()?.into())?,
        "nvl2" => {
            let [test, some, none] = args.exactly()?;
            let (values, _) = coerce::same_type("nvl2", vec![some, none])?;
            let [some, none] = two(values)?;
            case(vec![(not(is_null(test)), some)], none)
        }
        "decode" if args.values.len() > 2 => decode(args.values.clone())?,
        "nullif" => {
            let [value, other] = args.exactly()?;
            let equal = super::compare::compare(BinaryOp::Eq, value.clone(), other, "nullif")?;
            case(vec![(equal, Typed::null(&value.data_type))], value)
        }
        "if" => {
            let [test, yes, no] = args.exactly()?;
            let test = coerce::argument("if", 0, test, &DataType::Boolean)?;
            let [yes, no] = two(coerce::same_type("if", vec![yes, no])?.0)?;
            case(vec![(test, yes)], no)
        }
        "nullifzero" => {
            let [value] = args.exactly()?;
            let equal = super::compare::compare(
                BinaryOp::Eq,
                value.clone(),
                zero_of(&value)?,
                "nullifzero",
            )?;
            case(vec![(equal, Typed::null(&value.data_type))], value)
        }
        "zeroifnull" => {
            let [value] = args.exactly()?;
            let zero = zero_of(&value)?;
            coalesce(vec![value, zero])?
        }
        "isnull" => is_null(args.one()?),
        "isnotnull" => not(is_null(args.one()?)),
        "isnan" => {
            let value = coerce::argument("isnan", 0, args.one()?, &DataType::Float64)?;
            Kernel::over_arrays(
                "isnan",
                "",
                vec![value],
                DataType::Boolean,
                Can::NotFail,
                |args, _| {
                    let values = args[0].as_primitive::<arrow::datatypes::Float64Type>();
                    let nan = values.iter().map(|v| Some(v.is_some_and(f64::is_nan)));
                    Ok(Arc::new(nan.collect::<arrow::array::BooleanArray>()))
                },
            )
        }
        "equal_null" => {
            let [left, right] = args.exactly()?;
            super::compare::compare(BinaryOp::NullSafeEq, left, right, "equal_null")?
        }
        "greatest" | "least" => extreme(name, args.at_least(2)?)?,
        "assert_true" => {
            let [value, message] = args.exactly()?;
            let value = coerce::argument(name, 0, value, &DataType::Boolean)?;
            let message = coerce::argument(name, 1, message, &DataType::Utf8)?;
            Kernel::over_arrays(
                name,
                "",
                vec![value, message],
                DataType::Null,
                Can::Fail,
                |args, rows| {
                    let (holds, messages) = (args[0].as_boolean(), args[1].as_string::<i32>());
                    let failed = (0..rows).find(|row| holds.is_null(*row) || !holds.value(*row));
                    if let Some(row) = failed {
                        let message = messages.iter().nth(row).flatten();
                        return Err(RunError::raise(
                            "USER_RAISED_EXCEPTION",
                            message.unwrap_or("null"),
                        ));
                    }
                    Ok(arrow::array::new_null_array(&DataType::Null, rows))
                },
            )
        }
        "raise_error" => {
            let value = coerce::argument(name, 0, args.one()?, &DataType::Utf8)?;
            Kernel::over_arrays(
                name,
                "",
                vec![value],
                DataType::Null,
                Can::Fail,
                |args, rows| {
                    let messages = args[0].as_string::<i32>();
                    match messages.iter().next() {
                        Some(message) => Err(RunError::raise(
                            "USER_RAISED_EXCEPTION",
                            message.unwrap_or("null"),
                        )),
                        None => Ok(arrow::array::new_null_array(&DataType::Null, rows)),
                    }
                },
            )
        }
        "typeof" => {
            let value = args.one()?;
            let value = match interval::Kind::of(&value) {
                Some(interval::Kind::Days) => interval::plain_days(value),
                Some(_) if value.data_type == crate::types::CALENDAR => {
                    let message = "typeof of an INTERVAL literal of these units";
                    return Err(QueryError::unsupported(message));
                }
                _ => value,
            };
            let text = crate::types::type_text(&value.data_type);
            Typed::literal(ScalarValue::Utf8(Some(text)))
        }
        _ => return Ok(None),
    }))
}

fn two(values: Vec<Typed>) -> Result<[Typed; 2]> {
    values
        .try_into()
        .map_err(|_| QueryError::unsupported("a choice of this many values"))
}
