//! What a source of files remembers, cleans and finds again after a restart.

use super::*;
use highwater_engine::source::Split;

/// A source, and what a checkpoint would hold for it.
struct Run {
    factory: Arc<dyn SourceFactory>,
    source: Box<dyn Source>,
    memory: Vec<String>,
    checkpoint: Offset,
    /// The checkpoint before, if two are kept.
    older: Option<Offset>,
    planned: Vec<Planned>,
    at: Offset,
}

impl Run {
    fn start(request: SourceRequest) -> Run {
        let factory = factory("text", request).unwrap();
        let mut source = factory.open().unwrap();
        source.watch(Waker::new(|| {})).unwrap();
        let at = source.initial().unwrap();
        Run {
            factory,
            source,
            memory: Vec::new(),
            checkpoint: at.clone(),
            older: None,
            planned: Vec::new(),
            at,
        }
    }

    /// Opens epochs until there is nothing to read; the names of the files of each.
    fn epochs(&mut self) -> Vec<String> {
        let mut epochs = Vec::new();
        while let Some(epoch) = self.epoch() {
            epochs.push(epoch);
        }
        epochs
    }

    /// Opens one epoch.
    fn epoch(&mut self) -> Option<String> {
        let to = self.source.latest().unwrap();
        let admitted = self.source.admit(&self.at, &to, u64::MAX).unwrap()?;
        let name = |split: &Split| FileSplit::parse(split).unwrap().found().name.to_string();
        let names: Vec<String> = admitted.splits.iter().map(name).collect();
        self.planned.push(Planned {
            start: std::mem::replace(&mut self.at, admitted.end.clone()),
            end: admitted.end,
            splits: admitted.splits,
        });
        Some(names.join(" "))
    }

    /// A checkpoint where all planned epochs but the last `behind` are committed.
    fn checkpoint(&mut self, behind: usize) {
        let before = self.checkpoint.clone();
        let keep = self.planned.len() - behind;
        if let Some(last) = self.planned.drain(..keep).next_back() {
            self.checkpoint = last.end;
        }
        self.memory.extend(self.source.remember(&self.checkpoint));
        let older = self.older.as_mut().map(|older| {
            *older = before;
            older
        });
        let oldest = older.unwrap_or(&mut self.checkpoint);
        self.source.committed(oldest).unwrap();
        self.memory.retain(|entry| self.source.still_needs(entry));
    }

    /// Dies, and comes back from the checkpoint and the log.
    fn restart(&mut self) {
        self.source = self.factory.open().unwrap();
        self.source.watch(Waker::new(|| {})).unwrap();
        let resume = Resume {
            at: &self.checkpoint,
            oldest: self.older.as_ref().unwrap_or(&self.checkpoint),
            memory: &mut self.memory.iter().cloned(),
            planned: &self.planned,
        };
        self.source.resume(resume).unwrap();
    }
}

#[test]
fn every_file_is_read_once_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let one = with(stream(&dir), &[("maxFilesPerTrigger", "1")]);
    for (age, name) in [(9, "a"), (8, "b"), (7, "c"), (6, "d")] {
        write(&dir, name, "x", age);
    }
    let mut run = Run::start(one);
    assert_eq!(run.epoch().unwrap(), "a");
    assert_eq!(run.epoch().unwrap(), "b");
    run.checkpoint(1);
    assert_eq!(
        run.memory.len(),
        2,
        "a file and the limit: {:?}",
        run.memory
    );
    assert_eq!(run.epoch().unwrap(), "c");
    // Files that are gone or moved are not missed, those that waited are found again.
    fs::remove_file(dir.path().join("a")).unwrap();
    write(&dir, "e", "x", 5);
    run.restart();
    assert_eq!(run.epochs(), ["d", "e"]);
    run.checkpoint(0);
    run.restart();
    assert_eq!(run.epochs(), [""; 0]);
    assert_eq!(run.at.0.to_string(), r#"{"logOffset":5}"#);
    // One that was read comes back under its name: it was read.
    write(&dir, "a", "y", 1);
    assert_eq!(run.epochs(), [""; 0]);
    // What is remembered is handed out once.
    assert_eq!(run.source.remember(&run.at.clone()).len(), 0);
}

