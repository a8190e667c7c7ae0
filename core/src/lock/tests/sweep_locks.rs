use std::time::Duration;

use tikv_proto::kvrpcpb::{
    Action, CheckTxnStatusRequest, ResolveLockRequest, ResolveLockResponse, ScanLockRequest, ScanLockResponse,
};

use super::*;
use crate::error::Error;
use crate::key::KeyRange;
use crate::lock::{ScanLocks, SweepLocks, Swept, scan_locks};
use crate::machine::Token;

/// Transactions that began here or before.
fn safe_point() -> Timestamp {
    ts(10_000)
}

fn sweep(range: KeyRange) -> SweepLocks {
    SweepLocks::new(range, safe_point(), options())
}

fn scan(limit: u32) -> Script<ScanLocks> {
    unaware(scan_locks(&Config::default(), KeyRange::ALL, safe_point(), limit, &options()))
}

fn found(locks: &[LockInfo]) -> ScanLockResponse {
    ScanLockResponse { locks: locks.iter().map(to_proto).collect(), ..Default::default() }
}

fn expect_scan<M: Machine>(script: &mut Script<M>, region: u64, start: &str, end: &str, limit: u32) -> Token
where
    M::Output: Debug,
{
    let token = script.expect_call(1, |request: &ScanLockRequest| {
        assert_eq!((&request.start_key[..], &request.end_key[..]), (start.as_bytes(), end.as_bytes()));
        assert_eq!((request.max_version, request.limit), (safe_point().version(), limit));
    });
    assert_eq!(script.last_context().region_id, region);
    token
}

/// The transaction is ended, and one region told.
fn resolve(script: &mut Script<SweepLocks>) {
    script.expect_call(1, |_: &CheckTxnStatusRequest| {});
    script.reply(ended(Action::TtlExpireRollback));
    script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.txn_infos.len(), 1));
    script.reply(ResolveLockResponse::default());
}

#[test]
fn locks_of_all_regions_are_listed_until_there_are_enough() {
    let (one, two, three) = (lock("a", "a", ts(1)), lock("h", "h", ts(2)), lock("i", "h", ts(2)));
    let mut script = scan(3);
    expect_scan(&mut script, 1, "", "g", 3);
    script.reply(found(std::slice::from_ref(&one)));
    expect_scan(&mut script, 2, "g", "p", 2);
    script.reply(found(&[two.clone(), three.clone()]));
    assert_eq!(script.expect_done(), Ok(vec![one, two, three]));
}

#[test]
fn shared_locks_are_listed_one_by_one() {
    let shared: Vec<LockInfo> =
        (1..=2).map(|n| LockInfo { kind: kvrpcpb::Op::SharedLock, ..lock("a", "a", ts(n)) }).collect();
    let shared_lock_infos = shared.iter().map(to_proto).collect();
    let wrapper = kvrpcpb::LockInfo { shared_lock_infos, key: bytes("a"), ..Default::default() };
    let mut script = scan(2);
    expect_scan(&mut script, 1, "", "g", 2);
    script.reply(ScanLockResponse { locks: vec![wrapper], ..Default::default() });
    assert_eq!(script.expect_done(), Ok(shared));
}

/// Whoever asks is about to end their transactions.
#[test]
fn a_lock_that_is_younger_than_was_asked_for_is_refused() {
    for start_ts in [safe_point().next(), Timestamp::ZERO] {
        let mut script = scan(3);
        expect_scan(&mut script, 1, "", "g", 3);
        script.reply(found(&[lock("a", "a", start_ts)]));
        let result = script.expect_done();
        assert!(matches!(result, Err(Error::Refused { operation: "ScanLock", .. })), "{result:?}");
    }
}

