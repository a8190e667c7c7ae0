//! Locking keys before they are written.

use std::collections::BTreeMap;
use std::pin::pin;

use bytes::Bytes;
use tikv_core::error::InvalidLock;
use tikv_core::keyspace::KeyCodec;
use tikv_core::txn::{Buffered, LockDetails, LockKeys, LockOptions, Locked, LockedKey, TxnState};
use tracing::Instrument;

use crate::snapshot::Snapshot;
use crate::{Error, Key, Pair, Time, Transaction};

impl Transaction {
    /// Locks `keys`, so that no other transaction writes them until this one has ended; returns what became of each key, in
    /// their order. Waits for locks of others as long as `options` say, and then takes, unless they say otherwise, the newest
    /// version of the key as the one to go on from. Keys that the transaction holds already stay as they are
    /// ([`LockedKey::was_locked`]).
    ///
    /// Calls of one transaction wait for each other. Whether two transactions wait for each other, TiKV finds out: one of them
    /// fails with [`Error::Deadlock`].
    ///
    /// An *optimistic* transaction locks nothing yet. Its commit will conflict with every transaction that has written one of
    /// `keys` since it began, though it only reads them: a guard against write skew. Of the options nothing but the default
    /// makes sense then.
    ///
    /// client-go: `LockKeys`.
    ///
    /// ```no_run
    /// # async fn example(client: tikv::Client) -> Result<(), tikv::Error> {
    /// use std::time::Duration;
    /// use tikv::{LockOptions, LockWait, TransactionOptions};
    ///
    /// let txn = client.begin_with(TransactionOptions::default().pessimistic()).await?;
    /// let options = LockOptions::default().wait(LockWait::For(Duration::from_secs(3))).return_values();
    /// for locked in txn.lock_keys(["alice", "bob"], options).await? {
    ///     println!("{:?} is locked, and has the value {:?}", locked.key, locked.value);
    /// }
    /// txn.put("alice", "1")?;
    /// txn.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// None of the keys is locked that was not locked before: [`Error::LockWaitTimeout`] and [`Error::LockedNoWait`] if
    /// another transaction holds one of them, [`Error::Deadlock`], [`Error::KeyExists`],
    /// [`Error::WriteConflict`] if the options want to know of it, [`Error::RolledBack`] if somebody else has ended the
    /// transaction, [`Error::RetriesExhausted`], [`Error::DeadlineExceeded`], [`Error::Locked`] when budgets are spent.
    /// Nothing was sent: [`Error::InvalidLock`], [`Error::TxnFinished`], [`Error::EmptyKey`], [`Error::KeyTooLarge`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the call up: what it may have locked is released in the background, and what comes late when
    /// the transaction ends. Locks of earlier calls stay, and the transaction can go on.
    pub async fn lock_keys(
        &self,
        keys: impl IntoIterator<Item = impl Into<Key>>,
        options: LockOptions,
    ) -> Result<Vec<LockedKey>, Error> {
        let keys: Vec<Key> = keys.into_iter().map(Into::into).collect();
        if !self.is_pessimistic() {
            options.check()?;
            return self.guard_keys(keys);
        }
        let _turn = self.turn().await?;
        self.lock_now(keys, options).await
    }

    /// Locks `key` and returns its value, `None` if it is absent: the newest that is committed, or what this transaction has
    /// written. It is locked also if it is absent. How long it waits for locks of others, the
    /// [options](crate::TransactionOptions::lock_options) of the transaction say.
    ///
    /// The value may be newer than what [`Transaction::get`] shows, which reads at the start of the transaction. In an
    /// optimistic transaction it is not: there, this is `get`, and the key is guarded as by [`Transaction::lock_keys`].
    ///
    /// client-go: `LockKeys` with `ReturnValues`; tikv-client: `get_for_update`.
    ///
    /// # Errors
    ///
    /// As [`Transaction::lock_keys`], and as [`Transaction::get`] if the key was locked before.
    ///
    /// # Cancel safety
    ///
    /// As [`Transaction::lock_keys`].
    pub async fn get_for_update(&self, key: impl Into<Key>) -> Result<Option<Bytes>, Error> {
        let pairs = self.batch_get_for_update([key]).await?;
        Ok(pairs.into_iter().next().map(|pair| pair.value))
    }

