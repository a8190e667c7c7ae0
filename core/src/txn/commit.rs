//! Commits a transaction: in two phases, asynchronously, or in one phase.
//!
//! ```text
//!            located            all locked                timestamp                     primary committed
//!  start ──► Grouping ──► Prewriting ──► FetchingCommitTs ──► CommittingPrimary ───────────────────────► committed
//!    │         │   ▲          │    │           │                   │    │                 spawns CommitSecondaries
//!    │         ▼   │          │    │ all locked, and that decides  │    │ no answer
//!    │  FetchingMinCommitTs   │    └──────────────────────────────────────────────────────► committed
//!    │                        │                │                   │    │                 spawns CommitSecondaries
//!    │ nothing to commit      │ refused        │ no timestamp      │    │
//!    ▼                        ▼                ▼                   ▼    ▼
//!  done                     failed (spawns Cleanup) ◄──── refused ─┘   undetermined (nobody touches the locks)
//! ```
//!
//! - In two phases a transaction is decided by the commit of its primary, nothing else. Until that request leaves, every error
//!   means that it has not committed and never will: what it has locked is rolled back in the background, and the error is
//!   returned at once. Prewrites that are cancelled on the way may be executed all the same; that decides nothing, but their
//!   keys are rolled back too.
//! - Where prewrites [decide](super::decision), the transaction is committed as soon as the last of them is executed. One that
//!   TiKV refuses means that it has not committed and never will; one that was not answered leaves the outcome open. A
//!   timestamp is taken from PD before the first prewrite, so that whatever was committed before is committed earlier: what
//!   readers have seen since then, TiKV knows and stays above.
//! - An error of which it is not certain that TiKV answered, when it could have decided, leaves the outcome open. It is
//!   reported as [`Error::Undetermined`], the locks are left alone, and nothing can turn that into another error.
//! - A failed assertion counts less than any other error: it may be a mere consequence of a conflict. It is reported if
//!   nothing else went wrong.
//!
//! A large transaction gets a [heartbeat](super::heartbeat) once its primary is locked, until it has ended. If that finds the
//! lock gone, the transaction was rolled back by somebody else, and need not be tried any further; unless prewrites decide,
//! for then somebody else may have committed it. A pessimistic transaction has a heartbeat from the beginning; as long as its
//! primary is not prewritten, a lock that is gone means nothing: the prewrite takes it anew, or is refused.
//!
//! An owner that loses interest before the request that may decide is sent gets the transaction rolled back; later it is
//! finished without its owner.
//!
//! client-go: `twoPhaseCommitter.execute`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Poll;

use tikv_proto::kvrpcpb::Op;

use super::batches::primary_first;
use super::cleanup::Cleanup;
use super::commit_primary::{CommitPrimary, PrimaryCommitted};
use super::commit_secondaries::CommitSecondaries;
use super::commit_ts::FetchCommitTs;
use super::decision::{Decision, Mode};
use super::heartbeat::{Heartbeat, HeartbeatEnd};
use super::lock_ttl::lock_ttl;
use super::pessimistic_rollback::PessimisticRollback;
use super::pre_split;
use super::prewrite::{NotPrewritten, PrewriteBatch, PrewriteShard, PrewriteTemplate, Prewritten, RegionKeys};
use super::{CommitDetails, CommitOptions, CommitOutcome, CommitTsRules, Mutation, Mutations};
use crate::backoff::{Backoff, budget};
use crate::canary::Canary;
use crate::error::Error;
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::machine::{Abandoned, Context, CurrentPhase, Event, FanOut, Machine, Observation, Token, phases};
use crate::route::{self, Group, Grouped, Grouping, Sharded, Unlocated};
use crate::split::{Scatter, Split, SplitOptions, SplitRegions};
use crate::time::{Time, whole_ms};
use crate::timestamp::Timestamp;

/// What is to be committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommitRequest {
    /// The transaction.
    pub start_ts: Timestamp,
    /// When it began, on the caller's clock: the locks live longer the longer it took to get here.
    pub started_at: Time,
    /// What it writes.
    pub mutations: Mutations,
    /// What a pessimistic transaction has locked; `None` if it is optimistic.
    pub pessimistic: Option<PessimisticCommit>,
    /// How.
    pub options: CommitOptions,
}

