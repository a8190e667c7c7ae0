//! Calls that lock keys, and succeed.

use std::time::Duration;

use bytes::Bytes;
use tikv_proto::kvrpcpb::{Assertion, Op, PessimisticLockRequest, PessimisticLockResponse};

use super::*;
use crate::error::InvalidLock;
use crate::txn::{LockWait, LockedKey};

/// What the first request says.
fn first_request(txn: &mut Transaction, keys: &[&str], options: LockOptions) -> PessimisticLockRequest {
    let mut script = locking(txn, keys, options);
    let mut seen = None;
    script.expect_call(1, |request: &PessimisticLockRequest| seen = Some(request.clone()));
    seen.expect("a request")
}

fn keys_of(locked: &Locked) -> Vec<(&[u8], bool)> {
    locked.keys.iter().map(|key| (key.key.as_slice(), key.was_locked)).collect()
}

#[test]
fn the_first_lock_of_a_transaction_becomes_its_primary_and_is_taken_before_all_others() {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["z", "a", "b"], LockOptions::default());
    script.expect_call(1, |request: &PessimisticLockRequest| {
        let expected = PessimisticLockRequest {
            mutations: ["a", "b"].map(|key| lock_of(key, Assertion::None)).to_vec(),
            primary_lock: "a".into(),
            start_version: start_ts().version(),
            lock_ttl: 20_000,
            for_update_ts: ts(2_000).version(),
            min_commit_ts: ts(2_000).next().version(),
            context: request.context.clone(),
            ..Default::default()
        };
        assert_eq!(*request, expected);
    });
    script.expect_nothing();
    script.reply(PessimisticLockResponse::default());
    let beats = expect_beats(&mut script);
    let other = script.expect_call(1, |request: &PessimisticLockRequest| {
        assert_eq!(
            (names(&[request.mutations[0].key.clone()]), &request.primary_lock[..]),
            (vec!["z".into()], &b"a"[..])
        );
    });
    accept_lock(&mut script, other);
    script.expect_cancel(beats);
    let locked = end_lock(&mut script, &mut txn).expect("locked");
    assert_eq!(keys_of(&locked), [(&b"a"[..], false), (b"b", false), (b"z", false)]);
    assert_eq!(locked.for_update_ts, ts(2_000));
    assert_eq!(txn.for_update_ts(), ts(2_000));
    assert!(["a", "b", "z"].iter().all(|key| txn.holds_lock(key.as_bytes())));
}

fn lock_of(key: &'static str, assertion: Assertion) -> kvrpcpb::Mutation {
    let (op, assertion) = (Op::PessimisticLock.into(), assertion.into());
    kvrpcpb::Mutation { op, key: key.into(), assertion, ..Default::default() }
}

#[test]
fn a_later_call_names_the_same_primary_and_need_not_wait_for_it() {
    let mut txn = holding(&["k"]);
    let mut script = locking(&mut txn, &["a", "z"], LockOptions::default());
    let locks = [expect_lock(&mut script, &["a"], ts(2_000)), expect_lock(&mut script, &["z"], ts(2_000))];
    for lock in locks {
        accept_lock(&mut script, lock);
    }
    end_lock(&mut script, &mut txn).expect("locked");
    assert_eq!(txn.keep_alive().expect("a heartbeat").primary().as_slice(), b"k");
}

#[test]
fn keys_that_are_given_twice_or_held_already_are_locked_once() {
    let mut txn = holding(&["a"]);
    let mut script = locking(&mut txn, &["b", "a", "b"], LockOptions::default());
    let lock = expect_lock(&mut script, &["b"], ts(2_000));
    accept_lock(&mut script, lock);
    let locked = end_lock(&mut script, &mut txn).expect("locked");
    assert_eq!(keys_of(&locked), [(&b"a"[..], true), (b"b", false)]);
    // Nothing is left to do: PD is not even asked for a timestamp.
    let request =
        txn.begin_lock(Time::from_millis(1), as_keys(&["a", "b"]), LockOptions::default()).expect("a request");
    let mut script = Script::with_knowledge(LockKeys::new(request), two_regions());
    assert_eq!(keys_of(&end_lock(&mut script, &mut txn).expect("held")), [(&b"a"[..], true), (b"b", true)]);
}

