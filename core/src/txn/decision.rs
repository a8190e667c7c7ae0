//! Who decides a transaction: its primary, or its prewrites.
//!
//! | | committed when | commit_ts |
//! |---|---|---|
//! | two phases | the primary is committed | from PD, after the prewrites |
//! | async commit | all keys are locked | the largest `min_commit_ts` of the locks |
//! | one phase | the one request is executed | TiKV's answer to it |
//!
//! TiKV may refuse to let prewrites decide (they took longer than the safe window, so that the timestamp could be one that
//! the caller has ruled out): it leaves an ordinary lock then, and the primary decides. One such key is enough.
//!
//! What locks decide cannot depend on a key that is only checked and not locked: whoever finds all locks would commit the
//! transaction before that check is made, or although it has failed. Transactions with such a check commit in two phases.
//!
//! client-go: `checkAsyncCommit`, `checkOnePC`, `calculateMaxCommitTS`.

use tikv_proto::kvrpcpb::Op;

use super::prewrite::PrewriteTemplate;
use super::{CommitMode, CommitOptions, Mutation};
use crate::canary::Canary;
use crate::machine::Context;
use crate::time::{Time, whole_ms};
use crate::timestamp::Timestamp;

/// Whether prewrites may decide, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Mode {
    pub(super) async_commit: bool,
    pub(super) one_phase: bool,
}

impl Mode {
    /// What the options allow for these mutations.
    pub(super) fn new(cx: &Context<'_>, options: &CommitOptions, mutations: &[Mutation]) -> Self {
        let is_bounded = options.commit_ts.upper_bound != Timestamp::MAX;
        let shares_locks = mutations.iter().any(|mutation| mutation.op == Op::SharedLock);
        let checks = mutations.iter().any(|mutation| !mutation.leaves_lock());
        if is_bounded || shares_locks || (checks && !cx.config().has_canary(Canary::ChecksBesideAsyncCommit)) {
            return Mode::default();
        }
        let config = cx.config();
        let key_bytes: usize = mutations.iter().map(|mutation| mutation.key.len()).sum();
        let is_small =
            mutations.len() <= config.async_commit_max_keys && key_bytes <= config.async_commit_max_key_bytes;
        Mode { async_commit: options.async_commit && is_small, one_phase: options.one_phase_commit }
    }

    /// Whether a transaction may be committed by nothing but prewrites.
    pub(super) fn prewrites_decide(self) -> bool {
        self.async_commit || self.one_phase
    }

    /// What prewrites have to say for it. `after` is what the commit_ts must exceed; `started_at` when the transaction began;
    /// `asked_at` the time at which its owner has allowed it to commit, if that was asked.
    pub(super) fn fill_in(
        self,
        cx: &Context<'_>,
        template: &mut PrewriteTemplate,
        after: Timestamp,
        started_at: Time,
        asked_at: Option<Timestamp>,
    ) {
        let start_ts = Timestamp::from_version(template.start_version);
        let for_update_ts = Timestamp::from_version(template.for_update_ts);
        template.min_commit_ts = after.max(start_ts).max(for_update_ts).next().version();
        if self.prewrites_decide() {
            let elapsed = cx.now().saturating_since(started_at);
            let window = elapsed.saturating_add(cx.config().async_commit_safe_window);
            let allowed_until = asked_at.map(|asked_at| asked_at.saturating_add(cx.config().async_commit_safe_window));
            let max_commit_ts = start_ts.saturating_add(window).min(allowed_until.unwrap_or(Timestamp::MAX));
            template.max_commit_ts = max_commit_ts.version();
            if !for_update_ts.is_zero() {
                // A repeated request does not notice that the lock was resolved in between. If it was, then at a time beyond
                // this life, and what is prewritten anew gets a min_commit_ts beyond max_commit_ts.
                template.lock_ttl = template.lock_ttl.max(whole_ms(window).saturating_add(1));
            }
            template.use_async_commit = self.async_commit;
            template.try_one_pc = self.one_phase;
        }
    }
}

/// What the prewrite of a batch has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Verdict {
    /// The primary decides.
    Locked,
    /// Committed as soon as all other keys are locked as well, not before this timestamp.
    LockedToCommit(Timestamp),
    /// The whole transaction is committed.
    Committed(Timestamp),
}

/// What all prewrites so far come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Decision {
    /// A key was locked such that the primary decides.
    primary_decides: bool,
    min_commit_ts: Timestamp,
    committed: Option<Timestamp>,
}

impl Decision {
    pub(super) fn add(&mut self, cx: &Context<'_>, verdict: Verdict) {
        match verdict {
            Verdict::Locked => self.primary_decides |= !cx.config().has_canary(Canary::FallbackIgnored),
            Verdict::LockedToCommit(_)
                if cx.config().has_canary(Canary::MinCommitTsIgnored) && !self.min_commit_ts.is_zero() => {}
            Verdict::LockedToCommit(min_commit_ts) => self.min_commit_ts = self.min_commit_ts.max(min_commit_ts),
            Verdict::Committed(commit_ts) => self.committed = Some(commit_ts),
        }
    }

    /// Whether the transaction is committed on all its keys.
    pub(super) fn is_complete(&self) -> bool {
        self.committed.is_some()
    }

    /// Who has decided, if all keys are prewritten, and the primary is committed where that decides.
    pub(super) fn mode(&self) -> CommitMode {
        match self.commit_ts() {
            None => CommitMode::TwoPhases,
            Some(_) if self.is_complete() => CommitMode::OnePhase,
            Some(_) => CommitMode::AsyncCommit,
        }
    }

    /// When the transaction committed, if all its keys are prewritten; `None` if its primary decides.
    pub(super) fn commit_ts(&self) -> Option<Timestamp> {
        let calculated = (!self.primary_decides && !self.min_commit_ts.is_zero()).then_some(self.min_commit_ts);
        self.committed.or(calculated)
    }
}
