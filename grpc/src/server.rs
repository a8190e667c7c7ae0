//! The server half, for simulated clusters, tests and benchmarks: a connection ([`ServerConnection`]) that hands calls to a
//! [`Service`].

mod call;
mod connection;
mod options;
mod requests;
mod responder;
mod service;

pub use connection::{ServerConnection, ServerHandle, serve_connection};
pub use options::{ServerOptions, Spawn};
pub use requests::RequestStream;
pub use responder::Responder;
pub use service::{Handler, IncomingCall, Router, Service, unary};