#[test]
fn a_transaction_that_holds_nothing_and_wants_one_key_says_that_nobody_can_wait_for_it() {
    let is_first =
        |txn: &mut Transaction, keys: &[&str]| first_request(txn, keys, LockOptions::default()).is_first_lock;
    assert!(is_first(&mut pessimistic(), &["a"]));
    assert!(!is_first(&mut pessimistic(), &["a", "b"]));
    assert!(!is_first(&mut holding(&["a"]), &["b"]));
}

#[test]
fn locks_live_as_long_as_the_transaction_has_lasted_and_the_life_of_a_lock_more() {
    let mut txn = pessimistic();
    let request = txn.begin_lock(Time::from_millis(1), as_keys(&["a"]), LockOptions::default()).expect("a request");
    let mut script = Script::with_knowledge(LockKeys::new(request), two_regions());
    script.expect_timestamp();
    script.advance(Duration::from_millis(7_500)).timestamp(ts(9_500));
    script.expect_call(1, |request: &PessimisticLockRequest| assert_eq!(request.lock_ttl, 27_500));
}

#[test]
fn tikv_is_told_how_long_to_wait() {
    let wait_of = |options| first_request(&mut pessimistic(), &["a"], options).wait_timeout;
    let wait = |wait| wait_of(LockOptions::default().wait(wait));
    assert_eq!(wait_of(LockOptions::default()), 0);
    assert_eq!(wait(LockWait::NoWait), -1);
    assert_eq!(wait(LockWait::For(Duration::ZERO)), -1);
    assert_eq!(wait(LockWait::For(Duration::from_millis(2_500))), 2_500);
    assert!(wait(LockWait::Always) > 1_000_000_000_000);
    let soon = LockOptions::default().deadline(Time::from_millis(301));
    let first_alarm = |options: LockOptions| {
        let mut txn = pessimistic();
        let request = txn.begin_lock(Time::from_millis(1), as_keys(&["a"]), options).expect("a request");
        let mut script = Script::with_knowledge(LockKeys::new(request), two_regions());
        let alarm = script.expect_alarm();
        script.expect_timestamp();
        script.timestamp(ts(2_000));
        script.expect_cancel(alarm);
        let mut wait = 0;
        script.expect_call(1, |request: &PessimisticLockRequest| wait = request.wait_timeout);
        wait
    };
    assert_eq!(first_alarm(soon.wait(LockWait::Always)), 300);
    assert_eq!(first_alarm(soon.wait(LockWait::For(Duration::from_secs(1)))), 300);
}

#[test]
fn values_are_returned_as_of_the_lock() {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["a", "b"], LockOptions::default().return_values());
    let lock = script.expect_call(1, |request: &PessimisticLockRequest| assert!(request.return_values));
    let (values, not_founds) = (vec![Bytes::from("1"), Bytes::new()], vec![false, true]);
    script.reply_to(lock, PessimisticLockResponse { values, not_founds, ..Default::default() });
    let beats = expect_beats(&mut script);
    script.expect_cancel(beats);
    let locked = end_lock(&mut script, &mut txn).expect("locked");
    let of = |key: &LockedKey| (key.value.clone(), key.exists, key.lock_ts, key.is_locked);
    assert_eq!(of(&locked.keys[0]), (Some("1".into()), Some(true), ts(2_000), true));
    assert_eq!(of(&locked.keys[1]), (None, Some(false), ts(2_000), true));
}

