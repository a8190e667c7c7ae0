use std::time::Duration;

use tikv_proto::kvrpcpb::{
    Action, CheckSecondaryLocksRequest, CheckSecondaryLocksResponse, CheckTxnStatusRequest, CheckTxnStatusResponse,
    PessimisticRollbackRequest, PessimisticRollbackResponse, ResolveLockRequest, ResolveLockResponse,
};

use super::*;
use crate::error::{Error, KeyError};
use crate::knowledge::txn_status::FinalStatus;
use crate::lock::{Resolution, ResolveLocks, Resolved};
use crate::machine::script::maybe_executed;
use crate::machine::{BackgroundMachine, Observation};

fn for_read(locks: Vec<LockInfo>) -> ResolveLocks {
    ResolveLocks::for_read(ts(11_000), locks, false, options(), backoff())
}

fn for_write(locks: Vec<LockInfo>) -> ResolveLocks {
    ResolveLocks::for_write(ts(11_000), locks, options(), backoff())
}

fn resolution(ms_before_expired: u64, ignored: &[Timestamp], accessible: &[Timestamp]) -> Resolution {
    Resolution { ms_before_expired, ignored: ignored.to_vec(), accessible: accessible.to_vec() }
}

/// The keys of the one request that releases locks in the background.
fn released_in_background(machine: BackgroundMachine, check: impl FnOnce(&ResolveLockRequest)) {
    let mut script = unaware(machine);
    script.expect_call(1, check);
    script.reply(ResolveLockResponse::default());
    script.expect_done();
}

fn status(script: &mut Script<ResolveLocks>, response: CheckTxnStatusResponse) {
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.reply(response);
}

#[test]
fn without_locks_nothing_stands_in_the_way() {
    let mut script = unaware(for_read(Vec::new()));
    assert_eq!(script.expect_done().result, Ok(Resolution::default()));
}

#[test]
fn a_reader_passes_the_locks_of_ended_transactions_at_once_and_releases_them_behind_its_back() {
    let start_ts = ts(10_000);
    let cases = [
        (committed(ts(11_000)), resolution(0, &[], &[start_ts]), ts(11_000)),
        (committed(ts(11_000).next()), resolution(0, &[start_ts], &[]), ts(11_000).next()),
        (ended(Action::TtlExpireRollback), resolution(0, &[start_ts], &[]), Timestamp::ZERO),
    ];
    for (response, expected, commit_ts) in cases {
        let mut script = script(for_read(vec![lock("b", "k", start_ts)]), ts(12_000));
        status(&mut script, response);
        released_in_background(script.expect_spawn(), |request| {
            assert_eq!(request.keys, ["b"]);
            assert_eq!((request.start_version, request.commit_version), (start_ts.version(), commit_ts.version()));
        });
        assert_eq!(script.expect_done().result, Ok(expected));
        let met = Observation::LockMet { caller_ts: ts(11_000), lock_ts: start_ts };
        assert_eq!(script.observations(), [met]);
    }
}

#[test]
fn a_reader_passes_a_live_transaction_that_commits_later_and_leaves_its_locks_alone() {
    let mut script = script(for_read(vec![lock("b", "k", ts(10_000))]), ts(12_000));
    script.expect_call(1, |request: &CheckTxnStatusRequest| {
        assert_eq!(request.caller_start_ts, ts(11_000).version());
    });
    script.reply(alive(&lock("k", "k", ts(10_000)), Action::MinCommitTsPushed));
    assert_eq!(script.expect_done().result, Ok(resolution(0, &[ts(10_000)], &[])));
}

#[test]
fn a_live_lock_is_to_be_waited_for_by_readers_and_writers() {
    for resolve in [for_read(vec![lock("b", "k", ts(10_000))]), for_write(vec![lock("b", "k", ts(10_000))])] {
        let mut script = script(resolve, ts(12_000));
        status(&mut script, alive(&lock("k", "k", ts(10_000)), Action::NoAction));
        assert_eq!(script.expect_done().result, Ok(resolution(1_001, &[], &[])));
    }
}

