//! What measurements share: machines in a loop, answered at once, no I/O; curves, and how they are shown.

pub mod curve;
pub mod keys;
pub mod plot;
pub mod process;
pub mod report;
pub mod running;
pub mod stream;
pub mod world;
