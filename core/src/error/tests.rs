use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tikv_proto::kvrpcpb;

use super::*;
use crate::key::Key;
use crate::timestamp::Timestamp;

fn ts(version: u64) -> Timestamp {
    Timestamp::from_version(version)
}

fn fault() -> Fault {
    Fault::new(FaultKind::Timeout, Execution::MaybeExecuted, "store-1")
}

fn conflict() -> Conflict {
    let (key, primary) = (Key::from("k"), Key::from("p"));
    let (conflict_ts, conflict_commit_ts) = (ts(2), ts(3));
    Conflict { start_ts: ts(1), conflict_ts, conflict_commit_ts, key, primary, reason: ConflictReason::Optimistic }
}

fn deadlock() -> DeadlockInfo {
    let (lock_key, deadlock_key) = (Key::from("k"), Key::from("d"));
    let (deadlock_key_hash, wait_chain, of_one_call) = (7, Vec::new(), false);
    DeadlockInfo { lock_ts: ts(2), lock_key, deadlock_key_hash, deadlock_key, wait_chain, of_one_call }
}

fn assertion_failed() -> AssertionFailed {
    AssertionFailed {
        start_ts: ts(1),
        key: Key::from("k"),
        assertion: kvrpcpb::Assertion::NotExist,
        existing_start_ts: ts(2),
        existing_commit_ts: ts(3),
    }
}

fn exhausted() -> Error {
    let slept = Duration::from_secs(20);
    Error::RetriesExhausted { operation: "Get", attempts: 9, slept, last: CallFailure::Fault(fault()) }
}

fn every_key_error() -> Vec<KeyError> {
    let key = || Key::from("k");
    vec![
        KeyError::Locked(Box::default()),
        KeyError::Conflict(Box::new(conflict())),
        KeyError::AlreadyExists { key: key() },
        KeyError::Deadlock(Box::new(deadlock())),
        KeyError::CommitTsExpired { start_ts: ts(1), attempted_commit_ts: ts(2), key: key(), min_commit_ts: ts(3) },
        KeyError::TxnNotFound { start_ts: ts(1), primary: key() },
        KeyError::TxnLockNotFound { key: key() },
        KeyError::CommitTsTooLarge { commit_ts: ts(1) },
        KeyError::AssertionFailed(Box::new(assertion_failed())),
        KeyError::PrimaryMismatch(Box::default()),
        KeyError::LockUpgradeConflict {
            key: key(),
            start_ts: ts(1),
            owner_start_ts: ts(2),
            reason: kvrpcpb::lock_upgrade_conflict::Reason::SecondUpgrader,
        },
        KeyError::SharedLockLost { key: key(), start_ts: ts(1) },
        KeyError::Retryable("again".into()),
        KeyError::Abort("no".into()),
        KeyError::Unknown,
    ]
}

fn every_pd_error() -> Vec<PdError> {
    let address = || Arc::from("pd-1");
    vec![
        PdError::NoLeader { endpoints: Arc::from(["pd-1".to_owned(), "pd-2".to_owned()]), last: fault() },
        PdError::Fault(fault()),
        PdError::Refused { address: address(), method: "GetStore", message: "no".into() },
        PdError::ClusterMismatch { address: address(), expected: 1, actual: 2 },
        PdError::Malformed { address: address(), method: "GetRegion", detail: "odd".into() },
        PdError::Overloaded { limit: 10 },
        PdError::Closed,
    ]
}

/// What the three questions are answered with: run again, may have happened, a matter of time.
type Class = (bool, bool, bool);

const FINAL: Class = (false, false, false);
const RETRYABLE: Class = (true, false, false);

