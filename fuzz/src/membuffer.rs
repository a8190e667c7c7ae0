//! The writes of a transaction against a model that copies everything whenever it might have to go back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tikv_core::key::{Direction, Key, KeyRange};
use tikv_core::membuffer::{
    Checkpoint, FlagOp, Limits, MemBuffer, Stage, StageError, Stored, Value, ValueRef, WriteError,
};

use crate::input::Input;

/// Writes, stages, checkpoints, limits and reads in any order: the buffer and the model agree after every step.
pub fn membuffer(data: &[u8]) {
    let mut input = Input::new(data);
    let mut pair = Pair::default();
    while !input.is_empty() {
        pair.step(&mut input);
        pair.compare(&mut input);
    }
}

type Values = BTreeMap<Key, Value>;

#[derive(Default)]
struct Pair {
    buffer: MemBuffer,
    values: Values,
    /// Keys with a flag that outlives everything but [`MemBuffer::clear`].
    locked: BTreeSet<Key>,
    stages: Vec<(Stage, Moment)>,
    checkpoints: Vec<(Checkpoint, Moment)>,
    clock: u64,
}

/// What there was to go back to.
#[derive(Clone)]
struct Moment {
    at: u64,
    values: Values,
}

impl Pair {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(16) {
            0..=4 => {
                let (key, value) = (key(input), input.bytes(5));
                let result = self.buffer.set(&key, &value);
                self.wrote(key, Value::Put(value), result);
            }
            5 | 6 => {
                let key = key(input);
                let result = self.buffer.delete(&key);
                self.wrote(key, Value::Tombstone, result);
            }
            7 => {
                let key = key(input);
                assert_eq!(self.buffer.update_flags(&key, &[FlagOp::SetKeyLocked]), Ok(()));
                self.locked.insert(key);
            }
            8 => {
                let stage = self.buffer.stage();
                let moment = self.moment();
                self.stages.push((stage, moment));
                assert_eq!(stage.depth(), self.stages.len());
            }
            9 => match self.stages.pop() {
                Some((stage, _)) => {
                    assert_eq!(self.buffer.release(stage), Ok(()));
                    assert_eq!(self.buffer.release(stage), Err(StageError::NotOpen));
                }
                None => assert!(!self.buffer.is_staging()),
            },
            10 => self.clean_up(input.byte()),
            11 => {
                let checkpoint = self.buffer.checkpoint();
                let moment = self.moment();
                self.checkpoints.push((checkpoint, moment));
            }
            12 | 13 => self.revert(input.byte()),
            14 if input.byte() > 200 => {
                self.buffer.clear();
                (self.values, self.locked) = Default::default();
                self.stages.clear();
                self.checkpoints.iter_mut().for_each(|(_, moment)| moment.values.clear());
            }
            _ => {
                let entry_bytes = usize::from(input.byte()) % 12;
                let total_bytes = usize::from(input.byte());
                self.buffer.set_limits(Limits { entry_bytes, total_bytes });
            }
        }
    }

    fn wrote(&mut self, key: Key, value: Value, result: Result<(), WriteError>) {
        let len = |value: &Value| value.as_put().map_or(0, Bytes::len);
        let is_new = !self.values.contains_key(&key) && !self.locked.contains(&key);
        let replaced = self.values.get(&key).map_or(0, len);
        let entry = key.len() + len(&value);
        let size = self.size() - replaced + len(&value) + if is_new { key.len() } else { 0 };
        let limits = self.buffer.limits();
        let expected = if value == Value::Put(Bytes::new()) {
            Err(WriteError::EmptyValue)
        } else if entry > limits.entry_bytes {
            Err(WriteError::EntryTooLarge { size: entry, limit: limits.entry_bytes })
        } else if size > limits.total_bytes && size > self.size() {
            Err(WriteError::TxnTooLarge { size, limit: limits.total_bytes })
        } else {
            Ok(())
        };
        assert_eq!(result, expected);
        if result.is_ok() {
            self.values.insert(key, value);
        }
    }

    fn moment(&mut self) -> Moment {
        self.clock += 1;
        Moment { at: self.clock, values: self.values.clone() }
    }

    /// Any stage, though only the innermost can be.
    fn clean_up(&mut self, which: u8) {
        let Some(index) = usize::from(which).checked_rem(self.stages.len()) else { return };
        let (stage, moment) = self.stages[index].clone();
        if index + 1 < self.stages.len() {
            let (depth, open) = (index + 1, self.stages.len());
            assert_eq!(self.buffer.cleanup(stage), Err(StageError::NotInnermost { depth, open }));
            return;
        }
        assert_eq!(self.buffer.cleanup(stage), Ok(()));
        self.stages.pop();
        self.go_back(&moment);
    }

    fn revert(&mut self, which: u8) {
        let Some(index) = usize::from(which).checked_rem(self.checkpoints.len()) else { return };
        let (checkpoint, moment) = self.checkpoints[index].clone();
        let is_reachable = self.stages.last().is_none_or(|(_, opened)| opened.at < moment.at);
        assert_eq!(self.buffer.revert(checkpoint), if is_reachable { Ok(()) } else { Err(StageError::StageOpen) });
        if is_reachable {
            self.go_back(&moment);
        }
    }

    /// What a later checkpoint would bring back is gone for good.
    fn go_back(&mut self, moment: &Moment) {
        self.values.clone_from(&moment.values);
        for (_, later) in self.checkpoints.iter_mut().filter(|(_, later)| later.at > moment.at) {
            later.values.clone_from(&moment.values);
        }
    }

    fn size(&self) -> usize {
        let known: BTreeSet<&Key> = self.values.keys().chain(&self.locked).collect();
        let values = self.values.values().filter_map(Value::as_put).map(Bytes::len);
        known.into_iter().map(Key::len).sum::<usize>() + values.sum::<usize>()
    }

    fn compare(&self, input: &mut Input<'_>) {
        let buffer = &self.buffer;
        assert_eq!(buffer.size(), self.size());
        let known = self.locked.iter().filter(|key| !self.values.contains_key(*key)).count() + self.values.len();
        assert_eq!((buffer.len(), buffer.is_staging()), (known, !self.stages.is_empty()));
        assert!(buffer.iter(&KeyRange::ALL).map(owned).eq(self.values.clone()));
        // Reads of a part, against the stored pairs below, from either end.
        let (start, end) = (key(input), key(input));
        let range = KeyRange { start, end };
        let inside = |key: &Key| range.contains(key.as_slice());
        let part = |values: &Values| -> Vec<_> { values.clone().into_iter().filter(|(key, _)| inside(key)).collect() };
        let expected = part(&self.values);
        assert!(buffer.iter(&range).map(owned).eq(expected.iter().cloned()));
        assert!(buffer.iter(&range).rev().map(owned).eq(expected.iter().rev().cloned()));
        let before = self.stages.first().map_or(&self.values, |(_, moment)| &moment.values);
        assert!(buffer.snapshot().iter(&range).map(owned).eq(part(before)));

        let stored = || (0..8_u8).map(|id| (name(id), Bytes::from_static(b"stored"))).filter(|(key, _)| inside(key));
        let mut union: BTreeMap<Key, Bytes> = stored().collect();
        for (key, value) in expected {
            match value {
                Value::Put(value) => union.insert(key, value),
                Value::Tombstone => union.remove(&key),
            };
        }
        let union: Vec<_> = union.into_iter().collect();
        assert_eq!(buffer.union(&range, Direction::Forward, stored()).collect::<Vec<_>>(), union);
        let reversed: Vec<_> = stored().collect::<Vec<_>>().into_iter().rev().collect();
        let mut read: Vec<_> = buffer.union(&range, Direction::Reverse, reversed.into_iter()).collect();
        read.reverse();
        assert_eq!(read, union);
    }
}

fn owned((key, value): (Stored<'_>, ValueRef<'_>)) -> (Key, Value) {
    (key.to_key(), value.to_value())
}

fn key(input: &mut Input<'_>) -> Key {
    name(input.below(9))
}

/// Keys of several lengths; the empty one and prefixes of others among them.
fn name(id: u8) -> Key {
    Key::from(["", "a", "aa", "ab", "b", "ba", "c", "ca", "\u{7f}"][usize::from(id)])
}
