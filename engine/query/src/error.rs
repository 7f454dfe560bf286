//! What the front door says when it cannot go on.
//!
//! Two kinds: [`QueryError`] is about the query as written and carries the place in its text; [`RunError`] is about
//! the data and travels inside a `DataFusionError`. Both carry the class that Spark's users search for.

use std::fmt;

use arrow::error::ArrowError;
use datafusion::common::DataFusionError;

/// Where something stands in a query's text, both counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The character within the line.
    pub column: u64,
}

/// The query as written is wrong, or asks for what is not supported yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryError {
    class: Option<String>,
    message: String,
    place: Option<Place>,
}

impl QueryError {
    /// An error of a class that Spark also has.
    pub fn new(class: impl Into<String>, message: impl Into<String>) -> Self {
        QueryError {
            class: Some(class.into()),
            message: message.into(),
            place: None,
        }
    }

    /// An error of no class.
    pub fn plain(message: impl Into<String>) -> Self {
        QueryError {
            class: None,
            message: message.into(),
            place: None,
        }
    }

    /// The same error, in another text than the query's: without its place, and with `what` named.
    pub fn inside(mut self, what: &str) -> Self {
        self.message = format!("in {what}: {}", self.message);
        self.place = None;
        self
    }

    /// Something that is understood and not built: `what` names it.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        QueryError::new(
            "UNSUPPORTED_FEATURE",
            format!("{what} is not supported yet"),
        )
    }

    /// Two types that do not go together, or one that does not go here.
    pub(crate) fn mismatch(kind: &str, message: impl Into<String>) -> Self {
        QueryError::new(format!("DATATYPE_MISMATCH.{kind}"), message)
    }

    /// A mismatch that a function tells by its name alone, with the expression that it is about.
    pub(crate) fn about(mut self, name: &str, text: &str) -> Self {
        let named = format!("Cannot resolve \"{name}\" due");
        if let Some(rest) = self.message.strip_prefix(&named) {
            self.message = format!("Cannot resolve \"{text}\" due{rest}");
        }
        self
    }

    /// The same, with the argument that does not fit.
    pub(crate) fn naming(mut self, argument: &str) -> Self {
        let named = format!("however \"{argument}\" has");
        self.message = self.message.replace("however the argument has", &named);
        self
    }

    /// Names the expression that was to be a schema.
    pub(crate) fn with_schema(mut self, text: &str) -> Self {
        if let Some(rest) = self.message.strip_prefix("The input schema is not") {
            self.message = format!("The input schema \"{text}\" is not{rest}");
        }
        self
    }

    /// Names what a value was to be taken of, where that is not known yet.
    pub(crate) fn taken_from(mut self, text: &str) -> Self {
        let unnamed = "Can't extract a value from \"the expression\"";
        if let Some(rest) = self.message.strip_prefix(unnamed) {
            self.message = format!("Can't extract a value from \"{text}\"{rest}");
        }
        self
    }

    /// The same error, told where it happened. A place already known is more precise and stays.
    pub fn at(mut self, place: Option<Place>) -> Self {
        self.place = self.place.or(place);
        self
    }

    /// Spark's error condition, such as `UNRESOLVED_COLUMN.WITH_SUGGESTION`.
    pub fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }

    /// What is wrong, without class and place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where in the text, if the query came from text.
    pub fn place(&self) -> Option<Place> {
        self.place
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(class) = &self.class {
            write!(f, "[{class}] ")?;
        }
        f.write_str(&self.message)?;
        match self.place {
            Some(place) => write!(f, " (line {}, column {})", place.line, place.column),
            None => Ok(()),
        }
    }
}

impl std::error::Error for QueryError {}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        match error_class_of(&error) {
            Some(class) => {
                let (class, text) = (
                    class.to_string(),
                    run_error(&error).map(|e| e.message.clone()),
                );
                QueryError::new(class, text.unwrap_or_else(|| error.to_string()))
            }
            None => match error.find_root() {
                DataFusionError::NotImplemented(what) if !names_ours(what) => {
                    QueryError::unsupported(what)
                }
                _ => {
                    let message = error.strip_backtrace();
                    match names_ours(&message) {
                        true => QueryError::unsupported("this form of query"),
                        false => QueryError::plain(message),
                    }
                }
            },
        }
    }
}

