//! Comparisons, sort keys and group keys: where two values are equal, and which comes first.
//!
//! Comparisons are DataFusion's own operators over operands of one type, so that the optimizer finds join keys and
//! bounds. Arrow orders floats totally, with NaN equal to itself and greatest as in Spark, but tells -0.0 from 0.0;
//! so floats are normalized first.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, ListArray, PrimitiveArray, StructArray,
};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::logical_expr::{BinaryExpr, Expr as DfExpr, Operator, SortExpr};

use super::kernel::{Can, Kernel, Typed};
use super::{cast, conditional, interval, map};
use crate::coerce::{self, is_atomic, is_float, is_numeric};
use crate::error::QueryError;
use crate::expr::BinaryOp;
use crate::types::{CALENDAR, type_sql};

type Result<T> = std::result::Result<T, QueryError>;

/// Whether equal values of this type can differ in their bits.
pub(crate) fn needs_normalizing(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float32 | DataType::Float64 => true,
        DataType::List(element) => needs_normalizing(element.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| needs_normalizing(f.data_type())),
        _ => false,
    }
}

/// The value with -0.0 as 0.0 and every NaN the same.
pub(crate) fn normalized(value: Typed) -> Result<Typed> {
    if !needs_normalizing(&value.data_type) {
        return Ok(value);
    }
    let data_type = value.data_type.clone();
    Ok(Kernel::over_arrays(
        "normalized",
        "",
        vec![value],
        data_type,
        Can::NotFail,
        |args, _| Ok(normalize(&args[0])?),
    ))
}

/// The same with every float in it normalized, however deep.
fn normalize(array: &ArrayRef) -> std::result::Result<ArrayRef, ArrowError> {
    fn each<T: ArrowPrimitiveType>(
        array: &ArrayRef,
        f: impl Fn(T::Native) -> T::Native,
    ) -> PrimitiveArray<T> {
        array.as_primitive::<T>().unary(f)
    }
    Ok(match array.data_type() {
        DataType::List(element) if needs_normalizing(element.data_type()) => {
            let list = array.as_list::<i32>();
            let (field, offsets) = (Arc::clone(element), list.offsets().clone());
            let values = normalize(list.values())?;
            Arc::new(ListArray::try_new(
                field,
                offsets,
                values,
                list.nulls().cloned(),
            )?)
        }
        DataType::Struct(fields) if needs_normalizing(array.data_type()) => {
            let columns = array.as_struct().columns().iter().map(normalize);
            let (columns, nulls) = (
                columns.collect::<std::result::Result<_, _>>()?,
                array.nulls(),
            );
            Arc::new(StructArray::try_new(
                fields.clone(),
                columns,
                nulls.cloned(),
            )?)
        }
        DataType::Float32 => {
            let fixed: Float32Array =
                each::<Float32Type>(array, |v| if v.is_nan() { f32::NAN } else { v + 0.0 });
            Arc::new(fixed)
        }
        DataType::Float64 => {
            let fixed: Float64Array =
                each::<Float64Type>(array, |v| if v.is_nan() { f64::NAN } else { v + 0.0 });
            Arc::new(fixed)
        }
        _ => Arc::clone(array),
    })
}

/// A float as an integer of the same order, NaN greatest: what DataFusion's `min` and `max` take floats for is not
/// Spark's order.
pub(crate) fn ordinal(value: Typed) -> Typed {
    Kernel::over_arrays(
        "ordinal",
        "",
        vec![value],
        DataType::Int64,
        Can::NotFail,
        |args, _| {
            let doubles = arrow::compute::cast(&args[0], &DataType::Float64)?;
            let order = |v: f64| {
                let bits = if v.is_nan() {
                    f64::NAN.to_bits()
                } else {
                    v.to_bits()
                } as i64;
                bits ^ ((bits >> 63) as u64 >> 1) as i64
            };
            Ok(Arc::new(
                doubles
                    .as_primitive::<Float64Type>()
                    .unary::<_, arrow::datatypes::Int64Type>(order),
            ))
        },
    )
}

/// The float that [`ordinal`] made an integer of.
pub(crate) fn from_ordinal(value: Typed, data_type: DataType) -> Typed {
    let target = data_type.clone();
    Kernel::over_arrays(
        "from_ordinal",
        "",
        vec![value],
        data_type,
        Can::NotFail,
        move |args, _| {
            let values = args[0].as_primitive::<arrow::datatypes::Int64Type>();
            let double =
                |order: i64| f64::from_bits((order ^ ((order >> 63) as u64 >> 1) as i64) as u64);
            let doubles: ArrayRef = Arc::new(values.unary::<_, Float64Type>(double));
            Ok(arrow::compute::cast(&doubles, &target)?)
        },
    )
}

