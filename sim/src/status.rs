//! How a call ends without a response.

use std::fmt;

/// gRPC status codes, as far as the simulated servers use them. The numbers are gRPC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Code {
    /// An error of which nothing more is known.
    Unknown = 2,
    /// The caller's arguments are wrong whatever the state of the system.
    InvalidArgument = 3,
    /// The deadline passed.
    DeadlineExceeded = 4,
    /// What was asked for does not exist.
    NotFound = 5,
    /// Too much is asked for.
    ResourceExhausted = 8,
    /// The system is not in the state that the call needs.
    FailedPrecondition = 9,
    /// What was asked for lies before what is still known.
    OutOfRange = 11,
    /// The server does not know the method.
    Unimplemented = 12,
    /// The server is broken.
    Internal = 13,
    /// The server cannot serve now.
    Unavailable = 14,
}

/// A gRPC status in place of a response.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// For people; but some clients look for PD's words.
    pub message: String,
}

/// Why a call to a store brings no response.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CallError {
    /// The store does not run: no connection can be made, nothing was executed.
    #[error("the store does not run")]
    Unreachable,
    /// The store stopped while the call was under way.
    #[error("the store stopped")]
    Disconnected,
    /// The store answers with a status.
    #[error("{0}")]
    Status(#[from] Status),
}

impl Status {
    /// A status with this code and message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Status { code, message: message.into() }
    }

    pub(crate) fn unimplemented(what: impl fmt::Display) -> Self {
        Status::new(Code::Unimplemented, format!("{what} is not implemented"))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}
