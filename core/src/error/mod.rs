//! What can go wrong, as data.
//!
//! Three layers, three types. A [`Fault`] is what the network did to one RPC. A [`PdError`] is what became of a question to
//! PD. An [`Error`] is what the caller of an operation sees; it is classified ([`Error::is_retryable`],
//! [`Error::is_undetermined`], [`Error::is_timeout`]) and never has to be matched by its text.

mod fault;
mod invalid_lock;
mod key_error;
mod operation;
mod pd;
#[cfg(test)]
mod tests;

pub use fault::{Execution, Fault, FaultKind};
pub use invalid_lock::InvalidLock;
pub use key_error::{AssertionFailed, Conflict, ConflictReason, DeadlockInfo, KeyError, LockInfo};
pub(crate) use operation::check_key;
pub use operation::{CallFailure, Error};
pub use pd::PdError;
