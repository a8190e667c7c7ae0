//! PessimisticRollback: removes pessimistic locks of a transaction that goes on.

use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{PessimisticRollbackRequest, PessimisticRollbackResponse};

use super::command::{Context, Execute};
use super::errors::Error;
use super::lock::{Lock, LockRef};
use super::scan_lock::scan_locks;
use super::txn::Txn;

impl Execute for PessimisticRollbackRequest {
    type Response = PessimisticRollbackResponse;

    /// Without keys, all locks of the transaction in the region go.
    fn execute(&self, cx: &mut Context<'_>) -> Result<PessimisticRollbackResponse, Error> {
        let start_ts = Timestamp::from_version(self.start_version);
        let for_update_ts = Timestamp::from_version(self.for_update_ts);
        let matches =
            |lock: &Lock| lock.is_pessimistic() && lock.start_ts == start_ts && lock.for_update_ts <= for_update_ts;
        let keys: Vec<Key> = if self.keys.is_empty() {
            scan_locks(&cx.storage.data, cx.region, matches, 0).into_iter().map(|(key, _)| key).collect()
        } else {
            self.keys.iter().cloned().map(Key::from).collect()
        };
        let mut txn = cx.begin(start_ts);
        for key in &keys {
            roll_back(&mut txn, key, matches);
        }
        let batch = txn.batch;
        cx.apply(batch);
        Ok(PessimisticRollbackResponse::default())
    }
}

fn roll_back(txn: &mut Txn<'_>, key: &Key, matches: impl Fn(&Lock) -> bool) {
    match txn.data.lock(key) {
        Some(LockRef::Exclusive(lock)) if matches(lock) => txn.batch.unlock(key, true, Timestamp::ZERO),
        Some(LockRef::Shared(shared)) if shared.locks.get(&txn.start_ts()).is_some_and(matches) => {
            let mut shared = shared.clone();
            shared.locks.remove(&txn.start_ts());
            txn.batch.shrink_shared_locks(key, shared, Timestamp::ZERO);
        }
        _ => {}
    }
}
