//! What must not change between two runs of a query on one checkpoint directory.
//!
//! An earlier build may have written less than this one knows of: what is not there is not compared.

use serde::{Deserialize, Serialize};

use crate::sink::OutputMode;

/// What the fixed properties of the sink for late rows are called, before their names.
pub(crate) const OF_LATE_ROWS: &str = "late rows' ";

/// What must not change between two runs of a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlanShape {
    /// What each source reads, its kind first: `FileStreamSource[data/in]`. They may not change places. The
    /// first builds wrote the kinds alone.
    pub(crate) sources: Vec<String>,
    /// What none of them can change, by name.
    #[serde(default)]
    pub(crate) fixed_of_sources: Vec<Vec<(String, String)>>,
    /// Each operator with state: its name, and what its state holds.
    pub(crate) operators: Vec<OperatorShape>,
    /// The grids of the query's windows: what the times in the state mean.
    #[serde(default)]
    pub(crate) windows: Vec<String>,
    /// The static rows that entered with the first epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) statics: Vec<String>,
    /// Of a query with state: what has left it is gone from the state, by the rules of its mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<OutputMode>,
    /// What its sink cannot change, by name, the kind first.
    #[serde(default)]
    pub(crate) sink: Vec<(String, String)>,
}

/// What an operator's state holds, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OperatorShape {
    pub(crate) name: String,
    pub(crate) state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) computed: Option<Computed>,
}

/// What keys and values of a state are computed from, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Computed {
    /// Of the wording.
    pub(crate) version: u32,
    pub(crate) keys: Vec<String>,
    pub(crate) values: Vec<String>,
}

impl PlanShape {
    /// The directories that its sinks write to, of those that have one.
    pub(crate) fn outputs(&self) -> Vec<String> {
        let is_path = |name: &str| name.strip_prefix(OF_LATE_ROWS).unwrap_or(name) == "path";
        let paths = self.sink.iter().filter(|(name, _)| is_path(name));
        paths.map(|(_, path)| path.clone()).collect()
    }

    /// What differs from an earlier shape, if anything does.
    pub(super) fn difference(&self, before: &PlanShape) -> Option<String> {
        self.other_sources(before)
            .or_else(|| {
                (self.windows != before.windows).then(|| {
                    let (old, new) = (list(&before.windows), list(&self.windows));
                    format!("it had windows {old} and now has {new}")
                })
            })
            .or_else(|| self.other_operators(before))
            .or_else(|| {
                let (old, new) = (before.mode?, self.mode?);
                (old != new).then(|| format!("its output mode was {old}, and is now {new}"))
            })
            .or_else(|| {
                (self.statics != before.statics).then(|| {
                    let (old, new) = (list(&before.statics), list(&self.statics));
                    format!("the static rows that entered with its first epoch were {old}, and are now {new}")
                })
            })
            .or_else(|| self.other_sink(before))
    }

    fn other_sources(&self, before: &PlanShape) -> Option<String> {
        fn kinds(sources: &[String]) -> impl Iterator<Item = &str> {
            sources.iter().map(|text| kind(text))
        }
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names
        };
        let (old, new) = (list(&before.sources), list(&self.sources));
        if !kinds(&self.sources).eq(kinds(&before.sources)) {
            return Some(format!("it read {old} and now reads {new}"));
        }
        let moved = self.sources != before.sources;
        if moved && sorted(&self.sources) == sorted(&before.sources) {
            return Some(format!("it read {old} in this order, and now reads {new}"));
        }
        let both = self.fixed_of_sources.iter().zip(&before.fixed_of_sources);
        for ((fixed, fixed_before), description) in both.zip(&before.sources) {
            for (name, old) in fixed_before {
                let new = fixed.iter().find(|(known, _)| known == name);
                let new = new.map_or("nothing", |(_, value)| value.as_str());
                if new != old {
                    return Some(format!(
                        "the {name} of its source {description} was {old}, and is now {new}"
                    ));
                }
            }
        }
        None
    }

    fn other_operators(&self, before: &PlanShape) -> Option<String> {
        for old in &before.operators {
            let Some(new) = self.operators.iter().find(|new| new.name == old.name) else {
                return Some(format!(
                    "it had an operator with state, {} {}, that is gone",
                    old.name, old.state
                ));
            };
            if new.state != old.state {
                return Some(format!(
                    "the state of {} was {}, and is now {}",
                    old.name, old.state, new.state
                ));
            }
            if let (Some(was), Some(is)) = (&old.computed, &new.computed)
                && let Some(difference) = is.difference(was)
            {
                return Some(format!("in {} the {difference}", old.name));
            }
        }
        let added = |new: &&OperatorShape| before.operators.iter().all(|old| old.name != new.name);
        self.operators.iter().find(added).map(|new| {
            format!(
                "it has a new operator with state, {} {}",
                new.name, new.state
            )
        })
    }

    fn other_sink(&self, before: &PlanShape) -> Option<String> {
        for (name, old) in &before.sink {
            let new = self.sink.iter().find(|(known, _)| known == name);
            // Late rows may be wanted in one run and not in the next.
            if new.is_none() && name.starts_with(OF_LATE_ROWS) {
                continue;
            }
            let new = new.map_or("nothing", |(_, value)| value.as_str());
            if new != old {
                return Some(format!(
                    "the {name} of its sink was {old}, and is now {new}"
                ));
            }
        }
        None
    }
}

impl Computed {
    fn difference(&self, before: &Computed) -> Option<String> {
        if self.version != before.version {
            return None;
        }
        let (old, new, what) = match self.keys == before.keys {
            false => (&before.keys, &self.keys, "keys"),
            true => (&before.values, &self.values, "values"),
        };
        (old != new).then(|| format!("{what} were {}, and are now {}", list(old), list(new)))
    }
}

/// The kind of a source: what its description begins with.
fn kind(description: &str) -> &str {
    description.split('[').next().unwrap_or_default()
}

fn list(names: &[String]) -> String {
    match names {
        [] => "nothing".into(),
        names => names.join(", "),
    }
}
