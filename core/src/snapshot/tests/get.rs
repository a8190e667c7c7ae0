use std::time::Duration;

use tikv_proto::kvrpcpb::{GetRequest, GetResponse, ResolveLockRequest, ResolveLockResponse};

use super::*;
use crate::error::{CallFailure, Error, KeyError};
use crate::key::MAX_KEY_BYTES;
use crate::machine::script::maybe_executed;
use crate::machine::{Abandoned, Event, Token};
use crate::snapshot::{Get, Isolation, Priority};
use crate::time::Time;

fn get() -> Script<Get> {
    get_with(options(), fresh())
}

fn get_with(options: SnapshotOptions, read_through: ReadThrough) -> Script<Get> {
    script(Get::new(&config(), "b".into(), options, read_through))
}

fn newest() -> SnapshotOptions {
    SnapshotOptions::new(Timestamp::MAX, &config())
}

fn found(text: &'static str) -> GetResponse {
    GetResponse { value: bytes(text), ..Default::default() }
}

fn meets_lock(script: &mut Script<Get>, start_ms: u64) {
    script.expect_call(1, |_: &GetRequest| {});
    script.reply(GetResponse { error: locked("b", start_ms), ..Default::default() });
}

#[test]
fn a_value_is_read_at_the_snapshots_timestamp() {
    let mut script = get();
    script.expect_call(1, |request: &GetRequest| {
        assert_eq!(request.key, "b");
        assert_eq!(request.version, ts(READ_MS).version());
        assert!(!request.need_commit_ts);
    });
    assert_eq!(script.last_context().max_execution_duration_ms, 30_000);
    script.reply(found("v"));
    assert_eq!(script.expect_done().result, Ok(Some(value("v"))));
}

#[test]
fn an_absent_key_has_no_value() {
    for response in [GetResponse { not_found: true, ..Default::default() }, GetResponse::default()] {
        let mut script = get();
        script.expect_call(1, |_: &GetRequest| {});
        script.reply(response);
        assert_eq!(script.expect_done().result, Ok(None));
    }
}

#[test]
fn every_option_reaches_tikv() {
    let options = options()
        .isolation(Isolation::ReadCommitted)
        .priority(Priority::High)
        .not_fill_cache(true)
        .task_id(7)
        .resource_group_tag(bytes("tag"))
        .resource_group("rg1")
        .request_source("external_Select")
        .busy_threshold(Duration::from_millis(50));
    let mut script = get_with(options, fresh());
    script.expect_call(1, |_: &GetRequest| {});
    let context = &script.last_context();
    assert_eq!(context.isolation_level(), kvrpcpb::IsolationLevel::Rc);
    assert_eq!(context.priority(), kvrpcpb::CommandPri::High);
    assert!(context.not_fill_cache);
    assert_eq!((context.task_id, context.busy_threshold_ms), (7, 50));
    assert_eq!(context.resource_group_tag, "tag");
    assert_eq!(context.resource_control_context.as_ref().map(|group| group.resource_group_name.as_str()), Some("rg1"));
    assert_eq!(context.request_source, "external_Select");
}

#[test]
fn a_commit_ts_comes_only_when_it_is_asked_for() {
    for need_commit_ts in [false, true] {
        let mut script = get_with(SnapshotOptions { need_commit_ts, ..options() }, fresh());
        script.expect_call(1, |request: &GetRequest| assert_eq!(request.need_commit_ts, need_commit_ts));
        script.reply(GetResponse { commit_ts: ts(10_000).version(), ..found("v") });
        let commit_ts = need_commit_ts.then(|| ts(10_000));
        assert_eq!(script.expect_done().result, Ok(Some(Value { commit_ts, ..value("v") })));
    }
}

#[test]
fn a_commit_ts_that_was_asked_for_and_does_not_come_is_an_error() {
    let mut script = get_with(SnapshotOptions { need_commit_ts: true, ..options() }, fresh());
    script.expect_call(1, |_: &GetRequest| {});
    script.reply(found("v"));
    let error = script.expect_done().result.expect_err("no commit_ts");
    assert_eq!(error.to_string(), "Get at store-1 was answered with a value without its commit_ts");
}

