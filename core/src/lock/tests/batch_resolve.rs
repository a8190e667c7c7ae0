use tikv_proto::kvrpcpb::{
    Action, CheckSecondaryLocksRequest, CheckSecondaryLocksResponse, CheckTxnStatusRequest, CheckTxnStatusResponse,
    LockInfo as LockProto, PessimisticRollbackRequest, PessimisticRollbackResponse, ResolveLockRequest,
    ResolveLockResponse, TxnInfo,
};

use super::*;
use crate::error::Error;
use crate::knowledge::txn_status::{FinalStatus, TxnStatusCache};
use crate::lock::BatchResolve;
use crate::machine::Token;

fn batch(locks: Vec<LockInfo>) -> Script<BatchResolve> {
    // Nothing has expired.
    script(BatchResolve::new(locks, options(), backoff()), ts(10_001))
}

/// Expects that TiKV is told to end a transaction whatever its age.
fn expect_check(script: &mut Script<BatchResolve>, store: u64, start_ts: Timestamp) -> Token {
    script.expect_call(store, |request: &CheckTxnStatusRequest| {
        assert_eq!(request.lock_ts, start_ts.version());
        assert_eq!((request.caller_start_ts, request.current_ts), (0, u64::MAX));
        assert!(request.rollback_if_not_exist && request.verify_is_primary);
    })
}

fn info(start_ts: Timestamp, commit_ts: Timestamp) -> TxnInfo {
    TxnInfo { txn: start_ts.version(), status: commit_ts.version(), is_txn_file: false }
}

fn secondaries(locks: Vec<LockProto>) -> CheckSecondaryLocksResponse {
    CheckSecondaryLocksResponse { locks, ..Default::default() }
}

#[test]
fn each_region_is_told_once_how_all_transactions_ended_that_have_locks_there() {
    let (one, two) = (ts(10_000), ts(10_000).next());
    let locks = vec![lock("a", "k", one), lock("b", "l", two), lock("c", "k", one), lock("z", "l", two)];
    let mut script = batch(locks);
    let first = expect_check(&mut script, 1, one);
    let second = expect_check(&mut script, 1, two);
    script.reply_to(first, ended(Action::TtlExpireRollback));
    script.reply_to(second, committed(ts(10_500)));
    let both = script.expect_call(1, |request: &ResolveLockRequest| {
        assert!(request.keys.is_empty() && request.start_version == 0);
        assert_eq!(request.txn_infos, [info(one, Timestamp::ZERO), info(two, ts(10_500))]);
    });
    assert_eq!(script.last_context().region_id, 1);
    script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.txn_infos, [info(two, ts(10_500))]));
    assert_eq!(script.last_context().region_id, 3);
    script.reply(ResolveLockResponse::default());
    script.reply_to(both, ResolveLockResponse::default());
    assert_eq!(script.expect_done().result, Ok(()));
    assert_eq!(script.knowledge.txn_statuses.get(one), Some(FinalStatus::RolledBack));
    assert_eq!(script.knowledge.txn_statuses.get(two), Some(FinalStatus::Committed(ts(10_500))));
}

#[test]
fn a_transaction_that_is_remembered_is_not_asked_about() {
    let start_ts = ts(10_000);
    let mut script = batch(vec![lock("a", "k", start_ts)]);
    script.knowledge.txn_statuses.insert(start_ts, FinalStatus::Committed(ts(10_500)));
    script.expect_call(1, |request: &ResolveLockRequest| {
        assert_eq!(request.txn_infos, [info(start_ts, ts(10_500))]);
    });
    script.reply(ResolveLockResponse::default());
    assert_eq!(script.expect_done().result, Ok(()));
}

#[test]
fn an_async_commit_whose_locks_are_all_there_is_committed() {
    let start_ts = ts(10_000);
    let primary = LockInfo {
        use_async_commit: true,
        secondaries: keys(&["z"]),
        min_commit_ts: ts(10_100),
        ..lock("a", "a", start_ts)
    };
    let secondary = LockInfo { use_async_commit: true, min_commit_ts: ts(10_200), ..lock("z", "a", start_ts) };
    let mut script = batch(vec![primary.clone()]);
    expect_check(&mut script, 1, start_ts);
    script.reply(alive(&primary, Action::NoAction));
    script.expect_call(1, |request: &CheckSecondaryLocksRequest| assert_eq!(request.keys, ["z"]));
    script.reply(secondaries(vec![to_proto(&secondary)]));
    script.expect_call(1, |request: &ResolveLockRequest| {
        assert_eq!(request.txn_infos, [info(start_ts, ts(10_200))]);
    });
    assert_eq!(script.last_context().region_id, 1, "other regions have their turn");
    script.reply(ResolveLockResponse::default());
    assert_eq!(script.expect_done().result, Ok(()));
}

