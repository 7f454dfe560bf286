//! Keeps the strong signals of JSON rows that arrive as files in one directory, as Parquet files in another.
//!
//! `cargo run --example device_signal -- [-w WORKERS] [-n PROCESSES] IN OUT CHECKPOINT`

use highwater::prelude::*;

fn main() -> highwater::Result<()> {
    let session = Session::from_args()?;
    let [data_in, data_out, checkpoint] = session.args() else {
        eprintln!("usage: device_signal [-w WORKERS] [-n PROCESSES] IN OUT CHECKPOINT");
        std::process::exit(2);
    };
    let input = session
        .read_stream()
        .format("json")
        .schema("device STRING, signal BIGINT, time TIMESTAMP")?
        .path(data_in)
        .load()?; // batch: session.read() ... the rest unchanged
    let result = input.select(["device", "signal"])?.filter("signal > 15")?;
    let query = result
        .write_stream()
        .format("parquet")
        .trigger(Trigger::AvailableNow)
        .option("checkpointLocation", checkpoint)
        .path(data_out)
        .start()?;
    query.await_termination()
}
