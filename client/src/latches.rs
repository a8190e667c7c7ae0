//! Where transactions wait for their turn; see [`tikv_core::txn::Latches`].

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::oneshot;
use futures::future::{Either, select};
use tikv_core::config::Config;
use tikv_core::error::ConflictReason;
use tikv_core::keyspace::KeyCodec;
use tikv_core::txn::{Acquired, Commit, CommitOutcome, CommitRequest, LatchId, LatchLimits, Latches, NewerCommit};

use crate::check::CommitChecker;
use crate::kill::KillSwitch;
use crate::runtime::Runtime;
use crate::{CallFailure, Client, Conflict, Error, Time, Timestamp};

impl Client {
    /// Commits a transaction as soon as it is its turn.
    ///
    /// Killed before anything may have decided, the transaction is rolled back in the background; later, it ends as it ends.
    pub(crate) async fn commit_in_turn(
        &self,
        request: CommitRequest,
        check: Option<&CommitChecker>,
        kill: &KillSwitch,
    ) -> Result<CommitOutcome, Error> {
        let shared = self.shared();
        let held = match shared.latches.as_ref().filter(|_| request.pessimistic.is_none()) {
            Some(queues) => kill.run(pin!(queues.acquire(&request, &*shared.runtime))).await?,
            None => None,
        };
        let mut commit = self.drive(KeyCodec::Txn, Commit::new(request)).checked_by(check.cloned());
        let end = kill.run_commit(&mut commit).await;
        if let Some(held) = held {
            held.end(&end);
        }
        end
    }
}

/// The latches of one client, and who is to be woken.
pub(crate) struct LatchQueues {
    /// Held for one step, never across an await.
    state: Mutex<State>,
}

struct State {
    latches: Latches,
    waiting: BTreeMap<LatchId, oneshot::Sender<Result<(), NewerCommit>>>,
}

/// Latches, or a place in their queues. Both are given back when it is dropped.
pub(crate) struct HeldLatches {
    queues: Arc<LatchQueues>,
    id: LatchId,
    commit_ts: Option<Timestamp>,
}

impl LatchQueues {
    /// `None` if the settings want none.
    pub(crate) fn new(config: &Config) -> Option<Arc<Self>> {
        let limits = LatchLimits { remembered_keys: config.local_latch_keys, ..LatchLimits::default() };
        let state = State { latches: Latches::new(limits), waiting: BTreeMap::new() };
        (config.local_latch_keys > 0).then(|| Arc::new(LatchQueues { state: Mutex::new(state) }))
    }

    /// Waits until the transaction may commit. `None` if it may do so without latches, since too many wait.
    ///
    /// # Errors
    ///
    /// [`Error::WriteConflict`] if another transaction of this client has committed to one of its keys;
    /// [`Error::DeadlineExceeded`].
    async fn acquire(
        self: &Arc<Self>,
        request: &CommitRequest,
        runtime: &dyn Runtime,
    ) -> Result<Option<HeldLatches>, Error> {
        let held = |id| HeldLatches { queues: Arc::clone(self), id, commit_ts: None };
        let (place, turn) = {
            let mut state = self.state();
            match state.latches.acquire(request.start_ts, request.mutations.locked_keys().cloned()) {
                Acquired::Granted(id) => return Ok(Some(held(id))),
                Acquired::Busy => return Ok(None),
                Acquired::Stale(newer) => return Err(conflict(request, newer)),
                Acquired::Waiting(id) => {
                    let (sender, turn) = oneshot::channel();
                    state.waiting.insert(id, sender);
                    (held(id), turn)
                }
            }
        };
        match before(request.options.call.deadline, turn, runtime).await {
            Some(Ok(Ok(()))) => Ok(Some(place)),
            Some(Ok(Err(newer))) => Err(conflict(request, newer)),
            Some(Err(oneshot::Canceled)) => Ok(None),
            None => Err(Error::DeadlineExceeded { operation: "Commit", attempts: 0, last: CallFailure::NotAttempted }),
        }
    }

    fn release(&self, id: LatchId, commit_ts: Option<Timestamp>) {
        let mut state = self.state();
        state.waiting.remove(&id);
        for woken in state.latches.release(id, commit_ts) {
            if let Some(waker) = state.waiting.remove(&woken.id) {
                // Who has lost interest gives its place back itself.
                let _ = waker.send(woken.result);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldLatches {
    /// Tells those who come later that they have lost, if they began earlier.
    pub(crate) fn end(mut self, end: &Result<CommitOutcome, Error>) {
        self.commit_ts = end.as_ref().ok().and_then(|outcome| outcome.commit_ts);
    }
}

impl Drop for HeldLatches {
    fn drop(&mut self) {
        self.queues.release(self.id, self.commit_ts);
    }
}

/// What a future comes to until `deadline`.
async fn before<F: Future + Unpin>(deadline: Time, future: F, runtime: &dyn Runtime) -> Option<F::Output> {
    if deadline == Time::MAX {
        return Some(future.await);
    }
    let alarm = runtime.sleep(deadline.saturating_since(runtime.now()));
    match select(future, alarm).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

fn conflict(request: &CommitRequest, newer: NewerCommit) -> Error {
    let NewerCommit { key, start_ts: conflict_ts, commit_ts: conflict_commit_ts } = newer;
    Error::WriteConflict(Box::new(Conflict {
        start_ts: request.start_ts,
        conflict_ts,
        conflict_commit_ts,
        key,
        primary: request.mutations.primary().cloned().unwrap_or_default(),
        reason: ConflictReason::Optimistic,
    }))
}
