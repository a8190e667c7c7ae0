//! Chooses the replica for the next attempt.
//!
//! Leader mode: the replica taken for the leader, unless something speaks against it; then every other replica once, as a
//! probe for a new leader. When none is left the region has to be loaded again.
//!
//! What speaks against the leader:
//!
//! - its store is unreachable, or has failed since the region was learnt;
//! - it said that it does not lead;
//! - it was asked ten times, or for 50 seconds;
//! - it did not answer a read that has a short time limit: then others are asked to serve the read as followers;
//! - it is *suspected* to lead no more: it broke off, was silent for a whole time limit, or refused twice for being busy
//!   (a store that is half dead does so although the leader has moved: tikv/client-go#2028). Others are probed, but if that
//!   brings nothing the suspicion is dropped.
//!
//! client-go: `internal/locate/replica_selector.go`.

use std::sync::Arc;
use std::time::Duration;

use tikv_proto::metapb;

use crate::backoff::BackoffKind;
use crate::knowledge::Knowledge;
use crate::knowledge::regions::{Region, RegionVerId};
use crate::knowledge::stores::{Engine, Liveness, Store};
use crate::time::Time;

/// Attempts on one leader before others are probed.
const MAX_LEADER_ATTEMPTS: u32 = 10;
/// Time spent in attempts on one leader before others are probed.
const MAX_LEADER_ATTEMPT_TIME: Duration = Duration::from_secs(50);
/// Refusals for being busy after which the leader is suspected. Once in a selector's life.
const BUSY_BEFORE_SUSPICION: u32 = 2;

/// The history of the attempts of one call on one region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    region: Arc<Region>,
    /// The leader as last heard of, for when the region is known no more.
    leader: usize,
    /// What became of attempts on each replica; empty until the first has failed.
    attempts: Vec<Attempts>,
    /// The replica asked now, and since when.
    current: Option<(usize, Time)>,
    /// How often a replica named another as the leader.
    hints: usize,
    busy: BusyLeader,
    /// Whether only the leader may serve the read, whatever happens.
    leader_only: bool,
    /// Whether the region has been given its last chance, after a store that does not know it.
    last_chance: bool,
    /// Whether the region is known to be as it was when the selector was made, which it is until the first attempt.
    is_fresh: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Attempts {
    count: u32,
    time: Duration,
    not_leader: bool,
    timed_out: bool,
    suspect: bool,
    busy: bool,
    /// Back-off owed before the replica is asked again.
    owed: Option<BackoffKind>,
}

/// Refusals by one leader for being busy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct BusyLeader {
    replica: usize,
    count: u32,
    suspected: bool,
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

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// Send to this replica.
    Send(Choice),
    /// First back off, then ask again.
    BackOff(BackoffKind),
    /// Every replica has been tried. Back off, and load the region again.
    Exhausted(BackoffKind),
}

/// What a replica that does not lead has told of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaderHint {
    /// Nothing of use: there may be an election.
    None,
    /// A peer that the region did not have when it was learnt.
    Stranger,
    /// A peer to try next; or, if its store is unreachable, one that need not be tried.
    Known {
        /// Whether this happens so often that the replicas seem to disagree.
        too_often: bool,
    },
}

impl Selector {
    /// No attempt has been made yet.
    #[must_use]
    pub fn new(region: Arc<Region>) -> Self {
        Selector {
            leader: region.leader,
            region,
            attempts: Vec::new(),
            current: None,
            hints: 0,
            busy: BusyLeader::default(),
            leader_only: false,
            last_chance: false,
            is_fresh: false,
        }
    }

    /// The same for a region that was looked up in this very step, so that its leader need not be looked up again.
    #[must_use]
    pub fn fresh(region: Arc<Region>) -> Self {
        Selector { is_fresh: true, ..Selector::new(region) }
    }

