//! What really became of transactions, and whether clients were told so.
//!
//! A transaction is committed when its primary is; from then on all its writes count, whether the other keys still carry
//! locks or not. An async commit is committed as soon as all its keys carry locks of its kind, and at the largest min_commit_ts
//! of these, whatever its client knows. That is what makes the checks exact: readers must see the writes from that moment on.
//!
//! Kept is what can still be asked for: of each key the versions that an open transaction can see, of each transaction what
//! it wrote until it has ended on all its keys and its client was told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tikv_core::key::{Key, KeyRange};
use tikv_core::snapshot::Value;
use tikv_core::timestamp::Timestamp;
use tikv_core::txn::{Generation, Mutation};
use tikv_proto::kvrpcpb::Op;

use super::{Check, Rule, broken, ensure};
use crate::storage::Change;

/// How the client that ran a transaction knows it to have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulate) enum End {
    /// At this timestamp; `None` if it wrote nothing.
    Committed(Option<Timestamp>),
    RolledBack,
    Undetermined,
    /// The client died: it sends nothing more.
    Died,
    /// The client lost interest: what has been begun may be finished or taken back.
    Cancelled,
}

/// What a prewrite may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulate) enum Deciding {
    /// The primary decides.
    Primary,
    /// All locks together decide: async commit.
    AllLocks,
    /// The request decides: one-phase commit.
    Request,
}

/// The truth about all transactions. See the [module](self).
#[derive(Clone, Debug, Default)]
pub(in crate::simulate) struct History {
    keys: BTreeMap<Key, KeyHistory>,
    /// Transactions that write, from the beginning of their commits.
    txns: BTreeMap<Timestamp, Txn>,
    /// How many transactions that can still read began at a timestamp; or began above it, as far as is known yet.
    open: BTreeMap<Timestamp, u32>,
    locked: BTreeSet<Key>,
    /// The pessimistic locks of transactions that do not commit yet.
    held: BTreeMap<Timestamp, BTreeMap<Key, Held>>,
    /// The latest scan of each range.
    scans: Vec<(KeyRange, Timestamp)>,
    /// The greatest commit_ts that a client was told of.
    acknowledged: Timestamp,
}

/// A read of what is newest, when it begins.
#[derive(Clone, Copy, Debug)]
pub(in crate::simulate) struct Newest {
    /// The commit of the version that is the newest by now.
    at_least: Timestamp,
    /// What it keeps open, to be [closed](History::close).
    pub(in crate::simulate) open: Timestamp,
}

#[derive(Clone, Debug, Default)]
struct KeyHistory {
    /// Values and deletions, oldest first.
    versions: VecDeque<Version>,
    /// The latest commit, mere locks included.
    last_commit: Timestamp,
    /// The latest commit that was not of a lock in share mode.
    last_exclusive: Timestamp,
    /// The latest read that has ended: nothing may be committed below it any more.
    last_read: Timestamp,
}

/// A key that a pessimistic transaction has locked.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// The timestamp that its client was told; zero if it holds no lock.
    lock_ts: Timestamp,
    /// The newest timestamp of a release: locks up to there may be gone.
    released: Timestamp,
    /// Whether the lock has gone, unknown to its client: with its time, or with the memory of a store.
    is_lost: bool,
    /// The timestamp of the lock that is there, zero for none. A request that the client has given up may have raised it.
    /// Unknown if the lock is shared.
    actual: Timestamp,
    /// The newest timestamp of a lock that has gone.
    gone: Timestamp,
}

#[derive(Clone, Debug)]
struct Version {
    commit_ts: Timestamp,
    value: Option<Bytes>,
}

