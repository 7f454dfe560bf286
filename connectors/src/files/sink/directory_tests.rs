//! What happens in and to an output directory: other files, other queries, batches, faults.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use highwater_engine::sink::Receipt;
use tempfile::TempDir;

use super::tests::{count, factory, lister, request, rows, schema, visible};
use super::*;
use crate::files::committed::{is_sink_directory, is_within_sink_directory};

fn one() -> SchemaRef {
    schema(&[("s", DataType::Utf8)])
}

/// A sink of rows `{k, n}` by `k`.
fn partitioned(out: &Path, options: &[(&str, &str)]) -> Arc<dyn SinkFactory> {
    let two = schema(&[("k", DataType::Int64), ("n", DataType::Int64)]);
    let request = SinkRequest {
        partition_by: vec!["k".into()],
        ..request(out, &two, options)
    };
    factory("json", request)
}

fn batch(values: impl Iterator<Item = (u64, u64)>) -> arrow::array::RecordBatch {
    let two = schema(&[("k", DataType::Int64), ("n", DataType::Int64)]);
    let lines: String = values
        .map(|(k, n)| format!("{{\"k\":{k},\"n\":{n}}}\n"))
        .collect();
    rows(&two, &lines)
}

fn stage(factory: &Arc<dyn SinkFactory>, epoch: u64, values: &[(u64, u64)]) -> Receipt {
    let mut writer = factory.writer(0, "1f-2e", 0).unwrap();
    writer.write(epoch, &batch(values.iter().copied())).unwrap();
    writer.stage(epoch..=epoch).unwrap()
}

/// An error and its causes.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn committed(out: &Path) -> usize {
    let mut lister = lister(out);
    lister.list(&|_, _| false).unwrap().len()
}

#[test]
fn two_queries_write_into_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let make = |id: &str| {
        let query_id = id.to_string();
        factory(
            "json",
            SinkRequest {
                query_id,
                ..request(dir.path(), &one(), &[])
            },
        )
    };
    for epoch in 0..3u64 {
        for id in ["a", "b"] {
            let factory = make(id);
            let mut sink = factory.open(0).unwrap();
            assert_eq!(sink.committed().unwrap(), epoch.checked_sub(1));
            let mut writer = factory.writer(0, id, 0).unwrap();
            writer.write(epoch, &rows(&one(), "{\"s\":\"a\"}")).unwrap();
            let receipt = writer.stage(epoch..=epoch).unwrap();
            sink.commit(epoch..=epoch, &[receipt]).unwrap();
        }
    }
    assert_eq!(count("json", dir.path(), &one()), 6);
    assert!(is_sink_directory(dir.path()));
    assert!(is_within_sink_directory(&dir.path().join("k=1")));
    assert!(!is_sink_directory(dir.path().parent().unwrap()));
}

#[test]
fn files_that_were_there_stay_and_files_that_come_otherwise_do_not_count() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("k=1")).unwrap();
    fs::write(dir.path().join("k=1/old.json"), "{\"n\":1}\n").unwrap();
    fs::write(dir.path().join(".hidden"), "{\"n\":1}\n").unwrap();
    let factory = partitioned(dir.path(), &[]);
    let mut sink = factory.open(0).unwrap();
    assert_eq!(
        (committed(dir.path()), sink.committed().unwrap()),
        (1, None)
    );
    sink.commit(0..=0, &[stage(&factory, 0, &[(1, 2), (2, 3)])])
        .unwrap();
    fs::write(dir.path().join("k=1/foreign.json"), "{\"n\":1}\n").unwrap();
    assert_eq!(committed(dir.path()), 3);
    let n = schema(&[("n", DataType::Int64)]);
    assert_eq!(count("json", dir.path(), &n), 3);
}

#[test]
fn a_run_is_seen_when_all_of_its_parts_are_at_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let factory = partitioned(dir.path(), &[]);
    let mut sink = factory.open(0).unwrap();
    let mut stream = lister(dir.path());
    let mut streamed = || stream.list(&|_, _| false).unwrap().len();
    sink.commit(0..=0, &[stage(&factory, 0, &[(1, 1), (2, 2)])])
        .unwrap();
    assert_eq!((streamed(), streamed()), (2, 0));
    sink.commit(1..=1, &[stage(&factory, 1, &[(1, 3), (2, 4)])])
        .unwrap();
    // As if the last rename had not come to pass.
    let late = dir.path().join("k=2/part-00001-0-1f-2e.json");
    fs::rename(
        &late,
        dir.path().join("_highwater_staged/1f-2e/0/00001-0.1"),
    )
    .unwrap();
    assert_eq!((streamed(), committed(dir.path())), (0, 2));
    // The restarted query ends it.
    let mut sink = factory.open(1).unwrap();
    assert_eq!(sink.committed().unwrap(), Some(1));
    assert_eq!((streamed(), committed(dir.path())), (2, 4));
    // Whoever removes a file later does not hide the rest.
    fs::remove_file(late).unwrap();
    assert_eq!(committed(dir.path()), 4);
}

