//! Ways in which keys cannot be locked.

use crate::key::Key;

/// Why a request to lock keys makes no sense. Nothing has been sent.
///
/// client-go: `ErrLockOnlyIfExistsNoReturnValue`, `ErrLockOnlyIfExistsNoPrimaryKey`, and errors without a type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLock {
    /// Locks that need the key to exist tell by its value whether they were taken.
    #[error("locking keys only if they exist needs their values to be returned")]
    OnlyIfExistsWithoutValues,
    /// The first lock becomes the primary of its transaction, and of several keys nobody knows which one exists.
    #[error("locking several keys only if they exist needs a lock that the transaction holds already")]
    OnlyIfExistsWithoutPrimary,
    /// A key cannot be absent and there at once.
    #[error("a key cannot be locked only if it exists and only if it does not")]
    OnlyIfExistsAndAbsent,
    /// A shared lock cannot be the primary of its transaction, which therefore needs an exclusive one first.
    #[error("a shared lock needs an exclusive lock that the transaction holds already")]
    SharedWithoutPrimary,
    /// TiKV reads nothing when it repeats a shared lock, so that a repeated request would be answered wrongly.
    #[error("shared locks return no values and check nothing")]
    SharedWithValues,
    /// Fair locking knows exclusive locks only.
    #[error("fair locking takes no shared locks")]
    SharedInFairLocking,
    /// A shared lock stays shared.
    #[error("the shared lock on key {key:?} cannot become exclusive")]
    SharedUpgrade {
        /// The key.
        key: Key,
    },
    /// The transaction is optimistic: it locks when it commits.
    #[error("the transaction is optimistic")]
    Optimistic,
    /// A transaction locks keys in one call at a time, and neither commits nor rolls back meanwhile.
    #[error("another call of the transaction locks keys")]
    Concurrent,
    /// Fair locking has to be begun before it can be ended or tried again.
    #[error("the transaction is not in fair locking")]
    NotFair,
    /// Fair locking has to be ended, in one way or the other, before it is begun again, and before the commit.
    #[error("the transaction is in fair locking")]
    Fair,
    /// The key must be absent, and is locked already, but whether it exists was not asked when it was.
    #[error("the key {key:?} was locked without a look whether it exists")]
    ExistenceUnknown {
        /// The key.
        key: Key,
    },
    /// The keys are to be locked as of a time at which one of them was locked later already.
    #[error("the key {key:?} was locked at a later time than it is to be locked at now")]
    OutdatedForUpdateTs {
        /// The key.
        key: Key,
    },
}
