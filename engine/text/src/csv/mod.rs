//! Rows of cells: how lines are cut, cells read, types found, and values written.

mod cells;
mod column;
mod infer;
mod options;
mod rows;
mod value;
mod write;

pub use cells::{Cells, Dialect, StrayQuote};
pub use column::{BadCell, Column, append_cells};
pub use infer::CsvInference;
pub use options::{CsvOptions, KNOWN, NOT_BUILT};
pub use rows::Rows;
pub use value::{RowDecoder, schema_of};
pub use write::{CSV_WRITE_KNOWN, CsvStyle};
