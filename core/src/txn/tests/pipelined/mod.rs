//! Stories of pipelined transactions.

mod commit;
mod drop_anywhere;
mod finish;
mod flush;
mod heartbeat;
mod own_read;
mod transaction;

use super::super::{
    Flush, FlushDue, Flushed, OwnRead, PipelinedCommit, PipelinedOptions, PipelinedTransaction, TxnState,
};
use super::*;
use crate::snapshot::{ReadThrough, SnapshotOptions};

type FlushEnd = Result<Flushed, Error>;

/// A transaction that flushes when it has two keys.
fn pipelined_with(change: impl FnOnce(&mut PipelinedOptions)) -> PipelinedTransaction {
    let mut pipelined = PipelinedOptions { min_flush_keys: 2, min_flush_bytes: 0, ..PipelinedOptions::default() };
    change(&mut pipelined);
    let started_at = Time::from_millis(1);
    PipelinedTransaction::new(&Config::default(), start_ts(), started_at, options(), pipelined).expect("a transaction")
}

fn pipelined_txn() -> PipelinedTransaction {
    pipelined_with(|_| {})
}

fn put_all(txn: &mut PipelinedTransaction, keys: &[&str]) {
    keys.iter().for_each(|key| txn.set(*key, "value").expect("a write"));
}

/// The flush of what is buffered.
fn begin_flush(txn: &mut PipelinedTransaction) -> Script<Flush> {
    let generation = txn.begin_flush().expect("an open transaction").expect("something to flush");
    Script::with_knowledge(Flush::new(generation), two_regions())
}

/// Expects the flush of these keys in one request.
fn expect_flush<M: crate::machine::Machine>(script: &mut Script<M>, keys: &[&str], generation: u64) -> Token
where
    M::Output: std::fmt::Debug,
{
    script.expect_call(1, |request: &kvrpcpb::FlushRequest| {
        let flushed: Vec<_> = request.mutations.iter().map(|mutation| mutation.key.clone()).collect();
        assert_eq!(
            (names(&flushed), request.generation),
            (keys.iter().map(|key| (*key).to_owned()).collect(), generation)
        );
        assert_eq!((request.start_ts, request.min_commit_ts), (start_ts().version(), start_ts().next().version()));
    })
}

fn accept_flush<M: crate::machine::Machine>(script: &mut Script<M>, token: Token)
where
    M::Output: std::fmt::Debug,
{
    script.reply_to(token, kvrpcpb::FlushResponse::default());
}

fn refuse_flush(script: &mut Script<Flush>, token: Token, error: kvrpcpb::KeyError) {
    script.reply_to(token, kvrpcpb::FlushResponse { errors: vec![error], ..Default::default() });
}

/// Flushes what is buffered, all of it accepted at once.
fn flush(txn: &mut PipelinedTransaction) -> Vec<kvrpcpb::FlushRequest> {
    let mut script = begin_flush(txn);
    let mut requests = Vec::new();
    while let Some(command) = script.next() {
        match command {
            Command::Call(call) => {
                script.event(call.token, answer(&call.request, ok()));
                let Request::Flush(request) = call.request else { panic!("not a flush: {:?}", call.request) };
                requests.push((*request).clone());
            }
            Command::Sleep { reason: SleepReason::Heartbeat, .. } | Command::Cancel { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    let end = script.expect_done();
    txn.end_flush(&end);
    end.expect("flushed");
    requests
}

/// A transaction that has flushed these keys.
fn flushed(keys: &[&str]) -> PipelinedTransaction {
    let mut txn = pipelined_txn();
    put_all(&mut txn, keys);
    flush(&mut txn);
    txn
}

fn committing(txn: &mut PipelinedTransaction) -> Script<PipelinedCommit> {
    let request = txn.begin_commit().expect("an open transaction");
    Script::with_knowledge(PipelinedCommit::new(request), two_regions())
}

/// The beats of the heartbeat begin, after this many seconds.
fn expect_beats<M: crate::machine::Machine>(script: &mut Script<M>, seconds: u64) -> Token
where
    M::Output: std::fmt::Debug,
{
    script.expect_sleep(|sleep, reason| assert_eq!((sleep.as_secs(), reason), (seconds, SleepReason::Heartbeat)))
}

fn already_exists(key: &str) -> kvrpcpb::KeyError {
    let already_exist = Some(kvrpcpb::AlreadyExist { key: key.to_owned().into() });
    kvrpcpb::KeyError { already_exist, ..Default::default() }
}

fn assertion_failed(key: &str) -> kvrpcpb::KeyError {
    let assertion_failed = kvrpcpb::AssertionFailed {
        start_ts: start_ts().version(),
        key: key.to_owned().into(),
        assertion: kvrpcpb::Assertion::Exist.into(),
        ..Default::default()
    };
    kvrpcpb::KeyError { assertion_failed: Some(assertion_failed), ..Default::default() }
}

/// What the machine that rolls the transaction back asks of TiKV: the key and range of each request.
fn rolled_back_by(machine: BackgroundMachine) -> Vec<String> {
    requests_of(machine).iter().filter_map(told).collect()
}

fn requests_of(machine: BackgroundMachine) -> Vec<Request> {
    let (mut spawned, mut requests) = (vec![machine], Vec::new());
    while let Some(machine) = spawned.pop() {
        let mut script = Script::with_knowledge(machine, two_regions());
        while let Some(command) = script.next() {
            let (token, event) = match command {
                Command::Call(call) => {
                    let event = answer(&call.request, ok());
                    requests.push(call.request);
                    (call.token, event)
                }
                Command::Sleep { token, .. } => (token, Event::Woken),
                Command::Spawn(machine) => {
                    spawned.push(machine);
                    continue;
                }
                other => panic!("unexpected: {other:?}"),
            };
            script.event(token, event);
        }
        script.expect_done();
    }
    requests
}

fn told(request: &Request) -> Option<String> {
    match request {
        Request::BatchRollback(request) => Some(format!("roll back {}", names(&request.keys).join(" "))),
        Request::ResolveLock(request) => {
            assert!(request.keys.is_empty());
            Some(format!("resolve at {}", request.commit_version))
        }
        Request::BroadcastTxnStatus(_) => None,
        other => panic!("unexpected: {other:?}"),
    }
}