fn every_error() -> Vec<(Error, Class)> {
    let (key, start_ts, timestamp) = (|| Key::from("k"), ts(1), ts(2));
    let last = || CallFailure::Fault(fault());
    let undetermined = |cause| Error::Undetermined { start_ts, primary: key(), cause: Box::new(cause) };
    let undetermined_write = |cause| Error::UndeterminedWrite { key: key(), cause: Box::new(cause) };
    let (operation, address) = ("Get", || Arc::from("store-1"));
    let mut errors = vec![
        (exhausted(), (true, false, true)),
        (Error::DeadlineExceeded { operation, attempts: 1, last: last() }, (false, false, true)),
        (Error::Refused { operation, address: address(), message: "no".into() }, FINAL),
        (Error::WrongResponse { operation, address: address(), actual: "Scan" }, FINAL),
        (undetermined(Error::Closed), (false, true, false)),
        (undetermined(exhausted()), (false, true, true)),
        (undetermined_write(Error::Closed), (false, true, false)),
        (undetermined_write(exhausted()), (false, true, true)),
        (Error::WriteConflict(Box::new(conflict())), RETRYABLE),
        (Error::KeyExists { key: key() }, FINAL),
        (Error::Locked(Box::default()), RETRYABLE),
        (Error::Deadlock(Box::new(deadlock())), RETRYABLE),
        (Error::AssertionFailed(Box::new(assertion_failed())), FINAL),
        (Error::RolledBack { start_ts, reason: KeyError::TxnLockNotFound { key: key() } }, RETRYABLE),
        (Error::Contradiction { start_ts, detail: "odd".into() }, FINAL),
        (Error::TxnTooOld { start_ts, age: Duration::from_secs(1) }, FINAL),
        (Error::CommitTsLag { start_ts, newest: timestamp, expected_above: timestamp }, FINAL),
        (Error::CommitTsOutOfBound { start_ts, commit_ts: timestamp, upper_bound: timestamp }, FINAL),
        (Error::CommitForbidden { start_ts, commit_ts: timestamp, reason: "no".into() }, FINAL),
        (Error::Killed, FINAL),
        (Error::TxnFinished, FINAL),
        (Error::EmptyKey, FINAL),
        (Error::EmptyValue { key: key() }, FINAL),
        (Error::KeyTooLarge { actual_bytes: 2, limit_bytes: 1 }, FINAL),
        (Error::EntryTooLarge { actual_bytes: 2, limit_bytes: 1 }, FINAL),
        (Error::TxnTooLarge { actual_bytes: 2, limit_bytes: 1 }, FINAL),
        (Error::InvalidArgument("no".into()), FINAL),
        (Error::Closed, FINAL),
        (Error::LockWaitTimeout(Box::default()), (false, false, true)),
        (Error::LockedNoWait(Box::default()), FINAL),
        (Error::PessimisticLockLost { start_ts, reason: KeyError::Abort("gone".into()) }, RETRYABLE),
        (Error::InvalidLock(InvalidLock::SharedUpgrade { key: key() }), FINAL),
        (Error::BufferFull { size_bytes: 2, limit_bytes: 1 }, FINAL),
    ];
    for error in every_pd_error() {
        let is_final = matches!(error, PdError::ClusterMismatch { .. } | PdError::Closed);
        errors.push((Error::Pd(error), if is_final { FINAL } else { RETRYABLE }));
    }
    for error in every_key_error() {
        let is_retryable = matches!(
            error,
            KeyError::Retryable(_)
                | KeyError::TxnLockNotFound { .. }
                | KeyError::LockUpgradeConflict { .. }
                | KeyError::SharedLockLost { .. }
        );
        errors.push((Error::Key(error), if is_retryable { RETRYABLE } else { FINAL }));
    }
    errors
}

