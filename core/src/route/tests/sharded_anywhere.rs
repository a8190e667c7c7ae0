//! Whatever happens to the regions underneath, every item is served once and by the region that holds it.

use std::collections::BTreeMap;

use quickcheck::{Arbitrary, Gen, quickcheck};

use super::sharded::ReadAll;
use super::*;
use crate::error::{Execution, Fault, FaultKind};
use crate::machine::{Call, Token};
use crate::request::Request;

/// Keys of one letter; a region may begin at each.
const LETTERS: &str = "abcdefghijklmnop";

/// What happens at one event.
#[derive(Clone, Copy, Debug)]
struct Happening {
    /// Where regions split or merge before the event is handled.
    change: Option<(bool, u8)>,
    /// How the call at hand fares, if it reaches the right region.
    fault: Option<FaultKind>,
    /// Whether a store tells of today's regions.
    tells: bool,
    /// Which of the commands that wait is answered.
    which: u8,
}

impl Arbitrary for Happening {
    fn arbitrary(g: &mut Gen) -> Self {
        let faults = [FaultKind::Unreachable, FaultKind::Disconnected, FaultKind::Timeout, FaultKind::Overloaded];
        Happening {
            change: (u8::arbitrary(g) % 3 == 0).then(|| (bool::arbitrary(g), u8::arbitrary(g))),
            fault: (u8::arbitrary(g) % 4 == 0).then(|| *g.choose(&faults).unwrap_or(&FaultKind::Timeout)),
            tells: bool::arbitrary(g),
            which: u8::arbitrary(g),
        }
    }
}

/// Regions by start key: id and version.
struct World {
    regions: BTreeMap<String, (u64, u64)>,
    next_id: u64,
    version: u64,
    served: BTreeMap<Key, u32>,
}

impl World {
    fn new() -> Self {
        World { regions: BTreeMap::from([(String::new(), (1, 1))]), next_id: 2, version: 1, served: BTreeMap::new() }
    }

    fn change(&mut self, is_split: bool, at: u8) {
        let at = LETTERS.chars().nth(usize::from(at) % LETTERS.len()).map(String::from).unwrap_or_default();
        self.version += 1;
        if is_split && !self.regions.contains_key(&at) {
            self.regions.insert(at.clone(), (self.next_id, self.version));
            self.next_id += 1;
        } else if !is_split && self.regions.remove(&at).is_none() {
            return;
        }
        if let Some((_, left)) = self.regions.range_mut(..at).next_back() {
            left.1 = self.version;
        }
    }

    fn described(&self, start: &str) -> PdRegion {
        let (id, version) = self.regions[start];
        let after = (std::ops::Bound::Excluded(start.to_owned()), std::ops::Bound::Unbounded);
        let end = self.regions.range(after).next().map_or("", |(end, _)| end.as_str());
        pd_region(id, version, start..end)
    }

    fn holding(&self, key: &[u8]) -> PdRegion {
        let mut starts = self.regions.keys().filter(|start| start.as_bytes() <= key);
        self.described(starts.next_back().map_or("", String::as_str))
    }

    fn answer_pd(&self, request: &PdRequest) -> PdResponse {
        let PdRequest::RegionByKey { key, .. } = request else {
            let PdRequest::Store { id } = request else { panic!("{request:?}") };
            return PdResponse::Store(Some(Arc::new(pd_store(*id))));
        };
        let key = KeyCodec::Txn.decode_region_key(key).expect("encoded");
        PdResponse::Region(Some(Arc::new(self.holding(key.as_slice()))))
    }

    fn answer_call(&mut self, call: &Call, happening: Happening) -> Event {
        if let Some(kind) = happening.fault {
            return Event::Reply(Err(Fault::new(kind, Execution::NotSent, Arc::clone(&call.address))));
        }
        let Request::RawBatchGet(request) = &call.request else { panic!("{call:?}") };
        let kind = call.request.kind();
        let error = |error| Event::Reply(Ok(Response::of_region_error(kind, error).expect("regional")));
        let asked = self.regions.iter().find(|(_, (id, _))| *id == call.context.region_id);
        let Some(start) = asked.map(|(start, _)| start.clone()) else {
            return error(errorpb::Error { region_not_found: Some(Default::default()), ..Default::default() });
        };
        let region = self.described(&start).region;
        if region.region_epoch != call.context.region_epoch {
            let all = self.regions.keys().map(|start| self.described(start).region);
            return error(epoch_not_match(if happening.tells { all.collect() } else { Vec::new() }));
        }
        let range = KeyCodec::Txn.decode_region_range(&region.start_key, &region.end_key).expect("encoded");
        for key in &request.keys {
            assert!(range.contains(key), "{key:?} was asked of {range:?}");
            *self.served.entry(Key::from(key.clone())).or_default() += 1;
        }
        Event::Reply(Ok(kvrpcpb::RawBatchGetResponse::default().into()))
    }
}

fn token_of(command: &Command) -> Token {
    match command {
        Command::Call(call) => call.token,
        Command::Pd { token, .. } | Command::Sleep { token, .. } => *token,
        other => panic!("{other:?}"),
    }
}

/// Runs a read of the keys to its end; nothing more happens once `happenings` are used up.
fn run(keys: &[Key], batch: usize, limit: usize, happenings: &[Happening]) -> (World, Vec<Key>) {
    let mut read = ReadAll::new(&[], batch, limit);
    read.shares.add(keys.to_vec(), budget_of(600), false);
    let mut script = Script::with_knowledge(read, knowledge(KeyCodec::Txn, []));
    let (mut world, mut waiting, mut happenings) = (World::new(), Vec::new(), happenings.iter().copied());
    let calm = Happening { change: None, fault: None, tells: true, which: 0 };
    for _ in 0..10_000 {
        while let Some(command) = script.next() {
            match command {
                Command::Cancel { token } => waiting.retain(|command| token_of(command) != token),
                command => waiting.push(command),
            }
        }
        if waiting.is_empty() {
            break;
        }
        let happening = happenings.next().unwrap_or(calm);
        if let Some((is_split, at)) = happening.change {
            world.change(is_split, at);
        }
        let command = waiting.swap_remove(usize::from(happening.which) % waiting.len());
        let event = match &command {
            Command::Call(call) => world.answer_call(call, happening),
            Command::Pd { request, .. } => Event::Pd(Ok(world.answer_pd(request))),
            _ => Event::Woken,
        };
        script.event(token_of(&command), event);
    }
    let ends = script.take_output().expect("it ends once all is calm");
    let items = ends.into_iter().flat_map(|end| {
        let reply = end.expect("located");
        assert!(reply.result.is_ok(), "{reply:?}");
        reply.items
    });
    (world, items.collect())
}

quickcheck! {
    fn every_item_is_served_once_wherever_regions_split_and_merge(
        letters: Vec<u8>, batch: u8, limit: u8, happenings: Vec<Happening>
    ) -> bool {
        let letter = |letter: u8| &LETTERS[usize::from(letter) % LETTERS.len()..][..1];
        let mut keys: Vec<_> = letters.into_iter().map(|index| Key::from(letter(index))).collect();
        let (world, mut items) = run(&keys, usize::from(batch % 5) + 1, usize::from(limit % 4) + 1, &happenings);
        keys.sort();
        items.sort();
        let served: u32 = world.served.values().sum();
        items == keys && served as usize == keys.len()
    }
}
