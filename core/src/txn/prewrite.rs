//! Prewrites the mutations of one batch.
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
//! A prewrite can be repeated: TiKV knows its own lock again. Every repetition says that it is one, also after a region
//! has split, so that TiKV looks for what an earlier attempt may have left.
//!
//! client-go: `prewrite1BatchReqHandler`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;

use tikv_proto::kvrpcpb::{self, Op, PrewriteRequest, PrewriteResponse};

use super::{Mutation, OnLock, refusal};
use crate::backoff::{Backoff, BackoffKind};
use crate::canary::Canary;
use crate::error::{Conflict, ConflictReason, Error, KeyError, LockInfo};
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::lock::{ResolveLocks, Resolved, sleep_for_lock};
use crate::machine::{Context, CurrentPhase, Event, Machine, Token, phases};
use crate::request::Shared;
use crate::route::{CallEnd, CallError, CallOptions, RegionCall, Shard, ShardEnd};
use crate::time::Time;
use crate::timestamp::Timestamp;

/// Locks resolved at once, without a wait, before a batch that meets ever new ones backs off.
const RESENDS_WITHOUT_BACKOFF: u32 = 8;
/// How long it then backs off at most, in milliseconds.
const RESEND_BACKOFF_MS: u64 = 100;

/// How the mutations of a transaction are prewritten.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PrewriteShard {
    /// Everything but the mutations and the size.
    pub(super) request: Shared<PrewriteRequest>,
    pub(super) options: CallOptions,
    pub(super) on_lock: OnLock,
    pub(super) batch_bytes: usize,
    /// Keys in each region when they were first grouped. A resolver that meets a lock of a large transaction resolves the
    /// whole region.
    pub(super) region_keys: BTreeMap<u64, u64>,
}

impl Shard for PrewriteShard {
    type Item = Mutation;
    type Output = Result<Prewritten, Error>;
    type Child = PrewriteBatch;

    fn child(
        &self,
        cx: &mut Context<'_>,
        region: Arc<Region>,
        mutations: Vec<Mutation>,
        backoff: Backoff,
        is_retry: bool,
    ) -> PrewriteBatch {
        // Once regions have changed the count is not known any more; the largest keeps resolvers from resolving too little.
        let region_keys = if is_retry { None } else { self.region_keys.get(&region.ver_id.id) };
        let request = PrewriteRequest {
            mutations: mutations.iter().map(Mutation::to_proto).collect(),
            txn_size: region_keys.copied().unwrap_or(u64::MAX),
            ..(*self.request).clone()
        };
        let request = falsified(cx, request);
        PrewriteBatch {
            region,
            mutations,
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

/// The request with a mistake, where one is to be made.
fn falsified(cx: &Context<'_>, mut request: PrewriteRequest) -> PrewriteRequest {
    if cx.config().has_canary(Canary::AbsenceUnchecked) {
        request.mutations.iter_mut().filter(|mutation| mutation.op() == Op::Insert).for_each(|mutation| {
            mutation.set_op(Op::Put);
        });
    }
    request
}

/// All mutations of a batch are prewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Prewritten {
    /// Whether the primary is among them.
    pub(super) has_primary: bool,
}

/// One batch; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PrewriteBatch {
    region: Arc<Region>,
    mutations: Vec<Mutation>,
    request: Shared<PrewriteRequest>,
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
    Calling(RegionCall<PrewriteRequest>),
    ResolvingLocks { resolve: Box<ResolveLocks>, lock: Box<LockInfo> },
    WaitingForLock(Backoff),
    Ended,
}

phases! {
    PrewriteBatch: Phase;
    start => Calling | done;
    Calling => ResolvingLocks | WaitingForLock | done;
    ResolvingLocks => Calling | WaitingForLock | done;
    WaitingForLock => Calling | done;
}

/// What TiKV's key errors amount to.
enum Verdict {
    Locked(Vec<LockInfo>),
    Failed(Error),
}

type End = ShardEnd<Mutation, Result<Prewritten, Error>>;

impl PrewriteBatch {
    /// The keys that no request of this transaction has named yet, provided that the batch has not been started.
    pub(super) fn keys_never_sent(&self) -> impl Iterator<Item = &Key> {
        let mutations = if self.is_retry { &[] } else { self.mutations.as_slice() };
        mutations.iter().map(|mutation| &mutation.key)
    }

