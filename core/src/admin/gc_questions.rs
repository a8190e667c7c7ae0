//! What PD can be asked about garbage collection.

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::budget;
use crate::config::Config;
use crate::error::Error;
use crate::pd::{AskPd, Question};
use crate::request::pd::{AdvancedSafePoint, GcBarrier, GcRequest, GcState, PdRequest, PdResponse};
use crate::route;
use crate::timestamp::Timestamp;

/// A question with the budget of all that are asked here, 20 s times the weight.
pub(super) fn ask<Q: Question>(config: &Config, question: Q) -> AskPd<Q> {
    AskPd::new(question, route::budget(config, budget::ADMIN))
}

/// How far garbage collection is. client-go: `GCStatesClient.GetGCState`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GetGcState;

/// Sets a barrier, or moves the one of that name. PD refuses one below the txn safe point. client-go:
/// `GCStatesClient.SetGCBarrier`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetGcBarrier(GcBarrier);

/// Deletes a barrier: the answer is what was there, as far as is known. (Asked twice because the first answer was lost, PD finds
/// nothing.) client-go: `GCStatesClient.DeleteGCBarrier`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeleteGcBarrier {
    id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AdvanceTxnSafePoint(pub(super) Timestamp);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AdvanceGcSafePoint(pub(super) Timestamp);

impl GetGcState {
    /// As a machine.
    #[must_use]
    pub fn ask(config: &Config) -> AskPd<Self> {
        ask(config, GetGcState)
    }
}

impl SetGcBarrier {
    /// As a machine.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if the barrier has no name, or no time to stand.
    pub fn ask(config: &Config, barrier: GcBarrier) -> Result<AskPd<Self>, Error> {
        check_id(&barrier.id)?;
        if barrier.ttl == Some(Duration::ZERO) {
            return Err(Error::InvalidArgument(Arc::from("a GC barrier without any time to stand")));
        }
        Ok(ask(config, SetGcBarrier(barrier)))
    }
}

impl DeleteGcBarrier {
    /// As a machine.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if the name is empty.
    pub fn ask(config: &Config, id: impl Into<String>) -> Result<AskPd<Self>, Error> {
        let id = id.into();
        check_id(&id)?;
        Ok(ask(config, DeleteGcBarrier { id }))
    }
}

fn check_id(id: &str) -> Result<(), Error> {
    if id.is_empty() { Err(Error::InvalidArgument(Arc::from("a GC barrier without a name"))) } else { Ok(()) }
}

impl Question for GetGcState {
    type Answer = GcState;
    const OPERATION: &'static str = "get GC state";
    const IS_REFUSAL_FINAL: bool = true;

    fn request(&self) -> PdRequest {
        PdRequest::Gc(GcRequest::State)
    }

    fn answer(response: PdResponse) -> Option<GcState> {
        match response {
            PdResponse::GcState(state) => Some(*state),
            _ => None,
        }
    }
}

impl Question for SetGcBarrier {
    type Answer = GcBarrier;
    const OPERATION: &'static str = "set GC barrier";
    const IS_REFUSAL_FINAL: bool = true;

    fn request(&self) -> PdRequest {
        PdRequest::Gc(GcRequest::SetBarrier(self.0.clone()))
    }

    fn answer(response: PdResponse) -> Option<GcBarrier> {
        match response {
            PdResponse::GcBarrier(Some(barrier)) => Some(*barrier),
            _ => None,
        }
    }
}

impl Question for DeleteGcBarrier {
    type Answer = Option<GcBarrier>;
    const OPERATION: &'static str = "delete GC barrier";
    const IS_REFUSAL_FINAL: bool = true;

    fn request(&self) -> PdRequest {
        PdRequest::Gc(GcRequest::DeleteBarrier { id: self.id.clone() })
    }

    fn answer(response: PdResponse) -> Option<Option<GcBarrier>> {
        match response {
            PdResponse::GcBarrier(barrier) => Some(barrier.map(|barrier| *barrier)),
            _ => None,
        }
    }
}

impl Question for AdvanceTxnSafePoint {
    type Answer = AdvancedSafePoint;
    const OPERATION: &'static str = "advance txn safe point";
    const IS_REFUSAL_FINAL: bool = true;

    fn request(&self) -> PdRequest {
        PdRequest::Gc(GcRequest::AdvanceTxnSafePoint { target: self.0 })
    }

    fn answer(response: PdResponse) -> Option<AdvancedSafePoint> {
        safe_point(response)
    }
}

impl Question for AdvanceGcSafePoint {
    type Answer = AdvancedSafePoint;
    const OPERATION: &'static str = "advance GC safe point";
    const IS_REFUSAL_FINAL: bool = true;

    fn request(&self) -> PdRequest {
        PdRequest::Gc(GcRequest::AdvanceGcSafePoint { target: self.0 })
    }

    fn answer(response: PdResponse) -> Option<AdvancedSafePoint> {
        safe_point(response)
    }
}

fn safe_point(response: PdResponse) -> Option<AdvancedSafePoint> {
    match response {
        PdResponse::SafePoint(advanced) => Some(*advanced),
        _ => None,
    }
}
