use std::task::Poll;

use super::*;
use crate::error::{CallFailure, Error, PdError};
use crate::machine::script::{not_sent, region};
use crate::machine::{Context, Token};

/// Reads keys, `batch` of them (by weight) in a request. A key weighs its length.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reads {
    pub(super) batch: usize,
    pub(super) options: CallOptions,
}

type Request = kvrpcpb::RawBatchGetRequest;
type Reply = ShardReply<Key, kvrpcpb::RawBatchGetResponse>;

impl Shard for Reads {
    type Item = Key;
    type Output = Reply;
    type Child = ShardCall<Request, Key>;

    fn child(
        &self,
        _: &mut Context<'_>,
        region: Arc<Region>,
        keys: Vec<Key>,
        backoff: Backoff,
        is_retry: bool,
    ) -> Self::Child {
        let request = Request { keys: keys.iter().map(Key::to_bytes).collect(), ..Default::default() };
        let call = RegionCall::to_region(region, request, self.options.clone(), backoff);
        ShardCall::new(keys, call.as_retry(is_retry))
    }

    fn weight(&self, key: &Key) -> usize {
        key.len()
    }

    fn batch_limit(&self) -> usize {
        self.batch
    }

    fn deadline(&self) -> Time {
        self.options.deadline
    }
}

/// Collects what the shares end with, in the order in which they end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReadAll {
    pub(super) shares: Sharded<Reads>,
    pub(super) ends: Vec<Result<Reply, Error>>,
}

