//! The flags of every Highwater program.

use std::path::PathBuf;
use std::time::Duration;

use super::ClusterError;

/// Environment variable with the secret that processes prove to each other.
pub(super) const SECRET: &str = "HIGHWATER_SECRET";
/// Environment variable with the private directory of the Unix sockets.
pub(super) const SOCKETS: &str = "HIGHWATER_SOCKETS";
/// Environment variable with the id of the process that started this one and looks after it.
pub(super) const SUPERVISOR: &str = "HIGHWATER_SUPERVISOR";

/// Workers and processes of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Worker threads in each process.
    pub workers: usize,
    /// Processes.
    pub processes: usize,
    /// This process; `None` starts the others from here.
    pub process: Option<usize>,
    /// One `host:port` a process; `None` means Unix sockets on this machine.
    pub hosts: Option<Vec<String>>,
    /// How often, in all, processes that were started from here are started again when they die; a minute in which none
    /// dies starts the count anew.
    pub restarts: u32,
    /// The pause before the first restart; each further one doubles it.
    pub restart_pause: Duration,
    /// The pause does not grow beyond it, nor beyond half the time that the others wait.
    pub restart_pause_max: Duration,
    /// A process that is not heard of for so long counts as dead.
    pub heartbeat_timeout: Duration,
    /// How long the others wait for one that died to come back.
    pub rejoin_timeout: Duration,
}

impl Default for ClusterConfig {
    /// One process with one worker. Ten restarts, a tenth of a second to five seconds before each, ten seconds without a sign of life, a minute to come back.
    fn default() -> Self {
        ClusterConfig {
            workers: 1,
            processes: 1,
            process: None,
            hosts: None,
            restarts: 10,
            restart_pause: Duration::from_millis(100),
            restart_pause_max: Duration::from_secs(5),
            heartbeat_timeout: Duration::from_secs(10),
            rejoin_timeout: Duration::from_secs(60),
        }
    }
}

impl ClusterConfig {
    /// Reads the flags among `args` (without the program's name); what is no flag is left to the program and returned.
    pub fn from_args(
        args: impl IntoIterator<Item = String>,
    ) -> Result<(Self, Vec<String>), ClusterError> {
        let mut config = ClusterConfig::default();
        let mut hostfile: Option<PathBuf> = None;
        let mut rest = Vec::new();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (flag, inline) = match arg.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => {
                    (flag.to_string(), Some(value.to_string()))
                }
                _ => (arg.clone(), None),
            };
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| args.next())
                    .ok_or_else(|| ClusterError::Arguments(format!("\"{flag}\" needs a value")))
            };
            match flag.as_str() {
                "-w" | "--workers" => config.workers = number(&flag, &value()?)?,
                "-n" | "--processes" => config.processes = number(&flag, &value()?)?,
                "-p" | "--process" => config.process = Some(number(&flag, &value()?)?),
                "--restarts" => config.restarts = number(&flag, &value()?)?,
                "--restart-pause" => config.restart_pause = seconds(&flag, &value()?)?,
                "--restart-pause-max" => config.restart_pause_max = seconds(&flag, &value()?)?,
                "--heartbeat-timeout" => config.heartbeat_timeout = seconds(&flag, &value()?)?,
                "--rejoin-timeout" => config.rejoin_timeout = seconds(&flag, &value()?)?,
                "--hostfile" => hostfile = Some(PathBuf::from(value()?)),
                "--" => {
                    rest.extend(args);
                    break;
                }
                other if other.starts_with('-') && other.len() > 1 => {
                    return Err(ClusterError::Arguments(format!("unknown flag \"{other}\"")));
                }
                _ => rest.push(arg),
            }
        }
        if let Some(path) = hostfile {
            let text = std::fs::read_to_string(&path).map_err(|source| ClusterError::Hostfile {
                path: path.display().to_string(),
                source,
            })?;
            let lines = text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with('#'));
            config.hosts = Some(lines.map(str::to_string).collect());
        }
        config.check()?;
        Ok((config, rest))
    }

    /// Refuses what cannot work.
    pub fn check(&self) -> Result<(), ClusterError> {
        let wrong = |what: String| Err(ClusterError::Arguments(what));
        if self.workers == 0 || self.processes == 0 {
            return wrong("there must be at least one worker and one process".into());
        }
        if self.restart_pause > self.restart_pause_max {
            return wrong(format!(
                "the pause before a restart ({:?}) is longer than the longest one ({:?}): raise --restart-pause-max",
                self.restart_pause, self.restart_pause_max
            ));
        }
        if self.restart_pause >= self.rejoin_timeout {
            return wrong(format!(
                "a pause of {:?} before a restart is longer than the others wait ({:?}): lower --restart-pause, or raise \
                 --rejoin-timeout",
                self.restart_pause, self.rejoin_timeout
            ));
        }
        if self.workers.saturating_mul(self.processes) > 4096 {
            return wrong(format!(
                "{} workers in {} processes are too many (4096 in all)",
                self.workers, self.processes
            ));
        }
        if let Some(process) = self.process
            && process >= self.processes
        {
            return wrong(format!(
                "process {process} does not exist among {} (they count from 0)",
                self.processes
            ));
        }
        if let Some(hosts) = &self.hosts {
            for (number, host) in hosts.iter().enumerate() {
                let port = host.rsplit_once(':').filter(|(name, _)| !name.is_empty());
                if port.is_none_or(|(_, port)| port.parse::<std::num::NonZeroU16>().is_err()) {
                    return wrong(format!(
                        "\"{host}\", where process {number} should be, is no host:port, such as 10.0.0.1:7001"
                    ));
                }
                if let Some(before) = hosts[..number].iter().position(|other| other == host) {
                    return wrong(format!(
                        "processes {before} and {number} cannot both be at \"{host}\""
                    ));
                }
            }
            if self.process.is_none() && self.processes > 1 {
                return wrong("a host file needs -p, the number of this process".into());
            }
            if hosts.len() < self.processes {
                return wrong(format!(
                    "the host file names {} addresses for {} processes",
                    hosts.len(),
                    self.processes
                ));
            }
        }
        Ok(())
    }

    /// Workers over all processes.
    pub fn peers(&self) -> usize {
        self.workers * self.processes
    }
}

