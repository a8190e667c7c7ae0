//! The bank: many small transactions which conflict.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tikv_client::TransactionOptions;
use tokio::sync::Mutex;

use crate::Peer;
use crate::request::{Fault, Outcome, Request};
use crate::txn::{amount, commit};

#[derive(Default)]
struct Tally {
    committed: u64,
    conflicts: u64,
    undetermined: u64,
    errors: BTreeMap<String, u64>,
}

impl Peer {
    pub async fn bank(&self, request: &Request) -> Outcome {
        let keys = request.list("keys")?;
        if keys.len() < 2 {
            return Err(Fault::other("two accounts are needed at least"));
        }
        let deadline = Instant::now() + Duration::from_millis(request.number("max_ms"));
        let tally = Mutex::new(Tally::default());
        let workers = (0..request.number("workers")).map(|worker| {
            let dice = Dice(request.number("seed").wrapping_add(worker).wrapping_add(1));
            self.bank_worker(request, &keys, dice, deadline, &tally)
        });
        join_all(workers).await;
        let tally = tally.into_inner();
        Ok(json!({
            "committed": tally.committed,
            "conflicts": tally.conflicts,
            "undetermined": tally.undetermined,
            "errors": tally.errors,
        }))
    }

    async fn bank_worker(
        &self,
        request: &Request,
        keys: &[Vec<u8>],
        mut dice: Dice,
        end: Instant,
        tally: &Mutex<Tally>,
    ) {
        let mut done = 0;
        while done < request.number("transfers") && Instant::now() < end {
            let outcome = tokio::time::timeout(request.timeout(), self.transfer(keys, &mut dice)).await;
            // What is cut off by the time limit may be a commit.
            let outcome =
                outcome.unwrap_or_else(|_| Err(Fault { kind: "undetermined", message: "timed out".to_owned() }));
            let pause = {
                let mut tally = tally.lock().await;
                match outcome {
                    Ok(()) => {
                        tally.committed += 1;
                        done += 1;
                        0
                    }
                    Err(fault) if fault.kind == "undetermined" => {
                        tally.undetermined += 1;
                        done += 1;
                        0
                    }
                    Err(fault) if fault.kind == "conflict" => {
                        tally.conflicts += 1;
                        dice.below(20)
                    }
                    Err(fault) => {
                        *tally.errors.entry(fault.message).or_default() += 1;
                        100
                    }
                }
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn transfer(&self, keys: &[Vec<u8>], dice: &mut Dice) -> Result<(), Fault> {
        let count = keys.len() as u64;
        let from = dice.below(count);
        let to = (from + 1 + dice.below(count - 1)) % count;
        let (from, to) = (&keys[from as usize], &keys[to as usize]);
        let txn = Mutex::new(self.begin(TransactionOptions::new_optimistic()).await?);
        let mut txn = txn.lock().await;
        let mut balances = [0; 2];
        for (balance, key) in balances.iter_mut().zip([from, to]) {
            let value = txn.get(key.clone()).await?.ok_or_else(|| Fault::other("no such account"))?;
            *balance = amount(&value)?;
        }
        let moved = balances[0].min(1 + dice.below(10) as i64);
        txn.put(from.clone(), (balances[0] - moved).to_string()).await?;
        txn.put(to.clone(), (balances[1] + moved).to_string()).await?;
        commit(&mut txn).await.map(|_| ())
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
