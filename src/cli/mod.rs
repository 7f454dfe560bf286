//! `highwater FILE.sql`: statements run in order; a query over static rows prints its answer, one over a stream runs
//! with its rows going to the console until it ends.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use highwater::{ClusterConfig, Error, OutputMode, Session, Trigger};

/// Runs the statements of a SQL file: sources are views (`CREATE [STREAMING] TEMP VIEW name USING format OPTIONS
/// (..)`), a SELECT over static rows prints its answer, a SELECT over a stream runs until its rows end.
#[derive(Parser)]
#[command(name = "highwater", version)]
struct Args {
    /// The SQL file; `-` reads standard input.
    file: PathBuf,
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
    /// Which rows a streaming query hands the console: by default append, or complete where it aggregates.
    #[arg(long)]
    mode: Option<Mode>,
    /// Ends when everything that is there at the start is processed.
    #[arg(long)]
    available_now: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Append,
    Update,
    Complete,
}

/// Runs the program.
pub(crate) fn run() -> highwater::Result<()> {
    let args = Args::parse();
    let text = read(&args.file)?;
    let session = Session::with_cluster(cluster(&args)?)?;
    let mut queries = Vec::new();
    for statement in highwater::split_statements(&text)? {
        let frame = session.sql(&statement)?;
        if frame.is_streaming() {
            let trigger = if args.available_now {
                Trigger::AvailableNow
            } else {
                Trigger::Default
            };
            let writer = |mode| {
                frame
                    .write_stream()
                    .output_mode(mode)
                    .trigger(trigger)
                    .format("console")
                    .start()
            };
            queries.push(match args.mode {
                Some(Mode::Append) => writer(OutputMode::Append)?,
                Some(Mode::Update) => writer(OutputMode::Update)?,
                Some(Mode::Complete) => writer(OutputMode::Complete)?,
                None => match writer(OutputMode::Append) {
                    Err(refused)
                        if refused.class().as_deref()
                            == Some("STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION") =>
                    {
                        writer(OutputMode::Complete)?
                    }
                    started => started?,
                },
            });
        } else if !frame.schema().fields().is_empty() && session.is_first_process() {
            frame.show()?;
        }
    }
    for query in queries {
        query.await_termination()?;
    }
    Ok(())
}

fn read(file: &PathBuf) -> highwater::Result<String> {
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|error| Error::Refused {
        class: None,
        message: format!("could not read SQL file \"{}\": {error}", file.display()),
    })
}

fn cluster(args: &Args) -> highwater::Result<ClusterConfig> {
    let mut flags = vec![
        "-w".to_string(),
        args.workers.to_string(),
        "-n".into(),
        args.processes.to_string(),
    ];
    if let Some(process) = args.process {
        flags.extend(["-p".into(), process.to_string()]);
    }
    if let Some(hostfile) = &args.hostfile {
        flags.extend(["--hostfile".into(), hostfile.display().to_string()]);
    }
    Ok(ClusterConfig::from_args(flags)?.0)
}
