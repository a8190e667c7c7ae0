//! Transactions.

use std::ops::RangeBounds;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tikv_core::keyspace::KeyCodec;
use tikv_core::membuffer::Flagged;
use tikv_core::snapshot::{ScanCursor, SnapshotOptions};
use tikv_core::txn::{self, Buffered, CommitOptions, CommitOutcome, LockOptions, PessimisticRollback, TxnState};
use tracing::Instrument;

use crate::check::CommitChecker;
use crate::keep_alive::KeepAlive;
use crate::kill::{KillHandle, KillSwitch, Killable};
use crate::range::key_range;
use crate::snapshot::Snapshot;
use crate::{Client, Direction, Error, Key, KeyRange, Pair, Timestamp};

/// How a transaction reads and commits. The defaults are client-go's.
#[derive(Clone, Debug, Default)]
pub struct TransactionOptions {
    pub(crate) start_ts: Option<Timestamp>,
    pub(crate) timeout: Option<Duration>,
    async_commit: bool,
    one_phase_commit: bool,
    pessimistic: bool,
    lock: LockOptions,
    pub(crate) reads: Option<Change<SnapshotOptions>>,
    pub(crate) commit: Option<Change<CommitOptions>>,
    pub(crate) check: Option<CommitChecker>,
    leave_out: Option<WriteFilter>,
}

