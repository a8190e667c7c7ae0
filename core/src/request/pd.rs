//! What operations ask of PD, and what they get.
//!
//! These are questions, not messages: the PD client (`pd`) turns them into RPCs, joins equal ones, batches timestamps and
//! finds the leader. Keys here are as PD knows them (encoded by the key space's codec).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tikv_proto::metapb;

use crate::timestamp::Timestamp;

/// A question to PD.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PdRequest {
    /// A new timestamp.
    Timestamp,
    /// The region that holds a key.
    RegionByKey {
        /// The key, encoded as PD knows it.
        key: Bytes,
        /// Whether only PD's leader may answer (a follower may know less).
        leader_only: bool,
    },
    /// The region before the one that holds a key.
    PrevRegion {
        /// The key, encoded as PD knows it.
        key: Bytes,
        /// Whether only PD's leader may answer.
        leader_only: bool,
    },
    /// A region by its id.
    RegionById {
        /// The region's id.
        id: u64,
        /// Whether only PD's leader may answer.
        leader_only: bool,
    },
    /// The regions of a range, in order, at most `limit`.
    ScanRegions {
        /// First key, encoded as PD knows it.
        start: Bytes,
        /// First key after the range; empty for no end.
        end: Bytes,
        /// How many at most.
        limit: u32,
        /// Whether only PD's leader may answer.
        leader_only: bool,
    },
    /// A store by its id.
    Store {
        /// The store's id.
        id: u64,
    },
    /// All stores, tombstones left out.
    AllStores,
    /// Regions are to be spread over the stores. Asked twice, PD may move them twice.
    ScatterRegions {
        /// Which.
        regions: Vec<u64>,
        /// Among whom they are spread evenly; empty for the group of all that have none.
        group: String,
    },
    /// Whether a region is being moved, as [`PdRequest::ScatterRegions`] wants.
    IsScattering {
        /// The region's id.
        region_id: u64,
    },
    /// About garbage collection.
    Gc(GcRequest),
}

/// A question to PD about garbage collection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GcRequest {
    /// How far it is, and what holds it back.
    State,
    /// From now on nobody reads what is older than `target`. PD goes as far as barriers let it.
    AdvanceTxnSafePoint {
        /// Where to.
        target: Timestamp,
    },
    /// TiKV may remove what only a reader older than `target` would see.
    AdvanceGcSafePoint {
        /// Where to; at most the txn safe point.
        target: Timestamp,
    },
    /// Old versions are needed from some timestamp on. Whoever has a barrier of that name has it moved.
    SetBarrier(GcBarrier),
    /// They are not needed any more.
    DeleteBarrier {
        /// The barrier's name.
        id: String,
    },
}

/// PD's answer to a [`PdRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PdResponse {
    /// Answers [`PdRequest::Timestamp`].
    Timestamp(Timestamp),
    /// Answers the questions for one region; `None` if there is no such region.
    Region(Option<Arc<PdRegion>>),
    /// Answers [`PdRequest::ScanRegions`].
    Regions(Vec<Arc<PdRegion>>),
    /// Answers [`PdRequest::Store`]; `None` if PD knows no such store, or only its tombstone.
    Store(Option<Arc<metapb::Store>>),
    /// Answers [`PdRequest::AllStores`].
    Stores(Vec<Arc<metapb::Store>>),
    /// Answers [`PdRequest::ScatterRegions`]: PD has begun with those that it knows and that are worth moving.
    Scattered,
    /// Answers [`PdRequest::IsScattering`].
    IsScattering(bool),
    /// Answers [`GcRequest::State`].
    GcState(Box<GcState>),
    /// Answers [`GcRequest::AdvanceTxnSafePoint`] and [`GcRequest::AdvanceGcSafePoint`].
    SafePoint(Box<AdvancedSafePoint>),
    /// Answers [`GcRequest::SetBarrier`], and [`GcRequest::DeleteBarrier`] with what was there.
    GcBarrier(Option<Box<GcBarrier>>),
}

/// How far garbage collection is. client-go: `gc.GCState`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GcState {
    /// Nobody reads below it any more, nor begins to.
    pub txn_safe_point: Timestamp,
    /// TiKV may have removed what only a reader below it would see.
    pub gc_safe_point: Timestamp,
    /// What holds the txn safe point back.
    pub barriers: Vec<GcBarrier>,
}

/// Keeps old versions from being collected. client-go: `gc.GCBarrierInfo`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GcBarrier {
    /// Its name, unique in the cluster.
    pub id: String,
    /// The oldest timestamp that is still read.
    pub ts: Timestamp,
    /// How much longer it stands, in whole seconds; `None` until it is deleted.
    pub ttl: Option<Duration>,
}

/// How far a safe point got. client-go: `gc.AdvanceTxnSafePointResult`, `gc.AdvanceGCSafePointResult`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AdvancedSafePoint {
    /// Where it was.
    pub old: Timestamp,
    /// Where it is.
    pub new: Timestamp,
    /// PD's words for what keeps it from going further; empty for nothing.
    pub blocker: String,
}

/// A region as PD describes it; keys still encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PdRegion {
    /// Id, epoch, bounds and peers.
    pub region: metapb::Region,
    /// The peer that leads, if PD knows one.
    pub leader: Option<metapb::Peer>,
    /// Peers that PD believes down.
    pub down_peers: Vec<metapb::Peer>,
    /// Peers that have not caught up.
    pub pending_peers: Vec<metapb::Peer>,
    /// Buckets of the region, if asked for and known.
    pub buckets: Option<metapb::Buckets>,
}
