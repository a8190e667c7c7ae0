//! Operations of core under valgrind; `benches/micro/run` judges what they cost.
//!
//! Each function repeats its operation [`REPEATS`] times, and only what happens inside it counts. The first one has been done
//! before, with what happens only once.
// What the macros make.
#![allow(missing_docs, unreachable_pub, unused_qualifications)]

use std::hint::black_box;

use bench_micro::figures::REPEATS;
use gungraun::prelude::*;
use gungraun::{Callgrind, Dhat, main};
use tikv_benches::keys;
use tikv_benches::stream::{FRAME_CALLS, Stream};
use tikv_benches::world::{Size, World};
use tikv_core::key::Key;
use tikv_core::keyspace::KeyCodec;
use tikv_core::membuffer::MemBuffer;

const SMALL: Size = Size { regions: 1, stores: 3 };
const LARGE: Size = Size { regions: 10_000, stores: 3 };
/// Entries of a buffer before anything is measured.
const BUFFERED: usize = 10_000;

fn repeat(mut operation: impl FnMut() -> bool) {
    for _ in 0..REPEATS {
        assert!(operation(), "the operation failed");
    }
}

type Ready = (World, Vec<Key>);

fn world(codec: KeyCodec) -> World {
    World::new(codec, SMALL)
}

fn ready(mut world: World, keys: u64, first: impl FnOnce(&mut World, &[Key]) -> bool) -> Ready {
    let keys = keys::spread(keys);
    assert!(first(&mut world, &keys), "the operation failed");
    (world, keys)
}

#[library_benchmark]
#[bench::one(ready(world(KeyCodec::Raw), 1, |world, keys| world.raw_get(&keys[0])))]
fn raw_get((mut world, keys): Ready) -> Ready {
    repeat(|| world.raw_get(&keys[0]));
    (world, keys)
}

#[library_benchmark]
#[bench::one(ready(world(KeyCodec::Raw), 1, |world, keys| world.raw_put(&keys[0])))]
fn raw_put((mut world, keys): Ready) -> Ready {
    repeat(|| world.raw_put(&keys[0]));
    (world, keys)
}

#[library_benchmark]
#[bench::one(ready(world(KeyCodec::Txn), 1, |world, keys| world.snapshot_get(&keys[0])))]
fn snapshot_get((mut world, keys): Ready) -> Ready {
    repeat(|| world.snapshot_get(&keys[0]));
    (world, keys)
}

#[library_benchmark]
#[bench::one(ready(world(KeyCodec::Txn).with_pages(REPEATS + 1), 0, |world, _| world.scan_page()))]
fn scan_page((mut world, keys): Ready) -> Ready {
    repeat(|| world.scan_page());
    (world, keys)
}

#[library_benchmark]
#[bench::one(ready(world(KeyCodec::Txn), 1, World::commit))]
fn commit_1((mut world, keys): Ready) -> Ready {
    repeat(|| world.commit(&keys));
    (world, keys)
}

#[library_benchmark]
#[bench::one(ready(world(KeyCodec::Txn), 100, World::commit))]
fn commit_100((mut world, keys): Ready) -> Ready {
    repeat(|| world.commit(&keys));
    (world, keys)
}

#[library_benchmark]
#[bench::one(World::new(KeyCodec::Raw, LARGE), keys::random(REPEATS))]
fn region_lookup(world: World, keys: Vec<Key>) -> Ready {
    let mut next = keys.iter();
    repeat(|| next.next().is_some_and(|key| black_box(world.locate(key))));
    (world, keys)
}

fn frames() -> usize {
    REPEATS / FRAME_CALLS
}

fn written() -> Stream {
    let mut stream = Stream::new();
    stream.encode();
    stream
}

// Calls one by one, in frames.
#[library_benchmark]
#[bench::one(written())]
fn stream_encode(mut stream: Stream) -> Stream {
    assert!((0..frames()).all(|_| stream.encode()), "no frame");
    stream
}

fn half_read() -> Stream {
    let mut stream = Stream::answered(frames() + 1);
    stream.decode();
    stream
}

// Answers one by one, in frames.
#[library_benchmark]
#[bench::one(half_read())]
fn stream_decode(mut stream: Stream) -> Stream {
    assert!((0..frames()).all(|_| stream.decode()), "not a frame");
    stream
}

/// A buffer, and keys that are the first or the next in it.
fn buffer(next: bool) -> (MemBuffer, Vec<Key>) {
    let mut keys = keys::random(BUFFERED + REPEATS);
    let rest = keys.split_off(BUFFERED);
    let mut buffer = MemBuffer::new();
    assert!(keys.iter().all(|key| buffer.set(key, [7; 64]).is_ok()), "a buffer without limits takes it");
    keys.truncate(REPEATS);
    (buffer, if next { rest } else { keys })
}

#[library_benchmark]
#[bench::one(buffer(true))]
fn membuffer_put((mut buffer, keys): (MemBuffer, Vec<Key>)) -> (MemBuffer, Vec<Key>) {
    let mut next = keys.iter();
    repeat(|| next.next().is_some_and(|key| buffer.set(key, [7; 64]).is_ok()));
    (buffer, keys)
}

#[library_benchmark]
#[bench::one(buffer(false))]
fn membuffer_get((buffer, keys): (MemBuffer, Vec<Key>)) -> (MemBuffer, Vec<Key>) {
    let mut next = keys.iter();
    repeat(|| next.next().is_some_and(|key| black_box(buffer.get(key.as_slice())).is_some()));
    (buffer, keys)
}

library_benchmark_group!(
    name = operations,
    benchmarks = [
        raw_get,
        raw_put,
        snapshot_get,
        scan_page,
        commit_1,
        commit_100,
        region_lookup,
        stream_encode,
        stream_decode,
        membuffer_put,
        membuffer_get
    ]
);

main!(
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::with_args(["--cache-sim=no"]))
        // Whose work an allocation is, shows far up the stack.
        .tool(Dhat::with_args(["--num-callers=200"])),
    library_benchmark_groups = operations
);
