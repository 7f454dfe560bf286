use super::*;

fn names(lister: &mut Lister) -> Vec<String> {
    let found = lister.list_all().unwrap();
    found.iter().map(|found| found.name.to_string()).collect()
}

fn lister(path: &Path) -> Result<Lister, FileError> {
    Lister::new(path.to_str().unwrap(), &FileOptions::default())
}

#[test]
fn braces_are_spelled_out() {
    assert_eq!(spell_out("a{b,c{d,e}}f"), ["abf", "acdf", "acef"]);
    assert_eq!(spell_out("a{b"), ["a{b"]);
    assert_eq!(spell_out("plain"), ["plain"]);
}

#[test]
fn hidden_files_and_directories_below_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b.json", "a.json", "_SUCCESS", ".tmp", "c._COPYING_"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    fs::create_dir(dir.path().join("below")).unwrap();
    fs::write(dir.path().join("below/d.json"), "x").unwrap();
    assert_eq!(
        names(&mut lister(dir.path()).unwrap()),
        ["a.json", "b.json"]
    );
    let options = FileOptions {
        recursive: true,
        ..FileOptions::default()
    };
    let mut tree = Lister::new(dir.path().to_str().unwrap(), &options).unwrap();
    assert_eq!(names(&mut tree), ["a.json", "b.json", "d.json"]);
}

#[test]
fn patterns_may_span_levels() {
    let dir = tempfile::tempdir().unwrap();
    for (below, name) in [
        ("x", "a.json"),
        ("x", "b.csv"),
        ("y", "c.json"),
        ("z", "d.json"),
    ] {
        fs::create_dir_all(dir.path().join(below)).unwrap();
        fs::write(dir.path().join(below).join(name), "x").unwrap();
    }
    assert_eq!(
        names(&mut lister(&dir.path().join("{x,y}/*.json")).unwrap()),
        ["a.json", "c.json"]
    );
    assert_eq!(
        names(&mut lister(&dir.path().join("[xz]")).unwrap()),
        ["a.json", "b.csv", "d.json"]
    );
    let error = lister(&dir.path().join("*.orc"))
        .unwrap()
        .list_all()
        .unwrap_err();
    assert!(error.to_string().starts_with("no file matches \""));
}

#[test]
fn directories_that_tell_values_are_gone_into() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("day=1/k=x")).unwrap();
    fs::write(dir.path().join("day=1/k=x/f"), "x").unwrap();
    let mut lister = lister(dir.path()).unwrap();
    let found = lister.list_all().unwrap();
    let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
    assert_eq!(
        found[0].directory.partition,
        [pair("day", "1"), pair("k", "x")]
    );
    // The time of the root says nothing about what lies deeper.
    fs::write(dir.path().join("day=1/k=x/g"), "x").unwrap();
    assert_eq!(lister.list(&|_, name| name == "f").unwrap().len(), 1);
}

#[test]
fn an_unchanged_directory_is_not_listed_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "x").unwrap();
    #[allow(clippy::disallowed_methods, reason = "a test compares with the clock")]
    let old = SystemTime::now() - Duration::from_secs(10);
    let times = fs::FileTimes::new().set_modified(old);
    fs::File::open(dir.path())
        .unwrap()
        .set_times(times)
        .unwrap();
    let mut lister = lister(dir.path()).unwrap();
    assert_eq!(lister.list(&|_, _| false).unwrap().len(), 1);
    assert_eq!(lister.list(&|_, _| false).unwrap().len(), 0);
    fs::write(dir.path().join("b"), "x").unwrap();
    // The new time is young: it is not trusted, and every listing looks.
    assert_eq!(lister.list(&|_, _| false).unwrap().len(), 2);
    assert_eq!(lister.list(&|_, _| false).unwrap().len(), 2);
}

/// Makes a directory look as if nothing had happened in it for a while.
fn age(directory: &Path, seconds: u64) {
    #[allow(clippy::disallowed_methods, reason = "a test compares with the clock")]
    let old = SystemTime::now() - Duration::from_secs(seconds);
    let times = fs::FileTimes::new().set_modified(old);
    fs::File::open(directory).unwrap().set_times(times).unwrap();
}

