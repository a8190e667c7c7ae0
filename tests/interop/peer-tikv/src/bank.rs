//! The bank: many small transactions which conflict.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::oneshot;
use serde_json::json;
use tikv::{Client, Key, Runtime, Time, TransactionOptions};

use crate::peer::Peer;
use crate::request::{Fault, Outcome, Request};
use crate::txn::amount;

#[derive(Default)]
struct Tally {
    committed: u64,
    conflicts: u64,
    undetermined: u64,
    errors: BTreeMap<String, u64>,
}

impl Peer {
    /// Each worker is a task of the runtime; limits of time are the client's own.
    pub(crate) async fn bank(&self, request: &Request) -> Outcome {
        let keys: Arc<[Key]> = request.keys()?.into();
        if keys.len() < 2 {
            return Err(Fault::other("two accounts are needed at least"));
        }
        let end = self.runtime.now() + Duration::from_millis(request.number("max_ms"));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let workers: Vec<_> = (0..request.number("workers"))
            .map(|number| {
                let worker = Worker {
                    client: self.client.clone(),
                    runtime: Arc::clone(&self.runtime),
                    keys: Arc::clone(&keys),
                    transfers: request.number("transfers"),
                    timeout: request.timeout(),
                    end,
                    dice: Dice(request.number("seed").wrapping_add(number).wrapping_add(1)),
                    tally: Arc::clone(&tally),
                };
                let (done, wait) = oneshot::channel();
                self.runtime.spawn(Box::pin(async move {
                    worker.run().await;
                    let _ = done.send(());
                }));
                wait
            })
            .collect();
        for worker in workers {
            worker.await.map_err(|_| Fault::other("a worker of the bank was lost"))?;
        }
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(json!({
            "committed": tally.committed,
            "conflicts": tally.conflicts,
            "undetermined": tally.undetermined,
            "errors": tally.errors,
        }))
    }
}

struct Worker {
    client: Client,
    runtime: Arc<dyn Runtime>,
    keys: Arc<[Key]>,
    transfers: u64,
    timeout: Duration,
    end: Time,
    dice: Dice,
    tally: Arc<Mutex<Tally>>,
}

impl Worker {
    async fn run(mut self) {
        let mut done = 0;
        while done < self.transfers && self.runtime.now() < self.end {
            let outcome = self.transfer().await;
            let (finished, pause) = self.count(outcome);
            done += u64::from(finished);
            if !pause.is_zero() {
                self.runtime.sleep(pause).await;
            }
        }
    }

    /// Whether the transfer is over, and how long to wait before the next attempt.
    fn count(&mut self, outcome: Result<(), Fault>) -> (bool, Duration) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(fault) = outcome else {
            tally.committed += 1;
            return (true, Duration::ZERO);
        };
        match fault.kind {
            "undetermined" => {
                tally.undetermined += 1;
                (true, Duration::ZERO)
            }
            "conflict" => {
                tally.conflicts += 1;
                (false, Duration::from_millis(self.dice.below(20)))
            }
            _ => {
                *tally.errors.entry(fault.message).or_default() += 1;
                (false, Duration::from_millis(100))
            }
        }
    }

    async fn transfer(&mut self) -> Result<(), Fault> {
        let count = self.keys.len() as u64;
        let from = self.dice.below(count);
        let to = (from + 1 + self.dice.below(count - 1)) % count;
        let (from, to) = (&self.keys[from as usize], &self.keys[to as usize]);
        let txn = self.client.begin_with(TransactionOptions::default().timeout(self.timeout)).await?;
        let mut balances = [0; 2];
        for (balance, key) in balances.iter_mut().zip([from, to]) {
            let value = txn.get(key.clone()).await?.ok_or_else(|| Fault::other("no such account"))?;
            *balance = amount(&value)?;
        }
        let moved = balances[0].min(1 + self.dice.below(10) as i64);
        txn.put(from, (balances[0] - moved).to_string())?;
        txn.put(to, (balances[1] + moved).to_string())?;
        txn.commit().await?;
        Ok(())
    }
}

/// A small seeded generator (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