#[test]
fn regions_are_swept_side_by_side_and_all_locks_counted() {
    let mut script = script(sweep(KeyRange::ALL), ts(20_000));
    let scans = [("", "g"), ("g", "p"), ("p", "")].into_iter().zip(1..);
    let scans: Vec<_> =
        scans.map(|((start, end), region)| expect_scan(&mut script, region, start, end, 1024)).collect();
    script.reply_to(scans[1], found(&[lock("h", "a", ts(9_000)), lock("i", "a", ts(9_000))]));
    resolve(&mut script);
    script.reply_to(scans[0], found(&[lock("a", "a", ts(9_000))]));
    // Its end is remembered.
    script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.txn_infos.len(), 1));
    script.reply(ResolveLockResponse::default());
    script.reply_to(scans[2], found(&[]));
    assert_eq!(script.expect_done(), Ok(Swept { regions: 3, locks: 3 }));
}

#[test]
fn no_more_regions_are_swept_at_once_than_wanted_and_none_beyond_the_range() {
    let mut script = script(sweep(KeyRange::new("b", "h")).with_concurrency(1), ts(20_000));
    expect_scan(&mut script, 1, "b", "g", 1024);
    script.expect_nothing();
    script.reply(found(&[]));
    expect_scan(&mut script, 2, "g", "h", 1024);
    script.reply(found(&[]));
    assert_eq!(script.expect_done(), Ok(Swept { regions: 2, locks: 0 }));
}

#[test]
fn an_empty_range_is_not_asked_about() {
    let mut script = unaware(sweep(KeyRange::new("h", "b")));
    assert_eq!(script.expect_done(), Ok(Swept::default()));
}

#[test]
fn a_region_with_more_locks_than_a_page_holds_is_asked_again_from_the_last_one_on() {
    let page: Vec<LockInfo> = (0..1024).map(|n| lock(&format!("a{n:04}"), "a0000", ts(9_000))).collect();
    let mut script = script(sweep(KeyRange::new("a", "b")), ts(20_000));
    expect_scan(&mut script, 1, "a", "b", 1024);
    script.reply(found(&page));
    resolve(&mut script);
    // A key may have several locks.
    expect_scan(&mut script, 1, "a1023", "b", 1024);
    script.reply(found(&[lock("a2", "a2", ts(9_500))]));
    resolve(&mut script);
    assert_eq!(script.expect_done(), Ok(Swept { regions: 1, locks: 1025 }));
}

#[test]
fn locks_that_do_not_go_away_end_it() {
    let page: Vec<LockInfo> = (0..1024).map(|_| lock("a", "a", ts(9_000))).collect();
    let mut script = script(sweep(KeyRange::new("a", "b")), ts(20_000));
    expect_scan(&mut script, 1, "a", "b", 1024);
    script.reply(found(&page));
    resolve(&mut script);
    for _ in 1..64 {
        expect_scan(&mut script, 1, "a", "b", 1024);
        script.reply(found(&page));
        if script.peek().is_none() {
            break;
        }
        script.expect_call(1, |_: &ResolveLockRequest| {});
        script.reply(ResolveLockResponse::default());
    }
    assert!(matches!(script.expect_done(), Err(Error::Locked(_))));
}

#[test]
fn an_error_of_one_region_ends_all() {
    let mut script = script(sweep(KeyRange::ALL), ts(20_000));
    let scans: Vec<_> = (1..=3).map(|_| script.expect_call(1, |_: &ScanLockRequest| {})).collect();
    let error = kvrpcpb::KeyError { abort: "no".into(), ..Default::default() };
    script.reply_to(scans[1], ScanLockResponse { error: Some(Box::new(error)), ..Default::default() });
    script.expect_cancel(scans[0]).expect_cancel(scans[2]);
    assert!(matches!(script.expect_done(), Err(Error::Key(_))));
}

#[test]
fn a_sweep_ends_at_its_deadline() {
    let mut script =
        unaware(SweepLocks::new(KeyRange::ALL, safe_point(), options().with_deadline(crate::time::Time::ZERO)));
    script.advance(Duration::from_secs(1));
    let result = script.expect_done();
    assert!(matches!(result, Err(Error::DeadlineExceeded { .. })), "{result:?}");
}
