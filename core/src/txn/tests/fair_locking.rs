//! Fair locking: attempts, what they keep, and what they release.

use std::time::Duration;

use bytes::Bytes;
use tikv_proto::kvrpcpb::{
    PessimisticLockKeyResult, PessimisticLockKeyResultType, PessimisticLockRequest, PessimisticLockResponse,
    PessimisticLockWakeUpMode, PrewriteRequest,
};

use super::*;
use crate::error::InvalidLock;
use crate::txn::{LockedKey, PessimisticRollback};

const NOW: Time = Time::from_millis(1);

fn fair(mut txn: Transaction) -> Transaction {
    txn.start_fair_locking(NOW).expect("normal");
    txn
}

fn with_values() -> LockOptions {
    LockOptions::default().return_values()
}

/// Expects the request of fair locking for a key.
fn expect_fair_lock(script: &mut Script<LockKeys>, key: &str, for_update_ts: Timestamp) -> Token {
    let lock = expect_lock(script, &[key], for_update_ts);
    assert!(matches!(&script.last_call().request, Request::PessimisticLock(request)
        if request.wake_up_mode() == PessimisticLockWakeUpMode::WakeUpModeForceLock));
    lock
}

fn result(value: &'static str) -> PessimisticLockResponse {
    let result = PessimisticLockKeyResult { value: value.into(), existence: true, ..Default::default() };
    PessimisticLockResponse { results: vec![result], ..Default::default() }
}

fn result_at(value: &'static str, conflict_ts: Timestamp) -> PessimisticLockResponse {
    let mut response = result(value);
    response.results[0].set_type(PessimisticLockKeyResultType::LockResultLockedWithConflict);
    response.results[0].locked_with_conflict_ts = conflict_ts.version();
    response
}

/// Locks a key fairly at `ts(2_000)`, with this answer.
fn lock(txn: &mut Transaction, key: &str, answer: PessimisticLockResponse) -> LockedKey {
    let is_first = txn.keep_alive().is_none_or(|beats| beats.primary().as_slice() != b"k");
    let mut script = locking(txn, &[key], with_values());
    let lock = expect_fair_lock(&mut script, key, ts(2_000));
    script.reply_to(lock, answer);
    if is_first && matches!(script.peek(), Some(Command::Sleep { .. })) {
        let beats = expect_beats(&mut script);
        script.expect_cancel(beats);
    }
    end_lock(&mut script, txn).expect("locked").keys.remove(0)
}

/// What a call for a key is told without asking TiKV.
fn held(txn: &mut Transaction, now: Time, key: &str, options: LockOptions) -> Option<LockedKey> {
    let request = txn.begin_lock(now, as_keys(&[key]), options).expect("a request");
    if request.keys().next().is_some() {
        txn.abandon_lock();
        return None;
    }
    let mut script = Script::with_knowledge(LockKeys::new(request), two_regions());
    Some(end_lock(&mut script, txn).expect("held").keys.remove(0))
}

fn released_by(rollback: Option<PessimisticRollback>) -> (Vec<String>, Vec<Timestamp>) {
    rollback.map_or_else(Default::default, |rollback| released(BackgroundMachine::new(rollback)))
}

fn no_keys() -> (Vec<String>, Vec<Timestamp>) {
    Default::default()
}

#[test]
fn a_lock_that_met_a_newer_version_is_taken_as_of_that_version() {
    let mut txn = fair(pessimistic());
    let locked = lock(&mut txn, "a", result_at("new", ts(2_100)));
    assert!(locked.in_conflict && locked.is_locked);
    assert_eq!((locked.value, locked.exists, locked.lock_ts), (Some(Bytes::from("new")), Some(true), ts(2_100)));
    assert!(txn.is_locked_fairly(&"a".into()) && txn.holds_lock(b"a"));
    assert_eq!(txn.for_update_ts(), ts(2_100), "whatever is committed comes after that version");
}

