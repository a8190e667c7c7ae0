//! Commits a pipelined transaction.
//!
//! ```text
//!           something is left              flushed                       timestamp
//!  start ──────────────────► FlushingRest ─────────► FetchingCommitTs ─────────────► CommittingPrimary ──► committed
//!    │ all is flushed             │                    ▲  │ no timestamp                 │    │     spawns FinishFlushed
//!    ├────────────────────────────┼────────────────────┘  │                              │    │ no answer
//!    │ nothing was ever locked    │ refused               ▼                      refused ▼    ▼
//!    └──► done                    └───────────────────► failed (spawns FinishFlushed) ◄──┘   undetermined
//! ```
//!
//! The transaction is decided by the commit of its primary, as any other that commits in two phases, by the same machine, which
//! tells apart what was refused from what was not answered. Until that request leaves, every error means that the transaction
//! has not committed and never will: its locks are rolled back in the background. An error of which it is not certain that TiKV
//! answered leaves the outcome open: it is [`Error::Undetermined`], and nobody touches the locks.
//!
//! A heartbeat keeps the primary alive until the end. It does not raise the least commit_ts any more, which could come to lie
//! above the one that is being fetched.
//!
//! client-go: `commitFlushedMutations`.

use std::sync::Arc;
use std::task::Poll;

use super::finish::{FinishFlushed, FlushedLocks};
use super::flush::{Flush, Flushed, Generation};
use crate::canary::Canary;
use crate::error::Error;
use crate::key::Key;
use crate::knowledge::txn_status::FinalStatus;
use crate::machine::{Abandoned, Context, CurrentPhase, Event, FanOut, Machine, Observation, Token, phases};
use crate::timestamp::Timestamp;
use crate::txn::commit_primary::{CommitPrimary, PrimaryCommitted};
use crate::txn::commit_ts::FetchCommitTs;
use crate::txn::{CommitMode, CommitOptions, CommitOutcome, Heartbeat, HeartbeatEnd};

/// A pipelined transaction that is to be committed. Made by
/// [`PipelinedTransaction::begin_commit`](super::PipelinedTransaction::begin_commit).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PipelinedCommitRequest {
    pub(super) start_ts: Timestamp,
    /// What has not been flushed.
    pub(super) rest: Option<Generation>,
    pub(super) primary_is_locked: bool,
    /// What is locked when the rest is flushed; `None` if nothing is.
    pub(super) locks: Option<FlushedLocks>,
    pub(super) options: CommitOptions,
}

/// Commits a pipelined transaction; see the [module documentation](self). Ends as soon as it is decided; the locks are resolved
/// in the background.
///
/// What it ends with, if not with success:
///
/// - [`Error::Undetermined`]: the request that decides was not answered. The transaction may have committed, and must not be run
///   again. Its locks are left to whoever meets them.
/// - Anything else: it has not committed and never will. Its locks are rolled back in the background.
///
/// Abandoned before the primary is being committed, it is rolled back in the background; later, it is finished there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PipelinedCommit {
    start_ts: Timestamp,
    locks: Option<FlushedLocks>,
    options: CommitOptions,
    primary_is_locked: bool,
    /// At most one.
    heartbeat: FanOut<Heartbeat>,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Starting(Option<Box<Generation>>),
    FlushingRest(Box<Flush>),
    FetchingCommitTs(FetchCommitTs),
    CommittingPrimary(CommitPrimary),
    Ended,
}

phases! {
    PipelinedCommit: Phase;
    start => FlushingRest | FetchingCommitTs | done;
    FlushingRest => FetchingCommitTs | done;
    FetchingCommitTs => CommittingPrimary | done;
    CommittingPrimary => done;
}

type End = Result<CommitOutcome, Error>;

impl PipelinedCommitRequest {
    /// What it flushes first, if anything is left.
    #[must_use]
    pub fn rest(&self) -> Option<&Generation> {
        self.rest.as_ref()
    }

    /// The same, asking the owner before a commit timestamp is used.
    #[must_use]
    pub fn asking_owner(mut self) -> Self {
        self.options.commit_ts.ask_owner = true;
        self
    }

