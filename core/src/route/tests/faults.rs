//! What the network does to a call.

use super::*;
use crate::error::{CallFailure, Error, Execution, Fault, FaultKind};
use crate::knowledge::stores::Liveness;
use crate::machine::Observation;
use crate::machine::script::{maybe_executed, not_sent, region};

const ALL_KINDS: [FaultKind; 10] = [
    FaultKind::Unreachable,
    FaultKind::Disconnected,
    FaultKind::Timeout,
    FaultKind::Protocol,
    FaultKind::Overloaded,
    FaultKind::Status(1),
    FaultKind::Status(4),
    FaultKind::Status(8),
    FaultKind::Status(13),
    FaultKind::Status(14),
];

fn fault(kind: FaultKind, execution: Execution) -> Fault {
    Fault::new(kind, execution, "store-1")
}

fn prewrite_script(
    adjust: impl FnOnce(RegionCall<kvrpcpb::PrewriteRequest>) -> RegionCall<kvrpcpb::PrewriteRequest>,
) -> Script<RegionCall<kvrpcpb::PrewriteRequest>> {
    let knowledge = one_region();
    let mut script = Script::with_knowledge(adjust(prewrite(&knowledge, options())), knowledge);
    script.expect_call(1, |_: &kvrpcpb::PrewriteRequest| {});
    script
}

#[test]
fn whether_a_request_may_have_been_executed_is_never_forgotten() {
    for kind in ALL_KINDS {
        for (execution, expected) in [(Execution::NotSent, false), (Execution::MaybeExecuted, true)] {
            let mut script = prewrite_script(|call| call);
            script.fault(fault(kind, execution));
            back_off(&mut script, BackoffKind::TikvRpc);
            let Some(Command::Call(again)) = script.next() else { panic!("another attempt after {kind:?}") };
            assert!(again.context.is_retry_request);
            // Later attempts that are known not to have been executed change nothing about it.
            script.event(again.token, Event::Reply(Err(fault(FaultKind::Overloaded, Execution::NotSent))));
            back_off(&mut script, BackoffKind::TikvRpc);
            let Some(Command::Call(again)) = script.next() else { panic!("another attempt after {kind:?}") };
            let refused = errorpb::Error { raft_entry_too_large: Some(Default::default()), ..Default::default() };
            let refused = Response::of_region_error(again.request.kind(), refused).expect("regional");
            script.event(again.token, Event::Reply(Ok(refused)));
            let end = script.expect_done();
            assert_eq!((end.maybe_executed, end.attempts), (expected, 3), "{kind:?}");
        }
    }
}

#[test]
fn what_must_not_be_repeated_is_not_sent_again_once_it_may_have_been_executed() {
    for kind in ALL_KINDS {
        let mut script = prewrite_script(RegionCall::at_most_once);
        script.fault(fault(kind, Execution::NotSent));
        back_off(&mut script, BackoffKind::TikvRpc);
        let Some(Command::Call(again)) = script.next() else { panic!("another attempt after {kind:?}") };
        let lost = fault(kind, Execution::MaybeExecuted);
        script.event(again.token, Event::Reply(Err(lost.clone())));
        let end = script.expect_done();
        assert_eq!(end.result, Err(CallError::Undetermined(CallFailure::Fault(lost))));
        assert_eq!((end.maybe_executed, end.attempts), (true, 2));
    }
}

#[test]
fn even_the_end_of_the_client_does_not_mask_a_write_that_may_have_happened() {
    for (execution, undetermined) in [(Execution::NotSent, false), (Execution::MaybeExecuted, true)] {
        let closed = fault(FaultKind::Closed, execution);
        let mut script = prewrite_script(|call| call);
        script.fault(closed.clone());
        let end = script.expect_done();
        assert_eq!((end.result, end.maybe_executed), (Err(CallError::Failed(Error::Closed)), undetermined));
        let mut script = prewrite_script(RegionCall::at_most_once);
        script.fault(closed.clone());
        let expected = if undetermined {
            CallError::Undetermined(CallFailure::Fault(closed))
        } else {
            CallError::Failed(Error::Closed)
        };
        assert_eq!(script.expect_done().result, Err(expected));
    }
}

#[test]
fn a_store_that_knows_no_such_method_or_caller_is_not_asked_again() {
    for code in [7, 12, 16] {
        for execution in [Execution::NotSent, Execution::MaybeExecuted] {
            let refusal = fault(FaultKind::Status(code), execution).with_detail("no");
            let mut script = prewrite_script(|call| call);
            script.fault(refusal.clone());
            let end = script.expect_done();
            let error = Error::Refused { operation: "Prewrite", address: "store-1".into(), message: "no".into() };
            assert_eq!(end.result, Err(CallError::Failed(error.clone())));
            assert_eq!(end.maybe_executed, execution == Execution::MaybeExecuted, "the status may be that of a stream");

            let mut script = prewrite_script(RegionCall::at_most_once);
            script.fault(refusal.clone());
            let expected = match execution {
                Execution::NotSent => CallError::Failed(error),
                Execution::MaybeExecuted => CallError::Undetermined(CallFailure::Fault(refusal)),
            };
            assert_eq!(script.expect_done().result, Err(expected));
        }
    }
}

