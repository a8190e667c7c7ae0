//! Reads at one timestamp.

use std::collections::VecDeque;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tikv_core::keyspace::KeyCodec;
use tikv_core::machine::Machine;
use tikv_core::snapshot::{BatchGet, Get, Read, ReadThrough, ScanCursor, ScanPage, SnapshotOptions, Value};
use tikv_core::txn::{OwnRead, OwnReadEnd, OwnReadRequest};
use tracing::Instrument;

use crate::range::key_range;
use crate::{Client, Direction, Error, Key, KeyRange, Pair, Time, Timestamp};

/// A consistent view of all transactional keys at one timestamp. Cheap to clone; clones share what was learnt about locks.
///
/// Made by [`Client::snapshot`]. Every read retries what can be retried within a budget of about 40 s, or until
/// [`Snapshot::with_timeout`]; where the lock of another transaction is in the way, it finds out what became of that
/// transaction, and waits for it if it is alive. Reads change nothing: dropping a future forgets the read.
///
/// client-go: `txnsnapshot.KVSnapshot`.
pub struct Snapshot {
    client: Client,
    options: SnapshotOptions,
    timeout: Option<Duration>,
    /// Shared by clones; none as long as nothing is known, and nobody to share it with.
    read_through: OnceLock<Arc<Mutex<ReadThrough>>>,
}

impl Snapshot {
    pub(crate) fn new(client: Client, read_ts: Timestamp) -> Self {
        let options = SnapshotOptions::new(read_ts, client.config());
        Snapshot { client, options, timeout: None, read_through: OnceLock::new() }
    }

    /// The same snapshot with other options: isolation, priority, commit timestamps, tags.
    #[must_use]
    pub fn with_options(mut self, change: impl FnOnce(SnapshotOptions) -> SnapshotOptions) -> Self {
        let read_ts = self.options.read_ts;
        self.options = change(self.options);
        self.options.read_ts = read_ts;
        self
    }

    /// The same snapshot, each of whose reads ends after `timeout` at the latest.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The timestamp it reads at.
    #[must_use]
    pub fn read_ts(&self) -> Timestamp {
        self.options.read_ts
    }

    /// The value of `key`, `None` if it is absent. client-go: `Get`.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyKey`], [`Error::KeyTooLarge`]; [`Error::RetriesExhausted`], [`Error::DeadlineExceeded`],
    /// [`Error::Refused`]; with [`Isolation::ReadCommittedCheckTs`](crate::Isolation) also [`Error::WriteConflict`].
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Bytes>, Error> {
        Ok(self.get_value(key).await?.map(|value| value.bytes))
    }

    /// [`Snapshot::get`] with the commit timestamp, if [`SnapshotOptions::need_commit_ts`] is set.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::get`].
    pub async fn get_value(&self, key: impl Into<Key>) -> Result<Option<Value>, Error> {
        self.read("get", |options| Get::new(self.client.config(), key.into(), options, self.known())).await
    }

    /// The values of those of `keys` that exist, in the order of the keys. client-go: `BatchGet`.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::get`].
    pub async fn batch_get(&self, keys: impl IntoIterator<Item = impl Into<Key>>) -> Result<Vec<Pair>, Error> {
        let keys = keys.into_iter().map(Into::into).collect();
        let machine = |options| BatchGet::new(self.client.config(), keys, options, self.known());
        let pairs = self.read("batch_get", machine).await?;
        Ok(plain(pairs))
    }

    /// The first `limit` pairs of `range`, in order. client-go: `Iter`.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::get`].
    pub async fn scan<K: Into<Key> + Clone>(
        &self,
        range: impl RangeBounds<K>,
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        self.stream(key_range(&range), Direction::Forward).collect(limit).await
    }

    /// The last `limit` pairs of `range`, in descending order. client-go: `IterReverse`.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::get`].
    pub async fn reverse_scan<K: Into<Key> + Clone>(
        &self,
        range: impl RangeBounds<K>,
        limit: usize,
    ) -> Result<Vec<Pair>, Error> {
        self.stream(key_range(&range), Direction::Reverse).collect(limit).await
    }

    /// The pairs of `range` one after the other, read page by page. client-go: `Iter`, `IterReverse`.
    #[must_use]
    pub fn stream(&self, range: KeyRange, direction: Direction) -> ScanStream {
        let cursor = (!range.is_empty()).then(|| ScanCursor::new(range, direction));
        ScanStream { snapshot: self.clone(), cursor, page: VecDeque::new() }
    }

    /// The snapshot of a transaction that has locks on TiKV: they hide nothing from it.
    pub(crate) fn of_transaction(self) -> Self {
        let read_through = ReadThrough::new(self.read_ts()).of_transaction(self.read_ts());
        *self.shared() = read_through;
        self
    }

    /// What a pipelined transaction reads: over this snapshot, what it has written.
    pub(crate) async fn read_own(&self, request: OwnReadRequest) -> Result<OwnReadEnd, Error> {
        let deadline = self.deadline();
        self.check_read_ts(deadline).await?;
        let span = tracing::debug_span!("tikv.txn", operation = "batch_get", start_ts = %self.options.read_ts);
        let machine = OwnRead::new(request, self.options(deadline), self.known());
        let end = self.client.drive(KeyCodec::Txn, machine).instrument(span).await;
        self.learn(&end.read_through);
        Ok(end)
    }

