//! The epoch log: what each epoch reads, written before any of it becomes visible, and which epochs are committed.
//!
//! `offsets/N` holds the plans of epoch N and of those that were waiting to be written with it; `commits/N` the runs of
//! epochs that the sink made visible, N being the first epoch of the first. A line is one JSON object. Files are put
//! if absent and never replaced, so that of two writers one loses and stops. An epoch of which a sink has something keeps
//! its plan for ever. `replanned/G` holds other plans, by which the run of generation G and those after it go, of epochs
//! that no sink had anything of (a file that one reads was mended).
//!
//! A thread writes them: however many epochs wait when it comes round, they share one write.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::store::Store;
use super::{CheckpointError, FORMAT};
use crate::coordinator::Event;
use crate::source::Planned;

/// The plan of one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EpochRecord {
    /// Which.
    pub(crate) epoch: u64,
    /// Its clock: microseconds since 1970.
    pub(crate) clock_us: i64,
    /// One for each source of the query, in its order. An epoch without splits lets the watermark take effect.
    pub(crate) sources: Vec<Planned>,
    /// The watermarks whose sources have been silent for so long that they do not hold this epoch's back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) idle: Vec<u32>,
    /// The versions of the static rows that it reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) statics: Vec<String>,
}

/// A run of epochs that the sink holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommitRecord {
    /// Its first epoch.
    pub(crate) first: u64,
    /// Its last epoch.
    pub(crate) last: u64,
    /// Rows it gave the sink.
    pub(crate) rows: u64,
    /// Rows it gave the other sinks of the query, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) more_rows: Vec<u64>,
}

