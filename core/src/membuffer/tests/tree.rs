//! The order of keys: nodes that split and vanish, keys that are hard to tell apart.

use std::collections::BTreeMap;

use quickcheck::{Arbitrary, Gen, quickcheck};

use super::*;
use crate::rng::Rng;

type Values = BTreeMap<Key, Value>;

#[track_caller]
fn assert_is(buffer: &MemBuffer, map: &Values) {
    validate(buffer);
    assert!(buffer.iter(&KeyRange::ALL).map(owned).eq(map.clone()));
    assert!(buffer.iter(&KeyRange::ALL).rev().map(owned).eq(map.clone().into_iter().rev()));
    assert!(map.iter().all(|(key, value)| buffer.get(key.as_slice()).is_some_and(|read| read == *value)));
}

fn set(buffer: &mut MemBuffer, map: &mut Values, key: Key, value: u32) {
    buffer.set(&key, number(value)).unwrap();
    map.insert(key, Value::Put(number(value)));
}

/// Numbers below `count` in random order.
fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let (mut numbers, mut rng): (Vec<_>, _) = ((0..count).collect(), Rng::new(seed));
    for i in (1..numbers.len()).rev() {
        numbers.swap(i, rng.below(i as u64 + 1) as usize);
    }
    numbers
}

#[test]
fn keys_in_order_fill_the_nodes_whichever_way_they_come() {
    for numbers in [(0..20_000).collect::<Vec<_>>(), (0..20_000).rev().collect()] {
        let (mut buffer, mut map) = (MemBuffer::new(), Values::new());
        numbers.iter().for_each(|i| set(&mut buffer, &mut map, key(*i), *i));
        assert_is(&buffer, &map);
        assert!(buffer.tree.footprint() < 20_000 * 10, "{} bytes", buffer.tree.footprint());
    }
}

#[test]
fn several_runs_of_keys_in_order_fill_the_nodes_together() {
    let (mut buffer, mut map) = (MemBuffer::new(), Values::new());
    for i in 0..10_000 {
        ["row", "index", "another index"].iter().for_each(|table| {
            let key = Key::from([table.as_bytes(), &u32::to_be_bytes(i)].concat());
            set(&mut buffer, &mut map, key, i);
        });
    }
    assert_is(&buffer, &map);
    assert!(buffer.tree.footprint() < 30_000 * 10, "{} bytes", buffer.tree.footprint());
}

#[test]
fn keys_that_come_backwards_behind_a_full_leaf_share_leaves() {
    let (mut buffer, mut map) = (MemBuffer::new(), Values::new());
    let numbers = (0..64 * 10).chain((64 * 10..5_000).rev());
    numbers.for_each(|i| set(&mut buffer, &mut map, key(i), i));
    assert_is(&buffer, &map);
    assert!(buffer.tree.footprint() < 5_000 * 12, "{} bytes", buffer.tree.footprint());
}

#[test]
fn keys_in_random_order_leave_nodes_more_than_half_full() {
    let (mut buffer, mut map) = (MemBuffer::new(), Values::new());
    shuffled(20_000, 1).into_iter().for_each(|i| set(&mut buffer, &mut map, key(i), i));
    assert_is(&buffer, &map);
    assert!(buffer.tree.footprint() < 20_000 * 16, "{} bytes", buffer.tree.footprint());
}

#[test]
fn nodes_vanish_with_their_keys_and_what_is_left_stays_in_order() {
    for seed in 0..2 {
        let (mut buffer, mut map) = (MemBuffer::new(), Values::new());
        let numbers = shuffled(5_000, seed);
        let (before, within) = numbers.split_at(100);
        before.iter().for_each(|i| set(&mut buffer, &mut map, key(*i), *i));
        let footprint = buffer.footprint();
        let (stage, mut staged) = (buffer.stage(), map.clone());
        within.iter().for_each(|i| set(&mut buffer, &mut staged, key(*i), *i));
        assert_is(&buffer, &staged);
        buffer.cleanup(stage).unwrap();
        assert_is(&buffer, &map);
        assert!(buffer.footprint() < footprint * 40, "a node may be left with one key");
        within.iter().rev().for_each(|i| set(&mut buffer, &mut map, key(*i), *i));
        assert_is(&buffer, &map);
    }
}

