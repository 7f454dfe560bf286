//! Resolved conditions as who wrote the query would write them, as far as that is known.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;

use super::conditional::conjuncts;
use super::kernel::Kernel;

/// The condition in words.
pub fn written(condition: &Expr) -> String {
    let parts = conjuncts(condition);
    match parts.as_slice() {
        [one] => plainly(one),
        several => {
            let parts: Vec<String> = several.iter().map(part).collect();
            parts.join(" AND ")
        }
    }
}

/// The same inside of another one.
fn part(expr: &Expr) -> String {
    match expr {
        Expr::BinaryExpr(_) | Expr::Case(_) => format!("({})", written(expr)),
        other => written(other),
    }
}

fn plainly(expr: &Expr) -> String {
    match expr {
        Expr::BinaryExpr(binary) => {
            format!(
                "{} {} {}",
                part(&binary.left),
                binary.op,
                part(&binary.right)
            )
        }
        Expr::ScalarFunction(call) if call.func.name() == "add_interval" => {
            let kernel = call.func.inner().downcast_ref::<Kernel>();
            let sign = match kernel.is_some_and(|kernel| kernel.params().starts_with('-')) {
                true => "-",
                false => "+",
            };
            match call.args.as_slice() {
                [moment, interval] => format!("{} {sign} {}", part(moment), part(interval)),
                _ => expr.to_string(),
            }
        }
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => {
            let micros = interval.nanoseconds / 1_000;
            let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
            let amounts = [
                (i64::from(interval.months), "MONTHS"),
                (i64::from(interval.days), "DAYS"),
                (seconds, "SECONDS"),
                (micros, "MICROSECONDS"),
            ];
            let amounts = amounts.iter().filter(|(amount, _)| *amount != 0);
            let amounts: Vec<String> = amounts
                .map(|(amount, unit)| format!("{amount} {unit}"))
                .collect();
            match amounts.is_empty() {
                true => "INTERVAL 0 SECONDS".into(),
                false => format!("INTERVAL {}", amounts.join(" ")),
            }
        }
        other => other.to_string(),
    }
}
