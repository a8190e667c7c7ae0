//! The locks of one transaction that one caller met.
//!
//! ```text
//!           alive: done
//!             ▲                        fell back: asked once more, without async commit
//!             │        ┌────────────────────────────────────────────────────────────┐
//!             │        ▼   async commit, its time is up                             │
//!   start ──► CheckingStatus ──────────────────────────► RecoveringAsyncCommit ─────┘
//!                 │ finished, or of no consequence            │ decided
//!                 ▼                                           │
//!             Releasing ◄─────────────────────────────────────┘
//!                 │ released (a reader leaves that to the background)
//!                 ▼
//!               done
//! ```
//!
//! Garbage collection releases prewritten locks itself, those of many transactions at once.

use std::collections::BTreeMap;
use std::task::Poll;

use super::check_txn_status::{Alive, CheckTxnStatus, Checked, TxnStatus};
use super::recover_async_commit::{RecoverAsyncCommit, Recovered, Recovery};
use super::release_locks::{Release, ReleaseLocks, Released, Scope};
use super::{LITE_THRESHOLD, remember};
use crate::backoff::Backoff;
use crate::canary::Canary;
use crate::error::{Error, KeyError, LockInfo};
use crate::key::Key;
use crate::knowledge::txn_status::FinalStatus;
use crate::machine::{Context, CurrentPhase, Event, FanOut, Machine, Token, phases};
use crate::route::CallOptions;
use crate::timestamp::Timestamp;

/// How long a transaction may last that TiKV shows alive although its time is up, in milliseconds. Nobody knows; that is no
/// reason to ask every millisecond.
const BEYOND_ITS_TIME_MS: u64 = 1_000;

/// Who met the locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Caller {
    /// A reader at `read_ts`. `lite` if it resolves no more than the keys it met, `waits` if it needs the locks gone.
    Reader { read_ts: Timestamp, lite: bool, waits: bool },
    /// A writer, with the timestamp it tells TiKV.
    Writer { start_ts: Timestamp },
    /// Garbage collection: it ends transactions that are alive, and commits or rolls back itself what they have prewritten.
    Collector,
}

impl Caller {
    /// What TiKV is told.
    pub(super) fn timestamp(self) -> Timestamp {
        match self {
            Caller::Reader { read_ts, .. } => read_ts,
            Caller::Writer { start_ts } => start_ts,
            Caller::Collector => Timestamp::ZERO,
        }
    }
}

/// What stands in the way, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// The transaction is alive for that long.
    Alive { ms_before_expired: u64 },
    /// It is alive, but commits after the reader.
    CommitsLater,
    /// It has ended. For garbage collection, what it has prewritten is still locked.
    Final(FinalStatus),
    /// The pessimistic locks are gone; of the transaction nothing is known.
    Released,
}

/// The end of a [`ResolveTxn`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TxnEnd {
    pub(super) start_ts: Timestamp,
    pub(super) result: Result<Outcome, Error>,
    pub(super) backoff: Backoff,
}

/// Deals with the locks of one transaction that name the same primary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ResolveTxn {
    caller: Caller,
    /// At least one, all prewritten or all pessimistic.
    locks: Vec<LockInfo>,
    options: CallOptions,
    backoff: Backoff,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    CheckingStatus { check: Box<CheckTxnStatus>, fell_back: bool },
    RecoveringAsyncCommit { recover: Box<RecoverAsyncCommit>, primary: Box<LockInfo> },
    Releasing { releases: FanOut<ReleaseLocks>, outcome: Outcome },
}

phases! {
    ResolveTxn: Phase;
    start => CheckingStatus | Releasing | done;
    CheckingStatus => RecoveringAsyncCommit | Releasing | done;
    RecoveringAsyncCommit => CheckingStatus | Releasing | done;
    Releasing => done;
}

impl ResolveTxn {
    pub(super) fn new(caller: Caller, locks: Vec<LockInfo>, options: CallOptions, backoff: Backoff) -> Self {
        ResolveTxn { caller, locks, options, backoff, phase: Phase::Idle }
    }

    fn first(&self) -> &LockInfo {
        &self.locks[0]
    }

    fn check_status(&mut self, cx: &mut Context<'_>, fell_back: bool) -> Poll<TxnEnd> {
        // The lock that was written last is the best witness of how long the transaction may still live; a life of 0
        // means that TiKV wants the transaction resolved in any case.
        let unconditional = self.locks.iter().find(|lock| lock.ttl_ms == 0);
        let witness =
            unconditional.or_else(|| self.locks.iter().max_by_key(|lock| lock.ttl_ms)).unwrap_or(&self.locks[0]);
        let (options, backoff) = (self.options.clone(), self.backoff.take());
        let mut check = CheckTxnStatus::of_lock(witness, self.caller.timestamp(), options, backoff);
        if self.caller == Caller::Collector {
            check = check.whatever_its_age();
        }
        if fell_back {
            check = check.force_sync_commit();
        }
        match check.start(cx) {
            Poll::Ready(checked) => self.on_status(cx, checked, fell_back),
            Poll::Pending => {
                self.phase = Phase::CheckingStatus { check: Box::new(check), fell_back };
                Poll::Pending
            }
        }
    }

