//! Transactions and snapshots.

use serde_json::json;
use tikv::{CommitMode, LockOptions, LockWait, Snapshot, Timestamp, TransactionOptions};

use crate::peer::{Peer, pairs};
use crate::request::{Fault, Outcome, Request, hex};

impl Peer {
    /// The time limit of `txn_begin` holds for each later call of the transaction.
    pub(crate) async fn txn_begin(&self, request: &Request) -> Outcome {
        let mut options = TransactionOptions::default().timeout(request.timeout());
        if request.flag("pessimistic") {
            options = options.pessimistic();
        }
        if request.flag("async_commit") {
            options = options.async_commit();
        }
        if request.flag("one_phase") {
            options = options.one_phase_commit();
        }
        let txn = self.client.begin_with(options).await?;
        let start_ts = txn.start_ts().version();
        Ok(json!({ "txn": self.keep(txn), "start_ts": start_ts }))
    }

    pub(crate) async fn txn_get(&self, request: &Request) -> Outcome {
        let value = self.opened(request)?.get(request.key()?).await?;
        Ok(json!({ "value": value.map(|value| hex(&value)) }))
    }

    pub(crate) async fn txn_batch_get(&self, request: &Request) -> Outcome {
        Ok(pairs(self.opened(request)?.batch_get(request.keys()?).await?))
    }

    pub(crate) async fn txn_scan(&self, request: &Request) -> Outcome {
        Ok(pairs(self.opened(request)?.scan(request.range()?, request.limit() as usize).await?))
    }

    pub(crate) async fn txn_reverse_scan(&self, request: &Request) -> Outcome {
        Ok(pairs(self.opened(request)?.reverse_scan(request.range()?, request.limit() as usize).await?))
    }

    pub(crate) fn txn_put(&self, request: &Request) -> Outcome {
        self.opened(request)?.put(request.key()?, request.bytes("value")?)?;
        Ok(json!({}))
    }

    pub(crate) fn txn_delete(&self, request: &Request) -> Outcome {
        self.opened(request)?.delete(request.key()?)?;
        Ok(json!({}))
    }

    pub(crate) async fn txn_lock(&self, request: &Request) -> Outcome {
        self.opened(request)?.lock_keys(request.keys()?, LockOptions::default().wait(LockWait::Always)).await?;
        Ok(json!({}))
    }

    pub(crate) async fn txn_commit(&self, request: &Request) -> Outcome {
        let outcome = self.finishing(request)?.commit().await?;
        let mode = match outcome.mode {
            CommitMode::NothingWritten => "nothing",
            CommitMode::TwoPhases => "2pc",
            CommitMode::AsyncCommit => "async",
            CommitMode::OnePhase => "1pc",
        };
        Ok(json!({ "commit_ts": outcome.commit_ts.map_or(0, Timestamp::version), "mode": mode }))
    }

    pub(crate) fn txn_rollback(&self, request: &Request) -> Outcome {
        self.finishing(request)?.rollback()?;
        Ok(json!({}))
    }

    async fn snapshot(&self, request: &Request) -> Result<Snapshot, Fault> {
        let snapshot = match request.number("ts") {
            0 => self.client.snapshot().await?,
            ts => self.client.snapshot_at(Timestamp::from_version(ts)),
        };
        Ok(snapshot.with_timeout(request.timeout()))
    }

    pub(crate) async fn snapshot_get(&self, request: &Request) -> Outcome {
        let snapshot = self.snapshot(request).await?;
        let value = snapshot.get(request.key()?).await?;
        Ok(json!({ "value": value.map(|value| hex(&value)), "ts": snapshot.read_ts().version() }))
    }

    pub(crate) async fn snapshot_sum(&self, request: &Request) -> Outcome {
        let snapshot = self.snapshot(request).await?;
        let (mut sum, mut count) = (0, 0);
        for pair in snapshot.batch_get(request.keys()?).await? {
            sum += amount(&pair.value)?;
            count += 1;
        }
        Ok(json!({ "sum": sum, "count": count, "ts": snapshot.read_ts().version() }))
    }
}

/// A value that is a decimal number.
pub(crate) fn amount(value: &[u8]) -> Result<i64, Fault> {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(|| Fault::other("no decimal number"))
}
