//! PessimisticLock: locks keys before the transaction knows what to write, and reads them by the way.
//!
//! A request of normal mode fails if a key has a version newer than its for_update_ts. In fair locking (force mode) it
//! locks the key nevertheless, at that version's commit_ts, and says so. A request that meets another transaction's lock
//! waits, unless it asked not to.

use bytes::Bytes;
use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::write_conflict::Reason;
use tikv_proto::kvrpcpb::{
    Assertion, LockInfo, Mutation, Op, PessimisticLockKeyResult, PessimisticLockKeyResultType, PessimisticLockRequest,
    PessimisticLockResponse, PessimisticLockWakeUpMode,
};

use super::batch::Batch;
use super::command::{Context, Execute, check_key_sizes};
use super::data::Data;
use super::errors::{Conflict, Error};
use super::lock::{Lock, LockKind, LockRef, SharedLocks};
use super::lock_wait::failed_response;
use super::txn::Txn;
use super::write::{LastChange, Write, WriteKind, right_before};
use super::{LockWait, Refusal};

#[cfg(test)]
mod tests;

impl Execute for PessimisticLockRequest {
    type Response = PessimisticLockResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<PessimisticLockResponse, Error> {
        acquire_locks(self, cx, Attempt::First)
    }
}

/// Whether a request comes from the client or has waited for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    First,
    /// Only requests of force mode resume. Shared locks then fail the request at once and are left as they are.
    Resumed,
}

/// Locks all keys, or none.
pub(super) fn acquire_locks(
    request: &PessimisticLockRequest,
    cx: &mut Context<'_>,
    attempt: Attempt,
) -> Result<PessimisticLockResponse, Error> {
    let wanted = request.mutations.iter().map(Wanted::new).collect::<Result<Vec<_>, _>>()?;
    if wanted.is_empty() {
        return Err(Error::Refused(Refusal::NoKeys));
    }
    check_key_sizes(request.mutations.iter().map(|mutation| &mutation.key))?;
    let locking = Locking::new(request);
    if locking.is_force && wanted.len() > 1 {
        return Err(Error::InTxn(
            "multiple keys in a single request with allowed_lock_with_conflict set is not allowed",
        ));
    }
    let mut txn = cx.begin(locking.start_ts);
    let mut results = Vec::with_capacity(wanted.len());
    for wanted in &wanted {
        match locking.acquire(&mut txn, wanted) {
            Ok(result) => results.push(result),
            Err(Error::KeyIsLocked(info)) => return locking.meet_lock(wanted, info, attempt),
            Err(Error::NotInShrinkMode(shared)) if attempt == Attempt::Resumed => {
                return locking.meet_lock(wanted, Box::new(shared.info(&wanted.key)), attempt);
            }
            Err(Error::NotInShrinkMode(shared)) => {
                let mut batch = txn.batch;
                batch.clear();
                return Ok(close_shared_locks(cx, batch, &wanted.key, *shared));
            }
            Err(error) if attempt == Attempt::Resumed => {
                return Ok(failed_response(error.key_error(), locking.is_force));
            }
            Err(error) => return Err(error),
        }
    }
    let batch = txn.batch;
    // A single shared key keeps the whole request out of memory.
    let in_memory = cx.storage.config.in_memory_pessimistic_locks && !wanted.iter().any(|wanted| wanted.is_shared);
    cx.apply_locks(batch, in_memory);
    Ok(locking.answer(results))
}

/// Lets no further transaction share the key, so that an exclusive request gets its turn, and answers that the key is locked.
fn close_shared_locks(
    cx: &mut Context<'_>,
    mut batch: Batch,
    key: &Key,
    mut shared: SharedLocks,
) -> PessimisticLockResponse {
    shared.is_shrink_only = true;
    let error = Error::locked(shared.info(key)).key_error();
    batch.put_shared_locks(key, shared, false);
    cx.apply(batch);
    PessimisticLockResponse { errors: vec![error], ..PessimisticLockResponse::default() }
}

/// One key to lock.
struct Wanted {
    key: Key,
    must_not_exist: bool,
    is_shared: bool,
}