#[test]
fn a_reader_is_told_apart_what_to_ignore_what_to_read_and_what_to_wait_for() {
    let names = ["committed before", "committed later", "dead", "pushed", "waiting"];
    let met = names.iter().zip(10_000..).map(|(primary, start_ms)| lock("b", primary, ts(start_ms))).collect();
    let mut script = script(for_read(met), ts(12_000));
    let tokens: Vec<_> = names.iter().map(|_| script.expect_call(1, |_: &CheckTxnStatusRequest| {})).collect();
    let answers = [
        committed(ts(10_500)),
        committed(ts(11_500)),
        ended(Action::LockNotExistRollback),
        alive(&lock("pushed", "pushed", ts(10_003)), Action::MinCommitTsPushed),
        alive(&lock("waiting", "waiting", ts(10_004)), Action::NoAction),
    ];
    for (token, answer) in tokens.into_iter().zip(answers).rev() {
        script.reply_to(token, answer);
    }
    for _ in ["dead", "committed later", "committed before"] {
        script.expect_spawn();
    }
    let expected = resolution(1_005, &[ts(10_001), ts(10_002), ts(10_003)], &[ts(10_000)]);
    assert_eq!(script.expect_done().result, Ok(expected));
}

#[test]
fn a_lock_without_a_transaction_is_refused() {
    let wrapper = LockInfo { kind: kvrpcpb::Op::SharedLock, ..lock("b", "", Timestamp::ZERO) };
    let mut script = script(for_write(vec![wrapper, lock("c", "k", ts(10_000))]), ts(12_000));
    assert!(matches!(script.expect_done().result, Err(Error::InvalidArgument(_))));
}

#[test]
fn a_writer_waits_for_a_live_transaction_even_if_that_commits_later() {
    let mut script = script(for_write(vec![lock("b", "k", ts(10_000))]), ts(12_000));
    status(&mut script, alive(&lock("k", "k", ts(10_000)), Action::MinCommitTsPushed));
    assert_eq!(script.expect_done().result, Ok(resolution(1_001, &[], &[])));
}

#[test]
fn a_writer_goes_on_only_when_the_locks_are_released() {
    let mut script = script(for_write(vec![lock("b", "k", ts(10_000))]), ts(12_000));
    status(&mut script, committed(ts(10_900)));
    script.expect_call(1, |request: &ResolveLockRequest| {
        assert_eq!(request.keys, ["b"]);
        assert_eq!(request.commit_version, ts(10_900).version());
    });
    script.expect_nothing();
    script.reply(ResolveLockResponse::default());
    assert_eq!(script.expect_done().result, Ok(Resolution::default()));
}

#[test]
fn a_reader_that_asks_for_it_goes_on_only_when_the_locks_are_released() {
    let mut script = script(for_read(vec![lock("b", "k", ts(10_000))]).wait_for_release(), ts(12_000));
    status(&mut script, committed(ts(10_900)));
    script.expect_call(1, |_: &ResolveLockRequest| {});
    script.reply(ResolveLockResponse::default());
    assert_eq!(script.expect_done().result, Ok(resolution(0, &[], &[ts(10_000)])));
}

#[test]
fn the_lock_expires_while_it_is_waited_for_and_its_transaction_is_rolled_back() {
    let (start_ts, expired) = start_and_expired();
    let met = vec![lock("b", "k", start_ts)];
    let mut early = script(for_write(met.clone()), ts(10_000 + TTL));
    status(&mut early, alive(&lock("k", "k", start_ts), Action::NoAction));
    assert_eq!(early.expect_done().result, Ok(resolution(1, &[], &[])), "the last millisecond");
    let mut late = script(for_write(met), expired);
    late.expect_call(1, |request: &CheckTxnStatusRequest| assert_eq!(request.current_ts, expired.version()));
    late.reply(ended(Action::TtlExpireRollback));
    late.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.commit_version, 0));
    late.reply(ResolveLockResponse::default());
    assert_eq!(late.expect_done().result, Ok(Resolution::default()));
}

#[test]
fn the_primary_that_was_just_asked_for_needs_no_release() {
    let mut script = script(for_write(vec![lock("k", "k", ts(10_000))]), ts(12_000));
    status(&mut script, committed(ts(10_900)));
    assert_eq!(script.expect_done().result, Ok(Resolution::default()));
}

