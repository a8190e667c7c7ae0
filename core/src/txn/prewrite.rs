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
//! Where prewrites [decide](super::decision), one that was never answered may have decided, or may still: its failure leaves the
//! outcome open. That a key was refused for good holds for every earlier attempt. That it is locked does not: an attempt
//! which arrives late may find it free.
//!
//! A prewrite can be repeated: TiKV knows its own lock again. Every repetition says that it is one, also after a region
//! has split, so that TiKV looks for what an earlier attempt may have left.
//!
//! client-go: `prewrite1BatchReqHandler`.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use smallvec::SmallVec;
use tikv_proto::kvrpcpb::prewrite_request::ForUpdateTsConstraint;
use tikv_proto::kvrpcpb::{self, Op, PrewriteRequest, PrewriteResponse};

use super::decision::Verdict;
use super::{Mutation, OnLock, refusal};
use crate::backoff::{Backoff, BackoffKind};
use crate::canary::Canary;
use crate::error::{Conflict, ConflictReason, Error, KeyError, LockInfo};
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::lock::{ResolveLocks, Resolved, sleep_for_lock};
use crate::machine::{Context, CurrentPhase, Event, Machine, Token, phases};
use crate::request::Shared;
use crate::route::{CallEnd, CallError, CallOptions, Group, RegionCall, Shard, ShardEnd, Unlocated};
use crate::time::Time;
use crate::timestamp::Timestamp;

/// Locks resolved at once, without a wait, before a batch that meets ever new ones backs off.
const RESENDS_WITHOUT_BACKOFF: u32 = 8;
/// How long it then backs off at most, in milliseconds.
const RESEND_BACKOFF_MS: u64 = 100;

/// How the mutations of a transaction are prewritten.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PrewriteShard {
    pub(super) template: PrewriteTemplate,
    pub(super) options: CallOptions,
    pub(super) on_lock: OnLock,
    pub(super) batch_bytes: usize,
    /// Keys in each region when they were first grouped. A resolver that meets a lock of a large transaction resolves the
    /// whole region.
    pub(super) region_keys: RegionKeys,
    /// All mutations of the transaction: one phase is enough only for a request that has them all.
    pub(super) mutation_count: usize,
    /// The keys that the transaction locks, in order.
    pub(super) locked_keys: Arc<[Key]>,
}

/// What all prewrites of a transaction say, in the words of [`PrewriteRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PrewriteTemplate {
    pub(super) primary_lock: Bytes,
    pub(super) start_version: u64,
    pub(super) lock_ttl: u64,
    pub(super) for_update_ts: u64,
    pub(super) min_commit_ts: u64,
    pub(super) max_commit_ts: u64,
    pub(super) assertion_level: i32,
    pub(super) use_async_commit: bool,
    pub(super) try_one_pc: bool,
}

impl PrewriteTemplate {
    fn request(&self, txn_size: u64) -> PrewriteRequest {
        PrewriteRequest {
            txn_size,
            primary_lock: self.primary_lock.clone(),
            start_version: self.start_version,
            lock_ttl: self.lock_ttl,
            for_update_ts: self.for_update_ts,
            min_commit_ts: self.min_commit_ts,
            max_commit_ts: self.max_commit_ts,
            assertion_level: self.assertion_level,
            use_async_commit: self.use_async_commit,
            try_one_pc: self.try_one_pc,
            ..PrewriteRequest::default()
        }
    }
}

/// How many keys there are in each region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RegionKeys {
    /// Ids and numbers, in the order of the ids.
    counts: SmallVec<[(u64, u64); 1]>,
}

impl RegionKeys {
    pub(super) fn of(groups: &[Group<Mutation>]) -> Self {
        let mut counts = SmallVec::new();
        for group in groups {
            counts.push((group.region.ver_id.id, group.items.len() as u64));
        }
        counts.sort_unstable();
        RegionKeys { counts }
    }

    fn get(&self, region_id: u64) -> Option<u64> {
        let place = self.counts.binary_search_by_key(&region_id, |(id, _)| *id).ok()?;
        Some(self.counts[place].1)
    }
}

impl Shard for PrewriteShard {
    type Item = Mutation;
    type Output = Result<Prewritten, NotPrewritten>;
    type Child = PrewriteBatch;

