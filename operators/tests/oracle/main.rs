//! Every operator against DataFusion run from scratch: random rows, random cuts into epochs and batches, one, two and
//! four workers in a process, two processes; after every epoch the same answer.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod aggregates;
mod calls;
mod cluster;
mod data;
mod firsts;
mod joins;
mod movement;
mod reference;
mod restore;
mod sessions;
mod sliding;
mod windows;