#[test]
fn what_is_removed_below_a_run_is_told() {
    for removed in ["_highwater_log", "_highwater_staged", ""] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let factory = partitioned(&out, &[]);
        let rows = |k: u64, n: u64| batch([(k, n)].into_iter());
        let mut sink = factory.open(1).unwrap();
        let mut writer = factory.writer(0, "1f-2e", 1).unwrap();
        writer.write(0, &rows(1, 1)).unwrap();
        let receipt = writer.stage(0..=0).unwrap();
        sink.commit(0..=0, &[receipt]).unwrap();
        writer.write(1, &rows(1, 2)).unwrap();
        let receipt = writer.stage(1..=1).unwrap();
        fs::remove_dir_all(out.join(removed)).unwrap();
        let error = told(&sink.commit(1..=1, &[receipt]).unwrap_err());
        assert!(
            error.contains("was removed while the query ran"),
            "{removed}: {error}"
        );
    }
}

#[test]
fn a_newer_run_goes_on_where_one_that_is_still_alive_was() {
    let dir = tempfile::tempdir().unwrap();
    let factory = partitioned(dir.path(), &[]);
    let rows = |k: u64, n: u64| batch([(k, n)].into_iter());
    let mut older = factory.open(1).unwrap();
    let mut its_writer = factory.writer(0, "1f-2e", 1).unwrap();
    its_writer.write(0, &rows(1, 1)).unwrap();
    let receipt = its_writer.stage(0..=0).unwrap();
    older.commit(0..=0, &[receipt]).unwrap();
    its_writer.write(1, &rows(1, 2)).unwrap();
    let staged = its_writer.stage(1..=1).unwrap();
    its_writer.write(2, &rows(1, 3)).unwrap();

    let mut newer = factory.open(2).unwrap();
    assert_eq!(newer.committed().unwrap(), Some(0));
    let mut writer = factory.writer(0, "1f-2e", 2).unwrap();
    writer.write(1, &rows(1, 2)).unwrap();
    // What the older one tries fails, and does no harm.
    let says = |error: highwater_engine::sink::SinkError| {
        let error = told(&error);
        assert!(
            error.contains("another run of this query has taken"),
            "{error}"
        );
    };
    says(older.commit(1..=1, &[staged]).unwrap_err());
    says(its_writer.write(2, &rows(2, 3)).unwrap_err());
    says(its_writer.stage(2..=2).unwrap_err());
    let error = told(&factory.open(1).err().unwrap());
    assert!(
        error.contains("1f-2e/2\" belongs to a newer run of this query"),
        "{error}"
    );
    drop((older, its_writer));
    let receipt = writer.stage(1..=1).unwrap();
    newer.commit(1..=1, &[receipt]).unwrap();
    writer.write(2, &rows(1, 3)).unwrap();
    let receipt = writer.stage(2..=2).unwrap();
    newer.commit(2..=2, &[receipt]).unwrap();
    assert_eq!(committed(dir.path()), 3);
    assert_eq!(visible(dir.path()).len(), 3);
}

#[test]
fn damage_in_the_middle_of_the_log_is_told_to_a_restarted_query() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("old.json"), "{\"n\":1}\n").unwrap();
    let factory = partitioned(dir.path(), &[]);
    let mut sink = factory.open(0).unwrap();
    for epoch in 0..3 {
        sink.commit(epoch..=epoch, &[stage(&factory, epoch, &[(1, epoch)])])
            .unwrap();
    }
    drop(sink);
    for log in ["1f-2e/000000000001.json", "before/000000000000.json"] {
        let file = dir.path().join("_highwater_log").join(log);
        let whole = fs::read(&file).unwrap();
        fs::write(&file, "garbage").unwrap();
        let error = told(&factory.open(0).err().unwrap());
        assert!(
            error.contains(log) && error.contains("restore it from a copy"),
            "{error}"
        );
        fs::write(&file, whole).unwrap();
    }
    factory.open(0).unwrap();
}

#[test]
fn thousands_of_partitions_in_one_epoch() {
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let factory = partitioned(dir.path(), &[]);
    let mut sink = factory.open(0).unwrap();
    let mut writer = factory.writer(0, "1f-2e", 0).unwrap();
    for from in 0..4 {
        let values = (0..5000).map(|k| (k, from * 5000 + k));
        writer.write(0, &batch(values)).unwrap();
    }
    let receipt = writer.stage(0..=0).unwrap();
    assert_eq!(receipt.rows, 20_000);
    sink.commit(0..=0, &[receipt]).unwrap();
    assert_eq!(visible(dir.path()).len(), 5000);
    let text = fs::read_to_string(dir.path().join("k=4711/part-00000-0-1f-2e.json")).unwrap();
    assert_eq!(
        text,
        "{\"n\":4711}\n{\"n\":9711}\n{\"n\":14711}\n{\"n\":19711}\n"
    );
    assert_eq!(committed(dir.path()), 5000);
}

