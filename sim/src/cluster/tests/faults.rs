use tikv_core::request::RequestKind;

use super::*;
use crate::status::Code;

fn leader_and_context(cluster: &Cluster) -> (u64, Context) {
    cluster.leader_context(encoded(b"a").as_slice()).unwrap()
}

#[test]
fn a_fault_meets_as_many_requests_of_its_kind_as_ordered() {
    let mut cluster = cluster();
    let busy = || Effect::RegionError(Box::new(region_error::server_is_busy("scheduler is busy", 0)));
    let (store, context) = leader_and_context(&cluster);
    cluster.inject(Fault::new(busy()).on_store(store).on_region(context.region_id).on(RequestKind::Get).times(2));
    assert_eq!(ask(&mut cluster, store, &context, raw_get("a")).unwrap().region_error(), None);
    for _ in 0..2 {
        let error = refusal(&mut cluster, store, &context, get("a", 5));
        assert_eq!(error.server_is_busy.unwrap().reason, "scheduler is busy");
    }
    assert_eq!(ask(&mut cluster, store, &context, get("a", 5)).unwrap().region_error(), None);
}

#[test]
fn a_fault_may_strike_each_third_request_that_it_applies_to() {
    let mut cluster = cluster();
    let busy = Effect::RegionError(Box::new(region_error::server_is_busy("", 0)));
    cluster.inject(Fault::new(busy).on(RequestKind::Get).each(3).forever());
    let (store, context) = leader_and_context(&cluster);
    let mut struck = Vec::new();
    for _ in 0..7 {
        // Others do not count.
        assert_eq!(ask(&mut cluster, store, &context, raw_get("a")).unwrap().region_error(), None);
        struck.push(ask(&mut cluster, store, &context, get("a", 5)).unwrap().region_error().is_some());
    }
    assert_eq!(struck, [false, false, true, false, false, true, false]);
}

#[test]
fn a_delayed_request_is_executed_and_answered_later() {
    let mut cluster = cluster();
    let (store, context) = leader_and_context(&cluster);
    cluster.inject(Fault::new(Effect::Delay(Duration::from_millis(50))).on(RequestKind::RawPut));
    let Served::Later(call) = cluster.handle_store(NOW, store, &context, raw_put("a", "1")) else { panic!() };
    let Response::RawGet(before) = ask(&mut cluster, store, &context, raw_get("a")).unwrap() else { panic!() };
    assert!(before.not_found);
    assert_eq!(cluster.poll_reply(NOW), None);
    let at = cluster.next_wakeup().unwrap();
    assert_eq!(at, NOW + Duration::from_millis(50));
    let (answered, reply) = cluster.poll_reply(at).unwrap();
    assert_eq!((answered, reply.is_ok()), (call, true));
    let Response::RawGet(after) = ask(&mut cluster, store, &context, raw_get("a")).unwrap() else { panic!() };
    assert_eq!(after.value, "1");
}

#[test]
fn a_lost_reply_hides_that_the_request_was_executed() {
    let mut cluster = cluster();
    let (store, context) = leader_and_context(&cluster);
    for (effect, is_executed) in [(Effect::Lose, false), (Effect::LoseReply, true)] {
        cluster.inject(Fault::new(effect));
        let served = cluster.handle_store(NOW, store, &context, raw_put("a", "1"));
        assert!(matches!(served, Served::Later(_)));
        assert_eq!(cluster.poll_reply(NOW + Duration::from_secs(60)), None);
        let Response::RawGet(found) = ask(&mut cluster, store, &context, raw_get("a")).unwrap() else { panic!() };
        assert_eq!(!found.not_found, is_executed);
    }
}

#[test]
fn a_status_is_passed_on_and_faults_can_be_called_off() {
    let mut cluster = cluster();
    let (store, context) = leader_and_context(&cluster);
    let status = Status::new(Code::Unavailable, "out to lunch");
    cluster.inject(Fault::new(Effect::Status(status.clone())).forever());
    for _ in 0..3 {
        assert_eq!(ask(&mut cluster, store, &context, get("a", 5)), Err(CallError::Status(status.clone())));
    }
    cluster.clear_faults();
    assert!(ask(&mut cluster, store, &context, get("a", 5)).is_ok());
}

