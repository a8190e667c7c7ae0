//! Sessions: what each operation leads to.

use std::time::Duration;

use bytes::Bytes;
use tikv_core::engine::{Operation, OperationId, Outcome};
use tikv_core::error::Error;
use tikv_core::key::Direction;
use tikv_core::key::{Key, KeyRange};
use tikv_core::oracle::FetchTimestamp;
use tikv_core::snapshot::{self, Pair, Read, ReadThrough, SnapshotOptions};
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_core::txn::{
    Buffered, Commit, CommitOptions, CommitOutcome, Heartbeat, LockKeys, LockOptions, Locked, OnConflict,
    PessimisticRollback, Transaction, TxnState,
};

use super::{Phase, World};
use crate::simulate::check::{Check, End, Rule, broken, ensure};
use crate::simulate::client::Running;
use crate::simulate::options::Options;
use crate::simulate::session::{Open, Reading, State, What};
use crate::simulate::trace::{Entry, More, Node, TraceKind};
use crate::simulate::workload::{FairStep, Found, Locking, Script, Step, Task};

/// More than any scan finds.
const ALL_PAIRS: usize = 1_000_000;

impl World {
    /// The session begins its next transaction, unless enough have been begun.
    pub(super) fn turn(&mut self, index: usize, session: usize) -> Check {
        let enough = self.totals.transactions >= u64::from(self.scenario.options.transactions);
        if self.phase != Phase::Safety || enough || !self.clients[index].sessions[session].is_idle() {
            return Ok(());
        }
        self.totals.transactions += 1;
        if self.try_sweep(index, session) {
            return Ok(());
        }
        match self.workload.next(&mut self.clients[index].sessions[session].rng) {
            Task::Transaction(script) => {
                let rng = &mut self.clients[index].sessions[session].rng;
                let script = Locking::sometimes(self.scenario.workload, script, &self.scenario.options, rng);
                self.begin(index, session, script);
            }
            Task::ReadNewest(key) => self.read_newest(index, session, key),
            Task::Raw(task) => return self.begin_raw(index, session, task),
        }
        Ok(())
    }

    /// Starts an operation for a session. `deadline` is by the client's clock.
    pub(super) fn start(&mut self, index: usize, session: usize, operation: Operation, deadline: Time) -> OperationId {
        let name = operation_name(&operation);
        let txn = self.txn_of(index, session);
        let local = self.local_now(index);
        let client = &mut self.clients[index];
        let id = client.engine.start(local, operation);
        client.running.insert(id, Running { session, deadline, holdups: client.holdups });
        let node = Node::Client(client.id.number);
        self.trace.add(self.now, Entry::at(node, TraceKind::Started(name)), || More {
            txn,
            session: Some(session),
            detail: format!("operation {}", id.0),
            ..More::default()
        });
        id
    }

    /// A deadline by the client's clock, for some operations.
    pub(super) fn deadline_of_next(&mut self, index: usize, session: usize) -> Time {
        let options = &self.scenario.options;
        let (permille, most_ms) = (u64::from(options.deadline_permille), u64::from(options.deadline_ms));
        let local = self.local_now(index);
        let rng = &mut self.clients[index].sessions[session].rng;
        if self.phase != Phase::Safety || rng.below(1000) >= permille {
            return Time::MAX;
        }
        local + Duration::from_micros(rng.below(most_ms * 1_000))
    }

    pub(super) fn begin(&mut self, index: usize, session: usize, script: Box<dyn Script>) {
        let deadline = self.deadline_of_next(index, session);
        let fetch = FetchTimestamp::new(self.config_of(index)).until(deadline);
        let floor = self.history.ask();
        if let Some(observed) = &mut self.observed {
            observed.invoke(self.now, index, session, script.micro_ops());
        }
        self.clients[index].sessions[session].state = State::Beginning { script, floor };
        self.start(index, session, Operation::Timestamp(fetch), deadline);
    }

