//! Locks the keys of one batch.
//!
//! ```text
//!              locked, in conflict, refused, or budget spent
//!   start ──► Calling ──────────────────────────────────────► done
//!              ▲ ▲ │ │ the region has changed
//!              │ │ │ └──────────────────────────────────────► relocate
//!              │ │ │ locked by others, not just now
//!              │ │ ▼
//!              │ └ ResolvingLocks     all of them are finished: at once
//!              │   │ one is alive: unless nobody wants to wait any longer
//!              │   ▼
//!              └─ Pausing             only if TiKV has not waited itself
//! ```
//!
//! TiKV lets a request wait for a lock, for up to a second, before it answers that there is one. A lock that was written while
//! the request waited is alive for certain, and nobody is asked about it. Of any other it is found out whether its
//! transaction is alive; if not, its lock is removed.
//!
//! A request can be repeated: TiKV knows the transaction's own lock again, and answers as before.
//!
//! client-go: `actionPessimisticLock.handleSingleBatch`.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tikv_proto::kvrpcpb::{
    self, Assertion, Op, PessimisticLockKeyResultType, PessimisticLockRequest, PessimisticLockResponse,
    PessimisticLockWakeUpMode,
};

use super::{LockOptions, LockWait};
use crate::backoff::{Backoff, BackoffKind};
use crate::canary::Canary;
use crate::config::Config;
use crate::error::{Conflict, ConflictReason, Error, KeyError, LockInfo};
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::lock::{ResolveLocks, Resolved, sleep_for_lock};
use crate::machine::{Context, CurrentPhase, Event, Machine, Token, phases};
use crate::route::{CallEnd, CallError, CallOptions, Keyed, RegionCall, Shard, ShardEnd};
use crate::time::{Time, whole_ms};
use crate::timestamp::Timestamp;

/// A lock that was written less than this ago belongs to a transaction that is alive.
const FRESH_MS: u64 = 300;
/// An answer that took less than this has not waited for the lock: to ask again at once would be to ask without end.
const SERVER_WAITED: Duration = Duration::from_millis(50);
/// Finished locks met before a batch that meets ever new ones backs off.
const RESENDS_WITHOUT_BACKOFF: u32 = 8;
/// How long it then backs off at most, and so for a lock of which nothing more is known, in milliseconds.
const RESEND_BACKOFF_MS: u64 = 100;

/// A key to lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LockItem {
    pub(super) key: Key,
    /// Whether the transaction presumes that the key is absent.
    pub(super) must_not_exist: bool,
}

impl Keyed for LockItem {
    fn key(&self) -> &Key {
        &self.key
    }
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockedKey {
    /// The key.
    pub key: Key,
    /// Whether it is locked: always, but for an absent key that was to be locked only if it exists.
    pub is_locked: bool,
    /// Whether the transaction held the lock before. Then nothing was asked of TiKV, and nothing else is known.
    pub was_locked: bool,
    /// The value, if values were asked for (or the lock met a newer version) and the key exists.
    pub value: Option<bytes::Bytes>,
    /// Whether the key exists, if that (or values) was asked for, or the lock met a newer version.
    pub exists: Option<bool>,
    /// The timestamp that the lock was taken at, and the value is of.
    pub lock_ts: Timestamp,
    /// In fair locking: whether another transaction has committed the key after the timestamp at which it was to be locked.
    /// It is locked as of that commit. What was read before, at the older timestamp, does not fit to it.
    pub in_conflict: bool,
}

impl LockedKey {
    /// A key that is not locked, and of which nothing is known.
    #[must_use]
    pub fn unlocked(key: Key) -> Self {
        let (value, exists, lock_ts) = (None, None, Timestamp::ZERO);
        LockedKey { key, is_locked: false, was_locked: false, value, exists, lock_ts, in_conflict: false }
    }
}

/// How the keys of a call are locked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LockShard {
    pub(super) start_ts: Timestamp,
    pub(super) started_at: Time,
    pub(super) primary: Key,
    pub(super) for_update_ts: Timestamp,
    pub(super) is_first_lock: bool,
    /// Fair locking. One key only.
    pub(super) force: bool,
    /// When the call began.
    pub(super) since: Time,
    pub(super) lock: LockOptions,
    pub(super) call: CallOptions,
    pub(super) batch_bytes: usize,
}