impl Wanted {
    fn new(mutation: &Mutation) -> Result<Self, Error> {
        let is_shared = match mutation.op() {
            Op::PessimisticLock => false,
            Op::SharedPessimisticLock => true,
            _ => return Err(Error::Refused(Refusal::UnexpectedOp)),
        };
        let must_not_exist = mutation.assertion() == Assertion::NotExist;
        Ok(Wanted { key: mutation.key.clone().into(), must_not_exist, is_shared })
    }
}

/// What locking one key found out.
enum Locked {
    Empty,
    Value(Option<Bytes>),
    Existence(bool),
    WithConflict { value: Option<Bytes>, conflict_ts: Timestamp },
}

/// The request, its timestamps typed.
#[derive(Clone, Copy)]
struct Locking<'a> {
    request: &'a PessimisticLockRequest,
    start_ts: Timestamp,
    for_update_ts: Timestamp,
    is_force: bool,
}

impl<'a> Locking<'a> {
    fn new(request: &'a PessimisticLockRequest) -> Self {
        Locking {
            request,
            start_ts: Timestamp::from_version(request.start_version),
            for_update_ts: Timestamp::from_version(request.for_update_ts),
            is_force: request.wake_up_mode() == PessimisticLockWakeUpMode::WakeUpModeForceLock,
        }
    }

    fn acquire(&self, txn: &mut Txn<'_>, wanted: &Wanted) -> Result<Locked, Error> {
        let request = self.request;
        if request.lock_only_if_exists && !request.return_values {
            return Err(Error::LockIfExistsFailed { start_ts: self.start_ts, key: wanted.key.clone() });
        }
        if wanted.must_not_exist || request.return_values || request.check_existence {
            txn.max_ts.observe(self.for_update_ts);
        }
        let data = txn.data;
        let info = |shared: &SharedLocks| Error::locked(shared.info(&wanted.key));
        match (data.lock(&wanted.key), wanted.is_shared) {
            (None, _) => self.lock_unlocked_key(txn, wanted, None),
            (Some(LockRef::Exclusive(lock)), false) => self.relock(txn, wanted, lock),
            (Some(LockRef::Exclusive(lock)), true) => Err(Error::locked(lock.info(&wanted.key))),
            (Some(LockRef::Shared(shared)), false) if shared.is_shrink_only => Err(info(shared)),
            (Some(LockRef::Shared(shared)), false) => Err(Error::NotInShrinkMode(Box::new(shared.clone()))),
            (Some(LockRef::Shared(shared)), true) => match shared.locks.get(&self.start_ts) {
                Some(lock) => Ok(self.relock_shared(txn, wanted, shared, lock)),
                None if shared.is_shrink_only => Err(info(shared)),
                None => self.lock_unlocked_key(txn, wanted, Some(shared)),
            },
        }
    }

    /// Locks a key on which the transaction has no lock yet; `joined` are the shared locks of others.
    fn lock_unlocked_key(
        &self,
        txn: &mut Txn<'_>,
        wanted: &Wanted,
        joined: Option<&SharedLocks>,
    ) -> Result<Locked, Error> {
        let (data, key, request) = (txn.data, &wanted.key, self.request);
        let newest = data.seek_write(key, Timestamp::MAX);
        let newer = newest.filter(|(commit_ts, _)| *commit_ts > self.for_update_ts);
        let conflict = newer.map(|(commit_ts, write)| self.conflict(key, commit_ts, write));
        if let Some(conflict) = conflict.clone().filter(|_| !self.is_force) {
            return Err(conflict.into());
        }
        self.check_not_rolled_back(data, key)?;
        let mut last_change = LastChange::NotExist;
        let mut value = None;
        if let Some((commit_ts, write)) = newest {
            check_absent(data, key, commit_ts, write, self.start_ts, wanted.must_not_exist)
                .map_err(|exists| conflict.clone().map_or(exists, Error::from))?;
            last_change = data.next_last_change(key, commit_ts, write, self.start_ts);
            if request.return_values || request.check_existence || conflict.is_some() {
                value = self.newest_value(data, key, commit_ts, write, request.return_values || conflict.is_some())?;
            }
        }
        let conflict_ts = conflict.as_ref().map(|conflict| conflict.conflict_commit_ts);
        let mut lock = self.lock(conflict_ts.unwrap_or(self.for_update_ts), last_change);
        lock.is_locked_with_conflict = conflict.is_some();
        if wanted.is_shared {
            let mut shared = joined.cloned().unwrap_or_default();
            shared.locks.insert(self.start_ts, lock);
            txn.batch.put_shared_locks(key, shared, joined.is_none());
        } else if !request.lock_only_if_exists || value.is_some() {
            txn.batch.put_pessimistic_lock(key, lock, true);
        } else if let Some(conflict) = conflict {
            return Err(conflict.into());
        }
        Ok(self.locked(conflict_ts, value))
    }

