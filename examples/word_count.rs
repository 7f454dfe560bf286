//! Counts the words of a directory of text files and shows the table.
//!
//! `cargo run --example word_count -- [-w WORKERS] [-n PROCESSES] [DIRECTORY]`

use highwater::prelude::*;

fn main() -> highwater::Result<()> {
    let session = Session::from_args()?;
    let directory = session.args().first().cloned();
    let directory = directory
        .unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/words").into());
    let lines = session
        .read_stream()
        .format("text")
        .path(directory)
        .load()?;
    let words = lines
        .select([explode(split(col("value"), lit(" "))).alias("word")])?
        .filter("word <> ''")?;
    let counts = words.group_by(["word"])?.count()?;
    let query = counts
        .write_stream()
        .output_mode(OutputMode::Complete)
        .trigger(Trigger::AvailableNow)
        .format("console")
        .start()?;
    query.await_termination()
}
