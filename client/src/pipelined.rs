//! Transactions that are flushed while they are written.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::{AbortHandle, abortable};
use tikv_core::keyspace::KeyCodec;
use tikv_core::txn::{
    self, CommitOptions, CommitOutcome, Flush, FlushDue, Flushed, Generation, HeartbeatEnd, PipelinedCommit,
    PipelinedCommitRequest, PipelinedOptions, TxnState,
};
use tracing::Instrument;

use crate::check::CommitChecker;
use crate::kill::{KillHandle, KillSwitch, Killable};
use crate::snapshot::Snapshot;
use crate::{Client, Error, Key, Pair, Timestamp, TransactionOptions};

/// How a pipelined transaction reads, flushes and commits: made by [`TransactionOptions::pipelined`].
#[derive(Clone, Debug, Default)]
pub struct PipelinedTransactionOptions {
    pub(crate) transaction: TransactionOptions,
    pub(crate) pipelined: PipelinedOptions,
}

impl TransactionOptions {
    /// Makes it a pipelined transaction, which sends what it writes to TiKV while it is still writing; to be begun by
    /// [`Client::begin_pipelined`]. It never commits asynchronously, nor in one phase. client-go: `WithPipelinedTxn`.
    #[must_use]
    pub fn pipelined(self, pipelined: PipelinedOptions) -> PipelinedTransactionOptions {
        PipelinedTransactionOptions { transaction: self, pipelined }
    }
}

/// An optimistic transaction for bulk changes: however much it writes, it takes bounded memory. What it writes is flushed to
/// TiKV in the background, part by part, as soon as there is enough of it ([`PipelinedOptions`]); the commit flushes the rest,
/// and decides. Made by [`Client::begin_pipelined`].
///
/// Its locks stand from the flush of a key to the end of the transaction, which is kept alive meanwhile: other writers of these keys
/// wait, and readers do not. A conflict is noticed when the key is flushed. Then, and whenever anything else makes a flush fail, or
/// if the transaction cannot be kept alive, it is rolled back in the background, and every call from then on returns that error.
///
/// There are no scans, no locks on keys that are not written, and no savepoints. Cheap to clone; clones are the same transaction.
/// Reads see the transaction's own writes. Values cannot be empty.
///
/// A transaction whose last clone is dropped without a commit is rolled back in the background.
///
/// client-go: `transaction.KVTxn` with `WithPipelinedTxn`, `PipelinedMemDB`. Protocol: `docs/protocol/pipelined.md`.
///
/// ```no_run
/// # async fn example(client: tikv::Client) -> Result<(), tikv::Error> {
/// use tikv::{Error, PipelinedOptions, TransactionOptions};
///
/// let options = TransactionOptions::default().pipelined(PipelinedOptions::default());
/// let txn = client.begin_pipelined(options).await?;
/// for row in 0..10_000_000_u64 {
///     let key = format!("row/{row:08}");
///     // Flushes begin by themselves; whoever writes faster than TiKV has to wait now and then.
///     while let Err(error) = txn.put(&key, row.to_string()) {
///         match error {
///             Error::BufferFull { .. } => txn.flush_wait().await?,
///             error => return Err(error),
///         }
///     }
/// }
/// txn.commit().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PipelinedTransaction {
    inner: Arc<Inner>,
}

/// What goes when the last clone of the transaction does.
struct Inner {
    state: Arc<State>,
    snapshot: Snapshot,
    timeout: Option<Duration>,
    /// Who is asked whether it may commit.
    check: Option<CommitChecker>,
    kill: KillSwitch,
}

impl Killable for Inner {
    fn kill_switch(&self) -> &KillSwitch {
        &self.kill
    }
}

/// What the transaction shares with its flush and its heartbeat, which run beside it.
struct State {
    client: Client,
    /// Held for a look-up or a change, never across an await.
    txn: Mutex<txn::PipelinedTransaction>,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    flush: Option<AbortHandle>,
    heartbeat: Option<AbortHandle>,
    /// Who waits for the flush to end. Gone with it.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Client {
    /// Begins a pipelined transaction: see [`PipelinedTransaction`]. client-go: `Begin` with `WithPipelinedTxn`.
    ///
    /// # Errors
    ///
    /// As [`Client::current_timestamp`], and [`Error::InvalidArgument`] for options that make no sense.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the question for a timestamp; nothing has begun.
    pub async fn begin_pipelined(&self, options: PipelinedTransactionOptions) -> Result<PipelinedTransaction, Error> {
        options.pipelined.check()?;
        let (start_ts, timeout) = (options.transaction.start_ts, options.transaction.timeout);
        let start_ts = match start_ts {
            Some(start_ts) => start_ts,
            None => self.timestamp_before(timeout.map(|limit| self.shared().runtime.now() + limit)).await?,
        };
        PipelinedTransaction::new(self.clone(), start_ts, options)
    }
}