    /// Repeats or raises the transaction's lock. Reads what the lock protects, not the newest version.
    fn relock(&self, txn: &mut Txn<'_>, wanted: &Wanted, lock: &Lock) -> Result<Locked, Error> {
        let (data, key, request) = (txn.data, &wanted.key, self.request);
        if lock.start_ts != self.start_ts {
            return Err(Error::locked(lock.info(key)));
        }
        if !lock.is_pessimistic() {
            return Err(Error::LockTypeNotMatch { start_ts: self.start_ts, key: key.clone(), pessimistic: false });
        }
        let conflict_ts = (self.is_force && self.for_update_ts < lock.for_update_ts).then_some(lock.for_update_ts);
        let for_update_ts = conflict_ts.unwrap_or(self.for_update_ts);
        let need_value = request.return_values || conflict_ts.is_some();
        let mut value = None;
        if need_value || request.check_existence || wanted.must_not_exist {
            if let Some((commit_ts, write)) = data.data_version(key, for_update_ts, self.start_ts).found {
                check_absent(data, key, commit_ts, write, self.start_ts, wanted.must_not_exist).map_err(|exists| {
                    if commit_ts > self.for_update_ts { self.conflict(key, commit_ts, write).into() } else { exists }
                })?;
                if need_value {
                    value = Some(data.value(key, write)?);
                } else if request.check_existence {
                    value = Some(Bytes::new());
                }
            }
        }
        if for_update_ts > lock.for_update_ts {
            let mut raised = self.lock(for_update_ts, lock.last_change);
            raised.is_locked_with_conflict = lock.is_locked_with_conflict;
            txn.batch.put_pessimistic_lock(key, raised, false);
        }
        Ok(self.locked(conflict_ts, value))
    }

    /// Repeats or raises one of the shared locks. TiKV reads no value then.
    fn relock_shared(&self, txn: &mut Txn<'_>, wanted: &Wanted, shared: &SharedLocks, lock: &Lock) -> Locked {
        if self.for_update_ts > lock.for_update_ts {
            let mut raised = self.lock(self.for_update_ts, lock.last_change);
            raised.is_locked_with_conflict = lock.is_locked_with_conflict;
            let mut shared = shared.clone();
            shared.locks.insert(self.start_ts, raised);
            txn.batch.put_shared_locks(&wanted.key, shared, false);
        }
        self.locked(None, None)
    }

    /// A Rollback record, or the flag on another transaction's record, says that this one is over.
    fn check_not_rolled_back(&self, data: &Data, key: &Key) -> Result<(), Error> {
        match data.seek_write(key, self.start_ts) {
            Some((commit_ts, write)) if write.rolls_back(self.start_ts, commit_ts) => {
                Err(Error::PessimisticLockRolledBack { start_ts: self.start_ts, key: key.clone() })
            }
            _ => Ok(()),
        }
    }

    /// The value of the key, given its newest record; an empty one if only its existence matters.
    fn newest_value(
        &self,
        data: &Data,
        key: &Key,
        commit_ts: Timestamp,
        write: &Write,
        need_value: bool,
    ) -> Result<Option<Bytes>, Error> {
        let version = match write.kind {
            WriteKind::Put => Some(write).filter(|write| write.is_valid_at(self.start_ts)),
            WriteKind::Delete => None,
            WriteKind::Lock | WriteKind::Rollback => {
                data.data_version(key, right_before(commit_ts), self.start_ts).found.map(|(_, write)| write)
            }
        };
        let value = |write| if need_value { data.value(key, write) } else { Ok(Bytes::new()) };
        version.map(value).transpose()
    }

