//! Which replica is asked next, by what went wrong so far: the selector under a whole call.
//!
//! A path lists the stores that were asked, `r` marking reads from followers and `s` stale reads. The cases are those of
//! client-go's `replica_selector_test.go` that ask the leader, and our own.

use super::*;
use crate::error::{Execution, Fault, FaultKind};
use crate::knowledge::regions::Replica;
use crate::machine::script::region;
use crate::request::CallContext;

/// What a store does instead of answering.
#[derive(Clone, Copy, Debug)]
enum Bad {
    Busy,
    BusyFor(u32),
    /// Refuses since the time the client gave it is over.
    OutOfTime,
    NotLeader,
    NotLeaderBut(u64),
    /// Names a leader that the region did not have.
    NotLeaderButStranger,
    RegionNotFound,
    StaleCommand,
    MaxTsNotSynced,
    Merging,
    ReadIndexNotReady,
    NotInitialized,
    DiskFull,
    DataIsNotReady,
    Flashback,
    Broken(FaultKind),
}

use Bad::*;
use FaultKind::{Disconnected, Overloaded, Protocol, Status, Timeout, Unreachable};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered,
    Relocate,
    Failed,
}

struct Outcome {
    path: String,
    /// Kinds of back-off and how often, in the order of the enum.
    backoffs: Vec<(BackoffKind, u32)>,
    end: End,
    /// Whether the region is still known.
    known: bool,
    leader: u64,
}

impl Bad {
    fn event(self, call: &crate::machine::Call) -> Event {
        let error = match self {
            Broken(kind) => {
                return Event::Reply(Err(Fault::new(kind, Execution::MaybeExecuted, Arc::clone(&call.address))));
            }
            Busy => busy("", 0),
            BusyFor(ms) => busy("", ms),
            OutOfTime => busy("deadline is exceeded", 0),
            NotLeader => not_leader(None),
            NotLeaderBut(store) => not_leader(Some(peer(1, store))),
            NotLeaderButStranger => not_leader(Some(peer(1, 9))),
            RegionNotFound => errorpb::Error { region_not_found: Some(Default::default()), ..Default::default() },
            StaleCommand => errorpb::Error { stale_command: Some(Default::default()), ..Default::default() },
            MaxTsNotSynced => {
                errorpb::Error { max_timestamp_not_synced: Some(Default::default()), ..Default::default() }
            }
            Merging => errorpb::Error { proposal_in_merging_mode: Some(Default::default()), ..Default::default() },
            ReadIndexNotReady => {
                errorpb::Error { read_index_not_ready: Some(Default::default()), ..Default::default() }
            }
            NotInitialized => errorpb::Error { region_not_initialized: Some(Default::default()), ..Default::default() },
            DiskFull => errorpb::Error { disk_full: Some(Default::default()), ..Default::default() },
            DataIsNotReady => errorpb::Error { data_is_not_ready: Some(Default::default()), ..Default::default() },
            Flashback => errorpb::Error { flashback_in_progress: Some(Default::default()), ..Default::default() },
        };
        Event::Reply(Ok(Response::of_region_error(call.request.kind(), error).expect("a regional command")))
    }
}

