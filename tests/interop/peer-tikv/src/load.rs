//! Raw calls from many callers at once, for throughput.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::channel::oneshot;
use serde_json::json;
use tikv::{Key, RawClient};

use crate::peer::Peer;
use crate::request::{Fault, Outcome, Request};

#[derive(Clone)]
struct Load {
    client: RawClient,
    keys: Arc<[Key]>,
    /// What is put; gets if there is nothing.
    put: Option<Bytes>,
    end: Instant,
}

/// What a caller has seen.
#[derive(Default)]
struct Seen {
    took_us: Vec<u64>,
    errors: BTreeMap<String, u64>,
}

impl Peer {
    /// Each caller is a task of the runtime.
    pub(crate) async fn raw_load(&self, request: &Request) -> Outcome {
        let load = Load {
            client: self.client.raw().with_timeout(request.timeout()),
            keys: request.keys()?.into(),
            put: match request.text("op") {
                "get" => None,
                "put" => Some(request.bytes("value")?),
                other => return Err(Fault::other(format!("no such op: {other}"))),
            },
            end: Instant::now() + Duration::from_millis(request.number("max_ms")),
        };
        if load.keys.is_empty() {
            return Err(Fault::other("keys are needed"));
        }
        let callers = request.number("callers") as usize;
        let tasks: Vec<_> = (0..callers)
            .map(|caller| {
                let (load, first) = (load.clone(), caller * load.keys.len() / callers);
                let (done, seen) = oneshot::channel();
                self.runtime.spawn(Box::pin(async move {
                    let _ = done.send(load.run(first).await);
                }));
                seen
            })
            .collect();
        let mut all = Seen::default();
        for task in tasks {
            let seen = task.await.map_err(|_| Fault::other("a caller was lost"))?;
            all.took_us.extend(seen.took_us);
            for (error, count) in seen.errors {
                *all.errors.entry(error).or_default() += count;
            }
        }
        all.took_us.sort_unstable();
        Ok(json!({
            "ops": all.took_us.len(),
            "p50_us": all.percentile(50),
            "p99_us": all.percentile(99),
            "errors": all.errors,
        }))
    }
}

impl Load {
    async fn run(self, first: usize) -> Seen {
        let mut seen = Seen::default();
        for key in self.keys.iter().cycle().skip(first) {
            let began = Instant::now();
            if began >= self.end {
                break;
            }
            let outcome = match &self.put {
                None => self.client.get(key.clone()).await.map(drop),
                Some(value) => self.client.put(key.clone(), value.clone()).await,
            };
            match outcome {
                Ok(()) => seen.took_us.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)),
                Err(error) => *seen.errors.entry(error.to_string()).or_default() += 1,
            }
        }
        seen
    }
}

impl Seen {
    fn percentile(&self, percent: usize) -> u64 {
        let last = self.took_us.len().saturating_sub(1);
        self.took_us.get(last * percent / 100).copied().unwrap_or_default()
    }
}
