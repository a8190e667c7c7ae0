//! How a call ended: [`Code`] and [`Status`].

#[cfg(test)]
mod tests;
mod wire;

use std::fmt;

use bytes::Bytes;

use crate::Metadata;

pub(crate) use wire::{code_of_http_status, code_of_reset, read_status, write_status};

/// The seventeen status codes of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Code {
    /// Success.
    Ok = 0,
    /// The call was cancelled, typically by the caller.
    Cancelled = 1,
    /// An error of which nothing more is known.
    Unknown = 2,
    /// The caller's arguments are wrong whatever the state of the system.
    InvalidArgument = 3,
    /// The deadline passed before the call was done.
    DeadlineExceeded = 4,
    /// What was asked for does not exist.
    NotFound = 5,
    /// What should have been created exists.
    AlreadyExists = 6,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A quota, a size limit or memory is exhausted.
    ResourceExhausted = 8,
    /// The system is not in the state that the call needs.
    FailedPrecondition = 9,
    /// The call was aborted, typically by a conflict.
    Aborted = 10,
    /// The arguments are out of the valid range.
    OutOfRange = 11,
    /// The server does not know this method.
    Unimplemented = 12,
    /// An invariant is broken.
    Internal = 13,
    /// The server cannot be reached or cannot serve now.
    Unavailable = 14,
    /// Data is lost or corrupt.
    DataLoss = 15,
    /// The caller is not authenticated.
    Unauthenticated = 16,
}

/// How a server ended a call: a code, a message for people, and optional machine-readable details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// A text for people. Any Unicode; it is percent-encoded on the wire.
    pub message: String,
    /// An encoded `google.rpc.Status`, or empty (`grpc-status-details-bin`).
    pub details: Bytes,
    /// The metadata sent with the status (the trailers).
    pub metadata: Metadata,
}

impl Code {
    /// The code with this number; a number that gRPC does not define means [`Code::Unknown`].
    pub fn from_i32(number: i32) -> Self {
        const CODES: [Code; 17] = [
            Code::Ok,
            Code::Cancelled,
            Code::Unknown,
            Code::InvalidArgument,
            Code::DeadlineExceeded,
            Code::NotFound,
            Code::AlreadyExists,
            Code::PermissionDenied,
            Code::ResourceExhausted,
            Code::FailedPrecondition,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unimplemented,
            Code::Internal,
            Code::Unavailable,
            Code::DataLoss,
            Code::Unauthenticated,
        ];
        usize::try_from(number).ok().and_then(|number| CODES.get(number).copied()).unwrap_or(Code::Unknown)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Status {
    /// A status without details and metadata.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Bytes::new(), metadata: Metadata::new() }
    }

    /// Success.
    pub fn ok() -> Self {
        Self::new(Code::Ok, "")
    }

    /// The answer to a method that a server does not have.
    pub fn unimplemented(path: &str) -> Self {
        Self::new(Code::Unimplemented, format!("unknown method {path}"))
    }

    /// Whether the code is [`Code::Ok`].
    pub fn is_ok(&self) -> bool {
        self.code == Code::Ok
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message.as_str() {
            "" => write!(f, "{}", self.code),
            message => write!(f, "{}: {message}", self.code),
        }
    }
}

impl std::error::Error for Status {}
