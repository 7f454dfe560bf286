//! Where our answer may be another than the recorded one: rules, each with its reason. They speak of the query, never
//! of a scenario, so that any other query of the kind falls under them too.

use serde_json::Value;

/// What the model refuses with this class and these words, and we may answer: an incremental engine knows the answer.
pub(crate) const ANSWERED: &[(&str, &str, &str)] = &[
    (
        "_LEGACY_ERROR_TEMP_3102",
        "Distinct aggregations are not supported",
        "the values of a group are its state, so each counts once",
    ),
    (
        "_LEGACY_ERROR_TEMP_3102",
        "Detected pattern of possible 'correctness' issue due to global watermark",
        "what an operator has said it takes back for the one above it",
    ),
    (
        "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION",
        "not supported for no streaming aggregations",
        "the rows so far are the state, and come whole with every epoch",
    ),
];

pub(crate) fn may_answer(error: &Value) -> bool {
    let says = error["message_contains"].as_str().unwrap_or_default();
    ANSWERED
        .iter()
        .any(|(class, part, _)| error["class"] == *class && says.contains(part))
}

/// What may be told in other words than the model's, of the same class: which words both say.
pub(crate) const REWORDED: &[(&str, &str, &str)] = &[(
    "PARSE_SYNTAX_ERROR",
    "Syntax error at or near",
    "at which word a text stops making sense depends on the parser",
)];

pub(crate) fn reworded(wanted: &Value, message: &str) -> bool {
    let says = wanted["message_contains"].as_str().unwrap_or_default();
    REWORDED.iter().any(|(class, part, _)| {
        wanted["class"] == *class && says.contains(part) && message.contains(part)
    })
}

/// Each stream's own mark survives a restart, where the model keeps only their minimum and waits until every stream has
/// spoken again: a crash must not change answers. It holds from the first restart on, in a query of several watermarks.
pub(crate) fn marks_survive(scenario: &Value, step: usize) -> bool {
    let steps = scenario["steps"].as_array().expect("steps");
    let restarted = steps.iter().take(step + 1).any(|s| s["restart"] == true);
    let drains = step > 0 && scenario["trigger"] == "availableNow";
    let text = scenario.to_string().to_lowercase();
    let marks = text.matches("delay of").count() + text.matches("withwatermark").count();
    (restarted || drains) && marks > 1
}

/// Why the rows in state may be others than the model's, if they may.
pub(crate) fn other_state(_scenario: &Value) -> Option<&'static str> {
    None
}
