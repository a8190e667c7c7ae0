//! Stores and regions, and how they change: splits, merges, leaders, peers, crashes.
//!
//! Every operation changes epochs and terms as TiKV does, which is what clients get to feel:
//!
//! | operation | epoch | term |
//! |---|---|---|
//! | split into n + 1 | version + n in all of them | new regions begin anew |
//! | merge | version: one above the higher of both | |
//! | add, remove or change a peer | conf_ver + 1 | |
//! | a leader's transfer or election | | + 1 |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tikv_core::key::Key;
use tikv_core::rng::Rng;
use tikv_core::time::Time;
use tikv_proto::kvrpcpb::ApiVersion;
use tikv_proto::metapb;

use super::options::ClusterOptions;
use super::regions::{FIRST_TERM, Region, Regions};
use super::stores::Store;

/// Why an operation cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// There is no such region.
    #[error("no region {0}")]
    NoRegion(u64),
    /// There is no such store.
    #[error("no store {0}")]
    NoStore(u64),
    /// The store does not run.
    #[error("store {0} is stopped")]
    StoreStopped(u64),
    /// The store holds no peer of the region that could do it.
    #[error("no fitting peer of region {region_id} on store {store_id}")]
    NoPeer {
        /// The region.
        region_id: u64,
        /// The store.
        store_id: u64,
    },
    /// The store holds a peer of the region already.
    #[error("a peer of region {region_id} is on store {store_id} already")]
    PeerExists {
        /// The region.
        region_id: u64,
        /// The store.
        store_id: u64,
    },
    /// The region cannot lose its leader so.
    #[error("store {store_id} leads region {region_id}")]
    Leads {
        /// The region.
        region_id: u64,
        /// The store.
        store_id: u64,
    },
    /// The region has no leader that could do it.
    #[error("region {0} has no leader")]
    NoLeader(u64),
    /// The key does not lie strictly inside the region.
    #[error("region {region_id} cannot be split at {key:?}")]
    NotInside {
        /// The region.
        region_id: u64,
        /// The encoded key.
        key: Key,
    },
    /// The regions are not neighbours with the same stores.
    #[error("region {0} cannot be merged into region {1}")]
    NotMergeable(u64, u64),
    /// The store still holds peers.
    #[error("store {0} still holds regions")]
    StoreInUse(u64),
}

/// Stores and regions of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    cluster_id: u64,
    api_version: ApiVersion,
    stores: BTreeMap<u64, Store>,
    regions: Regions,
    next_id: u64,
    election_timeout: Duration,
    elections: BTreeSet<(Time, u64)>,
    rng: Rng,
}

impl Topology {
    pub(super) fn new(options: &ClusterOptions, rng: Rng) -> Self {
        let stores = (1..).zip(&options.stores).map(|(id, store)| (id, Store::new(id, store))).collect();
        let mut topology = Topology {
            cluster_id: options.cluster_id,
            api_version: options.api_version,
            stores,
            regions: Regions::default(),
            next_id: options.stores.len() as u64 + 1,
            election_timeout: options.election_timeout,
            elections: BTreeSet::new(),
            rng,
        };
        topology.lay_out(&options.split_keys(), options.replicas);
        topology
    }

    /// Peers go round the stores, so that each store gets as many peers and leaders as any other.
    fn lay_out(&mut self, split_keys: &[Key], replicas: usize) {
        let store_ids: Vec<u64> = self.stores.keys().copied().collect();
        let starts = std::iter::once(Key::EMPTY).chain(split_keys.iter().cloned());
        let ends = split_keys.iter().cloned().chain(std::iter::once(Key::EMPTY));
        for (index, (start, end)) in starts.zip(ends).enumerate() {
            let mut region = metapb::Region {
                id: self.alloc_ids(1),
                start_key: start.into_bytes(),
                end_key: end.into_bytes(),
                region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
                ..metapb::Region::default()
            };
            let chosen = store_ids.iter().cycle().skip(index % store_ids.len().max(1));
            for store_id in chosen.take(replicas.max(1).min(store_ids.len())) {
                region.peers.push(metapb::Peer {
                    id: self.alloc_ids(1),
                    store_id: *store_id,
                    ..metapb::Peer::default()
                });
            }
            let leader = region.peers.first().map(|peer| peer.store_id);
            self.regions.put(Region { meta: region, leader, reported_leader: leader, term: FIRST_TERM, buckets: None });
        }
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// How stores understand keys.
    #[must_use]
    pub fn api_version(&self) -> ApiVersion {
        self.api_version
    }

    /// The regions.
    #[must_use]
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    /// A region by its id.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn region(&self, id: u64) -> Result<&Region, TopologyError> {
        self.regions.get(id).ok_or(TopologyError::NoRegion(id))
    }

