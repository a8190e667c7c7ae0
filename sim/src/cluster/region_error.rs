//! Region errors as stores send them.
//!
//! The fields are TiKV's; the texts are for people, but for two that clients look for.

use tikv_core::key::{Key, KeyRange};
use tikv_proto::{errorpb, metapb};

use super::regions::Region;

/// Clients take this in the message, and in the reason of `ServerIsBusy` in small letters, for an expired deadline.
const DEADLINE_IS_EXCEEDED: &str = "Deadline is exceeded";

fn error(message: String) -> errorpb::Error {
    errorpb::Error { message, ..errorpb::Error::default() }
}

/// The request names another store than the one it came to.
#[must_use]
pub fn store_not_match(request_store_id: u64, actual_store_id: u64) -> errorpb::Error {
    errorpb::Error {
        store_not_match: Some(errorpb::StoreNotMatch { request_store_id, actual_store_id }),
        ..error(format!("request for store {request_store_id} came to store {actual_store_id}"))
    }
}

/// The store holds no peer of the region.
#[must_use]
pub fn region_not_found(region_id: u64) -> errorpb::Error {
    errorpb::Error {
        region_not_found: Some(errorpb::RegionNotFound { region_id }),
        ..error(format!("region {region_id} not found"))
    }
}

/// The store holds another peer of the region than the request names.
#[must_use]
pub fn mismatch_peer_id(request_peer_id: u64, store_peer_id: u64) -> errorpb::Error {
    errorpb::Error {
        mismatch_peer_id: Some(errorpb::MismatchPeerId { request_peer_id, store_peer_id }),
        ..error(format!("mismatch peer id {request_peer_id} != {store_peer_id}"))
    }
}

/// The peer does not lead its region; `leader` is who does, as far as the peer knows.
#[must_use]
pub fn not_leader(region_id: u64, leader: Option<metapb::Peer>) -> errorpb::Error {
    errorpb::Error {
        not_leader: Some(errorpb::NotLeader { region_id, leader }),
        ..error(format!("peer does not lead region {region_id}"))
    }
}

/// The request's epoch is not the region's.
#[must_use]
pub fn epoch_not_match(sent: metapb::RegionEpoch, current_regions: Vec<metapb::Region>) -> errorpb::Error {
    errorpb::Error {
        message: format!("epoch not match, version {} and conf_ver {} were sent", sent.version, sent.conf_ver),
        epoch_not_match: Some(errorpb::EpochNotMatch { current_regions }),
        ..errorpb::Error::default()
    }
}

/// The request's term is behind by two or more.
#[must_use]
pub fn stale_command() -> errorpb::Error {
    errorpb::Error { stale_command: Some(errorpb::StaleCommand {}), ..error("stale command".to_owned()) }
}

/// The peer holds no data.
#[must_use]
pub fn is_witness(region_id: u64) -> errorpb::Error {
    errorpb::Error {
        is_witness: Some(errorpb::IsWitness { region_id }),
        ..error(format!("peer is a witness of region {region_id}"))
    }
}

/// A key of the request lies outside the region. Bounds are encoded, as everywhere in region errors.
#[must_use]
pub fn key_not_in_region(key: &Key, region: &Region) -> errorpb::Error {
    let KeyRange { start, end } = region.bounds();
    let outside = errorpb::KeyNotInRegion {
        key: key.to_bytes(),
        region_id: region.id(),
        start_key: start.into_bytes(),
        end_key: end.into_bytes(),
    };
    errorpb::Error {
        key_not_in_region: Some(outside),
        ..error(format!("key {key:?} is not in region {}", region.id()))
    }
}

/// The region is being taken back to an old version.
#[must_use]
pub fn flashback_in_progress(region: &Region) -> errorpb::Error {
    let (region_id, flashback_start_ts) = (region.id(), region.meta.flashback_start_ts);
    errorpb::Error {
        flashback_in_progress: Some(errorpb::FlashbackInProgress { region_id, flashback_start_ts }),
        ..error(format!("region {region_id} is in a flashback"))
    }
}

/// The region has not been readied for a flashback.
#[must_use]
pub fn flashback_not_prepared(region_id: u64) -> errorpb::Error {
    errorpb::Error {
        flashback_not_prepared: Some(errorpb::FlashbackNotPrepared { region_id }),
        ..error(format!("region {region_id} is not prepared for a flashback"))
    }
}

/// The replica cannot serve a stale read at so new a timestamp.
#[must_use]
pub fn data_is_not_ready(region_id: u64, peer_id: u64, safe_ts: u64) -> errorpb::Error {
    errorpb::Error {
        data_is_not_ready: Some(errorpb::DataIsNotReady { region_id, peer_id, safe_ts }),
        ..error(format!("peer {peer_id} of region {region_id} is ready up to {safe_ts}"))
    }
}

/// The store has too much to do.
#[must_use]
pub fn server_is_busy(reason: &str, estimated_wait_ms: u32) -> errorpb::Error {
    let busy =
        errorpb::ServerIsBusy { reason: reason.to_owned(), estimated_wait_ms, ..errorpb::ServerIsBusy::default() };
    errorpb::Error { server_is_busy: Some(busy), ..error(reason.to_owned()) }
}

/// The request took longer than it allows. TiKV says so by way of `ServerIsBusy`.
#[must_use]
pub fn deadline_exceeded() -> errorpb::Error {
    let busy =
        errorpb::ServerIsBusy { reason: DEADLINE_IS_EXCEEDED.to_lowercase(), ..errorpb::ServerIsBusy::default() };
    errorpb::Error { server_is_busy: Some(busy), ..error(DEADLINE_IS_EXCEEDED.to_owned()) }
}

/// The store does not know whether the write was applied: its leader changed meanwhile.
#[must_use]
pub fn undetermined_result() -> errorpb::Error {
    errorpb::Error {
        undetermined_result: Some(errorpb::UndeterminedResult::default()),
        ..error("the outcome of the write is not known".to_owned())
    }
}

/// The leader does not know yet up to which timestamp others have read.
#[must_use]
pub fn max_timestamp_not_synced() -> errorpb::Error {
    errorpb::Error {
        max_timestamp_not_synced: Some(errorpb::MaxTimestampNotSynced {}),
        ..error("max_ts is not synced".to_owned())
    }
}

/// An error without a field of its own.
#[must_use]
pub fn other(message: impl Into<String>) -> errorpb::Error {
    error(message.into())
}
