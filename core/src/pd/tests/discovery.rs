use std::time::Duration;

use tikv_proto::pdpb;

use super::script::{CLUSTER, PdScript, by_key, config, error, error_header, members_reply, region, region_reply};
use crate::error::{FaultKind, PdError};
use crate::pd::{PdTimer, Scheme};
use crate::request::pd::PdRequest;

#[test]
fn nothing_is_asked_before_somebody_asks() {
    let mut script = PdScript::new(3);
    script.expect_nothing();
    assert_eq!(script.client.poll_timeout(), None);
}

#[test]
fn the_first_member_names_the_leader() {
    let mut script = PdScript::new(1);
    script.ask_timestamp(1).expect_members("pd-1");
    script.reply(members_reply(3, Some("pd-2")));
    script.expect_stream("pd-2");
    script.expect_tso(1);
    assert_eq!(script.client.leader(), Some("pd-2:2379"));
    assert_eq!(script.client.cluster_id(), Some(CLUSTER));
    let members: Vec<_> = script.client.members().iter().map(|member| &*member.name).collect();
    assert_eq!(members, ["pd-1", "pd-2", "pd-3"]);
    assert_eq!(script.client.members()[2].endpoints[0].scheme, Some(Scheme::Plain));
}

#[test]
fn a_dead_member_is_passed_over() {
    let mut script = PdScript::new(3);
    script.ask_timestamp(1).expect_members("pd-1");
    script.fault(FaultKind::Unreachable).expect_members("pd-2");
    script.reply(members_reply(3, Some("pd-3"))).expect_stream("pd-3");
}

#[test]
fn a_silent_member_is_passed_over_after_a_second() {
    let mut script = PdScript::new(2);
    let silent = script.ask_timestamp(1).expect_members("pd-1");
    let asked = script.now();
    script.fire(PdTimer::MemberSilent).expect_cancel(silent).expect_members("pd-2");
    assert_eq!(script.now().saturating_since(asked), Duration::from_secs(1));
    script.reply(members_reply(2, Some("pd-1"))).expect_stream("pd-1");
    script.expect_tso(1);
    script.reply_to(silent, members_reply(2, Some("pd-2"))).expect_nothing();
    assert_eq!(script.client.leader(), Some("pd-1:2379"), "what comes too late is ignored");
}

#[test]
fn members_without_a_leader_are_asked_again_after_a_pause_that_grows() {
    let mut script = PdScript::new(3);
    script.ask_timestamp(1);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        for host in ["pd-1", "pd-2", "pd-3"] {
            script.expect_members(host);
            script.reply(members_reply(3, None));
        }
        script.expect_nothing();
        let before = script.now();
        script.fire(PdTimer::DiscoveryBackoff);
        pauses.push(script.now().saturating_since(before));
    }
    assert!(pauses[0] < Duration::from_millis(20) && pauses[5] > Duration::from_millis(150), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(1)), "{pauses:?}");
    script.expect_members("pd-1");
    script.reply(members_reply(3, Some("pd-2"))).expect_stream("pd-2");
}

#[test]
fn who_waits_in_vain_is_told_whom_was_asked_and_what_failed_last() {
    let mut script = PdScript::new(2);
    script.ask_within(1, PdRequest::Timestamp, Duration::from_millis(15));
    script.expect_members("pd-1");
    script.fault(FaultKind::Unreachable).expect_members("pd-2");
    script.fault(FaultKind::Disconnected).expect_nothing();
    while script.client.poll_timeout().expect("a timer").1 == PdTimer::DiscoveryBackoff {
        script.expect_search("pd-1");
        script.fault(FaultKind::Unreachable).expect_members("pd-2");
        script.fault(FaultKind::Disconnected).expect_nothing();
    }
    let failed = error(script.fire(PdTimer::Deadline).expect_answer(1));
    assert_eq!(failed.to_string(), "no leader of PD among pd-1:2379, pd-2:2379: disconnected at pd");
    assert!(failed.is_retryable());
}

#[test]
fn nobody_is_asked_while_nobody_waits() {
    let mut script = PdScript::new(1);
    script.ask_timestamp(1).expect_members("pd-1");
    script.cancel(1);
    script.fault(FaultKind::Unreachable).expect_nothing();
    assert_eq!(script.client.poll_timeout(), None);
    script.ask_timestamp(2).expect_members("pd-1");
}