/// A number for each variant. Whoever adds one has to add it here, and will find that the table lacks it.
fn variant(error: &Error) -> u8 {
    match error {
        Error::Pd(_) => 0,
        Error::RetriesExhausted { .. } => 1,
        Error::DeadlineExceeded { .. } => 2,
        Error::Refused { .. } => 3,
        Error::WrongResponse { .. } => 4,
        Error::Undetermined { .. } => 5,
        Error::UndeterminedWrite { .. } => 6,
        Error::WriteConflict(_) => 7,
        Error::KeyExists { .. } => 8,
        Error::Locked(_) => 9,
        Error::Deadlock(_) => 10,
        Error::AssertionFailed(_) => 11,
        Error::RolledBack { .. } => 12,
        Error::Key(_) => 13,
        Error::Contradiction { .. } => 14,
        Error::TxnTooOld { .. } => 15,
        Error::CommitTsLag { .. } => 16,
        Error::CommitTsOutOfBound { .. } => 17,
        Error::TxnFinished => 18,
        Error::EmptyKey => 19,
        Error::EmptyValue { .. } => 20,
        Error::KeyTooLarge { .. } => 21,
        Error::EntryTooLarge { .. } => 22,
        Error::TxnTooLarge { .. } => 23,
        Error::InvalidArgument(_) => 24,
        Error::Closed => 25,
        Error::LockWaitTimeout(_) => 26,
        Error::LockedNoWait(_) => 27,
        Error::PessimisticLockLost { .. } => 28,
        Error::InvalidLock(_) => 29,
        Error::BufferFull { .. } => 30,
        Error::CommitForbidden { .. } => 31,
        Error::Killed => 32,
    }
}

#[test]
fn every_error_is_classified() {
    for (error, class) in every_error() {
        assert_eq!((error.is_retryable(), error.is_undetermined(), error.is_timeout()), class, "{error:?}");
        assert!(!(error.is_retryable() && error.is_undetermined()), "the first run may have committed: {error:?}");
    }
    let variants: BTreeSet<_> = every_error().iter().map(|(error, _)| variant(error)).collect();
    assert_eq!(variants, (0..=32).collect());
}

#[test]
fn every_error_says_what_it_is_about() {
    let all = every_error().into_iter().map(|(error, _)| error.to_string());
    let all: Vec<_> = all.chain(every_key_error().iter().map(ToString::to_string)).collect();
    assert!(all.iter().all(|text| text.len() > 10 && !text.ends_with('.')), "{all:#?}");
    let text = exhausted().to_string();
    assert_eq!(text, "Get: gave up after 9 attempts, 20s spent waiting: no response in time at store-1");
    let text =
        Error::Undetermined { start_ts: ts(5), primary: Key::from("p"), cause: Box::new(Error::Closed) }.to_string();
    assert_eq!(text, format!("the outcome of transaction {} is not known: the client is closed", ts(5)));
    let text = every_pd_error()[0].to_string();
    assert_eq!(text, "no leader of PD among pd-1, pd-2: no response in time at store-1");
}

#[test]
fn a_fault_says_where_it_happened_and_what_is_known() {
    for (kind, expected) in [
        (FaultKind::Unreachable, "unreachable at a"),
        (FaultKind::Disconnected, "disconnected at a"),
        (FaultKind::Timeout, "no response in time at a"),
        (FaultKind::Protocol, "protocol broken at a"),
        (FaultKind::Status(14), "gRPC status 14 at a"),
        (FaultKind::Overloaded, "too many requests in flight at a"),
        (FaultKind::Closed, "client closed at a"),
    ] {
        let fault = Fault::new(kind, Execution::NotSent, "a");
        assert_eq!(fault.to_string(), expected);
        assert_eq!(fault.clone().with_detail("why").to_string(), format!("{expected}: why"));
        assert!(!fault.may_be_executed());
        assert!(Fault { execution: Execution::MaybeExecuted, ..fault }.may_be_executed());
    }
}

/// An error of TiKV's as a change to an empty one, and whether a [`KeyError`] is what becomes of it.
type TikvError = (fn(&mut kvrpcpb::KeyError), fn(&KeyError) -> bool);

