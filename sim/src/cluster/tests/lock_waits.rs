use tikv_proto::kvrpcpb::{PessimisticLockResponse, PessimisticRollbackRequest};

use super::*;

fn lock(key: &'static str, start_ts: u64, wait_timeout: i64) -> PessimisticLockRequest {
    let mutation = Mutation { op: Op::PessimisticLock.into(), key: key.into(), ..Mutation::default() };
    PessimisticLockRequest {
        mutations: vec![mutation],
        primary_lock: key.into(),
        start_version: start_ts,
        for_update_ts: start_ts,
        lock_ttl: 3_000,
        wait_timeout,
        ..PessimisticLockRequest::default()
    }
}

/// Fair locking.
fn force_lock(key: &'static str, start_ts: u64) -> PessimisticLockRequest {
    let mut request = lock(key, start_ts, 0);
    request.set_wake_up_mode(kvrpcpb::PessimisticLockWakeUpMode::WakeUpModeForceLock);
    request
}

fn unlock(key: &'static str, start_ts: u64) -> Request {
    let keys = vec![key.into()];
    PessimisticRollbackRequest { keys, start_version: start_ts, for_update_ts: start_ts, ..Default::default() }.into()
}

fn serve(cluster: &mut Cluster, now: Time, request: impl Into<Request>) -> Served {
    let (store_id, context) = cluster.leader_context(encoded(b"a").as_slice()).unwrap();
    cluster.handle_store(now, store_id, &context, request.into())
}

fn waits(cluster: &mut Cluster, now: Time, request: PessimisticLockRequest) -> CallId {
    match serve(cluster, now, request) {
        Served::Later(call) => call,
        Served::Answered(reply) => panic!("answered at once: {reply:?}"),
    }
}

fn answered(served: Served) -> PessimisticLockResponse {
    match served {
        Served::Answered(Ok(Response::PessimisticLock(response))) => *response,
        other => panic!("{other:?}"),
    }
}

fn next_answer(cluster: &mut Cluster, now: Time) -> (CallId, PessimisticLockResponse) {
    let (call, reply) = cluster.poll_reply(now).expect("there is an answer");
    (call, answered(Served::Answered(reply)))
}

#[test]
fn a_request_that_waits_is_told_to_retry_when_the_lock_goes() {
    let mut cluster = cluster();
    assert_eq!(answered(serve(&mut cluster, NOW, lock("a", 10, 0))).errors, []);
    let call = waits(&mut cluster, NOW, lock("a", 20, 500));
    assert_eq!(cluster.poll_reply(NOW), None);
    serve(&mut cluster, NOW, unlock("a", 10));
    let (woken, reply) = next_answer(&mut cluster, NOW);
    let conflict = reply.errors[0].conflict.as_ref().unwrap();
    assert_eq!((woken, conflict.start_ts, conflict.conflict_ts), (call, 20, 10));
}

#[test]
fn a_wait_ends_with_the_lock_when_its_time_is_up_and_never_lasts_longer_than_the_server_wants() {
    let mut cluster = cluster();
    serve(&mut cluster, NOW, lock("a", 10, 0));
    for (asked_ms, granted_ms) in [(300, 300), (0, 1_000), (60_000, 1_000)] {
        let call = waits(&mut cluster, NOW, lock("a", 20, asked_ms));
        let at = cluster.next_wakeup().unwrap();
        assert_eq!(at, NOW + Duration::from_millis(granted_ms));
        let (timed_out, reply) = next_answer(&mut cluster, at);
        assert_eq!((timed_out, reply.errors[0].locked.as_ref().unwrap().lock_version), (call, 10));
    }
}

#[test]
fn the_oldest_is_woken_first_and_the_others_soon_after() {
    let mut cluster = cluster();
    serve(&mut cluster, NOW, lock("a", 10, 0));
    let young = waits(&mut cluster, NOW, lock("a", 30, 500));
    let old = waits(&mut cluster, NOW, lock("a", 20, 500));
    serve(&mut cluster, NOW, unlock("a", 10));
    assert_eq!(next_answer(&mut cluster, NOW).0, old);
    assert_eq!(cluster.poll_reply(NOW), None);
    // Who comes only now does not belong to them.
    serve(&mut cluster, NOW, lock("a", 25, 0));
    let late = waits(&mut cluster, NOW, lock("a", 40, 500));
    let at = NOW + Duration::from_millis(20);
    assert_eq!(cluster.next_wakeup(), Some(at));
    assert_eq!(next_answer(&mut cluster, at).0, young);
    assert_eq!(cluster.poll_reply(at), None);
    serve(&mut cluster, at, unlock("a", 25));
    assert_eq!(next_answer(&mut cluster, at).0, late);
}

#[test]
fn a_request_of_fair_locking_gets_the_lock_and_the_others_wait_for_it() {
    let mut cluster = cluster();
    serve(&mut cluster, NOW, lock("a", 10, 0));
    let first = waits(&mut cluster, NOW, force_lock("a", 20));
    let second = waits(&mut cluster, NOW, force_lock("a", 30));
    serve(&mut cluster, NOW, unlock("a", 10));
    let (call, reply) = next_answer(&mut cluster, NOW);
    assert_eq!((call, reply.errors.len(), reply.results.len()), (first, 0, 1));
    assert_eq!(cluster.poll_reply(NOW), None);
    serve(&mut cluster, NOW, unlock("a", 20));
    assert_eq!(next_answer(&mut cluster, NOW).0, second);
}

