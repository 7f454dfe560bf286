//! Hands each epoch's rows to the sink's writers, and what they staged to the coordinator.

use std::collections::BTreeMap;

use crossbeam_channel::Sender;
use highwater_operators::watermark::Account;
use highwater_operators::{Batch, Failure, OperatorError, Rows};
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::empty;
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
}

type Reports = CapacityContainerBuilder<Vec<Report>>;

/// Writes `rows` with `writer`; `first_epoch` is what this dataflow's time 0 stands for. Every epoch gets a report
/// from every worker, rows or not.
pub(crate) fn write<'s>(
    rows: Rows<'s>,
    mut writer: Option<Box<dyn SinkWriter>>,
    first_epoch: u64,
    failure: Failure,
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
                    });
                    capability.downgrade(&(time + 1));
                }
            }
        })
}

/// Reports and marks of one epoch.
type Arrived = (Vec<Report>, Vec<(u32, i64)>);

/// Each watermark's marks as they arrive, and what keeps account of them.
pub(crate) type Marks<'s> = (Stream<'s, u64, Vec<(u32, i64)>>, Account);

/// Brings all reports of an epoch to worker 0 and tells the coordinator that it is complete, epoch after epoch.
pub(crate) fn collect<'s>(
    reports: Stream<'s, u64, Vec<Report>>,
    marks: Option<Marks<'s>>,
    first_epoch: u64,
    coordinator: Option<Sender<Event>>,
) -> ProbeHandle<u64> {
    let probe = ProbeHandle::new();
    let (marks, mut account) = match marks {
        Some((marks, account)) => (marks, Some(account)),
        None => (empty(reports.scope()), None),
    };
    reports
        .binary_frontier::<_, CapacityContainerBuilder<Vec<()>>, _, _, _, _>(
            marks,
            Exchange::new(|_: &Report| 0),
            Pipeline,
            "Collect",
            move |_, _| {
                let mut next = 0u64;
                let mut arrived: BTreeMap<u64, Arrived> = BTreeMap::new();
                move |(input, frontier), (marks, marks_frontier), _output| {
                    input.for_each(|epoch, reports| {
                        let arrived = arrived.entry(*epoch.time()).or_default();
                        arrived.0.append(reports);
                    });
                    marks.for_each(|epoch, marks| {
                        let arrived = arrived.entry(*epoch.time()).or_default();
                        arrived.1.append(marks);
                    });
                    loop {
                        let ended = frontier.is_empty() && arrived.is_empty();
                        if ended || frontier.less_equal(&next) || marks_frontier.less_equal(&next) {
                            break;
                        }
                        let (reports, marks) = arrived.remove(&next).unwrap_or_default();
                        let marks_ms = account.as_mut().map(|account| account.after(&marks));
                        if let Some(coordinator) = &coordinator {
                            let _ = coordinator.send(Event::Complete {
                                epoch: first_epoch + next,
                                reports,
                                marks_ms: marks_ms.unwrap_or_default(),
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
