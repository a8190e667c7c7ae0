//! Honest answers, and well-formed nonsense.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tikv_core::error::{Execution, Fault, FaultKind};
use tikv_core::machine::Call;
use tikv_core::pd::{CallId, PdEffect, PdInput, StreamId};
use tikv_core::request::{RequestKind, Response, decode_response};
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_proto::{errorpb, kvrpcpb, metapb, pdpb};
use tikv_sim::cluster::{Cluster, Served};
use tikv_sim::pd::PdCall;
use tikv_sim::status::CallError;

use super::operations::{BEGIN_MS, KEYS, address, start_ts};
use super::recipes::TSO;
use crate::input::Input;

/// What the simulated cluster answers; `None` if that takes longer than anybody waits.
pub(super) fn of_store(cluster: &mut Cluster, now: Time, call: &Call) -> Option<Result<Response, Fault>> {
    let fault = |kind, execution| Err(Fault::new(kind, execution, call.address.clone()));
    if *call.address != *address(call.store_id) {
        return Some(fault(FaultKind::Unreachable, Execution::NotSent));
    }
    match cluster.handle_store(now, call.store_id, &call.context.to_message(), call.request.clone()) {
        Served::Later(id) => {
            cluster.forget(id);
            None
        }
        Served::Answered(Ok(response)) => Some(Ok(response)),
        Served::Answered(Err(error)) => Some(match error {
            CallError::Unreachable => fault(FaultKind::Unreachable, Execution::NotSent),
            CallError::Disconnected => fault(FaultKind::Disconnected, Execution::MaybeExecuted),
            CallError::Status(status) => fault(FaultKind::Status(status.code as u32), Execution::MaybeExecuted),
        }),
    }
}

/// A message with one field, which is a message: `content`, or nothing if that is not one.
fn with_field<M: Message + Default>(field: u32, content: &[u8]) -> M {
    let encode = |content: &[u8]| {
        let mut bytes = BytesMut::new();
        prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, &mut bytes);
        bytes.put_u8(u8::try_from(content.len()).unwrap_or(0));
        bytes.put_slice(content);
        bytes
    };
    M::decode(encode(content)).or_else(|_| M::decode(encode(b""))).unwrap_or_default()
}

/// A region error of any kind, with some sense in those that teach something.
pub(super) fn region_error(cluster: &Cluster, call: &Call, field: u8, content: &Bytes) -> errorpb::Error {
    let mut input = Input::new(content);
    match field % 32 {
        0..=2 => {
            let leader = (input.byte() != 0).then(|| metapb::Peer {
                id: call.context.region_id.wrapping_mul(10) + u64::from(input.below(8)),
                store_id: u64::from(input.below(5)),
                ..metapb::Peer::default()
            });
            let leader = leader.map(|peer| known_peer(cluster, call.context.region_id, peer));
            errorpb::Error {
                not_leader: Some(errorpb::NotLeader { region_id: call.context.region_id, leader }),
                ..errorpb::Error::default()
            }
        }
        3..=6 => {
            let count = input.below(4);
            let current_regions = (0..count).map(|_| some_region(cluster, call, &mut input)).collect();
            errorpb::Error {
                epoch_not_match: Some(errorpb::EpochNotMatch { current_regions }),
                ..errorpb::Error::default()
            }
        }
        field => with_field(2 + u32::from(field - 7) % 21, content),
    }
}

/// More often than not a peer that the region has.
fn known_peer(cluster: &Cluster, region_id: u64, peer: metapb::Peer) -> metapb::Peer {
    let region = cluster.topology().regions().get(region_id);
    region.and_then(|region| region.peer_on(peer.store_id)).copied().unwrap_or(peer)
}

fn some_region(cluster: &Cluster, call: &Call, input: &mut Input<'_>) -> metapb::Region {
    let regions: Vec<_> = cluster.topology().regions().iter().collect();
    let Some(region) = regions.get(usize::from(input.byte()) % regions.len().max(1)) else {
        return metapb::Region::default();
    };
    let mut meta = region.meta.clone();
    let flags = input.byte();
    let mut epoch = meta.region_epoch.unwrap_or_default();
    if flags & 1 != 0 {
        epoch.version = epoch.version.wrapping_add(u64::from(flags >> 4));
    }
    if flags & 2 != 0 {
        epoch.version = call.context.region_epoch.unwrap_or_default().version;
        meta.id = call.context.region_id;
    }
    if flags & 4 != 0 {
        std::mem::swap(&mut meta.start_key, &mut meta.end_key);
    }
    if flags & 8 != 0 {
        meta.start_key = input.bytes(8);
    }
    meta.region_epoch = Some(epoch);
    meta
}