    fn start_ts(&self) -> Timestamp {
        Timestamp::from_version(self.request.start_version)
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

    fn on_end(&mut self, cx: &mut Context<'_>, end: CallEnd<PrewriteResponse>) -> Poll<End> {
        if let Err(CallError::Relocate(_)) = end.result {
            self.phase = Phase::Ended;
            return Poll::Ready(ShardEnd::Relocate {
                items: std::mem::take(&mut self.mutations),
                backoff: end.backoff,
            });
        }
        let backoff = end.backoff.clone();
        match end.into_result("Prewrite") {
            Ok(response) => self.on_response(cx, response, backoff),
            Err(error) => self.done(Err(error)),
        }
    }

    fn on_response(&mut self, cx: &mut Context<'_>, response: PrewriteResponse, backoff: Backoff) -> Poll<End> {
        if response.one_pc_commit_ts != 0 {
            return self.committed_unasked(response.one_pc_commit_ts);
        }
        if response.errors.is_empty() {
            return self.prewritten();
        }
        match self.verdict(response.errors) {
            Verdict::Failed(Error::WriteConflict(_)) if cx.config().has_canary(Canary::ConflictsIgnored) => {
                self.prewritten()
            }
            Verdict::Failed(error) => self.done(Err(error)),
            Verdict::Locked(locks) => self.resolve(cx, locks, backoff),
        }
    }

    /// TiKV says that it has committed the transaction in one phase, which it was not asked to do.
    fn committed_unasked(&mut self, commit_ts: u64) -> Poll<End> {
        let (start_ts, primary) = (self.start_ts(), self.primary());
        let detail = format!("committed in one phase, unasked, at {commit_ts}").into();
        let cause = Box::new(Error::Contradiction { start_ts, detail });
        self.done(Err(Error::Undetermined { start_ts, primary, cause }))
    }

    /// Of several errors one that settles the matter counts most, then locks, then a failed assertion: that one may be a
    /// mere consequence of a conflict.
    fn verdict(&self, errors: Vec<kvrpcpb::KeyError>) -> Verdict {
        let mut locks = Vec::new();
        let mut failed_assertion = None;
        for mut error in errors {
            if let Some(lock) = error.locked.take() {
                locks.extend(LockInfo::expand(*lock));
                continue;
            }
            match KeyError::from_proto(error) {
                KeyError::AssertionFailed(failed) => failed_assertion = failed_assertion.or(Some(failed)),
                other => return Verdict::Failed(self.failure(other)),
            }
        }
        if let Some(error) = locks.iter().find_map(|lock| self.hopeless(lock)) {
            return Verdict::Failed(error);
        }
        match failed_assertion {
            Some(failed) if locks.is_empty() => Verdict::Failed(Error::AssertionFailed(failed)),
            _ => Verdict::Locked(locks),
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
        let mut mutations = self.mutations.iter();
        mutations.any(|mutation| mutation.key == *key && matches!(mutation.op, Op::Insert | Op::CheckNotExists))
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
        let Some(lock) = locks.first().cloned() else { return self.prewritten() };
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

    fn primary(&self) -> Key {
        self.request.primary_lock.clone().into()
    }

    fn prewritten(&mut self) -> Poll<End> {
        let primary = &self.request.primary_lock;
        let has_primary = self.mutations.iter().any(|mutation| mutation.key.as_slice() == &primary[..]);
        self.done(Ok(Prewritten { has_primary }))
    }

    fn done(&mut self, result: Result<Prewritten, Error>) -> Poll<End> {
        self.phase = Phase::Ended;
        Poll::Ready(ShardEnd::Done(result))
    }
}

impl Machine for PrewriteBatch {
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