impl From<ArrowError> for QueryError {
    fn from(error: ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}

/// A row that an expression cannot be computed for: under ANSI rules the query fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[{class}] {message}")]
pub struct RunError {
    /// Spark's error condition, such as `DIVIDE_BY_ZERO`.
    pub class: &'static str,
    /// What is wrong with the value.
    pub message: String,
}

impl RunError {
    /// The error as it travels through DataFusion.
    pub(crate) fn raise(class: &'static str, message: impl Into<String>) -> DataFusionError {
        DataFusionError::External(Box::new(RunError {
            class,
            message: message.into(),
        }))
    }
}

/// The name that a column had before it was given one of ours, so that no other has it.
pub fn as_written(name: &str) -> &str {
    let inner = name.strip_prefix("__").and_then(|n| n.rsplit_once('_'));
    match inner {
        Some((inner, number)) if number.parse::<usize>().is_ok() => as_written(inner),
        _ => name,
    }
}

/// Whether the text has names in it that the planner or we made up, which tell nothing to who wrote the query.
pub fn names_ours(text: &str) -> bool {
    let made_up = |word: &str| {
        let numbered = word.rsplit_once('_').is_some_and(|(_, number)| {
            !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
        });
        word.starts_with("__") && (numbered || word.contains("_of_"))
    };
    text.contains('\u{1}')
        || text.contains("OuterReferenceColumn")
        || text.contains("outer_ref(")
        || text
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(made_up)
}

/// The class of the [`RunError`] or [`QueryError`] inside `error`, however deep it is wrapped.
pub fn error_class_of(error: &DataFusionError) -> Option<&str> {
    if let Some(found) = run_error(error) {
        return Some(found.class);
    }
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<QueryError>() {
            return found.class();
        }
        next = current.source();
    }
    None
}

fn run_error(error: &DataFusionError) -> Option<&RunError> {
    match error {
        DataFusionError::External(inner) => in_chain(inner.as_ref()),
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::ExternalError(inner) => in_chain(inner.as_ref()),
            _ => None,
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            run_error(inner)
        }
        DataFusionError::Shared(inner) => run_error(inner),
        DataFusionError::Collection(all) => all.iter().find_map(run_error),
        _ => None,
    }
}

fn in_chain<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a RunError> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<RunError>() {
            return Some(found);
        }
        if let Some(found) = current.downcast_ref::<DataFusionError>() {
            return run_error(found);
        }
        next = current.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_are_told_from_written_ones() {
        for ours in [
            "No field named x.__c_5.",
            "No field named __correlated_sq_1.__n_4",
            "valid fields are __outer_of_0",
            "OuterReferenceColumn(Field)",
            "outer_ref(l.i)",
        ] {
            assert!(names_ours(ours), "{ours}");
        }
        for theirs in ["no column \"__time\"", "a_1 is not __known__", "window_1"] {
            assert!(!names_ours(theirs), "{theirs}");
        }
    }

    #[test]
    fn a_name_of_ours_has_the_written_one_in_it() {
        for (ours, written) in [
            ("__c_5", "c"),
            ("____my_sum_2_6", "my_sum"),
            ("a_1", "a_1"),
            ("__a", "__a"),
        ] {
            assert_eq!(as_written(ours), written);
        }
    }

    #[test]
    fn what_the_planner_says_of_made_up_names_is_not_told() {
        let told = |error: DataFusionError| QueryError::from(error).to_string();
        let plan = DataFusionError::Plan("No field named x.__c_5".into());
        assert_eq!(
            told(plan.context("rule")),
            "[UNSUPPORTED_FEATURE] this form of query is not supported yet"
        );
        let form = DataFusionError::NotImplemented("LIMIT of a join".into());
        assert_eq!(
            told(form),
            "[UNSUPPORTED_FEATURE] LIMIT of a join is not supported yet"
        );
    }
}
