//! What can be asked of a TiKV store: one table of commands.
//!
//! The table in [`table`] generates [`Request`], [`Response`] and [`RequestKind`], and every fact that the rest of the
//! client needs about a command: its gRPC method, its place in a BatchCommands frame, whether it reads or writes,
//! whether a region error can come back. A new command is one row.
//!
//! A request is immutable and cheap to clone ([`Shared`]): a retry sends the same bytes again with another
//! context ([`CallContext`]), which therefore travels beside the request and not in it.
//!
//! client-go: package `tikvrpc`.

mod call_context;
mod encode;
pub mod pd;
mod shared;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::Hash;

use bytes::Bytes;
pub use call_context::CallContext;
pub use encode::decode_response;
pub use shared::Shared;
pub use table::{Request, RequestKind, Response};
use tikv_proto::{errorpb, kvrpcpb};

/// How gRPC carries a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// One request, one response. `batch_slot` is the command's field number in a BatchCommands frame, if it has one.
    Unary {
        /// Field number of the command in `BatchCommandsRequest.Request` and `BatchCommandsResponse.Response`.
        batch_slot: Option<u32>,
    },
    /// One request, a stream of responses.
    ServerStreaming,
    /// Never leaves alone: only within a BatchCommands frame.
    BatchOnly {
        /// Field number of the command in a BatchCommands frame.
        batch_slot: u32,
    },
}

/// What a command does to data; decides which replicas may serve it and which errors make its outcome undetermined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reads data; any number of repetitions is harmless and replicas may serve it.
    Read,
    /// Changes data or locks.
    Write,
    /// Neither: store-level questions and maintenance.
    Control,
}

/// The facts of one command, a row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestFacts {
    /// Name as in client-go's `CmdType.String()`.
    pub name: &'static str,
    /// Full gRPC path, `/package.Service/Method`; empty for [`Method::BatchOnly`].
    pub path: &'static str,
    /// How gRPC carries it.
    pub method: Method,
    /// What it does to data.
    pub access: Access,
    /// Whether the request is for one region: its context names the region, and a region error may come back.
    pub regional: bool,
}

/// A request message of the table, for typed calls.
pub trait StoreRequest: prost::Message + fmt::Debug + Default + Clone + Eq + Hash + Send + Sync + 'static {
    /// The message that answers it.
    type Response: StoreResponse;

    /// The row of the table.
    const KIND: RequestKind;

    /// What is known of it.
    const FACTS: RequestFacts = Self::KIND.facts();

    /// Wraps the message as a row of [`Request`].
    fn wrap(request: Shared<Self>) -> Request;

    /// The typed response, or what came instead.
    fn unwrap_response(response: Response) -> Result<Self::Response, Box<Response>>;

    /// The key whose region it goes to, if it is a [`KeyedRequest`].
    fn routing_key(&self) -> Option<&Bytes> {
        None
    }
}

/// A request for one key, which says by itself to which region it goes.
pub trait KeyedRequest: StoreRequest {
    /// The key.
    fn key(&self) -> &Bytes;
}

/// A response message of the table.
pub trait StoreResponse: prost::Message + fmt::Debug + Default + Clone + Eq + Hash + Send + Sync + 'static {
    /// The region error it carries, if any; always `None` for commands that are not regional.
    fn region_error(&self) -> Option<&errorpb::Error>;

    /// Takes the region error out.
    fn take_region_error(&mut self) -> Option<Box<errorpb::Error>>;
}

/// The region, epoch, peer and options under which a request is sent, as a message: what a server sees, and what an operation's
/// options are changed by. Calls carry it as a [`CallContext`].
pub type RequestContext = kvrpcpb::Context;