#[test]
fn arguments_that_no_store_takes_are_refused_before_anything_is_sent() {
    let refused = |key: Key, read_ts| {
        let options = SnapshotOptions { read_ts, ..options() };
        script(Get::new(&config(), key, options, fresh())).expect_done().result.expect_err("refused")
    };
    assert_eq!(refused(Key::EMPTY, ts(1)), Error::EmptyKey);
    assert!(matches!(refused(vec![1; MAX_KEY_BYTES + 1].into(), ts(1)), Error::KeyTooLarge { .. }));
    for version in [0, i64::MAX as u64, u64::MAX - 1] {
        let error = refused("b".into(), Timestamp::from_version(version));
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    }
}

#[test]
fn other_refusals_are_typed() {
    let conflict = kvrpcpb::WriteConflict { conflict_ts: 5, ..Default::default() };
    let conflict = Some(Box::new(kvrpcpb::KeyError { conflict: Some(conflict), ..Default::default() }));
    for (error, is_expected) in [
        (aborted(), (|error| matches!(error, Error::Key(KeyError::Abort(_)))) as fn(&Error) -> bool),
        (conflict, |error| matches!(error, Error::WriteConflict(_))),
    ] {
        let mut script = get();
        script.expect_call(1, |_: &GetRequest| {});
        script.reply(GetResponse { error, ..Default::default() });
        let error = script.expect_done().result.expect_err("refused");
        assert!(is_expected(&error), "{error}");
    }
}

#[test]
fn a_transaction_that_committed_before_is_read_through() {
    let mut script = get();
    meets_lock(&mut script, 10_000);
    status(&mut script, committed(READ_MS));
    script.expect_spawn();
    script.expect_call(1, |_: &GetRequest| {});
    assert_eq!(script.last_context().committed_locks, versions(&[10_000]));
    script.reply(found("v"));
    let read = script.expect_done();
    assert_eq!(learnt(&read), (vec![], vec![ts(10_000)]));
    assert_eq!(read.result, Ok(Some(value("v"))));
}

#[test]
fn what_committed_later_or_never_is_ignored() {
    for response in [committed(READ_MS + 1), rolled_back()] {
        let mut script = get();
        meets_lock(&mut script, 10_000);
        status(&mut script, response);
        script.expect_spawn();
        script.expect_call(1, |_: &GetRequest| {});
        assert_eq!(script.last_context().resolved_locks, versions(&[10_000]));
        script.reply(found("old"));
        let read = script.expect_done();
        assert_eq!(learnt(&read), (vec![ts(10_000)], vec![]));
    }
}

#[test]
fn a_transaction_that_was_pushed_behind_the_read_is_ignored_while_it_lives() {
    let mut script = get();
    meets_lock(&mut script, 10_000);
    status(&mut script, pushed(10_000));
    script.expect_call(1, |_: &GetRequest| {});
    assert_eq!(script.last_context().resolved_locks, versions(&[10_000]));
}

#[test]
fn a_live_lock_is_waited_for_until_it_expires_and_is_rolled_back() {
    let mut script = get();
    meets_lock(&mut script, 10_000);
    status(&mut script, alive(10_000));
    wait(&mut script);
    script.knowledge.clock.learn(script.now(), ts(13_001));
    meets_lock(&mut script, 10_000);
    status(&mut script, rolled_back());
    script.expect_spawn();
    script.expect_call(1, |_: &GetRequest| {});
    script.reply(found("old"));
    assert_eq!(script.expect_done().result, Ok(Some(value("old"))));
}

#[test]
fn a_lock_that_outlives_the_budget_is_named() {
    let mut script = get();
    for _ in 0..10_000 {
        meets_lock(&mut script, 10_000);
        status(&mut script, alive(10_000));
        if let Some(read) = script.take_output() {
            let Err(Error::Locked(lock)) = read.result else { panic!("{read:?}") };
            assert_eq!((lock.key, lock.start_ts), ("b".into(), ts(10_000)));
            return;
        }
        wait(&mut script);
    }
    panic!("no budget lasts that long");
}

