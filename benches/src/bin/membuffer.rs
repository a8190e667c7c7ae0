//! One workload on the buffer of a transaction; `benches/membuffer/run` sets it against client-go's.
//!
//! Prints `WORKLOAD NANOSECONDS_PER_OPERATION`, or for `memory_*` the bytes that an entry takes: resident, and as the buffer
//! says. Nanoseconds are those that the thread had a processor, so that other programs disturb less. The Go program beside the
//! script does the same things in the same order.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use tikv_benches::process::{Clock, resident_bytes};
use tikv_core::key::{Direction, KeyRange};
use tikv_core::membuffer::MemBuffer;
use tikv_core::rng::Rng;

/// Entries of the workloads that do not name a number.
const ENTRIES: usize = 100_000;
const KEY_BYTES: usize = 16;
const VALUE_BYTES: usize = 128;
/// Workloads that are over quickly are repeated for this long.
const LONG_ENOUGH: Duration = Duration::from_millis(400);

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let (Some(workload), Some(count)) = (args.first(), args.get(1).and_then(|count| count.parse().ok())) else {
        eprintln!("usage: membuffer WORKLOAD COUNT");
        return ExitCode::FAILURE;
    };
    if let Some(order) = workload.strip_prefix("memory_") {
        let (resident, told) = memory(order, count);
        println!("{workload} {resident:.1} {told:.1}");
        return ExitCode::SUCCESS;
    }
    match nanoseconds(workload, count) {
        Some(nanoseconds) => println!("{workload} {nanoseconds:.2}"),
        None => {
            eprintln!("{workload} is not known");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn nanoseconds(workload: &str, count: usize) -> Option<f64> {
    Some(match workload {
        "sequential_put" => puts(&keys(count, VALUE_BYTES, big_endian), KEY_BYTES),
        "random_put" => puts(&keys(count, VALUE_BYTES, random), KEY_BYTES),
        "large_index_put" => puts(&keys(count, VALUE_BYTES, little_endian), VALUE_BYTES),
        "sequential_get" => gets(&keys(count, VALUE_BYTES, big_endian), 1),
        "random_get" => gets(&keys(count, VALUE_BYTES, random), 1),
        "repeated_get" => gets(&keys(count, KEY_BYTES, little_endian), 11),
        "sequential_set_get" => sets_and_gets(&decimal_keys(false)),
        "random_set_get" => sets_and_gets(&decimal_keys(true)),
        "long_key_set_get" => long_keys(count),
        "iterate" => iterate(false),
        "iterate_random" => iterate(true),
        "snapshot_iterate" => snapshot_iterate(),
        "snapshot_cursor" => snapshot_cursor(),
        _ => return None,
    })
}

type Number = fn(u32, &mut Rng) -> [u8; 4];

fn big_endian(i: u32, _: &mut Rng) -> [u8; 4] {
    i.to_be_bytes()
}

fn little_endian(i: u32, _: &mut Rng) -> [u8; 4] {
    i.to_le_bytes()
}

fn random(_: u32, rng: &mut Rng) -> [u8; 4] {
    (rng.below(1 << 32) as u32).to_le_bytes()
}

/// `count` values of `len` bytes that begin with a number; keys are their first bytes.
fn keys(count: usize, len: usize, number: Number) -> Vec<Box<[u8]>> {
    let mut rng = Rng::new(1);
    let mut key = |i| {
        let mut key = vec![0; len].into_boxed_slice();
        key[..4].copy_from_slice(&number(i, &mut rng));
        key
    };
    (0..count as u32).map(&mut key).collect()
}

/// Numbers in decimal.
fn decimal_keys(shuffled: bool) -> Vec<Vec<u8>> {
    let mut keys: Vec<_> = (0..ENTRIES).map(|i| format!("{i:010}").into_bytes()).collect();
    let mut rng = Rng::new(1);
    if shuffled {
        for i in 0..keys.len() {
            keys.swap(i, i + rng.below((ENTRIES - i) as u64) as usize);
        }
    }
    keys
}

fn per(operations: usize, work: impl FnOnce()) -> f64 {
    let clock = Clock::new();
    let start = clock.now();
    work();
    (clock.now() - start).as_nanos() as f64 / operations as f64
}

/// The average of as many rounds as it takes.
fn rounds(operations: usize, mut work: impl FnMut()) -> f64 {
    let (clock, mut rounds) = (Clock::new(), 0);
    let start = clock.now();
    while clock.now() - start < LONG_ENOUGH {
        work();
        rounds += 1;
    }
    (clock.now() - start).as_nanos() as f64 / (operations * rounds) as f64
}

fn set(buffer: &mut MemBuffer, key: &[u8], value: &[u8]) {
    buffer.set(key, value).expect("a buffer without limits takes it");
}

fn puts(values: &[Box<[u8]>], key_bytes: usize) -> f64 {
    let mut buffer = MemBuffer::new();
    per(values.len(), || values.iter().for_each(|value| set(&mut buffer, &value[..key_bytes], value)))
}

fn gets(values: &[Box<[u8]>], times: usize) -> f64 {
    let mut buffer = MemBuffer::new();
    values.iter().for_each(|value| set(&mut buffer, &value[..KEY_BYTES], value));
    per(values.len(), || {
        for value in values {
            (0..times).for_each(|_| _ = black_box(buffer.get(&value[..KEY_BYTES])));
        }
    })
}

fn sets_and_gets(keys: &[Vec<u8>]) -> f64 {
    let mut buffer = MemBuffer::new();
    rounds(keys.len(), || {
        keys.iter().for_each(|key| set(&mut buffer, key, key));
        keys.iter().for_each(|key| _ = black_box(buffer.get(key)));
    })
}

fn long_keys(count: usize) -> f64 {
    let key = |i: u64| {
        let mut key = vec![0; 1024];
        key[1016..].copy_from_slice(&i.to_le_bytes());
        key
    };
    let keys: Vec<_> = (0..count as u64).map(key).collect();
    let mut buffer = MemBuffer::new();
    per(count, || {
        keys.iter().for_each(|key| set(&mut buffer, key, key));
        keys.iter().for_each(|key| _ = black_box(buffer.get(key)));
    })
}

fn table(shuffled: bool) -> MemBuffer {
    let mut buffer = MemBuffer::new();
    decimal_keys(shuffled).iter().for_each(|key| set(&mut buffer, key, key));
    buffer
}

fn iterate(shuffled: bool) -> f64 {
    let buffer = table(shuffled);
    rounds(ENTRIES, || buffer.iter(&KeyRange::ALL).for_each(|pair| _ = black_box(pair)))
}

fn snapshot_iterate() -> f64 {
    let mut buffer = table(false);
    buffer.stage();
    rounds(ENTRIES, || buffer.snapshot().iter(&KeyRange::ALL).for_each(|pair| _ = black_box(pair)))
}

fn snapshot_cursor() -> f64 {
    let mut buffer = table(false);
    buffer.stage();
    rounds(ENTRIES, || {
        let mut cursor = buffer.snapshot_cursor(KeyRange::ALL, Direction::Forward);
        while let Ok(Some(pair)) = cursor.next(&buffer) {
            black_box(pair);
        }
    })
}

/// Bytes a pair of a 16-byte key and a 64-byte value takes: resident memory, and what the buffer says of itself.
fn memory(order: &str, count: usize) -> (f64, f64) {
    let (mut rng, before, mut buffer) = (Rng::new(1), resident_bytes(), MemBuffer::new());
    for i in 0..count as u32 {
        let mut key = [0; 16];
        match order {
            "sequential" => key[..4].copy_from_slice(&i.to_be_bytes()),
            _ => (0..2).for_each(|half| key[half * 8..][..8].copy_from_slice(&rng.below(u64::MAX).to_le_bytes())),
        }
        set(&mut buffer, &key, &[7; 64]);
    }
    let resident = resident_bytes().saturating_sub(before) as f64;
    (resident / count as f64, buffer.footprint() as f64 / count as f64)
}
