//! Stories of transactions, told step by step, and what these stories share.
//!
//! Unless a story says otherwise there are two regions: 2 up to `m`, and 3 from `m` on, both led by store 1. The transaction
//! began at `START_TS`.

mod abandon;
mod any_order;
mod background;
mod commit;
mod commit_ts;
mod deadline;
mod decided_by_prewrites;
mod drop_anywhere;
mod fair_locking;
mod heartbeat;
mod lock_abandon;
mod lock_failures;
mod lock_keys;
mod lock_waits;
mod mutations;
mod pessimistic;
mod pipelined;
mod prewrite;
mod transaction;
mod undetermined;

use std::ops::Range;
use std::sync::Arc;

use tikv_proto::{errorpb, kvrpcpb, metapb};

use super::{
    Commit, CommitOptions, CommitOutcome, CommitRequest, LockKeys, LockOptions, Locked, Mutation, Mutations,
    Transaction, TxnLimits,
};
use crate::config::Config;
use crate::error::{Error, Fault, FaultKind};
use crate::key::Key;
use crate::keyspace::KeyCodec;
use crate::knowledge::Knowledge;
use crate::machine::script::{Script, knowledge, region, ts};
use crate::machine::{BackgroundMachine, Command, Event, Observation, SleepReason, Token};
use crate::request::pd::{PdRegion, PdRequest, PdResponse};
use crate::request::{Request, Response};
use crate::time::Time;
use crate::timestamp::Timestamp;

type End = Result<CommitOutcome, Error>;

/// When a transaction has committed.
fn when(end: End) -> Result<Option<Timestamp>, Error> {
    end.map(|outcome| outcome.commit_ts)
}

fn start_ts() -> Timestamp {
    ts(1_000)
}

fn two_regions() -> Knowledge {
    knowledge(KeyCodec::Txn, [region(2, "".."m"), region(3, "m".."")])
}

fn mutations(items: impl IntoIterator<Item = Mutation>) -> Mutations {
    Mutations::new(items.into_iter().collect(), TxnLimits::new(&Config::default())).expect("mutations")
}

fn puts<'a>(keys: impl IntoIterator<Item = &'a str>) -> Mutations {
    mutations(keys.into_iter().map(|key| Mutation::put(key, "value")))
}

fn options() -> CommitOptions {
    CommitOptions::new(&Config::default())
}

fn commit_with(mutations: Mutations, options: CommitOptions) -> Commit {
    Commit::new(CommitRequest {
        start_ts: start_ts(),
        started_at: Time::from_millis(1),
        mutations,
        pessimistic: None,
        options,
    })
}

/// The commit of puts to these keys.
fn commit_of<'a>(keys: impl IntoIterator<Item = &'a str>) -> Script<Commit> {
    Script::with_knowledge(commit_with(puts(keys), options()), two_regions())
}

fn names(keys: &[bytes::Bytes]) -> Vec<String> {
    keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
}

/// Expects the prewrite of these keys in one request.
fn expect_prewrite(script: &mut Script<Commit>, keys: &[&str]) -> Token {
    script.expect_call(1, |request: &kvrpcpb::PrewriteRequest| {
        let prewritten: Vec<_> = request.mutations.iter().map(|mutation| mutation.key.clone()).collect();
        assert_eq!(names(&prewritten), keys);
    })
}

/// Expects the commit of the primary, and of other keys in the same request.
fn expect_commit(script: &mut Script<Commit>, keys: &[&str], commit_ts: Timestamp) -> Token {
    script.expect_call(1, |request: &kvrpcpb::CommitRequest| {
        assert_eq!(names(&request.keys), keys);
        assert_eq!(request.commit_version, commit_ts.version());
        assert_eq!(request.commit_role(), kvrpcpb::CommitRole::Primary);
    })
}

fn accept_prewrite(script: &mut Script<Commit>, token: Token) {
    script.reply_to(token, kvrpcpb::PrewriteResponse::default());
}

fn refuse_prewrite(script: &mut Script<Commit>, token: Token, error: kvrpcpb::KeyError) {
    script.reply_to(token, kvrpcpb::PrewriteResponse { errors: vec![error], ..Default::default() });
}

/// A transaction over keys of region 2 whose primary is about to be committed at `ts(2_000)`.
fn committing<'a>(keys: impl IntoIterator<Item = &'a str>) -> Script<Commit> {
    let keys: Vec<_> = keys.into_iter().collect();
    let mut script = commit_of(keys.iter().copied());
    let prewrite = expect_prewrite(&mut script, &keys);
    accept_prewrite(&mut script, prewrite);
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    expect_commit(&mut script, &keys, ts(2_000));
    script
}

