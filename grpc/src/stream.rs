//! The two directions of an HTTP/2 stream, as both halves of gRPC use them.

mod receive;
pub(crate) mod send;

pub(crate) use receive::{ReceiveError, Receiving};
