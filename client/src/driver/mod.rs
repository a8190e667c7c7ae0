//! Runs core's machines on async tasks.

mod mailbox;
mod operation;
mod shared;

pub(crate) use mailbox::{Mailbox, Waiter};
pub(crate) use operation::Operation;
pub(crate) use shared::{KeySpaces, Shared};
