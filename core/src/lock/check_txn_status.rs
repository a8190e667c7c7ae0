//! What became of a transaction, asked at its primary key.
//!
//! ```text
//!   start ──► remembered ──────────────────────────────────────────► done
//!     │ PD's time not known well enough
//!     ├──────────────► FetchingTimestamp ──┐
//!     │                  ▲  │ PD failed    │
//!     │                  │  ▼              ▼        answered
//!     └──────────────────┼────────────► Asking ────────────────────► done
//!                        │                 │ │ others share the lock   ▲
//!                        │                 │ ▼ of its primary          │
//!                        │                 │ RulingOut ────────────────┘
//!                        │                 │ │
//!                        └── BackingOff ◄──┴─┘ no trace of the transaction, though its lock is alive
//! ```
//!
//! TiKV finds, at the primary, a lock (the transaction is alive; or its time is up, and TiKV rolls it back), a commit or
//! rollback record, or nothing. Nothing can mean that the primary is still on its way, so that TiKV is asked to rule the
//! transaction out (`rollback_if_not_exist`) only when the lock that was met has expired itself.
//!
//! Where others share the lock of the primary, TiKV looks no further ([`KeyError::PrimaryMismatch`]): the transaction has lost that
//! lock, and may have ended. Two such transactions can share the locks of each other's primaries, and then nobody else would ever
//! end them. `Cleanup` does look: it tells of a commit, and rules the transaction out if there is none.
//!
//! client-go: `LockResolver.getTxnStatus`, `getTxnStatusFromLock`, which give such a transaction up.

use std::task::Poll;
use std::time::Duration;

use tikv_proto::kvrpcpb;

use super::{lock_options, ms_until_expired, remember};
use crate::backoff::{Backoff, BackoffKind};
use crate::canary::Canary;
use crate::error::{CallFailure, Error, KeyError, LockInfo, PdError};
use crate::key::Key;
use crate::knowledge::txn_status::FinalStatus;
use crate::machine::{Context, CurrentPhase, Event, Machine, SleepReason, Token, phases};
use crate::request::pd::PdResponse;
use crate::route::{CallEnd, CallOptions, RegionCall};
use crate::time::Time;
use crate::timestamp::Timestamp;

/// What errors call it.
const OPERATION: &str = "CheckTxnStatus";
/// How old PD's time may be to judge by it.
const MAX_CLOCK_AGE: Duration = Duration::from_millis(500);
/// A time at which every lock is alive: one that is there is never removed, as it might have to be committed. (At zero TiKV would
/// not ask for its age.)
const BEFORE_ALL_LOCKS_EXPIRE: u64 = 1;

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TxnStatus {
    /// It may still commit.
    Alive(Box<Alive>),
    /// It committed, at this timestamp. Final.
    Committed(Timestamp),
    /// It can never commit. Final.
    RolledBack,
    /// Its primary was a pessimistic lock that had expired and was removed. Says nothing of the transaction, which may have
    /// chosen another primary; the pessimistic lock that was met may go. Never remembered.
    PessimisticLockExpired,
    /// There is no trace of it at the key that a pessimistic lock names as its primary. Says nothing of the transaction;
    /// the pessimistic lock that was met may go. Never remembered.
    NoTrace,
    /// The key that a pessimistic lock names as its primary is locked by the transaction, but as a secondary: the lock that
    /// was met is a leftover and may go. Never remembered.
    PrimaryMismatch(Box<LockInfo>),
}

/// A transaction that may still commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Alive {
    /// How long it may live from its `start_ts`, in milliseconds.
    pub ttl_ms: u64,
    /// How much of that is left by PD's time; 0 if its time is up (then it commits asynchronously, and only its secondaries
    /// tell whether it has).
    pub ms_before_expired: u64,
    /// Whether it can only commit after the caller's timestamp.
    pub commits_after_caller: bool,
    /// The lock at its primary; `None` if TiKV found none and the lock that was met is all that is known.
    pub primary: Option<LockInfo>,
}

/// The end of a [`CheckTxnStatus`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checked {
    /// The status, or why there is none.
    pub result: Result<TxnStatus, Error>,
    /// Whether TiKV was not asked because the end of the transaction was remembered.
    pub remembered: bool,
    /// What is left of the budget.
    pub backoff: Backoff,
}

