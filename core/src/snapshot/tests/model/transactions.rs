//! Transactions whose clients are gone, and what stores do to them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tikv_proto::kvrpcpb::{self, Action, Op};

use super::layout::Layout;
use super::{Model, Version};
use crate::key::{Key, KeyRange};
use crate::rng::Rng;
use crate::timestamp::Timestamp;

/// The one end that a transaction can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::snapshot::tests) enum Fate {
    /// Committed at this timestamp, or to be committed by whoever finds it.
    Committed(Timestamp),
    /// Rolled back, or to be rolled back.
    RolledBack,
}

impl Fate {
    pub(super) fn commit_ts(self) -> Option<Timestamp> {
        match self {
            Fate::Committed(commit_ts) => Some(commit_ts),
            Fate::RolledBack => None,
        }
    }
}

/// When a client was lost.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// Between the commit of its primary and that of all others.
    Committing,
    /// Between the rollback of its primary and that of all others.
    RollingBack,
    /// With all keys locked, or all but the primary.
    Prewritten,
    /// With all keys locked: an async commit is done then.
    AsyncDone,
    /// Between the commits of an async commit's keys.
    AsyncCommitting,
    /// With some keys of an async commit locked.
    AsyncPrewriting,
    /// Falling back from an async commit to another.
    AsyncFellBack,
}

const LOST: [Lost; 7] = [
    Lost::Committing,
    Lost::RollingBack,
    Lost::Prewritten,
    Lost::AsyncDone,
    Lost::AsyncCommitting,
    Lost::AsyncPrewriting,
    Lost::AsyncFellBack,
];

/// Every key there is.
pub(in crate::snapshot::tests) fn all_keys() -> Vec<Key> {
    ('a'..='p').flat_map(|letter| [Key::from(letter.to_string()), Key::from(format!("{letter}5"))]).collect()
}

pub(in crate::snapshot::tests) fn random_key(rng: &mut Rng) -> Key {
    let mut keys = all_keys();
    let index = rng.below(keys.len() as u64) as usize;
    keys.swap_remove(index)
}

impl Model {
    /// Some transactions, one after the other from `first` on.
    pub(in crate::snapshot::tests) fn new(mut rng: Rng, first: Timestamp) -> Self {
        let regions = Layout::new(&mut rng);
        let hides_locked_values = rng.below(4) == 0;
        let mut model = Model {
            rng,
            regions,
            versions: BTreeMap::new(),
            locks: BTreeMap::new(),
            records: BTreeMap::new(),
            fates: BTreeMap::new(),
            last_ts: first,
            hides_locked_values,
        };
        for _ in 0..3 + model.rng.below(20) {
            model.add_transaction();
        }
        model
    }

    fn tick(&mut self) -> Timestamp {
        let step_ms = self.rng.below(20);
        self.last_ts = Timestamp::compose(self.last_ts.physical_ms() + step_ms, self.last_ts.logical() + 1);
        self.last_ts
    }

    fn add_transaction(&mut self) {
        let start_ts = self.tick();
        let wanted = 1 + self.rng.below(6);
        let mut names = BTreeSet::new();
        for _ in 0..wanted {
            let key = random_key(&mut self.rng);
            if !self.locks.contains_key(&key) {
                names.insert(key);
            }
        }
        let mut keys: Vec<_> = names.into_iter().collect();
        if keys.is_empty() {
            return;
        }
        // Any key can be the primary.
        let primary = self.rng.below(keys.len() as u64) as usize;
        keys.swap(0, primary);
        let commits = self.rng.below(3) == 0;
        let lost = LOST[self.rng.below(LOST.len() as u64) as usize];
        let lost = if commits { Lost::Committing } else { lost };
        let fate = self.leave_behind(start_ts, &keys, lost, commits);
        self.fates.insert(start_ts, fate);
    }

