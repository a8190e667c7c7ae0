//! Every region error: what it teaches, how long to wait, what comes next.

use std::collections::BTreeSet;

use super::*;
use crate::error::{CallFailure, Error};
use crate::knowledge::regions::{Buckets, RegionVerId};
use crate::machine::Observation;
use crate::machine::script::region;

fn error(set: impl FnOnce(&mut errorpb::Error)) -> errorpb::Error {
    let mut error = errorpb::Error::default();
    set(&mut error);
    error
}

fn in_words(message: &str) -> errorpb::Error {
    errorpb::Error { message: message.into(), ..Default::default() }
}

/// What follows on an error of the leader on store 1.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    /// Another attempt, on this store.
    Send(u64),
    /// The keys are to be located anew.
    Relocate,
    Refused,
    Undetermined,
}

struct Row {
    error: errorpb::Error,
    name: &'static str,
    backoff: Option<BackoffKind>,
    next: Then,
    /// Whether the region is still known.
    known: bool,
    /// The store taken for the leader afterwards.
    leader: u64,
    /// Whether PD is to be asked about the store.
    check_store: bool,
}

fn row(error: errorpb::Error, name: &'static str, backoff: Option<BackoffKind>, next: Then) -> Row {
    Row { error, name, backoff, next, known: true, leader: 1, check_store: false }
}

impl Row {
    fn forgets_the_region(self) -> Self {
        Row { known: false, ..self }
    }
}

/// The table, as a write meets it.
fn rows() -> Vec<Row> {
    use BackoffKind as Kind;
    use Then::{Refused, Relocate, Send, Undetermined};
    let forget = Row::forgets_the_region;
    vec![
        row(error(|e| e.undetermined_result = Some(Default::default())), "undetermined_result", None, Undetermined),
        Row { leader: 2, ..row(not_leader(Some(peer(1, 2))), "not_leader", None, Send(2)) },
        row(not_leader(None), "not_leader", Some(Kind::RegionScheduling), Send(2)),
        forget(row(not_leader(Some(peer(1, 9))), "not_leader", Some(Kind::RegionMiss), Relocate)),
        forget(row(
            not_leader(Some(metapb::Peer { id: 99, ..peer(1, 2) })),
            "not_leader",
            Some(Kind::RegionMiss),
            Relocate,
        )),
        row(error(|e| e.disk_full = Some(Default::default())), "disk_full", Some(Kind::TikvDiskFull), Send(1)),
        forget(row(
            error(|e| e.recovery_in_progress = Some(Default::default())),
            "recovery_in_progress",
            Some(Kind::RegionRecoveryInProgress),
            Relocate,
        )),
        forget(row(error(|e| e.is_witness = Some(Default::default())), "is_witness", Some(Kind::IsWitness), Relocate)),
        row(error(|e| e.flashback_in_progress = Some(Default::default())), "flashback_in_progress", None, Refused),
        row(error(|e| e.flashback_not_prepared = Some(Default::default())), "flashback_not_prepared", None, Refused),
        forget(row(
            error(|e| e.region_not_found = Some(Default::default())),
            "region_not_found",
            Some(Kind::RegionMiss),
            Relocate,
        )),
        forget(row(
            error(|e| e.key_not_in_region = Some(Default::default())),
            "key_not_in_region",
            Some(Kind::RegionMiss),
            Relocate,
        )),
        forget(row(epoch_not_match(Vec::new()), "epoch_not_match", Some(Kind::RegionMiss), Relocate)),
        row(epoch_not_match(vec![region_meta(1, 0, "".."")]), "epoch_not_match", Some(Kind::RegionMiss), Send(1)),
        row(epoch_not_match(vec![region_meta(1, 2, "".."")]), "epoch_not_match", None, Relocate),
        row(
            error(|e| e.bucket_version_not_match = Some(Default::default())),
            "bucket_version_not_match",
            Some(Kind::RegionMiss),
            Relocate,
        ),
        row(busy("", 0), "server_is_busy", Some(Kind::TikvServerBusy), Send(1)),
        row(busy("", 700), "server_is_busy", Some(Kind::TikvServerBusy), Send(1)),
        row(busy("Deadline is exceeded", 0), "deadline_exceeded", Some(Kind::TikvServerBusy), Send(1)),
        row(in_words("Deadline is exceeded"), "deadline_exceeded", Some(Kind::TikvServerBusy), Send(1)),
        row(error(|e| e.stale_command = Some(Default::default())), "stale_command", Some(Kind::StaleCommand), Send(1)),
        Row {
            check_store: true,
            ..forget(row(
                error(|e| e.store_not_match = Some(Default::default())),
                "store_not_match",
                Some(Kind::RegionMiss),
                Relocate,
            ))
        },
        row(error(|e| e.raft_entry_too_large = Some(Default::default())), "raft_entry_too_large", None, Refused),
        row(
            error(|e| e.max_timestamp_not_synced = Some(Default::default())),
            "max_timestamp_not_synced",
            Some(Kind::MaxTsNotSynced),
            Send(1),
        ),
        row(
            error(|e| e.read_index_not_ready = Some(Default::default())),
            "read_index_not_ready",
            Some(Kind::RegionScheduling),
            Send(1),
        ),
        row(
            error(|e| e.proposal_in_merging_mode = Some(Default::default())),
            "proposal_in_merging_mode",
            Some(Kind::RegionScheduling),
            Send(1),
        ),
        row(
            error(|e| e.data_is_not_ready = Some(Default::default())),
            "data_is_not_ready",
            Some(Kind::RegionScheduling),
            Send(1),
        ),
        row(
            error(|e| e.region_not_initialized = Some(Default::default())),
            "region_not_initialized",
            Some(Kind::RegionNotInitialized),
            Send(1),
        ),
        forget(row(
            error(|e| e.mismatch_peer_id = Some(Default::default())),
            "mismatch_peer_id",
            Some(Kind::RegionMiss),
            Relocate,
        )),
        row(in_words("invalid max_ts update: 18446744073709551614"), "invalid_max_ts_update", None, Refused),
        row(in_words("TiKV is Closing"), "other", Some(Kind::StaleCommand), Send(1)),
    ]
}

