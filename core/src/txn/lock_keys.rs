//! Locks keys of a pessimistic transaction before it writes them.
//!
//! ```text
//!            timestamp           located              primary locked               all locked
//!  start ──► FetchingTimestamp ──► Grouping ──► LockingPrimary ──► LockingOthers ──────────► done
//!                                                  │      refused     │
//!                                                  └────────┬─────────┘
//!                 releases what is locked in the background ▼ (RollingBack ──► Pausing after a deadlock of its own)
//!                                                         failed
//! ```
//!
//! - The batch that holds the primary comes first and alone: whoever meets another of the locks asks at the primary what
//!   became of the transaction. The first key that a transaction locks is its primary. From that lock on a heartbeat keeps the
//!   transaction alive; the owner of the transaction has to go on with it ([`Locked::next_beat`]).
//! - A key that another transaction has committed after the timestamp of the lock is in conflict. As the caller wishes, that
//!   ends the call, or the keys of that batch are tried again at a newer timestamp; other keys keep their locks, and what was
//!   read of them, since nobody can have changed them.
//! - Any other failure ends the call. What it has locked (or may have locked, by requests that were not answered) is released
//!   in the background; keys that the transaction had locked before stay locked. A pessimistic lock carries no data, so that
//!   there is no undetermined outcome: it is there or not, and nobody sees anything of it.
//! - If the lock that closes the circle of a deadlock was taken by this very call, then the call ends when that is released,
//!   and a little later, so that the other transaction goes first: the caller can simply try again.
//!
//! An owner that loses interest gets released what may be locked.
//!
//! client-go: `KVTxn.LockKeys`.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Poll;
use std::time::Duration;

use super::batches::primary_first;
use super::heartbeat::{Heartbeat, HeartbeatEnd};
use super::lock_keys_batch::{Effort, LockBatch, LockEnd, LockItem, LockShard, LockedKey};
use super::pessimistic_rollback::PessimisticRollback;
use super::{LockOptions, OnConflict};
use crate::backoff::{Backoff, budget};
use crate::canary::Canary;
use crate::error::{Conflict, Error};
use crate::key::Key;
use crate::machine::{
    Abandoned, Context, CurrentPhase, Event, FanOut, Machine, Observation, SleepReason, Token, phases,
};
use crate::oracle::FetchTimestamp;
use crate::route::{self, CallOptions, Group, Grouped, Grouping, Sharded, Unlocated};
use crate::time::Time;
use crate::timestamp::Timestamp;

/// Conflicts in one call after which it gives up. Each of them means that another transaction has committed.
const MAX_CONFLICTS: u32 = 256;
/// How long the other transaction of a deadlock gets to take the lock.
const AFTER_DEADLOCK: Duration = Duration::from_millis(5);

/// What is to be locked. Made by [`Transaction::begin_lock`](super::Transaction::begin_lock).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockRequest {
    pub(super) start_ts: Timestamp,
    pub(super) started_at: Time,
    /// In order, each once, none of them locked. May be empty: then there is nothing to do.
    pub(super) items: Vec<LockItem>,
    /// Keys of the call that the transaction holds already, and what is known of them.
    pub(super) held: Vec<LockedKey>,
    /// Whether an earlier attempt of fair locking may have left the keys locked.
    pub(super) may_be_held: bool,
    /// What an earlier attempt of fair locking has locked in vain.
    pub(super) release: Option<Box<PessimisticRollback>>,
    pub(super) primary: Key,
    /// Whether the primary is one of the keys, and not locked yet.
    pub(super) chooses_primary: bool,
    /// Whether the transaction has locked nothing, so that nobody can wait for it: it is part of no deadlock.
    pub(super) is_first_lock: bool,
    /// Whether it is locked in the way of fair locking. One key only.
    pub(super) force: bool,
    pub(super) lock: LockOptions,
    pub(super) call: CallOptions,
    /// How what is locked in vain is released.
    pub(super) upkeep: CallOptions,
}

