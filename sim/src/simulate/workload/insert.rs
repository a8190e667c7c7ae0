//! Keys are inserted that must be absent, deleted again, and inserted and deleted in one go.

use tikv_core::key::Key;
use tikv_core::rng::Rng;
use tikv_core::txn::Transaction;

use super::{Checked, Found, Script, Step, Task, Workload, hot_index, numbered_keys, written};

/// Keys in one transaction.
const MOST_KEYS: u64 = 3;

#[derive(Debug)]
pub(super) struct Insert {
    keys: Vec<Key>,
    inserts: u64,
}

#[derive(Debug, PartialEq)]
enum Write {
    Insert,
    /// Checks that the key is absent, and leaves nothing.
    InsertAndDelete,
    Delete,
}

#[derive(Debug)]
struct Writes {
    writes: Vec<(Key, Write)>,
    value: u64,
    /// Looks first, and inserts only what is absent.
    looks: bool,
}

impl Insert {
    pub(super) fn new(keys: u32) -> Self {
        Insert { keys: numbered_keys(keys), inserts: 0 }
    }
}

impl Workload for Insert {
    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn next(&mut self, rng: &mut Rng) -> Task {
        self.inserts += 1;
        let mut writes: Vec<(Key, Write)> = Vec::new();
        for _ in 0..=rng.below(MOST_KEYS) {
            let key = self.keys[hot_index(rng, self.keys.len())].clone();
            let write = match rng.below(6) {
                0..=2 => Write::Insert,
                3 => Write::InsertAndDelete,
                _ => Write::Delete,
            };
            if writes.iter().all(|(other, _)| *other != key) {
                writes.push((key, write));
            }
        }
        Task::Transaction(Box::new(Writes { writes, value: self.inserts, looks: rng.below(2) == 0 }))
    }
}

impl Script for Writes {
    fn step(&mut self, txn: &mut Transaction, found: Found) -> Checked<Step> {
        if std::mem::take(&mut self.looks) {
            return Ok(Step::Read(self.writes.iter().map(|(key, _)| key.clone()).collect()));
        }
        for (key, write) in &self.writes {
            let exists = found.contains_key(key);
            if *write == Write::Delete || exists {
                written(txn.delete(key))?;
                continue;
            }
            written(txn.insert(key, self.value.to_string()))?;
            if *write == Write::InsertAndDelete {
                written(txn.delete(key))?;
            }
        }
        Ok(Step::Commit)
    }
}
