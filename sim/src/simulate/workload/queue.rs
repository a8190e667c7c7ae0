//! Work is taken from queues, each piece once.
//!
//! An item is open or done; its value says so, and how often it was done: 0 is open, 1 done, 2 open again. Workers lock some
//! items, in whatever order, so that they may wait for each other in a circle, and a ledger; they do what is open and note that
//! in the ledger, and open what is done. So the ledgers together know how often anything was done.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tikv_core::error::Error;
use tikv_core::key::{Key, KeyRange};
use tikv_core::rng::Rng;
use tikv_core::txn::{LockOptions, Transaction};

use super::locking::{is_worth_another_try, lock_options};
use super::{Checked, Found, Script, Step, Task, Workload, hot_index, number, numbered_keys, value_of, written};

const LEDGERS: usize = 2;
/// One in so many transactions looks at everything.
const AUDIT_EVERY: u64 = 16;
/// One in so many transactions is given up with all that it has locked.
const GIVEN_UP: u64 = 16;
/// One in so many transactions is optimistic.
const OPTIMISTIC: u64 = 8;
/// How often a call is made again.
const MOST_RETRIES: u32 = 3;

#[derive(Debug)]
pub(super) struct Queue {
    /// The last ones are the ledgers.
    keys: Arc<[Key]>,
}

impl Queue {
    pub(super) fn new(items: u32) -> Self {
        Queue { keys: numbered_keys(items + LEDGERS as u32).into() }
    }

    fn items(&self) -> &[Key] {
        &self.keys[..self.keys.len() - LEDGERS]
    }
}

impl Workload for Queue {
    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn initial(&self) -> Vec<(Key, Bytes)> {
        self.keys.iter().map(|key| (key.clone(), value_of(0))).collect()
    }

    fn next(&mut self, rng: &mut Rng) -> Task {
        if rng.below(AUDIT_EVERY) == 0 {
            return Task::Transaction(Box::new(Audit { keys: Arc::clone(&self.keys), has_read: false }));
        }
        let mut keys = Vec::new();
        for _ in 0..1 + rng.below(3) {
            let item = self.items()[hot_index(rng, self.items().len())].clone();
            if !keys.contains(&item) {
                keys.push(item);
            }
        }
        let ledger = self.keys[self.items().len() + rng.below(LEDGERS as u64) as usize].clone();
        let at = rng.below(keys.len() as u64 + 1) as usize;
        keys.insert(at, ledger.clone());
        let is_optimistic = rng.below(OPTIMISTIC) == 0;
        // All at once, or one after the other.
        let size = if is_optimistic || rng.below(3) == 0 { keys.len() } else { 1 };
        Task::Transaction(Box::new(Work {
            calls: keys.chunks(size).map(<[Key]>::to_vec).rev().collect(),
            options: (!is_optimistic).then(|| lock_options(rng)),
            gives_up: rng.below(GIVEN_UP) == 0,
            ledger,
            retries: 0,
            asked: Vec::new(),
            seen: Found::new(),
        }))
    }

    fn check(&self, state: &BTreeMap<Key, Bytes>) -> Checked<()> {
        check_ledgers(&self.keys, state)
    }
}

fn check_ledgers(keys: &[Key], state: &BTreeMap<Key, Bytes>) -> Checked<()> {
    let (items, ledgers) = keys.split_at(keys.len() - LEDGERS);
    let sum = |keys: &[Key], count: fn(i64) -> i64| -> Checked<i64> {
        keys.iter().map(|key| number(state.get(key)).map(count)).sum()
    };
    let (done, noted) = (sum(items, |value| (value + 1) / 2)?, sum(ledgers, |value| value)?);
    if done == noted { Ok(()) } else { Err(format!("{done} pieces of work were done, and {noted} are noted")) }
}

#[derive(Debug)]
struct Work {
    /// Keys that are locked together, the last ones first.
    calls: Vec<Vec<Key>>,
    /// `None` if it is optimistic.
    options: Option<LockOptions>,
    gives_up: bool,
    ledger: Key,
    retries: u32,
    /// The keys of the call that is under way.
    asked: Vec<Key>,
    seen: Found,
}

impl Script for Work {
    fn is_pessimistic(&self) -> bool {
        self.options.is_some()
    }

    fn failed_to_lock(&mut self, error: &Error) -> Option<Step> {
        self.retries += 1;
        let options = self.options.filter(|_| is_worth_another_try(error) && self.retries <= MOST_RETRIES)?;
        Some(Step::Lock(self.asked.clone(), options))
    }

    fn step(&mut self, txn: &mut Transaction, found: Found) -> Checked<Step> {
        self.seen.extend(found);
        if let Some(keys) = self.calls.pop() {
            self.asked = keys.clone();
            return Ok(match self.options {
                Some(options) => Step::Lock(keys, options),
                None => Step::Read(keys),
            });
        }
        if self.gives_up {
            return Ok(Step::Abandon);
        }
        let mut noted = number(self.seen.get(&self.ledger))?;
        for (key, value) in self.seen.iter().filter(|(key, _)| **key != self.ledger) {
            let value = number(Some(value))?;
            noted += (value + 1) % 2;
            written(txn.set(key.clone(), value_of(value + 1)))?;
        }
        written(txn.set(self.ledger.clone(), value_of(noted)))?;
        Ok(Step::Commit)
    }
}

#[derive(Debug)]
struct Audit {
    keys: Arc<[Key]>,
    has_read: bool,
}

impl Script for Audit {
    fn step(&mut self, _: &mut Transaction, found: Found) -> Checked<Step> {
        if !std::mem::replace(&mut self.has_read, true) {
            return Ok(Step::Scan(KeyRange::ALL));
        }
        check_ledgers(&self.keys, &found)?;
        Ok(Step::Commit)
    }
}
