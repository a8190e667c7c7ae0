//! Lists grow at their ends. Each element is appended once, so that it must never be there twice.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tikv_core::key::Key;
use tikv_core::rng::Rng;
use tikv_core::txn::Transaction;

use super::{Checked, Found, MicroOp, Script, Step, Task, Workload, hot_index, numbered_keys, written};

/// Lists in one transaction.
const MOST_LISTS: u64 = 4;

#[derive(Debug)]
pub(super) struct Append {
    lists: Vec<Key>,
    elements: u64,
}

#[derive(Debug)]
struct AppendTo {
    /// The lists, and whether they are appended to or only read.
    lists: BTreeMap<Key, bool>,
    element: u64,
    has_read: bool,
}

impl Append {
    pub(super) fn new(keys: u32) -> Self {
        Append { lists: numbered_keys(keys), elements: 0 }
    }
}

impl Workload for Append {
    fn keys(&self) -> &[Key] {
        &self.lists
    }

    fn next(&mut self, rng: &mut Rng) -> Task {
        self.elements += 1;
        let count = 1 + rng.below(MOST_LISTS);
        let lists =
            (0..count).map(|_| (self.lists[hot_index(rng, self.lists.len())].clone(), rng.below(2) == 0)).collect();
        Task::Transaction(Box::new(AppendTo { lists, element: self.elements, has_read: false }))
    }

    fn check(&self, state: &BTreeMap<Key, Bytes>) -> Checked<()> {
        state.values().try_for_each(|list| elements(list).map(drop))
    }
}

impl Script for AppendTo {
    fn step(&mut self, txn: &mut Transaction, found: Found) -> Checked<Step> {
        if !self.has_read {
            self.has_read = true;
            return Ok(Step::Read(self.lists.keys().cloned().collect()));
        }
        for (key, appends) in &self.lists {
            let list = found.get(key).cloned().unwrap_or_default();
            if elements(&list)?.contains(&self.element) {
                return Err(format!("element {} is in list {key:?} before it was appended", self.element));
            }
            if *appends {
                let longer = [&list[..], self.element.to_string().as_bytes(), b","].concat();
                written(txn.set(key.clone(), longer))?;
            }
        }
        Ok(Step::Commit)
    }

    fn micro_ops(&self) -> Vec<MicroOp> {
        let reads = self.lists.keys().map(|key| MicroOp::ReadList(key.clone()));
        let appended = self.lists.iter().filter(|(_, appends)| **appends);
        reads.chain(appended.map(|(key, _)| MicroOp::Append(key.clone(), self.element))).collect()
    }
}

fn elements(list: &Bytes) -> Checked<BTreeSet<u64>> {
    let text = std::str::from_utf8(list).map_err(|_| format!("{list:?} is no list"))?;
    let mut seen = BTreeSet::new();
    for element in text.split_terminator(',') {
        let number = element.parse().map_err(|_| format!("{element} is no element"))?;
        if !seen.insert(number) {
            return Err(format!("element {number} is twice in {text}"));
        }
    }
    Ok(seen)
}
