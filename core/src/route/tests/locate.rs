use super::*;
use crate::error::{CallFailure, Error, Execution, Fault, FaultKind, PdError};
use crate::key::KeyRange;
use crate::knowledge::regions::RegionVerId;
use crate::knowledge::stores::Liveness;
use crate::machine::Token;
use crate::machine::script::region;

const BUDGET: u64 = 20;

fn of(key: &str) -> Place {
    Place::Of(Key::from(key))
}

fn before(key: &str) -> Place {
    Place::Before(Key::from(key))
}

fn script(place: Place, knowledge: Knowledge) -> Script<Locate> {
    Script::with_knowledge(Locate::new(place, budget_of(BUDGET)), knowledge)
}

/// A script that knows the stores, but no region.
fn empty(place: Place) -> Script<Locate> {
    script(place, knowledge(KeyCodec::Txn, []))
}

fn located(script: &mut Script<Locate>) -> Arc<Region> {
    script.expect_done().result.expect("located")
}

fn failed(script: &mut Script<Locate>) -> Error {
    script.expect_done().result.expect_err("not located")
}

fn refused() -> PdError {
    PdError::Refused { address: "pd".into(), method: "GetRegion", message: "no".into() }
}

fn ask_store(id: u64) -> PdRequest {
    PdRequest::Store { id }
}

#[test]
fn a_known_region_is_used_at_once() {
    for (place, id) in [(of("k"), 2), (before("g"), 1), (before(""), 3), (Place::Id(3), 3)] {
        let regions = [region(1, "".."g"), region(2, "g".."p"), region(3, "p".."")];
        let mut script = script(place, knowledge(KeyCodec::Txn, regions));
        assert_eq!(located(&mut script).ver_id.id, id);
    }
}

#[test]
fn an_unknown_region_is_asked_for_and_known_from_then_on() {
    let mut script = empty(of("k"));
    script.expect_pd(&by_key("k", false));
    script.pd(the_region(pd_region(7, 3, "g".."p")));
    let region = located(&mut script);
    assert_eq!(region.ver_id, RegionVerId { id: 7, conf_ver: 1, version: 3 });
    assert_eq!((region.range.clone(), region.leader().peer), (KeyRange::new("g", "p"), peer(7, 1)));
    assert_eq!(script.knowledge.regions.lookup(script.now(), b"h"), Some(region));
}

#[test]
fn stores_not_known_yet_are_asked_for_side_by_side() {
    let mut script = script(of("k"), Knowledge::new(KeyCodec::Txn, &Config::default()));
    script.expect_pd(&by_key("k", false));
    script.pd(the_region(pd_region(1, 1, "".."")));
    let questions = [1, 2, 3].map(|id| script.expect_pd(&ask_store(id)));
    for id in [2, 3, 1] {
        script.event(questions[id as usize - 1], Event::Pd(the_store(pd_store(id))));
    }
    assert_eq!(located(&mut script).replicas.len(), 3);
    assert_eq!(&*script.knowledge.stores.get(2).expect("learnt").address, "store-2");
}

#[test]
fn a_store_in_doubt_is_checked_before_its_regions_are_used() {
    let mut script = empty(of("k"));
    script.knowledge.stores.report_failure(2, 0);
    script.expect_pd(&by_key("k", false));
    script.pd(the_region(pd_region(1, 1, "".."")));
    script.expect_pd(&ask_store(2));
    script.pd(the_store(metapb::Store { address: "moved".into(), ..pd_store(2) }));
    let region = located(&mut script);
    let store = script.knowledge.stores.get(2).expect("known");
    assert_eq!((&*store.address, store.liveness, store.needs_check), ("moved", Liveness::Reachable, false));
    assert_eq!(region.replicas[1].store_epoch, store.epoch);
}

#[test]
fn a_store_that_is_gone_or_has_no_address_is_left_out() {
    for answer in [
        Ok(PdResponse::Store(None)),
        the_store(metapb::Store { address: String::new(), ..pd_store(2) }),
        the_store(pd_store(4)),
    ] {
        let mut script = empty(of("k"));
        script.knowledge.stores.request_check(2);
        script.expect_pd(&by_key("k", false));
        script.pd(the_region(pd_region(1, 1, "".."")));
        script.expect_pd(&ask_store(2));
        script.pd(answer);
        let stores: Vec<_> = located(&mut script).replicas.iter().map(|replica| replica.peer.store_id).collect();
        assert_eq!((stores, script.knowledge.stores.get(2)), (vec![1, 3], None));
    }
}