    fn child(
        &self,
        cx: &mut Context<'_>,
        region: Arc<Region>,
        mutations: Vec<Mutation>,
        backoff: Backoff,
        is_retry: bool,
    ) -> PrewriteBatch {
        let maybe_locked = mutations.iter().any(|mutation| mutation.maybe_locked);
        // Once regions have changed the count is not known any more; the largest keeps resolvers from resolving too little.
        let region_keys = if is_retry { None } else { self.region_keys.get(region.ver_id.id) };
        let request = self.template.request(region_keys.unwrap_or(u64::MAX));
        let mut request = if request.for_update_ts == 0 { request } else { pessimistic(request, &mutations) };
        // Collected in place they would be moved to a smaller piece of memory, which costs more than a new one.
        request.mutations = Vec::with_capacity(mutations.len());
        request.mutations.extend(mutations.into_iter().map(Mutation::into_proto));
        self.choose_mode(cx, &mut request, maybe_locked);
        let request = falsified(cx, request);
        PrewriteBatch {
            region,
            request: Shared::new(request),
            options: self.options.clone(),
            on_lock: self.on_lock,
            located_at: Some(cx.now()),
            is_retry,
            maybe_locked,
            answered_by_leader: false,
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

impl PrewriteShard {
    /// One phase is for a request with all mutations. If an earlier one of that kind may have been executed, its parts are
    /// prewritten as for an async commit: then TiKV's answers tell the commit_ts, whether the parts are committed or locked.
    fn choose_mode(&self, cx: &Context<'_>, request: &mut PrewriteRequest, maybe_locked: bool) {
        let is_whole =
            request.mutations.len() == self.mutation_count || cx.config().has_canary(Canary::OnePhaseInParts);
        if request.try_one_pc && !is_whole {
            request.try_one_pc = false;
            request.use_async_commit |= maybe_locked;
        }
        let has_primary = || request.mutations.iter().any(|mutation| mutation.key == request.primary_lock);
        if request.use_async_commit && has_primary() && !cx.config().has_canary(Canary::SecondariesNotNamed) {
            request.secondaries = self.secondaries();
        }
    }

    fn secondaries(&self) -> Vec<Bytes> {
        let mut keys: Vec<_> = self.locked_keys.iter().map(Key::to_bytes).collect();
        if let Ok(primary) = keys.binary_search(&self.template.primary_lock) {
            keys.remove(primary);
        }
        keys
    }
}

/// The request with what TiKV has to know of each key of a pessimistic transaction.
fn pessimistic(mut request: PrewriteRequest, mutations: &[Mutation]) -> PrewriteRequest {
    request.pessimistic_actions = mutations.iter().map(|mutation| mutation.action.into()).collect();
    let constraints = (0..).zip(mutations).filter(|(_, mutation)| !mutation.expected_for_update_ts.is_zero());
    let constraints = constraints.map(|(index, mutation)| ForUpdateTsConstraint {
        index,
        expected_for_update_ts: mutation.expected_for_update_ts.version(),
    });
    request.for_update_ts_constraints = constraints.collect();
    request
}

/// What was put into a request, to be put into others.
fn mutations_of(request: &PrewriteRequest, maybe_locked: bool) -> Vec<Mutation> {
    let named = request.mutations.iter().map(Mutation::from_proto);
    let mut mutations: Vec<_> = named.map(|mutation| Mutation { maybe_locked, ..mutation }).collect();
    for (mutation, action) in mutations.iter_mut().zip(request.pessimistic_actions()) {
        mutation.action = action;
    }
    for constraint in &request.for_update_ts_constraints {
        if let Some(mutation) = mutations.get_mut(constraint.index as usize) {
            mutation.expected_for_update_ts = Timestamp::from_version(constraint.expected_for_update_ts);
        }
    }
    mutations
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Prewritten {
    /// Whether the primary is among them.
    pub(super) has_primary: bool,
    /// Their region, if its leader is still the one that answered.
    pub(super) region: Option<Arc<Region>>,
    /// What that means for the transaction.
    pub(super) verdict: Verdict,
    /// How often it was sent again because of locks.
    pub(super) resends: u32,
}

/// Why a batch is not prewritten, as far as one knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct NotPrewritten {
    pub(super) error: Error,
    /// Whether an attempt that was not answered may have been executed.
    pub(super) maybe_locked: bool,
}

/// What was not prewritten before cannot be now: nobody knows where.
impl From<Unlocated<Mutation>> for NotPrewritten {
    fn from(Unlocated { items, error }: Unlocated<Mutation>) -> Self {
        NotPrewritten { error, maybe_locked: items.iter().all(|item| item.maybe_locked) }
    }
}

/// One batch; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PrewriteBatch {
    region: Arc<Region>,
    /// It names the mutations.
    request: Shared<PrewriteRequest>,
    options: CallOptions,
    on_lock: OnLock,
    /// When the batch was made, of keys that had just been located; `None` once it has been sent.
    located_at: Option<Time>,
    /// Whether the mutations were in a request before.
    is_retry: bool,
    /// Whether an attempt that was not answered may have been executed.
    maybe_locked: bool,
    /// Whether the last answer came from the leader that the region had when the batch was made.
    answered_by_leader: bool,
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
enum Obstacle {
    Locked(Vec<LockInfo>),
    /// It ends the transaction, though an earlier attempt may have met something else, or one that arrives late may.
    Hopeless(Error),
    /// It ends the transaction, and holds for every attempt.
    Refused(Error),
}

type End = ShardEnd<Mutation, Result<Prewritten, NotPrewritten>>;

impl PrewriteBatch {
    /// The keys that no request of this transaction has named yet, provided that the batch has not been started.
    pub(super) fn keys_never_sent(&self) -> impl Iterator<Item = &[u8]> {
        let mutations = if self.is_retry { &[] } else { self.request.mutations.as_slice() };
        mutations.iter().map(|mutation| &mutation.key[..])
    }

    /// Whether its keys may be locked.
    pub(super) fn may_be_locked(&self) -> bool {
        self.maybe_locked || matches!(&self.phase, Phase::Calling(call) if call.may_be_executed())
    }

    fn start_ts(&self) -> Timestamp {
        Timestamp::from_version(self.request.start_version)
    }

    fn send(&mut self, cx: &mut Context<'_>, backoff: Backoff) -> Poll<End> {
        let (region, request, options) = (&self.region, &self.request, &self.options);
        let call = RegionCall::to_region(Arc::clone(region), request.clone(), options.clone(), backoff);
        // Most batches are sent in the step in which their keys are located.
        let is_fresh = self.located_at.take() == Some(cx.now());
        self.phase = Phase::Calling(call.repeatable().as_retry(self.is_retry).fresh(is_fresh));
        self.is_retry = true;
        self.call(cx, RegionCall::start)
    }

    fn call(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(&mut RegionCall<PrewriteRequest>, &mut Context<'_>) -> Poll<CallEnd<PrewriteResponse>>,
    ) -> Poll<End> {
        let Phase::Calling(call) = &mut self.phase else { return Poll::Pending };
        match step(call, cx) {
            Poll::Ready(end) => self.on_end(cx, end),
            Poll::Pending => Poll::Pending,
        }
    }

    fn on_end(&mut self, cx: &mut Context<'_>, end: CallEnd<PrewriteResponse>) -> Poll<End> {
        self.maybe_locked |= end.maybe_executed;
        self.answered_by_leader = end.is_of_leader();
        if let Err(CallError::Relocate(_)) = end.result {
            self.phase = Phase::Ended;
            let items = mutations_of(&self.request, self.maybe_locked);
            return Poll::Ready(ShardEnd::Relocate { items, backoff: end.backoff });
        }
        let backoff = end.backoff.clone();
        match end.into_result("Prewrite") {
            Ok(response) => self.on_response(cx, response, backoff),
            Err(error) => self.done(Err(error)),
        }
    }

    fn on_response(&mut self, cx: &mut Context<'_>, response: PrewriteResponse, backoff: Backoff) -> Poll<End> {
        let [min_commit_ts, commit_ts] =
            [response.min_commit_ts, response.one_pc_commit_ts].map(Timestamp::from_version);
        if !commit_ts.is_zero() && (!self.request.try_one_pc || commit_ts <= self.start_ts()) {
            return self.contradiction(format!("committed in one phase, unasked or too early, at {commit_ts}"));
        }
        if response.errors.is_empty() {
            let by_primary = min_commit_ts.is_zero() || !self.request.use_async_commit;
            return match commit_ts {
                Timestamp::ZERO if by_primary => self.prewritten(Verdict::Locked),
                Timestamp::ZERO if min_commit_ts <= self.start_ts() => {
                    self.contradiction(format!("locked to commit at {min_commit_ts}"))
                }
                Timestamp::ZERO => self.prewritten(Verdict::LockedToCommit(min_commit_ts)),
                commit_ts => self.prewritten(Verdict::Committed(commit_ts)),
            };
        }
        match self.obstacle(response.errors) {
            Obstacle::Refused(Error::WriteConflict(_)) if cx.config().has_canary(Canary::ConflictsIgnored) => {
                self.prewritten(Verdict::Locked)
            }
            Obstacle::Refused(error) => {
                self.maybe_locked = false;
                self.done(Err(error))
            }
            Obstacle::Hopeless(error) => self.done(Err(error)),
            Obstacle::Locked(locks) => self.resolve(cx, locks, backoff),
        }
    }

    /// TiKV says what cannot be.
    fn contradiction(&mut self, detail: String) -> Poll<End> {
        let (start_ts, primary) = (self.start_ts(), self.primary());
        let cause = Box::new(Error::Contradiction { start_ts, detail: detail.into() });
        self.done(Err(Error::Undetermined { start_ts, primary, cause }))
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
                error @ (KeyError::Retryable(_) | KeyError::Unknown) => return Obstacle::Hopeless(self.failure(error)),
                error => return Obstacle::Refused(self.failure(error)),
            }
        }
        if let Some(error) = locks.iter().find_map(|lock| self.hopeless(lock)) {
            return Obstacle::Hopeless(error);
        }
        match failed_assertion {
            Some(failed) if locks.is_empty() => Obstacle::Refused(Error::AssertionFailed(failed)),
            _ => Obstacle::Locked(locks),
        }
    }

    fn failure(&self, error: KeyError) -> Error {
        match error {
            // That a key exists matters only where its absence was presumed.
            KeyError::AlreadyExists { key } if !self.presumes_absent(&key) => {
                Error::Key(KeyError::AlreadyExists { key })
            }
            // TiKV has no field of its own for a pessimistic lock that is gone.
            KeyError::Abort(_) if self.is_pessimistic() => {
                Error::PessimisticLockLost { start_ts: self.start_ts(), reason: error }
            }
            error => refusal::of_prewrite(self.start_ts(), &self.primary(), error),
        }
    }

    fn is_pessimistic(&self) -> bool {
        self.request.for_update_ts != 0
    }

    fn presumes_absent(&self, key: &Key) -> bool {
        let mut mutations = self.request.mutations.iter();
        mutations
            .any(|mutation| mutation.key == key.as_slice() && matches!(mutation.op(), Op::Insert | Op::CheckNotExists))
    }

    /// Why it makes no sense to resolve a lock: its transaction is younger, so that whatever becomes of it is a conflict (but
    /// to a pessimistic transaction, which may write over what is younger); or the caller does not want to; or it is one's
    /// own, which TiKV never complains of.
    fn hopeless(&self, lock: &LockInfo) -> Option<Error> {
        if lock.start_ts == self.start_ts() {
            return Some(Error::Locked(Box::new(lock.clone())));
        }
        if (lock.start_ts < self.start_ts() || self.is_pessimistic()) && self.on_lock == OnLock::Resolve {
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
        let Some(lock) = locks.first().cloned() else { return self.prewritten(Verdict::Locked) };
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

    fn prewritten(&mut self, verdict: Verdict) -> Poll<End> {
        let primary = &self.request.primary_lock;
        let has_primary = self.request.mutations.iter().any(|mutation| mutation.key == primary);
        let region = self.answered_by_leader.then(|| Arc::clone(&self.region));
        self.done(Ok(Prewritten { has_primary, region, verdict, resends: self.resends }))
    }

    fn done(&mut self, result: Result<Prewritten, Error>) -> Poll<End> {
        self.phase = Phase::Ended;
        let maybe_locked = self.maybe_locked;
        Poll::Ready(ShardEnd::Done(result.map_err(|error| NotPrewritten { error, maybe_locked })))
    }
}

impl Machine for PrewriteBatch {
    type Output = End;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Phase::Starting(backoff) = &mut self.phase else { return Poll::Pending };
        let backoff = backoff.take();
        self.send(cx, backoff)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<End> {
        // What is as large as a call stays where it is.
        if let Phase::Calling(_) = self.phase {
            return self.call(cx, |call, cx| call.handle(cx, token, event));
        }
        match (std::mem::replace(&mut self.phase, Phase::Ended), event) {
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