impl PipelinedTransaction {
    fn new(client: Client, start_ts: Timestamp, options: PipelinedTransactionOptions) -> Result<Self, Error> {
        let PipelinedTransactionOptions { transaction, pipelined } = options;
        let mut snapshot = Snapshot::new(client.clone(), start_ts).of_transaction();
        if let Some(change) = transaction.reads {
            snapshot = snapshot.with_options(&*change.0);
        }
        if let Some(timeout) = transaction.timeout {
            snapshot = snapshot.with_timeout(timeout);
        }
        let commit = CommitOptions::new(client.config());
        let commit = match transaction.commit {
            Some(change) => (change.0)(commit),
            None => commit,
        };
        let now = client.shared().runtime.now();
        let txn = txn::PipelinedTransaction::new(client.config(), start_ts, now, commit, pipelined)?;
        let state = Arc::new(State { client, txn: Mutex::new(txn), tasks: Mutex::default() });
        let (timeout, check) = (transaction.timeout, transaction.check);
        Ok(PipelinedTransaction {
            inner: Arc::new(Inner { state, snapshot, timeout, check, kill: KillSwitch::default() }),
        })
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

    /// The committed data that it reads, without its own writes.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.inner.snapshot
    }

    /// Number of keys written, and bytes of these keys and values; what was written again after it had been flushed counts
    /// twice. client-go: `Len`, `Size`.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        self.txn().size()
    }

    /// The value of `key`, `None` if it is absent. Asks TiKV what was flushed of it, unless that is known. client-go: `Get`.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], what has ended the transaction, [`Error::Killed`], and as [`Snapshot::get`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the read.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Bytes>, Error> {
        let pairs = self.batch_get([key]).await?;
        Ok(pairs.into_iter().next().map(|pair| pair.value))
    }

    /// The values of those of `keys` that exist, in the order of the keys. What was flushed of them is remembered until the next
    /// flush. client-go: `BatchGet`.
    ///
    /// # Errors
    ///
    /// As [`PipelinedTransaction::get`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the read.
    pub async fn batch_get(&self, keys: impl IntoIterator<Item = impl Into<Key>>) -> Result<Vec<Pair>, Error> {
        let keys: Vec<Key> = keys.into_iter().map(Into::into).collect();
        let request = self.txn().begin_read(keys.iter().cloned())?;
        let end = self.inner.kill.run(pin!(self.inner.snapshot.read_own(request))).await?;
        self.txn().end_read(&end);
        let found = end.result?.into_iter().map(|pair| (pair.key, pair.value.bytes));
        let found: BTreeMap<Key, Bytes> = found.collect();
        let pair = |key: Key| found.get(&key).cloned().map(|value| Pair { key, value });
        Ok(keys.into_iter().filter_map(pair).collect())
    }

    /// Sets `key` to `value`. Begins a flush in the background when there is enough to be flushed. client-go: `Set`.
    ///
    /// # Errors
    ///
    /// [`Error::BufferFull`]: the buffer is at its limit, and the flush before has not ended; to be tried again after
    /// [`PipelinedTransaction::flush_wait`]. [`Error::EmptyKey`], [`Error::EmptyValue`], [`Error::KeyTooLarge`],
    /// [`Error::EntryTooLarge`], [`Error::Killed`]. Nothing has changed then. [`Error::TxnFinished`], and what has ended the
    /// transaction.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.write(|txn| txn.set(key, value))
    }

    /// Sets `key` to `value`. That the key is absent is checked when it is flushed; if it is not, the transaction ends with
    /// [`Error::KeyExists`].
    ///
    /// # Errors
    ///
    /// As [`PipelinedTransaction::put`]; [`Error::KeyExists`] if this transaction has just set the key.
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.write(|txn| txn.insert(key, value))
    }

    /// Deletes `key`, whether it exists or not. client-go: `Delete`.
    ///
    /// # Errors
    ///
    /// As [`PipelinedTransaction::put`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), Error> {
        self.write(|txn| txn.delete(key))
    }

    /// Begins to flush what is buffered, however little, as soon as the flush before has ended; returns whether there was
    /// anything. Only [`PipelinedTransaction::flush_wait`] tells whether it succeeds. client-go: `Flush(true)`.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], [`Error::Killed`], and what has ended the transaction: the failure of the flush before, say.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing: either the flush has begun, and goes on in the background, or it has not.
    pub async fn flush(&self) -> Result<bool, Error> {
        loop {
            self.flush_wait().await?;
            let begun = self.inner.state.begin_flush(&mut self.txn());
            match begun {
                Ok(true) => return Ok(true),
                // Another call was faster.
                Ok(false) if self.txn().is_flushing() => {}
                Ok(false) => return Ok(false),
                Err(error) => {
                    self.inner.state.release();
                    return Err(error);
                }
            }
        }
    }

    /// Waits until no flush runs. client-go: `FlushWait`.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`], and what has ended the transaction. A flush fails as a commit does: [`Error::WriteConflict`],
    /// [`Error::KeyExists`], [`Error::AssertionFailed`], [`Error::RolledBack`], [`Error::RetriesExhausted`], [`Error::Killed`] and
    /// others.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn flush_wait(&self) -> Result<(), Error> {
        loop {
            self.inner.kill.check()?;
            let ended = {
                let txn = self.txn();
                txn.check_open()?;
                if !txn.is_flushing() {
                    return Ok(());
                }
                self.inner.state.end_of_flush()
            };
            // Its sender is dropped in any case.
            let ended = async {
                let _ = ended.await;
                Ok(())
            };
            self.inner.kill.run(pin!(ended)).await?;
        }
    }

    /// Commits: waits for the flush that runs, flushes what is left, and commits the primary. When it returns `Ok`, the transaction
    /// is committed for good and every later transaction sees it; its locks are resolved in the background.
    ///
    /// # Errors
    ///
    /// Those of [`PipelinedTransaction::flush_wait`], [`Error::TxnTooOld`], [`Error::DeadlineExceeded`] and others: the transaction
    /// has not committed and will not; what it has flushed is rolled back in the background. [`Error::Undetermined`]: it may or
    /// may not have committed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future while a flush runs changes nothing. Dropping it later gives the transaction up, as for
    /// [`Transaction::commit`](crate::Transaction::commit).
    pub async fn commit(&self) -> Result<CommitOutcome, Error> {
        let deadline = self.inner.timeout.map(|timeout| self.inner.state.client.shared().runtime.now() + timeout);
        let request = match self.begin_commit().await {
            Err(Error::Killed) => {
                // Whatever it has flushed is not needed any more.
                self.rollback()?;
                return Err(Error::Killed);
            }
            begun => begun?,
        };
        let request = match deadline {
            Some(deadline) => request.with_deadline(deadline),
            None => request,
        };
        let check = self.inner.check.clone();
        let request = if check.is_some() { request.asking_owner() } else { request };
        // The commit has a heartbeat of its own.
        self.inner.state.stop();
        let span = tracing::debug_span!("tikv.txn", operation = "commit", start_ts = %self.start_ts());
        let commit = self.inner.state.client.drive(KeyCodec::Txn, PipelinedCommit::new(request));
        let mut commit = commit.checked_by(check);
        let end = self.inner.kill.run_commit(&mut commit).instrument(span).await;
        self.txn().end_commit(&end);
        end
    }

    /// By which another task ends what this transaction waits for, as for
    /// [`Transaction::kill_handle`](crate::Transaction::kill_handle). A killed transaction takes no more writes. The flush that
    /// runs goes on in the background. client-go: `Variables.Killed`.
    #[must_use]
    pub fn kill_handle(&self) -> KillHandle {
        KillHandle::new(&self.inner)
    }

    /// Gives the transaction up. What it has flushed is rolled back in the background. client-go: `Rollback`.
    ///
    /// # Errors
    ///
    /// [`Error::TxnFinished`].
    pub fn rollback(&self) -> Result<(), Error> {
        self.txn().rollback()?;
        self.inner.state.release();
        Ok(())
    }

    async fn begin_commit(&self) -> Result<PipelinedCommitRequest, Error> {
        loop {
            self.flush_wait().await?;
            let mut txn = self.txn();
            // Another clone may have begun one.
            if txn.is_flushing() {
                continue;
            }
            let begun = txn.begin_commit();
            if begun.is_err() {
                drop(txn);
                self.inner.state.release();
            }
            return begun;
        }
    }

    fn write(&self, write: impl FnOnce(&mut txn::PipelinedTransaction) -> Result<(), Error>) -> Result<(), Error> {
        self.inner.kill.check()?;
        write(&mut self.txn())?;
        self.inner.state.flush_if_due();
        Ok(())
    }

    fn txn(&self) -> MutexGuard<'_, txn::PipelinedTransaction> {
        self.inner.state.txn()
    }
}

