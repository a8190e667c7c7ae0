//! One call as a whole: its context, its limits, its end.

use super::*;
use crate::error::{CallFailure, Error, Execution, Fault, FaultKind, PdError};
use crate::knowledge::regions::RegionVerId;
use crate::machine::Token;
use crate::machine::script::{maybe_executed, not_sent, region};

type Get = RegionCall<kvrpcpb::GetRequest>;

fn script(options: CallOptions) -> Script<Get> {
    let knowledge = one_region();
    Script::with_knowledge(get(&knowledge, options), knowledge)
}

fn by_itself(options: CallOptions, knowledge: Knowledge) -> Script<Get> {
    let call = RegionCall::to_key(get_request(), options, budget_of(40));
    Script::with_knowledge(call, knowledge)
}

fn expect_get(script: &mut Script<Get>, store: u64) -> Token {
    script.expect_call(store, |get: &kvrpcpb::GetRequest| assert_eq!(get.key, "k"))
}

/// Two seconds from the start of a script.
fn soon() -> CallOptions {
    options().with_deadline(Time::from_millis(2_001))
}

fn region_error(name: &'static str) -> CallFailure {
    CallFailure::Region { name, region_id: 1, address: "store-1".into() }
}

#[test]
fn a_request_names_its_region_and_peer_and_keeps_the_options() {
    let mut script = script(options().with_context(|context| context.priority = kvrpcpb::CommandPri::High.into()));
    expect_get(&mut script, 1);
    let call = script.last_call().clone();
    assert_eq!((call.store_id, &*call.address, call.timeout(script.now())), (1, "store-1", Duration::from_secs(30)));
    let expected = RequestContext {
        region_id: 1,
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
        peer: Some(peer(1, 1)),
        priority: kvrpcpb::CommandPri::High.into(),
        max_execution_duration_ms: 30_000,
        ..Default::default()
    };
    assert_eq!(call.context.to_message(), expected);
    script.reply(kvrpcpb::GetResponse { value: "v".into(), ..Default::default() });
    let end = script.expect_done();
    assert_eq!(
        (end.address().map(|address| &**address), end.attempts, end.maybe_executed),
        (Some("store-1"), 1, false)
    );
    assert_eq!(end.result.expect("answered").value, "v");
    assert_eq!(end.region.expect("asked").ver_id.id, 1);
    assert_eq!(end.backoff, budget_of(40));
}

#[test]
fn the_server_may_work_no_longer_than_the_client_waits() {
    for (limit, timeout, expected) in
        [(0, Duration::from_millis(250), 250), (0, Duration::from_micros(10), 1), (70, Duration::from_secs(1), 70)]
    {
        let options = options().with_timeout(timeout);
        let mut script = script(options.with_context(|context| context.max_execution_duration_ms = limit));
        expect_get(&mut script, 1);
        assert_eq!(script.last_context().max_execution_duration_ms, expected);
    }
}

#[test]
fn a_repetition_is_marked_as_one() {
    let mut script = script(options());
    for attempt in 0..3 {
        expect_get(&mut script, 1);
        assert_eq!(script.last_context().is_retry_request, attempt > 0);
        script.region_error(busy("", 1));
        back_off(&mut script, BackoffKind::TikvServerBusy);
    }
}

#[test]
fn what_was_in_an_earlier_call_is_a_repetition_from_the_start() {
    let knowledge = one_region();
    let mut marked = Script::with_knowledge(get(&knowledge, options()).as_retry(false).as_retry(true), knowledge);
    expect_get(&mut marked, 1);
    assert!(marked.last_context().is_retry_request);
    let mut told = script(options().with_context(|context| context.is_retry_request = true));
    expect_get(&mut told, 1);
    assert!(told.last_context().is_retry_request);
}

#[test]
fn a_follower_that_serves_leads_from_now_on() {
    let mut script = script(options());
    expect_get(&mut script, 1);
    script.region_error(not_leader(None));
    back_off(&mut script, BackoffKind::RegionScheduling);
    expect_get(&mut script, 2);
    script.reply(kvrpcpb::GetResponse::default());
    assert!(script.expect_done().result.is_ok());
    assert_eq!(the_known_region(&script.knowledge).leader().peer, peer(1, 2));
}

#[test]
fn the_end_of_the_budget_tells_what_was_tried_and_met() {
    let knowledge = one_region();
    let call = RegionCall::to_region(the_known_region(&knowledge), get_request(), options(), budget_of(1));
    let mut script = Script::with_knowledge(call, knowledge);
    let mut attempts = 0;
    loop {
        let Some(Command::Call(call)) = script.next() else { panic!("an attempt") };
        attempts += 1;
        let scheduling = errorpb::Error { read_index_not_ready: Some(Default::default()), ..Default::default() };
        let response = Response::of_region_error(call.request.kind(), scheduling).expect("regional");
        script.event(call.token, Event::Reply(Ok(response)));
        if script.peek().is_none() {
            break;
        }
        back_off(&mut script, BackoffKind::RegionScheduling);
    }
    let end = script.expect_done();
    let slept = end.backoff.total_sleep();
    assert!(slept >= Duration::from_secs(1));
    let Err(CallError::Failed(error)) = end.result else { panic!("{:?}", end.result) };
    let last = region_error("read_index_not_ready");
    assert_eq!(error, Error::RetriesExhausted { operation: "Get", attempts, slept, last });
    assert_eq!(end.attempts, attempts);
}

