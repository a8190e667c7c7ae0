//! What a machine may see of the world.

use std::sync::Arc;
use std::time::Duration;

#[cfg(any(test, feature = "transitions"))]
use super::Step;
use super::{Background, BackgroundMachine, Call, Command, CurrentPhase, Observation, Outbox, SleepReason, Token};
use crate::config::Config;
use crate::knowledge::Knowledge;
use crate::request::pd::PdRequest;
use crate::request::{CallContext, Request};
use crate::rng::Rng;
use crate::time::Time;
use crate::timestamp::Timestamp;

/// All that a machine may see of the world, and where its commands go.
#[derive(Debug)]
pub struct Context<'a> {
    now: Time,
    rng: &'a mut Rng,
    knowledge: &'a Knowledge,
    config: &'a Config,
    outbox: &'a mut Outbox,
}

impl<'a> Context<'a> {
    /// A context for one step.
    pub fn new(
        now: Time,
        rng: &'a mut Rng,
        knowledge: &'a Knowledge,
        config: &'a Config,
        outbox: &'a mut Outbox,
    ) -> Self {
        Context { now, rng, knowledge, config, outbox }
    }

    /// The time of this step.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// The generator of this operation.
    pub fn rng(&mut self) -> &mut Rng {
        self.rng
    }

    /// What the client knows of the cluster.
    #[must_use]
    pub fn knowledge(&self) -> &'a Knowledge {
        self.knowledge
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &'a Config {
        self.config
    }

    /// Sends an RPC to a store.
    pub fn call(
        &mut self,
        store_id: u64,
        address: Arc<str>,
        context: CallContext,
        request: Request,
        timeout: Duration,
    ) -> Token {
        let token = self.outbox.new_token();
        let deadline = self.now + timeout;
        self.outbox.push(Command::Call(Call { token, store_id, address, context, request, deadline }));
        token
    }

    /// Asks PD for a timestamp.
    pub fn timestamp(&mut self) -> Token {
        self.pd(PdRequest::Timestamp)
    }

    /// Asks PD.
    pub fn pd(&mut self, request: PdRequest) -> Token {
        let token = self.outbox.new_token();
        self.outbox.push(Command::Pd { token, request });
        token
    }

    /// Asks the owner of a transaction whether it may commit.
    pub fn check_commit(&mut self, start_ts: Timestamp, commit_ts: Timestamp) -> Token {
        let token = self.outbox.new_token();
        self.outbox.push(Command::CheckCommit { token, start_ts, commit_ts });
        token
    }

    /// Sleeps.
    pub fn sleep(&mut self, duration: Duration, reason: SleepReason) -> Token {
        let token = self.outbox.new_token();
        self.outbox.push(Command::Sleep { token, until: self.now + duration, reason });
        token
    }

    /// Forgets an earlier command.
    pub fn cancel(&mut self, token: Token) {
        self.outbox.push(Command::Cancel { token });
    }

    /// Has the next call to `address` connect anew.
    pub fn reconnect(&mut self, address: Arc<str>) {
        self.outbox.push(Command::Reconnect { address });
    }

    /// Leaves a machine running without an owner.
    pub fn spawn(&mut self, machine: impl Background) {
        self.outbox.push(Command::Spawn(BackgroundMachine::new(machine)));
    }

    /// Tells an observer.
    pub fn observe(&mut self, observation: Observation) {
        self.outbox.push(Command::Observe(observation));
    }

    /// Notes which phase a machine has gone to; `None` is the end.
    #[inline]
    pub(super) fn note_step(&mut self, from: Option<CurrentPhase>, to: Option<CurrentPhase>) {
        #[cfg(any(test, feature = "transitions"))]
        if let Some(from) = from {
            let step = Step::new(from, to);
            #[cfg(test)]
            assert!(step.transition().is_declared_by(from.0), "a step that is not declared: {step:?}");
            if !step.stays() {
                self.outbox.note(step);
            }
        }
        let _ = (from, to);
    }

    /// What a child issues between two marks is the child's.
    pub(super) fn mark(&self) -> Token {
        self.outbox.next_token()
    }
}
