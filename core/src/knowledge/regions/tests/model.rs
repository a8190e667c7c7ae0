//! The index against a model that is slow and obvious: a list of regions, searched from end to end.

use quickcheck::{Arbitrary, Gen, quickcheck};

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Insert { region: Region, from_pd_leader: bool },
    Invalidate(RegionVerId),
    RequestReload(RegionVerId),
    LetExpire(RegionVerId),
    SwitchLeader(RegionVerId, u64),
    LearnBuckets(RegionVerId, u64),
    Advance(Duration),
    FailStore,
    Sweep,
    Lookup(u8),
    LookupBefore(u8),
    LookupId(u64),
}

/// Bounds of regions: the first is the start of all keys, and, as an end, the end of all keys.
const BOUNDS: [&str; 7] = ["", "b", "d", "f", "h", "j", "l"];
/// Keys at, between and beyond the bounds.
const KEYS: [&str; 14] = ["", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"];
const IDS: std::ops::RangeInclusive<u64> = 1..=4;

fn below(g: &mut Gen, bound: u64) -> u64 {
    u64::arbitrary(g) % bound
}

fn ver_id(g: &mut Gen) -> RegionVerId {
    RegionVerId { id: 1 + below(g, 4), conf_ver: 1 + below(g, 2), version: 1 + below(g, 4) }
}

fn any_region(g: &mut Gen) -> Region {
    let ver_id = ver_id(g);
    let start = below(g, 6) as usize;
    // Now and then empty, which is refused.
    let end = (start + below(g, 4) as usize) % BOUNDS.len();
    let plain = region(ver_id.id, ver_id.conf_ver, ver_id.version, BOUNDS[start]..BOUNDS[end]);
    let plain = Region { leader: below(g, 3) as usize, ..plain };
    match below(g, 4) {
        0 => with_buckets(1 + below(g, 4), plain),
        _ => plain,
    }
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        match below(g, 24) {
            0..=9 => Step::Insert { region: any_region(g), from_pd_leader: bool::arbitrary(g) },
            10..=11 => Step::Invalidate(ver_id(g)),
            12 => Step::RequestReload(ver_id(g)),
            13 => Step::LetExpire(ver_id(g)),
            14 => Step::SwitchLeader(ver_id(g), 1 + below(g, 4)),
            15 => Step::LearnBuckets(ver_id(g), 1 + below(g, 4)),
            16..=17 => Step::Advance(TTL / 4 * (1 + below(g, 4)) as u32),
            18 => Step::FailStore,
            19 => Step::Sweep,
            20..=21 => Step::Lookup(u8::arbitrary(g) % KEYS.len() as u8),
            22 => Step::LookupBefore(u8::arbitrary(g) % KEYS.len() as u8),
            _ => Step::LookupId(1 + below(g, 4)),
        }
    }
}

#[derive(Default)]
struct Model {
    known: Vec<Known>,
    a_store_failed: bool,
}

struct Known {
    region: Region,
    valid: bool,
    to_reload: bool,
    kept_alive: bool,
    expires: Time,
}

impl Known {
    fn is_usable(&self, now: Time) -> bool {
        self.valid && now < self.expires
    }

    fn begins_within(&self, range: &KeyRange) -> bool {
        range.contains(self.region.range.start.as_slice())
    }
}

impl Model {
    fn insert(&mut self, now: Time, mut region: Region, from_pd_leader: bool) -> Inserted {
        if region.range.is_empty() {
            return Inserted::Malformed;
        }
        let new = region.ver_id;
        let newer = |known: &&Known| {
            let old = known.region.ver_id;
            let same = old.id == new.id && (old.version > new.version || old.conf_ver > new.conf_ver);
            same || (known.begins_within(&region.range) && old.version > new.version)
        };
        if self.known.iter().filter(|known| !from_pd_leader || known.is_usable(now)).any(|known| newer(&known)) {
            return Inserted::Stale;
        }
        let before = self.known.iter().find(|known| known.region.ver_id.id == new.id);
        let within = self.known.iter().filter(|known| known.begins_within(&region.range));
        let before = before.or(within.min_by(|a, b| a.region.range.start.cmp(&b.region.range.start)));
        let version = |buckets: &Option<Arc<Buckets>>| buckets.as_ref().map_or(0, |buckets| buckets.version);
        if let Some(old) = before.filter(|old| version(&old.region.buckets) > version(&region.buckets)) {
            region.buckets = old.region.buckets.clone();
        }
        self.known.retain(|known| known.region.ver_id.id != new.id && !known.begins_within(&region.range));
        self.known.push(Known { region, valid: true, to_reload: false, kept_alive: true, expires: now + TTL });
        Inserted::Accepted
    }

    fn get(&mut self, ver_id: RegionVerId) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.region.ver_id == ver_id && known.valid)
    }

    fn sweep(&mut self, now: Time) -> usize {
        let before = self.known.len();
        self.known.retain(|known| known.is_usable(now));
        for known in &mut self.known {
            known.kept_alive &= !self.a_store_failed;
        }
        before - self.known.len()
    }

    /// The nearest region to the left of the key, if it reaches that far.
    fn lookup(&mut self, now: Time, begins: impl Fn(&Key) -> bool, reaches: impl Fn(&Key) -> bool) -> Option<Region> {
        let candidates = self.known.iter_mut().filter(|known| begins(&known.region.range.start));
        let known = candidates.max_by(|a, b| a.region.range.start.cmp(&b.region.range.start))?;
        if reaches(&known.region.range.end) { known.touch(now) } else { None }
    }
}

