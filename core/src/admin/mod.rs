//! What looks after a cluster, rather than its data.
//!
//! | machine | what it does |
//! |---|---|
//! | [`CollectGarbage`] | has old versions removed, after all locks from before have been resolved |
//! | [`DestroyRange`] | drops a range of keys from every store, at once |
//! | [`AskPd`](crate::pd::AskPd) of [`GetGcState`], [`SetGcBarrier`], [`DeleteGcBarrier`] | how far garbage collection is, and what holds it back |
//!
//! All of it is about transactional keys that belong to no keyspace.

mod collect_garbage;
mod destroy_range;
mod gc_questions;
#[cfg(test)]
mod tests;

pub use collect_garbage::{CollectGarbage, Collected};
pub use destroy_range::DestroyRange;
pub use gc_questions::{DeleteGcBarrier, GetGcState, SetGcBarrier};

use crate::machine::Phases;

/// The machines of this floor that have phases.
pub(crate) const PHASES: &[&Phases] =
    &[&collect_garbage::PHASES, &destroy_range::PHASES, &destroy_range::store::PHASES];