impl State {
    fn txn(&self) -> MutexGuard<'_, txn::PipelinedTransaction> {
        self.txn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush_if_due(self: &Arc<Self>) {
        let failed = {
            let mut txn = self.txn();
            txn.flush_due() == FlushDue::Now && self.begin_flush(&mut txn).is_err()
        };
        if failed {
            // Whoever uses the transaction next is told.
            self.release();
        }
    }

    /// Whether there was anything to flush, and no flush ran. Nobody can give the transaction up in between.
    fn begin_flush(self: &Arc<Self>, txn: &mut txn::PipelinedTransaction) -> Result<bool, Error> {
        let generation = txn.begin_flush()?;
        let begins = generation.is_some();
        generation.into_iter().for_each(|generation| self.start_flush(generation));
        Ok(begins)
    }

    fn start_flush(self: &Arc<Self>, generation: Generation) {
        let span = tracing::debug_span!("tikv.txn", operation = "flush", generation = generation.number());
        let flush = self.client.drive(KeyCodec::Txn, Flush::new(generation));
        let (flush, task) = abortable(flush.instrument(span));
        self.tasks().flush = Some(task);
        let state = Arc::clone(self);
        self.client.shared().runtime.spawn(Box::pin(async move {
            if let Ok(end) = flush.await {
                state.on_flushed(&end);
            }
        }));
    }