    /// The region, as it was when the selector was made (its leader may be another by now).
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// The region, of a call that has ended.
    #[must_use]
    pub fn into_region(self) -> Arc<Region> {
        self.region
    }

    /// Which life of which region is being called.
    #[must_use]
    pub fn ver_id(&self) -> RegionVerId {
        self.region.ver_id
    }

    /// Chooses the replica for the next attempt. `may_read_replica` tells whether a follower could serve the request.
    pub fn next(&mut self, now: Time, knowledge: &Knowledge, may_read_replica: bool) -> Next {
        let leader = if std::mem::take(&mut self.is_fresh) { self.leader } else { self.leader(knowledge) };
        let of_leader = self.attempts_on(leader);
        if let Some(store) = self.leader_candidate(leader, knowledge).filter(|_| !of_leader.suspect) {
            return self.choose(now, leader, store, false);
        }
        // A store that has failed may have come back, but not for a region that is kept alive as it was.
        if self.region.replicas.iter().any(|it| knowledge.stores.get_at(it.peer.store_id, it.store_epoch).is_none()) {
            knowledge.regions.let_expire(self.region.ver_id);
        }
        let replica_read = may_read_replica && of_leader.timed_out && !self.leader_only;
        // From the leader on, so that the regions of one failed store do not all turn to the same other one.
        let count = self.region.replicas.len();
        for replica in (leader + 1..leader + count).map(|index| index % count) {
            if self.attempts_on(replica).count > 0 {
                continue;
            }
            if let Some(store) = self.usable_store(replica, knowledge) {
                return self.choose(now, replica, store, replica_read);
            }
        }
        if of_leader.suspect {
            self.attempts_mut(leader).suspect = false;
            if let Some(store) = self.leader_candidate(leader, knowledge) {
                return self.choose(now, leader, store, false);
            }
        }
        let owed = self.attempts.iter().filter_map(|attempts| attempts.owed);
        Next::Exhausted(owed.max_by_key(|kind| kind.facts().base_ms).unwrap_or(BackoffKind::RegionMiss))
    }

    /// The attempt on the current replica brought no answer that the call could end with.
    pub fn attempt_failed(&mut self, now: Time) {
        if let Some((replica, since)) = self.current.take() {
            let attempts = self.attempts_mut(replica);
            attempts.count += 1;
            attempts.time += now.saturating_since(since);
        }
    }

    /// The replica said that it does not lead, and perhaps who does. If that one's store is reachable, it gets another
    /// chance, and is known as the leader to all from now on.
    pub fn on_not_leader(
        &mut self,
        knowledge: &Knowledge,
        replica: usize,
        leader: Option<&metapb::Peer>,
    ) -> LeaderHint {
        self.attempts_mut(replica).not_leader = true;
        let Some(peer) = leader else { return LeaderHint::None };
        let leader = match self.region.replica_of(peer) {
            None => return LeaderHint::Stranger,
            Some(leader) if leader == replica => return LeaderHint::None,
            Some(leader) => leader,
        };
        self.hints += 1;
        // A hibernating region elects no leader until a follower is asked: do not wait for one that is gone.
        if knowledge.stores.get(peer.store_id).is_some_and(|store| store.liveness == Liveness::Reachable) {
            let attempts = self.attempts_mut(leader);
            attempts.not_leader = false;
            attempts.suspect = false;
            if attempts.is_spent() {
                attempts.count = MAX_LEADER_ATTEMPTS - 1;
                attempts.time = Duration::ZERO;
            }
            self.leader = leader;
            knowledge.regions.switch_leader(self.region.ver_id, peer);
        }
        LeaderHint::Known { too_often: self.hints > self.region.replicas.len() }
    }

    /// The replica did not answer a read in the short time it was given: others may be quicker.
    pub fn on_short_timeout(&mut self, replica: usize) {
        self.attempts_mut(replica).timed_out = true;
    }

    /// The replica broke off, or was silent for long: it may lead no more.
    pub fn on_silence(&mut self, replica: usize) {
        self.attempts_mut(replica).suspect = true;
    }

