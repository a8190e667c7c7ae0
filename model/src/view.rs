//! What an omniscient observer sees in the store.

use tikv_core::key::{Key, KeyRange};
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{LockInfo, MvccGetByKeyRequest, MvccInfo, MvccWrite, Op, ScanLockRequest};
use tikv_sim::storage::{Command, Outcome, Storage};

/// All locks and versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View(Vec<KeyView>);

/// Lock and versions of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyView {
    /// The key.
    pub(crate) key: Key,
    /// Its lock.
    pub(crate) lock: Option<LockInfo>,
    /// Its versions, rollbacks among them, the newest first.
    pub(crate) writes: Vec<MvccWrite>,
}

impl View {
    /// Looks at `keys`, and changes nothing.
    #[must_use]
    pub(crate) fn new(storage: &Storage, keys: &[Key]) -> Self {
        let mut storage = storage.clone();
        let locks = ask(&mut storage, &ScanLockRequest { max_version: u64::MAX, ..ScanLockRequest::default() }).locks;
        let look = |key: &Key| {
            let question = MvccGetByKeyRequest { key: key.to_bytes(), ..MvccGetByKeyRequest::default() };
            let MvccInfo { writes, .. } = *ask(&mut storage, &question).info.unwrap_or_default();
            let lock = locks.iter().find(|lock| lock.key[..] == *key.as_slice()).cloned();
            KeyView { key: key.clone(), lock, writes }
        };
        View(keys.iter().map(look).collect())
    }

    /// All keys.
    #[must_use]
    pub(crate) fn keys(&self) -> &[KeyView] {
        &self.0
    }

    /// One key.
    #[must_use]
    pub(crate) fn key(&self, key: &Key) -> Option<&KeyView> {
        self.0.iter().find(|view| view.key == *key)
    }
}

impl KeyView {
    /// When the transaction committed on this key.
    #[must_use]
    pub(crate) fn committed(&self, start_ts: Timestamp) -> Option<Timestamp> {
        let mut writes = self.writes.iter().filter(|write| write.start_ts == start_ts.version());
        writes.find(|write| write.r#type() != Op::Rollback).map(|write| Timestamp::from_version(write.commit_ts))
    }

    /// Whether the transaction was rolled back on this key.
    #[must_use]
    pub(crate) fn rolled_back(&self, start_ts: Timestamp) -> bool {
        self.writes.iter().any(|write| {
            write.commit_ts == start_ts.version() && (write.r#type() == Op::Rollback || write.has_overlapped_rollback)
        })
    }

    /// The transaction's lock on this key.
    #[must_use]
    pub(crate) fn lock_of(&self, start_ts: Timestamp) -> Option<&LockInfo> {
        self.lock.as_ref().filter(|lock| lock.lock_version == start_ts.version())
    }

    /// The same, unless it is pessimistic: that one protects the key, but holds nothing to be committed.
    #[must_use]
    pub(crate) fn prewritten(&self, start_ts: Timestamp) -> Option<&LockInfo> {
        self.lock_of(start_ts).filter(|lock| lock.lock_type() != Op::PessimisticLock)
    }
}

fn ask<C: Command>(storage: &mut Storage, question: &C) -> C::Response {
    match storage.handle(&KeyRange::ALL, question).outcome {
        Outcome::Answer(answer) => answer,
        Outcome::Wait(_) | Outcome::Refused(_) => unreachable!("a question about what is stored is answered"),
    }
}
