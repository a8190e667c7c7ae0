//! Commits the primary: the point at which a transaction is decided.
//!
//! ```text
//!             located                 accepted, or refused for good
//!   start ──► Locating ──► Calling ──────────────────────────────────► done
//!                ▲          │ ▲ │ the timestamp is below what readers were promised
//!                │ moved    │ │ ▼
//!                └──────────┘ └─ FetchingCommitTs ◄──► BackingOff
//! ```
//!
//! The first request that leaves may decide the transaction. From then on only TiKV's answer to a request tells whether it
//! did. An attempt without an answer that may have been executed is remembered, across changes of regions, until a later
//! attempt is answered: as the commit is idempotent, that answer (be it a refusal) holds for all attempts before it. A
//! region error answers nothing, because it says only that *this* attempt was not executed. If no answer comes, the outcome is
//! [undetermined](Error::Undetermined).
//!
//! client-go: `actionCommit.handleSingleBatch` for the primary batch.

use std::sync::Arc;
use std::task::Poll;

use tikv_proto::kvrpcpb::{CommitRequest, CommitResponse, CommitRole};

use super::commit_ts::FetchCommitTs;
use super::{CommitTsRules, refusal};
use crate::backoff::{Backoff, BackoffKind, budget};
use crate::canary::Canary;
use crate::error::{Error, KeyError};
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::machine::{Context, CurrentPhase, Event, Machine, SleepReason, Token, phases};
use crate::route::{self, CallEnd, CallError, CallOptions, Locate, Located, Place, RegionCall};
use crate::timestamp::{LOGICAL_BITS, Timestamp};

/// How far the least timestamp that TiKV accepts may lie above the one it refused. Farther off, somebody reads at timestamps
/// that PD never gave. One hour.
const MAX_MIN_COMMIT_TS_LEAD: u64 = (60 * 60 * 1000) << LOGICAL_BITS;
/// Timestamps refused, and changes of regions, that are met without a back-off.
const REPEATS_WITHOUT_BACKOFF: u32 = 8;

/// The primary is committed, and so is the transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PrimaryCommitted {
    pub(super) commit_ts: Timestamp,
    /// The keys that were not in the same request.
    pub(super) secondaries: Vec<Key>,
}

/// Commits the primary and what else fits into its request; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CommitPrimary {
    start_ts: Timestamp,
    commit_ts: Timestamp,
    primary: Key,
    /// All keys to commit, in order, the primary among them.
    keys: Arc<[Key]>,
    /// How many keys, from the primary on, are in the request.
    in_request: usize,
    rules: CommitTsRules,
    options: CallOptions,
    /// Where the primary is, if that was just seen.
    region: Option<Arc<Region>>,
    /// What is left of the budget, while no part has it.
    backoff: Backoff,
    /// Whether an attempt that was not answered may have been executed.
    maybe_executed: bool,
    attempts: u32,
    repeats: u32,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Locating(Box<Locate>),
    Calling(RegionCall<CommitRequest>),
    FetchingCommitTs(FetchCommitTs),
    BackingOff(AfterSleep),
}