#[test]
fn if_a_store_cannot_be_checked_the_region_is_asked_for_again() {
    let mut script = empty(of("k"));
    script.knowledge.stores.request_check(1);
    script.knowledge.stores.request_check(2);
    script.expect_pd(&by_key("k", false));
    script.pd(the_region(pd_region(1, 1, "".."")));
    let (first, second) = (script.expect_pd(&ask_store(1)), script.expect_pd(&ask_store(2)));
    script.event(first, Event::Pd(Err(refused()))).expect_cancel(second);
    back_off(&mut script, BackoffKind::PdRpc);
    script.expect_pd(&by_key("k", true));
}

#[test]
fn a_region_without_a_leader_is_located_all_the_same() {
    let mut script = empty(of("k"));
    script.expect_pd(&by_key("k", false));
    script.pd(the_region(PdRegion { leader: None, ..pd_region(1, 1, "".."") }));
    assert_eq!(located(&mut script).leader().peer, peer(1, 1), "any replica knows who leads");
}

#[test]
fn after_a_failure_only_the_leader_of_pd_is_asked() {
    let nonsense = pd_region(1, 1, "p".."g");
    let down = PdRegion { down_peers: (1..=3).map(|store| peer(1, store)).collect(), ..pd_region(1, 1, "".."") };
    let elsewhere = pd_region(1, 1, "p".."z");
    for answer in [
        Err(refused()),
        Ok(PdResponse::Region(None)),
        Ok(PdResponse::Regions(Vec::new())),
        the_region(down),
        the_region(nonsense),
        the_region(elsewhere),
    ] {
        let mut script = empty(of("k"));
        script.expect_pd(&by_key("k", false));
        script.pd(answer);
        back_off(&mut script, BackoffKind::PdRpc);
        script.expect_pd(&by_key("k", true));
        script.pd(the_region(pd_region(1, 1, "".."")));
        let end = script.expect_done();
        assert_eq!(end.result.expect("located").ver_id.id, 1);
        assert!(end.backoff.total_sleep() > Duration::ZERO, "what was slept is accounted for");
    }
}

#[test]
fn what_another_has_loaded_in_the_meantime_is_used() {
    let mut script = empty(of("k"));
    script.expect_pd(&by_key("k", false));
    script.pd(Err(refused()));
    script.knowledge.regions.insert(script.now(), region(5, ""..""));
    back_off(&mut script, BackoffKind::PdRpc);
    assert_eq!(located(&mut script).ver_id.id, 5);
}

#[test]
fn the_end_of_the_budget_tells_what_was_tried() {
    let mut script = empty(of("k"));
    let mut questions = 0;
    loop {
        script.expect_pd(&by_key("k", questions > 0));
        questions += 1;
        script.pd(Ok(PdResponse::Region(None)));
        if script.peek().is_none() {
            break;
        }
        back_off(&mut script, BackoffKind::PdRpc);
    }
    let end = script.expect_done();
    let slept = end.backoff.total_sleep();
    assert!(slept >= Duration::from_secs(BUDGET));
    let last = CallFailure::NoRegion { key: Key::from("k") };
    let expected = Error::RetriesExhausted { operation: "locate region", attempts: questions, slept, last };
    assert_eq!(end.result, Err(expected));
}

#[test]
fn what_no_retry_can_change_ends_at_once() {
    let mismatch = PdError::ClusterMismatch { address: "pd".into(), expected: 1, actual: 2 };
    for (error, expected) in [(mismatch.clone(), Error::Pd(mismatch)), (PdError::Closed, Error::Closed)] {
        let mut script = empty(of("k"));
        script.expect_pd(&by_key("k", false));
        script.pd(Err(error));
        assert_eq!(failed(&mut script), expected);
    }
}