    pub(super) fn region_mut(&mut self, id: u64) -> Result<&mut Region, TopologyError> {
        self.regions.get_mut(id).ok_or(TopologyError::NoRegion(id))
    }

    /// The stores, by id; tombstones too.
    pub fn stores(&self) -> impl Iterator<Item = &Store> {
        self.stores.values()
    }

    /// A store by its id.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn store(&self, id: u64) -> Result<&Store, TopologyError> {
        self.stores.get(&id).ok_or(TopologyError::NoStore(id))
    }

    /// A store by its id, to change what it says of itself.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn store_mut(&mut self, id: u64) -> Result<&mut Store, TopologyError> {
        self.stores.get_mut(&id).ok_or(TopologyError::NoStore(id))
    }

    /// The first of `count` ids that nothing else has.
    pub fn alloc_ids(&mut self, count: u32) -> u64 {
        let first = self.next_id;
        self.next_id += u64::from(count);
        first
    }

    /// Whether the store exists and runs.
    #[must_use]
    pub fn is_running(&self, store_id: u64) -> bool {
        self.stores.get(&store_id).is_some_and(|store| store.running)
    }

    // ---- Splitting and merging ----

    /// Splits the region that holds an encoded key, so that the key begins a region. The ids of both parts; the right one
    /// keeps the old id.
    ///
    /// # Errors
    ///
    /// If a region begins there already, or the region has no leader.
    pub fn split(&mut self, key: &Key) -> Result<(u64, u64), TopologyError> {
        let region_id = self.regions.by_key(key.as_slice()).map_or(0, Region::id);
        let left = self.split_region(region_id, std::slice::from_ref(key))?;
        Ok((left[0], region_id))
    }

    /// Splits a region at encoded keys, given in order. The ids of the parts, in order; the last one keeps the old id.
    ///
    /// # Errors
    ///
    /// If a key does not lie strictly inside the region or is out of order, or the region has no leader.
    pub fn split_region(&mut self, region_id: u64, keys: &[Key]) -> Result<Vec<u64>, TopologyError> {
        let mut derived = self.region(region_id)?.clone();
        let leader = derived.leader.ok_or(TopologyError::NoLeader(region_id))?;
        let bounds = derived.bounds();
        let mut previous = &bounds.start;
        for key in keys {
            if key <= previous || !bounds.is_before_end(key.as_slice()) {
                return Err(TopologyError::NotInside { region_id, key: key.clone() });
            }
            previous = key;
        }

        derived.epoch_mut().version += keys.len() as u64;
        derived.buckets = None;
        let mut parts = Vec::with_capacity(keys.len() + 1);
        for key in keys {
            let mut part = derived.clone();
            part.meta.id = self.alloc_ids(1);
            for peer in &mut part.meta.peers {
                peer.id = self.alloc_ids(1);
            }
            part.meta.end_key = key.to_bytes();
            part.term = FIRST_TERM;
            part.leader = Some(leader);
            derived.meta.start_key = key.to_bytes();
            parts.push(part);
        }
        parts.push(derived);
        let ids = parts.iter().map(Region::id).collect();
        parts.into_iter().for_each(|part| self.regions.put(part));
        Ok(ids)
    }

    /// Merges a region into its neighbour, which keeps its id.
    ///
    /// # Errors
    ///
    /// If they are not neighbours with peers on the same stores, or one has no leader.
    pub fn merge(&mut self, source_id: u64, target_id: u64) -> Result<(), TopologyError> {
        let (source, mut target) = (self.region(source_id)?.clone(), self.region(target_id)?.clone());
        for region in [&source, &target] {
            region.leader.ok_or(TopologyError::NoLeader(region.id()))?;
        }
        let stores = |region: &Region| region.meta.peers.iter().map(|peer| peer.store_id).collect::<BTreeSet<_>>();
        let is_left = source.meta.end_key == target.meta.start_key && !source.meta.end_key.is_empty();
        let is_right = target.meta.end_key == source.meta.start_key && !target.meta.end_key.is_empty();
        if stores(&source) != stores(&target) || !(is_left || is_right) {
            return Err(TopologyError::NotMergeable(source_id, target_id));
        }
        // The source's version rises once when the merge is prepared.
        let version = (source.epoch().version + 1).max(target.epoch().version) + 1;
        target.epoch_mut().version = version;
        target.buckets = None;
        if is_left {
            target.meta.start_key = source.meta.start_key;
        } else {
            target.meta.end_key = source.meta.end_key;
        }
        self.regions.remove(source_id);
        self.regions.put(target);
        Ok(())
    }

    // ---- Leaders ----

    /// Makes the peer on a store the region's leader.
    ///
    /// # Errors
    ///
    /// If no voter of the region is on the store, or the store does not run, or the region has no leader that could hand
    /// over.
    pub fn transfer_leader(&mut self, region_id: u64, store_id: u64) -> Result<(), TopologyError> {
        let region = self.region(region_id)?;
        let leader = region.leader.ok_or(TopologyError::NoLeader(region_id))?;
        let can_lead = |peer: &&metapb::Peer| peer.store_id == store_id && !peer.is_witness;
        region.voters().find(can_lead).ok_or(TopologyError::NoPeer { region_id, store_id })?;
        if !self.is_running(store_id) {
            return Err(TopologyError::StoreStopped(store_id));
        }
        if leader != store_id {
            self.region_mut(region_id)?.elect(store_id);
        }
        Ok(())
    }

    /// Takes the region's leader away; without an election nobody follows.
    ///
    /// # Errors
    ///
    /// If there is no such region.
    pub fn drop_leader(&mut self, region_id: u64) -> Result<(), TopologyError> {
        self.region_mut(region_id)?.leader = None;
        Ok(())
    }

    /// When the next leader is elected.
    #[must_use]
    pub fn next_election(&self) -> Option<Time> {
        self.elections.first().map(|(at, _)| *at)
    }

    /// Holds the elections that are due. The regions that got a leader.
    pub fn hold_elections(&mut self, now: Time) -> Vec<u64> {
        let mut elected = Vec::new();
        while let Some((at, region_id)) = self.elections.first().copied() {
            if at > now {
                break;
            }
            self.elections.pop_first();
            if self.elect(region_id) {
                elected.push(region_id);
            }
        }
        elected
    }

    fn elect(&mut self, region_id: u64) -> bool {
        let Some(region) = self.regions.get(region_id) else { return false };
        if region.leader.is_some() || !self.has_quorum(region) {
            return false;
        }
        let alive = |peer: &&metapb::Peer| self.is_running(peer.store_id) && !peer.is_witness;
        let candidates: Vec<u64> = region.voters().filter(alive).map(|peer| peer.store_id).collect();
        let chosen = self.rng.below(candidates.len() as u64) as usize;
        let Some(store_id) = candidates.get(chosen) else { return false };
        if let Some(region) = self.regions.get_mut(region_id) {
            region.elect(*store_id);
        }
        true
    }

    fn has_quorum(&self, region: &Region) -> bool {
        let running = region.voters().filter(|peer| self.is_running(peer.store_id)).count();
        running * 2 > region.voters().count()
    }

    // ---- Stores ----

    /// Stops a store, as a crash does. Regions that it led, or that lose their majority, are without a leader; where a
    /// majority runs, another one is elected in time. The regions that lost their leader.
    ///
    /// # Errors
    ///
    /// If there is no such store.
    pub fn stop_store(&mut self, now: Time, store_id: u64) -> Result<Vec<u64>, TopologyError> {
        self.store_mut(store_id)?.running = false;
        let led: Vec<u64> = self.regions.iter().filter(|region| region.leader.is_some()).map(Region::id).collect();
        let mut orphans = Vec::new();
        for region_id in led {
            let region = self.region(region_id)?;
            if region.leader == Some(store_id) || !self.has_quorum(region) {
                self.drop_leader(region_id)?;
                self.elections.insert((now + self.election_timeout, region_id));
                orphans.push(region_id);
            }
        }
        Ok(orphans)
    }

    /// Starts a stopped store; regions that regain their majority elect a leader in time.
    ///
    /// # Errors
    ///
    /// If there is no such store.
    pub fn start_store(&mut self, now: Time, store_id: u64) -> Result<(), TopologyError> {
        self.store_mut(store_id)?.running = true;
        let at = now + self.election_timeout;
        let waiting = |region: &&Region| region.leader.is_none() && region.peer_on(store_id).is_some();
        self.elections.extend(self.regions.iter().filter(waiting).map(|region| (at, region.id())));
        Ok(())
    }

    /// Adds a store without regions. Its id.
    pub fn add_store(&mut self, options: &super::StoreOptions) -> u64 {
        let id = self.alloc_ids(1);
        self.stores.insert(id, Store::new(id, options));
        id
    }

    /// Makes a tombstone of a store without regions.
    ///
    /// # Errors
    ///
    /// If it holds peers, or there is no such store.
    pub fn remove_store(&mut self, store_id: u64) -> Result<(), TopologyError> {
        if self.regions.iter().any(|region| region.peer_on(store_id).is_some()) {
            return Err(TopologyError::StoreInUse(store_id));
        }
        let store = self.store_mut(store_id)?;
        store.running = false;
        store.meta.set_state(metapb::StoreState::Tombstone);
        store.meta.set_node_state(metapb::NodeState::Removed);
        Ok(())
    }

    // ---- Peers ----

    /// Adds a peer of the region on a store.
    ///
    /// # Errors
    ///
    /// If the store is unknown or holds one already, or the region has no leader.
    pub fn add_peer(&mut self, region_id: u64, store_id: u64, role: metapb::PeerRole) -> Result<(), TopologyError> {
        self.store(store_id)?;
        let region = self.region(region_id)?;
        region.leader.ok_or(TopologyError::NoLeader(region_id))?;
        if region.peer_on(store_id).is_some() {
            return Err(TopologyError::PeerExists { region_id, store_id });
        }
        let id = self.alloc_ids(1);
        let region = self.region_mut(region_id)?;
        region.meta.peers.push(metapb::Peer { id, store_id, role: role.into(), is_witness: false });
        region.epoch_mut().conf_ver += 1;
        Ok(())
    }

    /// Removes the region's peer from a store.
    ///
    /// # Errors
    ///
    /// If there is none, or it leads, or the region has no leader.
    pub fn remove_peer(&mut self, region_id: u64, store_id: u64) -> Result<(), TopologyError> {
        self.change_peer(region_id, store_id, |peers, index| {
            peers.remove(index);
        })
    }

    /// Changes the role of the region's peer on a store, or makes it a witness or a full peer.
    ///
    /// # Errors
    ///
    /// If there is none, or it leads, or the region has no leader.
    pub fn set_peer(
        &mut self,
        region_id: u64,
        store_id: u64,
        role: metapb::PeerRole,
        is_witness: bool,
    ) -> Result<(), TopologyError> {
        self.change_peer(region_id, store_id, |peers, index| {
            peers[index].set_role(role);
            peers[index].is_witness = is_witness;
        })
    }

    fn change_peer(
        &mut self,
        region_id: u64,
        store_id: u64,
        change: impl FnOnce(&mut Vec<metapb::Peer>, usize),
    ) -> Result<(), TopologyError> {
        let region = self.region_mut(region_id)?;
        let found = region.meta.peers.iter().position(|peer| peer.store_id == store_id);
        let index = found.ok_or(TopologyError::NoPeer { region_id, store_id })?;
        match region.leader {
            Some(leader) if leader == store_id => return Err(TopologyError::Leads { region_id, store_id }),
            Some(_) => {}
            None => return Err(TopologyError::NoLeader(region_id)),
        }
        change(&mut region.meta.peers, index);
        region.epoch_mut().conf_ver += 1;
        Ok(())
    }
}