#[test]
fn no_file_has_more_rows_than_asked() {
    let dir = tempfile::tempdir().unwrap();
    let factory = partitioned(dir.path(), &[("maxRecordsPerFile", "2")]);
    let mut sink = factory.open(0).unwrap();
    let values: Vec<(u64, u64)> = (0..5)
        .map(|n| (1, n))
        .chain((2..40).map(|k| (k, k)))
        .collect();
    sink.commit(0..=0, &[stage(&factory, 0, &values)]).unwrap();
    let files = visible(dir.path());
    assert_eq!(files.len(), 3 + 38);
    let first = [
        "k=1/part-00000-0-1f-2e-001.json",
        "k=1/part-00000-0-1f-2e-002.json",
        "k=1/part-00000-0-1f-2e.json",
    ];
    assert_eq!(files[..3], first);
    assert_eq!(
        fs::read_to_string(dir.path().join(first[0])).unwrap(),
        "{\"n\":2}\n{\"n\":3}\n"
    );
}

fn save(out: &Path, mode: Option<SaveMode>, options: &[(&str, &str)]) -> Result<bool, String> {
    let request = SinkRequest {
        streaming: false,
        query_id: "batch".into(),
        ..request(out, &one(), options)
    };
    let factory = factory("json", request);
    let Some(mut sink) = factory.open_batch(mode).map_err(|error| told(&error))? else {
        return Ok(false);
    };
    let mut writer = factory.writer(0, "batch", 0).unwrap();
    writer
        .write(0, &rows(&one(), "{\"s\":\"a\"}\n{\"s\":\"b\"}\n"))
        .unwrap();
    let receipt = writer.stage(0..=0).map_err(|error| told(&error))?;
    sink.commit(0..=0, &[receipt])
        .map_err(|error| told(&error))?;
    Ok(true)
}

#[test]
fn a_batch_asks_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let count = || count("json", &out, &one());
    assert_eq!(save(&out, Some(SaveMode::Ignore), &[]), Ok(true));
    assert_eq!(count(), 2);
    let error = save(&out, None, &[]).unwrap_err();
    assert!(
        error.contains("out\" already exists; .mode(SaveMode::Append)"),
        "{error}"
    );
    assert_eq!(save(&out, Some(SaveMode::Ignore), &[]), Ok(false));
    fs::write(out.join("by-hand.json"), "{\"s\":\"c\"}\n").unwrap();
    assert_eq!(
        count(),
        3,
        "a batch makes no log, so files come and go as ever"
    );
    assert_eq!(save(&out, Some(SaveMode::Overwrite), &[]), Ok(true));
    assert_eq!(count(), 2);
    fs::write(out.join("by-hand.json"), "{\"s\":\"c\"}\n").unwrap();
    // Where a query writes, a batch goes by the log too.
    let query = factory("json", request(&out, &one(), &[]));
    query.open(0).unwrap();
    let request = SinkRequest {
        streaming: false,
        query_id: "other".into(),
        ..request(&out, &one(), &[])
    };
    let batch = factory("json", request);
    let mut sink = batch.open_batch(Some(SaveMode::Append)).unwrap().unwrap();
    let mut writer = batch.writer(0, "other", 0).unwrap();
    writer.write(0, &rows(&one(), "{\"s\":\"d\"}\n")).unwrap();
    let receipt = writer.stage(0..=0).unwrap();
    assert_eq!(count(), 3);
    sink.commit(0..=0, &[receipt]).unwrap();
    assert_eq!(count(), 4);
    let error = save(&out, Some(SaveMode::Overwrite), &[]).unwrap_err();
    assert!(error.contains("holds the output of a query"), "{error}");
}

#[test]
fn a_batch_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let request = SinkRequest {
        streaming: false,
        query_id: "batch".into(),
        ..request(&out, &one(), &[])
    };
    let factory = factory("json", request);
    let sink = factory.open_batch(None).unwrap().unwrap();
    let mut writer = factory.writer(0, "batch", 0).unwrap();
    writer.write(0, &rows(&one(), "{\"s\":\"a\"}\n")).unwrap();
    writer.stage(0..=0).unwrap();
    drop((writer, sink));
    assert!(!out.exists());
    assert_eq!(
        save(&out, None, &[]),
        Ok(true),
        "so the next try is not in its own way"
    );
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn a_file_in_the_place_of_a_partition_is_named_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let factory = partitioned(dir.path(), &[]);
    let mut sink = factory.open(0).unwrap();
    fs::write(dir.path().join("k=2"), "x").unwrap();
    let receipt = stage(&factory, 0, &[(1, 1), (2, 2)]);
    let error = told(
        &sink
            .commit(0..=0, std::slice::from_ref(&receipt))
            .unwrap_err(),
    );
    assert!(
        error.contains("k=2\": a file is where a directory must be; move it away"),
        "{error}"
    );
    assert_eq!(committed(dir.path()), 0);
    fs::remove_file(dir.path().join("k=2")).unwrap();
    // Asked again, or by a restarted query: both go on.
    sink.commit(0..=0, &[receipt]).unwrap();
    assert_eq!(committed(dir.path()), 2);
    assert_eq!(factory.open(0).unwrap().committed().unwrap(), Some(0));
}