    /// The same, to be over at `deadline`, unless the primary is being committed then.
    #[must_use]
    pub fn with_deadline(mut self, deadline: crate::time::Time) -> Self {
        let options = self.rest.as_mut().map(|rest| &mut rest.options);
        options.into_iter().chain([&mut self.options]).for_each(|options| options.call.deadline = deadline);
        self
    }
}

impl PipelinedCommit {
    /// Commits what `request` says.
    #[must_use]
    pub fn new(request: PipelinedCommitRequest) -> Self {
        let PipelinedCommitRequest { start_ts, rest, primary_is_locked, locks, options } = request;
        let (heartbeat, phase) = (FanOut::new(1), Phase::Starting(rest.map(Box::new)));
        PipelinedCommit { start_ts, locks, options, primary_is_locked, heartbeat, phase }
    }

    fn flush(
        &mut self,
        cx: &mut Context<'_>,
        mut flush: Box<Flush>,
        step: impl FnOnce(&mut Flush, &mut Context<'_>) -> Poll<Result<Flushed, Error>>,
    ) -> Poll<End> {
        match step(&mut flush, cx) {
            Poll::Pending => {
                self.phase = Phase::FlushingRest(flush);
                Poll::Pending
            }
            Poll::Ready(Ok(flushed)) => {
                if let (Some(due), Some(heartbeat)) = (flushed.next_beat, self.heartbeat()) {
                    self.start_heartbeat(cx, heartbeat.due(due));
                }
                self.fetch(cx)
            }
            Poll::Ready(Err(error)) => self.fail(cx, error),
        }
    }

    fn fetch(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.locks.is_none() {
            // Absences were checked, if anything.
            return self.done(cx, Ok(CommitOutcome::default()));
        }
        let fetch = FetchCommitTs::new(self.start_ts, self.options.commit_ts, self.options.call.deadline);
        self.fetch_commit_ts(cx, fetch, FetchCommitTs::start)
    }

    fn fetch_commit_ts(
        &mut self,
        cx: &mut Context<'_>,
        mut fetch: FetchCommitTs,
        step: impl FnOnce(&mut FetchCommitTs, &mut Context<'_>) -> Poll<Result<Timestamp, Error>>,
    ) -> Poll<End> {
        match step(&mut fetch, cx) {
            Poll::Pending => {
                self.phase = Phase::FetchingCommitTs(fetch);
                Poll::Pending
            }
            Poll::Ready(Ok(commit_ts)) => {
                let primary = self.primary();
                let keys: Arc<[Key]> = [primary.clone()].into();
                let (rules, options) = (self.options.commit_ts, self.options.foreground());
                let commit = CommitPrimary::new(cx, self.start_ts, commit_ts, primary, keys, rules, options);
                self.commit_primary(cx, commit, CommitPrimary::start)
            }
            Poll::Ready(Err(error)) => self.fail(cx, error),
        }
    }

    fn commit_primary(
        &mut self,
        cx: &mut Context<'_>,
        mut commit: CommitPrimary,
        step: impl FnOnce(&mut CommitPrimary, &mut Context<'_>) -> Poll<Result<PrimaryCommitted, Error>>,
    ) -> Poll<End> {
        match step(&mut commit, cx) {
            Poll::Pending => {
                self.phase = Phase::CommittingPrimary(commit);
                Poll::Pending
            }
            Poll::Ready(Ok(PrimaryCommitted { commit_ts, .. })) => {
                self.finish(cx, FinalStatus::Committed(commit_ts));
                let (commit_ts, mode) = (Some(commit_ts), CommitMode::TwoPhases);
                self.done(cx, Ok(CommitOutcome { commit_ts, mode, ..CommitOutcome::default() }))
            }
            Poll::Ready(Err(error)) => self.fail(cx, error),
        }
    }

    /// An outcome that is not known keeps its locks: to roll them back could undo a commit.
    fn fail(&mut self, cx: &mut Context<'_>, error: Error) -> Poll<End> {
        if !error.is_undetermined() || cx.config().has_canary(Canary::CleanupAfterUndetermined) {
            self.finish(cx, FinalStatus::RolledBack);
        }
        self.done(cx, Err(error))
    }

    fn finish(&mut self, cx: &mut Context<'_>, status: FinalStatus) {
        let Some(locks) = self.locks.take() else { return };
        let options = match status {
            FinalStatus::Committed(_) => self.options.background(),
            FinalStatus::RolledBack => self.options.upkeep(),
        };
        cx.spawn(FinishFlushed::new(locks, status, options));
    }

    fn primary(&self) -> Key {
        self.locks.as_ref().map(|locks| locks.primary.clone()).unwrap_or_default()
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        let locks = self.locks.as_ref()?;
        Some(Heartbeat::new(self.start_ts, locks.primary.clone(), self.options.upkeep()))
    }

    fn start_heartbeat(&mut self, cx: &mut Context<'_>, heartbeat: Heartbeat) {
        self.heartbeat.add(heartbeat.of_pipelined(false));
        self.heartbeat.run(cx);
    }

    fn on_heartbeat_end(&mut self, cx: &mut Context<'_>, end: HeartbeatEnd) -> Poll<End> {
        let error = end.into_error(self.start_ts);
        let is_lost = matches!(error, Error::RolledBack { .. });
        match (&mut self.phase, is_lost) {
            // Once the primary is being committed, the answer to that will tell.
            (Phase::FlushingRest(_) | Phase::FetchingCommitTs(_), true) => self.fail(cx, error),
            _ => {
                // The lock lives on for a while: perhaps long enough.
                cx.observe(Observation::BackgroundFailed { task: "heartbeat", error });
                Poll::Pending
            }
        }
    }

    fn done(&mut self, cx: &mut Context<'_>, result: End) -> Poll<End> {
        self.heartbeat.cancel_all(cx);
        self.phase = Phase::Ended;
        Poll::Ready(result)
    }
}

impl Machine for PipelinedCommit {
    type Output = End;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Phase::Starting(rest) = std::mem::replace(&mut self.phase, Phase::Ended) else { return Poll::Pending };
        if self.start_ts.is_zero() || self.start_ts == Timestamp::MAX {
            let error = Error::InvalidArgument("a transaction cannot commit without a start_ts of PD".into());
            return self.done(cx, Err(error));
        }
        if let (true, Some(heartbeat)) = (self.primary_is_locked, self.heartbeat()) {
            // The beat before was half a life ago at most.
            let due = cx.now() + Heartbeat::interval(cx.config()) / 2;
            self.start_heartbeat(cx, heartbeat.due(due));
        }
        match rest {
            Some(rest) => self.flush(cx, Box::new(Flush::new(*rest)), Flush::start),
            None => self.fetch(cx),
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<End> {
        if self.heartbeat.waits_for(token) {
            self.heartbeat.handle(cx, token, event);
            let end = self.heartbeat.next_finished(cx);
            return end.map_or(Poll::Pending, |(_, end)| self.on_heartbeat_end(cx, end));
        }
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::FlushingRest(flush) => self.flush(cx, flush, |flush, cx| flush.handle(cx, token, event)),
            Phase::FetchingCommitTs(fetch) => {
                self.fetch_commit_ts(cx, fetch, |fetch, cx| fetch.handle(cx, token, event))
            }
            Phase::CommittingPrimary(commit) => {
                self.commit_primary(cx, commit, |commit, cx| commit.handle(cx, token, event))
            }
            phase @ (Phase::Starting(_) | Phase::Ended) => {
                self.phase = phase;
                Poll::Pending
            }
        }
    }

    /// Until the primary is being committed nothing can have decided the transaction, and it is rolled back. Then it is
    /// finished.
    fn abandon(&mut self, cx: &mut Context<'_>) -> Abandoned {
        match self.phase {
            Phase::Ended => Abandoned::Discard,
            Phase::CommittingPrimary(_) => Abandoned::FinishInBackground,
            Phase::Starting(_) | Phase::FlushingRest(_) | Phase::FetchingCommitTs(_) => {
                self.phase = Phase::Ended;
                self.finish(cx, FinalStatus::RolledBack);
                Abandoned::Discard
            }
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
