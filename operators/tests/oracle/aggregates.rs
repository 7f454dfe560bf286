//! Every aggregate function there is, grouped every way, after every epoch.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_operators::Edge;
use highwater_operators::aggregate::{Emit, State, aggregate, aggregate_with_state, needs_order};

use crate::cluster::{CLUSTERS, Cluster, run, tiny_budget};
use crate::data::{Epochs, Random, schema};
use crate::reference::{CLOSE, Case, Close, ROUGH, Reference, Table, change, put, same};

/// Functions that no case covers, and why.
const EXCLUDED: [(&str, &str); 1] = [(
    "grouping",
    "a marker that DataFusion's planner replaces; it has no accumulator",
)];

/// Grouping columns; each case takes one set, in turn.
const KEYS: [&[&str]; 9] = [
    &["ki"],
    &["ks"],
    &[],
    &["kf"],
    &["kv"],
    &["ki", "ks"],
    &["kb"],
    &["kf", "kv", "kb"],
    &["d"],
];

/// Whose answers are sets: the oracle's come in hash order.
const SETS: [&str; 2] = ["collect_set", "DISTINCT"];

const PLAIN: &[&str] = &[
    "count(*), count(i), count(x) FILTER (WHERE b)",
    "count(DISTINCT i), count(DISTINCT s), count(DISTINCT x), count(DISTINCT v), count(DISTINCT b)",
    "sum(i), sum(j), sum(u), sum(d), sum(x), sum(i) FILTER (WHERE x > 0)",
    "sum(DISTINCT i), avg(DISTINCT x)",
    "avg(i), avg(x), avg(d), avg(u)",
    "min(i), max(i), min(x), max(x), min(s), max(s), min(v), max(v)",
    "min(d), max(d), min(ts), max(ts), min(b), max(b)",
    "median(x), median(i), median(d), median(DISTINCT i)",
    "percentile_cont(0.25) WITHIN GROUP (ORDER BY x)",
    "bit_and(i), bit_or(i), bit_xor(u)",
    // Alone: next to other calls DataFusion ignores this DISTINCT.
    "bit_xor(DISTINCT i)",
    "bool_and(b), bool_or(b), bool_or(x > 0) FILTER (WHERE i > 0)",
    "exact_sum(x), exact_avg(x), exact_sum(DISTINCT x), exact_avg(DISTINCT x)",
];

const EXACT_STATISTICS: &[&str] = &[
    "exact_var_samp(x), exact_var_pop(x), exact_stddev_samp(x), exact_stddev_pop(x)",
    "exact_skewness(x), exact_kurtosis(y), exact_kurtosis(x) FILTER (WHERE b)",
    "exact_covar_samp(x, y), exact_covar_pop(x, y), exact_corr(x, y)",
    "exact_regr_slope(x, y), exact_regr_intercept(x, y), exact_regr_count(x, y), exact_regr_r2(x, y)",
    "exact_regr_avgx(x, y), exact_regr_avgy(x, y), exact_regr_sxx(x, y), exact_regr_syy(x, y), exact_regr_sxy(x, y)",
    "exact_stddev_samp(DISTINCT x), exact_corr(DISTINCT x, y), exact_regr_count(DISTINCT x, y)",
];

const STATISTICS: &[&str] = &[
    "var_samp(x), var_pop(x), stddev(x), stddev_pop(x)",
    "covar_samp(x, y), covar_pop(x, y), corr(x, y)",
    "regr_slope(x, y), regr_intercept(x, y), regr_count(x, y), regr_r2(x, y)",
    "regr_avgx(x, y), regr_avgy(x, y), regr_sxx(x, y), regr_syy(x, y), regr_sxy(x, y)",
];

