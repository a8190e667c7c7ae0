use tikv_core::key::KeyRange;
use tikv_proto::kvrpcpb::{LockInfo, PessimisticRollbackRequest, ScanLockRequest};

use crate::storage::Refusal;
use crate::storage::harness::{Store, lock, lock_shared, prewrite, put};

fn scan_lock(limit: u32) -> ScanLockRequest {
    ScanLockRequest { max_version: 100, limit, ..ScanLockRequest::default() }
}

fn holders(locks: &[LockInfo]) -> Vec<(&[u8], usize)> {
    locks.iter().map(|lock| (&lock.key[..], lock.shared_lock_infos.len())).collect()
}

#[test]
fn a_limit_counts_each_shared_lock_and_keeps_the_oldest() {
    let mut store = Store::new();
    for start in [12, 11, 13] {
        store.call(&lock_shared(start, "p", "a"));
    }
    store.call(&prewrite(20, "b", vec![put("b", "v")]));
    let locks = store.call(&scan_lock(2)).locks;
    assert_eq!(holders(&locks), [(&b"a"[..], 2)]);
    assert_eq!(locks[0].shared_lock_infos.iter().map(|lock| lock.lock_version).collect::<Vec<_>>(), [11, 12]);
    assert_eq!(holders(&store.call(&scan_lock(4)).locks), [(&b"a"[..], 3), (b"b", 0)]);
}

#[test]
fn a_limit_counts_keys_when_a_lock_in_memory_matches_too() {
    let mut store = Store::new();
    for start in [11, 12, 13] {
        store.call(&lock_shared(start, "p", "a"));
    }
    store.call(&lock(20, 20, "b", &["b"]));
    assert_eq!(holders(&store.call(&scan_lock(2)).locks), [(&b"a"[..], 3), (b"b", 0)]);
}

#[test]
fn only_locks_up_to_the_version_are_listed() {
    let mut store = Store::new();
    store.call(&lock_shared(50, "p", "a"));
    store.call(&lock_shared(150, "p", "a"));
    store.call(&lock(150, 150, "b", &["b"]));
    assert_eq!(holders(&store.call(&scan_lock(0)).locks), [(&b"a"[..], 1)]);
}

#[test]
fn a_scan_ends_where_the_region_does() {
    let mut store = Store::new();
    store.call(&lock(10, 10, "a", &["a", "b", "c"]));
    store.region = KeyRange::new("b", "c");
    assert_eq!(holders(&store.locks()), [(&b"b"[..], 0)]);
}

#[test]
fn an_inverted_range_is_refused() {
    let request = ScanLockRequest { start_key: "b".into(), end_key: "a".into(), ..scan_lock(0) };
    assert_eq!(Store::new().refusal(&request), Refusal::InvertedRange);
}

#[test]
fn a_pessimistic_rollback_without_keys_finds_the_locks_of_the_region() {
    let mut store = Store::new();
    store.call(&lock(10, 10, "a", &["a", "b"]));
    store.call(&lock(11, 11, "c", &["c"]));
    store.call(&lock(10, 30, "a", &["d"]));
    let request = PessimisticRollbackRequest { start_version: 10, for_update_ts: 20, ..Default::default() };
    assert_eq!(store.handle(&request).released.len(), 2);
    assert_eq!(holders(&store.locks()), [(&b"c"[..], 0), (b"d", 0)]);
}