/// Lets a call to region 1 meet `bad` one after the other; then it is answered.
fn run<R: StoreRequest>(call: RegionCall<R>, knowledge: Knowledge, bad: &[Bad]) -> (Outcome, Knowledge)
where
    Response: From<R::Response>,
{
    let (mut script, mut bad) = (Script::with_knowledge(call, knowledge), bad.iter());
    let (mut path, mut last_call) = (Vec::new(), None);
    while let Some(command) = script.next() {
        assert!(path.len() < 100, "no end of it: {path:?}");
        match command {
            Command::Call(call) => {
                let marks = [(call.context.replica_read, "r"), (call.context.stale_read, "s")];
                let marks = marks.into_iter().filter(|(marked, _)| *marked).map(|(_, mark)| mark);
                path.push(format!("{}{}", call.store_id, marks.collect::<String>()));
                assert_eq!(call.context.is_retry_request, path.len() > 1);
                let answer = R::Response::default();
                let event = bad.next().map_or(Event::Reply(Ok(answer.into())), |bad| bad.event(&call));
                // Time goes by, so that the time spent on a replica counts.
                if matches!(event, Event::Reply(Err(Fault { kind: Timeout, .. }))) {
                    script.advance(call.timeout(script.now()));
                }
                let token = call.token;
                last_call = Some(call);
                script.event(token, event);
            }
            Command::Sleep { token, reason: SleepReason::Backoff(_), .. } => {
                script.event(token, Event::Woken);
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
    let end = script.expect_done();
    assert_eq!(end.attempts as usize, path.len());
    assert_eq!(end.address(), last_call.map(|call| call.address).as_ref());
    let known = script.knowledge.regions.lookup(script.now(), b"k");
    let outcome = Outcome {
        path: path.join(" "),
        backoffs: end.backoff.statistics().iter().map(|(kind, times, _)| (kind, times)).collect(),
        end: match end.result {
            Ok(_) => End::Answered,
            Err(CallError::Relocate(_)) => End::Relocate,
            Err(_) => End::Failed,
        },
        known: known.is_some(),
        leader: known.map_or(0, |region| region.leader().peer.store_id),
    };
    (outcome, script.knowledge)
}

/// Back-offs as `2 tikvRPC, 1 regionMiss`; the empty text for none.
fn text(backoffs: &[(BackoffKind, u32)]) -> String {
    backoffs.iter().map(|(kind, times)| format!("{times} {kind}")).collect::<Vec<_>>().join(", ")
}

fn seconds(seconds: u64) -> CallOptions {
    options().with_timeout(Duration::from_secs(seconds))
}

/// A case: what goes wrong, the path, the back-offs, the end, whether the region is known afterwards and who leads it.
type Case<'a> = (&'a [Bad], &'a str, &'a str, End, u64);

fn check<R: StoreRequest>(
    make: fn(&Knowledge, CallOptions) -> RegionCall<R>,
    options: &CallOptions,
    (bad, path, backoffs, end, leader): Case<'_>,
) where
    Response: From<R::Response>,
{
    let knowledge = one_region();
    let call = make(&knowledge, options.clone());
    let (outcome, _) = run(call, knowledge, bad);
    let found = (outcome.path.as_str(), text(&outcome.backoffs), outcome.end, outcome.leader);
    assert_eq!(found, (path, backoffs.to_owned(), end, leader), "{} after {bad:?}", R::FACTS.name);
    assert_eq!(outcome.known, leader != 0);
}

/// The same for a read and for a write.
fn check_both(case: Case<'_>) {
    check(get, &options(), case);
    check(prewrite, &options(), case);
}

#[test]
fn the_leader_is_asked_first() {
    check_both((&[], "1", "", End::Answered, 1));
}

#[test]
fn what_passes_is_tried_again_on_the_same_leader() {
    for (bad, backoff) in [
        (Busy, "1 tikvServerBusy"),
        (BusyFor(500), "1 tikvServerBusy"),
        (OutOfTime, "1 tikvServerBusy"),
        (StaleCommand, "1 staleCommand"),
        (MaxTsNotSynced, "1 maxTsNotSynced"),
        (Merging, "1 regionScheduling"),
        (ReadIndexNotReady, "1 regionScheduling"),
        (NotInitialized, "1 regionNotInitialized"),
        (DiskFull, "1 tikvDiskFull"),
        (DataIsNotReady, "1 regionScheduling"),
        (Broken(Overloaded), "1 tikvRPC"),
        (Broken(Status(13)), "1 tikvRPC"),
    ] {
        check_both((&[bad], "1 1", backoff, End::Answered, 1));
    }
}

#[test]
fn a_replica_that_does_not_lead_says_who_does_or_others_are_asked() {
    check_both((&[NotLeader], "1 2", "1 regionScheduling", End::Answered, 2));
    check_both((&[NotLeader, NotLeader], "1 2 3", "2 regionScheduling", End::Answered, 3));
    let exhausted = "1 regionMiss, 3 regionScheduling";
    check_both((&[NotLeader, NotLeader, NotLeader], "1 2 3", exhausted, End::Relocate, 0));
    check_both((&[NotLeaderBut(3)], "1 3", "", End::Answered, 3));
    check_both((&[NotLeaderBut(3), Busy], "1 3 3", "1 tikvServerBusy", End::Answered, 3));
    let busy = [NotLeader, NotLeaderBut(3), BusyFor(10), NotLeader];
    let exhausted = "1 regionMiss, 2 regionScheduling, 1 tikvServerBusy";
    check_both((&busy, "1 2 3 3", exhausted, End::Relocate, 0));
    let busier = [NotLeader, NotLeaderBut(3), BusyFor(10), Busy];
    check_both((&busier, "1 2 3 3 3", "1 regionScheduling, 2 tikvServerBusy", End::Answered, 3));
    check_both((&[NotLeaderBut(1)], "1 2", "1 regionScheduling", End::Answered, 2));
    check_both((&[NotLeaderButStranger], "1", "1 regionMiss", End::Relocate, 0));
}

#[test]
fn a_leader_that_cannot_be_reached_is_left_out_even_if_others_vouch_for_it() {
    const GONE: Bad = Broken(Unreachable);
    check_both((&[GONE], "1 2", "1 tikvRPC", End::Answered, 2));
    let exhausted = "1 tikvRPC, 1 regionMiss";
    check_both((&[GONE, NotLeaderBut(1), NotLeaderBut(1)], "1 2 3", exhausted, End::Relocate, 0));
    check_both((&[GONE, GONE, GONE], "1 2 3", "3 tikvRPC, 1 regionMiss", End::Relocate, 0));
    for kind in [Protocol, Status(14)] {
        check_both((&[Broken(kind)], "1 2", "1 tikvRPC", End::Answered, 2));
    }
}

#[test]
fn if_the_leader_is_gone_busy_followers_are_asked_one_after_the_other() {
    let owed = "1 tikvRPC, 1 tikvServerBusy";
    check_both((&[Broken(Unreachable), Busy, Busy], "1 2 3", owed, End::Relocate, 0));
    check_both((&[Broken(Unreachable), Busy], "1 2 3", "1 tikvRPC", End::Answered, 3));
    // The busy one leads: now the back-off is taken.
    check_both((&[Broken(Unreachable), Busy, NotLeaderBut(2)], "1 2 3 2", owed, End::Answered, 2));
}

#[test]
fn a_leader_that_broke_off_or_was_silent_is_suspected_not_condemned() {
    for kind in [Disconnected, Timeout, Status(1), Status(4)] {
        let silent = Broken(kind);
        check_both((&[silent], "1 2", "1 tikvRPC", End::Answered, 2));
        check_both((&[silent, NotLeaderBut(1)], "1 2 1", "1 tikvRPC", End::Answered, 1));
        check_both((&[silent, NotLeaderBut(3)], "1 2 3", "1 tikvRPC", End::Answered, 3));
        let no_news = "1 tikvRPC, 2 regionScheduling";
        check_both((&[silent, NotLeader, NotLeader], "1 2 3 1", no_news, End::Answered, 1));
    }
    let (broke_off, gone) = (Broken(Disconnected), Broken(Unreachable));
    let restarted = "2 tikvRPC, 1 regionMiss";
    check_both((&[broke_off, NotLeaderBut(1), gone, NotLeaderBut(1)], "1 2 1 3", restarted, End::Relocate, 0));
}

#[test]
fn a_leader_that_is_silent_for_long_is_given_up() {
    let silent = Broken(Timeout);
    // Thirty seconds each: after the second time the leader is spent.
    let bad = [silent, NotLeaderBut(1), silent, NotLeader];
    check_both((&bad, "1 2 1 3", "2 tikvRPC, 1 regionMiss, 1 regionScheduling", End::Relocate, 0));
}

#[test]
fn a_leader_is_tried_ten_times() {
    let bad = [MaxTsNotSynced; 10];
    check_both((&bad, "1 1 1 1 1 1 1 1 1 1 2", "10 maxTsNotSynced", End::Answered, 2));
    let more = [&bad[..], &[NotLeaderBut(1)]].concat();
    check_both((&more, "1 1 1 1 1 1 1 1 1 1 2 1", "10 maxTsNotSynced", End::Answered, 1));
    // Those who say that it leads give it one more chance each.
    let all = [&more[..], &[MaxTsNotSynced, NotLeaderBut(1), MaxTsNotSynced]].concat();
    check_both((&all, "1 1 1 1 1 1 1 1 1 1 2 1 3 1", "1 regionMiss, 12 maxTsNotSynced", End::Relocate, 0));
}

#[test]
fn a_leader_that_is_busy_twice_may_lead_no_more() {
    check_both((&[Busy; 1], "1 1", "1 tikvServerBusy", End::Answered, 1));
    check_both((&[Busy; 2], "1 1 2", "2 tikvServerBusy", End::Answered, 2));
    let bad = [Busy, Busy, NotLeaderBut(3)];
    check_both((&bad, "1 1 2 3", "2 tikvServerBusy", End::Answered, 3));
    // It does lead: not suspected again.
    let bad = [Busy, Busy, NotLeaderBut(1), Busy, Busy];
    check_both((&bad, "1 1 2 1 1 1", "4 tikvServerBusy", End::Answered, 1));
    let bad = [Busy, Busy, NotLeader];
    check_both((&bad, "1 1 2 3", "1 regionScheduling, 2 tikvServerBusy", End::Answered, 3));
    // The count is that of one leader.
    let bad = [Busy, NotLeaderBut(2), Busy, Busy];
    check_both((&bad, "1 1 2 2 3", "3 tikvServerBusy", End::Answered, 3));
    // An overload with a known end is none that counts.
    let bad = [Busy, BusyFor(300), Busy];
    check_both((&bad, "1 1 1 2", "3 tikvServerBusy", End::Answered, 2));
    let bad = [Busy, Busy, NotLeader, NotLeader];
    check_both((&bad, "1 1 2 3 1", "2 regionScheduling, 2 tikvServerBusy", End::Answered, 1));
}

#[test]
fn if_all_are_busy_the_leader_is_asked_for_as_long_as_the_budget_lasts() {
    let bad = [Busy; 11];
    check_both((&bad, "1 1 2 3 1 1 1 1 1 1 1 1", "11 tikvServerBusy", End::Answered, 1));
}

#[test]
fn a_single_replica_is_asked_again_whatever_it_does() {
    for (bad, path, backoffs) in [
        (&[Busy, Busy, Busy][..], "1 1 1 1", "3 tikvServerBusy"),
        (&[Broken(Disconnected); 3], "1 1 1 1", "3 tikvRPC"),
        (&[Broken(Timeout)], "1 1", "1 tikvRPC"),
    ] {
        let mut lonely = region(1, "".."");
        lonely.replicas.truncate(1);
        let knowledge = knowledge(KeyCodec::Txn, [lonely]);
        let (outcome, _) = run(get(&knowledge, options()), knowledge, bad);
        let found = (outcome.path.as_str(), text(&outcome.backoffs), outcome.end, outcome.known);
        assert_eq!(found, (path, backoffs.to_owned(), End::Answered, true), "{bad:?}");
    }
}

#[test]
fn replicas_that_disagree_about_the_leader_do_not_keep_a_call_going_without_a_pause() {
    let quarrel: Vec<_> = (0..30).map(|round| NotLeaderBut(2 + round % 2)).collect();
    let knowledge = one_region();
    let (outcome, _) = run(get(&knowledge, options()), knowledge, &quarrel);
    let (kind, times) = outcome.backoffs[0];
    assert_eq!(kind, BackoffKind::RegionScheduling);
    assert!(times >= 20, "{times} back-offs on the path {}", outcome.path);
}

#[test]
fn a_short_read_asks_followers_to_serve_it_when_the_leader_is_slow() {
    for slow in [Broken(Timeout), Broken(Status(4)), OutOfTime] {
        let short = seconds(1);
        check(get, &short, (&[slow], "1 2r", "", End::Answered, 1));
        check(get, &short, (&[slow, slow], "1 2r 3r", "", End::Answered, 1));
        // Too slow is no reason to load the region again.
        check(get, &short, (&[slow, slow, slow], "1 2r 3r", "1 regionMiss", End::Relocate, 1));
        // A write cannot be served by followers; they are only asked who leads.
        let backoff = if matches!(slow, OutOfTime) { "1 tikvServerBusy" } else { "1 tikvRPC" };
        let (path, leader) = if matches!(slow, OutOfTime) { ("1 1", 1) } else { ("1 2", 2) };
        check(prewrite, &short, (&[slow], path, backoff, End::Answered, leader));
    }
    check(get, &seconds(30), (&[Broken(Timeout)], "1 2", "1 tikvRPC", End::Answered, 2));
}

#[test]
fn locks_in_memory_are_the_leaders_alone() {
    let scan_lock = |knowledge: &Knowledge, options| {
        let request = kvrpcpb::ScanLockRequest::default();
        RegionCall::to_region(the_known_region(knowledge), request, options, budget_of(40))
    };
    check(scan_lock, &seconds(1), (&[Broken(Timeout)], "1 2", "1 tikvRPC", End::Answered, 2));
}

#[test]
fn during_a_flashback_followers_do_not_serve_reads() {
    let (short, slow) = (seconds(1), Broken(Timeout));
    check(get, &short, (&[Flashback], "1", "", End::Failed, 1));
    check(get, &short, (&[slow, Flashback], "1 2r 3", "", End::Answered, 3));
    check(get, &short, (&[slow, Flashback, Flashback], "1 2r 3", "", End::Failed, 1));
}

#[test]
fn a_store_without_the_region_gives_the_leader_one_more_chance() {
    check_both((&[RegionNotFound], "1", "1 regionMiss", End::Relocate, 0));
    // The leader has not been asked: its store failed before.
    let knowledge = one_region();
    let call = get(&knowledge, options());
    knowledge.stores.report_failure(1, 0);
    let (outcome, _) = run(call, knowledge, &[RegionNotFound, RegionNotFound]);
    assert_eq!((outcome.path.as_str(), text(&outcome.backoffs)), ("2 3", "1 regionMiss".to_owned()));
    assert_eq!((outcome.end, outcome.known), (End::Relocate, false));
}

#[test]
fn a_stale_read_that_fails_becomes_an_ordinary_one() {
    let stale = options().with_context(|context| context.stale_read = true);
    check(get, &stale, (&[], "1s", "", End::Answered, 1));
    check(get, &stale, (&[DataIsNotReady], "1s 1", "", End::Answered, 1));
    check(get, &stale, (&[DataIsNotReady, DataIsNotReady], "1s 1 1", "1 regionScheduling", End::Answered, 1));
    let short_and_stale = stale.with_timeout(Duration::from_secs(1));
    check(get, &short_and_stale, (&[Broken(Timeout)], "1s 2r", "", End::Answered, 1));
}

#[test]
fn a_read_that_any_replica_may_serve_does_not_make_one_the_leader() {
    for context in [
        |context: &mut RequestContext| context.replica_read = true,
        |context: &mut RequestContext| context.stale_read = true,
    ] {
        let knowledge = one_region();
        let call = get(&knowledge, options().with_context(context));
        knowledge.stores.report_failure(1, 0);
        let (outcome, _) = run(call, knowledge, &[]);
        assert_eq!((&outcome.path[..1], outcome.leader), ("2", 1));
    }
}

#[test]
fn a_failed_store_is_not_asked_until_its_regions_are_loaded_again() {
    let knowledge = one_region();
    let call = get(&knowledge, options());
    knowledge.stores.report_failure(1, 0);
    knowledge.stores.learn(&pd_store(1));
    let (outcome, knowledge) = run(call, knowledge, &[]);
    assert_eq!((outcome.path.as_str(), outcome.leader), ("2", 2), "the follower led");
    let mut now = Time::ZERO;
    for _ in 0..3 {
        now += Config::default().region_ttl / 2;
        let _ = knowledge.regions.lookup(now, b"k");
    }
    assert_eq!(knowledge.regions.lookup(now, b"k"), None, "loaded again in time, though it is in use");
}

#[test]
fn the_leader_is_read_anew_for_each_attempt() {
    let knowledge = one_region();
    let mut script = Script::with_knowledge(get(&knowledge, options()), knowledge);
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    script.region_error(busy("", 0));
    let ver_id = the_known_region(&script.knowledge).ver_id;
    script.knowledge.regions.switch_leader(ver_id, &peer(1, 3));
    back_off(&mut script, BackoffKind::TikvServerBusy);
    script.expect_call(3, |_: &kvrpcpb::GetRequest| {});
}

#[test]
fn a_leader_learnt_elsewhere_is_found_by_its_peer_not_by_its_place() {
    let knowledge = one_region();
    let mut script = Script::with_knowledge(get(&knowledge, options()), knowledge);
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    script.region_error(busy("", 0));
    // Loaded again without the peer on store 1: the leader on store 3 is now the second.
    let mut again = region(1, "".."");
    again.replicas.remove(0);
    again.leader = 1;
    script.knowledge.regions.insert(script.now(), again);
    back_off(&mut script, BackoffKind::TikvServerBusy);
    script.expect_call(3, |_: &kvrpcpb::GetRequest| {});
}

#[test]
fn rows_are_never_asked_of_tiflash() {
    let columns = Replica { peer: peer(1, 4), store_epoch: 0 };
    let mut mixed = region(1, "".."");
    mixed.replicas = vec![mixed.replicas[0].clone(), columns, mixed.replicas[1].clone()];
    let knowledge = knowledge(KeyCodec::Txn, [mixed]);
    let label = metapb::StoreLabel { key: "engine".into(), value: "tiflash".into() };
    knowledge.stores.learn(&metapb::Store { labels: vec![label], ..pd_store(4) });
    let (outcome, _) = run(get(&knowledge, options()), knowledge, &[NotLeader, NotLeader]);
    assert_eq!(outcome.path, "1 2");
}

#[test]
fn the_replicas_after_the_leader_are_probed_first() {
    let knowledge = one_region();
    knowledge.regions.switch_leader(the_known_region(&knowledge).ver_id, &peer(1, 2));
    let (outcome, _) = run(get(&knowledge, options()), knowledge, &[NotLeader, NotLeader]);
    assert_eq!(outcome.path, "2 3 1");
}

#[test]
fn a_region_that_makes_no_sense_has_no_replica_to_offer() {
    let nonsense = Region { replicas: Vec::new(), ..region(1, "".."") };
    let options = CallOptions { context: CallContext::default(), ..options() };
    let call = RegionCall::to_region(Arc::new(nonsense), get_request(), options, budget_of(40));
    let mut script = Script::with_knowledge(call, one_region());
    back_off(&mut script, BackoffKind::RegionMiss);
    let end = script.expect_done();
    let last = crate::error::CallFailure::NoReplica { region_id: 1 };
    assert_eq!((end.result, end.attempts), (Err(CallError::Relocate(last)), 0));
}
