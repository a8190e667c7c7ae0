//! One question to PD, asked until it is answered.
//!
//! ```text
//!            answer
//!   Asking ──────────► done
//!    ▲  │ PD failed     ▲
//!    │  ▼               │ in either phase: the deadline has passed
//!   BackingOff ─────────┘
//! ```

use std::fmt::Debug;
use std::hash::Hash;
use std::task::Poll;

use crate::backoff::{Backoff, BackoffKind};
use crate::error::{CallFailure, Error, PdError};
use crate::machine::{Context, CurrentPhase, Event, Machine, SleepReason, Token, phases};
use crate::request::pd::{PdRequest, PdResponse};
use crate::time::Time;

/// What can be asked of PD, with the answer as a value of its own. Every question may be asked twice.
pub trait Question: Clone + Debug + PartialEq + Eq + Hash {
    /// What PD says.
    type Answer;
    /// As errors name it.
    const OPERATION: &'static str;
    /// Whether a refusal in PD's own words is the answer. Else it is waited out, as when PD has no leader.
    const IS_REFUSAL_FINAL: bool;

    /// The question as PD is asked.
    fn request(&self) -> PdRequest;

    /// Reads the answer; `None` if it answers something else.
    fn answer(response: PdResponse) -> Option<Self::Answer>;
}

/// Asks PD a [`Question`] until it is answered; see the [module documentation](self). Abandoned, it forgets the question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AskPd<Q> {
    question: Q,
    backoff: Backoff,
    deadline: Time,
    /// Fires at the deadline; set with the first question.
    alarm: Option<Token>,
    asked: u32,
    last: CallFailure,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Asking { question: Token },
    BackingOff { timer: Token },
}

phases! {
    AskPd: Phase;
    start => Asking | done;
    Asking => BackingOff | done;
    BackingOff => Asking | done;
}

impl<Q: Question> AskPd<Q> {
    /// Asks again within this budget.
    #[must_use]
    pub fn new(question: Q, backoff: Backoff) -> Self {
        let (last, phase) = (CallFailure::NotAttempted, Phase::Idle);
        AskPd { question, backoff, deadline: Time::MAX, alarm: None, asked: 0, last, phase }
    }

    /// The same, but it ends at `deadline`, whatever it waits for then.
    #[must_use]
    pub fn until(mut self, deadline: Time) -> Self {
        self.deadline = deadline;
        self
    }

    fn ask(&mut self, cx: &mut Context<'_>) -> Poll<Result<Q::Answer, Error>> {
        if cx.now() >= self.deadline {
            return self.deadline_exceeded(cx);
        }
        if self.alarm.is_none() && self.deadline != Time::MAX {
            self.alarm = Some(cx.sleep(self.deadline.saturating_since(cx.now()), SleepReason::Deadline));
        }
        self.asked += 1;
        self.phase = Phase::Asking { question: cx.pd(self.question.request()) };
        Poll::Pending
    }

    fn back_off(&mut self, cx: &mut Context<'_>, error: PdError) -> Poll<Result<Q::Answer, Error>> {
        let is_refusal = matches!(error, PdError::Refused { .. });
        if !error.is_retryable() || (is_refusal && Q::IS_REFUSAL_FINAL) {
            return self.done(cx, Err(if error == PdError::Closed { Error::Closed } else { Error::Pd(error) }));
        }
        self.last = CallFailure::Pd(error);
        match self.backoff.next(BackoffKind::PdRpc, cx.rng()) {
            Ok(sleep) => {
                self.phase = Phase::BackingOff { timer: cx.sleep(sleep, SleepReason::Backoff(BackoffKind::PdRpc)) };
                Poll::Pending
            }
            Err(_) => {
                let (operation, attempts, last) = (Q::OPERATION, self.asked, self.last.clone());
                let slept = self.backoff.total_sleep();
                self.done(cx, Err(Error::RetriesExhausted { operation, attempts, slept, last }))
            }
        }
    }

    /// The deadline has passed: what is on its way is not waited for.
    fn on_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Result<Q::Answer, Error>> {
        self.alarm = None;
        match self.phase {
            Phase::Idle => {}
            Phase::Asking { question: token } | Phase::BackingOff { timer: token } => cx.cancel(token),
        }
        self.deadline_exceeded(cx)
    }

    fn deadline_exceeded(&mut self, cx: &mut Context<'_>) -> Poll<Result<Q::Answer, Error>> {
        let (operation, attempts, last) = (Q::OPERATION, self.asked, self.last.clone());
        self.done(cx, Err(Error::DeadlineExceeded { operation, attempts, last }))
    }

    fn done(&mut self, cx: &mut Context<'_>, result: Result<Q::Answer, Error>) -> Poll<Result<Q::Answer, Error>> {
        if let Some(alarm) = self.alarm.take() {
            cx.cancel(alarm);
        }
        self.phase = Phase::Idle;
        Poll::Ready(result)
    }
}

impl<Q: Question> Machine for AskPd<Q> {
    type Output = Result<Q::Answer, Error>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.ask(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        match (&self.phase, event) {
            (_, Event::Woken) if self.alarm == Some(token) => self.on_alarm(cx),
            (Phase::Asking { question }, Event::Pd(Ok(response))) if *question == token => match Q::answer(response) {
                Some(answer) => self.done(cx, Ok(answer)),
                None => Poll::Pending,
            },
            (Phase::Asking { question }, Event::Pd(Err(error))) if *question == token => self.back_off(cx, error),
            (Phase::BackingOff { timer }, Event::Woken) if *timer == token => self.ask(cx),
            _ => Poll::Pending,
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
