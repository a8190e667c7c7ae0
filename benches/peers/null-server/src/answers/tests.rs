use tikv_core::request::{CallContext, Response};
use tikv_proto::kvrpcpb::{CommitRequest, GetRequest, RawBatchGetRequest, RawPutRequest};
use tikv_proto::tikvpb::BatchCommandsResponse;

use super::*;

fn answered(request: impl Into<Request>) -> Response {
    let request = request.into();
    let mut body = BytesMut::new();
    request.encode_with_context(&CallContext::default(), &mut body);
    let answer = Answers::new().answer(request.kind(), body.freeze()).expect("a request");
    request.kind().decode_response(answer).expect("a response")
}

#[test]
fn every_key_exists() {
    let keys: Vec<Bytes> = vec!["a".into(), "b".into()];
    let Response::RawBatchGet(found) = answered(RawBatchGetRequest { keys: keys.clone(), ..Default::default() }) else {
        panic!("another response")
    };
    assert_eq!(found.pairs.iter().map(|pair| pair.key.clone()).collect::<Vec<_>>(), keys);
    assert!(found.pairs.iter().all(|pair| pair.value == value()));
}

#[test]
fn a_scan_finds_the_records_from_its_start_to_its_end_or_limit() {
    let scan = |start: Vec<u8>, end: Vec<u8>, limit| {
        let request = ScanRequest { start_key: start.into(), end_key: end.into(), limit, ..ScanRequest::default() };
        let Response::Scan(found) = answered(request) else { panic!("another response") };
        found.pairs.iter().map(|pair| pair.key.to_vec()).collect::<Vec<_>>()
    };
    let behind = |number| [txn_record(number), vec![0]].concat();
    assert_eq!(scan(txn_record(3), Vec::new(), 2), [txn_record(3), txn_record(4)]);
    assert_eq!(scan(behind(3), txn_record(6), 100), [txn_record(4), txn_record(5)]);
    assert_eq!(scan(behind(RECORDS - 1), b"txn0".to_vec(), 100), Vec::<Vec<u8>>::new());
    assert_eq!(scan(b"txn/".to_vec(), b"txn0".to_vec(), 100_000).len() as u64, RECORDS);
}

#[test]
fn a_transaction_commits_as_it_wishes() {
    let prewrite = |use_async_commit, try_one_pc, min_commit_ts| {
        let request =
            PrewriteRequest { start_version: 7, use_async_commit, try_one_pc, min_commit_ts, ..Default::default() };
        let Response::Prewrite(response) = answered(request) else { panic!("another response") };
        (response.min_commit_ts, response.one_pc_commit_ts)
    };
    assert_eq!(prewrite(false, false, 0), (0, 0));
    assert_eq!(prewrite(true, false, 9), (9, 0));
    assert_eq!(prewrite(true, true, 3), (0, 8));
    let Response::Commit(committed) = answered(CommitRequest { commit_version: 9, ..Default::default() }) else {
        panic!("another response")
    };
    assert_eq!(committed, CommitResponse { commit_version: 9, ..Default::default() });
}

#[test]
fn the_answers_of_a_frame_are_in_its_order_and_have_its_ids() {
    let requests: [Request; 3] =
        [RawPutRequest::default().into(), GetRequest::default().into(), CommitRequest::default().into()];
    let mut frame = BytesMut::new();
    for request in &requests {
        assert!(request.encode_batch_entry(&CallContext::default(), &mut frame));
    }
    encoding::uint64::encode_packed(field::IDS, &[5, 6, 300], &mut frame);
    let reply = Answers::new().answer_frame(frame.freeze()).expect("a frame");
    let reply = BatchCommandsResponse::decode(reply).expect("a frame");
    assert_eq!(reply.request_ids, [5, 6, 300]);
    for (request, response) in requests.iter().zip(&reply.responses) {
        let decoded = request.kind().decode_batch_response(response.encode_to_vec().into()).expect("a response");
        assert_eq!(decoded.map(|response| response.kind()), Some(request.kind()));
    }
    assert_eq!(reply.responses.len(), 3);
}

#[test]
fn what_is_no_frame_is_an_error() {
    assert!(Answers::new().answer_frame(Bytes::from_static(&[10, 200, 1])).is_err());
}