    /// Locks `keys` and returns the values of those that exist, in the order of `keys`: as [`Transaction::get_for_update`].
    /// All are locked, or none that was not locked before.
    ///
    /// # Errors
    ///
    /// As [`Transaction::get_for_update`].
    ///
    /// # Cancel safety
    ///
    /// As [`Transaction::lock_keys`].
    pub async fn batch_get_for_update(
        &self,
        keys: impl IntoIterator<Item = impl Into<Key>>,
    ) -> Result<Vec<Pair>, Error> {
        let keys: Vec<Key> = keys.into_iter().map(Into::into).collect();
        if !self.is_pessimistic() {
            self.guard_keys(keys.clone())?;
            return self.batch_get(keys).await;
        }
        let _turn = self.turn().await?;
        let locked = self.lock_now(keys.clone(), self.lock_options().return_values()).await?;
        let mut values = BTreeMap::new();
        let mut held = Vec::new();
        for locked in locked {
            match self.txn().read(locked.key.as_slice())? {
                Buffered::Value(value) => drop(values.insert(locked.key, value)),
                Buffered::Deleted => {}
                Buffered::Unknown if locked.was_locked && locked.exists.is_none() => held.push(locked.key),
                Buffered::Unknown => values.extend(locked.value.map(|value| (locked.key, value))),
            }
        }
        if !held.is_empty() {
            let found = self.inner.kill.run(pin!(self.as_locked().batch_get(held))).await?;
            values.extend(found.into_iter().map(|pair| (pair.key, pair.value)));
        }
        let pair = |key: Key| values.get(&key).cloned().map(|value| Pair { key, value });
        Ok(keys.into_iter().filter_map(pair).collect())
    }

    /// Sets `key` to `value`, at commit, if it is absent now. A pessimistic transaction locks the key, so that it stays absent;
    /// an optimistic one looks again when it commits, as [`Transaction::insert`] does, and not before.
    ///
    /// # Errors
    ///
    /// [`Error::KeyExists`]; otherwise as [`Transaction::put`] and [`Transaction::lock_keys`]. Nothing has changed then.
    ///
    /// # Cancel safety
    ///
    /// As [`Transaction::lock_keys`]; the value is not set.
    pub async fn put_if_absent(&self, key: impl Into<Key>, value: impl Into<Bytes>) -> Result<(), Error> {
        let (key, value) = (key.into(), value.into());
        if !self.is_pessimistic() {
            return self.insert(key, value);
        }
        let _turn = self.turn().await?;
        let buffered = self.txn().read(key.as_slice())?;
        match buffered {
            Buffered::Value(_) => return Err(Error::KeyExists { key }),
            Buffered::Deleted => {
                self.lock_now(vec![key.clone()], self.lock_options()).await?;
            }
            Buffered::Unknown => self.lock_absent(&key).await?,
        }
        self.txn().set_absent(key, value)
    }

