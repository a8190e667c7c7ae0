//! The TiKV client protocol as deterministic state machines.
//!
//! This crate does no I/O, reads no clock, starts no thread and keeps no global state. Everything it needs to know of
//! the world is handed in (the time, a seed, the answers of servers), and everything it wants done comes out as a
//! command. The same machines therefore run in production under any async runtime, in a seeded simulation with virtual
//! time, under a fuzzer, and in a model checker.
//!
//! Applications want the crate `tikv`, which drives these machines. Use this crate directly to embed the protocol in an
//! event loop of your own.
//!
//! The modules form layers: each uses only those above it in this list.
//!
//! | layer | modules |
//! |---|---|
//! | values | [`time`], [`rng`], [`key`], [`timestamp`], [`slots`], [`codec`], [`canary`], [`config`] |
//! | the writes of a transaction | [`membuffer`] |
//! | what can be asked of TiKV and PD | [`request`], [`keyspace`] |
//! | what goes wrong, and when to try again | [`error`], [`backoff`] |
//! | what is known | [`knowledge`] |
//! | the contract of machines | [`machine`] |
//! | many calls over one connection | [`stream`] |
//! | how PD is asked | [`pd`] |
//! | from a key to the replica that answers | [`route`] |
//! | new regions | [`split`] |
//! | the locks of other transactions | [`lock`] |
//! | timestamps | [`oracle`] |
//! | reads at one timestamp | [`snapshot`] |
//! | transactions | [`txn`] |
//! | raw calls | [`raw`] |
//! | what looks after a cluster | [`admin`] |
//! | all of it behind one value | [`engine`] |

#![forbid(unsafe_code)]

pub mod admin;
pub mod backoff;
pub mod canary;
pub mod codec;
pub mod config;
pub mod engine;
pub mod error;
pub mod key;
pub mod keyspace;
pub mod knowledge;
pub mod lock;
pub mod machine;
pub mod membuffer;
pub mod oracle;
pub mod pd;
pub mod raw;
pub mod request;
pub mod rng;
pub mod route;
mod slots;
pub mod snapshot;
pub mod split;
pub mod stream;
pub mod time;
pub mod timestamp;
pub mod txn;
