//! What the measurements of core alone share: machines in a loop, answered at once, no I/O.

pub mod curve;
pub mod keys;
pub mod process;
pub mod running;
pub mod stream;
pub mod world;