/// All of them, the most telling first.
fn tikv_errors() -> Vec<TikvError> {
    vec![
        (|error| error.locked = Some(Default::default()), |error| matches!(error, KeyError::Locked(_))),
        (|error| error.conflict = Some(Default::default()), |error| matches!(error, KeyError::Conflict(_))),
        (
            |error| error.already_exist = Some(Default::default()),
            |error| matches!(error, KeyError::AlreadyExists { .. }),
        ),
        (|error| error.deadlock = Some(Default::default()), |error| matches!(error, KeyError::Deadlock(_))),
        (
            |error| error.assertion_failed = Some(Default::default()),
            |error| matches!(error, KeyError::AssertionFailed(_)),
        ),
        (
            |error| error.commit_ts_expired = Some(Default::default()),
            |error| matches!(error, KeyError::CommitTsExpired { .. }),
        ),
        (|error| error.txn_not_found = Some(Default::default()), |error| matches!(error, KeyError::TxnNotFound { .. })),
        (
            |error| error.txn_lock_not_found = Some(Default::default()),
            |error| matches!(error, KeyError::TxnLockNotFound { .. }),
        ),
        (
            |error| error.primary_mismatch = Some(Default::default()),
            |error| matches!(error, KeyError::PrimaryMismatch(_)),
        ),
        (
            |error| error.lock_upgrade_conflict = Some(Default::default()),
            |error| matches!(error, KeyError::LockUpgradeConflict { .. }),
        ),
        (
            |error| error.shared_lock_lost = Some(Default::default()),
            |error| matches!(error, KeyError::SharedLockLost { .. }),
        ),
        (
            |error| error.commit_ts_too_large = Some(Default::default()),
            |error| matches!(error, KeyError::CommitTsTooLarge { .. }),
        ),
        (|error| error.retryable = "again".into(), |error| *error == KeyError::Retryable("again".into())),
        (|error| error.abort = "no".into(), |error| *error == KeyError::Abort("no".into())),
        (|_| {}, |error| *error == KeyError::Unknown),
    ]
}

#[test]
fn of_several_errors_of_a_key_the_most_telling_counts() {
    let errors = tikv_errors();
    assert_eq!(errors.len(), every_key_error().len());
    for (index, (set, expected)) in errors.iter().enumerate() {
        let mut alone = kvrpcpb::KeyError::default();
        set(&mut alone);
        assert!(expected(&KeyError::from_proto(alone.clone())), "{alone:?}");
        let mut with_all_that_follow = alone;
        errors[index..].iter().for_each(|(set, _)| set(&mut with_all_that_follow));
        assert!(expected(&KeyError::from_proto(with_all_that_follow.clone())), "{with_all_that_follow:?}");
    }
}

#[test]
fn the_details_of_a_key_error_are_kept() {
    let conflicting = kvrpcpb::WriteConflict {
        start_ts: 1,
        conflict_ts: 2,
        conflict_commit_ts: 3,
        key: "k".into(),
        primary: "p".into(),
        reason: ConflictReason::Optimistic.into(),
    };
    let deadlocked = kvrpcpb::Deadlock {
        lock_ts: 2,
        lock_key: "k".into(),
        deadlock_key_hash: 7,
        deadlock_key: "d".into(),
        ..Default::default()
    };
    let failed = kvrpcpb::AssertionFailed {
        start_ts: 1,
        key: "k".into(),
        assertion: kvrpcpb::Assertion::NotExist.into(),
        existing_start_ts: 2,
        existing_commit_ts: 3,
    };
    let expired = kvrpcpb::CommitTsExpired { start_ts: 1, attempted_commit_ts: 2, key: "k".into(), min_commit_ts: 3 };
    let upgrading = kvrpcpb::LockUpgradeConflict {
        key: "k".into(),
        start_ts: 1,
        owner_start_ts: 2,
        reason: kvrpcpb::lock_upgrade_conflict::Reason::SecondUpgrader.into(),
    };
    let every = every_key_error();
    for (error, expected) in [
        (kvrpcpb::KeyError { conflict: Some(conflicting), ..Default::default() }, &every[1]),
        (
            kvrpcpb::KeyError { already_exist: Some(kvrpcpb::AlreadyExist { key: "k".into() }), ..Default::default() },
            &every[2],
        ),
        (kvrpcpb::KeyError { deadlock: Some(deadlocked), ..Default::default() }, &every[3]),
        (kvrpcpb::KeyError { commit_ts_expired: Some(expired), ..Default::default() }, &every[4]),
        (
            kvrpcpb::KeyError {
                txn_not_found: Some(kvrpcpb::TxnNotFound { start_ts: 1, primary_key: "k".into() }),
                ..Default::default()
            },
            &every[5],
        ),
        (
            kvrpcpb::KeyError {
                txn_lock_not_found: Some(kvrpcpb::TxnLockNotFound { key: "k".into() }),
                ..Default::default()
            },
            &every[6],
        ),
        (
            kvrpcpb::KeyError {
                commit_ts_too_large: Some(kvrpcpb::CommitTsTooLarge { commit_ts: 1 }),
                ..Default::default()
            },
            &every[7],
        ),
        (kvrpcpb::KeyError { assertion_failed: Some(failed), ..Default::default() }, &every[8]),
        (kvrpcpb::KeyError { lock_upgrade_conflict: Some(upgrading), ..Default::default() }, &every[10]),
        (
            kvrpcpb::KeyError {
                shared_lock_lost: Some(kvrpcpb::SharedLockLost { key: "k".into(), start_ts: 1 }),
                ..Default::default()
            },
            &every[11],
        ),
    ] {
        assert_eq!(KeyError::from_proto(error), *expected);
    }
}