impl LockShard {
    fn request(&self, config: &Config, now: Time, items: &[LockItem]) -> PessimisticLockRequest {
        let is_primary = items.iter().any(|item| item.key == self.primary);
        let shares = config.has_canary(Canary::SharedForExclusive) && !is_primary && !self.force;
        let op = if self.lock.shared || shares { Op::SharedPessimisticLock } else { Op::PessimisticLock };
        let mutation = |item: &LockItem| {
            let absent = item.must_not_exist || self.lock.must_not_exist;
            let assertion = if absent { Assertion::NotExist } else { Assertion::None };
            let (op, assertion) = (op.into(), assertion.into());
            kvrpcpb::Mutation { op, key: item.key.to_bytes(), assertion, ..kvrpcpb::Mutation::default() }
        };
        let wake_up_mode = match self.force {
            true => PessimisticLockWakeUpMode::WakeUpModeForceLock,
            false => PessimisticLockWakeUpMode::WakeUpModeNormal,
        };
        PessimisticLockRequest {
            mutations: items.iter().map(mutation).collect(),
            primary_lock: self.primary.to_bytes(),
            start_version: self.start_ts.version(),
            lock_ttl: whole_ms(now.saturating_since(self.started_at).saturating_add(config.managed_lock_ttl)),
            for_update_ts: self.for_update_ts.version(),
            is_first_lock: self.is_first_lock,
            wait_timeout: self.wait_timeout_ms(now),
            return_values: self.lock.return_values,
            check_existence: self.lock.check_existence,
            min_commit_ts: self.for_update_ts.next().version(),
            lock_only_if_exists: self.lock.lock_only_if_exists,
            wake_up_mode: wake_up_mode.into(),
            ..PessimisticLockRequest::default()
        }
    }

    /// As TiKV takes it: -1 does not wait, 0 waits as long as TiKV is configured to, which is also the longest.
    fn wait_timeout_ms(&self, now: Time) -> i64 {
        let until_deadline = self.call.deadline.saturating_since(now);
        match self.lock.wait.left(self.since, now) {
            Some(left) if left.is_zero() => -1,
            Some(left) => whole_ms_signed(left.min(until_deadline)),
            None if self.lock.wait == LockWait::Default => 0,
            None => whole_ms_signed(until_deadline),
        }
    }

    /// The error of a caller that does not want to wait any longer.
    fn impatience(&self, now: Time, lock: &LockInfo) -> Option<Error> {
        match self.lock.wait {
            LockWait::Always => None,
            LockWait::Default => Some(Error::LockWaitTimeout(Box::new(lock.clone()))),
            LockWait::NoWait => Some(Error::LockedNoWait(Box::new(lock.clone()))),
            LockWait::For(limit) if limit < Duration::from_millis(1) => {
                Some(Error::LockedNoWait(Box::new(lock.clone())))
            }
            wait @ LockWait::For(_) => {
                let is_over = wait.left(self.since, now).is_some_and(|left| left.is_zero());
                is_over.then(|| Error::LockWaitTimeout(Box::new(lock.clone())))
            }
        }
    }
}

impl Shard for LockShard {
    type Item = LockItem;
    type Output = LockEnd;
    type Child = LockBatch;

    fn child(
        &self,
        _: &mut Context<'_>,
        region: Arc<Region>,
        items: Vec<LockItem>,
        backoff: Backoff,
        is_retry: bool,
    ) -> LockBatch {
        LockBatch {
            shard: self.clone(),
            region,
            items,
            is_retry,
            in_doubt: is_retry,
            resends: 0,
            effort: Effort::default(),
            sent_at: Time::ZERO,
            phase: Phase::Starting(backoff),
        }
    }

    fn weight(&self, item: &LockItem) -> usize {
        item.key.len()
    }

    fn batch_limit(&self) -> usize {
        self.batch_bytes
    }

