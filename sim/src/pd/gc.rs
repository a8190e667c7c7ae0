//! Garbage collection: what may still be read (the txn safe point), what is already being dropped (the GC safe point), and
//! the barriers which hold the first back.
//!
//! - Neither safe point ever goes back, and the GC safe point never passes the txn safe point.
//! - A barrier cannot be set below the txn safe point; until it expires or is deleted, the txn safe point stops at it.
//! - Keyspaces collect together (as the *null* keyspace) unless their settings say otherwise.
//!
//! The txn safe point is kept where older clients look for it and write it, in PD's key-value store. PD: `GCStateManager`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tikv_core::key::{Key, KeyRange};
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_proto::pdpb::KeyspaceScope;
use tikv_proto::pdpb::keyspace_scope::Keyspace;

use super::keyspaces::{GC_MANAGEMENT_TYPE, KEYSPACE_LEVEL};
use super::{NULL_KEYSPACE, Pd};
use crate::cluster::keyspace_prefix;

/// The barrier that older garbage collectors set for themselves: it stands for the txn safe point.
pub(super) const GC_WORKER: &str = "gc_worker";
/// The backup tool's barrier, which holds all keyspaces back.
pub(super) const NATIVE_BR: &str = "native_br";

/// The largest id of a keyspace.
const MAX_KEYSPACE_ID: u32 = 0xFF_FFFF;

/// What PD knows of garbage collection, beside the txn safe points.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gc {
    safe_points: BTreeMap<u32, u64>,
    /// Keyspaces whose GC safe point has advanced since stores have been told.
    advanced: BTreeSet<u32>,
    barriers: BTreeMap<u32, BTreeMap<String, Barrier>>,
    global_barriers: BTreeMap<String, Barrier>,
}

/// Something that needs old versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Barrier {
    pub(super) ts: u64,
    /// `None` is never.
    pub(super) expires: Option<Time>,
}

impl Barrier {
    fn is_alive(&self, now: Time) -> bool {
        self.expires.is_none_or(|at| now < at)
    }

    /// Seconds until it expires; the largest number if it never does.
    pub(super) fn ttl_seconds(&self, now: Time) -> i64 {
        self.expires.map_or(i64::MAX, |at| i64::try_from(at.saturating_since(now).as_secs()).unwrap_or(i64::MAX))
    }
}

/// Why PD refuses a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GcError {
    #[error("invalid argument {0}")]
    InvalidArgument(&'static str),
    #[error("GC barrier id {0:?} is reserved")]
    ReservedId(String),
    #[error("keyspace {0} does not exist")]
    NoKeyspace(u32),
    #[error("keyspace {0} leaves garbage collection to others")]
    NotKeyspaceLevel(u32),
    #[error("trying to update GC safe point to a smaller value, current value: {current}, given: {target}")]
    DecreasingGcSafePoint { current: u64, target: u64 },
    #[error("trying to update txn safe point to a smaller value, current value: {current}, given: {target}")]
    DecreasingTxnSafePoint { current: u64, target: u64 },
    #[error("GC safe point {target} would exceed the txn safe point {txn_safe_point}")]
    ExceedsTxnSafePoint { target: u64, txn_safe_point: u64 },
    #[error("GC barrier at {ts} lies behind the txn safe point {txn_safe_point}")]
    BehindTxnSafePoint { ts: u64, txn_safe_point: u64 },
}

/// How far the txn safe point got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advanced {
    pub(super) old: u64,
    pub(super) new: u64,
    /// The barrier that holds it back: its name, and a description.
    pub(super) blocker: Option<(String, String)>,
}

/// The keyspace that a request is for.
pub(super) fn keyspace_id(scope: Option<&KeyspaceScope>) -> u32 {
    match scope.map(|scope| scope.keyspace.as_ref()) {
        Some(Some(Keyspace::KeyspaceId(id))) => *id,
        // Without an id protocol buffers read a zero.
        Some(_) => 0,
        None => NULL_KEYSPACE,
    }
}

/// The transactional keys of a keyspace.
fn keyspace_range(id: u32) -> KeyRange {
    let [start, end] = [id, id + 1].map(|id| Key::from(&keyspace_prefix(b'x', id)));
    KeyRange { start, end }
}

fn txn_safe_point_key(keyspace_id: u32) -> String {
    match keyspace_id {
        NULL_KEYSPACE => "/tidb/store/gcworker/saved_safe_point".to_owned(),
        id => format!("/keyspaces/tidb/{id}/tidb/store/gcworker/saved_safe_point"),
    }
}

