//! A query as it was asked for, and its launch: the same at its start and in every later generation of workers.

use std::sync::{Arc, Mutex};

use crossbeam_channel::{Sender, unbounded};
use highwater_operators::arrangement::Budget;

use crate::agreement::Planned;
use crate::checkpoint::{self, Checkpoint, PlanShape, Store};
use crate::coordinator::{self, Coordination, Durable, Event, EventTime, Grouping};
use crate::dataflow::{Blueprint, FeedInput, feed};
use crate::error::Error;
use crate::plan::Compiled;
use crate::query::QueryShared;
use crate::sink::{OutputMode, Placement, SinkFactory};
use crate::source::{Reader, Source};
use crate::trigger::Trigger;
use crate::workers::{Installation, Workers};
use crate::writer::Pacing;

fn owned(fixed: Vec<(&'static str, String)>) -> Vec<(String, String)> {
    let fixed = fixed.into_iter();
    fixed.map(|(name, value)| (name.into(), value)).collect()
}

/// Everything a launch needs. Nothing of it changes while the query lives.
pub(crate) struct Definition {
    /// The same in every process, and for no other query.
    pub(crate) key: String,
    pub(crate) name: Option<String>,
    pub(crate) compiled: Arc<Compiled>,
    /// For the answer; then for late rows, if they are wanted.
    pub(crate) sinks: Vec<Arc<dyn SinkFactory>>,
    pub(crate) mode: OutputMode,
    pub(crate) trigger: Trigger,
    pub(crate) pacing: Pacing,
    pub(crate) event_time: EventTime,
    /// How long it took to plan the query.
    pub(crate) planning_us: u64,
    /// Where its checkpoint is, if it has one.
    pub(crate) store: Option<Arc<dyn Store>>,
    pub(crate) budget: Arc<Budget>,
    /// True in the process that plans and commits.
    pub(crate) first: bool,
    pub(crate) workers: usize,
    pub(crate) processes: usize,
}

impl Definition {
    fn recovers(&self) -> bool {
        self.sinks.iter().all(|sink| sink.recovers())
    }

    /// What may not change of the sinks.
    fn fixed(&self) -> Vec<(String, String)> {
        let named = |(number, sink): (usize, &Arc<dyn SinkFactory>)| {
            let prefix = if number == 0 {
                ""
            } else {
                checkpoint::OF_LATE_ROWS
            };
            let fixed = sink.fixed().into_iter();
            fixed.map(move |(name, value)| (format!("{prefix}{name}"), value))
        };
        self.sinks.iter().enumerate().flat_map(named).collect()
    }

    /// What all processes must agree on.
    fn planned(&self) -> Planned {
        let name = self.name.as_deref();
        let name = name.map_or("a query without a name".into(), |name| {
            format!("query \"{name}\"")
        });
        let fixed = self.fixed();
        let kind = fixed.first().map_or("", |(_, kind)| kind.as_str());
        let mut plan = format!("{}\n", self.compiled.root);
        for field in self.compiled.schema.fields() {
            plan.push_str(&format!("column {} {}\n", field.name(), field.data_type()));
        }
        for (name, value) in &fixed {
            plan.push_str(&format!("sink {name} {value}\n"));
        }
        Planned {
            title: format!("{name} ({} mode, to {kind})", self.mode),
            plan,
        }
    }

    /// Why the query cannot go on from where it was when its workers are lost, if it cannot.
    pub(crate) fn ends_with_workers(&self) -> Option<&'static str> {
        let without =
            "the query cannot go on without a checkpoint: give it the option checkpointLocation";
        self.store.is_none().then_some(without)
    }

    /// Opens checkpoint, sources and sink, starts the coordinator (in the first process), and has `workers` build the
    /// dataflow.
    pub(crate) fn launch(&self, query: &Arc<QueryShared>, workers: &Workers) -> Result<(), Error> {
        workers.install(self.prepare(query, None)?);
        Ok(())
    }

    /// The same but for the last step. `taken` is the checkpoint if it was taken before.
    pub(crate) fn prepare(
        &self,
        query: &Arc<QueryShared>,
        taken: Option<Checkpoint>,
    ) -> Result<Installation, Error> {
        let installation = self.open(query, taken);
        if installation.is_err() {
            query.did_not_begin();
        }
        installation
    }

    fn open(
        &self,
        query: &Arc<QueryShared>,
        taken: Option<Checkpoint>,
    ) -> Result<Installation, Error> {
        let (workers, processes) = (self.workers, self.processes);
        let (sender, receiver) = unbounded();
        let coordinator = self.first.then(|| sender.clone());
        let taken = match (taken, &self.store) {
            (None, Some(store)) if self.first => Some(Checkpoint::take(Arc::clone(store))?),
            (taken, _) => taken,
        };
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        let mut readers = Vec::new();
        for used in &self.compiled.sources {
            if self.first {
                let source = used.factory.open()?;
                readers.push(source.reader());
                sources.push(source);
            } else {
                readers.push(used.factory.reader());
            }
        }
        if !query.begin(workers, coordinator.clone()) {
            return Err(Error::SessionEnded("the query was stopped".into()));
        }
        let operators = self.compiled.root.operators();
        let mut feed_input = None;
        let mut beginning = String::new();
        if self.first {
            let durable = match taken {
                Some(checkpoint) => {
                    let stateful = !operators.is_empty();
                    let shape = PlanShape {
                        sources: sources.iter().map(|source| source.description()).collect(),
                        fixed_of_sources: sources
                            .iter()
                            .map(|source| owned(source.fixed()))
                            .collect(),
                        operators: operators.clone(),
                        windows: self.compiled.windows.clone(),
                        mode: stateful.then_some(self.mode),
                        statics: {
                            let entered = self.compiled.statics.iter().filter(|used| used.enters);
                            entered.map(|used| used.version.clone()).collect()
                        },
                        sink: self.fixed(),
                    };
                    let recovered =
                        checkpoint.recover(&shape, &query.run_id, workers, processes)?;
                    if !self.recovers() && recovered.has_epochs() {
                        return Err(Error::refused(
                            "_LEGACY_ERROR_TEMP_1299",
                            "this query does not support recovering from its checkpoint location: what its sink held \
                             is gone with the program that filled it; remove the checkpoint to start over",
                        ));
                    }
                    Some(Durable {
                        checkpoint,
                        recovered,
                    })
                }
                None => None,
            };
            let (feed, input) = feed();
            feed_input = Some(input);
            let writers = |(number, sink): (usize, &Arc<dyn SinkFactory>)| {
                let workers = match sink.placement() {
                    Placement::EveryWorker => workers * processes,
                    Placement::OneWorker => 1,
                };
                (0..workers).map(move |worker| (number, worker))
            };
            let writers = self.sinks.iter().enumerate().flat_map(writers).collect();
            let generation = durable
                .as_ref()
                .map_or(0, |durable| durable.recovered.generation);
            let opened = self.sinks.iter().map(|sink| sink.open(generation));
            let opened = opened.collect::<Result<Vec<_>, _>>()?;
            let begin = coordinator::start(Coordination {
                query: Arc::clone(query),
                sources,
                sinks: opened,
                trigger: self.trigger,
                grouping: match self.sinks[0].groups_epochs() {
                    true => self.pacing.grouping,
                    false => Grouping::NONE,
                },
                checkpoint_interval: self.pacing.checkpoint_interval,
                feed,
                events: (sender, receiver),
                durable,
                writers,
                hands_over: self.sinks[0].hands_over(),
                stateful: !operators.is_empty(),
                workers,
                processes,
                observed: self.compiled.root.observed(),
                planning_us: self.planning_us,
                event_time: self.event_time,
                watermark_sources: self.compiled.root.watermark_sources(),
                statics: self.compiled.static_versions(),
            })?;
            beginning = serde_json::to_string(&begin).expect("plain data");
        }
        let blueprint = self.blueprint(query, readers, feed_input.zip(coordinator));
        let (ended, stopping) = (Arc::clone(query), Arc::clone(query));
        Ok(Installation {
            key: self.key.clone(),
            beginning,
            planned: self.planned(),
            is_stopping: Arc::new(move || stopping.is_stopping()),
            build: Arc::new(move |worker, beginning| blueprint.build(worker, beginning)),
            ended: Arc::new(move |reason| ended.worker_ended(reason)),
        })
    }

    /// What the dataflow is built by; `ends` are the coordinator's, in its process.
    fn blueprint(
        &self,
        query: &Arc<QueryShared>,
        readers: Vec<Arc<dyn Reader>>,
        ends: Option<(FeedInput, Sender<Event>)>,
    ) -> Blueprint {
        let (feed, coordinator) = ends.unzip();
        Blueprint {
            name: self.name.clone().unwrap_or_else(|| "query".into()),
            compiled: Arc::clone(&self.compiled),
            readers,
            sinks: self.sinks.clone(),
            feed,
            coordinator,
            query: Arc::clone(query),
            policy: self.event_time.policy,
            store: self.store.clone(),
            budget: Arc::clone(&self.budget),
            manifest: Mutex::default(),
        }
    }

    /// Takes part in a query that has ended here, should a new first process start it again.
    pub(crate) fn offer(&self, query: &Arc<QueryShared>, workers: &Workers) {
        let readers = self.compiled.sources.iter();
        let readers = readers.map(|used| used.factory.reader()).collect();
        let blueprint = self.blueprint(query, readers, None);
        workers.install(Installation {
            key: self.key.clone(),
            beginning: String::new(),
            planned: self.planned(),
            is_stopping: Arc::new(|| false),
            build: Arc::new(move |worker, beginning| blueprint.build(worker, beginning)),
            ended: Arc::new(|_| {}),
        });
    }
}
