//! What a transaction has written but not committed: savepoints, and the buffer itself.

use std::sync::Arc;

use bytes::Bytes;
use tikv_core::membuffer::{MemBuffer, Stage, StageError};

use crate::transaction::Transaction;
use crate::{Error, Key};

/// A moment of a transaction that its writes can be brought back to. Dropping it undoes what was written since, so that a `?` on
/// the way leaves nothing half done; [`Savepoint::release`] keeps it. Made by [`Transaction::savepoint`].
///
/// Savepoints nest. Ending one ends those made since as well.
///
/// client-go: `MemBuffer.Staging`, `Release`, `Cleanup`.
#[must_use = "dropping it undoes what was written since"]
pub struct Savepoint {
    txn: Transaction,
    stage: Option<Stage>,
}

impl Transaction {
    /// Marks the present: what is written from here on is undone when the savepoint is dropped, unless it is released. Locks
    /// that are taken in between stay.
    ///
    /// ```no_run
    /// # async fn example(txn: tikv::Transaction) -> Result<(), tikv::Error> {
    /// let savepoint = txn.savepoint()?;
    /// txn.put("stock", "9")?;
    /// match txn.insert("order-7", "1 book") {
    ///     Ok(()) => savepoint.release()?,
    ///     // The stock is what it was.
    ///     Err(_) => drop(savepoint),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`].
    pub fn savepoint(&self) -> Result<Savepoint, Error> {
        let stage = self.with_buffer(MemBuffer::stage)?;
        Ok(Savepoint { txn: self.clone(), stage: Some(stage) })
    }

    /// Sets `key` to `new` if its value in this transaction is `expected` (`None`: if it is absent). Returns whether it was. That
    /// it still is when the transaction commits is guarded as every write is: an optimistic transaction fails with
    /// [`Error::WriteConflict`] if another has committed to the key in between.
    ///
    /// # Errors
    ///
    /// As [`Transaction::get`] and [`Transaction::put`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future writes nothing.
    pub async fn compare_and_set(
        &self,
        key: impl Into<Key>,
        expected: Option<&[u8]>,
        new: impl Into<Bytes>,
    ) -> Result<bool, Error> {
        let key = key.into();
        let current = self.get(key.clone()).await?;
        let is_expected = current.as_deref() == expected;
        if is_expected {
            self.put(key, new.into())?;
        }
        Ok(is_expected)
    }

    /// Lets `change` work on the buffer of writes: flags, checkpoints, history, limits. It must not use the transaction, which
    /// waits until it returns.
    ///
    /// client-go: `GetMemBuffer`.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`].
    pub fn with_buffer<T>(&self, change: impl FnOnce(&mut MemBuffer) -> T) -> Result<T, Error> {
        Ok(change(self.txn().buffer_mut()?))
    }
}

impl Savepoint {
    /// Keeps what was written since.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`]; [`Error::InvalidArgument`] if an earlier savepoint was ended before, and this one with it.
    pub fn release(mut self) -> Result<(), Error> {
        self.end(MemBuffer::release_nested)
    }

    /// Undoes what was written since, as dropping it does, and says if that was not possible.
    ///
    /// # Errors
    ///
    /// As [`Savepoint::release`].
    pub fn rollback(mut self) -> Result<(), Error> {
        self.end(MemBuffer::cleanup_nested)
    }

    fn end(&mut self, end: impl FnOnce(&mut MemBuffer, Stage) -> Result<(), StageError>) -> Result<(), Error> {
        let Some(stage) = self.stage.take() else { return Ok(()) };
        let ended = self.txn.with_buffer(|buffer| end(buffer, stage))?;
        ended.map_err(|error| Error::InvalidArgument(Arc::from(error.to_string())))
    }
}

impl Drop for Savepoint {
    fn drop(&mut self) {
        // A transaction that has ended, or an earlier savepoint that was, leaves nothing to undo.
        let _ = self.end(MemBuffer::cleanup_nested);
    }
}

impl std::fmt::Debug for Savepoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Savepoint").field("txn", &self.txn).finish_non_exhaustive()
    }
}