    fn deadline(&self) -> Time {
        self.call.deadline
    }
}

/// The end of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum LockEnd {
    /// All keys are locked.
    Locked { keys: Vec<LockedKey>, effort: Effort },
    /// A version of a key is newer than the lock was to be. None of the keys is locked.
    Conflict { conflict: Box<Conflict>, items: Vec<LockItem>, backoff: Backoff, effort: Effort },
    /// `in_doubt`: some may be locked all the same.
    Failed { error: Error, in_doubt: bool },
}

/// What a batch took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Effort {
    pub(super) requests: u64,
    /// Answers that told of locks.
    pub(super) lock_encounters: u64,
}

/// One batch; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LockBatch {
    /// As it was when the batch was made.
    shard: LockShard,
    region: Arc<Region>,
    items: Vec<LockItem>,
    /// Whether the keys were in a request before.
    is_retry: bool,
    /// Whether such a request may have been executed without an answer.
    in_doubt: bool,
    /// Requests sent again because of locks that were out of the way.
    resends: u32,
    effort: Effort,
    sent_at: Time,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Starting(Backoff),
    Calling(RegionCall<PessimisticLockRequest>),
    ResolvingLocks { resolve: Box<ResolveLocks>, lock: Box<LockInfo> },
    Pausing(Backoff),
    Ended,
}

phases! {
    LockBatch: Phase;
    start => Calling | done;
    Calling => ResolvingLocks | Pausing | done;
    ResolvingLocks => Calling | Pausing | done;
    Pausing => Calling | done;
}

/// What TiKV's key errors amount to.
enum Verdict {
    /// Locks to resolve, if any is not fresh; and one of them all.
    Locked {
        locks: Vec<LockInfo>,
        one: Box<LockInfo>,
    },
    Conflict(Box<Conflict>),
    Failed(Error),
}

type End = ShardEnd<LockItem, LockEnd>;

impl LockBatch {
    /// The keys that no request has named yet, provided that the batch has not been started.
    pub(super) fn keys_never_sent(&self) -> impl Iterator<Item = &Key> {
        let items = if self.is_retry { &[] } else { self.items.as_slice() };
        items.iter().map(|item| &item.key)
    }

