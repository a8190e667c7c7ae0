//! A writer that commits asynchronously.
//!
//! ```text
//!   start ──► FetchingTimestamp ──► Prewriting (all keys side by side) ──► all locked: committed (spawns CommitKeys)
//!                                        │ one refused, or not answered
//!                                        └──► failed, or undetermined; the locks are left to whoever meets them
//! ```
//!
//! Only the recovery of such transactions is a shipping machine. This is the client that is gone when it is needed: as plain
//! as the protocol allows, built on the shipping [`RegionCall`].

use std::task::Poll;

use bytes::Bytes;
use tikv_core::backoff::{Backoff, budget};
use tikv_core::key::Key;
use tikv_core::machine::{Context, Event, FanOut, Machine, Token};
use tikv_core::request::pd::PdResponse;
use tikv_core::route::{CallEnd, CallOptions, RegionCall};
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{CommitRequest, Mutation, Op, PrewriteRequest, PrewriteResponse};

use crate::history::Reported;

/// See the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AsyncWriter {
    start_ts: Timestamp,
    /// The first is the primary.
    keys: Vec<Key>,
    value: Bytes,
    lock_ttl_ms: u64,
    prewrites: FanOut<RegionCall<PrewriteRequest>>,
    commit_ts: Timestamp,
}

impl AsyncWriter {
    /// Writes `value` to all `keys`.
    #[must_use]
    pub(crate) fn new(start_ts: Timestamp, keys: Vec<Key>, value: Bytes, lock_ttl_ms: u64) -> Self {
        let (prewrites, commit_ts) = (FanOut::new(usize::MAX), Timestamp::ZERO);
        AsyncWriter { start_ts, keys, value, lock_ttl_ms, prewrites, commit_ts }
    }

    /// No reader of now or before may miss the commit: it comes after `newest`.
    fn prewrite(&mut self, cx: &mut Context<'_>, newest: Timestamp) {
        for (index, key) in self.keys.iter().enumerate() {
            let secondaries = if index == 0 { self.keys[1..].iter().map(Key::to_bytes).collect() } else { Vec::new() };
            let mutation =
                Mutation { op: Op::Put.into(), key: key.to_bytes(), value: self.value.clone(), ..Mutation::default() };
            let request = PrewriteRequest {
                mutations: vec![mutation],
                primary_lock: self.keys[0].to_bytes(),
                start_version: self.start_ts.version(),
                lock_ttl: self.lock_ttl_ms,
                txn_size: self.keys.len() as u64,
                min_commit_ts: newest.next().version(),
                use_async_commit: true,
                secondaries,
                ..PrewriteRequest::default()
            };
            let options = CallOptions::new(cx.config());
            self.prewrites.add(RegionCall::to_key(key.clone(), request, options, Backoff::new(budget::PREWRITE)));
        }
        self.prewrites.run(cx);
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> Poll<Reported> {
        while let Some((_, end)) = self.prewrites.next_finished(cx) {
            match min_commit_ts(end) {
                Ok(min_commit_ts) => self.commit_ts = self.commit_ts.max(min_commit_ts),
                Err(reported) => {
                    self.prewrites.cancel_all(cx);
                    return Poll::Ready(reported);
                }
            }
        }
        if !self.prewrites.is_idle() {
            return Poll::Pending;
        }
        cx.spawn(CommitKeys::new(cx, self.start_ts, self.commit_ts, &self.keys));
        Poll::Ready(Reported::Committed(self.commit_ts))
    }
}

/// A refusal means that the key is not locked, unless an earlier attempt locked it; then others may have found all keys locked.
fn min_commit_ts(end: CallEnd<PrewriteResponse>) -> Result<Timestamp, Reported> {
    match end.result {
        Ok(response) if response.errors.is_empty() && response.min_commit_ts > 0 => {
            Ok(Timestamp::from_version(response.min_commit_ts))
        }
        _ if end.maybe_executed => Err(Reported::Undetermined),
        _ => Err(Reported::Failed),
    }
}

impl Machine for AsyncWriter {
    type Output = Reported;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Reported> {
        cx.timestamp();
        Poll::Pending
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Reported> {
        match event {
            Event::Pd(Ok(PdResponse::Timestamp(newest))) => self.prewrite(cx, newest),
            event => {
                self.prewrites.handle(cx, token, event);
            }
        }
        self.collect(cx)
    }
}

/// Commits the keys of a transaction that is decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CommitKeys(FanOut<RegionCall<CommitRequest>>);

impl CommitKeys {
    fn new(cx: &Context<'_>, start_ts: Timestamp, commit_ts: Timestamp, keys: &[Key]) -> Self {
        let mut calls = FanOut::new(usize::MAX);
        for key in keys {
            let request = CommitRequest {
                start_version: start_ts.version(),
                commit_version: commit_ts.version(),
                keys: vec![key.to_bytes()],
                primary_key: keys[0].to_bytes(),
                use_async_commit: true,
                ..CommitRequest::default()
            };
            let options = CallOptions::new(cx.config());
            let backoff = Backoff::new(budget::COMMIT_SECONDARY);
            calls.add(RegionCall::to_key(key.clone(), request, options, backoff));
        }
        CommitKeys(calls)
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.0.next_finished(cx).is_some() {}
        if self.0.is_idle() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Machine for CommitKeys {
    type Output = ();

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.run(cx);
        self.collect(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<()> {
        self.0.handle(cx, token, event);
        self.collect(cx)
    }
}
