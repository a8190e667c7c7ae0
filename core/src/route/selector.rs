//! Chooses the replica for the next attempt.
//!
//! Leader mode: the replica taken for the leader, unless something speaks against it; then every other replica once, as a
//! probe for a new leader. When none is left the region has to be loaded again.
//!
//! client-go: `internal/locate/replica_selector.go`.

use std::sync::Arc;
use std::time::Duration;

use crate::knowledge::Knowledge;
use crate::knowledge::regions::{Region, RegionVerId};
use crate::knowledge::stores::{Liveness, Store};
use crate::time::Time;

/// Attempts on one leader before others are probed.
const MAX_LEADER_ATTEMPTS: u32 = 10;
/// Time spent in attempts on one leader before others are probed.
const MAX_LEADER_ATTEMPT_TIME: Duration = Duration::from_secs(50);

/// The history of the attempts of one call on one region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    region: Arc<Region>,
    replicas: Vec<Attempts>,
    current: Option<Current>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Attempts {
    count: u32,
    time: Duration,
    not_leader: bool,
    timed_out: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Current {
    replica: usize,
    since: Time,
}

/// Where the next attempt goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Index of the replica in its region.
    pub replica: usize,
    /// Its store, as it is known now.
    pub store: Arc<Store>,
    /// Whether the request must ask for a read from a follower.
    pub replica_read: bool,
}

impl Selector {
    /// No attempt has been made yet.
    #[must_use]
    pub fn new(region: Arc<Region>) -> Self {
        let replicas = vec![Attempts::default(); region.replicas.len()];
        Selector { region, replicas, current: None }
    }

    /// The region, as it was when the selector was made (its leader may be another by now).
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// The replica for the next attempt; `None` when all have been tried. `is_read` tells whether a follower could serve the
    /// request when the leader is too slow.
    pub fn next(&mut self, now: Time, knowledge: &Knowledge, is_read: bool) -> Option<Choice> {
        let leader = self.leader(knowledge);
        if let Some(store) = self.usable_leader(leader, knowledge) {
            return Some(self.choose(now, leader, store, false));
        }
        let replica_read = is_read && self.replicas[leader].timed_out;
        let candidates = (0..self.replicas.len()).filter(|index| *index != leader && self.replicas[*index].count == 0);
        let (replica, store) =
            candidates.filter_map(|index| Some((index, self.reachable_store(index, knowledge)?))).next()?;
        Some(self.choose(now, replica, store, replica_read))
    }

    /// The attempt on the current replica has ended.
    pub fn attempt_ended(&mut self, now: Time) {
        if let Some(current) = self.current.take() {
            self.replicas[current.replica].time += now.saturating_since(current.since);
            self.current = None;
        }
    }

    /// The replica said that it does not lead. If it named the leader, that one gets a fresh start (as the named leader
    /// may just have been elected); otherwise it is tried no more.
    pub fn on_not_leader(&mut self, replica: usize, leader_store_id: Option<u64>) {
        self.replicas[replica].not_leader = true;
        if let Some(leader) = leader_store_id.and_then(|store_id| self.region.replica_on(store_id)) {
            self.replicas[leader] = Attempts::default();
        }
    }

    /// The replica did not answer in time.
    pub fn on_timeout(&mut self, replica: usize) {
        self.replicas[replica].timed_out = true;
    }

    /// Whether some replica was merely too slow: then the region is not to blame.
    #[must_use]
    pub fn any_timed_out(&self) -> bool {
        self.replicas.iter().any(|replica| replica.timed_out)
    }

    /// Whether the replica taken for the leader has not been tried.
    #[must_use]
    pub fn leader_untried(&self, knowledge: &Knowledge) -> bool {
        self.replicas[self.leader(knowledge)].count == 0
    }

    /// Read anew for each attempt, since others may have learnt of a new leader.
    fn leader(&self, knowledge: &Knowledge) -> usize {
        knowledge.regions.get(self.region.ver_id).map_or(self.region.leader, |region| region.leader)
    }

    fn usable_leader(&self, leader: usize, knowledge: &Knowledge) -> Option<Arc<Store>> {
        let attempts = self.replicas.get(leader)?;
        let spent = attempts.count >= MAX_LEADER_ATTEMPTS || attempts.time >= MAX_LEADER_ATTEMPT_TIME;
        if spent || attempts.not_leader || attempts.timed_out {
            return None;
        }
        self.reachable_store(leader, knowledge)
    }

    /// The store of a replica, if it has not failed since the region was learnt.
    fn reachable_store(&self, replica: usize, knowledge: &Knowledge) -> Option<Arc<Store>> {
        let replica = &self.region.replicas[replica];
        let store = knowledge.stores.get(replica.peer.store_id)?;
        (store.epoch == replica.store_epoch && store.liveness == Liveness::Reachable).then_some(store)
    }

    fn choose(&mut self, now: Time, replica: usize, store: Arc<Store>, replica_read: bool) -> Choice {
        self.replicas[replica].count += 1;
        self.current = Some(Current { replica, since: now });
        Choice { replica, store, replica_read }
    }

    /// Which life of which region is being called.
    #[must_use]
    pub fn ver_id(&self) -> RegionVerId {
        self.region.ver_id
    }
}
