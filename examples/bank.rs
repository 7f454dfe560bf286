//! A bank: random transfers between accounts, and views over them that must agree at every moment. Money moves and is
//! never made, so the balances add up to 0 in every epoch, though their sum is four operators away from the transfers.
//!
//! `cargo run --example bank -- [-w WORKERS] [-n PROCESSES] [TRANSFERS]`

#![allow(clippy::disallowed_methods, reason = "it measures how fast it was")]
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array};
use arrow::record_batch::RecordBatch;
use highwater::prelude::*;

const ACCOUNTS: u64 = 1_000;
/// Transfers that come at once.
const BATCH: u64 = 1_000;

fn main() -> highwater::Result<()> {
    let session = Session::from_args()?;
    let transfers: u64 = match session.args().first().map(|text| text.parse()) {
        Some(Ok(number)) => number,
        Some(Err(_)) => {
            eprintln!("how many transfers? a number, 200000 if there is none");
            std::process::exit(2);
        }
        None => 200_000,
    };
    let (stream, frame) = session.memory_stream("source BIGINT, target BIGINT, amount BIGINT")?;
    frame.create_or_replace_temp_view("transfers")?;
    let views = [
        (
            "credits",
            "SELECT target AS account, sum(amount) AS credit FROM transfers GROUP BY target",
        ),
        (
            "debits",
            "SELECT source AS account, sum(amount) AS debit FROM transfers GROUP BY source",
        ),
        (
            "balances",
            "SELECT coalesce(c.account, d.account) AS account, coalesce(credit, 0) - coalesce(debit, 0) AS balance \
             FROM credits c FULL JOIN debits d ON c.account = d.account",
        ),
    ];
    for (name, text) in views {
        session.sql(text)?.create_or_replace_temp_view(name)?;
    }
    let total = session.sql("SELECT sum(balance) AS total, count(*) AS accounts FROM balances")?;
    let epochs = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&epochs);
    let start = Instant::now();
    let query = total
        .write_stream()
        .output_mode(OutputMode::Complete)
        .for_each_batch(move |rows: DataFrame, epoch| {
            let wrong = rows.filter("total <> 0")?.collect()?;
            if wrong.iter().any(|batch| batch.num_rows() > 0) {
                return Err(highwater::Error::Run {
                    message: format!("in epoch {epoch} money was made or lost"),
                });
            }
            seen.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .start()?;
    if session.is_first_process() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 33) % below) as i64
        };
        let mut left = transfers;
        while left > 0 {
            let count = left.min(BATCH);
            let mut columns = [const { Vec::new() }; 3];
            for _ in 0..count {
                columns[0].push(random(ACCOUNTS));
                columns[1].push(random(ACCOUNTS));
                columns[2].push(1 + random(1_000));
            }
            let columns = columns.map(|column| Arc::new(Int64Array::from(column)) as ArrayRef);
            stream.add(
                RecordBatch::try_new(stream.schema(), columns.to_vec()).map_err(|error| {
                    highwater::Error::Run {
                        message: error.to_string(),
                    }
                })?,
            )?;
            left -= count;
            // Each batch is an epoch.
            query.process_all_available()?;
        }
    }
    query.process_all_available()?;
    query.stop()?;
    if session.is_first_process() {
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "the total was 0 in all {} epochs; {transfers} transfers, {:.0} a second",
            epochs.load(Ordering::Relaxed),
            transfers as f64 / seconds
        );
    }
    Ok(())
}