/// Expects that the transaction has failed, and returns the error and the keys that are rolled back.
fn expect_failed(script: &mut Script<Commit>) -> (Error, Vec<String>) {
    let cleanup = script.expect_spawn();
    let error = script.expect_done().expect_err("a failure");
    assert!(!error.is_undetermined(), "a transaction that is cleaned up has not committed: {error}");
    (error, rolled_back(cleanup))
}

/// Expects that the transaction is undetermined, and that nobody touches its locks.
fn expect_undetermined(script: &mut Script<Commit>) -> Error {
    let error = script.expect_done().expect_err("no answer");
    match error {
        Error::Undetermined { start_ts, cause, .. } => {
            assert_eq!(start_ts, self::start_ts());
            *cause
        }
        error => panic!("{error}"),
    }
}

/// Lets a background machine roll keys back, and returns which, in the order of the requests.
fn rolled_back(cleanup: BackgroundMachine) -> Vec<String> {
    let (requests, _) = run_background(cleanup, |_| ok());
    requests.iter().flat_map(|request| names(rollback_keys(request))).collect()
}

fn rollback_keys(request: &Request) -> &[bytes::Bytes] {
    match request {
        Request::BatchRollback(request) => {
            assert_eq!(request.start_version, start_ts().version());
            &request.keys
        }
        other => panic!("not a rollback: {other:?}"),
    }
}

fn commit_keys(request: &Request) -> &[bytes::Bytes] {
    match request {
        Request::Commit(request) => &request.keys,
        other => panic!("not a commit: {other:?}"),
    }
}

/// How a call is answered.
enum Answer {
    Accept,
    Refuse(kvrpcpb::KeyError),
    RegionError(errorpb::Error),
    Fault(Fault),
}

fn ok() -> Answer {
    Answer::Accept
}

/// The event that gives `answer` to `request`.
fn answer(request: &Request, answer: Answer) -> Event {
    let kind = request.kind();
    let refusal = match answer {
        Answer::Fault(fault) => return Event::Reply(Err(fault)),
        Answer::RegionError(error) => {
            return Event::Reply(Ok(Response::of_region_error(kind, error).expect("a regional command")));
        }
        Answer::Accept => None,
        Answer::Refuse(error) => Some(error),
    };
    let boxed = refusal.clone().map(Box::new);
    Event::Reply(Ok(match request {
        Request::Prewrite(_) => {
            let errors = refusal.into_iter().collect();
            kvrpcpb::PrewriteResponse { errors, ..Default::default() }.into()
        }
        Request::Commit(_) => kvrpcpb::CommitResponse { error: boxed, ..Default::default() }.into(),
        Request::PessimisticLock(_) => {
            let errors = refusal.into_iter().collect();
            kvrpcpb::PessimisticLockResponse { errors, ..Default::default() }.into()
        }
        Request::PessimisticRollback(_) => {
            let errors = refusal.into_iter().collect();
            kvrpcpb::PessimisticRollbackResponse { errors, ..Default::default() }.into()
        }
        Request::Flush(_) => {
            let errors = refusal.into_iter().collect();
            kvrpcpb::FlushResponse { errors, ..Default::default() }.into()
        }
        Request::BufferBatchGet(_) => kvrpcpb::BufferBatchGetResponse { error: boxed, ..Default::default() }.into(),
        Request::BroadcastTxnStatus(_) => kvrpcpb::BroadcastTxnStatusResponse::default().into(),
        Request::TxnHeartBeat(_) => kvrpcpb::TxnHeartBeatResponse { error: boxed, ..Default::default() }.into(),
        Request::BatchRollback(_) => kvrpcpb::BatchRollbackResponse { error: boxed, ..Default::default() }.into(),
        Request::CheckTxnStatus(_) => kvrpcpb::CheckTxnStatusResponse { error: boxed, ..Default::default() }.into(),
        Request::ResolveLock(_) => kvrpcpb::ResolveLockResponse { error: boxed, ..Default::default() }.into(),
        other => panic!("unexpected: {other:?}"),
    }))
}

/// Runs a machine of the background to its end, answering its calls one at a time, in order. Returns its requests and what
/// was observed.
fn run_background(
    machine: BackgroundMachine,
    mut on_call: impl FnMut(&Request) -> Answer,
) -> (Vec<Request>, Vec<Observation>) {
    let mut script = Script::with_knowledge(machine, two_regions());
    let mut requests = Vec::new();
    for _ in 0..10_000 {
        let Some(command) = script.next() else {
            script.expect_done();
            return (requests, script.observations().to_vec());
        };
        let (token, event) = match command {
            Command::Call(call) => {
                let event = answer(&call.request, on_call(&call.request));
                requests.push(call.request);
                (call.token, event)
            }
            Command::Pd { token, request } => (token, Event::Pd(Ok(pd_answer(&request)))),
            Command::Sleep { token, until, .. } => {
                script.advance(until.saturating_since(script.now()));
                (token, Event::Woken)
            }
            other => panic!("unexpected: {other:?}"),
        };
        script.event(token, event);
    }
    panic!("no end");
}

