//! Some transactions are pipelined: what their scripts write goes to the stores generation by generation, some keys more than
//! once, and is read back on the way.
//!
//! The script runs as ever, into a buffer of its own; what it has left there when it wants to commit becomes the plan. Flushes
//! run beside what the session does.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tikv_core::engine::{Operation, OperationId};
use tikv_core::error::Error;
use tikv_core::key::{Key, KeyRange};
use tikv_core::membuffer::ValueRef;
use tikv_core::rng::Rng;
use tikv_core::snapshot::{ReadThrough, SnapshotOptions};
use tikv_core::time::Time;
use tikv_core::txn::{
    CommitOutcome, FinishFlushed, Flush, FlushDue, Flushed, HeartbeatEnd, OwnRead, OwnReadEnd, PipelinedCommit,
    PipelinedOptions, PipelinedTransaction, Transaction,
};

use super::World;
use crate::simulate::check::{Check, End, Rule, broken, ensure};
use crate::simulate::session::{Open, State};

/// A pipelined transaction, and what is left of its plan.
#[derive(Debug)]
pub(in crate::simulate) struct Pipelining {
    pub(in crate::simulate) txn: PipelinedTransaction,
    read_through: ReadThrough,
    plan: VecDeque<Write>,
    /// What it must see of what it has written.
    own: BTreeMap<Key, Option<Bytes>>,
    doing: Doing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Doing {
    /// Goes on at once.
    Nothing,
    WaitingForFlush,
    Reading(OperationId, Vec<Key>),
    Committing,
}

#[derive(Clone, Debug)]
enum Write {
    Set(Key, Bytes),
    Insert(Key, Bytes),
    Delete(Key),
}

impl Write {
    fn key(&self) -> &Key {
        match self {
            Write::Set(key, _) | Write::Insert(key, _) | Write::Delete(key) => key,
        }
    }

    fn value(&self) -> Option<Bytes> {
        match self {
            Write::Set(_, value) | Write::Insert(_, value) => Some(value.clone()),
            Write::Delete(_) => None,
        }
    }

    fn apply(&self, txn: &mut PipelinedTransaction) -> Result<(), Error> {
        match self.clone() {
            Write::Set(key, value) => txn.set(key, value),
            Write::Insert(key, value) => txn.insert(key, value),
            Write::Delete(key) => txn.delete(key),
        }
    }
}

impl Pipelining {
    /// What has to be finished of it when nobody is interested in it any more.
    pub(in crate::simulate) fn release(&mut self) -> Option<FinishFlushed> {
        // A commit sees to that itself.
        self.txn.rollback().ok()?;
        self.txn.release()
    }

    /// How it ends for a client that loses interest: nothing is committed that was not asked to be.
    pub(in crate::simulate) fn given_up(&self) -> End {
        if self.doing == Doing::Committing { End::Cancelled } else { End::RolledBack }
    }
}

impl World {
    /// Makes a pipelined transaction of one that wants to commit, if it is its turn and can be one; else hands it back.
    pub(super) fn try_pipelined(&mut self, index: usize, session: usize, open: Box<Open>) -> Result<Check, Box<Open>> {
        let permille = u64::from(self.scenario.options.pipelined_permille);
        if permille == 0 || index == self.auditor() || open.txn.is_pessimistic() {
            return Err(open);
        }
        let started_at = self.local_now(index);
        let rng = &mut self.clients[index].sessions[session].rng;
        if rng.below(1000) >= permille {
            return Err(open);
        }
        let Some(plan) = plan(&open.txn, rng) else { return Err(open) };
        let pipelined = draw_options(rng);
        let (config, start_ts) = (self.config_of(index), open.txn.start_ts());
        let txn = PipelinedTransaction::new(config, start_ts, started_at, open.txn.options().clone(), pipelined);
        let txn = match txn {
            Ok(txn) => txn,
            Err(error) => return Ok(broken(Rule::PlausibleError, format!("transaction {start_ts}: {error}"))),
        };
        let (own, doing) = (BTreeMap::new(), Doing::Nothing);
        let pipelining = Pipelining { txn, read_through: open.read_through, plan, own, doing };
        Ok(self.go_on_pipelined(index, session, Box::new(pipelining)))
    }

