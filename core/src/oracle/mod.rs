//! Timestamps for callers: asks PD until it answers.

#[cfg(test)]
mod tests;

use std::task::Poll;

use crate::backoff::{Backoff, BackoffKind, budget};
use crate::canary::Canary;
use crate::config::Config;
use crate::error::{CallFailure, Error, PdError};
use crate::machine::{Context, CurrentPhase, Event, Machine, SleepReason, Token, phases};
use crate::request::pd::PdResponse;
use crate::route;
use crate::time::Time;
use crate::timestamp::Timestamp;

/// Fetches a timestamp from PD.
///
/// ```text
///             timestamp
///   Fetching ───────────► done
///     ▲   │ PD failed       ▲
///     │   ▼                 │ in either phase: the deadline has passed
///   BackingOff ─────────────┘
/// ```
///
/// client-go: `KVStore.getTimestampWithRetry`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchTimestamp {
    backoff: Backoff,
    deadline: Time,
    /// Fires at the deadline; set with the first question.
    alarm: Option<Token>,
    questions: u32,
    last: CallFailure,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Fetching { question: Token },
    BackingOff { timer: Token },
}

phases! {
    FetchTimestamp: Phase;
    start => Fetching | done;
    Fetching => BackingOff | done;
    BackingOff => Fetching | done;
}

impl FetchTimestamp {
    /// With the budget that client-go allows for a timestamp, 15 s times the weight.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let backoff = route::budget(config, budget::TSO);
        let (last, phase) = (CallFailure::NotAttempted, Phase::Idle);
        FetchTimestamp { backoff, deadline: Time::MAX, alarm: None, questions: 0, last, phase }
    }

    /// The same, but it ends at `deadline`, whatever it waits for then.
    #[must_use]
    pub fn until(mut self, deadline: Time) -> Self {
        self.deadline = deadline;
        self
    }

    fn ask(&mut self, cx: &mut Context<'_>) -> Poll<Result<Timestamp, Error>> {
        if cx.now() >= self.deadline {
            return self.deadline_exceeded(cx);
        }
        if self.alarm.is_none() && self.deadline != Time::MAX {
            self.alarm = Some(cx.sleep(self.deadline.saturating_since(cx.now()), SleepReason::Deadline));
        }
        self.questions += 1;
        if cx.config().has_canary(Canary::StaleTimestamps) {
            if let Some(known) = cx.knowledge().clock.newest() {
                return self.done(cx, Ok(known));
            }
        }
        self.phase = Phase::Fetching { question: cx.timestamp() };
        Poll::Pending
    }

    fn back_off(&mut self, cx: &mut Context<'_>, error: PdError) -> Poll<Result<Timestamp, Error>> {
        if !error.is_retryable() {
            return self.done(cx, Err(if error == PdError::Closed { Error::Closed } else { Error::Pd(error) }));
        }
        self.last = CallFailure::Pd(error);
        match self.backoff.next(BackoffKind::PdRpc, cx.rng()) {
            Ok(sleep) => {
                self.phase = Phase::BackingOff { timer: cx.sleep(sleep, SleepReason::Backoff(BackoffKind::PdRpc)) };
                Poll::Pending
            }
            Err(_) => {
                let (operation, attempts, last) = ("fetch timestamp", self.questions, self.last.clone());
                let slept = self.backoff.total_sleep();
                self.done(cx, Err(Error::RetriesExhausted { operation, attempts, slept, last }))
            }
        }
    }

    /// The deadline has passed: what is on its way is not waited for.
    fn on_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Result<Timestamp, Error>> {
        self.alarm = None;
        match self.phase {
            Phase::Idle => {}
            Phase::Fetching { question: token } | Phase::BackingOff { timer: token } => cx.cancel(token),
        }
        self.deadline_exceeded(cx)
    }

    fn deadline_exceeded(&mut self, cx: &mut Context<'_>) -> Poll<Result<Timestamp, Error>> {
        let (operation, attempts, last) = ("fetch timestamp", self.questions, self.last.clone());
        self.done(cx, Err(Error::DeadlineExceeded { operation, attempts, last }))
    }

    fn done(&mut self, cx: &mut Context<'_>, result: Result<Timestamp, Error>) -> Poll<Result<Timestamp, Error>> {
        if let Some(alarm) = self.alarm.take() {
            cx.cancel(alarm);
        }
        self.phase = Phase::Idle;
        Poll::Ready(result)
    }
}

impl Machine for FetchTimestamp {
    type Output = Result<Timestamp, Error>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.ask(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        match (&self.phase, event) {
            (_, Event::Woken) if self.alarm == Some(token) => self.on_alarm(cx),
            (Phase::Fetching { question }, Event::Pd(Ok(PdResponse::Timestamp(timestamp)))) if *question == token => {
                self.done(cx, Ok(timestamp))
            }
            (Phase::Fetching { question }, Event::Pd(Err(error))) if *question == token => self.back_off(cx, error),
            (Phase::BackingOff { timer }, Event::Woken) if *timer == token => self.ask(cx),
            _ => Poll::Pending,
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
