//! Raw keys are read, written, and compared and swapped. Every value is written once only, so that it tells who wrote it.

use bytes::Bytes;
use tikv_core::key::{Key, KeyRange};
use tikv_core::rng::Rng;

use super::{Task, Workload, hot_index, numbered_keys};

/// Keys in one batch.
const MOST_KEYS: u64 = 5;

#[derive(Debug)]
pub(super) struct Raw {
    keys: Vec<Key>,
    writes: u64,
}

/// A raw call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::simulate) enum RawTask {
    Get(Key),
    Put(Key, Bytes),
    Delete(Key),
    /// Writes the value if the key has the value that it was last seen with.
    Swap(Key, Bytes),
    BatchGet(Vec<Key>),
    BatchPut(Vec<(Key, Bytes)>),
    BatchDelete(Vec<Key>),
    Scan(KeyRange),
    DeleteRange(KeyRange),
}

impl Raw {
    pub(super) fn new(keys: u32) -> Self {
        Raw { keys: numbered_keys(keys), writes: 0 }
    }

    fn key(&self, rng: &mut Rng) -> Key {
        self.keys[hot_index(rng, self.keys.len())].clone()
    }

    fn several(&self, rng: &mut Rng) -> Vec<Key> {
        let mut keys: Vec<Key> = (0..=rng.below(MOST_KEYS)).map(|_| self.key(rng)).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    fn value(&mut self) -> Bytes {
        self.writes += 1;
        self.writes.to_string().into()
    }

    fn range(&self, rng: &mut Rng) -> KeyRange {
        let start = rng.below(self.keys.len() as u64) as usize;
        let end = start + rng.below((self.keys.len() - start) as u64 + 1) as usize;
        KeyRange::new(self.keys[start].clone(), self.keys.get(end).cloned().unwrap_or_else(|| Key::from("l")))
    }
}

impl Workload for Raw {
    fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn next(&mut self, rng: &mut Rng) -> Task {
        Task::Raw(match rng.below(16) {
            0..=3 => RawTask::Get(self.key(rng)),
            4..=6 => RawTask::Put(self.key(rng), self.value()),
            7..=10 => RawTask::Swap(self.key(rng), self.value()),
            11 => RawTask::Delete(self.key(rng)),
            12 => RawTask::BatchGet(self.several(rng)),
            13 => RawTask::BatchPut(self.several(rng).into_iter().map(|key| (key, self.value())).collect()),
            14 => RawTask::Scan(self.range(rng)),
            _ if rng.below(4) == 0 => RawTask::DeleteRange(self.range(rng)),
            _ => RawTask::BatchDelete(self.several(rng)),
        })
    }
}