/// An answer with an error about keys of any kind, where the answer has room for one.
pub(super) fn key_error(call: &Call, field: u8, content: &Bytes) -> Response {
    let error = match field % 32 {
        0..=11 => {
            let locked = Some(Box::new(lock(&mut Input::new(content))));
            kvrpcpb::KeyError { locked, ..kvrpcpb::KeyError::default() }
        }
        12..=15 => {
            let mut input = Input::new(content);
            let expired = kvrpcpb::CommitTsExpired {
                key: key(&mut input),
                min_commit_ts: timestamp(&mut input),
                ..kvrpcpb::CommitTsExpired::default()
            };
            kvrpcpb::KeyError { commit_ts_expired: Some(expired), ..kvrpcpb::KeyError::default() }
        }
        field => with_field(1 + u32::from(field - 16) % 15, content),
    };
    let boxed = Some(Box::new(error.clone()));
    let kind = call.request.kind();
    match kind {
        RequestKind::Get => kvrpcpb::GetResponse { error: boxed, ..Default::default() }.into(),
        RequestKind::BatchGet if field & 1 == 0 => {
            kvrpcpb::BatchGetResponse { error: boxed, ..Default::default() }.into()
        }
        RequestKind::Scan if field & 1 == 0 => kvrpcpb::ScanResponse { error: boxed, ..Default::default() }.into(),
        RequestKind::BatchGet => kvrpcpb::BatchGetResponse { pairs: vec![pair(error)], ..Default::default() }.into(),
        RequestKind::Scan => kvrpcpb::ScanResponse { pairs: vec![pair(error)], ..Default::default() }.into(),
        RequestKind::Prewrite => {
            let errors = vec![error; usize::from(field >> 6) + 1];
            kvrpcpb::PrewriteResponse { errors, ..Default::default() }.into()
        }
        RequestKind::Commit => kvrpcpb::CommitResponse { error: boxed, ..Default::default() }.into(),
        RequestKind::BatchRollback => kvrpcpb::BatchRollbackResponse { error: boxed, ..Default::default() }.into(),
        RequestKind::ResolveLock => kvrpcpb::ResolveLockResponse { error: boxed, ..Default::default() }.into(),
        RequestKind::TxnHeartBeat => kvrpcpb::TxnHeartBeatResponse { error: boxed, ..Default::default() }.into(),
        RequestKind::CheckTxnStatus => check_txn_status(error, field, content).into(),
        RequestKind::CheckSecondaryLocks => {
            let locks = error.locked.map(|lock| *lock).into_iter().collect();
            kvrpcpb::CheckSecondaryLocksResponse { locks, ..Default::default() }.into()
        }
        _ => decode_response(kind, content.clone())
            .or_else(|_| decode_response(kind, Bytes::new()))
            .unwrap_or_else(|_| kvrpcpb::GetResponse::default().into()),
    }
}

/// An error, or a status of any kind.
fn check_txn_status(error: kvrpcpb::KeyError, field: u8, content: &Bytes) -> kvrpcpb::CheckTxnStatusResponse {
    if field & 1 != 0 {
        return kvrpcpb::CheckTxnStatusResponse { error: Some(Box::new(error)), ..Default::default() };
    }
    let mut input = Input::new(content);
    kvrpcpb::CheckTxnStatusResponse {
        lock_ttl: ttl_ms(&mut input),
        commit_version: if input.byte() & 1 != 0 { timestamp(&mut input) } else { 0 },
        action: i32::from(input.below(9)),
        lock_info: error.locked,
        ..Default::default()
    }
}

fn pair(error: kvrpcpb::KeyError) -> kvrpcpb::KvPair {
    kvrpcpb::KvPair { error: Some(Box::new(error)), ..kvrpcpb::KvPair::default() }
}

fn key(input: &mut Input<'_>) -> Bytes {
    match usize::from(input.byte()) {
        index @ 0..=200 => Bytes::from_static(KEYS[index % KEYS.len()].as_bytes()),
        _ => input.bytes(4),
    }
}

fn ttl_ms(input: &mut Input<'_>) -> u64 {
    input.pick(&[0, 1, 3_000, 20_000, u64::MAX])
}

