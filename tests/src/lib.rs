//! Cross-crate tests: scenarios, interoperability, parity ledgers.
//!
//! - [`suite`] holds scenarios: what a user sees of the client, over TCP, against the simulated cluster. They know no
//!   runtime; `tests/{tokio,smol,async_std}.rs` run all of them on each.
//! - [`world`] is what a scenario gets: a cluster of its own, a client, a runtime.
//! - [`hostile`] are servers which do not behave; `tests/bad_input.rs` connects to them.

#![forbid(unsafe_code)]

pub mod hostile;
pub mod proxy;
pub mod suite;
pub mod world;
