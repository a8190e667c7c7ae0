use std::time::Duration;

use bytes::Bytes;
use tikv_proto::pdpb;

use super::script::{CLUSTER, PdScript, by_key, config, error, error_header, fault, header, members_reply};
use crate::error::{Execution, Fault, FaultKind, PdError};
use crate::pd::{PdInput, PdTimer, StreamId};
use crate::request::pd::PdRequest;

/// Goes through a round of discovery that names `leader`.
fn rediscover(script: &mut PdScript, asked: &str, leader: &str) {
    script.expect_search(asked);
    script.reply(members_reply(3, Some(leader)));
}

#[test]
fn who_asks_together_shares_a_request_and_is_answered_in_order() {
    let mut script = PdScript::with_stream();
    script.ask_timestamp(1).ask_timestamp(2).ask_timestamp(3).expect_tso(3);
    script.grant(5, 12, 3);
    script.expect_timestamp(1, 5, 10).expect_timestamp(2, 5, 11).expect_timestamp(3, 5, 12).expect_nothing();
}

#[test]
fn who_asks_after_a_request_was_sent_waits_for_the_next_one() {
    let mut script = PdScript::with_stream();
    script.ask_timestamp(1).expect_tso(1);
    script.ask_timestamp(2).ask_timestamp(3).expect_nothing();
    script.grant(5, 1, 1).expect_timestamp(1, 5, 1).expect_tso(2);
    script.grant(5, 3, 2).expect_timestamp(2, 5, 2).expect_timestamp(3, 5, 3).expect_nothing();
}

#[test]
fn a_request_asks_for_no_more_than_the_limit() {
    let mut config = config();
    config.tso_batch_limit = 2;
    let mut script = PdScript::connected_with(&config);
    script.ask_timestamp(1).ask_timestamp(2).ask_timestamp(3).expect_stream("pd-1");
    script.expect_tso(2).grant(5, 1, 2).expect_timestamp(1, 5, 0).expect_timestamp(2, 5, 1);
    script.expect_tso(1).grant(5, 2, 1).expect_timestamp(3, 5, 2).expect_nothing();
}

#[test]
fn a_stream_that_ends_gives_its_waiters_back_in_their_old_order() {
    let mut script = PdScript::with_stream();
    script.ask_timestamp(1).ask_timestamp(2).expect_tso(2);
    script.ask_timestamp(3).stream_closed(FaultKind::Disconnected).expect_no_answer();
    rediscover(&mut script, "pd-2", "pd-2");
    script.expect_stream("pd-2");
    script.expect_tso(3).grant(6, 2, 3);
    script.expect_timestamp(1, 6, 0).expect_timestamp(2, 6, 1).expect_timestamp(3, 6, 2).expect_nothing();
}

#[test]
fn an_idle_stream_that_ends_is_opened_again_when_somebody_asks() {
    let mut script = PdScript::with_stream();
    script.stream_closed(FaultKind::Disconnected);
    rediscover(&mut script, "pd-2", "pd-1");
    script.expect_nothing();
    script.ask_timestamp(1).expect_stream("pd-1");
    script.expect_tso(1).grant(5, 0, 1).expect_timestamp(1, 5, 0);
}

#[test]
fn a_silent_stream_is_given_up_and_opened_elsewhere() {
    let mut script = PdScript::with_stream();
    let frozen = script.ask_timestamp(1).expect_tso_stream(1);
    let sent = script.now();
    script.fire(PdTimer::TimestampStreamSilent).expect_close(frozen);
    assert_eq!(script.now().saturating_since(sent), config().pd_timeout);
    rediscover(&mut script, "pd-2", "pd-2");
    script.expect_stream("pd-2");
    script.expect_tso(1);
    // The frozen leader thaws: its timestamp is from before, and nobody wants it.
    let timestamp = Some(pdpb::Timestamp { physical: 4, logical: 4, suffix_bits: 0 });
    let late = pdpb::TsoResponse { header: header(), count: 1, timestamp };
    let body = Bytes::from(prost::Message::encode_to_vec(&late));
    script.input(PdInput::StreamMessage { stream: frozen, body }).expect_no_answer();
    script.grant(7, 0, 1).expect_timestamp(1, 7, 0).expect_nothing();
}

