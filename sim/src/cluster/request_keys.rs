//! Which keys a request names, and how it comes to its region.

use bytes::Bytes;
use tikv_core::request::{Request, RequestKind};
use tikv_proto::kvrpcpb::Mutation;

use super::check::Entry;

/// Whether a command is of the raw API.
pub(super) fn is_raw(kind: RequestKind) -> bool {
    use RequestKind::*;
    matches!(
        kind,
        RawGet
            | RawBatchGet
            | RawPut
            | RawBatchPut
            | RawDelete
            | RawBatchDelete
            | RawDeleteRange
            | RawScan
            | RawGetKeyTtl
            | RawCompareAndSwap
            | RawChecksum
    )
}

/// How a request comes to its region; `None` if it is for no region.
pub(super) fn entry(request: &Request) -> Option<Entry> {
    let read = |read_ts| Some(Entry::Read { read_ts });
    match request {
        Request::Get(request) => read(request.version),
        Request::BatchGet(request) => read(request.version),
        Request::Scan(request) => read(request.version),
        Request::BufferBatchGet(request) => read(request.version),
        Request::Coprocessor(request) => read(request.start_ts),
        Request::ScanLock(_) | Request::MvccGetByKey(_) | Request::MvccGetByStartTs(_) => read(0),
        Request::RawGet(_) | Request::RawBatchGet(_) | Request::RawScan(_) => read(0),
        Request::RawGetKeyTtl(_) | Request::RawChecksum(_) => read(0),

        Request::Prewrite(_) | Request::Commit(_) | Request::Cleanup(_) | Request::BatchRollback(_) => WRITE,
        Request::PessimisticLock(_) | Request::PessimisticRollback(_) | Request::TxnHeartBeat(_) => WRITE,
        Request::CheckTxnStatus(_) | Request::CheckSecondaryLocks(_) | Request::ResolveLock(_) => WRITE,
        Request::Flush(_) | Request::RawCompareAndSwap(_) => WRITE,
        Request::RawBatchPut(request) if request.for_cas => WRITE,
        Request::RawBatchDelete(request) if request.for_cas => WRITE,

        Request::RawPut(_) | Request::RawBatchPut(_) | Request::RawDelete(_) => Some(Entry::Propose),
        Request::RawBatchDelete(_) | Request::RawDeleteRange(_) | Request::DeleteRange(_) => Some(Entry::Propose),

        Request::FlashbackToVersion(_) | Request::PrepareFlashbackToVersion(_) => Some(Entry::Flashback),
        _ => None,
    }
}

const WRITE: Option<Entry> = Some(Entry::ReadToWrite);

/// The first key of the request that `is_inside` denies, if there is one.
pub(super) fn key_outside<'a>(request: &'a Request, is_inside: impl Fn(&[u8]) -> bool) -> Option<&'a Bytes> {
    let of = |keys: &'a [Bytes]| keys.iter().find(|key| !is_inside(key));
    let one = |key: &'a Bytes| Some(key).filter(|key| !is_inside(key));
    let mutated =
        |mutations: &'a [Mutation]| mutations.iter().map(|mutation| &mutation.key).find(|key| !is_inside(key));
    match request {
        Request::Get(request) => one(&request.key),
        Request::BatchGet(request) => of(&request.keys),
        Request::BufferBatchGet(request) => of(&request.keys),
        Request::MvccGetByKey(request) => one(&request.key),
        Request::Prewrite(request) => mutated(&request.mutations),
        Request::Flush(request) => mutated(&request.mutations),
        Request::PessimisticLock(request) => mutated(&request.mutations),
        Request::Commit(request) => of(&request.keys),
        Request::Cleanup(request) => one(&request.key),
        Request::BatchRollback(request) => of(&request.keys),
        Request::PessimisticRollback(request) => of(&request.keys),
        Request::TxnHeartBeat(request) => one(&request.primary_lock),
        Request::CheckTxnStatus(request) => one(&request.primary_key),
        Request::CheckSecondaryLocks(request) => of(&request.keys),
        Request::ResolveLock(request) => of(&request.keys),
        Request::RawGet(request) => one(&request.key),
        Request::RawGetKeyTtl(request) => one(&request.key),
        Request::RawPut(request) => one(&request.key),
        Request::RawDelete(request) => one(&request.key),
        Request::RawCompareAndSwap(request) => one(&request.key),
        Request::RawBatchGet(request) => of(&request.keys),
        Request::RawBatchDelete(request) => of(&request.keys),
        Request::RawBatchPut(request) => request.pairs.iter().map(|pair| &pair.key).find(|key| !is_inside(key)),
        _ => None,
    }
}

/// The key that a forward scan starts at: unlike where it ends, it has to be in the region.
pub(super) fn scan_start(request: &Request) -> Option<&Bytes> {
    match request {
        Request::Scan(request) if !request.reverse => Some(&request.start_key),
        Request::RawScan(request) if !request.reverse => Some(&request.start_key),
        _ => None,
    }
}
