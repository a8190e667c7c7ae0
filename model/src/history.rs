//! What happened, and what must be true of it.
//!
//! The properties are those of the public TLA+ models of Percolator and of TiKV's distributed transactions, and of what a
//! caller is told. They are checked in every state; what can be gone later (a rollback record that a newer one replaces)
//! is remembered from the state in which it was seen.

use bytes::Bytes;
use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;

use crate::view::{KeyView, View};

/// The properties, by name.
pub mod property {
    /// No transaction has both a commit record and a rollback record.
    pub const COMMITTED_OR_ROLLED_BACK: &str = "no transaction is both committed and rolled back";
    /// Once a transaction has committed somewhere, each of its keys is locked or committed by it.
    pub const COMMIT_CONSISTENCY: &str = "a commit implies that all keys were written";
    /// All commit records of a transaction have one commit_ts, after its start_ts.
    pub const UNIQUE_COMMIT: &str = "all keys of a transaction commit at one timestamp";
    /// A secondary has a commit record only if the primary has.
    pub const PRIMARY_FIRST: &str = "a secondary never commits before its primary";
    /// Not both a lock and a commit record, and not two commit records.
    pub const LOCK_OR_WRITE: &str = "a key holds a lock or a version of a transaction, not both";
    /// Of two committed transactions that wrote a key, one began after the other had committed.
    pub const NO_LOST_UPDATE: &str = "no two committed writers of a key overlap";
    /// A read returns the newest version at its timestamp, and that stays true.
    pub const SNAPSHOT_READ: &str = "snapshot reads are exact";
    /// Success: committed, at that timestamp. A definite error: never committed. Undetermined: either.
    pub const OUTCOME: &str = "a reported outcome agrees with the store";
    /// What has committed in the eyes of its caller comes before what begins afterwards.
    pub const REAL_TIME: &str = "what is reported committed is seen by all that begins later";
    /// An async commit is decided as soon as all its keys are locked.
    pub const ASYNC_DECIDED: &str =
        "an async commit that is locked everywhere is committed at its largest min_commit_ts";
    /// Nobody rolls a transaction back before its time is up, but its own client.
    pub const ALIVE: &str = "no transaction is rolled back by others before its time is up";
    /// What a pessimistic transaction was told to hold is held: nobody takes it away before its time is up.
    pub const LOCK_HELD: &str = "a key that was reported locked stays so until its transaction ends or its time is up";
    /// No version is newer than what a lock has returned, as long as that very lock is held, and up to the commit.
    pub const LOCKING_READ: &str = "what a lock has returned stays the newest version";
    /// Where nothing goes wrong, no lock has to expire: deadlocks are noticed, and everybody is woken who waits for a lock.
    pub const NO_HELP_OF_TIME: &str = "nobody waits for time to pass if nothing goes wrong";
    /// Operations of live clients end.
    pub const NOBODY_WAITS: &str = "nobody waits forever";
    /// When all is quiet, a reader gets every lock out of the way and sees what was decided.
    pub const RESOLVABLE: &str = "every lock can be resolved";
}

/// What an operation has told its caller of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reported {
    /// Nothing, yet or ever.
    Nothing,
    /// Committed, at that timestamp.
    Committed(Timestamp),
    /// It has not committed and never will.
    Failed,
    /// Not known.
    Undetermined,
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Txn {
    /// When it began.
    pub start_ts: Timestamp,
    /// Its client, and the place in that one's script.
    pub owner: (usize, usize),
    /// What it writes, the primary first.
    pub keys: Vec<Key>,
    /// What it writes there.
    pub value: Bytes,
    /// Whether its prewrites may decide: async commit, or one phase.
    pub prewrites_decide: bool,
    /// Whether it locks keys before it writes them.
    pub is_pessimistic: bool,
    /// What it was told to have locked, in the order of keys.
    pub locks: Vec<HeldLock>,
    /// Whether others may have taken its locks away, as its time was up.
    pub is_expired: bool,
    /// What its caller was told.
    pub reported: Reported,
    /// When it committed, once that is decided.
    pub committed: Option<Timestamp>,
    /// Whether a rollback record of it was seen.
    pub rolled_back: bool,
}

/// A pessimistic lock that was reported to its owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeldLock {
    /// The locked key.
    pub key: Key,
    /// The timestamp that the lock was taken at.
    pub lock_ts: Timestamp,
    /// The value that it returned, if the key exists.
    pub value: Option<Bytes>,
    /// Whether it must be there: from the report to the beginning of the commit.
    pub is_claimed: bool,
}

/// A read that has ended well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Read {
    /// The timestamp.
    pub read_ts: Timestamp,
    /// What was asked for.
    pub keys: Vec<Key>,
    /// What was found, in the order of keys.
    pub pairs: Vec<(Key, Bytes)>,
}

/// All that happened so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// In the order in which they began.
    pub txns: Vec<Txn>,
    /// Each once, in order.
    pub reads: Vec<Read>,
    /// Properties that can only be seen broken at the moment they are.
    pub broken: Option<&'static str>,
}