    /// The store of the replica is overloaded. Returns whether others can be tried before backing off; the back-off is then
    /// owed, and taken before the replica is asked again.
    pub fn on_busy(&mut self, knowledge: &Knowledge, replica: usize, estimated_wait_ms: u32) -> bool {
        let leader = self.leader(knowledge);
        if estimated_wait_ms == 0 && replica == leader && !self.busy.suspected {
            if self.busy.replica != leader {
                self.busy = BusyLeader { replica: leader, ..BusyLeader::default() };
            }
            self.busy.count += 1;
            if self.busy.count >= BUSY_BEFORE_SUSPICION {
                self.busy.suspected = true;
                self.attempts_mut(leader).suspect = true;
            }
        }
        let leader_is_left = self.leader_candidate(leader, knowledge).is_some() && !self.attempts_on(leader).busy;
        if !leader_is_left {
            let attempts = self.attempts_mut(replica);
            attempts.busy = true;
            attempts.owed = Some(BackoffKind::TikvServerBusy);
        }
        !leader_is_left
    }

    /// A follower must not serve the read: only the leader is asked from now on.
    pub fn forbid_replica_reads(&mut self) {
        self.leader_only = true;
    }

    /// Whether some replica was merely too slow: then the region is not to blame.
    #[must_use]
    pub fn any_timed_out(&self) -> bool {
        self.attempts.iter().any(|attempts| attempts.timed_out)
    }

    /// The replica's store does not know the region. Returns whether one more attempt is due: a follower may have lost its
    /// replica while the leader, not yet tried, still answers.
    pub fn on_region_not_found(&mut self, knowledge: &Knowledge) -> bool {
        let leader_untried = self.attempts_on(self.leader(knowledge)).count == 0;
        leader_untried && !std::mem::replace(&mut self.last_chance, true)
    }

    /// Read anew for each attempt, since others may have learnt of a new leader.
    fn leader(&self, knowledge: &Knowledge) -> usize {
        let known = knowledge.regions.get(self.region.ver_id);
        // The same life may have been loaded again, with other replicas left out.
        known.and_then(|known| self.region.replica_of(&known.leader().peer)).unwrap_or(self.leader)
    }

    fn leader_candidate(&self, leader: usize, knowledge: &Knowledge) -> Option<Arc<Store>> {
        let attempts = self.attempts_on(leader);
        if attempts.is_spent() || attempts.not_leader || attempts.timed_out {
            return None;
        }
        self.usable_store(leader, knowledge)
    }

    /// The store of a replica, if it has not failed since the region was learnt.
    fn usable_store(&self, replica: usize, knowledge: &Knowledge) -> Option<Arc<Store>> {
        let replica = self.region.replicas.get(replica)?;
        let store = knowledge.stores.get_at(replica.peer.store_id, replica.store_epoch)?;
        (store.engine == Engine::TiKv).then_some(store)
    }

    fn choose(&mut self, now: Time, replica: usize, store: Arc<Store>, replica_read: bool) -> Next {
        if let Some(kind) = self.attempts_on(replica).owed {
            self.attempts_mut(replica).owed = None;
            return Next::BackOff(kind);
        }
        self.current = Some((replica, now));
        Next::Send(Choice { replica, store, replica_read })
    }

    fn attempts_on(&self, replica: usize) -> Attempts {
        self.attempts.get(replica).copied().unwrap_or_default()
    }

    fn attempts_mut(&mut self, replica: usize) -> &mut Attempts {
        let len = self.region.replicas.len().max(replica + 1);
        self.attempts.resize(len, Attempts::default());
        &mut self.attempts[replica]
    }
}

impl Attempts {
    fn is_spent(&self) -> bool {
        self.count >= MAX_LEADER_ATTEMPTS || self.time >= MAX_LEADER_ATTEMPT_TIME
    }
}
