//! Deliberate mistakes in the protocol, one at a time, to prove that the checkers of the simulation can see.
//!
//! A client makes one of them when its [`Config`](crate::config::Config) says so, for which there is a field with the feature
//! `canary` only. Nothing that is released has that feature; without it, the mistakes are not even compiled.

macro_rules! canaries {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Canary {
            $($(#[$doc])+ $variant,)+
        }

        impl Canary {
            /// Each of them.
            pub const ALL: &'static [Canary] = &[$(Canary::$variant),+];

            /// What it is called on command lines.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Canary::$variant => $name,)+
                }
            }
        }
    };
}

canaries! {
    /// What a transaction has locked is rolled back although its outcome is not known.
    CleanupAfterUndetermined = "cleanup-after-undetermined",
    /// Secondaries are committed beside the primary, not after it.
    SecondariesBesidePrimary = "secondaries-beside-primary",
    /// A commit that was not answered is reported as one that failed.
    UndeterminedMasked = "undetermined-masked",
    /// The commit begins when one batch is prewritten.
    CommitBeforeAllPrewritten = "commit-before-all-prewritten",
    /// A prewrite that meets a conflict counts as one that succeeded.
    ConflictsIgnored = "conflicts-ignored",
    /// One group of keys is never prewritten.
    LastGroupForgotten = "last-group-forgotten",
    /// The transaction commits right after its start, not at a timestamp of PD.
    CommitTsWithoutPd = "commit-ts-without-pd",
    /// A commit at a timestamp that readers were promised not to see counts as executed.
    CommitTsExpiredIgnored = "commit-ts-expired-ignored",
    /// Whatever TiKV says to the commit of a primary, it counts as executed.
    RefusedCommitAssumed = "refused-commit-assumed",
    /// Secondaries are committed at another timestamp than the primary.
    SecondariesAtAnotherTs = "secondaries-at-another-ts",
    /// Secondaries are rolled back when the primary is committed.
    SecondariesRolledBack = "secondaries-rolled-back",
    /// The owner of a transaction is told of the commit, and its answer does not matter.
    OwnerOverruled = "owner-overruled",
    /// A refused commit_ts is replaced without asking the owner again.
    OwnerAskedOnce = "owner-asked-once",
    /// An owner that loses interest before anything is decided gets its transaction committed.
    AbandonedCommitGoesOn = "abandoned-commit-goes-on",
    /// That TiKV refuses to let prewrites decide is not noticed.
    FallbackIgnored = "fallback-ignored",
    /// The first lock of an async commit tells its commit_ts, not the one with the largest.
    MinCommitTsIgnored = "min-commit-ts-ignored",
    /// The primary of an async commit does not name the other keys.
    SecondariesNotNamed = "secondaries-not-named",
    /// Each of several requests is asked to commit its keys in one phase.
    OnePhaseInParts = "one-phase-in-parts",
    /// A transaction that checks keys without a lock commits asynchronously.
    ChecksBesideAsyncCommit = "checks-beside-async-commit",
    /// An async commit takes no timestamp from PD although order in real time is asked for.
    RealTimeForgotten = "real-time-forgotten",
    /// A prewrite that was not answered is taken for one that failed, though it may have decided the transaction.
    UndeterminedPrewriteMasked = "undetermined-prewrite-masked",
    /// An owner that loses interest gets an async commit rolled back although all keys may be locked.
    AbandonedAsyncCommitRolledBack = "abandoned-async-commit-rolled-back",
    /// Keys that are to be absent are written all the same.
    AbsenceUnchecked = "absence-unchecked",
    /// Keys that are to be locked only are left out.
    LocksLeftOut = "locks-left-out",
    /// The last key that a pipelined transaction has flushed is not resolved.
    LastFlushedKeyForgotten = "last-flushed-key-forgotten",
    /// Every flush of a pipelined transaction says that it is the first.
    GenerationsNotCounted = "generations-not-counted",
    /// Each flush of a pipelined transaction chooses a primary of its own.
    PrimaryOfEachFlush = "primary-of-each-flush",
    /// A pipelined transaction does not see what it has flushed.
    FlushedReadsMissed = "flushed-reads-missed",
    /// Locks are judged as if they had expired, however young.
    LiveLocksExpired = "live-locks-expired",
    /// A transaction whose primary is not locked yet is rolled back, whatever the life of its other locks.
    UnlockedPrimaryRolledBack = "unlocked-primary-rolled-back",
    /// The locks of a live transaction are released as those of one that was rolled back.
    LiveTxnRolledBack = "live-txn-rolled-back",
    /// The locks of a live transaction are released as those of one that has committed.
    LiveTxnCommitted = "live-txn-committed",
    /// The locks of a transaction that was rolled back are released as those of one that has committed.
    RolledBackTxnCommitted = "rolled-back-txn-committed",
    /// That a transaction is alive is remembered as its being rolled back.
    LiveStatusRemembered = "live-status-remembered",
    /// Locks of committed transactions are released as those of ones that were rolled back.
    CommitStatusLost = "commit-status-lost",
    /// Readers pass the locks of live transactions that may still commit before them.
    ReadersPassLiveLocks = "readers-pass-live-locks",
    /// Readers take the values of locks whose transactions commit after them.
    ReadersSeeUncommitted = "readers-see-uncommitted",
    /// Reads see what is newest, not what was there at their timestamp.
    ReadsOfTheNewest = "reads-of-the-newest",
    /// Reads see what was there a little before their timestamp.
    ReadsOfThePast = "reads-of-the-past",
    /// A batch get takes locked keys for absent ones.
    BatchGetSkipsLocks = "batch-get-skips-locks",
    /// A scan leaves locked keys out.
    ScanSkipsLocks = "scan-skips-locks",
    /// A scan ends with the first region.
    ScanEndsWithRegion = "scan-ends-with-region",
    /// A scan of raw keys goes on behind the first key of the next region.
    RawScanSkipsRegionStart = "raw-scan-skips-region-start",
    /// A scan goes on behind the first key of the next region.
    ScanSkipsRegionStart = "scan-skips-region-start",
    /// Of a transaction that is asked about and still open it is said that it is rolled back.
    OpenTakenForRolledBack = "open-taken-for-rolled-back",
    /// Of the old locks of a region, the last one is not resolved.
    LastSweptLockForgotten = "last-swept-lock-forgotten",
    /// Keys whose region has changed are given up without a word.
    MovedKeysForgotten = "moved-keys-forgotten",
    /// Any timestamp that PD has ever given will do.
    StaleTimestamps = "stale-timestamps",
    /// A compare-and-swap is repeated although it may have been executed.
    SwapsRepeated = "swaps-repeated",
    /// The release of what a call has locked in vain takes later locks of the transaction along.
    LaterLocksReleased = "later-locks-released",
    /// Whatever TiKV says to a pessimistic lock, it counts as taken.
    LockResultIgnored = "lock-result-ignored",
    /// A lock that is in conflict is tried again at the same timestamp.
    ForUpdateTsNotRenewed = "for-update-ts-not-renewed",
    /// That a fair lock is of a newer version than was asked for is not noticed.
    FairConflictIgnored = "fair-conflict-ignored",
    /// Keys that are to be locked for the transaction alone are locked in share mode.
    SharedForExclusive = "shared-for-exclusive",
    /// Calls and back-offs take no notice of the deadline.
    DeadlinesIgnored = "deadlines-ignored",
}
