use tikv_core::request::RequestKind;
use tikv_proto::metapb::PeerRole;

use super::*;
use crate::status::Code;

/// The name of the check that failed.
fn name(error: &errorpb::Error) -> &'static str {
    let fields = [
        (error.store_not_match.is_some(), "store_not_match"),
        (error.region_not_found.is_some(), "region_not_found"),
        (error.mismatch_peer_id.is_some(), "mismatch_peer_id"),
        (error.stale_command.is_some(), "stale_command"),
        (error.not_leader.is_some(), "not_leader"),
        (error.is_witness.is_some(), "is_witness"),
        (error.epoch_not_match.is_some(), "epoch_not_match"),
        (error.flashback_in_progress.is_some(), "flashback_in_progress"),
        (error.key_not_in_region.is_some(), "key_not_in_region"),
    ];
    fields.iter().find(|(is_set, _)| *is_set).map_or("other", |(_, name)| *name)
}

/// Makes a context wrong in the sense of one check, on the store that is asked.
type Spoil = fn(&mut Context);

const WRONG_STORE: Spoil = |context| context.peer.as_mut().unwrap().store_id += 100;
const WRONG_REGION: Spoil = |context| context.region_id += 100;
const WRONG_PEER: Spoil = |context| context.peer.as_mut().unwrap().id += 100;
const OLD_TERM: Spoil = |context| context.term = 4;
const OLD_EPOCH: Spoil = |context| context.region_epoch.as_mut().unwrap().version -= 1;

/// Asks a store with a context that is right but for what spoils it.
fn asked_with(on_leader: bool, spoils: &[Spoil], request: Request) -> &'static str {
    let mut cluster = cluster();
    let region = region_of(&cluster, b"a");
    let store_id = if on_leader { region.leader.unwrap() } else { follower_of(&region) };
    let mut context = context_on(&region, store_id);
    spoils.iter().for_each(|spoil| spoil(&mut context));
    name(&refusal(&mut cluster, store_id, &context, request))
}

#[test]
fn a_read_that_is_wrong_in_two_ways_hears_of_the_first_in_the_local_readers_order() {
    let read = || get("a", 5);
    assert_eq!(asked_with(true, &[WRONG_STORE, WRONG_REGION], read()), "store_not_match");
    assert_eq!(asked_with(true, &[WRONG_REGION, WRONG_PEER], read()), "region_not_found");
    assert_eq!(asked_with(true, &[WRONG_PEER, OLD_TERM], read()), "mismatch_peer_id");
    assert_eq!(asked_with(false, &[OLD_TERM], read()), "stale_command");
    assert_eq!(asked_with(false, &[OLD_EPOCH], read()), "not_leader");
    assert_eq!(asked_with(true, &[OLD_EPOCH], get("z", 5)), "epoch_not_match");
    assert_eq!(asked_with(true, &[], get("z", 5)), "key_not_in_region");
}

#[test]
fn a_transactional_write_reads_first_and_is_checked_as_a_read() {
    let write = || prewrite("a", "1", 5);
    assert_eq!(asked_with(true, &[WRONG_STORE, WRONG_REGION], write()), "store_not_match");
    assert_eq!(asked_with(false, &[OLD_TERM], write()), "stale_command");
    assert_eq!(asked_with(false, &[OLD_EPOCH], write()), "not_leader");
}

#[test]
fn a_raw_write_that_is_wrong_in_two_ways_hears_of_the_first_in_the_raftstores_order() {
    let write = || raw_put("a", "1");
    assert_eq!(asked_with(true, &[WRONG_STORE, WRONG_REGION], write()), "region_not_found");
    assert_eq!(asked_with(true, &[WRONG_STORE, WRONG_PEER], write()), "store_not_match");
    assert_eq!(asked_with(false, &[WRONG_PEER], write()), "mismatch_peer_id");
    assert_eq!(asked_with(false, &[OLD_TERM], write()), "not_leader");
    assert_eq!(asked_with(true, &[OLD_TERM, OLD_EPOCH], write()), "stale_command");
    assert_eq!(asked_with(true, &[OLD_EPOCH], raw_put("z", "1")), "epoch_not_match");
}

#[test]
fn a_term_that_is_one_behind_is_recent_enough() {
    let mut cluster = cluster();
    let region = region_of(&cluster, b"a");
    let leader = region.leader.unwrap();
    for term in [region.term, region.term - 1] {
        let context = Context { term, ..context_on(&region, leader) };
        assert!(ask(&mut cluster, leader, &context, get("a", 5)).unwrap().region_error().is_none());
    }
}

#[test]
fn a_follower_names_the_leader_as_long_as_there_is_one() {
    let mut cluster = cluster();
    let region = region_of(&cluster, b"a");
    let follower = follower_of(&region);
    let context = context_on(&region, follower);
    let not_leader = refusal(&mut cluster, follower, &context, get("a", 5)).not_leader.unwrap();
    assert_eq!((not_leader.region_id, not_leader.leader), (region.id(), region.leader_peer().copied()));

    cluster.topology_mut().drop_leader(region.id()).unwrap();
    let not_leader = refusal(&mut cluster, follower, &context, get("a", 5)).not_leader.unwrap();
    assert_eq!(not_leader.leader, None);
}

