//! Where the answers to an operation's commands arrive.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tikv_core::machine::{Event, Token};
use tikv_core::time::Time;

/// An event for an operation.
pub(crate) struct Delivery {
    pub(crate) token: Token,
    pub(crate) event: Event,
    /// When it arrived. One look at the clock serves all answers of a frame.
    pub(crate) at: Time,
}

/// The events of one operation, and the task to be woken for them. Bounded by the commands that the operation has out.
#[derive(Default)]
pub(crate) struct Mailbox(Mutex<Events>);

/// A queue of which the first place is here: most operations wait for one answer at a time.
#[derive(Default)]
struct Events {
    next: Option<Delivery>,
    /// Never empty.
    #[expect(clippy::box_collection, reason = "there is a mailbox for each operation, and few have this")]
    later: Option<Box<VecDeque<Delivery>>>,
    /// Who found nothing, and is to be woken.
    owner: Option<Waker>,
}

impl Mailbox {
    /// The next event. If there is none, the task is woken by the next delivery.
    pub(crate) fn poll_pop(&self, cx: &Context<'_>) -> Poll<Delivery> {
        let mut events = self.events();
        match events.pop() {
            Some(delivery) => Poll::Ready(delivery),
            None => {
                match &mut events.owner {
                    Some(owner) => owner.clone_from(cx.waker()),
                    nobody => *nobody = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    fn push(&self, delivery: Delivery) {
        let owner = {
            let mut events = self.events();
            events.push(delivery);
            events.owner.take()
        };
        if let Some(owner) = owner {
            owner.wake();
        }
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who waits for one answer: a command of an operation.
pub(crate) struct Waiter {
    mailbox: Arc<Mailbox>,
    token: Token,
}

impl Waiter {
    pub(crate) fn new(mailbox: &Arc<Mailbox>, token: Token) -> Self {
        Waiter { mailbox: Arc::clone(mailbox), token }
    }

    pub(crate) fn deliver(&self, at: Time, event: Event) {
        self.mailbox.push(Delivery { token: self.token, event, at });
    }
}

impl Events {
    fn push(&mut self, delivery: Delivery) {
        if self.next.is_none() && self.later.is_none() {
            self.next = Some(delivery);
        } else {
            self.later.get_or_insert_default().push_back(delivery);
        }
    }

    fn pop(&mut self) -> Option<Delivery> {
        // Events are large: not even an absent one is moved.
        if self.next.is_some() {
            return self.next.take();
        }
        let later = self.later.as_mut()?;
        let event = later.pop_front();
        if later.is_empty() {
            self.later = None;
        }
        event
    }
}
