//! gRPC's errors as core's faults.

use std::sync::Arc;

use tikv_core::error::{Execution, Fault, FaultKind};
use tikv_grpc::{Code, ConnectionError, Error, ErrorKind};

/// What an RPC's error means to the protocol.
pub(crate) fn of_grpc(error: &Error, address: &Arc<str>) -> Fault {
    let execution = if error.not_sent() { Execution::NotSent } else { Execution::MaybeExecuted };
    let kind = match error.kind() {
        ErrorKind::Status(status) if status.code == Code::DeadlineExceeded => FaultKind::Timeout,
        ErrorKind::Status(status) => FaultKind::Status(status.code as u32),
        ErrorKind::DeadlineExceeded => FaultKind::Timeout,
        ErrorKind::TooManyCalls(_) => FaultKind::Overloaded,
        ErrorKind::Connection(ConnectionError::Protocol(_)) => FaultKind::Protocol,
        ErrorKind::Connection(_) | ErrorKind::Reset(_) | ErrorKind::Ended => FaultKind::Disconnected,
        _ => FaultKind::Protocol,
    };
    Fault::new(kind, execution, Arc::clone(address)).with_detail(error.to_string())
}

/// A request that did not leave because no connection could be made.
pub(crate) fn unreachable(address: &Arc<str>, detail: impl Into<Arc<str>>) -> Fault {
    Fault::new(FaultKind::Unreachable, Execution::NotSent, Arc::clone(address)).with_detail(detail)
}

/// A request that was not made because the client is closing.
pub(crate) fn closed(address: &Arc<str>) -> Fault {
    Fault::new(FaultKind::Closed, Execution::NotSent, Arc::clone(address))
}