    /// Writes until there is something to wait for.
    fn go_on_pipelined(&mut self, index: usize, session: usize, mut now: Box<Pipelining>) -> Check {
        now.doing = Doing::Nothing;
        while let Some(write) = now.plan.front().cloned() {
            // The flush before may have ended while something was read.
            if let Err(error) = self.flush_if_due(index, session, &mut now) {
                return self.fail_pipelined(index, session, now, &error);
            }
            match write.apply(&mut now.txn) {
                Ok(()) => {}
                Err(Error::BufferFull { .. }) if now.txn.is_flushing() => {
                    return self.wait_for_flush(index, session, now);
                }
                Err(error) => return self.fail_pipelined(index, session, now, &error),
            }
            now.plan.pop_front();
            now.own.insert(write.key().clone(), write.value());
            if let Err(error) = self.flush_if_due(index, session, &mut now) {
                return self.fail_pipelined(index, session, now, &error);
            }
            if self.clients[index].sessions[session].rng.below(4) == 0 {
                return self.read_own(index, session, now);
            }
        }
        if now.txn.is_flushing() {
            return self.wait_for_flush(index, session, now);
        }
        self.commit_pipelined(index, session, now)
    }

    fn wait_for_flush(&mut self, index: usize, session: usize, mut now: Box<Pipelining>) -> Check {
        now.doing = Doing::WaitingForFlush;
        self.clients[index].sessions[session].state = State::Pipelined(now);
        Ok(())
    }

    fn flush_if_due(&mut self, index: usize, session: usize, now: &mut Pipelining) -> Result<(), Error> {
        if now.txn.flush_due() != FlushDue::Now {
            return Ok(());
        }
        let Some(generation) = now.txn.begin_flush()? else { return Ok(()) };
        self.history.flush_begun(now.txn.start_ts(), &generation);
        let id = self.start(index, session, Operation::Flush(Flush::new(generation)), Time::MAX);
        self.clients[index].sessions[session].flush = Some(id);
        Ok(())
    }

    /// Reads some of its own keys, written or not yet.
    fn read_own(&mut self, index: usize, session: usize, now: Box<Pipelining>) -> Check {
        let deadline = self.deadline_of_next(index, session);
        let rng = &mut self.clients[index].sessions[session].rng;
        let keys = now.own.keys().chain(now.plan.iter().map(Write::key)).cloned();
        let keys: Vec<Key> = keys.filter(|_| rng.below(3) == 0).take(16).collect();
        let mut options = SnapshotOptions::new(now.txn.start_ts(), self.config_of(index));
        options.call.deadline = deadline;
        let request = match now.txn.begin_read(keys.iter().cloned()) {
            Ok(request) => request,
            Err(error) => return self.fail_pipelined(index, session, now, &error),
        };
        let read = OwnRead::new(request, options, now.read_through.clone());
        // Noted before it starts: it may be all known.
        let start_ts = now.txn.start_ts();
        self.clients[index].sessions[session].state = State::Pipelined(now);
        let id = self.start(index, session, Operation::OwnRead(read), deadline);
        match &mut self.clients[index].sessions[session].state {
            State::Pipelined(now) => now.doing = Doing::Reading(id, keys),
            other => return broken(Rule::PlausibleError, format!("transaction {start_ts} has become {other:?}")),
        }
        Ok(())
    }