impl ReadAll {
    pub(super) fn new(keys: &[&str], batch: usize, limit: usize) -> Self {
        let mut shares = Sharded::new(Reads { batch, options: options() }, limit);
        shares.add(keys.iter().map(|key| Key::from(*key)).collect(), budget_of(20), false);
        ReadAll { shares, ends: Vec::new() }
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Result<Reply, Error>>> {
        while let Some(end) = self.shares.next_finished(cx) {
            self.ends.push(end.map_err(Error::from));
        }
        if self.shares.is_idle() { Poll::Ready(std::mem::take(&mut self.ends)) } else { Poll::Pending }
    }
}

impl Machine for ReadAll {
    type Output = Vec<Result<Reply, Error>>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.shares.run(cx);
        self.collect(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        self.shares.handle(cx, token, event);
        self.collect(cx)
    }
}

fn three_regions() -> Knowledge {
    knowledge(KeyCodec::Txn, [region(1, "".."g"), region(2, "g".."p"), region(3, "p".."")])
}

fn read(keys: &[&str], knowledge: Knowledge) -> Script<ReadAll> {
    Script::with_knowledge(ReadAll::new(keys, 100, 8), knowledge)
}

/// Expects the request for these keys of a region, and returns its token.
fn expect(script: &mut Script<ReadAll>, region: u64, keys: &[&str]) -> Token {
    let token = script.expect_call(1, |request: &Request| assert_eq!(request.keys, keys));
    assert_eq!(script.last_context().region_id, region);
    token
}

fn answer() -> kvrpcpb::RawBatchGetResponse {
    kvrpcpb::RawBatchGetResponse::default()
}

/// The keys of the shares that ended well, in the order of their ends.
fn keys_of(ends: Vec<Result<Reply, Error>>) -> Vec<Vec<Key>> {
    let keys = |end: Result<Reply, Error>| {
        let reply = end.expect("located");
        assert!(reply.result.is_ok(), "{reply:?}");
        reply.items
    };
    ends.into_iter().map(keys).collect()
}

#[test]
fn each_region_is_asked_for_its_share_side_by_side() {
    let mut script = read(&["x", "a", "h", "b"], three_regions());
    let calls = [expect(&mut script, 1, &["a", "b"]), expect(&mut script, 2, &["h"]), expect(&mut script, 3, &["x"])];
    for call in [calls[1], calls[0], calls[2]] {
        script.reply_to(call, answer());
    }
    let ends = script.expect_done();
    assert!(ends.iter().all(|end| end.as_ref().is_ok_and(|reply| &*reply.address == "store-1")));
    assert_eq!(keys_of(ends), [vec!["h".into()], vec!["a".into(), "b".into()], vec!["x".into()]]);
}

#[test]
fn a_batch_is_closed_as_soon_as_it_is_heavy_enough() {
    for (batch, expected) in [
        (1, &[&["a"][..], &["bb"], &["ccc"], &["d"]][..]),
        (3, &[&["a", "bb"], &["ccc"], &["d"]]),
        (4, &[&["a", "bb", "ccc"], &["d"]]),
        (usize::MAX, &[&["a", "bb", "ccc", "d"]]),
    ] {
        let mut script = Script::with_knowledge(ReadAll::new(&["a", "bb", "ccc", "d"], batch, 8), three_regions());
        for keys in expected {
            expect(&mut script, 1, keys);
        }
        script.expect_nothing();
    }
}

#[test]
fn no_more_shares_are_on_their_way_than_allowed() {
    let mut script = Script::with_knowledge(ReadAll::new(&["a", "b", "c"], 1, 2), three_regions());
    let first = expect(&mut script, 1, &["a"]);
    expect(&mut script, 1, &["b"]);
    script.expect_nothing();
    assert_eq!(script.machine().shares.waiting().count(), 1);
    script.reply_to(first, answer());
    expect(&mut script, 1, &["c"]);
    assert_eq!(script.machine().shares.waiting().count(), 0);
}

#[test]
fn a_share_whose_region_has_split_is_divided_anew_and_alone() {
    let mut script = read(&["a", "c", "e", "x"], three_regions());
    let (first, other) = (expect(&mut script, 1, &["a", "c", "e"]), expect(&mut script, 3, &["x"]));
    let split = epoch_not_match(vec![region_meta(1, 2, "".."c"), region_meta(4, 2, "c".."g")]);
    let response = Response::of_region_error(crate::request::RequestKind::RawBatchGet, split).expect("regional");
    script.event(first, Event::Reply(Ok(response)));
    let left = expect(&mut script, 1, &["a"]);
    assert!(script.last_context().is_retry_request, "the keys were in a request before");
    let right = expect(&mut script, 4, &["c", "e"]);
    assert!(script.last_context().is_retry_request);
    for call in [right, other, left] {
        script.reply_to(call, answer());
    }
    let keys = keys_of(script.expect_done());
    assert_eq!(keys, [vec!["c".into(), "e".into()], vec!["x".into()], vec!["a".into()]]);
}

#[test]
fn a_share_that_is_located_anew_goes_on_with_its_budget() {
    let mut script = read(&["a"], three_regions());
    for round in 0..4 {
        expect(&mut script, 1, &["a"]);
        script.region_error(errorpb::Error { mismatch_peer_id: Some(Default::default()), ..Default::default() });
        script.expect_sleep(|duration, _| assert_eq!(duration, Duration::from_millis(2 << round)));
        script.wake().expect_pd(&by_key("a", false));
        script.pd(the_region(pd_region(1, 1, "".."g")));
    }
}

#[test]
fn a_share_that_fails_says_so_and_the_others_go_on() {
    let mut script = read(&["a", "x"], three_regions());
    let (first, other) = (expect(&mut script, 1, &["a"]), expect(&mut script, 3, &["x"]));
    let refused = errorpb::Error { raft_entry_too_large: Some(Default::default()), ..Default::default() };
    let response = Response::of_region_error(crate::request::RequestKind::RawBatchGet, refused).expect("regional");
    script.event(first, Event::Reply(Ok(response)));
    script.reply_to(other, answer());
    let ends = script.expect_done();
    let failed = ends[0].as_ref().expect("located");
    assert!(matches!(failed.result, Err(Error::Refused { .. })));
    assert_eq!(failed.items, [Key::from("a")]);
    assert!(ends[1].as_ref().is_ok_and(|reply| reply.result.is_ok()));
}

#[test]
fn keys_that_cannot_be_located_are_an_error() {
    let mut script = read(&["a", "h"], knowledge(KeyCodec::Txn, [region(1, "".."g")]));
    script.expect_pd(&by_key("h", false));
    script.pd(Err(PdError::Closed));
    assert_eq!(script.expect_done(), [Err(Error::Closed)]);
}

#[test]
fn a_share_never_sent_has_no_address() {
    let mut machine = ReadAll::new(&[], 100, 8);
    machine.shares.add(vec![Key::from("a")], Backoff::none(), false);
    let knowledge = three_regions();
    for store in 1..=3 {
        knowledge.stores.report_failure(store, 0);
    }
    let ends = Script::with_knowledge(machine, knowledge).expect_done();
    let reply = ends[0].as_ref().expect("located");
    let last = CallFailure::NoReplica { region_id: 1 };
    let exhausted = Error::RetriesExhausted { operation: "RawBatchGet", attempts: 0, slept: Duration::ZERO, last };
    assert_eq!((&*reply.address, &reply.result), ("", &Err(exhausted)));
}

#[test]
fn no_keys_are_no_work() {
    assert_eq!(read(&[], three_regions()).expect_done(), []);
}

#[test]
fn cancelling_forgets_everything_that_is_not_finished() {
    let mut script = Script::with_knowledge(ReadAll::new(&["a", "h", "x"], 1, 2), three_regions());
    let (first, second) = (expect(&mut script, 1, &["a"]), expect(&mut script, 2, &["h"]));
    script.reply_to(first, answer());
    let third = expect(&mut script, 3, &["x"]);
    let (mut machine, mut outbox) = (script.machine().clone(), crate::machine::Outbox::new());
    let (mut rng, config) = (crate::rng::Rng::new(1), Config::default());
    let mut cx = Context::new(Time::ZERO, &mut rng, &script.knowledge, &config, &mut outbox);
    machine.shares.cancel_all(&mut cx);
    assert!(machine.shares.is_idle());
    let cancelled: Vec<_> = outbox.drain().collect();
    assert_eq!(cancelled, [second, third].map(|token| Command::Cancel { token }));
}

#[test]
fn ready_groups_need_no_locating_and_each_batch_has_a_budget_of_its_own() {
    let knowledge = three_regions();
    let (mut outbox, mut rng, config) = (crate::machine::Outbox::new(), crate::rng::Rng::new(1), Config::default());
    let mut cx = Context::new(Time::ZERO, &mut rng, &knowledge, &config, &mut outbox);
    let mut shares = Sharded::new(Reads { batch: 1, options: options() }, 8);
    shares.shard_mut().batch = 2;
    assert_eq!(shares.shard().batch, 2);
    let region = knowledge.regions.lookup(Time::ZERO, b"a").expect("known");
    let items = ["a", "b", "c"].map(Key::from).to_vec();
    shares.add_group(&mut cx, Group { region, items }, &budget_of(20), false);
    shares.run(&mut cx);
    assert_eq!(outbox.drain().filter(|command| matches!(command, Command::Call(_))).count(), 2);
}

#[test]
fn a_deadline_ends_the_wait_for_pd() {
    let mut machine = ReadAll::new(&[], 100, 8);
    machine.shares.shard_mut().options.deadline = Time::from_millis(1_001);
    machine.shares.add(vec![Key::from("a")], budget_of(20), false);
    let mut script = Script::with_knowledge(machine, knowledge(KeyCodec::Txn, []));
    let alarm = script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Deadline));
    let question = script.expect_pd(&by_key("a", false));
    script.event(alarm, Event::Woken).expect_cancel(question);
    assert!(matches!(script.expect_done()[..], [Err(Error::DeadlineExceeded { .. })]));
}

#[test]
fn late_and_foreign_events_are_ignored() {
    let mut script = read(&["a"], three_regions());
    let first = expect(&mut script, 1, &["a"]);
    script.event(Token(99), Event::Woken).expect_nothing();
    script.region_error(busy("", 0));
    let timer = script.expect_sleep(|_, _| {});
    script.event(first, Event::Reply(Err(not_sent()))).expect_nothing();
    script.event(timer, Event::Woken);
    expect(&mut script, 1, &["a"]);
}
