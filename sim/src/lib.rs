//! A simulated TiKV and PD cluster: deterministic, in process or served on TCP.
//!
//! - [`storage`] is one store's data: what TiKV does with a request once it has accepted it.
//! - [`cluster`] is stores, regions and PD around it: what accepts requests, and where they belong. Pure as well.
//! - [`simulate`] runs clients against such a cluster under virtual time and faults, and checks what comes of it:
//!   `tikv-sim run`, `tikv-sim replay`.
//! - `serve` puts such a cluster on TCP ports, for clients of any kind (feature `serve`, on by default). So does the binary:
//!   `tikv-sim serve`.
//! - `runtime` runs the async client, and programs that use it, against such a cluster on virtual time (feature `runtime`, on
//!   by default).

#![forbid(unsafe_code)]

pub mod cluster;
pub mod pd;
#[cfg(feature = "runtime")]
pub mod runtime;
#[cfg(feature = "serve")]
pub mod serve;
pub mod simulate;
pub mod status;
pub mod storage;
