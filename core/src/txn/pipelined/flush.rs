//! Flushes one generation of a pipelined transaction.
//!
//! ```text
//!                paused               looked                 all batches flushed
//!  start ──► Throttling ──► CheckingInserts ──► Flushing ────────────────────────► flushed
//!    │          │ nothing to look for ▲            ▲ │
//!    ├──────────┼─────────────────────┘            │ │ refused
//!    ├──────────┴──────────────────────────────────┤ └──────────────────────────► failed
//!    │ the primary is not locked yet               │ it is
//!    └──────────► Grouping ──► FlushingPrimary ────┘
//! ```
//!
//! - The batch of the primary goes first, unless an earlier generation has locked it: whoever meets a lock of the transaction
//!   can find out then that it is alive, and a reader need not wait for it. Here client-go differs.
//! - All other batches go side by side. The first that fails ends the flush; a failed assertion counts less than any other error,
//!   because it may be a mere consequence of a conflict. Nothing has to be cleaned up here: what was flushed lies in the range
//!   of the transaction, which its owner gives up ([`FinishFlushed`](super::FinishFlushed)).
//! - A key that was deleted in an earlier generation may be inserted again, though TiKV, which looks at what is committed,
//!   would say that it exists. If the transaction has flushed deletions, inserted keys are looked up among them first.
//! - As soon as the primary is locked a [heartbeat](crate::txn::Heartbeat) keeps the transaction alive, here until the flush
//!   has ended, then beside the transaction.
//!
//! client-go: the flush function of `KVTxn.InitPipelinedMemDB`.

use std::collections::BTreeMap;
use std::task::Poll;
use std::time::Duration;

use tikv_proto::kvrpcpb::{FlushRequest, Op};

use super::flush_batch::FlushShard;
use super::own_read::{BufferShard, answered};
use crate::backoff::{Backoff, budget};
use crate::canary::Canary;
use crate::config::Config;
use crate::error::Error;
use crate::key::Key;
use crate::machine::{Context, CurrentPhase, Event, FanOut, Machine, SleepReason, Token, phases};
use crate::request::Shared;
use crate::route::{self, Group, Grouped, Grouping, Sharded};
use crate::time::{Time, whole_ms};
use crate::timestamp::Timestamp;
use crate::txn::batches::primary_first;
use crate::txn::{Buffered, CommitOptions, Heartbeat, Mutation};

/// What is to be flushed at once. Made by [`PipelinedTransaction::begin_flush`](super::PipelinedTransaction::begin_flush).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Generation {
    pub(super) start_ts: Timestamp,
    /// When the transaction began, on the caller's clock.
    pub(super) started_at: Time,
    /// From 1.
    pub(super) number: u64,
    /// The key whose state decides.
    pub(super) primary: Key,
    /// Whether the primary is locked by this flush.
    pub(super) locks_primary: bool,
    /// Sorted by key; each key once.
    pub(super) mutations: Vec<Mutation>,
    /// Whether an earlier generation has deleted keys.
    pub(super) deleted_before: bool,
    /// How long to stand still first.
    pub(super) pause: Duration,
    /// Requests in flight at once.
    pub(super) concurrency: usize,
    pub(super) options: CommitOptions,
}

/// A generation is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flushed {
    /// When the lock of the primary has to be extended next, if this flush has locked it.
    pub next_beat: Option<Time>,
    /// How long it took, without the pause before.
    pub(super) duration: Duration,
}

/// Flushes one generation; see the [module documentation](self). Its end goes to
/// [`PipelinedTransaction::end_flush`](super::PipelinedTransaction::end_flush).
///
/// Whatever it fails with, the transaction has not committed and never will. Abandoned, it stops where it is: the transaction
/// must be given up then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flush {
    generation: Generation,
    began: Time,
    failed_assertion: Option<Error>,
    /// At most one.
    heartbeat: FanOut<Heartbeat>,
    next_beat: Option<Time>,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Throttling,
    CheckingInserts(Sharded<BufferShard>),
    /// Finds out which batch is the primary's.
    Grouping(Grouping<Mutation>, Sharded<FlushShard>),
    /// The other batches wait for the primary's.
    FlushingPrimary(Sharded<FlushShard>, Waiting),
    Flushing(Sharded<FlushShard>),
}

/// Batches that wait, and the budget of each.
type Waiting = (Vec<Group<Mutation>>, Backoff);

phases! {
    Flush: Phase;
    start => Throttling | CheckingInserts | Grouping | FlushingPrimary | Flushing | done;
    Throttling => CheckingInserts | Grouping | FlushingPrimary | Flushing | done;
    CheckingInserts => Flushing | done;
    Grouping => FlushingPrimary | done;
    FlushingPrimary => Flushing | done;
    Flushing => done;
}

type End = Result<Flushed, Error>;

impl Generation {
    /// Its number; the first is 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The key whose state decides.
    #[must_use]
    pub fn primary(&self) -> &Key {
        &self.primary
    }

