//! A pessimistic transaction of a client, from its first lock to its end.
//!
//! ```text
//!   start ──► Locking ──► Locking … ──► Committing ──► committed, or not
//!                │  ▲        │
//!                │  └────────┘ fair locking: again after a conflict
//!                │ refused, or all is locked and nothing to be written
//!                └──► rolled back: what is locked is released in the background
//! ```
//!
//! The part of the transaction's owner, which lives outside of the core. One statement follows the other at once: a pause
//! between them would be a late answer.

use std::task::Poll;

use bytes::Bytes;
use tikv_core::engine::Outcome;
use tikv_core::error::Error;
use tikv_core::key::Key;
use tikv_core::machine::{Abandoned, Context, Event, FanOut, Machine, Token};
use tikv_core::timestamp::Timestamp;
use tikv_core::txn::{
    Commit, Heartbeat, LockKeys, LockOptions, LockWait, Locked, LockedKey, PessimisticRollback, Transaction,
};

use crate::setup::{End, Locks, Pessimistic};

/// The owner of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    txn: Transaction,
    script: Pessimistic,
    value: Bytes,
    /// Keys that are locked.
    locked: usize,
    /// How the present statement locks.
    locks: Locks,
    /// Whether a lock of the present attempt has met a newer version.
    in_conflict: bool,
    phase: Phase,
    /// At most one, if the transaction is to outlive a leap.
    heartbeat: FanOut<Heartbeat>,
    outlives_leaps: bool,
    notes: Vec<Note>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Starting,
    Locking(Box<LockKeys>),
    Committing(Box<Commit>),
    Ended,
}

/// What the owner of a transaction knows, for the history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Note {
    /// It holds these locks now.
    Locked(Timestamp, Vec<LockedKey>),
    /// It commits, on the strength of the locks that it holds.
    Committing(Timestamp),
    /// It claims no locks any more.
    Dropped(Timestamp),
}

impl Session {
    pub(crate) fn new(txn: Transaction, script: Pessimistic, value: Bytes, outlives_leaps: bool) -> Self {
        Session {
            txn,
            script,
            value,
            locked: 0,
            locks: script.locks,
            in_conflict: false,
            phase: Phase::Starting,
            heartbeat: FanOut::new(1),
            outlives_leaps,
            notes: Vec::new(),
        }
    }

