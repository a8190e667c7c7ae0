//! What leaves a machine.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::BackgroundMachine;
#[cfg(any(test, feature = "transitions"))]
use super::Step;
use crate::backoff::BackoffKind;
use crate::request::pd::PdRequest;
use crate::request::{CallContext, Request};
use crate::time::Time;
use crate::timestamp::Timestamp;

/// Names a command that expects an answer. Unique within one run of one top-level machine, in the order of issue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Something that a machine wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Send an RPC to a store; answered by [`Event::Reply`](super::Event::Reply).
    Call(Call),
    /// Ask PD; answered by [`Event::Pd`](super::Event::Pd).
    Pd {
        /// Names the question.
        token: Token,
        /// The question.
        request: PdRequest,
    },
    /// Ask the owner of a transaction whether it may commit; answered by [`Event::Checked`](super::Event::Checked). Only of
    /// transactions whose [rules](crate::txn::CommitTsRules) want that.
    CheckCommit {
        /// Names the question.
        token: Token,
        /// The transaction.
        start_ts: Timestamp,
        /// When it would commit.
        commit_ts: Timestamp,
    },
    /// Wake me; answered by [`Event::Woken`](super::Event::Woken), not before `until`.
    Sleep {
        /// Names the timer.
        token: Token,
        /// When.
        until: Time,
        /// Why, for people.
        reason: SleepReason,
    },
    /// Forget an earlier command: its answer will not be waited for. An RPC may be executed all the same.
    Cancel {
        /// The command to forget.
        token: Token,
    },
    /// Not the store that was expected listens at this address: the next call is to connect anew, since the name may stand
    /// for another machine by now. Calls on their way are not to be disturbed.
    Reconnect {
        /// Where.
        address: Arc<str>,
    },
    /// Run this machine on its own, without an owner.
    Spawn(BackgroundMachine),
    /// Something worth telling an observer.
    Observe(Observation),
}

/// One RPC to a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// Names the call.
    pub token: Token,
    /// The store.
    pub store_id: u64,
    /// Where the store listens.
    pub address: Arc<str>,
    /// Region, epoch, peer and options; encoded in front of the request.
    pub context: CallContext,
    /// What is asked.
    pub request: Request,
    /// When to give up: after it the answer is a timeout fault.
    pub deadline: Time,
}

/// Why a machine sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SleepReason {
    /// Back-off of the given kind between attempts.
    Backoff(BackoffKind),
    /// Not for the sleep's sake: at this time the operation must be over.
    Deadline,
    /// Waiting for a lock that is still alive.
    LockAlive,
    /// The next beat of a transaction's heartbeat.
    Heartbeat,
    /// Requests that were given up may still take locks: these are released a little later.
    LateLocks,
    /// The locks that closed a cycle are released: whoever waited for them goes first.
    Deadlock,
    /// A pipelined transaction leaves TiKV room for others before it flushes.
    WriteThrottle,
    /// Replicas that lag are given time to hear of the last locks that were resolved.
    SlowReplicas,
}

/// Something worth telling an observer; never needed for correctness.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Observation {
    /// A store answered with a region error.
    RegionError {
        /// Which, as the field of `errorpb.Error` is called.
        name: &'static str,
        /// The region asked for.
        region_id: u64,
        /// The store that answered.
        store_id: u64,
    },
    /// An RPC failed.
    CallFailed {
        /// The store.
        store_id: u64,
        /// What happened.
        fault: crate::error::Fault,
    },
    /// A lock stood in the way.
    LockMet {
        /// The transaction that met it, zero for none.
        caller_ts: Timestamp,
        /// The transaction that holds it.
        lock_ts: Timestamp,
    },
    /// A background task gave up; others will have to clean up (lock resolution does).
    BackgroundFailed {
        /// Which task.
        task: &'static str,
        /// Why.
        error: crate::error::Error,
    },
}

/// Where a machine's commands collect until the driver takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outbox {
    /// The next command to be taken. Most steps issue one at most, which needs no list.
    first: Option<Command>,
    /// Never empty.
    #[expect(clippy::box_collection, reason = "an outbox is made for each step, and few have this")]
    more: Option<Box<VecDeque<Command>>>,
    next_token: u64,
    #[cfg(any(test, feature = "transitions"))]
    transitions: Vec<Step>,
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new() -> Self {
        Outbox::default()
    }

    /// An empty outbox that goes on where another one ended, given the [token](Outbox::next_token) which that would have
    /// issued next: for drivers that take every command at once and keep no outbox in between.
    #[must_use]
    pub fn continued(next_token: Token) -> Self {
        Outbox { next_token: next_token.0, ..Outbox::default() }
    }

    /// The token that the next command will get.
    #[must_use]
    pub fn next_token(&self) -> Token {
        Token(self.next_token)
    }

    /// Takes the next command, in the order they were issued.
    pub fn pop(&mut self) -> Option<Command> {
        #[cfg(any(test, feature = "transitions"))]
        self.transitions.clear();
        // Commands are large: not even an absent one is moved.
        if self.first.is_some() {
            return self.first.take();
        }
        let more = self.more.as_mut()?;
        let command = more.pop_front();
        if more.is_empty() {
            self.more = None;
        }
        command
    }

    /// Takes all commands.
    pub fn drain(&mut self) -> impl Iterator<Item = Command> {
        std::iter::from_fn(|| self.pop())
    }

    /// Takes the transitions noted since a command was last [taken](Outbox::pop), which forgets them.
    #[cfg(any(test, feature = "transitions"))]
    pub fn take_transitions(&mut self) -> impl Iterator<Item = Step> {
        self.transitions.drain(..)
    }

    /// Whether no command waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_none()
    }

    #[cfg(any(test, feature = "transitions"))]
    pub(super) fn note(&mut self, step: Step) {
        self.transitions.push(step);
    }

    pub(super) fn new_token(&mut self) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        token
    }

    pub(super) fn push(&mut self, command: Command) {
        if self.is_empty() {
            self.first = Some(command);
        } else {
            self.more.get_or_insert_default().push_back(command);
        }
    }
}

impl Call {
    /// How long the call may take from `now` on.
    #[must_use]
    pub fn timeout(&self, now: Time) -> Duration {
        self.deadline.saturating_since(now)
    }
}
