//! What a fault of the network means.

use super::{AfterSleep, RegionCall, SHORT_TIMEOUT, Step, may_read_replica};
use crate::backoff::BackoffKind;
use crate::error::{CallFailure, Error, Fault, FaultKind};
use crate::machine::{Context, Observation};
use crate::request::StoreRequest;
use crate::route::selector::{Choice, Selector};

/// gRPC status codes that matter here.
mod status {
    pub(super) const CANCELLED: u32 = 1;
    pub(super) const DEADLINE_EXCEEDED: u32 = 4;
    pub(super) const PERMISSION_DENIED: u32 = 7;
    pub(super) const UNIMPLEMENTED: u32 = 12;
    pub(super) const UNAVAILABLE: u32 = 14;
    pub(super) const UNAUTHENTICATED: u32 = 16;
}

impl<R: StoreRequest> RegionCall<R> {
    pub(super) fn on_fault(
        &mut self,
        cx: &mut Context<'_>,
        mut selector: Selector,
        choice: &Choice,
        fault: Fault,
    ) -> Step<R> {
        let (kind, was_sent) = (fault.kind, fault.may_be_executed());
        let is_refusal = matches!(
            kind,
            FaultKind::Status(status::PERMISSION_DENIED | status::UNIMPLEMENTED | status::UNAUTHENTICATED)
        );
        // Even of a refusal: a status that ends a stream says nothing of what was on its way.
        self.maybe_executed |= was_sent;
        self.last = CallFailure::Fault(fault.clone());
        if is_refusal {
            return self.refused(choice, &fault.detail);
        }
        if kind == FaultKind::Closed {
            return self.fail(Error::Closed);
        }
        cx.observe(Observation::CallFailed { store_id: choice.store.id, fault });
        if self.at_most_once && self.maybe_executed {
            return self.undetermined();
        }
        match kind {
            FaultKind::Timeout | FaultKind::Status(status::DEADLINE_EXCEEDED) if self.is_short_read() => {
                selector.on_short_timeout(choice.replica);
                return self.send(cx, selector);
            }
            // A connection that takes nothing is as good as none: something else may listen there now.
            FaultKind::Disconnected if !was_sent => {
                cx.knowledge().stores.report_failure(choice.store.id, choice.store.epoch);
            }
            // The connection was good, so the store may well be: whether it is, the next attempt to connect will tell.
            FaultKind::Timeout
            | FaultKind::Disconnected
            | FaultKind::Status(status::DEADLINE_EXCEEDED | status::CANCELLED) => selector.on_silence(choice.replica),
            FaultKind::Unreachable | FaultKind::Protocol | FaultKind::Status(status::UNAVAILABLE) => {
                cx.knowledge().stores.report_failure(choice.store.id, choice.store.epoch);
            }
            // A store that answers is alive, and one that was not asked is not to blame.
            FaultKind::Status(_) | FaultKind::Overloaded | FaultKind::Closed => {}
        }
        self.back_off(cx, BackoffKind::TikvRpc, AfterSleep::SelectAgain(selector))
    }

    /// Whether the caller would rather have the answer of another replica than wait. client-go: `isReadReqConfigurableTimeout`.
    pub(super) fn is_short_read(&self) -> bool {
        may_read_replica(R::KIND) && self.options.timeout < SHORT_TIMEOUT
    }
}
