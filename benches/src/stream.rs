//! One BatchCommands stream between a client and a store that answers everything.

use bytes::Bytes;
use prost::Message;
use tikv_core::keyspace::KeyCodec;
use tikv_core::machine::Call;
use tikv_core::stream::{BatchLimits, BatchStream};
use tikv_proto::tikvpb::batch_commands_response::{Response, response::Cmd};
use tikv_proto::{kvrpcpb, tikvpb};

use crate::keys;
use crate::world::{Size, World};

/// Calls in a frame.
pub const FRAME_CALLS: usize = 32;

/// Raw gets and their answers.
#[derive(Debug)]
pub struct Stream {
    stream: BatchStream<u32>,
    call: Call,
    /// What the store has sent and the client has not yet read, the newest first.
    received: Vec<Bytes>,
}

impl Stream {
    /// No call has been made.
    ///
    /// # Panics
    ///
    /// If a raw get sends nothing.
    #[must_use]
    pub fn new() -> Self {
        let mut world = World::new(KeyCodec::Raw, Size { regions: 1, stores: 3 });
        let call = world.raw_get_machine(&keys::key(1)).and_then(|mut get| world.first_call(&mut get));
        let call = call.expect("a raw get sends a call");
        Stream { stream: BatchStream::new(call.address.clone(), BatchLimits::default()), call, received: Vec::new() }
    }

    /// So many calls have been sent, in frames, and not been answered.
    #[must_use]
    pub fn sent(calls: usize) -> Self {
        let mut stream = Stream::new();
        for _ in 0..calls.div_ceil(FRAME_CALLS) {
            stream.encode();
        }
        stream
    }

    /// So many frames have been sent, and their answers have arrived.
    #[must_use]
    pub fn answered(frames: usize) -> Self {
        let mut stream = Stream::sent(frames * FRAME_CALLS);
        let ids: Vec<u64> = (1..=(frames * FRAME_CALLS) as u64).collect();
        stream.received = ids.chunks(FRAME_CALLS).rev().map(response_frame).collect();
        stream
    }

    /// Makes the calls of a frame and takes the frame. Whether there was one.
    pub fn encode(&mut self) -> bool {
        (0..FRAME_CALLS as u32).all(|waiter| self.stream.submit(waiter, &self.call).is_ok())
            && self.stream.poll_frame().is_some()
    }

    /// Reads a received frame. Whether it held what it should.
    pub fn decode(&mut self) -> bool {
        let Some(frame) = self.received.pop() else { return false };
        let mut answers = 0;
        let news = self.stream.handle_frame(frame, |_, answer| answers += usize::from(answer.is_ok()));
        news.is_ok() && answers == FRAME_CALLS
    }
}

impl Default for Stream {
    fn default() -> Self {
        Stream::new()
    }
}

fn response_frame(ids: &[u64]) -> Bytes {
    let answer = kvrpcpb::RawGetResponse { value: Bytes::from(vec![7; 64]), ..Default::default() };
    let frame = tikvpb::BatchCommandsResponse {
        responses: vec![Response { cmd: Some(Cmd::RawGet(answer)) }; ids.len()],
        request_ids: ids.to_vec(),
        ..Default::default()
    };
    frame.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_answered() {
        let mut stream = Stream::answered(3);
        assert!((0..3).all(|_| stream.decode()));
        assert_eq!(stream.stream.in_flight(), 0);
        assert!(!stream.decode());
    }
}
