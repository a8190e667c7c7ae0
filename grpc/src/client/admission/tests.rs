use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A call with its own waker.
#[derive(Default)]
struct Caller {
    ticket: Ticket,
    woken: Arc<Woken>,
}

impl Caller {
    fn enter(&mut self, admission: &Admission) -> Poll<Result<(), QueueFull>> {
        let waker = Waker::from(self.woken.clone());
        admission.poll_enter(&mut Context::from_waker(&waker), &mut self.ticket)
    }

    fn wakes(&self) -> usize {
        self.woken.0.load(Ordering::SeqCst)
    }
}

fn callers<const N: usize>() -> [Caller; N] {
    std::array::from_fn(|_| Caller::default())
}

/// An admission whose limit is `open` and that is exhausted.
fn exhausted(open: usize) -> Admission {
    let admission = Admission::new(4);
    admission.set_limit(open);
    for _ in 0..open {
        assert_eq!(Caller::default().enter(&admission), Poll::Ready(Ok(())));
    }
    admission
}

#[test]
fn a_slot_that_is_given_back_goes_to_who_waited_longest() {
    let admission = exhausted(2);
    let [mut first, mut second, mut newcomer] = callers();
    assert!(first.enter(&admission).is_pending());
    assert!(second.enter(&admission).is_pending());
    admission.release();
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    assert!(newcomer.enter(&admission).is_pending(), "nobody overtakes");
    assert!(second.enter(&admission).is_pending());
    assert!(first.enter(&admission).is_ready());
    admission.release();
    assert!(second.enter(&admission).is_ready());
    assert_eq!(admission.open(), 2);
}

#[test]
fn two_slots_given_back_at_once_wake_two() {
    let admission = exhausted(2);
    let [mut first, mut second, mut third] = callers();
    for caller in [&mut first, &mut second, &mut third] {
        assert!(caller.enter(&admission).is_pending());
    }
    admission.release();
    admission.release();
    assert_eq!((first.wakes(), second.wakes(), third.wakes()), (1, 1, 0));
}

#[test]
fn who_leaves_passes_its_turn_on() {
    let admission = exhausted(1);
    let [mut first, mut second] = callers();
    assert!(first.enter(&admission).is_pending());
    assert!(second.enter(&admission).is_pending());
    admission.release();
    admission.leave(&mut first.ticket);
    assert_eq!(second.wakes(), 1);
    assert!(second.enter(&admission).is_ready());
}

#[test]
fn the_queue_has_a_bound() {
    let admission = exhausted(1);
    let mut waiting: [Caller; 4] = callers();
    for caller in &mut waiting {
        assert!(caller.enter(&admission).is_pending());
    }
    assert_eq!(Caller::default().enter(&admission), Poll::Ready(Err(QueueFull(4))));
    assert!(waiting[3].enter(&admission).is_pending(), "who waits already is not refused");
}

#[test]
fn a_raised_limit_wakes_as_many_as_it_admits() {
    let admission = exhausted(1);
    let [mut first, mut second, mut third] = callers();
    for caller in [&mut first, &mut second, &mut third] {
        assert!(caller.enter(&admission).is_pending());
    }
    admission.set_limit(3);
    assert_eq!((first.wakes(), second.wakes(), third.wakes()), (1, 1, 0));
    assert!(third.enter(&admission).is_pending());
    assert!(second.enter(&admission).is_ready());
    assert!(first.enter(&admission).is_ready());
}

#[test]
fn a_lowered_limit_admits_nobody_until_enough_streams_are_over() {
    let admission = exhausted(3);
    admission.set_limit(1);
    let mut caller = Caller::default();
    assert!(caller.enter(&admission).is_pending());
    admission.release();
    admission.release();
    assert!(caller.enter(&admission).is_pending());
    admission.release();
    assert_eq!(caller.wakes(), 1);
    assert!(caller.enter(&admission).is_ready());
}

#[test]
fn the_end_of_the_connection_lets_everyone_pass() {
    let admission = exhausted(1);
    let [mut first, mut second] = callers();
    assert!(first.enter(&admission).is_pending());
    assert!(second.enter(&admission).is_pending());
    admission.close();
    assert_eq!((first.wakes(), second.wakes()), (1, 1));
    assert!(second.enter(&admission).is_ready());
    assert!(first.enter(&admission).is_ready());
    assert!(Caller::default().enter(&admission).is_ready());
}