/// Finds out what became of a transaction; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckTxnStatus {
    start_ts: Timestamp,
    primary: Key,
    caller_start_ts: Timestamp,
    met: Option<Met>,
    rollback_if_not_exist: bool,
    force_sync_commit: bool,
    /// The time by which TiKV judged last.
    current_ts: Timestamp,
    attempts: u32,
    options: CallOptions,
    backoff: Backoff,
    phase: Phase,
}

/// What matters of the lock that was met.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Met {
    ttl_ms: u64,
    is_pessimistic: bool,
    is_txn_file: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    /// The alarm, if there is a deadline, ends it there.
    FetchingTimestamp {
        question: Token,
        alarm: Option<Token>,
    },
    Asking(Box<RegionCall<kvrpcpb::CheckTxnStatusRequest>>),
    RulingOut(Box<RegionCall<kvrpcpb::CleanupRequest>>),
    BackingOff(Token),
}

phases! {
    CheckTxnStatus: Phase;
    start => FetchingTimestamp | Asking | done;
    FetchingTimestamp => Asking | BackingOff | done;
    Asking => FetchingTimestamp | RulingOut | BackingOff | done;
    RulingOut => BackingOff | done;
    BackingOff => FetchingTimestamp | Asking | done;
}

impl CheckTxnStatus {
    /// For a lock that was met by a reader at `caller_start_ts` or a writer that began then (zero for one that asks for a
    /// pessimistic lock). TiKV lets the transaction commit only after `caller_start_ts`, if it can.
    #[must_use]
    pub fn of_lock(lock: &LockInfo, caller_start_ts: Timestamp, options: CallOptions, backoff: Backoff) -> Self {
        CheckTxnStatus {
            met: Some(Met {
                ttl_ms: lock.ttl_ms,
                is_pessimistic: lock.is_pessimistic(),
                is_txn_file: lock.is_txn_file,
            }),
            rollback_if_not_exist: false,
            ..CheckTxnStatus::of_txn(lock.start_ts, lock.primary.clone(), caller_start_ts, options, backoff)
        }
    }

    /// For a transaction of which no lock is at hand. If TiKV finds no trace of it, it is rolled back.
    /// client-go: `LockResolver.GetTxnStatus`.
    #[must_use]
    pub fn of_txn(
        start_ts: Timestamp,
        primary: Key,
        caller_start_ts: Timestamp,
        options: CallOptions,
        backoff: Backoff,
    ) -> Self {
        CheckTxnStatus {
            start_ts,
            primary,
            caller_start_ts,
            met: None,
            rollback_if_not_exist: true,
            force_sync_commit: false,
            current_ts: Timestamp::ZERO,
            attempts: 0,
            options,
            backoff,
            phase: Phase::Idle,
        }
    }

    /// Treats the transaction as one that does not commit asynchronously: a secondary has shown that it fell back.
    #[must_use]
    pub fn force_sync_commit(mut self) -> Self {
        self.force_sync_commit = true;
        self
    }

    /// Has TiKV end the transaction whether its time is up or not, as garbage collection does.
    #[must_use]
    pub fn whatever_its_age(mut self) -> Self {
        if let Some(met) = &mut self.met {
            met.ttl_ms = 0;
        }
        self.rollback_if_not_exist = true;
        self
    }

    /// A lock of life 0 is TiKV's way to say: resolve it whatever its age.
    fn is_unconditional(&self) -> bool {
        self.met.as_ref().is_some_and(|met| met.ttl_ms == 0)
    }

    fn judge(&mut self, cx: &mut Context<'_>) -> Poll<Checked> {
        if let Some(status) = cx.knowledge().txn_statuses.get(self.start_ts) {
            return self.done(Ok(status.into()), true);
        }
        if self.is_unconditional() || cx.config().has_canary(Canary::LiveLocksExpired) {
            self.current_ts = Timestamp::MAX;
            return self.ask(cx);
        }
        match self.known_time(cx) {
            Some(now) => {
                self.current_ts = now;
                self.ask(cx)
            }
            None => {
                let until_deadline = self.options.deadline.saturating_since(cx.now());
                let has_deadline = self.options.deadline != Time::MAX;
                let alarm = has_deadline.then(|| cx.sleep(until_deadline, SleepReason::Deadline));
                let question = cx.timestamp();
                self.phase = Phase::FetchingTimestamp { question, alarm };
                Poll::Pending
            }
        }
    }

