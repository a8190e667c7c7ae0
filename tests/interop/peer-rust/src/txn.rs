//! Transactions and snapshots.

use std::sync::Arc;

use serde_json::{Value, json};
use tikv_client::{
    Backoff, CheckLevel, RetryOptions, Snapshot, Timestamp, TimestampExt, Transaction, TransactionOptions,
};
use tokio::sync::{Mutex, MutexGuard};

use crate::request::{Fault, Outcome, Request};
use crate::{Peer, pairs};

/// Longer patience than the default, which gives up on a lock before it can expire; and no panic when a transaction is
/// dropped unfinished.
fn options(kind: TransactionOptions) -> TransactionOptions {
    let patience = RetryOptions {
        region_backoff: Backoff::no_jitter_backoff(2, 500, 30),
        lock_backoff: Backoff::no_jitter_backoff(2, 500, 40),
    };
    kind.retry_options(patience).drop_check(CheckLevel::None)
}

type Handle = Arc<Mutex<Transaction>>;

impl Peer {
    /// A timestamp from PD.
    pub async fn now(&self) -> Result<u64, Fault> {
        Ok(self.txn.current_timestamp().await?.version())
    }

    /// An open transaction.
    pub async fn begin(&self, kind: TransactionOptions) -> Result<Transaction, Fault> {
        Ok(self.txn.begin_with_options(options(kind)).await?)
    }

    pub async fn txn_begin(&self, request: &Request) -> Outcome {
        let mut kind = if request.flag("pessimistic") {
            TransactionOptions::new_pessimistic()
        } else {
            TransactionOptions::new_optimistic()
        };
        if request.flag("async_commit") {
            kind = kind.use_async_commit();
        }
        if request.flag("one_phase") {
            kind = kind.try_one_pc();
        }
        let txn = self.begin(kind).await?;
        let (handle, start_ts) = (self.next_handle(), txn.start_timestamp().version());
        self.table().insert(handle, Arc::new(Mutex::new(txn)));
        Ok(json!({ "txn": handle, "start_ts": start_ts }))
    }

    fn table(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeMap<u64, Handle>> {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn opened(&self, request: &Request) -> Result<Handle, Fault> {
        self.table().get(&request.number("txn")).cloned().ok_or_else(|| Fault::other("no such open transaction"))
    }

    fn finishing(&self, request: &Request) -> Result<Handle, Fault> {
        self.table().remove(&request.number("txn")).ok_or_else(|| Fault::other("no such open transaction"))
    }

    pub async fn txn_get(&self, request: &Request) -> Outcome {
        let txn = self.opened(request)?;
        let value = txn.lock().await.get(request.bytes("key")?).await?;
        Ok(json!({ "value": value.map(hex::encode) }))
    }

    pub async fn txn_batch_get(&self, request: &Request) -> Outcome {
        let txn = self.opened(request)?;
        let mut txn = txn.lock().await;
        Ok(pairs(txn.batch_get(request.list("keys")?).await?))
    }

    pub async fn txn_scan(&self, request: &Request) -> Outcome {
        let txn = self.opened(request)?;
        let mut txn = txn.lock().await;
        Ok(pairs(txn.scan(request.range()?, request.limit()).await?))
    }

    pub async fn txn_reverse_scan(&self, request: &Request) -> Outcome {
        let txn = self.opened(request)?;
        let mut txn = txn.lock().await;
        Ok(pairs(txn.scan_reverse(request.range()?, request.limit()).await?))
    }

    pub async fn txn_put(&self, request: &Request) -> Outcome {
        let txn = self.opened(request)?;
        txn.lock().await.put(request.bytes("key")?, request.bytes("value")?).await?;
        Ok(json!({}))
    }

    pub async fn txn_delete(&self, request: &Request) -> Outcome {
        let txn = self.opened(request)?;
        txn.lock().await.delete(request.bytes("key")?).await?;
        Ok(json!({}))
    }

    pub async fn txn_lock(&self, request: &Request) -> Outcome {
        let txn = self.opened(request)?;
        txn.lock().await.lock_keys(request.list("keys")?).await?;
        Ok(json!({}))
    }

    pub async fn txn_commit(&self, request: &Request) -> Outcome {
        let txn = self.finishing(request)?;
        let mut txn = txn.lock().await;
        let commit_ts = commit(&mut txn).await?;
        Ok(json!({ "commit_ts": commit_ts }))
    }

    pub async fn txn_rollback(&self, request: &Request) -> Outcome {
        let txn = self.finishing(request)?;
        txn.lock().await.rollback().await?;
        Ok(json!({}))
    }

    async fn snapshot(&self, request: &Request) -> Result<(Snapshot, u64), Fault> {
        let ts = match request.number("ts") {
            0 => self.now().await?,
            ts => ts,
        };
        let options = options(TransactionOptions::new_optimistic());
        Ok((self.txn.snapshot(Timestamp::from_version(ts), options), ts))
    }

    pub async fn snapshot_get(&self, request: &Request) -> Outcome {
        let (mut snapshot, ts) = self.snapshot(request).await?;
        let value = snapshot.get(request.bytes("key")?).await?;
        Ok(json!({ "value": value.map(hex::encode), "ts": ts }))
    }

    pub async fn snapshot_sum(&self, request: &Request) -> Outcome {
        let (mut snapshot, ts) = self.snapshot(request).await?;
        let (mut sum, mut count) = (0, 0);
        for pair in snapshot.batch_get(request.list("keys")?).await? {
            sum += amount(pair.value())?;
            count += 1;
        }
        Ok(json!({ "sum": sum, "count": count, "ts": ts }))
    }
}

/// Commits, and rolls back what a conflict left: tikv-client leaves that to its caller.
///
/// A commit that ends in any other error may have been executed: tikv-client 0.4 marks only some of them as undetermined (a
/// broken connection not), and a rollback would then tear the transaction apart. So all of them are undetermined here.
pub async fn commit(txn: &mut MutexGuard<'_, Transaction>) -> Result<Value, Fault> {
    match txn.commit().await.map_err(Fault::from) {
        Ok(commit_ts) => Ok(json!(commit_ts.map_or(0, |ts| ts.version()))),
        Err(fault) if fault.kind == "conflict" => {
            let _ = txn.rollback().await;
            Err(fault)
        }
        Err(fault) => Err(Fault { kind: "undetermined", message: fault.message }),
    }
}

/// A value that is a decimal number.
pub fn amount(value: &[u8]) -> Result<i64, Fault> {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(|| Fault::other("no decimal number"))
}
