//! Raw calls from many callers at once, for throughput.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tikv_client::RawClient;

use crate::Peer;
use crate::request::{Fault, Outcome, Request};

#[derive(Clone)]
struct Load {
    client: RawClient,
    keys: Arc<Vec<Vec<u8>>>,
    put: Option<Vec<u8>>,
    deadline: Instant,
}

impl Peer {
    pub async fn raw_load(&self, request: &Request) -> Outcome {
        let keys = request.list("keys")?;
        if keys.is_empty() {
            return Err(Fault::other("keys are needed"));
        }
        let load = Load {
            client: self.raw.clone(),
            keys: Arc::new(keys),
            put: match request.text("op") {
                "get" => None,
                "put" => Some(request.bytes("value")?),
                other => return Err(Fault::other(format!("no such op: {other}"))),
            },
            deadline: Instant::now() + Duration::from_millis(request.number("max_ms")),
        };
        let callers = request.number("callers") as usize;
        let tasks: Vec<_> =
            (0..callers).map(|caller| tokio::spawn(load.clone().run(caller * load.keys.len() / callers))).collect();
        let (mut took, mut errors) = (Vec::new(), BTreeMap::<String, u64>::new());
        for task in tasks {
            let (own, failed) = task.await.map_err(Fault::other)?;
            took.extend(own);
            for error in failed {
                *errors.entry(error).or_default() += 1;
            }
        }
        took.sort_unstable();
        let percentile = |percent: usize| took.get(took.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0);
        Ok(json!({ "ops": took.len(), "p50_us": percentile(50), "p99_us": percentile(99), "errors": errors }))
    }
}

impl Load {
    /// Microseconds of each call that succeeded, and the texts of the others' errors.
    async fn run(self, mut at: usize) -> (Vec<u64>, Vec<String>) {
        let (mut took, mut errors) = (Vec::new(), Vec::new());
        loop {
            let began = Instant::now();
            if began >= self.deadline {
                return (took, errors);
            }
            let key = self.keys[at % self.keys.len()].clone();
            at += 1;
            let outcome = match &self.put {
                None => self.client.get(key).await.map(|_| ()),
                Some(value) => self.client.put(key, value.clone()).await,
            };
            match outcome {
                Ok(()) => took.push(began.elapsed().as_micros() as u64),
                Err(error) => errors.push(error.to_string()),
            }
        }
    }
}
