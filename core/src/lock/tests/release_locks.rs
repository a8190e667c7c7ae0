use tikv_proto::kvrpcpb::{
    PessimisticRollbackRequest, PessimisticRollbackResponse, ResolveLockRequest, ResolveLockResponse,
};

use super::*;
use crate::backoff::BackoffKind;
use crate::error::{Error, KeyError};
use crate::knowledge::txn_status::FinalStatus;
use crate::lock::{Release, ReleaseLocks, Scope};
use crate::machine::{Observation, SleepReason};
use crate::time::Time;

fn release(names: &[&str], release: Release, scope: Scope) -> Script<ReleaseLocks> {
    unaware(ReleaseLocks::new(ts(10), keys(names), release, scope, options(), backoff()))
}

fn commit(names: &[&str]) -> Script<ReleaseLocks> {
    release(names, Release::Finish(FinalStatus::Committed(ts(20))), Scope::Keys)
}

fn refused(error: kvrpcpb::KeyError) -> ResolveLockResponse {
    ResolveLockResponse { error: Some(Box::new(error)), ..Default::default() }
}

fn lock_not_found(key: &'static str) -> ResolveLockResponse {
    let txn_lock_not_found = Some(kvrpcpb::TxnLockNotFound { key: bytes(key) });
    refused(kvrpcpb::KeyError { txn_lock_not_found, ..Default::default() })
}

#[test]
fn the_keys_of_a_region_go_in_one_request_and_regions_side_by_side() {
    let mut script = commit(&["z", "a", "b", "a"]);
    let first = script.expect_call(1, |request: &ResolveLockRequest| {
        assert_eq!(request.keys, ["a", "b"]);
        assert_eq!((request.start_version, request.commit_version), (ts(10).version(), ts(20).version()));
    });
    let second = script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.keys, ["z"]));
    script.reply_to(second, ResolveLockResponse::default()).expect_nothing();
    script.reply_to(first, ResolveLockResponse::default());
    assert_eq!(script.expect_done().result, Ok(()));
}

#[test]
fn a_rollback_carries_no_commit_ts() {
    let mut script = release(&["a"], Release::Finish(FinalStatus::RolledBack), Scope::Keys);
    script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.commit_version, 0));
}

#[test]
fn tikv_looks_for_the_locks_of_a_large_transaction_once_a_region() {
    let mut script = release(&["a", "b", "h"], Release::Finish(FinalStatus::RolledBack), Scope::Regions);
    for region in [1, 2] {
        script.expect_call(1, |request: &ResolveLockRequest| assert!(request.keys.is_empty()));
        assert_eq!(script.last_context().region_id, region);
    }
    script.expect_nothing();
}

#[test]
fn pessimistic_locks_are_removed_up_to_the_time_they_were_seen_at() {
    let mut script = release(&["a"], Release::Pessimistic { for_update_ts: ts(15) }, Scope::Keys);
    script.expect_call(1, |request: &PessimisticRollbackRequest| {
        assert_eq!(request.keys, ["a"]);
        assert_eq!((request.start_version, request.for_update_ts), (ts(10).version(), ts(15).version()));
    });
    script.reply(PessimisticRollbackResponse::default());
    assert_eq!(script.expect_done().result, Ok(()));
}

#[test]
fn after_a_split_only_the_keys_of_that_request_are_sent_again() {
    let mut script = commit(&["a", "h", "k", "z"]);
    script.expect_call(1, |_: &ResolveLockRequest| {});
    script.reply(ResolveLockResponse::default());
    script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.keys, ["h", "k"]));
    script.region_error(epoch_not_match(vec![split(2, "g".."j"), split(4, "j".."p")]));
    script.expect_call(1, |_: &ResolveLockRequest| {});
    script.reply(ResolveLockResponse::default());
    for key in ["h", "k"] {
        script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.keys, [key]));
        script.reply(ResolveLockResponse::default());
    }
    assert_eq!(script.expect_done().result, Ok(()));
}