/// What a commit has to know of the locks of a pessimistic transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PessimisticCommit {
    /// The newest timestamp at which a key was locked; zero if none can be, so that it commits as an optimistic one does.
    pub for_update_ts: Timestamp,
    /// Whether the primary of the mutations is locked, and has to be kept so.
    pub primary_is_locked: bool,
    /// Keys that may be locked though nobody knows: they are released.
    pub in_doubt: Vec<Key>,
}

/// Commits a transaction: locks every key, takes a timestamp from PD, commits the primary, which decides. Or, if the options
/// allow it and the transaction is small, locks every key, which decides; or does it all in one request. Ends as soon as it is
/// decided; the (other) keys are committed in the background.
///
/// What it ends with, if not with success:
///
/// - [`Error::Undetermined`]: the request that decides was not answered. The transaction may have committed, and must not be
///   run again. Its locks are left to whoever meets them.
/// - Anything else: it has not committed and never will. Its locks are rolled back in the background. Whether another run can
///   succeed, [`Error::is_retryable`] tells.
///
/// Abandoned before the request that may decide is sent, it is rolled back in the background; later, it is finished there.
/// client-go: `KVTxn.Commit`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    start_ts: Timestamp,
    started_at: Time,
    primary: Key,
    /// The keys that prewrite locks, in order.
    locked_keys: Arc<[Key]>,
    size_bytes: u64,
    pessimistic: Option<PessimisticCommit>,
    options: CommitOptions,
    mode: Mode,
    decision: Decision,
    failed_assertion: Option<Box<Error>>,
    details: CommitDetails,
    /// Where the primary was prewritten.
    primary_region: Option<Arc<Region>>,
    /// Regions have been split for it, or could not be.
    has_split: bool,
    /// At most one; most transactions never have any.
    heartbeat: Option<Box<FanOut<Heartbeat>>>,
    /// What the heartbeat may find at the primary.
    beats_on: BeatsOn,
    phase: Phase,
}

/// What a heartbeat may find at the primary, and what it means if it finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum BeatsOn {
    /// A pessimistic lock, which goes without a trace, or nothing: the prewrite of the primary will tell what that means.
    Pessimistic,
    /// As before, but the primary has been prewritten since.
    Outdated,
    /// The lock that was prewritten: if it is gone, somebody has ended the transaction.
    Prewritten,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Starting(Vec<Mutation>),
    Grouping(Grouping<Mutation>),
    Splitting { split: Box<SplitRegions>, mutations: Vec<Mutation>, backoff: Backoff },
    FetchingMinCommitTs { fetch: FetchCommitTs, groups: Vec<Group<Mutation>>, backoff: Backoff },
    Prewriting(Sharded<PrewriteShard>),
    FetchingCommitTs(FetchCommitTs),
    CommittingPrimary(Box<CommitPrimary>),
    Ended,
}

phases! {
    Commit: Phase;
    start => Grouping | Splitting | FetchingMinCommitTs | Prewriting | done;
    Grouping => Splitting | FetchingMinCommitTs | Prewriting | done;
    Splitting => Grouping | FetchingMinCommitTs | Prewriting | done;
    FetchingMinCommitTs => Prewriting | done;
    Prewriting => FetchingCommitTs | done;
    FetchingCommitTs => CommittingPrimary | done;
    CommittingPrimary => done;
}

type End = Result<CommitOutcome, Error>;

impl Commit {
    /// Commits what `request` says.
    #[must_use]
    pub fn new(request: CommitRequest) -> Self {
        let CommitRequest { start_ts, started_at, mutations, pessimistic, options } = request;
        Commit {
            start_ts,
            started_at,
            primary: mutations.primary().cloned().unwrap_or_default(),
            locked_keys: mutations.share_locked_keys(),
            size_bytes: mutations.size_bytes(),
            pessimistic,
            options,
            mode: Mode::default(),
            decision: Decision::default(),
            failed_assertion: None,
            details: CommitDetails::default(),
            primary_region: None,
            has_split: false,
            heartbeat: None,
            beats_on: BeatsOn::Pessimistic,
            phase: Phase::Starting(mutations.into_vec()),
        }
    }