#[test]
fn a_partition_that_vanishes_between_log_and_rename_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let factory = partitioned(dir.path(), &[]);
    let mut sink = factory.open(0).unwrap();
    sink.commit(0..=0, &[stage(&factory, 0, &[(1, 1)])])
        .unwrap();
    let place = dir.path().join("k=1/part-00000-0-1f-2e.json");
    fs::rename(
        place,
        dir.path().join("_highwater_staged/1f-2e/0/00000-0.0"),
    )
    .unwrap();
    fs::remove_dir(dir.path().join("k=1")).unwrap();
    fs::write(dir.path().join("k=1"), "x").unwrap();
    let error = told(&factory.open(0).err().unwrap());
    assert!(
        error.contains("a file is where a directory must be"),
        "{error}"
    );
    fs::remove_file(dir.path().join("k=1")).unwrap();
    assert_eq!(factory.open(0).unwrap().committed().unwrap(), Some(0));
    assert_eq!(visible(dir.path()), ["k=1/part-00000-0-1f-2e.json"]);
}

/// A file system of a few pages.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, loudly, where the system does not let us.
    fn mount() -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=256k", "none"])
            .arg(dir.path());
        if mount.output().is_ok_and(|done| done.status.success()) {
            return Some(SmallDisk(dir));
        }
        println!("SKIPPED: this user cannot mount a small file system");
        None
    }

    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        let done = Command::new("mount")
            .args(["-o", &options])
            .arg(self.0.path())
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Writes epochs until told otherwise; answers how many the sink has, and the error that ended it.
fn run(factory: &Arc<dyn SinkFactory>, epochs: u64) -> (u64, Option<String>) {
    let mut done = 0;
    let mut go_on = || {
        let mut sink = factory.open(0)?;
        let mut next = sink.committed()?.map_or(0, |last| last + 1);
        let mut writer = factory.writer(0, "1f-2e", 0)?;
        while next < epochs {
            done = next;
            writer.write(next, &batch((0..40).map(|n| (n, next * 40 + n))))?;
            let receipt = writer.stage(next..=next)?;
            sink.commit(next..=next, &[receipt])?;
            next += 1;
        }
        done = next;
        Ok(())
    };
    let error = go_on().err().map(|error: SinkError| told(&error));
    (done, error)
}

#[test]
fn a_disk_that_fills_up_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let out = disk.0.path().join("out");
    let factory = partitioned(&out, &[]);
    let (done, error) = run(&factory, 20);
    let error = error.expect("256 kB are full");
    assert!(error.contains("out/"), "the path is named: {error}");
    assert!(
        error.contains("the disk is full; free space, then start again"),
        "{error}"
    );
    assert!(done < 20);
    assert!(committed(&out) as u64 >= done * 40);
    disk.remount("size=8m");
    assert_eq!(run(&factory, 20), (20, None));
    assert_eq!((committed(&out), visible(&out).len()), (800, 800));
}

#[test]
fn a_disk_that_becomes_read_only_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let out = disk.0.path().join("out");
    let factory = partitioned(&out, &[]);
    assert_eq!(run(&factory, 1), (1, None));
    disk.remount("ro");
    let (_, error) = run(&factory, 2);
    assert!(
        error
            .unwrap()
            .contains("the file system is read-only; mount it for writing")
    );
    disk.remount("rw,size=8m");
    assert_eq!(run(&factory, 2), (2, None));
    assert_eq!((committed(&out), visible(&out).len()), (80, 80));
}

#[test]
fn options_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let refused =
        |name, request: SinkRequest| FileFormat { name }.sink(request).err().unwrap().to_string();
    let error = refused("json", request(dir.path(), &one(), &[("retention", "0s")]));
    assert_eq!(
        error,
        "option \"retention\" of the json sink cannot be \"0s\": it is a positive time"
    );
    factory(
        "json",
        request(dir.path(), &one(), &[("retention", "7 days")]),
    );
    let batch = SinkRequest {
        streaming: false,
        ..request(dir.path(), &one(), &[("retention", "7d")])
    };
    assert!(refused("json", batch).contains("retention"));
}