type Checked = Result<(), &'static str>;

impl History {
    /// A transaction begins.
    pub fn begin(
        &mut self,
        start_ts: Timestamp,
        owner: (usize, usize),
        keys: Vec<Key>,
        value: Bytes,
        prewrites_decide: bool,
    ) {
        self.on_new_timestamp(start_ts);
        self.txns.push(Txn {
            start_ts,
            owner,
            keys,
            value,
            prewrites_decide,
            is_pessimistic: false,
            locks: Vec::new(),
            is_expired: false,
            reported: Reported::Nothing,
            committed: None,
            rolled_back: false,
        });
    }

    /// The same of a pessimistic transaction.
    pub fn begin_pessimistic(
        &mut self,
        start_ts: Timestamp,
        owner: (usize, usize),
        keys: Vec<Key>,
        value: Bytes,
        prewrites_decide: bool,
    ) {
        self.begin(start_ts, owner, keys, value, prewrites_decide);
        if let Some(txn) = self.txn_mut(start_ts) {
            txn.is_pessimistic = true;
        }
    }

    /// A pessimistic transaction is told that it holds a lock, and what it found.
    pub fn locked(&mut self, start_ts: Timestamp, key: Key, lock_ts: Timestamp, value: Option<Bytes>) {
        let Some(txn) = self.txn_mut(start_ts) else { return };
        txn.locks.retain(|lock| lock.key != key);
        let place = txn.locks.partition_point(|lock| lock.key < key);
        txn.locks.insert(place, HeldLock { key, lock_ts, value, is_claimed: true });
    }

    /// A pessimistic transaction begins to commit: what becomes of its locks is not for its owner to say any more.
    pub fn commit_locks(&mut self, start_ts: Timestamp) {
        if let Some(txn) = self.txn_mut(start_ts) {
            txn.locks.iter_mut().for_each(|lock| lock.is_claimed = false);
        }
    }

    /// A pessimistic transaction claims no locks any more.
    pub fn drop_locks(&mut self, start_ts: Timestamp) {
        if let Some(txn) = self.txn_mut(start_ts) {
            txn.locks.clear();
        }
    }

    /// Others may take the locks of a transaction away: its time is up.
    pub fn expire(&mut self, start_ts: Timestamp) {
        if let Some(txn) = self.txn_mut(start_ts) {
            txn.is_expired = true;
        }
    }

    /// A transaction.
    #[must_use]
    pub fn txn(&self, start_ts: Timestamp) -> Option<&Txn> {
        self.txns.iter().find(|txn| txn.start_ts == start_ts)
    }

    fn txn_mut(&mut self, start_ts: Timestamp) -> Option<&mut Txn> {
        self.txns.iter_mut().find(|txn| txn.start_ts == start_ts)
    }

    /// Somebody begins to read or to write at this timestamp.
    pub fn on_new_timestamp(&mut self, ts: Timestamp) {
        let comes_before = |txn: &Txn| match txn.reported {
            Reported::Committed(commit_ts) => commit_ts <= ts,
            _ => true,
        };
        if !self.txns.iter().all(comes_before) {
            self.broken = Some(property::REAL_TIME);
        }
    }

    /// A transaction's caller is told how it ended.
    pub fn report(&mut self, owner: (usize, usize), reported: Reported) {
        if let Some(txn) = self.txns.iter_mut().find(|txn| txn.owner == owner) {
            txn.reported = reported;
        }
    }

    /// A read has ended well.
    pub fn read(&mut self, read: Read) {
        if !self.reads.contains(&read) {
            self.reads.push(read);
            self.reads.sort_by_key(|read| read.read_ts);
        }
    }

    /// The store has changed: remembers what was decided.
    pub(crate) fn observe(&mut self, view: &View) {
        for txn in &mut self.txns {
            let keys: Vec<_> = txn.keys.iter().filter_map(|key| view.key(key)).collect();
            let by_record = keys.iter().find_map(|key| key.committed(txn.start_ts));
            let by_locks = || if txn.prewrites_decide { decided_by_locks(txn, view) } else { None };
            txn.committed = txn.committed.or(by_record).or_else(by_locks);
            txn.rolled_back |= keys.iter().any(|key| key.rolled_back(txn.start_ts));
        }
    }

    /// Everything that must hold in every state.
    ///
    /// # Errors
    ///
    /// The property that does not.
    pub(crate) fn check(&self, view: &View) -> Checked {
        self.broken.map_or(Ok(()), Err)?;
        self.txns.iter().try_for_each(|txn| txn.check(view))?;
        self.check_overlaps()?;
        self.txns.iter().try_for_each(|txn| self.check_locks(txn, view))?;
        self.reads.iter().try_for_each(|read| ensure(self.is_exact(read), property::SNAPSHOT_READ))
    }

