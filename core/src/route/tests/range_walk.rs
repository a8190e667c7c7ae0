use super::*;
use crate::error::{Error, PdError};
use crate::key::{Direction, KeyRange};
use crate::machine::script::{maybe_executed, region};

/// Notes the parts visited, until it has seen enough.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Visit {
    enough: usize,
    seen: usize,
    addresses: Vec<Arc<str>>,
}

impl RangeVisit for Visit {
    type Request = kvrpcpb::RawScanRequest;
    type Output = (usize, Vec<Arc<str>>);

    fn request(&self, part: &KeyRange) -> kvrpcpb::RawScanRequest {
        let (start_key, end_key) = (part.start.to_bytes(), part.end.to_bytes());
        kvrpcpb::RawScanRequest { start_key, end_key, ..Default::default() }
    }

    fn on_response(&mut self, response: kvrpcpb::RawScanResponse, address: &Arc<str>) -> Result<(), Error> {
        if !response.kvs.is_empty() {
            return Err(Error::InvalidArgument("enough of this".into()));
        }
        self.seen += 1;
        self.addresses.push(Arc::clone(address));
        Ok(())
    }

    fn is_satisfied(&self) -> bool {
        self.seen >= self.enough
    }

    fn finish(&mut self) -> Self::Output {
        (self.seen, std::mem::take(&mut self.addresses))
    }
}

type Walk = RangeWalk<Visit>;

fn walk(range: Range<&str>, direction: Direction, options: CallOptions) -> Walk {
    let visit = Visit { enough: usize::MAX, seen: 0, addresses: Vec::new() };
    RangeWalk::new(visit, KeyRange::new(range.start, range.end), direction, options, budget_of(20))
}

fn script(range: Range<&str>, direction: Direction) -> Script<Walk> {
    let regions = [region(1, "".."g"), region(2, "g".."p"), region(3, "p".."")];
    Script::with_knowledge(walk(range, direction, options()), knowledge(KeyCodec::Txn, regions))
}

fn expect(script: &mut Script<Walk>, part: Range<&str>) {
    script.expect_call(1, |scan: &kvrpcpb::RawScanRequest| {
        assert_eq!((&scan.start_key[..], &scan.end_key[..]), (part.start.as_bytes(), part.end.as_bytes()));
    });
}

fn reply(script: &mut Script<Walk>) {
    script.reply(kvrpcpb::RawScanResponse::default());
}

#[test]
fn a_range_is_visited_region_by_region_in_either_direction() {
    for (range, parts) in [
        ("".."", &["".."g", "g".."p", "p"..""][..]),
        ("a".."z", &["a".."g", "g".."p", "p".."z"]),
        ("h".."i", &["h".."i"]),
        // The end of a region is not in it, nor is the start of the next.
        ("a".."g", &["a".."g"]),
        ("g".."p", &["g".."p"]),
        ("g".."q", &["g".."p", "p".."q"]),
        ("p".."", &["p"..""]),
        ("q".."", &["q"..""]),
        ("".."h", &["".."g", "g".."h"]),
    ] {
        for direction in [Direction::Forward, Direction::Reverse] {
            let mut parts = parts.to_vec();
            if direction == Direction::Reverse {
                parts.reverse();
            }
            let mut script = script(range.clone(), direction);
            for part in &parts {
                expect(&mut script, part.clone());
                reply(&mut script);
            }
            let (seen, addresses) = script.expect_done().expect("done");
            assert_eq!((seen, addresses.len()), (parts.len(), parts.len()), "{range:?} {direction:?}");
            assert!(addresses.iter().all(|address| &**address == "store-1"));
        }
    }
}

#[test]
fn an_empty_range_needs_no_visit() {
    for range in ["a".."a", "b".."a"] {
        for direction in [Direction::Forward, Direction::Reverse] {
            assert_eq!(script(range.clone(), direction).expect_done(), Ok((0, Vec::new())));
        }
    }
}

#[test]
fn a_walk_ends_early_when_enough_is_seen() {
    for (enough, visits) in [(0, 0), (2, 2)] {
        let visit = Visit { enough, seen: 0, addresses: Vec::new() };
        let walk = RangeWalk::new(visit, KeyRange::ALL, Direction::Forward, options(), budget_of(20));
        let regions = [region(1, "".."g"), region(2, "g".."p"), region(3, "p".."")];
        let mut script = Script::with_knowledge(walk, knowledge(KeyCodec::Txn, regions));
        for part in &["".."g", "g".."p"][..visits] {
            expect(&mut script, part.clone());
            reply(&mut script);
        }
        assert_eq!(script.expect_done().map(|(seen, _)| seen), Ok(enough));
    }
}