impl CommitRecord {
    fn rows_to(&self, sink: usize) -> u64 {
        match sink.checked_sub(1) {
            None => self.rows,
            Some(other) => self.more_rows.get(other).copied().unwrap_or(0),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    generation: u64,
    /// CRC-32 of the lines that follow; none in files of the first builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc32: Option<u32>,
}

enum Entry {
    Plan(EpochRecord),
    Commit(CommitRecord),
    /// Entries of epochs up to this one will not be read again.
    Forget(u64),
}

/// Writes the log of one query. Dropping it writes what waits.
pub(crate) struct Log {
    entries: Option<Sender<Entry>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What was in the log after a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    /// Dense, from the epoch after the checkpoint on.
    pub(crate) plans: Vec<EpochRecord>,
    /// The last epoch that the sink is known to hold.
    pub(crate) committed: Option<u64>,
    /// Those of the runs that are on record.
    commits: Vec<CommitRecord>,
    /// Files and their last epochs, oldest first.
    plan_files: VecDeque<(String, u64)>,
    commit_files: VecDeque<(String, u64)>,
    replanned_files: VecDeque<(String, u64)>,
}

impl Logged {
    /// Makes other plans of epochs, which no sink has anything of, durable as the run of `generation`.
    pub(crate) fn replan(
        &mut self,
        store: &dyn Store,
        generation: u64,
        records: &[EpochRecord],
    ) -> Result<(), CheckpointError> {
        let Some(last) = records.last() else {
            return Ok(());
        };
        let name = format!("replanned/{generation}");
        put(store, generation, &name, records)?;
        self.replanned_files.push_back((name, last.epoch));
        self.go_by(records.to_vec());
        Ok(())
    }

    fn go_by(&mut self, records: Vec<EpochRecord>) {
        let first = self.plans.first().map_or(0, |plan| plan.epoch);
        for record in records {
            let at = record.epoch.checked_sub(first);
            if let Some(plan) = at.and_then(|at| self.plans.get_mut(at as usize)) {
                *plan = record;
            }
        }
    }

    /// The last epoch of which sink number `sink` is known to have got rows.
    pub(crate) fn written_to(&self, sink: usize) -> Option<u64> {
        let mut commits = self.commits.iter().rev();
        let commit = commits.find(|commit| commit.rows_to(sink) > 0);
        commit.map(|commit| commit.last)
    }
}

impl Log {
    /// Goes on behind `logged`, as `generation`. What it has done it tells by `events`.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        generation: u64,
        logged: &Logged,
        events: Sender<Event>,
    ) -> Self {
        let (sender, receiver) = unbounded();
        let mut writer = Writer {
            store,
            generation,
            plan_files: logged.plan_files.clone(),
            commit_files: logged.commit_files.clone(),
            replanned_files: logged.replanned_files.clone(),
        };
        let work = move || {
            if let Err(error) = writer.run(&receiver, &events) {
                let _ = events.send(Event::LogFailed(crate::error::error_chain(&error)));
            }
        };
        let thread = std::thread::Builder::new()
            .name("highwater:log".into())
            .spawn(work)
            .expect("the system can start a thread");
        Log {
            entries: Some(sender),
            thread: Some(thread),
        }
    }

    /// Makes the plan of an epoch durable; `Event::Planned` says when.
    pub(crate) fn plan(&self, record: EpochRecord) {
        self.send(Entry::Plan(record));
    }

    /// Makes it known that the sink holds a run; `Event::Recorded` says when.
    pub(crate) fn commit(&self, record: CommitRecord) {
        self.send(Entry::Commit(record));
    }

    /// Lets go of entries up to `epoch`: checkpoints that are kept do not need them.
    pub(crate) fn forget(&self, epoch: u64) {
        self.send(Entry::Forget(epoch));
    }

    fn send(&self, entry: Entry) {
        if let Some(entries) = &self.entries {
            let _ = entries.send(entry);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.entries = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    store: Arc<dyn Store>,
    generation: u64,
    plan_files: VecDeque<(String, u64)>,
    commit_files: VecDeque<(String, u64)>,
    replanned_files: VecDeque<(String, u64)>,
}

impl Writer {
    fn run(
        &mut self,
        entries: &Receiver<Entry>,
        events: &Sender<Event>,
    ) -> Result<(), CheckpointError> {
        while let Ok(first) = entries.recv() {
            let (mut plans, mut commits, mut forget) = (Vec::new(), Vec::new(), None);
            let mut sort = |entry: Entry| match entry {
                Entry::Plan(record) => plans.push(record),
                Entry::Commit(record) => commits.push(record),
                Entry::Forget(epoch) => forget = Some(epoch),
            };
            sort(first);
            entries.try_iter().for_each(sort);
            // Commits first: a plan that waits costs nothing, a commit that is not recorded may be made again.
            if let (Some(first), Some(last)) = (commits.first(), commits.last()) {
                let (name, last) = (format!("commits/{}", first.first), last.last);
                self.put(&name, &commits)?;
                self.commit_files.push_back((name, last));
                let _ = events.send(Event::Recorded(last));
            }
            if let (Some(first), Some(last)) = (plans.first(), plans.last()) {
                let (name, last) = (format!("offsets/{}", first.epoch), last.epoch);
                self.put(&name, &plans)?;
                self.plan_files.push_back((name, last));
                let _ = events.send(Event::Planned(last));
            }
            if let Some(epoch) = forget {
                let (plans, commits) = (&mut self.plan_files, &mut self.commit_files);
                for files in [plans, commits, &mut self.replanned_files] {
                    while files.front().is_some_and(|(_, last)| *last <= epoch) {
                        let (name, _) = files.pop_front().expect("there is a front");
                        // What stays behind is found again, and ignored, at the next start.
                        if let Err(error) = self.store.delete(&name) {
                            tracing::warn!("{}", crate::error::error_chain(&error));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn put(&self, name: &str, records: &[impl Serialize]) -> Result<(), CheckpointError> {
        put(self.store.as_ref(), self.generation, name, records)
    }
}

fn put(
    store: &dyn Store,
    generation: u64,
    name: &str,
    records: &[impl Serialize],
) -> Result<(), CheckpointError> {
    let body: Vec<u8> = records.iter().flat_map(line).collect();
    let header = Header {
        version: FORMAT,
        generation,
        crc32: Some(crc32fast::hash(&body)),
    };
    let mut bytes = line(&header);
    bytes.extend(body);
    super::put_of_run(store, generation, name, &bytes)
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("log records are plain data");
    bytes.push(b'\n');
    bytes
}

/// Reads what the log holds after epoch `after`.
pub(crate) fn read(store: &dyn Store, after: Option<u64>) -> Result<Logged, CheckpointError> {
    let mut logged = Logged::default();
    for (name, last, plans) in files::<EpochRecord>(store, "offsets", |plan| plan.epoch)? {
        for plan in plans {
            let next = logged
                .plans
                .last()
                .map(|plan| plan.epoch + 1)
                .or(after.map(|epoch| epoch + 1));
            if after.is_some_and(|after| plan.epoch <= after) {
                continue;
            }
            // What came before was let go of when a checkpoint had it.
            if plan.epoch > 0 && next.is_none() {
                return Err(CheckpointError::NoneGood {
                    dir: store.location().into(),
                    why: format!(
                        "its files in \"checkpoints\" are missing, and its log begins with epoch {}",
                        plan.epoch
                    ),
                });
            }
            if plan.epoch != next.unwrap_or(0) {
                return Err(CheckpointError::Damaged {
                    path: format!("{}/{name}", store.location()),
                    reason: format!(
                        "it holds epoch {} where epoch {} is due",
                        plan.epoch,
                        next.unwrap_or(0)
                    ),
                });
            }
            logged.plans.push(plan);
        }
        logged.plan_files.push_back((name, last));
    }
    for (name, last, plans) in files::<EpochRecord>(store, "replanned", |plan| plan.epoch)? {
        logged.go_by(plans);
        logged.replanned_files.push_back((name, last));
    }
    for (name, last, commits) in files::<CommitRecord>(store, "commits", |commit| commit.last)? {
        logged.committed = logged.committed.max(Some(last));
        logged.commits.extend(commits);
        logged.commit_files.push_back((name, last));
    }
    Ok(logged)
}

type LogFile<T> = (String, u64, Vec<T>);

/// The files of one log in the order of their epochs.
fn files<T: DeserializeOwned>(
    store: &dyn Store,
    dir: &str,
    epoch: impl Fn(&T) -> u64,
) -> Result<Vec<LogFile<T>>, CheckpointError> {
    let mut numbers: Vec<u64> = Vec::new();
    for (name, _) in store.list(dir)? {
        numbers.extend(name.parse::<u64>().ok());
    }
    numbers.sort_unstable();
    let mut found = Vec::new();
    for number in numbers {
        let name = format!("{dir}/{number}");
        let Some(bytes) = store.get(&name)? else {
            continue;
        };
        let damaged = |reason: String| CheckpointError::Damaged {
            path: format!("{}/{name}", store.location()),
            reason,
        };
        let text = std::str::from_utf8(&bytes).map_err(|error| damaged(error.to_string()))?;
        let (header, body) = text.split_once('\n').unwrap_or((text, ""));
        let header: Header =
            serde_json::from_str(header).map_err(|error| damaged(error.to_string()))?;
        super::check_version(store, &name, header.version)?;
        if header
            .crc32
            .is_some_and(|sum| sum != crc32fast::hash(body.as_bytes()))
        {
            return Err(damaged("its checksum is wrong".into()));
        }
        let records = body
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<Vec<T>, _>>()
            .map_err(|error| damaged(error.to_string()))?;
        let Some(last) = records.last().map(&epoch) else {
            return Err(damaged("it holds no record".into()));
        };
        found.push((name, last, records));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::store::{ObjectStores, open};
    use super::*;

    fn plan(epoch: u64) -> EpochRecord {
        EpochRecord {
            epoch,
            clock_us: 5,
            sources: Vec::new(),
            idle: Vec::new(),
            statics: Vec::new(),
        }
    }

    fn store(dir: &tempfile::TempDir) -> Arc<dyn Store> {
        open(&dir.path().display().to_string(), &ObjectStores::default()).expect("opened")
    }

    fn begun(store: &Arc<dyn Store>, generation: u64) -> (Log, Receiver<Event>) {
        let (sender, receiver) = unbounded();
        store.take_over(generation).expect("begun");
        let logged = read(store.as_ref(), None).expect("read");
        let log = Log::start(Arc::clone(store), generation, &logged, sender);
        (log, receiver)
    }

    #[test]
    fn what_waits_shares_a_write_and_is_read_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir);
        let (log, _events) = begun(&store, 1);
        (0..50).for_each(|epoch| log.plan(plan(epoch)));
        log.commit(CommitRecord {
            first: 0,
            last: 7,
            rows: 3,
            more_rows: vec![0],
        });
        drop(log);
        let logged = read(store.as_ref(), None).expect("read");
        assert_eq!(logged.plans, (0..50).map(plan).collect::<Vec<_>>());
        assert_eq!(logged.committed, Some(7));
        let written = [0, 1, 2].map(|sink| logged.written_to(sink));
        assert_eq!(written, [Some(7), None, None]);
        assert!(logged.plan_files.len() < 50, "{}", logged.plan_files.len());
        let later = read(store.as_ref(), Some(20)).expect("read");
        assert_eq!(later.plans, (21..50).map(plan).collect::<Vec<_>>());
    }

    #[test]
    fn an_epoch_is_planned_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir);
        let (first, _events) = begun(&store, 1);
        let (second, events) = begun(&store, 1);
        first.plan(plan(0));
        drop(first);
        second.plan(plan(0));
        drop(second);
        let Ok(Event::LogFailed(text)) = events.recv() else {
            panic!("the second writer loses");
        };
        assert!(
            text.contains("offsets/0\" was written by another run")
                && text.contains("start the query again, nothing is lost"),
            "{text}"
        );
    }

    #[test]
    fn a_writer_of_an_older_generation_stops() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir);
        let (stale, events) = begun(&store, 1);
        assert!(store.put_new("generations/2", b"{}").expect("written"));
        stale.plan(plan(0));
        drop(stale);
        let Ok(Event::LogFailed(text)) = events.recv() else {
            panic!("the stale writer stops");
        };
        assert!(text.contains("so this one stops"), "{text}");
        assert!(read(store.as_ref(), None).expect("read").plans.is_empty());
    }

    #[test]
    fn what_no_checkpoint_needs_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir);
        let (log, events) = begun(&store, 1);
        for epoch in 0..20 {
            log.plan(plan(epoch));
            assert!(matches!(events.recv(), Ok(Event::Planned(_))));
        }
        log.forget(14);
        drop(log);
        let logged = read(store.as_ref(), Some(14)).expect("read");
        assert_eq!(logged.plan_files.len(), 5);
    }

    #[test]
    fn the_newest_plan_of_an_epoch_holds_until_it_is_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir);
        let (log, _events) = begun(&store, 1);
        (0..3).for_each(|epoch| log.plan(plan(epoch)));
        drop(log);
        let other = |epoch, clock_us| EpochRecord {
            clock_us,
            ..plan(epoch)
        };
        for (generation, records) in [(9, vec![other(1, 6), other(2, 6)]), (10, vec![other(1, 7)])]
        {
            store.take_over(generation).expect("begun");
            let mut logged = read(store.as_ref(), None).expect("read");
            let written = logged.replan(store.as_ref(), generation, &records);
            written.expect("written");
            let held = read(store.as_ref(), None).expect("read");
            assert_eq!(logged.plans, held.plans);
        }
        let clocks = |after| {
            let logged = read(store.as_ref(), after).expect("read");
            logged.plans.iter().map(|plan| plan.clock_us).collect()
        };
        let all: Vec<i64> = clocks(None);
        assert_eq!(all, [5, 7, 6]);
        let later: Vec<i64> = clocks(Some(1));
        assert_eq!(later, [6]);
        let (log, _events) = begun(&store, 11);
        log.forget(2);
        drop(log);
        assert_eq!(store.list("replanned").expect("listed"), []);
    }

