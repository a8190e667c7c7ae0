use std::collections::BTreeMap;

use prost::Message;
use quickcheck::{Arbitrary, Gen, quickcheck};
use tikv_proto::tikvpb;
use tikv_proto::tikvpb::batch_commands_response::{self, response::Cmd};

use super::*;
use crate::machine::Token;
use crate::request::{Request, RequestContext};

type Answers = Vec<(u32, Result<Response, Fault>)>;

fn get(key: &'static str, deadline_ms: u64) -> Call {
    call(kvrpcpb::RawGetRequest { key: Bytes::from_static(key.as_bytes()), ..Default::default() }.into(), deadline_ms)
}

fn call(request: Request, deadline_ms: u64) -> Call {
    Call {
        token: Token(0),
        store_id: 1,
        address: Arc::from("store-1"),
        context: RequestContext { region_id: 7, ..Default::default() }.into(),
        request,
        deadline: Time::from_millis(deadline_ms),
    }
}

fn stream(limits: BatchLimits) -> BatchStream<u32> {
    BatchStream::new("store-1", limits)
}

fn decode(frame: &[Bytes; 2]) -> tikvpb::BatchCommandsRequest {
    tikvpb::BatchCommandsRequest::decode(frame.concat().as_slice()).expect("a frame")
}

/// The keys of the gets in a frame.
fn keys(frame: &tikvpb::BatchCommandsRequest) -> Vec<Bytes> {
    let keys = frame.requests.iter().map(|entry| match &entry.cmd {
        Some(tikvpb::batch_commands_request::request::Cmd::RawGet(get)) => {
            assert_eq!(get.context.as_ref().expect("a context").region_id, 7);
            get.key.clone()
        }
        other => panic!("{other:?}"),
    });
    keys.collect()
}

fn found(value: &'static str) -> Cmd {
    Cmd::RawGet(kvrpcpb::RawGetResponse { value: Bytes::from_static(value.as_bytes()), ..Default::default() })
}

fn response_frame(answers: impl IntoIterator<Item = (u64, Cmd)>) -> Bytes {
    let (request_ids, responses) =
        answers.into_iter().map(|(id, cmd)| (id, batch_commands_response::Response { cmd: Some(cmd) })).unzip();
    let frame = tikvpb::BatchCommandsResponse { responses, request_ids, ..Default::default() };
    frame.encode_to_vec().into()
}

fn received(stream: &mut BatchStream<u32>, frame: Bytes) -> Answers {
    let mut answers = Vec::new();
    stream.handle_frame(frame, |waiter, result| answers.push((waiter, result))).expect("a sensible frame");
    answers
}

fn fault(kind: FaultKind, execution: Execution) -> Fault {
    Fault::new(kind, execution, "store-1")
}

fn raw_get(value: &'static str) -> Result<Response, Fault> {
    Ok(Response::RawGet(kvrpcpb::RawGetResponse { value: Bytes::from_static(value.as_bytes()), ..Default::default() }))
}

#[test]
fn what_waits_leaves_together_and_every_answer_finds_its_waiter() {
    let mut stream = stream(BatchLimits::default());
    let first = stream.submit(10, &get("a", 100)).expect("room");
    let second = stream.submit(20, &get("b", 100)).expect("room");
    let frame = decode(&stream.poll_frame().expect("a frame"));
    assert_eq!(frame.request_ids, [first, second]);
    assert_eq!(keys(&frame), ["a", "b"]);
    assert_eq!(stream.poll_frame(), None);
    let answers = received(&mut stream, response_frame([(second, found("2")), (first, found("1"))]));
    assert_eq!(answers, [(20, raw_get("2")), (10, raw_get("1"))]);
    assert_eq!(stream.in_flight(), 0);
}

#[test]
fn a_frame_is_bounded_in_requests_and_in_bytes() {
    let mut stream = stream(BatchLimits { frame_requests: 2, frame_bytes: 60, ..BatchLimits::default() });
    for waiter in 0..3 {
        stream.submit(waiter, &get("a", 100)).expect("room");
    }
    let big = vec![7; 100];
    let put = kvrpcpb::RawPutRequest { value: big.into(), ..Default::default() };
    stream.submit(3, &call(put.into(), 100)).expect("room");
    let frames: Vec<_> = std::iter::from_fn(|| stream.poll_frame()).map(|frame| decode(&frame).request_ids).collect();
    assert_eq!(frames, [vec![1, 2], vec![3], vec![4]], "a request over the limit leaves alone");
}

