//! Hands encoded requests to the storage by the name of their RPC.

use prost::Message;
use tikv_core::key::KeyRange;
use tikv_proto::kvrpcpb::*;
use tikv_sim::storage::{Command, Outcome, Storage};

/// Answers an encoded request; an error if a TiKV would not have.
fn answer<C>(storage: &mut Storage, request: &[u8]) -> Result<Vec<u8>, String>
where
    C: Command + Message + Default,
    C::Response: Message,
{
    let request = C::decode(request).expect("requests are well formed");
    match storage.handle(&KeyRange::ALL, &request).outcome {
        Outcome::Answer(response) => Ok(response.encode_to_vec()),
        Outcome::Wait(wait) => Err(format!("waits for {:?}", wait.key)),
        Outcome::Refused(refusal) => Err(refusal.to_string()),
    }
}

macro_rules! rpcs {
    ($($rpc:literal => $request:ident,)*) => {
        /// RPCs that can be replayed.
        pub(super) const KNOWN_RPCS: &[&str] = &[$($rpc),*];

        /// Answers an encoded request of the given RPC.
        pub(super) fn call(storage: &mut Storage, rpc: &str, request: &[u8]) -> Result<Vec<u8>, String> {
            match rpc {
                $($rpc => answer::<$request>(storage, request),)*
                _ => Err(format!("unknown RPC {rpc}")),
            }
        }
    };
}

rpcs! {
    "KvGet" => GetRequest,
    "KvScan" => ScanRequest,
    "KvBatchGet" => BatchGetRequest,
    "KvPrewrite" => PrewriteRequest,
    "KvPessimisticLock" => PessimisticLockRequest,
    "KVPessimisticRollback" => PessimisticRollbackRequest,
    "KvCommit" => CommitRequest,
    "KvCleanup" => CleanupRequest,
    "KvBatchRollback" => BatchRollbackRequest,
    "KvTxnHeartBeat" => TxnHeartBeatRequest,
    "KvCheckTxnStatus" => CheckTxnStatusRequest,
    "KvCheckSecondaryLocks" => CheckSecondaryLocksRequest,
    "KvScanLock" => ScanLockRequest,
    "KvResolveLock" => ResolveLockRequest,
    "KvDeleteRange" => DeleteRangeRequest,
    "KvFlush" => FlushRequest,
    "KvBufferBatchGet" => BufferBatchGetRequest,
    "MvccGetByKey" => MvccGetByKeyRequest,
    "MvccGetByStartTs" => MvccGetByStartTsRequest,
    "RawGet" => RawGetRequest,
    "RawBatchGet" => RawBatchGetRequest,
    "RawPut" => RawPutRequest,
    "RawBatchPut" => RawBatchPutRequest,
    "RawDelete" => RawDeleteRequest,
    "RawBatchDelete" => RawBatchDeleteRequest,
    "RawScan" => RawScanRequest,
    "RawBatchScan" => RawBatchScanRequest,
    "RawDeleteRange" => RawDeleteRangeRequest,
    "RawCompareAndSwap" => RawCasRequest,
    "RawChecksum" => RawChecksumRequest,
}
