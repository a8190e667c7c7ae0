//! gRPC over a pipe, on one thread and in virtual time: our client against bare HTTP/2, hand-written frames and our server.

mod cancellation;
mod faults;
mod flow_control;
#[cfg(feature = "gzip")]
mod gzip;
mod harness;
mod hostile;
mod server;
mod streams;
mod threads;
mod time;
mod unary;