#[test]
fn an_answer_to_another_question_is_an_error_of_its_own() {
    let wrong = Response::RawGet(kvrpcpb::RawGetResponse::default());
    let mut script = prewrite_script(|call| call);
    let token = script.last_call().token;
    script.event(token, Event::Reply(Ok(wrong.clone())));
    let end = script.expect_done();
    let error = Error::WrongResponse { operation: "Prewrite", address: "store-1".into(), actual: "RawGet" };
    assert_eq!((end.result, end.maybe_executed), (Err(CallError::Failed(error)), true));

    let mut script = prewrite_script(RegionCall::at_most_once);
    let token = script.last_call().token;
    script.event(token, Event::Reply(Ok(wrong)));
    let Err(CallError::Undetermined(cause)) = script.expect_done().result else { panic!("known to have happened?") };
    assert_eq!(cause.to_string(), "protocol broken at store-1: Prewrite was answered with RawGet");
}

#[test]
fn faults_are_observed_and_only_some_are_held_against_the_store() {
    use Execution::{MaybeExecuted, NotSent};
    for (kind, execution, blamed) in [
        (FaultKind::Unreachable, NotSent, true),
        (FaultKind::Protocol, MaybeExecuted, true),
        (FaultKind::Status(14), MaybeExecuted, true),
        // Who listens there does not let requests in: it may not be the store any more.
        (FaultKind::Disconnected, NotSent, true),
        (FaultKind::Disconnected, MaybeExecuted, false),
        (FaultKind::Timeout, NotSent, false),
        (FaultKind::Timeout, MaybeExecuted, false),
        (FaultKind::Overloaded, NotSent, false),
        (FaultKind::Status(13), MaybeExecuted, false),
    ] {
        let mut script = prewrite_script(|call| call);
        let fault = fault(kind, execution);
        script.fault(fault.clone());
        assert_eq!(script.observations(), [Observation::CallFailed { store_id: 1, fault }]);
        let store = script.knowledge.stores.get(1).expect("known");
        assert_eq!(
            (store.epoch == 1, store.liveness == Liveness::Unreachable),
            (blamed, blamed),
            "{kind:?} {execution:?}"
        );
    }
}

#[test]
fn of_many_calls_that_fail_together_only_the_first_counts_against_the_store() {
    let knowledge = one_region();
    let mut late = Script::with_knowledge(get(&knowledge, options()), knowledge.clone());
    late.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    // Meanwhile the store failed in another call, and was checked.
    late.knowledge.stores.report_failure(1, 0);
    late.knowledge.stores.learn(&pd_store(1));
    late.fault(not_sent());
    let store = late.knowledge.stores.get(1).expect("known");
    assert_eq!((store.epoch, store.liveness), (1, Liveness::Reachable));
}

#[test]
fn a_cluster_of_one_store_recovers_from_its_restart() {
    let mut lonely = region(1, "".."");
    lonely.replicas.truncate(1);
    let knowledge = knowledge(KeyCodec::Txn, [lonely]);
    let call = RegionCall::to_key(get_request(), options(), budget_of(40));
    let mut script = Script::with_knowledge(call, knowledge);
    let mut described = pd_region(1, 1, "".."");
    described.region.peers.truncate(1);
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    // It stops, and takes the connection with it.
    script.fault(maybe_executed());
    back_off(&mut script, BackoffKind::TikvRpc);
    for epoch in 1..=3 {
        // Down.
        script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
        script.fault(not_sent());
        let store = script.knowledge.stores.get(1).expect("known");
        assert_eq!((store.epoch, store.liveness, store.needs_check), (epoch, Liveness::Unreachable, true));
        back_off(&mut script, BackoffKind::TikvRpc);
        // No replica is left: the region is loaded again, and its store looked up.
        back_off(&mut script, BackoffKind::RegionMiss);
        script.expect_pd(&by_key("k", false));
        script.pd(the_region(described.clone()));
        script.expect_pd(&PdRequest::Store { id: 1 });
        script.pd(the_store(pd_store(1)));
    }
    // Up again.
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    script.reply(kvrpcpb::GetResponse::default());
    assert!(script.expect_done().result.is_ok());
    let store = script.knowledge.stores.get(1).expect("known");
    assert_eq!((store.epoch, store.liveness, store.needs_check), (3, Liveness::Reachable, false));
}

#[test]
fn a_store_that_comes_back_elsewhere_is_found_there() {
    let call = RegionCall::to_key(get_request(), options(), budget_of(40));
    let mut script = Script::with_knowledge(call, one_region());
    for store in 1..=3 {
        script.expect_call(store, |_: &kvrpcpb::GetRequest| {});
        script.fault(Fault::new(FaultKind::Unreachable, Execution::NotSent, "down"));
        back_off(&mut script, BackoffKind::TikvRpc);
    }
    back_off(&mut script, BackoffKind::RegionMiss);
    script.expect_pd(&by_key("k", false));
    script.pd(the_region(pd_region(1, 1, "".."")));
    for id in 1..=3 {
        let token = script.expect_pd(&PdRequest::Store { id });
        let moved = metapb::Store { address: format!("moved-{id}"), ..pd_store(id) };
        if id < 3 {
            script.event(token, Event::Pd(the_store(moved)));
        } else {
            script.pd(the_store(moved));
        }
    }
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    assert_eq!(&*script.last_call().address, "moved-1");
}