    fn on_grouped(&mut self, cx: &mut Context<'_>, grouped: Grouped<Mutation>) -> Poll<End> {
        let groups = match grouped.result {
            Ok(groups) => groups,
            // Nothing has been sent yet.
            Err(Unlocated { error, .. }) => return self.fail(cx, error, Vec::new()),
        };
        let split_keys = if self.has_split { Vec::new() } else { pre_split::keys(cx.config(), &groups) };
        if !split_keys.is_empty() {
            self.has_split = true;
            let options = SplitOptions { scatter: Scatter::Finish, ..SplitOptions::new(cx.config()) };
            let split = SplitRegions::new(split_keys, SplitOptions { call: self.options.call.clone(), ..options });
            let mutations = groups.into_iter().flat_map(|group| group.items).collect();
            return self.split(cx, Box::new(split), mutations, grouped.backoff, SplitRegions::start);
        }
        let in_real_time = !self.options.causal_consistency && !cx.config().has_canary(Canary::RealTimeForgotten);
        let CommitTsRules { wait_until, ask_owner, .. } = self.options.commit_ts;
        let must_wait = !wait_until.is_zero() || ask_owner;
        if !self.mode.prewrites_decide() || !(in_real_time || must_wait) {
            return self.prewrite(cx, groups, &grouped.backoff, self.start_ts);
        }
        let fetch = FetchCommitTs::new(self.start_ts, self.options.commit_ts, self.options.call.deadline);
        self.fetch_min_commit_ts(cx, fetch, groups, grouped.backoff, FetchCommitTs::start)
    }

