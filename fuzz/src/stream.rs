//! Many calls over one connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tikv_core::error::FaultKind;
use tikv_core::machine::{Call, Token};
use tikv_core::request::CallContext;
use tikv_core::stream::{BatchLimits, BatchStream};
use tikv_core::time::Time;
use tikv_proto::kvrpcpb;

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

fn get(deadline_ms: u64) -> Call {
    Call {
        token: Token(0),
        store_id: 1,
        address: Arc::from("store"),
        context: CallContext::default(),
        request: kvrpcpb::RawGetRequest { key: Bytes::from_static(b"key"), ..Default::default() }.into(),
        deadline: Time::from_millis(deadline_ms),
    }
}