#[test]
fn bounds_of_another_kind_of_client_end_at_once() {
    let mut foreign = pd_region(1, 1, "".."");
    foreign.region.start_key = "not encoded".into();
    let mut script = empty(of("k"));
    script.expect_pd(&by_key("k", false));
    script.pd(the_region(foreign));
    assert!(matches!(failed(&mut script), Error::Pd(PdError::Malformed { .. })));
}

/// Knowledge that refuses version 1 of region 1, and does not know where "k" is.
fn knowledge_ahead_of_pd() -> Knowledge {
    let mut newer = region(1, "".."g");
    newer.ver_id.version = 2;
    knowledge(KeyCodec::Txn, [newer])
}

#[test]
fn stale_news_are_asked_for_once_more_from_the_leader_of_pd() {
    let mut script = script(of("k"), knowledge_ahead_of_pd());
    script.expect_pd(&by_key("k", false));
    script.pd(the_region(pd_region(1, 1, "".."")));
    script.expect_pd(&by_key("k", true));
    script.pd(the_region(pd_region(2, 2, "g".."")));
    assert_eq!(located(&mut script).ver_id.id, 2);
    assert!(script.knowledge.regions.lookup(script.now(), b"k").is_some());
}

#[test]
fn what_the_leader_of_pd_says_is_used_even_if_something_newer_is_known() {
    let mut script = script(of("k"), knowledge_ahead_of_pd());
    script.expect_pd(&by_key("k", false));
    script.pd(the_region(pd_region(1, 1, "".."")));
    script.expect_pd(&by_key("k", true));
    script.pd(the_region(pd_region(1, 1, "".."")));
    assert_eq!(located(&mut script).ver_id.version, 1);
    assert_eq!(script.knowledge.regions.lookup(script.now(), b"k"), None, "but others are not led astray");
}

#[test]
fn stale_news_of_what_is_known_by_now_are_not_asked_for_again() {
    let mut script = empty(of("k"));
    script.expect_pd(&by_key("k", false));
    let mut newer = region(1, "".."");
    newer.ver_id.version = 2;
    script.knowledge.regions.insert(script.now(), newer);
    script.pd(the_region(pd_region(1, 1, "".."")));
    assert_eq!(located(&mut script).ver_id.version, 2);
}

#[test]
fn what_is_no_longer_in_use_does_not_outlast_the_word_of_pd() {
    let knowledge = knowledge_ahead_of_pd();
    knowledge.regions.invalidate(RegionVerId { id: 1, conf_ver: 1, version: 2 });
    let mut script = script(of("k"), knowledge);
    script.expect_pd(&by_key("k", false));
    script.pd(the_region(pd_region(1, 1, "".."")));
    script.expect_pd(&by_key("k", true));
    script.pd(the_region(pd_region(1, 1, "".."")));
    let region = located(&mut script);
    assert_eq!(script.knowledge.regions.lookup(script.now(), b"k"), Some(region));
}

/// A region that has split may no longer hold the key, though it still has its id.
#[test]
fn a_region_that_is_no_longer_good_is_loaded_by_key_not_by_id() {
    let whole = RegionVerId { id: 1, conf_ver: 1, version: 1 };
    for spoil in [
        |script: &mut Script<Locate>, ver_id| assert!(script.knowledge.regions.invalidate(ver_id)),
        |script: &mut Script<Locate>, ver_id| assert!(script.knowledge.regions.request_reload(ver_id)),
        |script: &mut Script<Locate>, _| {
            script.advance(Duration::from_secs(700));
        },
    ] {
        let mut script = script(of("k"), one_region());
        spoil(&mut script, whole);
        script.expect_pd(&by_key("k", false));
        script.pd(the_region(pd_region(2, 2, "g".."")));
        assert_eq!(located(&mut script).ver_id.id, 2);
    }
}

#[test]
fn a_region_with_peers_that_are_down_is_loaded_again_in_time() {
    let mut script = empty(of("k"));
    script.expect_pd(&by_key("k", false));
    script.pd(the_region(PdRegion { down_peers: vec![peer(1, 3)], ..pd_region(1, 1, "".."") }));
    assert_eq!(located(&mut script).replicas.len(), 2);
    let (config, mut now) = (Config::default(), script.now());
    for _ in 0..3 {
        now += config.region_ttl / 2;
        let _ = script.knowledge.regions.lookup(now, b"k");
    }
    assert_eq!(script.knowledge.regions.lookup(now, b"k"), None, "though it was in use all the time");
}