#[test]
fn more_calls_than_allowed_are_refused_without_being_sent() {
    let mut stream = stream(BatchLimits { in_flight: 1, ..BatchLimits::default() });
    let id = stream.submit(1, &get("a", 100)).expect("room");
    let refused = stream.submit(2, &get("b", 100)).expect_err("no room");
    assert_eq!(refused, (2, fault(FaultKind::Overloaded, Execution::NotSent)));
    assert!(stream.cancel(id));
    stream.submit(3, &get("c", 100)).expect("room again");
    assert_eq!((stream.in_flight(), stream.pending()), (1, 2), "the cancelled one is left out when the frame is made");
    assert!(stream.poll_frame().is_some());
    assert_eq!((stream.in_flight(), stream.pending()), (1, 0));
}

#[test]
fn a_command_without_a_place_in_a_batch_is_refused() {
    let mut stream = stream(BatchLimits::default());
    let cas = call(kvrpcpb::RawCasRequest::default().into(), 100);
    let (_, refused) = stream.submit(1, &cas).expect_err("unary only");
    assert_eq!((refused.kind, refused.execution), (FaultKind::Protocol, Execution::NotSent));
    assert!(!stream.has_pending());
}

#[test]
fn a_broken_stream_says_which_calls_may_have_been_executed() {
    let mut stream = stream(BatchLimits::default());
    let written = stream.submit(1, &get("a", 100)).expect("room");
    stream.poll_frame().expect("a frame");
    stream.submit(2, &get("b", 100)).expect("room");
    let mut answers = Vec::new();
    stream.close(FaultKind::Disconnected, "reset", |waiter, result| answers.push((waiter, result)));
    let fault = |execution| Err(fault(FaultKind::Disconnected, execution).with_detail("reset"));
    assert_eq!(answers, [(1, fault(Execution::MaybeExecuted)), (2, fault(Execution::NotSent))]);
    assert!(!stream.has_pending() && stream.in_flight() == 0);
    assert_eq!(received(&mut stream, response_frame([(written, found("late"))])), [], "a late answer");
    assert!(stream.submit(3, &get("c", 100)).expect("room") > written, "an id is never used twice");
}

#[test]
fn calls_time_out_by_themselves() {
    let mut stream = stream(BatchLimits::default());
    assert_eq!(stream.poll_timeout(), None);
    let slow = stream.submit(1, &get("a", 10)).expect("room");
    stream.poll_frame().expect("a frame");
    stream.submit(2, &get("b", 20)).expect("room");
    assert_eq!(stream.poll_timeout(), Some(Time::from_millis(10)));
    let mut answers = Vec::new();
    stream.handle_timeout(Time::from_millis(9), |waiter, result| answers.push((waiter, result)));
    assert_eq!(answers, []);
    stream.handle_timeout(Time::from_millis(10), |waiter, result| answers.push((waiter, result)));
    assert_eq!(answers, [(1, Err(fault(FaultKind::Timeout, Execution::MaybeExecuted)))]);
    assert_eq!(stream.poll_timeout(), Some(Time::from_millis(20)));
    assert_eq!(received(&mut stream, response_frame([(slow, found("late"))])), []);
    answers.clear();
    stream.handle_timeout(Time::from_millis(20), |waiter, result| answers.push((waiter, result)));
    assert_eq!(answers, [(2, Err(fault(FaultKind::Timeout, Execution::NotSent)))]);
    assert_eq!(stream.poll_timeout(), None);
}

#[test]
fn what_timed_out_or_was_cancelled_before_it_was_written_never_leaves() {
    let mut stream = stream(BatchLimits::default());
    let calls = [("a", 100), ("b", 10), ("c", 100), ("d", 100)];
    let ids = calls.map(|(key, deadline_ms)| stream.submit(0, &get(key, deadline_ms)).expect("room"));
    let mut answers = Vec::new();
    stream.handle_timeout(Time::from_millis(10), |waiter, result| answers.push((waiter, result)));
    assert_eq!(answers, [(0, Err(fault(FaultKind::Timeout, Execution::NotSent)))], "so it must not be sent any more");
    assert!(stream.cancel(ids[2]));
    let frame = decode(&stream.poll_frame().expect("a frame"));
    assert_eq!(frame.request_ids, [ids[0], ids[3]]);
    assert_eq!(keys(&frame), ["a", "d"]);
    assert!(!stream.has_pending());
}