#[test]
fn a_changed_epoch_is_answered_by_the_region_and_what_was_split_from_it() {
    let mut cluster = cluster();
    let old = region_of(&cluster, b"a");
    let leader = old.leader.unwrap();
    for key in [b"g", b"d"] {
        cluster.split(&encoded(key)).unwrap();
    }
    let error = refusal(&mut cluster, leader, &context_on(&old, leader), get("a", 5));
    let current = error.epoch_not_match.unwrap().current_regions;
    // The last part keeps the id, the others lie left of it: first "d".."g", then ..="d".
    let bounds: Vec<_> = current.iter().map(|region| (region.start_key.clone(), region.end_key.clone())).collect();
    let [a, d, g, m] = [Key::EMPTY, encoded(b"d"), encoded(b"g"), encoded(b"m")].map(Key::into_bytes);
    assert_eq!(bounds, [(g.clone(), m), (d.clone(), g), (a, d)]);
    assert_eq!(current[0].id, old.id());
}

#[test]
fn an_epoch_from_the_future_is_answered_by_the_region_alone() {
    let mut cluster = cluster();
    cluster.split(&encoded(b"d")).unwrap();
    let region = region_of(&cluster, b"e");
    let leader = region.leader.unwrap();
    let mut context = context_on(&region, leader);
    context.region_epoch.as_mut().unwrap().version += 1;
    let error = refusal(&mut cluster, leader, &context, get("e", 5));
    assert_eq!(error.epoch_not_match.unwrap().current_regions, [region.meta]);
}

#[test]
fn peers_that_come_and_go_do_not_change_the_epoch_that_counts() {
    let mut cluster = cluster();
    let region = region_of(&cluster, b"a");
    let (leader, follower) = (region.leader.unwrap(), follower_of(&region));
    cluster.topology_mut().remove_peer(region.id(), follower).unwrap();
    let reply = ask(&mut cluster, leader, &context_on(&region, leader), get("a", 5)).unwrap();
    assert_eq!(reply.region_error(), None);
    let error = refusal(&mut cluster, follower, &context_on(&region, follower), get("a", 5));
    assert_eq!(error.region_not_found.unwrap().region_id, region.id());
}

#[test]
fn a_key_outside_is_named_as_regions_are_bounded() {
    let mut cluster = cluster();
    let region = region_of(&cluster, b"a");
    let leader = region.leader.unwrap();
    let context = context_on(&region, leader);
    let outside = refusal(&mut cluster, leader, &context, get("z", 5)).key_not_in_region.unwrap();
    assert_eq!((Key::from(outside.key), Key::from(outside.end_key)), (encoded(b"z"), encoded(b"m")));
    assert_eq!(outside.region_id, region.id());

    let outside = refusal(&mut cluster, leader, &context, raw_get("z")).key_not_in_region.unwrap();
    assert_eq!(outside.key, "z");
}

#[test]
fn a_witness_serves_nothing() {
    let mut cluster = cluster();
    let region = region_of(&cluster, b"a");
    let follower = follower_of(&region);
    cluster.topology_mut().set_peer(region.id(), follower, PeerRole::Voter, true).unwrap();
    let context = Context { replica_read: true, ..context_on(&region, follower) };
    assert_eq!(name(&refusal(&mut cluster, follower, &context, get("a", 5))), "is_witness");
}

#[test]
fn a_follower_serves_replica_reads_as_long_as_it_can_ask_a_leader() {
    let mut cluster = cluster();
    ask_leader(&mut cluster, "a", prewrite("a", "1", 5));
    ask_leader(&mut cluster, "a", commit("a", 5, 6));
    let region = region_of(&cluster, b"a");
    let follower = follower_of(&region);
    let context = Context { replica_read: true, ..context_on(&region, follower) };
    let Response::Get(found) = ask(&mut cluster, follower, &context, get("a", 7)).unwrap() else { panic!() };
    assert_eq!(found.value, "1");
    // It is no way around the leader for writes.
    assert_eq!(name(&refusal(&mut cluster, follower, &context, prewrite("a", "1", 9))), "not_leader");

    cluster.topology_mut().drop_leader(region.id()).unwrap();
    let error = refusal(&mut cluster, follower, &context, get("a", 7));
    assert_eq!(error.read_index_not_ready.unwrap().region_id, region.id());
}

#[test]
fn a_follower_serves_stale_reads_up_to_its_safe_timestamp() {
    let mut cluster = cluster();
    let region = region_of(&cluster, b"a");
    let follower = follower_of(&region);
    let context = Context { stale_read: true, ..context_on(&region, follower) };
    let safe_ts = cluster.safe_ts(NOW, &txn_range(&region.bounds())).version();
    let reply = ask(&mut cluster, follower, &context, get("a", safe_ts)).unwrap();
    assert_eq!(reply.region_error(), None);

    let not_ready = refusal(&mut cluster, follower, &context, get("a", safe_ts + 1)).data_is_not_ready.unwrap();
    assert_eq!((not_ready.safe_ts, not_ready.region_id), (safe_ts, region.id()));

    // The leader serves what is too new for a stale read as an ordinary read.
    let leader = region.leader.unwrap();
    let context = Context { stale_read: true, ..context_on(&region, leader) };
    assert_eq!(ask(&mut cluster, leader, &context, get("a", safe_ts + 1)).unwrap().region_error(), None);
}