#[test]
fn every_region_error_has_its_consequences() {
    for row in rows() {
        let name = row.name;
        let knowledge = one_region();
        let mut script = Script::with_knowledge(prewrite(&knowledge, options()), knowledge);
        script.expect_call(1, |_: &kvrpcpb::PrewriteRequest| {});
        script.region_error(row.error.clone());
        assert_eq!(script.observations(), [Observation::RegionError { name, region_id: 1, store_id: 1 }]);
        let known = script.knowledge.regions.lookup(script.now(), b"k");
        assert_eq!(known.is_some(), row.known, "{name}");
        assert!(known.is_none_or(|region| region.leader().peer.store_id == row.leader), "{name}");
        assert_eq!(script.knowledge.stores.get(1).expect("known").needs_check, row.check_store, "{name}");
        if row.check_store {
            script.expect_reconnect("store-1");
        }
        if let Some(kind) = row.backoff {
            back_off(&mut script, kind);
        }
        if let Then::Send(store) = row.next {
            script.expect_call(store, |_: &kvrpcpb::PrewriteRequest| {});
            script.reply(kvrpcpb::PrewriteResponse::default());
            assert!(script.expect_done().result.is_ok(), "{name}");
            continue;
        }
        let last = CallFailure::Region { name, region_id: 1, address: "store-1".into() };
        let end = script.expect_done();
        let expected = match row.next {
            Then::Relocate => Err(CallError::Relocate(last)),
            Then::Undetermined => Err(CallError::Undetermined(last)),
            Then::Refused | Then::Send(_) => {
                let message = if row.error.message.is_empty() { name } else { &row.error.message };
                let (operation, address) = ("Prewrite", "store-1".into());
                Err(CallError::Failed(Error::Refused { operation, address, message: message.into() }))
            }
        };
        assert_eq!(end.result, expected, "{name}");
        assert_eq!((end.attempts, end.address().map(|address| &**address)), (1, Some("store-1")), "{name}");
    }
}