#[test]
fn a_frame_whose_calls_have_all_been_cancelled_is_not_written() {
    let mut stream = stream(BatchLimits::default());
    let id = stream.submit(0, &get("a", 100)).expect("room");
    assert!(stream.cancel(id));
    assert_eq!(stream.poll_frame(), None);
    assert!(!stream.has_pending());
}

#[test]
fn a_call_that_takes_long_is_in_nobodys_way() {
    let mut stream = stream(BatchLimits { in_flight: 10, ..BatchLimits::default() });
    let slow = stream.submit(7, &get("slow", 100)).expect("room");
    for _ in 0..10_000 {
        let quick = stream.submit(8, &get("quick", 100)).expect("room");
        stream.poll_frame().expect("a frame");
        assert_eq!(received(&mut stream, response_frame([(quick, found("q"))])), [(8, raw_get("q"))]);
    }
    assert_eq!(received(&mut stream, response_frame([(slow, found("s"))])), [(7, raw_get("s"))]);
    assert_eq!(stream.in_flight(), 0);
}

#[test]
fn calls_cancelled_while_nothing_can_be_written_take_no_space() {
    let mut stream = stream(BatchLimits::default());
    let kept = stream.submit(1, &get("kept", 100)).expect("room");
    for _ in 0..10_000 {
        let id = stream.submit(2, &get("cancelled", 100)).expect("room");
        assert!(stream.cancel(id));
    }
    assert!(stream.pending.len() < 10_000, "{} bytes wait", stream.pending.len());
    let frame = decode(&stream.poll_frame().expect("a frame"));
    assert_eq!((frame.request_ids, stream.has_pending()), (vec![kept], false));
}

#[test]
fn an_answer_of_another_kind_is_a_fault_of_that_call_alone() {
    let mut stream = stream(BatchLimits::default());
    let wrong = stream.submit(1, &get("a", 100)).expect("room");
    let right = stream.submit(2, &get("b", 100)).expect("room");
    stream.poll_frame().expect("a frame");
    let answers =
        received(&mut stream, response_frame([(wrong, Cmd::RawPut(Default::default())), (right, found("2"))]));
    let (_, Err(wrong)) = &answers[0] else { panic!("{answers:?}") };
    assert_eq!((wrong.kind, wrong.execution), (FaultKind::Protocol, Execution::MaybeExecuted));
    assert_eq!(answers[1], (2, raw_get("2")));
}

#[test]
fn an_answer_to_a_call_that_was_not_written_is_ignored() {
    let mut stream = stream(BatchLimits::default());
    let id = stream.submit(1, &get("a", 100)).expect("room");
    assert_eq!(received(&mut stream, response_frame([(id, found("made up"))])), []);
    stream.poll_frame().expect("a frame");
    assert_eq!(received(&mut stream, response_frame([(id, found("a"))])), [(1, raw_get("a"))]);
}

#[test]
fn a_frame_that_makes_no_sense_condemns_the_stream() {
    let mut stream = stream(BatchLimits::default());
    stream.submit(1, &get("a", 100)).expect("room");
    let garbage = stream.handle_frame(Bytes::from_static(b"\xff\xff\xff"), |_, _| panic!("nothing to answer"));
    assert_eq!(garbage.expect_err("garbage").kind, FaultKind::Protocol);
    let uneven = tikvpb::BatchCommandsResponse { request_ids: vec![1], ..Default::default() }.encode_to_vec();
    let uneven = stream.handle_frame(uneven.into(), |_, _| panic!("nothing to answer"));
    assert_eq!(uneven.expect_err("uneven").kind, FaultKind::Protocol);
}

#[test]
fn a_frame_may_bring_news_of_the_store() {
    let mut stream = stream(BatchLimits::default());
    let feedback = kvrpcpb::HealthFeedback { slow_score: 80, ..Default::default() };
    let frame = tikvpb::BatchCommandsResponse {
        transport_layer_load: 30,
        health_feedback: Some(feedback),
        ..Default::default()
    };
    let news = stream.handle_frame(frame.encode_to_vec().into(), |_, _| {}).expect("a sensible frame");
    assert_eq!(news, FrameNews { transport_layer_load: 30, health_feedback: Some(feedback) });
}

