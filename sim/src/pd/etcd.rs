//! etcd's calls, as PD's embedded etcd answers them.

use bytes::Bytes;
use tikv_core::key::{Key, KeyRange};
use tikv_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use tikv_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use tikv_proto::etcdserverpb::request_op::Request as Op;
use tikv_proto::etcdserverpb::response_op::Response as OpResponse;
use tikv_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use tikv_proto::mvccpb::KeyValue;

use super::kv::{Kv, range_of};
use super::{Answer, Asked};
use crate::status::{Code, Status};

/// How many transactions may lie in one another.
const DEEPEST: usize = 8;

impl Asked<'_> {
    pub(super) fn etcd_header(&self) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.topology.cluster_id(),
            member_id: self.member,
            revision: self.pd.kv.revision(),
            raft_term: self.pd.etcd_term,
        }
    }
}

pub(super) fn range(cx: &mut Asked<'_>, request: &RangeRequest) -> Answer<RangeResponse> {
    let response = run_range(&cx.pd.kv, request)?;
    Ok(RangeResponse { header: Some(cx.etcd_header()), ..response })
}

pub(super) fn put(cx: &mut Asked<'_>, request: &PutRequest) -> Answer<PutResponse> {
    let revision = cx.pd.kv.next_revision();
    let response = run_put(&mut cx.pd.kv, revision, request)?;
    Ok(PutResponse { header: Some(cx.etcd_header()), ..response })
}

pub(super) fn delete_range(cx: &mut Asked<'_>, request: &DeleteRangeRequest) -> Answer<DeleteRangeResponse> {
    let gone = cx.pd.kv.delete(&range_of(&request.key, &request.range_end));
    Ok(DeleteRangeResponse { header: Some(cx.etcd_header()), ..deleted(gone, request.prev_kv) })
}

pub(super) fn txn(cx: &mut Asked<'_>, request: &TxnRequest) -> Answer<TxnResponse> {
    // All or nothing.
    let mut kv = cx.pd.kv.clone();
    let revision = if writes(request, 0) { kv.next_revision() } else { kv.revision() };
    let response = run_txn(&mut kv, revision, request, 0)?;
    cx.pd.kv = kv;
    Ok(TxnResponse { header: Some(cx.etcd_header()), ..response })
}

