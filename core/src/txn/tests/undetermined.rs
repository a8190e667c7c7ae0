//! What may and what must be said of a transaction whose commit was not answered.

use std::time::Duration;

use tikv_proto::{errorpb, kvrpcpb};

use super::*;
use crate::error::{Execution, PdError};
use crate::machine::script::{maybe_executed, not_sent};

/// Answers every further call as `answer` says, until the machine has ended.
fn answer_all(script: &mut Script<Commit>, mut answer_call: impl FnMut(&Request) -> Answer) {
    for _ in 0..10_000 {
        sleep_through(script);
        match script.peek() {
            Some(Command::Call(_)) => {
                let Some(Command::Call(call)) = script.next() else { return };
                let event = answer(&call.request, answer_call(&call.request));
                script.event(call.token, event);
            }
            _ => return,
        }
    }
    panic!("no end");
}

/// The ways in which an attempt can end without an answer although it may have been executed.
fn lost_answers() -> Vec<Event> {
    let faults = faults_of_unknown_execution().map(|fault| Event::Reply(Err(fault)));
    let wrong = Event::Reply(Ok(kvrpcpb::GetResponse::default().into()));
    let stale_command = errorpb::Error { stale_command: Some(errorpb::StaleCommand::default()), ..Default::default() };
    let unsure = [undetermined_result(), stale_command]
        .map(|error| answer(&kvrpcpb::CommitRequest::default().into(), Answer::RegionError(error)));
    faults.chain([wrong]).chain(unsure).collect()
}

/// Answers that say that the attempt at hand was not executed, and nothing of the one before.
fn region_errors() -> Vec<errorpb::Error> {
    vec![
        server_is_busy(),
        errorpb::Error { not_leader: Some(errorpb::NotLeader::default()), ..Default::default() },
        errorpb::Error { region_not_found: Some(errorpb::RegionNotFound::default()), ..Default::default() },
        errorpb::Error { epoch_not_match: Some(errorpb::EpochNotMatch::default()), ..Default::default() },
        errorpb::Error { raft_entry_too_large: Some(errorpb::RaftEntryTooLarge::default()), ..Default::default() },
        errorpb::Error { message: "something new".into(), ..Default::default() },
    ]
}

fn key_errors() -> Vec<kvrpcpb::KeyError> {
    vec![
        lock_not_found("a"),
        kvrpcpb::KeyError { abort: "aborted".into(), ..Default::default() },
        kvrpcpb::KeyError { retryable: "again".into(), ..Default::default() },
        conflict_with(ts(1_500), "a"),
        kvrpcpb::KeyError::default(),
    ]
}

/// After `lost`, is the machine still trying?
fn lose(script: &mut Script<Commit>, lost: Event) -> bool {
    let token = script.last_call().token;
    script.event(token, lost);
    sleep_through(script);
    matches!(script.peek(), Some(Command::Call(_)))
}

#[test]
fn an_answer_that_never_comes_leaves_the_outcome_open() {
    for lost in lost_answers() {
        let mut script = committing(["a"]);
        if lose(&mut script, lost) {
            answer_all(&mut script, |_| Answer::Fault(maybe_executed()));
        }
        expect_undetermined(&mut script);
    }
}

#[test]
fn an_undetermined_result_and_a_closing_client_end_it_at_once() {
    let unsure = answer(&kvrpcpb::CommitRequest::default().into(), Answer::RegionError(undetermined_result()));
    let closed = Event::Reply(Err(Fault::new(FaultKind::Closed, Execution::MaybeExecuted, "store-1")));
    for lost in [unsure, closed] {
        let mut script = committing(["a", "b"]);
        assert!(!lose(&mut script, lost));
        expect_undetermined(&mut script);
    }
}

#[test]
fn a_later_success_settles_it() {
    for lost in lost_answers() {
        let mut script = committing(["a"]);
        if lose(&mut script, lost) {
            answer_all(&mut script, |_| Answer::Accept);
            assert_eq!(when(script.expect_done()), Ok(Some(ts(2_000))));
        }
    }
}