#[derive(Clone, Debug)]
struct Txn {
    primary: Key,
    writes: BTreeMap<Key, Write>,
    /// Keys on which it has not ended yet.
    left: usize,
    /// Whether a request that may decide has ever left its client.
    may_commit: bool,
    /// Whether a prewrite has left its client that may decide.
    prewrites_may_decide: bool,
    /// Whether it was asked to be committed in one phase, with which no key is the first.
    one_phase: bool,
    /// Whether its prewrites decided it: it may have the commit_ts that is the start_ts of another transaction.
    by_prewrites: bool,
    /// Whether what begins after it was acknowledged must have a greater timestamp.
    in_real_time: bool,
    /// The latest generation of a pipelined transaction.
    generation: u64,
    /// Somebody has rolled it back, be it on one key.
    rolled_back: bool,
    /// The min_commit_ts of locks that decide together.
    locks: BTreeMap<Key, Timestamp>,
    committed: Option<Timestamp>,
    /// What its client knows.
    end: Option<End>,
    /// The greatest commit_ts that any client had been told of when it began to commit.
    floor: Timestamp,
    /// Whether its client asks what became of it.
    asks: bool,
    owner: Option<Owner>,
}

/// Who wants to be asked whether a transaction may commit.
#[derive(Clone, Debug)]
struct Owner {
    /// How much later than allowed prewrites may decide.
    window: Duration,
    /// When it may commit.
    allowed: Vec<Timestamp>,
}

#[derive(Clone, Debug)]
struct Write {
    op: Op,
    value: Bytes,
    /// Nobody else may have committed the key later: the start of the transaction, or the timestamp of its lock.
    since: Timestamp,
    committed: bool,
}

impl History {
    // ---- What clients do ----

    /// A transaction asks for its timestamp. What it gets must be above the one returned.
    pub(in crate::simulate) fn ask(&mut self) -> Timestamp {
        self.open(self.acknowledged);
        self.acknowledged
    }

    /// A transaction gets the timestamp that it [asked](History::ask) for when the floor was `floor`.
    pub(in crate::simulate) fn begin(&mut self, start_ts: Timestamp, floor: Timestamp) -> Check {
        ensure(start_ts > floor, Rule::RealTimeOrder, || {
            format!("transaction {start_ts} begins although a commit at {floor} was acknowledged before")
        })?;
        self.open(start_ts);
        self.close(floor);
        Ok(())
    }

