//! `for_each_batch`: code of the program that takes a frame of each epoch's rows.

use std::sync::{Arc, Mutex, Weak};

use crate::code::{Code, CodeError, CodeFailure, CodeFormat};
use crate::frame::DataFrame;
use crate::session::{Inner, Session};
use crate::sink::Placement;
use crate::workers::lock;

/// Hands a frame of each epoch's rows to `code`, in the first process.
pub(crate) fn for_each_batch<E: Into<CodeError>>(
    session: &Session,
    mut code: impl FnMut(DataFrame, u64) -> Result<(), E> + Send + 'static,
) -> CodeFormat {
    // A query that runs does not keep its session.
    let session: Weak<Inner> = Arc::downgrade(&session.inner);
    let code: Code = Box::new(move |epoch| {
        let gone = CodeFailure::NoSession {
            epoch: epoch.number,
        };
        let inner = session.upgrade().ok_or(gone)?;
        let session = epoch.session.insert(Session { inner });
        let frame = session.create_dataframe(Arc::clone(epoch.schema), epoch.rows)?;
        code(frame, epoch.number).map_err(Into::into)
    });
    let code = Mutex::new(Some(code));
    let make = move |_| {
        let code = lock(&code).take();
        code.expect("one worker has the rows, and its code is kept")
    };
    CodeFormat::new("for_each_batch", Placement::OneWorker, make)
}
