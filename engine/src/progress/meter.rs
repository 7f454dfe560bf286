//! Measures a query's epochs, in its coordinator's thread, and reports each when it is committed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use highwater_operators::metrics::{EventTimes, OperatorMetrics, WorkerMetrics};
use serde_json::Value;

use super::{SinkProgress, SourceProgress, StateOperatorProgress, StreamingQueryProgress};
use crate::listener::{QueryEvent, QueryIdle, QueryProgress};
use crate::query::QueryShared;
use crate::source::{Offset, Planned};

/// What an epoch's time is spent on. The whole is `triggerExecution`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Asking the sources how far they go.
    LatestOffset,
    /// Choosing where the epoch ends, within the limits.
    GetOffset,
    /// Spreading the splits over the workers.
    GetBatch,
    /// From when the workers were told until its plan is durable: beside the work.
    WalCommit,
    /// From when the workers were told until the rows are visible in the sink.
    AddBatch,
    /// Recording the commit.
    CommitOffsets,
}

impl Phase {
    const ALL: [(Phase, &str); 6] = [
        (Phase::LatestOffset, "latestOffset"),
        (Phase::GetOffset, "getOffset"),
        (Phase::GetBatch, "getBatch"),
        (Phase::WalCommit, "walCommit"),
        (Phase::AddBatch, "addBatch"),
        (Phase::CommitOffsets, "commitOffsets"),
    ];
}

type Spent = [u64; Phase::ALL.len()];

/// Microseconds since the first call, for durations.
#[allow(
    clippy::disallowed_methods,
    reason = "durations for reports; no row depends on them"
)]
pub(crate) fn stopwatch_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// The moment as reports write it.
#[allow(
    clippy::disallowed_methods,
    reason = "says when something was reported; no row depends on it"
)]
pub(crate) fn timestamp_now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    timestamp(since.map_or(0, |since| since.as_micros() as i64))
}