#[test]
fn the_next_attempt_finds_its_locks_without_asking_tikv() {
    let mut txn = fair(pessimistic());
    lock(&mut txn, "a", result_at("new", ts(2_100)));
    assert_eq!(released_by(txn.retry_fair_locking(NOW).expect("fair")), no_keys());
    assert!(!txn.is_locked_fairly(&"a".into()));
    let held = held(&mut txn, NOW, "a", with_values()).expect("held");
    assert!(!held.in_conflict && held.was_locked);
    assert_eq!(held.value, Some("new".into()));
    assert_eq!(released_by(txn.finish_fair_locking().expect("fair")), no_keys());
    assert_eq!(txn.keep_alive().expect("a heartbeat").primary().as_slice(), b"a");
}

#[test]
fn what_the_next_attempt_does_not_want_is_released_at_the_newest_timestamp_of_a_lock() {
    let mut txn = fair(pessimistic());
    lock(&mut txn, "a", result("old"));
    lock(&mut txn, "b", result_at("new", ts(2_100)));
    assert_eq!(released_by(txn.retry_fair_locking(NOW).expect("fair")), no_keys());
    held(&mut txn, NOW, "a", with_values()).expect("held");
    // Only now is it known that nobody wants the other one.
    let released = released_by(txn.finish_fair_locking().expect("fair"));
    assert_eq!(released, (vec!["b".into()], vec![ts(2_100)]));
    assert!(txn.holds_lock(b"a") && !txn.holds_lock(b"b"));
}

#[test]
fn an_attempt_that_follows_another_releases_what_the_other_did_not_want() {
    let mut txn = fair(holding(&["k"]));
    lock(&mut txn, "a", result("1"));
    txn.retry_fair_locking(NOW).expect("fair");
    lock(&mut txn, "b", result("2"));
    assert_eq!(released_by(txn.retry_fair_locking(NOW).expect("fair")).0, ["a"]);
    assert_eq!(released_by(txn.cancel_fair_locking().expect("fair")).0, ["b"]);
    assert!(txn.holds_lock(b"k"), "it was locked before");
}

#[test]
fn a_key_is_locked_again_if_more_is_asked_than_is_known() {
    let mut txn = fair(holding(&["k"]));
    let mut script = locking(&mut txn, &["a"], LockOptions::default());
    let lock = expect_fair_lock(&mut script, "a", ts(2_000));
    script.reply_to(lock, result(""));
    end_lock(&mut script, &mut txn).expect("locked");
    txn.retry_fair_locking(NOW).expect("fair");
    let mut same = txn.clone();
    assert!(held(&mut same, NOW, "a", LockOptions::default()).is_some());
    assert!(held(&mut txn.clone(), NOW, "a", LockOptions::default().check_existence()).is_none());
    assert!(held(&mut txn, NOW, "a", with_values()).is_none());
}

#[test]
fn a_key_is_locked_again_if_its_lock_may_have_expired() {
    let mut txn = fair(holding(&["k"]));
    lock(&mut txn, "a", result("1"));
    txn.retry_fair_locking(NOW).expect("fair");
    let later = NOW + Duration::from_secs(20);
    assert!(held(&mut txn.clone(), NOW + Duration::from_millis(19_999), "a", with_values()).is_some());
    assert!(held(&mut txn, later, "a", with_values()).is_none());
}

#[test]
fn a_key_is_locked_again_if_its_lock_names_another_primary() {
    let mut txn = fair(pessimistic());
    lock(&mut txn, "a", result("1"));
    lock(&mut txn, "b", result("2"));
    txn.retry_fair_locking(NOW).expect("fair");
    // The heartbeat goes on for the old primary until there is a new one.
    assert_eq!(txn.keep_alive().expect("a heartbeat").primary().as_slice(), b"a");
    let mut script = locking(&mut txn, &["b"], with_values());
    script.expect_call(1, |request: &PessimisticLockRequest| {
        assert_eq!(request.primary_lock, "b");
        assert!(!request.is_first_lock);
    });
    script.reply(result("2"));
    let beats = expect_beats(&mut script);
    script.expect_cancel(beats);
    end_lock(&mut script, &mut txn).expect("locked");
    assert_eq!(txn.keep_alive().expect("a heartbeat").primary().as_slice(), b"b");
    assert!(held(&mut txn, NOW, "a", with_values()).is_none());
}