#[test]
fn existence_is_returned_without_values() {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["a", "b"], LockOptions::default().check_existence());
    let lock = script.expect_call(1, |request: &PessimisticLockRequest| {
        assert_eq!((request.return_values, request.check_existence), (false, true));
    });
    script.reply_to(lock, PessimisticLockResponse { not_founds: vec![true, false], ..Default::default() });
    let beats = expect_beats(&mut script);
    script.expect_cancel(beats);
    let locked = end_lock(&mut script, &mut txn).expect("locked");
    let known: Vec<_> = locked.keys.iter().map(|key| (key.value.clone(), key.exists)).collect();
    assert_eq!(known, [(None, Some(false)), (None, Some(true))]);
}

#[test]
fn a_key_that_does_not_exist_is_left_unlocked_if_that_is_wanted_and_is_no_primary() {
    let options = LockOptions::default().return_values().lock_only_if_exists();
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["a"], options);
    let lock = script.expect_call(1, |request: &PessimisticLockRequest| assert!(request.lock_only_if_exists));
    let absent = PessimisticLockResponse { values: vec![Bytes::new()], not_founds: vec![true], ..Default::default() };
    script.reply_to(lock, absent);
    let locked = end_lock(&mut script, &mut txn).expect("an answer");
    assert!(!locked.keys[0].is_locked);
    assert!(!txn.holds_lock(b"a"));
    assert_eq!(txn.keep_alive(), None);
    assert_eq!(first_request(&mut txn, &["b"], LockOptions::default()).primary_lock, "b");
}

#[test]
fn several_keys_are_locked_only_if_they_exist_when_there_is_a_primary() {
    let options = LockOptions::default().return_values().lock_only_if_exists();
    let error = pessimistic().begin_lock(Time::ZERO, as_keys(&["a", "b"]), options).expect_err("no primary");
    assert_eq!(error, InvalidLock::OnlyIfExistsWithoutPrimary.into());
    let mut txn = holding(&["k"]);
    let mut script = locking(&mut txn, &["a", "b"], options);
    let lock = expect_lock(&mut script, &["a", "b"], ts(2_000));
    let (values, not_founds) = (vec![Bytes::from("1"), Bytes::new()], vec![false, true]);
    script.reply_to(lock, PessimisticLockResponse { values, not_founds, ..Default::default() });
    end_lock(&mut script, &mut txn).expect("locked");
    assert_eq!((txn.holds_lock(b"a"), txn.holds_lock(b"b")), (true, false));
}

#[test]
fn options_that_contradict_each_other_are_refused_before_anything_is_sent() {
    let begin = |options| pessimistic().begin_lock(Time::ZERO, as_keys(&["a"]), options).expect_err("refused");
    let only_if_exists = LockOptions::default().lock_only_if_exists();
    assert_eq!(begin(only_if_exists), InvalidLock::OnlyIfExistsWithoutValues.into());
    assert_eq!(begin(only_if_exists.return_values().must_not_exist()), InvalidLock::OnlyIfExistsAndAbsent.into());
    let shared = LockOptions::default().shared();
    assert_eq!(begin(shared), InvalidLock::SharedWithoutPrimary.into());
    assert_eq!(begin(shared.return_values()), InvalidLock::SharedWithValues.into());
    assert_eq!(begin(shared.check_existence()), InvalidLock::SharedWithValues.into());
    let mut optimistic = Transaction::new(&Config::default(), start_ts(), Time::ZERO, options());
    let error = optimistic.begin_lock(Time::ZERO, as_keys(&["a"]), LockOptions::default()).expect_err("refused");
    assert_eq!(error, InvalidLock::Optimistic.into());
    let error = pessimistic().begin_lock(Time::ZERO, as_keys(&[""]), LockOptions::default()).expect_err("refused");
    assert_eq!(error, Error::EmptyKey);
}

#[test]
fn one_call_at_a_time_locks_and_the_transaction_cannot_commit_meanwhile() {
    let mut txn = pessimistic();
    txn.begin_lock(Time::ZERO, as_keys(&["a"]), LockOptions::default()).expect("a request");
    let error = txn.begin_lock(Time::ZERO, as_keys(&["b"]), LockOptions::default()).expect_err("refused");
    assert_eq!(error, InvalidLock::Concurrent.into());
    assert_eq!(txn.begin_commit().expect_err("refused"), InvalidLock::Concurrent.into());
}