    fn send(&mut self, cx: &mut Context<'_>, backoff: Backoff) -> Poll<End> {
        self.sent_at = cx.now();
        self.effort.requests += 1;
        let request = self.shard.request(cx.config(), cx.now(), &self.items);
        let call = RegionCall::to_region(Arc::clone(&self.region), request, self.shard.call.clone(), backoff);
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

    fn on_end(&mut self, cx: &mut Context<'_>, mut end: CallEnd<PessimisticLockResponse>) -> Poll<End> {
        self.in_doubt |= end.maybe_executed;
        if let Err(CallError::Relocate(_)) = end.result {
            self.phase = Phase::Ended;
            return Poll::Ready(ShardEnd::Relocate { items: std::mem::take(&mut self.items), backoff: end.backoff });
        }
        let (backoff, store) = (end.backoff.clone(), end.store.take());
        let address = store.as_ref().map(|store| &store.address);
        match end.into_result("PessimisticLock") {
            Ok(response) => self.on_response(cx, response, backoff, address),
            Err(error) => self.failed(error),
        }
    }

    fn on_response(
        &mut self,
        cx: &mut Context<'_>,
        mut response: PessimisticLockResponse,
        backoff: Backoff,
        address: Option<&Arc<str>>,
    ) -> Poll<End> {
        if cx.config().has_canary(Canary::LockResultIgnored) {
            response.errors.clear();
        }
        if response.errors.is_empty() {
            let ignores_conflict = cx.config().has_canary(Canary::FairConflictIgnored);
            return match self.locked(response, ignores_conflict) {
                Some(keys) => self.done(LockEnd::Locked { keys, effort: self.effort }),
                None => {
                    self.in_doubt = true;
                    let address = address.map_or_else(|| Arc::from(""), Arc::clone);
                    let actual = "an answer for other keys";
                    self.failed(Error::WrongResponse { operation: "PessimisticLock", address, actual })
                }
            };
        }
        let verdict = self.verdict(response.errors);
        self.effort.lock_encounters += u64::from(matches!(verdict, Verdict::Locked { .. }));
        match verdict {
            Verdict::Failed(error) => self.failed(error),
            Verdict::Conflict(conflict) => {
                let items = std::mem::take(&mut self.items);
                self.done(LockEnd::Conflict { conflict, items, backoff, effort: self.effort })
            }
            Verdict::Locked { locks, one } if locks.is_empty() => self.on_blocked(cx, &one, RESEND_BACKOFF_MS, backoff),
            Verdict::Locked { locks, one } => self.resolve(cx, locks, one, backoff),
        }
    }

    /// What is known of the keys; `None` if the answer does not fit to the question.
    fn locked(&self, response: PessimisticLockResponse, ignores_conflict: bool) -> Option<Vec<LockedKey>> {
        if self.shard.force {
            return self.locked_by_force(&response, ignores_conflict);
        }
        let options = &self.shard.lock;
        let (wants_existence, len) = (options.return_values || options.check_existence, self.items.len());
        let has_values = !options.return_values || response.values.len() == len;
        let has_existence = !wants_existence || response.not_founds.len() == len;
        if !has_values || !has_existence || !response.results.is_empty() {
            return None;
        }
        let mut values = response.values.into_iter();
        let mut not_founds = response.not_founds.into_iter();
        let locked = self.items.iter().map(|item| {
            let exists = not_founds.next().filter(|_| wants_existence).map(|not_found| !not_found);
            let value = values.next().filter(|_| options.return_values && exists == Some(true));
            self.locked_key(item, exists, value, self.shard.for_update_ts, false)
        });
        Some(locked.collect())
    }

    fn locked_by_force(&self, response: &PessimisticLockResponse, ignores_conflict: bool) -> Option<Vec<LockedKey>> {
        let ([item], [result]) = (self.items.as_slice(), response.results.as_slice()) else { return None };
        let options = &self.shard.lock;
        let conflict_ts = Timestamp::from_version(result.locked_with_conflict_ts);
        let (lock_ts, in_conflict) = match result.r#type() {
            PessimisticLockKeyResultType::LockResultNormal => (self.shard.for_update_ts, false),
            PessimisticLockKeyResultType::LockResultLockedWithConflict if ignores_conflict => {
                (self.shard.for_update_ts, false)
            }
            PessimisticLockKeyResultType::LockResultLockedWithConflict if conflict_ts > self.shard.for_update_ts => {
                (conflict_ts, true)
            }
            _ => return None,
        };
        let knows = options.return_values || options.check_existence || in_conflict;
        let exists = knows.then_some(result.existence);
        let has_value = (options.return_values || in_conflict) && result.existence;
        let value = has_value.then(|| result.value.clone());
        Some(vec![self.locked_key(item, exists, value, lock_ts, in_conflict)])
    }

    fn locked_key(
        &self,
        item: &LockItem,
        exists: Option<bool>,
        value: Option<bytes::Bytes>,
        lock_ts: Timestamp,
        in_conflict: bool,
    ) -> LockedKey {
        let is_locked = !self.shard.lock.lock_only_if_exists || exists == Some(true);
        LockedKey { key: item.key.clone(), is_locked, was_locked: false, value, exists, lock_ts, in_conflict }
    }

    /// An error that is no lock settles the matter.
    fn verdict(&self, errors: Vec<kvrpcpb::KeyError>) -> Verdict {
        let (mut locks, mut one) = (Vec::new(), None);
        for mut error in errors {
            if let Some(lock) = error.locked.take() {
                for lock in LockInfo::expand(*lock) {
                    one = one.or_else(|| Some(Box::new(lock.clone())));
                    // Zero: TiKV does not say.
                    let is_fresh = (1..FRESH_MS).contains(&lock.duration_since_update_ms);
                    locks.extend((!is_fresh).then_some(lock));
                }
                continue;
            }
            return match KeyError::from_proto(error) {
                KeyError::Conflict(conflict) => self.conflict(conflict),
                KeyError::AlreadyExists { key } => Verdict::Failed(Error::KeyExists { key }),
                KeyError::Deadlock(deadlock) => Verdict::Failed(Error::Deadlock(deadlock)),
                other => Verdict::Failed(Error::Key(other)),
            };
        }
        match one {
            Some(one) => Verdict::Locked { locks, one },
            None => Verdict::Failed(Error::Key(KeyError::Unknown)),
        }
    }

