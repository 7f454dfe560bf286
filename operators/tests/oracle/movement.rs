//! Exchange, gather and watermarks on every cluster, and what is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::max;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use datafusion::logical_expr::Operator as Op;
use datafusion::physical_expr::expressions::{binary, col, lit};
use datafusion::scalar::ScalarValue;
use highwater_operators::aggregate::{Emit, aggregate};
use highwater_operators::epoch::{Kernel, run_epochs};
use highwater_operators::exchange::{exchange, gather};
use highwater_operators::metrics::Meters;
use highwater_operators::stage::{Step, stage};
use highwater_operators::watermark::{Marks, Policy, Watermarks, watermark};
use highwater_operators::{Batch, BatchBuilder, Edge, OperatorError, Rows};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use crate::cluster::{CLUSTERS, Cluster, run};
use crate::data::{Epochs, Random, schema};
use crate::reference::{Case, Reference, rows_of};

/// Adds a column with the worker that a row is on.
fn tagged(rows: Rows<'_>) -> Rows<'_> {
    let before = rows.edge.physical();
    let mut fields: Vec<_> = before.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("worker", DataType::Int64, false)));
    let after = Arc::new(Schema::new(fields));
    let worker = rows.stream.scope().index() as i64;
    let edge = Edge::plain(Arc::clone(&after));
    let stream = rows
        .stream
        .unary::<BatchBuilder, _, _, _>(Pipeline, "Tag", move |_, _| {
            move |input, output| {
                input.for_each(|capability, batch| {
                    let rows = std::mem::take(batch).into_rows(&before).unwrap();
                    let mut columns = rows.columns().to_vec();
                    columns.push(Arc::new(Int64Array::from(vec![worker; rows.num_rows()])));
                    let rows = RecordBatch::try_new(Arc::clone(&after), columns).unwrap();
                    output
                        .session_with_builder(&capability)
                        .give_container(&mut rows.into());
                });
            }
        });
    Rows { stream, edge }
}

fn workers(rows: &RecordBatch) -> Vec<i64> {
    let workers = rows.column(rows.num_columns() - 1);
    workers.as_primitive::<Int64Type>().values().to_vec()
}

/// All rows of an epoch as text, sorted, without the worker.
fn texts<'a>(batches: impl Iterator<Item = &'a RecordBatch>, columns: usize) -> Vec<String> {
    let mut texts: Vec<String> = batches
        .flat_map(rows_of)
        .map(|cells| format!("{:?}", &cells[..columns]))
        .collect();
    texts.sort();
    texts
}

#[test]
fn equal_keys_meet_and_no_row_is_lost() {
    let epochs = Arc::new(Epochs::random(&mut Random::new(11), 5, 3000));
    for keys in [
        vec!["ki"],
        vec!["ks", "kf"],
        vec!["d", "kv"],
        vec!["kb"],
        vec![],
    ] {
        for cluster in CLUSTERS {
            let names = keys.clone();
            let output = run(
                cluster,
                &epochs,
                0,
                Edge::plain(schema()),
                3,
                move |rows, failure| {
                    let keys = names
                        .iter()
                        .map(|key| col(key, &schema()).unwrap())
                        .collect();
                    tagged(exchange(rows, keys, failure))
                },
            );
            let output = output.unwrap();
            let mut owners = BTreeMap::new();
            for (epoch, wanted) in epochs.rows.iter().enumerate() {
                let of_epoch = |(e, _): &&(u64, RecordBatch)| *e == epoch as u64;
                let got = output.iter().filter(of_epoch).map(|(_, rows)| rows);
                let columns = wanted.num_columns();
                assert_eq!(texts(got, columns), texts([wanted].into_iter(), columns));
            }
            for (_, rows) in &output {
                let keys: Vec<ArrayRef> = keys
                    .iter()
                    .map(|key| {
                        highwater_operators::keys::normalise(rows.column_by_name(key).unwrap())
                            .unwrap()
                    })
                    .collect();
                for (row, worker) in workers(rows).into_iter().enumerate() {
                    let key: Vec<String> = keys
                        .iter()
                        .map(|key| format!("{:?}", ScalarValue::try_from_array(key, row).unwrap()))
                        .collect();
                    let owner = *owners.entry(key.clone()).or_insert(worker);
                    assert_eq!(owner, worker, "{key:?} on {cluster:?}");
                }
            }
            let used: std::collections::BTreeSet<i64> = owners.into_values().collect();
            if keys.contains(&"ki") {
                assert_eq!(used.len(), cluster.workers(), "{cluster:?}");
            }
        }
    }
}