#[test]
fn a_lock_that_outlives_the_deadline_is_named() {
    let mut options = options();
    options.call.deadline = Time::from_millis(2);
    let mut script = get_with(options, fresh());
    meets_lock(&mut script, 10_000);
    status(&mut script, alive(10_000));
    script.expect_sleep(|duration, _| assert_eq!(duration, Duration::from_millis(1)));
    script.advance(Duration::from_millis(1)).wake();
    let error = script.expect_done().result.expect_err("late");
    let Error::DeadlineExceeded { last: CallFailure::Locked(lock), .. } = error else { panic!("{error:?}") };
    assert_eq!(lock.start_ts, ts(10_000));
}

#[test]
fn a_transaction_of_which_tikv_was_told_in_vain_is_released_before_the_next_try() {
    let mut script = get();
    meets_lock(&mut script, 10_000);
    status(&mut script, committed(10_500));
    script.expect_spawn();
    // A read that needs commit timestamps cannot read through a lock; nor can any through a lock in memory.
    meets_lock(&mut script, 10_000);
    script.expect_call(1, |request: &ResolveLockRequest| {
        assert_eq!(request.keys, ["b"]);
        assert_eq!(request.commit_version, ts(10_500).version());
    });
    script.reply(ResolveLockResponse::default());
    wait(&mut script);
    script.expect_call(1, |_: &GetRequest| {});
    script.reply(found("v"));
    assert_eq!(script.expect_done().result, Ok(Some(value("v"))));
}

#[test]
fn what_the_snapshot_knows_already_goes_with_the_first_request() {
    let mut known = fresh();
    known.ignore(ts(9_000));
    let mut script = get_with(options(), known.of_transaction(ts(READ_MS)));
    script.expect_call(1, |_: &GetRequest| {});
    assert_eq!(script.last_context().resolved_locks, versions(&[9_000, READ_MS]));
}

#[test]
fn what_is_known_at_another_timestamp_does_not_count() {
    let mut known = ReadThrough::new(ts(5_000));
    known.ignore(ts(4_000));
    let mut script = get_with(options(), known);
    script.expect_call(1, |_: &GetRequest| {});
    assert!(script.last_context().resolved_locks.is_empty());
}

#[test]
fn a_read_of_the_newest_version_is_held_up_by_the_first_transaction_only() {
    let mut script = get_with(newest(), ReadThrough::new(Timestamp::MAX));
    meets_lock(&mut script, 10_000);
    script.expect_call(1, |request: &CheckTxnStatusRequest| assert_eq!(request.caller_start_ts, u64::MAX));
    script.reply(alive(10_000));
    wait(&mut script);
    // Whoever locked the key since then commits after the read began.
    meets_lock(&mut script, 11_500);
    script.expect_call(1, |_: &GetRequest| {});
    assert_eq!(script.last_context().resolved_locks, versions(&[11_500]));
    script.reply(GetResponse { error: locked("b", 10_000), ..Default::default() });
    script.expect_call(1, |request: &CheckTxnStatusRequest| assert_eq!(request.lock_ts, ts(10_000).version()));
}

#[test]
fn a_read_of_the_newest_version_waits_for_an_async_commit_that_may_be_done() {
    let mut script = get_with(newest(), ReadThrough::new(Timestamp::MAX));
    meets_lock(&mut script, 10_000);
    let primary =
        kvrpcpb::LockInfo { use_async_commit: true, min_commit_ts: ts(10_500).version(), ..lock_info("k", 10_000) };
    let lock_info = Some(Box::new(primary));
    let unexpired = CheckTxnStatusResponse { lock_ttl: 3_000, lock_info, ..Default::default() };
    status(&mut script, unexpired.clone());
    wait(&mut script);
    script.knowledge.clock.learn(script.now(), ts(13_001));
    meets_lock(&mut script, 10_000);
    status(&mut script, unexpired);
    script.expect_spawn();
    script.expect_call(1, |_: &GetRequest| {});
    assert_eq!(script.last_context().committed_locks, versions(&[10_000]));
}

#[test]
fn a_read_at_a_timestamp_is_held_up_by_every_transaction() {
    let mut script = get();
    for start_ms in [10_000, 10_100] {
        meets_lock(&mut script, start_ms);
        script.expect_call(1, |request: &CheckTxnStatusRequest| assert_eq!(request.lock_ts, ts(start_ms).version()));
        script.reply(pushed(start_ms));
    }
    script.expect_call(1, |_: &GetRequest| {});
    assert_eq!(script.last_context().resolved_locks, versions(&[10_000, 10_100]));
}