fn a_lock(key: &'static str, version: u64) -> kvrpcpb::LockInfo {
    kvrpcpb::LockInfo {
        key: key.into(),
        primary_lock: "p".into(),
        lock_version: version,
        lock_ttl: 3_000,
        txn_size: 4,
        lock_type: kvrpcpb::Op::Put.into(),
        lock_for_update_ts: 6,
        min_commit_ts: 7,
        use_async_commit: true,
        secondaries: vec!["s".into(), "t".into()],
        duration_to_last_update_ms: 8,
        is_txn_file: true,
        ..Default::default()
    }
}

fn the_lock(key: &str, version: u64) -> LockInfo {
    LockInfo {
        key: Key::from(key),
        primary: Key::from("p"),
        start_ts: ts(version),
        ttl_ms: 3_000,
        txn_size: 4,
        kind: kvrpcpb::Op::Put,
        for_update_ts: ts(6),
        min_commit_ts: ts(7),
        use_async_commit: true,
        secondaries: vec![Key::from("s"), Key::from("t")],
        duration_since_update_ms: 8,
        is_txn_file: true,
    }
}

#[test]
fn every_field_of_a_lock_is_kept() {
    assert_eq!(LockInfo::from_proto(a_lock("k", 5)), the_lock("k", 5));
    assert_eq!(LockInfo::expand(a_lock("k", 5)).collect::<Vec<_>>(), [the_lock("k", 5)]);
}

#[test]
fn shared_locks_are_read_instead_of_what_wraps_them() {
    let wrapper = kvrpcpb::LockInfo { shared_lock_infos: vec![a_lock("k", 5), a_lock("k", 6)], ..a_lock("k", 0) };
    assert_eq!(LockInfo::expand(wrapper.clone()).collect::<Vec<_>>(), [the_lock("k", 5), the_lock("k", 6)]);
    let error = kvrpcpb::KeyError { locked: Some(Box::new(wrapper)), ..Default::default() };
    assert_eq!(KeyError::from_proto(error), KeyError::Locked(Box::new(the_lock("k", 5))));
}

#[test]
fn only_pessimistic_locks_are_pessimistic() {
    for kind in [
        kvrpcpb::Op::Put,
        kvrpcpb::Op::Del,
        kvrpcpb::Op::Lock,
        kvrpcpb::Op::PessimisticLock,
        kvrpcpb::Op::SharedLock,
        kvrpcpb::Op::SharedPessimisticLock,
    ] {
        let expected = matches!(kind, kvrpcpb::Op::PessimisticLock | kvrpcpb::Op::SharedPessimisticLock);
        assert_eq!(LockInfo { kind, ..LockInfo::default() }.is_pessimistic(), expected, "{kind:?}");
    }
}
