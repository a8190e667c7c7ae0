use std::time::Duration;

use tikv_proto::kvrpcpb::{BatchGetRequest, BatchGetResponse, KvPair};

use super::*;
use crate::backoff::BackoffKind;
use crate::error::{Error, KeyError};
use crate::machine::Token;
use crate::snapshot::BatchGet;

fn batch_get(names: &[&str]) -> Script<BatchGet> {
    batch_get_with(names, options())
}

fn batch_get_with(names: &[&str], options: SnapshotOptions) -> Script<BatchGet> {
    script(BatchGet::new(&config(), keys(names), options, fresh()))
}

fn expect(script: &mut Script<BatchGet>, names: &[&str]) -> Token {
    script.expect_call(1, |request: &BatchGetRequest| {
        assert_eq!(request.keys, names);
        assert_eq!(request.version, ts(READ_MS).version());
    })
}

fn pairs(pairs: Vec<KvPair>) -> BatchGetResponse {
    BatchGetResponse { pairs, ..Default::default() }
}

/// TiKV refuses a whole request: the error is there twice, once for clients of old.
fn refused_for_lock(key: &'static str, start_ms: u64) -> BatchGetResponse {
    BatchGetResponse { error: locked(key, start_ms), pairs: vec![locked_pair(key, start_ms)], ..Default::default() }
}

#[test]
fn keys_go_to_their_regions_side_by_side_and_come_back_in_order() {
    let mut script = batch_get(&["z", "b", "h", "a"]);
    let first = expect(&mut script, &["a", "b"]);
    assert_eq!(script.last_context().max_execution_duration_ms, 60_000);
    let second = expect(&mut script, &["h"]);
    let third = expect(&mut script, &["z"]);
    script.reply_to(third, pairs(vec![kv("z", "4")]));
    script.reply_to(first, pairs(vec![kv("b", "2")]));
    script.reply_to(second, pairs(vec![kv("h", "3")]));
    assert_eq!(script.expect_done().result, Ok(vec![pair("b", "2"), pair("h", "3"), pair("z", "4")]));
}

#[test]
fn a_key_that_is_asked_for_twice_is_read_once() {
    let mut script = batch_get(&["a", "b", "a"]);
    expect(&mut script, &["a", "b"]);
    script.reply(pairs(vec![kv("a", "1"), kv("b", "2")]));
    assert_eq!(script.expect_done().result, Ok(vec![pair("a", "1"), pair("b", "2")]));
}

#[test]
fn no_keys_no_requests() {
    assert_eq!(batch_get(&[]).expect_done().result, Ok(vec![]));
}

#[test]
fn no_request_has_more_keys_than_the_limit() {
    let mut script = batch_get_with(&["a", "b", "c"], SnapshotOptions { batch_get_size: 2, ..options() });
    expect(&mut script, &["a", "b"]);
    expect(&mut script, &["c"]);
}

#[test]
fn keys_that_no_store_takes_are_refused_before_anything_is_sent() {
    assert_eq!(batch_get(&["a", ""]).expect_done().result, Err(Error::EmptyKey));
}

#[test]
fn commit_timestamps_come_when_they_are_asked_for() {
    let mut script = batch_get_with(&["a"], SnapshotOptions { need_commit_ts: true, ..options() });
    script.expect_call(1, |request: &BatchGetRequest| assert!(request.need_commit_ts));
    script.reply(pairs(vec![KvPair { commit_ts: ts(9).version(), ..kv("a", "1") }]));
    let expected = Pair { key: "a".into(), value: Value { commit_ts: Some(ts(9)), ..value("1") } };
    assert_eq!(script.expect_done().result, Ok(vec![expected]));
}

