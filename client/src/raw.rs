//! Raw keys: single keys, batches and ranges without transactions.

use std::ops::RangeBounds;
use std::time::Duration;

use bytes::Bytes;
use tikv_core::keyspace::KeyCodec;
use tikv_core::machine::Machine;
use tikv_core::raw::{self, ChecksumTotal, Pair, RawOptions, RawPair, ScanOptions, Swapped, Ttl};
use tracing::Instrument;
use tracing::instrument::Instrumented;

use crate::driver::Operation;
use crate::range::key_range;
use crate::{Client, Direction, Error, Key};

/// Access to raw keys. Cheap to clone.
///
/// Keys written here and keys written in transactions live in the same store but must not be mixed: use disjoint ranges, or
/// separate clusters.
///
/// Every call retries what can be retried (region changes, busy or lost stores) within a budget of about 40 s, or until
/// [`RawClient::with_timeout`]. Dropping the future of a read forgets it; a write whose future is dropped may or may not
/// happen.
///
/// client-go: `rawkv.Client`.
///
/// ```no_run
/// # async fn example(client: tikv::Client) -> Result<(), tikv::Error> {
/// let raw = client.raw();
/// raw.put("apple", "red").await?;
/// assert_eq!(raw.get("apple").await?.as_deref(), Some(&b"red"[..]));
/// for pair in raw.scan("a".."b", 100).await? {
///     println!("{:?} = {:?}", pair.key, pair.value);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RawClient {
    client: Client,
    options: RawOptions,
    timeout: Option<Duration>,
}

impl RawClient {
    pub(crate) fn new(client: Client) -> Self {
        let options = RawOptions::new(client.config());
        RawClient { client, options, timeout: None }
    }

    /// The same client on another column family: `default`, `lock` or `write`. client-go: `SetColumnFamily`.
    #[must_use]
    pub fn with_column_family(mut self, column_family: impl Into<String>) -> Self {
        self.options.column_family = column_family.into();
        self
    }

    /// The same client whose puts and deletes are atomic with respect to [`RawClient::compare_and_swap`]. client-go:
    /// `SetAtomicForCAS`.
    #[must_use]
    pub fn with_atomic(mut self, atomic: bool) -> Self {
        self.options.atomic = atomic;
        self
    }

    /// The same client, each of whose calls ends after `timeout` at the latest.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The value of `key`, `None` if it is absent. An empty value is a value. client-go: `Get`.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyKey`], [`Error::KeyTooLarge`]; [`Error::RetriesExhausted`], [`Error::DeadlineExceeded`],
    /// [`Error::Refused`].
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Bytes>, Error> {
        let machine = raw::get(self.client.config(), key.into(), &self.options())?;
        self.run("raw_get", machine).await
    }

    /// The remaining life of `key`, `None` if it is absent. client-go: `GetKeyTTL`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::get`].
    pub async fn get_key_ttl(&self, key: impl Into<Key>) -> Result<Option<Ttl>, Error> {
        let machine = raw::get_key_ttl(self.client.config(), key.into(), &self.options())?;
        self.run("raw_get_key_ttl", machine).await
    }

    /// Writes `value` to `key`. client-go: `Put`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::get`]. After [`Error::RetriesExhausted`] or [`Error::DeadlineExceeded`] the value may have been
    /// written.
    pub async fn put(&self, key: impl Into<Key>, value: impl Into<Bytes>) -> Result<(), Error> {
        let machine = raw::put(self.client.config(), key.into(), value.into(), None, &self.options())?;
        self.run("raw_put", machine).await
    }

    /// Writes `value` to `key` for `ttl` (whole seconds, rounded up). The cluster must have TTLs enabled. client-go:
    /// `PutWithTTL`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::put`].
    pub async fn put_with_ttl(&self, key: impl Into<Key>, value: impl Into<Bytes>, ttl: Duration) -> Result<(), Error> {
        let machine = raw::put(self.client.config(), key.into(), value.into(), Some(ttl), &self.options())?;
        self.run("raw_put", machine).await
    }

    /// Deletes `key`, whether it is there or not. client-go: `Delete`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::put`].
    pub async fn delete(&self, key: impl Into<Key>) -> Result<(), Error> {
        let machine = raw::delete(self.client.config(), key.into(), &self.options())?;
        self.run("raw_delete", machine).await
    }

    /// The values of `keys` in their order, `None` where absent. client-go: `BatchGet`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::get`].
    pub async fn batch_get(&self, keys: impl IntoIterator<Item = impl Into<Key>>) -> Result<Vec<Option<Bytes>>, Error> {
        let keys = keys.into_iter().map(Into::into).collect();
        let machine = raw::batch_get(self.client.config(), keys, &self.options())?;
        self.run("raw_batch_get", machine).await
    }

