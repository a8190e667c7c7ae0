//! How long each operation may sleep in total before it gives up.
//!
//! client-go's constants. An operation's budget is one of these times the weight of its
//! [`Tuning`](super::Tuning) ([`Backoff::weighted`](super::Backoff::weighted)); the few that client-go takes as they
//! are ([`Backoff::new`](super::Backoff::new)) say so.

use std::time::Duration;

/// Prewriting all keys of a transaction.
pub const PREWRITE: Duration = Duration::from_secs(40);
/// Flushing one generation of a pipelined transaction.
pub const FLUSH: Duration = Duration::from_secs(20);
/// Committing the primary key.
pub const COMMIT: Duration = Duration::from_secs(40);
/// Committing the other keys in the background, and what else happens behind the caller's back. A second longer than
/// [`COMMIT`].
pub const COMMIT_SECONDARY: Duration = Duration::from_secs(41);
/// Taking back the locks of a transaction that failed or was rolled back.
pub const CLEANUP: Duration = Duration::from_secs(20);
/// One call to lock keys.
pub const PESSIMISTIC_LOCK: Duration = Duration::from_secs(20);
/// Releasing pessimistic locks.
pub const PESSIMISTIC_ROLLBACK: Duration = Duration::from_secs(20);
/// One heartbeat of a transaction.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Telling all stores the status of a transaction.
pub const BROADCAST: Duration = Duration::from_secs(10);
/// Fetching a timestamp.
pub const TSO: Duration = Duration::from_secs(15);
/// One get.
pub const GET: Duration = Duration::from_secs(20);
/// One batch get.
pub const BATCH_GET: Duration = Duration::from_secs(20);
/// One page of a scan.
pub const SCANNER_NEXT: Duration = Duration::from_secs(20);
/// One RawKV call.
pub const RAW: Duration = Duration::from_secs(20);
/// Asking for the status of a transaction. Not weighted.
pub const GET_TXN_STATUS: Duration = Duration::from_secs(20);
/// Finishing an async-commit transaction, or a lock that a reader met, in the background. Not weighted.
pub const ASYNC_RESOLVE_LOCK: Duration = Duration::from_secs(40);
/// Resolving the locks of one region for garbage collection.
pub const GC_RESOLVE_LOCK: Duration = Duration::from_secs(100);
/// Locating the next region of a range task.
pub const LOCATE_REGION: Duration = Duration::from_secs(20);
/// One question to PD about garbage collection, or which stores there are. client-go leaves retries to its caller.
pub const ADMIN: Duration = Duration::from_secs(20);
/// Dropping a range from one store. client-go does not repeat it.
pub const DESTROY_RANGE: Duration = Duration::from_secs(20);
/// Deleting a range within one region.
pub const DELETE_RANGE_ONE_REGION: Duration = Duration::from_secs(100);
/// Splitting at one key; [`split_regions`] for several.
pub const SPLIT_REGION: Duration = Duration::from_secs(20);
/// Splitting at any number of keys.
pub const MAX_SPLIT_REGIONS: Duration = Duration::from_secs(120);
/// Waiting for a scattered region to settle.
pub const WAIT_SCATTER_REGION_FINISH: Duration = Duration::from_secs(120);

/// Splitting at `keys` keys in one call.
#[must_use]
pub fn split_regions(keys: usize) -> Duration {
    let keys = u32::try_from(keys).unwrap_or(u32::MAX);
    SPLIT_REGION.saturating_mul(keys).min(MAX_SPLIT_REGIONS)
}
