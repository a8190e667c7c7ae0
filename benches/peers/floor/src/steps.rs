//! What each workload exchanges.

use bytes::{Bytes, BytesMut};
use tikv_bench_load::{BATCH_KEYS, Commit, Keys, Workload, record, txn_record, value};
use tikv_core::request::{Request, RequestContext};
use tikv_proto::kvrpcpb::prewrite_request::PessimisticAction;
use tikv_proto::kvrpcpb::{
    CommitRequest, GetRequest, Mutation, Op, PessimisticLockRequest, PrewriteRequest, RawBatchGetRequest,
    RawGetRequest, RawPutRequest,
};
use tikv_proto::metapb::{Peer, RegionEpoch};

/// Of the usual length, as all numbers here.
const START_TS: u64 = u64::MAX / 2;

/// One exchange of an operation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Takes a timestamp.
    Timestamp,
    /// Sends this entry of a batch and waits for the answer.
    Call(Bytes),
    /// Sends this entry of a batch and leaves the answer alone.
    Send(Bytes),
}

/// The exchanges of one operation, the same again and again; `None` for what is no matter of messages alone.
pub(crate) fn steps(workload: Workload) -> Option<Vec<Step>> {
    let get = || call(GetRequest { key: txn_record(1).into(), version: u64::MAX, ..Default::default() });
    Some(match workload {
        Workload::RawGet => vec![call(RawGetRequest { key: record(1).into(), ..Default::default() })],
        Workload::RawPut => {
            vec![call(RawPutRequest { key: record(1).into(), value: value().into(), ..Default::default() })]
        }
        Workload::RawBatchGet => {
            let keys = (0..BATCH_KEYS as u64).map(|number| record(number).into()).collect();
            vec![call(RawBatchGetRequest { keys, ..Default::default() })]
        }
        Workload::SnapshotGet => vec![get()],
        Workload::BeginGet => vec![Step::Timestamp, get()],
        Workload::Commit(count, kind) if count <= BATCH_KEYS => commit(count, kind),
        Workload::Tso => vec![Step::Timestamp],
        Workload::Commit(..) | Workload::Scan | Workload::Ycsb(_) | Workload::Load => return None,
    })
}

/// Clients take a second timestamp too, whatever the way of committing, before or after the prewrite; and one for locks.
fn commit(count: usize, kind: Commit) -> Vec<Step> {
    let keys: Vec<Bytes> = Keys::new(0).to_write(count).map(Bytes::from).collect();
    let (lock, prewrite) = (call(lock(&keys)), call(prewrite(&keys, kind)));
    let commit = CommitRequest { keys, start_version: START_TS, commit_version: START_TS + 1, ..Default::default() };
    match kind {
        Commit::TwoPhase => vec![Step::Timestamp, prewrite, Step::Timestamp, call(commit)],
        Commit::Async => vec![Step::Timestamp, Step::Timestamp, prewrite, Step::Send(entry(commit))],
        Commit::OnePhase => vec![Step::Timestamp, Step::Timestamp, prewrite],
        Commit::Pessimistic => {
            vec![Step::Timestamp, Step::Timestamp, lock, prewrite, Step::Timestamp, call(commit)]
        }
    }
}

fn lock(keys: &[Bytes]) -> PessimisticLockRequest {
    let lock = |key: &Bytes| Mutation { op: Op::PessimisticLock.into(), key: key.clone(), ..Default::default() };
    PessimisticLockRequest {
        mutations: keys.iter().map(lock).collect(),
        primary_lock: keys[0].clone(),
        start_version: START_TS,
        lock_ttl: 20_000,
        for_update_ts: START_TS,
        is_first_lock: true,
        min_commit_ts: START_TS + 1,
        ..Default::default()
    }
}

fn prewrite(keys: &[Bytes], kind: Commit) -> PrewriteRequest {
    let put = |key: &Bytes| Mutation { key: key.clone(), value: value().into(), ..Default::default() };
    let mut prewrite = PrewriteRequest {
        mutations: keys.iter().map(put).collect(),
        primary_lock: keys[0].clone(),
        start_version: START_TS,
        lock_ttl: 3000,
        txn_size: keys.len() as u64,
        min_commit_ts: START_TS + 1,
        use_async_commit: kind == Commit::Async,
        try_one_pc: kind == Commit::OnePhase,
        ..Default::default()
    };
    if kind == Commit::Pessimistic {
        prewrite.for_update_ts = START_TS;
        prewrite.pessimistic_actions = vec![PessimisticAction::DoPessimisticCheck.into(); keys.len()];
    }
    prewrite
}

fn call(request: impl Into<Request>) -> Step {
    Step::Call(entry(request))
}

fn entry(request: impl Into<Request>) -> Bytes {
    // Of the usual length.
    let context = RequestContext {
        region_id: 2,
        region_epoch: Some(RegionEpoch { conf_ver: 1, version: 1 }),
        peer: Some(Peer { id: 3, store_id: 1, ..Default::default() }),
        max_execution_duration_ms: 20_000,
        ..Default::default()
    };
    let mut buffer = BytesMut::new();
    request.into().encode_batch_entry(&context.into(), &mut buffer);
    buffer.freeze()
}
