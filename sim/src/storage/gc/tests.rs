use tikv_core::key::KeyRange;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{DeleteRangeRequest, GcRequest, Op, UnsafeDestroyRangeRequest};

use crate::storage::Refusal;
use crate::storage::harness::{Store, lock, op, rollback};

fn collect(store: &mut Store, safe_point: u64) {
    store.storage.collect_garbage(&KeyRange::ALL, Timestamp::from_version(safe_point));
}

#[test]
fn of_the_versions_below_the_safe_point_the_newest_put_stays() {
    let mut store = Store::new();
    store.write("k", vec![1; 300], 1, 2);
    store.write("k", vec![2; 300], 3, 4);
    store.commit_mutation(op(Op::Lock, "k"), "k", 5, 6);
    store.call(&rollback(7, &["k"]));
    store.write("k", vec![3; 300], 20, 21);
    collect(&mut store, 10);
    assert_eq!(store.versions("k"), [(Op::Put, 21), (Op::Put, 4)]);
    assert_eq!(store.mvcc("k").values.iter().map(|value| value.start_ts).collect::<Vec<_>>(), [20, 3]);
}

#[test]
fn a_deleted_key_disappears() {
    let mut store = Store::new();
    store.write("k", "v", 1, 2);
    store.commit_mutation(op(Op::Del, "k"), "k", 3, 4);
    collect(&mut store, 3);
    assert_eq!(store.versions("k"), [(Op::Del, 4), (Op::Put, 2)]);
    collect(&mut store, 4);
    assert_eq!(store.versions("k"), []);
}

#[test]
fn a_client_cannot_ask_for_collection() {
    assert_eq!(Store::new().refusal(&GcRequest::default()), Refusal::Unimplemented);
}

#[test]
fn deleting_a_range_leaves_locks_in_memory() {
    let mut store = Store::new();
    store.write("a", "1", 1, 2);
    store.write("b", "2", 1, 2);
    store.call(&lock(10, 10, "a", &["a"]));
    let request = DeleteRangeRequest { start_key: "a".into(), end_key: "b".into(), ..Default::default() };
    store.call(&DeleteRangeRequest { notify_only: true, ..request.clone() });
    assert_eq!(store.versions("a").len(), 1, "a mere notice deletes nothing");
    store.call(&request);
    assert_eq!((store.versions("a").len(), store.versions("b").len(), store.locks().len()), (0, 1, 1));
}

#[test]
fn an_empty_end_is_no_end_of_a_range_to_delete() {
    let request = DeleteRangeRequest { start_key: "a".into(), ..DeleteRangeRequest::default() };
    assert!(Store::new().call(&request).region_error.is_some());
}

#[test]
fn destroying_a_range_passes_over_regions_but_needs_both_ends() {
    let mut store = Store::new();
    store.write("a", "1", 1, 2);
    store.region = KeyRange::new("x", "y");
    let request = UnsafeDestroyRangeRequest { start_key: "a".into(), end_key: "b".into(), ..Default::default() };
    store.call(&request);
    assert_eq!(store.versions("a"), []);
    let open = UnsafeDestroyRangeRequest { start_key: "a".into(), ..UnsafeDestroyRangeRequest::default() };
    assert_eq!(store.refusal(&open), Refusal::UnboundedDestroy);
}
