//! The program `highwater` as a user meets it: answers, several processes, bad input, lost processes, idleness.

#![allow(clippy::disallowed_methods, reason = "a test gives up after a time")]

#[path = "program/processes.rs"]
mod processes;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn highwater() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("HIGHWATER_SECRET")
        .env_remove("HIGHWATER_SOCKETS");
    command
}

fn run(args: &[&str]) -> Output {
    highwater().args(args).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The rows of the tables that a run printed, sorted, without the spaces that align their cells.
fn rows(printed: &[u8]) -> Vec<String> {
    let mut rows: Vec<String> = text(printed)
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().join("|"))
        .collect();
    rows.sort();
    rows
}

/// Writes statements to a file that is gone with the directory.
fn sql(dir: &Path, statements: &str) -> String {
    let path = dir.join("query.sql");
    fs::write(&path, statements).expect("written");
    path.display().to_string()
}

#[test]
fn any_number_of_workers_and_processes_gives_the_same_answer() {
    let one = run(&["run", "examples/word_count.sql"]);
    assert!(one.status.success(), "{}", text(&one.stderr));
    let expected = rows(&one.stdout);
    assert_eq!(
        expected.len(),
        21,
        "a header and the first 20 words: {}",
        text(&one.stdout)
    );
    let dir = tempfile::tempdir().expect("a directory");
    // Enough groups that the console would cut them: count words and their total over all.
    let file = sql(
        dir.path(),
        "CREATE TABLE lines USING text OPTIONS (path 'examples/data/words', maxFilesPerTrigger 1);
         CREATE STREAMING TABLE total USING console OPTIONS (outputMode 'complete', trigger 'availableNow') AS
         SELECT count(*) AS n, sum(length(word)) AS letters, min(word) AS first, max(word) AS last
         FROM (SELECT explode(split(value, ' ')) AS word FROM STREAM lines)",
    );
    let reference = rows(&run(&["run", &file]).stdout);
    assert!(!reference.is_empty());
    for flags in [
        ["-w", "2", "-n", "1"],
        ["-w", "1", "-n", "2"],
        ["-w", "2", "-n", "2"],
        ["-w", "1", "-n", "3"],
    ] {
        let args: Vec<&str> = ["run", file.as_str()].into_iter().chain(flags).collect();
        let many = run(&args);
        assert!(many.status.success(), "{flags:?}: {}", text(&many.stderr));
        assert_eq!(
            rows(&many.stdout),
            reference,
            "{flags:?}: {}",
            text(&many.stdout)
        );
    }
}

#[test]
fn a_table_of_changes_is_read_with_what_its_rows_mean() {
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("in");
    fs::create_dir(&input).expect("made");
    let write = |name: &str, v: i64| {
        let line = format!("{{\"k\":\"a\",\"v\":{v}}}\n");
        fs::write(input.join(name), line).expect("written");
    };
    write("1", 1);
    write("2", 5);
    let at = dir.path().display();
    for format in ["parquet", "json"] {
        let file = sql(
            dir.path(),
            &format!(
                "CREATE TABLE ev (k STRING, v BIGINT) USING json OPTIONS (path '{at}/in', maxFilesPerTrigger '1');
                 CREATE STREAMING TABLE c USING {format} OPTIONS (path '{at}/{format}', checkpointLocation '{at}/ck-{format}',
                   outputMode 'changes', trigger 'availableNow') AS SELECT k, max(v) AS m FROM STREAM ev GROUP BY k;
                 SELECT m, _change FROM c ORDER BY m, _change DESC; SELECT * FROM c;"
            ),
        );
        // Nothing waits for the first run before it reads the table.
        run(&["run", &file]);
        let output = run(&["run", &file]);
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{told}");
        let stdout = text(&output.stdout);
        let lines = stdout.lines().filter(|line| line.starts_with('|'));
        let cells = lines.flat_map(|line| line.split('|')).map(str::trim);
        let cells: Vec<&str> = cells.filter(|cell| !cell.is_empty()).collect();
        let cells = cells.join(" ");
        let told_first = "m _change 1 1 1 -1 5 1 k m _change";
        assert!(cells.starts_with(told_first), "{told}");
    }
}

