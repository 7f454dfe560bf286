//! Stop after any epoch, come back from snapshots, on any number of workers: the answers go on as if nothing happened.

use std::sync::{Arc, Mutex};

use highwater_operators::aggregate::{Aggregation, Emit, State, aggregate_with_state, needs_order};
use highwater_operators::arrangement::{RunBytes, Snapshot, SnapshotRun, Snapshots};
use highwater_operators::{BatchBuilder, Edge, Rows};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use crate::cluster::{CLUSTERS, Cluster, Output, run, tiny_budget};
use crate::data::{Epochs, Random, schema};
use crate::reference::{CLOSE, Case, Reference, Table, put, same};

const CASES: [Case<'_>; 5] = [
    Case {
        keys: &["ki", "ks"],
        calls: "count(*), exact_sum(x), exact_avg(y), min(s), max(v)",
    },
    Case {
        keys: &[],
        calls: "count(*), sum(i), median(x), count(DISTINCT s)",
    },
    Case {
        keys: &["kf"],
        calls: "array_agg(i), first_value(s), last_value(i), string_agg(s, ',')",
    },
    Case {
        keys: &["kv", "kb"],
        calls: "corr(x, y), exact_corr(x, y), exact_kurtosis(x), exact_stddev_pop(DISTINCT x), approx_distinct(i), bool_and(b), avg(d)",
    },
    Case {
        keys: &["ks"],
        calls: "nth_value(i, -2 ORDER BY i), array_agg(DISTINCT i ORDER BY i)",
    },
];

/// Leaves the snapshot of `epoch` in `saved`.
pub(crate) fn save<'s>(
    rows: Rows<'s>,
    snapshots: Snapshots,
    epoch: u64,
    saved: Arc<Mutex<Vec<Snapshot>>>,
) -> Rows<'s> {
    let stream =
        rows.stream
            .unary_frontier::<BatchBuilder, _, _, _>(Pipeline, "Save", move |_, _| {
                move |(input, frontier), output| {
                    input.for_each(|capability, batch| {
                        output
                            .session_with_builder(&capability)
                            .give_container(batch);
                    });
                    if !frontier.less_equal(&epoch)
                        && let Some(snapshot) = snapshots.take(epoch)
                    {
                        saved.lock().unwrap().push(snapshot);
                    }
                }
            });
    Rows {
        stream,
        edge: rows.edge,
    }
}

/// Through files and back, as a checkpoint would.
pub(crate) fn stored(snapshot: &Snapshot) -> Snapshot {
    let mut snapshot = snapshot.clone();
    for run in &mut snapshot.runs {
        let values = run.values().unwrap();
        let mut bytes = Vec::new();
        run.write_to(&mut bytes).unwrap();
        let file = Arc::new(RunBytes::new("a run", bytes));
        *run = SnapshotRun::open(run.lower, run.upper, file, &values).unwrap();
    }
    snapshot
}

struct Job {
    aggregation: Aggregation,
    epochs: Arc<Epochs>,
    edge: Edge,
    seed: u64,
}

impl Job {
    fn run(
        &self,
        cluster: Cluster,
        first: usize,
        restore: Vec<Snapshot>,
        stop: u64,
    ) -> (Output, Vec<Snapshot>) {
        let saved = Arc::new(Mutex::new(Vec::new()));
        let (aggregation, keep) = (self.aggregation.clone(), Arc::clone(&saved));
        let budget = tiny_budget(self.seed + u64::from(first > 0));
        let output = run(
            cluster,
            &self.epochs,
            first,
            self.edge.clone(),
            self.seed,
            move |rows, failure| {
                let snapshots = Snapshots::default();
                snapshots.request(stop);
                let state = State {
                    start: 0,
                    restore: restore.clone(),
                    snapshots: snapshots.clone(),
                    budget: budget.clone(),
                    ..State::default()
                };
                let aggregated =
                    aggregate_with_state(rows, aggregation.clone(), None, state, failure);
                save(aggregated.rows, snapshots, stop, Arc::clone(&keep))
            },
        );
        let saved = saved.lock().unwrap().clone();
        (output, saved)
    }
}

fn check(reference: &Reference, case: Case<'_>, from: Cluster, to: Cluster, seed: u64) {
    let mut random = Random::new(seed);
    let epochs = Arc::new(Epochs::random(&mut random, 7, 120));
    let stop = random.below(5) + 1;
    let emit = if random.chance(50) {
        Emit::Changed
    } else {
        Emit::All
    };
    let aggregation = reference.aggregation(case, emit);
    let ordered = aggregation
        .calls
        .iter()
        .any(|call| needs_order(&call.function));
    let job = Job {
        aggregation,
        epochs: Arc::clone(&epochs),
        edge: Edge {
            rows: schema(),
            ordered,
            signed: false,
        },
        seed,
    };
    let context = |epoch: u64| {
        format!(
            "{case:?} from {from:?} to {to:?}, stopped after {stop}, seed {seed}, epoch {epoch}"
        )
    };
    let (before, snapshots) = job.run(from, 0, Vec::new(), stop);
    assert_eq!(snapshots.len(), from.workers(), "{}", context(stop));
    let restore = snapshots.iter().map(stored).collect();
    let (after, _) = job.run(to, stop as usize + 1, restore, u64::MAX);
    let mut output = before.unwrap_or_else(|error| panic!("{}: {error}", context(0)));
    output.retain(|(epoch, _)| *epoch <= stop);
    output.extend(after.unwrap_or_else(|error| panic!("{}: {error}", context(stop + 1))));
    let mut table = Table::new();
    for epoch in 0..epochs.rows.len() as u64 {
        if emit == Emit::All {
            table.clear();
        }
        for (_, rows) in output.iter().filter(|(e, _)| *e == epoch) {
            put(&mut table, case.keys.len(), rows, false);
        }
        let mut wanted = Table::new();
        for rows in reference.answer(case, &epochs, epoch as usize) {
            put(&mut wanted, case.keys.len(), &rows, false);
        }
        same(&wanted, &table, CLOSE, &|| context(epoch));
    }
}

#[test]
fn a_restart_changes_no_answer() {
    let reference = Reference::new(false);
    for (index, case) in CASES.into_iter().enumerate() {
        for (round, from) in [CLUSTERS[0], CLUSTERS[1], CLUSTERS[4]]
            .into_iter()
            .enumerate()
        {
            let to = CLUSTERS[(index + round * 2) % CLUSTERS.len()];
            check(
                &reference,
                case,
                from,
                to,
                (index * 10 + round) as u64 + 500,
            );
        }
    }
}

#[test]
fn the_same_number_of_workers_takes_its_runs_back() {
    let reference = Reference::new(false);
    for (index, cluster) in CLUSTERS.into_iter().enumerate() {
        check(&reference, CASES[0], cluster, cluster, 700 + index as u64);
    }
}