#[test]
fn gather_brings_all_rows_to_worker_0() {
    let epochs = Arc::new(Epochs::random(&mut Random::new(12), 4, 500));
    for cluster in CLUSTERS {
        let edge = Edge::plain(schema());
        let output = run(cluster, &epochs, 0, edge, 4, |rows, failure| {
            tagged(gather(rows, failure))
        });
        let output = output.unwrap();
        assert!(
            output
                .iter()
                .all(|(_, rows)| workers(rows).iter().all(|w| *w == 0))
        );
        let columns = schema().fields().len();
        let got = texts(output.iter().map(|(_, rows)| rows), columns);
        assert_eq!(got, texts(epochs.rows.iter(), columns));
    }
}

/// Emits the marks of each epoch.
struct Record(SchemaRef);

impl Kernel for Record {
    fn absorb(&mut self, _: u64, _: usize, _: Batch) -> Result<(), OperatorError> {
        Ok(())
    }

    fn run(
        &mut self,
        epoch: u64,
        marks: Marks,
        out: &mut dyn FnMut(RecordBatch),
    ) -> Result<(), OperatorError> {
        let numbers = [epoch as i64, marks.before, marks.now];
        let columns = numbers.map(|n| Arc::new(Int64Array::from(vec![n])) as ArrayRef);
        out(RecordBatch::try_new(Arc::clone(&self.0), columns.to_vec())?);
        Ok(())
    }
}

fn marks_schema() -> SchemaRef {
    let fields = ["epoch", "before", "now"].map(|name| Field::new(name, DataType::Int64, false));
    Arc::new(Schema::new(fields.to_vec()))
}

fn largest_ms(rows: &RecordBatch, only: Option<&str>) -> Option<i64> {
    let mut times = Arc::clone(rows.column_by_name("ts").unwrap());
    if let Some(only) = only {
        let keep = rows.column_by_name(only).unwrap().as_boolean();
        times = arrow::compute::filter(&times, keep).unwrap();
    }
    max(times.as_primitive::<TimestampMicrosecondType>()).map(|us| us.div_euclid(1000))
}

#[test]
fn watermarks_depend_on_the_rows_alone() {
    for (seed, policy) in [(1, Policy::Min), (2, Policy::Max), (3, Policy::Min)] {
        let epochs = Arc::new(Epochs::random(&mut Random::new(seed + 40), 30, 40));
        let (delay, other_delay) = (900_000_i64, 7_000);
        for cluster in CLUSTERS {
            let output = run(
                cluster,
                &epochs,
                0,
                Edge::plain(schema()),
                seed,
                move |rows, failure| {
                    let at = || col("ts", &schema()).unwrap();
                    let (rows, all) = watermark(rows, at(), delay, 0, &Meters::default(), failure);
                    let filter = vec![Step::Filter(col("b", &schema()).unwrap())];
                    let some = stage(rows.clone(), "only b", filter, failure);
                    let (some, mark) =
                        watermark(some, at(), other_delay, 0, &Meters::default(), failure);
                    let marks = Watermarks::new(vec![all, mark], policy, 0);
                    let edge = Edge::plain(marks_schema());
                    let inputs = vec![rows, some];
                    run_epochs("Record", inputs, Some(marks), 0, edge, failure, |_| {
                        Record(marks_schema())
                    })
                },
            );
            let output = output.unwrap();
            let (mut all, mut some, mut before) = (0, 0, 0);
            for (epoch, rows) in epochs.rows.iter().enumerate() {
                let now = match policy {
                    Policy::Min => all.min(some),
                    Policy::Max => all.max(some),
                };
                let of_epoch: Vec<_> = output.iter().filter(|(e, _)| *e == epoch as u64).collect();
                assert_eq!(of_epoch.len(), cluster.workers());
                for (_, got) in of_epoch {
                    let got: Vec<i64> = got
                        .columns()
                        .iter()
                        .map(|column| column.as_primitive::<Int64Type>().value(0))
                        .collect();
                    assert_eq!(got, [epoch as i64, before, now], "{cluster:?}, seed {seed}");
                }
                before = now;
                all = all.max(largest_ms(rows, None).unwrap_or(0) - delay);
                some = some.max(largest_ms(rows, Some("b")).unwrap_or(0) - other_delay);
            }
            assert!(before > 0);
        }
    }
}