    /// What it writes, in the order of the keys.
    #[must_use]
    pub fn mutations(&self) -> &[Mutation] {
        &self.mutations
    }
}

impl Flush {
    /// Flushes `generation`.
    #[must_use]
    pub fn new(generation: Generation) -> Self {
        Flush {
            generation,
            began: Time::ZERO,
            failed_assertion: None,
            heartbeat: FanOut::new(1),
            next_beat: None,
            phase: Phase::Idle,
        }
    }

    /// Looks up inserted keys that an earlier generation may have deleted.
    fn check_inserts(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.began = cx.now();
        let inserted = self.generation.mutations.iter().filter(|mutation| must_be_absent(mutation));
        let keys: Vec<Key> = inserted.map(|mutation| mutation.key.clone()).collect();
        if !self.generation.deleted_before || keys.is_empty() {
            return self.flush(cx);
        }
        let config = cx.config();
        let options = self.generation.options.foreground();
        let shard = BufferShard::new(self.generation.start_ts, options, config.batch_get_size);
        let mut shares = Sharded::new(shard, self.generation.concurrency);
        shares.add_known(cx, keys, route::budget(config, budget::BATCH_GET), false);
        shares.run(cx);
        self.on_lookups(cx, shares, BTreeMap::new())
    }

    fn on_lookups(
        &mut self,
        cx: &mut Context<'_>,
        mut shares: Sharded<BufferShard>,
        mut flushed: BTreeMap<Key, Buffered>,
    ) -> Poll<End> {
        while let Some(end) = shares.next_finished(cx) {
            match end.map_err(|unlocated| unlocated.error).and_then(answered) {
                Ok(answers) => flushed.extend(answers),
                Err(error) => {
                    shares.cancel_all(cx);
                    return self.done(cx, Err(error));
                }
            }
        }
        self.settle_inserts(&flushed);
        if !shares.is_idle() {
            self.phase = Phase::CheckingInserts(shares);
            return Poll::Pending;
        }
        self.flush(cx)
    }

    /// A key that the transaction has deleted is absent. If it is deleted again, there is nothing left to do.
    fn settle_inserts(&mut self, flushed: &BTreeMap<Key, Buffered>) {
        let is_deleted = |key: &Key| flushed.get(key) == Some(&Buffered::Deleted);
        let mutations = &mut self.generation.mutations;
        mutations.retain(|mutation| mutation.op != Op::CheckNotExists || !is_deleted(&mutation.key));
        let inserted = mutations.iter_mut().filter(|mutation| mutation.op == Op::Insert);
        inserted.filter(|mutation| is_deleted(&mutation.key)).for_each(|mutation| mutation.op = Op::Put);
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mutations = std::mem::take(&mut self.generation.mutations);
        let budget = route::budget(cx.config(), budget::FLUSH);
        let shard = FlushShard {
            request: Shared::new(self.request(cx, &mutations)),
            options: self.generation.options.foreground(),
            on_lock: self.generation.options.on_lock,
            batch_bytes: cx.config().txn_batch_bytes,
        };
        let mut batches = Sharded::new(shard, self.generation.concurrency);
        if self.generation.locks_primary {
            let grouping = Grouping::new(mutations, budget).with_deadline(self.generation.options.call.deadline);
            return self.group(cx, grouping, batches, Grouping::start);
        }
        batches.add_known(cx, mutations, budget, false);
        batches.run(cx);
        self.on_batches(cx, batches, None)
    }