const IN_ORDER: &[&str] = &[
    "any_value(i), any_value(s)",
    "first_value(i), last_value(i), first_value(s), last_value(v)",
    "first_value(i) IGNORE NULLS, last_value(x) IGNORE NULLS",
    "first_value(i ORDER BY w, i), last_value(i ORDER BY w DESC, i)",
    "first_value(s ORDER BY i, s) FILTER (WHERE b), last_value(v ORDER BY x, v)",
    "array_agg(i), array_agg(s) FILTER (WHERE b), array_agg(x)",
    "array_agg(i ORDER BY i DESC), array_agg(s ORDER BY s)",
    "nth_value(i, 2), nth_value(s, 1), nth_value(i, -2)",
    "nth_value(i, 3 ORDER BY i), nth_value(i, -2 ORDER BY i)",
    "string_agg(s, ','), string_agg(s, '-') FILTER (WHERE b)",
    "string_agg(s, ',' ORDER BY s)",
    "string_agg(DISTINCT s, ',' ORDER BY s)",
    "array_agg(DISTINCT i), array_agg(DISTINCT s)",
    // A function that needs order and one that does not.
    "count(*), array_agg(i), exact_sum(x), median(x)",
];

const SPARK: &[&str] = &[
    "avg(x), avg(i), avg(d)",
    "try_sum(i), try_sum(x), try_sum(d)",
    "collect_list(i), collect_list(s)",
    "collect_set(i), collect_set(s)",
];

/// Approximations: close to the answer over the same rows in another order, not equal to it.
const APPROXIMATE: &[&str] = &[
    "approx_distinct(s), approx_distinct(i), approx_distinct(v)",
    "approx_median(i), approx_median(x)",
    "approx_percentile_cont(0.75) WITHIN GROUP (ORDER BY x)",
    "approx_percentile_cont_with_weight(w, 0.5) WITHIN GROUP (ORDER BY x)",
];

/// Runs `case` on every cluster and compares every epoch with DataFusion.
fn check(reference: &Reference, case: Case<'_>, emit: Emit, close: Close, seed: u64) {
    check_as(reference, case, case, emit, close, seed);
}

/// Like `check`, where DataFusion is asked something else that must have the same answer.
fn check_as(
    reference: &Reference,
    case: Case<'_>,
    asked: Case<'_>,
    emit: Emit,
    close: Close,
    seed: u64,
) {
    let Case { calls, keys } = case;
    let sets = SETS.iter().any(|set| calls.contains(set));
    let mut random = Random::new(seed);
    let epochs = Arc::new(Epochs::random(&mut random, 6, 150));
    let aggregation = reference.aggregation(case, emit);
    let ordered = aggregation
        .calls
        .iter()
        .any(|call| needs_order(&call.function));
    let edge = Edge {
        rows: schema(),
        ordered,
        signed: false,
    };
    let wanted: Vec<Table> = (0..epochs.rows.len())
        .map(|epoch| {
            let mut table = Table::new();
            for rows in reference.answer(asked, &epochs, epoch) {
                put(&mut table, keys.len(), &rows, sets);
            }
            table
        })
        .collect();
    for (index, cluster) in CLUSTERS.into_iter().enumerate() {
        let budget = tiny_budget(seed + index as u64);
        let context = |what: &str| {
            let limit = budget.as_ref().map(|budget| budget.bytes_max());
            format!("{case:?} on {cluster:?} within {limit:?}, seed {seed}, {what}")
        };
        let (aggregation, within) = (aggregation.clone(), budget.clone());
        let output = run(
            cluster,
            &epochs,
            0,
            edge.clone(),
            seed,
            move |rows, failure| {
                let state = State {
                    budget: within.clone(),
                    ..State::default()
                };
                aggregate_with_state(rows, aggregation.clone(), None, state, failure).rows
            },
        );
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", context("run")));
        let mut table = Table::new();
        for (epoch, wanted) in wanted.iter().enumerate() {
            if emit == Emit::All {
                table.clear();
            }
            let mut count = 0;
            for (_, rows) in output.iter().filter(|(e, _)| *e == epoch as u64) {
                match emit {
                    Emit::Signed => change(&mut table, keys.len(), rows, sets),
                    _ => put(&mut table, keys.len(), rows, sets),
                }
                count += rows.num_rows();
            }
            if keys.is_empty() && emit != Emit::Signed {
                assert_eq!(count, 1, "{}", context("rows of the global group"));
            }
            same(wanted, &table, close, &|| {
                context(&format!("epoch {epoch}"))
            });
        }
    }
}

