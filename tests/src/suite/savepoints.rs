//! Writes that are taken back before they are committed.

use tikv::{Error, Transaction};

use crate::world::{Rt, World};

async fn value(txn: &Transaction, key: &'static str) -> Option<String> {
    txn.get(key).await.unwrap().map(|value| String::from_utf8_lossy(&value).into_owned())
}

/// What was written since a savepoint is there only if the savepoint is released.
pub async fn a_dropped_savepoint_takes_its_writes_back(rt: &Rt) {
    let world = World::new(rt).await;
    world.client.run(async |txn: Transaction| txn.put("stored", "0")).await.unwrap();
    let txn = world.client.begin().await.unwrap();
    txn.put("k", "1").unwrap();
    {
        let _savepoint = txn.savepoint().unwrap();
        txn.put("k", "2").unwrap();
        txn.delete("stored").unwrap();
        assert_eq!((value(&txn, "k").await, value(&txn, "stored").await), (Some("2".into()), None));
    }
    assert_eq!((value(&txn, "k").await, value(&txn, "stored").await), (Some("1".into()), Some("0".into())));
    let savepoint = txn.savepoint().unwrap();
    txn.put("kept", "3").unwrap();
    savepoint.release().unwrap();
    txn.commit().await.unwrap();
    let later = world.client.begin().await.unwrap();
    let seen = (value(&later, "k").await, value(&later, "stored").await, value(&later, "kept").await);
    assert_eq!(seen, (Some("1".into()), Some("0".into()), Some("3".into())));
}

/// An outer savepoint takes the inner ones with it, and a transaction that has ended has none.
pub async fn savepoints_nest(rt: &Rt) {
    let world = World::new(rt).await;
    let txn = world.client.begin().await.unwrap();
    let outer = txn.savepoint().unwrap();
    txn.put("a", "1").unwrap();
    let inner = txn.savepoint().unwrap();
    txn.put("b", "2").unwrap();
    outer.rollback().unwrap();
    assert_eq!((value(&txn, "a").await, value(&txn, "b").await), (None, None));
    assert!(matches!(inner.release(), Err(Error::InvalidArgument(_))));
    let open = txn.savepoint().unwrap();
    txn.rollback().unwrap();
    assert_eq!(open.release(), Err(Error::TxnFinished));
    assert!(matches!(txn.savepoint(), Err(Error::TxnFinished)));
}

/// A value is exchanged only for the one that was expected, and the exchange is guarded until the commit.
pub async fn a_value_is_set_only_in_place_of_the_expected_one(rt: &Rt) {
    let world = World::new(rt).await;
    let (first, second) = (world.client.begin().await.unwrap(), world.client.begin().await.unwrap());
    assert!(!first.compare_and_set("k", Some(b"1"), "2").await.unwrap());
    for txn in [&first, &second] {
        assert!(txn.compare_and_set("k", None, "1").await.unwrap());
        assert!(txn.compare_and_set("k", Some(b"1"), "2").await.unwrap());
    }
    first.commit().await.unwrap();
    assert!(matches!(second.commit().await, Err(Error::WriteConflict(_))));
}
