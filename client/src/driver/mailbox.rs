//! Where the answers to an operation's commands arrive.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use futures::task::AtomicWaker;
use tikv_core::machine::{Event, Token};

/// The events of one operation, and the task to be woken for them. Bounded by the commands that the operation has out.
#[derive(Default)]
pub(crate) struct Mailbox {
    events: Mutex<Events>,
    owner: AtomicWaker,
}

/// A queue of which the first place is here: most operations wait for one answer at a time.
#[derive(Default)]
struct Events {
    next: Option<(Token, Event)>,
    /// Never empty.
    later: Option<Box<VecDeque<(Token, Event)>>>,
}

impl Mailbox {
    pub(crate) fn pop(&self) -> Option<(Token, Event)> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// The task of `waker` is woken by every delivery from now on.
    pub(crate) fn register(&self, waker: &Waker) {
        self.owner.register(waker);
    }

    fn push(&self, token: Token, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(token, event);
        self.owner.wake();
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

    pub(crate) fn deliver(&self, event: Event) {
        self.mailbox.push(self.token, event);
    }
}

impl Events {
    fn push(&mut self, token: Token, event: Event) {
        if self.next.is_none() && self.later.is_none() {
            self.next = Some((token, event));
        } else {
            self.later.get_or_insert_default().push_back((token, event));
        }
    }

    fn pop(&mut self) -> Option<(Token, Event)> {
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