    /// Leaves a transaction in the state in which its client was lost; or, if it `commits`, none of it unfinished.
    fn leave_behind(&mut self, start_ts: Timestamp, keys: &[Key], lost: Lost, commits: bool) -> Fate {
        let is_async =
            matches!(lost, Lost::AsyncDone | Lost::AsyncCommitting | Lost::AsyncPrewriting | Lost::AsyncFellBack);
        let mut min_commit_ts = Timestamp::ZERO;
        for key in keys {
            let own = if is_async || self.rng.below(2) == 0 { self.tick() } else { Timestamp::ZERO };
            min_commit_ts = min_commit_ts.max(own);
            self.lock(start_ts, key, keys, own, is_async);
        }
        let (primary, others) = (&keys[0], &keys[1..]);
        match lost {
            Lost::Committing => {
                let commit_ts = self.tick();
                self.commit(start_ts, primary, commit_ts);
                for key in others {
                    if commits || self.rng.below(2) == 0 {
                        self.commit(start_ts, key, commit_ts);
                    }
                }
                Fate::Committed(commit_ts)
            }
            Lost::RollingBack => {
                self.roll_back(start_ts, primary);
                for key in others {
                    if self.rng.below(2) == 0 {
                        self.roll_back(start_ts, key);
                    }
                }
                Fate::RolledBack
            }
            Lost::Prewritten => {
                if self.rng.below(2) == 0 {
                    self.locks.remove(primary);
                }
                Fate::RolledBack
            }
            Lost::AsyncDone => Fate::Committed(min_commit_ts),
            Lost::AsyncCommitting => {
                for key in keys {
                    if self.rng.below(2) == 0 {
                        self.commit(start_ts, key, min_commit_ts);
                    }
                }
                Fate::Committed(min_commit_ts)
            }
            Lost::AsyncPrewriting => {
                let missing = self.rng.below(keys.len() as u64) as usize;
                self.locks.remove(&keys[missing]);
                Fate::RolledBack
            }
            Lost::AsyncFellBack => {
                // The first keys were locked as by an async commit, the last were not any more.
                let last = keys.last().unwrap_or(primary);
                if let Some((lock, _)) = self.locks.get_mut(last) {
                    lock.use_async_commit = false;
                    lock.secondaries.clear();
                    lock.min_commit_ts = 0;
                }
                Fate::RolledBack
            }
        }
    }

    fn lock(&mut self, start_ts: Timestamp, key: &Key, keys: &[Key], min_commit_ts: Timestamp, is_async: bool) {
        let is_primary = *key == keys[0];
        let value = (self.rng.below(4) > 0).then(|| Bytes::from(format!("{start_ts}-{}", key.len())));
        let lock = kvrpcpb::LockInfo {
            primary_lock: keys[0].to_bytes(),
            lock_version: start_ts.version(),
            key: key.to_bytes(),
            lock_ttl: 1 + self.rng.below(300),
            txn_size: if self.rng.below(4) == 0 { u64::MAX } else { keys.len() as u64 },
            lock_type: (if value.is_some() { Op::Put } else { Op::Del }).into(),
            use_async_commit: is_async,
            min_commit_ts: min_commit_ts.version(),
            secondaries: if is_async && is_primary {
                keys[1..].iter().map(Key::to_bytes).collect()
            } else {
                Vec::new()
            },
            ..kvrpcpb::LockInfo::default()
        };
        self.locks.insert(key.clone(), (lock, value));
    }

    fn locked_by(&self, key: &Key, start_ts: Timestamp) -> Option<&kvrpcpb::LockInfo> {
        self.locks.get(key).map(|(lock, _)| lock).filter(|lock| lock.lock_version == start_ts.version())
    }

    fn commit(&mut self, start_ts: Timestamp, key: &Key, commit_ts: Timestamp) {
        if self.locked_by(key, start_ts).is_none() {
            return;
        }
        let Some((_, value)) = self.locks.remove(key) else { return };
        self.records.insert((key.clone(), start_ts), Some(commit_ts));
        self.versions.entry(key.clone()).or_default().push(Version { commit_ts, value });
    }

    fn roll_back(&mut self, start_ts: Timestamp, key: &Key) {
        if self.locked_by(key, start_ts).is_some() {
            self.locks.remove(key);
        }
        let record = self.records.entry((key.clone(), start_ts)).or_insert(None);
        assert_eq!(*record, None, "a committed key of {start_ts} is rolled back");
    }

