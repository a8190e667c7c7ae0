use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tikv_proto::{errorpb, kvrpcpb, metapb};

use super::*;
use crate::error::{CallFailure, Error, Execution, Fault, FaultKind};
use crate::key::{Direction, KeyRange, MAX_KEY_BYTES};
use crate::keyspace::KeyCodec;
use crate::machine::script::{Script, knowledge, maybe_executed, region};
use crate::machine::{Command, Event, Machine, SleepReason};
use crate::time::Time;

fn config() -> Config {
    Config::default()
}

fn options() -> RawOptions {
    RawOptions::new(&config())
}

fn value(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// A script over three regions: up to "g", up to "p", and the rest.
fn script<M: Machine>(machine: Result<M, Error>) -> Script<M>
where
    M::Output: std::fmt::Debug,
{
    let regions = [region(1, "".."g"), region(2, "g".."p"), region(3, "p".."")];
    Script::with_knowledge(machine.expect("valid arguments"), knowledge(KeyCodec::Raw, regions))
}

fn kv(key: &'static str, text: &'static str) -> kvrpcpb::KvPair {
    kvrpcpb::KvPair { key: value(key), value: value(text), ..Default::default() }
}

fn pair(key: &str, text: &'static str) -> Pair {
    Pair { key: Key::from(key), value: value(text) }
}

#[test]
fn an_absent_key_and_an_empty_value_are_two_things() {
    for (response, expected) in [
        (kvrpcpb::RawGetResponse { not_found: true, ..Default::default() }, None),
        (kvrpcpb::RawGetResponse::default(), Some(Bytes::new())),
        (kvrpcpb::RawGetResponse { value: value("v"), ..Default::default() }, Some(value("v"))),
    ] {
        let mut script = script(get(&config(), Key::from("k"), &options()));
        script.expect_call(1, |get: &kvrpcpb::RawGetRequest| assert_eq!(get.key, "k"));
        script.reply(response);
        assert_eq!(script.expect_done(), Ok(expected));
    }
}

#[test]
fn keys_that_no_store_takes_are_refused_before_anything_is_sent() {
    assert_eq!(get(&config(), Key::EMPTY, &options()), Err(Error::EmptyKey));
    let long = Key::from(vec![1; MAX_KEY_BYTES + 1]);
    let too_large = Error::KeyTooLarge { actual_bytes: MAX_KEY_BYTES + 1, limit_bytes: MAX_KEY_BYTES };
    assert_eq!(put(&config(), long.clone(), value("v"), None, &options()), Err(too_large.clone()));
    assert_eq!(delete(&config(), long.clone(), &options()), Err(too_large.clone()));
    assert_eq!(batch_get(&config(), vec![Key::from("a"), long], &options()), Err(too_large));
}

#[test]
fn a_refusal_names_the_operation_and_the_store() {
    let mut script = script(put(&config(), Key::from("k"), value("v"), None, &options()));
    script.expect_call(1, |_: &kvrpcpb::RawPutRequest| {});
    script.reply(kvrpcpb::RawPutResponse { error: "invalid cf name".into(), ..Default::default() });
    let error = script.expect_done().expect_err("refused");
    assert_eq!(error.to_string(), "RawPut at store-1: invalid cf name");
}

#[test]
fn a_put_carries_its_options() {
    let options = RawOptions { column_family: "write".into(), atomic: true, ..options() };
    let ttl = Some(Duration::from_millis(1_500));
    let mut script = script(put(&config(), Key::from("k"), value("v"), ttl, &options));
    script.expect_call(1, |put: &kvrpcpb::RawPutRequest| {
        assert_eq!((put.ttl, put.for_cas, put.cf.as_str()), (2, true, "write"));
    });
    script.reply(kvrpcpb::RawPutResponse::default());
    assert_eq!(script.expect_done(), Ok(()));
}

#[test]
fn a_ttl_of_zero_means_for_ever() {
    for (response, expected) in [
        (kvrpcpb::RawGetKeyTtlResponse { not_found: true, ..Default::default() }, None),
        (kvrpcpb::RawGetKeyTtlResponse::default(), Some(Ttl::Forever)),
        (kvrpcpb::RawGetKeyTtlResponse { ttl: 7, ..Default::default() }, Some(Ttl::Remaining(Duration::from_secs(7)))),
    ] {
        let mut script = script(get_key_ttl(&config(), Key::from("k"), &options()));
        script.expect_call(1, |_: &kvrpcpb::RawGetKeyTtlRequest| {});
        script.reply(response);
        assert_eq!(script.expect_done(), Ok(expected));
    }
}

#[test]
fn compare_and_swap_requires_the_atomic_mode() {
    let error = compare_and_swap(&config(), Key::from("k"), None, value("v"), &options()).expect_err("not atomic");
    assert!(matches!(error, Error::InvalidArgument(_)));
}

#[test]
fn compare_and_swap_tells_what_was_there() {
    let options = RawOptions { atomic: true, ..options() };
    let mut script = script(compare_and_swap(&config(), Key::from("k"), Some(value("a")), value("b"), &options));
    script.expect_call(1, |cas: &kvrpcpb::RawCasRequest| {
        assert_eq!((cas.previous_not_exist, &cas.previous_value[..], &cas.value[..]), (false, &b"a"[..], &b"b"[..]));
    });
    script.reply(kvrpcpb::RawCasResponse { previous_value: value("c"), ..Default::default() });
    assert_eq!(script.expect_done(), Ok(Swapped { swapped: false, previous: Some(value("c")) }));
}

#[test]
fn a_compare_and_swap_without_an_answer_is_not_repeated() {
    let options = RawOptions { atomic: true, ..options() };
    let mut script = script(compare_and_swap(&config(), Key::from("k"), None, value("b"), &options));
    script.expect_call(1, |_: &kvrpcpb::RawCasRequest| {});
    script.fault(maybe_executed());
    let error = script.expect_done().expect_err("nobody knows");
    assert!(error.is_undetermined() && !error.is_retryable(), "{error}");
}

#[test]
fn a_compare_and_swap_that_never_left_is_sent_again() {
    let options = RawOptions { atomic: true, ..options() };
    let mut script = script(compare_and_swap(&config(), Key::from("k"), None, value("b"), &options));
    script.expect_call(1, |_: &kvrpcpb::RawCasRequest| {});
    script.fault(Fault::new(FaultKind::Unreachable, Execution::NotSent, "store-1"));
    script.expect_sleep(|_, _| {});
    script.wake().expect_call(2, |_: &kvrpcpb::RawCasRequest| {});
    script.reply(kvrpcpb::RawCasResponse { succeed: true, previous_not_exist: true, ..Default::default() });
    assert_eq!(script.expect_done(), Ok(Swapped { swapped: true, previous: None }));
}

#[test]
fn values_find_their_keys_in_whatever_order_tikv_answers() {
    let keys = vec![Key::from("c"), Key::from("a"), Key::from("b"), Key::from("d")];
    let mut script = script(batch_get(&config(), keys, &options()));
    script.expect_call(1, |get: &kvrpcpb::RawBatchGetRequest| assert_eq!(get.keys, ["a", "b", "c", "d"]));
    let pairs = vec![kv("d", "4"), kv("x", "nobody's"), kv("a", "1"), kv("c", "3")];
    script.reply(kvrpcpb::RawBatchGetResponse { pairs, ..Default::default() });
    assert_eq!(script.expect_done(), Ok(vec![Some(value("3")), Some(value("1")), None, Some(value("4"))]));
}

#[test]
fn batch_get_answers_in_the_order_of_the_question() {
    let keys = ["z", "a", "h", "a", "b"].map(Key::from).to_vec();
    let mut script = script(batch_get(&config(), keys, &options()));
    let first = script.expect_call(1, |get: &kvrpcpb::RawBatchGetRequest| assert_eq!(get.keys, ["a", "b"]));
    let second = script.expect_call(1, |get: &kvrpcpb::RawBatchGetRequest| assert_eq!(get.keys, ["h"]));
    let third = script.expect_call(1, |get: &kvrpcpb::RawBatchGetRequest| assert_eq!(get.keys, ["z"]));
    script.reply_to(third, kvrpcpb::RawBatchGetResponse { pairs: vec![kv("z", "3")], ..Default::default() });
    script.reply_to(first, kvrpcpb::RawBatchGetResponse { pairs: vec![kv("a", "1")], ..Default::default() });
    script.reply_to(second, kvrpcpb::RawBatchGetResponse::default());
    let expected = [Some(value("3")), Some(value("1")), None, Some(value("1")), None];
    assert_eq!(script.expect_done(), Ok(expected.to_vec()));
}

#[test]
fn a_batch_whose_region_has_split_is_divided_anew() {
    let keys = ["a", "c"].map(Key::from).to_vec();
    let mut script = script(batch_delete(&config(), keys, &options()));
    script.expect_call(1, |delete: &kvrpcpb::RawBatchDeleteRequest| assert_eq!(delete.keys, ["a", "c"]));
    let epoch = Some(metapb::RegionEpoch { conf_ver: 1, version: 2 });
    let peers = vec![metapb::Peer { id: 11, store_id: 1, ..Default::default() }];
    let half = |id, start: &'static str, end: &'static str| metapb::Region {
        id,
        start_key: value(start),
        end_key: value(end),
        region_epoch: epoch,
        peers: peers.clone(),
        ..Default::default()
    };
    script.region_error(errorpb::Error {
        epoch_not_match: Some(errorpb::EpochNotMatch { current_regions: vec![half(1, "", "b"), half(9, "b", "g")] }),
        ..Default::default()
    });
    let left = script.expect_call(1, |delete: &kvrpcpb::RawBatchDeleteRequest| assert_eq!(delete.keys, ["a"]));
    assert!(script.last_context().is_retry_request, "the keys were in a request before");
    let right = script.expect_call(1, |delete: &kvrpcpb::RawBatchDeleteRequest| assert_eq!(delete.keys, ["c"]));
    script.reply_to(left, kvrpcpb::RawBatchDeleteResponse::default());
    script.reply_to(right, kvrpcpb::RawBatchDeleteResponse::default());
    assert_eq!(script.expect_done(), Ok(()));
}

#[test]
fn batch_put_closes_a_batch_by_its_bytes_and_keeps_the_last_of_equal_keys() {
    let config = Config::default();
    let big = Bytes::from(vec![7; config.raw.batch_put_bytes]);
    let put = |key: &str, value: &Bytes, ttl| RawPair { key: Key::from(key), value: value.clone(), ttl };
    let pairs = vec![
        put("b", &value("old"), None),
        put("a", &big, None),
        put("b", &value("new"), Some(Duration::from_secs(5))),
        put("c", &value("3"), None),
    ];
    let mut script = script(batch_put(&config, pairs, &options()));
    let first = script.expect_call(1, |put: &kvrpcpb::RawBatchPutRequest| {
        assert_eq!((put.pairs.len(), put.ttls.len()), (1, 0));
    });
    let second = script.expect_call(1, |put: &kvrpcpb::RawBatchPutRequest| {
        let pairs: Vec<_> = put.pairs.iter().map(|pair| (&pair.key[..], &pair.value[..])).collect();
        assert_eq!(pairs, [(&b"b"[..], &b"new"[..]), (&b"c"[..], &b"3"[..])]);
        assert_eq!(put.ttls, [5, 0]);
    });
    script.reply_to(first, kvrpcpb::RawBatchPutResponse::default());
    let refused = kvrpcpb::RawBatchPutResponse { error: "no".into(), ..Default::default() };
    script.reply_to(second, refused);
    assert!(matches!(script.expect_done(), Err(Error::Refused { operation: "RawBatchPut", .. })));
}

#[test]
fn nothing_to_do_sends_nothing() {
    assert_eq!(script(batch_get(&config(), vec![], &options())).expect_done(), Ok(vec![]));
    assert_eq!(script(batch_put(&config(), vec![], &options())).expect_done(), Ok(()));
    let none = ScanOptions { limit: 0, direction: Direction::Forward, key_only: false };
    assert_eq!(script(scan(&config(), KeyRange::ALL, none, &options())).expect_done(), Ok(vec![]));
    let empty = KeyRange::new("b", "a");
    assert_eq!(script(Ok(delete_range(&config(), empty, &options()))).expect_done(), Ok(()));
}

#[test]
fn a_scan_goes_from_region_to_region_until_it_has_enough() {
    let forward = ScanOptions { limit: 3, direction: Direction::Forward, key_only: false };
    let mut script = script(scan(&config(), KeyRange::new("b", "z"), forward, &options()));
    script.expect_call(1, |scan: &kvrpcpb::RawScanRequest| {
        assert_eq!((&scan.start_key[..], &scan.end_key[..], scan.limit), (&b"b"[..], &b"g"[..], 3));
    });
    script.reply(kvrpcpb::RawScanResponse { kvs: vec![kv("c", "1")], ..Default::default() });
    script.expect_call(1, |scan: &kvrpcpb::RawScanRequest| {
        assert_eq!((&scan.start_key[..], &scan.end_key[..], scan.limit), (&b"g"[..], &b"p"[..], 2));
    });
    script.reply(kvrpcpb::RawScanResponse::default());
    script.expect_call(1, |scan: &kvrpcpb::RawScanRequest| assert_eq!((&scan.end_key[..], scan.limit), (&b"z"[..], 2)));
    script.reply(kvrpcpb::RawScanResponse { kvs: vec![kv("p", "2"), kv("q", "3")], ..Default::default() });
    assert_eq!(script.expect_done(), Ok(vec![pair("c", "1"), pair("p", "2"), pair("q", "3")]));
}

#[test]
fn a_reverse_scan_begins_below_its_upper_end() {
    let reverse = ScanOptions { limit: 10, direction: Direction::Reverse, key_only: true };
    let mut script = script(scan(&config(), KeyRange::new("b", "p"), reverse, &options()));
    script.expect_call(1, |scan: &kvrpcpb::RawScanRequest| {
        assert_eq!((&scan.start_key[..], &scan.end_key[..]), (&b"p"[..], &b"g"[..]));
        assert!(scan.reverse && scan.key_only);
    });
    script.reply(kvrpcpb::RawScanResponse { kvs: vec![kv("h", "")], ..Default::default() });
    script.expect_call(1, |scan: &kvrpcpb::RawScanRequest| {
        assert_eq!((&scan.start_key[..], &scan.end_key[..], scan.limit), (&b"g"[..], &b"b"[..], 9));
    });
    script.reply(kvrpcpb::RawScanResponse { kvs: vec![kv("c", "")], ..Default::default() });
    assert_eq!(script.expect_done(), Ok(vec![pair("h", ""), pair("c", "")]));
}

#[test]
fn a_scan_that_asks_for_too_much_is_refused() {
    let limit = config().raw.max_scan_limit + 1;
    let too_many = ScanOptions { limit, direction: Direction::Forward, key_only: false };
    assert!(matches!(scan(&config(), KeyRange::ALL, too_many, &options()), Err(Error::InvalidArgument(_))));
}

#[test]
fn a_reverse_scan_from_the_end_of_all_keys_names_a_bound_behind_them() {
    let reverse = ScanOptions { limit: 1, direction: Direction::Reverse, key_only: false };
    let mut script = script(scan(&config(), KeyRange::ALL, reverse, &options()));
    script.expect_call(1, |scan: &kvrpcpb::RawScanRequest| {
        assert!(scan.start_key.len() > 8 * 1024 && scan.start_key.iter().all(|byte| *byte == u8::MAX));
        assert_eq!(scan.end_key, "p");
    });
    script.reply(kvrpcpb::RawScanResponse { kvs: vec![kv("z", "1")], ..Default::default() });
    assert_eq!(script.expect_done(), Ok(vec![Pair { key: "z".into(), value: "1".into() }]));
}

#[test]
fn a_store_that_returns_more_than_was_asked_for_is_not_believed() {
    let forward = ScanOptions { limit: 1, direction: Direction::Forward, key_only: false };
    let mut script = script(scan(&config(), KeyRange::ALL, forward, &options()));
    script.expect_call(1, |_: &kvrpcpb::RawScanRequest| {});
    script.reply(kvrpcpb::RawScanResponse { kvs: vec![kv("a", ""), kv("b", "")], ..Default::default() });
    assert!(matches!(script.expect_done(), Err(Error::Refused { .. })));
}

#[test]
fn delete_range_stops_at_the_first_refusal() {
    let mut script = script(Ok(delete_range(&config(), KeyRange::new("a", "h"), &options())));
    script.expect_call(1, |delete: &kvrpcpb::RawDeleteRangeRequest| {
        assert_eq!((&delete.start_key[..], &delete.end_key[..]), (&b"a"[..], &b"g"[..]));
    });
    script.reply(kvrpcpb::RawDeleteRangeResponse::default());
    script.expect_call(1, |delete: &kvrpcpb::RawDeleteRangeRequest| {
        assert_eq!((&delete.start_key[..], &delete.end_key[..]), (&b"g"[..], &b"h"[..]));
    });
    script.reply(kvrpcpb::RawDeleteRangeResponse { error: "no".into(), ..Default::default() });
    assert!(matches!(script.expect_done(), Err(Error::Refused { operation: "RawDeleteRange", .. })));
}

#[test]
fn a_checksum_does_not_depend_on_the_division_into_regions() {
    let mut script = script(Ok(checksum(&config(), KeyRange::new("a", "h"), &options())));
    for (checksum, total_kvs, total_bytes) in [(0b0110, 2, 20), (0b1010, 1, 10)] {
        script.expect_call(1, |_: &kvrpcpb::RawChecksumRequest| {});
        script.reply(kvrpcpb::RawChecksumResponse { checksum, total_kvs, total_bytes, ..Default::default() });
    }
    let expected = ChecksumTotal { crc64_xor: 0b1100, total_pairs: 3, total_bytes: 30 };
    assert_eq!(script.expect_done(), Ok(expected));
}

#[test]
fn a_walk_whose_region_has_changed_locates_it_again() {
    let forward = ScanOptions { limit: 3, direction: Direction::Forward, key_only: false };
    let mut script = script(scan(&config(), KeyRange::new("h", "i"), forward, &options()));
    script.expect_call(1, |_: &kvrpcpb::RawScanRequest| {});
    script.region_error(errorpb::Error { key_not_in_region: Some(Default::default()), ..Default::default() });
    script.expect_sleep(|_, _| {});
    script.wake().expect_pd(&crate::request::pd::PdRequest::RegionByKey { key: value("h"), leader_only: false });
    script.pd(Err(crate::error::PdError::Closed));
    assert_eq!(script.expect_done(), Err(Error::Closed));
}

#[test]
fn who_runs_out_of_time_while_locating_again_tells_of_the_attempts_before() {
    let mut options = options();
    options.call.deadline = Time::ZERO + Duration::from_secs(10);
    let forward = ScanOptions { limit: 3, direction: Direction::Forward, key_only: false };
    let mut walk = script(scan(&config(), KeyRange::new("h", "i"), forward, &options));
    walk.expect_call(1, |_: &kvrpcpb::RawScanRequest| {});
    walk.region_error(errorpb::Error { key_not_in_region: Some(Default::default()), ..Default::default() });
    walk.expect_sleep(|_, _| {});
    told(out_of_time(walk).map(drop), "RawScan");

    let mut batch = script(batch_delete(&config(), vec![Key::from("a"), Key::from("b")], &options));
    batch.expect_call(1, |_: &kvrpcpb::RawBatchDeleteRequest| {});
    batch.region_error(errorpb::Error { key_not_in_region: Some(Default::default()), ..Default::default() });
    batch.expect_sleep(|_, _| {});
    told(out_of_time(batch), "RawBatchDelete");
}

/// Wakes the machine from its back-off, and then because of its deadline.
fn out_of_time<M: Machine>(mut script: Script<M>) -> M::Output
where
    M::Output: std::fmt::Debug,
{
    let alarm = script.wake().expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Deadline));
    let Some(Command::Pd { token: question, .. }) = script.next() else { panic!("the region is to be located") };
    script.event(alarm, Event::Woken).expect_cancel(question);
    script.expect_done()
}

fn told(end: Result<(), Error>, operation: &str) {
    let Err(Error::DeadlineExceeded { operation: told, attempts: 1, last }) = end else { panic!("{end:?}") };
    assert_eq!(told, operation);
    assert!(matches!(last, CallFailure::Region { name: "key_not_in_region", .. }), "{last:?}");
}

#[test]
fn a_machine_that_is_done_ignores_late_events() {
    let mut script = script(get(&config(), Key::from("a"), &options()));
    script.expect_call(1, |_: &kvrpcpb::RawGetRequest| {});
    script.reply(kvrpcpb::RawGetResponse::default());
    script.expect_done().expect("answered").expect("present");
    let late = Event::Woken;
    assert!(matches!(script.poke(crate::machine::Token(0), late), Poll::Pending));
}
