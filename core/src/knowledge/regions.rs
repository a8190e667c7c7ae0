//! Where keys are.

mod region;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tikv_proto::metapb;

pub use self::region::{Buckets, Region, RegionVerId, Replica};
use super::stores::StoreRegistry;
use crate::config::Config;
use crate::key::{Key, KeyRange};
use crate::rng::Rng;
use crate::time::Time;

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
/// A region that has been invalidated is never found again, but what was learnt of it stays until something takes its place
/// or [`RegionIndex::sweep`] comes by: it tells stale news of the region from fresh ones, and its buckets are inherited.
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
    /// Where the next sweep begins.
    swept: Key,
    rng: Rng,
}

#[derive(Debug)]
struct Entry {
    region: Arc<Region>,
    state: State,
    /// When it is to be forgotten, in nanoseconds of [`Time`]; moved by look-ups, without the write lock.
    expires: AtomicU64,
    /// Whether look-ups move it.
    kept_alive: bool,
    /// From which prolongations get their jitter.
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Valid,
    /// Running operations may go on with it, look-ups miss.
    ToReload,
    Invalid,
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

    /// The region that holds the greatest key below `end` (empty for the end of all keys). Otherwise as
    /// [`RegionIndex::lookup`].
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

    /// The newest known life of the region `id`. Otherwise as [`RegionIndex::lookup`].
    #[must_use]
    pub fn lookup_id(&self, now: Time, id: u64) -> Option<Arc<Region>> {
        self.read(|inner| {
            let entry = inner.by_start.get(inner.by_id.get(&id)?)?;
            self.touch(entry, now).then(|| Arc::clone(&entry.region))
        })
    }

    /// The same life of a region as it is known now (its leader may have changed); `None` if it is known no more.
    #[must_use]
    pub fn get(&self, ver_id: RegionVerId) -> Option<Arc<Region>> {
        self.read(|inner| inner.entry(ver_id).map(|entry| Arc::clone(&entry.region)))
    }

    /// Learns a region. Refused if the same region has been seen with a larger version or configuration version, or if a
    /// newer region has been seen within its bounds; else everything that begins within its bounds is forgotten.
    pub fn insert(&self, now: Time, region: Region) -> Inserted {
        self.insert_unless(now, region, Inner::is_stale)
    }

    /// Learns a region from the leader of PD, which knows best: only a newer region that is in use speaks against it, not
    /// one that has been invalidated or has expired.
    pub fn insert_from_pd_leader(&self, now: Time, region: Region) -> Inserted {
        self.insert_unless(now, region, |inner, region| inner.is_older_than_known(region, |known| known.is_usable(now)))
    }

    /// A store said that this peer leads. Returns whether the peer is known (and now taken for the leader).
    pub fn switch_leader(&self, ver_id: RegionVerId, leader: &metapb::Peer) -> bool {
        self.update(ver_id, |entry| {
            let Some(index) = entry.region.replica_of(leader) else { return false };
            if index != entry.region.leader {
                Arc::make_mut(&mut entry.region).leader = index;
            }
            true
        })
    }

    /// Learns newer buckets of a region. Older ones are ignored. Returns whether they were newer.
    pub fn learn_buckets(&self, ver_id: RegionVerId, buckets: Buckets) -> bool {
        self.update(ver_id, |entry| {
            let newer = entry.region.buckets.as_ref().is_none_or(|known| known.version < buckets.version);
            if newer {
                Arc::make_mut(&mut entry.region).buckets = Some(Arc::new(buckets));
            }
            newer
        })
    }

    /// This life of a region has ended, or was never what it seemed. Returns whether this was the first to say so.
    pub fn invalidate(&self, ver_id: RegionVerId) -> bool {
        self.update(ver_id, |entry| {
            entry.state = State::Invalid;
            true
        })
    }