    pub(super) fn on_outcome(&mut self, index: usize, id: OperationId, outcome: Outcome) -> Check {
        let node = Node::Client(self.clients[index].id.number);
        let entry = Entry::at(node, TraceKind::Ended(outcome_name(&outcome)));
        let session = self.clients[index].running.get(&id).map(|running| running.session);
        let txn = session.map_or(Timestamp::ZERO, |session| self.txn_of(index, session));
        self.trace.add(self.now, entry, || More {
            txn,
            session,
            detail: format!("operation {}: {outcome:?}", id.0),
            ..More::default()
        });
        let Some(running) = self.forget_operation(index, id) else {
            return broken(Rule::NoLeak, format!("operation {} ends, which nobody waits for", id.0));
        };
        self.check_deadline(index, running)?;
        let session = running.session;
        match outcome {
            Outcome::KeepAlive(end) => {
                // What that means for the transaction, its commit finds out; unless it is pipelined.
                self.clients[index].sessions[session].keep_alive = None;
                return self.on_pipelined_heartbeat_end(index, session, end);
            }
            Outcome::Flush(end) => return self.on_flushed(index, session, &end),
            Outcome::OwnRead(end) => return self.on_own_read(index, session, end),
            Outcome::PipelinedCommit(result) => return self.on_pipelined_committed(index, session, &result),
            _ => {}
        }
        let state = std::mem::replace(&mut self.clients[index].sessions[session].state, State::Idle);
        match (state, outcome) {
            (State::Beginning { script, floor }, Outcome::Timestamp(result)) => {
                self.on_begun(index, session, script, floor, result)
            }
            (State::Reading(open), Outcome::SnapshotGet(read)) => self.on_got(index, session, open, read),
            (State::Reading(open), Outcome::SnapshotBatchGet(read) | Outcome::SnapshotScan(read)) => {
                self.on_pairs(index, session, open, read)
            }
            (State::Locking(open, options), Outcome::LockKeys(result)) => {
                self.on_locked(index, session, open, options, result)
            }
            (State::Committing(txn), Outcome::Commit(result)) => self.on_committed(index, session, *txn, &result),
            (State::Asking(start_ts), Outcome::OutcomeOf(result)) => self.on_told(index, session, start_ts, result),
            (State::ReadingNewest(key, newest), Outcome::SnapshotGet(read)) => {
                self.on_newest(index, session, &key, newest, read)
            }
            (State::Sweeping(sweep), Outcome::SweepLocks(result)) => self.on_swept(index, session, &sweep, &result),
            (State::Raw(call), outcome) => self.on_raw(index, session, &call, outcome),
            (state, outcome) => broken(Rule::PlausibleError, format!("{outcome:?} answers {state:?}")),
        }
    }

    /// What PD is asked may take as long as it takes PD, but then it is over.
    fn check_deadline(&self, index: usize, running: Running) -> Check {
        let client = &self.clients[index];
        let local = client.clock.local(self.now);
        let latest = running.deadline + self.config_of(index).pd_timeout + Duration::from_millis(5);
        let held_up = client.holdups != running.holdups;
        ensure(held_up || local <= latest, Rule::Deadline, || {
            format!("an operation that must end by {:?} ends at {local:?}", running.deadline)
        })
    }

    fn on_begun(
        &mut self,
        index: usize,
        session: usize,
        script: Box<dyn Script>,
        floor: Timestamp,
        result: Result<Timestamp, Error>,
    ) -> Check {
        let start_ts = match result {
            Ok(start_ts) => start_ts,
            Err(error) => {
                self.check_error(Timestamp::ZERO, &error)?;
                self.history.close(floor);
                self.totals.rolled_back += 1;
                self.note_end(index, session, Timestamp::ZERO, "rolled back");
                return self.end_session(index, session, false);
            }
        };
        self.note_begin(index, session, start_ts);
        self.history.begin(start_ts, floor)?;
        let started_at = self.local_now(index);
        let options = self.commit_options(index, session);
        let txn = Transaction::new(self.config_of(index), start_ts, started_at, options);
        let txn = if script.is_pessimistic() { txn.into_pessimistic(self.config_of(index)) } else { txn };
        let (read_through, reading) = (ReadThrough::new(start_ts), Reading::default());
        let open = Open { txn, script, read_through, reading, fair: Vec::new() };
        self.next_step(index, session, Box::new(open))
    }