#[test]
fn an_emptied_buffer_starts_over() {
    let mut buffer = MemBuffer::new();
    let checkpoint = buffer.checkpoint();
    for round in 1..4 {
        fill(&mut buffer, 0..round * 1_000, 0);
        validate(&buffer);
        buffer.revert(checkpoint).unwrap();
        validate(&buffer);
        buffer.clear();
        assert_eq!((buffer.len(), buffer.footprint()), (0, 0));
    }
}

/// A key that has much in common with others: one of few prefixes, some longer than what a node knows of its prefix, and one
/// of few ends, zeros among them, which look like the padding of a shorter key.
#[derive(Clone, Debug)]
struct Similar(Vec<u8>);

impl Arbitrary for Similar {
    fn arbitrary(g: &mut Gen) -> Self {
        let prefix = vec![7; *g.choose(&[0, 0, 1, 3, 4, 5, 23, 24, 25, 40]).unwrap()];
        let bytes = (0..usize::arbitrary(g) % 7).map(|_| *g.choose(&[0, 0, 1, 7, 255]).unwrap()).collect::<Vec<_>>();
        Similar([prefix, bytes].concat())
    }
}

quickcheck! {
    fn keys_with_much_in_common_stay_apart_and_in_order(batches: Vec<Vec<Similar>>, absent: Vec<Similar>) -> bool {
        let (mut buffer, mut map) = (MemBuffer::new(), Values::new());
        // Few keys do not fill a node; so many together do.
        for (value, Similar(similar)) in batches.into_iter().flatten().enumerate() {
            set(&mut buffer, &mut map, Key::from(similar), value as u32);
        }
        assert_is(&buffer, &map);
        for Similar(key) in absent.into_iter().take(5) {
            assert_eq!(buffer.get(&key).is_some(), map.contains_key(&key[..]));
            let from = KeyRange::new(key.clone(), Key::EMPTY);
            let rest = buffer.iter(&from).map(owned);
            assert!(rest.eq(map.range(Key::from(key)..).map(|(key, value)| (key.clone(), value.clone()))));
        }
        true
    }

    fn batches_come_and_go_like_in_a_map(batches: Vec<(u16, u8, u8)>) -> bool {
        let (mut buffer, mut map) = (MemBuffer::new(), Values::new());
        let mut stages: Vec<(Stage, Values)> = Vec::new();
        for (start, step, kind) in batches.into_iter().take(12) {
            match kind % 8 {
                0 | 1 => stages.push((buffer.stage(), map.clone())),
                2 => {
                    if let Some((stage, before)) = stages.pop() {
                        buffer.cleanup(stage).unwrap();
                        map = before;
                    }
                }
                3 => {
                    if let Some((stage, _)) = stages.pop() {
                        buffer.release(stage).unwrap();
                    }
                }
                _ => for i in 0..70 {
                    let number = u32::from(start % 499) + i * u32::from(step % 5 + 1);
                    set(&mut buffer, &mut map, key(number), number);
                },
            }
            validate(&buffer);
        }
        assert_is(&buffer, &map);
        true
    }
}

#[test]
fn a_checkpoint_of_another_buffer_changes_nothing() {
    let (mut other, mut buffer) = (MemBuffer::new(), MemBuffer::new());
    fill(&mut buffer, 0..100, 0);
    let foreign = other.checkpoint();
    buffer.revert(foreign).unwrap();
    validate(&buffer);
    assert_reads(&buffer, &pairs(0..100, 0));
}