#[test]
fn the_table_is_complete() {
    let names: BTreeSet<_> = rows().iter().map(|row| RegionErrorKind::of(&row.error).name()).collect();
    // The fields of errorpb.Error but the message, and the three conditions that are told in words.
    assert_eq!(names.len(), 21 + 3, "{names:?}");
    for row in rows() {
        assert_eq!(RegionErrorKind::of(&row.error).name(), row.name);
    }
}

#[test]
fn of_several_errors_the_one_that_matters_most_counts() {
    let mut all =
        errorpb::Error { message: "Deadline is exceeded, invalid max_ts update".into(), ..Default::default() };
    all.undetermined_result = Some(Default::default());
    all.not_leader = Some(Default::default());
    all.region_not_found = Some(Default::default());
    all.epoch_not_match = Some(Default::default());
    all.server_is_busy = Some(errorpb::ServerIsBusy { reason: "deadline is exceeded".into(), ..Default::default() });
    all.stale_command = Some(Default::default());
    let mut expect = |name: &str, next: fn(&mut errorpb::Error)| {
        assert_eq!(RegionErrorKind::of(&all).name(), name);
        next(&mut all);
    };
    expect("undetermined_result", |error| error.undetermined_result = None);
    expect("not_leader", |error| error.not_leader = None);
    expect("region_not_found", |error| error.region_not_found = None);
    expect("epoch_not_match", |error| error.epoch_not_match = None);
    expect("deadline_exceeded", |error| error.server_is_busy = Some(Default::default()));
    expect("server_is_busy", |error| error.server_is_busy = None);
    expect("stale_command", |error| error.stale_command = None);
    expect("deadline_exceeded", |error| error.message = "invalid max_ts update".into());
    expect("invalid_max_ts_update", |error| error.message = String::new());
    expect("other", |_| {});
}

/// A get of "k" that has to find its region by itself.
fn get_by_key(knowledge: Knowledge) -> Script<RegionCall<kvrpcpb::GetRequest>> {
    let call = RegionCall::to_key(get_request(), options(), budget_of(40));
    Script::with_knowledge(call, knowledge)
}

#[test]
fn a_call_to_a_key_locates_it_again_by_itself() {
    for row in rows().into_iter().filter(|row| row.next == Then::Relocate && !row.known) {
        let mut script = get_by_key(one_region());
        script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
        script.region_error(row.error);
        if row.check_store {
            script.expect_reconnect("store-1");
        }
        back_off(&mut script, row.backoff.expect("without news there is a pause"));
        script.expect_pd(&by_key("k", false));
        script.pd(the_region(pd_region(7, 2, "g".."p")));
        if row.check_store {
            script.expect_pd(&PdRequest::Store { id: 1 });
            script.pd(the_store(pd_store(1)));
        }
        script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
        let context = &script.last_context();
        assert_eq!((context.region_id, context.is_retry_request), (7, true), "{}", row.name);
        script.reply(kvrpcpb::GetResponse::default());
        let end = script.expect_done();
        assert_eq!((end.attempts, end.region.expect("answered").ver_id.id), (2, 7));
    }
}

#[test]
fn a_store_that_is_another_one_is_checked_and_its_new_address_used() {
    let mut script = get_by_key(one_region());
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    script.region_error(error(|e| e.store_not_match = Some(Default::default())));
    script.expect_reconnect("store-1");
    back_off(&mut script, BackoffKind::RegionMiss);
    script.expect_pd(&by_key("k", false));
    script.pd(the_region(pd_region(1, 1, "".."")));
    script.expect_pd(&PdRequest::Store { id: 1 });
    script.pd(the_store(metapb::Store { address: "moved".into(), ..pd_store(1) }));
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    assert_eq!(&*script.last_call().address, "moved");
}

#[test]
fn of_many_calls_that_meet_another_store_one_has_the_connection_made_anew() {
    let knowledge = one_region();
    knowledge.stores.request_check(1);
    let mut script = Script::with_knowledge(get(&knowledge, options()), knowledge);
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    script.region_error(error(|e| e.store_not_match = Some(Default::default())));
    back_off(&mut script, BackoffKind::RegionMiss);
}

