//! Arithmetic on dates, timestamps and intervals.

use crate::error::QueryError;
use crate::expr::BinaryOp;
use crate::functions::kernel::Typed;
use crate::plan::Conf;

/// `left op right` where one side is a date, a timestamp or an interval; `None` where neither is.
pub(crate) fn arithmetic(
    op: BinaryOp,
    left: &Typed,
    right: &Typed,
    conf: &Conf,
) -> Result<Option<Typed>, QueryError> {
    let _ = (op, left, right, conf);
    Ok(None)
}

/// `-value` of an interval.
pub(crate) fn negate(_: &Typed) -> Option<Typed> {
    None
}
