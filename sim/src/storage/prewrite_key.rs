//! Prewrites one key: the checks that make a later commit safe, and the lock. Shared by Prewrite and Flush.

use bytes::Bytes;
use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::prewrite_request::PessimisticAction;
use tikv_proto::kvrpcpb::write_conflict::Reason;
use tikv_proto::kvrpcpb::{Assertion, AssertionLevel, Mutation, Op};

use super::Refusal;
use super::batch::OnePcLock;
use super::errors::{Conflict, Error, LockLoss, assertion_failed};
use super::lock::{Lock, LockKind, LockRef, SharedLocks};
use super::pessimistic_lock::check_absent;
use super::txn::Txn;
use super::write::{LastChange, Write, WriteKind};

/// Longer values do not fit a lock or write record.
const SHORT_VALUE_MAX_BYTES: usize = 255;

/// How the transaction is going to be committed; a max_commit_ts of zero is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitKind {
    TwoPc,
    OnePc { max_commit_ts: Timestamp },
    Async { max_commit_ts: Timestamp },
}

/// What the keys of one request have in common.
#[derive(Clone, Debug)]
pub(super) struct TxnProps {
    pub(super) start_ts: Timestamp,
    /// `None` for an optimistic transaction.
    pub(super) for_update_ts: Option<Timestamp>,
    pub(super) commit: CommitKind,
    pub(super) primary: Bytes,
    pub(super) txn_size: u64,
    pub(super) lock_ttl_ms: u64,
    pub(super) min_commit_ts: Timestamp,
    /// Optimistic transactions only.
    pub(super) skip_constraint_check: bool,
    pub(super) is_retry: bool,
    pub(super) assertion_level: AssertionLevel,
    /// Not zero: the request is a flush.
    pub(super) generation: u64,
}

/// One key to prewrite.
#[derive(Clone, Debug)]
pub(super) struct KeyMutation {
    pub(super) key: Key,
    op: Op,
    value: Bytes,
    assertion: Assertion,
    pub(super) action: PessimisticAction,
    /// The for_update_ts of the pessimistic lock that the client knows of.
    pub(super) expected_for_update_ts: Option<Timestamp>,
}

impl KeyMutation {
    pub(super) fn new(mutation: &Mutation) -> Result<Self, Error> {
        let op = mutation.op();
        if !matches!(op, Op::Put | Op::Del | Op::Lock | Op::SharedLock | Op::Insert | Op::CheckNotExists) {
            return Err(Error::Refused(Refusal::UnexpectedOp));
        }
        Ok(KeyMutation {
            key: mutation.key.clone().into(),
            op,
            value: mutation.value.clone(),
            assertion: mutation.assertion(),
            action: PessimisticAction::SkipPessimisticCheck,
            expected_for_update_ts: None,
        })
    }

    fn must_not_exist(&self) -> bool {
        matches!(self.op, Op::Insert | Op::CheckNotExists)
    }

    fn lock_kind(&self) -> LockKind {
        match self.op {
            Op::Put | Op::Insert => LockKind::Put,
            Op::Del => LockKind::Delete,
            _ => LockKind::Lock,
        }
    }

    fn long_or_short_value(&self) -> Option<&Bytes> {
        (self.lock_kind() == LockKind::Put).then_some(&self.value)
    }
}

/// Prewrites one key and returns its min_commit_ts: zero in two-phase commit, and where an earlier request has fallen back
/// to that. `secondaries` are the lock's part of async commit.
///
/// [`Error::CommitTsTooLarge`] comes after the key has been locked for two-phase commit.
pub(super) fn prewrite_key(
    txn: &mut Txn<'_>,
    props: &TxnProps,
    mutation: &KeyMutation,
    secondaries: Option<Vec<Bytes>>,
) -> Result<Timestamp, Error> {
    if props.for_update_ts.is_some() && mutation.op == Op::CheckNotExists {
        return Err(Error::OnKey("cannot handle checkNotExists in pessimistic prewrite"));
    }
    // That a key does not exist is something read.
    if mutation.must_not_exist() {
        txn.max_ts.observe(props.start_ts);
    }
    let mut prewrite = KeyPrewrite::new(props, mutation);
    let (lock, shared) = prewrite.check_lock(txn)?;
    let is_pessimistic_key = mutation.action == PessimisticAction::DoPessimisticCheck;
    let is_amended = lock == OwnLock::None && is_pessimistic_key;
    if is_amended {
        prewrite.amend_pessimistic_lock(txn)?;
    }
    let is_flush = props.generation > 0;
    if let (OwnLock::Prewritten { min_commit_ts }, false) = (lock, is_flush) {
        return Ok(min_commit_ts);
    }
    let newest = if prewrite.skips_constraint_check() { None } else { Some(prewrite.check_newer_versions(txn)?) };
    // A key is asserted once: when it is amended, or with the first of several flushes.
    let is_later_flush = is_flush && lock != OwnLock::None;
    if !is_amended && !is_later_flush {
        prewrite.check_assertion(txn, newest)?;
    }
    if mutation.op == Op::CheckNotExists {
        let needs_min_commit_ts = props.commit != CommitKind::TwoPc;
        let min_commit_ts = props.min_commit_ts.max(props.start_ts.next());
        return Ok(if needs_min_commit_ts { min_commit_ts } else { Timestamp::ZERO });
    }
    prewrite.write_lock(txn, lock, !is_pessimistic_key || is_amended, secondaries, shared)
}

