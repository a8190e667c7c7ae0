//! Waiting for a lock that is alive.

use std::time::Duration;

use crate::backoff::{Backoff, BackoffKind};
use crate::error::{CallFailure, Error, LockInfo};
use crate::machine::{Context, SleepReason, Token};
use crate::time::Time;

/// Sleeps before a request that met a live lock is repeated: as long as the back-off says, but not beyond the time at which
/// the lock expires, nor beyond `deadline`. A lock that is said to end soon again and again is asked about less and less often.
/// The kind is [`BackoffKind::TxnLockFast`] for reads and [`BackoffKind::TxnLock`] for
/// writes; `ms_before_expired` and `lock` say which lock is waited for, and how long it can still last.
///
/// client-go: `BackoffWithMaxSleepTxnLockFast`, `BackoffWithCfgAndMaxSleep`.
///
/// # Errors
///
/// [`Error::Locked`] when the budget is spent: the lock outlived the caller's patience. [`Error::DeadlineExceeded`] when the
/// deadline has passed. Both name the lock.
pub fn sleep_for_lock(
    cx: &mut Context<'_>,
    backoff: &mut Backoff,
    kind: BackoffKind,
    ms_before_expired: u64,
    lock: &LockInfo,
    deadline: Time,
) -> Result<Token, Error> {
    let until_deadline = deadline.saturating_since(cx.now());
    if until_deadline.is_zero() {
        return Err(deadline_exceeded(lock));
    }
    let in_vain = u64::from(backoff.statistics().times(kind));
    let max_sleep = Duration::from_millis(ms_before_expired.max(in_vain + 1)).min(until_deadline);
    match backoff.next_bounded(kind, max_sleep, cx.rng()) {
        Ok(sleep) => Ok(cx.sleep(sleep, SleepReason::LockAlive)),
        Err(_) => Err(Error::Locked(Box::new(lock.clone()))),
    }
}

/// The deadline has passed, and the lock is what took the time.
pub(crate) fn deadline_exceeded(lock: &LockInfo) -> Error {
    let last = CallFailure::Locked(Box::new(lock.clone()));
    Error::DeadlineExceeded { operation: "wait for a lock", attempts: 0, last }
}