#[test]
fn a_later_refusal_settles_it() {
    for error in key_errors() {
        let mut script = committing(["a", "b"]);
        assert!(lose(&mut script, Event::Reply(Err(maybe_executed()))));
        answer_all(&mut script, |_| Answer::Refuse(error.clone()));
        assert_eq!(expect_failed(&mut script).1, ["a", "b"], "{error:?}");
    }
}

#[test]
fn later_region_errors_settle_nothing() {
    for error in region_errors() {
        let mut script = committing(["a"]);
        assert!(lose(&mut script, Event::Reply(Err(maybe_executed()))));
        answer_all(&mut script, |_| Answer::RegionError(error.clone()));
        expect_undetermined(&mut script);
    }
}

#[test]
fn a_split_after_a_lost_answer_settles_nothing() {
    let mut script = committing(["a", "h"]);
    assert!(lose(&mut script, Event::Reply(Err(maybe_executed()))));
    let mut calls = 0;
    answer_all(&mut script, |request| {
        calls += 1;
        match calls {
            1 => Answer::RegionError(split_into([(2, "".."f"), (4, "f".."m")])),
            2 => {
                assert_eq!(names(commit_keys(request)), ["a"]);
                Answer::RegionError(server_is_busy())
            }
            _ => Answer::RegionError(server_is_busy()),
        }
    });
    assert!(calls > 2);
    expect_undetermined(&mut script);
}

#[test]
fn a_failure_of_pd_after_a_lost_answer_settles_nothing() {
    let mut script = committing(["a"]);
    assert!(lose(&mut script, Event::Reply(Err(maybe_executed()))));
    let Some(Command::Call(call)) = script.next() else { panic!("a commit") };
    let gone = errorpb::Error { epoch_not_match: Some(errorpb::EpochNotMatch::default()), ..Default::default() };
    script.event(call.token, answer(&call.request, Answer::RegionError(gone)));
    script.expect_sleep(|_, _| {});
    script.wake();
    let Some(Command::Pd { token, .. }) = script.next() else { panic!("a question to PD") };
    script.event(token, Event::Pd(Err(PdError::Closed)));
    assert_eq!(expect_undetermined(&mut script), Error::Closed);
}

#[test]
fn a_deadline_after_a_lost_answer_settles_nothing() {
    let mut options = options();
    options.call.deadline = Time::from_millis(10_000);
    let mut script = Script::with_knowledge(commit_with(puts(["a"]), options), two_regions());
    let prewrite = expect_prewrite(&mut script, &["a"]);
    accept_prewrite(&mut script, prewrite);
    let alarm = script.expect_alarm();
    script.expect_timestamp();
    script.timestamp(ts(2_000)).expect_cancel(alarm);
    let commit = expect_commit(&mut script, &["a"], ts(2_000));
    script.advance(Duration::from_secs(10));
    let timeout = Fault::new(FaultKind::Timeout, Execution::MaybeExecuted, "store-1");
    script.event(commit, Event::Reply(Err(timeout)));
    let cause = expect_undetermined(&mut script);
    assert!(matches!(cause, Error::DeadlineExceeded { .. }), "{cause}");
    assert!(cause.is_timeout());
}

#[test]
fn a_refused_timestamp_settles_what_was_lost_before_it() {
    let mut script = committing(["a"]);
    assert!(lose(&mut script, Event::Reply(Err(maybe_executed()))));
    answer_all(&mut script, |_| Answer::Refuse(commit_ts_expired("a", ts(2_000), ts(2_500))));
    script.expect_timestamp();
    script.pd(Err(PdError::Closed));
    let (error, rolled_back) = expect_failed(&mut script);
    assert_eq!((error, rolled_back), (Error::Closed, vec!["a".to_owned()]));
}

#[test]
fn an_answer_lost_after_a_refused_timestamp_leaves_the_outcome_open() {
    let mut script = committing(["a"]);
    let error = Some(Box::new(commit_ts_expired("a", ts(2_000), ts(2_500))));
    script.reply(kvrpcpb::CommitResponse { error, ..Default::default() });
    script.expect_timestamp();
    script.timestamp(ts(3_000));
    answer_all(&mut script, |_| Answer::Fault(maybe_executed()));
    expect_undetermined(&mut script);
}

