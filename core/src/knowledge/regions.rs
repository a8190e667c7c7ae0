//! Where keys are.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tikv_proto::metapb;

use crate::config::Config;
use crate::key::{Key, KeyRange};
use crate::rng::Rng;
use crate::time::Time;

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
    /// Keys at which buckets begin and end, and their version; empty if unknown.
    pub buckets: Option<Arc<Buckets>>,
}

/// Finer divisions of a region, for parallel scans.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Buckets {
    /// Version of this division.
    pub version: u64,
    /// Bounds, the region's own included.
    pub keys: Vec<Key>,
}

impl Region {
    /// The replica taken for the leader.
    ///
    /// # Panics
    ///
    /// Never: [`RegionIndex::insert`] refuses regions whose leader index is out of bounds.
    #[must_use]
    pub fn leader(&self) -> &Replica {
        &self.replicas[self.leader]
    }

    /// The index of the replica on a store.
    #[must_use]
    pub fn replica_on(&self, store_id: u64) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.peer.store_id == store_id)
    }
}

/// The outcome of [`RegionIndex::insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inserted {
    /// The region is known now.
    Accepted,
    /// Something newer is known already; nothing changed.
    Stale,
    /// The region makes no sense (no replicas, no such leader, or empty range); nothing changed.
    Malformed,
}

/// Regions by the keys they hold, the newest life of each.
///
/// client-go: `locate.RegionCache`.
#[derive(Debug)]
pub struct RegionIndex {
    ttl: Duration,
    ttl_jitter: Duration,
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// By start key. A region that begins left of a newer one may still overlap it; the newer one then shadows it.
    by_start: BTreeMap<Key, Entry>,
    /// Start key of each region's newest life.
    by_id: BTreeMap<u64, Key>,
    rng: Rng,
}

#[derive(Debug)]
struct Entry {
    region: Arc<Region>,
    /// When it is to be forgotten, in nanoseconds of [`Time`]; moved by every look-up, without the write lock.
    expires: AtomicU64,
    /// Serve it, but load it again at the next look-up.
    reload: bool,
}