#[test]
fn a_frozen_leader_is_noticed_although_every_waiter_gave_up_long_before() {
    let mut script = PdScript::with_stream();
    script.ask_within(1, PdRequest::Timestamp, Duration::from_millis(500));
    let frozen = script.expect_tso_stream(1);
    let failed = error(script.fire(PdTimer::Deadline).expect_answer(1));
    let Fault { kind, execution, .. } = fault_of(failed);
    assert_eq!((kind, execution), (FaultKind::Timeout, Execution::MaybeExecuted));
    script.expect_nothing();
    script.fire(PdTimer::TimestampStreamSilent).expect_close(frozen);
    assert_eq!(script.client.leader(), None);
}

#[test]
fn a_leader_found_elsewhere_takes_the_stream_with_it() {
    let mut script = PdScript::with_stream();
    let old = script.ask_timestamp(1).expect_tso_stream(1);
    script.ask(2, by_key("k")).expect_region("pd-1", "k");
    script.fault(FaultKind::Status(14));
    rediscover(&mut script, "pd-2", "pd-3");
    script.expect_close(old).expect_stream("pd-3");
    script.expect_tso(1).grant(5, 0, 1).expect_timestamp(1, 5, 0);
}

#[test]
fn a_leader_that_is_confirmed_keeps_its_stream() {
    let mut script = PdScript::with_stream();
    script.ask_timestamp(1).expect_tso(1);
    script.ask(2, by_key("k")).expect_region("pd-1", "k");
    script.fault(FaultKind::Timeout);
    rediscover(&mut script, "pd-2", "pd-1");
    script.expect_region("pd-1", "k");
    script.grant(5, 0, 1).expect_timestamp(1, 5, 0).expect_nothing();
}

/// Expects that an answer to the request of waiters 1 and 2 breaks the stream, and that they are served by another one.
fn breaks_the_stream(answer: impl FnOnce(&mut PdScript)) {
    let mut script = PdScript::with_stream();
    let stream = script.ask_timestamp(1).ask_timestamp(2).expect_tso_stream(2);
    answer(&mut script);
    script.expect_close(stream).expect_no_answer();
    rediscover(&mut script, "pd-2", "pd-1");
    script.expect_stream("pd-1");
    script.expect_tso(2).grant(9, 1, 2).expect_timestamp(1, 9, 0).expect_timestamp(2, 9, 1).expect_nothing();
}

#[test]
fn another_number_of_timestamps_than_asked_for_breaks_the_stream() {
    for count in [0, 1, 3] {
        breaks_the_stream(|script| _ = script.grant(5, 7, count));
    }
}

#[test]
fn timestamps_out_of_range_break_the_stream() {
    for (physical, logical) in [(5, 0), (5, -1), (5, 1 << 18), (-1, 5), (1 << 46, 5), (i64::MIN, i64::MIN)] {
        breaks_the_stream(|script| _ = script.grant(physical, logical, 2));
    }
}

#[test]
fn an_answer_without_a_timestamp_or_with_an_error_or_of_another_cluster_breaks_the_stream() {
    let timestamp = Some(pdpb::Timestamp { physical: 5, logical: 5, suffix_bits: 0 });
    breaks_the_stream(|script| _ = script.message(pdpb::TsoResponse { header: header(), count: 2, timestamp: None }));
    for header in [
        error_header(pdpb::ErrorType::Unknown, "not leader"),
        error_header(pdpb::ErrorType::Unknown, "clock jumps"),
        Some(pdpb::ResponseHeader { cluster_id: CLUSTER + 1, error: None }),
    ] {
        breaks_the_stream(|script| _ = script.message(pdpb::TsoResponse { header, count: 2, timestamp }));
    }
    breaks_the_stream(|script| _ = script.raw_message(Bytes::from_static(b"\xff\xff")));
}

#[test]
fn an_answer_that_nobody_asked_for_breaks_the_stream() {
    let mut script = PdScript::with_stream();
    let stream = script.last_stream();
    script.grant(5, 0, 1).expect_close(stream).expect_no_answer();
}

#[test]
fn a_timestamp_that_is_not_the_largest_so_far_is_not_handed_out() {
    let mut script = PdScript::with_stream();
    script.ask_timestamp(1).ask_timestamp(2).expect_tso(2);
    script.grant(5, 8, 2).expect_timestamp(1, 5, 7).expect_timestamp(2, 5, 8);
    let stream = script.ask_timestamp(3).ask_timestamp(4).expect_tso_stream(2);
    // The second one would do, the first one equals the largest so far.
    script.grant(5, 9, 2);
    for waiter in [3, 4] {
        let failed = error(script.expect_answer(waiter));
        assert!(matches!(failed, PdError::Malformed { method: "Tso", .. }), "{failed:?}");
    }
    script.expect_close(stream);
    // Another member may know better; what had been handed out is remembered.
    rediscover(&mut script, "pd-2", "pd-2");
    let stream = script.ask_timestamp(5).expect_stream("pd-2");
    script.expect_tso(1).grant(5, 8, 1).expect_close(stream);
    assert!(script.expect_answer(5).is_err());
    rediscover(&mut script, "pd-3", "pd-3");
    script.ask_timestamp(6).expect_stream("pd-3");
    script.expect_tso(1).grant(5, 9, 1).expect_timestamp(6, 5, 9);
}