#[test]
fn without_a_budget_the_first_obstacle_is_the_end() {
    let knowledge = one_region();
    let call = RegionCall::to_region(the_known_region(&knowledge), get_request(), options(), Backoff::none());
    let mut script = Script::with_knowledge(call, knowledge);
    expect_get(&mut script, 1);
    script.fault(maybe_executed());
    let end = script.expect_done();
    assert!(matches!(end.result, Err(CallError::Failed(Error::RetriesExhausted { attempts: 1, .. }))));
    assert!(end.maybe_executed);
}

#[test]
fn no_attempt_outlasts_the_deadline_of_the_operation() {
    let mut script = script(soon());
    expect_get(&mut script, 1);
    assert_eq!(script.last_call().timeout(script.now()), Duration::from_secs(2));
    script.advance(Duration::from_millis(500));
    script.region_error(not_leader(Some(peer(1, 2))));
    expect_get(&mut script, 2);
    assert_eq!(script.last_call().timeout(script.now()), Duration::from_millis(1_500));
    assert_eq!(script.last_context().max_execution_duration_ms, 1_500);
}

#[test]
fn a_sleep_ends_at_the_deadline_and_the_operation_with_it() {
    let mut script = script(soon());
    expect_get(&mut script, 1);
    script.advance(Duration::from_millis(1_999));
    script.region_error(busy("", 0));
    script.expect_sleep(|duration, _| assert_eq!(duration, Duration::from_millis(1)));
    script.advance(Duration::from_millis(1)).wake();
    let error = Error::DeadlineExceeded { operation: "Get", attempts: 1, last: region_error("server_is_busy") };
    assert_eq!(script.expect_done().result, Err(CallError::Failed(error)));
}

#[test]
fn after_the_deadline_nothing_is_sent_and_nobody_sleeps() {
    let timeout = Fault::new(FaultKind::Timeout, Execution::MaybeExecuted, "store-1");
    let mut late = script(soon());
    expect_get(&mut late, 1);
    late.advance(Duration::from_secs(2)).fault(timeout.clone());
    let last = CallFailure::Fault(timeout);
    let error = Error::DeadlineExceeded { operation: "Get", attempts: 1, last };
    let end = late.expect_done();
    assert_eq!((end.result, end.maybe_executed), (Err(CallError::Failed(error)), true));

    let mut hinted = script(soon());
    expect_get(&mut hinted, 1);
    hinted.advance(Duration::from_secs(3)).region_error(not_leader(Some(peer(1, 2))));
    let error = Error::DeadlineExceeded { operation: "Get", attempts: 1, last: region_error("not_leader") };
    assert_eq!(hinted.expect_done().result, Err(CallError::Failed(error)));

    let mut begun_late = script(soon());
    begun_late.advance(Duration::from_secs(2));
    let error = Error::DeadlineExceeded { operation: "Get", attempts: 0, last: CallFailure::NotAttempted };
    assert_eq!(begun_late.expect_done().result, Err(CallError::Failed(error)));
}

#[test]
fn an_answer_that_comes_late_is_still_an_answer() {
    let mut script = script(soon());
    expect_get(&mut script, 1);
    script.advance(Duration::from_secs(3)).reply(kvrpcpb::GetResponse::default());
    assert!(script.expect_done().result.is_ok());
}

#[test]
fn the_deadline_also_ends_the_search_for_the_region() {
    let mut fresh = by_itself(soon(), knowledge(KeyCodec::Txn, []));
    let alarm = fresh.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Deadline));
    let question = fresh.expect_pd(&by_key("k", false));
    fresh.advance(Duration::from_secs(2)).event(alarm, Event::Woken).expect_cancel(question);
    let error = Error::DeadlineExceeded { operation: "Get", attempts: 0, last: CallFailure::NotAttempted };
    assert_eq!(fresh.expect_done().result, Err(CallError::Failed(error)));

    let mut again = by_itself(soon(), one_region());
    expect_get(&mut again, 1);
    again.fault(maybe_executed());
    back_off(&mut again, BackoffKind::TikvRpc);
    expect_get(&mut again, 2);
    again.region_error(epoch_not_match(Vec::new()));
    back_off(&mut again, BackoffKind::RegionMiss);
    let alarm = again.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Deadline));
    let question = again.expect_pd(&by_key("k", false));
    again.advance(Duration::from_secs(2)).event(alarm, Event::Woken).expect_cancel(question);
    let end = again.expect_done();
    let last = CallFailure::Region { name: "epoch_not_match", region_id: 1, address: "store-2".into() };
    let error = Error::DeadlineExceeded { operation: "Get", attempts: 2, last };
    assert_eq!((end.result, end.maybe_executed), (Err(CallError::Failed(error)), true), "and no doubt is lost");
}