#[test]
fn a_shared_lock_stays_shared() {
    let mut txn = holding(&["k"]);
    let mut script = locking(&mut txn, &["a"], LockOptions::default().shared());
    let lock = script.expect_call(1, |request: &PessimisticLockRequest| {
        assert_eq!(request.mutations[0].op(), Op::SharedPessimisticLock);
        assert_eq!(request.primary_lock, "k");
    });
    accept_lock(&mut script, lock);
    end_lock(&mut script, &mut txn).expect("locked");
    let error = txn.begin_lock(Time::ZERO, as_keys(&["a"]), LockOptions::default()).expect_err("no upgrade");
    assert_eq!(error, InvalidLock::SharedUpgrade { key: "a".into() }.into());
    let again = txn.begin_lock(Time::ZERO, as_keys(&["a", "k"]), LockOptions::default().shared()).expect("held");
    assert_eq!(again.keys().count(), 0);
}

#[test]
fn a_key_that_was_inserted_is_locked_only_if_it_is_absent() {
    let mut txn = pessimistic();
    txn.insert("a", "1").expect("inserted");
    let request = first_request(&mut txn, &["a", "b"], LockOptions::default());
    assert_eq!(request.mutations, [lock_of("a", Assertion::NotExist), lock_of("b", Assertion::None)]);
    let options = LockOptions::default().must_not_exist();
    assert_eq!(first_request(&mut pessimistic(), &["a"], options).mutations, [lock_of("a", Assertion::NotExist)]);
}

#[test]
fn what_is_known_of_a_locked_key_decides_whether_it_can_be_inserted() {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["a", "b"], LockOptions::default().check_existence());
    let lock = expect_lock(&mut script, &["a", "b"], ts(2_000));
    script.reply_to(lock, PessimisticLockResponse { not_founds: vec![true, false], ..Default::default() });
    let beats = expect_beats(&mut script);
    script.expect_cancel(beats);
    end_lock(&mut script, &mut txn).expect("locked");
    assert_eq!(txn.insert("a", "1"), Ok(()));
    assert_eq!(txn.insert("b", "1"), Err(Error::KeyExists { key: "b".into() }));
    // The prewrite of a locked key checks nothing, so that to guess would be to lose a value.
    let mut txn = holding(&["a"]);
    assert_eq!(txn.insert("a", "1"), Err(InvalidLock::ExistenceUnknown { key: "a".into() }.into()));
}

#[test]
fn the_lock_of_the_primary_is_kept_alive_while_others_are_taken_and_afterwards() {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, &["a", "z"], LockOptions::default());
    let lock = expect_lock(&mut script, &["a"], ts(2_000));
    accept_lock(&mut script, lock);
    let nap = expect_beats(&mut script);
    let other = expect_lock(&mut script, &["z"], ts(2_000));
    script.advance(Duration::from_secs(10)).event(nap, Event::Woken);
    script.expect_timestamp();
    script.timestamp(ts(12_000));
    script.expect_call(1, |beat: &kvrpcpb::TxnHeartBeatRequest| {
        assert_eq!((&beat.primary_lock[..], beat.advise_lock_ttl), (&b"a"[..], 31_000));
    });
    script.reply(kvrpcpb::TxnHeartBeatResponse { lock_ttl: 31_000, ..Default::default() });
    let nap = expect_beats(&mut script);
    accept_lock(&mut script, other);
    script.expect_cancel(nap);
    end_lock(&mut script, &mut txn).expect("locked");
    // The next beat is not put off by the change of hands.
    let mut keep_alive = Script::with_knowledge(txn.keep_alive().expect("a heartbeat"), two_regions());
    keep_alive.advance(Duration::from_secs(4));
    keep_alive.expect_sleep(|sleep, _| assert_eq!(sleep, Duration::from_secs(6)));
}