fn contains_map(data_type: &DataType) -> bool {
    match data_type {
        DataType::Map(..) => true,
        DataType::List(element) => contains_map(element.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| contains_map(f.data_type())),
        other => *other == CALENDAR,
    }
}

/// Refuses values that have no order, where `function` wants one.
pub(crate) fn orderable(function: &str, value: &Typed) -> Result<()> {
    if !contains_map(&value.data_type) {
        return Ok(());
    }
    if value.data_type == CALENDAR {
        return Err(QueryError::unsupported(
            "putting INTERVAL literals in order",
        ));
    }
    let message = format!(
        "Cannot resolve \"{function}\" due to data type mismatch: The `{function}` does not support ordering on type \"{}\".",
        type_sql(&value.data_type)
    );
    Err(QueryError::mismatch("INVALID_ORDERING_TYPE", message))
}

/// What a value is grouped by: equal values have the same bytes.
pub(crate) fn group_key(value: Typed) -> Result<Typed> {
    match &value.data_type {
        DataType::Map(entries, _) => {
            let entries = entries.data_type();
            if contains_map(entries) || needs_normalizing(entries) {
                let what = format!("grouping by {}", type_sql(&value.data_type));
                return Err(QueryError::unsupported(what));
            }
            Ok(map::sorted(value))
        }
        _ => {
            groupable(&value)?;
            normalized(value)
        }
    }
}

/// Refuses values that cannot be grouped by.
pub(crate) fn groupable(value: &Typed) -> Result<()> {
    if !contains_map(&value.data_type) {
        return Ok(());
    }
    if value.data_type == CALENDAR {
        return Err(QueryError::unsupported(
            "putting INTERVAL literals in order",
        ));
    }
    let message = format!(
        "The expression cannot be used as a grouping expression because its data type \"{}\" is not an orderable data type.",
        type_sql(&value.data_type)
    );
    Err(QueryError::new(
        "GROUP_EXPRESSION_TYPE_IS_NOT_ORDERABLE",
        message,
    ))
}

/// A key of ORDER BY, in one or two: within a value a null is before everything, wherever a NULL itself stands.
pub(crate) fn sort_by(value: Typed, ascending: bool, nulls_first: Option<bool>) -> Vec<SortExpr> {
    let value = match normalized(value.clone()) {
        Ok(normal) => normal,
        Err(_) => value,
    };
    let nulls_first = nulls_first.unwrap_or(ascending);
    if is_atomic(&value.data_type) || value.data_type == DataType::Null || nulls_first == ascending
    {
        return vec![SortExpr::new(value.expr, ascending, nulls_first)];
    }
    // Arrow has one word for both kinds of null, so that another key says where a NULL itself stands.
    let missing = value.expr.clone().is_null();
    vec![
        SortExpr::new(missing, !nulls_first, true),
        SortExpr::new(value.expr, ascending, ascending),
    ]
}

/// The type in which two values are compared. Where nothing has to be cast, fields may be called what they like.
pub(crate) fn common(a: &DataType, b: &DataType) -> Option<DataType> {
    let both_nested = !is_atomic(a) && !is_atomic(b);
    match (a, b) {
        (a, b) if a == b => Some(a.clone()),
        (a, b) if both_nested && coerce::same_shape(a, b) => Some(coerce::named_as(a, b)),
        // A text is read as what it is compared with; other types do not meet.
        (DataType::Utf8, _) | (_, DataType::Utf8) => coerce::wider(a, b),
        (a, b) if is_numeric(a) && is_numeric(b) || both_nested => coerce::wider(a, b),
        (a, b) => coerce::tightest(a, b),
    }
}

