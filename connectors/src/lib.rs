//! WHERE rows come from and go: one folder per outside system; none knows another.

pub mod json;
mod lines;
pub mod mode;
pub mod number;
pub mod time;
