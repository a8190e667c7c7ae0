//! What a store checks before it serves a request for a region, in TiKV's order.
//!
//! TiKV has two gates. Reads, and transactional writes (which read first), pass the *local reader*; what it cannot decide goes
//! on to the *raftstore*. Raw writes go to the raftstore at once. The order matters to clients: a request that is wrong
//! in two ways gets the error of the first check that fails.
//!
//! | check | local reader | raftstore |
//! |---|---|---|
//! | store of the peer | 1 | 2 |
//! | region on this store | 2 | 1 |
//! | peer id | 3 | 3 |
//! | term | 4 | 6 |
//! | epoch (its version) | then on to the raftstore | 7 |
//! | witness | 5 | 5 |
//! | flashback | 6 | 8 |
//! | leader | then on to the raftstore | 4 |
//! | safe ts, of stale reads | 7 | |
//!
//! TiKV: `LocalReaderCore::validate_request`, `PeerFsmDelegate::pre_propose_raft_command`.

use tikv_core::key::Key;
use tikv_proto::{errorpb, kvrpcpb, metapb};

use super::regions::Region;
use super::topology::Topology;
use super::{Regions, region_error};

/// How a request comes to its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Through the local reader. `read_ts` is what a stale read reads at, and what passes a flashback; zero for none.
    Read { read_ts: u64 },
    /// Through the local reader, to write afterwards.
    ReadToWrite,
    /// To the raftstore at once.
    Propose,
    /// As [`Entry::ReadToWrite`], for the commands of a flashback.
    Flashback,
}

/// The largest number of neighbours that an `EpochNotMatch` names.
const MAX_SIBLINGS: usize = 10;

/// The region that a request may use on a store.
pub(super) fn check<'a>(
    topology: &'a Topology,
    store_id: u64,
    context: &kvrpcpb::Context,
    entry: Entry,
    safe_ts: impl Fn(&Region) -> u64,
) -> Result<&'a Region, Box<errorpb::Error>> {
    let request = RequestCheck { topology, store_id, context, entry };
    let region = request.check_all()?;
    request.check_stale_read(region, safe_ts)?;
    Ok(region)
}

struct RequestCheck<'a, 'r> {
    topology: &'a Topology,
    store_id: u64,
    context: &'r kvrpcpb::Context,
    entry: Entry,
}

type Checked<T> = Result<T, Box<errorpb::Error>>;

impl<'a> RequestCheck<'a, '_> {
    fn check_all(&self) -> Checked<&'a Region> {
        if self.entry == Entry::Propose {
            let region = self.find_region()?;
            self.check_store()?;
            return self.raftstore(region);
        }
        self.check_store()?;
        let region = self.find_region()?;
        self.check_peer(region)?;
        self.check_term(region)?;
        if self.epoch_matches(region) {
            self.check_witness(region)?;
            self.check_flashback(region)?;
        }
        self.raftstore(region)
    }

    fn raftstore(&self, region: &'a Region) -> Checked<&'a Region> {
        self.check_peer(region)?;
        self.check_leader(region)?;
        self.check_witness(region)?;
        self.check_term(region)?;
        self.check_epoch(region)?;
        self.check_flashback(region)?;
        Ok(region)
    }

    fn peer(&self) -> metapb::Peer {
        self.context.peer.unwrap_or_default()
    }

    fn check_store(&self) -> Checked<()> {
        let sent = self.peer().store_id;
        ensure(sent == self.store_id, || region_error::store_not_match(sent, self.store_id))
    }

    fn find_region(&self) -> Checked<&'a Region> {
        let region = self.topology.regions().get(self.context.region_id);
        let here = region.filter(|region| region.peer_on(self.store_id).is_some());
        here.ok_or_else(|| Box::new(region_error::region_not_found(self.context.region_id)))
    }

    fn check_peer(&self, region: &Region) -> Checked<()> {
        let here = region.peer_on(self.store_id).map_or(0, |peer| peer.id);
        let sent = self.peer().id;
        ensure(sent == here, || region_error::mismatch_peer_id(sent, here))
    }

    /// A term that is one behind may still be the leader's of now: it knew no better when it answered.
    fn check_term(&self, region: &Region) -> Checked<()> {
        let sent = self.context.term;
        ensure(sent == 0 || region.term <= sent + 1, region_error::stale_command)
    }

    fn check_leader(&self, region: &Region) -> Checked<()> {
        if region.leader == Some(self.store_id) {
            return Ok(());
        }
        let reads = matches!(self.entry, Entry::Read { .. });
        match (reads, self.is_stale_read(), self.context.replica_read) {
            (true, true, _) => Ok(()),
            // The replica asks the leader how far it has to be.
            (true, false, true) => ensure(region.leader.is_some(), || no_leader_to_ask(region.id())),
            _ => Err(Box::new(region_error::not_leader(region.id(), region.leader_peer().copied()))),
        }
    }

    fn check_witness(&self, region: &Region) -> Checked<()> {
        let is_witness = region.peer_on(self.store_id).is_some_and(|peer| peer.is_witness);
        ensure(!is_witness, || region_error::is_witness(region.id()))
    }

    fn sent_epoch(&self) -> metapb::RegionEpoch {
        self.context.region_epoch.unwrap_or_default()
    }

    /// Data does not depend on peers, so that only the version counts.
    fn epoch_matches(&self, region: &Region) -> bool {
        self.sent_epoch().version == region.epoch().version
    }

    fn check_epoch(&self, region: &Region) -> Checked<()> {
        ensure(self.epoch_matches(region), || {
            let sent = self.sent_epoch();
            let current = current_regions(self.topology.regions(), region, self.store_id, sent.version);
            region_error::epoch_not_match(sent, current)
        })
    }

    fn check_flashback(&self, region: &Region) -> Checked<()> {
        let start_ts = region.meta.flashback_start_ts;
        let passes = match self.entry {
            _ if !region.meta.is_in_flashback => true,
            Entry::Flashback => true,
            Entry::Read { read_ts } => read_ts != 0 && read_ts < start_ts,
            Entry::ReadToWrite | Entry::Propose => false,
        };
        ensure(passes, || region_error::flashback_in_progress(region))
    }

    fn is_stale_read(&self) -> bool {
        self.context.stale_read && matches!(self.entry, Entry::Read { read_ts } if read_ts != 0)
    }

    /// A leader whose replica is not ready serves the read as an ordinary one.
    fn check_stale_read(&self, region: &Region, safe_ts: impl Fn(&Region) -> u64) -> Checked<()> {
        let Entry::Read { read_ts } = self.entry else { return Ok(()) };
        if !self.is_stale_read() || region.leader == Some(self.store_id) {
            return Ok(());
        }
        let safe_ts = safe_ts(region);
        ensure(read_ts <= safe_ts, || region_error::data_is_not_ready(region.id(), self.peer().id, safe_ts))
    }
}

