//! Hands each epoch's rows to the sink's writers, and what they staged to the coordinator.

use std::collections::BTreeMap;

use crossbeam_channel::Sender;
use highwater_operators::metrics::{Meters, WorkerMetrics};
use highwater_operators::{Batch, Failure, OperatorError, Rows};
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::{Operator, Probe};
use timely::dataflow::{ProbeHandle, Stream};

use crate::coordinator::Event;
use crate::error::{error_chain, plain};
use crate::sink::{Receipt, SinkWriter};

/// What one worker says of one epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What it staged; none on a worker without a writer, or if the epoch failed there.
    pub(crate) receipt: Option<Receipt>,
    /// The first failure on this worker so far, if it covers the epoch.
    pub(crate) failure: Option<String>,
    /// What it counted.
    pub(crate) metrics: WorkerMetrics,
}

type Reports = CapacityContainerBuilder<Vec<Report>>;

/// Writes `rows` with `writer`; `first_epoch` is what this dataflow's time 0 stands for. Every epoch gets a report
/// from every worker, rows or not.
pub(crate) fn write<'s>(
    rows: Rows<'s>,
    mut writer: Option<Box<dyn SinkWriter>>,
    first_epoch: u64,
    failure: Failure,
    meters: Meters,
) -> Stream<'s, u64, Vec<Report>> {
    let schema = rows.edge.physical();
    rows.stream
        .unary_frontier::<Reports, _, _, _>(Pipeline, "Write", move |capability, _| {
            let mut held = Some(capability);
            let mut pending: BTreeMap<u64, Vec<Batch>> = BTreeMap::new();
            move |(input, frontier), output| {
                let current = held.as_ref().map(|capability| *capability.time());
                input.for_each(|epoch, batch| {
                    let time = *epoch.time();
                    let batch = std::mem::take(batch);
                    // Rows of the epoch that is being written leave in this call; others wait, on memory of their own.
                    let kept = if Some(time) == current {
                        Ok(batch)
                    } else {
                        batch.into_owned_rows(&schema).map(Batch::from)
                    };
                    match kept {
                        Ok(batch) => pending.entry(time).or_default().push(batch),
                        Err(error) => failure.set(time, error),
                    }
                });
                while let Some(capability) = &mut held {
                    let time = *capability.time();
                    let epoch = first_epoch + time;
                    for batch in pending.remove(&time).unwrap_or_default() {
                        if failure.covers(time) {
                            continue;
                        }
                        let written = batch.into_rows(&schema).and_then(|rows| match &mut writer {
                            Some(writer) => writer
                                .write(epoch, &rows)
                                .map_err(|e| OperatorError::Other(error_chain(&e))),
                            None => Err(OperatorError::Other(
                                "rows arrived at a worker without a writer".into(),
                            )),
                        });
                        if let Err(error) = written {
                            failure.set(time, error);
                        }
                    }
                    if frontier.less_equal(&time) {
                        break;
                    }
                    if frontier.is_empty() && pending.is_empty() {
                        held = None;
                        break;
                    }
                    let metrics = meters.take(time);
                    let receipt = match &mut writer {
                        Some(writer) if !failure.covers(time) => {
                            match writer.stage(epoch..=epoch) {
                                Ok(receipt) => Some(receipt),
                                Err(error) => {
                                    failure.set(time, OperatorError::Other(error_chain(&error)));
                                    None
                                }
                            }
                        }
                        _ => None,
                    };
                    let failed = failure
                        .covers(time)
                        .then(|| failure.text().map(|(_, text)| plain(&text)))
                        .flatten();
                    output.session(capability).give(Report {
                        receipt,
                        failure: failed,
                        metrics,
                    });
                    capability.downgrade(&(time + 1));
                }
            }
        })
}

/// Brings all reports of an epoch to worker 0 and tells the coordinator that it is complete, epoch after epoch.
pub(crate) fn collect(
    reports: Stream<'_, u64, Vec<Report>>,
    first_epoch: u64,
    coordinator: Option<Sender<Event>>,
) -> ProbeHandle<u64> {
    let probe = ProbeHandle::new();
    let pact = Exchange::new(|_: &Report| 0);
    reports
        .unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
            pact,
            "Collect",
            move |_, _| {
                let mut next = 0u64;
                let mut arrived: BTreeMap<u64, Vec<Report>> = BTreeMap::new();
                move |(input, frontier), _output| {
                    input.for_each(|epoch, reports| {
                        arrived.entry(*epoch.time()).or_default().append(reports)
                    });
                    loop {
                        let ended = frontier.is_empty() && arrived.is_empty();
                        if ended || frontier.less_equal(&next) {
                            break;
                        }
                        let reports = arrived.remove(&next).unwrap_or_default();
                        if let Some(coordinator) = &coordinator {
                            let _ = coordinator.send(Event::Complete {
                                epoch: first_epoch + next,
                                reports,
                            });
                        }
                        next += 1;
                    }
                }
            },
        )
        .probe_with(&probe);
    probe
}