    #[test]
    fn a_changed_number_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir);
        let (log, _events) = begun(&store, 1);
        log.plan(plan(0));
        drop(log);
        let bytes = store.get("offsets/0").expect("read").expect("there");
        let text = String::from_utf8(bytes)
            .expect("text")
            .replace("\"clockUs\":5", "\"clockUs\":6");
        store
            .put("offsets/0", &mut |file| file.write_all(text.as_bytes()))
            .expect("written");
        let error = read(store.as_ref(), None).expect_err("damaged").to_string();
        assert!(
            error.contains("offsets/0") && error.contains("checksum"),
            "{error}"
        );
    }

    #[test]
    fn a_gap_and_a_torn_file_are_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir);
        let (log, events) = begun(&store, 1);
        for epoch in 0..3 {
            log.plan(plan(epoch));
            assert!(matches!(events.recv(), Ok(Event::Planned(_))));
        }
        drop(log);
        store.delete("offsets/1").expect("deleted");
        let error = read(store.as_ref(), None).expect_err("a gap").to_string();
        assert!(error.contains("offsets/2"), "{error}");
        store
            .put("offsets/1", &mut |file| {
                file.write_all(b"{\"version\":1,\"generation\":1}\n{\"epo")
            })
            .expect("written");
        let error = read(store.as_ref(), None).expect_err("torn").to_string();
        assert!(error.contains("offsets/1"), "{error}");
    }
}
