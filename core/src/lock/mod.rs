//! What to do about the locks of other transactions.
//!
//! A reader or writer that meets locks runs [`ResolveLocks`]: it finds out, transaction by transaction, what became of the
//! lock's owner, finishes what its owner left unfinished, and says whether anything still stands in the way. Waiting is up
//! to the caller ([`sleep_for_lock`]), because only the caller knows what it is about to repeat.
//!
//! ```text
//!  ResolveLocks ──► per transaction ──► CheckTxnStatus          what became of it, asked at its primary key
//!                                  ├──► RecoverAsyncCommit      decides an async commit whose client is gone
//!                                  └──► ReleaseLocks            commits or rolls back what is left (for a reader: in the
//!                                                               background, since it may read through or past the locks)
//! ```
//!
//! Garbage collection has all locks of a range resolved that began at some time or before ([`SweepLocks`]), whether their owners
//! are alive or not: it lists them ([`ScanLocks`]) and ends their transactions many at a time ([`BatchResolve`]), each by the same
//! steps.
//!
//! Three rules hold everywhere. Whether a lock has expired is judged by PD's time alone. Only a final status is
//! remembered. And nothing is rolled back but on TiKV's word that its transaction can never commit.
//!
//! client-go: package `txnkv/txnlock`.

mod batch_resolve;
mod check_txn_status;
mod outcome_of;
mod recover_async_commit;
mod release_locks;
mod resolve_locks;
mod resolve_txn;
mod scan_locks;
mod sweep_locks;
mod sweep_region;
#[cfg(test)]
mod tests;
mod wait;

pub use batch_resolve::{BatchResolve, BatchResolved};
pub use check_txn_status::{Alive, CheckTxnStatus, Checked, TxnStatus};
pub use outcome_of::{OutcomeOf, TxnOutcome};
pub use recover_async_commit::{RecoverAsyncCommit, Recovered, Recovery};
pub use release_locks::{Release, ReleaseLocks, Released, Scope};
pub use resolve_locks::{Resolution, ResolveLocks, Resolved};
pub use scan_locks::{ScanLocks, ScanLocksVisit, scan_locks};
pub use sweep_locks::{SweepLocks, Swept};
pub(crate) use wait::deadline_exceeded;
pub use wait::sleep_for_lock;

use crate::config::Config;
use crate::knowledge::txn_status::FinalStatus;
use crate::machine::Context;
use crate::machine::Phases;
use crate::request::{CallContext, RequestContext};
use crate::route::CallOptions;
use crate::time::Time;
use crate::timestamp::Timestamp;

/// The machines of this floor that have phases.
pub(crate) const PHASES: &[&Phases] = &[
    &resolve_txn::PHASES,
    &check_txn_status::PHASES,
    &batch_resolve::PHASES,
    &sweep_locks::PHASES,
    &sweep_region::PHASES,
];

/// Transactions with fewer keys in a region than this are resolved key by key; of larger ones TiKV is asked to find the
/// locks itself. client-go: `ResolveLockLiteThreshold`.
pub const LITE_THRESHOLD: u64 = 512;

/// How long TiKV may work on a request about locks, in milliseconds. client-go: `MaxWriteExecutionTime`.
const MAX_EXECUTION_MS: u64 = 20_000;

/// The options of the caller, without what only its own reads or writes need.
fn lock_options(options: &CallOptions, config: &Config) -> CallOptions {
    let mut context = options.context.rest().map_or_else(CallContext::default, |own| {
        CallContext::from(RequestContext {
            request_source: own.request_source.clone(),
            resource_control_context: own.resource_control_context.clone(),
            request_origin: own.request_origin,
            trace_id: own.trace_id.clone(),
            trace_control_flags: own.trace_control_flags,
            api_version: own.api_version,
            keyspace_name: own.keyspace_name.clone(),
            keyspace: own.keyspace,
            cluster_id: own.cluster_id,
            ..RequestContext::default()
        })
    });
    context.max_execution_duration_ms = MAX_EXECUTION_MS;
    CallOptions { timeout: config.call_timeout, deadline: options.deadline, context }
}

/// The options for what goes on behind the caller's back: its deadline does not count any more.
fn background_options(options: &CallOptions) -> CallOptions {
    CallOptions { deadline: Time::MAX, ..options.clone() }
}

/// Milliseconds of PD's time until TiKV takes a lock for expired; 0 if it does at `now`. TiKV lets a lock live through the
/// millisecond in which its time is up.
fn ms_until_expired(now: Timestamp, start_ts: Timestamp, ttl_ms: u64) -> u64 {
    let expired_at = start_ts.physical_ms().saturating_add(ttl_ms).saturating_add(1);
    expired_at.saturating_sub(now.physical_ms())
}

/// Remembers how a transaction ended. What was remembered first stays.
fn remember(cx: &Context<'_>, start_ts: Timestamp, status: FinalStatus) -> FinalStatus {
    let statuses = &cx.knowledge().txn_statuses;
    if statuses.insert(start_ts, status) {
        return status;
    }
    statuses.get(start_ts).unwrap_or(status)
}
