use tikv_proto::kvrpcpb::{BatchGetRequest, Context, GetRequest, IsolationLevel, Op, PrewriteRequest};

use crate::storage::harness::{Store, bytes, get, op, prewrite, put};

fn with(context: Context, request: GetRequest) -> GetRequest {
    GetRequest { context: Some(Box::new(context)), ..request }
}

#[test]
fn a_lock_blocks_reads_from_its_start_ts_on() {
    let mut store = Store::new();
    store.call(&prewrite(10, "k", vec![put("k", "v")]));
    assert_eq!(store.call(&get("k", 9)).error, None);
    assert!(store.call(&get("k", 10)).error.is_some_and(|error| error.locked.is_some()));
}

#[test]
fn a_lock_that_commits_later_blocks_nobody() {
    let mut store = Store::new();
    store.call(&PrewriteRequest { min_commit_ts: 20, ..prewrite(10, "k", vec![put("k", "v")]) });
    assert_eq!(store.call(&get("k", 19)).error, None);
    assert!(store.call(&get("k", 20)).error.is_some());
}

#[test]
fn the_newest_version_is_read_past_the_lock_of_the_primary_only() {
    let mut store = Store::new();
    store.call(&prewrite(10, "a", vec![put("a", "1"), put("b", "2")]));
    assert_eq!(store.call(&get("a", u64::MAX)).error, None);
    assert!(store.call(&get("b", u64::MAX)).error.is_some());
}

#[test]
fn the_newest_version_is_not_read_past_an_async_commit() {
    let mut store = Store::new();
    store.call(&PrewriteRequest { use_async_commit: true, ..prewrite(10, "a", vec![put("a", "1")]) });
    assert!(store.call(&get("a", u64::MAX)).error.is_some());
}

#[test]
fn locks_that_change_nothing_block_nobody() {
    let mut store = Store::new();
    store.call(&prewrite(10, "k", vec![op(Op::Lock, "k")]));
    assert_eq!(store.call(&get("k", 20)).error, None);
}

#[test]
fn the_value_of_a_committed_lock_is_read_unless_its_commit_ts_is_wanted() {
    let mut store = Store::new();
    store.call(&prewrite(10, "k", vec![put("k", vec![7; 300])]));
    let context = || Context { committed_locks: vec![10], ..Context::default() };
    let read = store.call(&with(context(), get("k", 20)));
    assert_eq!((read.error, read.value.len()), (None, 300));
    let read = store.call(&with(context(), GetRequest { need_commit_ts: true, ..get("k", 20) }));
    assert!(read.error.is_some_and(|error| error.locked.is_some()));
}

#[test]
fn rc_check_ts_names_the_stored_key_of_a_newer_version() {
    let mut store = Store::new();
    store.write("k", "v", 10, 20);
    let context = Context { isolation_level: IsolationLevel::RcCheckTs.into(), ..Context::default() };
    let conflict = store.call(&with(context, get("k", 15))).error.and_then(|error| error.conflict).unwrap_or_default();
    assert_eq!((conflict.start_ts, conflict.conflict_ts, conflict.conflict_commit_ts), (15, 0, 20));
    assert_eq!(conflict.key[..9], [b'k', 0, 0, 0, 0, 0, 0, 0, 0xf8]);
    assert_eq!(conflict.key[9..], (!20_u64).to_be_bytes());
}

#[test]
fn a_stale_read_does_not_push_commits() {
    let mut store = Store::new();
    let context = Context { stale_read: true, ..Context::default() };
    store.call(&with(context, get("k", 50)));
    assert_eq!(store.storage.max_ts().version(), 0);
    store.call(&get("k", 50));
    assert_eq!(store.storage.max_ts().version(), 50);
}

#[test]
fn a_batch_answers_for_each_key_that_exists_or_is_locked() {
    let mut store = Store::new();
    store.write("a", "1", 1, 2);
    store.call(&prewrite(10, "c", vec![put("c", "3")]));
    let request = BatchGetRequest { keys: bytes(&["c", "b", "a", "a"]), version: 20, ..BatchGetRequest::default() };
    let pairs = store.call(&request).pairs;
    let shown: Vec<_> = pairs.iter().map(|pair| (&pair.key[..], pair.error.is_some())).collect();
    assert_eq!(shown, [(&b""[..], true), (b"a", false), (b"a", false)]);
}