    /// PD's time, if it is known well enough: not too long ago, and not so that the lock would have expired since.
    fn known_time(&self, cx: &Context<'_>) -> Option<Timestamp> {
        let clock = &cx.knowledge().clock;
        let (now, age) = (clock.newest()?, cx.now().saturating_since(clock.newest_at()?));
        if age > MAX_CLOCK_AGE {
            return None;
        }
        let left_ms = self.met.as_ref().map_or(0, |met| ms_until_expired(now, self.start_ts, met.ttl_ms));
        let may_have_expired = left_ms > 0 && u128::from(left_ms) <= age.as_millis();
        (!may_have_expired).then_some(now)
    }

    fn on_timestamp(&mut self, cx: &mut Context<'_>, answer: Result<PdResponse, PdError>) -> Poll<Checked> {
        match answer {
            Ok(PdResponse::Timestamp(now)) => {
                cx.knowledge().clock.learn(cx.now(), now);
                self.current_ts = now;
                self.ask(cx)
            }
            Err(error) if !error.is_retryable() => self.done(Err(Error::Pd(error)), false),
            Err(error) => self.back_off(cx, BackoffKind::PdRpc, CallFailure::Pd(error)),
            Ok(_) => self.back_off(cx, BackoffKind::PdRpc, CallFailure::NotAttempted),
        }
    }

    fn ask(&mut self, cx: &mut Context<'_>) -> Poll<Checked> {
        let request = kvrpcpb::CheckTxnStatusRequest {
            context: None,
            primary_key: self.primary.to_bytes(),
            lock_ts: self.start_ts.version(),
            caller_start_ts: match cx.config().has_canary(Canary::ReadersPassLiveLocks) {
                true => 0,
                false => self.caller_start_ts.version(),
            },
            current_ts: self.current_ts.version(),
            rollback_if_not_exist: self.rollback_if_not_exist,
            force_sync_commit: self.force_sync_commit,
            resolving_pessimistic_lock: self.met.as_ref().is_some_and(|met| met.is_pessimistic),
            verify_is_primary: true,
            is_txn_file: self.met.as_ref().is_some_and(|met| met.is_txn_file),
        };
        let options = lock_options(&self.options, cx.config());
        let mut call = RegionCall::to_key(request, options, self.backoff.take()).repeatable();
        match call.start(cx) {
            Poll::Ready(end) => self.on_answer(cx, end),
            Poll::Pending => {
                self.phase = Phase::Asking(Box::new(call));
                Poll::Pending
            }
        }
    }

    fn on_answer(&mut self, cx: &mut Context<'_>, mut end: CallEnd<kvrpcpb::CheckTxnStatusResponse>) -> Poll<Checked> {
        self.backoff = end.backoff.take();
        self.attempts += end.attempts;
        match end.into_result("CheckTxnStatus") {
            Err(error) => self.done(Err(error), false),
            Ok(mut response) => match response.error.take() {
                Some(error) => self.on_key_error(cx, KeyError::from_proto(*error)),
                None => self.on_status(cx, response),
            },
        }
    }

    fn on_status(&mut self, cx: &mut Context<'_>, response: kvrpcpb::CheckTxnStatusResponse) -> Poll<Checked> {
        use kvrpcpb::Action;
        let action = response.action();
        let commit_ts = Timestamp::from_version(response.commit_version);
        // A lock may have been given no life at all: that TiKV shows it means that it is there, whatever the life says.
        let is_locked = response.lock_info.is_some() && commit_ts.is_zero();
        let status = match action {
            _ if response.lock_ttl != 0 || is_locked => {
                if cx.config().has_canary(Canary::LiveStatusRemembered) {
                    remember(cx, self.start_ts, FinalStatus::RolledBack);
                }
                self.alive(response)
            }
            _ if !commit_ts.is_zero() => remember(cx, self.start_ts, FinalStatus::Committed(commit_ts)).into(),
            Action::NoAction | Action::LockNotExistRollback | Action::TtlExpireRollback => {
                remember(cx, self.start_ts, FinalStatus::RolledBack).into()
            }
            Action::TtlExpirePessimisticRollback if self.met_pessimistic() => TxnStatus::PessimisticLockExpired,
            Action::LockNotExistDoNothing if self.met_pessimistic() => TxnStatus::NoTrace,
            // Meant for pessimistic locks only: of another lock's transaction it leaves everything open.
            Action::TtlExpirePessimisticRollback | Action::LockNotExistDoNothing | Action::MinCommitTsPushed => {
                return self.back_off(cx, BackoffKind::TxnNotFound, CallFailure::Key(Box::new(self.not_found())));
            }
        };
        self.done(Ok(status), false)
    }

