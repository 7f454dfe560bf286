//! The program `highwater`: files of SQL statements, run or explained, a prompt, and a look into checkpoints.

mod checkpoint;
mod explain;
mod file;
mod log;
mod prompt;
mod run;
mod signals;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use highwater::{ClusterConfig, Error, Session, SessionBuilder};

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
        #[command(flatten)]
        settings: Settings,
    },
    /// Runs statements as they are typed; or, if standard input is no terminal, all of it like a file.
    Sql {
        /// Worker threads.
        #[arg(short = 'w', long, default_value_t = 1)]
        workers: usize,
        #[command(flatten)]
        settings: Settings,
    },
    /// Looks into checkpoint directories.
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
}

#[derive(Subcommand)]
enum CheckpointCommand {
    /// Prints offsets, epochs, the size of the state, and what a restart would do.
    Show {
        /// The query's checkpointLocation.
        dir: String,
    },
}

#[derive(clap::Args, Default)]
struct Settings {
    /// A setting of the session, as NAME=VALUE; may be given again for others. highwater.state.memoryMax is how much
    /// state each process keeps in memory (2g, 40%), highwater.spill.directory where the rest goes; besides there are
    /// those that SET lists.
    #[arg(long = "conf", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

impl Settings {
    /// A session that begins with them.
    fn builder(&self) -> SessionBuilder {
        let settings = self.settings.iter();
        settings.fold(Session::builder(), |builder, (name, value)| {
            builder.conf(name, value)
        })
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().into(), value.trim().into()))
        }
        _ => Err("it is NAME=VALUE, such as highwater.state.memoryMax=2g".into()),
    }
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
    /// How often processes that were started from here are started again when they die; a quiet minute starts the
    /// count anew.
    #[arg(long, default_value_t = 10)]
    restarts: u32,
    /// Seconds before the first restart; each further one waits twice as long.
    #[arg(long, default_value_t = 0.1)]
    restart_pause: f64,
    /// Seconds before a restart at most.
    #[arg(long, default_value_t = 5.0)]
    restart_pause_max: f64,
    /// Seconds after which a process that is not heard of counts as dead.
    #[arg(long, default_value_t = 10.0)]
    heartbeat_timeout: f64,
    /// Seconds that the others wait for a process that died to come back, and for a query that it has not started.
    #[arg(long, default_value_t = 60.0)]
    rejoin_timeout: f64,
    #[command(flatten)]
    settings: Settings,
}

impl Workers {
    fn cluster(&self) -> highwater::Result<ClusterConfig> {
        let mut flags = vec![
            "-w".to_string(),
            self.workers.to_string(),
            "-n".into(),
            self.processes.to_string(),
            format!("--restarts={}", self.restarts),
            format!("--restart-pause={}", self.restart_pause),
            format!("--restart-pause-max={}", self.restart_pause_max),
            format!("--heartbeat-timeout={}", self.heartbeat_timeout),
            format!("--rejoin-timeout={}", self.rejoin_timeout),
        ];
        if let Some(process) = self.process {
            flags.extend(["-p".into(), process.to_string()]);
        }
        if let Some(hostfile) = &self.hostfile {
            flags.extend(["--hostfile".into(), hostfile.display().to_string()]);
        }
        Ok(ClusterConfig::from_args(flags)?.0)
    }

    /// A session of so many workers and processes.
    fn session(&self) -> Result<SessionBuilder, Error> {
        Ok(self.settings.builder().cluster(self.cluster()?))
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
    let args = Args::parse();
    if let Err(failure) = log::start() {
        return ExitCode::from(failure as u8);
    }
    let ended = match args.command {
        Command::Run { file, workers } => run::run(&file, workers.session()),
        Command::Explain { file, settings } => explain::explain(&file, &settings),
        Command::Sql { workers, settings } => prompt::prompt(settings.builder().workers(workers)),
        Command::Checkpoint(CheckpointCommand::Show { dir }) => checkpoint::show(&dir),
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
fn print(text: &str) -> Result<bool, Error> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::Run {
            message: format!("could not write to standard output: {error}"),
        }),
    }
}
