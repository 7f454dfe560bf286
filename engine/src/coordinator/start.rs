//! How a coordinator begins: fresh, or where the checkpoint left the sources and the sink.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::*;
use crate::checkpoint::{Log, Shelf, read_segment};
use crate::dataflow::Beginning;
use crate::error::Error;
use crate::plan::merger;
use crate::progress::{Measured, Meter};
use crate::source::{Planned, Resume, Source, SourceError, Waker, Watch};

/// Takes up the sources and the sink where the checkpoint left them, and starts the thread. The beginning is what the
/// workers must know.
pub(crate) fn start(coordination: Coordination) -> Result<Beginning, Error> {
    let Coordination {
        query,
        mut sources,
        mut sinks,
        trigger,
        grouping,
        checkpoint_interval,
        feed,
        events,
        durable,
        writers,
        hands_over,
        stateful,
        workers,
        processes,
        observed,
        planning_us,
        event_time,
        watermark_sources,
        statics,
    } = coordination;
    let (sender, receiver) = events;
    // A stream alone, or one that is not the fastest where the fastest decides, holds nothing back.
    let may_idle = event_time.policy == Policy::Min && watermark_sources.len() > 1;
    let idle_timeout = event_time.idle_timeout.filter(|_| may_idle);
    let mut beginning = Beginning {
        query_id: query.id.clone(),
        generation: 0,
        first_epoch: 0,
        first_written: vec![0; sinks.len()],
        checkpoint: None,
        marks: None,
        idles: idle_timeout.is_some(),
        statics: statics.clone(),
    };
    let polls = watch(&mut sources, &sender)?;
    let mut replay = VecDeque::new();
    let mut ledger = None;
    let mut resumed = false;
    let mut written = vec![None; sinks.len()];
    if let Some(Durable {
        checkpoint,
        recovered,
    }) = durable
    {
        let Recovered {
            generation,
            manifest,
            mut logged,
        } = recovered;
        let first_epoch = manifest.as_ref().map_or(0, |manifest| manifest.epoch + 1);
        let recorded = logged.committed.map_or(0, |epoch| epoch + 1);
        for (number, sink) in sinks.iter_mut().enumerate() {
            // The sink first, its record second: a crash between the two leaves it ahead, and nothing leaves it behind.
            let before = manifest
                .as_ref()
                .and_then(|manifest| manifest.written_to(number));
            written[number] = before.max(logged.written_to(number));
            if let Some(epoch) = written[number] {
                sink.confirm(epoch)?;
            }
            let committed = sink.committed()?.map_or(0, |epoch| epoch + 1);
            beginning.first_written[number] = committed.max(recorded).max(first_epoch);
        }
        let committed = beginning.first_written.iter().max().copied().unwrap_or(0);
        let planned = first_epoch + logged.plans.len() as u64;
        if committed > planned {
            return Err(Error::Refused {
                class: None,
                message: format!(
                    "the sink holds epoch {} of this query, but checkpoint \"{}\" knows only {planned} epochs: it was \
                     replaced by an older one; use the newest, or a new checkpoint and a new output",
                    committed - 1,
                    checkpoint.store.location()
                ),
            });
        }
        resumed = manifest.is_some() || !logged.plans.is_empty();
        for plan in &logged.plans {
            let read = &plan.statics;
            // The first builds did not write them.
            if read.is_empty() || *read == statics {
                continue;
            }
            return Err(Error::Refused {
                class: None,
                message: format!(
                    "epoch {} of checkpoint \"{}\" read {} and must be run again, but these static rows have changed to {}: put \
                     them back, or use a new checkpoint and a new output",
                    plan.epoch,
                    checkpoint.store.location(),
                    read.join("; "),
                    statics.join("; ")
                ),
            });
        }
        let shelf = Shelf::open(
            Arc::clone(&checkpoint.store),
            generation,
            manifest.as_ref(),
            sources.len(),
        )?;
        if resumed {
            let store = checkpoint.store.as_ref();
            let open = logged.plans.iter().filter(|plan| plan.epoch >= committed);
            let replanned = replanned(&mut sources, open)?;
            logged.replan(store, generation, &replanned)?;
            for (index, source) in sources.iter_mut().enumerate() {
                let planned: Vec<Planned> = logged
                    .plans
                    .iter()
                    .map(|plan| plan.sources[index].clone())
                    .collect();
                let before = manifest.as_ref().map(|manifest| &manifest.sources[index]);
                let at = match (before, planned.first()) {
                    (Some(before), _) => before.at.clone(),
                    (None, Some(first)) => first.start.clone(),
                    (None, None) => source.initial()?,
                };
                let mut memory = Vec::new();
                for segment in before.iter().flat_map(|before| &before.memory) {
                    memory.extend(read_segment(store, segment)?);
                }
                source.resume(Resume {
                    at: &at,
                    oldest: shelf
                        .oldest()
                        .map_or(&at, |oldest| &oldest.sources[index].at),
                    memory: &mut memory.into_iter(),
                    planned: &planned,
                })?;
            }
        }
        let log = Log::start(
            Arc::clone(&checkpoint.store),
            generation,
            &logged,
            sender.clone(),
        );
        beginning.generation = generation;
        beginning.first_epoch = first_epoch;
        beginning.checkpoint = manifest.as_ref().map(|manifest| manifest.epoch);
        replay.extend(logged.plans);
        // What was logged holds, whatever is asked for now.
        beginning.idles |= replay
            .iter()
            .any(|plan: &EpochRecord| !plan.idle.is_empty());
        if resumed {
            tracing::info!(
                query = query.id,
                "going on from epoch {first_epoch}, replaying {} epochs",
                replay.len()
            );
        }
        beginning.marks = manifest
            .as_ref()
            .and_then(|manifest| manifest.marks.clone());
        let from = manifest.map(|manifest| manifest.sources);
        ledger = Some((
            Ledger {
                log,
                shelf,
                _checkpoint: checkpoint,
                pending: None,
                interval: checkpoint_interval,
                last: now(),
            },
            from,
        ));
    }
    let mut positions = Vec::new();
    let (ledger, from) = match ledger {
        Some((ledger, from)) => (Some(ledger), from),
        None => (None, None),
    };
    for (index, (mut source, poll)) in sources.into_iter().zip(polls).enumerate() {
        let planned = replay
            .front()
            .map(|plan: &EpochRecord| &plan.sources[index].start);
        let at = match (planned, &from) {
            (Some(start), _) => start.clone(),
            (None, Some(from)) => from[index].at.clone(),
            (None, None) => {
                debug_assert!(!resumed, "a query that goes on has a position");
                source.initial()?
            }
        };
        let end = match trigger.ends() {
            true => Some(source.latest()?),
            false => None,
        };
        positions.push(Position {
            source,
            at,
            end,
            poll,
        });
    }
    let recorded = beginning.first_written.iter().min().copied().unwrap_or(0);
    let mut runs = Runs::new(
        grouping,
        hands_over,
        writers.len(),
        recorded,
        beginning.first_epoch,
    );
    runs.planned = match &ledger {
        Some(_) => beginning.first_epoch + replay.len() as u64,
        None => u64::MAX,
    };
    let meter = Meter::new(Measured {
        query: Arc::clone(&query),
        sources: positions
            .iter()
            .map(|position| position.source.description())
            .collect(),
        sink: sinks
            .iter()
            .map(|sink| sink.description())
            .take(1)
            .collect(),
        peers: workers * processes,
        planning_us,
        merge_observed: merger(observed).map_err(Error::run)?,
    });
    let heard_us = beginning.marks.iter().flat_map(|marks| &marks.heard_us);
    let heard_us = heard_us.copied().collect();
    let coordinator = Coordinator {
        event_time,
        idleness: Idleness::new(idle_timeout, watermark_sources, heard_us),
        marks: beginning.marks.clone(),
        marks_after: BTreeMap::new(),
        query,
        meter,
        sources: positions,
        sinks: sinks
            .into_iter()
            .zip(beginning.first_written.clone())
            .collect(),
        trigger,
        feed,
        ledger,
        runs,
        replay,
        ends: BTreeMap::new(),
        writers,
        hands_over,
        handed_over_us: None,
        written,
        stateful,
        statics,
        workers,
        processes,
        next_epoch: beginning.first_epoch,
        recorded,
        in_flight: BTreeMap::new(),
        unwritten: 0,
        maybe_more: true,
        paused: false,
        stopping: false,
        unbuilt: false,
        suspended: false,
        failure: None,
        last_start: None,
        due_us: 0,
        begun: now(),
        looking: Duration::ZERO,
        waiting: Vec::new(),
    };
    if let Some(marks) = &beginning.marks {
        coordinator.query.set_watermark(marks.before_ms);
    }
    let run = move || coordinator.run(&receiver);
    std::thread::Builder::new()
        .name("highwater:coordinator".into())
        .spawn(run)
        .expect("the system can start a thread");
    Ok(beginning)
}

/// Those of `plans` that their sources wish changed, so changed.
fn replanned<'a>(
    sources: &mut [Box<dyn Source>],
    plans: impl Iterator<Item = &'a EpochRecord>,
) -> Result<Vec<EpochRecord>, SourceError> {
    let mut changed = Vec::new();
    for plan in plans {
        let mut other = None;
        for (index, source) in sources.iter_mut().enumerate() {
            if let Some(splits) = source.replan(&plan.sources[index])? {
                let other = other.get_or_insert_with(|| plan.clone());
                other.sources[index].splits = splits;
            }
        }
        changed.extend(other);
    }
    Ok(changed)
}

/// Tells each source whom to ring; how often those that cannot are asked.
fn watch(
    sources: &mut [Box<dyn Source>],
    events: &Sender<Event>,
) -> Result<Vec<Option<Duration>>, SourceError> {
    let mut polls = Vec::new();
    for source in sources {
        let ring = events.clone();
        let watch = source.watch(Waker::new(move || {
            let _ = ring.send(Event::Wake);
        }))?;
        polls.push(match watch {
            Watch::Rings => None,
            Watch::PollEveryMs(ms) => Some(Duration::from_millis(ms.max(1))),
        });
    }
    Ok(polls)
}