#[test]
fn even_a_read_of_the_newest_version_asks_when_transactions_come_without_end() {
    let mut script = get_with(newest(), ReadThrough::new(Timestamp::MAX));
    meets_lock(&mut script, 10_000);
    status(&mut script, pushed(10_000));
    for start_ms in 10_001..10_001 + 64 {
        meets_lock(&mut script, start_ms);
    }
    meets_lock(&mut script, 20_000);
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
}

#[test]
fn new_transactions_without_end_do_not_make_a_read_spin() {
    let mut script = get();
    for start_ms in 9_001..9_001 + 15 {
        meets_lock(&mut script, start_ms);
        status(&mut script, pushed(start_ms));
    }
    meets_lock(&mut script, 9_500);
    status(&mut script, pushed(9_500));
    wait(&mut script);
    script.expect_call(1, |_: &GetRequest| {});
}

#[test]
fn after_a_lock_only_the_leader_is_asked() {
    let options = options().busy_threshold(Duration::from_millis(50)).with_context(|context| context.stale_read = true);
    let mut script = get_with(options, fresh());
    script.expect_call(1, |_: &GetRequest| {});
    let context = &script.last_context();
    assert!(context.stale_read && context.busy_threshold_ms == 50);
    script.reply(GetResponse { error: locked("b", 10_000), ..Default::default() });
    status(&mut script, pushed(10_000));
    script.expect_call(1, |_: &GetRequest| {});
    let context = &script.last_context();
    assert!(!context.stale_read && context.busy_threshold_ms == 0);
}

#[test]
fn the_time_limit_of_the_first_rpc_is_its_own() {
    let first_timeout = Some(Duration::from_millis(200));
    let mut script = get_with(SnapshotOptions { first_timeout, ..options() }, fresh());
    for (limit_ms, start_ms) in [(200, 10_000), (30_000, 10_100)] {
        script.expect_call(1, |_: &GetRequest| {});
        let call = script.last_call();
        assert_eq!(call.timeout(script.now()), Duration::from_millis(limit_ms));
        assert_eq!(call.context.max_execution_duration_ms, limit_ms);
        script.reply(GetResponse { error: locked("b", start_ms), ..Default::default() });
        status(&mut script, pushed(start_ms));
    }
}

#[test]
fn a_split_on_the_way_is_followed() {
    let mut script = get();
    script.expect_call(1, |_: &GetRequest| {});
    script.region_error(epoch_not_match(vec![split(4, "".."b"), split(1, "b".."g")]));
    script.expect_call(1, |_: &GetRequest| {});
    assert_eq!(script.last_context().region_epoch.map(|epoch| epoch.version), Some(2));
    script.reply(found("v"));
    assert_eq!(script.expect_done().result, Ok(Some(value("v"))));
}

#[test]
fn a_status_check_that_fails_ends_the_read_with_its_error() {
    let mut script = get();
    meets_lock(&mut script, 10_000);
    let asked = script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    let error = kvrpcpb::KeyError { abort: "no".into(), ..Default::default() };
    script.reply_to(asked, CheckTxnStatusResponse { error: Some(Box::new(error)), ..Default::default() });
    assert_eq!(script.expect_done().result, Err(Error::Key(KeyError::Abort("no".into()))));
}

#[test]
fn a_get_can_be_dropped_at_any_step() {
    let mut script = get();
    assert_eq!(script.abandon(), Abandoned::Discard);
    script.expect_call(1, |_: &GetRequest| {});
    script.fault(maybe_executed());
    script.expect_sleep(|_, _| {});
    assert_eq!(script.abandon(), Abandoned::Discard);
}

#[test]
fn events_that_nobody_waits_for_change_nothing() {
    let mut script = get();
    script.expect_call(1, |_: &GetRequest| {});
    script.event(Token(77), Event::Woken).expect_nothing();
    script.reply(found("v"));
    assert_eq!(script.expect_done().result, Ok(Some(value("v"))));
}
