//! Scripts of the machines that deal with locks.

mod batch_resolve;
mod check_txn_status;
mod outcome_of;
mod recover_async_commit;
mod release_locks;
mod resolve_locks;
mod sweep_locks;
mod wait;

use std::fmt::Debug;

use bytes::Bytes;
use tikv_proto::{errorpb, kvrpcpb, metapb};

use crate::backoff::Backoff;
use crate::config::Config;
use crate::error::LockInfo;
use crate::key::Key;
use crate::keyspace::KeyCodec;
use crate::machine::Machine;
use crate::machine::script::{Script, knowledge, region, ts};
use crate::route::CallOptions;
use crate::timestamp::Timestamp;

/// The life of the locks here, in milliseconds.
const TTL: u64 = 3_000;

fn options() -> CallOptions {
    CallOptions::new(&Config::default())
}

fn backoff() -> Backoff {
    Backoff::new(std::time::Duration::from_secs(20))
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn keys(names: &[&str]) -> Vec<Key> {
    names.iter().map(|name| Key::from(*name)).collect()
}

/// A prewritten lock of a small transaction.
fn lock(key: &str, primary: &str, start_ts: Timestamp) -> LockInfo {
    LockInfo { key: key.into(), primary: primary.into(), start_ts, ttl_ms: TTL, txn_size: 1, ..Default::default() }
}

fn pessimistic(key: &str, primary: &str, start_ts: Timestamp) -> LockInfo {
    LockInfo { kind: kvrpcpb::Op::PessimisticLock, for_update_ts: start_ts.next(), ..lock(key, primary, start_ts) }
}

/// A script over three regions: up to "g", up to "p", and the rest. PD's time is `now`, as of the script's beginning.
fn script<M: Machine>(machine: M, now: Timestamp) -> Script<M>
where
    M::Output: Debug,
{
    let script = unaware(machine);
    script.knowledge.clock.learn(script.now(), now);
    script
}

/// The same without knowledge of the time.
fn unaware<M: Machine>(machine: M) -> Script<M>
where
    M::Output: Debug,
{
    let regions = [region(1, "".."g"), region(2, "g".."p"), region(3, "p".."")];
    Script::with_knowledge(machine, knowledge(KeyCodec::Txn, regions))
}

fn not_found(start_ts: Timestamp) -> Option<Box<kvrpcpb::KeyError>> {
    let txn_not_found = kvrpcpb::TxnNotFound { start_ts: start_ts.version(), ..Default::default() };
    Some(Box::new(kvrpcpb::KeyError { txn_not_found: Some(txn_not_found), ..Default::default() }))
}

/// TiKV's answer that the lock of the primary is alive.
fn alive(primary: &LockInfo, action: kvrpcpb::Action) -> kvrpcpb::CheckTxnStatusResponse {
    kvrpcpb::CheckTxnStatusResponse {
        lock_ttl: primary.ttl_ms,
        action: action.into(),
        lock_info: Some(Box::new(to_proto(primary))),
        ..Default::default()
    }
}

fn committed(commit_ts: Timestamp) -> kvrpcpb::CheckTxnStatusResponse {
    kvrpcpb::CheckTxnStatusResponse { commit_version: commit_ts.version(), ..Default::default() }
}

fn ended(action: kvrpcpb::Action) -> kvrpcpb::CheckTxnStatusResponse {
    kvrpcpb::CheckTxnStatusResponse { action: action.into(), ..Default::default() }
}

fn to_proto(lock: &LockInfo) -> kvrpcpb::LockInfo {
    kvrpcpb::LockInfo {
        primary_lock: lock.primary.to_bytes(),
        lock_version: lock.start_ts.version(),
        key: lock.key.to_bytes(),
        lock_ttl: lock.ttl_ms,
        txn_size: lock.txn_size,
        lock_type: lock.kind.into(),
        lock_for_update_ts: lock.for_update_ts.version(),
        use_async_commit: lock.use_async_commit,
        min_commit_ts: lock.min_commit_ts.version(),
        secondaries: lock.secondaries.iter().map(Key::to_bytes).collect(),
        is_txn_file: lock.is_txn_file,
        ..Default::default()
    }
}

/// The store has another region in place of one that was asked for; nothing is known of it but its peers.
fn split(id: u64, range: std::ops::Range<&str>) -> metapb::Region {
    let encode = |key: &str| KeyCodec::Txn.encode_region_key(&Key::from(key));
    metapb::Region {
        id,
        start_key: encode(range.start),
        end_key: encode(range.end),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 2 }),
        peers: (1..=3)
            .map(|store| metapb::Peer { id: id * 10 + store, store_id: store, ..Default::default() })
            .collect(),
        ..Default::default()
    }
}

fn epoch_not_match(current_regions: Vec<metapb::Region>) -> errorpb::Error {
    errorpb::Error { epoch_not_match: Some(errorpb::EpochNotMatch { current_regions }), ..Default::default() }
}

/// A transaction's start and the time by which its locks have expired.
fn start_and_expired() -> (Timestamp, Timestamp) {
    (ts(10_000), ts(10_000 + TTL + 1))
}