#[test]
fn what_is_prewritten_holds_the_safe_timestamp_back() {
    let mut cluster = cluster();
    ask_leader(&mut cluster, "a", prewrite("a", "1", 5));
    let region = region_of(&cluster, b"a");
    let follower = follower_of(&region);
    let context = Context { stale_read: true, ..context_on(&region, follower) };
    let not_ready = refusal(&mut cluster, follower, &context, get("b", 5)).data_is_not_ready.unwrap();
    assert_eq!(not_ready.safe_ts, 4);
}

#[test]
fn a_store_with_a_long_queue_turns_impatient_reads_away_before_any_other_check() {
    let mut cluster = cluster();
    let region = region_of(&cluster, b"a");
    let leader = region.leader.unwrap();
    cluster.topology_mut().store_mut(leader).unwrap().estimated_wait_ms = 200;
    let mut context = Context { busy_threshold_ms: 100, ..context_on(&region, leader) };
    context.region_id += 100;
    let busy = refusal(&mut cluster, leader, &context, get("a", 5)).server_is_busy.unwrap();
    assert_eq!(busy.estimated_wait_ms, 200);

    context.busy_threshold_ms = 200;
    assert_eq!(name(&refusal(&mut cluster, leader, &context, get("a", 5))), "region_not_found");
}

#[test]
fn a_region_in_a_flashback_serves_only_reads_of_the_time_before() {
    let mut cluster = cluster();
    let region = region_of(&cluster, b"a");
    let mut changed = region.clone();
    (changed.meta.is_in_flashback, changed.meta.flashback_start_ts) = (true, 100);
    *cluster.topology_mut().region_mut(region.id()).unwrap() = changed;
    let leader = region.leader.unwrap();
    let context = context_on(&region, leader);
    assert_eq!(ask(&mut cluster, leader, &context, get("a", 99)).unwrap().region_error(), None);
    let error = refusal(&mut cluster, leader, &context, get("a", 100));
    assert_eq!(error.flashback_in_progress.unwrap().flashback_start_ts, 100);
    assert_eq!(name(&refusal(&mut cluster, leader, &context, raw_put("a", "1"))), "flashback_in_progress");
}

#[test]
fn a_request_for_another_cluster_ends_in_a_status() {
    let mut cluster = cluster();
    let region = region_of(&cluster, b"a");
    let leader = region.leader.unwrap();
    let context = Context { cluster_id: 1, ..context_on(&region, leader) };
    let Err(CallError::Status(status)) = ask(&mut cluster, leader, &context, get("a", 5)) else { panic!() };
    assert_eq!(status.code, Code::InvalidArgument);
}

#[test]
fn only_these_commands_are_not_simulated() {
    let mut cluster = cluster();
    let region = region_of(&cluster, b"");
    let (store_id, context) = cluster.context_of(&region).unwrap();
    let mut missing = Vec::new();
    for kind in RequestKind::ALL {
        let (_, request) = kind.decode_request(Bytes::new()).unwrap();
        if let Served::Answered(Err(CallError::Status(status))) = cluster.handle_store(NOW, store_id, &context, request)
        {
            // Others hear that a real store would have died of an empty request.
            missing.extend((status.code == Code::Unimplemented).then_some(*kind));
        }
    }
    use RequestKind::*;
    let tiflash = [DispatchMppTask, EstablishMppConnection, CancelMppTask, MppAlive, Compact, GetTiFlashSystemTable];
    let flashback = [FlashbackToVersion, PrepareFlashbackToVersion];
    let observers = [RegisterLockObserver, CheckLockObserver, RemoveLockObserver];
    let others = [Gc, CoprocessorStream, BatchCoprocessor, DebugGetRegionProperties];
    let mut expected: Vec<RequestKind> = tiflash.into_iter().chain(flashback).chain(observers).chain(others).collect();
    expected.sort();
    missing.sort();
    assert_eq!(missing, expected);
}

#[test]
fn what_is_told_of_a_transaction_is_remembered() {
    let mut cluster = cluster();
    let before = cluster.storage().clone();
    let status = kvrpcpb::TxnStatus { start_ts: 5, commit_ts: 9, ..Default::default() };
    let told = kvrpcpb::BroadcastTxnStatusRequest { txn_status: vec![status], ..Default::default() };
    let served = cluster.handle_store(NOW, 1, &Context::default(), told.into());
    assert!(matches!(served, Served::Answered(Ok(Response::BroadcastTxnStatus(_)))), "{served:?}");
    assert_ne!(*cluster.storage(), before);
}