#[test]
fn a_restarted_watermark_goes_on_where_it_stood() {
    let epochs = Arc::new(Epochs::random(&mut Random::new(77), 4, 40));
    let output = run(
        Cluster::Bytes(2),
        &epochs,
        2,
        Edge::plain(schema()),
        1,
        |rows, failure| {
            let at = col("ts", &schema()).unwrap();
            let (rows, mark) = watermark(rows, at, 0, 5_000_000_000, &Meters::default(), failure);
            let marks = Watermarks::new(vec![mark], Policy::Min, 4_000_000_000);
            let edge = Edge::plain(marks_schema());
            run_epochs("Record", vec![rows], Some(marks), 2, edge, failure, |_| {
                Record(marks_schema())
            })
        },
    );
    let marks: Vec<Vec<String>> = output
        .unwrap()
        .iter()
        .map(|(_, rows)| {
            rows_of(rows)[0]
                .iter()
                .map(|cell| format!("{cell:?}"))
                .collect()
        })
        .collect();
    assert_eq!(marks[0], ["2", "4000000000", "5000000000"]);
    assert_eq!(marks[2], ["3", "5000000000", "5000000000"]);
}

fn refusal(edge: Edge, calls: &'static str) -> String {
    let epochs = Arc::new(Epochs { rows: Vec::new() });
    let case = Case {
        keys: &["ki"],
        calls,
    };
    let aggregation = Reference::new(false).aggregation(case, Emit::Changed);
    let output = run(
        Cluster::Threads(1),
        &epochs,
        0,
        edge,
        1,
        move |rows, failure| aggregate(rows, aggregation.clone(), failure),
    );
    output.unwrap_err()
}

#[test]
fn what_cannot_be_aggregated_yet_is_refused_with_its_reason() {
    let signed = Edge {
        signed: true,
        ..Edge::plain(schema())
    };
    let text = "epoch 0: aggregation over rows that can be retracted is not supported yet";
    assert_eq!(refusal(signed, "count(*)"), text);
    let error = refusal(Edge::plain(schema()), "array_agg(i)");
    assert!(error.contains("needs its rows in source order"), "{error}");
}

#[test]
fn a_key_that_cannot_be_computed_fails_its_epoch_and_none_before() {
    let epochs = Arc::new(Epochs {
        rows: vec![crate::data::rows(&mut Random::new(3), 50); 5],
    });
    let case = Case {
        keys: &["w"],
        calls: "count(*)",
    };
    let mut aggregation = Reference::new(false).aggregation(case, Emit::Changed);
    // 1 / (w - 1) fails where w is 1.
    let minus = binary(
        col("w", &schema()).unwrap(),
        Op::Minus,
        lit(1_i64),
        &schema(),
    );
    aggregation.keys = vec![binary(lit(1_i64), Op::Divide, minus.unwrap(), &schema()).unwrap()];
    for cluster in CLUSTERS {
        let aggregation = aggregation.clone();
        let output = run(
            cluster,
            &epochs,
            0,
            Edge::plain(schema()),
            1,
            move |rows, failure| aggregate(rows, aggregation.clone(), failure),
        );
        let error = output.unwrap_err();
        assert!(
            error.contains("epoch 0") && error.contains("ivide by zero"),
            "{error}"
        );
    }
}