    /// What there is to be noted since the last time.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    pub(crate) fn start(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if matches!(self.locks, Locks::Fairly | Locks::FairlyAtFirst) {
            accepted(self.txn.start_fair_locking(cx.now()));
        }
        self.next_statement(cx)
    }

    pub(crate) fn handle(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Outcome> {
        if self.heartbeat.waits_for(token) {
            self.heartbeat.handle(cx, token, event);
            // If it ends: the commit will tell what that means.
            while self.heartbeat.next_finished(cx).is_some() {}
            return Poll::Pending;
        }
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Locking(lock) => self.lock(cx, lock, |lock, cx| lock.handle(cx, token, event)),
            Phase::Committing(commit) => self.commit(cx, commit, |commit, cx| commit.handle(cx, token, event)),
            phase => {
                self.phase = phase;
                Poll::Pending
            }
        }
    }

    /// The owner loses interest.
    pub(crate) fn abandon(&mut self, cx: &mut Context<'_>) -> Abandoned {
        let abandoned = match &mut self.phase {
            Phase::Locking(lock) => lock.abandon(cx),
            Phase::Committing(commit) => return commit.abandon(cx),
            Phase::Starting | Phase::Ended => Abandoned::Discard,
        };
        self.txn.abandon_lock();
        self.roll_back(cx);
        abandoned
    }

    fn next_statement(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut keys = self.script.keys().split_off(self.locked);
        if self.locks != Locks::AtOnce {
            keys.truncate(1);
        }
        if keys.is_empty() {
            return self.on_all_locked(cx);
        }
        let options = LockOptions::default().wait(LockWait::Always).return_values();
        let request = accepted(self.txn.begin_lock(cx.now(), keys, options));
        self.lock(cx, Box::new(LockKeys::new(request)), LockKeys::start)
    }

    fn lock(
        &mut self,
        cx: &mut Context<'_>,
        mut lock: Box<LockKeys>,
        step: impl FnOnce(&mut LockKeys, &mut Context<'_>) -> Poll<Result<Locked, Error>>,
    ) -> Poll<Outcome> {
        let Poll::Ready(end) = step(&mut lock, cx) else {
            self.phase = Phase::Locking(lock);
            return Poll::Pending;
        };
        self.txn.end_lock(&end);
        match end {
            Ok(locked) => {
                self.locked += locked.keys.len();
                self.in_conflict |= locked.keys.iter().any(|key| key.in_conflict);
                self.notes.push(Note::Locked(self.txn.start_ts(), locked.keys));
                self.keep_alive(cx);
                self.next_attempt(cx)
            }
            Err(error) => {
                self.roll_back(cx);
                Poll::Ready(Outcome::LockKeys(Err(error)))
            }
        }
    }

    /// Fair locking: a statement that met a conflict is run again, and may be of no use in the end.
    fn next_attempt(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let is_whole = self.locked == self.script.keys.len();
        let unwanted = match self.locks {
            Locks::Fairly if is_whole && std::mem::take(&mut self.in_conflict) => {
                self.drop_locks();
                accepted(self.txn.retry_fair_locking(cx.now()))
            }
            Locks::Fairly if is_whole => accepted(self.txn.finish_fair_locking()),
            Locks::FairlyAtFirst => {
                self.locks = Locks::OneByOne;
                self.drop_locks();
                accepted(self.txn.cancel_fair_locking())
            }
            Locks::AtOnce | Locks::OneByOne | Locks::Fairly => None,
        };
        release(cx, unwanted);
        self.keep_alive(cx);
        self.next_statement(cx)
    }

    fn drop_locks(&mut self) {
        self.locked = 0;
        self.notes.push(Note::Dropped(self.txn.start_ts()));
    }

    fn on_all_locked(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if self.script.end == End::RollBack {
            self.roll_back(cx);
            return Poll::Ready(Outcome::PessimisticRollback(()));
        }
        for key in self.script.keys() {
            accepted(self.txn.set(key, self.value.clone()));
        }
        self.notes.push(Note::Committing(self.txn.start_ts()));
        let request = accepted(self.txn.begin_commit());
        self.commit(cx, Box::new(Commit::new(request)), Commit::start)
    }

    fn commit(
        &mut self,
        cx: &mut Context<'_>,
        mut commit: Box<Commit>,
        step: impl FnOnce(&mut Commit, &mut Context<'_>) -> Poll<<Commit as Machine>::Output>,
    ) -> Poll<Outcome> {
        let Poll::Ready(end) = step(&mut commit, cx) else {
            self.phase = Phase::Committing(commit);
            return Poll::Pending;
        };
        self.txn.end_commit(&end);
        self.heartbeat.cancel_all(cx);
        Poll::Ready(Outcome::Commit(end))
    }

    fn roll_back(&mut self, cx: &mut Context<'_>) {
        self.notes.push(Note::Dropped(self.txn.start_ts()));
        self.heartbeat.cancel_all(cx);
        // An abandoned one is rolled back already when its last call ends.
        if self.txn.rollback().is_ok() {
            release(cx, self.txn.release());
        }
    }

    /// The transaction may have another primary than before.
    fn keep_alive(&mut self, cx: &mut Context<'_>) {
        let wanted = if self.outlives_leaps { self.txn.keep_alive() } else { None };
        let running = self.heartbeat.running().next().map(|(_, heartbeat)| heartbeat.primary().clone());
        if wanted.as_ref().map(Heartbeat::primary) != running.as_ref() {
            self.heartbeat.cancel_all(cx);
            if let Some(heartbeat) = wanted {
                self.heartbeat.add(heartbeat);
            }
            self.heartbeat.run(cx);
        }
    }
}

fn release(cx: &mut Context<'_>, rollback: Option<PessimisticRollback>) {
    if let Some(rollback) = rollback {
        cx.spawn(rollback);
    }
}

/// What the scripts ask for, at the times at which they do, is never refused.
pub(crate) fn accepted<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| unreachable!("no script asks for what must be refused: {error}"))
}

impl Pessimistic {
    /// The keys, the primary first.
    pub(crate) fn keys(self) -> Vec<Key> {
        self.keys.iter().map(|key| Key::from(*key)).collect()
    }
}
