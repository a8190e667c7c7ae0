//! What becomes of a transaction whose owner loses interest.

use tikv_proto::kvrpcpb;

use super::*;
use crate::machine::Abandoned;
use crate::machine::script::maybe_executed;

/// The transaction over two keys in two regions, after `steps` answers of the way to success. The first questions are PD's,
/// as no region is known.
fn after(steps: usize) -> Script<Commit> {
    let knowledge = knowledge(KeyCodec::Txn, []);
    let mut script = Script::with_knowledge(commit_with(puts(["a", "z"]), options()), knowledge);
    let mut waiting = std::collections::VecDeque::new();
    for _ in 0..steps {
        while let Some(command) = script.next() {
            waiting.push_back(command);
        }
        match waiting.pop_front() {
            Some(Command::Call(call)) => script.event(call.token, answer(&call.request, Answer::Accept)),
            Some(Command::Pd { token, request }) => script.event(token, Event::Pd(Ok(pd_answer(&request)))),
            other => panic!("{other:?}"),
        };
    }
    script
}

/// What has been sent and not been answered is no matter of the test.
fn skip_commands(script: &mut Script<Commit>) -> Vec<Command> {
    std::iter::from_fn(|| script.next()).collect()
}

/// Two regions to locate, two prewrites, a timestamp, and the commit.
const LOCATED: usize = 2;
const PREWRITTEN: usize = 4;
const TIMESTAMP: usize = 5;

#[test]
fn before_the_first_prewrite_there_is_nothing_to_do() {
    for steps in 0..LOCATED {
        let mut script = after(steps);
        skip_commands(&mut script);
        assert_eq!(script.abandon(), Abandoned::Discard, "after {steps} steps");
        assert!(skip_commands(&mut script).is_empty(), "after {steps} steps");
    }
}

#[test]
fn from_the_first_prewrite_to_the_commit_it_is_rolled_back() {
    for steps in LOCATED..TIMESTAMP {
        let mut script = after(steps);
        let sent = skip_commands(&mut script);
        assert_eq!(script.abandon(), Abandoned::Discard, "after {steps} steps");
        let cleanup = script.expect_spawn();
        script.expect_nothing();
        assert_eq!(rolled_back(cleanup), ["a", "z"], "after {steps} steps");
        // Answers that come all the same change nothing: above all, nothing is committed any more.
        for command in sent {
            let (token, event) = match command {
                Command::Call(call) => (call.token, answer(&call.request, Answer::Accept)),
                Command::Pd { token, request } => (token, Event::Pd(Ok(pd_answer(&request)))),
                other => panic!("{other:?}"),
            };
            script.event(token, event).expect_nothing();
        }
    }
}

#[test]
fn once_the_primary_is_being_committed_it_is_finished() {
    let mut script = after(TIMESTAMP);
    let commit = expect_commit(&mut script, &["a"], ts(2_000));
    assert_eq!(script.abandon(), Abandoned::FinishInBackground);
    script.expect_nothing();
    script.reply_to(commit, kvrpcpb::CommitResponse::default());
    let (requests, _) = run_background(script.expect_spawn(), |_| ok());
    assert_eq!(names(commit_keys(&requests[0])), ["z"]);
    assert!(script.expect_done().is_ok());
}

#[test]
fn a_commit_that_is_refused_without_its_owner_is_rolled_back() {
    let mut script = after(TIMESTAMP);
    let commit = expect_commit(&mut script, &["a"], ts(2_000));
    assert_eq!(script.abandon(), Abandoned::FinishInBackground);
    let error = Some(Box::new(lock_not_found("a")));
    script.reply_to(commit, kvrpcpb::CommitResponse { error, ..Default::default() });
    assert_eq!(expect_failed(&mut script).1, ["a", "z"]);
}

#[test]
fn a_commit_without_an_answer_and_without_its_owner_is_not_rolled_back() {
    let mut script = after(TIMESTAMP);
    let commit = expect_commit(&mut script, &["a"], ts(2_000));
    assert_eq!(script.abandon(), Abandoned::FinishInBackground);
    script.event(commit, Event::Reply(Err(maybe_executed())));
    loop {
        sleep_through(&mut script);
        let Some(Command::Call(call)) = script.next() else { break };
        script.event(call.token, Event::Reply(Err(maybe_executed())));
    }
    expect_undetermined(&mut script);
}

#[test]
fn there_is_no_other_step() {
    let mut script = after(PREWRITTEN + 2);
    assert!(matches!(script.next(), Some(Command::Spawn(_))));
    assert!(script.expect_done().is_ok());
}
