//! The program `highwater`: a file of SQL statements, run or explained.

mod explain;
mod file;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use highwater::ClusterConfig;

const EXIT_CODES: &str = "\
Exit codes:
  0    all queries have ended, or a signal stopped them and what was in flight is committed
  1    a query failed; the others were given their say
  2    the command line or a statement is wrong
  130  a second Ctrl-C (143: a second SIGTERM) ended the program at once, or the first one a plain SELECT";

/// Continuous queries: tables, views and streaming tables in SQL.
#[derive(Parser)]
#[command(name = "highwater", version, after_help = EXIT_CODES)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the statements of a SQL file, and then waits until every query has ended.
    ///
    /// CREATE TABLE names a source, CREATE VIEW a query, CREATE STREAMING TABLE starts a query with the table's name,
    /// and a plain SELECT prints its answer over what is there when it is reached.
    #[command(after_help = EXIT_CODES)]
    Run {
        /// The SQL file.
        file: PathBuf,
        #[command(flatten)]
        workers: Workers,
    },
    /// Shows how the queries of a SQL file would run: plan, sources, sink, state. Starts none of them.
    Explain {
        /// The SQL file.
        file: PathBuf,
    },
}

#[derive(clap::Args)]
struct Workers {
    /// Worker threads in each process.
    #[arg(short = 'w', long, default_value_t = 1)]
    workers: usize,
    /// Processes.
    #[arg(short = 'n', long, default_value_t = 1)]
    processes: usize,
    /// The number of this process; left out, the others are started from here.
    #[arg(short = 'p', long)]
    process: Option<usize>,
    /// A file with one host:port a line, one for each process.
    #[arg(long)]
    hostfile: Option<PathBuf>,
}

impl Workers {
    fn cluster(&self) -> highwater::Result<ClusterConfig> {
        let mut flags = vec![
            "-w".to_string(),
            self.workers.to_string(),
            "-n".into(),
            self.processes.to_string(),
        ];
        if let Some(process) = self.process {
            flags.extend(["-p".into(), process.to_string()]);
        }
        if let Some(hostfile) = &self.hostfile {
            flags.extend(["--hostfile".into(), hostfile.display().to_string()]);
        }
        Ok(ClusterConfig::from_args(flags)?.0)
    }
}

/// How the program ends when it does not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// The world is wrong.
    Query = 1,
    /// What the user wrote is wrong.
    Wrong = 2,
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let ended = match Args::parse().command {
        Command::Run { file, workers } => run::run(&file, &workers),
        Command::Explain { file } => explain::explain(&file),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failure as u8),
    }
}

/// Says something on standard error. If that is closed, nobody wants to know.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "highwater: {text}");
}

/// Prints on standard output; false if nobody reads it any more.
fn print(text: &str) -> bool {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}
