//! What a pipelined transaction knows between its calls.

use std::time::Duration;

use super::*;
use crate::snapshot::Pair;

const KIB: usize = 1 << 10;

/// client-go: `TestPipelinedFlushTrigger`, `TestPipelinedFlushSkip`, and the picture in `needFlush`.
#[test]
fn it_is_flushed_when_it_is_large_and_has_many_keys_or_when_it_is_very_large() {
    let due = |keys: usize, bytes_of_value: usize| {
        let mut txn = pipelined_with(|options| {
            (options.min_flush_keys, options.min_flush_bytes, options.force_flush_bytes) = (10, 16 * KIB, 128 * KIB);
        });
        for key in 0..keys {
            txn.set(format!("k{key:04}"), vec![b'v'; bytes_of_value]).expect("a write");
        }
        txn.flush_due()
    };
    assert_eq!(due(0, 1), FlushDue::No);
    assert_eq!(due(100, 1), FlushDue::No, "many keys, little memory");
    assert_eq!(due(9, 4 * KIB), FlushDue::No, "much memory, few keys");
    assert_eq!(due(10, 4 * KIB), FlushDue::Now, "both");
    assert_eq!(due(1, 256 * KIB), FlushDue::Now, "very much memory");
}

#[test]
fn the_defaults_are_those_of_client_go() {
    let options = PipelinedOptions::default();
    let limits = (options.min_flush_keys, options.min_flush_bytes, options.force_flush_bytes);
    assert_eq!(limits, (10_000, 16 << 20, 128 << 20));
    assert_eq!((options.flush_concurrency, options.resolve_concurrency, options.write_throttle_permille), (128, 8, 0));
}

/// client-go: `TestPipelinedFlushBlock`, `TestPipelinedAdjustFlushCondition`.
#[test]
fn one_flush_runs_at_a_time_and_a_full_buffer_has_to_wait_for_it() {
    let mut txn = pipelined_with(|options| options.force_flush_bytes = 4 * KIB);
    put_all(&mut txn, &["a", "b"]);
    assert_eq!(txn.flush_due(), FlushDue::Now);
    let mut script = begin_flush(&mut txn);
    put_all(&mut txn, &["c", "d"]);
    assert_eq!(txn.flush_due(), FlushDue::No, "the flush before runs");
    assert_eq!(txn.begin_flush(), Ok(None));
    txn.set("e", vec![b'v'; 4 * KIB]).expect("there was room");
    assert_eq!(txn.flush_due(), FlushDue::Blocked);
    assert!(matches!(txn.set("f", "value"), Err(Error::BufferFull { limit_bytes: 4096, .. })));
    assert!(matches!(txn.delete("f"), Err(Error::BufferFull { .. })));
    assert!(matches!(txn.insert("f", "value"), Err(Error::BufferFull { .. })));
    assert_eq!(txn.state(), TxnState::Open, "nothing is lost");

    let first = expect_flush(&mut script, &["a", "b"], 1);
    accept_flush(&mut script, first);
    let beats = expect_beats(&mut script, 10);
    script.expect_cancel(beats);
    txn.end_flush(&script.expect_done());
    assert_eq!(txn.flush_due(), FlushDue::Now);
    let requests = flush(&mut txn);
    assert_eq!((requests[0].generation, txn.generation()), (2, 2));
    txn.set("f", "value").expect("there is room");
}

/// client-go: `TestPipelinedFlushGeneration`, `TestPipelinedFlushSize`.
#[test]
fn generations_count_from_one_and_sizes_add_up() {
    let mut txn = pipelined_txn();
    assert_eq!((txn.generation(), txn.size()), (0, (0, 0)));
    assert_eq!(txn.begin_flush(), Ok(None), "there is nothing");
    for generation in 1..=3 {
        put_all(&mut txn, &["a", "b"]);
        let requests = flush(&mut txn);
        assert!(requests.iter().all(|request| request.generation == generation));
        assert_eq!((txn.generation(), txn.size()), (generation, (2 * generation as usize, 12 * generation as usize)));
    }
}

#[test]
fn the_primary_is_the_first_key_that_is_locked_and_stays_so() {
    let mut txn = pipelined_txn();
    txn.insert("a", "1").expect("a write");
    txn.delete("a").expect("a write");
    assert_eq!(flush(&mut txn)[0].primary_key, "a", "nothing is locked, so that any key will do");
    assert_eq!((txn.primary(), txn.keep_alive()), (None, None));
    put_all(&mut txn, &["m", "z"]);
    let primaries: Vec<_> = flush(&mut txn).into_iter().map(|request| request.primary_key).collect();
    assert_eq!(primaries, ["m"]);
    put_all(&mut txn, &["a", "b"]);
    assert_eq!(flush(&mut txn)[0].primary_key, "m");
    assert_eq!(txn.primary(), Some(&"m".into()));
}