    /// A transaction that began at this timestamp ends without having tried to commit; or one that has asked for its
    /// timestamp when this was the floor never begins.
    pub(in crate::simulate) fn close(&mut self, ts: Timestamp) {
        if let Some(count) = self.open.get_mut(&ts) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&ts);
                self.held.remove(&ts);
            }
        }
    }

    fn open(&mut self, ts: Timestamp) {
        *self.open.entry(ts).or_default() += 1;
    }

    /// A client begins to commit.
    pub(in crate::simulate) fn begin_commit(
        &mut self,
        start_ts: Timestamp,
        primary: Key,
        mutations: &[Mutation],
        in_real_time: bool,
    ) {
        let held = self.held.remove(&start_ts).unwrap_or_default();
        let locking = mutations.iter().filter(|mutation| mutation.leaves_lock());
        let writes: BTreeMap<Key, Write> = locking
            .map(|mutation| {
                let since = held.get(&mutation.key).map_or(start_ts, |held| held.lock_ts.max(start_ts));
                let write = Write { op: mutation.op, value: mutation.value.clone(), since, committed: false };
                (mutation.key.clone(), write)
            })
            .collect();
        let left = writes.len();
        self.txns.insert(start_ts, Txn { left, writes, in_real_time, floor: self.acknowledged, ..Txn::new(primary) });
    }

    /// The owner of a transaction that begins to commit wants to be asked. Prewrites may decide within a time after that.
    pub(in crate::simulate) fn wants_to_be_asked(&mut self, start_ts: Timestamp, window: Duration) {
        if let Some(txn) = self.txns.get_mut(&start_ts) {
            txn.owner = Some(Owner { window, allowed: Vec::new() });
        }
    }

    /// The owner of a transaction says that it may commit at a timestamp.
    pub(in crate::simulate) fn allow(&mut self, start_ts: Timestamp, commit_ts: Timestamp) {
        let owner = self.txns.get_mut(&start_ts).and_then(|txn| txn.owner.as_mut());
        owner.into_iter().for_each(|owner| owner.allowed.push(commit_ts));
    }

    /// A pipelined transaction begins to flush its next generation.
    pub(in crate::simulate) fn flush_begun(&mut self, start_ts: Timestamp, generation: &Generation) {
        let txn = self.txns.entry(start_ts).or_insert_with(|| Txn::new(generation.primary().clone()));
        txn.generation = generation.number();
        // It does not commit before its last flush.
        txn.floor = self.acknowledged;
        if txn.writes.is_empty() {
            txn.primary = generation.primary().clone();
        }
        for mutation in generation.mutations().iter().filter(|mutation| mutation.leaves_lock()) {
            let deleted_before = txn.writes.get(&mutation.key).is_some_and(|write| write.op == Op::Del);
            // What it has deleted itself is absent.
            let op = if mutation.op == Op::Insert && deleted_before { Op::Put } else { mutation.op };
            let write = Write { op, value: mutation.value.clone(), since: start_ts, committed: false };
            if txn.writes.insert(mutation.key.clone(), write).is_none() {
                txn.left += 1;
            }
        }
    }

    /// A request leaves its client that flushes a part of a generation.
    pub(in crate::simulate) fn flush_sent(&mut self, start_ts: Timestamp, primary: &Key, generation: u64) -> Check {
        self.prewrite_sent(start_ts, Deciding::Primary)?;
        let Some(txn) = self.txns.get(&start_ts) else { return Ok(()) };
        ensure(txn.primary == *primary && txn.generation == generation, Rule::FlushOrder, || {
            let (first, latest) = (&txn.primary, txn.generation);
            format!(
                "transaction {start_ts}, of {first:?} and in generation {latest}, flushes {generation} of {primary:?}"
            )
        })
    }

    /// A store is told that a pipelined transaction has no locks any more.
    pub(in crate::simulate) fn completion_told(&self, start_ts: Timestamp) -> Check {
        let left = self.txns.get(&start_ts).filter(|txn| txn.committed.is_some() && txn.left > 0);
        ensure(left.is_none(), Rule::LocksResolved, || {
            format!("committed transaction {start_ts} is said to have no locks, but {left:?}")
        })
    }

    /// Whether anybody has rolled the transaction back on any key.
    pub(in crate::simulate) fn was_rolled_back(&self, start_ts: Timestamp) -> bool {
        self.txns.get(&start_ts).is_some_and(|txn| txn.rolled_back)
    }

    /// The request that commits the primary leaves its client.
    pub(in crate::simulate) fn commit_sent(&mut self, start_ts: Timestamp) {
        if let Some(txn) = self.txns.get_mut(&start_ts) {
            txn.may_commit = true;
        }
    }

    /// A request that locks leaves its client.
    pub(in crate::simulate) fn prewrite_sent(&mut self, start_ts: Timestamp, deciding: Deciding) -> Check {
        let runs = self.txns.get_mut(&start_ts).is_some_and(|txn| {
            // What may be decided is finished without its owner.
            let runs = txn.end.is_none() || (txn.end == Some(End::Cancelled) && txn.prewrites_may_decide);
            txn.prewrites_may_decide |= deciding != Deciding::Primary;
            txn.may_commit |= txn.prewrites_may_decide;
            txn.one_phase |= deciding == Deciding::Request;
            runs
        });
        ensure(runs, Rule::SilentAfterCancel, || format!("transaction {start_ts} has ended, and locks keys"))
    }

    /// A request leaves its client that keeps a transaction alive.
    pub(in crate::simulate) fn heartbeat_sent(&self, start_ts: Timestamp) -> Check {
        let runs = match self.txns.get(&start_ts) {
            Some(txn) => matches!(txn.end, None | Some(End::Cancelled)),
            // It has locked keys, and does not commit yet.
            None => self.open.contains_key(&start_ts),
        };
        ensure(runs, Rule::SilentAfterCancel, || format!("transaction {start_ts} has ended, and is kept alive"))
    }

    /// A request for a pessimistic lock leaves its client.
    pub(in crate::simulate) fn lock_sent(&self, start_ts: Timestamp) -> Check {
        let runs = self.open.contains_key(&start_ts) && !self.txns.contains_key(&start_ts);
        ensure(runs, Rule::SilentAfterCancel, || format!("transaction {start_ts} has ended or commits, and locks keys"))
    }

    /// A client was told that its transaction holds a pessimistic lock of this timestamp.
    pub(in crate::simulate) fn lock_taken(&mut self, start_ts: Timestamp, key: Key, lock_ts: Timestamp) -> Check {
        let held = self.held.entry(start_ts).or_default().entry(key).or_default();
        held.lock_ts = held.lock_ts.max(lock_ts);
        // It may have gone before its client hears of it.
        held.is_lost |= held.actual < lock_ts && held.gone >= lock_ts;
        let released = held.released;
        ensure(released < lock_ts, Rule::LocksKept, || {
            format!("transaction {start_ts} has a lock of {lock_ts}, and releases what it has locked up to {released}")
        })
    }

    /// Whether a transaction no longer has all the pessimistic locks that its client believes it has. What it reads need not fit
    /// together then; its commit will find out.
    pub(in crate::simulate) fn has_lost_locks(&self, start_ts: Timestamp) -> bool {
        let is_lost = |held: &Held| held.is_lost || (!held.lock_ts.is_zero() && held.actual > held.lock_ts);
        self.held.get(&start_ts).is_some_and(|held| held.values().any(is_lost))
    }

    /// A client lets go of pessimistic locks of a transaction that goes on.
    pub(in crate::simulate) fn locks_dropped(&mut self, start_ts: Timestamp, keys: &[Key]) {
        let Some(held) = self.held.get_mut(&start_ts) else { return };
        for key in keys {
            if let Some(held) = held.get_mut(key) {
                held.lock_ts = Timestamp::ZERO;
            }
        }
    }

    /// A request leaves a client that releases pessimistic locks up to a timestamp, of a transaction whose locks cannot have
    /// expired: it is its own client that wants to.
    pub(in crate::simulate) fn release_sent(&mut self, start_ts: Timestamp, keys: &[Bytes], up_to: Timestamp) -> Check {
        if !self.open.contains_key(&start_ts) || self.txns.contains_key(&start_ts) {
            return Ok(());
        }
        for key in keys {
            let held = self.held.entry(start_ts).or_default().entry(Key::from(key.clone())).or_default();
            held.released = held.released.max(up_to);
            // Of a lock that has gone, others may take whatever is there instead for what they have to release.
            let Held { lock_ts, is_lost, .. } = *held;
            ensure(lock_ts.is_zero() || is_lost || up_to < lock_ts, Rule::LocksKept, || {
                format!("transaction {start_ts} holds {key:?} since {lock_ts}, and releases it up to {up_to}")
            })?;
        }
        Ok(())
    }

    /// The client knows how a commit ended, or will never know.
    pub(in crate::simulate) fn end_commit(&mut self, start_ts: Timestamp, end: End) -> Check {
        self.close(start_ts);
        self.told(start_ts, end)
    }

    /// A client is about to be told that an outcome is not known, and is going to ask.
    pub(in crate::simulate) fn ask_outcome(&mut self, start_ts: Timestamp) {
        if let Some(txn) = self.txns.get_mut(&start_ts) {
            txn.asks = true;
        }
    }

    /// What it was told.
    pub(in crate::simulate) fn told_outcome(&mut self, start_ts: Timestamp, end: End) -> Check {
        if let Some(txn) = self.txns.get_mut(&start_ts) {
            txn.asks = false;
        }
        self.told(start_ts, end)
    }

    fn told(&mut self, start_ts: Timestamp, end: End) -> Check {
        let Some(txn) = self.txns.get_mut(&start_ts) else { return Ok(()) };
        txn.end = Some(end);
        let Txn { committed, may_commit, by_prewrites, in_real_time, .. } = *txn;
        match end {
            End::Committed(None) => ensure(txn.writes.is_empty(), Rule::ReportedOutcome, || {
                format!("transaction {start_ts} is said to have written nothing")
            })?,
            End::Committed(Some(commit_ts)) => {
                ensure(committed == Some(commit_ts), Rule::ReportedOutcome, || {
                    format!("transaction {start_ts} is said to be committed at {commit_ts}, but is {committed:?}")
                })?;
                let before = if by_prewrites { commit_ts.version() - 1 } else { commit_ts.version() };
                if in_real_time {
                    self.acknowledged = self.acknowledged.max(Timestamp::from_version(before));
                }
            }
            End::RolledBack => ensure(committed.is_none(), Rule::ReportedOutcome, || {
                format!("transaction {start_ts} is said to be rolled back, but is committed at {committed:?}")
            })?,
            End::Undetermined => ensure(may_commit, Rule::ReportedOutcome, || {
                format!("transaction {start_ts} is said to be undetermined, though nothing was sent to commit it")
            })?,
            End::Died | End::Cancelled => {}
        }
        self.forget_if_settled(start_ts);
        Ok(())
    }

    // ---- What they read ----

    /// A transaction has read keys: `found` has those that exist.
    pub(in crate::simulate) fn read(
        &mut self,
        read_ts: Timestamp,
        keys: &[Key],
        found: &BTreeMap<Key, Bytes>,
    ) -> Check {
        for key in keys {
            self.read_key(read_ts, key, found.get(key))?;
        }
        let strange = found.keys().find(|key| !keys.contains(key));
        ensure(strange.is_none(), Rule::SnapshotRead, || format!("{strange:?} was not asked for"))
    }

    /// A transaction has read all pairs of a range.
    pub(in crate::simulate) fn scan(
        &mut self,
        read_ts: Timestamp,
        range: &KeyRange,
        found: &BTreeMap<Key, Bytes>,
    ) -> Check {
        if let Some(strange) = found.keys().find(|key| !range.contains(key.as_slice()) || !self.keys.contains_key(*key))
        {
            return broken(Rule::SnapshotRead, format!("a scan of {range:?} at {read_ts} shows {strange:?}"));
        }
        let keys: Vec<Key> = self.keys.keys().filter(|key| range.contains(key.as_slice())).cloned().collect();
        for key in keys {
            self.read_key(read_ts, &key, found.get(&key))?;
        }
        match self.scans.iter_mut().find(|(known, _)| known == range) {
            Some((_, last)) => *last = read_ts.max(*last),
            None => self.scans.push((range.clone(), read_ts)),
        }
        Ok(())
    }

    /// Whether a value that a transaction has read was committed when it was told.
    pub(in crate::simulate) fn read_commit_ts(&self, read_ts: Timestamp, key: &Key, told: Option<Timestamp>) -> Check {
        let Some(told) = told else { return Ok(()) };
        let version = self.keys.get(key).and_then(|history| history.at(read_ts));
        ensure(version.is_some_and(|version| version.commit_ts == told), Rule::SnapshotRead, || {
            format!("{key:?} read at {read_ts} is said to be of {told} and is {version:?}")
        })
    }

    /// Somebody begins to read the newest version of a key.
    pub(in crate::simulate) fn begin_newest(&mut self, key: &Key) -> Newest {
        let newest = self.keys.get(key).and_then(|history| history.versions.back());
        let at_least = newest.map_or(Timestamp::ZERO, |version| version.commit_ts);
        let open = at_least.min(self.acknowledged);
        self.open(open);
        Newest { at_least, open }
    }

    /// What was read is a version that was the newest at some time since.
    pub(in crate::simulate) fn read_newest(&self, key: &Key, newest: Newest, found: Option<&Value>) -> Check {
        let absent = Version { commit_ts: Timestamp::ZERO, value: None };
        let versions = self.keys.get(key).into_iter().flat_map(|history| &history.versions);
        let since = |version: &&Version| version.commit_ts >= newest.at_least;
        let shows = |version: &Version| match found {
            None => version.value.is_none(),
            Some(Value { bytes, commit_ts }) => {
                version.value.as_ref() == Some(bytes) && commit_ts.is_none_or(|told| told == version.commit_ts)
            }
        };
        let known = std::iter::once(&absent).chain(versions).filter(since).any(shows);
        ensure(known, Rule::RealTimeOrder, || {
            let versions = self.keys.get(key).map(|history| &history.versions);
            format!("a read of what is newest shows {found:?} for {key:?}, though {newest:?} of {versions:?}")
        })
    }

    fn read_key(&mut self, read_ts: Timestamp, key: &Key, found: Option<&Bytes>) -> Check {
        let Some(history) = self.keys.get_mut(key) else {
            ensure(found.is_none(), Rule::SnapshotRead, || format!("{key:?} is {found:?}, but was never written"))?;
            self.keys.insert(key.clone(), KeyHistory { last_read: read_ts, ..KeyHistory::default() });
            return Ok(());
        };
        let version = history.at(read_ts);
        let expected = version.and_then(|version| version.value.as_ref());
        ensure(found == expected, Rule::SnapshotRead, || {
            format!("a read of {key:?} at {read_ts} shows {found:?} instead of {expected:?}, which is {version:?}")
        })?;
        history.last_read = history.last_read.max(read_ts);
        Ok(())
    }

    // ---- What stores do ----

    /// The data has changed.
    pub(in crate::simulate) fn observe(&mut self, change: &Change) -> Check {
        match change {
            Change::Locked { key, start_ts, for_update_ts, async_commit } => {
                self.locked.insert(key.clone());
                self.locked_in_fact(key, *start_ts, *for_update_ts);
                async_commit.map_or(Ok(()), |min_commit_ts| self.locked_to_commit(key, *start_ts, min_commit_ts))
            }
            Change::Unlocked { key } => {
                self.locked.remove(key);
                for held in self.held.values_mut().filter_map(|held| held.get_mut(key)) {
                    held.gone = held.gone.max(std::mem::take(&mut held.actual));
                    held.is_lost |= !held.lock_ts.is_zero();
                }
                Ok(())
            }
            Change::Ended { key, start_ts, op: Op::Rollback, .. } => self.rolled_back(key, *start_ts),
            Change::Ended { key, start_ts, commit_ts, op } => self.committed(key, *start_ts, *commit_ts, *op),
            Change::RawWritten { .. } => Ok(()),
        }
    }

    /// A key carries a lock of a transaction, pessimistic if it has a for_update_ts.
    fn locked_in_fact(&mut self, key: &Key, start_ts: Timestamp, for_update_ts: Timestamp) {
        if !for_update_ts.is_zero() && self.open.contains_key(&start_ts) && !self.txns.contains_key(&start_ts) {
            self.held.entry(start_ts).or_default().entry(key.clone()).or_default().actual = for_update_ts;
        }
    }

    /// A key carries a lock of an async commit. The last of them decides.
    fn locked_to_commit(&mut self, key: &Key, start_ts: Timestamp, min_commit_ts: Timestamp) -> Check {
        let Some(txn) = self.txns.get_mut(&start_ts).filter(|txn| txn.writes.contains_key(key)) else { return Ok(()) };
        txn.locks.insert(key.clone(), min_commit_ts);
        if txn.committed.is_some() || txn.locks.len() < txn.writes.len() {
            return Ok(());
        }
        let commit_ts = txn.locks.values().max().copied().unwrap_or_default();
        txn.committed = Some(commit_ts);
        txn.by_prewrites = true;
        self.decide(start_ts, commit_ts)
    }

    fn rolled_back(&mut self, key: &Key, start_ts: Timestamp) -> Check {
        if let Some(txn) = self.txns.get_mut(&start_ts) {
            txn.locks.remove(key);
            txn.rolled_back = true;
        }
        let txn = self.txns.get(&start_ts).filter(|txn| txn.committed.is_some() && txn.writes.contains_key(key));
        ensure(txn.is_none(), Rule::OneCommitTs, || {
            format!("committed transaction {start_ts} is rolled back on {key:?}")
        })
    }

    fn committed(&mut self, key: &Key, start_ts: Timestamp, commit_ts: Timestamp, op: Op) -> Check {
        let Some(txn) = self.txns.get_mut(&start_ts) else {
            return broken(
                Rule::ReportedOutcome,
                format!("transaction {start_ts} is committed on {key:?} although it never tried, or had ended"),
            );
        };
        let is_decided = txn.committed.is_some();
        txn.by_prewrites |= txn.one_phase && !is_decided && !txn.locks.contains_key(key);
        ensure(is_decided || txn.primary == *key || txn.by_prewrites, Rule::PrimaryFirst, || {
            format!("transaction {start_ts} is committed on {key:?} before its primary {:?}", txn.primary)
        })?;
        let decided = *txn.committed.get_or_insert(commit_ts);
        ensure(decided == commit_ts, Rule::OneCommitTs, || {
            format!("transaction {start_ts} committed at {decided}, and on {key:?} at {commit_ts}")
        })?;
        let write = txn.writes.get_mut(key).filter(|write| !write.committed && written_by(write.op) == op);
        let Some(write) = write else {
            return broken(Rule::OneCommitTs, format!("transaction {start_ts} never wrote {op:?} to {key:?}"));
        };
        write.committed = true;
        txn.left -= 1;
        if !is_decided {
            self.decide(start_ts, commit_ts)?;
        }
        self.forget_if_settled(start_ts);
        Ok(())
    }

    /// The transaction is committed now, on all its keys.
    fn decide(&mut self, start_ts: Timestamp, commit_ts: Timestamp) -> Check {
        let Some(txn) = self.txns.get(&start_ts) else { return Ok(()) };
        let told = txn.end;
        ensure(!matches!(told, Some(End::RolledBack)) && txn.may_commit, Rule::ReportedOutcome, || {
            format!(
                "transaction {start_ts} commits at {commit_ts}, though it was never asked to, or its client was told {told:?}"
            )
        })?;
        ensure(commit_ts > start_ts, Rule::RealTimeOrder, || format!("transaction {start_ts} commits at {commit_ts}"))?;
        ensure(!txn.in_real_time || commit_ts > txn.floor, Rule::RealTimeOrder, || {
            format!("transaction {start_ts} commits at {commit_ts}, after a commit at {} was acknowledged", txn.floor)
        })?;
        let forbidden = txn.owner.as_ref().filter(|owner| !owner.allows(commit_ts, txn.by_prewrites));
        ensure(forbidden.is_none(), Rule::OwnerAsked, || {
            format!("transaction {start_ts} commits at {commit_ts}, which was not allowed: {forbidden:?}")
        })?;
        let oldest = self.open.first_key_value().map_or(Timestamp::MAX, |(ts, _)| *ts);
        for (key, write) in &txn.writes {
            let scanned = self.scans.iter().filter(|(range, _)| range.contains(key.as_slice())).map(|(_, ts)| *ts);
            let history = self.keys.entry(key.clone()).or_default();
            let is_shared = write.op == Op::SharedLock;
            let last = if is_shared { history.last_exclusive } else { history.last_commit };
            ensure(last <= write.since, Rule::NoOverlap, || {
                format!("transaction {start_ts} commits {key:?} at {commit_ts}, another one did at {last}")
            })?;
            history.last_commit = commit_ts.max(history.last_commit);
            if is_shared {
                continue;
            }
            history.last_exclusive = commit_ts;
            if write.op == Op::Lock {
                continue;
            }
            let last_read = scanned.max().unwrap_or_default().max(history.last_read);
            ensure(last_read < commit_ts, Rule::SnapshotRead, || {
                format!("transaction {start_ts} commits {key:?} at {commit_ts}, below a read at {last_read}")
            })?;
            let exists = history.versions.back().is_some_and(|version| version.value.is_some());
            ensure(write.op != Op::Insert || !exists, Rule::InsertedAbsent, || {
                format!("transaction {start_ts} inserts {key:?}, which exists")
            })?;
            let value = (write.op != Op::Del).then(|| write.value.clone());
            history.versions.push_back(Version { commit_ts, value });
            history.prune(oldest);
        }
        Ok(())
    }

    /// What has ended everywhere, and for its client, is not spoken of again.
    fn forget_if_settled(&mut self, start_ts: Timestamp) {
        let Some(txn) = self.txns.get(&start_ts) else { return };
        let settled = match txn.end {
            _ if txn.asks => false,
            None => false,
            Some(End::RolledBack) => true,
            // What may be decided is finished without its owner, whose requests and heartbeats go on until they are answered.
            Some(End::Cancelled) => false,
            Some(_) if txn.committed.is_some() => txn.left == 0,
            Some(End::Undetermined | End::Died) => !txn.may_commit,
            Some(End::Committed(_)) => txn.left == 0,
        };
        if settled {
            self.txns.remove(&start_ts);
        }
    }

    // ---- At the end ----

    /// The keys that carry locks.
    pub(in crate::simulate) fn locked_keys(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.locked.iter()
    }

    /// The newest committed pairs.
    pub(in crate::simulate) fn state(&self) -> BTreeMap<Key, Bytes> {
        let newest = |history: &KeyHistory| history.versions.back()?.value.clone();
        self.keys.iter().filter_map(|(key, history)| Some((key.clone(), newest(history)?))).collect()
    }

    /// Nothing may be left to be done: no lock, and no transaction that has committed on some of its keys only.
    pub(in crate::simulate) fn check_settled(&self) -> Check {
        ensure(self.locked.is_empty(), Rule::LocksResolved, || format!("locks are left on {:?}", self.locked))?;
        let half = self.txns.iter().find(|(_, txn)| txn.committed.is_some() && txn.left > 0);
        ensure(half.is_none(), Rule::OneCommitTs, || {
            format!("without locks a transaction is committed in part: {half:?}")
        })
    }
}

