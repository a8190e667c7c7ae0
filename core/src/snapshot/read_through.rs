//! Locks that a snapshot may pass.

use std::collections::BTreeSet;

use crate::lock::Resolution;
use crate::request::RequestContext;
use crate::timestamp::Timestamp;

/// Most transactions that are remembered of each kind. A forgotten one is asked for again.
const MAX_TRANSACTIONS: usize = 1024;

/// What a snapshot knows of transactions whose locks it met; sent with each request, so that TiKV lets it pass their locks.
///
/// True of one timestamp only: at another one everything is forgotten. A read of the newest version
/// ([`Timestamp::MAX`]) remembers nothing, since what it ignored may be committed before the next one.
///
/// client-go: `KVSnapshot.resolvedLocks`, `committedLocks`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadThrough {
    read_ts: Timestamp,
    /// The snapshot's own transaction, whose locks never hide anything from itself.
    own: Option<Timestamp>,
    /// Rolled back, or committing after `read_ts`: their locks are ignored.
    ignored: BTreeSet<Timestamp>,
    /// Committed at or before `read_ts`: what they locked is read.
    accessible: BTreeSet<Timestamp>,
}

impl ReadThrough {
    /// Nothing is known, at `read_ts`.
    #[must_use]
    pub fn new(read_ts: Timestamp) -> Self {
        ReadThrough { read_ts, own: None, ignored: BTreeSet::new(), accessible: BTreeSet::new() }
    }

    /// The snapshot belongs to transaction `start_ts`, which has locks in the store already (it is flushed as it grows).
    /// client-go: `KVSnapshot.SetPipelined`.
    #[must_use]
    pub fn of_transaction(mut self, start_ts: Timestamp) -> Self {
        self.own = Some(start_ts);
        self
    }

    /// The timestamp of which this is true.
    #[must_use]
    pub fn read_ts(&self) -> Timestamp {
        self.read_ts
    }

    /// The snapshot reads at another timestamp from now on: forgets everything but its own transaction.
    pub fn set_read_ts(&mut self, read_ts: Timestamp) {
        if read_ts != self.read_ts {
            *self = ReadThrough { own: self.own, ..ReadThrough::new(read_ts) };
        }
    }

    /// Takes over what a read has learnt, unless it was at another timestamp (or at [`Timestamp::MAX`]).
    pub fn learn(&mut self, read: &ReadThrough) {
        if read.read_ts == self.read_ts && self.read_ts != Timestamp::MAX {
            self.ignored.extend(&read.ignored);
            self.accessible.extend(&read.accessible);
            self.bound();
        }
    }

    /// Whether the locks of the transaction can be passed.
    #[must_use]
    pub fn passes(&self, start_ts: Timestamp) -> bool {
        self.own == Some(start_ts) || self.ignored.contains(&start_ts) || self.accessible.contains(&start_ts)
    }

    /// Whether there is nothing to tell TiKV.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.own.is_none() && self.ignored.is_empty() && self.accessible.is_empty()
    }

    /// Transactions whose locks are ignored, in order.
    pub fn ignored(&self) -> impl Iterator<Item = Timestamp> {
        self.ignored.iter().copied()
    }

    /// Transactions whose locked values are read, in order.
    pub fn accessible(&self) -> impl Iterator<Item = Timestamp> {
        self.accessible.iter().copied()
    }

    pub(super) fn ignore(&mut self, start_ts: Timestamp) {
        self.ignored.insert(start_ts);
        self.bound();
    }

    pub(super) fn add(&mut self, resolution: &Resolution) {
        self.ignored.extend(&resolution.ignored);
        self.accessible.extend(&resolution.accessible);
        self.bound();
    }

    pub(super) fn write_into(&self, context: &mut RequestContext) {
        context.resolved_locks = self.ignored.iter().chain(&self.own).map(|ts| ts.version()).collect();
        context.committed_locks = self.accessible.iter().map(|ts| ts.version()).collect();
    }

    /// The oldest go first: their locks are the likeliest to be gone.
    fn bound(&mut self) {
        for transactions in [&mut self.ignored, &mut self.accessible] {
            while transactions.len() > MAX_TRANSACTIONS {
                transactions.pop_first();
            }
        }
    }
}