impl LockRequest {
    /// The keys that are going to be locked, in order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.items.iter().map(|item| &item.key)
    }
}

/// The keys are locked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Locked {
    /// What became of each key, in their order.
    pub keys: Vec<LockedKey>,
    /// The newest timestamp at which a key was locked; zero if there was nothing to lock.
    pub for_update_ts: Timestamp,
    /// When the lock of the primary has to be extended next, if it was locked by this call.
    pub next_beat: Option<Time>,
    /// What it took.
    pub details: LockDetails,
}

/// What locking keys took. client-go: `util.LockKeysDetails`; how long it took, whoever calls can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LockDetails {
    /// Keys that TiKV was asked to lock. client-go: `LockKeys`.
    pub keys: u64,
    /// Regions they were in when the call began. client-go: `RegionNum`.
    pub regions: u64,
    /// Requests, of which routing may have sent some more than once. client-go: `LockRPCCount`.
    pub requests: u64,
    /// Answers that told of locks of other transactions, which were resolved or waited for.
    pub lock_encounters: u64,
    /// How often a newer version made a lock be tried again, at a newer timestamp. client-go: `RetryCount`.
    pub conflicts: u64,
    /// Keys that were locked in spite of a newer version, by fair locking. client-go: `LockedWithConflictCount`.
    pub locked_in_conflict: u64,
}

impl LockDetails {
    /// What two calls took.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        LockDetails {
            keys: self.keys + other.keys,
            regions: self.regions + other.regions,
            requests: self.requests + other.requests,
            lock_encounters: self.lock_encounters + other.lock_encounters,
            conflicts: self.conflicts + other.conflicts,
            locked_in_conflict: self.locked_in_conflict + other.locked_in_conflict,
        }
    }
}

/// Locks keys for a pessimistic transaction; see the module documentation for its states. Ends with what became of each key.
///
/// Every error means that none of the keys stays locked that the transaction did not hold before: [`Error::WriteConflict`],
/// [`Error::KeyExists`], [`Error::Deadlock`], [`Error::LockWaitTimeout`], [`Error::LockedNoWait`], [`Error::RolledBack`] of a
/// transaction that somebody else has ended, [`Error::Locked`] and [`Error::RetriesExhausted`] of spent budgets,
/// [`Error::DeadlineExceeded`].
///
/// client-go: `KVTxn.LockKeys`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockKeys {
    request: LockRequest,
    for_update_ts: Timestamp,
    /// The newest timestamp at which any lock may have been taken.
    newest_lock_ts: Timestamp,
    locked: BTreeMap<Key, LockedKey>,
    since: Time,
    /// Keys in conflict, until there is a newer timestamp.
    in_conflict: Vec<(Vec<LockItem>, Backoff)>,
    conflicts: u32,
    regions: u64,
    effort: Effort,
    /// The newer timestamp; at most one is fetched.
    renewal: FanOut<FetchTimestamp>,
    /// At most one.
    heartbeat: FanOut<Heartbeat>,
    next_beat: Option<Time>,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Starting,
    FetchingTimestamp(FetchTimestamp),
    Grouping(Grouping<LockItem>),
    /// The other groups wait for the primary's.
    LockingPrimary(Box<Sharded<LockShard>>, Vec<Group<LockItem>>, Backoff),
    LockingOthers(Box<Sharded<LockShard>>),
    /// After a deadlock.
    RollingBack(Box<PessimisticRollback>, Box<Error>),
    Pausing(Box<Error>),
    Ended,
}

phases! {
    LockKeys: Phase;
    start => FetchingTimestamp | Grouping | LockingPrimary | LockingOthers | done;
    FetchingTimestamp => Grouping | LockingPrimary | LockingOthers | done;
    Grouping => LockingPrimary | LockingOthers | done;
    LockingPrimary => LockingOthers | RollingBack | done;
    LockingOthers => RollingBack | done;
    RollingBack => Pausing;
    Pausing => done;
}