    pub(super) fn on_own_read(&mut self, index: usize, session: usize, end: OwnReadEnd) -> Check {
        let Some(mut now) = self.take_pipelined(index, session) else { return not_pipelined("a read") };
        let Doing::Reading(_, keys) = std::mem::replace(&mut now.doing, Doing::Nothing) else {
            return not_pipelined("a read");
        };
        now.txn.end_read(&end);
        now.read_through.learn(&end.read_through);
        let start_ts = now.txn.start_ts();
        let found: BTreeMap<Key, Bytes> = match end.result {
            Ok(pairs) => pairs.into_iter().map(|pair| (pair.key, pair.value.bytes)).collect(),
            Err(error) => return self.fail_pipelined(index, session, now, &error),
        };
        // Whoever was rolled back by somebody else does not know it yet.
        let is_sound = !self.history.was_rolled_back(start_ts);
        let (mine, others): (Vec<Key>, Vec<Key>) = keys.into_iter().partition(|key| now.own.contains_key(key));
        for key in mine.iter().filter(|_| is_sound) {
            let expected = now.own.get(key).and_then(Option::as_ref);
            ensure(found.get(key) == expected, Rule::OwnWrites, || {
                format!("transaction {start_ts} reads {:?} of {key:?}, and has written {expected:?}", found.get(key))
            })?;
        }
        let stored = found.into_iter().filter(|(key, _)| !mine.contains(key)).collect();
        self.history.read(start_ts, &others, &stored)?;
        self.go_on_pipelined(index, session, now)
    }

    pub(super) fn on_flushed(&mut self, index: usize, session: usize, end: &Result<Flushed, Error>) -> Check {
        self.clients[index].sessions[session].flush = None;
        let Some(mut now) = self.take_pipelined(index, session) else { return not_pipelined("a flush") };
        now.txn.end_flush(end);
        if let Err(error) = end {
            return self.fail_pipelined(index, session, now, error);
        }
        self.keep_alive(index, session, now.txn.keep_alive());
        if now.doing == Doing::WaitingForFlush {
            if let Err(error) = self.flush_if_due(index, session, &mut now) {
                return self.fail_pipelined(index, session, now, &error);
            }
            return self.go_on_pipelined(index, session, now);
        }
        self.clients[index].sessions[session].state = State::Pipelined(now);
        Ok(())
    }

    /// Whether the session runs a pipelined transaction, which ends with its heartbeat.
    pub(super) fn on_pipelined_heartbeat_end(&mut self, index: usize, session: usize, end: HeartbeatEnd) -> Check {
        let Some(mut now) = self.take_pipelined(index, session) else { return Ok(()) };
        if now.doing == Doing::Committing {
            self.clients[index].sessions[session].state = State::Pipelined(now);
            return Ok(());
        }
        let error = end.clone().into_error(now.txn.start_ts());
        now.txn.end_keep_alive(end);
        self.fail_pipelined(index, session, now, &error)
    }

    fn commit_pipelined(&mut self, index: usize, session: usize, mut now: Box<Pipelining>) -> Check {
        let deadline = self.deadline_of_next(index, session);
        let request = match now.txn.begin_commit() {
            Ok(request) => request.with_deadline(deadline),
            Err(error) => return self.fail_pipelined(index, session, now, &error),
        };
        let asks_owner = self.will_ask_owner(index, session);
        let request = if asks_owner { request.asking_owner() } else { request };
        // The commit has a heartbeat of its own.
        self.keep_alive(index, session, None);
        if let Some(rest) = request.rest() {
            self.history.flush_begun(now.txn.start_ts(), rest);
        }
        if asks_owner {
            self.history.wants_to_be_asked(now.txn.start_ts(), Duration::ZERO);
        }
        now.doing = Doing::Committing;
        self.clients[index].sessions[session].state = State::Pipelined(now);
        self.start(index, session, Operation::PipelinedCommit(PipelinedCommit::new(request)), deadline);
        Ok(())
    }

    pub(super) fn on_pipelined_committed(
        &mut self,
        index: usize,
        session: usize,
        result: &Result<CommitOutcome, Error>,
    ) -> Check {
        let Some(mut now) = self.take_pipelined(index, session) else { return not_pipelined("a commit") };
        now.txn.end_commit(result);
        self.commit_ended(index, session, now.txn.start_ts(), now.txn.state(), result)
    }