#[test]
fn a_split_is_learnt_from_the_store_that_tells_of_it() {
    let mut script = get_by_key(one_region());
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    script.region_error(not_leader(Some(peer(1, 2))));
    script.expect_call(2, |_: &kvrpcpb::GetRequest| {});
    script.region_error(epoch_not_match(vec![region_meta(1, 2, "".."g"), region_meta(2, 2, "g".."")]));
    // Without a question to PD, and to the store that told of it.
    script.expect_call(2, |_: &kvrpcpb::GetRequest| {});
    let context = &script.last_context();
    assert_eq!(
        (context.region_id, context.region_epoch, context.is_retry_request),
        (2, Some(metapb::RegionEpoch { conf_ver: 1, version: 2 }), true)
    );
    let known: Vec<_> = script.knowledge.regions.all().iter().map(|region| region.ver_id.id).collect();
    assert_eq!(known, [1, 2]);
}

#[test]
fn a_region_of_stores_not_known_yet_is_left_to_pd() {
    let mut strange = region_meta(2, 2, "g".."");
    strange.peers.push(peer(2, 9));
    let mut script = get_by_key(one_region());
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    script.region_error(epoch_not_match(vec![region_meta(1, 2, "".."g"), strange]));
    script.expect_pd(&by_key("k", false));
    assert_eq!(script.knowledge.regions.len(), 1);
}

#[test]
fn a_store_that_tells_nonsense_of_regions_teaches_nothing() {
    let foreign = metapb::Region { start_key: "not encoded".into(), ..region_meta(2, 2, "".."") };
    let empty = region_meta(3, 2, "g".."g");
    let nobody = metapb::Region { peers: Vec::new(), ..region_meta(4, 2, "".."") };
    let mut script = get_by_key(one_region());
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    script.region_error(epoch_not_match(vec![foreign, empty, nobody]));
    script.expect_pd(&by_key("k", false));
    assert!(script.knowledge.regions.is_empty());
}

#[test]
fn a_store_that_is_behind_is_asked_again_for_the_same_region() {
    for (conf_ver, version) in [(0, 1), (1, 0), (0, 2)] {
        let mut behind = region_meta(1, version, "".."");
        behind.region_epoch = Some(metapb::RegionEpoch { conf_ver, version });
        let mut script = get_by_key(one_region());
        script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
        script.region_error(epoch_not_match(vec![behind]));
        back_off(&mut script, BackoffKind::RegionMiss);
        script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    }
}

#[test]
fn only_the_first_epoch_mismatch_goes_without_a_pause() {
    let mut script = get_by_key(one_region());
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    script.region_error(epoch_not_match(vec![region_meta(1, 2, "".."")]));
    for version in 3..10 {
        script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
        script.region_error(epoch_not_match(vec![region_meta(1, version, "".."")]));
        back_off(&mut script, BackoffKind::RegionMiss);
    }
    let knowledge = one_region();
    let mut script = Script::with_knowledge(get(&knowledge, options()).as_retry(true), knowledge);
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    script.region_error(epoch_not_match(vec![region_meta(1, 2, "".."")]));
    back_off(&mut script, BackoffKind::RegionMiss);
}

#[test]
fn newer_buckets_are_learnt_in_the_keys_of_the_client() {
    let encoded = |key: &str| KeyCodec::Txn.encode_region_key(&Key::from(key));
    let at_c = Buckets { version: 5, keys: vec![Key::EMPTY, Key::from("c"), Key::EMPTY] };
    for (known, version, keys, expected) in [
        (None, 5, vec!["".into(), encoded("c"), "".into()], Some(at_c.clone())),
        (Some(4), 5, vec!["".into(), encoded("c"), "".into()], Some(at_c)),
        (Some(6), 5, vec!["".into(), encoded("c"), "".into()], Some(Buckets { version: 6, keys: Vec::new() })),
        (None, 5, vec!["not encoded".into()], None),
        (None, 5, Vec::new(), None),
    ] {
        let buckets = known.map(|version| Arc::new(Buckets { version, keys: Vec::new() }));
        let knowledge = knowledge(KeyCodec::Txn, [Region { buckets, ..region(1, "".."") }]);
        let mut script = Script::with_knowledge(get(&knowledge, options()), knowledge);
        script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
        let mismatch = errorpb::BucketVersionNotMatch { version, keys };
        script.region_error(error(|e| e.bucket_version_not_match = Some(mismatch)));
        let region = script.knowledge.regions.get(RegionVerId { id: 1, conf_ver: 1, version: 1 }).expect("known");
        assert_eq!(region.buckets.as_deref(), expected.as_ref());
    }
}