#[test]
fn a_leader_that_gives_no_timestamps_is_not_pressed_although_it_answers_questions() {
    let mut script = PdScript::with_stream();
    script.ask_timestamp(1).expect_tso(1);
    let mut waited = Duration::ZERO;
    for key in ["a", "b", "c", "d", "e", "f"] {
        script.ask(9, by_key(key)).expect_region("pd-1", key);
        script.reply(pdpb::GetRegionResponse { header: header(), ..Default::default() });
        script.expect_answer(9).expect("an answer");
        let before = script.now();
        script.stream_closed(FaultKind::Status(2));
        script.expect_search_among(&["pd-2", "pd-3"]);
        script.reply(members_reply(3, Some("pd-1")));
        waited += script.now().saturating_since(before);
        script.expect_stream("pd-1");
        script.expect_tso(1);
    }
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
}

#[test]
fn a_cancelled_waiter_is_left_out_of_the_next_request() {
    let mut script = PdScript::with_stream();
    script.ask_timestamp(1).ask_timestamp(2);
    script.cancel(1);
    script.expect_tso(1).grant(5, 0, 1).expect_timestamp(2, 5, 0).expect_nothing();
}

#[test]
fn the_timestamp_of_a_waiter_cancelled_in_flight_is_thrown_away() {
    let mut script = PdScript::with_stream();
    script.ask_timestamp(1).ask_timestamp(2).ask_timestamp(3).expect_tso(3);
    script.cancel(2);
    script.grant(5, 2, 3).expect_timestamp(1, 5, 0).expect_timestamp(3, 5, 2).expect_nothing();
}

#[test]
fn an_answer_that_was_not_fetched_can_still_be_cancelled() {
    let mut script = PdScript::with_stream();
    script.ask_timestamp(1).expect_tso(1).grant(5, 0, 1);
    script.cancel(1);
    script.expect_nothing();
}

#[test]
fn a_waiter_may_have_several_questions() {
    let mut script = PdScript::with_stream();
    script.ask_timestamp(1).expect_tso(1);
    script.ask_timestamp(1);
    script.grant(5, 0, 1).expect_timestamp(1, 5, 0);
    script.expect_tso(1).grant(5, 1, 1).expect_timestamp(1, 5, 1).expect_nothing();
}

#[test]
fn who_asks_while_a_request_is_in_flight_need_not_poll() {
    let mut script = PdScript::with_stream();
    assert!(!script.client.would_queue(&PdRequest::Timestamp), "it would be sent at once");
    script.ask_timestamp(1).expect_tso(1);
    assert!(script.client.would_queue(&PdRequest::Timestamp));
    assert!(!script.client.would_queue(&by_key("k")), "the stream is busy, PD is not");
    script.ask_timestamp(2).expect_nothing();
    script.grant(5, 0, 1).expect_timestamp(1, 5, 0);
    script.expect_tso(1);
}

#[test]
fn no_more_questions_wait_than_the_limit_allows() {
    let mut config = config();
    config.pd_queue_limit = 2;
    let mut script = PdScript::connected_with(&config);
    script.ask_timestamp(1).ask(2, by_key("k")).ask_timestamp(3);
    assert_eq!(script.expect_answer(3), Err(PdError::Overloaded { limit: 2 }));
    script.cancel(2);
    script.ask_timestamp(4).expect_no_answer();
    assert_eq!(script.client.waiting_len(), 2);
}

#[test]
fn what_comes_from_streams_of_the_past_is_ignored() {
    let mut script = PdScript::with_stream();
    script.ask_timestamp(1).expect_tso(1);
    let before = script.client.clone();
    script.input(PdInput::StreamClosed { stream: StreamId(999), fault: fault(FaultKind::Disconnected) });
    script.input(PdInput::StreamMessage { stream: StreamId(999), body: Bytes::from_static(b"\xff") });
    assert_eq!(script.client, before);
}

fn fault_of(error: PdError) -> Fault {
    match error {
        PdError::Fault(fault) => fault,
        other => panic!("{other:?}"),
    }
}
