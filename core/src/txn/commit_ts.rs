//! The timestamp to commit at.
//!
//! ```text
//!                           timestamp, above the floor and within the bounds
//!   start ──► Fetching ───────────────────────────────────────────────────────► done
//!              ▲    │ │ the same, but the owner wants to be asked               ▲
//!              │    │ └──────────────────────────────────────► AskingOwner ─────┘
//!              │    │ PD's clock lags
//!              │    ▼
//!            WaitingForClock
//! ```
//!
//! Every timestamp is held against the same rules, whether it is the first or replaces one that TiKV refused.
//!
//! client-go: `KVTxn.GetTimestampForCommit`, and the checks after it in `twoPhaseCommitter.execute`.

use std::task::Poll;

use super::CommitTsRules;
use crate::backoff::{Backoff, BackoffKind, budget};
use crate::canary::Canary;
use crate::error::{CallFailure, Error};
use crate::machine::{Context, CurrentPhase, Event, Machine, SleepReason, Token, phases};
use crate::oracle::FetchTimestamp;
use crate::route;
use crate::time::Time;
use crate::timestamp::Timestamp;

/// Fetches a commit timestamp; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FetchCommitTs {
    start_ts: Timestamp,
    rules: CommitTsRules,
    /// The timestamp must be above this: PD's clock has passed it, or something is wrong with somebody's clock.
    floor: Timestamp,
    deadline: Time,
    /// The budget of waiting for a clock that lags, once it does.
    lag_backoff: Option<Backoff>,
    questions: u32,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Fetching(FetchTimestamp),
    WaitingForClock,
    /// The alarm, if there is a deadline, ends it there.
    AskingOwner {
        commit_ts: Timestamp,
        question: Token,
        alarm: Option<Token>,
    },
}

phases! {
    FetchCommitTs: Phase;
    start => Fetching | done;
    Fetching => WaitingForClock | AskingOwner | done;
    WaitingForClock => Fetching | done;
    AskingOwner => done;
}

type End = Result<Timestamp, Error>;

impl FetchCommitTs {
    /// A commit timestamp for the transaction that began at `start_ts`.
    pub(super) fn new(start_ts: Timestamp, rules: CommitTsRules, deadline: Time) -> Self {
        let (lag_backoff, phase) = (None, Phase::Idle);
        FetchCommitTs { start_ts, rules, floor: start_ts, deadline, lag_backoff, questions: 0, phase }
    }

    /// The same, but not below `min_commit_ts`.
    pub(super) fn at_least(mut self, min_commit_ts: Timestamp) -> Self {
        let below = Timestamp::from_version(min_commit_ts.version().saturating_sub(1));
        self.floor = self.floor.max(below);
        self
    }

    fn fetch(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if cx.now() >= self.deadline {
            return self.deadline_exceeded();
        }
        self.questions += 1;
        self.phase = Phase::Fetching(FetchTimestamp::new(cx.config()).until(self.deadline));
        self.step(cx, FetchTimestamp::start)
    }

    fn step(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(&mut FetchTimestamp, &mut Context<'_>) -> Poll<End>,
    ) -> Poll<End> {
        let Phase::Fetching(fetch) = &mut self.phase else { return Poll::Pending };
        match step(fetch, cx) {
            Poll::Ready(Ok(timestamp)) => self.on_timestamp(cx, timestamp),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn on_timestamp(&mut self, cx: &mut Context<'_>, timestamp: Timestamp) -> Poll<End> {
        let (start_ts, upper_bound) = (self.start_ts, self.rules.upper_bound);
        if timestamp <= self.rules.wait_until.max(self.floor) {
            return self.wait_for_clock(cx, timestamp);
        }
        let age = timestamp.physical_since(start_ts);
        if age >= cx.config().max_txn_age {
            return Poll::Ready(Err(Error::TxnTooOld { start_ts, age }));
        }
        if timestamp > upper_bound {
            return Poll::Ready(Err(Error::CommitTsOutOfBound { start_ts, commit_ts: timestamp, upper_bound }));
        }
        if self.rules.ask_owner {
            return self.ask_owner(cx, timestamp);
        }
        Poll::Ready(Ok(timestamp))
    }

    fn ask_owner(&mut self, cx: &mut Context<'_>, commit_ts: Timestamp) -> Poll<End> {
        let until_deadline = self.deadline.saturating_since(cx.now());
        let has_deadline = self.deadline != Time::MAX;
        let alarm = has_deadline.then(|| cx.sleep(until_deadline, SleepReason::Deadline));
        let question = cx.check_commit(self.start_ts, commit_ts);
        self.phase = Phase::AskingOwner { commit_ts, question, alarm };
        Poll::Pending
    }

    fn deadline_exceeded(&self) -> Poll<End> {
        let (attempts, last) = (self.questions, CallFailure::NotAttempted);
        Poll::Ready(Err(Error::DeadlineExceeded { operation: "fetch commit timestamp", attempts, last }))
    }

    /// PD's clock is behind the timestamp that the commit must exceed.
    fn wait_for_clock(&mut self, cx: &mut Context<'_>, newest: Timestamp) -> Poll<End> {
        let (start_ts, expected_above) = (self.start_ts, self.rules.wait_until.max(self.floor));
        let lagging = Error::CommitTsLag { start_ts, newest, expected_above };
        let Some(mut backoff) = self.lag_backoff.take().or_else(|| self.patience(cx, newest)) else {
            return Poll::Ready(Err(lagging));
        };
        let Ok(sleep) = backoff.next(BackoffKind::CommitTsLag, cx.rng()) else { return Poll::Ready(Err(lagging)) };
        let sleep = sleep.min(self.deadline.saturating_since(cx.now()));
        cx.sleep(sleep, SleepReason::Backoff(BackoffKind::CommitTsLag));
        self.lag_backoff = Some(backoff);
        self.phase = Phase::WaitingForClock;
        Poll::Pending
    }

    /// How long to wait for a clock that is at `newest`: as long as the caller said, if it is the caller's timestamp that it
    /// is behind; `None` if that is too long.
    fn patience(&self, cx: &Context<'_>, newest: Timestamp) -> Option<Backoff> {
        let CommitTsRules { wait_until, wait_timeout, .. } = self.rules;
        if newest > wait_until {
            return Some(route::budget(cx.config(), budget::TSO));
        }
        let lag = wait_until.physical_since(newest);
        (!wait_timeout.is_zero() && lag <= wait_timeout).then(|| Backoff::new(wait_timeout))
    }
}

impl Machine for FetchCommitTs {
    type Output = End;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.fetch(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<End> {
        if let Phase::Fetching(_) = self.phase {
            return self.step(cx, |fetch, cx| fetch.handle(cx, token, event));
        }
        match (std::mem::replace(&mut self.phase, Phase::Idle), event) {
            (Phase::WaitingForClock, Event::Woken) => self.fetch(cx),
            (Phase::AskingOwner { commit_ts, question, alarm }, Event::Checked(answer)) if question == token => {
                if let Some(alarm) = alarm {
                    cx.cancel(alarm);
                }
                if cx.config().has_canary(Canary::OwnerOverruled) {
                    return Poll::Ready(Ok(commit_ts));
                }
                let start_ts = self.start_ts;
                let forbidden = |reason| Error::CommitForbidden { start_ts, commit_ts, reason };
                Poll::Ready(answer.map(|()| commit_ts).map_err(forbidden))
            }
            (Phase::AskingOwner { question, alarm, .. }, Event::Woken) if alarm == Some(token) => {
                cx.cancel(question);
                self.deadline_exceeded()
            }
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