phases! {
    CommitPrimary: Phase;
    start => Locating | Calling | done;
    Locating => Calling | done;
    Calling => Locating | FetchingCommitTs | BackingOff | done;
    FetchingCommitTs => Locating | Calling | done;
    BackingOff => Locating | FetchingCommitTs | Calling | done;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum AfterSleep {
    Locate,
    FetchCommitTs { min_commit_ts: Timestamp },
}

type End = Result<PrimaryCommitted, Error>;

impl CommitPrimary {
    /// Commits `primary`, one of the sorted `keys`, at `commit_ts`.
    pub(super) fn new(
        cx: &Context<'_>,
        start_ts: Timestamp,
        commit_ts: Timestamp,
        primary: Key,
        keys: Arc<[Key]>,
        rules: CommitTsRules,
        options: CallOptions,
    ) -> Self {
        CommitPrimary {
            start_ts,
            commit_ts,
            primary,
            keys,
            in_request: 0,
            rules,
            options,
            region: None,
            backoff: route::budget(cx.config(), budget::COMMIT),
            maybe_executed: false,
            attempts: 0,
            repeats: 0,
            phase: Phase::Idle,
        }
    }

    /// Has it begin at the region whose leader has just prewritten the primary, if it is known: to look for it again would
    /// mostly find the same.
    pub(super) fn begin_at(&mut self, region: Option<Arc<Region>>) {
        self.region = region;
    }

    fn locate(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(region) = self.region.take() {
            return self.call(cx, &region);
        }
        if let Some(region) = cx.knowledge().regions.lookup(cx.now(), self.primary.as_slice()) {
            return self.call(cx, &region);
        }
        let locate = Locate::new(Place::Of(self.primary.clone()), self.backoff.take());
        let mut locate = Box::new(locate.with_deadline(self.options.deadline));
        match locate.start(cx) {
            Poll::Ready(located) => self.on_located(cx, located),
            Poll::Pending => {
                self.phase = Phase::Locating(locate);
                Poll::Pending
            }
        }
    }

    fn on_located(&mut self, cx: &mut Context<'_>, located: Located) -> Poll<End> {
        self.backoff = located.backoff;
        match located.result {
            Ok(region) => self.call(cx, &region),
            Err(error) => self.fail(error),
        }
    }

    fn call(&mut self, cx: &mut Context<'_>, region: &Arc<Region>) -> Poll<End> {
        let batch = self.batch(region, cx.config().txn_batch_bytes);
        let request = CommitRequest {
            start_version: self.start_ts.version(),
            commit_version: self.commit_ts.version(),
            keys: batch.iter().map(Key::to_bytes).collect(),
            primary_key: self.primary.to_bytes(),
            commit_role: CommitRole::Primary.into(),
            ..CommitRequest::default()
        };
        self.in_request = batch.len();
        let backoff = self.backoff.take();
        let call = RegionCall::to_region(Arc::clone(region), request, self.options.clone(), backoff);
        self.phase = Phase::Calling(call.as_retry(self.attempts > 0).fresh(true));
        self.step(cx, RegionCall::start)
    }

    fn step(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(&mut RegionCall<CommitRequest>, &mut Context<'_>) -> Poll<CallEnd<CommitResponse>>,
    ) -> Poll<End> {
        let Phase::Calling(call) = &mut self.phase else { return Poll::Pending };
        match step(call, cx) {
            Poll::Ready(end) => self.on_end(cx, end),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The primary and the keys after it in its region, as many as make a batch.
    fn batch(&self, region: &Region, batch_bytes: usize) -> &[Key] {
        let (from, mut to, mut bytes) = (self.primary_index(), self.primary_index(), 0);
        while to < self.keys.len() && bytes < batch_bytes {
            let key = &self.keys[to];
            if to > from && !region.range.contains(key.as_slice()) {
                break;
            }
            bytes += key.len();
            to += 1;
        }
        &self.keys[from..to]
    }

    fn primary_index(&self) -> usize {
        self.keys.partition_point(|key| *key < self.primary)
    }

    fn on_end(&mut self, cx: &mut Context<'_>, end: CallEnd<CommitResponse>) -> Poll<End> {
        self.attempts += end.attempts;
        self.maybe_executed |= end.maybe_executed;
        if cx.config().has_canary(Canary::UndeterminedMasked) {
            self.maybe_executed = false;
        }
        self.backoff = end.backoff.clone();
        let moved = matches!(end.result, Err(CallError::Relocate(_)));
        match end.into_result("Commit") {
            Ok(response) => self.on_answer(cx, response),
            Err(error) if moved => self.repeat(cx, BackoffKind::RegionMiss, AfterSleep::Locate, error),
            Err(error) => self.fail(error),
        }
    }

    /// An answer to the last attempt holds for every earlier one.
    fn on_answer(&mut self, cx: &mut Context<'_>, response: CommitResponse) -> Poll<End> {
        self.maybe_executed = false;
        let Some(error) = refusal::key_error(response.error) else { return self.committed() };
        let is_assumed = match error {
            KeyError::CommitTsExpired { .. } => cx.config().has_canary(Canary::CommitTsExpiredIgnored),
            _ => cx.config().has_canary(Canary::RefusedCommitAssumed),
        };
        if is_assumed {
            return self.committed();
        }
        if let KeyError::CommitTsExpired { key, min_commit_ts, .. } = &error {
            let lead = min_commit_ts.version().saturating_sub(self.commit_ts.version());
            if *key == self.primary && lead <= MAX_MIN_COMMIT_TS_LEAD {
                let then = AfterSleep::FetchCommitTs { min_commit_ts: *min_commit_ts };
                return self.repeat(cx, BackoffKind::CommitTsLag, then, Error::Key(error));
            }
        }
        self.fail(refusal::of_commit(self.start_ts, &self.primary, error))
    }

    /// Tries again in another way; at once, unless this has happened too often.
    fn repeat(&mut self, cx: &mut Context<'_>, kind: BackoffKind, then: AfterSleep, error: Error) -> Poll<End> {
        self.repeats += 1;
        if self.repeats <= REPEATS_WITHOUT_BACKOFF {
            return self.after_sleep(cx, then);
        }
        let Ok(sleep) = self.backoff.next(kind, cx.rng()) else { return self.fail(error) };
        let sleep = sleep.min(self.options.deadline.saturating_since(cx.now()));
        cx.sleep(sleep, SleepReason::Backoff(kind));
        self.phase = Phase::BackingOff(then);
        Poll::Pending
    }

    fn after_sleep(&mut self, cx: &mut Context<'_>, then: AfterSleep) -> Poll<End> {
        match then {
            AfterSleep::Locate => self.locate(cx),
            AfterSleep::FetchCommitTs { min_commit_ts } => {
                let ask_owner = self.rules.ask_owner && !cx.config().has_canary(Canary::OwnerAskedOnce);
                let rules = CommitTsRules { ask_owner, ..self.rules };
                let fetch = FetchCommitTs::new(self.start_ts, rules, self.options.deadline);
                let fetch = fetch.at_least(min_commit_ts);
                self.fetch_commit_ts(cx, fetch, FetchCommitTs::start)
            }
        }
    }

    fn fetch_commit_ts(
        &mut self,
        cx: &mut Context<'_>,
        mut fetch: FetchCommitTs,
        step: impl FnOnce(&mut FetchCommitTs, &mut Context<'_>) -> Poll<Result<Timestamp, Error>>,
    ) -> Poll<End> {
        match step(&mut fetch, cx) {
            Poll::Ready(Ok(commit_ts)) => {
                self.commit_ts = commit_ts;
                self.locate(cx)
            }
            Poll::Ready(Err(error)) => self.fail(error),
            Poll::Pending => {
                self.phase = Phase::FetchingCommitTs(fetch);
                Poll::Pending
            }
        }
    }

    fn committed(&mut self) -> Poll<End> {
        let (before, rest) = self.keys.split_at(self.primary_index());
        let after = rest.get(self.in_request..).unwrap_or_default();
        let secondaries = before.iter().chain(after).cloned().collect();
        Poll::Ready(Ok(PrimaryCommitted { commit_ts: self.commit_ts, secondaries }))
    }

    /// The only way to end without success. What may have been executed stays so, whatever came after it.
    fn fail(&mut self, error: Error) -> Poll<End> {
        if !self.maybe_executed {
            return Poll::Ready(Err(error));
        }
        let (start_ts, primary) = (self.start_ts, self.primary.clone());
        Poll::Ready(Err(Error::Undetermined { start_ts, primary, cause: Box::new(error) }))
    }
}

impl Machine for CommitPrimary {
    type Output = End;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.locate(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<End> {
        // What is as large as a call stays where it is.
        if let Phase::Calling(_) = self.phase {
            return self.step(cx, |call, cx| call.handle(cx, token, event));
        }
        match (std::mem::replace(&mut self.phase, Phase::Idle), event) {
            (Phase::Locating(mut locate), event) => match locate.handle(cx, token, event) {
                Poll::Ready(located) => self.on_located(cx, located),
                Poll::Pending => {
                    self.phase = Phase::Locating(locate);
                    Poll::Pending
                }
            },
            (Phase::FetchingCommitTs(fetch), event) => {
                self.fetch_commit_ts(cx, fetch, |fetch, cx| fetch.handle(cx, token, event))
            }
            (Phase::BackingOff(then), Event::Woken) => self.after_sleep(cx, then),
            (phase, _) => {
                self.phase = phase;
                Poll::Pending
            }
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