#[test]
fn newest_first_stays_so_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    for (age, name) in [(90_000, "a"), (8, "b"), (7, "c")] {
        write(&dir, name, "x", age);
    }
    for limit in ["maxFilesPerTrigger", "maxBytesPerTrigger"] {
        let options = [("latestFirst", "true"), (limit, "1"), ("maxFileAge", "1h")];
        let mut run = Run::start(with(stream(&dir), &options));
        assert_eq!(run.epoch().unwrap(), "c");
        run.checkpoint(0);
        run.restart();
        // However old it is: with a limit, newest first, no file is too old.
        assert_eq!(run.epochs(), ["b", "a"]);
    }
}

#[test]
fn old_files_are_forgotten_and_count_as_read() {
    let dir = tempfile::tempdir().unwrap();
    let options = [("maxFileAge", "1h"), ("maxFilesPerTrigger", "2")];
    for (age, name) in [(9_000, "a"), (8_000, "b"), (7_900, "c"), (60, "d")] {
        write(&dir, name, "x", age);
    }
    let mut run = Run::start(with(stream(&dir), &options));
    assert_eq!(run.epoch().unwrap(), "a b");
    run.checkpoint(0);
    run.restart();
    assert_eq!(run.epochs(), ["c d"]);
    run.checkpoint(0);
    let files = run.memory.iter().filter(|entry| entry.contains("path"));
    assert_eq!(files.count(), 1, "only d is young: {:?}", run.memory);
    write(&dir, "late", "x", 7_000);
    write(&dir, "young", "x", 50);
    run.restart();
    assert_eq!(run.epochs(), ["young"]);
}

#[test]
fn a_crash_before_the_plan_is_logged_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (age, name) in [(90_000, "a"), (80_000, "b"), (60, "c")] {
        write(&dir, name, "x", age);
    }
    let options = [("maxFileAge", "1h"), ("maxFilesPerTrigger", "1")];
    let mut run = Run::start(with(stream(&dir), &options));
    for name in ["a", "b", "c"] {
        assert_eq!(run.epoch().unwrap(), name);
    }
    // The checkpoint is made while the last two epochs, planned by the source, are not in the log yet.
    run.checkpoint(2);
    run.planned.clear();
    run.at = run.checkpoint.clone();
    run.restart();
    assert_eq!(run.epochs(), ["b", "c"]);
}

#[test]
fn names_alone_count_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    for below in ["x", "y"] {
        fs::create_dir(dir.path().join(below)).unwrap();
    }
    write(&dir, "x/f", "1", 9);
    let options = [("recursiveFileLookup", "true"), ("fileNameOnly", "true")];
    let mut run = Run::start(with(stream(&dir), &options));
    assert_eq!(run.epochs(), ["f"]);
    run.checkpoint(0);
    write(&dir, "y/f", "2", 8);
    write(&dir, "y/g", "3", 7);
    run.restart();
    assert_eq!(run.epochs(), ["g"]);
}

#[test]
fn listing_waits_while_enough_files_do() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..10 {
        write(&dir, &format!("f{n}"), "x", 100 - n);
    }
    let run = |more: &[(&str, &str)]| {
        let options = [
            &[("maxFilesPerTrigger", "5"), ("latestFirst", "true")],
            more,
        ]
        .concat();
        let mut run = Run::start(with(stream(&dir), &options));
        let first = run.epoch().unwrap();
        write(&dir, "new", "x", 1);
        let rest = [first].into_iter().chain(run.epochs()).collect::<Vec<_>>();
        fs::remove_file(dir.path().join("new")).unwrap();
        rest
    };
    let (first, second) = ("f9 f8 f7 f6 f5", "f4 f3 f2 f1 f0");
    assert_eq!(run(&[]), [first, second, "new"]);
    // With nothing cached, the newest file comes first.
    assert_eq!(
        run(&[("maxCachedFiles", "0")]),
        [first, "new f4 f3 f2 f1", "f0"]
    );
    // Three cached files are less than four fifths of an epoch.
    let few = [("maxCachedFiles", "3"), ("discardCachedInputRatio", "0.8")];
    assert_eq!(run(&few), [first, "new f4 f3 f2 f1", "f0"]);
    let few = [("maxCachedFiles", "3"), ("discardCachedInputRatio", "0.6")];
    assert_eq!(run(&few), [first, "f4 f3 f2", "new f1 f0"]);
}

