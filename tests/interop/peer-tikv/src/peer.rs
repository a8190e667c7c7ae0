//! One connected client and what is open on it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};
use serde_json::{Value, json};
use tikv::{Client, Pair, Runtime, Transaction};

use crate::request::{Fault, Outcome, Request, hex};

/// What all commands share.
pub(crate) struct Peer {
    pub(crate) client: Client,
    pub(crate) runtime: Arc<dyn Runtime>,
    name: &'static str,
    open: Mutex<BTreeMap<u64, Transaction>>,
    last_txn: AtomicU64,
}

/// What a call may take beyond its time limit, which the client itself keeps, before it is cut off.
const GRACE: Duration = Duration::from_secs(2);

impl Peer {
    pub(crate) fn new(client: Client, runtime: Arc<dyn Runtime>, name: &'static str) -> Self {
        Peer { client, runtime, name, open: Mutex::default(), last_txn: AtomicU64::new(0) }
    }

    pub(crate) async fn run_in_time(&self, request: &Request) -> Outcome {
        // These say themselves how long they take.
        match request.cmd.as_str() {
            "bank" => return self.bank(request).await,
            "raw_load" => return self.raw_load(request).await,
            _ => {}
        }
        match self.within(request.timeout() + GRACE, self.run(request)).await {
            Some(outcome) => outcome,
            // A commit that is cut off here may have been executed.
            None if request.cmd == "txn_commit" => Err(Fault { kind: "undetermined", message: "timed out".to_owned() }),
            None => Err(Fault { kind: "timeout", message: "timed out".to_owned() }),
        }
    }

    /// `None` if `future` took longer than `limit`.
    async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        match select(pin!(future), self.runtime.sleep(limit)).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }

    async fn run(&self, request: &Request) -> Outcome {
        match request.cmd.as_str() {
            "hello" => Ok(json!({ "peer": self.name, "version": env!("CARGO_PKG_VERSION") })),
            "tso" => Ok(json!({ "ts": self.client.current_timestamp().await?.version() })),
            "die" => self.die(request).await,
            "raw_put" => self.raw_put(request).await,
            "raw_get" => self.raw_get(request).await,
            "raw_delete" => self.raw_delete(request).await,
            "raw_batch_put" => self.raw_batch_put(request).await,
            "raw_batch_get" => self.raw_batch_get(request).await,
            "raw_batch_delete" => self.raw_batch_delete(request).await,
            "raw_scan" => self.raw_scan(request).await,
            "raw_reverse_scan" => self.raw_reverse_scan(request).await,
            "raw_delete_range" => self.raw_delete_range(request).await,
            "raw_cas" => self.raw_cas(request).await,
            "txn_begin" => self.txn_begin(request).await,
            "txn_get" => self.txn_get(request).await,
            "txn_batch_get" => self.txn_batch_get(request).await,
            "txn_scan" => self.txn_scan(request).await,
            "txn_reverse_scan" => self.txn_reverse_scan(request).await,
            "txn_put" => self.txn_put(request),
            "txn_delete" => self.txn_delete(request),
            "txn_lock" => self.txn_lock(request).await,
            "txn_commit" => self.txn_commit(request).await,
            "txn_rollback" => self.txn_rollback(request),
            "snapshot_get" => self.snapshot_get(request).await,
            "snapshot_sum" => self.snapshot_sum(request).await,
            other => Err(Fault::unsupported(format!("no such call: {other}"))),
        }
    }

    /// Keeps a transaction; returns its handle.
    pub(crate) fn keep(&self, txn: Transaction) -> u64 {
        let handle = self.last_txn.fetch_add(1, Ordering::Relaxed) + 1;
        self.table().insert(handle, txn);
        handle
    }

    /// The transaction that the request names.
    pub(crate) fn opened(&self, request: &Request) -> Result<Transaction, Fault> {
        self.table().get(&request.number("txn")).cloned().ok_or_else(no_such_txn)
    }

    /// The transaction that the request names, whose handle is gone from now on.
    pub(crate) fn finishing(&self, request: &Request) -> Result<Transaction, Fault> {
        self.table().remove(&request.number("txn")).ok_or_else(no_such_txn)
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<u64, Transaction>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_such_txn() -> Fault {
    Fault::other("no such open transaction")
}

/// Pairs as they go over the wire.
pub(crate) fn pairs(found: impl IntoIterator<Item = Pair>) -> Value {
    let all: Vec<_> = found.into_iter().map(|pair| json!([hex(pair.key.as_slice()), hex(&pair.value)])).collect();
    json!({ "pairs": all })
}
