//! What the fuzz targets do, as plain functions: libFuzzer calls them with new inputs, `cargo test` with the corpora.
//!
//! ```text
//! cargo +nightly fuzz run codec --features libfuzzer
//! ```
//!
//! A function panics when it has found something.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use prost::Message;
use tikv_core::codec::{memcomparable, number};
use tikv_core::error::FaultKind;
use tikv_core::machine::{Call, Token};
use tikv_core::request::{RequestContext, RequestKind, decode_response};
use tikv_core::stream::{BatchLimits, BatchStream};
use tikv_core::time::Time;
use tikv_proto::{kvrpcpb, tikvpb};

/// A target: its name, which is that of its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[("codec", codec), ("batch_stream", batch_stream), ("proto_decode", proto_decode)];

/// Whatever decodes must be what the encoder writes for it, and decoding must not go wrong on anything else.
pub fn codec(data: &[u8]) {
    let mut input = data;
    if let Ok(value) = memcomparable::decode(&mut input) {
        let mut encoded = Vec::new();
        memcomparable::encode(&mut encoded, &value);
        assert_eq!(encoded, data[..data.len() - input.len()]);
    }
    let mut encoded = Vec::new();
    memcomparable::encode(&mut encoded, data);
    assert_eq!(memcomparable::decode(&mut encoded.as_slice()).as_deref(), Ok(data));
    encoded.clear();
    memcomparable::encode_desc(&mut encoded, data);
    assert_eq!(memcomparable::decode_desc(&mut encoded.as_slice()).as_deref(), Ok(data));
    let (left, right) = data.split_at(data.len() / 2);
    assert_eq!(left.cmp(right), memcomparable::encode_key(left).cmp(&memcomparable::encode_key(right)));

    let mut input = data;
    if let Ok(value) = number::decode_comparable_varint(&mut input) {
        let mut encoded = Vec::new();
        number::encode_comparable_varint(&mut encoded, value);
        assert_eq!(number::decode_comparable_varint(&mut encoded.as_slice()), Ok(value));
    }
}

/// Calls, frames, arbitrary answers, time-outs and breaks in any order: each call is answered at most once, and none is
/// answered that was cancelled.
pub fn batch_stream(data: &[u8]) {
    let limits = BatchLimits { in_flight: 64, frame_requests: 4, frame_bytes: 256 };
    let mut stream: BatchStream<u32> = BatchStream::new("store", limits);
    let mut open: BTreeMap<u32, Option<u64>> = BTreeMap::new();
    let (mut input, mut next, mut now) = (Bytes::copy_from_slice(data), 0_u32, 0_u64);
    while input.has_remaining() {
        let step = input.get_u8();
        let mut answered = Vec::new();
        match step % 6 {
            0 | 1 => {
                next += 1;
                match stream.submit(next, &get(now + u64::from(step))) {
                    Ok(id) => {
                        open.insert(next, Some(id));
                    }
                    Err((waiter, fault)) => assert!(waiter == next && !fault.may_be_executed()),
                }
            }
            2 => {
                let _ = stream.poll_frame();
            }
            3 => {
                // The rest of the input, or a part of it, as a frame from the store.
                let len = usize::from(step).min(input.remaining());
                let _ = stream.handle_frame(input.split_to(len), |waiter, _| answered.push(waiter));
            }
            4 => {
                now += u64::from(step);
                stream.handle_timeout(Time::from_millis(now), |waiter, _| answered.push(waiter));
            }
            _ if step > 200 => {
                stream.close(FaultKind::Disconnected, "", |waiter, _| answered.push(waiter));
                assert_eq!(stream.in_flight(), 0);
            }
            _ => {
                if let Some((_, Some(id))) = open.pop_first() {
                    assert!(stream.cancel(id));
                }
            }
        }
        for waiter in answered {
            assert!(open.remove(&waiter).is_some(), "answered twice, or after its cancellation");
        }
        assert_eq!(stream.in_flight(), open.len());
    }
}

/// Arbitrary bytes as every message that a server can send, and the round trip of those that are one.
pub fn proto_decode(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    for kind in RequestKind::ALL {
        if let Ok(response) = decode_response(*kind, bytes.clone()) {
            let again = decode_response(*kind, response.encode_to_bytes());
            assert_eq!(again.as_ref(), Ok(&response));
        }
    }
    if let Ok(frame) = tikvpb::BatchCommandsResponse::decode(bytes) {
        assert_eq!(tikvpb::BatchCommandsResponse::decode(frame.encode_to_vec().as_slice()), Ok(frame));
    }
}

fn get(deadline_ms: u64) -> Call {
    Call {
        token: Token(0),
        store_id: 1,
        address: Arc::from("store"),
        context: RequestContext::default(),
        request: kvrpcpb::RawGetRequest { key: Bytes::from_static(b"key"), ..Default::default() }.into(),
        deadline: Time::from_millis(deadline_ms),
    }
}
