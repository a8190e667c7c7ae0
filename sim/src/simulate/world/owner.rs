//! Owners of transactions that want to be asked before these commit, and forbid some.

use std::sync::Arc;
use std::time::Duration;

use tikv_core::engine::CheckId;
use tikv_core::timestamp::Timestamp;

use super::{Event, World};
use crate::simulate::check::Check;
use crate::simulate::client::ClientId;

/// An owner may take this long to answer.
const LONGEST_THOUGHT: Duration = Duration::from_millis(200);

impl World {
    /// Whether a transaction that is about to commit asks its owner. The auditor's do not.
    pub(super) fn will_ask_owner(&mut self, index: usize, session: usize) -> bool {
        let permille = u64::from(self.scenario.options.ask_owner_permille);
        let is_auditor = index + 1 == self.clients.len();
        permille > 0 && !is_auditor && self.clients[index].sessions[session].rng.below(1000) < permille
    }

    /// Most owners say yes, and at once.
    pub(super) fn ask_owner(&mut self, index: usize, id: CheckId, start_ts: Timestamp, commit_ts: Timestamp) {
        let allows = self.rng.below(8) > 0;
        if allows {
            self.history.allow(start_ts, commit_ts);
        }
        let thought = match self.rng.below(4) {
            0 => Duration::from_micros(self.rng.below(1 + LONGEST_THOUGHT.as_micros() as u64)),
            _ => Duration::ZERO,
        };
        let client = self.clients[index].id;
        self.queue.push(self.now + thought, Event::FromOwner { client, id, allows });
    }

    pub(super) fn hear_of_owner(&mut self, client: ClientId, id: CheckId, allows: bool) -> Check {
        let Some(index) = self.client(client) else { return Ok(()) };
        let answer = if allows { Ok(()) } else { Err(Arc::from("not this one")) };
        self.step(index, |engine, now| engine.handle_checked(now, id, answer))
    }
}
