//! What a worker counts while it runs a query, epoch by epoch, for progress reports.
//!
//! Operators count; nobody's answer depends on a count. One [`Meters`] per query and worker is shared by all its
//! operators; the query's last operator takes an epoch's counts once its frontier has passed, and sends them along.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

/// What one worker counted in one epoch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerMetrics {
    /// The worker.
    pub worker: usize,
    /// Rows read, per source.
    pub rows_in: Vec<u64>,
    /// Rows handed to the sink.
    pub rows_out: u64,
    /// Per stateful operator, in the order in which the dataflow was built.
    pub operators: Vec<OperatorMetrics>,
    /// Event times seen, if the query has a watermark.
    pub event_time: Option<EventTimes>,
    /// Partial aggregates of observed rows: the name, and a state row in bytes.
    pub observed: Vec<(String, Vec<u8>)>,
}

/// What one stateful operator did in one epoch on one worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorMetrics {
    /// Which kind of operator, in the model's words: `stateStoreSave`.
    pub name: String,
    /// Keys (rows, for joins) in its state after the epoch.
    pub rows_total: u64,
    /// Keys inserted or changed.
    pub rows_updated: u64,
    /// Keys removed.
    pub rows_removed: u64,
    /// Rows not taken because they were late.
    pub rows_late: u64,
    /// About how many bytes its state takes.
    pub bytes: u64,
    /// How long it took to change the state.
    pub update_us: u64,
    /// How long it took to remove from it.
    pub remove_us: u64,
    /// How long it took to make the state ready for a checkpoint.
    pub commit_us: u64,
}

impl OperatorMetrics {
    /// Adds another worker's part.
    pub fn add(&mut self, other: &OperatorMetrics) {
        self.rows_total += other.rows_total;
        self.rows_updated += other.rows_updated;
        self.rows_removed += other.rows_removed;
        self.rows_late += other.rows_late;
        self.bytes += other.bytes;
        self.update_us += other.update_us;
        self.remove_us += other.remove_us;
        self.commit_us += other.commit_us;
    }
}

/// The event times of one epoch's rows, in microseconds since 1970; nulls do not count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EventTimes {
    /// The smallest.
    pub min_us: i64,
    /// The largest.
    pub max_us: i64,
    /// Their average is `sum_us / rows`.
    pub sum_us: f64,
    /// How many there were.
    pub rows: u64,
}

impl EventTimes {
    /// Adds those of another batch or worker.
    pub fn add(&mut self, other: &EventTimes) {
        self.min_us = self.min_us.min(other.min_us);
        self.max_us = self.max_us.max(other.max_us);
        self.sum_us += other.sum_us;
        self.rows += other.rows;
    }
}

/// Something whose part of an epoch is taken when the epoch is over: a state row in bytes.
pub type Gather = Box<dyn FnMut(u64) -> Option<Vec<u8>>>;

/// All counts of one query on one worker. Cloning gives another handle.
#[derive(Clone, Default)]
pub struct Meters(Rc<RefCell<Book>>);

#[derive(Default)]
struct Book {
    worker: usize,
    /// Microseconds from some moment on. Operators read no clock: how long they take is for reports only, and whoever
    /// reports brings the clock.
    now_us: Option<fn() -> u64>,
    epochs: BTreeMap<u64, Open>,
    /// What each operator's state held when it last ran.
    operators: Vec<OperatorMetrics>,
    observers: Vec<(String, Gather)>,
}

#[derive(Default)]
struct Open {
    rows_in: Vec<u64>,
    rows_out: u64,
    operators: BTreeMap<usize, OperatorMetrics>,
    event_time: Option<EventTimes>,
}

impl Meters {
    /// The meters of `worker`, which measures durations with `now_us`.
    pub fn new(worker: usize, now_us: fn() -> u64) -> Self {
        let book = Book {
            worker,
            now_us: Some(now_us),
            ..Book::default()
        };
        Meters(Rc::new(RefCell::new(book)))
    }

    /// `rows` rows of source number `source` were read.
    pub fn read(&self, epoch: u64, source: usize, rows: u64) {
        let mut book = self.0.borrow_mut();
        let rows_in = &mut book.epochs.entry(epoch).or_default().rows_in;
        if rows_in.len() <= source {
            rows_in.resize(source + 1, 0);
        }
        rows_in[source] += rows;
    }

    /// `rows` rows of `epoch` were handed to the sink.
    pub fn wrote(&self, epoch: u64, rows: u64) {
        let mut book = self.0.borrow_mut();
        book.epochs.entry(epoch).or_default().rows_out += rows;
    }

    /// Event times of `epoch`.
    pub fn event_times(&self, epoch: u64, times: &EventTimes) {
        let mut book = self.0.borrow_mut();
        match &mut book.epochs.entry(epoch).or_default().event_time {
            Some(known) => known.add(times),
            none => *none = Some(*times),
        }
    }

