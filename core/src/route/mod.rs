//! From a key to the replica that answers for it.
//!
//! - [`Locate`] finds the region of a key: known, or loaded from PD together with the stores it lives on.
//! - [`Selector`] chooses the replica for the next attempt.
//! - [`RegionCall`] is one RPC to one region until it is answered, however often it has to be sent.
//! - [`Grouping`] sorts many keys by region; [`Sharded`] runs a child machine for each group and, when a region turns out
//!   to have split, groups that child's keys anew.
//! - [`RangeWalk`] visits the regions of a range one after the other.
//!
//! client-go: `internal/locate`.

mod grouping;
mod locate;
mod range_walk;
mod region_call;
mod region_error;
mod selector;
mod shard_call;
mod sharded;
#[cfg(test)]
mod tests;
mod usable_region;

use std::time::Duration;

pub(crate) use grouping::InOrder;
pub use grouping::{Group, Grouped, Grouping, Keyed, Unlocated};
pub use locate::{Locate, Located, Place};
pub use range_walk::{RangeVisit, RangeWalk};
pub use region_call::{CallEnd, CallError, RegionCall};
pub use region_error::RegionErrorKind;
pub use selector::{Choice, LeaderHint, Next, Selector};
pub use shard_call::{ShardCall, ShardReply};
pub use sharded::{Shard, ShardEnd, Sharded};
pub(crate) use sharded::{divide, is_batch};

use crate::backoff::{Backoff, Tuning};
use crate::config::Config;
use crate::machine::Phases;
use crate::request::{CallContext, RequestContext};
use crate::time::Time;

/// The machines of this floor that have phases.
pub(crate) const PHASES: &[&Phases] = &[&range_walk::PHASES, &region_call::PHASES, &locate::PHASES];

/// How the RPCs of one operation are sent. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallOptions {
    /// Time limit of one RPC.
    pub timeout: Duration,
    /// When the operation as a whole must be over; [`Time::MAX`] for no limit but its budget of retries.
    pub deadline: Time,
    /// The context of every request, but for region, epoch and peer, which routing fills in.
    pub context: CallContext,
}

impl CallOptions {
    /// The defaults for calls that read or write a few keys.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        CallOptions { timeout: config.call_timeout, deadline: Time::MAX, context: CallContext::default() }
    }

    /// The same with the time limit for calls that scan or read many keys.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same, but the operation as a whole must be over at `deadline`.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Time) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same with another context. Fields of [`CallContext`] are cheaper to set there.
    #[must_use]
    pub fn with_context(mut self, update: impl FnOnce(&mut RequestContext)) -> Self {
        self.context = self.context.updated(update);
        self
    }
}

/// A budget of retries, weighted as the configuration says.
#[must_use]
pub fn budget(config: &Config, max_sleep: Duration) -> Backoff {
    Backoff::weighted(max_sleep, Tuning { weight: config.backoff_weight, ..Tuning::default() })
}
