//! What a failure says: is it the leader, or the question?

use std::sync::Arc;

use tikv_proto::pdpb;

use super::message::method;
use crate::error::{Execution, Fault, FaultKind, PdError};

/// Codes of gRPC.
mod code {
    pub(super) const CANCELLED: u32 = 1;
    pub(super) const DEADLINE_EXCEEDED: u32 = 4;
    pub(super) const FAILED_PRECONDITION: u32 = 9;
    pub(super) const UNAVAILABLE: u32 = 14;
}

/// What a failed answer of a member means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Setback {
    /// The member does not lead (any more), or cannot be reached: find the leader, and ask it. Every question may be asked
    /// twice.
    LeaderInDoubt(Fault),
    /// Another member would not answer better: whoever waits gets the error.
    Final(PdError),
}

impl Setback {
    /// PD says `Unavailable` when it does not lead or has just started, and `FailedPrecondition` when it belongs to another
    /// cluster (its address has changed hands). For some failures there are only words.
    pub(super) fn of_fault(fault: Fault) -> Setback {
        let in_doubt = match fault.kind {
            FaultKind::Unreachable | FaultKind::Disconnected | FaultKind::Timeout => true,
            FaultKind::Status(
                code::CANCELLED | code::DEADLINE_EXCEEDED | code::FAILED_PRECONDITION | code::UNAVAILABLE,
            ) => true,
            FaultKind::Status(_) => is_about_leadership(&fault.detail),
            FaultKind::Protocol | FaultKind::Overloaded | FaultKind::Closed => false,
        };
        if in_doubt { Setback::LeaderInDoubt(fault) } else { Setback::Final(PdError::Fault(fault)) }
    }

    /// Checks the header of a response. A header may be missing, as all of its fields may.
    pub(super) fn of_header(
        address: &Arc<str>,
        path: &'static str,
        cluster_id: u64,
        header: Option<&pdpb::ResponseHeader>,
    ) -> Result<(), Setback> {
        let Some(header) = header else { return Ok(()) };
        if header.cluster_id != 0 && header.cluster_id != cluster_id {
            let detail = format!("belongs to cluster {}, not to {cluster_id}", header.cluster_id);
            return Err(Setback::LeaderInDoubt(refusal(address, detail)));
        }
        let Some(error) = header.error.as_ref().filter(|error| error.r#type() != pdpb::ErrorType::Ok) else {
            return Ok(());
        };
        if is_about_leadership(&error.message) {
            return Err(Setback::LeaderInDoubt(refusal(address, error.message.as_str())));
        }
        let message = format!("{}: {}", error.r#type().as_str_name(), error.message);
        Err(Setback::Final(PdError::Refused {
            address: Arc::clone(address),
            method: method(path),
            message: message.into(),
        }))
    }
}

/// What a member did that answered, but not with what it should have.
pub(super) fn refusal(address: &Arc<str>, detail: impl Into<Arc<str>>) -> Fault {
    Fault::new(FaultKind::Protocol, Execution::MaybeExecuted, Arc::clone(address)).with_detail(detail)
}

/// A member's answer that cannot be read.
pub(super) fn unreadable(address: &Arc<str>, path: &'static str, error: &prost::DecodeError) -> Fault {
    refusal(address, format!("{}: {error}", method(path)))
}

/// client-go: `errs.IsLeaderChange`.
fn is_about_leadership(words: &str) -> bool {
    ["not leader", "no leader", "mismatch leader", "not primary", "is not served"]
        .iter()
        .any(|part| words.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pd::path;

    fn fault(kind: FaultKind, detail: &str) -> Fault {
        Fault::new(kind, Execution::MaybeExecuted, "pd-1:2379").with_detail(detail)
    }

    #[test]
    fn a_member_that_cannot_be_reached_or_does_not_lead_puts_the_leader_in_doubt() {
        for fault in [
            fault(FaultKind::Unreachable, ""),
            fault(FaultKind::Disconnected, ""),
            fault(FaultKind::Timeout, ""),
            fault(FaultKind::Status(14), "server not started"),
            fault(FaultKind::Status(9), "mismatch cluster id, need 1 but got 2"),
            fault(FaultKind::Status(2), "rpc error: pd is not leader of cluster"),
        ] {
            assert_eq!(Setback::of_fault(fault.clone()), Setback::LeaderInDoubt(fault));
        }
    }

    #[test]
    fn what_another_member_would_not_answer_better_is_final() {
        for fault in [
            fault(FaultKind::Status(12), "unknown method"),
            fault(FaultKind::Status(8), "rate limit exceeded"),
            fault(FaultKind::Protocol, ""),
            fault(FaultKind::Closed, ""),
        ] {
            assert_eq!(Setback::of_fault(fault.clone()), Setback::Final(PdError::Fault(fault)));
        }
    }

    #[test]
    fn an_error_in_the_header_is_final_unless_it_is_about_the_leader_or_the_cluster() {
        let check = |cluster_id, kind: pdpb::ErrorType, message: &str| {
            let error = Some(pdpb::Error { r#type: kind.into(), message: message.into() });
            let header = pdpb::ResponseHeader { cluster_id, error };
            Setback::of_header(&"pd-1:2379".into(), path::GET_REGION, 7, Some(&header))
        };
        assert_eq!(check(7, pdpb::ErrorType::Ok, ""), Ok(()));
        assert!(matches!(check(8, pdpb::ErrorType::Ok, ""), Err(Setback::LeaderInDoubt(_))));
        assert!(matches!(check(7, pdpb::ErrorType::Unknown, "not leader"), Err(Setback::LeaderInDoubt(_))));
        let refused = check(7, pdpb::ErrorType::NotBootstrapped, "cluster is not bootstrapped");
        let Err(Setback::Final(PdError::Refused { method: "GetRegion", message, .. })) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(&*message, "NOT_BOOTSTRAPPED: cluster is not bootstrapped");
    }
}
