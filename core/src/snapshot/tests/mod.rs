//! Scripts of the reads, and reads of random stores against what those stores hold.

mod batch_get;
mod cache;
mod get;
mod model;
mod options;
mod random;
mod read_through;
mod scan;

use std::fmt::Debug;

use bytes::Bytes;
use tikv_proto::kvrpcpb::{Action, CheckTxnStatusRequest, CheckTxnStatusResponse};
use tikv_proto::{errorpb, kvrpcpb, metapb};

use super::{Pair, Read, ReadThrough, SnapshotOptions, Value};
use crate::config::Config;
use crate::key::Key;
use crate::keyspace::KeyCodec;
use crate::machine::script::{Script, knowledge, region, ts};
use crate::machine::{Machine, SleepReason};
use crate::timestamp::Timestamp;

/// The timestamp of the reads here.
const READ_MS: u64 = 11_000;

fn config() -> Config {
    Config::default()
}

fn options() -> SnapshotOptions {
    SnapshotOptions::new(ts(READ_MS), &config())
}

fn fresh() -> ReadThrough {
    ReadThrough::new(ts(READ_MS))
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn keys(names: &[&str]) -> Vec<Key> {
    names.iter().map(|name| Key::from(*name)).collect()
}

fn value(text: &'static str) -> Value {
    Value { bytes: bytes(text), commit_ts: None }
}

fn pair(key: &str, text: &'static str) -> Pair {
    Pair { key: key.into(), value: value(text) }
}

fn kv(key: &'static str, text: &'static str) -> kvrpcpb::KvPair {
    kvrpcpb::KvPair { key: bytes(key), value: bytes(text), ..Default::default() }
}

/// A script over three regions: up to "g", up to "p", and the rest. PD's time is a second after the reads' timestamp.
fn script<M: Machine>(machine: M) -> Script<M>
where
    M::Output: Debug,
{
    let regions = [region(1, "".."g"), region(2, "g".."p"), region(3, "p".."")];
    let script = Script::with_knowledge(machine, knowledge(KeyCodec::Txn, regions));
    script.knowledge.clock.learn(script.now(), ts(READ_MS + 1_000));
    script
}

/// A lock of transaction `start_ms`, whose primary is "k", with a life of 3 s.
fn lock_info(key: &'static str, start_ms: u64) -> kvrpcpb::LockInfo {
    kvrpcpb::LockInfo {
        primary_lock: bytes("k"),
        lock_version: ts(start_ms).version(),
        key: bytes(key),
        lock_ttl: 3_000,
        txn_size: 1,
        ..Default::default()
    }
}

fn locked(key: &'static str, start_ms: u64) -> Option<Box<kvrpcpb::KeyError>> {
    Some(Box::new(kvrpcpb::KeyError { locked: Some(Box::new(lock_info(key, start_ms))), ..Default::default() }))
}

/// A pair of a response that is a lock: TiKV names the key within the lock only.
fn locked_pair(key: &'static str, start_ms: u64) -> kvrpcpb::KvPair {
    kvrpcpb::KvPair { error: locked(key, start_ms), ..Default::default() }
}

fn aborted() -> Option<Box<kvrpcpb::KeyError>> {
    Some(Box::new(kvrpcpb::KeyError { abort: "no".into(), ..Default::default() }))
}

fn alive(start_ms: u64) -> CheckTxnStatusResponse {
    let lock_info = Some(Box::new(lock_info("k", start_ms)));
    CheckTxnStatusResponse { lock_ttl: 3_000, lock_info, ..Default::default() }
}

fn pushed(start_ms: u64) -> CheckTxnStatusResponse {
    CheckTxnStatusResponse { action: Action::MinCommitTsPushed.into(), ..alive(start_ms) }
}

fn committed(commit_ms: u64) -> CheckTxnStatusResponse {
    CheckTxnStatusResponse { commit_version: ts(commit_ms).version(), ..Default::default() }
}

fn rolled_back() -> CheckTxnStatusResponse {
    CheckTxnStatusResponse { action: Action::TtlExpireRollback.into(), ..Default::default() }
}

/// The status of the one transaction that is asked about.
fn status<M: Machine>(script: &mut Script<M>, response: CheckTxnStatusResponse)
where
    M::Output: Debug,
{
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.reply(response);
}

/// The read waits for a lock, and wakes up.
fn wait<M: Machine>(script: &mut Script<M>)
where
    M::Output: Debug,
{
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::LockAlive));
    script.wake();
}

fn versions(ms: &[u64]) -> Vec<u64> {
    ms.iter().map(|ms| ts(*ms).version()).collect()
}

fn epoch_not_match(current_regions: Vec<metapb::Region>) -> errorpb::Error {
    errorpb::Error { epoch_not_match: Some(errorpb::EpochNotMatch { current_regions }), ..Default::default() }
}

/// The region that a store has in place of one that was asked for.
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

/// What the end of a read has to say of others' transactions: those to ignore, and those to read through.
fn learnt<T>(read: &Read<T>) -> (Vec<Timestamp>, Vec<Timestamp>) {
    (read.read_through.ignored().collect(), read.read_through.accessible().collect())
}