/// A leader that steps down does not know what becomes of what it has proposed.
#[test]
fn a_command_that_went_stale_leaves_the_outcome_open_unless_a_later_one_is_answered() {
    let stale = errorpb::Error { stale_command: Some(errorpb::StaleCommand::default()), ..Default::default() };
    let mut script = committing(["a"]);
    script.region_error(stale.clone());
    answer_all(&mut script, |_| Answer::RegionError(server_is_busy()));
    expect_undetermined(&mut script);

    let mut script = committing(["a"]);
    script.region_error(stale);
    answer_all(&mut script, |_| Answer::Refuse(lock_not_found("a")));
    assert_eq!(expect_failed(&mut script).1, ["a"]);
}

/// A status that ends a stream says nothing of what was on its way.
#[test]
fn a_status_that_forbids_a_retry_leaves_the_outcome_open_at_once() {
    for code in [7, 12, 16] {
        let mut script = committing(["a"]);
        script.fault(Fault::new(FaultKind::Status(code), Execution::MaybeExecuted, "store-1"));
        assert!(matches!(expect_undetermined(&mut script), Error::Refused { .. }), "status {code}");
    }
}

/// A replica that cannot be reached, or a region that is not where it was thought to be, hides no answer.
#[test]
fn what_never_left_leaves_nothing_open() {
    let mut script = committing(["a"]);
    script.fault(not_sent());
    answer_all(&mut script, |_| Answer::Fault(not_sent()));
    assert_eq!(expect_failed(&mut script).1, ["a"]);
}

#[test]
fn region_errors_alone_leave_nothing_open() {
    for error in region_errors() {
        let mut script = committing(["a"]);
        script.region_error(error.clone());
        answer_all(&mut script, |_| Answer::RegionError(error.clone()));
        assert_eq!(expect_failed(&mut script).1, ["a"], "{error:?}");
    }
}

#[test]
fn a_deadline_before_the_commit_is_sent_leaves_nothing_open() {
    let mut options = options();
    options.call.deadline = Time::from_millis(10_000);
    let mut script = Script::with_knowledge(commit_with(puts(["a"]), options), two_regions());
    let prewrite = expect_prewrite(&mut script, &["a"]);
    accept_prewrite(&mut script, prewrite);
    let alarm = script.expect_alarm();
    let question = script.expect_timestamp();
    script.advance(Duration::from_secs(10)).event(alarm, Event::Woken).expect_cancel(question);
    let (error, rolled_back) = expect_failed(&mut script);
    assert!(matches!(error, Error::DeadlineExceeded { .. }), "{error}");
    assert_eq!(rolled_back, ["a"]);
}

/// A commit that was lost, and everything that can come after it, twice in a row.
#[test]
fn only_an_answer_settles_a_lost_commit() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum After {
        Success,
        Refusal,
        RegionError,
        Lost,
        NotSent,
    }
    use After::*;
    let all = [Success, Refusal, RegionError, Lost, NotSent];
    for (first, second) in all.into_iter().flat_map(|first| all.map(|second| (first, second))) {
        let mut script = committing(["a"]);
        assert!(lose(&mut script, Event::Reply(Err(maybe_executed()))));
        let mut rest = vec![first, second].into_iter();
        let mut last = Lost;
        answer_all(&mut script, |_| {
            last = rest.next().unwrap_or(RegionError);
            match last {
                Success => Answer::Accept,
                Refusal => Answer::Refuse(lock_not_found("a")),
                RegionError => Answer::RegionError(server_is_busy()),
                Lost => Answer::Fault(maybe_executed()),
                NotSent => Answer::Fault(not_sent()),
            }
        });
        match last {
            Success => assert!(script.expect_done().is_ok(), "{first:?} {second:?}"),
            Refusal => assert_eq!(expect_failed(&mut script).1, ["a"], "{first:?} {second:?}"),
            _ => {
                expect_undetermined(&mut script);
            }
        }
    }
}