    /// The next page of a scan: the pairs, and where to go on.
    pub(crate) async fn page(&self, cursor: ScanCursor, limit: u32) -> Result<(Vec<Pair>, Option<ScanCursor>), Error> {
        let machine = |options| ScanPage::new(self.client.config(), cursor, limit, options, self.known());
        let page = self.read("scan", machine).await?;
        Ok((plain(page.pairs), page.next))
    }

    pub(crate) fn page_size(&self) -> u32 {
        self.options.scan_batch_size.max(1)
    }

    /// The machine is made here, where it stays: it need not be moved to get here.
    async fn read<T, M>(&self, operation: &'static str, machine: impl FnOnce(SnapshotOptions) -> M) -> Result<T, Error>
    where
        T: Send,
        M: Machine<Output = Read<T>> + Send + 'static,
    {
        let deadline = self.deadline();
        self.check_read_ts(deadline).await?;
        let span = tracing::debug_span!("tikv.snapshot", operation, read_ts = %self.options.read_ts);
        let mut running = self.client.drive(KeyCodec::Txn, machine(self.options(deadline)));
        let read = (&mut running).instrument(span).await;
        self.learn(&read.read_through);
        read.result
    }

    /// Refuses a timestamp that PD has not given yet: TiKV would make all later commits exceed it. PD is asked only if nothing
    /// as new has been seen before.
    async fn check_read_ts(&self, deadline: Option<Time>) -> Result<(), Error> {
        let read_ts = self.options.read_ts;
        let newest = self.client.shared().knowledge(KeyCodec::Txn).clock.newest();
        if read_ts == Timestamp::MAX || newest.is_some_and(|newest| read_ts <= newest) {
            return Ok(());
        }
        if read_ts > self.client.timestamp_before(deadline).await? {
            return Err(Error::InvalidArgument(format!("a read at {read_ts}, which PD has not given yet").into()));
        }
        Ok(())
    }

    fn options(&self, deadline: Option<Time>) -> SnapshotOptions {
        let mut options = self.options.clone();
        if let Some(deadline) = deadline {
            options.call.deadline = deadline;
        }
        options
    }

    /// When a call that begins now has to end.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.timeout.map(|limit| self.client.shared().runtime.now() + limit)
    }

    /// A snapshot without special options at another timestamp, with the same time limit.
    pub(crate) fn plain_at(&self, read_ts: Timestamp) -> Self {
        Snapshot { timeout: self.timeout, ..Snapshot::new(self.client.clone(), read_ts) }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    fn known(&self) -> ReadThrough {
        match self.read_through.get() {
            Some(_) => self.shared().clone(),
            None => ReadThrough::new(self.read_ts()),
        }
    }

    fn learn(&self, read_through: &ReadThrough) {
        if !read_through.is_empty() {
            self.shared().learn(read_through);
        }
    }

    fn shared(&self) -> MutexGuard<'_, ReadThrough> {
        self.to_share().lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to_share(&self) -> &Arc<Mutex<ReadThrough>> {
        self.read_through.get_or_init(|| Arc::new(Mutex::new(ReadThrough::new(self.read_ts()))))
    }
}

impl Clone for Snapshot {
    fn clone(&self) -> Self {
        Snapshot {
            client: self.client.clone(),
            options: self.options.clone(),
            timeout: self.timeout,
            read_through: Arc::clone(self.to_share()).into(),
        }
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("read_ts", &self.options.read_ts).finish_non_exhaustive()
    }
}

/// The pairs of a range, read page by page.
///
/// ```no_run
/// # async fn example(client: tikv::Client) -> Result<(), tikv::Error> {
/// use tikv::{Direction, KeyRange};
///
/// let mut pairs = client.snapshot().await?.stream(KeyRange::new("user/", "user0"), Direction::Forward);
/// while let Some(pair) = pairs.next().await? {
///     println!("{:?}", pair.key);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ScanStream {
    snapshot: Snapshot,
    /// What is not yet read; `None` at the end.
    cursor: Option<ScanCursor>,
    page: VecDeque<Pair>,
}

impl ScanStream {
    /// The next pair; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::get`]. The stream can be asked again, and then goes on where it was.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped: the page that was being read is read again.
    pub async fn next(&mut self) -> Result<Option<Pair>, Error> {
        let size = self.snapshot.page_size();
        self.fill(size).await?;
        Ok(self.page.pop_front())
    }

    async fn fill(&mut self, limit: u32) -> Result<(), Error> {
        while self.page.is_empty() {
            let Some(cursor) = self.cursor.clone() else { return Ok(()) };
            let (pairs, next) = self.snapshot.page(cursor, limit).await?;
            self.page.extend(pairs);
            self.cursor = next;
        }
        Ok(())
    }

    async fn collect(mut self, limit: usize) -> Result<Vec<Pair>, Error> {
        let mut pairs = Vec::new();
        while pairs.len() < limit {
            let missing = u32::try_from(limit - pairs.len()).unwrap_or(u32::MAX);
            self.fill(missing.min(self.snapshot.page_size())).await?;
            if self.page.is_empty() {
                break;
            }
            pairs.extend(self.page.drain(..));
        }
        pairs.truncate(limit);
        Ok(pairs)
    }
}

fn plain(pairs: Vec<tikv_core::snapshot::Pair>) -> Vec<Pair> {
    pairs.into_iter().map(|pair| Pair { key: pair.key, value: pair.value.bytes }).collect()
}
