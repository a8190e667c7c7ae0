//! What the client refuses by itself.

use tikv::{Config, Error, Key, LockOptions, Transaction};
use tikv_core::key::MAX_KEY_BYTES;

use crate::world::{Rt, World};

fn long_key() -> Key {
    vec![b'k'; MAX_KEY_BYTES + 1].into()
}

fn is_too_long<T: std::fmt::Debug>(end: Result<T, Error>) {
    let limit_bytes = MAX_KEY_BYTES;
    assert_eq!(end.unwrap_err(), Error::KeyTooLarge { actual_bytes: limit_bytes + 1, limit_bytes });
}

/// Keys that no TiKV takes.
pub async fn empty_and_long_keys_are_refused(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw();
    assert_eq!(raw.get("").await, Err(Error::EmptyKey));
    assert_eq!(raw.put("", "v").await, Err(Error::EmptyKey));
    assert_eq!(raw.delete("").await, Err(Error::EmptyKey));
    assert_eq!(raw.batch_get(["k", ""]).await, Err(Error::EmptyKey));
    assert_eq!(raw.batch_put([("k", "v"), ("", "v")]).await, Err(Error::EmptyKey));
    assert_eq!(raw.batch_delete(["k", ""]).await, Err(Error::EmptyKey));
    is_too_long(raw.get(long_key()).await);
    is_too_long(raw.put(long_key(), "v").await);
    is_too_long(raw.batch_put([(long_key(), "v")]).await);

    let txn = world.client.begin().await.unwrap();
    assert_eq!(txn.put("", "v"), Err(Error::EmptyKey));
    assert_eq!(txn.delete(""), Err(Error::EmptyKey));
    assert_eq!(txn.lock_keys([""], LockOptions::default()).await, Err(Error::EmptyKey));
    assert_eq!(txn.get("").await, Err(Error::EmptyKey));
    assert_eq!(txn.batch_get(["", "k"]).await, Err(Error::EmptyKey));
    is_too_long(txn.put(long_key(), "v"));
    is_too_long(txn.get(long_key()).await);
    assert_eq!(txn.size(), (0, 0));
    // TiKV has a limit of its own, which is a setting there.
    let longest = Key::from(vec![b'k'; 8 * 1024]);
    raw.put(longest.clone(), "v").await.unwrap();
    assert_eq!(raw.get(longest).await.unwrap(), Some("v".into()));
    let error = raw.put(vec![b'k'; MAX_KEY_BYTES], "v").await.unwrap_err();
    assert!(matches!(error, Error::Refused { operation: "RawPut", .. }), "{error:?}");
}

/// Values of transactions.
pub async fn empty_and_large_values_are_refused(rt: &Rt) {
    let world = World::new(rt).await;
    let txn = world.client.begin().await.unwrap();
    assert_eq!(txn.put("k", ""), Err(Error::EmptyValue { key: "k".into() }));
    assert_eq!(txn.insert("k", ""), Err(Error::EmptyValue { key: "k".into() }));
    let limit_bytes = world.client.config().txn_entry_limit_bytes;
    let large = vec![0; usize::try_from(limit_bytes).unwrap()];
    assert_eq!(txn.put("k", large), Err(Error::EntryTooLarge { actual_bytes: limit_bytes + 1, limit_bytes }));
    assert_eq!(txn.get("k").await.unwrap(), None);
    assert_eq!(txn.commit().await.unwrap().commit_ts, None);
}

/// The total of a transaction.
pub async fn a_transaction_is_limited_in_size(rt: &Rt) {
    let world = World::new(rt).await;
    let mut config = Config::default();
    config.txn_total_limit_bytes = 1_000;
    let client = world.client_with(|builder| builder.config(config)).await;
    let txn = client.begin().await.unwrap();
    for index in 0..9 {
        txn.put(format!("{index}"), vec![1; 100]).unwrap();
    }
    let error = txn.put("9", vec![1; 100]).unwrap_err();
    assert!(matches!(error, Error::TxnTooLarge { limit_bytes: 1_000, .. }), "{error:?}");
    // What fits can still be committed.
    txn.commit().await.unwrap();
    assert_eq!(client.snapshot().await.unwrap().scan::<Key>(.., 100).await.unwrap().len(), 9);
}

/// Committed, rolled back: over.
pub async fn a_finished_transaction_refuses_everything(rt: &Rt) {
    let world = World::new(rt).await;
    let committed = world.client.begin().await.unwrap();
    committed.put("k", "v").unwrap();
    committed.commit().await.unwrap();
    let rolled_back = world.client.begin().await.unwrap();
    rolled_back.rollback().unwrap();
    for txn in [committed, rolled_back] {
        assert_eq!(txn.get("k").await, Err(Error::TxnFinished));
        assert_eq!(txn.batch_get(["k"]).await, Err(Error::TxnFinished));
        assert_eq!(txn.scan::<Key>(.., 1).await, Err(Error::TxnFinished));
        assert_eq!(txn.put("k", "v"), Err(Error::TxnFinished));
        assert_eq!(txn.insert("k", "v"), Err(Error::TxnFinished));
        assert_eq!(txn.delete("k"), Err(Error::TxnFinished));
        assert_eq!(txn.lock_keys(["k"], LockOptions::default()).await, Err(Error::TxnFinished));
        assert_eq!(txn.rollback(), Err(Error::TxnFinished));
        assert_eq!(txn.commit().await, Err(Error::TxnFinished));
    }
    // A body may end its transaction itself.
    let end = world.client.run(async |txn: Transaction| txn.rollback()).await;
    assert_eq!(end, Ok(()));
}

/// Scans.
pub async fn limits_of_scans_are_checked(rt: &Rt) {
    let world = World::new(rt).await;
    let raw = world.client.raw();
    raw.put("k", "v").await.unwrap();
    let limit = world.client.config().raw.max_scan_limit;
    assert_eq!(raw.scan::<Key>(.., limit).await.unwrap().len(), 1);
    let error = raw.scan::<Key>(.., limit + 1).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    assert_eq!(raw.scan::<Key>(.., 0).await.unwrap(), []);
    let error = raw.compare_and_swap("k", None, "v").await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    let none: [String; 0] = [];
    let error = tikv::Client::connect(none, rt.clone()).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
}

/// Empty batches and ranges are no errors.
pub async fn nothing_is_asked_where_there_is_nothing_to_ask(rt: &Rt) {
    let world = World::new(rt).await;
    let (raw, txn) = (world.client.raw(), world.client.begin().await.unwrap());
    let none: [(Key, &str); 0] = [];
    let no_keys: [Key; 0] = [];
    assert_eq!(raw.batch_get(no_keys.clone()).await.unwrap(), []);
    raw.batch_put(none).await.unwrap();
    raw.batch_delete(no_keys.clone()).await.unwrap();
    assert_eq!(raw.scan("l".."k", 10).await.unwrap(), []);
    raw.delete_range("l".."k").await.unwrap();
    assert_eq!(raw.checksum("l".."k").await.unwrap().total_pairs, 0);
    assert_eq!(txn.batch_get(no_keys.clone()).await.unwrap(), []);
    assert_eq!(txn.scan("l".."k", 10).await.unwrap(), []);
    assert_eq!(txn.reverse_scan("l".."l", 10).await.unwrap(), []);
    txn.lock_keys(no_keys, LockOptions::default()).await.unwrap();
    assert_eq!(txn.commit().await.unwrap().commit_ts, None);
}