    fn next_step(&mut self, index: usize, session: usize, mut open: Box<Open>) -> Check {
        let found = std::mem::take(&mut open.reading).found;
        let step = match open.script.step(&mut open.txn, found) {
            Ok(step) => step,
            Err(_) if self.may_have_lost_locks(&open) => Step::Abandon,
            Err(detail) => return broken(Rule::Workload, format!("transaction {}: {detail}", open.txn.start_ts())),
        };
        match step {
            Step::Read(keys) => self.read(index, session, open, keys),
            Step::Scan(range) => self.scan(index, session, open, range),
            Step::Lock(keys, options) => self.lock(index, session, open, keys, options),
            Step::ReadLocked(keys) => {
                open.reading.at = Some(open.txn.for_update_ts());
                self.read(index, session, open, keys)
            }
            Step::Fair(step) => self.lock_fairly(index, session, open, step),
            Step::Commit => self.commit(index, session, open),
            Step::Abandon => {
                self.totals.read_only += 1;
                self.note_end(index, session, open.txn.start_ts(), "read only");
                self.give_up(index, session, open, true)
            }
        }
    }

    /// Whether a pessimistic transaction may read what does not fit together: nobody tells it before its commit.
    fn may_have_lost_locks(&mut self, open: &Open) -> bool {
        let start_ts = open.txn.start_ts();
        let may_be_ended = self.may_be_ended_by_others(start_ts);
        open.txn.is_pessimistic() && (may_be_ended || self.history.has_lost_locks(start_ts))
    }

    fn give_up(&mut self, index: usize, session: usize, open: Box<Open>, succeeded: bool) -> Check {
        self.history.close(open.txn.start_ts());
        self.release(index, State::Reading(open).release());
        self.end_session(index, session, succeeded)
    }

    // ---- Locking ----

    fn lock(
        &mut self,
        index: usize,
        session: usize,
        mut open: Box<Open>,
        keys: Vec<Key>,
        options: LockOptions,
    ) -> Check {
        let deadline = self.deadline_of_next(index, session);
        let local = self.local_now(index);
        let options = options.deadline(deadline);
        let request = match open.txn.begin_lock(local, keys, options) {
            Ok(request) => request,
            Err(error) => return broken(Rule::PlausibleError, format!("keys cannot be locked: {error}")),
        };
        self.clients[index].sessions[session].state = State::Locking(open, options);
        self.start(index, session, Operation::LockKeys(LockKeys::new(request)), deadline);
        Ok(())
    }

    fn on_locked(
        &mut self,
        index: usize,
        session: usize,
        mut open: Box<Open>,
        options: LockOptions,
        result: Result<Locked, Error>,
    ) -> Check {
        let start_ts = open.txn.start_ts();
        open.txn.end_lock(&result);
        match result {
            Ok(locked) => {
                open.script.locked(&locked.keys);
                // Of keys that were locked before, only fair locking tells.
                for key in locked.keys.into_iter().filter(|key| !key.lock_ts.is_zero()) {
                    if key.exists.is_some() {
                        let found: Found = key.value.map(|value| (key.key.clone(), value)).into_iter().collect();
                        self.history.read(key.lock_ts, std::slice::from_ref(&key.key), &found)?;
                        open.reading.found.extend(found);
                    }
                    if open.txn.is_locked_fairly(&key.key) {
                        open.fair.push(key.key.clone());
                    }
                    self.history.lock_taken(start_ts, key.key, key.lock_ts)?;
                }
                self.keep_alive(index, session, open.txn.keep_alive());
                self.next_step(index, session, open)
            }
            Err(error) => {
                let told = options.on_conflict == OnConflict::Fail || !matches!(error, Error::WriteConflict(_));
                ensure(told, Rule::PlausibleError, || format!("transaction {start_ts} hears of conflicts: {error}"))?;
                self.check_error(start_ts, &error)?;
                match open.script.failed_to_lock(&error) {
                    Some(Step::Lock(keys, options)) => self.lock(index, session, open, keys, options),
                    _ => {
                        self.totals.rolled_back += 1;
                        self.note_end(index, session, start_ts, "rolled back");
                        self.give_up(index, session, open, false)
                    }
                }
            }
        }
    }

