//! What the consumer of a node's rows can take.

use crate::sink::OutputMode;

/// What the rows of an epoch mean to whoever takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Rows that will never change (append mode): the edge is not signed.
    Final,
    /// Rows that replace those with their key (the top of update mode): the edge is not signed.
    Upserts,
    /// In every epoch all rows (the top of complete mode): the edge is not signed.
    All,
    /// Rows that come and rows that leave: the edge may be signed. Below another operator with state wherever rows may
    /// change, and the top of changes mode.
    Changes,
}

impl Want {
    /// What the sink can take.
    pub(crate) fn of(mode: OutputMode) -> Self {
        match mode {
            OutputMode::Append => Want::Final,
            OutputMode::Update => Want::Upserts,
            OutputMode::Complete => Want::All,
            OutputMode::Changes => Want::Changes,
        }
    }

    /// What an operator with state, whose own rows come out like this, can take.
    pub(crate) fn below_state(self) -> Self {
        match self {
            Want::Final => Want::Final,
            Want::Upserts | Want::All | Want::Changes => Want::Changes,
        }
    }
}
