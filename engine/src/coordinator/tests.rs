use std::ops::RangeInclusive;

use super::*;
use crate::dataflow::feed;
use crate::query::About;
use crate::sink::{Receipt, SinkError};
use crate::source::{Admitted, Reader, SourceError, Split, Waker, Watch};

/// Always has one more split of `bytes`.
struct Endless {
    bytes: u64,
}

fn at(offset: &Offset) -> u64 {
    offset.0.as_u64().expect("a number")
}

impl Source for Endless {
    fn description(&self) -> String {
        "endless".into()
    }
    fn watch(&mut self, _waker: Waker) -> Result<Watch, SourceError> {
        Ok(Watch::Rings)
    }
    fn initial(&mut self) -> Result<Offset, SourceError> {
        Ok(Offset(0.into()))
    }
    fn latest(&mut self) -> Result<Offset, SourceError> {
        Ok(Offset(u64::MAX.into()))
    }
    fn admit(
        &mut self,
        from: &Offset,
        _to: &Offset,
        _max: u64,
    ) -> Result<Option<Admitted>, SourceError> {
        let split = Split {
            descriptor: at(from).to_string(),
            bytes: self.bytes,
            process: None,
        };
        Ok(Some(Admitted {
            end: Offset((at(from) + 1).into()),
            splits: vec![split],
        }))
    }
    fn reader(&self) -> Arc<dyn Reader> {
        unreachable!("the coordinator reads no rows")
    }
}

struct Recorder(Sender<u64>);

impl Sink for Recorder {
    fn description(&self) -> String {
        "recorder".into()
    }
    fn commit(
        &mut self,
        epochs: RangeInclusive<u64>,
        _receipts: &[Receipt],
    ) -> Result<(), SinkError> {
        epochs.for_each(|epoch| self.0.send(epoch).expect("the test listens"));
        Ok(())
    }
}

struct Bench {
    events: Sender<Event>,
    opened: crate::dataflow::FeedInput,
    committed: Receiver<u64>,
    query: Arc<QueryShared>,
}

fn endless(bytes: u64) -> Bench {
    let (events, receiver) = crossbeam_channel::unbounded();
    let (recorder, committed) = crossbeam_channel::unbounded();
    let (feed, opened) = feed();
    let query = Arc::new(QueryShared::new(About::default()));
    assert!(query.begin(0, Some(events.clone())));
    start(Coordination {
        query: Arc::clone(&query),
        sources: vec![Box::new(Endless { bytes })],
        sinks: vec![Box::new(Recorder(recorder))],
        trigger: Trigger::Default,
        grouping: Grouping::NONE,
        checkpoint_interval: Duration::from_secs(10),
        feed,
        events: (events.clone(), receiver),
        durable: None,
        writers: vec![(0, 0)],
        hands_over: false,
        stateful: false,
        workers: 1,
        processes: 1,
        observed: Vec::new(),
        planning_us: 0,
        statics: Vec::new(),
        event_time: EventTime {
            no_data_epochs: false,
            policy: Policy::Min,
            idle_timeout: None,
        },
        watermark_sources: Vec::new(),
    })
    .expect("started");
    Bench {
        events,
        opened,
        committed,
        query,
    }
}

/// Waits until no further epoch is opened.
fn settled(bench: &Bench) -> usize {
    let mut last = usize::MAX;
    loop {
        let now = bench.opened.waiting();
        if now == last && now > 0 {
            return now;
        }
        last = now;
        std::thread::sleep(Duration::from_millis(30));
    }
}

#[test]
fn epochs_in_flight_are_bounded_in_number_and_in_bytes() {
    assert_eq!(settled(&endless(1)), EPOCHS_IN_FLIGHT);
    assert_eq!(
        settled(&endless(EPOCH_BYTES)),
        (BYTES_IN_FLIGHT / EPOCH_BYTES) as usize
    );
    assert_eq!(
        settled(&endless(BYTES_IN_FLIGHT * 2)),
        1,
        "one is always let in"
    );
}

#[test]
fn a_commit_lets_the_next_epoch_in() {
    let bench = endless(1);
    let before = settled(&bench);
    let report = |failure: Option<&str>| Report {
        failure: failure.map(str::to_string),
        ..Report::default()
    };
    let receipt = Receipt {
        worker: 0,
        rows: 1,
        body: String::new(),
    };
    bench
        .events
        .send(Event::Staged(Staged {
            sink: 0,
            last: 0,
            receipt: Ok(receipt),
        }))
        .expect("it listens");
    bench
        .events
        .send(Event::Complete {
            epoch: 0,
            reports: vec![report(None)],
            marks_ms: Vec::new(),
        })
        .expect("it listens");
    assert_eq!(bench.committed.recv(), Ok(0));
    while bench.opened.waiting() == before {
        std::thread::sleep(Duration::from_millis(5));
    }
    bench
        .events
        .send(Event::Complete {
            epoch: 1,
            reports: vec![report(Some("bad row"))],
            marks_ms: Vec::new(),
        })
        .expect("it listens");
    while bench.query.active() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(
        bench.committed.try_recv().is_err(),
        "a failed epoch is not committed"
    );
}