impl Known {
    fn touch(&mut self, now: Time) -> Option<Region> {
        if !self.is_usable(now) || self.to_reload {
            return None;
        }
        if self.kept_alive {
            self.expires = now + TTL;
        }
        Some(self.region.clone())
    }
}

fn region_of(found: Option<Arc<Region>>) -> Option<Region> {
    found.map(Arc::unwrap_or_clone)
}

/// Applies one step to both; false if they answer differently.
fn apply(step: Step, now: &mut Time, index: &RegionIndex, model: &mut Model, stores: &StoreRegistry) -> bool {
    match step {
        Step::Insert { region, from_pd_leader: false } => {
            index.insert(*now, region.clone()) == model.insert(*now, region, false)
        }
        Step::Insert { region, from_pd_leader: true } => {
            index.insert_from_pd_leader(*now, region.clone()) == model.insert(*now, region, true)
        }
        Step::Invalidate(ver_id) => {
            let known = model.get(ver_id).map(|known| known.valid = false);
            index.invalidate(ver_id) == known.is_some()
        }
        Step::RequestReload(ver_id) => {
            let known = model.get(ver_id).map(|known| known.to_reload = true);
            index.request_reload(ver_id) == known.is_some()
        }
        Step::LetExpire(ver_id) => {
            let known = model.get(ver_id).map(|known| known.kept_alive = false);
            index.let_expire(ver_id) == known.is_some()
        }
        Step::SwitchLeader(ver_id, store) => {
            let known = model.get(ver_id).filter(|_| store <= 3);
            let switched = known.map(|known| known.region.leader = store as usize - 1);
            index.switch_leader(ver_id, &peer(ver_id.id, store)) == switched.is_some()
        }
        Step::LearnBuckets(ver_id, version) => {
            let buckets = Buckets { version, keys: vec![Key::from("b")] };
            let old = |known: &Known| known.region.buckets.as_ref().map_or(0, |buckets| buckets.version);
            let known = model.get(ver_id).filter(|known| old(known) < version);
            let learnt = known.map(|known| known.region.buckets = Some(Arc::new(buckets.clone())));
            index.learn_buckets(ver_id, buckets) == learnt.is_some()
        }
        Step::Advance(duration) => {
            *now += duration;
            true
        }
        Step::FailStore => {
            model.a_store_failed = true;
            stores.report_failure(3, 0);
            true
        }
        Step::Sweep => index.sweep(*now, stores, 100) == model.sweep(*now),
        Step::Lookup(key) => {
            let key = KEYS[usize::from(key)].as_bytes();
            let reaches = |end: &Key| end.is_empty() || key < end.as_slice();
            let expected = model.lookup(*now, |start| start.as_slice() <= key, reaches);
            region_of(index.lookup(*now, key)) == expected
        }
        Step::LookupBefore(end) => {
            let end = KEYS[usize::from(end)].as_bytes();
            let begins = |start: &Key| end.is_empty() || start.as_slice() < end;
            let reaches = |known: &Key| known.is_empty() || (!end.is_empty() && end <= known.as_slice());
            let expected = model.lookup(*now, begins, reaches);
            region_of(index.lookup_before(*now, end)) == expected
        }
        Step::LookupId(id) => {
            let known = model.known.iter_mut().find(|known| known.region.ver_id.id == id);
            let expected = known.and_then(|known| known.touch(*now));
            region_of(index.lookup_id(*now, id)) == expected
        }
    }
}

/// What is remembered is the same, and the two ways to it agree.
fn agree(index: &RegionIndex, model: &Model) -> bool {
    let mut expected: Vec<_> =
        model.known.iter().filter(|known| known.valid).map(|known| known.region.clone()).collect();
    expected.sort_by(|a, b| a.range.start.cmp(&b.range.start));
    let found: Vec<_> = index.all().into_iter().map(Arc::unwrap_or_clone).collect();
    let consistent = index.read(|inner| {
        let known = |id: &u64, start: &Key| {
            let entry = inner.by_start.get(start);
            entry.is_some_and(|entry| entry.region.ver_id.id == *id && entry.region.range.start == *start)
        };
        inner.by_start.len() == inner.by_id.len() && inner.by_id.iter().all(|(id, start)| known(id, start))
    });
    let by_id = IDS.flat_map(|id| index.lookup_id(Time::ZERO, id)).all(|region| index.get(region.ver_id).is_some());
    consistent && by_id && found == expected && index.len() == expected.len()
}

quickcheck! {
    fn the_index_behaves_as_the_model(steps: Vec<Step>) -> bool {
        let (index, stores, mut model, mut now) = (index(), stores(), Model::default(), Time::ZERO);
        steps.into_iter().all(|step| apply(step, &mut now, &index, &mut model, &stores) && agree(&index, &model))
    }
}
