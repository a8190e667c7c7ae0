//! Single keys are read and written: blindly, after a look, or both.

use tikv_core::key::Key;
use tikv_core::rng::Rng;
use tikv_core::txn::Transaction;

use super::{Checked, Found, MicroOp, Script, Step, Task, Workload, hot_index, numbered_keys, written};

#[derive(Debug)]
pub(super) struct Register {
    keys: Vec<Key>,
    writes: u64,
}

#[derive(Debug)]
struct Access {
    key: Key,
    reads: bool,
    write: Write,
}

#[derive(Debug)]
enum Write {
    None,
    Value(u64),
    Delete(u64),
}

impl Register {
    pub(super) fn new(keys: u32) -> Self {
        Register { keys: numbered_keys(keys), writes: 0 }
    }
}

impl Workload for Register {
    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn next(&mut self, rng: &mut Rng) -> Task {
        let key = self.keys[hot_index(rng, self.keys.len())].clone();
        self.writes += 1;
        let write = match rng.below(8) {
            0 => return Task::ReadNewest(key),
            1..=2 => Write::None,
            3 => Write::Delete(self.writes),
            _ => Write::Value(self.writes),
        };
        let reads = matches!(write, Write::None) || rng.below(2) == 0;
        Task::Transaction(Box::new(Access { key, reads, write }))
    }
}

impl Script for Access {
    fn step(&mut self, txn: &mut Transaction, _: Found) -> Checked<Step> {
        if std::mem::take(&mut self.reads) {
            return Ok(Step::Read(vec![self.key.clone()]));
        }
        match self.write {
            Write::None => {}
            Write::Value(value) => written(txn.set(self.key.clone(), value.to_string()))?,
            Write::Delete(_) => written(txn.delete(&self.key))?,
        }
        Ok(Step::Commit)
    }
    fn micro_ops(&self) -> Vec<MicroOp> {
        let key = || self.key.clone();
        let read = self.reads.then(|| MicroOp::ReadRegister(key()));
        let write = match self.write {
            Write::None => None,
            Write::Value(value) => Some(MicroOp::Write(key(), value)),
            Write::Delete(number) => Some(MicroOp::Delete(key(), number)),
        };
        read.into_iter().chain(write).collect()
    }
}
