//! A clock that goes when it is told to.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use tikv_grpc::{Clock, Sleep};

#[derive(Clone, Default)]
pub(crate) struct ManualClock(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    now: Duration,
    sleepers: Vec<Waker>,
}

impl ManualClock {
    /// Lets time pass and wakes all sleepers. What they do happens when the test waits next.
    pub(crate) fn advance(&self, duration: Duration) {
        let mut state = self.0.lock().unwrap();
        state.now += duration;
        state.sleepers.drain(..).for_each(Waker::wake);
    }
}

impl Clock for ManualClock {
    fn sleep(&self, duration: Duration) -> Sleep {
        let state = self.0.clone();
        let end = state.lock().unwrap().now + duration;
        Box::pin(poll_fn(move |cx| {
            let mut state = state.lock().unwrap();
            if state.now >= end {
                return Poll::Ready(());
            }
            state.sleepers.push(cx.waker().clone());
            Poll::Pending
        }))
    }
}