#[test]
fn without_endpoints_every_question_fails_at_once() {
    let mut script = PdScript::new(0);
    let failed = error(script.ask_timestamp(1).expect_answer(1));
    assert!(matches!(failed, PdError::NoLeader { .. }), "{failed:?}");
    script.expect_nothing();
}

#[test]
fn another_cluster_than_expected_is_refused_for_ever() {
    let mut script = PdScript::with(&config(), 3, Some(CLUSTER + 1));
    script.ask_timestamp(1).ask(2, by_key("k")).expect_members("pd-1");
    script.reply(members_reply(3, Some("pd-1")));
    for waiter in [2, 1] {
        let failed = script.client.poll_completion().expect("an answer").1;
        let PdError::ClusterMismatch { expected, actual, .. } = error(failed) else { panic!("waiter {waiter}") };
        assert_eq!((expected, actual), (CLUSTER + 1, CLUSTER));
    }
    let later = error(script.ask_timestamp(3).expect_answer(3));
    assert!(matches!(later, PdError::ClusterMismatch { .. }) && !later.is_retryable());
    script.expect_nothing();
    assert_eq!(script.client.poll_timeout(), None);
}

#[test]
fn endpoints_of_two_clusters_are_refused() {
    let mut script = PdScript::new(2);
    script.ask_timestamp(1).expect_members("pd-1");
    script.reply(members_reply(2, None)).expect_members("pd-2");
    let mut stranger = members_reply(2, Some("pd-2"));
    stranger.header.as_mut().expect("a header").cluster_id = CLUSTER + 1;
    let failed = error(script.reply(stranger).expect_answer(1));
    assert!(matches!(failed, PdError::ClusterMismatch { expected: CLUSTER, .. }), "{failed:?}");
}

#[test]
fn a_member_whose_address_has_passed_to_another_cluster_is_passed_over() {
    let mut script = PdScript::connected();
    script.ask(1, by_key("k")).expect_region("pd-1", "k");
    script.fault(FaultKind::Status(9)).expect_search("pd-2");
    let mut stranger = members_reply(1, Some("pd-2"));
    stranger.header.as_mut().expect("a header").cluster_id = CLUSTER + 1;
    script.reply(stranger).expect_members("pd-3");
    script.reply(members_reply(3, Some("pd-3"))).expect_region("pd-3", "k");
}

#[test]
fn a_cluster_whose_members_are_all_another_clusters_now_has_gone() {
    let mut script = PdScript::connected();
    script.ask(1, by_key("k")).expect_region("pd-1", "k");
    script.fault(FaultKind::Disconnected);
    for host in ["pd-2", "pd-3", "pd-1"] {
        script.expect_members(host);
        let mut stranger = members_reply(3, Some("pd-1"));
        stranger.header.as_mut().expect("a header").cluster_id = CLUSTER + 1;
        script.reply(stranger);
    }
    let failed = error(script.expect_answer(1));
    assert!(matches!(failed, PdError::ClusterMismatch { .. }), "{failed:?}");
}

#[test]
fn a_member_that_has_no_cluster_yet_or_answers_with_an_error_is_passed_over() {
    let mut script = PdScript::new(3);
    script.ask_timestamp(1).expect_members("pd-1");
    script.reply(pdpb::GetMembersResponse::default()).expect_members("pd-2");
    let header = error_header(pdpb::ErrorType::Unknown, "etcd is not there");
    script.reply(pdpb::GetMembersResponse { header, ..members_reply(3, Some("pd-2")) }).expect_members("pd-3");
    script.reply(members_reply(3, Some("pd-1"))).expect_stream("pd-1");
}

#[test]
fn members_are_refreshed_now_and_then_beginning_with_the_leader() {
    let mut script = PdScript::connected();
    let settled = script.now();
    script.fire(PdTimer::Refresh).expect_members("pd-1");
    assert_eq!(script.now().saturating_since(settled), config().pd_refresh_interval);
    // Questions go on in the meantime.
    script.ask(1, by_key("k"));
    let refresh = script.last_call();
    let asked = script.expect_region("pd-1", "k");
    // Another member leads now. What the former leader was asked is asked again.
    script.reply_to(refresh, members_reply(3, Some("pd-3"))).expect_cancel(asked).expect_region("pd-3", "k");
    script.reply(region_reply(region(5, "", ""))).expect_region_answer(1, 5).expect_nothing();
}

