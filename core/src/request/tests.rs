use bytes::{Bytes, BytesMut};
use prost::Message;
use tikv_proto::{kvrpcpb, metapb, tikvpb};

use super::*;

fn context() -> kvrpcpb::Context {
    kvrpcpb::Context { region_id: 7, resolved_locks: vec![1, 300, 70_000], ..Default::default() }
}

fn call_context() -> CallContext {
    CallContext::from(context())
}

/// An empty request of `kind`: no bytes are a valid message.
fn empty(kind: RequestKind) -> Request {
    kind.decode_request(Bytes::new()).expect("no bytes are a message").1
}

#[test]
fn a_context_written_in_front_is_the_context_of_the_message() {
    for kind in RequestKind::ALL.iter().copied() {
        let request = empty(kind);
        let mut side_by_side = BytesMut::new();
        request.encode_with_context(&call_context(), &mut side_by_side);
        assert_eq!(side_by_side.len(), request.encoded_len_with_context(&call_context()), "{kind:?}");
        let (decoded, bare) = kind.decode_request(side_by_side.freeze()).expect("a message");
        assert_eq!(decoded, kind.takes_context().then(context), "{kind:?}");
        assert_eq!(bare, request, "{kind:?}");
    }
}

#[test]
fn every_batched_command_travels_in_its_own_slot() {
    for kind in RequestKind::ALL.iter().copied() {
        let mut frame = BytesMut::new();
        let batched = empty(kind).encode_batch_entry(&call_context(), &mut frame);
        assert_eq!(batched, kind.batch_slot().is_some(), "{kind:?}");
        if !batched {
            assert!(frame.is_empty());
            continue;
        }
        let decoded = tikvpb::BatchCommandsRequest::decode(frame.freeze()).expect("a frame");
        let mut entry = BytesMut::new();
        decoded.requests[0].encode(&mut entry).expect("space");
        // The only field of the entry is the command's; its number is in the first one or two bytes.
        let (tag, wire_type) = prost::encoding::decode_key(&mut entry).expect("a field");
        assert_eq!(Some(tag), kind.batch_slot(), "{kind:?}");
        assert_eq!(wire_type, prost::encoding::WireType::LengthDelimited);
    }
}

#[test]
fn every_batched_response_is_recognised() {
    for kind in RequestKind::ALL.iter().copied() {
        let Some(slot) = kind.batch_slot() else { continue };
        let mut bytes = BytesMut::new();
        prost::encoding::encode_key(slot, prost::encoding::WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint(0, &mut bytes);
        let response = kind.decode_batch_response(bytes.freeze()).expect("an entry");
        let response = response.unwrap_or_else(|| panic!("{kind:?} is not decoded"));
        assert_eq!(response.kind(), kind);
    }
}

#[test]
fn an_entry_of_a_batch_decodes_as_prost_would_decode_it() {
    use tikvpb::batch_commands_response::{Response as Entry, response::Cmd};
    let get = kvrpcpb::GetResponse { value: "v".into(), not_found: true, ..Default::default() };
    let entry: Bytes = Entry { cmd: Some(Cmd::Get(get.clone())) }.encode_to_vec().into();
    let decode = |kind: RequestKind, entry: &Bytes| kind.decode_batch_response(entry.clone());
    assert_eq!(decode(RequestKind::Get, &entry), Ok(Some(Response::Get(get))));
    assert_eq!(decode(RequestKind::RawGet, &entry), Ok(None), "the answer to another command");
    assert_eq!(decode(RequestKind::Get, &Bytes::new()), Ok(None));
    for cut in 1..entry.len() {
        assert!(decode(RequestKind::Get, &entry.slice(..cut)).is_err());
    }
}

#[test]
fn regional_commands_and_only_they_can_carry_a_made_up_region_error() {
    let error = errorpb::Error { message: "split".into(), ..Default::default() };
    for kind in RequestKind::ALL.iter().copied() {
        match Response::of_region_error(kind, error.clone()) {
            Some(response) => {
                assert!(kind.facts().regional);
                assert_eq!(response.kind(), kind);
                assert_eq!(response.region_error(), Some(&error));
            }
            None => assert!(!kind.facts().regional, "{kind:?}"),
        }
    }
}

#[test]
fn a_typed_response_is_taken_out_and_another_is_given_back() {
    let response = Response::RawGet(kvrpcpb::RawGetResponse { not_found: true, ..Default::default() });
    let typed = kvrpcpb::RawGetRequest::unwrap_response(response.clone()).expect("a RawGet response");
    assert!(typed.not_found);
    let other = kvrpcpb::GetRequest::unwrap_response(response.clone()).expect_err("not a Get response");
    assert_eq!(*other, response);
}

#[test]
fn paths_name_service_and_method() {
    for kind in RequestKind::ALL {
        let facts = kind.facts();
        match facts.method {
            Method::BatchOnly { .. } => assert_eq!(facts.path, ""),
            _ => assert_eq!(facts.path.matches('/').count(), 2, "{kind:?}"),
        }
    }
}

/// A context of which every second field, or the others, are set.
fn some_fields(odd: bool) -> kvrpcpb::Context {
    let all = kvrpcpb::Context {
        region_id: 1,
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 2, version: 3 }),
        peer: Some(metapb::Peer { id: 4, store_id: 5, ..Default::default() }),
        term: 6,
        priority: 2,
        isolation_level: 1,
        not_fill_cache: true,
        sync_log: true,
        replica_read: true,
        resolved_locks: vec![7],
        max_execution_duration_ms: 8,
        task_id: 9,
        stale_read: true,
        resource_group_tag: "tag".into(),
        disk_full_opt: 1,
        is_retry_request: true,
        request_source: "test".into(),
        txn_source: 10,
        busy_threshold_ms: 11,
        ..Default::default()
    };
    let (mut left, mut kept) = (Bytes::from(all.encode_to_vec()), BytesMut::new());
    for keep in [odd, !odd].into_iter().cycle() {
        if left.is_empty() {
            break;
        }
        let before = left.clone();
        let (tag, wire_type) = prost::encoding::decode_key(&mut left).expect("a field");
        prost::encoding::skip_field(wire_type, tag, &mut left, Default::default()).expect("a value");
        if keep {
            kept.extend_from_slice(&before[..before.len() - left.len()]);
        }
    }
    kvrpcpb::Context::decode(kept.freeze()).expect("a message")
}

#[test]
fn a_context_of_a_call_is_the_message_that_it_was_made_from() {
    for message in [some_fields(true), some_fields(false), kvrpcpb::Context::default()] {
        let context = CallContext::from(message.clone());
        assert_eq!(context.to_message(), message);
        assert_eq!(CallContext::from(context.to_message()), context);
        let mut body = BytesMut::new();
        empty(RequestKind::Get).encode_with_context(&context, &mut body);
        let decoded = kvrpcpb::GetRequest::decode(body.freeze()).expect("a message");
        assert_eq!(decoded.context.as_deref(), Some(&message));
        let other = context.updated(|context| context.request_source.push('!'));
        assert_eq!(other.to_message().request_source, format!("{}!", message.request_source));
    }
}

#[test]
fn rare_answers_do_not_make_all_others_large() {
    assert!(size_of::<Response>() <= 80);
}