    async fn lock_absent(&self, key: &Key) -> Result<(), Error> {
        match self.lock_now(vec![key.clone()], self.lock_options().must_not_exist()).await {
            Ok(_) => Ok(()),
            // It is locked already, so that what is there stays there.
            Err(Error::InvalidLock(InvalidLock::ExistenceUnknown { .. })) => {
                match self.inner.kill.run(pin!(self.as_locked().get(key.clone()))).await? {
                    None => Ok(()),
                    Some(_) => Err(Error::KeyExists { key: key.clone() }),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Begins fair locking: from now on a call that waits for the lock of a single key gets it when it is released, in the
    /// order of arrival, even though its version is newer than what the transaction wanted. It is told so
    /// ([`LockedKey::in_conflict`]), and can run again what it did since, keeping its locks.
    ///
    /// client-go: `StartAggressiveLocking`. See `docs/protocol/fair-locking.md`.
    ///
    /// ```no_run
    /// # async fn example(txn: tikv::Transaction) -> Result<(), tikv::Error> {
    /// use tikv::LockOptions;
    ///
    /// let mut statement = txn.fair_locking()?;
    /// while txn.lock_keys(["seat"], LockOptions::default().return_values()).await?[0].in_conflict {
    ///     // Whatever was read before is outdated. The lock is kept.
    ///     statement.retry()?;
    /// }
    /// statement.finish()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], [`Error::InvalidLock`] of an optimistic transaction, one in fair locking, or one that is just
    /// locking keys.
    pub fn fair_locking(&self) -> Result<FairLocking, Error> {
        let now = self.inner.client().shared().runtime.now();
        self.txn().start_fair_locking(now)?;
        Ok(FairLocking { txn: self.clone(), ended: false })
    }

    /// Whether it is pessimistic.
    #[must_use]
    pub fn is_pessimistic(&self) -> bool {
        self.txn().is_pessimistic()
    }

    /// What its calls took that have locked keys so far. client-go: `util.LockKeysDetailCtxKey`.
    #[must_use]
    pub fn lock_details(&self) -> LockDetails {
        self.txn().lock_details()
    }

    /// The present in which locked keys cannot change.
    fn as_locked(&self) -> Snapshot {
        self.inner.snapshot.plain_at(self.txn().for_update_ts())
    }

    /// How it locks keys unless it is told otherwise.
    fn lock_options(&self) -> LockOptions {
        self.inner.locking.as_ref().map_or_else(LockOptions::default, |locking| locking.options)
    }

    /// What an optimistic transaction does to lock keys.
    fn guard_keys(&self, keys: Vec<Key>) -> Result<Vec<LockedKey>, Error> {
        self.txn().lock_keys(keys.iter().cloned())?;
        let guarded = |key| LockedKey::unlocked(key);
        Ok(keys.into_iter().map(guarded).collect())
    }

    /// It must be the caller's turn.
    async fn lock_now(&self, keys: Vec<Key>, mut options: LockOptions) -> Result<Vec<LockedKey>, Error> {
        let now = self.inner.client().shared().runtime.now();
        let deadline = self.inner.snapshot.deadline().unwrap_or(Time::MAX);
        options.deadline = options.deadline.min(deadline);
        let request = self.txn().begin_lock(now, keys, options)?;
        let call = LockCall { txn: self, ended: false };
        let span = tracing::debug_span!("tikv.txn", operation = "lock_keys", start_ts = %self.start_ts());
        let end = self.inner.client().drive(KeyCodec::Txn, LockKeys::new(request)).instrument(span);
        // A call that is killed is dropped here.
        self.inner.kill.run(pin!(async { call.end(end.await) })).await
    }
}

/// A call that locks keys. If it is dropped before its end, the transaction does not know what is locked.
struct LockCall<'a> {
    txn: &'a Transaction,
    ended: bool,
}

impl LockCall<'_> {
    fn end(mut self, end: Result<Locked, Error>) -> Result<Vec<LockedKey>, Error> {
        self.ended = true;
        let inner = &self.txn.inner;
        let is_open = {
            let mut txn = self.txn.txn();
            txn.end_lock(&end);
            txn.state() == TxnState::Open
        };
        inner.keep_alive();
        let locked = end?;
        if is_open {
            return Ok(locked.keys);
        }
        // Rolled back meanwhile, when these were not locked yet.
        let late = self.txn.txn().release_late(&locked);
        inner.spawn(late);
        Err(Error::TxnFinished)
    }
}

impl Drop for LockCall<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.txn.txn().abandon_lock();
        }
    }
}

/// A statement in fair locking; see [`Transaction::fair_locking`]. Dropped before [`FairLocking::finish`], it is
/// [cancelled](FairLocking::cancel).
#[derive(Debug)]
pub struct FairLocking {
    txn: Transaction,
    ended: bool,
}

impl FairLocking {
    /// Ends this attempt and begins the next one. What this one has locked stays locked for the next one; what was left from the
    /// one before, and was not asked for again, is released in the background. client-go: `RetryAggressiveLocking`.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], [`Error::InvalidLock`] while keys are being locked, or if fair locking was ended by a call for
    /// several keys.
    pub fn retry(&mut self) -> Result<(), Error> {
        let now = self.txn.inner.client().shared().runtime.now();
        let unwanted = self.txn.txn().retry_fair_locking(now)?;
        self.end(unwanted);
        Ok(())
    }

    /// Ends fair locking, and keeps what the last attempt has locked. client-go: `DoneAggressiveLocking`.
    ///
    /// # Errors
    ///
    /// As [`FairLocking::retry`]; but if a call for several keys has ended fair locking already, that is success.
    pub fn finish(mut self) -> Result<(), Error> {
        self.ended = true;
        let unwanted = self.txn.txn().finish_fair_locking();
        self.end(none_if_ended(unwanted)?);
        Ok(())
    }

    /// Ends fair locking, and releases in the background what it has locked. client-go: `CancelAggressiveLocking`.
    ///
    /// # Errors
    ///
    /// As [`FairLocking::finish`].
    pub fn cancel(mut self) -> Result<(), Error> {
        self.ended = true;
        let unwanted = self.txn.txn().cancel_fair_locking();
        self.end(none_if_ended(unwanted)?);
        Ok(())
    }

    fn end(&self, unwanted: Option<tikv_core::txn::PessimisticRollback>) {
        self.txn.inner.keep_alive();
        self.txn.inner.spawn(unwanted);
    }
}

fn none_if_ended<T>(result: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(Error::InvalidLock(InvalidLock::NotFair)) => Ok(None),
        result => result,
    }
}

impl Drop for FairLocking {
    fn drop(&mut self) {
        if !self.ended {
            // If the transaction has ended, everything is released already.
            let unwanted = self.txn.txn().cancel_fair_locking().unwrap_or_default();
            self.end(unwanted);
        }
    }
}
