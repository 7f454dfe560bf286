//! When all processes have started a query, and with the same plan: only then may it be built.
//!
//! timely hangs or fails where two processes build different dataflows, or where one builds what another does not. So
//! worker 0 of process 0 announces a query when every process has said that it has started it. Where that does not
//! happen, the query is refused, and the error names both sides.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Two processes that wait with different queries do not run the same program, unless threads of it are slow.
const CROSSED: Duration = Duration::from_secs(10);
const SAME: &str = "start every process with the same SQL file or program, and the same settings";

/// A query as a process has planned it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planned {
    /// What users know it by.
    pub(crate) title: String,
    /// Its plan, in words, the same in every process that runs the same program.
    pub(crate) plan: String,
}

/// What becomes of a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Build {
        key: String,
        beginning: String,
    },
    /// It is not built: for a reason, or because it was stopped before all processes had started it.
    Refuse {
        key: String,
        error: Option<String>,
    },
}

/// What the first process waits for.
pub(crate) struct Agreement {
    /// How long others may take to start a query.
    limit: Duration,
    /// Started here, in order.
    here: Vec<Waiting>,
    /// What the others have started, or why they could not; one for each of them.
    others: Vec<Other>,
}

struct Waiting {
    key: String,
    planned: Planned,
    beginning: String,
    since: Instant,
}

#[derive(Default)]
struct Other {
    started: BTreeMap<String, Result<Planned, String>>,
    /// Its program has come to its end.
    ended: bool,
}

impl Agreement {
    pub(crate) fn new(processes: usize, limit: Duration) -> Self {
        Agreement {
            limit,
            here: Vec::new(),
            others: (1..processes).map(|_| Other::default()).collect(),
        }
    }

    /// Started here.
    pub(crate) fn here(&mut self, key: String, planned: Planned, beginning: String, at: Instant) {
        self.here.push(Waiting {
            key,
            planned,
            beginning,
            since: at,
        });
    }

    /// Started in another process, or not: for a reason.
    pub(crate) fn there(&mut self, process: usize, key: String, started: Result<Planned, String>) {
        if let Some(other) = self.other(process) {
            other.started.insert(key, started);
        }
    }

    /// Another process starts nothing more.
    pub(crate) fn ended(&mut self, process: usize) {
        if let Some(other) = self.other(process) {
            other.ended = true;
        }
    }

    fn other(&mut self, process: usize) -> Option<&mut Other> {
        self.others.get_mut(process.checked_sub(1)?)
    }

    /// True while a query waits for a process.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.here.is_empty()
    }

    /// Decides what can be decided. `is_stopping` tells which queries are to stop.
    pub(crate) fn decide(
        &mut self,
        at: Instant,
        is_stopping: impl Fn(&str) -> bool,
    ) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let waiting = std::mem::take(&mut self.here);
        let keys: Vec<String> = waiting.iter().map(|query| query.key.clone()).collect();
        for query in waiting {
            let waited = at.saturating_duration_since(query.since);
            let missing = self.missing(&query, &keys, waited, is_stopping(&query.key));
            match missing {
                Missing::Nothing => verdicts.push(Verdict::Build {
                    key: query.key.clone(),
                    beginning: query.beginning,
                }),
                Missing::Time => {
                    self.here.push(query);
                    continue;
                }
                Missing::Hope(error, instead) => {
                    for key in [Some(query.key.clone()), instead].into_iter().flatten() {
                        let error = Some(error.clone());
                        verdicts.push(Verdict::Refuse { key, error });
                    }
                }
                Missing::Use => verdicts.push(Verdict::Refuse {
                    key: query.key.clone(),
                    error: None,
                }),
            }
            for other in &mut self.others {
                other.started.remove(&query.key);
            }
        }
        verdicts
    }

    fn missing(
        &self,
        query: &Waiting,
        keys: &[String],
        waited: Duration,
        is_stopping: bool,
    ) -> Missing {
        let title = &query.planned.title;
        let mut missing = Missing::Nothing;
        for (process, other) in (1..).zip(&self.others) {
            match other.started.get(&query.key) {
                Some(Ok(planned)) if planned.plan == query.planned.plan => continue,
                Some(Ok(planned)) => {
                    let (here, there) = first_difference(&query.planned.plan, &planned.plan);
                    return Missing::hope(format!(
                        "process {process} has another plan for {title}: there it has \"{there}\", in process 0 \
                         \"{here}\"; {SAME}"
                    ));
                }
                Some(Err(error)) => {
                    return Missing::hope(format!(
                        "process {process} could not start {title}: {error}"
                    ));
                }
                None => {}
            }
            let not_started = format!("process {process} has not started {title}");
            if other.ended {
                return Missing::hope(format!("{not_started}, and its program has ended; {SAME}"));
            }
            let unknown = other.started.iter().find_map(|(key, started)| {
                let planned = started.as_ref().ok()?;
                (!keys.contains(key)).then_some((key, planned))
            });
            let limit = match unknown {
                Some(_) => self.limit.min(CROSSED),
                None => self.limit,
            };
            if is_stopping && unknown.is_none() {
                // That process may be on its way: a process that died is started again.
                return Missing::Use;
            }
            if waited > limit || is_stopping {
                let within = match is_stopping {
                    true => " when it was stopped".into(),
                    false => format!(" within {limit:?}"),
                };
                let instead = unknown.map_or_else(String::new, |(_, unknown)| {
                    let (here, there) = first_difference(&query.planned.plan, &unknown.plan);
                    format!(
                        "; it waits with {}, whose plan has \"{there}\" where process 0 has \"{here}\"",
                        unknown.title
                    )
                });
                let error = format!("{not_started}{within}{instead}; {SAME}");
                return Missing::Hope(error, unknown.map(|(key, _)| key.clone()));
            }
            missing = Missing::Time;
        }
        missing
    }
}

