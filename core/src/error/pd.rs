//! What became of a question to PD.

use std::sync::Arc;

use super::Fault;

/// Why PD gave no answer. Cheap to clone: one failure may answer many questions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PdError {
    /// No member could be reached, or none leads.
    #[error("no leader of PD among {}: {last}", endpoints.join(", "))]
    NoLeader {
        /// The members tried.
        endpoints: Arc<[String]>,
        /// What the last of them did.
        last: Fault,
    },
    /// The RPC failed.
    #[error("PD: {0}")]
    Fault(#[from] Fault),
    /// PD answered with an error of its own.
    #[error("PD at {address} refused {method}: {message}")]
    Refused {
        /// The member that answered.
        address: Arc<str>,
        /// What was asked.
        method: &'static str,
        /// PD's words.
        message: Arc<str>,
    },
    /// The members belong to another cluster than before (or than expected). Never retried.
    #[error("PD at {address} belongs to cluster {actual}, not to {expected}")]
    ClusterMismatch {
        /// The member that answered.
        address: Arc<str>,
        /// The cluster this client works with.
        expected: u64,
        /// The cluster the member belongs to.
        actual: u64,
    },
    /// PD's answer makes no sense.
    #[error("PD at {address} answered {method} with nonsense: {detail}")]
    Malformed {
        /// The member that answered.
        address: Arc<str>,
        /// What was asked.
        method: &'static str,
        /// What is wrong with it.
        detail: Arc<str>,
    },
    /// Too many questions wait already.
    #[error("more than {limit} questions wait for PD")]
    Overloaded {
        /// How many may wait.
        limit: usize,
    },
    /// The client is closing.
    #[error("the client is closing")]
    Closed,
}

impl PdError {
    /// Whether asking again can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, PdError::ClusterMismatch { .. } | PdError::Closed)
    }
}