/// The paths below a directory.
fn tree(dir: &Path) -> Vec<String> {
    let mut lister = Lister::new(
        dir.to_str().unwrap(),
        &FileOptions {
            recursive: true,
            ignored_names: Some(regex::Regex::new("^$").unwrap()),
            ..FileOptions::default()
        },
    )
    .unwrap();
    let found = lister.list_all().unwrap();
    let root = dir.to_str().unwrap().len();
    found.iter().map(|f| f.path()[root..].to_string()).collect()
}

#[test]
fn files_are_cleaned_once_they_are_committed() {
    let archive = tempfile::tempdir().unwrap();
    let archive_path = archive.path().to_str().unwrap();
    for clean in ["delete", "archive"] {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, "a", "x", 9);
        write(&dir, "b", "x", 8);
        write(&dir, "c", "x", 7);
        let mut options = vec![("cleanSource", clean), ("maxFilesPerTrigger", "2")];
        if clean == "archive" {
            options.push(("sourceArchiveDir", archive_path));
        }
        let mut run = Run::start(with(stream(&dir), &options));
        assert_eq!(run.epochs(), ["a b", "c"]);
        // It was written anew after it was planned: there are rows in it that nobody has read.
        write(&dir, "b", "xy", 1);
        assert_eq!(tree(dir.path()), ["/a", "/b", "/c"]);
        run.checkpoint(1);
        let planned = run.planned.clone();
        drop(run); // waits for the cleaner
        assert_eq!(tree(dir.path()), ["/b", "/c"]);
        assert_eq!(planned.len(), 1, "c is not committed");
        let expected = match clean {
            "archive" => vec![format!("{}/a", dir.path().display())],
            _ => vec![],
        };
        assert_eq!(tree(archive.path()), expected);
    }
}

#[test]
fn files_of_the_newest_checkpoint_are_cleaned_by_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    let options = [("cleanSource", "delete"), ("maxFilesPerTrigger", "1")];
    write(&dir, "a", "x", 9);
    let mut run = Run::start(with(stream(&dir), &options));
    run.older = Some(run.checkpoint.clone());
    // Each has one checkpoint, and two are kept.
    for name in ["b", "c", "d", "e"] {
        assert_eq!(run.epochs().len(), 1);
        run.checkpoint(0);
        write(&dir, name, "x", 8);
        run.restart();
    }
    drop(run);
    assert_eq!(tree(dir.path()), ["/d", "/e"]);
}

#[test]
fn cleaning_is_refused_where_it_would_lose_rows() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("archive");
    let to = |directory: &str| {
        let options = [("cleanSource", "archive"), ("sourceArchiveDir", directory)];
        refusal("text", with(stream(&dir), &options))
    };
    assert!(to(inside.to_str().unwrap()).contains("would be read again"));
    assert!(to("/").contains("would be read again"));
    fs::create_dir(dir.path().join("_spark_metadata")).unwrap();
    let error = refusal("text", with(stream(&dir), &[("cleanSource", "delete")]));
    assert!(error.contains("is the output of a file sink"), "{error}");
    let error = refusal("text", with(stream(&dir), &[("cleanSource", "archive")]));
    assert_eq!(error, "the text stream needs option \"sourceArchiveDir\"");
    let error = refusal("text", with(stream(&dir), &[("cleanSource", "burn")]));
    assert!(error.ends_with("it is archive, delete or off"), "{error}");
    let error = refusal("text", with(stream(&dir), &[("sourceArchiveDir", "/x")]));
    assert!(error.contains("\"cleanSource\" to be archive"), "{error}");
    for (name, reason) in options::REFUSED {
        let error = refusal("text", with(stream(&dir), &[(name, "x")]));
        assert!(error.contains(name) && error.ends_with(reason), "{error}");
    }
}