/// Of the story's own transactions, of others before and after, of nobody.
fn timestamp(input: &mut Input<'_>) -> u64 {
    match input.byte() {
        byte @ 0..=99 => start_ts(usize::from(byte % 4)).version(),
        byte @ 100..=179 => Timestamp::compose(BEGIN_MS - 10_000, u64::from(byte)).version(),
        byte @ 180..=239 => Timestamp::compose(BEGIN_MS + 10_000, u64::from(byte)).version(),
        240..=245 => 0,
        246..=250 => 1,
        _ => u64::MAX,
    }
}

fn lock(input: &mut Input<'_>) -> kvrpcpb::LockInfo {
    let flags = input.byte();
    kvrpcpb::LockInfo {
        lock_version: timestamp(input),
        key: key(input),
        primary_lock: key(input),
        lock_ttl: ttl_ms(input),
        txn_size: if flags & 1 != 0 { u64::MAX } else { 1 },
        lock_type: i32::from(flags >> 1 & 7),
        use_async_commit: flags & 16 != 0,
        min_commit_ts: timestamp(input),
        secondaries: (0..flags >> 6).map(|_| key(input)).collect(),
        lock_for_update_ts: if flags & 32 != 0 { timestamp(input) } else { 0 },
        ..kvrpcpb::LockInfo::default()
    }
}

/// Something that PD is to answer.
#[derive(Debug)]
pub(super) enum PdQuestion {
    Call { call: CallId, address: Arc<str>, path: &'static str, body: Bytes },
    Message { stream: StreamId, body: Bytes },
    Stream { stream: StreamId, address: Arc<str> },
}

impl PdQuestion {
    /// A stream that is opened is a question only where it can fail.
    pub(super) fn of(effect: PdEffect, ends_streams: bool) -> Option<Self> {
        match effect {
            PdEffect::Call { call, address, path, body, .. } => Some(PdQuestion::Call { call, address, path, body }),
            PdEffect::Send { stream, body } => Some(PdQuestion::Message { stream, body }),
            PdEffect::OpenStream { stream, address, .. } if ends_streams => {
                Some(PdQuestion::Stream { stream, address })
            }
            _ => None,
        }
    }

    pub(super) fn address(&self) -> Arc<str> {
        match self {
            PdQuestion::Call { address, .. } | PdQuestion::Stream { address, .. } => address.clone(),
            PdQuestion::Message { .. } => Arc::from("pd"),
        }
    }

    pub(super) fn reply(&self, answer: Result<Bytes, Fault>) -> PdInput {
        match (self, answer) {
            (PdQuestion::Call { call, .. }, result) => PdInput::Reply { call: *call, result },
            (PdQuestion::Message { stream, .. } | PdQuestion::Stream { stream, .. }, Ok(body)) => {
                PdInput::StreamMessage { stream: *stream, body }
            }
            (PdQuestion::Message { stream, .. } | PdQuestion::Stream { stream, .. }, Err(fault)) => {
                PdInput::StreamClosed { stream: *stream, fault }
            }
        }
    }
}

/// What the simulated PD answers.
pub(super) fn of_pd(cluster: &mut Cluster, now: Time, question: &PdQuestion) -> Result<Bytes, Fault> {
    let (path, body) = match question {
        PdQuestion::Call { path, body, .. } => (*path, body.clone()),
        PdQuestion::Message { body, .. } => (TSO, body.clone()),
        PdQuestion::Stream { .. } => return Ok(Bytes::new()),
    };
    let call = PdCall { member: 1, path, allow_follower: true, ..PdCall::default() };
    let fault = |code| Fault::new(FaultKind::Status(code), Execution::MaybeExecuted, question.address());
    cluster.handle_pd(now, &call, body).map_err(|status| fault(status.code as u32))
}

/// PD's header is the first field of every answer: one with an error, and perhaps something behind it.
pub(super) fn pd_error(question: &PdQuestion, field: u8, content: &Bytes) -> Bytes {
    let error = (field & 1 != 0).then(|| pdpb::Error { r#type: i32::from(field >> 1 & 15), message: String::new() });
    let header = pdpb::ResponseHeader { cluster_id: 7_000_000_000_000_000_001, error };
    let mut bytes = pdpb::GetStoreResponse { header: Some(header), ..Default::default() }.encode_to_vec();
    if matches!(question, PdQuestion::Call { .. }) || field & 32 != 0 {
        bytes.extend_from_slice(content);
    }
    bytes.into()
}
