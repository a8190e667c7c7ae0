//! What the fuzz targets do, as plain functions: libFuzzer calls them with new inputs, `cargo test` with the corpora, and the
//! binary `mutate` with mutations of the corpora where libFuzzer is not at hand.
//!
//! ```text
//! cargo +nightly fuzz run hostile_server --features libfuzzer
//! cargo run --release -p tikv-fuzz --bin mutate -- hostile_server 60
//! ```
//!
//! A function panics when it has found something.

#![forbid(unsafe_code)]

mod grpc_frames;
mod hostile_server;
mod input;
mod membuffer;
mod region_index;
mod stream;
mod txn_schedule;
mod wire;

pub use grpc_frames::grpc_frames;
pub use hostile_server::hostile_server;
pub use membuffer::membuffer;
pub use region_index::region_index;
pub use stream::batch_stream;
pub use txn_schedule::txn_schedule;
pub use wire::{codec, proto_decode};

/// A target: its name, which is that of its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("codec", codec),
    ("batch_stream", batch_stream),
    ("proto_decode", proto_decode),
    ("hostile_server", hostile_server),
    ("grpc_frames", grpc_frames),
    ("region_index", region_index),
    ("membuffer", membuffer),
    ("txn_schedule", txn_schedule),
];