    fn alive(&self, response: kvrpcpb::CheckTxnStatusResponse) -> TxnStatus {
        let pushed = response.action() == kvrpcpb::Action::MinCommitTsPushed;
        let primary = response.lock_info.map(|lock| LockInfo::from_proto(*lock));
        // TiKV pushes no async commit, but that its primary cannot commit before the caller is as good.
        let caller = self.caller_start_ts;
        let promised = !caller.is_zero() && primary.as_ref().is_some_and(|lock| lock.min_commit_ts > caller);
        TxnStatus::Alive(Box::new(Alive {
            ttl_ms: response.lock_ttl,
            ms_before_expired: ms_until_expired(self.current_ts, self.start_ts, response.lock_ttl),
            commits_after_caller: pushed || promised,
            primary,
        }))
    }

    fn on_key_error(&mut self, cx: &mut Context<'_>, error: KeyError) -> Poll<Checked> {
        match error {
            KeyError::TxnNotFound { .. } => self.on_not_found(cx),
            KeyError::PrimaryMismatch(lock) if self.met_pessimistic() => {
                self.done(Ok(TxnStatus::PrimaryMismatch(lock)), false)
            }
            error if error.is_of_shared_locks() => self.on_shared(cx),
            error => self.done(Err(Error::Key(error)), false),
        }
    }

    /// The primary has not been locked yet, or its pessimistic lock was released: others' prewrites may be faster, so that
    /// the transaction gets as long as the lock that was met.
    fn on_not_found(&mut self, cx: &mut Context<'_>) -> Poll<Checked> {
        let ttl_ms = self.met.as_ref().map_or(0, |met| met.ttl_ms);
        let left_ms = ms_until_expired(self.current_ts, self.start_ts, ttl_ms);
        let left_ms = if cx.config().has_canary(Canary::UnlockedPrimaryRolledBack) { 0 } else { left_ms };
        if left_ms == 0 && !self.rollback_if_not_exist {
            self.rollback_if_not_exist = true;
            return self.judge(cx);
        }
        if left_ms > 0 && self.met_pessimistic() {
            return self.alive_without_primary();
        }
        self.back_off(cx, BackoffKind::TxnNotFound, CallFailure::Key(Box::new(self.not_found())))
    }

    /// Others share the lock of its primary: it gets as long as the lock that was met.
    fn on_shared(&mut self, cx: &mut Context<'_>) -> Poll<Checked> {
        let ttl_ms = self.met.as_ref().map_or(0, |met| met.ttl_ms);
        if ms_until_expired(self.current_ts, self.start_ts, ttl_ms) > 0 {
            return self.alive_without_primary();
        }
        let request = kvrpcpb::CleanupRequest {
            key: self.primary.to_bytes(),
            start_version: self.start_ts.version(),
            current_ts: BEFORE_ALL_LOCKS_EXPIRE,
            ..kvrpcpb::CleanupRequest::default()
        };
        let options = lock_options(&self.options, cx.config());
        let mut call = RegionCall::to_key(request, options, self.backoff.take()).repeatable();
        match call.start(cx) {
            Poll::Ready(end) => self.on_ruled_out(cx, end),
            Poll::Pending => {
                self.phase = Phase::RulingOut(Box::new(call));
                Poll::Pending
            }
        }
    }

