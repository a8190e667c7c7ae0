//! What comes after the end: a client that knows nothing of what happened finds everything in order.

use tikv_core::timestamp::Timestamp;

use super::{Action, Protocol, World};
use crate::client::{Client, Program, Wait};
use crate::explorer::Model;
use crate::fingerprint::Part;
use crate::history::property;
use crate::setup::batch_get;

/// More steps than any reader needs.
const MAX_STEPS: usize = 1_000;

impl Protocol {
    /// Lets all locks expire, reads everything, and lets what that leaves behind finish.
    pub(super) fn check_resolvable(&self, world: &World) -> Result<(), &'static str> {
        let mut world = world.clone();
        world.clock.leaps += 1;
        let reader = world.clients.len();
        world.clients.push(Part::new(Client::new(&self.config, &world.regions)));
        let read_ts: Timestamp = world.clock.timestamp();
        let read = Program::Operation(Box::new(batch_get(&self.config, read_ts, self.keys.clone())));
        self.step(&mut world, reader, |client, surroundings| client.begin(surroundings, read));
        for _ in 0..MAX_STEPS {
            if world.clients[reader].tasks.is_empty() {
                break;
            }
            let action = world.calm_action(reader);
            world = self.next(&world, &action);
        }
        world.history.check(&world.view)?;
        let was_read = world.history.reads.iter().any(|read| read.read_ts == read_ts);
        let is_unlocked = world.view.keys().iter().all(|key| key.lock.is_none());
        if was_read && is_unlocked { Ok(()) } else { Err(property::RESOLVABLE) }
    }
}

impl World {
    /// What happens next if nothing goes wrong: messages arrive, sleeps end, and only then time passes.
    fn calm_action(&self, reader: usize) -> Action {
        if let Some(message) = self.messages.first() {
            return if message.answer.is_some() { Action::Answer(0) } else { Action::Execute(0) };
        }
        let tasks = self.clients[reader].tasks.iter();
        let mut waits = tasks.flat_map(|task| task.waits.iter().map(|(token, wait)| (task.id, *token, *wait)));
        let awake = waits.find(|(_, _, wait)| *wait == Wait::Wake);
        awake.map_or(Action::Leap, |(task, token, _)| Action::Wake(reader, task, token))
    }
}
