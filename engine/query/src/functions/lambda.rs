//! Functions that take functions: `transform`, `filter`, `aggregate` and their like.

use crate::error::QueryError;
use crate::expr::Expr;
use crate::functions::kernel::Typed;

/// An argument of a higher-order function.
pub(crate) enum Arg {
    Value(Typed),
    Lambda { params: Vec<String>, body: Expr },
}

/// Resolves a lambda's body with its parameters in scope.
pub(crate) type ResolveBody<'r> =
    dyn Fn(&[(String, Typed)], &Expr) -> Result<Typed, QueryError> + 'r;

/// A call of the function called `name`.
pub(crate) fn call(
    name: &str,
    args: Vec<Arg>,
    resolve: &ResolveBody<'_>,
) -> Result<Typed, QueryError> {
    let _ = (args, resolve);
    Err(super::unknown(name))
}