    pub(super) fn check_txn_status(
        &mut self,
        request: &kvrpcpb::CheckTxnStatusRequest,
        range: &KeyRange,
    ) -> kvrpcpb::CheckTxnStatusResponse {
        let (key, start_ts) = (Key::from(request.primary_key.clone()), Timestamp::from_version(request.lock_ts));
        assert!(range.contains(key.as_slice()), "{key:?} was sent to {range:?}");
        assert!(request.verify_is_primary && request.current_ts != 0);
        let mut response = kvrpcpb::CheckTxnStatusResponse::default();
        let Some(mut lock) = self.locked_by(&key, start_ts).cloned() else {
            match self.records.get(&(key.clone(), start_ts)) {
                Some(record) => response.commit_version = record.map_or(0, Timestamp::version),
                None if request.rollback_if_not_exist => {
                    self.roll_back(start_ts, &key);
                    response.set_action(Action::LockNotExistRollback);
                }
                None => {
                    let txn_not_found = Some(kvrpcpb::TxnNotFound { start_ts: request.lock_ts, ..Default::default() });
                    response.error = Some(Box::new(kvrpcpb::KeyError { txn_not_found, ..Default::default() }));
                }
            }
            return response;
        };
        let treated_as_sync = !lock.use_async_commit || request.force_sync_commit;
        let expires_ms = start_ts.physical_ms() + lock.lock_ttl;
        if treated_as_sync && expires_ms < Timestamp::from_version(request.current_ts).physical_ms() {
            self.roll_back(start_ts, &key);
            response.set_action(Action::TtlExpireRollback);
            return response;
        }
        let caller = request.caller_start_ts;
        if treated_as_sync && lock.min_commit_ts != 0 && caller != u64::MAX && caller >= lock.min_commit_ts {
            lock.min_commit_ts = caller + 1;
            if let Some((stored, _)) = self.locks.get_mut(&key) {
                stored.min_commit_ts = lock.min_commit_ts;
            }
        }
        let pushed = caller == u64::MAX || (caller != 0 && lock.min_commit_ts > caller);
        if treated_as_sync && pushed {
            response.set_action(Action::MinCommitTsPushed);
        }
        response.lock_ttl = lock.lock_ttl;
        response.lock_info = Some(Box::new(lock));
        response
    }

    pub(super) fn check_secondary_locks(
        &mut self,
        request: &kvrpcpb::CheckSecondaryLocksRequest,
        range: &KeyRange,
    ) -> kvrpcpb::CheckSecondaryLocksResponse {
        let start_ts = Timestamp::from_version(request.start_version);
        let mut response = kvrpcpb::CheckSecondaryLocksResponse::default();
        for key in request.keys.iter().map(|key| Key::from(key.clone())) {
            assert!(range.contains(key.as_slice()), "{key:?} was sent to {range:?}");
            if let Some(lock) = self.locked_by(&key, start_ts) {
                response.locks.push(lock.clone());
                continue;
            }
            response.locks.clear();
            match self.records.get(&(key.clone(), start_ts)) {
                Some(record) => response.commit_ts = record.map_or(0, Timestamp::version),
                None => self.roll_back(start_ts, &key),
            }
            break;
        }
        response
    }

    pub(super) fn resolve_lock(
        &mut self,
        request: &kvrpcpb::ResolveLockRequest,
        range: &KeyRange,
    ) -> kvrpcpb::ResolveLockResponse {
        let start_ts = Timestamp::from_version(request.start_version);
        let commit_ts = Some(Timestamp::from_version(request.commit_version)).filter(|ts| !ts.is_zero());
        let fate = self.fates.get(&start_ts).expect("a known transaction");
        assert_eq!(fate.commit_ts(), commit_ts, "the end of {start_ts}");
        let keys: Vec<_> = match request.keys.is_empty() {
            true => self.locks.keys().filter(|key| range.contains(key.as_slice())).cloned().collect(),
            false => request.keys.iter().map(|key| Key::from(key.clone())).collect(),
        };
        let keys: Vec<_> = match request.keys.is_empty() {
            true => keys.into_iter().filter(|key| self.locked_by(key, start_ts).is_some()).collect(),
            false => keys,
        };
        for key in keys {
            assert!(range.contains(key.as_slice()), "{key:?} was sent to {range:?}");
            match commit_ts {
                None => self.roll_back(start_ts, &key),
                Some(commit_ts) => self.commit(start_ts, &key, commit_ts),
            }
        }
        kvrpcpb::ResolveLockResponse::default()
    }
}
