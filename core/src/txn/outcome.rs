//! How a commit ended, and what it took.

use crate::timestamp::Timestamp;

/// The transaction is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CommitOutcome {
    /// When, by PD's clock; `None` if it wrote nothing.
    pub commit_ts: Option<Timestamp>,
    /// What decided it.
    pub mode: CommitMode,
    /// What it took.
    pub details: CommitDetails,
}

/// What decided a transaction. client-go: `metrics.TxnCommitCounter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CommitMode {
    /// Nothing had to be: it wrote nothing, though it may have checked that keys are absent.
    #[default]
    NothingWritten,
    /// The commit of its primary key, after all keys had been locked.
    TwoPhases,
    /// The locks of all its keys.
    AsyncCommit,
    /// A single request.
    OnePhase,
}

/// What a commit took. Of a pipelined transaction, which has flushed what it wrote before, nothing is counted. client-go:
/// `util.CommitDetails`; how long it took, whoever calls can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CommitDetails {
    /// Keys that were written, locked or checked. client-go: `WriteKeys`.
    pub keys: u64,
    /// Bytes of these keys and their values. client-go: `WriteSize`.
    pub bytes: u64,
    /// Regions they were in when the commit began. client-go: `PrewriteRegionNum`.
    pub regions: u64,
    /// Batches of keys that were prewritten, each by one request, or by several if it had to be repeated. client-go:
    /// `PrewriteReqNum`.
    pub prewrites: u64,
    /// How often locks of other transactions were resolved or waited for, until a prewrite could be sent again.
    pub lock_encounters: u64,
}
