//! What a region error means.

use tikv_proto::{errorpb, metapb};

/// A region error, classified. If several fields are set, the first in this order counts. client-go: the order of
/// `RegionRequestSender.onRegionError`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RegionErrorKind {
    /// The server does not know whether the write was applied.
    UndeterminedResult,
    /// The replica does not lead the region.
    NotLeader {
        /// The leader, if the replica knows it.
        leader: Option<metapb::Peer>,
    },
    /// The disk of the store is full.
    DiskFull,
    /// The region is being recovered from a disaster.
    RecoveryInProgress,
    /// The replica is a witness and holds no data.
    IsWitness,
    /// The region is being taken back to an older version.
    FlashbackInProgress,
    /// A flashback was asked for without its preparation.
    FlashbackNotPrepared,
    /// The store knows no such region.
    RegionNotFound,
    /// The key is not in the region.
    KeyNotInRegion,
    /// The region has split, merged or changed its peers.
    EpochNotMatch {
        /// The regions that the store has in its place; may be empty.
        current: Vec<metapb::Region>,
    },
    /// The region's buckets are newer.
    BucketVersionNotMatch {
        /// Version of the newer buckets.
        version: u64,
        /// Their bounds, as PD knows them.
        keys: Vec<bytes::Bytes>,
    },
    /// The server refused for lack of time.
    DeadlineExceeded,
    /// The server is overloaded.
    ServerIsBusy {
        /// Its estimate of how long a read would wait, in milliseconds; 0 for none.
        estimated_wait_ms: u32,
    },
    /// The leader's term has passed.
    StaleCommand,
    /// The store is another one than the address promised.
    StoreNotMatch,
    /// The entry is too large for Raft.
    RaftEntryTooLarge,
    /// The new leader does not know the largest timestamp read yet.
    MaxTimestampNotSynced,
    /// The new leader is not ready to be read.
    ReadIndexNotReady,
    /// The region is being merged.
    ProposalInMergingMode,
    /// The replica does not have the data of a stale read yet.
    DataIsNotReady,
    /// The replica has not caught up since it was created.
    RegionNotInitialized,
    /// The peer is another one than was asked for.
    MismatchPeerId,
    /// A read at a timestamp that PD never gave.
    InvalidMaxTsUpdate,
    /// A kind that this client does not know.
    Other,
}

impl RegionErrorKind {
    /// Classifies `error`.
    #[must_use]
    pub fn of(error: &errorpb::Error) -> Self {
        use RegionErrorKind as Kind;
        if error.undetermined_result.is_some() {
            return Kind::UndeterminedResult;
        }
        if let Some(not_leader) = &error.not_leader {
            return Kind::NotLeader { leader: not_leader.leader };
        }
        if error.disk_full.is_some() {
            return Kind::DiskFull;
        }
        if error.recovery_in_progress.is_some() {
            return Kind::RecoveryInProgress;
        }
        if error.is_witness.is_some() {
            return Kind::IsWitness;
        }
        if error.flashback_in_progress.is_some() {
            return Kind::FlashbackInProgress;
        }
        if error.flashback_not_prepared.is_some() {
            return Kind::FlashbackNotPrepared;
        }
        if error.region_not_found.is_some() {
            return Kind::RegionNotFound;
        }
        if error.key_not_in_region.is_some() {
            return Kind::KeyNotInRegion;
        }
        if let Some(epoch) = &error.epoch_not_match {
            return Kind::EpochNotMatch { current: epoch.current_regions.clone() };
        }
        if let Some(buckets) = &error.bucket_version_not_match {
            return Kind::BucketVersionNotMatch { version: buckets.version, keys: buckets.keys.clone() };
        }
        Self::of_server_state(error)
    }

    fn of_server_state(error: &errorpb::Error) -> Self {
        use RegionErrorKind as Kind;
        // The one condition that TiKV tells in words only.
        let is_deadline = |text: &str| text.to_ascii_lowercase().contains("deadline is exceeded");
        if let Some(busy) = &error.server_is_busy {
            return if is_deadline(&busy.reason) {
                Kind::DeadlineExceeded
            } else {
                Kind::ServerIsBusy { estimated_wait_ms: busy.estimated_wait_ms }
            };
        }
        if error.stale_command.is_some() {
            return Kind::StaleCommand;
        }
        if error.store_not_match.is_some() {
            return Kind::StoreNotMatch;
        }
        if error.raft_entry_too_large.is_some() {
            return Kind::RaftEntryTooLarge;
        }
        if error.max_timestamp_not_synced.is_some() {
            return Kind::MaxTimestampNotSynced;
        }
        if error.read_index_not_ready.is_some() {
            return Kind::ReadIndexNotReady;
        }
        if error.proposal_in_merging_mode.is_some() {
            return Kind::ProposalInMergingMode;
        }
        if error.data_is_not_ready.is_some() {
            return Kind::DataIsNotReady;
        }
        if error.region_not_initialized.is_some() {
            return Kind::RegionNotInitialized;
        }
        if error.mismatch_peer_id.is_some() {
            return Kind::MismatchPeerId;
        }
        if is_deadline(&error.message) {
            return Kind::DeadlineExceeded;
        }
        if error.message.contains("invalid max_ts update") {
            return Kind::InvalidMaxTsUpdate;
        }
        Kind::Other
    }

    /// Its name: the field of `errorpb.Error`, or the condition.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        use RegionErrorKind as Kind;
        match self {
            Kind::UndeterminedResult => "undetermined_result",
            Kind::NotLeader { .. } => "not_leader",
            Kind::DiskFull => "disk_full",
            Kind::RecoveryInProgress => "recovery_in_progress",
            Kind::IsWitness => "is_witness",
            Kind::FlashbackInProgress => "flashback_in_progress",
            Kind::FlashbackNotPrepared => "flashback_not_prepared",
            Kind::RegionNotFound => "region_not_found",
            Kind::KeyNotInRegion => "key_not_in_region",
            Kind::EpochNotMatch { .. } => "epoch_not_match",
            Kind::BucketVersionNotMatch { .. } => "bucket_version_not_match",
            Kind::DeadlineExceeded => "deadline_exceeded",
            Kind::ServerIsBusy { .. } => "server_is_busy",
            Kind::StaleCommand => "stale_command",
            Kind::StoreNotMatch => "store_not_match",
            Kind::RaftEntryTooLarge => "raft_entry_too_large",
            Kind::MaxTimestampNotSynced => "max_timestamp_not_synced",
            Kind::ReadIndexNotReady => "read_index_not_ready",
            Kind::ProposalInMergingMode => "proposal_in_merging_mode",
            Kind::DataIsNotReady => "data_is_not_ready",
            Kind::RegionNotInitialized => "region_not_initialized",
            Kind::MismatchPeerId => "mismatch_peer_id",
            Kind::InvalidMaxTsUpdate => "invalid_max_ts_update",
            Kind::Other => "other",
        }
    }
}
