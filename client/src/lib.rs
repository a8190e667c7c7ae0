//! A client for TiKV: raw and transactional, on any async runtime.
//!
//! Pick a runtime's crate (`tikv-transport-tokio`, `tikv-transport-smol`, `tikv-transport-async-std`) or implement
//! [`Runtime`], which takes four short functions; then [`Client::connect`].
//!
//! Everything that decides is in `tikv-core`, as deterministic state machines; this crate only drives them.

#![forbid(unsafe_code)]

mod buffer;
mod check;
mod client;
mod driver;
mod gc;
mod interceptor;
mod keep_alive;
mod kill;
mod latches;
mod locks;
mod net;
mod observe;
mod outcome;
mod pessimistic;
mod pipelined;
mod range;
mod raw;
mod regions;
mod runtime;
mod snapshot;
mod transaction;

pub use buffer::Savepoint;
pub use check::CommitCheck;
pub use client::{Client, ClientBuilder};
pub use gc::Gc;
pub use interceptor::{EndedRpc, Interceptor, OutgoingRpc};
pub use kill::KillHandle;
pub use locks::Locks;
pub use pessimistic::FairLocking;
pub use pipelined::{PipelinedTransaction, PipelinedTransactionOptions};
pub use raw::RawClient;
pub use runtime::{BoxFuture, Io, Runtime};
pub use snapshot::{ScanStream, Snapshot};
pub use tikv_core::admin::Collected;
pub use tikv_core::config::{Config, RawConfig};
pub use tikv_core::error::{
    CallFailure, Conflict, DeadlockInfo, Error, Fault, InvalidLock, KeyError, LockInfo, PdError,
};
pub use tikv_core::key::{Direction, Key, KeyRange};
pub use tikv_core::knowledge::resolving::ResolvingLock;
pub use tikv_core::lock::{Alive, Resolution, Swept, TxnOutcome, TxnStatus};
pub use tikv_core::membuffer;
pub use tikv_core::raw::{ChecksumTotal, Pair, ScanOptions, Swapped, Ttl};
pub use tikv_core::request::pd::{GcBarrier, GcState};
pub use tikv_core::request::{RequestContext, RequestKind, Response};
pub use tikv_core::snapshot::{Isolation, Priority, SnapshotOptions, Value};
pub use tikv_core::split::{Scatter, Split, SplitOptions};
pub use tikv_core::time::Time;
pub use tikv_core::timestamp::Timestamp;
pub use tikv_core::txn::{
    AssertionLevel, CommandPri, CommitDetails, CommitMode, CommitOptions, CommitOutcome, CommitTsRules, DiskFullOpt,
    LockDetails, LockOptions, LockWait, LockedKey, OnConflict, OnLock, PipelinedOptions, TxnState, UnlockedWrites,
};
pub use transaction::{Transaction, TransactionOptions};