/// A comparison, with both sides cast to what they have in common.
pub(crate) fn compare(op: BinaryOp, left: Typed, right: Typed, text: &str) -> Result<Typed> {
    let (left, right) = (interval::plain(left), interval::plain(right));
    if left.data_type == CALENDAR || right.data_type == CALENDAR {
        return Err(QueryError::unsupported(
            "comparing with an INTERVAL literal",
        ));
    }
    let Some(target) = common(&left.data_type, &right.data_type) else {
        let message = format!(
            "Cannot resolve \"{text}\" due to data type mismatch: the left and right operands of the binary operator have incompatible types (\"{}\" and \"{}\").",
            coerce::told(&left),
            coerce::told(&right)
        );
        return Err(QueryError::mismatch("BINARY_OP_DIFF_TYPES", message));
    };
    let side = |value: Typed| -> Result<Typed> {
        let value = cast::implicit(value, &target)?;
        orderable(op.symbol(), &value)?;
        normalized(value)
    };
    let (left, right) = (side(left)?, side(right)?);
    let operator = match op {
        BinaryOp::Eq => Operator::Eq,
        BinaryOp::NotEq => Operator::NotEq,
        BinaryOp::Lt => Operator::Lt,
        BinaryOp::LtEq => Operator::LtEq,
        BinaryOp::Gt => Operator::Gt,
        BinaryOp::GtEq => Operator::GtEq,
        BinaryOp::NullSafeEq => Operator::IsNotDistinctFrom,
        other => return Err(QueryError::unsupported(format!("comparing by {other:?}"))),
    };
    if target == DataType::Null {
        return Ok(match op {
            BinaryOp::NullSafeEq => {
                Typed::literal(datafusion::common::ScalarValue::Boolean(Some(true)))
            }
            _ => Typed::null(&DataType::Boolean),
        });
    }
    let (l, r) = (left.clone(), right.clone());
    let compared = match is_atomic(&target) {
        false => nested(operator, left, right),
        true => {
            let binary = BinaryExpr::new(Box::new(left.expr), operator, Box::new(right.expr));
            Typed::new(DfExpr::BinaryExpr(binary), DataType::Boolean)
        }
    };
    match op {
        BinaryOp::NullSafeEq => Ok(compared),
        _ => Ok(conditional::null_guarded(&l, &r, compared)),
    }
}

/// Arrays and structs: element by element, a null before everything and equal to a null.
fn nested(operator: Operator, left: Typed, right: Typed) -> Typed {
    let name = format!("compare {operator}");
    Kernel::over_arrays(
        name,
        "",
        vec![left, right],
        DataType::Boolean,
        Can::NotFail,
        move |args, rows| {
            let options = arrow::compute::SortOptions {
                descending: false,
                nulls_first: true,
            };
            let order = arrow::array::make_comparator(&args[0], &args[1], options)?;
            let mut out = arrow::array::BooleanBuilder::with_capacity(rows);
            for row in 0..rows {
                let (l, r) = (args[0].is_null(row), args[1].is_null(row));
                if operator == Operator::IsNotDistinctFrom {
                    out.append_value(if l || r {
                        l == r
                    } else {
                        order(row, row).is_eq()
                    });
                    continue;
                }
                if l || r {
                    out.append_null();
                    continue;
                }
                let order = order(row, row);
                out.append_value(match operator {
                    Operator::Eq => order.is_eq(),
                    Operator::NotEq => order.is_ne(),
                    Operator::Lt => order.is_lt(),
                    Operator::LtEq => order.is_le(),
                    Operator::Gt => order.is_gt(),
                    Operator::GtEq => order.is_ge(),
                    other => {
                        return Err(DataFusionError::Internal(format!("no comparison {other}")));
                    }
                });
            }
            Ok(Arc::new(out.finish()))
        },
    )
}

/// `value IN (list)`.
pub(crate) fn is_in(value: Typed, list: Vec<Typed>, text: &str) -> Result<Typed> {
    let of_value = &value.data_type;
    let nested = |v: &Typed| !is_atomic(of_value) && coerce::same_shape(of_value, &v.data_type);
    let target = match list.iter().all(nested) {
        true => Some(coerce::named_as(of_value, of_value)),
        false => {
            let types = std::iter::once(&value).chain(&list);
            coerce::wider_of_all(types.map(|v| &v.data_type))
        }
    };
    let Some(target) = target else {
        let all = std::iter::once(&value).chain(&list);
        let all: Vec<String> = all.map(|v| format!("\"{}\"", coerce::told(v))).collect();
        let message = format!(
            "Cannot resolve \"{text}\" due to data type mismatch: Input to `in` should all be the same type, but it's [{}].",
            all.join(", ")
        );
        return Err(QueryError::mismatch("DATA_DIFF_TYPES", message));
    };
    let value = cast::implicit(value, &target)?;
    let list = list
        .into_iter()
        .map(|v| cast::implicit(v, &target))
        .collect::<Result<Vec<_>>>()?;
    let plain = is_atomic(&target) && !is_float(&target);
    if plain
        && list
            .iter()
            .all(|v| v.constant().is_some_and(|c| !c.is_null()))
    {
        let list = list.into_iter().map(|v| v.expr).collect();
        return Ok(Typed::new(
            value.expr.in_list(list, false),
            DataType::Boolean,
        ));
    }
    let mut found = Typed::literal(datafusion::common::ScalarValue::Boolean(Some(false)));
    for (i, element) in list.into_iter().enumerate() {
        let equal = compare(BinaryOp::Eq, value.clone(), element, text)?;
        found = if i == 0 {
            equal
        } else {
            conditional::or(found, equal)
        };
    }
    Ok(found)
}