#[test]
fn the_primary_of_a_transaction_whose_end_is_only_remembered_is_released() {
    // An async commit was decided by its secondaries, and whoever was to release the primary died.
    let mut script = script(for_read(vec![lock("k", "k", ts(10_000))]), ts(12_000));
    script.knowledge.txn_statuses.insert(ts(10_000), FinalStatus::Committed(ts(10_900)));
    released_in_background(script.expect_spawn(), |request| assert_eq!(request.keys, ["k"]));
    assert_eq!(script.expect_done().result, Ok(resolution(0, &[], &[ts(10_000)])));
}

#[test]
fn a_transaction_is_asked_about_once_for_all_its_locks() {
    let met = vec![lock("b", "k", ts(10_000)), lock("h", "k", ts(10_000)), lock("c", "k", ts(10_000))];
    let mut script = script(for_write(met), ts(12_000));
    status(&mut script, committed(ts(10_900)));
    let first = script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.keys, ["b", "c"]));
    let second = script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.keys, ["h"]));
    script.reply_to(first, ResolveLockResponse::default());
    script.reply_to(second, ResolveLockResponse::default());
    assert_eq!(script.expect_done().result, Ok(Resolution::default()));
}

#[test]
fn transactions_are_asked_about_side_by_side_and_the_first_to_expire_is_waited_for() {
    let met = vec![lock("b", "k", ts(10_000)), lock("c", "l", ts(11_500)), lock("d", "m", ts(10_500))];
    let mut script = script(for_read(met), ts(12_000));
    let tokens = ["k", "m", "l"].map(|primary| {
        script.expect_call(1, |request: &CheckTxnStatusRequest| assert_eq!(request.primary_key, primary))
    });
    script.reply_to(tokens[0], alive(&lock("k", "k", ts(10_000)), Action::MinCommitTsPushed));
    script.reply_to(tokens[1], alive(&lock("m", "m", ts(10_500)), Action::NoAction));
    script.reply_to(tokens[2], alive(&lock("l", "l", ts(11_500)), Action::NoAction));
    assert_eq!(script.expect_done().result, Ok(resolution(1_501, &[ts(10_000)], &[])));
}

#[test]
fn of_a_large_transaction_tikv_finds_the_locks_itself_once_a_region() {
    let large = |key| LockInfo { txn_size: 512, ..lock(key, "k", ts(10_000)) };
    let mut script = script(for_write(vec![large("b"), large("c"), large("z")]), ts(12_000));
    status(&mut script, committed(ts(10_900)));
    for region in [1, 3] {
        script.expect_call(1, |request: &ResolveLockRequest| assert!(request.keys.is_empty()));
        assert_eq!(script.last_context().region_id, region);
        script.reply(ResolveLockResponse::default());
    }
    assert_eq!(script.expect_done().result, Ok(Resolution::default()));
}

#[test]
fn a_point_get_resolves_no_more_than_its_key_however_large_the_transaction() {
    let large = LockInfo { txn_size: u64::MAX, ..lock("b", "k", ts(10_000)) };
    let resolve = ResolveLocks::for_read(ts(11_000), vec![large], true, options(), backoff());
    let mut script = script(resolve, ts(12_000));
    status(&mut script, committed(ts(10_900)));
    released_in_background(script.expect_spawn(), |request| assert_eq!(request.keys, ["b"]));
}

#[test]
fn a_failed_status_check_is_an_error_and_cancels_the_others() {
    let met = vec![lock("b", "k", ts(10_000)), lock("c", "l", ts(10_500))];
    let resolve = ResolveLocks::for_write(ts(11_000), met, options(), Backoff::none());
    let mut script = script(resolve, ts(12_000));
    let failing = script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    let other = script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.event(failing, crate::machine::Event::Reply(Err(maybe_executed())));
    script.expect_cancel(other);
    assert!(matches!(script.expect_done().result, Err(Error::RetriesExhausted { .. })));
}

