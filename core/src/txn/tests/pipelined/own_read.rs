//! A pipelined transaction reads what it has written, wherever that is by now.

use super::super::super::OwnReadEnd;
use super::*;
use crate::key::Key;

fn begin_read(txn: &PipelinedTransaction, keys: &[&str]) -> Script<OwnRead> {
    let request = txn.begin_read(as_keys(keys)).expect("an open transaction");
    let options = SnapshotOptions::new(start_ts(), &Config::default());
    Script::with_knowledge(OwnRead::new(request, options, ReadThrough::new(start_ts())), two_regions())
}

fn expect_buffer_get(script: &mut Script<OwnRead>, keys: &[&str]) -> Token {
    script.expect_call(1, |request: &kvrpcpb::BufferBatchGetRequest| {
        assert_eq!(names(&request.keys), keys);
        assert_eq!(request.version, start_ts().version());
    })
}

fn expect_snapshot_get(script: &mut Script<OwnRead>, keys: &[&str]) -> Token {
    let token = script.expect_call(1, |request: &kvrpcpb::BatchGetRequest| {
        assert_eq!(names(&request.keys), keys);
        assert_eq!(request.version, start_ts().version());
    });
    assert_eq!(script.last_context().resolved_locks, [start_ts().version()], "its own locks hide nothing from it");
    token
}

fn pairs_of(pairs: &[(&str, &str)]) -> Vec<kvrpcpb::KvPair> {
    let pair = |(key, value): &(&str, &str)| kvrpcpb::KvPair {
        key: (*key).to_owned().into(),
        value: (*value).to_owned().into(),
        ..Default::default()
    };
    pairs.iter().map(pair).collect()
}

fn buffered(script: &mut Script<OwnRead>, token: Token, pairs: &[(&str, &str)]) {
    script.reply_to(token, kvrpcpb::BufferBatchGetResponse { pairs: pairs_of(pairs), ..Default::default() });
}

fn stored(script: &mut Script<OwnRead>, token: Token, pairs: &[(&str, &str)]) {
    script.reply_to(token, kvrpcpb::BatchGetResponse { pairs: pairs_of(pairs), ..Default::default() });
}

fn shown(end: &OwnReadEnd) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let pairs = end.result.as_ref().expect("pairs");
    pairs.iter().map(|pair| format!("{}={}", text(pair.key.as_slice()), text(&pair.value.bytes))).collect()
}

/// Keys `b` to `x` may have been flushed.
fn flushed_b_to_x() -> PipelinedTransaction {
    flushed(&["b", "x"])
}

/// client-go: `TestPipelinedMemDBBufferGet`, `TestPipelinedSkipFlushedLock`.
#[test]
fn what_was_flushed_is_read_back_and_what_was_not_comes_from_the_snapshot() {
    let mut txn = flushed_b_to_x();
    txn.set("d", "mine").expect("a write");
    let mut script = begin_read(&txn, &["z", "x", "d", "c", "b", "e"]);
    let first = expect_buffer_get(&mut script, &["b", "c", "e"]);
    let second = expect_buffer_get(&mut script, &["x"]);
    buffered(&mut script, first, &[("b", "flushed"), ("e", "")]);
    buffered(&mut script, second, &[("x", "flushed")]);
    let one = expect_snapshot_get(&mut script, &["c"]);
    let other = expect_snapshot_get(&mut script, &["z"]);
    stored(&mut script, other, &[]);
    stored(&mut script, one, &[("c", "stored")]);
    let end = script.expect_done();
    assert_eq!(shown(&end), ["b=flushed", "c=stored", "d=mine", "x=flushed"]);
}

#[test]
fn before_the_first_flush_has_ended_and_outside_of_its_range_nothing_is_asked_of_the_buffer() {
    let mut txn = pipelined_txn();
    put_all(&mut txn, &["b", "x"]);
    let mut script = begin_read(&txn, &["a"]);
    expect_snapshot_get(&mut script, &["a"]);
    let mut flush = begin_flush(&mut txn);
    let mut script = begin_read(&txn, &["c"]);
    expect_snapshot_get(&mut script, &["c"]);
    let first = expect_flush(&mut flush, &["b"], 1);
    accept_flush(&mut flush, first);
    let beats = expect_beats(&mut flush, 10);
    let second = expect_flush(&mut flush, &["x"], 1);
    accept_flush(&mut flush, second);
    txn.end_flush(&flush.expect_cancel(beats).expect_done());
    let mut script = begin_read(&txn, &["a", "y"]);
    expect_snapshot_get(&mut script, &["a"]);
    expect_snapshot_get(&mut script, &["y"]);
}