impl RegionIndex {
    /// An empty index.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        RegionIndex { ttl: config.region_ttl, ttl_jitter: config.region_ttl_jitter, inner: RwLock::new(Inner::new()) }
    }

    /// The region that holds `key`, unless it is unknown, expired or due for a reload. A hit keeps it alive.
    #[must_use]
    pub fn lookup(&self, now: Time, key: &[u8]) -> Option<Arc<Region>> {
        self.read(|inner| {
            let (_, entry) = inner.by_start.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
            (entry.region.range.contains(key) && self.touch(entry, now)).then(|| Arc::clone(&entry.region))
        })
    }

    /// The region that holds the greatest key below `end` (empty for the end of all keys).
    #[must_use]
    pub fn lookup_before(&self, now: Time, end: &[u8]) -> Option<Arc<Region>> {
        self.read(|inner| {
            let bound = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
            let (_, entry) = inner.by_start.range::<[u8], _>((Bound::Unbounded, bound)).next_back()?;
            let range = &entry.region.range;
            let reaches = range.end.is_empty() || (!end.is_empty() && end <= range.end.as_slice());
            (reaches && self.touch(entry, now)).then(|| Arc::clone(&entry.region))
        })
    }

    /// The same life of a region as it is known now (its leader may have changed); `None` if it is known no more.
    #[must_use]
    pub fn get(&self, ver_id: RegionVerId) -> Option<Arc<Region>> {
        self.read(|inner| inner.entry(ver_id).map(|entry| Arc::clone(&entry.region)))
    }

    /// The newest known life of a region.
    #[must_use]
    pub fn get_by_id(&self, id: u64) -> Option<Arc<Region>> {
        self.read(|inner| {
            let entry = inner.by_start.get(inner.by_id.get(&id)?)?;
            Some(Arc::clone(&entry.region))
        })
    }

    /// Learns a region. Refused if the same region is known with a larger version or configuration version, or if a
    /// newer region is known within its bounds; else everything that begins within its bounds is forgotten.
    pub fn insert(&self, now: Time, region: Region) -> Inserted {
        if region.leader >= region.replicas.len() || region.range.is_empty() {
            return Inserted::Malformed;
        }
        self.write(|inner| {
            if inner.is_stale(&region) {
                return Inserted::Stale;
            }
            inner.remove_overlapped(&region);
            let expires = now + self.ttl + inner.jitter(self.ttl_jitter);
            let start = region.range.start.clone();
            inner.by_id.insert(region.ver_id.id, start.clone());
            let entry = Entry { region: Arc::new(region), expires: AtomicU64::new(expires.as_nanos()), reload: false };
            inner.by_start.insert(start, entry);
            Inserted::Accepted
        })
    }

    /// A store said that another replica leads. Returns whether that replica is known (and now taken for the leader).
    pub fn switch_leader(&self, ver_id: RegionVerId, leader_store_id: u64) -> bool {
        self.update(ver_id, |entry| {
            let Some(index) = entry.region.replica_on(leader_store_id) else { return false };
            if index != entry.region.leader {
                Arc::make_mut(&mut entry.region).leader = index;
            }
            true
        })
    }

    /// Learns newer buckets of a region. Older ones are ignored.
    pub fn learn_buckets(&self, ver_id: RegionVerId, buckets: Buckets) -> bool {
        self.update(ver_id, |entry| {
            if entry.region.buckets.as_ref().is_some_and(|known| known.version >= buckets.version) {
                return false;
            }
            Arc::make_mut(&mut entry.region).buckets = Some(Arc::new(buckets));
            true
        })
    }

    /// Forgets this life of a region. Returns whether it was known.
    pub fn invalidate(&self, ver_id: RegionVerId) -> bool {
        self.write(|inner| {
            if inner.entry(ver_id).is_none() {
                return false;
            }
            let start = inner.by_id.remove(&ver_id.id);
            start.is_some_and(|start| inner.by_start.remove(&start).is_some())
        })
    }

    /// Makes the next look-up miss, so that the region is loaded again; running operations may go on with it.
    pub fn request_reload(&self, ver_id: RegionVerId) -> bool {
        self.update(ver_id, |entry| {
            entry.reload = true;
            true
        })
    }

    /// Forgets regions that nobody has looked up for their time to live, at most `limit`. Returns how many.
    pub fn collect_expired(&self, now: Time, limit: usize) -> usize {
        self.write(|inner| {
            let expired: Vec<_> = inner
                .by_start
                .values()
                .filter(|entry| entry.expires.load(Ordering::Relaxed) <= now.as_nanos())
                .map(|entry| entry.region.ver_id)
                .take(limit)
                .collect();
            for ver_id in &expired {
                inner.forget(*ver_id);
            }
            expired.len()
        })
    }

    /// How many regions are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read(|inner| inner.by_start.len())
    }

    /// Whether no region is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Known regions in the order of their keys.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Region>> {
        self.read(|inner| inner.by_start.values().map(|entry| Arc::clone(&entry.region)).collect())
    }

    /// Whether the entry is fresh; if so, its life is prolonged.
    fn touch(&self, entry: &Entry, now: Time) -> bool {
        let expires = entry.expires.load(Ordering::Relaxed);
        if entry.reload || expires <= now.as_nanos() {
            return false;
        }
        // Written only when it moves by more than the jitter, so that a hot region's line stays shared between cores.
        let prolonged = (now + self.ttl).as_nanos();
        if prolonged > expires.saturating_add(self.ttl_jitter.as_nanos() as u64) {
            entry.expires.fetch_max(prolonged, Ordering::Relaxed);
        }
        true
    }

    fn update(&self, ver_id: RegionVerId, update: impl FnOnce(&mut Entry) -> bool) -> bool {
        self.write(|inner| inner.entry_mut(ver_id).is_some_and(update))
    }

    fn read<R>(&self, f: impl FnOnce(&Inner) -> R) -> R {
        f(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        f(&mut self.inner.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Clone for RegionIndex {
    fn clone(&self) -> Self {
        RegionIndex { ttl: self.ttl, ttl_jitter: self.ttl_jitter, inner: RwLock::new(self.read(Inner::deep_clone)) }
    }
}

impl Inner {
    fn new() -> Self {
        Inner { by_start: BTreeMap::new(), by_id: BTreeMap::new(), rng: Rng::new(0) }
    }

    fn entry(&self, ver_id: RegionVerId) -> Option<&Entry> {
        let entry = self.by_start.get(self.by_id.get(&ver_id.id)?)?;
        (entry.region.ver_id == ver_id).then_some(entry)
    }

    fn entry_mut(&mut self, ver_id: RegionVerId) -> Option<&mut Entry> {
        let entry = self.by_start.get_mut(self.by_id.get(&ver_id.id)?)?;
        (entry.region.ver_id == ver_id).then_some(entry)
    }

    fn is_stale(&self, region: &Region) -> bool {
        let new = region.ver_id;
        let same_id = self.by_id.get(&new.id).and_then(|start| self.by_start.get(start));
        if same_id.is_some_and(|known| {
            known.region.ver_id.version > new.version || known.region.ver_id.conf_ver > new.conf_ver
        }) {
            return true;
        }
        self.starting_within(&region.range).any(|known| known.region.ver_id.version > new.version)
    }

    fn remove_overlapped(&mut self, region: &Region) {
        let overlapped: Vec<_> = self.starting_within(&region.range).map(|entry| entry.region.ver_id).collect();
        for ver_id in overlapped {
            self.forget(ver_id);
        }
        // An older life of the same region may begin elsewhere.
        if let Some(start) = self.by_id.remove(&region.ver_id.id) {
            self.by_start.remove(&start);
        }
    }

    fn forget(&mut self, ver_id: RegionVerId) {
        if let Some(start) = self.by_id.remove(&ver_id.id) {
            self.by_start.remove(&start);
        }
    }

    fn starting_within(&self, range: &KeyRange) -> impl Iterator<Item = &Entry> {
        let end = if range.end.is_empty() { Bound::Unbounded } else { Bound::Excluded(&range.end) };
        self.by_start.range::<Key, _>((Bound::Included(&range.start), end)).map(|(_, entry)| entry)
    }

    /// Spreads expiry, so that regions learnt together are not forgotten together.
    fn jitter(&mut self, jitter: Duration) -> Duration {
        Duration::from_nanos(self.rng.below(jitter.as_nanos() as u64))
    }

    fn deep_clone(&self) -> Inner {
        let by_start = self.by_start.iter().map(|(start, entry)| {
            let entry = Entry {
                region: Arc::clone(&entry.region),
                expires: AtomicU64::new(entry.expires.load(Ordering::Relaxed)),
                reload: entry.reload,
            };
            (start.clone(), entry)
        });
        Inner { by_start: by_start.collect(), by_id: self.by_id.clone(), rng: self.rng.clone() }
    }
}