#[test]
fn regions_are_loaded_as_the_walk_comes_to_them() {
    let mut script = Script::with_knowledge(walk("".."", Direction::Forward, options()), knowledge(KeyCodec::Txn, []));
    script.expect_pd(&by_key("", false));
    script.pd(the_region(pd_region(1, 1, "".."m")));
    expect(&mut script, "".."m");
    reply(&mut script);
    script.expect_pd(&by_key("m", false));
    script.pd(the_region(pd_region(2, 1, "m".."")));
    expect(&mut script, "m".."");
    reply(&mut script);
    assert!(script.expect_done().is_ok());

    let mut script = Script::with_knowledge(walk("".."", Direction::Reverse, options()), knowledge(KeyCodec::Txn, []));
    script.expect_pd(&behind_all_keys(false));
    script.pd(the_region(pd_region(2, 1, "m".."")));
    expect(&mut script, "m".."");
    reply(&mut script);
    script.expect_pd(&by_key("m", false));
    script.pd(the_region(pd_region(2, 1, "m".."")));
    let key = KeyCodec::Txn.encode_region_key(&Key::from("m"));
    script.expect_pd(&PdRequest::PrevRegion { key, leader_only: false });
    script.pd(the_region(pd_region(1, 1, "".."m")));
    expect(&mut script, "".."m");
    reply(&mut script);
    assert!(script.expect_done().is_ok());
}

#[test]
fn a_split_on_the_way_is_walked_over_without_a_gap() {
    for (direction, parts) in
        [(Direction::Forward, ["".."c", "c".."g", "g".."p"]), (Direction::Reverse, ["k".."p", "g".."k", "".."g"])]
    {
        let mut script = script("".."p", direction);
        let (first, split) = match direction {
            Direction::Forward => ("".."g", [region_meta(1, 2, "".."c"), region_meta(4, 2, "c".."g")]),
            Direction::Reverse => ("g".."p", [region_meta(2, 2, "g".."k"), region_meta(4, 2, "k".."p")]),
        };
        expect(&mut script, first);
        script.region_error(epoch_not_match(split.to_vec()));
        for (index, part) in parts.into_iter().enumerate() {
            expect(&mut script, part);
            // The first was part of a request before; what comes after it was not.
            assert_eq!(script.last_context().is_retry_request, index == 0);
            reply(&mut script);
        }
        assert!(script.expect_done().is_ok());
    }
}

#[test]
fn each_region_has_the_whole_budget_but_what_is_located_anew_goes_on_with_it() {
    let mut script = script("".."p", Direction::Forward);
    expect(&mut script, "".."g");
    for round in 0..3 {
        script.region_error(epoch_not_match(Vec::new()));
        script.expect_sleep(|duration, _| assert_eq!(duration, Duration::from_millis(2 << round)));
        script.wake().expect_pd(&by_key("", false));
        script.pd(the_region(pd_region(1, 2 + round, "".."g")));
        expect(&mut script, "".."g");
    }
    reply(&mut script);
    expect(&mut script, "g".."p");
    script.region_error(epoch_not_match(Vec::new()));
    script.expect_sleep(|duration, _| assert_eq!(duration, Duration::from_millis(2)));
}

#[test]
fn a_walk_ends_with_the_first_error() {
    let mut unlocated =
        Script::with_knowledge(walk("".."", Direction::Forward, options()), knowledge(KeyCodec::Txn, []));
    unlocated.expect_pd(&by_key("", false));
    unlocated.pd(Err(PdError::Closed));
    assert_eq!(unlocated.expect_done(), Err(Error::Closed));

    let mut refused = script("".."", Direction::Forward);
    expect(&mut refused, "".."g");
    refused.region_error(errorpb::Error { flashback_in_progress: Some(Default::default()), ..Default::default() });
    assert!(matches!(refused.expect_done(), Err(Error::Refused { operation: "RawScan", .. })));

    let mut unwanted = script("".."", Direction::Forward);
    expect(&mut unwanted, "".."g");
    unwanted.reply(kvrpcpb::RawScanResponse { kvs: vec![Default::default()], ..Default::default() });
    assert_eq!(unwanted.expect_done(), Err(Error::InvalidArgument("enough of this".into())));

    let mut unsendable = script("".."", Direction::Forward);
    unsendable.advance(Duration::from_secs(1));
    let late = walk("".."", Direction::Forward, options().with_deadline(Time::from_millis(1)));
    let mut unsendable = Script::with_knowledge(late, unsendable.knowledge.clone());
    assert!(matches!(unsendable.expect_done(), Err(Error::DeadlineExceeded { attempts: 0, .. })));
}

#[test]
fn the_deadline_also_ends_the_search_for_a_region() {
    let hurried = walk("".."", Direction::Forward, options().with_deadline(Time::from_millis(1_001)));
    let mut script = Script::with_knowledge(hurried, knowledge(KeyCodec::Txn, []));
    let alarm = script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Deadline));
    let question = script.expect_pd(&by_key("", false));
    script.event(alarm, Event::Woken).expect_cancel(question);
    assert!(matches!(script.expect_done(), Err(Error::DeadlineExceeded { .. })));
}

#[test]
fn late_and_foreign_events_are_ignored() {
    let mut script = script("".."g", Direction::Forward);
    expect(&mut script, "".."g");
    let first = script.last_call().token;
    script.event(crate::machine::Token(99), Event::Woken).expect_nothing();
    script.region_error(busy("", 0));
    let timer = script.expect_sleep(|_, _| {});
    script.event(first, Event::Reply(Err(maybe_executed()))).expect_nothing();
    script.event(timer, Event::Woken);
    expect(&mut script, "".."g");
    reply(&mut script);
    assert!(script.expect_done().is_ok());
    assert!(script.poke(first, Event::Woken).is_pending());
}