    /// Whether that succeeds or not, the keys are located anew, and written to whatever regions there are.
    fn split(
        &mut self,
        cx: &mut Context<'_>,
        mut split: Box<SplitRegions>,
        mutations: Vec<Mutation>,
        backoff: Backoff,
        step: impl FnOnce(&mut SplitRegions, &mut Context<'_>) -> Poll<Split>,
    ) -> Poll<End> {
        let Poll::Ready(end) = step(&mut split, cx) else {
            self.phase = Phase::Splitting { split, mutations, backoff };
            return Poll::Pending;
        };
        if let Some(error) = end.error {
            cx.observe(Observation::BackgroundFailed { task: "split regions before a large transaction", error });
        }
        self.group(cx, mutations, backoff)
    }

    fn group(&mut self, cx: &mut Context<'_>, mutations: Vec<Mutation>, backoff: Backoff) -> Poll<End> {
        let mut grouping = Grouping::new(mutations, backoff).with_deadline(self.options.call.deadline);
        match grouping.start(cx) {
            Poll::Ready(grouped) => self.on_grouped(cx, grouped),
            Poll::Pending => {
                self.phase = Phase::Grouping(grouping);
                Poll::Pending
            }
        }
    }

    fn fetch_min_commit_ts(
        &mut self,
        cx: &mut Context<'_>,
        mut fetch: FetchCommitTs,
        groups: Vec<Group<Mutation>>,
        backoff: Backoff,
        step: impl FnOnce(&mut FetchCommitTs, &mut Context<'_>) -> Poll<Result<Timestamp, Error>>,
    ) -> Poll<End> {
        match step(&mut fetch, cx) {
            Poll::Pending => {
                self.phase = Phase::FetchingMinCommitTs { fetch, groups, backoff };
                Poll::Pending
            }
            Poll::Ready(Ok(newest)) => self.prewrite(cx, groups, &backoff, newest),
            // Nothing has been sent yet.
            Poll::Ready(Err(error)) => self.fail(cx, error, Vec::new()),
        }
    }

    /// `after`: what the commit_ts must exceed, if prewrites decide.
    fn prewrite(
        &mut self,
        cx: &mut Context<'_>,
        groups: Vec<Group<Mutation>>,
        backoff: &Backoff,
        after: Timestamp,
    ) -> Poll<End> {
        self.details.regions = groups.len() as u64;
        let mutation_count = groups.iter().map(|group| group.items.len()).sum();
        self.details.keys = mutation_count as u64;
        self.details.bytes = self.size_bytes;
        let shard = self.prewrite_shard(cx, RegionKeys::of(&groups), mutation_count);
        let batches = Sharded::new(shard, cx.config().operation_concurrency);
        // What is large is finished where it stays.
        self.phase = Phase::Prewriting(batches);
        let Phase::Prewriting(batches) = &mut self.phase else { return Poll::Pending };
        let mut groups = primary_first(groups, &self.primary, batches.shard());
        self.mode.one_phase &= groups.len() == 1 || cx.config().has_canary(Canary::OnePhaseInParts);
        // What the owner was asked about is PD's time, not this process's.
        let asked_at = self.options.commit_ts.ask_owner.then_some(after);
        self.mode.fill_in(cx, &mut batches.shard_mut().template, after, self.started_at, asked_at);
        if cx.config().has_canary(Canary::LastGroupForgotten) && groups.len() > 1 {
            groups.pop();
        }
        for batch in groups {
            batches.add_group(cx, batch, backoff, false);
        }
        batches.run(cx);
        self.on_prewrites(cx)
    }

    fn prewrite_shard(&self, cx: &Context<'_>, region_keys: RegionKeys, mutation_count: usize) -> PrewriteShard {
        let elapsed = cx.now().saturating_since(self.started_at);
        let for_update_ts = self.for_update_ts();
        let template = PrewriteTemplate {
            primary_lock: self.primary.to_bytes(),
            start_version: self.start_ts.version(),
            lock_ttl: whole_ms(lock_ttl(cx.config(), self.size_bytes, elapsed)),
            for_update_ts: for_update_ts.version(),
            assertion_level: self.options.assertion_level.into(),
            ..PrewriteTemplate::default()
        };
        PrewriteShard {
            template,
            options: self.options.foreground(),
            on_lock: self.options.on_lock,
            batch_bytes: cx.config().txn_batch_bytes,
            region_keys,
            mutation_count,
            locked_keys: Arc::clone(&self.locked_keys),
        }
    }

    /// Zero of an optimistic transaction.
    fn for_update_ts(&self) -> Timestamp {
        self.pessimistic.as_ref().map_or(Timestamp::ZERO, |pessimistic| pessimistic.for_update_ts)
    }

    fn on_prewrites(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut any_prewritten = false;
        while let Some(end) = self.batches().and_then(|batches| batches.next_finished(cx)) {
            match end.unwrap_or_else(|unlocated| Err(unlocated.into())) {
                Ok(Prewritten { has_primary, region, verdict, resends }) => {
                    any_prewritten = true;
                    self.details.prewrites += 1;
                    self.details.lock_encounters += u64::from(resends);
                    self.decision.add(cx, verdict);
                    if has_primary {
                        self.primary_region = region;
                        self.on_primary_prewritten(cx);
                    }
                }
                Err(NotPrewritten { error: error @ Error::AssertionFailed(_), .. }) => {
                    self.failed_assertion.get_or_insert_with(|| Box::new(error));
                }
                Err(not_prewritten) => return self.on_not_prewritten(cx, not_prewritten),
            }
        }
        let some_will_do = cx.config().has_canary(Canary::CommitBeforeAllPrewritten) && any_prewritten;
        if self.batches().is_some_and(|batches| !batches.is_idle()) && !some_will_do {
            return Poll::Pending;
        }
        if let Some(error) = self.failed_assertion.take() {
            let keys = self.locked_keys.to_vec();
            return self.fail(cx, *error, keys);
        }
        if self.locked_keys.is_empty() {
            // Absences were checked, and that was all.
            return self.done(Ok(CommitOutcome { details: self.details, ..CommitOutcome::default() }));
        }
        if let Some(commit_ts) = self.decision.commit_ts() {
            let locked = if self.decision.is_complete() { Vec::new() } else { self.locked_keys.to_vec() };
            return self.committed(cx, commit_ts, locked);
        }
        let fetch = FetchCommitTs::new(self.start_ts, self.options.commit_ts, self.options.call.deadline);
        self.phase = Phase::FetchingCommitTs(fetch);
        if cx.config().has_canary(Canary::CommitTsWithoutPd) {
            let commit_ts = self.start_ts.next();
            return self.fetch_commit_ts(cx, |_, _| Poll::Ready(Ok(commit_ts)));
        }
        self.fetch_commit_ts(cx, FetchCommitTs::start)
    }

    /// What is being prewritten.
    fn batches(&mut self) -> Option<&mut Sharded<PrewriteShard>> {
        match &mut self.phase {
            Phase::Prewriting(batches) => Some(batches),
            _ => None,
        }
    }

    fn on_not_prewritten(&mut self, cx: &mut Context<'_>, not_prewritten: NotPrewritten) -> Poll<End> {
        let NotPrewritten { error, maybe_locked } = not_prewritten;
        let Phase::Prewriting(mut batches) = std::mem::replace(&mut self.phase, Phase::Ended) else {
            return Poll::Pending;
        };
        let keys = self.keys_sent(&batches);
        let maybe_decided = maybe_locked && self.maybe_decided(&batches);
        batches.cancel_all(cx);
        let is_masked = cx.config().has_canary(Canary::UndeterminedPrewriteMasked);
        let error = if maybe_decided && !is_masked { self.undetermined(error) } else { error };
        self.fail(cx, error, keys)
    }

    /// Whether prewrites may have decided: not if there are keys that are certainly not locked.
    fn maybe_decided(&self, batches: &Sharded<PrewriteShard>) -> bool {
        let not_locked = || batches.any_unfinished(|batch| !batch.may_be_locked(), |mutation| !mutation.maybe_locked);
        self.mode.prewrites_decide() && self.failed_assertion.is_none() && !not_locked()
    }

    fn undetermined(&self, cause: Error) -> Error {
        if cause.is_undetermined() {
            return cause;
        }
        Error::Undetermined { start_ts: self.start_ts, primary: self.primary.clone(), cause: Box::new(cause) }
    }

    fn fetch_commit_ts(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(&mut FetchCommitTs, &mut Context<'_>) -> Poll<Result<Timestamp, Error>>,
    ) -> Poll<End> {
        let Phase::FetchingCommitTs(fetch) = &mut self.phase else { return Poll::Pending };
        match step(fetch, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(commit_ts)) => {
                if cx.config().has_canary(Canary::SecondariesBesidePrimary) {
                    let secondaries = self.locked_keys.iter().filter(|key| **key != self.primary).cloned().collect();
                    self.spawn_secondaries(cx, commit_ts, secondaries);
                }
                let mut commit = Box::new(CommitPrimary::new(
                    cx,
                    self.start_ts,
                    commit_ts,
                    self.primary.clone(),
                    Arc::clone(&self.locked_keys),
                    self.options.commit_ts,
                    self.options.foreground(),
                ));
                commit.begin_at(self.primary_region.take());
                self.phase = Phase::CommittingPrimary(commit);
                self.commit_primary(cx, CommitPrimary::start)
            }
            Poll::Ready(Err(error)) => {
                let keys = self.locked_keys.to_vec();
                self.fail(cx, error, keys)
            }
        }
    }

    fn commit_primary(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(&mut CommitPrimary, &mut Context<'_>) -> Poll<Result<PrimaryCommitted, Error>>,
    ) -> Poll<End> {
        let Phase::CommittingPrimary(commit) = &mut self.phase else { return Poll::Pending };
        match step(commit, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(PrimaryCommitted { commit_ts, secondaries })) => self.committed(cx, commit_ts, secondaries),
            Poll::Ready(Err(error)) => {
                let keys = self.locked_keys.to_vec();
                self.fail(cx, error, keys)
            }
        }
    }

    /// It is decided. `keys` still carry locks.
    fn committed(&mut self, cx: &mut Context<'_>, commit_ts: Timestamp, keys: Vec<Key>) -> Poll<End> {
        self.spawn_secondaries(cx, commit_ts, keys);
        self.stop_heartbeat(cx);
        let (commit_ts, mode) = (Some(commit_ts), self.decision.mode());
        self.done(Ok(CommitOutcome { commit_ts, mode, details: self.details }))
    }

    /// The only way to end with an error once something was sent. An outcome that is not known keeps its locks: to roll them
    /// back could undo a commit.
    fn fail(&mut self, cx: &mut Context<'_>, error: Error, keys: Vec<Key>) -> Poll<End> {
        let keys = self.keys_to_roll_back(keys);
        if !error.is_undetermined() || cx.config().has_canary(Canary::CleanupAfterUndetermined) {
            self.spawn_cleanup(cx, keys);
        }
        self.stop_heartbeat(cx);
        self.done(Err(error))
    }

    /// What a pessimistic transaction has locked is locked whether it was prewritten or not.
    fn keys_to_roll_back(&self, sent: Vec<Key>) -> Vec<Key> {
        if self.pessimistic.is_some() { self.locked_keys.to_vec() } else { sent }
    }

    fn spawn_secondaries(&self, cx: &mut Context<'_>, commit_ts: Timestamp, secondaries: Vec<Key>) {
        if secondaries.is_empty() {
            return;
        }
        if cx.config().has_canary(Canary::SecondariesRolledBack) {
            return self.spawn_cleanup(cx, secondaries);
        }
        let elsewhere = cx.config().has_canary(Canary::SecondariesAtAnotherTs);
        let commit_ts = if elsewhere { commit_ts.next() } else { commit_ts };
        let options = self.options.background();
        let secondaries = CommitSecondaries::new(cx, self.start_ts, commit_ts, &self.primary, secondaries, options);
        if let Some(secondaries) = secondaries {
            cx.spawn(secondaries);
        }
    }

    fn spawn_cleanup(&self, cx: &mut Context<'_>, keys: Vec<Key>) {
        let cleanup = Cleanup::new(cx, self.start_ts, self.primary.clone(), keys, self.options.upkeep());
        if let Some(cleanup) = cleanup {
            cx.spawn(cleanup);
        }
    }

    /// It locks no key any more but those that it commits, so that all others may go, whenever they were locked.
    fn release_doubtful_locks(&mut self, cx: &mut Context<'_>) {
        let Some(pessimistic) = &mut self.pessimistic else { return };
        let mut keys = std::mem::take(&mut pessimistic.in_doubt);
        keys.retain(|key| self.locked_keys.binary_search(key).is_err());
        if !keys.is_empty() {
            let upkeep = self.options.upkeep();
            cx.spawn(PessimisticRollback::new(self.start_ts, keys, Timestamp::MAX, upkeep).again(true));
        }
    }

    /// Nothing is locked if absences were all that was checked.
    fn start_heartbeat(&mut self, cx: &mut Context<'_>) {
        if !self.locked_keys.is_empty() {
            let heartbeat = self.heartbeat.get_or_insert_with(|| Box::new(FanOut::new(1)));
            heartbeat.add(Heartbeat::new(self.start_ts, self.primary.clone(), self.options.upkeep()));
            heartbeat.run(cx);
        }
    }

    fn stop_heartbeat(&mut self, cx: &mut Context<'_>) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.cancel_all(cx);
        }
    }

    fn on_primary_prewritten(&mut self, cx: &mut Context<'_>) {
        if self.heartbeat.as_ref().is_some_and(|heartbeat| !heartbeat.is_idle()) {
            self.beats_on = BeatsOn::Outdated;
            return;
        }
        self.beats_on = BeatsOn::Prewritten;
        let was_kept = self.pessimistic.as_ref().is_some_and(|pessimistic| pessimistic.primary_is_locked);
        if was_kept || self.size_bytes > cx.config().heartbeat_txn_bytes {
            self.start_heartbeat(cx);
        }
    }

    fn on_heartbeat_end(&mut self, cx: &mut Context<'_>, end: HeartbeatEnd) -> Poll<End> {
        let error = end.into_error(self.start_ts);
        let is_gone = matches!(error, Error::RolledBack { .. });
        if is_gone && self.beats_on == BeatsOn::Prewritten {
            return self.on_primary_lost(cx, error);
        }
        // The lock lives on for a while: perhaps long enough.
        cx.observe(Observation::BackgroundFailed { task: "heartbeat", error });
        if is_gone && self.beats_on == BeatsOn::Outdated {
            self.beats_on = BeatsOn::Prewritten;
            self.start_heartbeat(cx);
        }
        Poll::Pending
    }

    /// Once the primary is being committed, the answer to that will tell; before, there is nothing to wait for.
    fn on_primary_lost(&mut self, cx: &mut Context<'_>, error: Error) -> Poll<End> {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Prewriting(mut batches) if !self.mode.prewrites_decide() => {
                let keys = self.keys_sent(&batches);
                batches.cancel_all(cx);
                self.fail(cx, error, keys)
            }
            Phase::FetchingCommitTs(_) => {
                let keys = self.locked_keys.to_vec();
                self.fail(cx, error, keys)
            }
            phase => {
                self.phase = phase;
                Poll::Pending
            }
        }
    }

    /// The keys that may be locked: all but those of batches that have not been started.
    fn keys_sent(&self, batches: &Sharded<PrewriteShard>) -> Vec<Key> {
        let never_sent: BTreeSet<&[u8]> = batches.waiting().flat_map(PrewriteBatch::keys_never_sent).collect();
        self.locked_keys.iter().filter(|key| !never_sent.contains(key.as_slice())).cloned().collect()
    }

    fn done(&mut self, result: End) -> Poll<End> {
        self.phase = Phase::Ended;
        Poll::Ready(result)
    }
}