#[test]
fn a_refresh_that_fails_keeps_the_leader() {
    let mut script = PdScript::connected();
    script.fire(PdTimer::Refresh);
    for host in ["pd-1", "pd-2", "pd-3"] {
        script.expect_members(host);
        script.fault(FaultKind::Unreachable);
    }
    assert_eq!(script.client.leader(), Some("pd-1:2379"));
    script.expect_nothing();
    assert_eq!(script.client.poll_timeout().expect("a timer").1, PdTimer::Refresh);
}

#[test]
fn members_that_were_learnt_are_asked_before_the_configured_endpoints() {
    let mut script = PdScript::new(1);
    script.ask(1, by_key("k")).expect_members("pd-1");
    let mut moved = members_reply(3, Some("pd-3"));
    moved.members.remove(0);
    script.reply(moved).expect_region("pd-3", "k");
    script.fault(FaultKind::Disconnected).expect_search("pd-2");
    script.fault(FaultKind::Unreachable).expect_members("pd-3");
    script.fault(FaultKind::Unreachable).expect_members("pd-1");
    script.reply(members_reply(3, Some("pd-2"))).expect_region("pd-2", "k");
}

#[test]
fn a_leader_that_fails_again_and_again_is_not_asked_without_a_pause() {
    let mut script = PdScript::connected();
    script.ask(1, by_key("k"));
    let mut pauses = Vec::new();
    for _ in 0..8 {
        script.expect_region("pd-1", "k");
        let before = script.now();
        script.fault(FaultKind::Unreachable);
        // A follower has not noticed yet.
        script.expect_search_among(&["pd-2", "pd-3"]);
        pauses.push(script.now().saturating_since(before));
        script.reply(members_reply(3, Some("pd-1")));
    }
    assert_eq!(pauses[0], Duration::ZERO, "the first failure is looked into at once");
    assert!(pauses[7] >= Duration::from_millis(500), "{pauses:?}");
    script.expect_region("pd-1", "k");
    script.reply(region_reply(region(5, "", ""))).expect_region_answer(1, 5);
    // It has worked: all is forgotten.
    script.ask(2, by_key("k")).expect_region("pd-1", "k");
    let before = script.now();
    script.fault(FaultKind::Unreachable).expect_search("pd-2");
    assert_eq!(script.now(), before);
}

#[test]
fn many_failures_of_one_leader_are_one_reason_to_look_for_another() {
    let mut script = PdScript::connected();
    script.ask(1, by_key("a")).ask(2, by_key("b"));
    let (a, b) = (script.expect_region("pd-1", "a"), script.expect_region("pd-1", "b"));
    script.fault_to(a, FaultKind::Disconnected).expect_search("pd-2");
    script.reply(members_reply(3, Some("pd-2"))).expect_cancel(b);
    let (a, _) = (script.expect_region("pd-2", "a"), script.expect_region("pd-2", "b"));
    script.fault_to(b, FaultKind::Disconnected).expect_nothing();
    assert_eq!(script.client.leader(), Some("pd-2:2379"));
    script.reply_to(a, region_reply(region(5, "", ""))).expect_region_answer(1, 5).expect_region_answer(2, 5);
}

#[test]
fn closing_answers_everybody_and_stops_everything() {
    let mut script = PdScript::with_stream();
    let stream = script.ask_timestamp(1).expect_tso_stream(1);
    script.ask_timestamp(2).ask(3, by_key("k"));
    let call = script.expect_region("pd-1", "k");
    script.client.close();
    for waiter in 1..=3 {
        assert_eq!(script.expect_answer(waiter), Err(PdError::Closed));
    }
    script.expect_close(stream).expect_cancel(call).expect_nothing();
    assert_eq!(script.client.poll_timeout(), None);
    assert_eq!(script.ask_timestamp(4).expect_answer(4), Err(PdError::Closed));
    script.grant(9, 9, 1).expect_nothing();
}

#[test]
fn closing_in_the_middle_of_discovery_cancels_it() {
    let mut script = PdScript::new(1);
    let call = script.ask_timestamp(1).expect_members("pd-1");
    script.client.close();
    assert_eq!(script.expect_answer(1), Err(PdError::Closed));
    script.expect_cancel(call);
    script.reply(members_reply(1, Some("pd-1"))).expect_nothing();
}