fn run_range(kv: &Kv, request: &RangeRequest) -> Answer<RangeResponse> {
    if request.revision > 0 && request.revision < kv.revision() {
        return Err(Status::new(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"));
    }
    let found = range_of(&request.key, &request.range_end);
    let within = |revision: i64, min: i64, max: i64| revision >= min && (max == 0 || revision <= max);
    let wanted = |entry: &&KeyValue| {
        within(entry.mod_revision, request.min_mod_revision, request.max_mod_revision)
            && within(entry.create_revision, request.min_create_revision, request.max_create_revision)
    };
    let mut kvs: Vec<KeyValue> = kv.scan(&found).filter(wanted).cloned().collect();
    let count = kvs.len() as i64;
    if request.count_only {
        return Ok(RangeResponse { count, ..RangeResponse::default() });
    }
    sort(&mut kvs, request.sort_order(), request.sort_target());
    let more = request.limit > 0 && count > request.limit;
    if more {
        kvs.truncate(usize::try_from(request.limit).unwrap_or(usize::MAX));
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|entry| entry.value = Bytes::new());
    }
    Ok(RangeResponse { kvs, more, count, ..RangeResponse::default() })
}

fn sort(kvs: &mut [KeyValue], order: SortOrder, target: SortTarget) {
    match target {
        SortTarget::Key => {}
        SortTarget::Version => kvs.sort_by_key(|entry| entry.version),
        SortTarget::Create => kvs.sort_by_key(|entry| entry.create_revision),
        SortTarget::Mod => kvs.sort_by_key(|entry| entry.mod_revision),
        SortTarget::Value => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
    }
    if order == SortOrder::Descend {
        kvs.reverse();
    }
}

fn run_put(kv: &mut Kv, revision: i64, request: &PutRequest) -> Answer<PutResponse> {
    let old = kv.entry(&request.key).cloned();
    if old.is_none() && (request.ignore_value || request.ignore_lease) {
        return Err(Status::new(Code::InvalidArgument, "etcdserver: key not found"));
    }
    let kept = old.unwrap_or_default();
    let value = if request.ignore_value { kept.value } else { request.value.clone() };
    let lease = if request.ignore_lease { kept.lease } else { request.lease };
    let previous = kv.put_at(revision, request.key.clone(), value, lease);
    Ok(PutResponse { prev_kv: previous.filter(|_| request.prev_kv), ..PutResponse::default() })
}

fn deleted(gone: Vec<KeyValue>, prev_kv: bool) -> DeleteRangeResponse {
    let deleted = gone.len() as i64;
    DeleteRangeResponse { deleted, prev_kvs: if prev_kv { gone } else { Vec::new() }, ..DeleteRangeResponse::default() }
}

// ---- Transactions ----

fn writes(request: &TxnRequest, depth: usize) -> bool {
    let ops = request.success.iter().chain(&request.failure);
    ops.filter_map(|op| op.request.as_ref()).any(|op| match op {
        Op::RequestRange(_) => false,
        Op::RequestPut(_) | Op::RequestDeleteRange(_) => true,
        Op::RequestTxn(inner) => depth < DEEPEST && writes(inner, depth + 1),
    })
}

fn run_txn(kv: &mut Kv, revision: i64, request: &TxnRequest, depth: usize) -> Answer<TxnResponse> {
    if depth >= DEEPEST {
        return Err(Status::new(Code::InvalidArgument, "transactions lie too deep in one another"));
    }
    let succeeded = request.compare.iter().all(|compare| holds(kv, compare));
    let ops = if succeeded { &request.success } else { &request.failure };
    let responses = ops.iter().map(|op| run_op(kv, revision, op, depth)).collect::<Result<_, _>>()?;
    Ok(TxnResponse { succeeded, responses, ..TxnResponse::default() })
}

fn run_op(kv: &mut Kv, revision: i64, op: &RequestOp, depth: usize) -> Answer<ResponseOp> {
    let response = match &op.request {
        Some(Op::RequestRange(request)) => Some(OpResponse::ResponseRange(run_range(kv, request)?)),
        Some(Op::RequestPut(request)) => Some(OpResponse::ResponsePut(run_put(kv, revision, request)?)),
        Some(Op::RequestDeleteRange(request)) => {
            let gone = kv.delete_at(revision, &range_of(&request.key, &request.range_end));
            Some(OpResponse::ResponseDeleteRange(deleted(gone, request.prev_kv)))
        }
        Some(Op::RequestTxn(request)) => Some(OpResponse::ResponseTxn(run_txn(kv, revision, request, depth + 1)?)),
        None => None,
    };
    Ok(ResponseOp { response })
}

/// Whether a comparison holds for all keys that it names. A key that is not there has zeroes, but no value.
fn holds(kv: &Kv, compare: &Compare) -> bool {
    let range: KeyRange = range_of(&compare.key, &compare.range_end);
    let missing = KeyValue { key: compare.key.clone(), ..KeyValue::default() };
    let is_there = kv.scan(&range).next().is_some();
    if !is_there {
        return compare.target() != CompareTarget::Value && compare_one(&missing, compare);
    }
    kv.scan(&range).all(|entry| compare_one(entry, compare))
}

fn compare_one(entry: &KeyValue, compare: &Compare) -> bool {
    let ordering = match (compare.target(), &compare.target_union) {
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => entry.value.cmp(value),
        (CompareTarget::Value, _) => Key::from(entry.value.clone()).cmp(&Key::EMPTY),
        (CompareTarget::Version, union) => entry.version.cmp(&number(union.as_ref())),
        (CompareTarget::Create, union) => entry.create_revision.cmp(&number(union.as_ref())),
        (CompareTarget::Mod, union) => entry.mod_revision.cmp(&number(union.as_ref())),
        (CompareTarget::Lease, union) => entry.lease.cmp(&number(union.as_ref())),
    };
    match compare.result() {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    }
}

fn number(union: Option<&TargetUnion>) -> i64 {
    match union {
        Some(
            TargetUnion::Version(number)
            | TargetUnion::CreateRevision(number)
            | TargetUnion::ModRevision(number)
            | TargetUnion::Lease(number),
        ) => *number,
        Some(TargetUnion::Value(_)) | None => 0,
    }
}