/// Says yes to writes that are not to be committed.
#[derive(Clone)]
struct WriteFilter(Arc<dyn Fn(&Flagged<'_>) -> bool + Send + Sync>);

/// A change of options that is made when a transaction begins, for each attempt anew.
#[derive(Clone)]
pub(crate) struct Change<T>(pub(crate) Arc<dyn Fn(T) -> T + Send + Sync>);

impl TransactionOptions {
    /// Reads at `start_ts`, which PD must have given, instead of at a new timestamp. client-go: `WithStartTS`.
    #[must_use]
    pub fn start_ts(mut self, start_ts: Timestamp) -> Self {
        self.start_ts = Some(start_ts);
        self
    }

    /// Each call of the transaction (its beginning, a read, the commit) ends after `timeout` at the latest. Default: the
    /// budgets of retries alone.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Lets it commit as soon as all its keys are locked, which saves a round trip: see [`CommitOptions::async_commit`].
    #[must_use]
    pub fn async_commit(mut self) -> Self {
        self.async_commit = true;
        self
    }

    /// Lets it commit with one request if that holds all its keys: see [`CommitOptions::one_phase_commit`].
    #[must_use]
    pub fn one_phase_commit(mut self) -> Self {
        self.one_phase_commit = true;
        self
    }

    /// Makes it a pessimistic transaction, which can lock keys before it writes them: [`Transaction::lock_keys`],
    /// [`Transaction::get_for_update`]. Default: optimistic. client-go: `SetPessimistic`.
    #[must_use]
    pub fn pessimistic(mut self) -> Self {
        self.pessimistic = true;
        self
    }

    /// How [`Transaction::get_for_update`] and the like lock keys: how long they wait for locks of others, and what they do
    /// about conflicts. Default: [`LockOptions::default`].
    #[must_use]
    pub fn lock_options(mut self, options: LockOptions) -> Self {
        self.lock = options;
        self
    }

    /// Changes how it reads.
    #[must_use]
    pub fn reads(mut self, change: impl Fn(SnapshotOptions) -> SnapshotOptions + Send + Sync + 'static) -> Self {
        self.reads = Some(Change(Arc::new(change)));
        self
    }

    /// Changes how it commits. [`Transaction::change_commit_options`] does so later.
    ///
    /// ```
    /// use tikv::{AssertionLevel, TransactionOptions};
    ///
    /// let source = 7;
    /// let options = TransactionOptions::default().commit(move |mut options| {
    ///     options.assertion_level = AssertionLevel::Fast;
    ///     options.txn_source = source;
    ///     options
    /// });
    /// ```
    #[must_use]
    pub fn commit(mut self, change: impl Fn(CommitOptions) -> CommitOptions + Send + Sync + 'static) -> Self {
        self.commit = Some(Change(Arc::new(change)));
        self
    }

    /// Leaves out of the commit what `is_unnecessary` says yes to: it is asked of every key with a value or a deletion, and must
    /// not use the transaction. A key that is locked is not written then, but stays locked until the commit. client-go:
    /// `SetKVFilter`.
    ///
    /// ```
    /// use tikv::TransactionOptions;
    ///
    /// let options = TransactionOptions::default().leave_out(|write| write.key.starts_with(b"tmp/"));
    /// ```
    #[must_use]
    pub fn leave_out(mut self, is_unnecessary: impl Fn(&Flagged<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.leave_out = Some(WriteFilter(Arc::new(is_unnecessary)));
        self
    }
}

/// A transaction: it reads at one timestamp, keeps its writes to itself, and commits them all at once or not at all.
///
/// An optimistic one, as [`Client::begin`] makes it, notices when it commits that another transaction has written one of its
/// keys in between: that fails with [`Error::WriteConflict`], and [`Client::run`] then tries again. A
/// [pessimistic](TransactionOptions::pessimistic) one locks keys beforehand, so that nobody writes them until it has ended;
/// of keys that it writes without a lock it notices conflicts as an optimistic one does. Its locks are kept alive as long as
/// one of its clones is there.
///
/// Cheap to clone; clones are the same transaction. Reads see the transaction's own writes. Values cannot be empty.
///
/// A transaction whose last clone is dropped without a commit is rolled back: what it has locked is released in the
/// background. Dropping the future of [`Transaction::commit`] is another matter: see there.
///
/// client-go: `transaction.KVTxn`.
///
/// ```no_run
/// # async fn example(client: tikv::Client) -> Result<(), tikv::Error> {
/// let txn = client.begin().await?;
/// if txn.get("alice").await?.is_none() {
///     txn.put("alice", "10")?;
/// }
/// let outcome = txn.commit().await?;
/// println!("committed at {:?}", outcome.commit_ts);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Transaction {
    pub(crate) inner: Arc<Inner>,
}

/// Each transaction takes this much memory, and what is above a kilobyte costs `malloc` several times as much.
pub(crate) struct Inner {
    /// It has the client as well.
    pub(crate) snapshot: Snapshot,
    /// `None` if it is optimistic.
    pub(crate) locking: Option<Box<Locking>>,
    conditions: Option<Box<Conditions>>,
    pub(crate) kill: KillSwitch,
    /// Whose turn it is to lock keys, or to commit.
    turn: async_lock::Mutex<()>,
    /// Held for a look-up or a change of the buffer, never across an await.
    txn: Mutex<txn::Transaction>,
}

/// On what the commit of few transactions depends.
struct Conditions {
    /// Who is asked whether it may commit.
    check: Option<CommitChecker>,
    leave_out: Option<WriteFilter>,
}

/// What only a pessimistic transaction has.
pub(crate) struct Locking {
    /// How it locks keys unless it is told otherwise.
    pub(crate) options: LockOptions,
    /// Its heartbeat, while it holds locks.
    heartbeat: Mutex<Option<KeepAlive>>,
}

impl Transaction {
    pub(crate) fn new(client: Client, start_ts: Timestamp, options: TransactionOptions) -> Self {
        let TransactionOptions { async_commit, one_phase_commit, .. } = options;
        let commit = CommitOptions { async_commit, one_phase_commit, ..CommitOptions::new(client.config()) };
        let commit = match options.commit {
            Some(change) => (change.0)(commit),
            None => commit,
        };
        let now = client.shared().runtime.now();
        let mut txn = txn::Transaction::new(client.config(), start_ts, now, commit);
        if options.pessimistic {
            txn = txn.into_pessimistic(client.config());
        }
        let mut snapshot = Snapshot::new(client, start_ts);
        if let Some(change) = options.reads {
            snapshot = snapshot.with_options(&*change.0);
        }
        if let Some(timeout) = options.timeout {
            snapshot = snapshot.with_timeout(timeout);
        }
        let (check, leave_out) = (options.check, options.leave_out);
        let is_conditional = check.is_some() || leave_out.is_some();
        let conditions = is_conditional.then(|| Box::new(Conditions { check, leave_out }));
        let locking = || Box::new(Locking { options: options.lock, heartbeat: Mutex::new(None) });
        Transaction {
            inner: Arc::new(Inner {
                snapshot,
                locking: options.pessimistic.then(locking),
                conditions,
                kill: KillSwitch::default(),
                turn: Default::default(),
                txn: Mutex::new(txn),
            }),
        }
    }

    /// The timestamp it reads at, and its identity.
    #[must_use]
    pub fn start_ts(&self) -> Timestamp {
        self.inner.snapshot.read_ts()
    }

    /// How far it has come.
    #[must_use]
    pub fn state(&self) -> TxnState {
        self.txn().state()
    }

    /// Whether its locks may be lost before it ends: it holds some, and nobody keeps them alive any more, since TiKV could not be
    /// reached for too long, or it is older than an hour, or they are gone already. Its commit will tell. client-go: `LockCtx.LockExpired`.
    #[must_use]
    pub fn may_lose_locks(&self) -> bool {
        let locking = self.inner.locking.as_ref();
        locking.is_some_and(|locking| locking.heartbeat().as_ref().is_some_and(KeepAlive::has_ended))
    }

    /// The committed data that it reads, without its own writes.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.inner.snapshot
    }

    /// Changes how it will commit, once it has begun: what the commit timestamp must exceed, for example. client-go: the `Set…`
    /// functions of `KVTxn`.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`].
    pub fn change_commit_options(&self, change: impl FnOnce(&mut CommitOptions)) -> Result<(), Error> {
        change(self.txn().options_mut()?);
        Ok(())
    }

    /// Number of keys written, and bytes of these keys and values. client-go: `Len`, `Size`.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        self.txn().size()
    }

    /// The value of `key`, `None` if it is absent. client-go: `Get`.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], and as [`Snapshot::get`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the read.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Bytes>, Error> {
        let key = key.into();
        let buffered = self.txn().read(key.as_slice())?;
        match buffered {
            Buffered::Value(value) => Ok(Some(value)),
            Buffered::Deleted => Ok(None),
            Buffered::Unknown => self.inner.kill.run(pin!(self.inner.snapshot.get(key))).await,
        }
    }

    /// The values of those of `keys` that exist, in the order of the keys. client-go: `BatchGet`.
    ///
    /// # Errors
    ///
    /// As [`Transaction::get`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the read.
    pub async fn batch_get(&self, keys: impl IntoIterator<Item = impl Into<Key>>) -> Result<Vec<Pair>, Error> {
        let keys: Vec<Key> = keys.into_iter().map(Into::into).collect();
        let buffered = self.txn().read_many(keys.iter().cloned())?;
        let stored = match buffered.unknown.is_empty() {
            true => Vec::new(),
            false => self.inner.kill.run(pin!(self.inner.snapshot.batch_get(buffered.unknown))).await?,
        };
        let found = stored.into_iter().map(|pair| (pair.key, pair.value)).chain(buffered.found);
        let found: std::collections::BTreeMap<Key, Bytes> = found.collect();
        let pair = |key: Key| found.get(&key).cloned().map(|value| Pair { key, value });
        Ok(keys.into_iter().filter_map(pair).collect())
    }

    /// The first `limit` pairs of `range`, in order. client-go: `Iter`.
    ///
    /// # Errors
    ///
    /// As [`Transaction::get`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the read.
    pub async fn scan<K: Into<Key> + Clone>(
        &self,
        range: impl RangeBounds<K>,
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        self.scan_in(key_range(&range), Direction::Forward, limit).await
    }

    /// The last `limit` pairs of `range`, in descending order. client-go: `IterReverse`.
    ///
    /// # Errors
    ///
    /// As [`Transaction::get`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the read.
    pub async fn reverse_scan<K: Into<Key> + Clone>(
        &self,
        range: impl RangeBounds<K>,
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        self.scan_in(key_range(&range), Direction::Reverse, limit).await
    }

    /// Sets `key` to `value`, at commit. Both are copied. client-go: `Set`.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], [`Error::EmptyKey`], [`Error::EmptyValue`], [`Error::KeyTooLarge`], [`Error::EntryTooLarge`],
    /// [`Error::TxnTooLarge`]; nothing has changed then.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.txn().set(key, value)
    }

    /// Sets `key` to `value`, at commit, which fails with [`Error::KeyExists`] if the key exists then. In a pessimistic
    /// transaction it is also checked if the key is locked afterwards; [`Transaction::put_if_absent`] does both at once.
    ///
    /// # Errors
    ///
    /// As [`Transaction::put`]; [`Error::KeyExists`] if this transaction has set the key, or has locked it and knows that it
    /// exists; [`Error::InvalidLock`] if it has locked the key without asking whether it exists.
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.txn().insert(key, value)
    }

    /// Deletes `key`, whether it exists or not, at commit. client-go: `Delete`.
    ///
    /// # Errors
    ///
    /// As [`Transaction::put`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), Error> {
        self.txn().delete(key)
    }

    /// Commits. When it returns `Ok`, the transaction is committed for good and every later transaction sees it; locks on keys
    /// other than the primary may be cleared in the background.
    ///
    /// # Errors
    ///
    /// [`Error::WriteConflict`], [`Error::KeyExists`], [`Error::AssertionFailed`], [`Error::RolledBack`],
    /// [`Error::PessimisticLockLost`], [`Error::RetriesExhausted`], [`Error::DeadlineExceeded`], [`Error::CommitForbidden`],
    /// [`Error::Killed`] and others: the transaction has
    /// not committed and will not; what it locked is rolled back in the background. [`Error::InvalidLock`]: fair locking has
    /// not been ended, and the transaction is still open. [`Error::Undetermined`]: it may or may not have committed.
    /// [`Error::TxnFinished`]: it was finished before.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before the commit is decided gives it up: it is rolled back in the background if its primary was not
    /// being committed yet, and otherwise goes on without its owner. The caller then does not know the outcome. Before that, as
    /// long as it waits for a call of the same transaction that locks keys, dropping it changes nothing.
    pub async fn commit(&self) -> Result<CommitOutcome, Error> {
        let _turn = match self.turn().await {
            Ok(turn) => turn,
            Err(error) => {
                // Whatever it has locked is not needed any more.
                self.rollback()?;
                return Err(error);
            }
        };
        let conditions = self.inner.conditions.as_ref();
        let leave_out = conditions.and_then(|conditions| conditions.leave_out.as_ref());
        let check = conditions.and_then(|conditions| conditions.check.as_ref());
        let request =
            self.txn().begin_filtered_commit(|write| leave_out.is_some_and(|WriteFilter(filter)| filter(write)));
        let mut request = match request {
            Ok(request) => request,
            Err(error) => {
                self.inner.release();
                return Err(error);
            }
        };
        if let Some(deadline) = self.inner.snapshot.deadline() {
            request.options.call.deadline = deadline;
        }
        request.options.commit_ts.ask_owner = check.is_some();
        let span = tracing::debug_span!("tikv.txn", operation = "commit", start_ts = %self.start_ts());
        let end = self.inner.client().commit_in_turn(request, check, &self.inner.kill).instrument(span).await;
        self.txn().end_commit(&end);
        self.inner.keep_alive();
        end
    }

    /// Gives the transaction up. Its writes never left this process; what a pessimistic transaction has locked is released in
    /// the background. client-go: `Rollback`.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`].
    pub fn rollback(&self) -> Result<(), Error> {
        self.txn().rollback()?;
        self.inner.release();
        Ok(())
    }

    /// By which another task ends what this transaction waits for. client-go: `Variables.Killed`, `SetVars`.
    ///
    /// ```no_run
    /// # async fn example(txn: tikv::Transaction, runtime: impl tikv::Runtime) -> Result<(), tikv::Error> {
    /// use std::time::Duration;
    /// use tikv::Error;
    ///
    /// let (handle, patience) = (txn.kill_handle(), runtime.sleep(Duration::from_secs(5)));
    /// runtime.spawn(Box::pin(async move {
    ///     patience.await;
    ///     handle.kill();
    /// }));
    /// match txn.get_for_update("alice").await {
    ///     Err(Error::Killed) => txn.rollback()?,
    ///     found => println!("{:?}", found?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn kill_handle(&self) -> KillHandle {
        KillHandle::new(&self.inner)
    }

    /// Waits for other calls of this transaction that lock keys, or commit.
    pub(crate) async fn turn(&self) -> Result<async_lock::MutexGuard<'_, ()>, Error> {
        self.inner.kill.run(pin!(async { Ok(self.inner.turn.lock().await) })).await
    }

    /// Lays the own writes over the stored pairs, page by page.
    async fn scan_in(&self, range: KeyRange, direction: Direction, limit: usize) -> Result<Vec<Pair>, Error> {
        let mut pairs = Vec::new();
        let mut cursor = (!range.is_empty()).then(|| ScanCursor::new(range, direction));
        while let Some(here) = cursor.take().filter(|_| pairs.len() < limit) {
            let page = self.inner.snapshot.page(here.clone(), self.inner.snapshot.page_size());
            let (stored, next) = self.inner.kill.run(pin!(page)).await?;
            let seen = seen_range(&here, next.as_ref());
            let stored = stored.into_iter().map(|pair| (pair.key, pair.value));
            let txn = self.txn();
            if txn.state() != TxnState::Open {
                return Err(Error::TxnFinished);
            }
            let merged = txn.buffer().union(&seen, direction, stored);
            pairs.extend(merged.map(|(key, value)| Pair { key, value }));
            cursor = next;
        }
        pairs.truncate(limit);
        Ok(pairs)
    }

    pub(crate) fn txn(&self) -> MutexGuard<'_, txn::Transaction> {
        self.inner.txn()
    }
}