    /// The record of one's own rollback bears one's own start_ts, and is no matter of a newer timestamp. Another transaction
    /// may have that start_ts for its commit_ts, if its prewrites decided it: a conflict like any other.
    fn conflict(&self, conflict: Box<Conflict>) -> Verdict {
        let start_ts = self.shard.start_ts;
        let is_own_record = conflict.conflict_ts == start_ts && conflict.conflict_commit_ts == start_ts;
        if conflict.reason == ConflictReason::SelfRolledBack || is_own_record {
            return Verdict::Failed(Error::RolledBack { start_ts, reason: KeyError::Conflict(conflict) });
        }
        Verdict::Conflict(conflict)
    }

    fn resolve(
        &mut self,
        cx: &mut Context<'_>,
        locks: Vec<LockInfo>,
        lock: Box<LockInfo>,
        backoff: Backoff,
    ) -> Poll<End> {
        let options = self.shard.call.clone();
        let mut resolve = ResolveLocks::for_write(Timestamp::ZERO, locks, options, backoff);
        match resolve.start(cx) {
            Poll::Ready(resolved) => self.on_resolved(cx, &lock, resolved),
            Poll::Pending => {
                self.phase = Phase::ResolvingLocks { resolve: Box::new(resolve), lock };
                Poll::Pending
            }
        }
    }

    fn on_resolved(&mut self, cx: &mut Context<'_>, lock: &LockInfo, resolved: Resolved) -> Poll<End> {
        let backoff = resolved.backoff;
        match resolved.result {
            Err(error) => self.failed(error),
            Ok(resolution) if resolution.ms_before_expired > 0 => {
                self.on_blocked(cx, lock, resolution.ms_before_expired, backoff)
            }
            Ok(_) => {
                self.resends += 1;
                match self.resends <= RESENDS_WITHOUT_BACKOFF {
                    true => self.send(cx, backoff),
                    false => self.pause(cx, lock, RESEND_BACKOFF_MS, backoff),
                }
            }
        }
    }

    /// A live transaction holds the lock.
    fn on_blocked(
        &mut self,
        cx: &mut Context<'_>,
        lock: &LockInfo,
        ms_before_expired: u64,
        backoff: Backoff,
    ) -> Poll<End> {
        if let Some(error) = self.shard.impatience(cx.now(), lock) {
            return self.failed(error);
        }
        if cx.now().saturating_since(self.sent_at) >= SERVER_WAITED {
            return self.send(cx, backoff);
        }
        let left = self.shard.lock.wait.left(self.shard.since, cx.now());
        let most_ms = left.map_or(u64::MAX, whole_ms);
        self.pause(cx, lock, ms_before_expired.min(most_ms), backoff)
    }

    fn pause(&mut self, cx: &mut Context<'_>, lock: &LockInfo, most_ms: u64, mut backoff: Backoff) -> Poll<End> {
        match sleep_for_lock(cx, &mut backoff, BackoffKind::TxnLock, most_ms, lock, self.shard.call.deadline) {
            Ok(_) => {
                self.phase = Phase::Pausing(backoff);
                Poll::Pending
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: Error) -> Poll<End> {
        self.done(LockEnd::Failed { error, in_doubt: self.in_doubt })
    }

    fn done(&mut self, end: LockEnd) -> Poll<End> {
        self.phase = Phase::Ended;
        Poll::Ready(ShardEnd::Done(end))
    }
}

impl Machine for LockBatch {
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
            (Phase::Pausing(backoff), Event::Woken) => self.send(cx, backoff),
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

/// At least one: zero would mean something else to TiKV.
fn whole_ms_signed(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).max(1)
}