type End = Result<Locked, Error>;

impl LockKeys {
    /// Locks what `request` says.
    #[must_use]
    pub fn new(request: LockRequest) -> Self {
        LockKeys {
            request,
            for_update_ts: Timestamp::ZERO,
            newest_lock_ts: Timestamp::ZERO,
            locked: BTreeMap::new(),
            since: Time::ZERO,
            in_conflict: Vec::new(),
            conflicts: 0,
            regions: 0,
            effort: Effort::default(),
            renewal: FanOut::new(1),
            heartbeat: FanOut::new(1),
            next_beat: None,
            phase: Phase::Starting,
        }
    }

    fn fetch_timestamp(
        &mut self,
        cx: &mut Context<'_>,
        mut fetch: FetchTimestamp,
        step: impl FnOnce(&mut FetchTimestamp, &mut Context<'_>) -> Poll<Result<Timestamp, Error>>,
    ) -> Poll<End> {
        match step(&mut fetch, cx) {
            Poll::Ready(Ok(timestamp)) => self.group(cx, timestamp),
            Poll::Ready(Err(error)) => self.done(Err(error)),
            Poll::Pending => {
                self.phase = Phase::FetchingTimestamp(fetch);
                Poll::Pending
            }
        }
    }

    fn group(&mut self, cx: &mut Context<'_>, for_update_ts: Timestamp) -> Poll<End> {
        self.for_update_ts = for_update_ts;
        self.newest_lock_ts = for_update_ts;
        let backoff = route::budget(cx.config(), budget::PESSIMISTIC_LOCK);
        let mut grouping = Grouping::new(self.request.items.clone(), backoff).with_deadline(self.request.call.deadline);
        match grouping.start(cx) {
            Poll::Ready(grouped) => self.on_grouped(cx, grouped),
            Poll::Pending => {
                self.phase = Phase::Grouping(grouping);
                Poll::Pending
            }
        }
    }

    fn on_grouped(&mut self, cx: &mut Context<'_>, grouped: Grouped<LockItem>) -> Poll<End> {
        let groups = match grouped.result {
            Ok(groups) => groups,
            // Nothing has been sent yet.
            Err(Unlocated { error, .. }) => return self.done(Err(error)),
        };
        self.regions = groups.len() as u64;
        let mut batches = Box::new(Sharded::new(self.shard(cx), cx.config().operation_concurrency));
        let mut others = primary_first(groups, &self.request.primary, batches.shard());
        if !self.request.chooses_primary {
            for group in others {
                batches.add_group(cx, group, &grouped.backoff, false);
            }
            batches.run(cx);
            return self.on_batches(cx, batches, None);
        }
        for first in others.drain(..others.len().min(1)) {
            batches.add_group(cx, first, &grouped.backoff, false);
        }
        batches.run(cx);
        self.on_batches(cx, batches, Some((others, grouped.backoff)))
    }

    fn shard(&self, cx: &Context<'_>) -> LockShard {
        let LockRequest { start_ts, started_at, is_first_lock, force, lock, .. } = self.request;
        LockShard {
            start_ts,
            started_at,
            primary: self.request.primary.clone(),
            for_update_ts: self.for_update_ts,
            is_first_lock,
            force,
            since: self.since,
            lock,
            call: self.request.call.clone(),
            batch_bytes: cx.config().txn_batch_bytes,
        }
    }

    /// `others` wait for the primary.
    fn on_batches(
        &mut self,
        cx: &mut Context<'_>,
        mut batches: Box<Sharded<LockShard>>,
        mut others: Option<(Vec<Group<LockItem>>, Backoff)>,
    ) -> Poll<End> {
        loop {
            while let Some(end) = batches.next_finished(cx) {
                let failure = match end {
                    Ok(LockEnd::Locked { keys, effort }) => {
                        self.count(effort);
                        self.add(cx, keys);
                        continue;
                    }
                    Ok(LockEnd::Conflict { conflict, items, backoff, effort }) => {
                        self.count(effort);
                        match self.on_conflict(cx, conflict, items, backoff) {
                            None => continue,
                            Some(error) => (error, false),
                        }
                    }
                    Ok(LockEnd::Failed { error, in_doubt }) => (error, in_doubt),
                    Err(Unlocated { error, .. }) => (error, true),
                };
                let others = others.map_or(Vec::new(), |(others, _)| others);
                return self.fail(cx, batches, &others, failure.0, failure.1);
            }
            // It may have failed at once, without a question.
            match self.renewal.next_finished(cx) {
                Some((_, Ok(timestamp))) => {
                    self.renew(cx, &mut batches, timestamp);
                    continue;
                }
                Some((_, Err(error))) => {
                    let others = others.map_or(Vec::new(), |(others, _)| others);
                    return self.fail(cx, batches, &others, error, false);
                }
                None => {}
            }
            if !batches.is_idle() || !self.renewal.is_idle() {
                self.phase = match others {
                    Some((others, backoff)) => Phase::LockingPrimary(batches, others, backoff),
                    None => Phase::LockingOthers(batches),
                };
                return Poll::Pending;
            }
            // The primary is locked.
            let Some((waiting, backoff)) = others.take() else { break };
            for group in waiting {
                batches.add_group(cx, group, &backoff, false);
            }
            batches.run(cx);
        }
        let (for_update_ts, next_beat, details) = (self.for_update_ts, self.next_beat, self.details());
        let mut keys: Vec<_> = std::mem::take(&mut self.locked).into_values().collect();
        keys.append(&mut self.request.held);
        keys.sort_by(|a, b| a.key.cmp(&b.key));
        self.heartbeat.cancel_all(cx);
        self.done(Ok(Locked { keys, for_update_ts, next_beat, details }))
    }

    fn count(&mut self, effort: Effort) {
        self.effort.requests += effort.requests;
        self.effort.lock_encounters += effort.lock_encounters;
    }

    fn details(&self) -> LockDetails {
        LockDetails {
            keys: self.request.items.len() as u64,
            regions: self.regions,
            requests: self.effort.requests,
            lock_encounters: self.effort.lock_encounters,
            conflicts: u64::from(self.conflicts),
            locked_in_conflict: self.locked.values().filter(|key| key.in_conflict).count() as u64,
        }
    }

    fn add(&mut self, cx: &mut Context<'_>, keys: Vec<LockedKey>) {
        for key in keys {
            self.newest_lock_ts = self.newest_lock_ts.max(key.lock_ts);
            if self.request.chooses_primary && key.is_locked && key.key == self.request.primary {
                self.start_heartbeat(cx);
            }
            self.locked.insert(key.key.clone(), key);
        }
    }

    fn start_heartbeat(&mut self, cx: &mut Context<'_>) {
        let LockRequest { start_ts, primary, upkeep, .. } = &self.request;
        let heartbeat = Heartbeat::new(*start_ts, primary.clone(), upkeep.clone());
        self.next_beat = Some(cx.now() + Heartbeat::interval(cx.config()));
        self.heartbeat.cancel_all(cx);
        self.heartbeat.add(heartbeat);
        self.heartbeat.run(cx);
    }

    /// The error, if the conflict ends the call.
    fn on_conflict(
        &mut self,
        cx: &mut Context<'_>,
        conflict: Box<Conflict>,
        items: Vec<LockItem>,
        backoff: Backoff,
    ) -> Option<Error> {
        self.conflicts += 1;
        let lock = &self.request.lock;
        if lock.on_conflict == OnConflict::Fail || lock.for_update_ts.is_some() || self.conflicts > MAX_CONFLICTS {
            return Some(Error::WriteConflict(conflict));
        }
        self.in_conflict.push((items, backoff));
        if self.renewal.is_idle() {
            self.renewal.add(FetchTimestamp::new(cx.config()).until(self.request.call.deadline));
            self.renewal.run(cx);
        }
        None
    }

    fn step(&mut self, cx: &mut Context<'_>, batches: &mut Sharded<LockShard>, token: Token, event: Event) {
        if self.renewal.waits_for(token) {
            self.renewal.handle(cx, token, event);
        } else {
            batches.handle(cx, token, event);
        }
    }

    /// What was in conflict is tried again at a newer timestamp.
    fn renew(&mut self, cx: &mut Context<'_>, batches: &mut Sharded<LockShard>, timestamp: Timestamp) {
        if !cx.config().has_canary(Canary::ForUpdateTsNotRenewed) {
            self.for_update_ts = self.for_update_ts.max(timestamp);
        }
        self.newest_lock_ts = self.newest_lock_ts.max(self.for_update_ts);
        batches.shard_mut().for_update_ts = self.for_update_ts;
        for (items, backoff) in std::mem::take(&mut self.in_conflict) {
            batches.add(items, backoff, true);
        }
        batches.run(cx);
    }

    /// The only way to end with an error once something was sent.
    fn fail(
        &mut self,
        cx: &mut Context<'_>,
        mut batches: Box<Sharded<LockShard>>,
        others: &[Group<LockItem>],
        mut error: Error,
        in_doubt: bool,
    ) -> Poll<End> {
        let in_doubt = in_doubt || !batches.is_idle();
        let keys = self.keys_sent(&batches, others);
        batches.cancel_all(cx);
        self.renewal.cancel_all(cx);
        self.heartbeat.cancel_all(cx);
        let alone = self.request.items.len() == 1 && !self.request.may_be_held;
        if alone && !in_doubt && matches!(error, Error::WriteConflict(_) | Error::KeyExists { .. }) {
            // TiKV has refused to lock the only key.
            return self.done(Err(error));
        }
        let rollback = self.rollback(keys, in_doubt);
        if let Error::Deadlock(deadlock) = &mut error {
            deadlock.of_one_call = self.request.keys().any(|key| *key == deadlock.deadlock_key);
            if deadlock.of_one_call {
                let rollback = Box::new(rollback.again(false).until(self.request.call.deadline));
                return self.roll_back(cx, rollback, Box::new(error), PessimisticRollback::start);
            }
        }
        cx.spawn(rollback);
        self.done(Err(error))
    }

    fn roll_back(
        &mut self,
        cx: &mut Context<'_>,
        mut rollback: Box<PessimisticRollback>,
        error: Box<Error>,
        step: impl FnOnce(&mut PessimisticRollback, &mut Context<'_>) -> Poll<()>,
    ) -> Poll<End> {
        if step(&mut rollback, cx).is_pending() {
            self.phase = Phase::RollingBack(rollback, error);
            return Poll::Pending;
        }
        if rollback.has_failed() {
            cx.spawn(self.rollback(rollback.keys().to_vec(), true));
        }
        let until_deadline = self.request.call.deadline.saturating_since(cx.now());
        cx.sleep(AFTER_DEADLOCK.min(until_deadline), SleepReason::Deadlock);
        self.phase = Phase::Pausing(error);
        Poll::Pending
    }

    fn rollback(&self, keys: Vec<Key>, in_doubt: bool) -> PessimisticRollback {
        let LockRequest { start_ts, upkeep, .. } = &self.request;
        PessimisticRollback::new(*start_ts, keys, self.newest_lock_ts, upkeep.clone()).again(in_doubt)
    }

    /// The keys that may be locked by this call: all but those of batches that have not been started.
    fn keys_sent(&self, batches: &Sharded<LockShard>, others: &[Group<LockItem>]) -> Vec<Key> {
        let waiting = others.iter().flat_map(|group| group.items.iter().map(|item| &item.key));
        let never_sent: BTreeSet<&Key> =
            batches.waiting().flat_map(LockBatch::keys_never_sent).chain(waiting).collect();
        self.request.keys().filter(|key| !never_sent.contains(key)).cloned().collect()
    }

    /// The lock lives on for a while, perhaps long enough; else the commit will tell.
    fn on_heartbeat_end(&self, cx: &mut Context<'_>, end: HeartbeatEnd) {
        let error = end.into_error(self.request.start_ts);
        cx.observe(Observation::BackgroundFailed { task: "heartbeat", error });
    }

    fn done(&mut self, end: End) -> Poll<End> {
        self.phase = Phase::Ended;
        Poll::Ready(end)
    }
}

impl Machine for LockKeys {
    type Output = End;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.phase != Phase::Starting {
            return Poll::Pending;
        }
        self.since = cx.now();
        if let Some(release) = self.request.release.take() {
            cx.spawn(*release);
        }
        if self.request.items.is_empty() {
            let keys = std::mem::take(&mut self.request.held);
            let details = LockDetails::default();
            return self.done(Ok(Locked { keys, for_update_ts: Timestamp::ZERO, next_beat: None, details }));
        }
        match self.request.lock.for_update_ts {
            Some(for_update_ts) => self.group(cx, for_update_ts),
            None => {
                let fetch = FetchTimestamp::new(cx.config()).until(self.request.call.deadline);
                self.fetch_timestamp(cx, fetch, FetchTimestamp::start)
            }
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<End> {
        if self.heartbeat.waits_for(token) {
            self.heartbeat.handle(cx, token, event);
            if let Some((_, end)) = self.heartbeat.next_finished(cx) {
                self.on_heartbeat_end(cx, end);
            }
            return Poll::Pending;
        }
        match (std::mem::replace(&mut self.phase, Phase::Ended), event) {
            (Phase::FetchingTimestamp(fetch), event) => {
                self.fetch_timestamp(cx, fetch, |fetch, cx| fetch.handle(cx, token, event))
            }
            (Phase::Grouping(mut grouping), event) => match grouping.handle(cx, token, event) {
                Poll::Ready(grouped) => self.on_grouped(cx, grouped),
                Poll::Pending => {
                    self.phase = Phase::Grouping(grouping);
                    Poll::Pending
                }
            },
            (Phase::LockingPrimary(mut batches, others, backoff), event) => {
                self.step(cx, &mut batches, token, event);
                self.on_batches(cx, batches, Some((others, backoff)))
            }
            (Phase::LockingOthers(mut batches), event) => {
                self.step(cx, &mut batches, token, event);
                self.on_batches(cx, batches, None)
            }
            (Phase::RollingBack(rollback, error), event) => {
                self.roll_back(cx, rollback, error, |rollback, cx| rollback.handle(cx, token, event))
            }
            (Phase::Pausing(error), Event::Woken) => self.done(Err(*error)),
            (phase, _) => {
                self.phase = phase;
                Poll::Pending
            }
        }
    }

    /// What may be locked is released in the background.
    fn abandon(&mut self, cx: &mut Context<'_>) -> Abandoned {
        let keys = match &self.phase {
            Phase::Starting | Phase::FetchingTimestamp(_) | Phase::Grouping(_) | Phase::Ended => Vec::new(),
            Phase::LockingPrimary(batches, others, _) => self.keys_sent(batches, others),
            Phase::LockingOthers(batches) => self.keys_sent(batches, &[]),
            Phase::RollingBack(..) => return Abandoned::FinishInBackground,
            Phase::Pausing(_) => Vec::new(),
        };
        self.phase = Phase::Ended;
        if !keys.is_empty() {
            cx.spawn(self.rollback(keys, true));
        }
        Abandoned::Discard
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
