//! gRPC over HTTP/2 for any async runtime.

#![forbid(unsafe_code)]

mod call;
mod client;
mod clock;
mod compression;
mod error;
mod frame;
mod metadata;
mod options;
mod status;
mod stream;

pub use call::Call;
pub use client::{Channel, Connection, Driver, Reply, Sender, Streaming};
pub use clock::{Clock, Sleep};
pub use compression::Encoding;
pub use error::{ConnectionError, Error, ErrorKind};
pub use frame::Batch;
pub use metadata::{InvalidMetadata, Metadata, MetadataValue};
pub use options::{KeepAlive, Options, Scheme};
pub use status::{Code, Status};
