//! Judges what operations of core cost. `operations.rs` beside this folder measures, `run` does both.

pub mod figures;
pub mod summary;
pub mod verdict;
