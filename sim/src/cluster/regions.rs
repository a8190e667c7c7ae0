//! Regions: where they begin and end, who holds them, who leads.

use std::collections::BTreeMap;
use std::ops::Bound;

use tikv_core::key::{Key, KeyRange};
use tikv_proto::metapb;

/// The term of a region's first leader. TiKV: `RAFT_INIT_LOG_TERM`, and one election.
pub(super) const FIRST_TERM: u64 = 6;

/// A region as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Id, epoch, bounds and peers.
    pub meta: metapb::Region,
    /// The store whose peer leads; `None` while there is no leader.
    pub leader: Option<u64>,
    /// The store that PD believes leads: the last leader that it heard of.
    pub reported_leader: Option<u64>,
    /// The raft term.
    pub term: u64,
    /// The region's buckets, if it has any.
    pub buckets: Option<metapb::Buckets>,
}

impl Region {
    /// The region's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.meta.id
    }

    /// The region's epoch.
    #[must_use]
    pub fn epoch(&self) -> metapb::RegionEpoch {
        self.meta.region_epoch.unwrap_or_default()
    }

    /// The encoded keys of the region.
    #[must_use]
    pub fn bounds(&self) -> KeyRange {
        KeyRange::new(self.meta.start_key.clone(), self.meta.end_key.clone())
    }

    /// The region's peer on a store.
    #[must_use]
    pub fn peer_on(&self, store_id: u64) -> Option<&metapb::Peer> {
        self.meta.peers.iter().find(|peer| peer.store_id == store_id)
    }

    /// The peer that leads.
    #[must_use]
    pub fn leader_peer(&self) -> Option<&metapb::Peer> {
        self.peer_on(self.leader?)
    }

    /// The peers that vote.
    pub fn voters(&self) -> impl Iterator<Item = &metapb::Peer> {
        self.meta.peers.iter().filter(|peer| peer.role() != metapb::PeerRole::Learner)
    }

    pub(super) fn epoch_mut(&mut self) -> &mut metapb::RegionEpoch {
        self.meta.region_epoch.get_or_insert_default()
    }

    /// Makes the store's peer the leader of a new term.
    pub(super) fn elect(&mut self, store_id: u64) {
        self.leader = Some(store_id);
        self.reported_leader = Some(store_id);
        self.term += 1;
    }
}

/// All regions: they cover the whole key space, without overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regions {
    by_id: BTreeMap<u64, Region>,
    /// Ids by first key.
    by_start: BTreeMap<Key, u64>,
}

impl Regions {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none, which no cluster shows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// A region by its id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Region> {
        self.by_id.get(&id)
    }

    /// The region that holds an encoded key.
    #[must_use]
    pub fn by_key(&self, key: &[u8]) -> Option<&Region> {
        self.last_of(Bound::Included(key))
    }

    /// The region right before another.
    #[must_use]
    pub fn before(&self, region: &Region) -> Option<&Region> {
        self.last_of(Bound::Excluded(&region.meta.start_key))
    }

    fn last_of(&self, until: Bound<&[u8]>) -> Option<&Region> {
        let (_, id) = self.by_start.range::<[u8], _>((Bound::Unbounded, until)).next_back()?;
        self.get(*id)
    }

    /// The region right after another.
    #[must_use]
    pub fn after(&self, region: &Region) -> Option<&Region> {
        if region.meta.end_key.is_empty() { None } else { self.by_key(&region.meta.end_key) }
    }

    /// The regions that hold keys of an encoded range, in order.
    pub fn overlapping<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = &'a Region> {
        let first = self.by_key(range.start.as_slice()).map(|region| region.meta.start_key.clone());
        let from = first.map(Key::from).unwrap_or_default();
        let ids = self.by_start.range(from..).take_while(|(start, _)| range.is_before_end(start.as_slice()));
        ids.filter_map(|(_, id)| self.get(*id))
    }

    /// All regions, in the order of their keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Region> {
        self.by_start.values().filter_map(|id| self.get(*id))
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Region> {
        self.by_id.get_mut(&id)
    }

    /// Adds a region, or replaces the one with its id.
    pub(super) fn put(&mut self, region: Region) {
        self.remove(region.id());
        self.by_start.insert(Key::from(region.meta.start_key.clone()), region.id());
        self.by_id.insert(region.id(), region);
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some(region) = self.by_id.remove(&id) else { return };
        let start = &region.meta.start_key[..];
        // While regions move, another one may begin there already.
        if self.by_start.get(start) == Some(&id) {
            self.by_start.remove(start);
        }
    }
}