    /// It is over, and has not committed.
    fn fail_pipelined(&mut self, index: usize, session: usize, mut now: Box<Pipelining>, error: &Error) -> Check {
        let start_ts = now.txn.start_ts();
        self.check_error(start_ts, error)?;
        if let Doing::Reading(id, _) = now.doing {
            self.cancel_operation(index, id);
        }
        self.stop_flush(index, session);
        self.totals.rolled_back += 1;
        self.note_end(index, session, start_ts, "rolled back");
        self.history.end_commit(start_ts, End::RolledBack)?;
        // A read that fails leaves it open.
        let _ = now.txn.rollback();
        let finish = now.txn.release();
        self.finish_flushed(index, finish);
        self.end_session(index, session, false)
    }

    /// Gives up the flush that runs beside the session.
    pub(super) fn stop_flush(&mut self, index: usize, session: usize) {
        if let Some(id) = self.clients[index].sessions[session].flush.take() {
            self.cancel_operation(index, id);
        }
    }

    fn cancel_operation(&mut self, index: usize, id: OperationId) {
        let local = self.local_now(index);
        let client = &mut self.clients[index];
        client.engine.cancel(local, id);
        client.running.remove(&id);
    }

    /// Has what a pipelined transaction leaves rolled back in the background.
    pub(super) fn finish_flushed(&mut self, index: usize, finish: Option<FinishFlushed>) {
        let Some(finish) = finish else { return };
        let local = self.local_now(index);
        let engine = &mut self.clients[index].engine;
        let id = engine.start(local, Operation::FinishFlushed(finish));
        // Nobody waits for it; it goes on all the same.
        engine.cancel(local, id);
    }

    fn take_pipelined(&mut self, index: usize, session: usize) -> Option<Box<Pipelining>> {
        let state = &mut self.clients[index].sessions[session].state;
        match std::mem::replace(state, State::Idle) {
            State::Pipelined(now) => Some(now),
            other => {
                *state = other;
                None
            }
        }
    }
}

fn not_pipelined(what: &str) -> Check {
    broken(Rule::PlausibleError, format!("{what} of a pipelined transaction ends, and there is none"))
}

/// What a transaction has written, some of it twice; `None` if it has written nothing, or more than values.
fn plan(txn: &Transaction, rng: &mut Rng) -> Option<VecDeque<Write>> {
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for entry in txn.buffer().iter_with_flags(&KeyRange::ALL) {
        let (key, must_be_absent) = (entry.key.to_key(), entry.flags.has_presume_key_not_exists());
        let write = match entry.value? {
            ValueRef::Tombstone if must_be_absent => return None,
            ValueRef::Tombstone => Write::Delete(key),
            ValueRef::Put(value) if must_be_absent => Write::Insert(key, value.to_bytes()),
            ValueRef::Put(value) => Write::Set(key, value.to_bytes()),
        };
        let way = rng.below(6);
        match write {
            Write::Set(key, value) if way == 0 => {
                first.push(Write::Delete(key.clone()));
                // It is absent by then, whatever was there before.
                last.push(Write::Insert(key, value));
                continue;
            }
            Write::Set(..) | Write::Delete(_) if way == 1 => {
                first.push(Write::Set(write.key().clone(), "not for good".into()));
            }
            Write::Set(..) if way == 2 => first.push(Write::Delete(write.key().clone())),
            _ => {}
        }
        last.push(write);
    }
    if rng.below(2) == 0 {
        last.reverse();
    }
    first.append(&mut last);
    (!first.is_empty()).then(|| first.into())
}

fn draw_options(rng: &mut Rng) -> PipelinedOptions {
    let one_of = |rng: &mut Rng, choices: &[u32]| choices[rng.below(choices.len() as u64) as usize];
    PipelinedOptions {
        min_flush_keys: one_of(rng, &[1, 1, 2, 3, 8]) as usize,
        min_flush_bytes: 0,
        force_flush_bytes: one_of(rng, &[64, 800, 1 << 20]) as usize,
        flush_concurrency: one_of(rng, &[1, 4, 128]) as usize,
        resolve_concurrency: one_of(rng, &[1, 2, 8]) as usize,
        write_throttle_permille: one_of(rng, &[0, 0, 0, 500]),
        read_cache_bytes: one_of(rng, &[0, 64, 1 << 20]) as usize,
    }
}
