//! Time, as the caller's runtime has it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A source of timers. Nothing in this crate reads a clock or sleeps but through this.
///
/// ```
/// use std::{future::Future, pin::Pin, time::Duration};
/// use tikv_grpc::{Clock, Sleep};
///
/// struct Smol;
///
/// impl Clock for Smol {
///     fn sleep(&self, duration: Duration) -> Sleep {
///         # let timer = |_| std::future::pending::<()>();
///         // let timer = smol::Timer::after;
///         let timer = timer(duration);
///         Box::pin(async move {
///             timer.await;
///         })
///     }
/// }
/// ```
pub trait Clock: Send + Sync {
    /// A future that is ready once `duration` has passed since this call.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// What [`Clock::sleep`] gives.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The end of a call's time, if it has one.
#[derive(Default)]
pub(crate) struct Deadline(Option<Sleep>);

impl Deadline {
    /// No deadline where there is no timeout, or no clock that could enforce it.
    pub(crate) fn after(timeout: Option<Duration>, clock: Option<&Arc<dyn Clock>>) -> Self {
        Self(timeout.zip(clock).map(|(timeout, clock)| clock.sleep(timeout)))
    }

    /// Ready once the deadline has passed.
    pub(crate) fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Deadline").field(&self.0.is_some()).finish()
    }
}