    /// The meter of one more stateful operator, which the model calls `name`.
    pub fn operator(&self, name: &str) -> OperatorMeter {
        let mut book = self.0.borrow_mut();
        book.operators.push(OperatorMetrics {
            name: name.to_string(),
            ..OperatorMetrics::default()
        });
        OperatorMeter(Some((self.clone(), book.operators.len() - 1)))
    }

    /// Asks `gather` for its part of each epoch that is taken.
    pub fn observer(&self, name: &str, gather: Gather) {
        self.0
            .borrow_mut()
            .observers
            .push((name.to_string(), gather));
    }

    /// What was counted in `epoch`, which no operator will touch again. What is left of earlier ones is forgotten.
    pub fn take(&self, epoch: u64) -> WorkerMetrics {
        let mut book = self.0.borrow_mut();
        let later = book.epochs.split_off(&(epoch + 1));
        let mut before = std::mem::replace(&mut book.epochs, later);
        let open = before.remove(&epoch).unwrap_or_default();
        let mut operators = book.operators.clone();
        for (index, counted) in open.operators {
            operators[index] = counted;
        }
        // What the state holds stays so until the operator runs again.
        for (known, counted) in book.operators.iter_mut().zip(&operators) {
            known.rows_total = counted.rows_total;
            known.bytes = counted.bytes;
        }
        let worker = book.worker;
        let gather = |(name, gather): &mut (String, Gather)| Some((name.clone(), gather(epoch)?));
        WorkerMetrics {
            worker,
            rows_in: open.rows_in,
            rows_out: open.rows_out,
            operators,
            event_time: open.event_time,
            observed: book.observers.iter_mut().filter_map(gather).collect(),
        }
    }
}

/// One stateful operator's counts. By default it counts for nobody.
#[derive(Clone, Default)]
pub struct OperatorMeter(Option<(Meters, usize)>);

impl OperatorMeter {
    /// Counts for `epoch`.
    pub fn count(&self, epoch: u64, count: impl FnOnce(&mut OperatorMetrics)) {
        let Some((meters, index)) = &self.0 else {
            return;
        };
        let mut book = meters.0.borrow_mut();
        let known = book.operators[*index].clone();
        let open = book.epochs.entry(epoch).or_default();
        count(open.operators.entry(*index).or_insert(known));
    }

    /// Rows of `epoch` that were late.
    pub fn late(&self, epoch: u64, rows: u64) {
        if rows > 0 {
            self.count(epoch, |counts| counts.rows_late += rows);
        }
    }

    /// Does `work` and says how many microseconds it took (0 if nobody brought a clock).
    pub fn timed<T>(&self, work: impl FnOnce() -> T) -> (T, u64) {
        let clock = self
            .0
            .as_ref()
            .and_then(|(meters, _)| meters.0.borrow().now_us);
        let Some(now_us) = clock else {
            return (work(), 0);
        };
        let begun = now_us();
        let done = work();
        (done, now_us().saturating_sub(begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_its_own_counts() {
        let meters = Meters::default();
        let operator = meters.operator("dedupe");
        meters.read(0, 1, 5);
        meters.read(1, 0, 7);
        meters.read(1, 0, 1);
        operator.count(1, |counts| counts.rows_updated += 3);
        operator.late(1, 2);
        assert_eq!(meters.take(0).rows_in, [0, 5]);
        let second = meters.take(1);
        assert_eq!(second.rows_in, [8]);
        assert_eq!(
            (
                second.operators[0].rows_updated,
                second.operators[0].rows_late
            ),
            (3, 2)
        );
        assert_eq!(meters.take(2).operators[0].rows_updated, 0);
    }

    #[test]
    fn state_stays_while_its_operator_rests() {
        let meters = Meters::default();
        let operator = meters.operator("stateStoreSave");
        operator.count(0, |counts| (counts.rows_total, counts.bytes) = (10, 500));
        meters.take(0);
        assert_eq!(meters.take(1).operators[0].rows_total, 10);
        assert_eq!(meters.take(2).operators[0].bytes, 500);
    }

    #[test]
    fn epochs_nobody_took_are_forgotten() {
        let meters = Meters::default();
        (0..100).for_each(|epoch| meters.read(epoch, 0, 1));
        assert_eq!(meters.take(98).rows_in, [1]);
        assert_eq!(meters.0.borrow().epochs.len(), 1);
    }

    #[test]
    fn work_is_timed_by_the_clock_that_was_brought() {
        assert_eq!(OperatorMeter::default().timed(|| 3), (3, 0));
        thread_local!(static NOW: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });
        let meters = Meters::new(0, || NOW.get());
        let timed = meters.operator("x").timed(|| NOW.set(NOW.get() + 7));
        assert_eq!(timed, ((), 7));
    }

    #[test]
    fn event_times_add_up() {
        let meters = Meters::default();
        let at = |us: i64| EventTimes {
            min_us: us,
            max_us: us,
            sum_us: us as f64,
            rows: 1,
        };
        meters.event_times(3, &at(10));
        meters.event_times(3, &at(2));
        let times = meters.take(3).event_time.expect("seen");
        assert_eq!(
            (times.min_us, times.max_us, times.sum_us, times.rows),
            (2, 10, 12.0, 2)
        );
    }
}