/// What PD knows of the two regions, and one timestamp.
fn pd_answer(request: &PdRequest) -> PdResponse {
    match request {
        PdRequest::Timestamp => PdResponse::Timestamp(ts(2_000)),
        PdRequest::RegionByKey { key, .. } => {
            let (id, range) = if key[..] < b"m"[..] { (2, "".."m") } else { (3, "m".."") };
            PdResponse::Region(Some(Arc::new(pd_region(id, 1, range))))
        }
        PdRequest::Store { id } => {
            let store = metapb::Store { id: *id, address: format!("store-{id}"), ..Default::default() };
            PdResponse::Store(Some(Arc::new(store)))
        }
        other => panic!("unexpected: {other:?}"),
    }
}

fn pd_region(id: u64, version: u64, range: Range<&str>) -> PdRegion {
    let region = described(id, version, range);
    PdRegion { leader: Some(region.peers[0]), region, ..Default::default() }
}

fn described(id: u64, version: u64, range: Range<&str>) -> metapb::Region {
    let encode = |key: &str| KeyCodec::Txn.encode_region_key(&key.into());
    metapb::Region {
        id,
        start_key: encode(range.start),
        end_key: encode(range.end),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version }),
        peers: (1..=3)
            .map(|store| metapb::Peer { id: id * 10 + store, store_id: store, ..Default::default() })
            .collect(),
        ..Default::default()
    }
}