    /// Makes look-ups miss, so that the region is loaded again; running operations may go on with it.
    pub fn request_reload(&self, ver_id: RegionVerId) -> bool {
        self.update(ver_id, |entry| {
            entry.state = State::ToReload;
            true
        })
    }

    /// Some of its replicas cannot be used: look-ups no longer keep the region alive, so that it is loaded again, with those
    /// that have come back, when its time has passed. client-go: `needExpireAfterTTL`.
    pub fn let_expire(&self, ver_id: RegionVerId) -> bool {
        self.update(ver_id, |entry| {
            entry.kept_alive = false;
            true
        })
    }

    /// Looks at `limit` regions, going on where the last call ended: forgets those that are invalid or that nobody has looked
    /// up for their time to live, and [lets those expire](RegionIndex::let_expire) that have a replica on a store that failed
    /// since. Returns how many were forgotten. To be called now and then, say with 50 every second.
    pub fn sweep(&self, now: Time, stores: &StoreRegistry, limit: usize) -> usize {
        let (seen, next) = self.read(|inner| {
            let mut rest = inner.by_start.range::<Key, _>((Bound::Included(&inner.swept), Bound::Unbounded));
            let seen: Vec<_> = rest.by_ref().take(limit.max(1)).map(|(_, entry)| Arc::clone(&entry.region)).collect();
            (seen, rest.next().map_or(Key::EMPTY, |(start, _)| start.clone()))
        });
        let has_failed = |replica: &Replica| stores.get_at(replica.peer.store_id, replica.store_epoch).is_none();
        let incomplete: Vec<_> = seen.iter().map(|region| region.replicas.iter().any(has_failed)).collect();
        self.write(|inner| {
            inner.swept = next;
            let mut forgotten = 0;
            for (region, incomplete) in seen.iter().zip(incomplete) {
                match inner.by_start.get_mut(&region.range.start) {
                    Some(entry) if !entry.is_usable(now) => {
                        let ver_id = entry.region.ver_id;
                        inner.forget(ver_id);
                        forgotten += 1;
                    }
                    Some(entry) if incomplete && entry.region.ver_id == region.ver_id => entry.kept_alive = false,
                    _ => {}
                }
            }
            forgotten
        })
    }

