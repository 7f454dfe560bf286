//! What a user of the engine can be told.

use crate::cluster::ClusterError;
use crate::options::OptionError;
use crate::sink::SinkError;
use crate::source::{FormatError, SourceError};
use datafusion::common::DataFusionError;
use highwater_query::{Place, QueryError, names_ours};

/// An error of the engine. `main` functions that return it print it as a sentence: its `Debug` is its text and its
/// causes'.
#[derive(thiserror::Error)]
pub enum Error {
    /// The query text, a name or a type in it is wrong.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The query cannot run this way; the text says why and what can be done.
    #[error("{}{message}", class_prefix(*class))]
    Refused {
        /// The error condition users of the model know, where there is one.
        class: Option<&'static str>,
        /// Which operator, why, and the ways out.
        message: String,
    },
    /// An error that is about a part of a statement's text.
    #[error("{error} (line {}, column {})", place.line, place.column)]
    Placed {
        /// Where the part stands.
        place: Place,
        /// What is wrong.
        #[source]
        error: Box<Error>,
    },
    /// An option is unknown, missing or malformed.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A source or a sink cannot be used as described.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The processes could not find each other.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A sink failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The checkpoint directory cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    /// A batch query failed while it ran.
    #[error("{message}")]
    Run {
        /// What failed.
        message: String,
    },
    /// A running query ended with an error.
    #[error("query \"{query}\" failed: {message}")]
    QueryFailed {
        /// Its name, or its id if it has none.
        query: String,
        /// What failed.
        message: String,
    },
    /// The session's workers are gone.
    #[error("the session has ended: {0}")]
    SessionEnded(String),
}

impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&error_chain(self))
    }
}

fn class_prefix(class: Option<&str>) -> String {
    class.map(|class| format!("[{class}] ")).unwrap_or_default()
}

impl Error {
    /// A refusal of something the model knows and Highwater does not do yet.
    pub(crate) fn not_yet(what: impl std::fmt::Display) -> Self {
        Error::Refused {
            class: None,
            message: format!("{what} is not supported yet"),
        }
    }

    /// A refusal with the class that users of the model know.
    pub(crate) fn refused(class: &'static str, message: impl Into<String>) -> Self {
        Error::Refused {
            class: Some(class),
            message: message.into(),
        }
    }

    /// An error of a batch run.
    pub(crate) fn run(error: impl std::error::Error + 'static) -> Self {
        let any: &dyn std::error::Error = &error;
        if let Some(planner) = any.downcast_ref::<DataFusionError>()
            && is_planned(planner)
        {
            tracing::debug!(%error, "no plan");
            return Error::not_yet("this form of query");
        }
        Error::Run {
            message: error_chain(&error),
        }
    }

    /// The same error, told where in a statement's text it happened, unless it says so itself.
    pub(crate) fn at(self, place: Option<Place>) -> Self {
        match (place, self.place()) {
            (Some(place), None) => Error::Placed {
                place,
                error: Box::new(self),
            },
            _ => self,
        }
    }

    /// Where in a statement's text, if it is about a part of one.
    pub fn place(&self) -> Option<Place> {
        match self {
            Error::Query(error) => error.place(),
            Error::Placed { place, .. } => Some(*place),
            _ => None,
        }
    }

    /// The error itself, without where it happened.
    pub fn unplaced(&self) -> &Error {
        match self {
            Error::Placed { error, .. } => error.unplaced(),
            other => other,
        }
    }

    /// The error and its causes in one line, without its class.
    pub fn message(&self) -> String {
        if let Error::Placed { error, .. } = self {
            return error.message();
        }
        let text = error_chain(self);
        let class = self.class().map(|class| format!("[{class}] "));
        match class.and_then(|class| text.strip_prefix(&class).map(str::to_string)) {
            Some(rest) => rest,
            None => text,
        }
    }

    /// The error condition users of the model know: `TABLE_OR_VIEW_NOT_FOUND`, `DIVIDE_BY_ZERO`.
    pub fn class(&self) -> Option<String> {
        match self {
            Error::Query(error) => error.class().map(str::to_string),
            Error::Placed { error, .. } => error.class(),
            Error::Refused { class, .. } => class.map(str::to_string),
            Error::Format(FormatError::Invalid { class, .. }) => class.map(str::to_string),
            Error::Run { message } | Error::QueryFailed { message, .. } => class_in(message),
            _ => None,
        }
    }
}

/// True for an error of the planner about names that nobody wrote: no user can do anything with it.
fn is_planned(error: &DataFusionError) -> bool {
    let about_plans = matches!(
        error.find_root(),
        DataFusionError::SchemaError(..)
            | DataFusionError::Plan(_)
            | DataFusionError::Internal(_)
            | DataFusionError::NotImplemented(_)
    );
    about_plans && names_ours(&error.strip_backtrace())
}

/// The class that a kernel's error text carries: `[DIVIDE_BY_ZERO] ...`.
fn class_in(message: &str) -> Option<String> {
    let start = message.find('[')?;
    let end = start + message[start..].find(']')?;
    let class = &message[start + 1..end];
    let fits = !class.is_empty()
        && class
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"_.".contains(&b));
    fits.then(|| class.to_string())
}

/// What whoever sees an error of the file system can do about it, to follow the error's text.
pub fn hint(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            ": the disk is full; free space, then start again"
        }
        ErrorKind::FileTooLarge => ": the file is longer than the system allows; raise the limit",
        ErrorKind::PermissionDenied => {
            ": permission is denied; grant it to the user who runs the query, then start again"
        }
        ErrorKind::ReadOnlyFilesystem => {
            ": the file system is read-only; mount it for writing, then start again"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            ": a file is where a directory must be; move it away, then start again"
        }
        ErrorKind::IsADirectory => {
            ": a directory is where a file must be; move it away, then start again"
        }
        _ => "",
    }
}

/// An error and its causes in one line, each said once.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    plain(&text)
}

/// Without the words by which DataFusion carries the errors of others.
pub(crate) fn plain(text: &str) -> String {
    text.replace("External error: ", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_planner_says_of_names_that_nobody_wrote_is_not_told() {
        let plan = DataFusionError::Plan("No field named __correlated_sq_1.__n_4".into());
        assert_eq!(
            Error::run(plan.context("a rule")).to_string(),
            "this form of query is not supported yet"
        );
        let data = DataFusionError::Execution("no file __part_1".into());
        assert!(Error::run(data).to_string().contains("no file __part_1"));
    }
}