#[test]
fn a_replaced_file_is_told_and_one_put_back_is_read() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", "one\n", 9);
    let mut run = Run::start(stream(&dir));
    assert_eq!(run.epochs(), ["a"]);
    let read = |run: &Run| {
        let split = &run.planned[0].splits[0];
        let batches = run.source.reader().read(split, &[0]);
        let told = |error: SourceError| std::error::Error::source(&error).unwrap().to_string();
        batches
            .map(|batches| {
                batches
                    .map(|batch| batch.unwrap().num_rows())
                    .sum::<usize>()
            })
            .map_err(told)
    };
    assert_eq!(read(&run), Ok(1));
    // Another file, longer than the first, under its name.
    write(&dir, "new", "two\nthree\n", 1);
    fs::rename(dir.path().join("new"), dir.path().join("a")).unwrap();
    let error = read(&run).unwrap_err();
    assert!(error.contains("was replaced by another one"), "{error}");
    fs::remove_file(dir.path().join("a")).unwrap();
    assert!(read(&run).unwrap_err().contains("put it back"));
    fs::create_dir(dir.path().join("a")).unwrap();
    assert!(read(&run).unwrap_err().ends_with("and is a directory now"));
    fs::remove_dir(dir.path().join("a")).unwrap();
    write(&dir, "a", "one\n", 0);
    run.restart();
    assert_eq!(read(&run), Ok(1));
}

#[test]
fn files_written_since_an_epoch_nobody_has_was_planned_are_read_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a", "one\n", 9);
    write(&dir, "b", "two\nthree\n", 8);
    let mut run = Run::start(stream(&dir));
    assert_eq!(run.epochs(), ["a b"]);
    let mut again = run.factory.open().unwrap();
    let mut replan = |planned: &Planned| again.replan(planned).unwrap();
    assert_eq!(replan(&run.planned[0]), None);
    // A shorter one is told when it is read.
    write(&dir, "b", "two\n", 8);
    assert_eq!(replan(&run.planned[0]), None);
    write(&dir, "a", "one\nand more\n", 0);
    let splits = replan(&run.planned[0]).unwrap();
    let parsed = |split: &Split| FileSplit::parse(split).unwrap();
    let sizes = |splits: &[Split]| {
        let sizes = splits
            .iter()
            .map(|split| (parsed(split).size, parsed(split).to));
        sizes.collect::<Vec<_>>()
    };
    assert_eq!(sizes(&splits), [(13, 13), (10, 10)]);
    run.planned[0].splits = splits;
    assert_eq!(replan(&run.planned[0]), None);
    // Another one of the same length.
    write(&dir, "a", "two\nand more\n", 3);
    let splits = replan(&run.planned[0]).unwrap();
    assert_eq!(sizes(&splits), [(13, 13), (10, 10)]);
    assert!(parsed(&splits[0]).modified < parsed(&run.planned[0].splits[0]).modified);
    run.planned[0].splits = splits;
    assert_eq!(replan(&run.planned[0]), None);
    run.restart();
    assert_eq!(run.epochs(), [""; 0]);
}

#[test]
fn a_file_that_was_just_made_is_planned_as_it_is_a_moment_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::start(stream(&dir));
    let mut found_size = |name: &str| {
        assert_eq!(run.epochs(), [name]);
        let planned = run.planned.last().unwrap();
        FileSplit::parse(&planned.splits[0]).unwrap().size
    };
    // On a busy machine the writer may come too late.
    let found = (0..50).any(|attempt| {
        let name = format!("slow{attempt}");
        let mut file = fs::File::create(dir.path().join(&name)).unwrap();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(2));
            std::io::Write::write_all(&mut file, b"one\n").unwrap();
        });
        let size = found_size(&name);
        writer.join().unwrap();
        size == 4
    });
    assert!(found);
    // An empty file opens an epoch too.
    write(&dir, "empty", "", 0);
    assert_eq!(found_size("empty"), 0);
}
