//! How generated messages behave: on the wire, in memory, and as values.

use std::collections::HashSet;
use std::mem::size_of;

use bytes::Bytes;
use prost::Message;
use tikv_proto::{kvrpcpb, pdpb, resource_manager, tikvpb};

fn a_prewrite() -> kvrpcpb::PrewriteRequest {
    kvrpcpb::PrewriteRequest {
        context: Some(Box::new(kvrpcpb::Context { region_id: 7, ..Default::default() })),
        mutations: vec![kvrpcpb::Mutation {
            op: kvrpcpb::Op::Put.into(),
            key: Bytes::from_static(b"key"),
            value: Bytes::from_static(b"value"),
            ..Default::default()
        }],
        primary_lock: Bytes::from_static(b"key"),
        start_version: 451_000_000_000_000_000,
        lock_ttl: 3000,
        ..Default::default()
    }
}

#[test]
fn a_message_survives_the_wire() {
    let request = a_prewrite();
    let frame = Bytes::from(request.encode_to_vec());
    assert_eq!(frame.len(), request.encoded_len());
    assert_eq!(kvrpcpb::PrewriteRequest::decode(frame), Ok(request));
}

#[test]
fn a_decoded_value_shares_the_memory_of_its_frame() {
    let frame = Bytes::from(a_prewrite().encode_to_vec());
    let request = kvrpcpb::PrewriteRequest::decode(frame.clone()).unwrap();
    let value = request.mutations[0].value.as_ptr_range();
    let frame = frame.as_ptr_range();
    assert!(frame.start <= value.start && value.end <= frame.end);
}

#[test]
fn requests_and_replies_of_the_hot_path_stay_small() {
    assert!(size_of::<kvrpcpb::RawGetRequest>() <= 64);
    assert!(size_of::<kvrpcpb::RawGetResponse>() <= 96);
    assert!(size_of::<kvrpcpb::GetRequest>() <= 64);
    assert!(size_of::<kvrpcpb::GetResponse>() <= 128);
    assert!(size_of::<kvrpcpb::PrewriteRequest>() <= 224);
    assert!(size_of::<tikvpb::batch_commands_request::Request>() <= 256);
    assert!(size_of::<tikvpb::batch_commands_response::Response>() <= 256);
}

#[test]
fn messages_with_lists_maps_and_floats_can_be_compared_and_hashed() {
    let consumed = |cpu_ms: f64| resource_manager::Consumption { total_cpu_time_ms: cpu_ms, ..Default::default() };
    assert_eq!(consumed(0.0), consumed(-0.0));
    let distinct: HashSet<_> = [consumed(0.0), consumed(-0.0), consumed(1.5), consumed(1.5)].into();
    assert_eq!(distinct.len(), 2);

    let prewrites: HashSet<_> = [a_prewrite(), a_prewrite()].into();
    assert_eq!(prewrites.len(), 1);

    let regions = |id: u64| pdpb::QueryRegionResponse {
        regions_by_id: [(id, pdpb::RegionResponse::default())].into(),
        ..Default::default()
    };
    let distinct: HashSet<_> = [regions(1), regions(2), regions(1)].into();
    assert_eq!(distinct.len(), 2);
}