    /// How many regions are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read(|inner| inner.by_start.values().filter(|entry| entry.state != State::Invalid).count())
    }

    /// Whether no region is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Known regions in the order of their keys.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Region>> {
        self.read(|inner| {
            let known = inner.by_start.values().filter(|entry| entry.state != State::Invalid);
            known.map(|entry| Arc::clone(&entry.region)).collect()
        })
    }

    /// Whether the entry is to be found by look-ups; if so, its life is prolonged.
    fn touch(&self, entry: &Entry, now: Time) -> bool {
        if entry.state != State::Valid {
            return false;
        }
        let expires = entry.expires.load(Ordering::Relaxed);
        if expires <= now.as_nanos() {
            return false;
        }
        // Still ahead by part of the jitter: not written, so that a hot region's line stays shared between cores.
        if entry.kept_alive && expires <= (now + self.ttl).as_nanos() {
            entry.expires.fetch_max(self.expiry(entry.seed, now).as_nanos(), Ordering::Relaxed);
        }
        true
    }

    /// The time to live from now on, spread so that regions looked up together are not forgotten together.
    fn expiry(&self, seed: u64, now: Time) -> Time {
        let jitter = u64::try_from(self.ttl_jitter.as_nanos()).unwrap_or(u64::MAX);
        now + self.ttl + Duration::from_nanos(Rng::new(seed ^ now.as_nanos()).below(jitter))
    }

    fn insert_unless(&self, now: Time, region: Region, is_stale: impl FnOnce(&Inner, &Region) -> bool) -> Inserted {
        if region.leader >= region.replicas.len() || region.range.is_empty() {
            return Inserted::Malformed;
        }
        self.write(|inner| {
            if is_stale(inner, &region) {
                return Inserted::Stale;
            }
            let seed = inner.rng.next_u64();
            inner.replace(region, seed, self.expiry(seed, now));
            Inserted::Accepted
        })
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
        Inner { by_start: BTreeMap::new(), by_id: BTreeMap::new(), swept: Key::EMPTY, rng: Rng::new(0) }
    }

    fn entry(&self, ver_id: RegionVerId) -> Option<&Entry> {
        self.entry_of(ver_id.id).filter(|entry| entry.is(ver_id))
    }

    fn entry_mut(&mut self, ver_id: RegionVerId) -> Option<&mut Entry> {
        self.by_start.get_mut(self.by_id.get(&ver_id.id)?).filter(|entry| entry.is(ver_id))
    }

    /// The newest life of a region, invalid or not.
    fn entry_of(&self, id: u64) -> Option<&Entry> {
        self.by_start.get(self.by_id.get(&id)?)
    }

    fn is_stale(&self, region: &Region) -> bool {
        self.is_older_than_known(region, |_| true)
    }

    fn is_older_than_known(&self, region: &Region, counts: impl Fn(&Entry) -> bool) -> bool {
        let new = region.ver_id;
        let same = self.entry_of(new.id).filter(|known| counts(known)).map(|known| known.region.ver_id);
        if same.is_some_and(|known| known.version > new.version || known.conf_ver > new.conf_ver) {
            return true;
        }
        let mut within = self.starting_within(&region.range).filter(|known| counts(known));
        within.any(|known| known.region.ver_id.version > new.version)
    }

    /// Puts a region into the place of everything that begins within its bounds, and of its own earlier life.
    fn replace(&mut self, mut region: Region, seed: u64, expires: Time) {
        if let Some(buckets) = self.inherited_buckets(&region) {
            region.buckets = Some(buckets);
        }
        let replaced: Vec<_> = self.starting_within(&region.range).map(|entry| entry.region.ver_id).collect();
        for ver_id in replaced {
            self.forget(ver_id);
        }
        self.forget(region.ver_id);
        let start = region.range.start.clone();
        self.by_id.insert(region.ver_id.id, start.clone());
        let entry = Entry {
            region: Arc::new(region),
            state: State::Valid,
            expires: AtomicU64::new(expires.as_nanos()),
            kept_alive: true,
            seed,
        };
        self.by_start.insert(start, entry);
    }

    /// PD does not always tell buckets, and stores never do: those of the region's earlier life, or of the first region it
    /// takes the place of, are a good guess, unless the new ones are at least as new.
    fn inherited_buckets(&self, region: &Region) -> Option<Arc<Buckets>> {
        let before = self.entry_of(region.ver_id.id).or_else(|| self.starting_within(&region.range).next())?;
        let known = before.region.buckets.as_ref()?;
        let newer = region.buckets.as_ref().is_none_or(|new| new.version < known.version);
        newer.then(|| Arc::clone(known))
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

    fn deep_clone(&self) -> Inner {
        let by_start = self.by_start.iter().map(|(start, entry)| (start.clone(), entry.deep_clone()));
        Inner {
            by_start: by_start.collect(),
            by_id: self.by_id.clone(),
            swept: self.swept.clone(),
            rng: self.rng.clone(),
        }
    }
}

impl Entry {
    /// Whether this is that life of its region, and still believed in.
    fn is(&self, ver_id: RegionVerId) -> bool {
        self.region.ver_id == ver_id && self.state != State::Invalid
    }

    fn is_usable(&self, now: Time) -> bool {
        self.state != State::Invalid && self.expires.load(Ordering::Relaxed) > now.as_nanos()
    }

    fn deep_clone(&self) -> Entry {
        Entry {
            region: Arc::clone(&self.region),
            state: self.state,
            expires: AtomicU64::new(self.expires.load(Ordering::Relaxed)),
            kept_alive: self.kept_alive,
            seed: self.seed,
        }
    }
}