    fn on_status(&mut self, cx: &mut Context<'_>, checked: Checked, fell_back: bool) -> Poll<TxnEnd> {
        self.backoff = checked.backoff;
        match checked.result {
            Err(error) => self.done(Err(error)),
            Ok(TxnStatus::Alive(alive)) => self.on_alive(cx, *alive, fell_back),
            Ok(TxnStatus::Committed(commit_ts)) => {
                self.finish(cx, FinalStatus::Committed(commit_ts), checked.remembered, Vec::new())
            }
            Ok(TxnStatus::RolledBack) if cx.config().has_canary(Canary::RolledBackTxnCommitted) => {
                let commit_ts = self.first().start_ts.next();
                self.finish(cx, FinalStatus::Committed(commit_ts), checked.remembered, Vec::new())
            }
            Ok(TxnStatus::RolledBack) => self.finish(cx, FinalStatus::RolledBack, checked.remembered, Vec::new()),
            // The heartbeats of its primary have stopped: the transaction's other locks may go with it.
            Ok(TxnStatus::PessimisticLockExpired) => {
                self.release_pessimistic(cx, self.region_wide(), Outcome::Released)
            }
            Ok(TxnStatus::NoTrace | TxnStatus::PrimaryMismatch(_)) => {
                self.release_pessimistic(cx, Scope::Keys, Outcome::Released)
            }
        }
    }

    fn on_alive(&mut self, cx: &mut Context<'_>, alive: Alive, fell_back: bool) -> Poll<TxnEnd> {
        if cx.config().has_canary(Canary::LiveTxnRolledBack) {
            return self.finish(cx, FinalStatus::RolledBack, false, Vec::new());
        }
        if cx.config().has_canary(Canary::LiveTxnCommitted) {
            let commit_ts = self.first().start_ts.next();
            return self.finish(cx, FinalStatus::Committed(commit_ts), false, Vec::new());
        }
        let is_reader = matches!(self.caller, Caller::Reader { .. });
        if let (0, false, Some(primary)) = (alive.ms_before_expired, fell_back, alive.primary) {
            if primary.use_async_commit {
                return self.recover(cx, primary);
            }
        }
        if self.caller == Caller::Collector {
            return self.end_by_force(cx);
        }
        let ms_before_expired = match alive.ms_before_expired {
            0 => BEYOND_ITS_TIME_MS,
            ms => ms,
        };
        let commits_later = alive.commits_after_caller || cx.config().has_canary(Canary::ReadersPassLiveLocks);
        self.done(Ok(match commits_later && is_reader {
            true => Outcome::CommitsLater,
            false => Outcome::Alive { ms_before_expired },
        }))
    }

    /// TiKV was to end it, and says that it is alive. A pessimistic lock can go all the same.
    fn end_by_force(&mut self, cx: &mut Context<'_>) -> Poll<TxnEnd> {
        if self.first().is_pessimistic() {
            return self.release_pessimistic(cx, Scope::Keys, Outcome::Released);
        }
        let lock = Box::new(self.first().clone());
        self.done(Err(Error::Locked(lock)))
    }

    fn recover(&mut self, cx: &mut Context<'_>, primary: LockInfo) -> Poll<TxnEnd> {
        if primary.start_ts != self.first().start_ts {
            return self.done(Err(Error::Key(KeyError::PrimaryMismatch(Box::new(primary)))));
        }
        let mut recover = RecoverAsyncCommit::new(&primary, self.options.clone(), self.backoff.take());
        match recover.start(cx) {
            Poll::Ready(recovered) => self.on_recovered(cx, recovered, primary),
            Poll::Pending => {
                let (recover, primary) = (Box::new(recover), Box::new(primary));
                self.phase = Phase::RecoveringAsyncCommit { recover, primary };
                Poll::Pending
            }
        }
    }

    fn on_recovered(&mut self, cx: &mut Context<'_>, recovered: Recovered, primary: LockInfo) -> Poll<TxnEnd> {
        self.backoff = recovered.backoff;
        match recovered.result {
            Err(error) => self.done(Err(error)),
            Ok(Recovery::FellBack) => self.check_status(cx, true),
            Ok(Recovery::Final(status)) => {
                let status = remember(cx, primary.start_ts, status);
                // All keys, also those that TiKV found unlocked: it stops at the first of a region. And the primary, whose
                // lock TiKV leaves to us.
                let mut keys = primary.secondaries;
                keys.push(self.first().primary.clone());
                self.finish(cx, status, false, keys)
            }
        }
    }

