//! A cluster small enough to be right by inspection: versions, locks, regions that split and merge, and transactions that
//! their clients left behind in every state, each with the one end that it can have.

mod layout;
mod run;
mod transactions;

use std::collections::BTreeMap;

use bytes::Bytes;
use tikv_proto::kvrpcpb;

use crate::key::{Key, KeyRange};
use crate::machine::Call;
use crate::request::{Request, Response};
use crate::rng::Rng;
use crate::timestamp::Timestamp;

pub(super) use run::Run;
use transactions::Fate;
pub(super) use transactions::random_key;

/// A version of a key.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) commit_ts: Timestamp,
    pub(super) value: Option<Bytes>,
}

/// The cluster.
#[derive(Debug)]
pub(super) struct Model {
    rng: Rng,
    regions: layout::Layout,
    versions: BTreeMap<Key, Vec<Version>>,
    locks: BTreeMap<Key, (kvrpcpb::LockInfo, Option<Bytes>)>,
    /// Commit records (with their timestamp) and rollback records.
    records: BTreeMap<(Key, Timestamp), Option<Timestamp>>,
    /// How each transaction must end.
    fates: BTreeMap<Timestamp, Fate>,
    /// The last timestamp that a client had written by.
    last_ts: Timestamp,
    /// Whether locks are where no read can see what they hold, as those in the memory of a real store.
    hides_locked_values: bool,
}

impl Model {
    /// What is to be read of a key.
    pub(super) fn expected(&self, key: &Key, read_ts: Timestamp) -> Option<Bytes> {
        let mut newest: Option<Version> = None;
        let locked = self.locks.get(key).and_then(|(lock, value)| {
            let commit_ts = self.fates.get(&Timestamp::from_version(lock.lock_version))?.commit_ts()?;
            let writes = matches!(lock.lock_type(), kvrpcpb::Op::Put | kvrpcpb::Op::Del);
            writes.then(|| Version { commit_ts, value: value.clone() })
        });
        for version in self.versions.get(key).into_iter().flatten().cloned().chain(locked) {
            let is_newer = newest.as_ref().is_none_or(|known| known.commit_ts < version.commit_ts);
            if version.commit_ts <= read_ts && is_newer {
                newest = Some(version);
            }
        }
        newest.and_then(|version| version.value)
    }

    /// All that is to be read in a range.
    pub(super) fn expected_in(&self, range: &KeyRange, read_ts: Timestamp) -> Vec<(Key, Bytes)> {
        let keys = transactions::all_keys().into_iter().filter(|key| range.contains(key.as_slice()));
        keys.filter_map(|key| self.expected(&key, read_ts).map(|value| (key, value))).collect()
    }

    pub(super) fn last_ts(&self) -> Timestamp {
        self.last_ts
    }

    /// Locks of transactions that have ended.
    pub(super) fn locks(&self) -> usize {
        self.locks.len()
    }

    /// What a store does with a request.
    fn execute(&mut self, call: &Call) -> Response {
        self.regions.change(&mut self.rng);
        let context = call.context.to_message();
        let range = match self.regions.check(&context, &mut self.rng) {
            Ok(range) => range,
            Err(error) => return Response::of_region_error(call.request.kind(), *error).expect("a regional command"),
        };
        let view = View {
            ignored: context.resolved_locks,
            accessible: if self.hides_locked_values { Vec::new() } else { context.committed_locks },
        };
        match &call.request {
            Request::Get(request) => self.get(request, &range, &view).into(),
            Request::BatchGet(request) => self.batch_get(request, &range, &view).into(),
            Request::Scan(request) => self.scan(request, &range, &view).into(),
            Request::CheckTxnStatus(request) => self.check_txn_status(request, &range).into(),
            Request::CheckSecondaryLocks(request) => self.check_secondary_locks(request, &range).into(),
            Request::ResolveLock(request) => self.resolve_lock(request, &range).into(),
            request => panic!("a read sent {request:?}"),
        }
    }

