//! What must hold, checked as it happens.
//!
//! The simulation sees both sides: what clients asked for and were told, and what really became of the data (the stores'
//! journal of [changes](crate::storage::Change)). So nothing has to be inferred: each answer is compared with the truth.

mod history;
mod raw;
#[cfg(test)]
mod tests;

use std::fmt;

pub(super) use self::history::{Deciding, End, History, Newest};
pub(super) use self::raw::RawHistory;

/// A rule of the protocol, or of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A read shows, of each key, the newest version committed at or before its timestamp.
    SnapshotRead,
    /// Of two transactions that committed to one key, one began after the other had committed.
    NoOverlap,
    /// A transaction commits at one timestamp on all its keys, and on no others.
    OneCommitTs,
    /// A transaction is committed on its primary first, unless its prewrites decide.
    PrimaryFirst,
    /// Each flush of a pipelined transaction names the same primary, and the latest generation.
    FlushOrder,
    /// A transaction reads what it has written itself.
    OwnWrites,
    /// What begins after something was acknowledged has a greater timestamp, and what is read as the newest was so since then.
    RealTimeOrder,
    /// What a client was told of a transaction is what became of it.
    ReportedOutcome,
    /// A transaction commits when its owner has allowed it, if that wants to be asked.
    OwnerAsked,
    /// Inserted keys were absent.
    InsertedAbsent,
    /// A raw read shows a value that the key had while it was read; an acknowledged write was made while it was asked for.
    RawLinearizable,
    /// What must not be repeated is done at most once.
    AtMostOnce,
    /// A transaction that goes on does not release a lock that it holds.
    LocksKept,
    /// The invariant of the workload.
    Workload,
    /// An operation fails only for reasons that exist.
    PlausibleError,
    /// An operation ends by its deadline.
    Deadline,
    /// What was given up sends nothing more but what cleans up.
    SilentAfterCancel,
    /// When nothing goes wrong any more, everything ends.
    Termination,
    /// No lock is left over.
    LocksResolved,
    /// No operation, call or timer is left over in an engine.
    NoLeak,
    /// The code does not panic.
    NoPanic,
}

impl Rule {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Rule::SnapshotRead => "snapshot read",
            Rule::NoOverlap => "no overlap",
            Rule::OneCommitTs => "one commit_ts",
            Rule::PrimaryFirst => "primary first",
            Rule::FlushOrder => "flush order",
            Rule::OwnWrites => "own writes",
            Rule::RealTimeOrder => "real-time order",
            Rule::ReportedOutcome => "reported outcome",
            Rule::OwnerAsked => "owner asked",
            Rule::InsertedAbsent => "inserted absent",
            Rule::RawLinearizable => "raw linearizable",
            Rule::AtMostOnce => "at most once",
            Rule::LocksKept => "locks kept",
            Rule::Workload => "workload",
            Rule::PlausibleError => "plausible error",
            Rule::Deadline => "deadline",
            Rule::SilentAfterCancel => "silent after cancel",
            Rule::Termination => "termination",
            Rule::LocksResolved => "locks resolved",
            Rule::NoLeak => "no leak",
            Rule::NoPanic => "no panic",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{rule}: {detail}")]
pub struct Broken {
    /// The rule.
    pub rule: Rule,
    /// How.
    pub detail: String,
}

/// What checks return.
pub(super) type Check = Result<(), Broken>;

pub(super) fn broken(rule: Rule, detail: impl Into<String>) -> Check {
    Err(Broken { rule, detail: detail.into() })
}

pub(super) fn ensure(holds: bool, rule: Rule, detail: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { broken(rule, detail()) }
}
