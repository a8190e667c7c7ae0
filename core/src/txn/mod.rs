//! Transactions: two-phase commit, and the pessimistic locks that may come before it.
//!
//! A transaction reads at its `start_ts`, buffers its writes, and commits them in one go:
//!
//! ```text
//!  Transaction (data) ──► Mutations (data) ──► Commit ──► per batch: Prewrite
//!                                                     ├──► Heartbeat                   of a large transaction
//!                                                     ├──► the commit timestamp, from PD
//!                                                     ├──► CommitPrimary               decides the transaction
//!                                                     ├──► CommitSecondaries           in the background
//!                                                     └──► Cleanup                     in the background, after a failure
//! ```
//!
//! A pessimistic transaction locks keys before it writes them:
//!
//! ```text
//!  Transaction ──► LockRequest (data) ──► LockKeys ──► per batch: LockBatch
//!       │                                    └──► PessimisticRollback          in the background, after a failure
//!       └──► Heartbeat                       from the first lock to the end
//! ```
//!
//! A [pipelined] one sends what it writes to TiKV while it is still writing.
//!
//! client-go: package `txnkv/transaction`.

mod batches;
mod cleanup;
mod commit;
mod commit_primary;
mod commit_secondaries;
mod commit_ts;
mod decision;
mod fair_locking;
mod heartbeat;
mod keys_call;
mod latches;
mod lock_keys;
mod lock_keys_batch;
mod lock_options;
mod lock_ttl;
mod mutations;
mod options;
mod outcome;
mod pessimistic;
mod pessimistic_rollback;
mod pipelined;
mod pre_split;
mod prewrite;
mod refusal;
#[cfg(test)]
mod tests;
mod transaction;

use crate::machine::Phases;
pub use commit::{Commit, CommitRequest, PessimisticCommit};
pub use heartbeat::{Heartbeat, HeartbeatEnd};
pub use latches::{Acquired, LatchId, LatchLimits, Latches, NewerCommit, Woken};
pub use lock_keys::{LockDetails, LockKeys, LockRequest, Locked};
pub use lock_keys_batch::LockedKey;
pub use lock_options::{LockOptions, LockWait, OnConflict};
pub use mutations::{Mutation, Mutations, TxnLimits};
pub use options::{AssertionLevel, CommandPri, CommitOptions, CommitTsRules, DiskFullOpt, OnLock, UnlockedWrites};
pub use outcome::{CommitDetails, CommitMode, CommitOutcome};
pub use pessimistic_rollback::PessimisticRollback;
pub(crate) use pipelined::PHASES as PIPELINED_PHASES;
pub use pipelined::{
    FinishFlushed, Flush, FlushDue, Flushed, Generation, OwnRead, OwnReadEnd, OwnReadRequest, PipelinedCommit,
    PipelinedCommitRequest, PipelinedOptions, PipelinedTransaction,
};
pub use transaction::{Buffered, BufferedReads, Transaction, TxnState};

/// The machines of this floor that have phases.
pub(crate) const PHASES: &[&Phases] = &[
    &heartbeat::PHASES,
    &commit_ts::PHASES,
    &commit::PHASES,
    &commit_primary::PHASES,
    &cleanup::PHASES,
    &prewrite::PHASES,
    &lock_keys::PHASES,
    &lock_keys_batch::PHASES,
    &pessimistic_rollback::PHASES,
];