    fn on_flushed(self: &Arc<Self>, end: &Result<Flushed, Error>) {
        {
            let mut txn = self.txn();
            txn.end_flush(end);
            self.keep_alive(&txn);
        }
        if end.is_err() {
            self.release();
        }
        self.wake_all();
        self.flush_if_due();
    }

    /// From the first flush on.
    fn keep_alive(self: &Arc<Self>, txn: &txn::PipelinedTransaction) {
        let mut tasks = self.tasks();
        let Some(heartbeat) = txn.keep_alive().filter(|_| tasks.heartbeat.is_none()) else { return };
        let (beats, task) = abortable(self.client.drive(KeyCodec::Txn, heartbeat));
        tasks.heartbeat = Some(task);
        let state = Arc::clone(self);
        self.client.shared().runtime.spawn(Box::pin(async move {
            if let Ok(end) = beats.await {
                state.on_heartbeat_end(end);
            }
        }));
    }

    fn on_heartbeat_end(&self, end: HeartbeatEnd) {
        tracing::warn!(?end, "a pipelined transaction is no longer kept alive");
        self.txn().end_keep_alive(end);
        self.release();
    }

    /// Told when the flush that runs has ended, or is given up.
    fn end_of_flush(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.tasks().waiting.push(sender);
        receiver
    }

    fn wake_all(&self) {
        let waiting = std::mem::take(&mut self.tasks().waiting);
        drop(waiting);
    }

    /// Stops what runs beside the transaction.
    fn stop(&self) {
        let Tasks { flush, heartbeat, waiting } = std::mem::take(&mut *self.tasks());
        flush.into_iter().chain(heartbeat).for_each(|task| task.abort());
        drop(waiting);
    }

    /// Has what a transaction that has ended without a commit has flushed rolled back in the background.
    fn release(&self) {
        let finish = self.txn().release();
        if self.txn().state() != TxnState::RolledBack {
            return;
        }
        self.stop();
        if let Some(finish) = finish {
            self.client.spawn(KeyCodec::Txn, finish);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // If it has ended already, there may still be something to release.
        let _ = self.state.txn().rollback();
        self.state.release();
    }
}

impl std::fmt::Debug for PipelinedTransaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (state, size) = (self.state(), self.size());
        let mut shown = f.debug_struct("PipelinedTransaction");
        shown.field("start_ts", &self.start_ts()).field("state", &state).field("size", &size).finish_non_exhaustive()
    }
}