/// The region error of a region that has split: the parts are named, so that nobody has to wait for PD.
fn split_into(parts: impl IntoIterator<Item = (u64, Range<&'static str>)>) -> errorpb::Error {
    let current_regions = parts.into_iter().map(|(id, range)| described(id, 2, range)).collect();
    let epoch_not_match = Some(errorpb::EpochNotMatch { current_regions });
    errorpb::Error { epoch_not_match, ..Default::default() }
}

fn undetermined_result() -> errorpb::Error {
    errorpb::Error { undetermined_result: Some(errorpb::UndeterminedResult::default()), ..Default::default() }
}

fn server_is_busy() -> errorpb::Error {
    errorpb::Error { server_is_busy: Some(errorpb::ServerIsBusy::default()), ..Default::default() }
}

fn conflict_with(conflict_ts: Timestamp, key: &str) -> kvrpcpb::KeyError {
    let conflict = kvrpcpb::WriteConflict {
        start_ts: start_ts().version(),
        conflict_ts: conflict_ts.version(),
        conflict_commit_ts: conflict_ts.next().version(),
        key: key.to_owned().into(),
        reason: kvrpcpb::write_conflict::Reason::Optimistic.into(),
        ..Default::default()
    };
    kvrpcpb::KeyError { conflict: Some(conflict), ..Default::default() }
}

fn lock_not_found(key: &str) -> kvrpcpb::KeyError {
    let txn_lock_not_found = Some(kvrpcpb::TxnLockNotFound { key: key.to_owned().into() });
    kvrpcpb::KeyError { txn_lock_not_found, retryable: "lock not found".into(), ..Default::default() }
}

fn commit_ts_expired(key: &str, attempted: Timestamp, min_commit_ts: Timestamp) -> kvrpcpb::KeyError {
    let expired = kvrpcpb::CommitTsExpired {
        start_ts: start_ts().version(),
        attempted_commit_ts: attempted.version(),
        key: key.to_owned().into(),
        min_commit_ts: min_commit_ts.version(),
    };
    kvrpcpb::KeyError { commit_ts_expired: Some(expired), ..Default::default() }
}

fn locked_by(start_ts: Timestamp, key: &str, primary: &str) -> kvrpcpb::LockInfo {
    kvrpcpb::LockInfo {
        key: key.to_owned().into(),
        primary_lock: primary.to_owned().into(),
        lock_version: start_ts.version(),
        lock_ttl: 3_000,
        txn_size: 1,
        lock_type: kvrpcpb::Op::Put.into(),
        ..Default::default()
    }
}

fn is_locked(lock: kvrpcpb::LockInfo) -> kvrpcpb::KeyError {
    kvrpcpb::KeyError { locked: Some(Box::new(lock)), ..Default::default() }
}

/// A pessimistic transaction that has locked nothing.
fn pessimistic() -> Transaction {
    let config = Config::default();
    Transaction::new(&config, start_ts(), Time::from_millis(1), options()).into_pessimistic(&config)
}

fn as_keys(keys: &[&str]) -> Vec<Key> {
    keys.iter().map(|key| Key::from(*key)).collect()
}

/// A call of `txn` that locks `keys`, after it got `ts(2_000)` from PD.
fn locking(txn: &mut Transaction, keys: &[&str], options: LockOptions) -> Script<LockKeys> {
    let request = txn.begin_lock(Time::from_millis(1), as_keys(keys), options).expect("a request");
    let mut script = Script::with_knowledge(LockKeys::new(request), two_regions());
    script.expect_timestamp();
    script.timestamp(ts(2_000));
    script
}

/// Expects the request that locks these keys, at a timestamp.
fn expect_lock(script: &mut Script<LockKeys>, keys: &[&str], for_update_ts: Timestamp) -> Token {
    script.expect_call(1, |request: &kvrpcpb::PessimisticLockRequest| {
        let locked: Vec<_> = request.mutations.iter().map(|mutation| mutation.key.clone()).collect();
        assert_eq!(names(&locked), keys);
        assert_eq!(request.for_update_ts, for_update_ts.version());
        assert_eq!(request.min_commit_ts, for_update_ts.next().version());
        assert_eq!(request.start_version, start_ts().version());
    })
}

fn accept_lock(script: &mut Script<LockKeys>, token: Token) {
    script.reply_to(token, kvrpcpb::PessimisticLockResponse::default());
}

fn refuse_lock(script: &mut Script<LockKeys>, token: Token, error: kvrpcpb::KeyError) {
    script.reply_to(token, kvrpcpb::PessimisticLockResponse { errors: vec![error], ..Default::default() });
}

/// The lock of the primary is kept alive from now on.
fn expect_beats(script: &mut Script<LockKeys>) -> Token {
    script.expect_sleep(|sleep, reason| {
        assert_eq!((sleep.as_secs(), reason), (10, SleepReason::Heartbeat));
    })
}

/// Ends the call, and tells its transaction.
fn end_lock(script: &mut Script<LockKeys>, txn: &mut Transaction) -> Result<Locked, Error> {
    let end = script.expect_done();
    txn.end_lock(&end);
    end
}

/// A pessimistic transaction that holds the locks of these keys of one region, taken at `ts(2_000)`.
fn holding(keys: &[&str]) -> Transaction {
    let mut txn = pessimistic();
    let mut script = locking(&mut txn, keys, LockOptions::default());
    let lock = expect_lock(&mut script, keys, ts(2_000));
    accept_lock(&mut script, lock);
    let beats = expect_beats(&mut script);
    script.expect_cancel(beats);
    end_lock(&mut script, &mut txn).expect("locked");
    txn
}

/// Lets a background machine release pessimistic locks, and returns which, at which timestamps.
fn released(rollback: BackgroundMachine) -> (Vec<String>, Vec<Timestamp>) {
    let (requests, _) = run_background(rollback, |_| ok());
    let (mut keys, mut timestamps) = (Vec::new(), Vec::new());
    for request in &requests {
        let Request::PessimisticRollback(request) = request else { panic!("not a release: {request:?}") };
        assert_eq!(request.start_version, start_ts().version());
        keys.extend(names(&request.keys));
        timestamps.push(Timestamp::from_version(request.for_update_ts));
    }
    timestamps.dedup();
    (keys, timestamps)
}

/// Every fault after which the request may have been executed.
fn faults_of_unknown_execution() -> impl Iterator<Item = Fault> {
    let kinds = [
        FaultKind::Unreachable,
        FaultKind::Disconnected,
        FaultKind::Timeout,
        FaultKind::Protocol,
        FaultKind::Status(13),
        FaultKind::Status(12),
        FaultKind::Status(14),
        FaultKind::Overloaded,
        FaultKind::Closed,
    ];
    kinds.into_iter().map(|kind| Fault::new(kind, crate::error::Execution::MaybeExecuted, "store-1"))
}

/// Sleeps through back-offs until the script expects something else, and answers PD about regions on the way. Returns how
/// many sleeps there were.
fn sleep_through(script: &mut Script<Commit>) -> usize {
    let mut sleeps = 0;
    loop {
        match script.peek() {
            Some(Command::Sleep { reason: SleepReason::Backoff(_), .. }) => {
                let mut slept = std::time::Duration::ZERO;
                script.expect_sleep(|duration, _| slept = duration);
                script.advance(slept).wake();
                sleeps += 1;
            }
            Some(Command::Pd { request, .. }) if *request != PdRequest::Timestamp => {
                let request = request.clone();
                script.expect_pd(&request);
                script.pd(Ok(pd_answer(&request)));
            }
            _ => return sleeps,
        }
    }
}