#[test]
fn what_is_under_way_from_a_crashing_store_is_cut_off() {
    let mut cluster = cluster();
    let (store, context) = leader_and_context(&cluster);
    cluster.inject(Fault::new(Effect::DelayReply(Duration::from_secs(5))));
    let Served::Later(call) = cluster.handle_store(NOW, store, &context, raw_put("a", "1")) else { panic!() };
    cluster.stop_store(NOW, store).unwrap();
    assert_eq!(cluster.poll_reply(NOW), Some((call, Err(CallError::Disconnected))));
}

#[test]
fn a_fault_can_wait_for_a_key_and_let_some_requests_pass() {
    let mut cluster = cluster();
    let (store, context) = leader_and_context(&cluster);
    let status = Status::new(Code::Unavailable, "out to lunch");
    cluster.inject(Fault::new(Effect::Status(status.clone())).on_key("b").after(1));
    let mut is_refused =
        |key| ask(&mut cluster, store, &context, raw_get(key)) == Err(CallError::Status(status.clone()));
    assert!(!is_refused("a") && !is_refused("b"), "the first one about that key passes");
    assert!(!is_refused("a") && is_refused("b"));
    assert!(!is_refused("b"), "once only");
}

#[test]
fn a_request_names_its_keys_but_not_the_bounds_of_a_range() {
    let context = Context::default();
    let names =
        |request: &Request, key: &[u8]| Arrival { now: NOW, store_id: 1, context: &context, request }.names(key);
    assert!(names(&prewrite("a", "1", 5), b"a") && !names(&prewrite("a", "1", 5), b"b"));
    assert!(names(&commit("a", 5, 6), b"a"));
    let scan = kvrpcpb::ScanRequest { start_key: "a".into(), end_key: "b".into(), ..Default::default() };
    assert!(!names(&scan.into(), b"a"));
}

#[test]
fn a_replayed_request_is_executed_again_and_answered_once() {
    let mut cluster = cluster();
    let (store, context) = leader_and_context(&cluster);
    cluster.inject(Fault::new(Effect::Replay(Duration::from_secs(1))).on(RequestKind::RawPut));
    assert!(ask(&mut cluster, store, &context, raw_put("a", "1")).is_ok());
    assert!(ask(&mut cluster, store, &context, raw_put("a", "2")).is_ok());
    assert_eq!(cluster.poll_reply(cluster.next_wakeup().unwrap()), None);
    let Response::RawGet(found) = ask(&mut cluster, store, &context, raw_get("a")).unwrap() else { panic!() };
    assert_eq!(found.value, "1");
}

#[test]
fn a_store_may_say_something_else_than_what_it_did() {
    let mut cluster = cluster();
    let (store, context) = leader_and_context(&cluster);
    cluster.inject(Fault::new(Effect::RegionErrorAfter(Box::new(region_error::undetermined_result()))));
    let error = refusal(&mut cluster, store, &context, raw_put("a", "1"));
    assert!(error.undetermined_result.is_some());
    let invented = Response::from(kvrpcpb::RawGetResponse { value: "2".into(), ..Default::default() });
    cluster.inject(Fault::new(Effect::Reply(Box::new(invented.clone()))));
    assert_eq!(ask(&mut cluster, store, &context, raw_get("a")), Ok(invented));
    let Response::RawGet(found) = ask(&mut cluster, store, &context, raw_get("a")).unwrap() else { panic!() };
    assert_eq!(found.value, "1", "it was executed");
}

#[test]
fn a_store_can_crash_between_a_request_and_its_answer() {
    let mut cluster = cluster();
    let (store, context) = leader_and_context(&cluster);
    cluster.inject(Fault::new(Effect::Crash));
    assert_eq!(ask(&mut cluster, store, &context, raw_put("a", "1")), Err(CallError::Disconnected));
    assert_eq!(ask(&mut cluster, store, &context, raw_get("a")), Err(CallError::Unreachable));
    cluster.start_store(NOW, store).unwrap();
    let later = NOW + Duration::from_secs(10);
    assert_eq!(cluster.poll_reply(later), None);
    let (store, context) = leader_and_context(&cluster);
    let Response::RawGet(found) = ask(&mut cluster, store, &context, raw_get("a")).unwrap() else { panic!() };
    assert_eq!(found.value, "1");
}