    /// Begins, repeats or ends a statement that locks fairly.
    fn lock_fairly(&mut self, index: usize, session: usize, mut open: Box<Open>, step: FairStep) -> Check {
        let local = self.local_now(index);
        let unwanted = match step {
            FairStep::Start => open.txn.start_fair_locking(local).map(|()| None),
            FairStep::Retry => open.txn.retry_fair_locking(local),
            FairStep::Finish => open.txn.finish_fair_locking(),
            FairStep::Cancel => open.txn.cancel_fair_locking(),
        };
        let fair = std::mem::take(&mut open.fair);
        if matches!(step, FairStep::Retry | FairStep::Cancel) {
            // What the next attempt does not ask for again is released.
            self.history.locks_dropped(open.txn.start_ts(), &fair);
        }
        match unwanted {
            Ok(unwanted) => self.release(index, unwanted),
            Err(error) => return broken(Rule::PlausibleError, format!("fair locking: {error}")),
        }
        self.keep_alive(index, session, open.txn.keep_alive());
        self.next_step(index, session, open)
    }

    /// Has the session keep the locks of its transaction alive, or no longer.
    pub(super) fn keep_alive(&mut self, index: usize, session: usize, heartbeat: Option<Heartbeat>) {
        let running = &self.clients[index].sessions[session].keep_alive;
        let (wanted, primary) = (heartbeat.as_ref().map(Heartbeat::primary), running.as_ref().map(|(_, key)| key));
        if wanted == primary {
            return;
        }
        let local = self.local_now(index);
        let client = &mut self.clients[index];
        if let Some((id, _)) = client.sessions[session].keep_alive.take() {
            client.engine.cancel(local, id);
            client.running.remove(&id);
        }
        if let Some(heartbeat) = heartbeat {
            let primary = heartbeat.primary().clone();
            let id = self.start(index, session, Operation::KeepAlive(heartbeat), Time::MAX);
            self.clients[index].sessions[session].keep_alive = Some((id, primary));
        }
    }

    /// Releases, in the background, what a transaction leaves locked.
    pub(super) fn release(&mut self, index: usize, rollback: Option<PessimisticRollback>) {
        let Some(rollback) = rollback else { return };
        self.history.locks_dropped(rollback.start_ts(), rollback.keys());
        let local = self.local_now(index);
        let engine = &mut self.clients[index].engine;
        let id = engine.start(local, Operation::PessimisticRollback(rollback));
        // Nobody waits for it; it goes on all the same.
        engine.cancel(local, id);
    }

    // ---- Reading ----

    /// Reads keys in one of several ways, all of which must show the same.
    fn read(&mut self, index: usize, session: usize, mut open: Box<Open>, keys: Vec<Key>) -> Check {
        let way = self.clients[index].sessions[session].rng.below(8);
        match way {
            0..=3 if keys.len() > 1 => {
                let (options, read_through) = self.snapshot(index, session, &open);
                let get = snapshot::BatchGet::new(self.config_of(index), keys.clone(), options.clone(), read_through);
                open.reading.what = What::Keys(keys);
                self.wait_for_read(index, session, open, Operation::SnapshotBatchGet(get), options.call.deadline);
                Ok(())
            }
            _ => {
                open.reading.left = keys.iter().cloned().collect();
                open.reading.what = What::Keys(keys);
                self.get_next(index, session, open)
            }
        }
    }

