use tikv_core::key::KeyRange;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::write_conflict::Reason;
use tikv_proto::kvrpcpb::{
    Deadlock, Op, PessimisticLockKeyResultType, PessimisticLockRequest, PessimisticLockResponse, TxnHeartBeatRequest,
};

use crate::storage::harness::{Store, commit, force, lock, lock_shared, op, prewrite, prewrite_locked, put, rollback};
use crate::storage::{Config, Handled, LockWait, Outcome, Refusal, Storage};

fn wait_of(handled: Handled<PessimisticLockResponse>) -> LockWait {
    assert_eq!((handled.released.len(), handled.acquired.len()), (0, 0));
    match handled.outcome {
        Outcome::Wait(wait) => *wait,
        outcome => panic!("does not wait: {outcome:?}"),
    }
}

fn waiting(request: PessimisticLockRequest) -> PessimisticLockRequest {
    PessimisticLockRequest { wait_timeout: 1000, ..request }
}

#[test]
fn a_request_that_meets_a_lock_waits_and_keeps_nothing_locked() {
    let mut store = Store::new();
    store.call(&lock(10, 10, "b", &["b"]));
    let wait = wait_of(store.handle(&waiting(lock(20, 20, "a", &["a", "b"]))));
    assert_eq!((wait.key.as_slice(), wait.lock.lock_version), (&b"b"[..], 10));
    assert_eq!((wait.start_ts.version(), wait.timeout_ms, wait.is_force), (20, Some(1000), false));
    assert_eq!(store.locks().len(), 1);
}

#[test]
fn a_timeout_of_zero_is_the_default_one() {
    let mut store = Store::new();
    store.call(&lock(10, 10, "k", &["k"]));
    let request = PessimisticLockRequest { wait_timeout: 0, ..lock(20, 20, "k", &["k"]) };
    assert_eq!(wait_of(store.handle(&request)).timeout_ms, None);
}

#[test]
fn a_request_of_normal_mode_that_wakes_up_has_to_be_sent_again() {
    let mut store = Store::new();
    store.call(&lock(10, 10, "k", &["k"]));
    let wait = wait_of(store.handle(&waiting(lock(20, 20, "k", &["k"]))));
    store.call(&prewrite_locked(10, 10, "k", vec![put("k", "v")]));
    let released = store.handle(&commit(10, &["k"], 30)).released;
    let woken = wait.woken(&released[0]);
    let conflict = woken.errors[0].conflict.clone().unwrap_or_default();
    assert_eq!((conflict.conflict_ts, conflict.conflict_commit_ts), (10, 30));
    assert_eq!((conflict.reason(), woken.results.len()), (Reason::PessimisticRetry, 0));
}