#[test]
fn an_unknown_result_is_no_matter_for_what_can_be_repeated() {
    let unknown = || error(|e| e.undetermined_result = Some(Default::default()));
    let knowledge = one_region();
    let mut script = Script::with_knowledge(get(&knowledge, options()), knowledge);
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    script.region_error(unknown());
    back_off(&mut script, BackoffKind::RegionMiss);
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    let knowledge = one_region();
    let mut script = Script::with_knowledge(prewrite(&knowledge, options()).repeatable(), knowledge);
    script.expect_call(1, |_: &kvrpcpb::PrewriteRequest| {});
    script.region_error(unknown());
    back_off(&mut script, BackoffKind::RegionMiss);
    script.expect_call(1, |_: &kvrpcpb::PrewriteRequest| {});
    script.reply(kvrpcpb::PrewriteResponse::default());
    let end = script.expect_done();
    assert!(end.result.is_ok() && end.maybe_executed, "the caller may still want to know");
}

#[test]
fn an_unknown_result_is_the_end_of_what_cannot_be_repeated() {
    for at_most_once in [false, true] {
        let knowledge = one_region();
        let call = prewrite(&knowledge, options());
        let call = if at_most_once { call.repeatable().at_most_once() } else { call };
        let mut script = Script::with_knowledge(call, knowledge);
        script.expect_call(1, |_: &kvrpcpb::PrewriteRequest| {});
        script.region_error(error(|e| e.undetermined_result = Some(Default::default())));
        let end = script.expect_done();
        assert!(matches!(end.result, Err(CallError::Undetermined(_))) && end.maybe_executed);
    }
}

#[test]
fn a_write_that_a_deposed_leader_gave_up_may_have_been_applied() {
    let stale_command = || error(|e| e.stale_command = Some(Default::default()));
    let knowledge = one_region();
    let mut script = Script::with_knowledge(prewrite(&knowledge, options()), knowledge);
    script.expect_call(1, |_: &kvrpcpb::PrewriteRequest| {});
    script.region_error(stale_command());
    back_off(&mut script, BackoffKind::StaleCommand);
    script.expect_call(1, |_: &kvrpcpb::PrewriteRequest| {});
    script.region_error(error(|e| e.flashback_in_progress = Some(Default::default())));
    assert!(script.expect_done().maybe_executed);

    let knowledge = one_region();
    let mut script = Script::with_knowledge(prewrite(&knowledge, options()).at_most_once(), knowledge);
    script.expect_call(1, |_: &kvrpcpb::PrewriteRequest| {});
    script.region_error(stale_command());
    assert!(matches!(script.expect_done().result, Err(CallError::Undetermined(_))));

    let knowledge = one_region();
    let mut script = Script::with_knowledge(get(&knowledge, options()), knowledge);
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    script.region_error(stale_command());
    back_off(&mut script, BackoffKind::StaleCommand);
    script.expect_call(1, |_: &kvrpcpb::GetRequest| {});
    script.reply(kvrpcpb::GetResponse::default());
    assert!(!script.expect_done().maybe_executed, "a read changes nothing");
}

#[test]
fn an_error_that_says_that_nothing_was_done_leaves_no_doubt() {
    for row in rows().into_iter().filter(|row| !matches!(row.name, "undetermined_result" | "stale_command")) {
        let knowledge = one_region();
        let mut script = Script::with_knowledge(prewrite(&knowledge, options()).at_most_once(), knowledge);
        script.expect_call(1, |_: &kvrpcpb::PrewriteRequest| {});
        script.region_error(row.error);
        if row.check_store {
            script.expect_reconnect("store-1");
        }
        if let Some(kind) = row.backoff {
            back_off(&mut script, kind);
        }
        if let Then::Send(store) = row.next {
            script.expect_call(store, |_: &kvrpcpb::PrewriteRequest| {});
            script.reply(kvrpcpb::PrewriteResponse::default());
        }
        assert!(!script.expect_done().maybe_executed, "{}", row.name);
    }
}