#[derive(Clone, Debug)]
enum Step {
    Submit,
    Write,
    /// Answers the n-th of the calls that were written (modulo their number).
    Answer(usize),
    Cancel(usize),
    Break,
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        match u8::arbitrary(g) % 10 {
            0..4 => Step::Submit,
            4..6 => Step::Write,
            6..8 => Step::Answer(usize::arbitrary(g)),
            8 => Step::Cancel(usize::arbitrary(g)),
            _ => Step::Break,
        }
    }
}

quickcheck! {
    /// What prost can read is read as prost reads it, also when bytes have been changed or cut off. (prost refuses a whole
    /// frame for one response that it cannot read.)
    fn frames_are_read_as_prost_reads_them(changes: Vec<(usize, u8)>, cut: usize) -> bool {
        let mut stream = stream(BatchLimits::default());
        let ids = [0, 1].map(|waiter| stream.submit(waiter, &get("k", 100)).expect("room"));
        stream.poll_frame().expect("a frame");
        let mut frame = response_frame(ids.map(|id| (id, found("v")))).to_vec();
        for (at, byte) in changes.into_iter().take(3) {
            let at = at % frame.len();
            frame[at] = byte;
        }
        frame.truncate(frame.len() - cut % 4);
        let expected = tikvpb::BatchCommandsResponse::decode(frame.as_slice());
        let mut answers: BTreeMap<u32, Result<Response, Fault>> = BTreeMap::new();
        let news = stream.handle_frame(frame.into(), |waiter, answer| {
            assert!(answers.insert(waiter, answer).is_none());
        });
        let Ok(expected) = expected else { return true };
        if expected.responses.len() != expected.request_ids.len() {
            return news.is_err() && answers.is_empty();
        }
        let mut first_of: BTreeMap<u64, &Option<Cmd>> = BTreeMap::new();
        for (id, entry) in expected.request_ids.iter().zip(&expected.responses) {
            first_of.entry(*id).or_insert(&entry.cmd);
        }
        (0..).zip(ids).all(|(waiter, id)| match (first_of.get(&id), answers.get(&waiter)) {
            (None, None) => true,
            (Some(Some(Cmd::RawGet(response))), Some(Ok(answer))) => *answer == Response::RawGet(response.clone()),
            (Some(Some(Cmd::RawGet(_))), _) => false,
            (Some(_), Some(Err(_))) => true,
            _ => false,
        })
    }

    /// Whatever happens, each call is answered at most once, by its own answer, and exactly once if it is not cancelled.
    fn every_call_is_answered_once(steps: Vec<Step>) -> bool {
        let mut stream = stream(BatchLimits { frame_requests: 3, ..BatchLimits::default() });
        let mut open: BTreeMap<u64, u32> = BTreeMap::new();
        let mut written: Vec<u64> = Vec::new();
        let (mut next, mut ok) = (0_u32, true);
        for step in steps {
            match step {
                Step::Submit => {
                    next += 1;
                    let id = stream.submit(next, &get("k", 100)).expect("room");
                    ok &= open.insert(id, next).is_none();
                }
                Step::Write => {
                    if let Some(frame) = stream.poll_frame() {
                        let bytes = frame.concat();
                        let frame = decode(&frame);
                        assert_eq!(frame.encode_to_vec(), bytes, "as prost would write it");
                        ok &= frame.request_ids.iter().all(|id| open.contains_key(id) && !written.contains(id));
                        written.extend(frame.request_ids);
                    }
                }
                Step::Answer(n) => {
                    let Some(n) = n.checked_rem(written.len()) else { continue };
                    let id = written.swap_remove(n);
                    let answers = received(&mut stream, response_frame([(id, found("v"))]));
                    let expected: Answers = open.remove(&id).map(|waiter| (waiter, raw_get("v"))).into_iter().collect();
                    ok &= answers == expected;
                }
                Step::Cancel(n) => {
                    let Some(n) = n.checked_rem(open.len()) else { continue };
                    let id = *open.keys().nth(n).expect("in range");
                    open.remove(&id);
                    ok &= stream.cancel(id);
                }
                Step::Break => {
                    let mut failed = Vec::new();
                    stream.close(FaultKind::Disconnected, "", |waiter, _| failed.push(waiter));
                    ok &= failed == std::mem::take(&mut open).into_values().collect::<Vec<_>>();
                }
            }
            ok &= stream.in_flight() == open.len();
        }
        ok
    }
}
