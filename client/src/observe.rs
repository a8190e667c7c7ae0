//! What core does and observes, as `tracing` spans and events. Keys and values are never in them.

use tikv_core::machine::{Call, Observation};
use tracing::Span;

/// The span of one RPC to a store, from its submission to its answer; `None` if nobody wants to see it.
pub(crate) fn call_span(call: &Call) -> Option<Box<Span>> {
    let span = tracing::debug_span!(
        "tikv.rpc",
        request = call.request.kind().facts().name,
        store_id = call.store_id,
        region_id = call.context.region_id,
        retry = call.context.is_retry_request,
    );
    (!span.is_disabled()).then(|| Box::new(span))
}

/// Emits `observation` as an event of the current span.
pub(crate) fn observation(observation: &Observation) {
    match observation {
        Observation::RegionError { name, region_id, store_id } => {
            tracing::debug!(name, region_id, store_id, "region error");
        }
        Observation::CallFailed { store_id, fault } => tracing::debug!(store_id, %fault, "call failed"),
        Observation::LockMet { caller_ts, lock_ts } => tracing::debug!(%caller_ts, %lock_ts, "lock met"),
        Observation::BackgroundFailed { task, error } => tracing::warn!(task, %error, "background task gave up"),
        other => tracing::debug!(?other, "observed"),
    }
}
