//! Flushes the mutations of one batch.
//!
//! ```text
//!              accepted, refused, or budget spent
//!   start ──► Calling ───────────────────────────► done
//!              ▲ ▲ │ │ the region has changed
//!              │ │ │ └───────────────────────────► relocate
//!              │ │ │ locked by others
//!              │ │ ▼
//!              │ └ ResolvingLocks     all of them are finished: at once
//!              │   │ one is alive
//!              │   ▼
//!              └─ WaitingForLock
//! ```
//!
//! A flush is a prewrite that TiKV lets write over an earlier one of the same transaction, if its generation is higher. A
//! request that is repeated, or comes late, has a generation that is not, and changes nothing. It never decides anything, so
//! that one without an answer is just one more failure.
//!
//! client-go: `actionPipelinedFlush.handleSingleBatch`.

use std::sync::Arc;
use std::task::Poll;

use tikv_proto::kvrpcpb::{self, FlushRequest, FlushResponse, Op};

use crate::backoff::{Backoff, BackoffKind};
use crate::error::{Conflict, ConflictReason, Error, KeyError, LockInfo};
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::lock::{ResolveLocks, Resolved, sleep_for_lock};
use crate::machine::{Context, CurrentPhase, Event, Machine, Token, phases};
use crate::request::Shared;
use crate::route::{CallEnd, CallError, CallOptions, RegionCall, Shard, ShardEnd};
use crate::time::Time;
use crate::timestamp::Timestamp;
use crate::txn::{Mutation, OnLock, refusal};

/// Locks resolved at once, without a wait, before a batch that meets ever new ones backs off.
const RESENDS_WITHOUT_BACKOFF: u32 = 8;
/// How long it then backs off at most, in milliseconds.
const RESEND_BACKOFF_MS: u64 = 100;

/// How the mutations of a generation are flushed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlushShard {
    /// Everything but the mutations.
    pub(super) request: Shared<FlushRequest>,
    pub(super) options: CallOptions,
    pub(super) on_lock: OnLock,
    pub(super) batch_bytes: usize,
}

impl Shard for FlushShard {
    type Item = Mutation;
    /// Whether the primary is among the mutations.
    type Output = Result<bool, Error>;
    type Child = FlushBatch;

    fn child(
        &self,
        _: &mut Context<'_>,
        region: Arc<Region>,
        mutations: Vec<Mutation>,
        backoff: Backoff,
        is_retry: bool,
    ) -> FlushBatch {
        let mutations = mutations.into_iter().map(Mutation::into_proto).collect();
        let request = FlushRequest { mutations, ..(*self.request).clone() };
        FlushBatch {
            region,
            request: Shared::new(request),
            options: self.options.clone(),
            on_lock: self.on_lock,
            is_retry,
            resends: 0,
            phase: Phase::Starting(backoff),
        }
    }

    fn weight(&self, mutation: &Mutation) -> usize {
        mutation.size_bytes()
    }

    fn batch_limit(&self) -> usize {
        self.batch_bytes
    }

    fn deadline(&self) -> Time {
        self.options.deadline
    }
}

/// One batch; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlushBatch {
    region: Arc<Region>,
    /// It names the mutations.
    request: Shared<FlushRequest>,
    options: CallOptions,
    on_lock: OnLock,
    /// Whether the mutations were in a request before.
    is_retry: bool,
    /// Requests sent again because of locks.
    resends: u32,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Starting(Backoff),
    Calling(RegionCall<FlushRequest>),
    ResolvingLocks { resolve: Box<ResolveLocks>, lock: Box<LockInfo> },
    WaitingForLock(Backoff),
    Ended,
}

phases! {
    FlushBatch: Phase;
    start => Calling | done;
    Calling => ResolvingLocks | WaitingForLock | done;
    ResolvingLocks => Calling | WaitingForLock | done;
    WaitingForLock => Calling | done;
}

/// What TiKV's key errors amount to.
enum Obstacle {
    Locked(Vec<LockInfo>),
    Failed(Error),
}

type End = ShardEnd<Mutation, Result<bool, Error>>;

impl FlushBatch {
    fn start_ts(&self) -> Timestamp {
        Timestamp::from_version(self.request.start_ts)
    }

    fn primary(&self) -> Key {
        self.request.primary_key.clone().into()
    }

    fn send(&mut self, cx: &mut Context<'_>, backoff: Backoff) -> Poll<End> {
        let (region, request, options) = (&self.region, &self.request, &self.options);
        let call = RegionCall::to_region(Arc::clone(region), request.clone(), options.clone(), backoff);
        let mut call = call.repeatable().as_retry(self.is_retry);
        self.is_retry = true;
        match call.start(cx) {
            Poll::Ready(end) => self.on_end(cx, end),
            Poll::Pending => {
                self.phase = Phase::Calling(call);
                Poll::Pending
            }
        }
    }

    fn on_end(&mut self, cx: &mut Context<'_>, end: CallEnd<FlushResponse>) -> Poll<End> {
        if let Err(CallError::Relocate(_)) = end.result {
            self.phase = Phase::Ended;
            let items = self.request.mutations.iter().map(Mutation::from_proto).collect();
            return Poll::Ready(ShardEnd::Relocate { items, backoff: end.backoff });
        }
        let backoff = end.backoff.clone();
        match end.into_result("Flush") {
            Ok(response) if response.errors.is_empty() => self.flushed(),
            Ok(response) => match self.obstacle(response.errors) {
                Obstacle::Failed(error) => self.done(Err(error)),
                Obstacle::Locked(locks) => self.resolve(cx, locks, backoff),
            },
            Err(error) => self.done(Err(error)),
        }
    }

