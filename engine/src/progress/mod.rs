//! What a query says of itself: progress reports and a status, with the names that users of the model know.

mod meter;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use meter::{Measured, MergeObserved, Meter, Phase, stopwatch_us, timestamp_now};

/// How much a query tells of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reporting {
    /// How many reports it keeps.
    pub(crate) kept: usize,
    /// How often at most it tells its listeners that it has nothing to do.
    pub(crate) idle: Duration,
}

impl Default for Reporting {
    fn default() -> Self {
        Reporting {
            kept: 100,
            idle: Duration::from_secs(10),
        }
    }
}

/// What one epoch did: as it was committed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamingQueryProgress {
    /// The query's id, the same after a restart.
    pub id: String,
    /// This run's id.
    pub run_id: String,
    /// The query's name.
    pub name: Option<String>,
    /// When the epoch began, in UTC: `2026-01-31T12:00:00.000Z`.
    pub timestamp: String,
    /// The epoch.
    pub batch_id: u64,
    /// How long it took until it was visible, in milliseconds.
    pub batch_duration: u64,
    /// How long each of its phases took, in milliseconds: `triggerExecution` is the whole.
    pub duration_ms: BTreeMap<String, u64>,
    /// `max`, `min` and `avg` of the event times seen, and the `watermark`; empty in a query without one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub event_time: BTreeMap<String, String>,
    /// One for each operator with state.
    pub state_operators: Vec<StateOperatorProgress>,
    /// One for each source.
    pub sources: Vec<SourceProgress>,
    /// The sink.
    pub sink: SinkProgress,
    /// Rows read from all sources.
    pub num_input_rows: u64,
    /// Rows that arrived per second since the epoch before began.
    pub input_rows_per_second: f64,
    /// Rows per second of the time the epoch was worked on: not of that in which it waited for others, to be committed
    /// with them.
    pub processed_rows_per_second: f64,
    /// The values of each `observe`, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub observed_metrics: BTreeMap<String, Map<String, Value>>,
}

/// One operator's state in a progress report; counts and sizes are sums over all workers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateOperatorProgress {
    /// Which kind of operator.
    pub operator_name: String,
    /// Keys in the state.
    pub num_rows_total: u64,
    /// Keys the epoch inserted or changed.
    pub num_rows_updated: u64,
    /// How long that took.
    pub all_updates_time_ms: u64,
    /// Keys the epoch removed.
    pub num_rows_removed: u64,
    /// How long that took.
    pub all_removals_time_ms: u64,
    /// How long it took to make the state ready for a checkpoint.
    pub commit_time_ms: u64,
    /// About how many bytes the state takes.
    pub memory_used_bytes: u64,
    /// Late rows that were dropped.
    pub num_rows_dropped_by_watermark: u64,
    /// In how many parts rows are exchanged: one for each worker.
    pub num_shuffle_partitions: u64,
    /// In how many parts the state is kept: one for each worker.
    pub num_state_store_instances: u64,
    /// More, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_metrics: BTreeMap<String, u64>,
}

/// One source in a progress report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceProgress {
    /// What is read.
    pub description: String,
    /// The position before the epoch, in the source's own words.
    pub start_offset: Value,
    /// The position after it.
    pub end_offset: Value,
    /// The position after everything that could be read when it began.
    pub latest_offset: Value,
    /// Rows read.
    pub num_input_rows: u64,
    /// Rows that arrived per second since the epoch before began.
    pub input_rows_per_second: f64,
    /// Rows per second of the time the epoch was worked on: not of that in which it waited for others, to be committed
    /// with them.
    pub processed_rows_per_second: f64,
    /// What the source says of itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, String>,
}

/// The sink in a progress report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkProgress {
    /// Where rows go.
    pub description: String,
    /// Rows handed to it.
    pub num_output_rows: i64,
    /// What the sink says of itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, String>,
}

/// What a query does at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamingQueryStatus {
    /// In words.
    pub message: String,
    /// True if there is something to read.
    pub is_data_available: bool,
    /// True if an epoch is in flight.
    pub is_trigger_active: bool,
}

impl StreamingQueryStatus {
    pub(crate) fn new(message: &str, is_data_available: bool, is_trigger_active: bool) -> Self {
        StreamingQueryStatus {
            message: message.to_string(),
            is_data_available,
            is_trigger_active,
        }
    }
}