#[test]
fn a_request_of_fair_locking_hears_of_an_epoch_that_changed_while_it_waited() {
    let mut cluster = cluster();
    serve(&mut cluster, NOW, lock("a", 10, 0));
    let call = waits(&mut cluster, NOW, force_lock("a", 20));
    cluster.split(&encoded(b"g")).unwrap();
    serve(&mut cluster, NOW, unlock("a", 10));
    let (woken, reply) = next_answer(&mut cluster, NOW);
    assert_eq!(woken, call);
    // The left part is a new region: the old one no longer holds the key.
    let error = reply.region_error.unwrap();
    assert!(error.epoch_not_match.is_some(), "{error:?}");
}

#[test]
fn a_wait_that_would_close_a_circle_is_a_deadlock() {
    let mut cluster = cluster();
    for (key, start_ts) in [("a", 10), ("b", 20), ("c", 30)] {
        serve(&mut cluster, NOW, lock(key, start_ts, 0));
    }
    waits(&mut cluster, NOW, lock("b", 10, 500));
    waits(&mut cluster, NOW, lock("c", 20, 500));
    let reply = answered(serve(&mut cluster, NOW, lock("a", 30, 500)));
    let deadlock = reply.errors[0].deadlock.as_ref().unwrap();
    assert_eq!((deadlock.lock_ts, &deadlock.lock_key[..]), (10, &b"a"[..]));
    // The key that the victim holds, and on which the circle closes.
    assert_eq!((&deadlock.deadlock_key[..], deadlock.deadlock_key_hash), (&b"c"[..], fingerprint(b"c")));
    let chain: Vec<_> = deadlock.wait_chain.iter().map(|entry| (entry.txn, entry.wait_for_txn)).collect();
    assert_eq!(chain, [(10, 20), (20, 30), (30, 10)]);
}

#[test]
fn the_first_lock_of_a_transaction_is_never_a_deadlock() {
    let mut cluster = cluster();
    serve(&mut cluster, NOW, lock("a", 10, 0));
    waits(&mut cluster, NOW, PessimisticLockRequest { is_first_lock: true, ..lock("a", 20, 500) });
}

#[test]
fn who_waits_for_a_new_holder_may_be_in_a_circle_at_last() {
    let mut cluster = cluster();
    serve(&mut cluster, NOW, lock("a", 10, 0));
    serve(&mut cluster, NOW, lock("b", 30, 0));
    let waiter = waits(&mut cluster, NOW, force_lock("a", 20));
    let victim = waits(&mut cluster, NOW, force_lock("a", 30));
    waits(&mut cluster, NOW, lock("b", 20, 500));
    // Transaction 20 gets "a": 30, which waits for it, holds what 20 waits for.
    serve(&mut cluster, NOW, unlock("a", 10));
    let mut answers: Vec<_> = std::iter::from_fn(|| cluster.poll_reply(NOW)).collect();
    answers.sort_by_key(|(call, _)| *call);
    let calls: Vec<_> = answers.iter().map(|(call, _)| *call).collect();
    assert_eq!(calls, [waiter, victim]);
    let Ok(Response::PessimisticLock(reply)) = &answers[1].1 else { panic!() };
    assert!(reply.errors[0].deadlock.is_some());
}

#[test]
fn a_crash_cuts_waits_off_and_loses_the_locks_in_memory() {
    let mut cluster = cluster();
    serve(&mut cluster, NOW, lock("a", 10, 0));
    let call = waits(&mut cluster, NOW, lock("a", 20, 500));
    let leader = region_of(&cluster, b"a").leader.unwrap();
    cluster.stop_store(NOW, leader).unwrap();
    assert_eq!(cluster.poll_reply(NOW), Some((call, Err(CallError::Disconnected))));
    let later = NOW + Duration::from_secs(1);
    cluster.poll_reply(later);
    assert_eq!(answered(serve(&mut cluster, later, lock("a", 20, 500))).errors, []);
}

#[test]
fn locks_in_memory_are_handed_over_with_the_leadership() {
    let mut cluster = cluster();
    serve(&mut cluster, NOW, lock("a", 10, 0));
    let region = region_of(&cluster, b"a");
    cluster.transfer_leader(region.id(), follower_of(&region)).unwrap();
    waits(&mut cluster, NOW, lock("a", 20, 500));
}

#[test]
fn a_store_tells_who_waits_there() {
    let mut cluster = cluster();
    serve(&mut cluster, NOW, lock("a", 10, 0));
    waits(&mut cluster, NOW, lock("a", 20, 500));
    let now = NOW + Duration::from_millis(30);
    let request = kvrpcpb::GetLockWaitInfoRequest::default();
    let Served::Answered(Ok(Response::LockWaitInfo(info))) = serve(&mut cluster, now, request) else { panic!() };
    let entry = &info.entries[0];
    assert_eq!((entry.txn, entry.wait_for_txn, &entry.key[..], entry.wait_time), (20, 10, &b"a"[..], 30));
}