/// A streaming table of these rows, on the console.
fn console(mode: &str, trigger: &str, query: &str) -> String {
    format!(
        "CREATE STREAMING TABLE out USING console
           OPTIONS (outputMode '{mode}', trigger '{trigger}', truncate 'false') AS {query}"
    )
}

#[test]
fn bad_input_gets_one_clear_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("missing").display().to_string();
    let check = |args: &[&str], code: i32, part: &str| {
        let output = run(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
        assert!(
            !said.contains("panicked") && !said.contains("RUST_BACKTRACE"),
            "{args:?}: {said}"
        );
    };
    let directory = dir.path().display().to_string();
    check(&["run", &missing], 2, "could not read SQL file");
    check(&["run", &directory], 2, "could not read SQL file");
    check(&["run"], 2, "<FILE>");
    check(&["examples/word_count.sql"], 2, "examples/word_count.sql");
    for (n, p, part) in [
        ("2", "2", "process 2 does not exist"),
        ("2", "0", "HIGHWATER_SECRET"),
    ] {
        let code = if p == "0" { 1 } else { 2 };
        check(
            &["run", "examples/word_count.sql", "-n", n, "-p", p],
            code,
            part,
        );
    }
    let words = "CREATE TABLE t USING text OPTIONS (path 'examples/data/words');";
    let cast = console(
        "append",
        "availableNow",
        "SELECT CAST(value AS INT) AS n FROM STREAM t",
    );
    let sorted = console(
        "append",
        "availableNow",
        "SELECT * FROM STREAM t ORDER BY value",
    );
    for (statements, code, part) in [
        ("", 2, "has no statements"),
        (" -- nothing\n;", 2, "has no statements"),
        ("SELEC 1", 2, "sql:1:1: [PARSE_SYNTAX_ERROR]"),
        (
            "SELECT 1;\r\n\r\nSELECT 'x;\n",
            2,
            "sql:3:8: [PARSE_SYNTAX_ERROR]",
        ),
        ("\u{feff}SELECT 1; SELECT\n  1 +", 2, "sql:2:"),
        ("SELECT 1; SELECT ';' FRM t\n", 2, "sql:1:"),
        (
            "SELECT 1;\n /* ; */ SELECT *\n  FROM nowhere",
            2,
            "sql:3:8: [TABLE_OR_VIEW_NOT_FOUND]",
        ),
        (
            "SELECT *\n  FROM nowhere",
            2,
            "2 |   FROM nowhere\n  |        ^",
        ),
        (
            &format!("CREATE TABLE t USING text OPTIONS (path '{missing}')"),
            2,
            "missing",
        ),
        ("CREATE TABLE t USING fax OPTIONS (path 'x')", 2, "\"fax\""),
        (
            "CREATE TABLE t USING text OPTIONS (path 'examples', maxFilesPerTriger 3)",
            2,
            "maxFilesPerTriger",
        ),
        (
            "CREATE TABLE t (a INTEGR) USING json OPTIONS (path 'examples')",
            2,
            "sql:1:16: ",
        ),
        (
            "CREATE TABLE t USING text OPTIONS (path 'examples') AS SELECT 1",
            2,
            "sql:1:53: ",
        ),
        (
            &format!("{words} {words}"),
            2,
            "there is a table \"t\" already",
        ),
        (
            &format!("{words} SELECT * FROM STREAM t"),
            2,
            "CREATE STREAMING TABLE",
        ),
        (
            &format!("{words} CREATE VIEW v AS SELECT nix FROM t"),
            2,
            "nix",
        ),
        (
            &format!("{words} CREATE OR REPLACE VIEW t AS SELECT * FROM t"),
            2,
            "RECURSIVE_VIEW",
        ),
        (
            &format!("{words} CREATE STREAMING TABLE o USING console AS SELECT * FROM t"),
            2,
            "FROM STREAM",
        ),
        (
            &format!(
                "{words} CREATE STREAMING TABLE o USING console OPTIONS (trigger 'soon') AS SELECT * FROM STREAM t"
            ),
            2,
            "\"soon\"",
        ),
        (
            &format!(
                "{words} CREATE STREAMING TABLE o USING console OPTIONS (outputMode 'all') AS SELECT * FROM STREAM t"
            ),
            2,
            "\"all\"",
        ),
        (
            &format!(
                "{words} CREATE STREAMING TABLE o USING console OPTIONS (pth 'x') AS SELECT * FROM STREAM t"
            ),
            2,
            "\"pth\"",
        ),
        (
            &format!(
                "{words} CREATE STREAMING TABLE o USING parquet OPTIONS (path '{missing}') AS SELECT * FROM STREAM t"
            ),
            2,
            "checkpointLocation",
        ),
        (
            &format!("{words} CREATE STREAMING TABLE t USING console AS SELECT * FROM STREAM t"),
            2,
            "there is a table \"t\" already",
        ),
        (
            "CREATE STREAMING TEMP VIEW t USING json OPTIONS (path 'examples/data/devices')",
            2,
            "chema",
        ),
        (&format!("{words} {cast}"), 1, "CAST_INVALID_INPUT"),
        (&format!("{words} {sorted}"), 2, "Sorting is not supported"),
        (
            "CREATE TABLE t (a INT, b INT, A STRING) USING json OPTIONS (path 'examples')",
            2,
            "[COLUMN_ALREADY_EXISTS] The column `a` already exists",
        ),
        ("STOP QUERY q", 2, "there is no query \"q\""),
        ("DROP TABLE t", 2, "there is no table \"t\""),
        (&format!("{words} DROP VIEW t"), 2, "use DROP TABLE"),
        ("SET spark.nothing = 1", 2, "spark.sql.session.timeZone"),
        (
            "SET spark.sql.session.timeZone = Middle/Earth",
            2,
            "Middle/Earth",
        ),
    ] {
        check(&["run", &sql(dir.path(), statements)], code, part);
    }
    let at = dir.path().display();
    let table = |name: &str, path: &str, checkpoint: &str| {
        format!(
            "CREATE STREAMING TABLE {name} USING text OPTIONS (path '{at}/{path}', checkpointLocation '{at}/{checkpoint}',
             trigger 'availableNow') AS SELECT value FROM STREAM t;"
        )
    };
    let own = format!("CREATE TABLE t USING text OPTIONS (path '{at}/in/p*');");
    fs::create_dir_all(dir.path().join("in/part")).expect("made");
    for (statements, part) in [
        (
            format!("{own} {}", table("o", "out", "in/part")),
            "would read its own checkpoint",
        ),
        (
            format!(
                "{words} CREATE TABLE s USING text OPTIONS (path '{at}/in', recursiveFileLookup 'true');
                 CREATE STREAMING TABLE o USING text OPTIONS (path '{at}/out', checkpointLocation '{at}/in/ck')
                 AS SELECT t.value FROM STREAM t LEFT JOIN s ON t.value = s.value;"
            ),
            "would read its own checkpoint",
        ),
        (
            format!("{own} {}", table("o", "out", "out")),
            "is in output directory",
        ),
        (
            format!("{own} {}", table("o", "out", "out/ck")),
            "is in output directory",
        ),
        (
            format!(
                "{words} {} {}",
                table("o", "out", "out/_ck"),
                table("p", "./x/../out", "ck2")
            ),
            "which holds the rows of streaming table \"o\"",
        ),
    ] {
        check(&["run", &sql(dir.path(), &statements)], 2, part);
    }
    let hosts = dir.path().join("hosts");
    let cluster = [
        "-n",
        "2",
        "-p",
        "0",
        "--hostfile",
        &hosts.display().to_string(),
    ];
    for (lines, part) in [
        (
            "localhost:7001\nnot a line\n",
            "\"not a line\", where process 1 should be",
        ),
        ("localhost:7001\nlocalhost:700100\n", "localhost:700100"),
        (
            "# two\nlocalhost:7001\n\nlocalhost:7001\n",
            "processes 0 and 1 cannot both be at",
        ),
    ] {
        fs::write(&hosts, lines).expect("written");
        let args = [&["run", "examples/word_count.sql"], &cluster[..]].concat();
        check(&args, 2, part);
    }
    let socket = "CREATE TABLE t USING socket OPTIONS (host 'localhost', port 1);";
    let read = console("append", "default", "SELECT * FROM STREAM t");
    check(
        &["run", &sql(dir.path(), &format!("{socket} {read}"))],
        1,
        "localhost:1",
    );
    check(
        &[
            "run",
            &sql(dir.path(), &format!("{socket} SELECT * FROM t")),
        ],
        2,
        "FROM STREAM t",
    );
    fs::write(dir.path().join("latin.sql"), b"SELECT '\xe4'").expect("written");
    let latin = dir.path().join("latin.sql").display().to_string();
    check(&["run", &latin], 2, "not UTF-8");
}

