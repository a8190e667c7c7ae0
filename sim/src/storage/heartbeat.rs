//! TxnHeartBeat: keeps a lock alive.

use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{TxnHeartBeatRequest, TxnHeartBeatResponse};

use super::command::{Context, Execute};
use super::errors::Error;
use super::lock::LockRef;

impl Execute for TxnHeartBeatRequest {
    type Response = TxnHeartBeatResponse;

    /// Any lock will do, not only the primary's. A pessimistic lock in memory is stored thereby.
    fn execute(&self, cx: &mut Context<'_>) -> Result<TxnHeartBeatResponse, Error> {
        let start_ts = Timestamp::from_version(self.start_version);
        let key = Key::from(self.primary_lock.clone());
        let mut txn = cx.begin(start_ts);
        let mut lock = match txn.lock(&key) {
            Some(LockRef::Exclusive(lock)) if lock.start_ts == start_ts => lock.clone(),
            Some(LockRef::Shared(shared)) if shared.locks.contains_key(&start_ts) => {
                return Err(Error::PrimaryMismatch(Box::new(shared.info(&key))));
            }
            _ => return Err(Error::TxnNotFound { start_ts, key }),
        };
        let before = (lock.ttl_ms, lock.min_commit_ts);
        lock.ttl_ms = lock.ttl_ms.max(self.advise_lock_ttl);
        // Only pipelined transactions keep reads from waiting this way.
        if !lock.use_async_commit && lock.generation > 0 {
            lock.min_commit_ts = lock.min_commit_ts.max(Timestamp::from_version(self.min_commit_ts));
        }
        let lock_ttl = lock.ttl_ms;
        if (lock.ttl_ms, lock.min_commit_ts) != before {
            txn.batch.put_lock(&key, lock, false);
        }
        let batch = txn.batch;
        cx.apply(batch);
        Ok(TxnHeartBeatResponse { lock_ttl, ..TxnHeartBeatResponse::default() })
    }
}
