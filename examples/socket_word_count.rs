//! Counts the words that arrive at a socket, for as long as they arrive: `nc -lk 9998` in another terminal, then
//! `cargo run --example socket_word_count`.

use highwater::prelude::*;

fn main() -> highwater::Result<()> {
    let session = Session::from_args()?; // -w, -n, -p, --hostfile
    let lines = session
        .read_stream()
        .format("socket")
        .option("host", "localhost")
        .option("port", 9998)
        .load()?;
    let words = lines.select([explode(split(col("value"), lit(" "))).alias("word")])?;
    let counts = words.group_by(["word"])?.count()?;
    let query = counts
        .write_stream()
        .output_mode(OutputMode::Complete)
        .format("console")
        .start()?;
    query.await_termination()
}