#[test]
fn a_key_that_is_refused_though_the_attempt_before_has_locked_it_is_released() {
    let mut txn = fair(holding(&["k"]));
    lock(&mut txn, "a", result("1"));
    txn.retry_fair_locking(NOW).expect("fair");
    txn.start_fair_locking(NOW).expect_err("it is fair already");
    let later = NOW + Duration::from_secs(30);
    let request = txn.begin_lock(later, as_keys(&["a"]), with_values().must_not_exist()).expect("a request");
    let mut script = Script::with_knowledge(LockKeys::new(request), two_regions());
    script.expect_timestamp();
    script.timestamp(ts(32_000));
    let lock = expect_fair_lock(&mut script, "a", ts(32_000));
    let already_exist = Some(kvrpcpb::AlreadyExist { key: "a".into() });
    refuse_lock(&mut script, lock, kvrpcpb::KeyError { already_exist, ..Default::default() });
    assert_eq!(released(script.expect_spawn()), (vec!["a".into()], vec![ts(32_000)]));
    assert_eq!(end_lock(&mut script, &mut txn), Err(Error::KeyExists { key: "a".into() }));
}

#[test]
fn fair_locking_that_is_cancelled_leaves_nothing_of_it() {
    let mut txn = fair(pessimistic());
    lock(&mut txn, "a", result("1"));
    txn.retry_fair_locking(NOW).expect("fair");
    lock(&mut txn, "b", result("2"));
    assert_eq!(released_by(txn.cancel_fair_locking().expect("fair")).0, ["a", "b"]);
    assert_eq!(txn.keep_alive(), None);
    assert_eq!(txn.cancel_fair_locking(), Err(InvalidLock::NotFair.into()));
    assert_eq!(txn.begin_commit().expect("a request").mutations.len(), 0);
}

#[test]
fn a_call_for_several_keys_ends_fair_locking_and_keeps_its_locks() {
    let mut txn = fair(pessimistic());
    lock(&mut txn, "a", result("1"));
    txn.retry_fair_locking(NOW).expect("fair");
    held(&mut txn, NOW, "a", with_values()).expect("held");
    lock(&mut txn, "d", result("1"));
    let mut script = locking(&mut txn, &["b", "c"], LockOptions::default());
    let normal = |request: &PessimisticLockRequest| {
        assert_eq!(request.wake_up_mode(), PessimisticLockWakeUpMode::WakeUpModeNormal);
    };
    script.expect_call(1, normal);
    script.reply(PessimisticLockResponse::default());
    end_lock(&mut script, &mut txn).expect("locked");
    assert!(!txn.is_fair_locking());
    assert!([&b"a"[..], b"b", b"c", b"d"].iter().all(|key| txn.holds_lock(key)));
}

#[test]
fn what_the_end_of_fair_locking_has_no_use_for_is_released_by_the_call_that_ends_it() {
    let mut txn = fair(holding(&["k"]));
    lock(&mut txn, "a", result("1"));
    txn.retry_fair_locking(NOW).expect("fair");
    let request = txn.begin_lock(NOW, as_keys(&["b", "c"]), LockOptions::default()).expect("a request");
    let mut script = Script::with_knowledge(LockKeys::new(request), two_regions());
    assert_eq!(released(script.expect_spawn()).0, ["a"]);
}

#[test]
fn shared_locks_are_not_fair() {
    let error =
        fair(holding(&["k"])).begin_lock(NOW, as_keys(&["a"]), LockOptions::default().shared()).expect_err("not fair");
    assert_eq!(error, InvalidLock::SharedInFairLocking.into());
}