    fn get_next(&mut self, index: usize, session: usize, open: Box<Open>) -> Check {
        let Some(key) = open.reading.left.front().cloned() else { return self.on_read(index, session, open) };
        // What the transaction has written itself is not asked for.
        let unknown = matches!(open.txn.read(key.as_slice()), Ok(Buffered::Unknown));
        ensure(unknown, Rule::Workload, || format!("a script reads {key:?}, which it has written"))?;
        let (options, read_through) = self.snapshot(index, session, &open);
        let deadline = options.call.deadline;
        let get = snapshot::Get::new(self.config_of(index), key, options, read_through);
        self.wait_for_read(index, session, open, Operation::SnapshotGet(get), deadline);
        Ok(())
    }

    fn scan(&mut self, index: usize, session: usize, mut open: Box<Open>, range: KeyRange) -> Check {
        let (options, read_through) = self.snapshot(index, session, &open);
        let backwards = self.clients[index].sessions[session].rng.below(3) == 0;
        let direction = if backwards { Direction::Reverse } else { Direction::Forward };
        let deadline = options.call.deadline;
        let scan = snapshot::Scan::new(range.clone(), direction, ALL_PAIRS, options, read_through);
        open.reading.what = What::Range(range);
        self.wait_for_read(index, session, open, Operation::SnapshotScan(scan), deadline);
        Ok(())
    }

    fn snapshot(&mut self, index: usize, session: usize, open: &Open) -> (SnapshotOptions, ReadThrough) {
        let deadline = self.deadline_of_next(index, session);
        let mut options = SnapshotOptions::new(open.read_ts(), self.config_of(index));
        options.call.deadline = deadline;
        // A page size of zero is the configuration's.
        options.scan_batch_size = 0;
        options.need_commit_ts = self.clients[index].sessions[session].rng.below(8) == 0;
        let read_through = open.reading.at.map_or_else(|| open.read_through.clone(), ReadThrough::new);
        (options, read_through)
    }

    fn wait_for_read(&mut self, index: usize, session: usize, open: Box<Open>, operation: Operation, deadline: Time) {
        self.clients[index].sessions[session].state = State::Reading(open);
        self.start(index, session, operation, deadline);
    }

    fn on_got(
        &mut self,
        index: usize,
        session: usize,
        mut open: Box<Open>,
        read: Read<Option<snapshot::Value>>,
    ) -> Check {
        if open.reading.at.is_none() {
            open.read_through.learn(&read.read_through);
        }
        match read.result {
            Ok(value) => {
                if let (Some(key), Some(value)) = (open.reading.left.pop_front(), value) {
                    self.history.read_commit_ts(open.read_ts(), &key, value.commit_ts)?;
                    open.reading.found.insert(key, value.bytes);
                }
                self.get_next(index, session, open)
            }
            Err(error) => self.on_read_error(index, session, open, &error),
        }
    }

    fn on_pairs(&mut self, index: usize, session: usize, mut open: Box<Open>, read: Read<Vec<Pair>>) -> Check {
        if open.reading.at.is_none() {
            open.read_through.learn(&read.read_through);
        }
        match read.result {
            Ok(pairs) => {
                for pair in &pairs {
                    self.history.read_commit_ts(open.read_ts(), &pair.key, pair.value.commit_ts)?;
                }
                let pair_of = |pair: Pair| -> (Key, Bytes) { (pair.key, pair.value.bytes) };
                let count = pairs.len();
                open.reading.found = pairs.into_iter().map(pair_of).collect();
                ensure(open.reading.found.len() == count, Rule::SnapshotRead, || "a key is there twice".to_owned())?;
                self.on_read(index, session, open)
            }
            Err(error) => self.on_read_error(index, session, open, &error),
        }
    }

