use tikv_core::key::KeyRange;
use tikv_proto::kvrpcpb::{Op, ResolveLockRequest, TxnInfo};

use crate::storage::Refusal;
use crate::storage::harness::{Store, bytes, lock, lock_shared, op, prewrite, prewrite_locked, put};

fn resolve(start: u64, commit: u64) -> ResolveLockRequest {
    ResolveLockRequest { start_version: start, commit_version: commit, ..ResolveLockRequest::default() }
}

#[test]
fn all_stored_locks_of_the_region_are_resolved() {
    let mut store = Store::new();
    store.call(&prewrite(10, "a", vec![put("a", "1"), put("b", "2"), put("c", "3")]));
    store.region = KeyRange::new("a", "c");
    store.call(&resolve(10, 20));
    store.region = KeyRange::ALL;
    assert_eq!((store.versions("b"), store.locks().len()), (vec![(Op::Put, 20)], 1));
}

#[test]
fn locks_in_memory_are_overlooked() {
    let mut store = Store::new();
    store.call(&lock(10, 10, "a", &["a"]));
    store.call(&resolve(10, 0));
    assert_eq!(store.locks().len(), 1);
}

#[test]
fn several_transactions_are_resolved_at_once_also_on_one_key() {
    let mut store = Store::new();
    for start in [10, 11, 12] {
        store.call(&lock_shared(start, "p", "k"));
        store.call(&prewrite_locked(start, start, "p", vec![op(Op::SharedLock, "k")]));
    }
    let info = |txn, status| TxnInfo { txn, status, ..TxnInfo::default() };
    let request = ResolveLockRequest { txn_infos: vec![info(10, 20), info(11, 0)], ..ResolveLockRequest::default() };
    store.call(&request);
    assert_eq!(store.versions("k"), [(Op::Lock, 20), (Op::Rollback, 11)]);
    assert_eq!(store.locks()[0].shared_lock_infos.len(), 1);
}

#[test]
fn an_error_does_not_undo_the_batches_before() {
    let mut store = Store::new();
    let keys: Vec<_> = (0..257).map(|number| format!("{number:03}")).collect();
    for (number, key) in keys.iter().enumerate() {
        let start = if number == 256 { 50 } else { 10 };
        let mut request = prewrite(start, "000", vec![put("", "v")]);
        request.mutations[0].key = key.clone().into();
        store.call(&request);
    }
    let info = |txn, status| TxnInfo { txn, status, ..TxnInfo::default() };
    let request = ResolveLockRequest { txn_infos: vec![info(10, 20), info(50, 40)], ..ResolveLockRequest::default() };
    assert!(store.call(&request).error.is_some_and(|error| error.abort.contains("InvalidTxnTso")));
    assert_eq!(store.locks().len(), 1);
}

#[test]
fn keys_of_no_transaction_are_refused() {
    let request = ResolveLockRequest { keys: bytes(&["k"]), ..ResolveLockRequest::default() };
    assert_eq!(Store::new().refusal(&request), Refusal::NoStartTs);
}