fn ensure(holds: bool, error: impl FnOnce() -> errorpb::Error) -> Checked<()> {
    if holds { Ok(()) } else { Err(Box::new(error())) }
}

fn no_leader_to_ask(region_id: u64) -> errorpb::Error {
    let reason = "can not read index due to no leader".to_owned();
    errorpb::Error {
        message: format!("region {region_id}: {reason}"),
        read_index_not_ready: Some(errorpb::ReadIndexNotReady { reason, region_id }),
        ..errorpb::Error::default()
    }
}

/// The region, and its neighbours to the left on the same store as far as they may have been split from it since the
/// version that the client knows. TiKV: `collect_sibling_region`.
pub(super) fn current_regions(
    regions: &Regions,
    region: &Region,
    store_id: u64,
    sent_version: u64,
) -> Vec<metapb::Region> {
    let mut current = vec![region.meta.clone()];
    let mut newest = region.epoch().version;
    let mut missing = newest.saturating_sub(sent_version);
    let mut neighbours =
        regions.to_the_left_of(region).filter(|left| left.peer_on(store_id).is_some()).take(MAX_SIBLINGS);
    while missing > 0 {
        let Some(left) = neighbours.next() else { break };
        let version = left.epoch().version;
        // It has been split again: there are more parts to come.
        missing = missing - 1 + version.saturating_sub(newest);
        newest = newest.max(version);
        current.push(left.meta.clone());
    }
    current
}

impl Regions {
    /// The regions before another one, from right to left.
    fn to_the_left_of<'a>(&'a self, region: &Region) -> impl Iterator<Item = &'a Region> + use<'a> {
        let mut next = self.before(region);
        std::iter::from_fn(move || {
            let left = next?;
            next = self.before(left);
            Some(left)
        })
    }
}

/// What a split has to fulfil: the region it splits, and the keys which split it. TiKV: `validate_split_region`.
///
/// Only the region's id is looked at, not the peer. Keys have to be in order; such that split nothing are left out.
pub(super) fn check_split<'a>(
    topology: &'a Topology,
    store_id: u64,
    context: &kvrpcpb::Context,
    keys: &[Key],
) -> Checked<(&'a Region, Vec<Key>)> {
    let request = RequestCheck { topology, store_id, context, entry: Entry::Propose };
    let region = request.find_region()?;
    request.check_leader(region)?;
    ensure(!keys.is_empty(), || region_error::other("no split key is specified"))?;
    ensure(request.epoch_matches(region), || {
        // Neighbours are left out here.
        region_error::epoch_not_match(request.sent_epoch(), vec![region.meta.clone()])
    })?;
    let bounds = region.bounds();
    for key in keys {
        ensure(!key.is_empty(), || region_error::other("a split key is empty"))?;
        ensure(bounds.contains(key.as_slice()), || region_error::key_not_in_region(key, region))?;
    }
    let mut keys: Vec<Key> = keys.iter().filter(|key| **key != bounds.start).cloned().collect();
    keys.dedup();
    ensure(!keys.is_empty(), || region_error::other("no valid key found for split."))?;
    Ok((region, keys))
}
