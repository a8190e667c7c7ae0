//! What passes between the PD client and its driver.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Fault;

/// Names a unary RPC to PD. Never used twice by one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Names a stream to PD. Never used twice by one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Something that the [`PdClient`](super::PdClient) wants done. Bodies are encoded messages: a transport needs to know
/// gRPC, not PD. A simulation in the same process tells the messages by their `path` (see [`path`](super::path)).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PdEffect {
    /// Send a unary RPC. Answered by [`PdInput::Reply`].
    Call {
        /// Names the RPC.
        call: CallId,
        /// The member, `host:port`.
        address: Arc<str>,
        /// The gRPC path, `/package.Service/Method`.
        path: &'static str,
        /// The encoded request.
        body: Bytes,
        /// What to tell the server as the time limit. The client watches the time itself; the transport need not.
        timeout: Duration,
    },
    /// Forget an RPC; a reply that still comes is ignored. The RPC may be unknown to the driver, if it has been answered.
    CancelCall {
        /// The RPC.
        call: CallId,
    },
    /// Open a bidirectional stream. Messages to send follow at once, before it is known whether the stream could be opened;
    /// a failure to open it is a [`PdInput::StreamClosed`].
    OpenStream {
        /// Names the stream.
        stream: StreamId,
        /// The member, `host:port`.
        address: Arc<str>,
        /// The gRPC path, `/package.Service/Method`.
        path: &'static str,
    },
    /// Send a message on a stream, after those before it.
    Send {
        /// The stream.
        stream: StreamId,
        /// The encoded message.
        body: Bytes,
    },
    /// Close a stream at once. Nothing is expected from it any more.
    CloseStream {
        /// The stream.
        stream: StreamId,
    },
}

/// Something that the driver tells the [`PdClient`](super::PdClient). What belongs to a call or stream that the client does
/// not know (any more) is ignored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PdInput {
    /// Answers [`PdEffect::Call`].
    Reply {
        /// The RPC.
        call: CallId,
        /// The encoded response, or what happened instead.
        result: Result<Bytes, Fault>,
    },
    /// A message came on a stream.
    StreamMessage {
        /// The stream.
        stream: StreamId,
        /// The encoded message.
        body: Bytes,
    },
    /// A stream ended by itself, or could not be opened.
    StreamClosed {
        /// The stream.
        stream: StreamId,
        /// What happened.
        fault: Fault,
    },
}

/// Why a [`PdClient`](super::PdClient) wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PdTimer {
    /// A member has been silent for too long when asked who leads.
    MemberSilent,
    /// The pause before members are asked again is over.
    DiscoveryBackoff,
    /// It is time to see whether the members have changed.
    Refresh,
    /// The timestamp stream has been silent for too long.
    TimestampStreamSilent,
    /// The leader has not answered an RPC in time.
    CallSilent,
    /// The deadline of a waiter.
    Deadline,
}

/// Where effects collect until the driver takes them; also hands out ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Effects {
    queue: VecDeque<PdEffect>,
    next_id: u64,
}

impl Effects {
    pub(super) fn call(&mut self, address: Arc<str>, path: &'static str, body: Bytes, timeout: Duration) -> CallId {
        let call = CallId(self.new_id());
        self.queue.push_back(PdEffect::Call { call, address, path, body, timeout });
        call
    }

    pub(super) fn cancel(&mut self, call: CallId) {
        self.queue.push_back(PdEffect::CancelCall { call });
    }

    pub(super) fn open(&mut self, address: Arc<str>, path: &'static str) -> StreamId {
        let stream = StreamId(self.new_id());
        self.queue.push_back(PdEffect::OpenStream { stream, address, path });
        stream
    }

    pub(super) fn send(&mut self, stream: StreamId, body: Bytes) {
        self.queue.push_back(PdEffect::Send { stream, body });
    }

    pub(super) fn close(&mut self, stream: StreamId) {
        self.queue.push_back(PdEffect::CloseStream { stream });
    }

    pub(super) fn pop(&mut self) -> Option<PdEffect> {
        self.queue.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}