#[test]
fn a_store_that_says_split_again_and_again_is_not_hammered() {
    let mut script = commit(&["h"]);
    for _ in 0..2 {
        script.expect_call(1, |_: &ResolveLockRequest| {});
        script.region_error(epoch_not_match(vec![split(2, "g".."p")]));
    }
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::RegionMiss)));
}

#[test]
fn a_lock_that_is_gone_does_not_keep_the_others_from_being_released() {
    let mut script = commit(&["a", "b"]);
    script.expect_call(1, |_: &ResolveLockRequest| {});
    script.reply(lock_not_found("a"));
    script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.keys, ["b"]));
    script.reply(lock_not_found("b"));
    assert_eq!(script.expect_done().result, Ok(()));
}

#[test]
fn a_missing_lock_that_was_not_asked_for_is_an_error() {
    let mut script = commit(&["a"]);
    script.expect_call(1, |_: &ResolveLockRequest| {});
    script.reply(lock_not_found("b"));
    let error = KeyError::TxnLockNotFound { key: "b".into() };
    assert_eq!(script.expect_done().result, Err(Error::Key(error)));
}

#[test]
fn a_refusal_ends_the_release_and_cancels_what_is_left() {
    let mut script = commit(&["a", "h"]);
    let refusing = script.expect_call(1, |_: &ResolveLockRequest| {});
    let other = script.expect_call(1, |_: &ResolveLockRequest| {});
    script.reply_to(refusing, refused(kvrpcpb::KeyError { abort: "no".into(), ..Default::default() }));
    script.expect_cancel(other);
    assert_eq!(script.expect_done().result, Err(Error::Key(KeyError::Abort("no".into()))));
}

#[test]
fn what_is_spent_on_the_way_is_handed_back() {
    let mut script = commit(&["a"]);
    script.expect_call(1, |_: &ResolveLockRequest| {});
    script.region_error(epoch_not_match(Vec::new()));
    script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::RegionMiss)));
    script.wake();
    script.expect_pd(&crate::request::pd::PdRequest::RegionByKey {
        key: KeyCodec::Txn.encode_region_key(&"a".into()),
        leader_only: false,
    });
    let region = std::sync::Arc::new(crate::request::pd::PdRegion {
        region: split(1, "".."g"),
        leader: Some(metapb::Peer { id: 11, store_id: 1, ..Default::default() }),
        ..Default::default()
    });
    script.pd(Ok(crate::request::pd::PdResponse::Region(Some(region))));
    script.expect_call(1, |_: &ResolveLockRequest| {});
    script.reply(ResolveLockResponse::default());
    let released = script.expect_done();
    assert_eq!(released.result, Ok(()));
    assert!(!released.backoff.total_sleep().is_zero());
}

#[test]
fn a_release_without_an_owner_has_a_budget_of_its_own_and_reports_failure() {
    let options = CallOptions { deadline: Time::from_millis(5), ..options() };
    let finish = Release::Finish(FinalStatus::RolledBack);
    let release = ReleaseLocks::new(ts(10), keys(&["a"]), finish, Scope::Keys, options, Backoff::none());
    let mut script = unaware(release.in_background());
    script.expect_call(1, |_: &ResolveLockRequest| {});
    script.region_error(errorpb::Error { message: "some trouble".into(), ..Default::default() });
    script.expect_sleep(|_, _| {});
    script.advance(std::time::Duration::from_millis(10)).wake().expect_call(1, |_: &ResolveLockRequest| {});
    script.reply(refused(kvrpcpb::KeyError { abort: "no".into(), ..Default::default() }));
    script.expect_done();
    let error = Error::Key(KeyError::Abort("no".into()));
    let failed = Observation::BackgroundFailed { task: "release locks", error };
    assert_eq!(script.observations().last(), Some(&failed));
}