/// A lock's life counts from the beginning of its transaction.
#[test]
fn the_first_lock_of_an_old_transaction_lives_as_long_as_that_of_a_young_one() {
    let mut txn = pipelined_txn();
    put_all(&mut txn, &["a"]);
    let mut script = begin_flush(&mut txn);
    script.advance(Duration::from_secs(60));
    script.expect_call(1, |request: &kvrpcpb::FlushRequest| assert_eq!(request.lock_ttl, 80_000));
}

#[test]
fn what_cannot_be_written_changes_nothing() {
    let mut txn = pipelined_txn();
    assert_eq!(txn.set("", "value"), Err(Error::EmptyKey));
    assert!(matches!(txn.set("a", ""), Err(Error::EmptyValue { .. })));
    assert!(matches!(txn.set(vec![b'a'; 70_000], "value"), Err(Error::KeyTooLarge { .. })));
    assert!(matches!(txn.set("a", vec![0; 7 << 20]), Err(Error::EntryTooLarge { .. })));
    assert!(matches!(txn.assert_existence("a", true), Err(Error::InvalidArgument(_))));
    assert!(txn.has_nothing_to_flush());
}

#[test]
fn options_that_let_nothing_through_are_refused() {
    let refused = |change: fn(&mut PipelinedOptions)| {
        let mut options = PipelinedOptions::default();
        change(&mut options);
        matches!(options.check(), Err(Error::InvalidArgument(_)))
    };
    assert!(refused(|options| options.flush_concurrency = 0));
    assert!(refused(|options| options.resolve_concurrency = 0));
    assert!(refused(|options| options.write_throttle_permille = 1000));
    assert!(!refused(|_| {}));
}

#[test]
fn a_key_that_the_transaction_has_set_cannot_be_inserted() {
    let mut txn = pipelined_txn();
    txn.set("a", "1").expect("a write");
    assert!(matches!(txn.insert("a", "2"), Err(Error::KeyExists { .. })));
    let mut script = begin_flush(&mut txn);
    assert!(matches!(txn.insert("a", "2"), Err(Error::KeyExists { .. })), "it is being flushed");
    let first = expect_flush(&mut script, &["a"], 1);
    accept_flush(&mut script, first);
    let beats = expect_beats(&mut script, 10);
    txn.end_flush(&script.expect_cancel(beats).expect_done());
    txn.insert("a", "2").expect("TiKV will tell");
    let requests = flush(&mut txn);
    assert_eq!(requests[0].mutations[0].op(), kvrpcpb::Op::Insert);
}

#[test]
fn the_failure_of_a_flush_ends_the_transaction_and_is_told_whenever_it_is_used() {
    let mut txn = flushed(&["a", "z"]);
    put_all(&mut txn, &["b"]);
    let mut script = begin_flush(&mut txn);
    let second = expect_flush(&mut script, &["b"], 2);
    refuse_flush(&mut script, second, conflict_with(ts(1_500), "b"));
    let end = script.expect_done();
    txn.end_flush(&end);
    assert_eq!(txn.state(), TxnState::RolledBack);
    let is_conflict = |error: Error| matches!(error, Error::WriteConflict(_));
    assert!(txn.set("c", "value").is_err_and(is_conflict));
    assert!(txn.delete("c").is_err_and(is_conflict));
    assert!(txn.begin_flush().is_err_and(is_conflict));
    assert!(txn.begin_read(as_keys(&["c"])).is_err_and(is_conflict));
    assert!(txn.begin_commit().is_err_and(is_conflict));
    assert_eq!((txn.rollback(), txn.flush_due()), (Err(Error::TxnFinished), FlushDue::No));
    let machine = txn.release().expect("something is locked");
    assert_eq!(rolled_back_by(BackgroundMachine::new(machine)), ["roll back a", "resolve at 0", "resolve at 0"]);
    assert_eq!(txn.release(), None, "once is enough");
}

#[test]
fn a_transaction_that_is_given_up_before_it_flushed_anything_has_nothing_to_release() {
    let mut txn = pipelined_txn();
    put_all(&mut txn, &["a"]);
    assert_eq!(txn.release(), None, "it is open");
    assert_eq!((txn.rollback(), txn.release()), (Ok(()), None));
    assert_eq!(txn.set("a", "1"), Err(Error::TxnFinished));
    assert_eq!(txn.rollback(), Err(Error::TxnFinished));
}