#[test]
fn a_region_that_cannot_be_found_is_the_end_of_the_call() {
    let mismatch = PdError::ClusterMismatch { address: "pd".into(), expected: 1, actual: 2 };
    let mut script = by_itself(options(), knowledge(KeyCodec::Txn, []));
    script.expect_pd(&by_key("k", false));
    script.pd(Err(mismatch.clone()));
    let end = script.expect_done();
    assert_eq!((end.result, end.attempts), (Err(CallError::Failed(Error::Pd(mismatch))), 0));
    assert_eq!((end.region, end.store), (None, None));
}

#[test]
fn what_is_spent_on_the_search_is_spent_for_the_call() {
    let mut script = by_itself(options(), knowledge(KeyCodec::Txn, []));
    script.expect_pd(&by_key("k", false));
    script.pd(Ok(PdResponse::Region(None)));
    back_off(&mut script, BackoffKind::PdRpc);
    script.expect_pd(&by_key("k", true));
    script.pd(the_region(pd_region(1, 1, "".."")));
    expect_get(&mut script, 1);
    script.reply(kvrpcpb::GetResponse::default());
    assert!(script.expect_done().backoff.total_sleep() >= Duration::from_millis(250));
}

#[test]
fn a_region_that_is_gone_after_a_sleep_is_not_asked_again() {
    let gone = RegionVerId { id: 1, conf_ver: 1, version: 1 };
    let mut fixed = script(options());
    expect_get(&mut fixed, 1);
    fixed.region_error(busy("", 0));
    fixed.knowledge.regions.invalidate(gone);
    back_off(&mut fixed, BackoffKind::TikvServerBusy);
    assert_eq!(fixed.expect_done().result, Err(CallError::Relocate(region_error("server_is_busy"))));

    let mut free = by_itself(options(), one_region());
    expect_get(&mut free, 1);
    free.region_error(busy("", 0));
    let mut newer = region(1, "g".."p");
    newer.ver_id.version = 2;
    free.knowledge.regions.insert(free.now(), newer);
    back_off(&mut free, BackoffKind::TikvServerBusy);
    expect_get(&mut free, 1);
    assert_eq!(free.last_context().region_epoch.map(|epoch| epoch.version), Some(2));
}

#[test]
fn a_call_to_a_region_does_not_ask_whether_it_is_known() {
    let knowledge = knowledge(KeyCodec::Txn, []);
    let call = RegionCall::to_region(Arc::new(region(1, "".."")), get_request(), options(), budget_of(40));
    let mut script = Script::with_knowledge(call, knowledge);
    expect_get(&mut script, 1);
    script.region_error(not_leader(Some(peer(1, 3))));
    expect_get(&mut script, 3);
}

#[test]
fn late_and_foreign_events_are_ignored_in_every_phase() {
    fn intrude(script: &mut Script<Get>, late: &[Token]) {
        for token in late.iter().copied().chain([Token(999)]) {
            for event in [
                Event::Woken,
                Event::Pd(Ok(PdResponse::Region(None))),
                Event::Reply(Ok(kvrpcpb::GetResponse::default().into())),
                Event::Reply(Err(not_sent())),
            ] {
                script.event(token, event).expect_nothing();
            }
        }
    }
    let mut script = by_itself(options(), knowledge(KeyCodec::Txn, []));
    let question = script.expect_pd(&by_key("k", false));
    intrude(&mut script, &[]);
    script.pd(the_region(pd_region(1, 1, "".."")));
    let call = expect_get(&mut script, 1);
    script.event(call, Event::Woken).expect_nothing();
    intrude(&mut script, &[question]);
    script.region_error(busy("", 0));
    let timer = script.expect_sleep(|_, _| {});
    intrude(&mut script, &[question, call]);
    script.wake();
    let again = expect_get(&mut script, 1);
    intrude(&mut script, &[question, call, timer]);
    script.reply_to(again, kvrpcpb::GetResponse::default());
    assert!(script.expect_done().result.is_ok());
    assert!(script.poke(call, Event::Reply(Err(not_sent()))).is_pending(), "not even after the end");
}

#[test]
fn a_caller_who_need_not_know_more_gets_a_plain_error() {
    let end = |result| CallEnd::<()> {
        result,
        region: None,
        store: None,
        backoff: budget_of(1),
        attempts: 3,
        maybe_executed: true,
    };
    let last = CallFailure::NoReplica { region_id: 1 };
    let exhausted =
        Error::RetriesExhausted { operation: "Get", attempts: 3, slept: Duration::ZERO, last: last.clone() };
    assert_eq!(end(Ok(())).into_result("Get"), Ok(()));
    assert_eq!(end(Err(CallError::Failed(Error::Closed))).into_result("Get"), Err(Error::Closed));
    assert_eq!(end(Err(CallError::Relocate(last.clone()))).into_result("Get"), Err(exhausted.clone()));
    assert_eq!(end(Err(CallError::Undetermined(last))).into_result("Get"), Err(exhausted));
}