    fn group(
        &mut self,
        cx: &mut Context<'_>,
        mut grouping: Grouping<Mutation>,
        mut batches: Sharded<FlushShard>,
        step: impl FnOnce(&mut Grouping<Mutation>, &mut Context<'_>) -> Poll<Grouped<Mutation>>,
    ) -> Poll<End> {
        let Poll::Ready(grouped) = step(&mut grouping, cx) else {
            self.phase = Phase::Grouping(grouping, batches);
            return Poll::Pending;
        };
        let groups = match grouped.result {
            Ok(groups) => groups,
            Err(unlocated) => return self.done(cx, Err(unlocated.error)),
        };
        let mut waiting = primary_first(groups, &self.generation.primary, batches.shard());
        for first in waiting.drain(..waiting.len().min(1)) {
            batches.add_group(cx, first, &grouped.backoff, false);
        }
        batches.run(cx);
        self.on_batches(cx, batches, Some((waiting, grouped.backoff)))
    }

    /// The request without mutations.
    fn request(&self, cx: &Context<'_>, mutations: &[Mutation]) -> FlushRequest {
        let Generation { start_ts, started_at, number, primary, .. } = &self.generation;
        let config = cx.config();
        let own_primary = mutations.first().filter(|_| config.has_canary(Canary::PrimaryOfEachFlush));
        let is_stuck = config.has_canary(Canary::GenerationsNotCounted);
        FlushRequest {
            primary_key: own_primary.map_or(primary, |mutation| &mutation.key).to_bytes(),
            start_ts: start_ts.version(),
            min_commit_ts: start_ts.next().version(),
            generation: if is_stuck { 1 } else { *number },
            lock_ttl: lock_ttl_ms(config, cx.now().saturating_since(*started_at)),
            assertion_level: self.generation.options.assertion_level.into(),
            ..FlushRequest::default()
        }
    }

    fn on_batches(
        &mut self,
        cx: &mut Context<'_>,
        mut batches: Sharded<FlushShard>,
        mut waiting: Option<Waiting>,
    ) -> Poll<End> {
        loop {
            while let Some(end) = batches.next_finished(cx) {
                match end.map_err(|unlocated| unlocated.error).and_then(|end| end) {
                    Ok(has_primary) => {
                        if has_primary && self.generation.locks_primary {
                            self.start_heartbeat(cx);
                        }
                    }
                    Err(error @ Error::AssertionFailed(_)) => {
                        self.failed_assertion.get_or_insert(error);
                    }
                    Err(error) => {
                        batches.cancel_all(cx);
                        return self.done(cx, Err(error));
                    }
                }
            }
            if !batches.is_idle() {
                self.phase = match waiting {
                    Some(waiting) => Phase::FlushingPrimary(batches, waiting),
                    None => Phase::Flushing(batches),
                };
                return Poll::Pending;
            }
            let Some((groups, backoff)) = waiting.take() else { break };
            for group in groups {
                batches.add_group(cx, group, &backoff, false);
            }
            batches.run(cx);
        }
        match self.failed_assertion.take() {
            Some(error) => self.done(cx, Err(error)),
            None => {
                let duration = cx.now().saturating_since(self.began);
                self.done(cx, Ok(Flushed { next_beat: self.next_beat, duration }))
            }
        }
    }

    fn start_heartbeat(&mut self, cx: &mut Context<'_>) {
        let Generation { start_ts, primary, options, .. } = &self.generation;
        let heartbeat = Heartbeat::new(*start_ts, primary.clone(), options.upkeep());
        self.next_beat = Some(cx.now() + Heartbeat::interval(cx.config()));
        self.heartbeat.add(heartbeat.of_pipelined(true));
        self.heartbeat.run(cx);
    }

    /// Without its primary the transaction can never commit.
    fn on_beat(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Some((_, end)) = self.heartbeat.next_finished(cx) else {
            let is_beating = self.heartbeat.running().any(|(_, heartbeat)| heartbeat.is_beating());
            let pause = if is_beating { Duration::ZERO } else { Heartbeat::interval(cx.config()) };
            self.next_beat = Some(cx.now() + pause);
            return Poll::Pending;
        };
        if let Phase::FlushingPrimary(batches, _) | Phase::Flushing(batches) = &mut self.phase {
            batches.cancel_all(cx);
        }
        let error = end.into_error(self.generation.start_ts);
        self.done(cx, Err(error))
    }

    fn done(&mut self, cx: &mut Context<'_>, end: End) -> Poll<End> {
        self.heartbeat.cancel_all(cx);
        self.phase = Phase::Idle;
        Poll::Ready(end)
    }
}

impl Machine for Flush {
    type Output = End;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.generation.pause.is_zero() {
            return self.check_inserts(cx);
        }
        // Who may not stand still for so long hears so in time: the requests are then too late.
        let left = self.generation.options.call.deadline.saturating_since(cx.now());
        cx.sleep(self.generation.pause.min(left), SleepReason::WriteThrottle);
        self.phase = Phase::Throttling;
        Poll::Pending
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<End> {
        if self.heartbeat.waits_for(token) {
            self.heartbeat.handle(cx, token, event);
            return self.on_beat(cx);
        }
        match (std::mem::replace(&mut self.phase, Phase::Idle), event) {
            (Phase::Throttling, Event::Woken) => self.check_inserts(cx),
            (Phase::CheckingInserts(mut shares), event) => {
                shares.handle(cx, token, event);
                self.on_lookups(cx, shares, BTreeMap::new())
            }
            (Phase::Grouping(grouping, batches), event) => {
                self.group(cx, grouping, batches, |grouping, cx| grouping.handle(cx, token, event))
            }
            (Phase::FlushingPrimary(mut batches, waiting), event) => {
                batches.handle(cx, token, event);
                self.on_batches(cx, batches, Some(waiting))
            }
            (Phase::Flushing(mut batches), event) => {
                batches.handle(cx, token, event);
                self.on_batches(cx, batches, None)
            }
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

fn must_be_absent(mutation: &Mutation) -> bool {
    matches!(mutation.op, Op::Insert | Op::CheckNotExists)
}

/// A lock's life counts from the beginning of its transaction.
fn lock_ttl_ms(config: &Config, elapsed: Duration) -> u64 {
    whole_ms(config.managed_lock_ttl.max(config.lock_ttl).saturating_add(elapsed))
}
