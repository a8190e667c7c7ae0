//! What goes on behind the caller's back: the commit of secondaries, and rolling back.

use tikv_proto::kvrpcpb;

use super::*;
use crate::machine::script::maybe_executed;

/// The background machine of a transaction over both regions that failed with a conflict.
fn cleanup_of<'a>(keys: impl IntoIterator<Item = &'a str>, options: CommitOptions) -> BackgroundMachine {
    let mut script = Script::with_knowledge(commit_with(puts(keys), options), two_regions());
    let Some(Command::Call(call)) = script.next() else { panic!("a prewrite") };
    script.event(call.token, answer(&call.request, Answer::Refuse(conflict_with(ts(1_500), "a"))));
    loop {
        match script.next() {
            Some(Command::Spawn(machine)) => return machine,
            Some(_) => {}
            None => panic!("no cleanup"),
        }
    }
}

/// The background machine of a transaction that has committed its primary `a`.
fn secondaries_of<'a>(keys: impl IntoIterator<Item = &'a str>, options: CommitOptions) -> BackgroundMachine {
    let mut script = Script::with_knowledge(commit_with(puts(keys), options), two_regions());
    loop {
        match script.next() {
            Some(Command::Call(call)) => {
                script.event(call.token, answer(&call.request, Answer::Accept));
            }
            Some(Command::Pd { token, request }) => {
                script.event(token, Event::Pd(Ok(pd_answer(&request))));
            }
            Some(Command::Spawn(machine)) => return machine,
            Some(Command::Sleep { reason: SleepReason::Deadline, .. } | Command::Cancel { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn failures(observed: &[Observation]) -> Vec<&Error> {
    let failures = observed.iter().filter_map(|observation| match observation {
        Observation::BackgroundFailed { error, .. } => Some(error),
        _ => None,
    });
    failures.collect()
}

#[test]
fn the_primary_is_rolled_back_first_and_alone() {
    let mut script = Script::with_knowledge(cleanup_of(["a", "b", "y", "z"], options()), two_regions());
    let first = script.expect_call(1, |request: &kvrpcpb::BatchRollbackRequest| {
        assert_eq!((names(&request.keys), request.start_version), (vec!["a".into(), "b".into()], start_ts().version()));
    });
    script.expect_nothing();
    script.reply_to(first, kvrpcpb::BatchRollbackResponse::default());
    script.expect_call(1, |request: &kvrpcpb::BatchRollbackRequest| {
        assert_eq!(names(&request.keys), ["y", "z"]);
    });
    script.reply(kvrpcpb::BatchRollbackResponse::default()).expect_done();
}

#[test]
fn the_others_are_rolled_back_whatever_becomes_of_the_primary() {
    let aborted = kvrpcpb::KeyError { abort: "no".into(), ..Default::default() };
    let (requests, observed) = run_background(cleanup_of(["a", "z"], options()), |request| {
        if names(rollback_keys(request)) == ["a"] { Answer::Refuse(aborted.clone()) } else { ok() }
    });
    assert_eq!(requests.len(), 2);
    assert_eq!(failures(&observed).len(), 1);
}

#[test]
fn a_rollback_follows_its_keys_through_a_split() {
    let mut calls = 0;
    let (requests, observed) = run_background(cleanup_of(["a", "h", "z"], options()), |_| {
        calls += 1;
        if calls == 1 { Answer::RegionError(split_into([(2, "".."f"), (4, "f".."m")])) } else { ok() }
    });
    let keys: Vec<_> = requests.iter().map(|request| names(rollback_keys(request)).join(" ")).collect();
    assert_eq!(keys, ["a h", "a", "h", "z"]);
    assert_eq!(failures(&observed), Vec::<&Error>::new());
}

#[test]
fn a_rollback_ends_when_its_budget_is_spent() {
    let (_, observed) = run_background(cleanup_of(["a", "z"], options()), |_| Answer::Fault(maybe_executed()));
    assert_eq!(failures(&observed).len(), 2);
    assert!(failures(&observed).iter().all(|error| error.is_timeout()));
}

#[test]
fn a_rollback_is_repeated_if_tikv_is_not_certain_of_it() {
    let mut calls = 0;
    let (requests, observed) = run_background(cleanup_of(["a"], options()), |_| {
        calls += 1;
        if calls == 1 { Answer::RegionError(undetermined_result()) } else { ok() }
    });
    assert_eq!((requests.len(), failures(&observed).len()), (2, 0));
}

/// In client-go whoever stops a later statement can stop these, too.
#[test]
fn no_deadline_of_the_caller_stops_what_runs_in_the_background() {
    let mut options = options();
    options.call.deadline = Time::from_millis(2);
    for machine in [cleanup_of(["a", "z"], options.clone()), secondaries_of(["a", "z"], options)] {
        let mut script = Script::with_knowledge(machine, two_regions());
        script.advance(std::time::Duration::from_secs(5));
        while let Some(Command::Call(call)) = script.next() {
            assert_eq!(call.timeout(script.now()), std::time::Duration::from_secs(30));
            script.event(call.token, answer(&call.request, Answer::Accept));
        }
        script.expect_done();
    }
}

#[test]
fn a_rollback_frees_space_and_needs_no_leave_to_write_to_a_full_disk() {
    let mut options = options();
    options.disk_full = kvrpcpb::DiskFullOpt::AllowedOnAlreadyFull;
    options.txn_source = 7;
    options.priority = kvrpcpb::CommandPri::Low;
    let mut script = Script::with_knowledge(cleanup_of(["a"], options), two_regions());
    script.expect_call(1, |_: &kvrpcpb::BatchRollbackRequest| {});
    let context = &script.last_context();
    assert_eq!(context.disk_full_opt(), kvrpcpb::DiskFullOpt::NotAllowedOnFull);
    assert_eq!((context.txn_source, context.priority()), (0, kvrpcpb::CommandPri::Low));
}

#[test]
fn a_lock_of_a_committed_transaction_that_is_gone_is_observed() {
    let (_, observed) = run_background(secondaries_of(["a", "z"], options()), |_| Answer::Refuse(lock_not_found("z")));
    let failures = failures(&observed);
    assert!(matches!(failures[..], [Error::Key(crate::error::KeyError::TxnLockNotFound { .. })]), "{failures:?}");
}

#[test]
fn secondaries_are_committed_again_if_tikv_is_not_certain_of_it() {
    let mut calls = 0;
    let (requests, observed) = run_background(secondaries_of(["a", "z"], options()), |_| {
        calls += 1;
        match calls {
            1 => Answer::RegionError(undetermined_result()),
            2 => Answer::Fault(maybe_executed()),
            _ => ok(),
        }
    });
    assert_eq!((requests.len(), failures(&observed).len()), (3, 0));
}

#[test]
fn the_commit_of_secondaries_ends_when_its_budget_is_spent() {
    let (_, observed) = run_background(secondaries_of(["a", "z"], options()), |_| Answer::Fault(maybe_executed()));
    assert!(matches!(failures(&observed)[..], [error] if error.is_timeout()));
}
