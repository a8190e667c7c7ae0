//! Timestamps for callers: asks PD until it answers.

#[cfg(test)]
mod tests;

use std::task::Poll;

use crate::backoff::{Backoff, BackoffKind, budget};
use crate::config::Config;
use crate::error::{CallFailure, Error, PdError};
use crate::machine::{Context, Event, Machine, SleepReason, Token};
use crate::request::pd::PdResponse;
use crate::route;
use crate::time::Time;
use crate::timestamp::Timestamp;

/// Fetches a timestamp from PD.
///
/// ```text
///             timestamp
///   Fetching ───────────► done
///     ▲   │ PD failed
///     │   ▼
///   BackingOff
/// ```
///
/// client-go: `KVStore.getTimestampWithRetry`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchTimestamp {
    backoff: Backoff,
    deadline: Time,
    questions: u32,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Fetching,
    BackingOff,
}

impl FetchTimestamp {
    /// With the budget that client-go allows for a timestamp, 15 s times the weight.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let backoff = route::budget(config, budget::TSO);
        FetchTimestamp { backoff, deadline: Time::MAX, questions: 0, phase: Phase::Fetching }
    }

    /// The same, but PD is not asked again at or after `deadline`.
    #[must_use]
    pub fn until(mut self, deadline: Time) -> Self {
        self.deadline = deadline;
        self
    }

    fn ask(&mut self, cx: &mut Context<'_>) -> Poll<Result<Timestamp, Error>> {
        self.phase = Phase::Fetching;
        self.questions += 1;
        cx.timestamp();
        Poll::Pending
    }

    fn back_off(&mut self, cx: &mut Context<'_>, error: PdError) -> Poll<Result<Timestamp, Error>> {
        if !error.is_retryable() {
            return Poll::Ready(Err(if error == PdError::Closed { Error::Closed } else { Error::Pd(error) }));
        }
        let last = CallFailure::Pd(error);
        if cx.now() >= self.deadline {
            let (operation, attempts) = ("fetch timestamp", self.questions);
            return Poll::Ready(Err(Error::DeadlineExceeded { operation, attempts, last }));
        }
        match self.backoff.next(BackoffKind::PdRpc, cx.rng()) {
            Ok(sleep) => {
                let sleep = sleep.min(self.deadline.saturating_since(cx.now()));
                cx.sleep(sleep, SleepReason::Backoff(BackoffKind::PdRpc));
                self.phase = Phase::BackingOff;
                Poll::Pending
            }
            Err(_) => Poll::Ready(Err(Error::RetriesExhausted {
                operation: "fetch timestamp",
                attempts: self.questions,
                slept: self.backoff.total_sleep(),
                last,
            })),
        }
    }
}

impl Machine for FetchTimestamp {
    type Output = Result<Timestamp, Error>;

    fn start(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.ask(cx)
    }

    fn handle(&mut self, cx: &mut Context<'_>, _: Token, event: Event) -> Poll<Self::Output> {
        match (&self.phase, event) {
            (Phase::Fetching, Event::Pd(Ok(PdResponse::Timestamp(timestamp)))) => Poll::Ready(Ok(timestamp)),
            (Phase::Fetching, Event::Pd(Err(error))) => self.back_off(cx, error),
            (Phase::BackingOff, Event::Woken) => self.ask(cx),
            _ => Poll::Pending,
        }
    }
}