impl Txn {
    fn new(primary: Key) -> Self {
        Txn {
            primary,
            left: 0,
            writes: BTreeMap::new(),
            may_commit: false,
            prewrites_may_decide: false,
            one_phase: false,
            by_prewrites: false,
            in_real_time: true,
            generation: 0,
            rolled_back: false,
            locks: BTreeMap::new(),
            committed: None,
            end: None,
            floor: Timestamp::ZERO,
            asks: false,
            owner: None,
        }
    }
}

impl Owner {
    fn allows(&self, commit_ts: Timestamp, by_prewrites: bool) -> bool {
        self.allowed.iter().any(|allowed| match by_prewrites {
            true => *allowed <= commit_ts && commit_ts.physical_since(*allowed) <= self.window,
            false => *allowed == commit_ts,
        })
    }
}

impl KeyHistory {
    /// What a reader at `read_ts` sees.
    fn at(&self, read_ts: Timestamp) -> Option<&Version> {
        self.versions.iter().rev().find(|version| version.commit_ts <= read_ts)
    }

    /// Drops what no transaction that began at `oldest` or later can see.
    fn prune(&mut self, oldest: Timestamp) {
        while self.versions.get(1).is_some_and(|next| next.commit_ts <= oldest) {
            self.versions.pop_front();
        }
    }
}

/// What committing a mutation writes.
fn written_by(op: Op) -> Op {
    match op {
        Op::Insert => Op::Put,
        Op::SharedLock => Op::Lock,
        op => op,
    }
}
