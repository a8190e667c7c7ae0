//! The client half: a connection ([`Connection`], [`Driver`]), calls on it ([`Channel`]) and their streams ([`Sender`],
//! [`Streaming`]).

mod admission;
mod call;
mod channel;
mod connection;
mod keep_alive;
mod request;
mod sender;
mod shared;
mod streaming;

pub use channel::{Channel, Reply};
pub use connection::{Connection, Driver};
pub use sender::Sender;
pub use streaming::Streaming;