#[test]
fn only_the_locked_keys_are_asked_for_again() {
    let mut script = batch_get(&["a", "b", "c", "d"]);
    expect(&mut script, &["a", "b", "c", "d"]);
    script.reply(pairs(vec![kv("a", "1"), locked_pair("b", 10_000), kv("c", "3"), locked_pair("d", 10_100)]));
    let first =
        script.expect_call(1, |request: &CheckTxnStatusRequest| assert_eq!(request.lock_ts, ts(10_000).version()));
    let second =
        script.expect_call(1, |request: &CheckTxnStatusRequest| assert_eq!(request.lock_ts, ts(10_100).version()));
    script.reply_to(first, committed(10_500));
    script.expect_spawn();
    script.reply_to(second, pushed(10_100));
    expect(&mut script, &["b", "d"]);
    let context = &script.last_context();
    assert_eq!(context.committed_locks, versions(&[10_000]));
    assert_eq!(context.resolved_locks, versions(&[10_100]));
    script.reply(pairs(vec![kv("b", "2")]));
    let read = script.expect_done();
    assert_eq!(learnt(&read), (vec![ts(10_100)], vec![ts(10_000)]));
    assert_eq!(read.result, Ok(vec![pair("a", "1"), pair("b", "2"), pair("c", "3")]));
}

#[test]
fn after_the_refusal_of_a_whole_request_all_its_keys_are_asked_for_again() {
    let mut script = batch_get(&["a", "b", "z"]);
    let refused = expect(&mut script, &["a", "b"]);
    let other = expect(&mut script, &["z"]);
    script.reply_to(refused, refused_for_lock("b", 10_000));
    status(&mut script, pushed(10_000));
    let again = expect(&mut script, &["a", "b"]);
    script.reply_to(again, pairs(vec![kv("a", "1"), kv("b", "2")]));
    script.reply_to(other, pairs(vec![]));
    assert_eq!(script.expect_done().result, Ok(vec![pair("a", "1"), pair("b", "2")]));
}

#[test]
fn what_one_region_teaches_is_told_to_the_next_request_of_another() {
    let mut script = batch_get(&["a", "z"]);
    let first = expect(&mut script, &["a"]);
    let second = expect(&mut script, &["z"]);
    script.reply_to(first, refused_for_lock("a", 10_000));
    status(&mut script, pushed(10_000));
    expect(&mut script, &["a"]);
    script.reply(pairs(vec![]));
    // The same transaction, met elsewhere by a request that had left before.
    script.reply_to(second, pairs(vec![locked_pair("z", 10_000)]));
    status(&mut script, pushed(10_000));
    expect(&mut script, &["z"]);
    assert_eq!(script.last_context().resolved_locks, versions(&[10_000]));
    script.expect_nothing();
}

#[test]
fn a_live_lock_holds_up_its_own_keys_only() {
    let mut script = batch_get(&["a", "z"]);
    let first = expect(&mut script, &["a"]);
    let second = expect(&mut script, &["z"]);
    script.reply_to(first, pairs(vec![locked_pair("a", 10_000)]));
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.reply(alive(10_000));
    let timer = script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::LockAlive));
    script.reply_to(second, pairs(vec![kv("z", "9")])).expect_nothing();
    script.event(timer, crate::machine::Event::Woken);
    expect(&mut script, &["a"]);
    script.reply(pairs(vec![kv("a", "1")]));
    assert_eq!(script.expect_done().result, Ok(vec![pair("a", "1"), pair("z", "9")]));
}

#[test]
fn a_transaction_of_which_tikv_was_told_in_vain_is_waited_for() {
    let mut script = batch_get(&["a"]);
    expect(&mut script, &["a"]);
    script.reply(pairs(vec![locked_pair("a", 10_000)]));
    status(&mut script, pushed(10_000));
    expect(&mut script, &["a"]);
    script.reply(pairs(vec![locked_pair("a", 10_000)]));
    status(&mut script, pushed(10_000));
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::LockAlive));
}

