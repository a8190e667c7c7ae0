//! The index of regions against a map that is searched from end to end.

use std::collections::BTreeMap;

use tikv_core::config::Config;
use tikv_core::key::{Key, KeyRange};
use tikv_core::knowledge::regions::{Inserted, Region, RegionIndex, RegionVerId, Replica};
use tikv_core::time::Time;
use tikv_proto::metapb;

use crate::input::Input;

/// News of regions in any order, whatever sense they make: after each, the index finds what the model does, and no key in two
/// regions.
pub fn region_index(data: &[u8]) {
    let mut input = Input::new(data);
    let (index, mut model) = (RegionIndex::new(&Config::default()), Model::default());
    while !input.is_empty() {
        step(&mut input, &index, &mut model);
        compare(&index, &model);
    }
}

/// By start key.
#[derive(Default)]
struct Model(BTreeMap<Key, Known>);

struct Known {
    region: Region,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Valid,
    ToReload,
    Invalid,
}

fn step(input: &mut Input<'_>, index: &RegionIndex, model: &mut Model) {
    let what = input.below(8);
    let ver_id = RegionVerId {
        id: u64::from(input.below(6)),
        conf_ver: u64::from(input.below(3)),
        version: u64::from(input.below(6)),
    };
    match what {
        0..=3 => {
            let replicas = (0..input.below(3)).map(|store| Replica { peer: peer(store), store_epoch: 0 }).collect();
            let range = KeyRange { start: bound(input), end: bound(input) };
            let region = Region { ver_id, range, replicas, leader: usize::from(input.below(3)), buckets: None };
            let is_from_leader = what == 3;
            let inserted = if is_from_leader {
                index.insert_from_pd_leader(Time::ZERO, region.clone())
            } else {
                index.insert(Time::ZERO, region.clone())
            };
            assert_eq!(inserted, model.insert(region, is_from_leader));
        }
        4 => assert_eq!(index.invalidate(ver_id), model.update(ver_id, State::Invalid)),
        5 => assert_eq!(index.request_reload(ver_id), model.update(ver_id, State::ToReload)),
        _ => {
            let leader = peer(input.below(3));
            let known = model.known(ver_id).and_then(|known| Some((known.region.replica_of(&leader)?, known)));
            let switched = known.map(|(leader, known)| known.region.leader = leader).is_some();
            assert_eq!(index.switch_leader(ver_id, &leader), switched);
        }
    }
}

impl Model {
    fn insert(&mut self, region: Region, is_from_leader: bool) -> Inserted {
        if region.range.is_empty() || region.leader >= region.replicas.len() {
            return Inserted::Malformed;
        }
        let (new, range) = (region.ver_id, region.range.clone());
        let within = |start: &Key| range.contains(start.as_slice());
        let is_newer = |start: &Key, known: &Known| {
            let old = known.region.ver_id;
            let is_later_life = old.id == new.id && (old.version > new.version || old.conf_ver > new.conf_ver);
            is_later_life || (within(start) && old.version > new.version)
        };
        let counts = |known: &Known| !is_from_leader || known.state != State::Invalid;
        if self.0.iter().any(|(start, known)| counts(known) && is_newer(start, known)) {
            return Inserted::Stale;
        }
        self.0.retain(|start, known| known.region.ver_id.id != new.id && !within(start));
        self.0.insert(range.start.clone(), Known { region, state: State::Valid });
        Inserted::Accepted
    }

    /// That life of the region, unless it has ended.
    fn known(&mut self, ver_id: RegionVerId) -> Option<&mut Known> {
        self.0.values_mut().find(|known| known.region.ver_id == ver_id && known.state != State::Invalid)
    }

    fn update(&mut self, ver_id: RegionVerId, state: State) -> bool {
        self.known(ver_id).map(|known| known.state = state).is_some()
    }

    /// The last region that begins at or before the key (or, for the end of a range, before it) decides.
    fn find(&self, begins: impl Fn(&Key) -> bool, reaches: impl Fn(&Key) -> bool) -> Option<&Region> {
        let (_, known) = self.0.iter().rev().find(|(start, _)| begins(start))?;
        (known.state == State::Valid && reaches(&known.region.range.end)).then_some(&known.region)
    }
}

fn compare(index: &RegionIndex, model: &Model) {
    for id in 0..KEYS {
        let key = name(id);
        let at = key.as_slice();
        let found = index.lookup(Time::ZERO, at);
        let expected = model.find(|start| *start <= key, |end| end.is_empty() || key < *end);
        assert_eq!(found.as_deref(), expected, "at {key:?}");
        assert!(found.is_none_or(|region| region.range.contains(at)));

        let before = index.lookup_before(Time::ZERO, at);
        let begins = |start: &Key| key.is_empty() || *start < key;
        let expected = model.find(begins, |end| end.is_empty() || (!key.is_empty() && key <= *end));
        assert_eq!(before.as_deref(), expected, "before {key:?}");
    }
    for id in 0..6 {
        let known = model.0.values().find(|known| known.region.ver_id.id == id);
        let expected = known.filter(|known| known.state == State::Valid).map(|known| &known.region);
        assert_eq!(index.lookup_id(Time::ZERO, id).as_deref(), expected, "region {id}");
    }
    let all: Vec<Region> = index.all().iter().map(|region| Region::clone(region)).collect();
    let known = model.0.values().filter(|known| known.state != State::Invalid);
    assert_eq!(all, known.map(|known| known.region.clone()).collect::<Vec<_>>());
}

fn peer(store: u8) -> metapb::Peer {
    metapb::Peer { id: 10 + u64::from(store), store_id: 1 + u64::from(store), ..metapb::Peer::default() }
}

const KEYS: u8 = 12;

fn bound(input: &mut Input<'_>) -> Key {
    name(input.below(KEYS))
}

/// Of every length, the empty one and a prefix of others among them.
fn name(id: u8) -> Key {
    let names = ["", "\0", "a", "a\0", "aa", "b", "bb", "c", "d", "e", "f", "\u{7f}"];
    Key::from(names[usize::from(id % KEYS)])
}
