use tikv_proto::kvrpcpb::{MvccGetByStartTsRequest, Op};

use crate::storage::harness::{Store, prewrite, put};

#[test]
fn by_start_ts_only_the_version_found_and_older_ones_are_shown() {
    let mut store = Store::new();
    for (start, at) in [(1, 2), (3, 4), (5, 6)] {
        store.write("k", "v", start, at);
    }
    let by_start_ts = |start_ts| MvccGetByStartTsRequest { start_ts, ..MvccGetByStartTsRequest::default() };
    let found = store.call(&by_start_ts(3));
    let versions: Vec<_> = found.info.unwrap_or_default().writes.iter().map(|write| write.commit_ts).collect();
    assert_eq!((&found.key[..], versions), (&b"k"[..], vec![4, 2]));
    assert_eq!(store.versions("k").len(), 3);

    store.call(&prewrite(7, "k", vec![put("k", "v")]));
    let locked_only = store.call(&by_start_ts(7));
    assert_eq!((&locked_only.key[..], locked_only.info), (&b""[..], Some(Default::default())));
}

#[test]
fn a_lock_shows_what_its_transaction_is_going_to_write() {
    let mut store = Store::new();
    store.call(&prewrite(7, "k", vec![put("k", "v")]));
    let lock = store.mvcc("k").lock.unwrap_or_default();
    assert_eq!((lock.r#type(), lock.start_ts, &lock.short_value[..]), (Op::Put, 7, &b"v"[..]));
}
