//! Transactions: optimistic two-phase commit.
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
//! client-go: package `txnkv/transaction`.

mod batches;
mod cleanup;
mod commit;
mod commit_primary;
mod commit_secondaries;
mod commit_ts;
mod decision;
mod heartbeat;
mod keys_call;
mod lock_ttl;
mod mutations;
mod options;
mod prewrite;
mod refusal;
#[cfg(test)]
mod tests;
mod transaction;

use crate::machine::Phases;
pub use commit::{Commit, CommitOutcome, CommitRequest};
pub use mutations::{Mutation, Mutations, TxnLimits};
pub use options::{CommitOptions, CommitTsRules, OnLock};
pub use transaction::{Buffered, BufferedReads, Transaction, TxnState};

/// The machines of this floor that have phases.
pub(crate) const PHASES: &[Phases] =
    &[heartbeat::PHASES, commit_ts::PHASES, commit::PHASES, commit_primary::PHASES, cleanup::PHASES, prewrite::PHASES];