#[test]
fn each_transaction_has_its_own_share_of_the_budget() {
    let met = vec![lock("b", "k", ts(10_000)), lock("c", "l", ts(10_500))];
    let mut script = script(for_read(met), ts(12_000));
    let tokens = [(); 2].map(|()| script.expect_call(1, |_: &CheckTxnStatusRequest| {}));
    for token in tokens {
        let not_found = CheckTxnStatusResponse { error: not_found(ts(10_000)), ..Default::default() };
        script.reply_to(token, not_found);
        // Both begin with the shortest sleep.
        script.expect_sleep(|duration, _| assert_eq!(duration, Duration::from_millis(2)));
    }
}

#[test]
fn what_the_transactions_slept_side_by_side_is_taken_from_the_budget_once() {
    let mut script = script(for_read(vec![lock("b", "k", ts(10_000))]), ts(10_100));
    status(&mut script, CheckTxnStatusResponse { error: not_found(ts(10_000)), ..Default::default() });
    script.expect_sleep(|_, _| {});
    script.wake();
    status(&mut script, alive(&lock("k", "k", ts(10_000)), Action::NoAction));
    let Resolved { backoff, .. } = script.expect_done();
    assert_eq!(backoff.total_sleep(), Duration::from_millis(2));
}

#[test]
fn a_writer_removes_the_pessimistic_locks_of_an_ended_transaction_in_the_whole_region() {
    let mut script = script(for_write(vec![pessimistic("b", "k", ts(10_000))]), ts(12_000));
    status(&mut script, ended(Action::TtlExpireRollback));
    script.expect_call(1, |request: &PessimisticRollbackRequest| {
        assert!(request.keys.is_empty());
        assert_eq!(request.for_update_ts, u64::MAX);
    });
    script.reply(PessimisticRollbackResponse::default());
    assert_eq!(script.expect_done().result, Ok(Resolution::default()));
}

#[test]
fn the_pessimistic_locks_of_a_transaction_whose_primary_expired_go_up_to_their_for_update_ts() {
    let later = LockInfo { for_update_ts: ts(10_800), ..pessimistic("z", "k", ts(10_000)) };
    let mut script = script(for_write(vec![pessimistic("b", "k", ts(10_000)), later]), ts(20_000));
    status(&mut script, ended(Action::TtlExpirePessimisticRollback));
    for for_update_ts in [ts(10_000).next(), ts(10_800)] {
        script.expect_call(1, |request: &PessimisticRollbackRequest| {
            assert!(request.keys.is_empty());
            assert_eq!(request.for_update_ts, for_update_ts.version());
        });
        script.reply(PessimisticRollbackResponse::default());
    }
    assert_eq!(script.expect_done().result, Ok(Resolution::default()));
}

#[test]
fn a_transaction_without_a_trace_loses_the_lock_that_was_met_and_nothing_else() {
    let mismatch = kvrpcpb::PrimaryMismatch { lock_info: Some(Box::new(to_proto(&lock("k", "z", ts(10_000))))) };
    let error = kvrpcpb::KeyError { primary_mismatch: Some(mismatch), ..Default::default() };
    let mismatch = CheckTxnStatusResponse { error: Some(Box::new(error)), ..Default::default() };
    for response in [ended(Action::LockNotExistDoNothing), mismatch] {
        let mut script = script(for_write(vec![pessimistic("b", "k", ts(10_000))]), ts(20_000));
        status(&mut script, response);
        script.expect_call(1, |request: &PessimisticRollbackRequest| {
            assert_eq!(request.keys, ["b"]);
            assert_eq!(request.for_update_ts, ts(10_000).next().version());
        });
        script.reply(PessimisticRollbackResponse::default());
        assert_eq!(script.expect_done().result, Ok(Resolution::default()));
        assert_eq!(script.knowledge.txn_statuses.get(ts(10_000)), None);
    }
}