    /// The newest version of a key at a timestamp.
    #[must_use]
    pub fn newest(&self, key: &Key, read_ts: Timestamp) -> Option<&Bytes> {
        let versions = self.txns.iter().filter(|txn| txn.keys.contains(key));
        let visible = versions.filter(|txn| txn.committed.is_some_and(|commit_ts| commit_ts <= read_ts));
        visible.max_by_key(|txn| txn.committed).map(|txn| &txn.value)
    }

    /// Whether a read returned exactly what had committed, or would yet, at or before its timestamp.
    #[must_use]
    pub fn is_exact(&self, read: &Read) -> bool {
        read.keys.iter().all(|key| {
            let found = read.pairs.iter().find(|(other, _)| other == key).map(|(_, value)| value);
            found == self.newest(key, read.read_ts)
        })
    }

    fn check_locks(&self, txn: &Txn, view: &View) -> Checked {
        for lock in &txn.locks {
            let until = match txn.committed {
                None if txn.is_expired || !lock.is_claimed => continue,
                None => {
                    let held = view.key(&lock.key).and_then(|key| key.lock_of(txn.start_ts));
                    let held = held.ok_or(property::LOCK_HELD)?;
                    if held.lock_for_update_ts != lock.lock_ts.version() {
                        // A late request of fair locking has raised it: the commit will fail.
                        continue;
                    }
                    Timestamp::MAX
                }
                // Its own version does not count.
                Some(commit_ts) => Timestamp::from_version(commit_ts.version() - 1),
            };
            ensure(self.newest(&lock.key, until) == lock.value.as_ref(), property::LOCKING_READ)?;
        }
        Ok(())
    }

    fn check_overlaps(&self) -> Checked {
        for (index, one) in self.txns.iter().enumerate() {
            for other in &self.txns[index + 1..] {
                let (Some(one_ends), Some(other_ends)) = (one.committed, other.committed) else { continue };
                // The commit_ts of an async commit may be another's start_ts: that one sees it.
                let apart = |key: &Key| one_ends <= other.knows(key) || other_ends <= one.knows(key);
                let mut shared = one.keys.iter().filter(|key| other.keys.contains(key));
                ensure(shared.all(apart), property::NO_LOST_UPDATE)?;
            }
        }
        Ok(())
    }
}

impl Txn {
    /// Up to when the transaction knows what was committed on a key.
    fn knows(&self, key: &Key) -> Timestamp {
        self.locks.iter().find(|lock| lock.key == *key).map_or(self.start_ts, |lock| lock.lock_ts)
    }

    fn check(&self, view: &View) -> Checked {
        ensure(self.committed.is_none() || !self.rolled_back, property::COMMITTED_OR_ROLLED_BACK)?;
        let keys: Vec<_> = self.keys.iter().filter_map(|key| view.key(key)).collect();
        for key in &keys {
            self.check_key(key)?;
        }
        if self.committed.is_some() {
            let written =
                |key: &&KeyView| key.prewritten(self.start_ts).is_some() || key.committed(self.start_ts).is_some();
            ensure(keys.iter().all(written), property::COMMIT_CONSISTENCY)?;
        }
        let committed_on = |key: &&KeyView| key.committed(self.start_ts).is_some();
        let secondary_first = keys.iter().any(committed_on) && !keys.first().is_some_and(committed_on);
        ensure(self.prewrites_decide || !secondary_first, property::PRIMARY_FIRST)?;
        ensure(
            match self.reported {
                Reported::Nothing | Reported::Undetermined => true,
                Reported::Committed(commit_ts) => self.committed == Some(commit_ts),
                Reported::Failed => self.committed.is_none(),
            },
            property::OUTCOME,
        )
    }

    fn check_key(&self, key: &KeyView) -> Checked {
        let records = key.writes.iter().filter(|write| write.start_ts == self.start_ts.version()).count();
        // A request to lock by force that comes after the end locks all the same, to no effect.
        let has_lock = key.prewritten(self.start_ts).is_some();
        let commit_ts = key.committed(self.start_ts);
        ensure(records <= 1 && !(has_lock && commit_ts.is_some()), property::LOCK_OR_WRITE)?;
        let Some(commit_ts) = commit_ts else { return Ok(()) };
        ensure(commit_ts > self.start_ts, property::UNIQUE_COMMIT)?;
        let name = if self.prewrites_decide { property::ASYNC_DECIDED } else { property::UNIQUE_COMMIT };
        ensure(self.committed == Some(commit_ts), name)
    }
}

/// When an async commit whose keys are all locked has committed: whoever finds that out comes to the same result.
fn decided_by_locks(txn: &Txn, view: &View) -> Option<Timestamp> {
    let mut commit_ts = Timestamp::ZERO;
    for key in &txn.keys {
        let lock = view.key(key)?.prewritten(txn.start_ts).filter(|lock| lock.use_async_commit)?;
        commit_ts = commit_ts.max(Timestamp::from_version(lock.min_commit_ts));
    }
    Some(commit_ts)
}

fn ensure(holds: bool, property: &'static str) -> Checked {
    if holds { Ok(()) } else { Err(property) }
}
