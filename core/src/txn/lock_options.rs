//! How keys are locked.

use std::time::Duration;

use crate::error::InvalidLock;
use crate::time::Time;
use crate::timestamp::Timestamp;

/// How a pessimistic transaction locks keys. The default: exclusively, waiting as long as TiKV does (1 s unless it is
/// configured otherwise), without values.
///
/// client-go: `kv.LockCtx`.
///
/// ```
/// use std::time::Duration;
/// use tikv_core::txn::{LockOptions, LockWait};
///
/// let options = LockOptions::default().wait(LockWait::For(Duration::from_secs(5))).return_values();
/// assert_eq!(options.check(), Ok(()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockOptions {
    /// How long to wait for locks of other transactions.
    pub wait: LockWait,
    /// Whether the values of the keys are returned, as of the lock. Default: no. client-go: `InitReturnValues`.
    pub return_values: bool,
    /// Whether it is returned which of the keys exist. Default: no. client-go: `InitCheckExistence`.
    pub check_existence: bool,
    /// Whether keys that do not exist are left unlocked. Needs [`LockOptions::return_values`], and for several keys a lock
    /// that the transaction holds already. Default: no. client-go: `LockCtx.LockOnlyIfExists`.
    pub lock_only_if_exists: bool,
    /// Whether locking fails with [`Error::KeyExists`](crate::error::Error::KeyExists) if one of the keys exists. Default:
    /// no, but for keys that the transaction has inserted. client-go: `SetPresumeKeyNotExists`.
    pub must_not_exist: bool,
    /// Whether other transactions may hold shared locks of the keys at the same time. Needs an exclusive lock that the
    /// transaction holds already, and returns no values. Default: no. client-go: `LockCtx.InShareMode`.
    pub shared: bool,
    /// What to do if another transaction has committed a key after the timestamp of the lock.
    pub on_conflict: OnConflict,
    /// The timestamp of the locks, which PD must have given, and which is not replaced by a newer one after a conflict;
    /// `None`, the default, takes a new one. client-go: `LockCtx.ForUpdateTS`.
    pub for_update_ts: Option<Timestamp>,
    /// When the call must be over. Default: [`Time::MAX`], never. client-go: `LockCtx.MaxExecutionDeadline`.
    pub deadline: Time,
}

/// How long to wait for a key that another transaction has locked. Whether that transaction is alive is found out in any
/// case; if it is not, its lock is no obstacle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LockWait {
    /// As long as TiKV lets a request wait: 1 s, unless it is configured otherwise. Then
    /// [`Error::LockWaitTimeout`](crate::error::Error::LockWaitTimeout).
    #[default]
    Default,
    /// Until the key is free, or the deadline passes. client-go: `kv.LockAlwaysWait`.
    Always,
    /// Not at all: [`Error::LockedNoWait`](crate::error::Error::LockedNoWait). client-go: `kv.LockNoWait`.
    NoWait,
    /// For so long (whole milliseconds count), all of the call taken together, then
    /// [`Error::LockWaitTimeout`](crate::error::Error::LockWaitTimeout). Zero is [`LockWait::NoWait`].
    For(Duration),
}

/// What to do if another transaction has committed a key after the timestamp of its lock. That is how a lock of normal mode
/// that was waited for ends: whoever held it has committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnConflict {
    /// Takes a newer timestamp and tries again: the lock, and the value returned with it, are then as of that one.
    #[default]
    Retry,
    /// Fails with [`Error::WriteConflict`](crate::error::Error::WriteConflict), so that the caller can begin anew whatever
    /// it read at the timestamp. What client-go does.
    Fail,
}

impl LockOptions {
    /// Waits so long for locks of others.
    #[must_use]
    pub fn wait(mut self, wait: LockWait) -> Self {
        self.wait = wait;
        self
    }

    /// Returns the values, as of the lock.
    #[must_use]
    pub fn return_values(mut self) -> Self {
        self.return_values = true;
        self
    }

    /// Returns which keys exist.
    #[must_use]
    pub fn check_existence(mut self) -> Self {
        self.check_existence = true;
        self
    }

    /// Locks no key that does not exist.
    #[must_use]
    pub fn lock_only_if_exists(mut self) -> Self {
        self.lock_only_if_exists = true;
        self
    }

    /// Fails if one of the keys exists.
    #[must_use]
    pub fn must_not_exist(mut self) -> Self {
        self.must_not_exist = true;
        self
    }

    /// Shares the locks.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// What to do about a write that is newer than the lock.
    #[must_use]
    pub fn on_conflict(mut self, on_conflict: OnConflict) -> Self {
        self.on_conflict = on_conflict;
        self
    }

    /// Must be over then.
    #[must_use]
    pub fn deadline(mut self, deadline: Time) -> Self {
        self.deadline = deadline;
        self
    }

    /// Whether the options make sense together.
    ///
    /// # Errors
    ///
    /// [`InvalidLock::OnlyIfExistsWithoutValues`], [`InvalidLock::OnlyIfExistsAndAbsent`],
    /// [`InvalidLock::SharedWithValues`].
    pub fn check(&self) -> Result<(), InvalidLock> {
        if self.lock_only_if_exists && !self.return_values {
            return Err(InvalidLock::OnlyIfExistsWithoutValues);
        }
        if self.lock_only_if_exists && self.must_not_exist {
            return Err(InvalidLock::OnlyIfExistsAndAbsent);
        }
        if self.shared && (self.return_values || self.check_existence || self.must_not_exist) {
            return Err(InvalidLock::SharedWithValues);
        }
        Ok(())
    }
}

impl Default for LockOptions {
    fn default() -> Self {
        LockOptions {
            wait: LockWait::default(),
            return_values: false,
            check_existence: false,
            lock_only_if_exists: false,
            must_not_exist: false,
            shared: false,
            on_conflict: OnConflict::default(),
            for_update_ts: None,
            deadline: Time::MAX,
        }
    }
}

impl LockWait {
    /// How long may still be waited at `now` by a call that began at `since`; `None` is as long as anybody likes.
    pub(super) fn left(self, since: Time, now: Time) -> Option<Duration> {
        match self {
            LockWait::Default | LockWait::Always => None,
            LockWait::NoWait => Some(Duration::ZERO),
            LockWait::For(limit) => {
                let left = limit.saturating_sub(now.saturating_since(since));
                Some(if left < Duration::from_millis(1) { Duration::ZERO } else { left })
            }
        }
    }
}
