//! Why a call or a connection failed, and whether the server may have executed the request.

use std::io;

use h2::Reason;

use crate::frame::FrameError;
use crate::status::code_of_reset;
use crate::stream::ReceiveError;
use crate::{Code, InvalidMetadata, Status};

/// Why a call failed.
///
/// Next to the reason ([`Error::kind`]) it says what matters for a retry: whether the server may have executed the
/// request. [`Error::not_sent`] is only `true` where that is certain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.kind)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    not_sent: bool,
}

/// The reason of an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The server ended the call with a status that is not [`Code::Ok`], or something between us and the server answered
    /// with an HTTP status, translated as the protocol demands.
    #[error("{0}")]
    Status(Status),
    /// The server reset the call's stream (RST_STREAM) with this HTTP/2 error code.
    #[error("the server reset the stream: {}", Reason::from(*.0))]
    Reset(u32),
    /// The connection is lost, or takes no new calls.
    #[error("{0}")]
    Connection(#[source] ConnectionError),
    /// The call's timeout passed, by this side's clock.
    #[error("the deadline of the call has passed")]
    DeadlineExceeded,
    /// So many calls wait for the server to allow another stream that one more is refused (`Options::max_queued_calls`).
    #[error("{0} calls wait for a stream already")]
    TooManyCalls(usize),
    /// The path, the authority or the metadata of the call cannot be sent.
    #[error("the call cannot be sent: {0}")]
    InvalidCall(String),
    /// A message is longer than what may be sent or received, in bytes.
    #[error("a message of {len} bytes is longer than the limit of {limit}")]
    MessageTooLarge {
        /// Its length; of a compressed message, a lower bound.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The response violates gRPC.
    #[error("malformed response: {0}")]
    MalformedResponse(String),
    /// The response is compressed in a way that is not understood.
    #[error("the response is compressed with `{0}`, which is not supported")]
    UnknownEncoding(String),
    /// Nothing can be sent any more, because the call has ended. The receiving half says how.
    #[error("the call has ended")]
    Ended,
}

/// Why a connection is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// Reading or writing failed.
    #[error("connection failed: {message}")]
    Io {
        /// What kind of failure.
        kind: io::ErrorKind,
        /// The operating system's (or TLS') words.
        message: String,
    },
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    ClosedByPeer,
    /// This side closed the connection, dropped all its channels or dropped its driver.
    #[error("the connection was closed")]
    Closed,
    /// The peer says goodbye (GOAWAY) with this HTTP/2 error code, 0 where it merely shuts down.
    #[error("the peer takes no more calls: {message}")]
    GoAway {
        /// The HTTP/2 error code.
        code: u32,
        /// The code in words, and what the peer added to it.
        message: String,
    },
    /// The peer does not speak HTTP/2, or speaks it wrongly.
    #[error("HTTP/2 protocol violation: {0}")]
    Protocol(String),
    /// The peer answered a keep-alive ping neither with a pong nor with anything else in time.
    #[error("the peer does not answer keep-alive pings")]
    KeepAliveTimeout,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, not_sent: bool) -> Self {
        Self(Box::new(Inner { kind, not_sent }))
    }

    /// Nothing of this call left this side, or the server said that it did not look at it.
    pub(crate) fn before_sending(kind: ErrorKind) -> Self {
        Self::new(kind, true)
    }

    /// The request was handed to the connection.
    pub(crate) fn after_sending(kind: ErrorKind) -> Self {
        Self::new(kind, false)
    }

    /// The reason.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The reason, by value.
    pub fn into_kind(self) -> ErrorKind {
        self.0.kind
    }

    /// Whether it is certain that the server has not executed the request: it was never handed to the connection, or the
    /// server refused the stream, or said goodbye before it got to it.
    pub fn not_sent(&self) -> bool {
        self.0.not_sent
    }

    /// Whether the server may have executed the request. The opposite of [`Error::not_sent`].
    pub fn may_have_been_executed(&self) -> bool {
        !self.0.not_sent
    }

    /// The status of the server, where it sent one.
    pub fn status(&self) -> Option<&Status> {
        match self.kind() {
            ErrorKind::Status(status) => Some(status),
            _ => None,
        }
    }

    /// The gRPC code that other clients report in this case.
    pub fn code(&self) -> Code {
        match self.kind() {
            ErrorKind::Status(status) => status.code,
            ErrorKind::Reset(reason) => code_of_reset(Reason::from(*reason)),
            ErrorKind::Connection(_) => Code::Unavailable,
            ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
            ErrorKind::TooManyCalls(_) | ErrorKind::MessageTooLarge { .. } => Code::ResourceExhausted,
            ErrorKind::InvalidCall(_) | ErrorKind::MalformedResponse(_) => Code::Internal,
            ErrorKind::UnknownEncoding(_) => Code::Unimplemented,
            ErrorKind::Ended => Code::Cancelled,
        }
    }

    /// Whether the call failed because the connection did.
    pub fn is_connection(&self) -> bool {
        matches!(self.kind(), ErrorKind::Connection(_))
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = error.code();
        match error.into_kind() {
            ErrorKind::Status(status) => status,
            kind => Status::new(code, kind.to_string()),
        }
    }
}

impl From<InvalidMetadata> for Error {
    fn from(error: InvalidMetadata) -> Self {
        Self::before_sending(ErrorKind::InvalidCall(error.to_string()))
    }
}

impl ConnectionError {
    pub(crate) fn of_h2(error: &h2::Error) -> Self {
        let code = error.reason().map_or(0, u32::from);
        match error.get_io() {
            Some(io) if io.kind() == io::ErrorKind::BrokenPipe => ConnectionError::ClosedByPeer,
            Some(io) => ConnectionError::Io { kind: io.kind(), message: io.to_string() },
            None if error.is_go_away() && error.is_remote() => {
                let message = error.to_string();
                let message = message.trim_start_matches("connection error received: ").to_owned();
                ConnectionError::GoAway { code, message }
            }
            None => ConnectionError::Protocol(error.to_string()),
        }
    }
}

/// What a call's stream met. `closed` is why the connection is gone, where that is known.
pub(crate) fn of_stream(error: &h2::Error, closed: Option<ConnectionError>) -> Error {
    let reset = error.reason().filter(|_| error.is_reset());
    match reset {
        Some(reason) if error.is_remote() => {
            Error::new(ErrorKind::Reset(reason.into()), reason == Reason::REFUSED_STREAM)
        }
        Some(_) => Error::after_sending(ErrorKind::MalformedResponse(error.to_string())),
        None => {
            // HTTP/2 fails a single stream with the peer's GOAWAY only where its id is above the last one that the peer
            // looks at. Streams that the loss of the connection ends get the I/O error instead.
            let not_sent = error.is_go_away() && error.is_remote();
            let known = closed.filter(|_| !not_sent);
            let connection = known.unwrap_or_else(|| ConnectionError::of_h2(error));
            Error::new(ErrorKind::Connection(connection), not_sent)
        }
    }
}

/// What went wrong with the messages of a response.
pub(crate) fn of_receiving(error: ReceiveError) -> Error {
    let kind = match error {
        ReceiveError::Http2(error) => return of_stream(&error, None),
        ReceiveError::Frame(FrameError::TooLarge { len, limit }) => ErrorKind::MessageTooLarge { len, limit },
        error => ErrorKind::MalformedResponse(error.to_string()),
    };
    Error::after_sending(kind)
}