/// A report as JSON.
macro_rules! as_json {
    ($($report:ty),*) => {$(
        impl $report {
            /// As JSON in one line.
            pub fn json(&self) -> String {
                serde_json::to_string(self).expect("numbers and text are JSON")
            }

            /// As JSON that people read.
            pub fn pretty_json(&self) -> String {
                serde_json::to_string_pretty(self).expect("numbers and text are JSON")
            }
        }

        impl std::fmt::Display for $report {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.pretty_json())
            }
        }
    )*};
}

as_json!(
    StreamingQueryProgress,
    StateOperatorProgress,
    SourceProgress,
    SinkProgress,
    StreamingQueryStatus
);

#[cfg(test)]
mod tests {
    use super::*;

    /// All paths of keys, sorted.
    fn keys(value: &Value) -> Vec<String> {
        fn walk(value: &Value, path: &str, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    for (name, value) in fields {
                        let path = format!("{path}.{name}");
                        found.push(path.trim_start_matches('.').to_string());
                        walk(value, &path, found);
                    }
                }
                Value::Array(items) => items
                    .iter()
                    .for_each(|item| walk(item, &format!("{path}[]"), found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        walk(value, "", &mut found);
        found.sort();
        found
    }

    fn one(name: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_string(), "1".to_string())])
    }

    #[test]
    fn reports_have_the_names_of_the_model() {
        let full = StreamingQueryProgress {
            event_time: one("watermark"),
            state_operators: vec![StateOperatorProgress {
                custom_metrics: BTreeMap::from([("m".into(), 1)]),
                ..Default::default()
            }],
            sources: vec![SourceProgress {
                metrics: one("m"),
                ..Default::default()
            }],
            sink: SinkProgress {
                metrics: one("m"),
                ..Default::default()
            },
            duration_ms: BTreeMap::from([("triggerExecution".into(), 3)]),
            observed_metrics: BTreeMap::from([(
                "o".into(),
                Map::from_iter([("n".into(), 1.into())]),
            )]),
            ..Default::default()
        };
        let json: Value = serde_json::from_str(&full.json()).expect("JSON");
        assert_eq!(
            keys(&json),
            [
                "batchDuration",
                "batchId",
                "durationMs",
                "durationMs.triggerExecution",
                "eventTime",
                "eventTime.watermark",
                "id",
                "inputRowsPerSecond",
                "name",
                "numInputRows",
                "observedMetrics",
                "observedMetrics.o",
                "observedMetrics.o.n",
                "processedRowsPerSecond",
                "runId",
                "sink",
                "sink.description",
                "sink.metrics",
                "sink.metrics.m",
                "sink.numOutputRows",
                "sources",
                "sources[].description",
                "sources[].endOffset",
                "sources[].inputRowsPerSecond",
                "sources[].latestOffset",
                "sources[].metrics",
                "sources[].metrics.m",
                "sources[].numInputRows",
                "sources[].processedRowsPerSecond",
                "sources[].startOffset",
                "stateOperators",
                "stateOperators[].allRemovalsTimeMs",
                "stateOperators[].allUpdatesTimeMs",
                "stateOperators[].commitTimeMs",
                "stateOperators[].customMetrics",
                "stateOperators[].customMetrics.m",
                "stateOperators[].memoryUsedBytes",
                "stateOperators[].numRowsDroppedByWatermark",
                "stateOperators[].numRowsRemoved",
                "stateOperators[].numRowsTotal",
                "stateOperators[].numRowsUpdated",
                "stateOperators[].numShufflePartitions",
                "stateOperators[].numStateStoreInstances",
                "stateOperators[].operatorName",
                "timestamp",
            ]
        );
        let back: StreamingQueryProgress = serde_json::from_value(json).expect("the same again");
        assert_eq!(back, full);
        let status = StreamingQueryStatus::new("Waiting for data to arrive", false, false);
        let json: Value = serde_json::from_str(&status.pretty_json()).expect("JSON");
        assert_eq!(
            keys(&json),
            ["isDataAvailable", "isTriggerActive", "message"]
        );
    }

    #[test]
    fn what_is_empty_is_left_out_as_the_model_does() {
        let json: Value =
            serde_json::from_str(&StreamingQueryProgress::default().json()).expect("JSON");
        for absent in ["eventTime", "observedMetrics"] {
            assert!(json.get(absent).is_none(), "{absent}");
        }
        assert!(json["stateOperators"].is_array() && json["name"].is_null());
    }
}