/// Rows of three files, and the statements over them without windows.
fn etl(dir: &Path, trigger: &str) -> String {
    fs::create_dir(dir.join("in")).expect("made");
    for n in 0..3 {
        let mut rows = String::new();
        for v in 0..20 {
            rows.push_str(&format!(
                "{{\"k\":\"k{}\",\"v\":{v},\"ts\":\"2026-01-01T00:00:{v:02}Z\"}}\n",
                v % 3
            ));
        }
        fs::write(dir.join(format!("in/{n}.json")), rows).expect("written");
    }
    let at = |name: &str| dir.join(name).display().to_string();
    sql(
        dir,
        &format!(
            "CREATE TABLE ev (k STRING, v BIGINT, ts TIMESTAMP) USING json OPTIONS (path '{}', maxFilesPerTrigger '1');
             CREATE VIEW big AS SELECT * FROM ev WHERE v > 10;
             CREATE STREAMING TABLE etl USING parquet
               OPTIONS (path '{}', checkpointLocation = '{}', trigger '{trigger}')
               PARTITIONED BY (k) AS SELECT k, v FROM STREAM big;
             SELECT k, count(*) AS n FROM ev GROUP BY k",
            at("in"), at("out"), at("ck")
        ),
    )
}

/// What a query over parquet files says.
fn query_parquet(dir: &Path, columns: &str, query: &str) -> Vec<String> {
    let file = dir.join("check.sql");
    let table = format!(
        "CREATE TABLE o ({columns}) USING parquet OPTIONS (path '{}'); {query}",
        dir.join("out").display()
    );
    fs::write(&file, table).expect("written");
    let output = run(&["run", &file.display().to_string()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    rows(&output.stdout)
}

#[test]
fn a_file_of_statements_runs_and_ends() {
    for flags in [&[][..], &["-w", "2", "-n", "2"]] {
        let dir = tempfile::tempdir().expect("a directory");
        let file = etl(dir.path(), "availableNow");
        let args: Vec<&str> = ["run", file.as_str()]
            .iter()
            .chain(flags)
            .copied()
            .collect();
        let output = run(&args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(
            rows(&output.stdout),
            ["|k0|21|", "|k1|21|", "|k2|18|", "|k|n|"]
        );
        assert_eq!(
            query_parquet(
                dir.path(),
                "k STRING, v BIGINT",
                "SELECT k, count(*) AS n, sum(v) AS s FROM o GROUP BY k"
            ),
            ["|k0|9|135|", "|k1|9|144|", "|k2|9|126|", "|k|n|s|"]
        );
    }
}

/// A program that runs until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a count over the files of `dir/in`, and waits for its first table.
fn start_counting(dir: &Path, flags: &[&str]) -> (Running, BufReader<std::process::ChildStdout>) {
    fs::create_dir_all(dir.join("in")).expect("made");
    fs::write(dir.join("in/a.txt"), "one\ntwo\n").expect("written");
    let statements = format!(
        "CREATE TABLE lines USING text OPTIONS (path '{}'); {}",
        dir.join("in").display(),
        console(
            "complete",
            "default",
            "SELECT count(*) AS n FROM STREAM lines"
        )
    );
    let file = sql(dir, &statements);
    let mut child = highwater()
        .arg("run")
        .args(flags)
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let running = Running(child);
    expect_row(&mut out, "|2|");
    (running, out)
}

fn expect_row(out: &mut impl BufRead, row: &str) {
    let mut line = String::new();
    loop {
        line.clear();
        let read = out.read_line(&mut line).expect("readable");
        assert!(read > 0, "the program ended before it printed {row}");
        if line.replace(' ', "").trim() == row {
            return;
        }
    }
}

/// CPU time of a process so far, in hundredths of a second.
fn cpu(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .expect("fields")
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().expect("ticks") + fields[12].parse::<u64>().expect("ticks")
}

#[test]
fn new_files_are_counted_and_idleness_costs_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (running, mut out) = start_counting(dir.path(), &["-w", "2"]);
    fs::write(dir.path().join("in/.b.txt"), "three\n").expect("written");
    fs::rename(dir.path().join("in/.b.txt"), dir.path().join("in/b.txt")).expect("renamed");
    expect_row(&mut out, "|3|");
    let before = cpu(running.0.id());
    std::thread::sleep(Duration::from_secs(2));
    let used = cpu(running.0.id()) - before;
    assert!(
        used <= 4,
        "{used} hundredths of a second in two idle seconds"
    );
}

#[test]
fn a_lost_process_ends_a_query_that_has_no_checkpoint() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut running, _out) = start_counting(dir.path(), &["-n", "2"]);
    let pid = running.0.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
    let sister = children.split_whitespace().next().expect("it has a sister");
    assert!(
        Command::new("kill")
            .args(["-9", sister])
            .status()
            .expect("kill runs")
            .success()
    );
    let end = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = running.0.try_wait().expect("waitable") {
            break status;
        }
        assert!(
            Instant::now() < end,
            "still running 20 s after its sister was killed"
        );
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut said = String::new();
    running
        .0
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut said)
        .expect("text");
    assert!(!status.success(), "{said}");
    assert!(
        said.contains(
            "the connection to process 1 is lost; the query cannot go on without a checkpoint"
        ) && !said.contains("panicked")
            && !said.contains("stack backtrace"),
        "{said}"
    );
}