    fn on_ruled_out(&mut self, cx: &mut Context<'_>, mut end: CallEnd<kvrpcpb::CleanupResponse>) -> Poll<Checked> {
        self.backoff = end.backoff.take();
        self.attempts += end.attempts;
        let response = match end.into_result("Cleanup") {
            Ok(response) => response,
            Err(error) => return self.done(Err(error), false),
        };
        match response.error.map(|error| KeyError::from_proto(*error)) {
            None if response.commit_version == 0 => {
                let status = remember(cx, self.start_ts, FinalStatus::RolledBack);
                self.done(Ok(status.into()), false)
            }
            None => {
                let commit_ts = Timestamp::from_version(response.commit_version);
                let status = remember(cx, self.start_ts, FinalStatus::Committed(commit_ts));
                self.done(Ok(status.into()), false)
            }
            // It has locked its primary meanwhile: that lock says more.
            Some(error @ KeyError::Locked(_)) => {
                self.back_off(cx, BackoffKind::TxnNotFound, CallFailure::Key(Box::new(error)))
            }
            Some(error) => self.done(Err(Error::Key(error)), false),
        }
    }

    /// The lock that was met is all that is known.
    fn alive_without_primary(&mut self) -> Poll<Checked> {
        let ttl_ms = self.met.as_ref().map_or(0, |met| met.ttl_ms);
        let ms_before_expired = ms_until_expired(self.current_ts, self.start_ts, ttl_ms);
        let alive = Alive { ttl_ms, ms_before_expired, commits_after_caller: false, primary: None };
        self.done(Ok(TxnStatus::Alive(Box::new(alive))), false)
    }

    fn met_pessimistic(&self) -> bool {
        self.met.as_ref().is_some_and(|met| met.is_pessimistic)
    }

    fn not_found(&self) -> KeyError {
        KeyError::TxnNotFound { start_ts: self.start_ts, primary: self.primary.clone() }
    }

    fn back_off(&mut self, cx: &mut Context<'_>, kind: BackoffKind, last: CallFailure) -> Poll<Checked> {
        let until_deadline = self.options.deadline.saturating_since(cx.now());
        if until_deadline.is_zero() {
            return self.deadline_exceeded(last);
        }
        match self.backoff.next(kind, cx.rng()) {
            Ok(sleep) => {
                self.phase = Phase::BackingOff(cx.sleep(sleep.min(until_deadline), SleepReason::Backoff(kind)));
                Poll::Pending
            }
            Err(_) => {
                let (operation, slept) = (OPERATION, self.backoff.total_sleep());
                let error = Error::RetriesExhausted { operation, attempts: self.attempts, slept, last };
                self.done(Err(error), false)
            }
        }
    }

    fn deadline_exceeded(&mut self, last: CallFailure) -> Poll<Checked> {
        let (operation, attempts) = (OPERATION, self.attempts);
        self.done(Err(Error::DeadlineExceeded { operation, attempts, last }), false)
    }

    fn done(&mut self, result: Result<TxnStatus, Error>, remembered: bool) -> Poll<Checked> {
        self.phase = Phase::Idle;
        Poll::Ready(Checked { result, remembered, backoff: self.backoff.take() })
    }
}

impl Machine for CheckTxnStatus {
    type Output = Checked;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Checked> {
        self.judge(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Checked> {
        match (&mut self.phase, event) {
            (Phase::FetchingTimestamp { question, alarm }, Event::Pd(answer)) if *question == token => {
                if let Some(alarm) = alarm.take() {
                    cx.cancel(alarm);
                }
                self.on_timestamp(cx, answer)
            }
            (Phase::FetchingTimestamp { question, alarm }, Event::Woken) if *alarm == Some(token) => {
                cx.cancel(*question);
                self.deadline_exceeded(CallFailure::NotAttempted)
            }
            (Phase::BackingOff(timer), Event::Woken) if *timer == token => self.judge(cx),
            (Phase::Asking(call), event) => match call.handle(cx, token, event) {
                Poll::Ready(end) => self.on_answer(cx, end),
                Poll::Pending => Poll::Pending,
            },
            (Phase::RulingOut(call), event) => match call.handle(cx, token, event) {
                Poll::Ready(end) => self.on_ruled_out(cx, end),
                Poll::Pending => Poll::Pending,
            },
            // Not for this phase: ignored.
            _ => Poll::Pending,
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}

impl From<FinalStatus> for TxnStatus {
    fn from(status: FinalStatus) -> Self {
        match status {
            FinalStatus::Committed(commit_ts) => TxnStatus::Committed(commit_ts),
            FinalStatus::RolledBack => TxnStatus::RolledBack,
        }
    }
}
