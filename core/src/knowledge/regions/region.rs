//! What is known of one region.

use std::sync::Arc;

use tikv_proto::metapb;

use crate::key::{Key, KeyRange};

/// What identifies a region in one of its lives: a split, merge or change of peers makes another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionVerId {
    /// The region's id.
    pub id: u64,
    /// Version of its peers.
    pub conf_ver: u64,
    /// Version of its bounds.
    pub version: u64,
}

impl RegionVerId {
    /// The epoch as it travels in a request.
    #[must_use]
    pub fn epoch(self) -> metapb::RegionEpoch {
        metapb::RegionEpoch { conf_ver: self.conf_ver, version: self.version }
    }
}

/// A replica of a region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    /// The peer, as it travels in a request.
    pub peer: metapb::Peer,
    /// The store's epoch when the region was learnt: a higher one now means that the store failed since.
    pub store_epoch: u64,
}

/// A region as it was learnt. Immutable: a change of leader makes a new value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Which life of which region.
    pub ver_id: RegionVerId,
    /// Its keys, in the client's form.
    pub range: KeyRange,
    /// Its usable replicas: voters and learners, without those down or on tombstone stores. Never empty.
    pub replicas: Vec<Replica>,
    /// Index of the replica taken for the leader.
    pub leader: usize,
    /// Finer divisions, if they are known.
    pub buckets: Option<Arc<Buckets>>,
}

/// Finer divisions of a region, for parallel scans.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Buckets {
    /// Version of this division.
    pub version: u64,
    /// Keys at which buckets begin and end, in order. They may be older than the region and reach beyond it.
    pub keys: Vec<Key>,
}

impl Region {
    /// The replica taken for the leader.
    ///
    /// # Panics
    ///
    /// Never: [`RegionIndex::insert`](super::RegionIndex::insert) refuses regions whose leader index is out of bounds.
    #[must_use]
    pub fn leader(&self) -> &Replica {
        &self.replicas[self.leader]
    }

    /// The index of the replica on a store.
    #[must_use]
    pub fn replica_on(&self, store_id: u64) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.peer.store_id == store_id)
    }

    /// The index of a peer: the same peer on the same store.
    #[must_use]
    pub fn replica_of(&self, peer: &metapb::Peer) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.peer.id == peer.id && replica.peer.store_id == peer.store_id)
    }

    /// The bucket that holds `key`, within the region; `None` if the region does not hold the key. Where no bucket is
    /// known, the part of the region before the first, after the last, or all of it. client-go: `KeyLocation.LocateBucket`.
    #[must_use]
    pub fn bucket_of(&self, key: &[u8]) -> Option<KeyRange> {
        if !self.range.contains(key) {
            return None;
        }
        let keys = self.buckets.as_ref().map_or(&[][..], |buckets| &buckets.keys);
        // The empty key as the last bound stands for the end of all keys.
        let bounds = keys.strip_suffix(&[Key::EMPTY]).unwrap_or(keys);
        let after = bounds.partition_point(|bound| bound.as_slice() <= key);
        let start = after.checked_sub(1).and_then(|before| bounds.get(before)).cloned().unwrap_or_default();
        let end = bounds.get(after).cloned().unwrap_or_default();
        let bucket = self.range.intersection(&KeyRange { start, end });
        // Nobody promised that the bounds are in order.
        Some(bucket.filter(|bucket| bucket.contains(key)).unwrap_or_else(|| self.range.clone()))
    }
}
