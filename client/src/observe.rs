//! What core observes, as `tracing` events.

use tikv_core::machine::Observation;

/// Emits `observation` as an event of the current span. Keys and values are never in it.
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
