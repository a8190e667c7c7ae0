//! What the network did to one RPC.

use std::fmt;
use std::sync::Arc;

/// Why an RPC brought no response. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{kind} at {address}{}", Detail(detail))]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// Whether the server may have acted on the request.
    pub execution: Execution,
    /// Where the request went (or should have gone).
    pub address: Arc<str>,
    /// More, for people.
    pub detail: Arc<str>,
}

/// Whether a request without a response may have been acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Execution {
    /// It never left this process: the server cannot have acted on it.
    NotSent,
    /// It may have arrived, and may yet arrive later.
    MaybeExecuted,
}

/// What happened to the RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// No connection could be made.
    Unreachable,
    /// The connection or stream broke.
    Disconnected,
    /// No response by the deadline.
    Timeout,
    /// The peer broke the protocol, or answered with the wrong message.
    Protocol,
    /// The server answered with this gRPC status code instead of a message.
    Status(u32),
    /// This side refused to send: too many requests in flight.
    Overloaded,
    /// The client is closing.
    Closed,
}

impl Fault {
    /// A fault without further detail.
    #[must_use]
    pub fn new(kind: FaultKind, execution: Execution, address: impl Into<Arc<str>>) -> Self {
        Fault { kind, execution, address: address.into(), detail: Arc::from("") }
    }

    /// The same fault with a detail for people.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Arc<str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Whether the server may have acted on the request.
    #[must_use]
    pub fn may_be_executed(&self) -> bool {
        self.execution == Execution::MaybeExecuted
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultKind::Unreachable => f.write_str("unreachable"),
            FaultKind::Disconnected => f.write_str("disconnected"),
            FaultKind::Timeout => f.write_str("no response in time"),
            FaultKind::Protocol => f.write_str("protocol broken"),
            FaultKind::Status(code) => write!(f, "gRPC status {code}"),
            FaultKind::Overloaded => f.write_str("too many requests in flight"),
            FaultKind::Closed => f.write_str("client closed"),
        }
    }
}

struct Detail<'a>(&'a str);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}