impl Machine for Commit {
    type Output = End;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Phase::Starting(mutations) = &mut self.phase else { return Poll::Pending };
        let mut mutations = std::mem::take(mutations);
        if cx.config().has_canary(Canary::LocksLeftOut) {
            mutations.retain(|mutation| mutation.op != Op::Lock || mutation.key == self.primary);
        }
        self.release_doubtful_locks(cx);
        if mutations.is_empty() {
            return self.done(Ok(CommitOutcome::default()));
        }
        self.mode = Mode::new(cx, &self.options, &mutations);
        if self.start_ts.is_zero() || self.start_ts == Timestamp::MAX {
            return self
                .done(Err(Error::InvalidArgument("a transaction cannot commit without a start_ts of PD".into())));
        }
        if self.pessimistic.as_ref().is_some_and(|pessimistic| pessimistic.primary_is_locked) {
            self.start_heartbeat(cx);
        }
        let backoff = route::budget(cx.config(), budget::PREWRITE);
        self.group(cx, mutations, backoff)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<End> {
        if let Some(heartbeat) = self.heartbeat.as_mut().filter(|heartbeat| heartbeat.waits_for(token)) {
            heartbeat.handle(cx, token, event);
            let end = heartbeat.next_finished(cx);
            return end.map_or(Poll::Pending, |(_, end)| self.on_heartbeat_end(cx, end));
        }
        // What is large stays where it is.
        match &mut self.phase {
            Phase::Prewriting(batches) => {
                batches.handle(cx, token, event);
                return self.on_prewrites(cx);
            }
            Phase::FetchingCommitTs(_) => {
                return self.fetch_commit_ts(cx, |fetch, cx| fetch.handle(cx, token, event));
            }
            Phase::CommittingPrimary(_) => {
                return self.commit_primary(cx, |commit, cx| commit.handle(cx, token, event));
            }
            _ => {}
        }
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Grouping(mut grouping) => match grouping.handle(cx, token, event) {
                Poll::Ready(grouped) => self.on_grouped(cx, grouped),
                Poll::Pending => {
                    self.phase = Phase::Grouping(grouping);
                    Poll::Pending
                }
            },
            Phase::Splitting { split, mutations, backoff } => {
                self.split(cx, split, mutations, backoff, |split, cx| split.handle(cx, token, event))
            }
            Phase::FetchingMinCommitTs { fetch, groups, backoff } => {
                self.fetch_min_commit_ts(cx, fetch, groups, backoff, |fetch, cx| fetch.handle(cx, token, event))
            }
            phase => {
                self.phase = phase;
                Poll::Pending
            }
        }
    }

    /// Before the first prewrite there is nothing to do. While nothing can have decided the transaction, it is rolled back.
    /// Once something can, it is finished.
    fn abandon(&mut self, cx: &mut Context<'_>) -> Abandoned {
        if cx.config().has_canary(Canary::AbandonedCommitGoesOn) {
            return Abandoned::FinishInBackground;
        }
        let keys = match &self.phase {
            Phase::Starting(_) | Phase::Ended => return Abandoned::Discard,
            Phase::Grouping(_) | Phase::Splitting { .. } | Phase::FetchingMinCommitTs { .. } => Vec::new(),
            Phase::Prewriting(batches) => {
                let keys = self.keys_sent(batches);
                if self.maybe_decided(batches) && !cx.config().has_canary(Canary::AbandonedAsyncCommitRolledBack) {
                    return Abandoned::FinishInBackground;
                }
                keys
            }
            Phase::FetchingCommitTs(_) => self.locked_keys.to_vec(),
            Phase::CommittingPrimary(_) => return Abandoned::FinishInBackground,
        };
        self.phase = Phase::Ended;
        self.spawn_cleanup(cx, self.keys_to_roll_back(keys));
        Abandoned::Discard
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
