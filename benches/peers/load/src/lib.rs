//! What the peers written in Rust share, so that they differ by their client alone.
//!
//! A peer is called as `PEER PD WORKLOAD CALLERS SECONDS WARM_UP`, runs the workload with so many callers at once for
//! `WARM_UP` and then `SECONDS` seconds, and prints one line of JSON about the second part.

#![forbid(unsafe_code)]

mod arguments;
mod data;
mod histogram;
mod measure;
mod process;

pub use arguments::{Arguments, Commit, Workload, Ycsb};
pub use data::{BATCH_KEYS, Keys, RECORDS, TXN_RECORDS, VALUE_BYTES, WRITERS, record, txn_record, value};
pub use histogram::Histogram;
pub use measure::{Caller, Failure, Task, measure};