/// The transaction's lock on the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnLock {
    None,
    Pessimistic { for_update_ts: Timestamp },
    Prewritten { min_commit_ts: Timestamp },
}

type Version<'a> = (Timestamp, &'a Write);

/// A prewrite at work.
#[derive(Debug)]
struct KeyPrewrite<'a> {
    props: &'a TxnProps,
    mutation: &'a KeyMutation,
    key: &'a Key,
    lock_ttl_ms: u64,
    min_commit_ts: Timestamp,
    last_change: LastChange,
}

impl<'a> KeyPrewrite<'a> {
    fn new(props: &'a TxnProps, mutation: &'a KeyMutation) -> Self {
        KeyPrewrite {
            props,
            mutation,
            key: &mutation.key,
            lock_ttl_ms: props.lock_ttl_ms,
            min_commit_ts: props.min_commit_ts,
            last_change: LastChange::Unknown,
        }
    }

    /// Finds the transaction's own lock. Shared locks come along, to put the new lock among them.
    fn check_lock(&mut self, txn: &Txn<'_>) -> Result<(OwnLock, Option<SharedLocks>), Error> {
        let is_shared = self.mutation.op == Op::SharedLock;
        match (txn.lock(self.key), is_shared) {
            (Some(LockRef::Exclusive(lock)), false) => Ok((self.check_single_lock(lock)?, None)),
            (Some(LockRef::Exclusive(lock)), true) => Err(Error::locked(lock.info(self.key))),
            (Some(LockRef::Shared(shared)), _) => match (shared.locks.get(&self.props.start_ts), is_shared) {
                (Some(lock), true) => Ok((self.check_single_lock(lock)?, Some(shared.clone()))),
                (Some(_), false) => Err(Error::OnKey("use Op::SharedLock to prewrite on a shared lock")),
                (None, true) => Err(self.lost_lock(LockLoss::LockMissingAmendFail)),
                (None, false) => Err(Error::locked(shared.info(self.key))),
            },
            // Shared locks cannot be amended.
            (None, true) if self.mutation.action == PessimisticAction::DoPessimisticCheck => {
                Err(self.lost_lock(LockLoss::LockMissingAmendFail))
            }
            (None, _) => Ok((OwnLock::None, None)),
        }
    }

    fn check_single_lock(&mut self, lock: &Lock) -> Result<OwnLock, Error> {
        if lock.start_ts != self.props.start_ts {
            return Err(self.foreign_lock(lock));
        }
        self.last_change = lock.last_change;
        if lock.is_pessimistic() {
            return self.check_pessimistic_lock(lock);
        }
        let generation = self.props.generation;
        if generation > 0 && lock.generation >= generation {
            return Err(Error::GenerationOutOfOrder);
        }
        // An earlier flush has put the key into existence.
        if lock.generation > 0 && self.mutation.must_not_exist() && lock.kind == LockKind::Put {
            return Err(Error::AlreadyExist { key: self.key.clone() });
        }
        let min_commit_ts = if lock.use_async_commit { lock.min_commit_ts } else { Timestamp::ZERO };
        Ok(OwnLock::Prewritten { min_commit_ts })
    }

    fn foreign_lock(&self, lock: &Lock) -> Error {
        if self.mutation.action == PessimisticAction::DoPessimisticCheck {
            return self.lost_lock(LockLoss::LockTsMismatch);
        }
        let mut info = lock.info(self.key);
        // Pessimistic locks keep writers apart already. What is met here is a key without one (of an index), and its lock
        // may be resolved at once.
        if self.props.for_update_ts.is_some() {
            info.lock_ttl = 0;
        }
        Error::locked(info)
    }

    /// The lock may have been forced again at a newer version that the client does not know of.
    fn check_pessimistic_lock(&mut self, lock: &Lock) -> Result<OwnLock, Error> {
        if self.props.for_update_ts.is_none() {
            let key = self.key.clone();
            return Err(Error::LockTypeNotMatch { start_ts: self.props.start_ts, key, pessimistic: true });
        }
        if self.mutation.expected_for_update_ts.is_some_and(|expected| expected != lock.for_update_ts) {
            return Err(self.lost_lock(LockLoss::LockForUpdateTsMismatch));
        }
        self.lock_ttl_ms = self.lock_ttl_ms.max(lock.ttl_ms);
        self.min_commit_ts = self.min_commit_ts.max(lock.min_commit_ts);
        Ok(OwnLock::Pessimistic { for_update_ts: lock.for_update_ts })
    }