#[test]
fn a_split_sends_the_keys_of_that_request_to_their_new_regions() {
    let mut script = batch_get(&["a", "h", "k"]);
    let untouched = expect(&mut script, &["a"]);
    expect(&mut script, &["h", "k"]);
    script.region_error(epoch_not_match(vec![split(2, "g".."j"), split(4, "j".."p")]));
    let tokens = [expect(&mut script, &["h"]), expect(&mut script, &["k"])];
    assert_eq!(script.last_context().region_id, 4);
    for (token, (key, text)) in tokens.into_iter().zip([("h", "1"), ("k", "2")]) {
        script.reply_to(token, pairs(vec![kv(key, text)]));
    }
    script.reply_to(untouched, pairs(vec![]));
    assert_eq!(script.expect_done().result, Ok(vec![pair("h", "1"), pair("k", "2")]));
}

#[test]
fn a_store_that_says_split_again_and_again_is_not_hammered() {
    let mut script = batch_get(&["h"]);
    for _ in 0..2 {
        expect(&mut script, &["h"]);
        script.region_error(epoch_not_match(vec![split(2, "g".."p")]));
    }
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::RegionMiss)));
}

#[test]
fn a_split_while_a_lock_is_resolved_loses_nothing_that_was_read() {
    let mut script = batch_get(&["h", "i", "k"]);
    expect(&mut script, &["h", "i", "k"]);
    script.reply(pairs(vec![kv("h", "1"), locked_pair("i", 10_000), locked_pair("k", 10_000)]));
    status(&mut script, pushed(10_000));
    expect(&mut script, &["i", "k"]);
    script.region_error(epoch_not_match(vec![split(2, "g".."j"), split(4, "j".."p")]));
    for (key, text) in [("i", "2"), ("k", "3")] {
        expect(&mut script, &[key]);
        script.reply(pairs(vec![kv(key, text)]));
    }
    assert_eq!(script.expect_done().result, Ok(vec![pair("h", "1"), pair("i", "2"), pair("k", "3")]));
}

#[test]
fn a_key_that_was_not_asked_for_is_nonsense() {
    let mut script = batch_get(&["a"]);
    expect(&mut script, &["a"]);
    script.reply(pairs(vec![kv("b", "1")]));
    assert!(matches!(script.expect_done().result, Err(Error::WrongResponse { operation: "BatchGet", .. })));
}

#[test]
fn a_lock_without_its_key_hides_the_whole_answer() {
    let mut script = batch_get(&["a", "b"]);
    expect(&mut script, &["a", "b"]);
    script.reply(pairs(vec![kv("a", "1"), locked_pair("", 10_000)]));
    status(&mut script, pushed(10_000));
    expect(&mut script, &["a", "b"]);
    script.reply(pairs(vec![kv("a", "1"), kv("b", "2")]));
    assert_eq!(script.expect_done().result, Ok(vec![pair("a", "1"), pair("b", "2")]));
}

#[test]
fn a_refusal_ends_the_read_and_cancels_what_is_left() {
    let mut script = batch_get(&["a", "h", "z"]);
    let first = expect(&mut script, &["a"]);
    let second = expect(&mut script, &["h"]);
    let third = expect(&mut script, &["z"]);
    script.reply_to(second, pairs(vec![locked_pair("h", 10_000)]));
    let status = script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    let refusal = KvPair { error: aborted(), ..Default::default() };
    script.reply_to(first, pairs(vec![refusal]));
    script.expect_cancel(third).expect_cancel(status);
    assert_eq!(script.expect_done().result, Err(Error::Key(KeyError::Abort("no".into()))));
}

#[test]
fn the_time_limit_of_the_first_rpcs_is_their_own() {
    let first_timeout = Some(Duration::from_millis(200));
    let mut script = batch_get_with(&["a"], SnapshotOptions { first_timeout, ..options() });
    expect(&mut script, &["a"]);
    assert_eq!(script.last_call().timeout(script.now()), Duration::from_millis(200));
    script.reply(pairs(vec![locked_pair("a", 10_000)]));
    status(&mut script, pushed(10_000));
    expect(&mut script, &["a"]);
    assert_eq!(script.last_call().timeout(script.now()), Duration::from_secs(60));
}
