//! Interop peer on the `tikv-client` crate: does what the JSON lines on stdin say (see `../PROTOCOL.md`).

mod bank;
mod die;
mod load;
mod raw;
mod request;
mod txn;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tikv_client::{RawClient, Transaction, TransactionClient};
use tokio::io::{AsyncBufReadExt, BufReader};

use request::{Fault, Outcome, Request};

/// What all commands share.
pub struct Peer {
    raw: RawClient,
    atomic: RawClient,
    txn: TransactionClient,
    open: Mutex<BTreeMap<u64, Arc<tokio::sync::Mutex<Transaction>>>>,
    last_txn: AtomicU64,
}

#[tokio::main]
async fn main() {
    let peer = match connect().await {
        Ok(peer) => Arc::new(peer),
        Err(error) => {
            eprintln!("peer: {error}");
            std::process::exit(1);
        }
    };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Some(request) = Request::parse(&line) else {
            answer(0, Err(Fault::other("that line is no request")));
            continue;
        };
        if request.cmd == "quit" {
            answer(request.id, Ok(json!({})));
            break;
        }
        let peer = peer.clone();
        tokio::spawn(async move { answer(request.id, peer.run_in_time(&request).await) });
    }
    // Not by returning: unfinished transactions would be rolled back, or waited for.
    std::process::exit(0);
}

async fn connect() -> Result<Peer, Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let pd = match (args.next().as_deref(), args.next()) {
        (Some("--pd"), Some(pd)) => pd,
        _ => return Err("usage: peer-tikv-client --pd ADDR".into()),
    };
    let raw = RawClient::new(vec![pd.clone()]).await?;
    Ok(Peer {
        atomic: raw.with_atomic_for_cas(),
        raw,
        txn: TransactionClient::new(vec![pd]).await?,
        open: Mutex::default(),
        last_txn: AtomicU64::new(0),
    })
}

/// Writes one answer line. `println` locks stdout for the whole line.
pub fn answer(id: u64, outcome: Outcome) {
    let mut line = match outcome {
        Ok(fields) => fields,
        Err(fault) => json!({ "error": { "kind": fault.kind, "message": fault.message } }),
    };
    line["ok"] = json!(line.get("error").is_none());
    line["id"] = json!(id);
    println!("{line}");
}

impl Peer {
    async fn run_in_time(&self, request: &Request) -> Outcome {
        match request.cmd.as_str() {
            "bank" => return self.bank(request).await,
            "raw_load" => return self.raw_load(request).await,
            _ => {}
        }
        match tokio::time::timeout(request.timeout(), self.run(request)).await {
            Ok(outcome) => outcome,
            // A commit that is cut off here may have been executed.
            Err(_) if request.cmd == "txn_commit" => {
                Err(Fault { kind: "undetermined", message: "timed out".to_owned() })
            }
            Err(_) => Err(Fault { kind: "timeout", message: "timed out".to_owned() }),
        }
    }

    async fn run(&self, request: &Request) -> Outcome {
        match request.cmd.as_str() {
            "hello" => Ok(json!({ "peer": "tikv-client", "version": "0.4.0" })),
            "tso" => Ok(json!({ "ts": self.now().await? })),
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
            "txn_put" => self.txn_put(request).await,
            "txn_delete" => self.txn_delete(request).await,
            "txn_lock" => self.txn_lock(request).await,
            "txn_commit" => self.txn_commit(request).await,
            "txn_rollback" => self.txn_rollback(request).await,
            "snapshot_get" => self.snapshot_get(request).await,
            "snapshot_sum" => self.snapshot_sum(request).await,
            other => Err(Fault::unsupported(format!("tikv-client has no {other}"))),
        }
    }

    fn next_handle(&self) -> u64 {
        self.last_txn.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// How long one command may take when the request does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Pairs as they go over the wire.
pub fn pairs(found: impl IntoIterator<Item = tikv_client::KvPair>) -> Value {
    let all: Vec<Value> = found
        .into_iter()
        .map(|pair| json!([hex::encode(Vec::<u8>::from(pair.key().clone())), hex::encode(pair.value())]))
        .collect();
    json!({ "pairs": all })
}