impl Inner {
    pub(crate) fn client(&self) -> &Client {
        self.snapshot.client()
    }

    fn txn(&self) -> MutexGuard<'_, txn::Transaction> {
        self.txn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that the locks are kept alive as long as they are needed, and no longer.
    pub(crate) fn keep_alive(&self) {
        let Some(locking) = &self.locking else { return };
        let wanted = self.txn().keep_alive();
        let mut running = locking.heartbeat();
        match wanted {
            None => *running = None,
            Some(heartbeat) if running.as_ref().is_some_and(|running| running.keeps(heartbeat.primary())) => {}
            Some(heartbeat) => *running = Some(KeepAlive::start(self.client(), heartbeat)),
        }
    }

    /// Releases, in the background, what a transaction that has ended leaves locked.
    fn release(&self) {
        let release = self.txn().release();
        self.keep_alive();
        self.spawn(release);
    }

    pub(crate) fn spawn(&self, rollback: Option<PessimisticRollback>) {
        if let Some(rollback) = rollback {
            self.client().spawn(KeyCodec::Txn, rollback);
        }
    }
}

impl Killable for Inner {
    fn kill_switch(&self) -> &KillSwitch {
        &self.kill
    }
}

impl Locking {
    fn heartbeat(&self) -> MutexGuard<'_, Option<KeepAlive>> {
        self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // If it has ended already, there may still be something to release.
        let _ = self.txn().rollback();
        self.release();
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        f.debug_struct("Transaction").field("start_ts", &self.start_ts()).field("state", &state).finish_non_exhaustive()
    }
}

/// The keys between one cursor and the next.
fn seen_range(here: &ScanCursor, next: Option<&ScanCursor>) -> KeyRange {
    let mut seen = here.rest.clone();
    if let Some(next) = next {
        match here.direction {
            Direction::Forward => seen.end = next.rest.start.clone(),
            Direction::Reverse => seen.start = next.rest.end.clone(),
        }
    }
    seen
}

impl std::fmt::Debug for WriteFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriteFilter")
    }
}

impl<T> std::fmt::Debug for Change<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Change")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the counts of its owners, and with what `malloc` writes before it.
    #[test]
    fn a_transaction_takes_less_than_a_kilobyte() {
        assert!(size_of::<Inner>() + 3 * size_of::<usize>() < 1024, "{}", size_of::<Inner>());
    }
}
