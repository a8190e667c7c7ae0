use tikv_core::key::KeyRange;
use tikv_proto::kvrpcpb::{Context, IsolationLevel, Op, ScanRequest};

use crate::storage::harness::{Store, commit, is_abort, op, prewrite, put, scan};

fn keys(store: &mut Store, request: &ScanRequest) -> Vec<String> {
    let response = store.call(request);
    assert_eq!(response.error, None);
    response.pairs.iter().map(|pair| String::from_utf8_lossy(&pair.key).into_owned()).collect()
}

fn backward(request: ScanRequest) -> ScanRequest {
    ScanRequest { reverse: true, start_key: request.end_key, end_key: request.start_key, ..request }
}

fn letters() -> Store {
    let mut store = Store::new();
    for key in ["a", "b", "c", "d", "e"] {
        store.write(key, "v", 1, 2);
    }
    store
}

#[test]
fn a_scan_without_boundaries_ends_where_the_region_does() {
    let mut store = letters();
    store.region = KeyRange::new("b", "d");
    assert_eq!(keys(&mut store, &scan("b", "", 5)), ["b", "c"]);
    assert_eq!(keys(&mut store, &backward(scan("", "d", 5))), ["c", "b"]);
}

#[test]
fn a_boundary_outside_the_region_aborts() {
    let mut store = letters();
    store.region = KeyRange::new("b", "d");
    for request in [scan("a", "d", 5), scan("b", "e", 5), scan("", "d", 5), backward(scan("b", "e", 5))] {
        assert!(is_abort(store.call(&request).error.as_deref(), "InvalidReqRange"), "{request:?}");
    }
}

#[test]
fn a_backward_scan_from_the_empty_key_finds_nothing() {
    assert_eq!(keys(&mut letters(), &backward(scan("", "", 5))), [""; 0]);
}

#[test]
fn sampling_returns_the_first_of_so_many_keys() {
    let mut store = letters();
    assert_eq!(keys(&mut store, &ScanRequest { sample_step: 3, ..scan("", "", 5) }), ["a", "d"]);
    assert_eq!(keys(&mut store, &ScanRequest { limit: 0, ..scan("", "", 5) }), [""; 0]);
}

#[test]
fn a_locked_key_counts_and_does_not_end_the_scan() {
    let mut store = letters();
    store.call(&prewrite(4, "b", vec![put("b", "new")]));
    let pairs = store.call(&ScanRequest { limit: 3, ..scan("", "", 5) }).pairs;
    assert_eq!(pairs.iter().map(|pair| pair.error.is_some()).collect::<Vec<_>>(), [false, true, false]);
}

#[test]
fn rc_check_ts_reports_the_newest_version_forwards_and_the_first_newer_one_backwards() {
    let mut store = Store::new();
    for at in [10, 20, 30] {
        store.write("k", "v", at - 1, at);
    }
    let context = Context { isolation_level: IsolationLevel::RcCheckTs.into(), ..Context::default() };
    let request = ScanRequest { context: Some(Box::new(context)), ..scan("", "z", 15) };
    let commit_ts = |store: &mut Store, request: &ScanRequest| {
        let conflict = store.call(request).error.and_then(|error| error.conflict);
        conflict.map(|conflict| conflict.conflict_commit_ts)
    };
    assert_eq!(commit_ts(&mut store, &request), Some(30));
    assert_eq!(commit_ts(&mut store, &backward(request)), Some(20));
}

#[test]
fn a_backward_scan_walks_where_a_forward_one_trusts_pointers() {
    let mut store = Store::new();
    // The lock knows that there is nothing below. Then a smaller commit_ts slips in.
    store.call(&prewrite(10, "k", vec![op(Op::Lock, "k")]));
    store.call(&commit(10, &["k"], 20));
    let unchecked =
        tikv_proto::kvrpcpb::PrewriteRequest { skip_constraint_check: true, ..prewrite(12, "k", vec![put("k", "v")]) };
    store.call(&unchecked);
    store.call(&commit(12, &["k"], 15));
    assert_eq!(keys(&mut store, &scan("", "z", 30)), [""; 0]);
    assert_eq!(keys(&mut store, &backward(scan("", "z", 30))), ["k"]);
}