    fn lock(&self, for_update_ts: Timestamp, last_change: LastChange) -> Lock {
        Lock {
            kind: LockKind::Pessimistic,
            primary: self.request.primary_lock.clone(),
            start_ts: self.start_ts,
            ttl_ms: self.request.lock_ttl,
            short_value: None,
            for_update_ts,
            txn_size: 0,
            min_commit_ts: Timestamp::from_version(self.request.min_commit_ts),
            use_async_commit: false,
            secondaries: Vec::new(),
            rollback_ts: Vec::new(),
            last_change,
            is_locked_with_conflict: false,
            generation: 0,
        }
    }

    fn conflict(&self, key: &Key, commit_ts: Timestamp, write: &Write) -> Conflict {
        Conflict {
            start_ts: self.start_ts,
            conflict_start_ts: write.start_ts,
            conflict_commit_ts: commit_ts,
            key: key.to_bytes(),
            primary: self.request.primary_lock.clone(),
            reason: Reason::PessimisticRetry,
        }
    }

    fn locked(&self, conflict_ts: Option<Timestamp>, value: Option<Bytes>) -> Locked {
        match conflict_ts {
            Some(conflict_ts) => Locked::WithConflict { value, conflict_ts },
            None if self.request.return_values => Locked::Value(value),
            None if self.request.check_existence => Locked::Existence(value.is_some()),
            None => Locked::Empty,
        }
    }

    /// Another transaction holds the lock: wait, or tell.
    fn meet_lock(
        &self,
        wanted: &Wanted,
        info: Box<LockInfo>,
        attempt: Attempt,
    ) -> Result<PessimisticLockResponse, Error> {
        let wait = LockWait {
            key: wanted.key.clone(),
            primary: self.request.primary_lock.clone(),
            start_ts: self.start_ts,
            for_update_ts: self.for_update_ts,
            is_first_lock: self.request.is_first_lock,
            is_force: self.is_force,
            is_shared: wanted.is_shared,
            timeout_ms: u64::try_from(self.request.wait_timeout).ok().filter(|timeout| *timeout > 0),
            lock: info,
        };
        let waits = match attempt {
            Attempt::First => self.request.wait_timeout >= 0,
            Attempt::Resumed => wait.lock.lock_type() != Op::SharedLock,
        };
        if waits { Err(Error::MustWait(Box::new(wait))) } else { Ok(wait.locked()) }
    }

    fn answer(&self, results: Vec<Locked>) -> PessimisticLockResponse {
        let mut response = PessimisticLockResponse::default();
        for result in results {
            match result {
                result if self.is_force => response.results.push(force_result(result)),
                Locked::Value(value) | Locked::WithConflict { value, .. } => {
                    response.not_founds.push(value.is_none());
                    response.values.push(value.unwrap_or_default());
                }
                Locked::Existence(exists) => response.not_founds.push(!exists),
                Locked::Empty => {}
            }
        }
        response
    }
}

fn force_result(locked: Locked) -> PessimisticLockKeyResult {
    let mut result = PessimisticLockKeyResult::default();
    match locked {
        Locked::Empty => {}
        Locked::Existence(exists) => result.existence = exists,
        Locked::Value(value) => {
            result.existence = value.is_some();
            result.value = value.unwrap_or_default();
        }
        Locked::WithConflict { value, conflict_ts } => {
            result.set_type(PessimisticLockKeyResultType::LockResultLockedWithConflict);
            result.existence = value.is_some();
            result.value = value.unwrap_or_default();
            result.locked_with_conflict_ts = conflict_ts.version();
        }
    }
    result
}

/// Checks that a key does not exist, given its newest version.
pub(super) fn check_absent(
    data: &Data,
    key: &Key,
    commit_ts: Timestamp,
    write: &Write,
    start_ts: Timestamp,
    must_not_exist: bool,
) -> Result<(), Error> {
    let exists = match write.kind {
        _ if !must_not_exist || write.is_fenced() => false,
        WriteKind::Put => true,
        WriteKind::Delete => false,
        WriteKind::Lock | WriteKind::Rollback => {
            data.data_version(key, right_before(commit_ts), start_ts).found.is_some()
        }
    };
    if exists { Err(Error::AlreadyExist { key: key.clone() }) } else { Ok(()) }
}