fn check_all(cases: &[&str], spark: bool, close: Close) {
    let reference = Reference::new(spark);
    for (index, calls) in cases.iter().enumerate() {
        for (round, emit) in [Emit::Changed, Emit::All, Emit::Signed]
            .into_iter()
            .enumerate()
        {
            let keys = KEYS[(index * 2 + round * 5) % KEYS.len()];
            check(
                &reference,
                Case { keys, calls },
                emit,
                close,
                (index * 3 + round) as u64 + 1,
            );
        }
    }
}

#[test]
fn plain_aggregates() {
    check_all(PLAIN, false, CLOSE);
}

#[test]
fn statistics() {
    check_all(STATISTICS, false, CLOSE);
}

#[test]
fn exact_statistics() {
    check_all(EXACT_STATISTICS, false, CLOSE);
}

#[test]
fn aggregates_in_source_order() {
    check_all(IN_ORDER, false, CLOSE);
}

#[test]
fn spark_aggregates() {
    check_all(SPARK, true, CLOSE);
}

#[test]
fn approximate_aggregates() {
    check_all(APPROXIMATE, false, ROUGH);
}

#[test]
fn every_key_type_alone_and_together() {
    let reference = Reference::new(false);
    for (index, keys) in KEYS.iter().enumerate() {
        let calls = "count(*), exact_sum(x)";
        check(
            &reference,
            Case { keys, calls },
            Emit::Changed,
            CLOSE,
            100 + index as u64,
        );
    }
}

#[test]
fn distinct_strings_are_joined_in_their_order_not_in_hash_order() {
    let reference = Reference::new(false);
    let keys = &["ki"];
    let case = |calls| Case { keys, calls };
    let (plain, sorted) = (
        "string_agg(DISTINCT s, ',')",
        "string_agg(DISTINCT s, ',' ORDER BY s)",
    );
    check_as(
        &reference,
        case(plain),
        case(sorted),
        Emit::Changed,
        CLOSE,
        31,
    );
}

#[test]
fn distinct_rows_are_groups_without_aggregates() {
    let reference = Reference::new(false);
    let case = Case {
        keys: &["ki", "ks"],
        calls: "",
    };
    let epochs = Arc::new(Epochs::random(&mut Random::new(5), 4, 100));
    let aggregation = reference.aggregation(case, Emit::All);
    let output = run(
        Cluster::Bytes(2),
        &epochs,
        0,
        Edge::plain(schema()),
        5,
        move |rows, failure| aggregate(rows, aggregation.clone(), failure),
    );
    let (mut wanted, mut got) = (Table::new(), Table::new());
    for rows in reference.answer(case, &epochs, 3) {
        put(&mut wanted, 2, &rows, false);
    }
    for (_, rows) in output.unwrap().iter().filter(|(epoch, _)| *epoch == 3) {
        put(&mut got, 2, rows, false);
    }
    same(&wanted, &got, CLOSE, &|| format!("{case:?}"));
}

#[test]
fn every_registered_function_has_a_case() {
    let cases: String = [
        PLAIN,
        STATISTICS,
        EXACT_STATISTICS,
        IN_ORDER,
        SPARK,
        APPROXIMATE,
    ]
    .concat()
    .join(" ");
    let mut functions = datafusion::functions_aggregate::all_default_aggregate_functions();
    functions.extend(datafusion_spark::all_default_aggregate_functions());
    functions.extend(highwater_operators::exact::functions());
    let missing: BTreeSet<String> = functions
        .iter()
        .map(|function| function.name().to_string())
        .filter(|name| !EXCLUDED.iter().any(|(excluded, _)| excluded == name))
        // Some functions are registered under another name than SQL gives them.
        .filter(|name| {
            let sql_names = match name.as_str() {
                "var" => vec!["var_samp".to_string()],
                other => vec![other.to_string()],
            };
            !sql_names
                .iter()
                .any(|name| cases.contains(&format!("{name}(")))
        })
        .collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}
