//! Get and BatchGet: reads at a timestamp, and what a read does about locks.
//!
//! | isolation level | locks | newer versions |
//! |---|---|---|
//! | SI | of writers that may commit at or before the timestamp block | do not matter |
//! | RC | do not matter | do not matter |
//! | RcCheckTs | of any writer conflict | conflict |

use bytes::Bytes;
use tikv_core::codec::memcomparable;
use tikv_core::codec::number::encode_u64_desc;
use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::write_conflict::Reason;
use tikv_proto::kvrpcpb::{self, BatchGetRequest, BatchGetResponse, GetRequest, GetResponse, IsolationLevel, KvPair};

use super::command::{Context, Execute};
use super::data::Data;
use super::errors::{Conflict, Error, error_pair};
use super::lock::{KeyLock, Lock, LockKind};
use super::txn::MaxTs;

#[cfg(test)]
mod tests;

impl Execute for GetRequest {
    type Response = GetResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<GetResponse, Error> {
        let reader = Reader::new(cx.options, self.version, &mut cx.storage.max_ts);
        let found = reader.get(&cx.storage.data, &self.key.clone().into(), self.need_commit_ts)?;
        let mut response = GetResponse { not_found: found.is_none(), ..GetResponse::default() };
        if let Some(Found { value, commit_ts }) = found {
            response.value = value;
            response.commit_ts = commit_ts.version();
        }
        Ok(response)
    }
}

impl Execute for BatchGetRequest {
    type Response = BatchGetResponse;

    /// Answers with the keys that exist, in the order asked. An error of one key does not keep the others from being read.
    fn execute(&self, cx: &mut Context<'_>) -> Result<BatchGetResponse, Error> {
        let reader = Reader::new(cx.options, self.version, &mut cx.storage.max_ts);
        let mut pairs = Vec::new();
        for key in self.keys.iter().cloned().map(Key::from) {
            match reader.get(&cx.storage.data, &key, self.need_commit_ts) {
                Ok(Some(found)) => pairs.push(found.pair(key)),
                Ok(None) => {}
                Err(error) => pairs.push(error_pair(&error)),
            }
        }
        Ok(BatchGetResponse { pairs, ..BatchGetResponse::default() })
    }
}

/// A value, and its commit_ts if that was asked for (zero if not).
#[derive(Clone, Debug)]
pub(super) struct Found {
    value: Bytes,
    commit_ts: Timestamp,
}

impl Found {
    pub(super) fn new(value: Bytes) -> Self {
        Found { value, commit_ts: Timestamp::ZERO }
    }

    pub(super) fn pair(self, key: Key) -> KvPair {
        KvPair { key: key.into_bytes(), value: self.value, commit_ts: self.commit_ts.version(), error: None }
    }
}

/// What a lock means to a read.
#[derive(Clone, Debug)]
pub(super) enum LockCheck {
    Passed,
    /// The transaction is known to be committed at or before the timestamp: this is its value.
    Accessed(Option<Bytes>),
}

/// A read of some keys at one timestamp.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub(super) ts: Timestamp,
    isolation: IsolationLevel,
    /// Locks known to be of no concern: rolled back, or committed later.
    bypass: Vec<u64>,
    /// Locks known to be committed at or before the timestamp.
    access: Vec<u64>,
    pub(super) key_only: bool,
}

impl Reader {
    /// Starts a read. Transactions whose commit_ts is calculated from now on will commit after it.
    pub(super) fn new(context: Option<&kvrpcpb::Context>, version: u64, max_ts: &mut MaxTs) -> Self {
        let ts = Timestamp::from_version(version);
        if !context.is_some_and(|context| context.stale_read) {
            max_ts.observe(ts);
        }
        Reader {
            ts,
            isolation: context.map(kvrpcpb::Context::isolation_level).unwrap_or_default(),
            bypass: context.map(|context| context.resolved_locks.clone()).unwrap_or_default(),
            access: context.map(|context| context.committed_locks.clone()).unwrap_or_default(),
            key_only: false,
        }
    }