    /// Writes pairs; of equal keys the last counts. Not atomic: after an error, some may have been written. client-go:
    /// `BatchPut`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::put`].
    pub async fn batch_put(
        &self,
        pairs: impl IntoIterator<Item = (impl Into<Key>, impl Into<Bytes>)>,
    ) -> Result<(), Error> {
        self.batch_put_with_ttl(pairs.into_iter().map(|(key, value)| (key, value, None))).await
    }

    /// [`RawClient::batch_put`] with a life for each pair (whole seconds, rounded up; `None` for ever). client-go:
    /// `BatchPutWithTTL`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::put`].
    pub async fn batch_put_with_ttl(
        &self,
        pairs: impl IntoIterator<Item = (impl Into<Key>, impl Into<Bytes>, Option<Duration>)>,
    ) -> Result<(), Error> {
        let pair = |(key, value, ttl): (_, _, _)| RawPair { key: Into::into(key), value: Into::into(value), ttl };
        let pairs = pairs.into_iter().map(pair).collect();
        let machine = raw::batch_put(self.client.config(), pairs, &self.options())?;
        self.run("raw_batch_put", machine).await
    }

    /// Deletes `keys`, there or not. Not atomic: after an error, some may have been deleted. client-go: `BatchDelete`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::put`].
    pub async fn batch_delete(&self, keys: impl IntoIterator<Item = impl Into<Key>>) -> Result<(), Error> {
        let keys = keys.into_iter().map(Into::into).collect();
        let machine = raw::batch_delete(self.client.config(), keys, &self.options())?;
        self.run("raw_batch_delete", machine).await
    }

    /// The first `limit` pairs of `range`, in order. client-go: `Scan`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::get`]; [`Error::InvalidArgument`] if `limit` is above 10,240 (by default).
    pub async fn scan<K: Into<Key> + Clone>(&self, range: impl RangeBounds<K>, limit: u32) -> Result<Vec<Pair>, Error> {
        self.scan_with(range, ScanOptions { limit, direction: Direction::Forward, key_only: false }).await
    }

    /// The last `limit` pairs of `range`, in descending order. client-go: `ReverseScan`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::scan`].
    pub async fn reverse_scan<K: Into<Key> + Clone>(
        &self,
        range: impl RangeBounds<K>,
        limit: u32,
    ) -> Result<Vec<Pair>, Error> {
        self.scan_with(range, ScanOptions { limit, direction: Direction::Reverse, key_only: false }).await
    }

    /// A scan with all its options.
    ///
    /// # Errors
    ///
    /// As [`RawClient::scan`].
    pub async fn scan_with<K: Into<Key> + Clone>(
        &self,
        range: impl RangeBounds<K>,
        scan: ScanOptions,
    ) -> Result<Vec<Pair>, Error> {
        let machine = raw::scan(self.client.config(), key_range(&range), scan, &self.options())?;
        self.run("raw_scan", machine).await
    }

    /// Deletes all keys of `range`, region by region. Not atomic: after an error, a part may have been deleted. An empty key
    /// as the end means no end. client-go: `DeleteRange` (which does nothing from the empty key to the empty key).
    ///
    /// # Errors
    ///
    /// As [`RawClient::put`].
    pub async fn delete_range<K: Into<Key> + Clone>(&self, range: impl RangeBounds<K>) -> Result<(), Error> {
        let machine = raw::delete_range(self.client.config(), key_range(&range), &self.options());
        self.run("raw_delete_range", machine).await
    }

    /// Checksum and size of `range`. client-go: `Checksum`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::get`].
    pub async fn checksum<K: Into<Key> + Clone>(&self, range: impl RangeBounds<K>) -> Result<ChecksumTotal, Error> {
        let machine = raw::checksum(self.client.config(), key_range(&range), &self.options());
        self.run("raw_checksum", machine).await
    }

    /// Writes `new` to `key` if its value is `previous` (`None`: if it is absent), and tells what was there. Needs
    /// [`RawClient::with_atomic`]. client-go: `CompareAndSwap`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::get`]; [`Error::InvalidArgument`] without the atomic mode; [`Error::UndeterminedWrite`] if an attempt
    /// brought no answer: a repetition would compare with its own value, so there is none.
    pub async fn compare_and_swap(
        &self,
        key: impl Into<Key>,
        previous: Option<Bytes>,
        new: impl Into<Bytes>,
    ) -> Result<Swapped, Error> {
        let machine = raw::compare_and_swap(self.client.config(), key.into(), previous, new.into(), &self.options())?;
        self.run("raw_compare_and_swap", machine).await
    }

    fn options(&self) -> RawOptions {
        let mut options = self.options.clone();
        if let Some(timeout) = self.timeout {
            options.call.deadline = self.client.shared().runtime.now() + timeout;
        }
        options
    }

    fn run<M>(&self, name: &'static str, machine: M) -> Instrumented<Operation<M>>
    where
        M: Machine + Send + 'static,
        M::Output: Send,
    {
        self.client.drive(KeyCodec::Raw, machine).instrument(tracing::debug_span!("tikv.raw", operation = name))
    }
}