#[test]
fn a_socket_that_ends_ends_the_query() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let dir = tempfile::tempdir().expect("a directory");
    let file = sql(
        dir.path(),
        &format!(
            "CREATE TABLE t USING socket OPTIONS (host 'localhost', port {port}); {}",
            console(
                "complete",
                "default",
                "SELECT value, count(*) AS n FROM STREAM t GROUP BY value"
            )
        ),
    );
    let writer = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("it connects");
        peer.write_all(b"a\nb\na\nlast without newline")
            .expect("written");
    });
    let output = run(&["run", &file]);
    writer.join().expect("written");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows = rows(&output.stdout);
    assert!(
        rows.iter().any(|row| row.contains("last without newl")),
        "{rows:?}"
    );
}

/// Waits until the program has ended by itself.
fn ended(running: &mut Running) -> std::process::ExitStatus {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = running.0.try_wait().expect("waitable") {
            return status;
        }
        assert!(Instant::now() < end, "still running after a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(pid: u32, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
}

/// The rows of `dir/out`, by key.
fn written(dir: &Path) -> Vec<String> {
    let sums = "SELECT k, count(*) AS n, sum(v) AS s FROM o GROUP BY k";
    query_parquet(dir, "k STRING, v BIGINT", sums)
}

#[test]
fn a_signal_ends_the_program_well_and_a_restart_goes_on() {
    for (which, flags) in [("-TERM", &[][..]), ("-INT", &["-n", "2"])] {
        let dir = tempfile::tempdir().expect("a directory");
        let file = etl(dir.path(), "default");
        let start = || {
            let mut command = highwater();
            command
                .args(["run", &file])
                .args(flags)
                .stdout(Stdio::null());
            Running(command.stderr(Stdio::piped()).spawn().expect("it starts"))
        };
        let log_of = |running: &mut Running| {
            let mut said = String::new();
            let mut log = running.0.stderr.take().expect("piped");
            log.read_to_string(&mut said).expect("text");
            said
        };
        let await_files = || {
            let end = Instant::now() + Duration::from_secs(60);
            while !dir.path().join("out").join("k=k0").exists() {
                assert!(Instant::now() < end, "nothing was written in a minute");
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        let mut running = start();
        await_files();
        signal(running.0.id(), which);
        let status = ended(&mut running);
        let said = log_of(&mut running);
        assert_eq!(status.code(), Some(0), "{said}");
        for line in said.lines() {
            serde_json::from_str::<serde_json::Value>(line).expect("a log of JSON");
        }
        assert!(
            said.contains("\"started\"") && said.contains("\"ended\""),
            "{said}"
        );
        let mut running = start();
        // The second run of the query has begun, and whatever statements the file has besides are through.
        let end = Instant::now() + Duration::from_secs(60);
        let begun = dir.path().join("ck/generations/2");
        while !begun.exists() {
            assert!(Instant::now() < end, "no second run in a minute");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_secs(1));
        signal(running.0.id(), which);
        let status = ended(&mut running);
        assert_eq!(status.code(), Some(0), "{}", log_of(&mut running));
        fs::write(
            dir.path().join("query.sql"),
            fs::read_to_string(&file)
                .expect("readable")
                .replace("trigger 'default'", "trigger 'availableNow'"),
        )
        .expect("written");
        let last = run(&["run", &file]);
        assert!(last.status.success(), "{}", text(&last.stderr));
        assert_eq!(
            written(dir.path()),
            ["|k0|9|135|", "|k1|9|144|", "|k2|9|126|", "|k|n|s|"]
        );
        let checkpoint = dir.path().join("ck").display().to_string();
        let shown = run(&["checkpoint", "show", &checkpoint]);
        assert!(shown.status.success(), "{}", text(&shown.stderr));
        let shown = text(&shown.stdout);
        assert!(
            shown.contains("started 3 times") && shown.contains("a restart would"),
            "{shown}"
        );
    }
    let nothing = run(&["checkpoint", "show", "examples"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(
        text(&nothing.stderr).contains("examples"),
        "{}",
        text(&nothing.stderr)
    );
}

#[test]
fn a_damaged_log_of_the_output_is_told_at_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("in")).expect("made");
    for n in 0..5 {
        fs::write(at(&format!("in/{n}.json")), format!("{{\"v\":{n}}}\n")).expect("written");
    }
    let statements = format!(
        "CREATE TABLE ev (v BIGINT) USING json OPTIONS (path '{}', maxFilesPerTrigger '1');
         CREATE STREAMING TABLE q USING json OPTIONS (path '{}', checkpointLocation '{}', trigger 'availableNow',
             commitInterval '0 milliseconds') AS SELECT v FROM STREAM ev;",
        at("in").display(),
        at("out").display(),
        at("ck").display()
    );
    let file = sql(dir.path(), &statements);
    let first = run(&["run", &file]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let log = fs::read_dir(at("out/_highwater_log"))
        .expect("a log")
        .next();
    let entry = log
        .expect("one")
        .expect("listed")
        .path()
        .join("000000000001.json");
    let whole = fs::read(&entry).expect("readable");
    fs::remove_file(&entry).expect("removed");
    let again = run(&["run", &file]);
    assert_eq!(again.status.code(), Some(1));
    let told = "000000000001.json\" is missing from the log; restore it from a copy";
    assert!(
        text(&again.stderr).contains(told),
        "{}",
        text(&again.stderr)
    );
    let shown = run(&["checkpoint", "show", &at("ck").display().to_string()]);
    assert_eq!(shown.status.code(), Some(1));
    let shown = text(&shown.stdout);
    assert!(
        shown.contains("a restart would be refused") && shown.contains(told),
        "{shown}"
    );
    fs::write(&entry, whole).expect("written");
    let again = run(&["run", &file]);
    assert!(again.status.success(), "{}", text(&again.stderr));
}

#[test]
fn a_failed_query_leaves_the_others_their_say() {
    let dir = tempfile::tempdir().expect("a directory");
    let words = "CREATE TABLE t USING text OPTIONS (path 'examples/data/words');";
    let table = |name: &str, query: &str| {
        format!(
            "CREATE STREAMING TABLE {name} USING console
               OPTIONS (outputMode 'complete', trigger 'availableNow') AS {query};"
        )
    };
    let file = sql(
        dir.path(),
        &format!(
            "{words} {} SELECT CAST(value AS INT) FROM t; {} SELECT 42 AS answer",
            table("bad", "SELECT sum(CAST(value AS INT)) AS n FROM STREAM t"),
            table("good", "SELECT count(*) > 0 AS some FROM STREAM t"),
        ),
    );
    let output = run(&["run", &file]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(
        rows(&output.stdout),
        ["|42|", "|answer|", "|some|", "|true|"]
    );
    assert!(said.contains("query \"bad\" failed"), "{said}");
    assert!(
        said.contains("highwater: ") && said.contains("sql:2:"),
        "{said}"
    );
}

#[test]
fn plans_are_explained_and_nothing_is_started() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = etl(dir.path(), "10 seconds");
    let output = run(&["explain", &file]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for part in [
        "source: json \"",
        "sink: parquet",
        "output mode: append",
        "every 10s",
        "Source 0",
        "filter",
        "Aggregate",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!dir.path().join("out").exists() && !dir.path().join("ck").exists());
}

#[test]
fn statements_come_from_standard_input_too() {
    let mut child = highwater()
        .arg("sql")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let statements = "CREATE TABLE t USING text OPTIONS (path 'examples/data/words');
         CREATE STREAMING TABLE n USING memory OPTIONS (outputMode 'complete', trigger 'once') AS
           SELECT count(*) > 0 AS c FROM STREAM t;
         DESCRIBE n; SHOW TABLES; SET spark.sql.session.timeZone = Europe/Vienna; SET spark.sql.session.timeZone;
         DROP STREAMING TABLE n; DROP TABLE t; SHOW TABLES; SHOW QUERIES";
    let mut input = child.stdin.take().expect("piped");
    input.write_all(statements.as_bytes()).expect("written");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows = rows(&output.stdout);
    for row in [
        "|c|boolean|",
        "|n|streaming table|",
        "|t|table|",
        "|spark.sql.session.timeZone|Europe/Vienna|",
        "|name|id|epochs|rows|",
    ] {
        assert!(rows.iter().any(|found| found == row), "{row}: {rows:?}");
    }
    assert_eq!(rows.iter().filter(|row| *row == "|t|table|").count(), 1);
}

/// Two processes of a host file, each with its own statements.
fn two_processes(dir: &Path, statements: [&str; 2], secrets: [&str; 2]) -> [Running; 2] {
    let ports = [(); 2].map(|()| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").to_string()
    });
    fs::write(dir.join("hosts"), ports.join("\n")).expect("written");
    [0, 1].map(|process| {
        fs::write(dir.join(format!("{process}.sql")), statements[process]).expect("written");
        let log = fs::File::create(dir.join(format!("{process}.log"))).expect("made");
        let child = highwater()
            .current_dir(dir)
            .env("HIGHWATER_SECRET", secrets[process])
            .args(["run", &format!("{process}.sql"), "-n", "2"])
            .args(["-p", &process.to_string(), "--hostfile", "hosts"])
            .args(["--rejoin-timeout", "2"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Running(child.expect("the program starts"))
    })
}

const RATE: &str = "CREATE TABLE numbers USING `rate-micro-batch` OPTIONS (rowsPerBatch 3);
    CREATE STREAMING TABLE a USING noop AS SELECT value % 2 AS k FROM STREAM numbers;";

#[test]
fn processes_of_different_programs_end_and_tell_both() {
    let dir = tempfile::tempdir().expect("a directory");
    let other = RATE.replace("% 2", "% 3");
    let secret = ["0123456789abcdef"; 2];
    for mut process in two_processes(dir.path(), [RATE, &other], secret) {
        assert_eq!(ended(&mut process).code(), Some(1));
    }
    for process in ["0.log", "1.log"] {
        let log = fs::read_to_string(dir.path().join(process)).expect("read");
        assert!(
            log.contains("process 1 has not started query \\\"a\\\"")
                && log.contains("value % 3 AS k"),
            "{log}"
        );
    }
}

#[test]
fn a_query_that_another_process_does_not_start_can_be_stopped_and_ends() {
    let more = format!(
        "{RATE} CREATE STREAMING TABLE b USING noop AS SELECT value % 5 AS k FROM STREAM numbers;"
    );
    let dir = tempfile::tempdir().expect("a directory");
    let secret = ["0123456789abcdef"; 2];
    let [mut first, mut second] = two_processes(dir.path(), [&more, RATE], secret);
    let begun = Instant::now();
    let log = || fs::read_to_string(dir.path().join("0.log")).expect("read");
    while !log().contains("process 1 has not started query \\\"b\\\"") {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(first.0.id(), "-TERM");
    assert_eq!(ended(&mut first).code(), Some(1), "one query has failed");
    assert!(ended(&mut second).success());
}

#[test]
fn another_secret_is_told_on_both_sides() {
    let dir = tempfile::tempdir().expect("a directory");
    let secrets = ["0123456789abcdef", "another0123456789"];
    let [first, mut second] = two_processes(dir.path(), [RATE, RATE], secrets);
    assert_eq!(ended(&mut second).code(), Some(1));
    let begun = Instant::now();
    for process in ["0.log", "1.log"] {
        let log = || fs::read_to_string(dir.path().join(process)).expect("read");
        while !log().contains("holds another secret") {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(log().contains("127.0.0.1") && log().contains("HIGHWATER_SECRET"));
    }
    drop(first);
}

#[test]
fn settings_hold_from_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = sql(dir.path(), "SET spark.sql.session.timeZone");
    let output = run(&[
        "run",
        &file,
        "--conf",
        "spark.sql.session.timeZone=Europe/Vienna",
        "--conf",
        "highwater.state.memoryMax=64m",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("Europe/Vienna"));
    for (setting, told) in [
        ("a=b", "it takes highwater.state.memoryMax"),
        ("highwater.state.memoryMax=much", "cannot be \"much\""),
        ("spark.sql.caseSensitive=7", "it is true or false"),
        ("x", "it is NAME=VALUE"),
    ] {
        for command in ["run", "explain"] {
            let output = run(&[command, &file, "--conf", setting]);
            let error = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{setting}: {error}");
            assert!(error.contains(told), "{setting}: {error}");
        }
    }
}

#[test]
fn a_directory_that_tells_no_schema_is_told_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).expect("made");
    let statements = format!(
        "CREATE TABLE t USING json OPTIONS (path '{}')",
        empty.display()
    );
    let output = run(&["run", &sql(dir.path(), &statements)]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(
        error.contains("could not tell the schema of") && error.contains("there is no file"),
        "{error}"
    );
}
