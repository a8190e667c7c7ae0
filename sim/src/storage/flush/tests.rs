use tikv_proto::kvrpcpb::{BufferBatchGetRequest, FlushRequest, Mutation, Op};

use crate::storage::Refusal;
use crate::storage::harness::{Store, bytes, is_abort, lock, lock_shared, op, prewrite_locked, put};

fn flush(start: u64, generation: u64, mutations: Vec<Mutation>) -> FlushRequest {
    FlushRequest {
        mutations,
        primary_key: "p".into(),
        start_ts: start,
        generation,
        lock_ttl: 3000,
        ..Default::default()
    }
}

fn buffered(store: &mut Store, start: u64, keys: &[&'static str]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let request = BufferBatchGetRequest { keys: bytes(keys), version: start, ..BufferBatchGetRequest::default() };
    store.call(&request).pairs.iter().map(|pair| (pair.key.to_vec(), pair.value.to_vec())).collect()
}

#[test]
fn a_flush_is_overwritten_by_a_newer_one_only() {
    let mut store = Store::new();
    store.call(&flush(10, 2, vec![put("k", "second")]));
    store.call(&flush(10, 1, vec![put("k", "first")]));
    assert_eq!(buffered(&mut store, 10, &["k"]), [(b"k".to_vec(), b"second".to_vec())]);
    store.call(&flush(10, 3, vec![op(Op::Del, "k")]));
    assert_eq!(buffered(&mut store, 10, &["k"]), [(b"k".to_vec(), vec![])], "deletions are told too");
}

#[test]
fn the_buffer_is_read_in_key_order_and_each_key_once() {
    let mut store = Store::new();
    store.call(&flush(10, 1, vec![put("b", "2"), put("a", vec![1; 300])]));
    let keys: Vec<_> = buffered(&mut store, 10, &["b", "a", "c", "b"]).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [b"a", b"b"]);
    assert_eq!(buffered(&mut store, 11, &["a"]), [], "other transactions see nothing");
}

#[test]
fn a_flush_writes_what_is_not_locked() {
    let mut store = Store::new();
    store.call(&flush(5, 1, vec![put("a", "other")]));
    let response = store.call(&flush(10, 1, vec![put("a", "1"), put("b", "2")]));
    assert_eq!(response.errors.len(), 1);
    assert_eq!(store.locks().iter().map(|lock| lock.lock_version).collect::<Vec<_>>(), [5, 10]);
}

#[test]
fn a_flush_without_keys_is_refused_and_one_without_generation_aborts() {
    let mut store = Store::new();
    assert_eq!(store.refusal(&flush(10, 1, vec![])), Refusal::NoKeys);
    assert!(is_abort(store.call(&flush(10, 0, vec![put("k", "v")])).errors.first(), "generation"));
}

#[test]
fn reading_a_buffer_that_was_not_flushed_is_refused() {
    let mut store = Store::new();
    store.call(&lock(10, 10, "k", &["k"]));
    let request = BufferBatchGetRequest { keys: bytes(&["k"]), version: 10, ..BufferBatchGetRequest::default() };
    assert_eq!(store.refusal(&request), Refusal::NotBuffered);
}

#[test]
fn a_shared_lock_cannot_be_flushed() {
    let mut store = Store::new();
    store.call(&lock_shared(10, "p", "k"));
    store.call(&prewrite_locked(10, 10, "p", vec![op(Op::SharedLock, "k")]));
    assert!(is_abort(store.call(&flush(10, 1, vec![op(Op::SharedLock, "k")])).errors.first(), "generation"));
}
