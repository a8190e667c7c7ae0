use bytes::Bytes;

use super::*;
use crate::key::{Direction, KeyRange};

mod flags;
mod model;
mod reads;
mod snapshots;
mod stages;
mod union;

/// The key of a number, in the order of numbers.
fn key(number: u32) -> Key {
    Key::from(&number.to_be_bytes())
}

fn put(bytes: &[u8]) -> Value {
    Value::Put(Bytes::copy_from_slice(bytes))
}

fn number(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// Sets each key of `numbers` to its number plus `add`.
fn fill(buffer: &mut MemBuffer, numbers: std::ops::Range<u32>, add: u32) {
    for i in numbers {
        buffer.set(key(i), number(i + add)).unwrap();
    }
}

/// As [`fill`], in a stage of its own.
fn fill_stage(buffer: &mut MemBuffer, numbers: std::ops::Range<u32>, add: u32) -> Stage {
    let stage = buffer.stage();
    fill(buffer, numbers, add);
    stage
}

/// Sets each key to itself.
fn set_all(buffer: &mut MemBuffer, keys: &[&[u8]]) {
    for key in keys {
        buffer.set(*key, Bytes::copy_from_slice(key)).unwrap();
    }
}

fn range(start: &[u8], end: &[u8]) -> KeyRange {
    KeyRange::new(start, end)
}

/// Asserts that `range` reads as `expected`, from either end and key by key.
#[track_caller]
fn assert_reads_in(buffer: &MemBuffer, range: &KeyRange, expected: &[(Key, Value)]) {
    let forward: Vec<_> = buffer.iter(range).map(|(key, value)| (key.clone(), value.clone())).collect();
    assert_eq!(forward, expected);
    let mut backward: Vec<_> = buffer.iter(range).rev().map(|(key, value)| (key.clone(), value.clone())).collect();
    backward.reverse();
    assert_eq!(backward, expected);
    for (key, value) in expected {
        assert_eq!(buffer.get(key.as_slice()), Some(value));
    }
}

#[track_caller]
fn assert_reads(buffer: &MemBuffer, expected: &[(Key, Value)]) {
    assert_reads_in(buffer, &KeyRange::ALL, expected);
}

/// The pairs that [`fill`] writes.
fn pairs(numbers: std::ops::Range<u32>, add: u32) -> Vec<(Key, Value)> {
    numbers.map(|i| (key(i), Value::Put(number(i + add)))).collect()
}