/// What is under way may have locked keys already.
#[test]
fn a_transaction_that_is_given_up_while_it_flushes_releases_what_is_under_way() {
    let mut txn = pipelined_txn();
    put_all(&mut txn, &["a", "b"]);
    let _abandoned = begin_flush(&mut txn);
    txn.rollback().expect("open");
    let machine = txn.release().expect("something may be locked");
    assert_eq!(rolled_back_by(BackgroundMachine::new(machine)), ["roll back a", "resolve at 0"]);
}

#[test]
fn it_does_not_commit_while_it_flushes() {
    let mut txn = pipelined_txn();
    put_all(&mut txn, &["a"]);
    let _script = begin_flush(&mut txn);
    assert!(matches!(txn.begin_commit(), Err(Error::InvalidArgument(_))));
    assert_eq!(txn.state(), TxnState::Open);
}

#[test]
fn the_requests_say_where_they_come_from_unless_the_caller_does() {
    let txn = pipelined_txn();
    assert_eq!(txn.options().call.context.to_message().request_source, "external_pdml");
    let mut own = options();
    own.call = own.call.with_context(|context| context.request_source = "mine".into());
    let (config, began) = (Config::default(), Time::ZERO);
    let txn = PipelinedTransaction::new(&config, start_ts(), began, own, PipelinedOptions::default()).expect("options");
    assert_eq!(txn.options().call.context.to_message().request_source, "mine");
}

/// T_sleep / (T_sleep + T_flush) is the ratio.
#[test]
fn a_throttled_transaction_pauses_in_proportion_to_how_long_its_flushes_take() {
    let mut txn = pipelined_with(|options| options.write_throttle_permille = 800);
    flush_in(&mut txn, 110, 0);
    flush_in(&mut txn, 220, 440);
    // 9/11 of 110 ms and 2/11 of 220 ms are 130 ms.
    flush_in(&mut txn, 1, 520);
}

/// A process that was stopped for an hour during a flush does not spend the next hours pausing.
#[test]
fn a_flush_during_which_the_process_stood_still_counts_as_a_minute() {
    let mut txn = pipelined_with(|options| options.write_throttle_permille = 500);
    flush_in(&mut txn, 60 * 60_000, 0);
    flush_in(&mut txn, 5, 60_000);
}

/// One flush that takes so many milliseconds after a pause, both by virtual time.
fn flush_in(txn: &mut PipelinedTransaction, ms: u64, pause_ms: u64) {
    put_all(txn, &["a"]);
    let mut script = begin_flush(txn);
    if pause_ms > 0 {
        script.expect_sleep(|sleep, reason| {
            assert_eq!((sleep.as_millis(), reason), (pause_ms.into(), SleepReason::WriteThrottle));
        });
        script.advance(Duration::from_millis(pause_ms)).wake();
    }
    let call = expect_flush(&mut script, &["a"], txn.generation());
    script.advance(Duration::from_millis(ms));
    accept_flush(&mut script, call);
    while let Some(command) = script.next() {
        assert!(matches!(command, Command::Sleep { .. } | Command::Cancel { .. }));
    }
    txn.end_flush(&script.expect_done());
}

fn found(request: &super::super::super::OwnReadRequest) -> Vec<String> {
    let mut script = Script::with_knowledge(
        OwnRead::new(
            request.clone(),
            SnapshotOptions::new(start_ts(), &Config::default()),
            ReadThrough::new(start_ts()),
        ),
        two_regions(),
    );
    script.expect_nothing();
    let pairs = script.expect_done().result.expect("pairs");
    pairs.iter().map(|Pair { key, value }| format!("{}={}", text(key), text(&value.bytes))).collect()
}

fn text(bytes: &(impl AsRef<[u8]> + ?Sized)) -> String {
    String::from_utf8_lossy(bytes.as_ref()).into_owned()
}

/// client-go: `TestPipelinedFlushGet`.
#[test]
fn its_own_writes_are_found_in_the_buffer_and_then_in_what_is_being_flushed() {
    let mut txn = pipelined_txn();
    txn.set("a", "1").expect("a write");
    txn.set("b", "1").expect("a write");
    txn.delete("c").expect("a write");
    let _script = begin_flush(&mut txn);
    txn.set("b", "2").expect("a write");
    let read = txn.begin_read(as_keys(&["c", "b", "a", "b"])).expect("open");
    assert_eq!(found(&read), ["a=1", "b=2"]);
    txn.delete("b").expect("a write");
    let read = txn.begin_read(as_keys(&["b"])).expect("open");
    assert_eq!(found(&read), Vec::<String>::new());
}
