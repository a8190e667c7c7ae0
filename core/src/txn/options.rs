//! How a transaction commits.

use std::time::Duration;

pub use tikv_proto::kvrpcpb::{AssertionLevel, CommandPri, DiskFullOpt};

use crate::config::Config;
use crate::route::CallOptions;
use crate::time::{Time, whole_ms};
use crate::timestamp::Timestamp;

/// How a transaction commits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommitOptions {
    /// How RPCs are sent. A deadline holds until the commit is decided; what runs in the background has only its budget.
    pub call: CallOptions,
    /// How TiKV ranks the requests. Default: normal. client-go: `SetPriority`.
    pub priority: CommandPri,
    /// Whether to write when TiKV's disk is (almost) full. Default: no. client-go: `SetDiskFullOpt`.
    pub disk_full: DiskFullOpt,
    /// Where the transaction comes from, for change data capture. Default 0. client-go: `SetTxnSource`.
    pub txn_source: u64,
    /// Asks TiKV to sync its log for every write. Default: no. client-go: `EnableForceSyncLog`.
    pub sync_log: bool,
    /// How thoroughly TiKV checks assertions. Default: off. client-go: `SetAssertionLevel`.
    pub assertion_level: AssertionLevel,
    /// What to do about locks of others. Default: resolve them. client-go: `SetPrewriteEncounterLockPolicy`.
    pub on_lock: OnLock,
    /// Whether the transaction may be committed as soon as all its keys are locked, at a timestamp which that yields: the
    /// commit takes one round trip less, and the keys become visible in the background. Large transactions, and those with an
    /// upper bound for the timestamp, with shared locks, or with keys that are checked and not locked, commit in two phases all
    /// the same. Default: no. client-go:
    /// `SetEnableAsyncCommit`.
    pub async_commit: bool,
    /// Whether a transaction of which all keys fit into one request may be committed by that request alone. Same exceptions,
    /// but for the size. Default: no. client-go: `SetEnable1PC`.
    pub one_phase_commit: bool,
    /// Whether the order of commits need only follow causes, not real time: saves `async_commit` and `one_phase_commit` the
    /// timestamp of PD which the commit must exceed. Default: no. client-go: `SetCausalConsistency`.
    pub causal_consistency: bool,
    /// What a pessimistic transaction does about the keys that it writes and has not locked.
    pub unlocked_writes: UnlockedWrites,
    /// What the commit timestamp must be like.
    pub commit_ts: CommitTsRules,
}

/// What a pessimistic transaction does about the keys that it writes and has not locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnlockedWrites {
    /// Fails with a write conflict if another transaction has written one of them since this one began, as an optimistic
    /// transaction does.
    #[default]
    Check,
    /// Writes them all the same. Whatever another transaction has written meanwhile is lost, unless the keys depend on others
    /// that are locked, as those of an index do. What client-go does.
    Trust,
}

/// What prewrite does about the lock of another transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnLock {
    /// Finds out what became of its transaction, waits for it if it is alive, and goes on.
    #[default]
    Resolve,
    /// Fails with a write conflict, so that the caller can run the transaction in another way.
    Fail,
}

/// What a commit timestamp must be like. Every timestamp is checked, also the one that replaces a refused one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommitTsRules {
    /// The commit timestamp must be above this one, of another cluster's clock perhaps. Default: zero, none. client-go:
    /// `SetCommitWaitUntilTSO`.
    pub wait_until: Timestamp,
    /// How far PD's clock may lag behind `wait_until`, and how long to wait for it. Default 1 s; zero fails at once.
    /// client-go: `SetCommitWaitUntilTSOTimeout`.
    pub wait_timeout: Duration,
    /// The commit timestamp must not be above this one. Default: [`Timestamp::MAX`], no bound. client-go:
    /// `SetCommitTSUpperBoundCheck`.
    pub upper_bound: Timestamp,
    /// Whether the owner of the transaction is asked before a timestamp is used
    /// ([`Command::CheckCommit`](crate::machine::Command::CheckCommit)), and can forbid it. Where prewrites decide, it is asked
    /// about PD's time before them, and they commit within the safe window after that, or else the primary does. Default: no.
    /// client-go: `SetSchemaLeaseChecker`.
    pub ask_owner: bool,
}

impl Default for CommitTsRules {
    fn default() -> Self {
        CommitTsRules {
            wait_until: Timestamp::ZERO,
            wait_timeout: Duration::from_secs(1),
            upper_bound: Timestamp::MAX,
            ask_owner: false,
        }
    }
}

impl CommitOptions {
    /// The defaults.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        CommitOptions {
            call: CallOptions::new(config),
            priority: CommandPri::Normal,
            disk_full: DiskFullOpt::NotAllowedOnFull,
            txn_source: 0,
            sync_log: false,
            assertion_level: AssertionLevel::Off,
            on_lock: OnLock::default(),
            async_commit: false,
            one_phase_commit: false,
            causal_consistency: false,
            unlocked_writes: UnlockedWrites::default(),
            commit_ts: CommitTsRules::default(),
        }
    }

    /// For the prewrites, and for the commit of the primary.
    pub(super) fn foreground(&self) -> CallOptions {
        let mut call = self.of_writes(self.call.deadline);
        call.context.disk_full_opt = self.disk_full.into();
        call.context.txn_source = self.txn_source;
        call
    }

    /// For the commit of the secondaries: as in the foreground, but nobody's deadline can stop it.
    pub(super) fn background(&self) -> CallOptions {
        CallOptions { deadline: Time::MAX, ..self.foreground() }
    }

    /// For pessimistic locks that must be taken at `deadline`.
    pub(super) fn locking(&self, deadline: Time) -> CallOptions {
        self.of_writes(deadline)
    }

    /// For what changes no data: rolling back, and heartbeats. Nobody's deadline can stop it.
    pub(super) fn upkeep(&self) -> CallOptions {
        self.of_writes(Time::MAX)
    }

    fn of_writes(&self, deadline: Time) -> CallOptions {
        let mut call = CallOptions { deadline, ..self.call.clone() };
        // TiKV gives up first, so that its answer can still arrive.
        let execution_ms = whole_ms(call.timeout).saturating_mul(2) / 3;
        call.context.priority = self.priority.into();
        call.context.sync_log = self.sync_log;
        call.context.max_execution_duration_ms = execution_ms;
        call
    }
}