    fn read(&self, key: &Key, version: u64, need_commit_ts: bool, view: &View) -> Result<Option<Version>, LockedBy> {
        if let Some((lock, value)) = self.locks.get(key) {
            let is_newest = version == u64::MAX && lock.key == lock.primary_lock && !lock.use_async_commit;
            let hides = lock.lock_version <= version
                && lock.min_commit_ts <= version
                && matches!(lock.lock_type(), kvrpcpb::Op::Put | kvrpcpb::Op::Del)
                && !view.ignored.contains(&lock.lock_version)
                && !is_newest;
            if hides && view.accessible.contains(&lock.lock_version) && !need_commit_ts {
                return Ok(Some(Version { commit_ts: Timestamp::ZERO, value: value.clone() }));
            }
            if hides {
                return Err(Box::new(kvrpcpb::KeyError {
                    locked: Some(Box::new(lock.clone())),
                    ..kvrpcpb::KeyError::default()
                }));
            }
        }
        let versions = self.versions.get(key).into_iter().flatten();
        Ok(versions.filter(|other| other.commit_ts.version() <= version).max_by_key(|other| other.commit_ts).cloned())
    }

    fn get(&self, request: &kvrpcpb::GetRequest, range: &KeyRange, view: &View) -> kvrpcpb::GetResponse {
        let key = Key::from(request.key.clone());
        assert!(range.contains(key.as_slice()), "{key:?} was sent to {range:?}");
        let mut response = kvrpcpb::GetResponse::default();
        match self.read(&key, request.version, request.need_commit_ts, view) {
            Err(error) => response.error = Some(error),
            Ok(Some(Version { commit_ts, value: Some(value) })) => {
                response.value = value;
                response.commit_ts = commit_ts.version();
            }
            Ok(_) => response.not_found = true,
        }
        response
    }

    fn batch_get(
        &mut self,
        request: &kvrpcpb::BatchGetRequest,
        range: &KeyRange,
        view: &View,
    ) -> kvrpcpb::BatchGetResponse {
        let mut response = kvrpcpb::BatchGetResponse::default();
        for key in request.keys.iter().map(|key| Key::from(key.clone())) {
            assert!(range.contains(key.as_slice()), "{key:?} was sent to {range:?}");
            let read = self.read(&key, request.version, request.need_commit_ts, view);
            response.pairs.extend(pair(key, read, false));
        }
        if let Some(error) = self.refusal(&mut response.pairs) {
            response.error = Some(error);
        }
        response
    }

    fn scan(&mut self, request: &kvrpcpb::ScanRequest, range: &KeyRange, view: &View) -> kvrpcpb::ScanResponse {
        let (start, end) = (Key::from(request.start_key.clone()), Key::from(request.end_key.clone()));
        let asked = if request.reverse { KeyRange::new(end, start) } else { KeyRange::new(start, end) };
        let is_inside = asked.start >= range.start && (range.end.is_empty() || asked.end <= range.end);
        assert!(is_inside || request.reverse && range.end.is_empty(), "{asked:?} was sent to {range:?}");
        let mut keys: Vec<_> =
            transactions::all_keys().into_iter().filter(|key| asked.contains(key.as_slice())).collect();
        if request.reverse {
            keys.reverse();
        }
        let mut response = kvrpcpb::ScanResponse::default();
        for key in keys {
            if response.pairs.len() < request.limit as usize {
                let read = self.read(&key, request.version, false, view);
                response.pairs.extend(pair(key, read, request.key_only));
            }
        }
        if let Some(error) = self.refusal(&mut response.pairs) {
            response.error = Some(error);
        }
        response
    }

    /// Now and then a lock is met where it spoils the whole answer.
    fn refusal(&mut self, pairs: &mut Vec<kvrpcpb::KvPair>) -> Option<Box<kvrpcpb::KeyError>> {
        let error = pairs.iter().find_map(|pair| pair.error.clone())?;
        let spoils = self.rng.below(3) == 0;
        spoils.then(|| {
            *pairs = vec![kvrpcpb::KvPair { error: Some(error.clone()), ..kvrpcpb::KvPair::default() }];
            error
        })
    }
}

/// What a read was told of others' transactions.
struct View {
    ignored: Vec<u64>,
    accessible: Vec<u64>,
}

type LockedBy = Box<kvrpcpb::KeyError>;

fn pair(key: Key, read: Result<Option<Version>, LockedBy>, key_only: bool) -> Option<kvrpcpb::KvPair> {
    match read {
        Err(error) => Some(kvrpcpb::KvPair { error: Some(error), ..kvrpcpb::KvPair::default() }),
        Ok(Some(Version { commit_ts, value: Some(value) })) => Some(kvrpcpb::KvPair {
            error: None,
            key: key.into_bytes(),
            value: if key_only { Bytes::new() } else { value },
            commit_ts: commit_ts.version(),
        }),
        Ok(_) => None,
    }
}
