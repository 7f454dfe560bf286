//! Which worker reads which split.

use std::collections::BTreeSet;

use crate::dataflow::Order;
use crate::source::{Planned, Split};

/// Spreads an epoch's splits over the workers by size: a function of the plan alone.
pub(super) fn assign(
    sources: &[Planned],
    workers: usize,
    processes: usize,
    (epoch, clock_us): (u64, i64),
) -> Vec<Order> {
    // (bytes given so far, worker); the first worker differs from epoch to epoch, so that small epochs spread too.
    let peers = workers * processes;
    let turn = |worker: usize| (worker + peers - epoch as usize % peers) % peers;
    let mut load: BTreeSet<(u64, usize, usize)> =
        (0..peers).map(|worker| (0, turn(worker), worker)).collect();
    let mut orders = Vec::new();
    for (source, planned) in sources.iter().enumerate() {
        for (ordinal, split) in planned.splits.iter().enumerate() {
            let here = |worker: usize| {
                split
                    .process
                    .is_none_or(|process| worker / workers == process)
            };
            let lightest = load.iter().copied().find(|(_, _, worker)| here(*worker));
            let lightest = lightest.or_else(|| load.first().copied());
            let (bytes, turn, worker) = lightest.expect("there is a worker");
            load.remove(&(bytes, turn, worker));
            load.insert((bytes + split.bytes + 1, turn, worker));
            orders.push(Order::Read {
                worker,
                source,
                ordinal: ordinal as u64,
                split: Split::clone(split),
                clock_us,
            });
        }
    }
    orders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Offset;

    #[test]
    fn splits_spread_by_size_and_stay_where_they_must() {
        let split = |bytes, process| Split {
            descriptor: String::new(),
            bytes,
            process,
        };
        let planned = |splits| Planned {
            start: Offset(0.into()),
            end: Offset(1.into()),
            splits,
        };
        let sources = [planned(vec![
            split(100, None),
            split(10, None),
            split(10, None),
            split(5, Some(1)),
            split(5, Some(1)),
        ])];
        let workers: Vec<usize> = assign(&sources, 1, 2, (0, 0))
            .iter()
            .map(|order| match order {
                Order::Read { worker, .. } => *worker,
                other => panic!("{other:?} reads nothing"),
            })
            .collect();
        assert_eq!(workers, [0, 1, 1, 1, 1]);
    }
}
