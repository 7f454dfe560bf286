//! What a scenario gave beside what is recorded: the pack's rules.

use serde_json::Value;

use crate::json::same_rows;
use crate::play::{Ended, Played, Step, When, play};
use crate::{oracle, rules};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Same,
    /// Not the recorded answer where we mean to differ: a rule says why.
    ByRule,
    /// Refused as not built, where the model answers or refuses otherwise.
    Refused(String),
    Different(String),
}

pub(crate) fn outcome(scenario: &Value, played: &Played, workers: usize) -> Outcome {
    let outcome = compared(scenario, played);
    // That rows come out at last, the recorded answer says.
    let judged = |outcome: Outcome, what: &str| match oracle::judge_rows(scenario, played) {
        Ok(()) => Outcome::ByRule,
        Err(how) => match outcome {
            Outcome::Different(other) => Outcome::Different(format!("{other}; and {what}: {how}")),
            _ => Outcome::Different(format!("{what}: {how}")),
        },
    };
    match outcome {
        Outcome::Different(_) if played.ended.is_none() && scenario.get("error").is_none() => {
            if rules::by_computed_times(scenario) || rules::by_pieces(scenario) {
                return match oracle::judge_marks(scenario, played) {
                    Ok(()) => Outcome::ByRule,
                    Err(how) => Outcome::Different(format!("{how}; not as recorded: {outcome:?}")),
                };
            }
            let Some(asked) = rules::null_keys_pair(scenario) else {
                return outcome;
            };
            match compared(&asked, &play(&asked, workers)) {
                Outcome::Same | Outcome::ByRule => judged(outcome, "not by keys that are null"),
                _ => outcome,
            }
        }
        Outcome::ByRule if rules::any_first(scenario) && scenario.get("error").is_none() => {
            judged(outcome, "not any of the first")
        }
        _ => outcome,
    }
}

fn compared(scenario: &Value, played: &Played) -> Outcome {
    let expected = list(&scenario["expect"]);
    if let (Some(wanted), Some(have)) = (scenario["schema"].as_str(), &played.schema)
        && wanted != have
    {
        return Outcome::Different(format!("schema: expected {wanted}, got {have}"));
    }
    let (mut by_rule, mut other_marks) = (false, false);
    for (number, (want, have)) in expected.iter().zip(&played.steps).enumerate() {
        match step_outcome(scenario, want, have) {
            Ok(exact) => by_rule |= !exact,
            // From here on the recorded answers are those of other watermarks.
            Err(_) if rules::marks_survive(scenario, number) && other_mark(want, have) => {
                other_marks = true;
                break;
            }
            Err(how) => return Outcome::Different(format!("step {number}: {how}")),
        }
    }
    match (&played.ended, scenario.get("error")) {
        (None, None) if played.steps.len() == expected.len() => match (other_marks, by_rule) {
            (true, _) => match oracle::judge_marks(scenario, played) {
                Ok(()) => Outcome::ByRule,
                Err(how) => Outcome::Different(format!("by its own watermarks: {how}")),
            },
            (false, true) => Outcome::ByRule,
            (false, false) => Outcome::Same,
        },
        (None, None) => {
            let (wanted, got) = (expected.len(), played.steps.len());
            Outcome::Different(format!("steps: expected {wanted}, got {got}"))
        }
        (None, Some(error)) if rules::may_answer(error) => match oracle::judge(scenario, played) {
            Ok(()) => Outcome::ByRule,
            Err(how) => Outcome::Different(format!("answered, and wrongly: {how}")),
        },
        (None, Some(error)) => {
            Outcome::Different(format!("answered, but the model refuses: {error}"))
        }
        (Some(ended), _) if other_marks => {
            Outcome::Different(format!("by its own watermarks it ends: {}", ended.error))
        }
        (Some(ended), wanted) => refusal(scenario, ended, wanted),
    }
}

/// The same error, or none that the model has: what we do not do yet, by its name.
fn refusal(scenario: &Value, ended: &Ended, wanted: Option<&Value>) -> Outcome {
    let before_rows = list(&scenario["expect"]).is_empty();
    let (when, error) = (ended.when, &ended.error);
    let (class, message) = (error.class(), error.message());
    let model = wanted.map_or_else(String::new, |wanted| format!(" (the model: {wanted})"));
    let told = format!("{when:?}: {error}{model}");
    if let Some(wanted) = wanted {
        let step = wanted["step"].as_u64().unwrap_or_default() as usize;
        let at = match wanted["when"].as_str() {
            Some("analysis") => When::Analysis,
            Some("start") => When::Start,
            _ => When::Run(step),
        };
        let later = rules::later(wanted) && at < when && when == When::Start;
        let in_time = when == at || before_rows && (when < at || later);
        let part = wanted["message_contains"].as_str().unwrap_or_default();
        if in_time && class.as_deref() == wanted["class"].as_str() {
            if message.contains(part) {
                return if later {
                    Outcome::ByRule
                } else {
                    Outcome::Same
                };
            }
            if rules::reworded(wanted, &message) {
                return Outcome::ByRule;
            }
        }
    }
    let not_built =
        message.contains("not supported yet") || class.as_deref() == Some("UNRESOLVED_ROUTINE");
    match not_built {
        true => Outcome::Refused(told),
        false => Outcome::Different(told),
    }
}

fn other_mark(want: &Value, have: &Step) -> bool {
    want["watermark"] != have.watermark
}

/// Whether a step gave exactly what is recorded (true) or what a rule allows; or what differs.
fn step_outcome(scenario: &Value, want: &Value, have: &Step) -> Result<bool, String> {
    let unchecked = list(&scenario["unchecked"]);
    let checked = |field: &str| !unchecked.iter().any(|name| name == field);
    let numbers = [
        ("watermark", Some(have.watermark.clone())),
        ("dropped_by_watermark", have.late.map(Value::from)),
        ("state_rows", have.state_rows.map(Value::from)),
    ];
    let mut exact = true;
    for (field, have) in numbers.into_iter().filter(|(field, _)| checked(field)) {
        let want = want.get(field).ok_or(format!("{field} is not recorded"))?;
        let have = have.ok_or(format!("{field} is not reported"))?;
        let allowed = || field == "state_rows" && rules::other_state(scenario).is_some();
        if *want == have {
            continue;
        }
        if !allowed() {
            return Err(format!("{field}: expected {want}, got {have}"));
        }
        exact = false;
    }
    let rows = list(&want["rows"]);
    let ordered = scenario["ordered"] == true;
    match same_rows(&rows, &have.rows, ordered) {
        true => Ok(exact),
        false if rules::any_first(scenario) && rows.len() == have.rows.len() => Ok(false),
        false => {
            let (want, have) = (Value::from(rows), Value::from(have.rows.clone()));
            Err(format!("expected {want}, got {have}"))
        }
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}
