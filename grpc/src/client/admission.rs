//! Which calls may open a stream now, and which wait for the server to allow one more.
//!
//! HTTP/2 would queue streams beyond the server's limit too, but without a bound, and a call that is given up there would
//! still be sent. Here a waiting call has not left this side: giving it up is free, and it is certain that it was not sent.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What HTTP/2 assumes until the server's SETTINGS arrive.
const INITIAL_LIMIT: usize = 100;

/// Slots for open streams, and the queue for them.
#[derive(Debug)]
pub(super) struct Admission {
    state: Mutex<State>,
    max_queued: usize,
}

#[derive(Debug)]
struct State {
    limit: usize,
    open: usize,
    closed: bool,
    next_ticket: u64,
    /// By age. A waker that was woken is gone.
    queue: BTreeMap<u64, Option<Waker>>,
}

/// The place of a call in the queue; none before it queued.
#[derive(Debug, Default)]
pub(super) struct Ticket(Option<u64>);

/// The queue has its greatest permitted length.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueueFull(pub(super) usize);

impl Admission {
    pub(super) fn new(max_queued: usize) -> Self {
        let state = State { limit: INITIAL_LIMIT, open: 0, closed: false, next_ticket: 0, queue: BTreeMap::new() };
        Self { state: Mutex::new(state), max_queued }
    }

    /// Takes a slot, in the order of arrival.
    ///
    /// Every `Ready(Ok)` must be followed by [`Admission::release`], every other end by [`Admission::leave`].
    pub(super) fn poll_enter(&self, cx: &mut Context<'_>, ticket: &mut Ticket) -> Poll<Result<(), QueueFull>> {
        let mut state = self.lock();
        if state.admits(ticket) {
            state.open += 1;
            state.remove(ticket);
            return Poll::Ready(Ok(()));
        }
        if ticket.0.is_none() && state.queue.len() >= self.max_queued {
            return Poll::Ready(Err(QueueFull(self.max_queued)));
        }
        state.wait(cx, ticket);
        Poll::Pending
    }

    /// Gives up waiting, if that is what the call did.
    pub(super) fn leave(&self, ticket: &mut Ticket) {
        if ticket.0.is_none() {
            return;
        }
        let mut state = self.lock();
        state.remove(ticket);
        state.wake();
    }

    /// Gives a slot back.
    pub(super) fn release(&self) {
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
        state.wake();
    }

    /// How many streams are open.
    pub(super) fn open(&self) -> usize {
        self.lock().open
    }

    /// The server allows so many streams now.
    pub(super) fn set_limit(&self, limit: usize) {
        let mut state = self.lock();
        if state.limit != limit {
            state.limit = limit;
            state.wake();
        }
    }

    /// Lets everyone pass, to meet the end of the connection.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn free(&self) -> usize {
        if self.closed { usize::MAX } else { self.limit.saturating_sub(self.open) }
    }

    /// Whether the call with this ticket is among those for whom there is a slot.
    fn admits(&self, ticket: &Ticket) -> bool {
        let free = self.free();
        let before = match ticket.0 {
            Some(ticket) => self.queue.range(..ticket).take(free).count(),
            None => self.queue.len(),
        };
        before < free
    }

    fn wait(&mut self, cx: &mut Context<'_>, ticket: &mut Ticket) {
        let number = *ticket.0.get_or_insert_with(|| {
            self.next_ticket += 1;
            self.next_ticket
        });
        self.queue.insert(number, Some(cx.waker().clone()));
    }

    fn remove(&mut self, ticket: &mut Ticket) {
        if let Some(ticket) = ticket.0.take() {
            self.queue.remove(&ticket);
        }
    }

    /// Wakes all for whom there is a slot.
    fn wake(&mut self) {
        let free = self.free();
        for waker in self.queue.values_mut().take(free).filter_map(Option::take) {
            waker.wake();
        }
    }
}
