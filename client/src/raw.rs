//! Raw keys: single keys, batches and ranges without transactions.

use std::borrow::Cow;
use std::ops::RangeBounds;
use std::time::Duration;

use bytes::Bytes;
use tikv_core::config::Config;
use tikv_core::keyspace::KeyCodec;
use tikv_core::machine::Machine;
use tikv_core::raw::{self, ChecksumTotal, Pair, RawOptions, RawPair, ScanOptions, Swapped, Ttl};
use tracing::Instrument;

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
        self.run("raw_get", |config, options| raw::get(config, key.into(), options)).await
    }

    /// The remaining life of `key`, `None` if it is absent. client-go: `GetKeyTTL`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::get`].
    pub async fn get_key_ttl(&self, key: impl Into<Key>) -> Result<Option<Ttl>, Error> {
        self.run("raw_get_key_ttl", |config, options| raw::get_key_ttl(config, key.into(), options)).await
    }

    /// Writes `value` to `key`. client-go: `Put`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::get`]. After [`Error::RetriesExhausted`] or [`Error::DeadlineExceeded`] the value may have been
    /// written.
    pub async fn put(&self, key: impl Into<Key>, value: impl Into<Bytes>) -> Result<(), Error> {
        self.run("raw_put", |config, options| raw::put(config, key.into(), value.into(), None, options)).await
    }

    /// Writes `value` to `key` for `ttl` (whole seconds, rounded up). The cluster must have TTLs enabled. client-go:
    /// `PutWithTTL`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::put`].
    pub async fn put_with_ttl(&self, key: impl Into<Key>, value: impl Into<Bytes>, ttl: Duration) -> Result<(), Error> {
        self.run("raw_put", |config, options| raw::put(config, key.into(), value.into(), Some(ttl), options)).await
    }

    /// Deletes `key`, whether it is there or not. client-go: `Delete`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::put`].
    pub async fn delete(&self, key: impl Into<Key>) -> Result<(), Error> {
        self.run("raw_delete", |config, options| raw::delete(config, key.into(), options)).await
    }

    /// The values of `keys` in their order, `None` where absent. client-go: `BatchGet`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::get`].
    pub async fn batch_get(&self, keys: impl IntoIterator<Item = impl Into<Key>>) -> Result<Vec<Option<Bytes>>, Error> {
        let keys = keys.into_iter().map(Into::into).collect();
        self.run("raw_batch_get", |config, options| raw::batch_get(config, keys, options)).await
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
        self.run("raw_batch_put", |config, options| raw::batch_put(config, pairs, options)).await
    }

    /// Deletes `keys`, there or not. Not atomic: after an error, some may have been deleted. client-go: `BatchDelete`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::put`].
    pub async fn batch_delete(&self, keys: impl IntoIterator<Item = impl Into<Key>>) -> Result<(), Error> {
        let keys = keys.into_iter().map(Into::into).collect();
        self.run("raw_batch_delete", |config, options| raw::batch_delete(config, keys, options)).await
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
        self.run("raw_scan", |config, options| raw::scan(config, key_range(&range), scan, options)).await
    }

    /// Deletes all keys of `range`, region by region. Not atomic: after an error, a part may have been deleted. An empty key
    /// as the end means no end. client-go: `DeleteRange` (which does nothing from the empty key to the empty key).
    ///
    /// # Errors
    ///
    /// As [`RawClient::put`].
    pub async fn delete_range<K: Into<Key> + Clone>(&self, range: impl RangeBounds<K>) -> Result<(), Error> {
        self.run("raw_delete_range", |config, options| Ok(raw::delete_range(config, key_range(&range), options))).await
    }

    /// Checksum and size of `range`. client-go: `Checksum`.
    ///
    /// # Errors
    ///
    /// As [`RawClient::get`].
    pub async fn checksum<K: Into<Key> + Clone>(&self, range: impl RangeBounds<K>) -> Result<ChecksumTotal, Error> {
        self.run("raw_checksum", |config, options| Ok(raw::checksum(config, key_range(&range), options))).await
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
        self.run("raw_compare_and_swap", |config, options| {
            raw::compare_and_swap(config, key.into(), previous, new.into(), options)
        })
        .await
    }

    /// The machine is made here, where it stays: it need not be moved to get here.
    async fn run<T, M>(
        &self,
        name: &'static str,
        machine: impl FnOnce(&Config, &RawOptions) -> Result<M, Error>,
    ) -> Result<T, Error>
    where
        T: Send,
        M: Machine<Output = Result<T, Error>> + Send + 'static,
    {
        let mut running = self.client.drive(KeyCodec::Raw, machine(self.client.config(), &self.options())?);
        (&mut running).instrument(tracing::debug_span!("tikv.raw", operation = name)).await
    }

    fn options(&self) -> Cow<'_, RawOptions> {
        let Some(timeout) = self.timeout else { return Cow::Borrowed(&self.options) };
        let mut options = self.options.clone();
        options.call.deadline = self.client.shared().runtime.now() + timeout;
        Cow::Owned(options)
    }
}
