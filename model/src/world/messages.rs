//! Calls on their way, in the store, and on their way back.

use std::sync::Arc;

use tikv_core::machine::{Call, Token};
use tikv_core::request::{Access, Request, Response};
use tikv_core::time::Time;
use tikv_sim::cluster::CallId;

use super::World;
use crate::client::TaskId;
use crate::fingerprint::Part;

/// A call, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Message {
    /// Who waits for the answer, if anybody.
    pub(super) waiter: Option<Waiter>,
    pub(super) call: Arc<Call>,
    pub(super) stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// On its way.
    Sent,
    /// In the store, where it waits for a lock.
    Queued(CallId),
    /// The answer is on its way back.
    Answered(Arc<Response>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiter {
    pub(super) client: usize,
    pub(super) task: TaskId,
    pub(super) token: Token,
}

impl World {
    pub(super) fn insert(&mut self, message: Message) {
        let message = Part::new(message);
        let place = self.messages.partition_point(|other| other.fingerprint() < message.fingerprint());
        self.messages.insert(place, message);
    }

    /// A call whose answer nobody waits for. One that only reads is forgotten, as it would make no difference.
    pub(super) fn insert_orphan(&mut self, message: Message) {
        if is_write(&message.call.request) {
            self.insert(Message { waiter: None, ..message });
        }
    }

    pub(super) fn take(&mut self, place: usize) -> Message {
        Message::clone(&self.messages.remove(place))
    }

    /// Nobody waits for the answer any more; the call may yet arrive.
    pub(super) fn forget(&mut self, waiter: Waiter) {
        let Some(place) = self.messages.iter().position(|message| message.waiter == Some(waiter)) else { return };
        let message = self.take(place);
        if !matches!(message.stage, Stage::Answered(_)) {
            self.insert_orphan(message);
        }
    }

    pub(super) fn queued(&self) -> impl Iterator<Item = (usize, CallId, &Message)> {
        self.messages.iter().enumerate().filter_map(|(place, message)| match message.stage {
            Stage::Queued(name) => Some((place, name, &**message)),
            _ => None,
        })
    }

    /// A name for a request that has to wait: the later they come, the larger.
    pub(super) fn unused_name(&self) -> CallId {
        CallId::new(self.queued().map(|(_, name, _)| name.number() + 1).max().unwrap_or(0))
    }

    pub(super) fn take_queued(&mut self, name: CallId) -> Option<Message> {
        let (place, ..) = self.queued().find(|(_, other, _)| *other == name)?;
        Some(self.take(place))
    }

    /// Whether a client waits for a request that waits in the store.
    pub(super) fn is_anybody_queued(&self) -> bool {
        self.queued().any(|(_, _, message)| message.waiter.is_some())
    }

    /// When the store wakes all whose lock has gone. Nothing else is due at any time.
    pub(super) fn next_round(&self) -> Option<Time> {
        self.waits.next_wakeup().filter(|time| *time < Time::MAX)
    }
}

pub(super) fn is_write(request: &Request) -> bool {
    request.kind().facts().access != Access::Read
}