#[test]
fn a_request_of_force_mode_that_wakes_up_resumes() {
    let mut store = Store::new();
    store.call(&lock(10, 10, "k", &["k"]));
    let request = waiting(force(lock(20, 20, "k", &["k"])));
    assert!(wait_of(store.handle(&request)).is_force);
    store.call(&prewrite_locked(10, 10, "k", vec![put("k", "v")]));
    store.call(&commit(10, &["k"], 30));

    let Outcome::Answer(resumed) = store.storage.resume(&KeyRange::ALL, &request).outcome else {
        panic!("the key is free");
    };
    assert_eq!(resumed.results[0].r#type(), PessimisticLockKeyResultType::LockResultLockedWithConflict);
    assert_eq!((resumed.results[0].locked_with_conflict_ts, &resumed.results[0].value[..]), (30, &b"v"[..]));
    assert_eq!(store.locks()[0].lock_for_update_ts, 30);
}

#[test]
fn an_error_of_a_resumed_request_is_one_of_its_key() {
    let mut store = Store::new();
    store.call(&rollback(20, &["k"]));
    let request = waiting(force(lock(20, 20, "k", &["k"])));
    let Outcome::Answer(first) = store.handle(&request).outcome else { panic!("answered") };
    assert_eq!((first.errors.len(), first.results.len()), (1, 0));
    let Outcome::Answer(resumed) = store.storage.resume(&KeyRange::ALL, &request).outcome else { panic!("answered") };
    assert_eq!((resumed.errors.len(), resumed.results.len()), (1, 1));
}

#[test]
fn a_resumed_request_waits_again_for_an_exclusive_lock_but_not_for_shared_ones() {
    let mut store = Store::new();
    let request = waiting(force(lock(20, 20, "k", &["k"])));
    let mut exclusive = store.clone();
    exclusive.call(&lock(10, 10, "k", &["k"]));
    assert!(matches!(exclusive.storage.resume(&KeyRange::ALL, &request).outcome, Outcome::Wait(_)));

    store.call(&lock_shared(10, "p", "k"));
    let Outcome::Answer(answer) = store.storage.resume(&KeyRange::ALL, &request).outcome else { panic!("answered") };
    assert_eq!(answer.errors[0].locked.as_ref().map(|lock| lock.lock_type()), Some(Op::SharedLock));
    assert_eq!(store.call(&lock_shared(11, "p", "k")).errors, [], "it did not keep others from joining");
}

#[test]
fn a_wait_that_fails_is_told_by_key_in_force_mode() {
    let mut store = Store::new();
    store.call(&lock(10, 10, "k", &["k"]));
    let wait = wait_of(store.handle(&waiting(force(lock(20, 20, "k", &["k"])))));
    let deadlock = wait.deadlock(Deadlock { lock_ts: 10, ..Deadlock::default() });
    for (answer, is_locked) in [(wait.locked(), true), (deadlock, false)] {
        assert_eq!(answer.results[0].r#type(), PessimisticLockKeyResultType::LockResultFailed);
        assert_eq!(answer.errors[0].locked.is_some(), is_locked);
    }
}

#[test]
fn an_exclusive_request_keeps_further_transactions_from_sharing() {
    let mut store = Store::new();
    store.call(&lock_shared(10, "p", "k"));
    let blocked = store.call(&waiting(lock(20, 20, "k", &["k"])));
    assert_eq!(blocked.errors[0].locked.as_ref().map(|lock| lock.lock_type()), Some(Op::SharedLock));

    assert_eq!(store.call(&lock_shared(11, "p", "k")).errors.len(), 1, "no newcomer");
    assert_eq!(store.call(&lock_shared(10, "p", "k")).errors, [], "but who is in may stay");
    assert!(matches!(store.handle(&waiting(lock(20, 20, "k", &["k"]))).outcome, Outcome::Wait(_)), "and now one waits");
}

#[test]
fn a_request_that_cannot_be_locked_is_refused() {
    let mut store = Store::new();
    assert_eq!(store.refusal(&lock(10, 10, "k", &[])), Refusal::NoKeys);
    let request = PessimisticLockRequest { mutations: vec![op(Op::Put, "k")], ..lock(10, 10, "k", &[]) };
    assert_eq!(store.refusal(&request), Refusal::UnexpectedOp);
}

#[test]
fn a_lock_in_memory_is_lost_with_the_leader_unless_it_is_written_down() {
    let mut store = Store::new();
    store.call(&lock(10, 10, "a", &["a", "b", "c"]));
    store.storage.persist_memory_locks(&KeyRange::new("b", "c"));
    store.storage.drop_memory_locks(&KeyRange::ALL);
    assert_eq!(store.locks().iter().map(|lock| lock.key.clone()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn without_locks_in_memory_nothing_is_lost() {
    let config = Config { in_memory_pessimistic_locks: false, ..Config::default() };
    let mut store = Store { storage: Storage::new(config), region: KeyRange::ALL };
    store.call(&lock(10, 10, "k", &["k"]));
    store.storage.drop_memory_locks(&KeyRange::ALL);
    assert_eq!(store.locks().len(), 1);
}

#[test]
fn a_lock_kept_alive_and_raised_exists_twice() {
    let mut store = Store::new();
    store.call(&lock(10, 10, "k", &["k"]));
    let beat = TxnHeartBeatRequest {
        primary_lock: "k".into(),
        start_version: 10,
        advise_lock_ttl: 9000,
        ..Default::default()
    };
    store.call(&beat);
    store.call(&lock(10, 15, "k", &["k"]));
    assert_eq!(store.locks()[0].lock_for_update_ts, 10, "a scan shows the stored one");
    store.storage.persist_memory_locks(&KeyRange::ALL);
    assert_eq!(store.locks()[0].lock_for_update_ts, 15, "commands worked with the one in memory");
}

#[test]
fn reading_under_a_lock_makes_later_commits_exceed_its_for_update_ts() {
    let mut store = Store::new();
    store.call(&lock(10, 40, "a", &["a"]));
    assert_eq!(store.storage.max_ts(), Timestamp::ZERO);
    store.call(&PessimisticLockRequest { check_existence: true, ..lock(10, 50, "b", &["b"]) });
    assert_eq!(store.storage.max_ts().version(), 50);
}

#[test]
fn the_value_under_a_chain_of_locks_is_found() {
    let mut store = Store::new();
    store.write("k", "v", 1, 2);
    for start in (10..40).step_by(2) {
        store.commit_mutation(op(Op::Lock, "k"), "k", start, start + 1);
    }
    let answer = store.call(&PessimisticLockRequest { return_values: true, ..lock(50, 50, "k", &["k"]) });
    assert_eq!(answer.values, ["v"]);
    let lock = store.mvcc("k").lock.unwrap_or_default();
    assert_eq!((lock.last_change_ts, lock.versions_to_last_change), (2, 16));
}

#[test]
fn an_optimistic_lock_makes_a_pessimistic_request_wait_too() {
    let mut store = Store::new();
    store.call(&prewrite(10, "k", vec![put("k", "v")]));
    assert_eq!(wait_of(store.handle(&waiting(lock(20, 20, "k", &["k"])))).lock.lock_type(), Op::Put);
}
