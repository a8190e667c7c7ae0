//! Many keys over many regions are written at once, and read at once.

use std::sync::Arc;

use tikv_core::key::{Key, KeyRange};
use tikv_core::rng::Rng;
use tikv_core::txn::Transaction;

use super::{Checked, Found, Script, Step, Task, Workload, numbered_keys, written};

#[derive(Debug)]
pub(super) struct Large {
    keys: Arc<[Key]>,
    writes: u64,
}

#[derive(Debug)]
enum Access {
    Write { keys: Arc<[Key]>, from: usize, to: usize, every: usize, value: u64 },
    Scan { range: KeyRange, has_read: bool },
}

impl Large {
    pub(super) fn new(keys: u32) -> Self {
        Large { keys: numbered_keys(keys).into(), writes: 0 }
    }
}

impl Workload for Large {
    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn next(&mut self, rng: &mut Rng) -> Task {
        self.writes += 1;
        let len = self.keys.len();
        let from = rng.below(len as u64) as usize;
        let to = from + 1 + rng.below((len - from) as u64) as usize;
        Task::Transaction(Box::new(if rng.below(3) == 0 {
            let end = self.keys.get(to).cloned().unwrap_or_default();
            Access::Scan { range: KeyRange::new(self.keys[from].clone(), end), has_read: false }
        } else {
            let every = 1 + rng.below(3) as usize;
            Access::Write { keys: Arc::clone(&self.keys), from, to, every, value: self.writes }
        }))
    }
}

impl Script for Access {
    fn step(&mut self, txn: &mut Transaction, _: Found) -> Checked<Step> {
        match self {
            Access::Write { keys, from, to, every, value } => {
                for key in keys[*from..*to].iter().step_by(*every) {
                    // Deletions too, so that keys come and go.
                    let deletes = *value % 7 == 0;
                    written(match deletes {
                        true => txn.delete(key),
                        false => txn.set(key.clone(), value.to_string()),
                    })?;
                }
                Ok(Step::Commit)
            }
            Access::Scan { has_read: true, .. } => Ok(Step::Commit),
            Access::Scan { range, has_read } => {
                *has_read = true;
                Ok(Step::Scan(range.clone()))
            }
        }
    }
}
