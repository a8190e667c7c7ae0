use std::task::Poll;
use std::time::Duration;

use super::*;
use crate::backoff::BackoffKind;
use crate::error::Error;
use crate::lock::sleep_for_lock;
use crate::machine::{Context, Event, SleepReason, Token};
use crate::time::Time;

/// Waits for one lock, once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wait {
    backoff: Backoff,
    ms_before_expired: u64,
    deadline: Time,
}

impl Machine for Wait {
    type Output = Result<(), Error>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (lock, kind) = (lock("a", "k", ts(1)), BackoffKind::TxnLock);
        match sleep_for_lock(cx, &mut self.backoff, kind, self.ms_before_expired, &lock, self.deadline) {
            Ok(_) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn advance(&mut self, _: &mut Context<'_>, _: Token, _: Event) -> Poll<Self::Output> {
        Poll::Ready(Ok(()))
    }
}

fn wait(backoff: Backoff, ms_before_expired: u64, deadline: Time) -> Script<Wait> {
    unaware(Wait { backoff, ms_before_expired, deadline })
}

#[test]
fn nobody_sleeps_longer_than_the_lock_can_last() {
    wait(backoff(), 7, Time::MAX).expect_sleep(|duration, reason| {
        assert_eq!(duration, Duration::from_millis(7));
        assert_eq!(reason, SleepReason::LockAlive);
    });
}

#[test]
fn a_lock_that_lasts_is_waited_for_as_long_as_the_backoff_says() {
    wait(backoff(), 1_000_000, Time::MAX).expect_sleep(|duration, _| {
        assert!((50..100).contains(&duration.as_millis()), "{duration:?}");
    });
}

#[test]
fn nobody_sleeps_beyond_the_deadline() {
    wait(backoff(), 1_000, Time::from_millis(4)).expect_sleep(|duration, _| {
        assert_eq!(duration, Duration::from_millis(3));
    });
}

#[test]
fn a_lock_that_outlives_the_budget_is_named() {
    let error = wait(Backoff::none(), 1_000, Time::MAX).expect_done().expect_err("nothing is left");
    assert_eq!(error, Error::Locked(Box::new(lock("a", "k", ts(1)))));
}

#[test]
fn a_lock_that_outlives_the_deadline_is_named() {
    let error = wait(backoff(), 1_000, Time::from_millis(1)).expect_done().expect_err("no time is left");
    assert!(error.is_timeout());
    assert!(error.to_string().contains("key b\"a\" is locked by transaction"), "{error}");
}

/// A clock that stands still, or a server that lies.
#[test]
fn a_lock_that_is_always_about_to_end_is_asked_about_less_and_less_often() {
    let mut backoff = Backoff::new(Duration::from_secs(20));
    let mut rounds = 0;
    loop {
        let mut script = wait(backoff, 1, Time::MAX);
        if script.next().is_none() {
            break;
        }
        rounds += 1;
        backoff = script.machine().backoff.clone();
    }
    assert!((100..300).contains(&rounds), "{rounds}");
}
