//! A pipelined transaction of a client, from its first flush to its end.
//!
//! ```text
//!   start ──► Flushing ──► Flushing … ──► Committing, which flushes the last key ──► committed, or not
//!                │ refused
//!                └──► rolled back: what is flushed is released in the background
//! ```
//!
//! The part of the transaction's owner, which lives outside of the core. Every key is a generation of its own.

use std::task::Poll;

use bytes::Bytes;
use tikv_core::engine::Outcome;
use tikv_core::error::Error;
use tikv_core::key::Key;
use tikv_core::machine::{Abandoned, Context, Event, FanOut, Machine, Token};
use tikv_core::txn::{Flush, Flushed, Heartbeat, PipelinedCommit, PipelinedTransaction};

/// The owner of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pipelining {
    txn: PipelinedTransaction,
    /// Keys that are still to be written.
    left: Vec<Key>,
    value: Bytes,
    phase: Phase,
    /// At most one, if the transaction is to outlive a leap.
    heartbeat: FanOut<Heartbeat>,
    outlives_leaps: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Starting,
    Flushing(Box<Flush>),
    Committing(Box<PipelinedCommit>),
    Ended,
}

impl Pipelining {
    /// Writes `keys`, the first of which becomes the primary.
    pub(crate) fn new(txn: PipelinedTransaction, mut keys: Vec<Key>, value: Bytes, outlives_leaps: bool) -> Self {
        keys.reverse();
        Pipelining { txn, left: keys, value, phase: Phase::Starting, heartbeat: FanOut::new(1), outlives_leaps }
    }

    pub(crate) fn start(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.write_next(cx)
    }

    pub(crate) fn handle(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Outcome> {
        if self.heartbeat.waits_for(token) {
            self.heartbeat.handle(cx, token, event);
            while let Some((_, end)) = self.heartbeat.next_finished(cx) {
                // The next call of the transaction will tell.
                self.txn.end_keep_alive(end);
            }
            return Poll::Pending;
        }
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Flushing(flush) => self.flush(cx, flush, |flush, cx| flush.handle(cx, token, event)),
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
            Phase::Flushing(flush) => flush.abandon(cx),
            Phase::Committing(commit) => return commit.abandon(cx),
            Phase::Starting | Phase::Ended => Abandoned::Discard,
        };
        self.give_up(cx);
        abandoned
    }

    /// The last key is left to the commit.
    fn write_next(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(key) = self.left.pop() {
            // Unless the heartbeat has ended: the flush will tell.
            let _ = self.txn.set(key, self.value.clone());
        }
        if self.left.is_empty() {
            self.heartbeat.cancel_all(cx);
            return match self.txn.begin_commit() {
                Ok(request) => self.commit(cx, Box::new(PipelinedCommit::new(request)), PipelinedCommit::start),
                Err(error) => self.fail(cx, error),
            };
        }
        match self.txn.begin_flush() {
            Ok(Some(generation)) => self.flush(cx, Box::new(Flush::new(generation)), Flush::start),
            Ok(None) => unreachable!("there is something to flush, and no flush runs"),
            Err(error) => self.fail(cx, error),
        }
    }

    fn flush(
        &mut self,
        cx: &mut Context<'_>,
        mut flush: Box<Flush>,
        step: impl FnOnce(&mut Flush, &mut Context<'_>) -> Poll<Result<Flushed, Error>>,
    ) -> Poll<Outcome> {
        let Poll::Ready(end) = step(&mut flush, cx) else {
            self.phase = Phase::Flushing(flush);
            return Poll::Pending;
        };
        self.txn.end_flush(&end);
        if let Err(error) = end {
            return self.fail(cx, error);
        }
        if let Some(heartbeat) = self.txn.keep_alive().filter(|_| self.outlives_leaps && self.heartbeat.is_idle()) {
            self.heartbeat.add(heartbeat);
            self.heartbeat.run(cx);
        }
        self.write_next(cx)
    }

    fn commit(
        &mut self,
        cx: &mut Context<'_>,
        mut commit: Box<PipelinedCommit>,
        step: impl FnOnce(&mut PipelinedCommit, &mut Context<'_>) -> Poll<<PipelinedCommit as Machine>::Output>,
    ) -> Poll<Outcome> {
        let Poll::Ready(end) = step(&mut commit, cx) else {
            self.phase = Phase::Committing(commit);
            return Poll::Pending;
        };
        self.txn.end_commit(&end);
        Poll::Ready(Outcome::PipelinedCommit(end))
    }

    fn fail(&mut self, cx: &mut Context<'_>, error: Error) -> Poll<Outcome> {
        self.give_up(cx);
        Poll::Ready(Outcome::Flush(Err(error)))
    }

    fn give_up(&mut self, cx: &mut Context<'_>) {
        self.heartbeat.cancel_all(cx);
        // One that has failed has rolled itself back.
        let _ = self.txn.rollback();
        if let Some(finish) = self.txn.release() {
            cx.spawn(finish);
        }
    }
}
