//! Deliberate mistakes in the wiring between machines and network. A model that finds nothing wrong with one of them proves
//! nothing.

use bytes::Bytes;
use tikv_core::error::Execution;
use tikv_core::machine::Call;
use tikv_core::request::{Request, Response, Shared};
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::prewrite_request::PessimisticAction;
use tikv_proto::kvrpcpb::{CommitRequest, CommitRole};

use crate::history::History;
use crate::servers::Regions;

/// How far the local clock is ahead of PD's.
const AHEAD_MS: u64 = 3_600_000;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mistake {
    /// The secondaries are committed side by side with the primary.
    SecondariesFirst,
    /// Whether a lock has expired is judged by a local clock, which is ahead.
    LocalClock,
    /// Readers take all locks for such that hide nothing.
    LocksIgnored,
    /// A call that was not answered is taken for one that was not sent.
    FaultsMasked,
    /// Who recovers an async commit is told of no secondaries.
    SecondariesForgotten,
    /// Prewrites do not check that the pessimistic locks of their keys are still there.
    LocksUnchecked,
    /// Every lock request says that its transaction has locked nothing before, so that nobody can wait for it.
    DeadlocksUnnoticed,
    /// Releases of pessimistic locks take locks that are newer than they are meant for.
    LaterLocksReleased,
    /// Prewrites do not check that locks of fair locking still have the timestamp at which they were taken. It takes a copy of
    /// the request to lock, which is no mistake but is made here.
    LaterLocksTrusted,
}

impl Mistake {
    /// Spoils a call, or adds one.
    pub(crate) fn on_call(self, call: &mut Call, regions: &Regions, history: &History) -> Option<Call> {
        match (self, &mut call.request) {
            (Mistake::SecondariesFirst, Request::Commit(request)) if request.commit_role() == CommitRole::Primary => {
                let start_ts = Timestamp::from_version(request.start_version);
                let txn = history.txns.iter().find(|txn| txn.start_ts == start_ts)?;
                let left = txn.keys.iter().find(|key| !request.keys.iter().any(|sent| sent[..] == *key.as_slice()))?;
                let early = CommitRequest { keys: vec![left.to_bytes()], ..CommitRequest::clone(request) };
                let context = regions.context(left, &call.context);
                Some(Call { request: Request::Commit(Shared::new(early)), context, ..call.clone() })
            }
            (Mistake::LocalClock, Request::CheckTxnStatus(request)) => {
                let now = Timestamp::from_version(request.current_ts);
                spoil(request, |it| it.current_ts = Timestamp::compose(now.physical_ms() + AHEAD_MS, 0).version());
                None
            }
            (Mistake::LocksIgnored, Request::Get(_) | Request::BatchGet(_) | Request::Scan(_)) => {
                let started = history.txns.iter().map(|txn| txn.start_ts.version()).collect();
                call.context = std::mem::take(&mut call.context).updated(|context| context.resolved_locks = started);
                None
            }
            (Mistake::LocksUnchecked, Request::Prewrite(request)) => {
                spoil(request, |it| it.pessimistic_actions.fill(PessimisticAction::SkipPessimisticCheck.into()));
                None
            }
            (Mistake::LaterLocksTrusted, Request::Prewrite(request)) => {
                spoil(request, |it| it.for_update_ts_constraints.clear());
                None
            }
            (Mistake::LaterLocksTrusted, Request::PessimisticLock(_)) => Some(call.clone()),
            (Mistake::DeadlocksUnnoticed, Request::PessimisticLock(request)) => {
                spoil(request, |it| it.is_first_lock = true);
                None
            }
            (Mistake::LaterLocksReleased, Request::PessimisticRollback(request)) => {
                spoil(request, |it| it.for_update_ts = u64::MAX);
                None
            }
            _ => None,
        }
    }

    /// Spoils an answer.
    pub(crate) fn on_answer(self, answer: &mut Response) {
        if let (Mistake::SecondariesForgotten, Response::CheckTxnStatus(answer)) = (self, answer) {
            if let Some(lock) = &mut answer.lock_info {
                lock.secondaries = Vec::<Bytes>::new();
            }
        }
    }

    /// Spoils what is known of a fault.
    pub(crate) fn on_fault(self, execution: Execution) -> Execution {
        if self == Mistake::FaultsMasked { Execution::NotSent } else { execution }
    }
}

fn spoil<M: Clone>(request: &mut Shared<M>, change: impl FnOnce(&mut M)) {
    let mut spoilt = M::clone(request);
    change(&mut spoilt);
    *request = Shared::new(spoilt);
}
