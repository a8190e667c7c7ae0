//! Why one backs off, and what follows from it.

use std::fmt;
use std::time::Duration;

use crate::rng::Rng;

/// How chance enters the length of a sleep. `e` below is `min(cap, base * 2^attempts)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Jitter {
    /// `e`: strictly exponential.
    None,
    /// `0..e`.
    Full,
    /// `e/2..e`: random, but never very short.
    Equal,
    /// `base..3 * previous sleep`, at most the cap: grows from what chance made of the previous sleep.
    Decorrelated,
}

/// What an operation has failed of when the sleeps of one kind have used up its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// A TiKV store did not answer.
    TikvServerTimeout,
    /// A TiFlash store did not answer.
    TiflashServerTimeout,
    /// PD did not answer.
    PdServerTimeout,
    /// Another transaction's lock could not be resolved or waited out.
    ResolveLockTimeout,
    /// No store would serve the region.
    RegionUnavailable,
    /// TiKV refused work.
    TikvServerBusy,
    /// TiFlash refused work.
    TiflashServerBusy,
    /// A TiKV store is out of disk.
    TikvDiskFull,
    /// The region is being recovered.
    RegionRecoveryInProgress,
    /// TiKV dropped the command in favour of a newer one.
    TikvStaleCommand,
    /// The region's leader does not yet know the newest timestamp.
    TikvMaxTimestampNotSynced,
    /// PD's timestamps stay behind the one that the commit must exceed.
    CommitTsLag,
    /// The peer has no data of the region yet.
    RegionNotInitialized,
    /// The peer is a witness, which has no data.
    IsWitness,
}

/// What is known of a kind: one row of the table below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// The name, as in client-go's logs and metrics.
    pub name: &'static str,
    /// First sleep (before jitter), in milliseconds.
    pub base_ms: u32,
    /// Longest sleep (before jitter), in milliseconds.
    pub cap_ms: u32,
    /// How chance enters.
    pub jitter: Jitter,
    /// What it means that the budget went into this kind.
    pub error: ErrorClass,
    /// Sleeps of this kind do not count against the budget until they add up to this much (and to the whole budget).
    pub excluded_up_to: Option<Duration>,
}

const NEVER: Option<Duration> = None;
const TEN_MINUTES: Option<Duration> = Some(Duration::from_secs(600));

macro_rules! kinds {
    ($(
        $(#[$doc:meta])*
        $kind:ident: $name:literal, $base:literal..=$cap:literal, $jitter:ident, $error:ident, $excluded:ident;
    )+) => {
        /// Why one backs off. Each kind has its own exponent; all share the budget.
        ///
        /// client-go: the `Bo…` variables of `config/retry/config.go`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum BackoffKind {
            $($(#[$doc])* $kind,)+
        }

        impl BackoffKind {
            /// Every kind, in the order of the enum.
            pub const ALL: &[BackoffKind] = &[$(BackoffKind::$kind),+];
            pub(super) const COUNT: usize = Self::ALL.len();

            /// What is known of this kind.
            #[must_use]
            pub const fn facts(self) -> &'static Facts {
                &FACTS[self as usize]
            }
        }

        const FACTS: [Facts; BackoffKind::COUNT] = [$(Facts {
            name: $name,
            base_ms: $base,
            cap_ms: $cap,
            jitter: Jitter::$jitter,
            error: ErrorClass::$error,
            excluded_up_to: $excluded,
        }),+];
    };
}

kinds! {
    /// A call to TiKV failed on its way.
    TikvRpc: "tikvRPC", 100..=2_000, Equal, TikvServerTimeout, NEVER;
    /// A call to TiFlash failed on its way.
    TiflashRpc: "tiflashRPC", 100..=2_000, Equal, TiflashServerTimeout, NEVER;
    /// A live lock of another transaction is in the way of a write.
    TxnLock: "txnLock", 100..=3_000, Equal, ResolveLockTimeout, NEVER;
    /// A live lock of another transaction is in the way of a read. The base is
    /// [`Tuning::lock_fast_base_ms`](super::Tuning::lock_fast_base_ms).
    TxnLockFast: "txnLockFast", 2..=3_000, Equal, ResolveLockTimeout, NEVER;
    /// A call to PD failed.
    PdRpc: "pdRPC", 500..=3_000, Equal, PdServerTimeout, NEVER;
    /// The region is not where it was thought to be. Usually mends soon.
    RegionMiss: "regionMiss", 2..=500, None, RegionUnavailable, NEVER;
    /// The region is being moved, split or merged, or elects a leader.
    RegionScheduling: "regionScheduling", 2..=500, None, RegionUnavailable, NEVER;
    /// TiKV refuses work. Not counted for ten minutes: the cluster is overloaded, not broken.
    TikvServerBusy: "tikvServerBusy", 2_000..=10_000, Equal, TikvServerBusy, TEN_MINUTES;
    /// TiFlash refuses work.
    TiflashServerBusy: "tiflashServerBusy", 2_000..=10_000, Equal, TiflashServerBusy, NEVER;
    /// A TiKV store is out of disk.
    TikvDiskFull: "tikvDiskFull", 500..=5_000, None, TikvDiskFull, NEVER;
    /// The region is being recovered.
    RegionRecoveryInProgress: "regionRecoveryInProgress", 100..=10_000, Equal, RegionRecoveryInProgress, NEVER;
    /// The primary of a lock is not there yet, though its transaction may still be alive.
    TxnNotFound: "txnNotFound", 2..=500, None, ResolveLockTimeout, NEVER;
    /// TiKV dropped the command in favour of a newer one, or a new term began.
    StaleCommand: "staleCommand", 2..=1_000, None, TikvStaleCommand, NEVER;
    /// The region's leader does not yet know the newest timestamp.
    MaxTsNotSynced: "maxTsNotSynced", 2..=500, None, TikvMaxTimestampNotSynced, NEVER;
    /// PD's timestamp has not passed the one that the commit must exceed.
    CommitTsLag: "commitTSLag", 2..=500, None, CommitTsLag, NEVER;
    /// The peer has no data of the region yet.
    RegionNotInitialized: "regionNotInitialized", 2..=1_000, None, RegionNotInitialized, NEVER;
    /// The peer is a witness, which has no data.
    IsWitness: "isWitness", 1_000..=10_000, Equal, IsWitness, NEVER;
}

impl fmt::Display for BackoffKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.facts().name)
    }
}

/// The sequence of sleeps of one kind, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Steps {
    attempts: u32,
    /// Only [`Jitter::Decorrelated`] looks back.
    last_ms: u32,
}

impl Steps {
    /// The next sleep, in milliseconds, and a step on.
    pub(super) fn next_ms(&mut self, base_ms: u32, cap_ms: u32, jitter: Jitter, rng: &mut Rng) -> u32 {
        // A base below 2 would leave nothing to roll dice for.
        let base = u64::from(base_ms.max(2));
        let cap = u64::from(cap_ms);
        let exponential = (base << self.attempts.min(32)).min(cap);
        let sleep = match jitter {
            Jitter::None => exponential,
            Jitter::Full => rng.below(exponential),
            Jitter::Equal => exponential / 2 + rng.below(exponential / 2),
            Jitter::Decorrelated => {
                let last = u64::from(self.last_ms).max(base);
                (base + rng.below(3 * last - base)).min(cap)
            }
        };
        // Every branch is at most the cap, or less than twice the base; both came from 32 bits.
        let sleep = u32::try_from(sleep).unwrap_or(u32::MAX);
        *self = Steps { attempts: self.attempts.saturating_add(1), last_ms: sleep };
        sleep
    }
}