/// What a query that waits has not.
enum Missing {
    Nothing,
    Time,
    /// It never will, and why; and the key of what a process waits with instead.
    Hope(String, Option<String>),
    /// Nobody wants it any more.
    Use,
}

impl Missing {
    fn hope(why: String) -> Self {
        Missing::Hope(why, None)
    }
}

fn first_difference(here: &str, there: &str) -> (String, String) {
    let (mut ours, mut theirs) = (here.lines(), there.lines());
    loop {
        let (ours, theirs) = (ours.next(), theirs.next());
        if ours != theirs || ours.is_none() {
            let line = |line: Option<&str>| line.unwrap_or("nothing").trim().to_string();
            return (line(ours), line(theirs));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::now;

    const LIMIT: Duration = Duration::from_secs(60);

    fn planned(plan: &str) -> Planned {
        Planned {
            title: "query \"clicks\"".into(),
            plan: plan.into(),
        }
    }

    fn waits() -> (Agreement, Instant) {
        let (mut agreement, at) = (Agreement::new(2, LIMIT), now());
        agreement.here("a-1".into(), planned("Filter x\nSource"), "{}".into(), at);
        (agreement, at)
    }

    fn refusal(agreement: &mut Agreement, at: Instant, is_stopping: bool) -> String {
        match agreement.decide(at, |_| is_stopping).as_slice() {
            [
                Verdict::Refuse {
                    key,
                    error: Some(error),
                },
                ..,
            ] if key == "a-1" => error.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_query_that_all_have_started_is_built() {
        let (mut agreement, at) = waits();
        assert_eq!(agreement.decide(at, |_| false), []);
        agreement.there(1, "a-1".into(), Ok(planned("Filter x\nSource")));
        let built = agreement.decide(at, |_| false);
        assert!(matches!(built.as_slice(), [Verdict::Build { .. }]));
        assert!(!agreement.is_waiting());
    }

    #[test]
    fn another_plan_is_told_with_both() {
        let (mut agreement, at) = waits();
        agreement.there(1, "a-1".into(), Ok(planned("Filter y\nSource")));
        let error = refusal(&mut agreement, at, false);
        assert!(
            error.contains("there it has \"Filter y\", in process 0 \"Filter x\""),
            "{error}"
        );
    }

    #[test]
    fn crossed_queries_are_told_with_both() {
        let (mut agreement, at) = waits();
        let other = Planned {
            title: "query \"views\"".into(),
            ..planned("Source")
        };
        agreement.there(1, "b-1".into(), Ok(other));
        assert_eq!(agreement.decide(at + CROSSED / 2, |_| false), []);
        let verdicts = agreement.decide(at + CROSSED * 2, |_| false);
        let [
            Verdict::Refuse {
                error: Some(error), ..
            },
            Verdict::Refuse { key, .. },
        ] = verdicts.as_slice()
        else {
            panic!("{verdicts:?}");
        };
        assert_eq!(key, "b-1");
        assert!(
            error.contains("\"clicks\"") && error.contains("\"views\""),
            "{error}"
        );
        assert!(
            error.contains("\"Source\" where process 0 has \"Filter x\""),
            "{error}"
        );
    }

    #[test]
    fn nobody_is_waited_for_without_end() {
        let (mut agreement, at) = waits();
        assert_eq!(agreement.decide(at + LIMIT / 2, |_| false), []);
        assert!(refusal(&mut agreement, at + LIMIT * 2, false).contains("within 60s"));
        let (mut agreement, at) = waits();
        let stopped = Verdict::Refuse {
            key: "a-1".into(),
            error: None,
        };
        assert_eq!(agreement.decide(at, |_| true), [stopped]);
        let (mut agreement, at) = waits();
        agreement.ended(1);
        assert!(refusal(&mut agreement, at, false).contains("its program has ended"));
        let (mut agreement, at) = waits();
        agreement.there(1, "a-1".into(), Err("no such directory".into()));
        assert!(refusal(&mut agreement, at, false).contains("no such directory"));
    }
}