    fn on_read(&mut self, index: usize, session: usize, open: Box<Open>) -> Check {
        let read_ts = open.read_ts();
        if let Some(observed) = &mut self.observed {
            observed.read(index, session, &open.reading.found);
        }
        match &open.reading.what {
            What::Keys(keys) => self.history.read(read_ts, keys, &open.reading.found)?,
            What::Range(range) => self.history.scan(read_ts, range, &open.reading.found)?,
            What::Nothing => {}
        }
        self.next_step(index, session, open)
    }

    fn on_read_error(&mut self, index: usize, session: usize, open: Box<Open>, error: &Error) -> Check {
        self.check_error(open.txn.start_ts(), error)?;
        self.totals.rolled_back += 1;
        self.note_end(index, session, open.txn.start_ts(), "rolled back");
        self.give_up(index, session, open, false)
    }

    // ---- Committing ----

    fn commit_options(&mut self, index: usize, session: usize) -> CommitOptions {
        let mut options = CommitOptions::new(self.config_of(index));
        let Options { async_commit_permille, one_phase_permille, causal_permille, .. } = self.scenario.options;
        let rng = &mut self.clients[index].sessions[session].rng;
        let mut chance = |permille: u32| rng.below(1000) < permille.into();
        options.async_commit = chance(async_commit_permille);
        options.one_phase_commit = chance(one_phase_permille);
        options.causal_consistency = chance(causal_permille);
        options
    }

    fn commit(&mut self, index: usize, session: usize, open: Box<Open>) -> Check {
        let mut open = match self.try_pipelined(index, session, open) {
            Ok(check) => return check,
            Err(open) => open,
        };
        let deadline = self.deadline_of_next(index, session);
        let start_ts = open.txn.start_ts();
        let asks_owner = self.will_ask_owner(index, session);
        if let Ok(options) = open.txn.options_mut() {
            options.call.deadline = deadline;
            options.commit_ts.ask_owner = asks_owner;
        }
        let request = match open.txn.begin_commit() {
            Ok(request) => request,
            Err(error) => return broken(Rule::PlausibleError, format!("transaction {start_ts}: {error}")),
        };
        if let Some(primary) = request.mutations.primary().cloned() {
            let in_real_time = !request.options.causal_consistency;
            self.history.begin_commit(start_ts, primary, request.mutations.as_slice(), in_real_time);
            if asks_owner {
                self.history.wants_to_be_asked(start_ts, self.config_of(index).async_commit_safe_window);
            }
        }
        self.clients[index].sessions[session].state = State::Committing(Box::new(open.txn));
        self.start(index, session, Operation::Commit(Commit::new(request)), deadline);
        Ok(())
    }

    fn on_committed(
        &mut self,
        index: usize,
        session: usize,
        mut txn: Transaction,
        result: &Result<CommitOutcome, Error>,
    ) -> Check {
        txn.end_commit(result);
        self.commit_ended(index, session, txn.start_ts(), txn.state(), result)
    }

    /// A commit has ended, and its transaction with it.
    pub(super) fn commit_ended(
        &mut self,
        index: usize,
        session: usize,
        start_ts: Timestamp,
        state: TxnState,
        result: &Result<CommitOutcome, Error>,
    ) -> Check {
        let end = match state {
            TxnState::Committed(CommitOutcome { commit_ts, .. }) => End::Committed(commit_ts),
            TxnState::Undetermined => End::Undetermined,
            _ => End::RolledBack,
        };
        if let Err(error) = result {
            self.check_error(start_ts, error)?;
        }
        let (count, how) = match end {
            End::Committed(Some(_)) => (&mut self.totals.committed, "committed"),
            End::Committed(None) => (&mut self.totals.read_only, "read only"),
            End::Undetermined => (&mut self.totals.undetermined, "undetermined"),
            _ => (&mut self.totals.rolled_back, "rolled back"),
        };
        *count += 1;
        self.note_end(index, session, start_ts, how);
        let question = match result {
            Err(Error::Undetermined { primary, .. }) if self.will_ask(index, session, start_ts) => {
                Some(primary.clone())
            }
            _ => None,
        };
        self.history.end_commit(start_ts, end)?;
        match question {
            Some(primary) => {
                self.keep_alive(index, session, None);
                self.ask_outcome(index, session, start_ts, primary)
            }
            None => self.end_session(index, session, matches!(end, End::Committed(_))),
        }
    }

