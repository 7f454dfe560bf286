//! Progress reports over many short epochs: how many are kept, what they add up to, and how often idleness is told.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use highwater::{QueryIdle, StreamingQueryListener};

use super::*;

#[test]
fn reports_add_up_to_the_rows_read_and_written() {
    const FILES: u64 = 260;
    let dir = tempfile::tempdir().expect("a directory");
    let (input, out) = (dir.path().join("in"), dir.path().join("out"));
    fs::create_dir(&input).expect("made");
    let mut rows = 0;
    for file in 0..FILES {
        let values = rows..rows + file % 5 + 1;
        rows = values.end;
        let lines: String = values.map(|v| format!("{{\"v\":{v}}}\n")).collect();
        fs::write(input.join(format!("{file:03}.json")), lines).expect("written");
    }
    let session = Session::with_workers(2).expect("a session");
    let kept = "spark.sql.streaming.numRecentProgressUpdates";
    assert_eq!(session.conf(kept).expect("a setting"), "100");
    let run = |name: &str, kept_reports: &str| {
        session.set_conf(kept, kept_reports).expect("set");
        let frame = session
            .read_stream()
            .format("json")
            .schema("v BIGINT")
            .and_then(|reader| reader.option("maxFilesPerTrigger", 1).path(&input).load())
            .expect("a stream");
        let frame = frame.filter(highwater::prelude::col("v").gt(highwater::prelude::lit(9i64)));
        let writer = frame.expect("a query").write_stream().format("json");
        let query = writer
            .path(out.join(name))
            .option("checkpointLocation", dir.path().join(name).display())
            .option("commitInterval", "200 milliseconds")
            .trigger(Trigger::AvailableNow)
            .start()
            .expect("started");
        query.await_termination().expect("it ran");
        query
    };
    let query = run("all", "1000");
    let reports = query.recent_progress();
    let epochs: Vec<u64> = reports.iter().map(|report| report.batch_id).collect();
    assert_eq!(epochs, (0..FILES).collect::<Vec<_>>(), "each epoch once");
    assert_eq!(reports.iter().map(|r| r.num_input_rows).sum::<u64>(), rows);
    let sources = reports.iter().flat_map(|report| &report.sources);
    assert_eq!(
        sources.map(|source| source.num_input_rows).sum::<u64>(),
        rows
    );
    let written: i64 = reports.iter().map(|r| r.sink.num_output_rows).sum();
    assert_eq!(written, rows as i64 - 10);
    assert_eq!(query.committed().rows, rows - 10);
    assert_eq!(query.committed().input_rows, rows);
    let files = fs::read_dir(out.join("all")).expect("listed").count();
    assert!(
        files < FILES as usize,
        "{files} files: epochs were committed in runs"
    );
    let reports = run("few", "3").recent_progress();
    let epochs: Vec<u64> = reports.iter().map(|report| report.batch_id).collect();
    assert_eq!(epochs, [FILES - 3, FILES - 2, FILES - 1]);
    let query = run("none", "0");
    assert!(query.recent_progress().is_empty());
    let last = query.last_progress().expect("kept all the same");
    assert_eq!(last.batch_id, FILES - 1);
}

#[derive(Default)]
struct Idle {
    told: AtomicUsize,
    of: Mutex<Vec<String>>,
}

impl StreamingQueryListener for Idle {
    fn on_query_idle(&self, event: &QueryIdle) {
        self.told.fetch_add(1, Ordering::SeqCst);
        self.of.lock().expect("no panic").push(event.id.clone());
    }
}

#[test]
fn idleness_is_told_as_often_as_is_set() {
    let interval = "spark.sql.streaming.noDataProgressEventInterval";
    let session = Session::with_workers(1).expect("a session");
    assert_eq!(session.conf(interval).expect("a setting"), "10000");
    for (text, ms) in [
        ("30s", "30000"),
        ("2m", "120000"),
        ("50", "50"),
        ("40ms", "40"),
    ] {
        session.set_conf(interval, text).expect(text);
        assert_eq!(session.conf(interval).expect("a setting"), ms);
    }
    for wrong in ["", "soon", "-1", "5 parsecs"] {
        let error = session.set_conf(interval, wrong).expect_err("refused");
        assert!(error.to_string().contains(interval), "{error}");
    }
    let listener = Arc::new(Idle::default());
    let listening: Arc<dyn StreamingQueryListener> = Arc::<Idle>::clone(&listener);
    session.streams().add_listener(listening);
    let (_rows, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let often = count(&frame, "often");
    session.set_conf(interval, "1h").expect("set");
    let (_more, frame) = session.memory_stream("v BIGINT").expect("a stream");
    let seldom = count(&frame, "seldom");
    let begun = std::time::Instant::now();
    while listener.told.load(Ordering::SeqCst) < 10 {
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing is told");
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(9 * 40), "{took:?}");
    let of = listener.of.lock().expect("no panic").clone();
    assert!(of.iter().all(|id| id == often.id()), "{of:?}");
    often.stop().expect("stopped");
    seldom.stop().expect("stopped");
}

#[test]
fn settings_of_the_model_without_an_effect_are_checked_and_kept() {
    let session = Session::with_workers(1).expect("a session");
    for (key, default, other, wrong) in [
        ("spark.sql.adaptive.enabled", "true", "false", "maybe"),
        ("spark.sql.shuffle.partitions", "200", "5", "0"),
        (
            "spark.sql.streaming.schemaInference",
            "false",
            "FALSE",
            "true",
        ),
        (
            "spark.sql.streaming.statefulOperator.checkCorrectness.enabled",
            "true",
            "false",
            "no",
        ),
        ("spark.sql.streaming.stopTimeout", "0", "0s", "30s"),
        (
            "spark.sql.streaming.unsupportedOperationCheck",
            "true",
            "False",
            "",
        ),
        ("spark.sql.ansi.enabled", "true", "false", "strict"),
    ] {
        assert_eq!(session.conf(key).expect(key), default, "{key}");
        session.set_conf(key, other).expect(key);
        let kept = session.conf(key).expect(key);
        assert!(kept.eq_ignore_ascii_case(other), "{key}: {kept}");
        let error = session.set_conf(key, wrong).expect_err(key).to_string();
        assert!(error.contains(key) && error.contains("it is"), "{error}");
    }
    let error = session.set_conf("spark.sql.shuffle", "5");
    let error = error.expect_err("no setting").to_string();
    assert!(error.contains("there is no setting"), "{error}");
}
