//! What enters a machine.

use std::sync::Arc;

use crate::error::{Fault, PdError};
use crate::request::Response;
use crate::request::pd::PdResponse;

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Answers [`Command::Call`](super::Command::Call).
    Reply(Result<Response, Fault>),
    /// Answers [`Command::Pd`](super::Command::Pd).
    Pd(Result<PdResponse, PdError>),
    /// Answers [`Command::CheckCommit`](super::Command::CheckCommit); an error says why not.
    Checked(Result<(), Arc<str>>),
    /// Answers [`Command::Sleep`](super::Command::Sleep).
    Woken,
}
