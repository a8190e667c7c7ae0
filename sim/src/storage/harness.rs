//! Short forms of requests, for the tests of this module. Timestamps are plain numbers.

use bytes::Bytes;
use tikv_core::key::KeyRange;
use tikv_proto::kvrpcpb::prewrite_request::PessimisticAction;
use tikv_proto::kvrpcpb::*;

use super::{Command, Config, Handled, Outcome, Refusal, Storage};

/// A mutation without value.
pub(super) fn op(op: Op, key: &'static str) -> Mutation {
    Mutation { op: op.into(), key: key.into(), ..Mutation::default() }
}

pub(super) fn put(key: &'static str, value: impl Into<Bytes>) -> Mutation {
    Mutation { value: value.into(), ..op(Op::Put, key) }
}

/// An optimistic prewrite.
pub(super) fn prewrite(start: u64, primary: &'static str, mutations: Vec<Mutation>) -> PrewriteRequest {
    PrewriteRequest {
        mutations,
        primary_lock: primary.into(),
        start_version: start,
        lock_ttl: 3000,
        ..PrewriteRequest::default()
    }
}

/// A pessimistic prewrite, all keys of which have been locked.
pub(super) fn prewrite_locked(
    start: u64,
    for_update: u64,
    primary: &'static str,
    mutations: Vec<Mutation>,
) -> PrewriteRequest {
    let pessimistic_actions = vec![PessimisticAction::DoPessimisticCheck.into(); mutations.len()];
    PrewriteRequest { for_update_ts: for_update, pessimistic_actions, ..prewrite(start, primary, mutations) }
}

pub(super) fn commit(start: u64, keys: &[&'static str], commit: u64) -> CommitRequest {
    CommitRequest { start_version: start, keys: bytes(keys), commit_version: commit, ..CommitRequest::default() }
}

pub(super) fn rollback(start: u64, keys: &[&'static str]) -> BatchRollbackRequest {
    BatchRollbackRequest { start_version: start, keys: bytes(keys), ..BatchRollbackRequest::default() }
}

/// A clean-up that does not look at the time to live.
pub(super) fn cleanup(start: u64, key: &'static str) -> CleanupRequest {
    CleanupRequest { start_version: start, key: key.into(), ..CleanupRequest::default() }
}

/// A pessimistic lock request that does not wait.
pub(super) fn lock(
    start: u64,
    for_update: u64,
    primary: &'static str,
    keys: &[&'static str],
) -> PessimisticLockRequest {
    PessimisticLockRequest {
        mutations: keys.iter().map(|key| op(Op::PessimisticLock, key)).collect(),
        primary_lock: primary.into(),
        start_version: start,
        for_update_ts: for_update,
        lock_ttl: 3000,
        wait_timeout: -1,
        ..PessimisticLockRequest::default()
    }
}

/// A request for a shared pessimistic lock.
pub(super) fn lock_shared(start: u64, primary: &'static str, key: &'static str) -> PessimisticLockRequest {
    PessimisticLockRequest { mutations: vec![op(Op::SharedPessimisticLock, key)], ..lock(start, start, primary, &[]) }
}

/// The same in fair locking.
pub(super) fn force(request: PessimisticLockRequest) -> PessimisticLockRequest {
    PessimisticLockRequest { wake_up_mode: PessimisticLockWakeUpMode::WakeUpModeForceLock.into(), ..request }
}

/// Asks for a transaction's status long after it began, without rolling it back if there is no trace.
pub(super) fn check_status(start: u64, primary: &'static str) -> CheckTxnStatusRequest {
    CheckTxnStatusRequest {
        primary_key: primary.into(),
        lock_ts: start,
        current_ts: u64::MAX - 1,
        verify_is_primary: true,
        ..CheckTxnStatusRequest::default()
    }
}

pub(super) fn get(key: &'static str, version: u64) -> GetRequest {
    GetRequest { key: key.into(), version, ..GetRequest::default() }
}

pub(super) fn scan(start: &'static str, end: &'static str, version: u64) -> ScanRequest {
    ScanRequest { start_key: start.into(), end_key: end.into(), limit: 100, version, ..ScanRequest::default() }
}

pub(super) fn bytes(keys: &[&'static str]) -> Vec<Bytes> {
    keys.iter().map(|key| Bytes::from(*key)).collect()
}

/// A store under test.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pub(super) storage: Storage,
    pub(super) region: KeyRange,
}

impl Store {
    pub(super) fn new() -> Self {
        Store { storage: Storage::new(Config::default()), region: KeyRange::ALL }
    }

    pub(super) fn handle<C: Command>(&mut self, request: &C) -> Handled<C::Response> {
        self.storage.handle(&self.region, request)
    }

    /// The answer to a request that is answered.
    #[track_caller]
    pub(super) fn call<C: Command>(&mut self, request: &C) -> C::Response {
        match self.handle(request).outcome {
            Outcome::Answer(answer) => answer,
            Outcome::Wait(wait) => panic!("waits: {wait:?}"),
            Outcome::Refused(refusal) => panic!("refused: {refusal}"),
        }
    }

    /// Why a request is refused.
    #[track_caller]
    pub(super) fn refusal<C: Command>(&mut self, request: &C) -> Refusal {
        match self.handle(request).outcome {
            Outcome::Refused(refusal) => refusal,
            _ => panic!("not refused"),
        }
    }

    /// Commits a value the plain way.
    #[track_caller]
    pub(super) fn write(&mut self, key: &'static str, value: impl Into<Bytes>, start: u64, at: u64) {
        self.commit_mutation(put(key, value), key, start, at);
    }

    /// Commits one mutation of `key` the plain way.
    #[track_caller]
    pub(super) fn commit_mutation(&mut self, mutation: Mutation, key: &'static str, start: u64, at: u64) {
        assert_eq!(self.call(&prewrite(start, key, vec![mutation])).errors, []);
        assert_eq!(self.call(&commit(start, &[key], at)).error, None);
    }

    /// The value of a key, if it can be read.
    #[track_caller]
    pub(super) fn read(&mut self, key: &'static str, version: u64) -> Option<Bytes> {
        let response = self.call(&get(key, version));
        assert_eq!(response.error, None);
        (!response.not_found).then_some(response.value)
    }

    pub(super) fn mvcc(&mut self, key: &'static str) -> MvccInfo {
        let request = MvccGetByKeyRequest { key: key.into(), ..MvccGetByKeyRequest::default() };
        *self.call(&request).info.unwrap_or_default()
    }

    /// Kind and commit_ts of the versions of a key, newest first.
    pub(super) fn versions(&mut self, key: &'static str) -> Vec<(Op, u64)> {
        self.mvcc(key).writes.iter().map(|write| (write.r#type(), write.commit_ts)).collect()
    }

    /// All locks of the region.
    pub(super) fn locks(&mut self) -> Vec<LockInfo> {
        self.call(&ScanLockRequest { max_version: u64::MAX, ..ScanLockRequest::default() }).locks
    }
}

/// The name of the error that an `abort` text tells, and its reason.
pub(super) fn is_abort(error: Option<&KeyError>, what: &str) -> bool {
    error.is_some_and(|error| error.abort.contains(what))
}