/// A moment as reports write it: `2026-01-31T12:00:00.000Z`.
fn timestamp(us: i64) -> String {
    DateTime::from_timestamp_micros(us)
        .unwrap_or_default()
        .format("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
}

/// Turns an epoch's partial aggregates of observed rows into their values, by the name of the `observe`.
pub(crate) type MergeObserved =
    dyn Fn(&[WorkerMetrics]) -> BTreeMap<String, serde_json::Map<String, Value>> + Send;

/// What a meter knows of its query from the start.
pub(crate) struct Measured {
    pub(crate) query: Arc<QueryShared>,
    /// The descriptions of the sources.
    pub(crate) sources: Vec<String>,
    pub(crate) sink: String,
    /// Workers of all processes.
    pub(crate) peers: usize,
    /// How long it took to plan the query: the first epoch's `queryPlanning`.
    pub(crate) planning_us: u64,
    pub(crate) merge_observed: Box<MergeObserved>,
}

/// Measures the epochs of one query. Several may be in flight.
pub(crate) struct Meter {
    about: Measured,
    /// The look for input under way.
    look: Look,
    epochs: BTreeMap<u64, Open>,
    /// When the last epoch began.
    last_us: Option<u64>,
    /// When listeners last heard of the query.
    said_us: u64,
}

#[derive(Default)]
struct Look {
    begun_us: u64,
    spent: Spent,
    latest: HashMap<usize, Value>,
}

struct Open {
    begun_us: u64,
    /// How long before it the last one began.
    since_us: Option<u64>,
    /// The epoch's clock.
    clock_us: i64,
    /// When the workers were told.
    sent_us: u64,
    planning_us: u64,
    spent: Spent,
    /// Start, end and latest offset of each source.
    offsets: Vec<[Value; 3]>,
    counted: Vec<WorkerMetrics>,
    /// When all workers were done.
    done_us: u64,
    /// Its share of the time that the commit of its run took.
    shared_us: Option<u64>,
    watermark_ms: Option<i64>,
}

impl Meter {
    pub(crate) fn new(about: Measured) -> Self {
        Meter {
            about,
            look: Look::default(),
            epochs: BTreeMap::new(),
            last_us: None,
            said_us: stopwatch_us(),
        }
    }

    /// The sources are asked for the next epoch.
    pub(crate) fn begin(&mut self) {
        self.look = Look {
            begun_us: stopwatch_us(),
            ..Look::default()
        };
    }

    /// Does a part of what it takes to open the next epoch.
    pub(crate) fn time<T>(&mut self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let begun = stopwatch_us();
        let done = work();
        self.look.spent[phase as usize] += stopwatch_us() - begun;
        done
    }

    /// Source number `source` could be read up to `offset`.
    pub(crate) fn latest(&mut self, source: usize, offset: &Offset) {
        self.look.latest.insert(source, offset.0.clone());
    }

    /// The workers were told to run `epoch`.
    pub(crate) fn opened(&mut self, epoch: u64, clock_us: i64, sources: &[Planned]) {
        let look = std::mem::take(&mut self.look);
        let offsets = |(index, source): (usize, &Planned)| {
            let end = &source.end.0;
            let latest = look.latest.get(&index).unwrap_or(end);
            [source.start.0.clone(), end.clone(), latest.clone()]
        };
        let open = Open {
            begun_us: look.begun_us,
            since_us: self.last_us.map(|last| look.begun_us.saturating_sub(last)),
            clock_us,
            sent_us: stopwatch_us(),
            planning_us: std::mem::take(&mut self.about.planning_us),
            spent: look.spent,
            offsets: sources.iter().enumerate().map(offsets).collect(),
            counted: Vec::new(),
            done_us: 0,
            shared_us: None,
            watermark_ms: None,
        };
        self.last_us = Some(open.begun_us);
        self.epochs.insert(epoch, open);
        self.about
            .query
            .set_status("Processing new data", true, true);
    }

    /// The plans of the epochs up to `last` are durable.
    pub(crate) fn logged(&mut self, last: u64) {
        self.reached(last, Phase::WalCommit);
    }

    /// All workers are done with `epoch`, which ran with this watermark, and counted.
    pub(crate) fn counted(
        &mut self,
        epoch: u64,
        mut counted: Vec<WorkerMetrics>,
        watermark_ms: Option<i64>,
    ) {
        counted.sort_by_key(|worker| worker.worker);
        if let Some(open) = self.epochs.get_mut(&epoch) {
            open.watermark_ms = watermark_ms;
            open.counted = counted;
            open.done_us = stopwatch_us();
        }
    }

    /// The rows of the epochs up to `last` are visible in the sink, which took since `begun_us`.
    pub(crate) fn added(&mut self, last: u64, begun_us: u64) {
        let run = self.epochs.range_mut(..=last).map(|(_, open)| open);
        let mut run: Vec<&mut Open> = run.filter(|open| open.shared_us.is_none()).collect();
        let share = stopwatch_us().saturating_sub(begun_us) / run.len().max(1) as u64;
        for open in &mut run {
            open.shared_us = Some(share);
        }
        self.reached(last, Phase::AddBatch);
    }

    /// A phase that began when the workers were told ends now for the epochs up to `last`, where it has not ended.
    fn reached(&mut self, last: u64, phase: Phase) {
        let now = stopwatch_us();
        for open in self.epochs.range_mut(..=last).map(|(_, open)| open) {
            let spent = &mut open.spent[phase as usize];
            if *spent == 0 {
                *spent = now.saturating_sub(open.sent_us).max(1);
            }
        }
    }

    /// The epochs up to `last` are committed: reports those of them that the sink was given in this run of the query.
    pub(crate) fn committed(&mut self, last: u64) {
        let later = self.epochs.split_off(&(last + 1));
        let done = std::mem::replace(&mut self.epochs, later);
        let now = stopwatch_us();
        for (epoch, mut open) in done {
            let added = open.spent[Phase::AddBatch as usize];
            if added == 0 {
                continue; // it was in the sink before: replayed for the state only
            }
            let spent = now.saturating_sub(open.sent_us + added);
            open.spent[Phase::CommitOffsets as usize] = spent;
            let progress = Arc::new(self.report(epoch, &open, now));
            self.said_us = now;
            let query = &self.about.query;
            query.add_progress(Arc::clone(&progress));
            query.tell(|| QueryEvent::Progress(QueryProgress { progress }));
        }
    }

    fn report(&self, epoch: u64, open: &Open, now: u64) -> StreamingQueryProgress {
        let about = &self.about;
        let counted = &open.counted;
        let whole_us = now.saturating_sub(open.begun_us);
        let worked_us = open.done_us.saturating_sub(open.begun_us) + open.shared_us.unwrap_or(0);
        let rates = |rows: u64| {
            let per_second = |us: u64| rows as f64 * 1e6 / us.max(1) as f64;
            (open.since_us.map_or(0.0, per_second), per_second(worked_us))
        };
        let source = |(index, [start, end, latest]): (usize, &[Value; 3])| {
            let of = |worker: &WorkerMetrics| worker.rows_in.get(index).copied().unwrap_or(0);
            let rows = counted.iter().map(of).sum();
            let (input, processed) = rates(rows);
            SourceProgress {
                description: about.sources.get(index).cloned().unwrap_or_default(),
                start_offset: start.clone(),
                end_offset: end.clone(),
                latest_offset: latest.clone(),
                num_input_rows: rows,
                input_rows_per_second: input,
                processed_rows_per_second: processed,
                metrics: BTreeMap::new(),
            }
        };
        let sources: Vec<SourceProgress> = open.offsets.iter().enumerate().map(source).collect();
        let rows = sources.iter().map(|source| source.num_input_rows).sum();
        let (input, processed) = rates(rows);
        let phases = Phase::ALL
            .iter()
            .map(|(phase, name)| (*name, open.spent[*phase as usize]));
        let phases = phases.chain([
            ("queryPlanning", open.planning_us),
            ("triggerExecution", whole_us),
        ]);
        StreamingQueryProgress {
            id: about.query.id.clone(),
            run_id: about.query.run_id.clone(),
            name: about.query.name.clone(),
            timestamp: timestamp(open.clock_us),
            batch_id: epoch,
            batch_duration: whole_us / 1000,
            duration_ms: phases
                .map(|(name, us)| (name.to_string(), us / 1000))
                .collect(),
            event_time: event_time(counted, open.watermark_ms),
            state_operators: self.state_operators(counted),
            sources,
            sink: SinkProgress {
                description: about.sink.clone(),
                num_output_rows: counted.iter().map(|worker| worker.rows_out as i64).sum(),
                metrics: BTreeMap::new(),
            },
            num_input_rows: rows,
            input_rows_per_second: input,
            processed_rows_per_second: processed,
            observed_metrics: (about.merge_observed)(counted),
        }
    }

    fn state_operators(&self, counted: &[WorkerMetrics]) -> Vec<StateOperatorProgress> {
        let mut operators: Vec<OperatorMetrics> = Vec::new();
        for worker in counted {
            for (index, counts) in worker.operators.iter().enumerate() {
                match operators.get_mut(index) {
                    Some(sum) => sum.add(counts),
                    None => operators.push(counts.clone()),
                }
            }
        }
        let peers = self.about.peers as u64;
        let report = |sum: OperatorMetrics| StateOperatorProgress {
            operator_name: sum.name,
            num_rows_total: sum.rows_total,
            num_rows_updated: sum.rows_updated,
            all_updates_time_ms: sum.update_us / 1000,
            num_rows_removed: sum.rows_removed,
            all_removals_time_ms: sum.remove_us / 1000,
            commit_time_ms: sum.commit_us / 1000,
            memory_used_bytes: sum.bytes,
            num_rows_dropped_by_watermark: sum.rows_late,
            num_shuffle_partitions: peers,
            num_state_store_instances: peers,
            custom_metrics: BTreeMap::new(),
        };
        operators.into_iter().map(report).collect()
    }

    /// There is nothing to read and nothing in flight: says so to listeners, now and then.
    pub(crate) fn idle(&mut self) {
        let query = &self.about.query;
        query.set_status("Waiting for data to arrive", false, false);
        let now = stopwatch_us();
        if now.saturating_sub(self.said_us) < query.reporting.idle.as_micros() as u64 {
            return;
        }
        self.said_us = now;
        query.tell(|| {
            QueryEvent::Idle(QueryIdle {
                id: query.id.clone(),
                run_id: query.run_id.clone(),
                timestamp: timestamp_now(),
            })
        });
    }

    /// There may be something to read, but the trigger says to wait.
    pub(crate) fn waits_for_trigger(&self) {
        self.about
            .query
            .set_status("Waiting for next trigger", true, false);
    }

    /// How long the coordinator may sleep before it has to call `idle` again; for ever if nobody listens.
    pub(crate) fn until_idle_event(&self) -> Option<Duration> {
        let told = Duration::from_micros(stopwatch_us().saturating_sub(self.said_us));
        let query = &self.about.query;
        query
            .has_listeners()
            .then(|| query.reporting.idle.saturating_sub(told))
    }
}

fn event_time(counted: &[WorkerMetrics], watermark_ms: Option<i64>) -> BTreeMap<String, String> {
    let mut all: Option<EventTimes> = None;
    for times in counted.iter().filter_map(|worker| worker.event_time) {
        match &mut all {
            Some(all) => all.add(&times),
            none => *none = Some(times),
        }
    }
    let mut report = BTreeMap::new();
    let mut put = |name: &str, us: i64| report.insert(name.to_string(), timestamp(us));
    if let Some(times) = all {
        put("min", times.min_us);
        put("max", times.max_us);
        put("avg", (times.sum_us / times.rows.max(1) as f64) as i64);
    }
    if let Some(ms) = watermark_ms {
        put("watermark", ms.saturating_mul(1000));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::About;

    fn meter() -> (Meter, Arc<QueryShared>) {
        let about = About {
            id: "id".into(),
            run_id: "run".into(),
            name: Some("q".into()),
            ..About::default()
        };
        let query = Arc::new(QueryShared::new(about));
        assert!(query.begin(1, None));
        let measured = Measured {
            query: Arc::clone(&query),
            sources: vec!["left".into(), "right".into()],
            sink: "sink".into(),
            peers: 2,
            planning_us: 3_000,
            merge_observed: Box::new(|_| BTreeMap::new()),
        };
        (Meter::new(measured), query)
    }

    fn record(start: u64, end: u64) -> Planned {
        Planned {
            start: Offset(start.into()),
            end: Offset(end.into()),
            splits: Vec::new(),
        }
    }

    fn worker(worker: usize, rows_in: &[u64]) -> WorkerMetrics {
        WorkerMetrics {
            worker,
            rows_in: rows_in.to_vec(),
            rows_out: 4,
            operators: vec![OperatorMetrics {
                name: "stateStoreSave".into(),
                rows_total: 10,
                rows_updated: 4,
                ..OperatorMetrics::default()
            }],
            event_time: Some(EventTimes {
                min_us: 1_000_000 * worker as i64,
                max_us: 5_000_000,
                sum_us: 6e6,
                rows: 2,
            }),
            ..WorkerMetrics::default()
        }
    }

    fn finish(meter: &mut Meter, epoch: u64, counted: Vec<WorkerMetrics>) {
        meter.counted(epoch, counted, Some(4_000));
        meter.added(epoch, stopwatch_us());
        meter.committed(epoch);
    }

    fn run(meter: &mut Meter, epoch: u64, counted: Vec<WorkerMetrics>) {
        meter.begin();
        meter.time(Phase::LatestOffset, || {
            std::thread::sleep(Duration::from_millis(3))
        });
        meter.latest(1, &Offset(9.into()));
        meter.opened(epoch, 1_500, &[record(0, 2), record(5, 6)]);
        finish(meter, epoch, counted);
    }

    #[test]
    fn a_report_adds_up_what_the_workers_counted() {
        let (mut meter, query) = meter();
        run(&mut meter, 0, vec![worker(1, &[3]), worker(0, &[4, 5])]);
        let progress = query.last_progress().expect("reported");
        assert_eq!(
            (progress.batch_id, progress.timestamp.as_str()),
            (0, "1970-01-01T00:00:00.001Z")
        );
        assert_eq!(progress.num_input_rows, 12);
        assert_eq!(
            progress
                .sources
                .iter()
                .map(|s| s.num_input_rows)
                .collect::<Vec<_>>(),
            [7, 5]
        );
        assert_eq!(progress.sources[1].latest_offset, Value::from(9));
        assert_eq!(progress.sources[0].latest_offset, Value::from(2));
        assert_eq!(progress.sink.num_output_rows, 8);
        let state = &progress.state_operators[0];
        assert_eq!((state.num_rows_total, state.num_rows_updated), (20, 8));
        assert_eq!(state.num_state_store_instances, 2);
        let at = |name: &str| progress.event_time[name].as_str();
        assert_eq!(at("min"), "1970-01-01T00:00:00.000Z");
        assert_eq!(at("max"), "1970-01-01T00:00:05.000Z");
        assert_eq!(at("avg"), "1970-01-01T00:00:03.000Z");
        assert_eq!(at("watermark"), "1970-01-01T00:00:04.000Z");
    }

    #[test]
    fn rates_are_rows_over_time() {
        let (mut meter, query) = meter();
        run(&mut meter, 0, vec![worker(0, &[600])]);
        let first = query.last_progress().expect("reported");
        assert_eq!(first.input_rows_per_second, 0.0, "nothing to compare with");
        run(&mut meter, 1, vec![worker(0, &[600])]);
        let second = query.last_progress().expect("reported");
        // At least 3 ms an epoch: at most 200 rows a millisecond, and the two began as far apart.
        for rate in [
            first.processed_rows_per_second,
            second.processed_rows_per_second,
            second.input_rows_per_second,
        ] {
            assert!(rate > 100.0 && rate <= 200_000.0, "{rate}");
        }
    }

    #[test]
    fn waiting_to_be_committed_with_others_is_no_work() {
        let (mut meter, query) = meter();
        for epoch in 0..2 {
            meter.begin();
            meter.opened(epoch, 0, &[record(0, 2), record(5, 6)]);
            meter.counted(epoch, vec![worker(0, &[1000])], None);
        }
        std::thread::sleep(Duration::from_millis(300));
        let begun = stopwatch_us();
        std::thread::sleep(Duration::from_millis(20));
        meter.added(1, begun);
        meter.committed(1);
        let reports = query.recent_progress();
        assert_eq!(reports.len(), 2);
        for report in reports {
            // 10 ms of the commit are its own; with the wait it would be 3,000 rows a second.
            let rate = report.processed_rows_per_second;
            assert!(rate > 5_000.0 && rate < 101_000.0, "{rate}");
            assert!(report.batch_duration >= 320, "until it was visible");
        }
    }

    #[test]
    fn phases_are_parts_of_the_whole() {
        let (mut meter, query) = meter();
        run(&mut meter, 7, vec![worker(0, &[1])]);
        let first = query.last_progress().expect("reported");
        let names: Vec<&str> = first.duration_ms.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "addBatch",
                "commitOffsets",
                "getBatch",
                "getOffset",
                "latestOffset",
                "queryPlanning",
                "triggerExecution",
                "walCommit"
            ]
        );
        assert!(first.duration_ms["latestOffset"] >= 3);
        assert!(first.duration_ms["latestOffset"] <= first.duration_ms["triggerExecution"]);
        assert_eq!(first.duration_ms["triggerExecution"], first.batch_duration);
        assert_eq!(first.duration_ms["queryPlanning"], 3);
        run(&mut meter, 8, Vec::new());
        let second = query.last_progress().expect("reported");
        assert_eq!(second.duration_ms["queryPlanning"], 0, "planned once");
    }

    #[test]
    fn epochs_in_flight_are_measured_each_for_itself() {
        let (mut meter, query) = meter();
        for epoch in 0..3 {
            meter.begin();
            meter.opened(epoch, 0, &[record(epoch, epoch + 1)]);
        }
        for epoch in 0..3 {
            finish(&mut meter, epoch, Vec::new());
        }
        let ends: Vec<Value> = query
            .recent_progress()
            .iter()
            .map(|progress| progress.sources[0].end_offset.clone())
            .collect();
        assert_eq!(ends, [1, 2, 3].map(Value::from));
        meter.committed(0);
        assert_eq!(
            query.recent_progress().len(),
            3,
            "an epoch is reported once"
        );
    }

    #[test]
    fn the_last_hundred_reports_are_kept() {
        let (mut meter, query) = meter();
        for epoch in 0..250 {
            meter.begin();
            meter.opened(epoch, 0, &[]);
            finish(&mut meter, epoch, Vec::new());
        }
        let kept = query.recent_progress();
        assert_eq!(kept.len(), 100);
        assert_eq!((kept[0].batch_id, kept[99].batch_id), (150, 249));
    }
}