impl Pd {
    /// The keyspace whose state counts for another. Who collects by itself is strict about it (`is_collector`), all others
    /// are served by whoever collects for them.
    pub(super) fn gc_keyspace(&self, id: u32, is_collector: bool) -> Result<u32, GcError> {
        if id > MAX_KEYSPACE_ID {
            return Ok(NULL_KEYSPACE);
        }
        let keyspace = self.keyspaces.get(&id).ok_or(GcError::NoKeyspace(id))?;
        let collects = keyspace.config.get(GC_MANAGEMENT_TYPE).is_some_and(|kind| kind == KEYSPACE_LEVEL);
        match (collects, is_collector) {
            (true, _) => Ok(id),
            (false, false) => Ok(NULL_KEYSPACE),
            (false, true) => Err(GcError::NotKeyspaceLevel(id)),
        }
    }

    pub(super) fn gc_safe_point(&self, keyspace_id: u32) -> u64 {
        self.gc.safe_points.get(&keyspace_id).copied().unwrap_or(0)
    }

    pub(super) fn txn_safe_point(&self, keyspace_id: u32) -> u64 {
        let stored = self.kv.get(&txn_safe_point_key(keyspace_id));
        stored.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()).unwrap_or(0)
    }

    /// The barriers that stand.
    pub(super) fn barriers(&self, now: Time, keyspace_id: u32) -> impl Iterator<Item = (&String, &Barrier)> {
        let all = self.gc.barriers.get(&keyspace_id).into_iter().flatten();
        all.filter(move |(_, barrier)| barrier.is_alive(now))
    }

    /// The barriers that stand for all keyspaces.
    pub(super) fn global_barriers(&self, now: Time) -> impl Iterator<Item = (&String, &Barrier)> {
        self.gc.global_barriers.iter().filter(move |(_, barrier)| barrier.is_alive(now))
    }

    /// All keyspaces that collect by themselves, the null keyspace first.
    pub(super) fn collecting_keyspaces(&self) -> impl Iterator<Item = u32> {
        let own = self.keyspaces.keys().filter(|id| self.gc_keyspace(**id, true).is_ok());
        std::iter::once(NULL_KEYSPACE).chain(own.copied())
    }

    /// The old GC safe point; `target` is the new one.
    pub(super) fn advance_gc_safe_point(&mut self, keyspace_id: u32, target: u64) -> Result<u64, GcError> {
        let current = self.gc_safe_point(keyspace_id);
        let txn_safe_point = self.txn_safe_point(keyspace_id);
        if target < current {
            return Err(GcError::DecreasingGcSafePoint { current, target });
        }
        if target > txn_safe_point {
            return Err(GcError::ExceedsTxnSafePoint { target, txn_safe_point });
        }
        if target > current {
            self.gc.safe_points.insert(keyspace_id, target);
            self.gc.advanced.insert(keyspace_id);
        }
        Ok(current)
    }

    /// Which keys may be collected up to where, that might not before.
    pub(crate) fn take_garbage_ranges(&mut self) -> Vec<(KeyRange, Timestamp)> {
        let mut ranges = Vec::new();
        for keyspace_id in std::mem::take(&mut self.gc.advanced) {
            let safe_point = Timestamp::from_version(self.gc_safe_point(keyspace_id));
            let collected =
                if keyspace_id == NULL_KEYSPACE { self.shared_ranges() } else { vec![keyspace_range(keyspace_id)] };
            ranges.extend(collected.into_iter().map(|range| (range, safe_point)));
        }
        ranges
    }

    /// The keys of all keyspaces that collect together: what the others leave.
    fn shared_ranges(&self) -> Vec<KeyRange> {
        let mut ranges = Vec::new();
        let mut start = Key::EMPTY;
        for own in self.collecting_keyspaces().filter(|id| *id != NULL_KEYSPACE).map(keyspace_range) {
            ranges.push(KeyRange { start, end: own.start });
            start = own.end;
        }
        ranges.push(KeyRange { start, end: Key::EMPTY });
        ranges
    }

    /// Goes as far as barriers let it.
    pub(super) fn advance_txn_safe_point(
        &mut self,
        now: Time,
        keyspace_id: u32,
        target: u64,
    ) -> Result<Advanced, GcError> {
        let old = self.txn_safe_point(keyspace_id);
        if target < old {
            return Err(GcError::DecreasingTxnSafePoint { current: old, target });
        }
        self.drop_expired(now);
        let local = self.barriers(now, keyspace_id).filter(|(id, _)| *id != GC_WORKER);
        let lowest = local.chain(self.global_barriers(now)).min_by_key(|(_, barrier)| barrier.ts);
        let blocker = lowest.filter(|(_, barrier)| barrier.ts < target);
        let reached = blocker.map_or(target, |(_, barrier)| barrier.ts);
        let describe = |(id, barrier): (&String, &Barrier)| {
            (id.clone(), format!("GCBarrier {{ BarrierID: {id:?}, BarrierTS: {} }}", barrier.ts))
        };
        let blocker = blocker.map(describe);
        let new = old.max(reached);
        self.kv.put(txn_safe_point_key(keyspace_id), new.to_string());
        Ok(Advanced { old, new, blocker })
    }

    /// What has expired must never count again, not even if a clock goes back.
    fn drop_expired(&mut self, now: Time) {
        for barriers in self.gc.barriers.values_mut() {
            barriers.retain(|_, barrier| barrier.is_alive(now));
        }
        self.gc.global_barriers.retain(|_, barrier| barrier.is_alive(now));
    }

    pub(super) fn set_barrier(
        &mut self,
        now: Time,
        keyspace_id: u32,
        id: &str,
        ts: u64,
        ttl_seconds: i64,
    ) -> Result<Barrier, GcError> {
        check_barrier_id(id)?;
        let barrier = new_barrier(now, ts, ttl_seconds)?;
        check_not_behind(ts, self.txn_safe_point(keyspace_id))?;
        self.gc.barriers.entry(keyspace_id).or_default().insert(id.to_owned(), barrier);
        Ok(barrier)
    }

    pub(super) fn delete_barrier(&mut self, keyspace_id: u32, id: &str) -> Result<Option<Barrier>, GcError> {
        check_barrier_id(id)?;
        Ok(self.gc.barriers.get_mut(&keyspace_id).and_then(|barriers| barriers.remove(id)))
    }

    pub(super) fn set_global_barrier(
        &mut self,
        now: Time,
        id: &str,
        ts: u64,
        ttl_seconds: i64,
    ) -> Result<Barrier, GcError> {
        check_barrier_id(id)?;
        let barrier = new_barrier(now, ts, ttl_seconds)?;
        let newest = self.collecting_keyspaces().map(|id| self.txn_safe_point(id)).max().unwrap_or(0);
        check_not_behind(ts, newest)?;
        self.gc.global_barriers.insert(id.to_owned(), barrier);
        Ok(barrier)
    }

    pub(super) fn delete_global_barrier(&mut self, id: &str) -> Result<Option<Barrier>, GcError> {
        check_barrier_id(id)?;
        Ok(self.gc.global_barriers.remove(id))
    }

    /// A service safe point is a barrier by its old name; `gc_worker`'s is the txn safe point. The lowest one: whose it is,
    /// and where.
    pub(super) fn update_service_safe_point(
        &mut self,
        now: Time,
        keyspace_id: u32,
        service: &str,
        ts: u64,
        ttl_seconds: i64,
    ) -> Result<(String, u64), GcError> {
        if service == GC_WORKER {
            if ttl_seconds != i64::MAX {
                return Err(GcError::InvalidArgument("TTL of gc_worker's service safe point must be infinity"));
            }
            let advanced = self.advance_txn_safe_point(now, keyspace_id, ts)?;
            let blocker = advanced.blocker.map_or_else(|| GC_WORKER.to_owned(), |(id, _)| id);
            return Ok((blocker, advanced.new));
        }
        let is_global = service == NATIVE_BR && keyspace_id == NULL_KEYSPACE;
        let set = match (ttl_seconds > 0, is_global) {
            (true, true) => self.set_global_barrier(now, service, ts, ttl_seconds).map(drop),
            (true, false) => self.set_barrier(now, keyspace_id, service, ts, ttl_seconds).map(drop),
            (false, true) => self.delete_global_barrier(service).map(drop),
            (false, false) => self.delete_barrier(keyspace_id, service).map(drop),
        };
        match set {
            // The caller sees from the answer that he came too late.
            Ok(()) | Err(GcError::BehindTxnSafePoint { .. }) => {
                Ok((GC_WORKER.to_owned(), self.txn_safe_point(keyspace_id)))
            }
            Err(error) => Err(error),
        }
    }
}

fn check_barrier_id(id: &str) -> Result<(), GcError> {
    match id {
        "" => Err(GcError::InvalidArgument("barrierID")),
        GC_WORKER => Err(GcError::ReservedId(id.to_owned())),
        _ => Ok(()),
    }
}

fn check_not_behind(ts: u64, txn_safe_point: u64) -> Result<(), GcError> {
    if ts < txn_safe_point { Err(GcError::BehindTxnSafePoint { ts, txn_safe_point }) } else { Ok(()) }
}

fn new_barrier(now: Time, ts: u64, ttl_seconds: i64) -> Result<Barrier, GcError> {
    let ttl = u64::try_from(ttl_seconds).ok().filter(|ttl| *ttl > 0).ok_or(GcError::InvalidArgument("ttl"))?;
    let expires = now + Duration::from_secs(ttl);
    Ok(Barrier { ts, expires: Some(expires).filter(|at| *at < Time::MAX) })
}
