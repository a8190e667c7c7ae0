//! The operations of a story.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tikv_core::config::Config;
use tikv_core::engine::Operation;
use tikv_core::key::{Direction, Key, KeyRange};
use tikv_core::oracle::FetchTimestamp;
use tikv_core::raw::{self, RawOptions, RawPair, ScanOptions};
use tikv_core::snapshot::{BatchGet, Get, ReadThrough, Scan, SnapshotOptions};
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_core::txn::{Commit, CommitOptions, CommitRequest, Mutation, Mutations, OnLock, TxnLimits};

use super::ledger::TrackedCommit;
use crate::input::Input;

/// Keys in all regions.
pub(super) const KEYS: [&str; 6] = ["0", "a", "b", "k", "x", "zz"];
/// How long operations may take.
pub(super) const TIME_LIMITS: [Duration; 4] =
    [Duration::from_secs(30), Duration::from_secs(2), Duration::from_secs(600), Duration::from_millis(50)];
/// The wall clock of the simulated cluster when the story begins.
pub(super) const BEGIN_MS: u64 = 1_700_000_000_000;

/// The settings: sometimes such that a few keys make several batches and pages, and have a heartbeat.
pub(super) fn config(input: &mut Input<'_>) -> Config {
    let flags = input.byte();
    let mut config = Config::default();
    if flags & 1 != 0 {
        config.txn_batch_bytes = 1;
        config.raw.batch_keys = 1;
        config.batch_get_size = 1;
        config.scan_batch_size = 2;
    }
    if flags & 2 != 0 {
        config.heartbeat_txn_bytes = 0;
    }
    if flags & 4 != 0 {
        config.operation_concurrency = 1;
    }
    config
}

/// The start_ts of the transaction at this place of the story.
pub(super) fn start_ts(index: usize) -> Timestamp {
    Timestamp::compose(BEGIN_MS, index as u64 + 1)
}

/// An operation; `None` if its arguments are refused. A commit comes with what is to be known of it.
pub(super) fn operation(
    input: &mut Input<'_>,
    config: &Config,
    index: usize,
    deadline: Time,
) -> Option<(Operation, Option<TrackedCommit>)> {
    let kind = input.below(14);
    let keys = keys(input);
    let (first, range) = (keys[0].clone(), KeyRange { start: keys[0].clone(), end: Key::EMPTY });
    let direction = if keys.len() % 2 == 0 { Direction::Forward } else { Direction::Reverse };
    let mut snapshot = SnapshotOptions::new(if kind == 13 { Timestamp::MAX } else { start_ts(index) }, config);
    snapshot.call.deadline = deadline;
    let mut raw_options = RawOptions::new(config);
    raw_options.call.deadline = deadline;
    raw_options.atomic = true;
    let read_through = ReadThrough::new(snapshot.read_ts);
    let scan = ScanOptions { limit: 5, direction, key_only: false };
    let value = Bytes::from_static(b"value");
    Some((
        match kind {
            0..=3 => return commit(input, config, index, deadline, keys),
            4 | 13 => Operation::SnapshotGet(Get::new(config, first, snapshot, read_through)),
            5 => Operation::SnapshotBatchGet(BatchGet::new(config, keys, snapshot, read_through)),
            6 => Operation::SnapshotScan(Scan::new(range, direction, 5, snapshot, read_through)),
            7 => Operation::Timestamp(FetchTimestamp::new(config).until(deadline)),
            8 => Operation::RawGet(raw::get(config, first, &raw_options).ok()?),
            9 => {
                let swap = raw::compare_and_swap(config, first, None, value, &raw_options);
                Operation::RawCompareAndSwap(swap.ok()?)
            }
            10 => {
                let pairs = keys.into_iter().map(|key| RawPair { key, value: value.clone(), ttl: None });
                Operation::RawBatchPut(raw::batch_put(config, pairs.collect(), &raw_options).ok()?)
            }
            11 => Operation::RawScan(raw::scan(config, range, scan, &raw_options).ok()?),
            _ => Operation::RawDeleteRange(raw::delete_range(config, range, &raw_options)),
        },
        None,
    ))
}

fn commit(
    input: &mut Input<'_>,
    config: &Config,
    index: usize,
    deadline: Time,
    keys: Vec<Key>,
) -> Option<(Operation, Option<TrackedCommit>)> {
    let flags = input.byte();
    let mutations = keys.into_iter().enumerate().map(|(place, key)| match flags >> (place % 4) & 3 {
        0 | 1 => Mutation::put(key, "value"),
        2 => Mutation::insert(key, "value"),
        _ => Mutation::check_not_exists(key),
    });
    let mutations = Mutations::new(mutations.collect(), TxnLimits::new(config)).ok()?;
    let mut options = CommitOptions::new(config);
    options.call.deadline = deadline;
    if flags & 128 != 0 {
        options.on_lock = OnLock::Fail;
    }
    let start_ts = start_ts(index);
    let tracked = TrackedCommit::new(start_ts, mutations.primary().cloned().unwrap_or_default());
    let request = CommitRequest { start_ts, started_at: Time::ZERO, mutations, pessimistic: None, options };
    Some((Operation::Commit(Commit::new(request)), Some(tracked)))
}

/// At least one.
fn keys(input: &mut Input<'_>) -> Vec<Key> {
    let chosen = input.byte() | 1 << (index_of(input) % KEYS.len());
    let keys = KEYS.iter().enumerate().filter(|(place, _)| chosen & (1 << place) != 0);
    keys.map(|(_, key)| Key::from(*key)).collect()
}

fn index_of(input: &mut Input<'_>) -> usize {
    usize::from(input.byte())
}

/// Where the simulated stores listen.
pub(super) fn address(store_id: u64) -> Arc<str> {
    Arc::from(format!("store-{store_id}:20160"))
}
