//! Timestamps for callers: asks PD until it answers.

#[cfg(test)]
mod tests;

use std::task::Poll;

use crate::backoff::budget;
use crate::canary::Canary;
use crate::config::Config;
use crate::error::Error;
use crate::machine::{Abandoned, Context, CurrentPhase, Event, Machine, Token};
use crate::pd::{AskPd, Question};
use crate::request::pd::{PdRequest, PdResponse};
use crate::route;
use crate::time::Time;
use crate::timestamp::Timestamp;

/// Fetches a timestamp from PD: an [`AskPd`].
///
/// client-go: `KVStore.getTimestampWithRetry`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchTimestamp(AskPd<NewTimestamp>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct NewTimestamp;

impl Question for NewTimestamp {
    type Answer = Timestamp;
    const OPERATION: &'static str = "fetch timestamp";
    /// PD also refuses while it elects a leader.
    const IS_REFUSAL_FINAL: bool = false;

    fn request(&self) -> PdRequest {
        PdRequest::Timestamp
    }

    fn answer(response: PdResponse) -> Option<Timestamp> {
        match response {
            PdResponse::Timestamp(timestamp) => Some(timestamp),
            _ => None,
        }
    }
}

impl FetchTimestamp {
    /// With the budget that client-go allows for a timestamp, 15 s times the weight.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        FetchTimestamp(AskPd::new(NewTimestamp, route::budget(config, budget::TSO)))
    }

    /// The same, but it ends at `deadline`, whatever it waits for then.
    #[must_use]
    pub fn until(self, deadline: Time) -> Self {
        FetchTimestamp(self.0.until(deadline))
    }
}

impl Machine for FetchTimestamp {
    type Output = Result<Timestamp, Error>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if cx.config().has_canary(Canary::StaleTimestamps) {
            if let Some(known) = cx.knowledge().clock.newest() {
                return Poll::Ready(Ok(known));
            }
        }
        self.0.begin(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        self.0.advance(cx, token, event)
    }

    fn abandon(&mut self, cx: &mut Context<'_>) -> Abandoned {
        self.0.abandon(cx)
    }

    fn phase(&self) -> Option<CurrentPhase> {
        self.0.phase()
    }
}
