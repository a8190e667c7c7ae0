//! One after another, a session runs transactions.

use std::collections::VecDeque;

use tikv_core::engine::OperationId;
use tikv_core::key::{Key, KeyRange};
use tikv_core::rng::Rng;
use tikv_core::snapshot::ReadThrough;
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_core::txn::{LockOptions, PessimisticRollback, Transaction};

use super::check::Newest;
use super::workload::{Found, RawTask, Script};
use super::world::Pipelining;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) state: State,
    /// The operation that keeps the locks of the transaction alive, and the primary whose lock it is.
    pub(super) keep_alive: Option<(OperationId, Key)>,
    /// The flush of a pipelined transaction.
    pub(super) flush: Option<OperationId>,
    pub(super) rng: Rng,
}

#[derive(Debug)]
pub(super) enum State {
    /// Waits for its turn, or has none any more.
    Idle,
    /// Waits for a timestamp. `floor` is what that must exceed.
    Beginning {
        script: Box<dyn Script>,
        floor: Timestamp,
    },
    Reading(Box<Open>),
    Locking(Box<Open>, LockOptions),
    Committing(Box<Transaction>),
    /// Waits for what became of a transaction whose outcome was not known.
    Asking(Timestamp),
    /// Resolves old locks.
    Sweeping(Sweep),
    /// From its first write to the end of its commit.
    Pipelined(Box<Pipelining>),
    /// Reads the newest version of a key, which is this one at least.
    ReadingNewest(Key, Newest),
    Raw(RawCall),
}

/// A transaction between its beginning and its commit.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) txn: Transaction,
    pub(super) script: Box<dyn Script>,
    pub(super) read_through: ReadThrough,
    pub(super) reading: Reading,
    /// What the statement that locks fairly has locked.
    pub(super) fair: Vec<Key>,
}

/// What is being read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) what: What,
    /// The timestamp, if it is not that of the transaction's start.
    pub(super) at: Option<Timestamp>,
    /// Keys that are still to be read, one by one.
    pub(super) left: VecDeque<Key>,
    pub(super) found: Found,
}

#[derive(Debug, Default)]
pub(super) enum What {
    #[default]
    Nothing,
    Keys(Vec<Key>),
    Range(KeyRange),
}

/// A sweep of old locks.
#[derive(Debug)]
pub(super) struct Sweep {
    pub(super) safe_point: Timestamp,
    /// Prewritten locks that were there when it began.
    pub(super) met: Vec<(Key, Timestamp)>,
}

/// A raw call, and when it began.
#[derive(Debug)]
pub(super) struct RawCall {
    pub(super) task: RawTask,
    pub(super) since: Time,
    /// What a compare-and-swap expects.
    pub(super) expected: Option<bytes::Bytes>,
}

impl Open {
    /// Where it reads now.
    pub(super) fn read_ts(&self) -> Timestamp {
        self.reading.at.unwrap_or(self.txn.start_ts())
    }
}

impl State {
    /// What has to be released of a transaction that nobody is interested in any more.
    pub(super) fn release(&mut self) -> Option<PessimisticRollback> {
        let (State::Reading(open) | State::Locking(open, _)) = self else { return None };
        open.txn.abandon_lock();
        // It is open.
        open.txn.rollback().ok()?;
        open.txn.release()
    }
}

impl Session {
    pub(super) fn new(rng: Rng) -> Self {
        Session { state: State::Idle, keep_alive: None, flush: None, rng }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }
}