/// client-go: `TestPipelinedPrefetch`, `TestMemBufferBatchGetCache`.
#[test]
fn what_was_read_of_the_flushed_is_remembered_until_the_next_flush() {
    let mut txn = flushed_b_to_x();
    let read_all = |txn: &PipelinedTransaction| {
        let mut script = begin_read(txn, &["b", "c", "d"]);
        let call = expect_buffer_get(&mut script, &["b", "c", "d"]);
        buffered(&mut script, call, &[("b", "flushed"), ("c", "")]);
        let call = expect_snapshot_get(&mut script, &["d"]);
        stored(&mut script, call, &[("d", "stored")]);
        script.expect_done()
    };
    let end = read_all(&txn);
    assert_eq!(shown(&end), ["b=flushed", "d=stored"]);
    txn.end_read(&end);
    let mut script = begin_read(&txn, &["b", "c", "d"]);
    let call = expect_snapshot_get(&mut script, &["d"]);
    stored(&mut script, call, &[]);
    assert_eq!(shown(&script.expect_done()), ["b=flushed"], "the value and the deletion are known");
    // A flush by itself brings the cache to an end.
    put_all(&mut txn, &["k"]);
    flush(&mut txn);
    let end = read_all(&txn);
    // And what was learnt before a flush counts for nothing after it.
    put_all(&mut txn, &["k"]);
    flush(&mut txn);
    txn.end_read(&end);
    read_all(&txn);
}

#[test]
fn no_more_is_remembered_than_there_is_room_for() {
    let mut txn = pipelined_with(|options| options.read_cache_bytes = 8);
    put_all(&mut txn, &["a", "b"]);
    flush(&mut txn);
    let mut script = begin_read(&txn, &["a", "b"]);
    let call = expect_buffer_get(&mut script, &["a", "b"]);
    buffered(&mut script, call, &[("a", "value"), ("b", "value")]);
    txn.end_read(&script.expect_done());
    let mut script = begin_read(&txn, &["a", "b"]);
    expect_buffer_get(&mut script, &["b"]);
}

#[test]
fn a_read_follows_its_keys_through_a_split() {
    let txn = flushed_b_to_x();
    let mut script = begin_read(&txn, &["c", "h"]);
    expect_buffer_get(&mut script, &["c", "h"]);
    script.region_error(split_into([(2, "".."f"), (4, "f".."m")]));
    let first = expect_buffer_get(&mut script, &["c"]);
    let second = expect_buffer_get(&mut script, &["h"]);
    buffered(&mut script, second, &[("h", "2")]);
    buffered(&mut script, first, &[("c", "1")]);
    assert_eq!(shown(&script.expect_done()), ["c=1", "h=2"]);
}

#[test]
fn an_answer_with_keys_that_nobody_asked_for_is_refused() {
    for pairs in [&[("q", "1")][..], &[("c", "1"), ("c", "2")]] {
        let txn = flushed_b_to_x();
        let mut script = begin_read(&txn, &["c"]);
        let call = expect_buffer_get(&mut script, &["c"]);
        buffered(&mut script, call, pairs);
        let end = script.expect_done();
        assert!(
            matches!(end.result, Err(Error::WrongResponse { operation: "BufferBatchGet", .. })),
            "{:?}",
            end.result
        );
    }
}

#[test]
fn a_refusal_fails_the_read_and_cancels_the_others() {
    let refusal = kvrpcpb::KeyError { abort: "no".into(), ..Default::default() };
    let whole = kvrpcpb::BufferBatchGetResponse { error: Some(Box::new(refusal.clone())), ..Default::default() };
    let pair = kvrpcpb::KvPair { key: "c".into(), error: Some(Box::new(refusal)), ..Default::default() };
    let of_a_pair = kvrpcpb::BufferBatchGetResponse { pairs: vec![pair], ..Default::default() };
    for response in [whole, of_a_pair] {
        let mut txn = flushed_b_to_x();
        let mut script = begin_read(&txn, &["c", "w"]);
        let first = expect_buffer_get(&mut script, &["c"]);
        let second = expect_buffer_get(&mut script, &["w"]);
        script.reply_to(first, response);
        script.expect_cancel(second);
        let end = script.expect_done();
        assert!(matches!(end.result, Err(Error::Key(_))));
        txn.end_read(&end);
        assert_eq!(txn.state(), TxnState::Open, "a read can be repeated");
    }
}

#[test]
fn a_failure_of_the_snapshot_fails_the_read() {
    let txn = flushed_b_to_x();
    let mut script = begin_read(&txn, &["c"]);
    let call = expect_buffer_get(&mut script, &["c"]);
    buffered(&mut script, call, &[]);
    let call = expect_snapshot_get(&mut script, &["c"]);
    let refusal = kvrpcpb::KeyError { abort: "no".into(), ..Default::default() };
    let response = kvrpcpb::BatchGetResponse { error: Some(Box::new(refusal)), ..Default::default() };
    script.reply_to(call, response);
    assert!(matches!(script.expect_done().result, Err(Error::Key(_))));
}

#[test]
fn keys_that_no_store_would_take_are_refused_at_once() {
    let txn = flushed_b_to_x();
    assert_eq!(txn.begin_read([Key::EMPTY]).err(), Some(Error::EmptyKey));
    assert!(matches!(txn.begin_read([Key::from(vec![b'k'; 70_000])]), Err(Error::KeyTooLarge { .. })));
    let mut script = begin_read(&txn, &[]);
    assert_eq!(
        shown(&{
            script.expect_nothing();
            script.expect_done()
        }),
        Vec::<String>::new()
    );
}
