//! Reads at one timestamp.
//!
//! | machine | reads |
//! |---|---|
//! | [`Get`] | one key |
//! | [`BatchGet`] | many keys, grouped by region, all groups at once |
//! | [`ScanPage`] | the next pairs of a range, from one region |
//! | [`Scan`] | the first pairs of a range, page by page |
//!
//! A snapshot sees what was committed at or before its `read_ts`, at whatever moment it is asked. Where the lock of another
//! transaction hides whether that is so, the read finds out (module [`lock`](crate::lock)), waits if the transaction is alive,
//! and asks again. What it learnt on the way about others ([`ReadThrough`]) is handed back with the result ([`Read`]), so that
//! the next read of the same snapshot passes their locks without a question.
//!
//! Reads change nothing: a machine that nobody waits for any more can be dropped at any step.
//!
//! client-go: package `txnkv/txnsnapshot`.

mod batch_get;
mod cache;
mod get;
mod options;
mod pass_locks;
mod read_through;
mod scan;
mod scan_page;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use batch_get::BatchGet;
use bytes::Bytes;
pub use cache::SnapshotCache;
pub use get::Get;
pub use options::{Isolation, Priority, SnapshotOptions};
pub use read_through::ReadThrough;
pub use scan::Scan;
pub use scan_page::{Page, ScanCursor, ScanPage};

use crate::error::{Error, KeyError};
use crate::key::Key;
use crate::machine::Phases;
use crate::timestamp::Timestamp;

/// The machines of this floor that have phases.
pub(crate) const PHASES: &[&Phases] = &[&scan_page::PHASES, &get::PHASES, &pass_locks::PHASES];

/// A value as it was committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Value {
    /// The bytes. Empty only where values were not asked for.
    pub bytes: Bytes,
    /// When it was committed, if that was asked for ([`SnapshotOptions::need_commit_ts`]).
    pub commit_ts: Option<Timestamp>,
}

/// A key and its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pair {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Value,
}

/// The end of a read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Read<T> {
    /// What was read.
    pub result: Result<T, Error>,
    /// What is known now of transactions whose locks were met; for the snapshot's next read.
    pub read_through: ReadThrough,
}

/// A refusal of a read that is not about a lock.
fn refusal(error: KeyError) -> Error {
    match error {
        KeyError::Conflict(conflict) => Error::WriteConflict(conflict),
        error => Error::Key(error),
    }
}

fn nonsense(operation: &'static str, address: Option<&Arc<str>>, actual: &'static str) -> Error {
    Error::WrongResponse { operation, address: address.map_or_else(|| Arc::from(""), Arc::clone), actual }
}

/// A value as TiKV sent it. An absent key and an empty value are the same: transactions write no empty values.
fn value(bytes: Bytes, commit_ts: u64, need_commit_ts: bool) -> Result<Option<Value>, MissingCommitTs> {
    if bytes.is_empty() {
        return Ok(None);
    }
    match (need_commit_ts, commit_ts) {
        (false, _) => Ok(Some(Value { bytes, commit_ts: None })),
        (true, 0) => Err(MissingCommitTs),
        (true, commit_ts) => Ok(Some(Value { bytes, commit_ts: Some(Timestamp::from_version(commit_ts)) })),
    }
}

/// TiKV left out a commit timestamp that was asked for.
#[derive(Clone, Copy, Debug)]
struct MissingCommitTs;

impl MissingCommitTs {
    fn error(self, operation: &'static str, address: Option<&Arc<str>>) -> Error {
        nonsense(operation, address, "a value without its commit_ts")
    }
}