#[test]
fn of_a_tree_only_what_changed_is_listed_again() {
    let dir = tempfile::tempdir().unwrap();
    for below in ["day=1/k=x", "day=2/k=y"] {
        fs::create_dir_all(dir.path().join(below)).unwrap();
        fs::write(dir.path().join(below).join("f"), "x").unwrap();
    }
    for below in ["day=1/k=x", "day=1", "day=2/k=y", "day=2", ""] {
        age(&dir.path().join(below), 10);
    }
    let found = |lister: &mut Lister| {
        let found = lister.list(&|_, _| false).unwrap();
        let mut found: Vec<String> = found.iter().map(Found::path).collect();
        found.sort();
        let root = dir.path().to_str().unwrap();
        found
            .iter()
            .map(|path| path[root.len() + 1..].to_string())
            .collect::<Vec<_>>()
    };
    for pattern in ["", "day=*", "{day=1,day=2}/k=?", "day=*/k=[xy]/?"] {
        let mut lister = lister(&dir.path().join(pattern)).unwrap();
        assert_eq!(
            found(&mut lister),
            ["day=1/k=x/f", "day=2/k=y/f"],
            "{pattern}"
        );
        assert_eq!(found(&mut lister).len(), 0, "{pattern}");
        assert_eq!(lister.files(), 2);
        lister.distrust();
        assert_eq!(found(&mut lister).len(), 2, "{pattern}");
    }
    let mut lister = lister(dir.path()).unwrap();
    found(&mut lister);
    fs::create_dir_all(dir.path().join("day=3")).unwrap();
    fs::write(dir.path().join("day=3/f"), "x").unwrap();
    fs::write(dir.path().join("day=1/k=x/g"), "x").unwrap();
    assert_eq!(
        found(&mut lister),
        ["day=1/k=x/f", "day=1/k=x/g", "day=3/f"]
    );
    fs::remove_dir_all(dir.path().join("day=1")).unwrap();
    age(&dir.path().join("day=3"), 10);
    age(dir.path(), 10);
    assert_eq!(found(&mut lister), ["day=3/f"]);
    assert_eq!(found(&mut lister).len(), 0);
}

#[cfg(unix)]
#[test]
fn what_was_found_before_an_error_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    for below in ["k=1", "k=2"] {
        fs::create_dir(dir.path().join(below)).unwrap();
        fs::write(dir.path().join(below).join("f"), "x").unwrap();
        age(&dir.path().join(below), 10);
    }
    let mut lister = lister(dir.path()).unwrap();
    let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"k=2/n\xff");
    fs::write(dir.path().join(name), "x").unwrap();
    let error = lister.list(&|_, _| false).unwrap_err();
    assert!(error.to_string().contains("is not UTF-8"), "{error}");
    fs::remove_file(dir.path().join(name)).unwrap();
    assert_eq!(lister.list(&|_, _| false).unwrap().len(), 2);
}

#[test]
fn names_can_be_said_to_be_no_data() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["_a", ".b", "c.tmp", "d", "_metadata", "e._COPYING_"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    let found = |regex: &str| {
        let options = FileOptions {
            ignored_names: Some(regex::Regex::new(regex).unwrap()),
            ..FileOptions::default()
        };
        names(&mut Lister::new(dir.path().to_str().unwrap(), &options).unwrap())
    };
    assert_eq!(found("tmp$|^[.]"), ["_a", "d"]);
    assert_eq!(found("[^\\s\\S]"), [".b", "_a", "c.tmp", "d"]);
}

#[cfg(unix)]
#[test]
fn links_that_lead_back_and_pipes_are_no_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("below")).unwrap();
    fs::write(dir.path().join("below/f"), "x").unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("below/up")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("below/f"), dir.path().join("g")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("broken")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let options = FileOptions {
        recursive: true,
        ..FileOptions::default()
    };
    let mut tree = Lister::new(dir.path().to_str().unwrap(), &options).unwrap();
    assert_eq!(names(&mut tree), ["f", "g"]);
    let error = lister(&dir.path().join("socket")).unwrap().list_all();
    let error = error.unwrap_err().to_string();
    assert!(error.ends_with("is neither a file nor a directory"));
}

#[test]
fn patterns_tell_where_they_lead() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let meets =
        |path: &str, other: &str| lister(&root.join(path)).unwrap().meets(&root.join(other));
    assert!(meets("", "archive") && meets("", "") && meets("", "../"));
    assert!(meets("a/*/c", "a/b") && meets("a/*/c", "a/b/c/d") && meets("a/*/c", "a"));
    assert!(!meets("a/*/c", "a/b/d") && !meets("a/*/c", "b") && !meets("a*", "b"));
    assert!(!lister(root).unwrap().meets(Path::new("/elsewhere")));
}

#[test]
fn a_missing_path_is_named() {
    let error = lister(Path::new("/nowhere/at/all")).err().unwrap();
    assert_eq!(error.to_string(), "path \"/nowhere/at/all\" does not exist");
    let error = Lister::new("s3://bucket/x", &FileOptions::default())
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("file system \"s3\" is not supported yet")
    );
}