    /// The client will never hear how it ended.
    pub(super) fn abandon(&mut self, state: &State, died: bool) -> Check {
        match state {
            State::Idle | State::Sweeping(_) => Ok(()),
            State::Beginning { floor, .. } => {
                self.history.close(*floor);
                Ok(())
            }
            State::Reading(open) | State::Locking(open, _) => {
                self.history.close(open.txn.start_ts());
                Ok(())
            }
            State::Committing(txn) => {
                self.history.end_commit(txn.start_ts(), if died { End::Died } else { End::Cancelled })
            }
            State::Asking(start_ts) => self.history.told_outcome(*start_ts, End::Undetermined),
            State::Pipelined(now) => {
                let end = if died { End::Died } else { now.given_up() };
                self.history.end_commit(now.txn.start_ts(), end)
            }
            State::ReadingNewest(_, newest) => {
                self.history.close(newest.open);
                Ok(())
            }
            State::Raw(call) => {
                self.raw.end(call.since);
                Ok(())
            }
        }
    }

    /// A session has finished what it did.
    pub(super) fn end_session(&mut self, index: usize, session: usize, succeeded: bool) -> Check {
        self.become_idle(index, session);
        if index == self.auditor() { self.on_auditor_idle(succeeded) } else { Ok(()) }
    }
}

fn operation_name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Timestamp(_) => "Timestamp",
        Operation::SnapshotGet(_) => "SnapshotGet",
        Operation::SnapshotBatchGet(_) => "SnapshotBatchGet",
        Operation::SnapshotScan(_) => "SnapshotScan",
        Operation::Commit(_) => "Commit",
        Operation::LockKeys(_) => "LockKeys",
        Operation::KeepAlive(_) => "KeepAlive",
        Operation::OutcomeOf(_) => "OutcomeOf",
        Operation::ResolveLocks(_) => "ResolveLocks",
        Operation::CheckTxnStatus(_) => "CheckTxnStatus",
        Operation::ScanLocks(_) => "ScanLocks",
        Operation::SweepLocks(_) => "SweepLocks",
        Operation::Flush(_) => "Flush",
        Operation::OwnRead(_) => "OwnRead",
        Operation::PipelinedCommit(_) => "PipelinedCommit",
        _ => "Raw",
    }
}

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Timestamp(_) => "Timestamp",
        Outcome::SnapshotGet(_) => "SnapshotGet",
        Outcome::SnapshotBatchGet(_) => "SnapshotBatchGet",
        Outcome::SnapshotScan(_) => "SnapshotScan",
        Outcome::Commit(_) => "Commit",
        Outcome::LockKeys(_) => "LockKeys",
        Outcome::KeepAlive(_) => "KeepAlive",
        Outcome::OutcomeOf(_) => "OutcomeOf",
        Outcome::ResolveLocks(_) => "ResolveLocks",
        Outcome::CheckTxnStatus(_) => "CheckTxnStatus",
        Outcome::ScanLocks(_) => "ScanLocks",
        Outcome::SweepLocks(_) => "SweepLocks",
        Outcome::Flush(_) => "Flush",
        Outcome::OwnRead(_) => "OwnRead",
        Outcome::PipelinedCommit(_) => "PipelinedCommit",
        _ => "Raw",
    }
}