#[test]
fn a_transaction_commits_only_when_its_fair_locking_has_ended_or_has_locked_nothing() {
    let mut txn = fair(pessimistic());
    assert!(txn.clone().begin_commit().is_ok());
    lock(&mut txn, "a", result("1"));
    assert_eq!(txn.begin_commit().expect_err("undecided"), InvalidLock::Fair.into());
    txn.rollback().expect("open");
    assert_eq!(released_by(txn.release()), (vec!["a".into()], vec![Timestamp::MAX]));
}

#[test]
fn prewrite_insists_on_the_timestamps_of_fair_locks() {
    let mut txn = fair(holding(&["k"]));
    lock(&mut txn, "b", result_at("1", ts(2_100)));
    lock(&mut txn, "a", result("1"));
    txn.finish_fair_locking().expect("fair");
    txn.set("b", "2").expect("set");
    let request = txn.begin_commit().expect("a request");
    let mut script = Script::with_knowledge(Commit::new(request), two_regions());
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Heartbeat));
    script.expect_call(1, |request: &PrewriteRequest| {
        let constraints = request.for_update_ts_constraints.iter();
        let constraints = constraints.map(|constraint| (constraint.index, constraint.expected_for_update_ts));
        let expected = [(0, ts(2_000).version()), (1, ts(2_100).version())];
        assert_eq!(constraints.collect::<Vec<_>>(), expected);
        assert_eq!(request.for_update_ts, ts(2_100).version());
        assert_eq!(request.min_commit_ts, ts(2_100).next().version());
    });
}

#[test]
fn answers_of_normal_locking_are_not_believed() {
    let answers = [PessimisticLockResponse::default(), result_at("1", ts(1_900)), {
        let mut failed = result("1");
        failed.results[0].set_type(PessimisticLockKeyResultType::LockResultFailed);
        failed
    }];
    for answer in answers {
        let mut txn = fair(holding(&["k"]));
        let mut script = locking(&mut txn, &["a"], with_values());
        let lock = expect_fair_lock(&mut script, "a", ts(2_000));
        script.reply_to(lock, answer);
        script.expect_spawn();
        let error = end_lock(&mut script, &mut txn).expect_err("nonsense");
        assert!(matches!(error, Error::WrongResponse { .. }), "{error}");
    }
}

#[test]
fn a_call_that_was_given_up_is_released_once_more_at_the_end_whatever_it_has_locked() {
    let mut txn = fair(holding(&["k"]));
    let mut script = locking(&mut txn, &["a"], with_values());
    expect_fair_lock(&mut script, "a", ts(2_000));
    script.abandon();
    assert_eq!(released(script.expect_spawn()), (vec!["a".into(), "a".into()], vec![ts(2_000)]));
    // TiKV may have locked it at a newer version, which that release spares.
    txn.abandon_lock();
    txn.rollback().expect("open");
    assert_eq!(
        released_by(txn.release()),
        (vec!["a".into(), "k".into(), "a".into(), "k".into()], vec![Timestamp::MAX])
    );
}

/// A request of fair locking that was given up may still wait in TiKV, and raise a lock that was taken later.
#[test]
fn prewrite_insists_on_the_timestamps_of_later_locks_of_the_same_keys() {
    let mut txn = fair(holding(&["k"]));
    lock(&mut txn, "b", result("1"));
    txn.cancel_fair_locking().expect("fair");
    let mut script = locking(&mut txn, &["a", "b"], LockOptions::default());
    let token = expect_lock(&mut script, &["a", "b"], ts(2_000));
    accept_lock(&mut script, token);
    end_lock(&mut script, &mut txn).expect("locked");
    let request = txn.begin_commit().expect("a request");
    let mut script = Script::with_knowledge(Commit::new(request), two_regions());
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Heartbeat));
    script.expect_call(1, |request: &PrewriteRequest| {
        let constraints = request.for_update_ts_constraints.iter();
        let constraints = constraints.map(|constraint| (constraint.index, constraint.expected_for_update_ts));
        assert_eq!(constraints.collect::<Vec<_>>(), [(1, ts(2_000).version())], "of b, not of a and k");
    });
}
