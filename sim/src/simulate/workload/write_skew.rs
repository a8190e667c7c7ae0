//! Of two that are on duty one may leave, but never both. Each transaction writes only one of the two keys that it has read;
//! locking the other one is what keeps the rule.

use std::collections::BTreeMap;

use bytes::Bytes;
use tikv_core::key::Key;
use tikv_core::rng::Rng;
use tikv_core::txn::Transaction;

use super::{Checked, Found, Script, Step, Task, Workload, hot_index, numbered_keys, written};

const ON: &str = "on";
const OFF: &str = "off";

#[derive(Debug)]
pub(super) struct WriteSkew {
    /// Neighbours, the first with the second and so on, are a pair.
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Leave {
    leaving: Key,
    staying: [Key; 1],
    has_read: bool,
}

impl WriteSkew {
    pub(super) fn new(keys: u32) -> Self {
        WriteSkew { keys: numbered_keys(keys & !1) }
    }
}

impl Workload for WriteSkew {
    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn initial(&self) -> Vec<(Key, Bytes)> {
        self.keys.iter().map(|key| (key.clone(), ON.into())).collect()
    }

    fn next(&mut self, rng: &mut Rng) -> Task {
        let pair = hot_index(rng, self.keys.len() / 2);
        let leaving = rng.below(2) as usize;
        let [leaving, staying] = [leaving, 1 - leaving].map(|one| self.keys[2 * pair + one].clone());
        Task::Transaction(Box::new(Leave { leaving, staying: [staying], has_read: false }))
    }

    fn check(&self, state: &BTreeMap<Key, Bytes>) -> Checked<()> {
        self.keys.chunks_exact(2).try_for_each(|pair| check_pair(state, &pair[0], &pair[1]).map(drop))
    }
}

impl Script for Leave {
    fn reads_only(&self) -> &[Key] {
        &self.staying
    }

    fn step(&mut self, txn: &mut Transaction, found: Found) -> Checked<Step> {
        if !self.has_read {
            self.has_read = true;
            return Ok(Step::Read(vec![self.leaving.clone(), self.staying[0].clone()]));
        }
        let (leaving, staying) = check_pair(&found, &self.leaving, &self.staying[0])?;
        match (leaving, staying) {
            // Who is off comes back; nothing can go wrong by that.
            (false, _) => written(txn.set(self.leaving.clone(), ON))?,
            (true, false) => return Ok(Step::Abandon),
            (true, true) => {
                written(txn.set(self.leaving.clone(), OFF))?;
                if !txn.is_pessimistic() {
                    written(txn.lock_keys([self.staying[0].clone()]))?;
                }
            }
        }
        Ok(Step::Commit)
    }
}

fn check_pair(state: &BTreeMap<Key, Bytes>, a: &Key, b: &Key) -> Checked<(bool, bool)> {
    let is_on = |key| state.get(key).is_some_and(|value| value == ON);
    match (is_on(a), is_on(b)) {
        (false, false) => Err(format!("neither {a:?} nor {b:?} is on duty")),
        pair => Ok(pair),
    }
}