    pub(super) fn refuses_newer_versions(&self) -> bool {
        self.isolation == IsolationLevel::RcCheckTs
    }

    /// Reads one key. A lock does not tell its commit_ts, so that none is accessed if that is wanted.
    fn get(&self, data: &Data, key: &Key, need_commit_ts: bool) -> Result<Option<Found>, Error> {
        let lock = data.stored_lock(key).and_then(KeyLock::exclusive);
        if let Some(LockCheck::Accessed(value)) =
            lock.map(|lock| self.check_lock(data, key, lock, !need_commit_ts)).transpose()?
        {
            return Ok(value.map(Found::new));
        }
        self.check_newest_version(data, key)?;
        let Some((commit_ts, write)) = data.data_version(key, self.ts, self.ts).found else { return Ok(None) };
        let mut found = Found::new(self.value_of(|| data.value(key, write))?);
        if need_commit_ts {
            found.commit_ts = commit_ts;
        }
        Ok(Some(found))
    }

    /// Reads a value unless only keys are wanted.
    pub(super) fn value_of(&self, value: impl FnOnce() -> Result<Bytes, Error>) -> Result<Bytes, Error> {
        if self.key_only { Ok(Bytes::new()) } else { value() }
    }

    /// Fails if the lock is in the way of the read.
    pub(super) fn check_lock(&self, data: &Data, key: &Key, lock: &Lock, may_access: bool) -> Result<LockCheck, Error> {
        let Some(conflict) = self.lock_conflict(key, lock) else { return Ok(LockCheck::Passed) };
        if !may_access || !self.access.contains(&lock.start_ts.version()) {
            return Err(conflict);
        }
        let value = match lock.kind {
            LockKind::Put => Some(self.value_of(|| data.locked_value(key, lock))?),
            _ => None,
        };
        Ok(LockCheck::Accessed(value))
    }

    fn lock_conflict(&self, key: &Key, lock: &Lock) -> Option<Error> {
        if !matches!(lock.kind, LockKind::Put | LockKind::Delete) || self.bypass.contains(&lock.start_ts.version()) {
            return None;
        }
        match self.isolation {
            IsolationLevel::Rc => None,
            IsolationLevel::Si => {
                // Whoever reads the newest version by the primary's key cannot miss a commit, as there is none yet. With
                // async commit there may be one.
                let reads_newest_of_primary =
                    self.ts == Timestamp::MAX && lock.is_primary(key) && !lock.use_async_commit;
                let commits_later = lock.start_ts > self.ts || lock.min_commit_ts > self.ts;
                (!commits_later && !reads_newest_of_primary).then(|| Error::locked(lock.info(key)))
            }
            IsolationLevel::RcCheckTs => Some(Error::from(Conflict {
                start_ts: self.ts,
                conflict_start_ts: lock.start_ts,
                conflict_commit_ts: Timestamp::ZERO,
                key: key.to_bytes(),
                primary: lock.primary.clone(),
                reason: Reason::RcCheckTs,
            })),
        }
    }

    pub(super) fn check_newest_version(&self, data: &Data, key: &Key) -> Result<(), Error> {
        match data.seek_write(key, Timestamp::MAX) {
            Some((commit_ts, _)) if self.refuses_newer_versions() && commit_ts > self.ts => {
                Err(self.newer_version(key, commit_ts))
            }
            _ => Ok(()),
        }
    }

    /// The conflict with a version. TiKV names the key as it is stored: encoded, with the commit_ts.
    pub(super) fn newer_version(&self, key: &Key, commit_ts: Timestamp) -> Error {
        let mut stored_key = Vec::new();
        memcomparable::encode(&mut stored_key, key.as_slice());
        encode_u64_desc(&mut stored_key, commit_ts.version());
        Error::from(Conflict {
            start_ts: self.ts,
            conflict_start_ts: Timestamp::ZERO,
            conflict_commit_ts: commit_ts,
            key: stored_key.into(),
            primary: Bytes::new(),
            reason: Reason::RcCheckTs,
        })
    }
}
