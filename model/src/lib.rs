//! Model checking of the machines that ship.
//!
//! A simulation tries one order of events after the other; this crate tries *all* of them, on cases small enough: two or three
//! keys in one or two regions, two clients, a few messages that are lost, late or copied, a client that dies, a region that
//! splits. The clients are the very machines of `tikv-core`, which are data and can be cloned, compared and continued in every
//! possible way; the store is the storage of the simulated cluster.
//!
//! ```text
//!   Setup ──► Protocol (a Model) ──► explore ──► Explored: how many states, or a broken property and the way to it
//!              │ begin, execute, answer, time out, wake, crash, split, … (module world)
//!              └ properties (module history)
//! ```
//!
//! ```no_run
//! use tikv_model::explorer::{Limits, explore};
//! use tikv_model::world::Protocol;
//!
//! for setup in tikv_model::cases::small() {
//!     let name = setup.name;
//!     println!("{name}: {}", explore(&Protocol::new(setup), Limits { states: 1_000_000, threads: 2 }));
//! }
//! ```
//!
//! # Why an explorer of our own
//!
//! The trait [`explorer::Model`] is that of the crate `stateright` but for names, and its checker was the first choice. Its
//! newest version brings second versions of `rand`, `rand_core` and `getrandom` into the workspace (older ones bring older
//! ones), and a web server that cannot be turned off. What is used of it here is a breadth-first search over fingerprints: some
//! two hundred lines, which need no dependency, and which give the same numbers however many threads work.

#![forbid(unsafe_code)]

pub mod cases;
mod client;
pub mod explorer;
mod fingerprint;
pub mod history;
pub mod mistake;
mod pipelining;
mod servers;
mod session;
pub mod setup;
mod view;
pub mod world;
