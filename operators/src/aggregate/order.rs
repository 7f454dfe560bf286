//! Functions whose answer depends on the order of rows.

use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

/// They take the first, the last or all of their rows, in order, or stop at one.
const IN_ORDER: [&str; 15] = [
    "any_value",
    "array_agg",
    "collect_list",
    "array_concat_agg",
    "first",
    "first_value",
    "group_concat",
    "last",
    "last_value",
    "listagg",
    "nth_value",
    "string_agg",
    "string_concat",
    "list_agg",
    "try_sum",
];

/// Their `ORDER BY` (as `WITHIN GROUP`) names what is ranked; rows may come in any order.
const RANKED: [&str; 8] = [
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "median",
    "percentile_cont",
    "percentile_disc",
    "quantile_cont",
    "mode",
];

/// Of DISTINCT values they make a set, which comes out sorted.
const SETS: [&str; 2] = ["array_agg", "collect_list"];

/// DataFusion merges their states by an ORDER BY inside.
const SORTED: [&str; 3] = ["first_value", "last_value", "nth_value"];

/// True if states of a function that needs an order can be merged whichever rows came first: DISTINCT values are in an
/// order of their own, and others can be kept with the places of their rows.
pub(crate) fn merges_in_order(function: &AggregateFunctionExpr) -> bool {
    let sorted = SORTED.contains(&function.fun().name()) && !function.is_reversed();
    function.is_distinct() || sorted || lists(function)
}

/// True if it lists its rows as they came.
pub(crate) fn lists(function: &AggregateFunctionExpr) -> bool {
    function.fun().name() == "array_agg"
        && !function.is_distinct()
        && function.order_bys().is_empty()
}

/// True if the function needs its rows in source order. Such a call needs an ordered edge below the aggregation.
pub fn needs_order(function: &AggregateFunctionExpr) -> bool {
    let name = function.fun().name();
    if function.is_distinct() && function.order_bys().is_empty() && SETS.contains(&name) {
        return false;
    }
    let sorts = !function.order_bys().is_empty() && !RANKED.contains(&name);
    IN_ORDER.contains(&name) || sorts
}
