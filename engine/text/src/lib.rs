//! Values as text and back, with the answers of Spark: what casts, functions, files and messages share.
//!
//! JSON has one decoder and one writer here, and so have numbers, dates and times, whoever reads or writes them. No
//! I/O, no clock, no plan.

pub mod calendar;
pub mod csv;
mod digits;
pub mod json;
pub mod lines;
pub mod mode;
pub mod number;
pub mod options;
pub mod pattern;
pub mod sample;
pub mod time;
pub mod times;
pub mod type_name;
pub mod view;
mod write;
mod zone;

pub use pattern::TimePattern;
pub use write::*;
pub use zone::Zone;
