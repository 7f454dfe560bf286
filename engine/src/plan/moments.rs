//! Columns that are a row's event time and a constant: made by a projection, as the end of a range often is.

use datafusion::logical_expr::LogicalPlan;
use highwater_query::{Deduplicate, Observe, TimeWindow, Watermark, node_of, shifted};

use super::event_time::watermarked;
use super::late::LateRows;

/// By how many microseconds, at least and at most, a column of a plan is after the event time of its row, if it is that
/// time and a constant.
pub(super) fn after_event_time(plan: &LogicalPlan, index: usize) -> Option<(i64, i64)> {
    if watermarked(plan)[index] {
        return Some((0, 0));
    }
    if let Some(watermark) = node_of::<Watermark>(plan) {
        // The time may have been made event time above the projection that made the column.
        let below = watermark.input.as_ref();
        let time = below.schema().maybe_index_of_column(&watermark.column)?;
        let (column, time) = (origin(below, index), origin(below, time));
        if std::ptr::eq(column.plan, time.plan) && column.index == time.index {
            let least = column.after_us.0.checked_sub(time.after_us.1)?;
            let most = column.after_us.1.checked_sub(time.after_us.0)?;
            return Some((least, most));
        }
    }
    let (below, index, after_us) = step(plan, index)?;
    plus(after_event_time(below, index)?, after_us)
}

/// Where a column comes from, and by how much it is after what it was there.
struct Origin<'a> {
    plan: &'a LogicalPlan,
    index: usize,
    after_us: (i64, i64),
}

fn origin(plan: &LogicalPlan, index: usize) -> Origin<'_> {
    let mut found = Origin {
        plan,
        index,
        after_us: (0, 0),
    };
    while let Some((plan, index, more_us)) = step(found.plan, found.index) {
        let Some(after_us) = plus(found.after_us, more_us) else {
            break;
        };
        found = Origin {
            plan,
            index,
            after_us,
        };
    }
    found
}

/// The column below of which a column is made, and by how much it is after that one.
fn step(plan: &LogicalPlan, index: usize) -> Option<(&LogicalPlan, usize, (i64, i64))> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let (column, after_us) = shifted(&projection.expr[index])?;
            let below = projection.input.as_ref();
            let index = below.schema().maybe_index_of_column(&column)?;
            Some((below, index, after_us))
        }
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            match index.checked_sub(left) {
                None => Some((&join.left, index, (0, 0))),
                Some(index) if index < join.right.schema().fields().len() => {
                    Some((&join.right, index, (0, 0)))
                }
                Some(_) => None,
            }
        }
        LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            Some((plan.inputs()[0], index, (0, 0)))
        }
        LogicalPlan::Extension(_) => {
            let same = node_of::<Watermark>(plan).is_some()
                || node_of::<Observe>(plan).is_some()
                || node_of::<LateRows>(plan).is_some()
                || node_of::<Deduplicate>(plan).is_some()
                || node_of::<TimeWindow>(plan).is_some();
            let below = *plan.inputs().first()?;
            (same && index < below.schema().fields().len()).then_some((below, index, (0, 0)))
        }
        _ => None,
    }
}

fn plus(a: (i64, i64), b: (i64, i64)) -> Option<(i64, i64)> {
    Some((a.0.checked_add(b.0)?, a.1.checked_add(b.1)?))
}