#[test]
fn one_that_fell_back_from_async_commit_is_rolled_back_at_its_primary() {
    let start_ts = ts(10_000);
    let primary = LockInfo { use_async_commit: true, secondaries: keys(&["z"]), ..lock("a", "a", start_ts) };
    let mut script = batch(vec![primary.clone()]);
    expect_check(&mut script, 1, start_ts);
    script.reply(alive(&primary, Action::NoAction));
    script.expect_call(1, |_: &CheckSecondaryLocksRequest| {});
    script.reply(secondaries(vec![to_proto(&lock("z", "a", start_ts))]));
    script.expect_call(1, |request: &CheckTxnStatusRequest| {
        assert!(request.force_sync_commit && request.current_ts == u64::MAX);
    });
    script.reply(ended(Action::TtlExpireRollback));
    script.expect_call(1, |request: &ResolveLockRequest| {
        assert_eq!(request.txn_infos, [info(start_ts, Timestamp::ZERO)]);
    });
    script.reply(ResolveLockResponse::default());
    assert_eq!(script.expect_done().result, Ok(()));
}

/// What a pessimistic lock names as its primary need not be the primary: nothing is concluded for the transaction.
#[test]
fn pessimistic_locks_are_released_by_themselves_and_say_nothing_of_their_transaction() {
    let start_ts = ts(10_000);
    for answer in [ended(Action::TtlExpirePessimisticRollback), ended(Action::LockNotExistDoNothing)] {
        let mut script = batch(vec![pessimistic("a", "k", start_ts), lock("c", "l", start_ts)]);
        let prewritten = expect_check(&mut script, 1, start_ts);
        script.expect_call(1, |request: &CheckTxnStatusRequest| {
            assert!(request.resolving_pessimistic_lock);
            assert_eq!((&request.primary_key[..], request.current_ts), (&b"k"[..], u64::MAX));
        });
        script.reply(answer);
        script.expect_call(1, |request: &PessimisticRollbackRequest| {
            assert_eq!((&request.keys[..], request.for_update_ts), (&[bytes("a")][..], start_ts.next().version()));
        });
        script.reply(PessimisticRollbackResponse::default());
        script.expect_nothing();
        script.reply_to(prewritten, committed(ts(10_500)));
        script.expect_call(1, |request: &ResolveLockRequest| {
            assert_eq!(request.txn_infos, [info(start_ts, ts(10_500))]);
        });
        script.reply(ResolveLockResponse::default());
        assert_eq!(script.expect_done().result, Ok(()));
        assert_eq!(script.knowledge.txn_statuses.all(), [(start_ts, FinalStatus::Committed(ts(10_500)))]);
    }
}

#[test]
fn locks_whose_region_has_split_are_released_where_they_are_now() {
    let start_ts = ts(10_000);
    let mut script = batch(vec![lock("a", "k", start_ts), lock("f", "k", start_ts)]);
    expect_check(&mut script, 1, start_ts);
    script.reply(ended(Action::TtlExpireRollback));
    script.expect_call(1, |_: &ResolveLockRequest| {});
    script.region_error(epoch_not_match(vec![split(1, "".."d"), split(9, "d".."g")]));
    let first = script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.txn_infos.len(), 1));
    assert_eq!(script.last_context().region_id, 1);
    script.expect_call(1, |request: &ResolveLockRequest| assert_eq!(request.txn_infos.len(), 1));
    assert_eq!(script.last_context().region_id, 9);
    script.reply(ResolveLockResponse::default());
    script.reply_to(first, ResolveLockResponse::default());
    assert_eq!(script.expect_done().result, Ok(()));
}

/// A lock that stays is no success: old versions that it needs would be collected.
#[test]
fn a_transaction_that_tikv_does_not_end_is_an_error() {
    let start_ts = ts(10_000);
    let met = lock("a", "k", start_ts);
    let mut script = batch(vec![met.clone()]);
    expect_check(&mut script, 1, start_ts);
    script.reply(alive(&lock("k", "k", start_ts), Action::NoAction));
    assert_eq!(script.expect_done().result, Err(Error::Locked(Box::new(met))));
    assert_eq!(script.knowledge.txn_statuses.all(), []);
}

#[test]
fn two_ends_of_one_transaction_are_a_contradiction() {
    let start_ts = ts(10_000);
    let mut script = batch(vec![lock("a", "k", start_ts), lock("b", "l", start_ts), lock("c", "m", start_ts.next())]);
    // What is remembered is not asked about.
    script.knowledge.txn_statuses = TxnStatusCache::new(1);
    let first = expect_check(&mut script, 1, start_ts);
    let second = expect_check(&mut script, 1, start_ts);
    let other = expect_check(&mut script, 1, start_ts.next());
    script.reply_to(first, committed(ts(10_500)));
    script.reply_to(other, committed(ts(10_500)));
    script.reply_to(second, ended(Action::TtlExpireRollback));
    let result = script.expect_done().result;
    assert!(matches!(result, Err(Error::Contradiction { .. })), "{result:?}");
}

#[test]
fn a_refusal_ends_it() {
    let start_ts = ts(10_000);
    let mut script = batch(vec![lock("a", "k", start_ts)]);
    expect_check(&mut script, 1, start_ts);
    script.reply(CheckTxnStatusResponse { action: Action::TtlExpireRollback.into(), ..Default::default() });
    script.expect_call(1, |_: &ResolveLockRequest| {});
    let error = kvrpcpb::KeyError { abort: "no".into(), ..Default::default() };
    script.reply(ResolveLockResponse { error: Some(Box::new(error)), ..Default::default() });
    assert!(matches!(script.expect_done().result, Err(Error::Key(_))));
}