#[test]
fn the_region_before_a_key_may_be_the_one_that_holds_it() {
    let mut script = empty(before("k"));
    script.expect_pd(&by_key("k", false));
    script.pd(the_region(pd_region(1, 1, "g".."p")));
    assert_eq!(located(&mut script).ver_id.id, 1);
}

#[test]
fn at_the_start_of_a_region_the_one_before_it_is_asked_for() {
    let mut script = empty(before("g"));
    script.expect_pd(&by_key("g", false));
    script.pd(the_region(pd_region(2, 1, "g".."p")));
    let key = KeyCodec::Txn.encode_region_key(&Key::from("g"));
    script.expect_pd(&PdRequest::PrevRegion { key, leader_only: false });
    script.pd(the_region(pd_region(1, 1, "".."g")));
    assert_eq!(located(&mut script).ver_id.id, 1);
    assert_eq!(script.knowledge.regions.len(), 1);
}

#[test]
fn the_last_region_is_found_step_by_step_from_a_key_behind_all_others() {
    let mut script = empty(before(""));
    script.expect_pd(&behind_all_keys(false));
    script.pd(the_region(pd_region(1, 1, "p".."x")));
    script.expect_pd(&by_key("x", false));
    script.pd(the_region(pd_region(2, 1, "x".."")));
    assert_eq!(located(&mut script).ver_id.id, 2);
}

#[test]
fn a_search_for_the_last_region_that_leads_nowhere_is_given_up() {
    let mut script = empty(before(""));
    script.expect_pd(&behind_all_keys(false));
    let mut steps = 1;
    loop {
        script.pd(the_region(pd_region(1, 1, "p".."x")));
        if matches!(script.peek(), Some(Command::Sleep { .. })) {
            break;
        }
        script.expect_pd(&by_key("x", false));
        steps += 1;
    }
    assert!(steps <= 8, "{steps}");
    back_off(&mut script, BackoffKind::PdRpc);
    script.expect_pd(&behind_all_keys(true));
}

#[test]
fn an_id_that_even_the_leader_of_pd_does_not_know_is_no_region() {
    let mut script = empty(Place::Id(9));
    script.expect_pd(&PdRequest::RegionById { id: 9, leader_only: false });
    script.pd(Ok(PdResponse::Region(None)));
    back_off(&mut script, BackoffKind::PdRpc);
    script.expect_pd(&PdRequest::RegionById { id: 9, leader_only: true });
    script.pd(Ok(PdResponse::Region(None)));
    let error = failed(&mut script);
    let Error::RetriesExhausted { last, attempts: 2, .. } = error else { panic!("{error:?}") };
    assert_eq!(last, CallFailure::NoReplica { region_id: 9 });
}

#[test]
fn a_region_by_id_is_the_region_of_that_id() {
    let mut script = empty(Place::Id(9));
    script.expect_pd(&PdRequest::RegionById { id: 9, leader_only: false });
    script.pd(the_region(pd_region(8, 1, "".."")));
    back_off(&mut script, BackoffKind::PdRpc);
    script.expect_pd(&PdRequest::RegionById { id: 9, leader_only: true });
    script.pd(the_region(pd_region(9, 1, "".."")));
    assert_eq!(located(&mut script).ver_id.id, 9);
}