    /// The transaction has ended: `more_keys` and all locks that were met end with it.
    fn finish(
        &mut self,
        cx: &mut Context<'_>,
        status: FinalStatus,
        remembered: bool,
        more_keys: Vec<Key>,
    ) -> Poll<TxnEnd> {
        let outcome = Outcome::Final(status);
        if self.first().is_pessimistic() && more_keys.is_empty() {
            return self.release_pessimistic(cx, self.region_wide(), outcome);
        }
        if self.caller == Caller::Collector {
            return self.done(Ok(outcome));
        }
        let lite = matches!(self.caller, Caller::Reader { lite: true, .. });
        // TiKV has removed the lock of the primary when it told the status; a status that was remembered tells nothing of
        // the locks that are left.
        let at_primary = |lock: &LockInfo| lock.key == lock.primary && !remembered && more_keys.is_empty();
        let (mut few, mut many) = (Vec::new(), Vec::new());
        for lock in &self.locks {
            if !lite && lock.txn_size >= LITE_THRESHOLD && more_keys.is_empty() {
                many.push(lock.key.clone());
            } else if !at_primary(lock) {
                few.push(lock.key.clone());
            }
        }
        few.extend(more_keys);
        let release = Release::Finish(status);
        self.release(cx, [(release, Scope::Keys, few), (release, Scope::Regions, many)], outcome)
    }

    /// Readers are not blocked by pessimistic locks and have no need to look for more than they met; garbage collection meets
    /// all of them anyway.
    fn region_wide(&self) -> Scope {
        match self.caller {
            Caller::Writer { .. } => Scope::Regions,
            Caller::Reader { .. } | Caller::Collector => Scope::Keys,
        }
    }

    fn release_pessimistic(&mut self, cx: &mut Context<'_>, scope: Scope, outcome: Outcome) -> Poll<TxnEnd> {
        let mut by_for_update_ts: BTreeMap<Timestamp, Vec<Key>> = BTreeMap::new();
        for lock in &self.locks {
            let known = !lock.for_update_ts.is_zero() && !matches!(outcome, Outcome::Final(_));
            let for_update_ts = if known { lock.for_update_ts } else { Timestamp::MAX };
            by_for_update_ts.entry(for_update_ts).or_default().push(lock.key.clone());
        }
        let releases = by_for_update_ts
            .into_iter()
            .map(|(for_update_ts, keys)| (Release::Pessimistic { for_update_ts }, scope, keys));
        self.release(cx, releases, outcome)
    }

    fn release(
        &mut self,
        cx: &mut Context<'_>,
        releases: impl IntoIterator<Item = (Release, Scope, Vec<Key>)>,
        outcome: Outcome,
    ) -> Poll<TxnEnd> {
        let in_background = matches!(self.caller, Caller::Reader { waits: false, .. });
        let mut fan_out = FanOut::new(cx.config().operation_concurrency);
        for (release, scope, keys) in releases.into_iter().filter(|(_, _, keys)| !keys.is_empty()) {
            let (start_ts, is_txn_file) = (self.first().start_ts, self.first().is_txn_file);
            let options = self.options.clone();
            let release = ReleaseLocks::new(start_ts, keys, release, scope, options, self.backoff.fork());
            let release = release.of_txn_file(is_txn_file);
            if in_background {
                cx.spawn(release.in_background());
            } else {
                fan_out.add(release);
            }
        }
        fan_out.run(cx);
        self.phase = Phase::Releasing { releases: fan_out, outcome };
        self.collect(cx)
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> Poll<TxnEnd> {
        let Phase::Releasing { releases, outcome } = &mut self.phase else { return Poll::Pending };
        while let Some((_, Released { result, backoff })) = releases.next_finished(cx) {
            self.backoff.merge(backoff);
            if let Err(error) = result {
                releases.cancel_all(cx);
                return self.done(Err(error));
            }
        }
        let outcome = *outcome;
        if releases.is_idle() { self.done(Ok(outcome)) } else { Poll::Pending }
    }

    fn done(&mut self, result: Result<Outcome, Error>) -> Poll<TxnEnd> {
        self.phase = Phase::Idle;
        Poll::Ready(TxnEnd { start_ts: self.first().start_ts, result, backoff: self.backoff.take() })
    }
}

impl Machine for ResolveTxn {
    type Output = TxnEnd;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<TxnEnd> {
        self.check_status(cx, false)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<TxnEnd> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::CheckingStatus { mut check, fell_back } => match check.handle(cx, token, event) {
                Poll::Ready(checked) => self.on_status(cx, checked, fell_back),
                Poll::Pending => {
                    self.phase = Phase::CheckingStatus { check, fell_back };
                    Poll::Pending
                }
            },
            Phase::RecoveringAsyncCommit { mut recover, primary } => match recover.handle(cx, token, event) {
                Poll::Ready(recovered) => self.on_recovered(cx, recovered, *primary),
                Poll::Pending => {
                    self.phase = Phase::RecoveringAsyncCommit { recover, primary };
                    Poll::Pending
                }
            },
            Phase::Releasing { mut releases, outcome } => {
                releases.handle(cx, token, event);
                self.phase = Phase::Releasing { releases, outcome };
                self.collect(cx)
            }
            Phase::Idle => Poll::Pending,
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