    /// A pessimistic lock may get lost, as it is not always replicated. If no version has come since start_ts, nothing can
    /// have changed.
    fn amend_pessimistic_lock(&mut self, txn: &Txn<'_>) -> Result<(), Error> {
        let newest = txn.data.seek_write(self.key, Timestamp::MAX);
        self.last_change = LastChange::NotExist;
        if let Some((commit_ts, write)) = newest {
            if commit_ts >= self.props.start_ts {
                return Err(self.lost_lock(LockLoss::LockMissingAmendFail));
            }
            self.last_change = txn.data.next_last_change(self.key, commit_ts, write, self.props.start_ts);
        }
        self.check_assertion(txn, Some(newest))
    }

    fn skips_constraint_check(&self) -> bool {
        match (self.props.for_update_ts, self.mutation.action) {
            (None, _) => self.props.skip_constraint_check,
            (Some(_), PessimisticAction::DoPessimisticCheck) => true,
            // A repeated request must notice that the first one was committed or rolled back.
            (Some(_), PessimisticAction::SkipPessimisticCheck) => !self.props.is_retry,
            (Some(_), PessimisticAction::DoConstraintCheck) => false,
        }
    }

    /// Fails on versions that the transaction must not write over, and returns the newest that counts.
    fn check_newer_versions<'d>(&mut self, txn: &Txn<'d>) -> Result<Option<Version<'d>>, Error> {
        let (data, start_ts) = (txn.data, self.props.start_ts);
        let mut is_newest = true;
        for (commit_ts, write) in data.versions(self.key, Timestamp::MAX) {
            if write.rolls_back(start_ts, commit_ts) {
                return Err(self.conflict(commit_ts, write, Reason::SelfRolledBack));
            }
            if is_newest {
                self.last_change = data.next_last_change(self.key, commit_ts, write, start_ts);
            }
            is_newest = false;
            if self.passes_rollback(commit_ts, write)? {
                continue;
            }
            check_absent(data, self.key, commit_ts, write, start_ts, self.mutation.must_not_exist())?;
            return Ok(Some((commit_ts, write)));
        }
        if is_newest {
            self.last_change = LastChange::NotExist;
        }
        Ok(None)
    }

    /// Whether a version is a Rollback record which a pessimistic transaction may pass: such a record can come although a
    /// pessimistic lock is held on the row that the key belongs to. Any other newer version is a conflict.
    fn passes_rollback(&self, commit_ts: Timestamp, write: &Write) -> Result<bool, Error> {
        let is_newer = commit_ts > self.props.start_ts;
        let Some(for_update_ts) = self.props.for_update_ts else {
            return if is_newer { Err(self.conflict(commit_ts, write, Reason::Optimistic)) } else { Ok(false) };
        };
        if is_newer && self.mutation.action == PessimisticAction::DoConstraintCheck {
            return Err(self.conflict(commit_ts, write, Reason::LazyUniquenessCheck));
        }
        if commit_ts <= for_update_ts {
            return Ok(false);
        }
        if write.kind == WriteKind::Rollback { Ok(true) } else { Err(self.lost_lock(LockLoss::NonLockKeyConflict)) }
    }

    /// Checks what the client claims to know of the key. `newest` is the newest version, if it had to be looked up
    /// anyway; otherwise only the strict level looks.
    fn check_assertion(&mut self, txn: &Txn<'_>, newest: Option<Option<Version<'_>>>) -> Result<(), Error> {
        let level = self.props.assertion_level;
        let asserted = self.mutation.assertion;
        if asserted == Assertion::None || level == AssertionLevel::Off {
            return Ok(());
        }
        let (data, start_ts) = (txn.data, self.props.start_ts);
        let version = match newest {
            None if level != AssertionLevel::Strict => return Ok(()),
            None => data.data_version(self.key, Timestamp::MAX, start_ts).found,
            Some(newest) => match newest.filter(|(_, write)| !write.is_fenced()) {
                Some((commit_ts, write)) if !write.is_data() => data.data_version(self.key, commit_ts, start_ts).found,
                version => version,
            },
        };
        let existing = version.map(|(commit_ts, write)| (write.start_ts, commit_ts));
        let exists = version.is_some_and(|(_, write)| write.kind == WriteKind::Put);
        if exists == (asserted == Assertion::Exist) {
            return Ok(());
        }
        // The assertion may fail just because the transaction has been rolled back, which is the better answer.
        if self.skips_constraint_check() {
            self.check_newer_versions(txn)?;
        }
        Err(assertion_failed(start_ts, self.key, asserted, existing))
    }

    fn write_lock(
        self,
        txn: &mut Txn<'_>,
        own_lock: OwnLock,
        is_new: bool,
        secondaries: Option<Vec<Bytes>>,
        shared: Option<SharedLocks>,
    ) -> Result<Timestamp, Error> {
        let mut lock = self.new_lock(own_lock);
        if let Some(value) = lock.short_value.take_if(|value| value.len() > SHORT_VALUE_MAX_BYTES) {
            txn.batch.put_value(self.key, value);
        }
        let commit = match secondaries {
            Some(secondaries) => {
                lock.secondaries = secondaries;
                lock.use_async_commit = true;
                self.props.commit
            }
            None if matches!(self.props.commit, CommitKind::OnePc { .. }) => self.props.commit,
            None => CommitKind::TwoPc,
        };
        let min_commit_ts = self.calculate_min_commit_ts(txn, &mut lock, commit);
        let is_one_pc = matches!(self.props.commit, CommitKind::OnePc { .. }) && min_commit_ts.is_ok();
        if let Some(mut shared) = shared {
            self.check_shared_commit(&lock, is_one_pc)?;
            shared.locks.insert(lock.start_ts, lock);
            txn.batch.put_shared_locks(self.key, shared, false);
        } else if is_one_pc {
            let replaces_pessimistic = matches!(own_lock, OwnLock::Pessimistic { .. });
            txn.batch.one_pc_locks.push(OnePcLock { key: self.key.clone(), lock, replaces_pessimistic });
        } else {
            txn.batch.put_lock(self.key, lock, is_new);
        }
        min_commit_ts
    }

    fn new_lock(&self, own_lock: OwnLock) -> Lock {
        let kind = self.mutation.lock_kind();
        let requested = self.props.for_update_ts.unwrap_or_default();
        let for_update_ts = match own_lock {
            OwnLock::Pessimistic { for_update_ts } => requested.max(for_update_ts),
            _ => requested,
        };
        Lock {
            kind,
            primary: self.props.primary.clone(),
            start_ts: self.props.start_ts,
            ttl_ms: self.lock_ttl_ms,
            short_value: self.mutation.long_or_short_value().cloned(),
            for_update_ts,
            txn_size: self.props.txn_size,
            min_commit_ts: self.min_commit_ts,
            use_async_commit: false,
            secondaries: Vec::new(),
            rollback_ts: Vec::new(),
            // A Put or Delete is a change itself.
            last_change: if kind == LockKind::Lock { self.last_change } else { LastChange::Unknown },
            is_locked_with_conflict: false,
            generation: self.props.generation,
        }
    }

    /// The commit_ts must exceed whatever anybody has read at. If that is more than the client allows, the lock becomes
    /// one of two-phase commit.
    fn calculate_min_commit_ts(&self, txn: &Txn<'_>, lock: &mut Lock, commit: CommitKind) -> Result<Timestamp, Error> {
        let max_commit_ts = match commit {
            CommitKind::TwoPc => return Ok(Timestamp::ZERO),
            CommitKind::OnePc { max_commit_ts } | CommitKind::Async { max_commit_ts } => max_commit_ts,
        };
        let for_update_ts = self.props.for_update_ts.unwrap_or_default();
        let newest_read = txn.max_ts.get().max(self.props.start_ts).max(for_update_ts);
        let min_commit_ts = newest_read.next().max(lock.min_commit_ts);
        if !max_commit_ts.is_zero() && min_commit_ts > max_commit_ts {
            lock.use_async_commit = false;
            lock.secondaries.clear();
            return Err(Error::CommitTsTooLarge);
        }
        lock.min_commit_ts = min_commit_ts;
        Ok(min_commit_ts)
    }

    fn check_shared_commit(&self, lock: &Lock, is_one_pc: bool) -> Result<(), Error> {
        if self.props.generation > 0 {
            return Err(Error::OnKey("shared lock prewrite does not support non-zero generation"));
        }
        if is_one_pc {
            return Err(Error::OnKey("shared lock prewrite is incompatible with one-phase commit"));
        }
        if lock.use_async_commit {
            return Err(Error::OnKey("shared lock prewrite cannot use async-commit, falling back to 2PC"));
        }
        Ok(())
    }

    fn conflict(&self, commit_ts: Timestamp, write: &Write, reason: Reason) -> Error {
        Error::from(Conflict {
            start_ts: self.props.start_ts,
            conflict_start_ts: write.start_ts,
            conflict_commit_ts: commit_ts,
            key: self.key.to_bytes(),
            primary: self.props.primary.clone(),
            reason,
        })
    }

    fn lost_lock(&self, reason: LockLoss) -> Error {
        Error::PessimisticLockNotFound { start_ts: self.props.start_ts, key: self.key.clone(), reason }
    }
}