#[test]
fn pessimistic_and_prewritten_locks_of_one_transaction_are_asked_about_apart() {
    let met = vec![pessimistic("b", "k", ts(10_000)), lock("c", "l", ts(10_000))];
    let mut script = script(for_write(met), ts(20_000));
    let prewritten = script.expect_call(1, |request: &CheckTxnStatusRequest| {
        assert_eq!(request.primary_key, "l");
        assert!(!request.resolving_pessimistic_lock);
    });
    let pessimistic = script.expect_call(1, |request: &CheckTxnStatusRequest| {
        assert_eq!(request.primary_key, "k");
        assert!(request.resolving_pessimistic_lock);
    });
    script.reply_to(pessimistic, ended(Action::LockNotExistDoNothing));
    script.expect_call(1, |_: &PessimisticRollbackRequest| {});
    script.reply(PessimisticRollbackResponse::default());
    script.reply_to(prewritten, ended(Action::TtlExpireRollback));
    script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.keys, ["c"]));
    script.reply(ResolveLockResponse::default());
    assert_eq!(script.expect_done().result, Ok(Resolution::default()));
}

#[test]
fn a_reader_neither_ignores_nor_reads_a_transaction_of_which_only_a_pessimistic_lock_went() {
    let mut script = script(for_read(vec![pessimistic("b", "k", ts(10_000))]), ts(20_000));
    status(&mut script, ended(Action::LockNotExistDoNothing));
    script.expect_spawn();
    assert_eq!(script.expect_done().result, Ok(Resolution::default()));
}

mod async_commit {
    use super::*;

    /// The primary "k" of transaction 10,000, whose secondaries are "b" and "h".
    fn primary() -> LockInfo {
        LockInfo {
            use_async_commit: true,
            min_commit_ts: ts(10_400),
            secondaries: keys(&["b", "h"]),
            ..lock("k", "k", ts(10_000))
        }
    }

    fn secondary(key: &str) -> LockInfo {
        LockInfo { use_async_commit: true, min_commit_ts: ts(10_500), ..lock(key, "k", ts(10_000)) }
    }

    fn locks(locks: &[LockInfo]) -> CheckSecondaryLocksResponse {
        CheckSecondaryLocksResponse { locks: locks.iter().map(to_proto).collect(), ..Default::default() }
    }

    /// Up to the answers of both regions of the secondaries; the time is that at which the locks have expired.
    fn secondaries_answer(script: &mut Script<ResolveLocks>, answers: [CheckSecondaryLocksResponse; 2]) {
        status(script, alive(&primary(), Action::NoAction));
        let tokens = [(); 2].map(|()| script.expect_call(1, |_: &CheckSecondaryLocksRequest| {}));
        for (token, answer) in tokens.into_iter().zip(answers) {
            script.reply_to(token, answer);
        }
    }

    fn all_locked() -> [CheckSecondaryLocksResponse; 2] {
        [locks(&[secondary("b")]), locks(&[secondary("h")])]
    }

    fn expired() -> Timestamp {
        start_and_expired().1
    }

    #[test]
    fn a_live_transaction_is_waited_for() {
        let mut script = script(for_write(vec![secondary("b")]), ts(12_000));
        status(&mut script, alive(&primary(), Action::NoAction));
        assert_eq!(script.expect_done().result, Ok(resolution(1_001, &[], &[])));
    }

    #[test]
    fn an_expired_transaction_with_all_its_locks_is_committed_by_whoever_finds_it() {
        let mut script = script(for_write(vec![secondary("b")]), expired());
        secondaries_answer(&mut script, all_locked());
        let commit_ts = ts(10_500);
        for names in [["b"].as_slice(), ["h", "k"].as_slice()] {
            script.expect_call(1, |request: &ResolveLockRequest| {
                assert_eq!(request.keys, names);
                assert_eq!(request.commit_version, commit_ts.version());
            });
        }
        assert_eq!(script.knowledge.txn_statuses.get(ts(10_000)), Some(FinalStatus::Committed(commit_ts)));
    }

    #[test]
    fn a_reader_learns_the_outcome_and_leaves_the_locks_to_the_background() {
        let mut script = script(for_read(vec![secondary("b")]), expired());
        secondaries_answer(&mut script, all_locked());
        script.expect_spawn();
        assert_eq!(script.expect_done().result, Ok(resolution(0, &[], &[ts(10_000)])));
    }

