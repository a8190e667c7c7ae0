//! What comes after the end: a client that knows nothing of what happened finds everything in order.

use tikv_core::engine::Operation;
use tikv_core::key::Key;
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::Op;

use super::messages::Stage;
use super::{Action, Protocol, World};
use crate::client::{Client, Program, Wait};
use crate::explorer::Model;
use crate::fingerprint::Part;
use crate::history::property;
use crate::setup::{batch_get, write_all};
use crate::view::KeyView;

/// More steps than any reader needs.
const MAX_STEPS: usize = 1_000;
/// What is written last.
const LAST: &str = "last";

impl Protocol {
    /// Lets all locks expire, reads everything, and lets what that leaves behind finish. Pessimistic locks hide nothing from a
    /// reader: who writes their keys gets them out of the way.
    pub(super) fn check_resolvable(&self, world: &World) -> Result<(), &'static str> {
        let mut world = world.clone();
        world.clock.leaps += 1;
        self.wake_queued(&mut world, Time::MAX);
        let stranger = world.clients.len();
        world.clients.push(Part::new(Client::new(&self.config, &world.regions)));
        let read_ts: Timestamp = world.clock.timestamp();
        self.run_calmly(&mut world, stranger, batch_get(&self.config, read_ts, self.keys.clone()));
        world.history.check(&world.view)?;
        let was_read = world.history.reads.iter().any(|read| read.read_ts == read_ts);
        ensure(was_read && world.locked_keys(|lock| lock != Op::PessimisticLock).is_empty())?;
        let left = world.locked_keys(|_| true);
        if left.is_empty() {
            return Ok(());
        }
        let (start_ts, now) = (world.clock.timestamp(), world.clock.now());
        let owner = (stranger, world.clients[stranger].begun);
        world.history.edit(|history| history.begin(start_ts, owner, left.clone(), LAST.into(), false));
        self.run_calmly(&mut world, stranger, write_all(&self.config, start_ts, now, left, &LAST.into()));
        world.history.check(&world.view)?;
        let was_written = world.history.txn(start_ts).is_some_and(|txn| txn.committed.is_some());
        ensure(was_written && world.locked_keys(|_| true).is_empty())
    }

    /// Runs an operation to its end, and all that it leaves behind.
    fn run_calmly(&self, world: &mut World, client: usize, operation: Operation) {
        let program = Program::Operation(Box::new(operation));
        self.step(world, client, |client, surroundings| client.begin(surroundings, program));
        for _ in 0..MAX_STEPS {
            if world.clients[client].tasks.is_empty() {
                break;
            }
            let action = world.calm_action(client);
            *world = self.next(world, &action);
        }
    }
}

impl World {
    fn locked_keys(&self, which: impl Fn(Op) -> bool) -> Vec<Key> {
        let is_locked = |key: &&KeyView| key.lock.as_ref().is_some_and(|lock| which(lock.lock_type()));
        self.view.keys().iter().filter(is_locked).map(|key| key.key.clone()).collect()
    }

    /// What happens next if nothing goes wrong: messages arrive, sleeps end, and only then time passes.
    fn calm_action(&self, client: usize) -> Action {
        if let Some(message) = self.messages.first() {
            return if matches!(message.stage, Stage::Answered(_)) { Action::Answer(0) } else { Action::Execute(0) };
        }
        let tasks = self.clients[client].tasks.iter();
        let mut waits = tasks.flat_map(|task| task.waits.iter().map(|(token, wait)| (task.id, *token, *wait)));
        let awake = waits.find(|(_, _, wait)| *wait == Wait::Wake);
        awake.map_or(Action::Leap, |(task, token, _)| Action::Wake(client, task, token))
    }
}

fn ensure(holds: bool) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(property::RESOLVABLE) }
}