fn seconds(flag: &str, text: &str) -> Result<Duration, ClusterError> {
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| {
            ClusterError::Arguments(format!(
                "\"{flag}\" needs a number of seconds above 0, not \"{text}\""
            ))
        })
}

fn number<N: std::str::FromStr>(flag: &str, text: &str) -> Result<N, ClusterError> {
    text.parse()
        .map_err(|_| ClusterError::Arguments(format!("\"{flag}\" needs a number, not \"{text}\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(ClusterConfig, Vec<String>), String> {
        ClusterConfig::from_args(line.split_whitespace().map(str::to_string))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn flags_are_read_and_the_rest_is_left() {
        let (config, rest) = parse("in.txt -w 3 --processes=2 -p 1 out").expect("valid");
        assert_eq!(
            (config.workers, config.processes, config.process),
            (3, 2, Some(1))
        );
        assert_eq!(rest, ["in.txt", "out"]);
        let (config, _) =
            parse("--restarts 3 --restart-pause 0.2 --heartbeat-timeout=0.5").expect("valid");
        assert_eq!(config.restarts, 3);
        assert_eq!(config.restart_pause, Duration::from_millis(200));
        assert_eq!(config.heartbeat_timeout, Duration::from_millis(500));
    }

    #[test]
    fn nonsense_is_refused_with_its_name() {
        for (line, part) in [
            ("-w", "\"-w\" needs a value"),
            ("-w x", "not \"x\""),
            ("-w 0", "at least one worker"),
            ("-n 2 -p 2", "process 2 does not exist"),
            ("--heartbeat-timeout 0", "a number of seconds above 0"),
            ("--restarts many", "\"--restarts\" needs a number"),
            ("--restart-pause 9", "longer than the longest one"),
            (
                "--restart-pause=61 --restart-pause-max=61",
                "longer than the others wait (60s)",
            ),
            ("--frobnicate", "unknown flag \"--frobnicate\""),
            (
                "--hostfile /nonexistent/hosts -n 2 -p 0",
                "could not read host file",
            ),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