    #[test]
    fn of_a_rolled_back_transaction_every_key_is_released_even_where_tikv_found_no_lock() {
        let mut script = script(for_write(vec![secondary("b")]), expired());
        secondaries_answer(&mut script, [locks(&[secondary("b")]), locks(&[])]);
        for names in [["b"].as_slice(), ["h", "k"].as_slice()] {
            script.expect_call(1, |request: &ResolveLockRequest| {
                assert_eq!(request.keys, names);
                assert_eq!(request.commit_version, 0);
            });
            script.reply(ResolveLockResponse::default());
        }
        assert_eq!(script.expect_done().result, Ok(Resolution::default()));
        assert_eq!(script.knowledge.txn_statuses.get(ts(10_000)), Some(FinalStatus::RolledBack));
    }

    #[test]
    fn a_lock_that_the_primary_does_not_list_is_released_with_the_others() {
        let mut script = script(for_write(vec![secondary("z")]), expired());
        secondaries_answer(&mut script, [locks(&[]), locks(&[])]);
        for names in [["b"].as_slice(), ["h", "k"].as_slice(), ["z"].as_slice()] {
            script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.keys, names));
        }
    }

    #[test]
    fn all_keys_are_named_however_large_the_transaction() {
        let met = LockInfo { txn_size: 10_000, ..secondary("b") };
        let mut script = script(for_write(vec![met]), expired());
        secondaries_answer(&mut script, all_locked());
        for names in [["b"].as_slice(), ["h", "k"].as_slice()] {
            script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.keys, names));
        }
    }

    #[test]
    fn a_transaction_that_fell_back_is_decided_by_its_primary() {
        let mut script = script(for_write(vec![secondary("b")]), expired());
        let plain = LockInfo { use_async_commit: false, ..secondary("h") };
        secondaries_answer(&mut script, [locks(&[secondary("b")]), locks(&[plain])]);
        script.expect_call(1, |request: &CheckTxnStatusRequest| assert!(request.force_sync_commit));
        script.reply(ended(Action::TtlExpireRollback));
        script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.keys, ["b"]));
        script.reply(ResolveLockResponse::default());
        assert_eq!(script.expect_done().result, Ok(Resolution::default()));
    }

    #[test]
    fn a_transaction_that_fell_back_and_is_still_alive_is_waited_for_but_not_from_millisecond_to_millisecond() {
        let mut script = script(for_write(vec![secondary("b")]), expired());
        let plain = LockInfo { use_async_commit: false, ..secondary("h") };
        secondaries_answer(&mut script, [locks(&[secondary("b")]), locks(&[plain])]);
        // Its heartbeat has come in the meantime, or TiKV is more patient.
        status(&mut script, alive(&primary(), Action::NoAction));
        assert_eq!(script.expect_done().result, Ok(resolution(1_000, &[], &[])));
    }

    #[test]
    fn a_primary_that_fell_back_with_async_secondaries_is_judged_by_pds_time() {
        // The primary is a plain lock; a current_ts of 0 would never let it expire.
        let plain = LockInfo { use_async_commit: false, ..primary() };
        let mut script = script(for_write(vec![secondary("b")]), expired());
        script.expect_call(1, |request: &CheckTxnStatusRequest| assert_eq!(request.current_ts, expired().version()));
        script.reply(alive(&plain, Action::NoAction));
        assert_eq!(script.expect_done().result, Ok(resolution(1_000, &[], &[])));
    }

    #[test]
    fn contradictory_secondaries_release_nothing() {
        let at = |ms| CheckSecondaryLocksResponse { commit_ts: ts(ms).version(), ..Default::default() };
        let mut script = script(for_write(vec![secondary("b")]), expired());
        secondaries_answer(&mut script, [at(10_600), at(10_700)]);
        assert!(matches!(script.expect_done().result, Err(Error::Contradiction { .. })));
        assert_eq!(script.knowledge.txn_statuses.get(ts(10_000)), None);
    }

    #[test]
    fn the_lock_of_another_transaction_is_no_primary() {
        let other = LockInfo { start_ts: ts(9_000), ..primary() };
        let mut script = script(for_write(vec![secondary("b")]), expired());
        status(&mut script, alive(&other, Action::NoAction));
        let error = Error::Key(KeyError::PrimaryMismatch(Box::new(other)));
        assert_eq!(script.expect_done().result, Err(error));
    }
}