#[test]
fn late_and_foreign_events_are_ignored_in_every_phase() {
    fn intrude(script: &mut Script<Locate>, late: &[Token]) {
        let fault = Fault::new(FaultKind::Timeout, Execution::NotSent, "store-1");
        for token in late.iter().copied().chain([Token(999)]) {
            for event in [
                Event::Woken,
                Event::Pd(Ok(PdResponse::Region(None))),
                Event::Pd(the_store(pd_store(1))),
                Event::Pd(Err(PdError::Closed)),
                Event::Reply(Err(fault.clone())),
            ] {
                script.event(token, event).expect_nothing();
            }
        }
    }
    let mut script = script(of("k"), Knowledge::new(KeyCodec::Txn, &Config::default()));
    let question = script.expect_pd(&by_key("k", false));
    script.event(question, Event::Woken).expect_nothing();
    intrude(&mut script, &[]);
    script.pd(Err(refused()));
    let timer = script.expect_sleep(|_, _| {});
    intrude(&mut script, &[question]);
    script.wake();
    let again = script.expect_pd(&by_key("k", true));
    intrude(&mut script, &[question, timer]);
    script.pd(the_region(pd_region(1, 1, "".."")));
    let stores = [1, 2, 3].map(|id| script.expect_pd(&ask_store(id)));
    intrude(&mut script, &[question, timer, again]);
    for (id, token) in (1..).zip(stores) {
        script.event(token, Event::Pd(the_store(pd_store(id))));
    }
    assert_eq!(located(&mut script).ver_id.id, 1);
    assert!(script.poke(question, Event::Woken).is_pending(), "not even after the end");
}

/// A locate with two seconds to live.
fn in_a_hurry(knowledge: Knowledge) -> Script<Locate> {
    let locate = Locate::new(of("k"), budget_of(BUDGET)).with_deadline(Time::from_millis(2_001));
    Script::with_knowledge(locate, knowledge)
}

fn expect_alarm(script: &mut Script<Locate>) -> Token {
    script.expect_sleep(|duration, reason| {
        assert_eq!((duration, reason), (Duration::from_secs(2), SleepReason::Deadline));
    })
}

fn assert_too_late(script: &mut Script<Locate>, attempts: u32, last: CallFailure) {
    assert_eq!(failed(script), Error::DeadlineExceeded { operation: "locate region", attempts, last });
}

#[test]
fn the_deadline_ends_the_wait_for_a_region() {
    let mut script = in_a_hurry(knowledge(KeyCodec::Txn, []));
    let alarm = expect_alarm(&mut script);
    let question = script.expect_pd(&by_key("k", false));
    script.advance(Duration::from_secs(2)).event(alarm, Event::Woken).expect_cancel(question);
    assert_too_late(&mut script, 1, CallFailure::NotAttempted);
}

#[test]
fn the_deadline_ends_the_wait_for_stores() {
    let mut script = in_a_hurry(Knowledge::new(KeyCodec::Txn, &Config::default()));
    let alarm = expect_alarm(&mut script);
    script.expect_pd(&by_key("k", false));
    script.pd(the_region(pd_region(1, 1, "".."")));
    let stores = [1, 2, 3].map(|id| script.expect_pd(&ask_store(id)));
    script.event(stores[1], Event::Pd(the_store(pd_store(2))));
    script.event(alarm, Event::Woken).expect_cancel(stores[0]).expect_cancel(stores[2]);
    assert_too_late(&mut script, 1, CallFailure::NotAttempted);
}

#[test]
fn the_deadline_ends_a_back_off() {
    let mut script = in_a_hurry(knowledge(KeyCodec::Txn, []));
    let alarm = expect_alarm(&mut script);
    script.expect_pd(&by_key("k", false));
    script.pd(Err(refused()));
    let timer = script.expect_sleep(|_, _| {});
    script.event(alarm, Event::Woken).expect_cancel(timer);
    assert_too_late(&mut script, 1, CallFailure::Pd(refused()));
}

#[test]
fn after_the_deadline_pd_is_not_asked_but_what_is_known_is_used() {
    let mut script = in_a_hurry(knowledge(KeyCodec::Txn, []));
    script.advance(Duration::from_secs(2));
    assert_too_late(&mut script, 0, CallFailure::NotAttempted);
    let mut script = in_a_hurry(one_region());
    script.advance(Duration::from_secs(2));
    assert_eq!(located(&mut script).ver_id.id, 1);
}

#[test]
fn a_region_found_in_time_silences_the_alarm() {
    let mut script = in_a_hurry(knowledge(KeyCodec::Txn, []));
    let alarm = expect_alarm(&mut script);
    script.expect_pd(&by_key("k", false));
    script.pd(Err(refused()));
    back_off(&mut script, BackoffKind::PdRpc);
    script.expect_pd(&by_key("k", true));
    script.pd(the_region(pd_region(1, 1, "".."")));
    script.expect_cancel(alarm);
    assert_eq!(located(&mut script).ver_id.id, 1);
}