    fn flushed(&mut self) -> Poll<End> {
        let primary = &self.request.primary_key;
        let is_locked = |mutation: &kvrpcpb::Mutation| mutation.op() != Op::CheckNotExists;
        let mut mutations = self.request.mutations.iter();
        let has_primary = mutations.any(|mutation| mutation.key == primary && is_locked(mutation));
        self.done(Ok(has_primary))
    }

    /// Of several errors one that settles the matter counts most, then locks, then a failed assertion: that one may be a
    /// mere consequence of a conflict.
    fn obstacle(&self, errors: Vec<kvrpcpb::KeyError>) -> Obstacle {
        let mut locks = Vec::new();
        let mut failed_assertion = None;
        for mut error in errors {
            if let Some(lock) = error.locked.take() {
                locks.extend(LockInfo::expand(*lock));
                continue;
            }
            match KeyError::from_proto(error) {
                KeyError::AssertionFailed(failed) => failed_assertion = failed_assertion.or(Some(failed)),
                other => return Obstacle::Failed(self.failure(other)),
            }
        }
        if let Some(error) = locks.iter().find_map(|lock| self.hopeless(lock)) {
            return Obstacle::Failed(error);
        }
        match failed_assertion {
            Some(failed) if locks.is_empty() => Obstacle::Failed(Error::AssertionFailed(failed)),
            _ => Obstacle::Locked(locks),
        }
    }

    fn failure(&self, error: KeyError) -> Error {
        match error {
            // That a key exists matters only where its absence was presumed.
            KeyError::AlreadyExists { key } if !self.presumes_absent(&key) => {
                Error::Key(KeyError::AlreadyExists { key })
            }
            error => refusal::of_prewrite(self.start_ts(), &self.primary(), error),
        }
    }

    fn presumes_absent(&self, key: &Key) -> bool {
        let mut mutations = self.request.mutations.iter();
        mutations
            .any(|mutation| mutation.key == key.as_slice() && matches!(mutation.op(), Op::Insert | Op::CheckNotExists))
    }

    /// Why it makes no sense to resolve a lock: its transaction is younger, so that whatever becomes of it is a conflict; or
    /// the caller does not want to; or it is one's own, which TiKV never complains of.
    fn hopeless(&self, lock: &LockInfo) -> Option<Error> {
        if lock.start_ts == self.start_ts() {
            return Some(Error::Locked(Box::new(lock.clone())));
        }
        if lock.start_ts < self.start_ts() && self.on_lock == OnLock::Resolve {
            return None;
        }
        Some(Error::WriteConflict(Box::new(Conflict {
            start_ts: self.start_ts(),
            conflict_ts: lock.start_ts,
            conflict_commit_ts: Timestamp::ZERO,
            key: lock.key.clone(),
            primary: self.primary(),
            reason: ConflictReason::Optimistic,
        })))
    }

    fn resolve(&mut self, cx: &mut Context<'_>, locks: Vec<LockInfo>, backoff: Backoff) -> Poll<End> {
        let Some(lock) = locks.first().cloned() else { return self.flushed() };
        let mut resolve = ResolveLocks::for_write(self.start_ts(), locks, self.options.clone(), backoff);
        match resolve.start(cx) {
            Poll::Ready(resolved) => self.on_resolved(cx, &lock, resolved),
            Poll::Pending => {
                self.phase = Phase::ResolvingLocks { resolve: Box::new(resolve), lock: Box::new(lock) };
                Poll::Pending
            }
        }
    }

    fn on_resolved(&mut self, cx: &mut Context<'_>, lock: &LockInfo, resolved: Resolved) -> Poll<End> {
        let mut backoff = resolved.backoff;
        let ms_before_expired = match resolved.result {
            Ok(resolution) => resolution.ms_before_expired,
            Err(error) => return self.done(Err(error)),
        };
        self.resends += 1;
        let ms = match ms_before_expired {
            0 if self.resends <= RESENDS_WITHOUT_BACKOFF => return self.send(cx, backoff),
            0 => RESEND_BACKOFF_MS,
            ms => ms,
        };
        match sleep_for_lock(cx, &mut backoff, BackoffKind::TxnLock, ms, lock, self.options.deadline) {
            Ok(_) => {
                self.phase = Phase::WaitingForLock(backoff);
                Poll::Pending
            }
            Err(error) => self.done(Err(error)),
        }
    }

    fn done(&mut self, result: Result<bool, Error>) -> Poll<End> {
        self.phase = Phase::Ended;
        Poll::Ready(ShardEnd::Done(result))
    }
}

impl Machine for FlushBatch {
    type Output = End;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Starting(backoff) => self.send(cx, backoff),
            _ => Poll::Pending,
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<End> {
        match (std::mem::replace(&mut self.phase, Phase::Ended), event) {
            (Phase::Calling(mut call), event) => match call.handle(cx, token, event) {
                Poll::Ready(end) => self.on_end(cx, end),
                Poll::Pending => {
                    self.phase = Phase::Calling(call);
                    Poll::Pending
                }
            },
            (Phase::ResolvingLocks { mut resolve, lock }, event) => match resolve.handle(cx, token, event) {
                Poll::Ready(resolved) => self.on_resolved(cx, &lock, resolved),
                Poll::Pending => {
                    self.phase = Phase::ResolvingLocks { resolve, lock };
                    Poll::Pending
                }
            },
            (Phase::WaitingForLock(backoff), Event::Woken) => self.send(cx, backoff),
            (phase, _) => {
                self.phase = phase;
                Poll::Pending
            }
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
