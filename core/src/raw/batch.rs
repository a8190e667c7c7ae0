//! Many keys, grouped by region, all batches at once.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use tikv_proto::kvrpcpb;

use super::RawOptions;
use super::point::{refusal, ttl_seconds};
use crate::backoff::{Backoff, budget};
use crate::config::Config;
use crate::error::{Error, check_key};
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::machine::{Context, Event, Machine, Token};
use crate::request::StoreRequest;
use crate::route::{self, InOrder, Keyed, RegionCall, Shard, ShardCall, ShardReply, Sharded};
use crate::time::Time;

/// Writes pairs; not atomic across regions. client-go: `rawkv.Client.BatchPut`, `BatchPutWithTTL`.
pub type BatchPut = Batch<kvrpcpb::RawBatchPutRequest>;
/// Deletes keys; not atomic across regions. client-go: `rawkv.Client.BatchDelete`.
pub type BatchDelete = Batch<kvrpcpb::RawBatchDeleteRequest>;

/// A pair to write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RawPair {
    /// The key.
    pub key: Key,
    /// The value; may be empty.
    pub value: Bytes,
    /// How long the pair lives (whole seconds, rounded up); `None` for ever.
    pub ttl: Option<Duration>,
}

/// A [`BatchGet`] of `keys`, which may repeat.
///
/// # Errors
///
/// [`Error::EmptyKey`], [`Error::KeyTooLarge`].
pub fn batch_get(config: &Config, keys: Vec<Key>, options: &RawOptions) -> Result<BatchGet, Error> {
    keys.iter().try_for_each(|key| check_key(key.as_slice()))?;
    let len = keys.len();
    let wanted = keys.into_iter().enumerate().map(|(place, key)| WantedKey { key, places: smallvec![place] });
    let mut wanted: Vec<_> = wanted.collect();
    wanted.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    wanted.dedup_by(|again, first| {
        let is_same = again.key == first.key;
        if is_same {
            first.places.append(&mut again.places);
        }
        is_same
    });
    Ok(BatchGet { len, batch: Batch::new(config, wanted, config.raw.batch_keys, options) })
}

/// A [`BatchPut`] of `pairs`. Of pairs with equal keys the last counts.
///
/// # Errors
///
/// [`Error::EmptyKey`], [`Error::KeyTooLarge`].
pub fn batch_put(config: &Config, pairs: Vec<RawPair>, options: &RawOptions) -> Result<BatchPut, Error> {
    pairs.iter().try_for_each(|pair| check_key(pair.key.as_slice()))?;
    let last: BTreeMap<Key, RawPair> = pairs.into_iter().map(|pair| (pair.key.clone(), pair)).collect();
    Ok(Batch::new(config, last.into_values().collect(), config.raw.batch_put_bytes, options))
}

/// A [`BatchDelete`] of `keys`, present or not.
///
/// # Errors
///
/// [`Error::EmptyKey`], [`Error::KeyTooLarge`].
pub fn batch_delete(config: &Config, mut keys: Vec<Key>, options: &RawOptions) -> Result<BatchDelete, Error> {
    keys.iter().try_for_each(|key| check_key(key.as_slice()))?;
    keys.sort();
    keys.dedup();
    Ok(Batch::new(config, keys, config.raw.batch_keys, options))
}

/// Values in the order of the keys, `None` where absent. client-go: `rawkv.Client.BatchGet`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchGet {
    /// How many keys were asked for.
    len: usize,
    batch: Batch<kvrpcpb::RawBatchGetRequest>,
}

/// A key to be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WantedKey {
    key: Key,
    /// Where the answer is to have its value: one place for each time that the key was asked for.
    places: SmallVec<[usize; 1]>,
}

impl Keyed for WantedKey {
    fn key(&self) -> &Key {
        &self.key
    }
}

/// Many keys, grouped by region. Every batch is tried, whatever becomes of the others; the first error is reported when
/// all have ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch<R: BatchRequest> {
    sharded: Sharded<BatchShard<R>>,
    collected: R::Collected,
    error: Option<Error>,
}

/// A raw request for many keys, and what its response means.
pub trait BatchRequest: StoreRequest {
    /// What is distributed over regions.
    type Item: Keyed + Clone + Debug + Eq + Hash;
    /// What the responses add up to.
    type Collected: Default + Clone + Debug + Eq + Hash;

    /// The request for `items`.
    fn of(items: &[Self::Item], options: &RawOptions) -> Self;

    /// How much of a batch an item fills.
    fn weight(item: &Self::Item) -> usize {
        let _ = item;
        1
    }

    /// Adds the response to the request for `items`, which are in the order of their keys; `Err` is TiKV's refusal in words.
    ///
    /// # Errors
    ///
    /// TiKV's words.
    fn collect(items: &[Self::Item], response: Self::Response, collected: &mut Self::Collected) -> Result<(), String>;
}

/// How a batch is divided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchShard<R> {
    options: RawOptions,
    limit: usize,
    request: PhantomData<R>,
}

impl<R: BatchRequest> Shard for BatchShard<R> {
    type Item = R::Item;
    type Output = ShardReply<R::Item, R::Response>;
    type Child = ShardCall<R, R::Item>;

    fn child(
        &self,
        _: &mut Context<'_>,
        region: Arc<Region>,
        items: Vec<R::Item>,
        backoff: Backoff,
        is_retry: bool,
    ) -> Self::Child {
        let request = R::of(&items, &self.options);
        let call = RegionCall::to_region(region, request, self.options.call.clone(), backoff).as_retry(is_retry);
        ShardCall::new(items, call)
    }

    fn weight(&self, item: &R::Item) -> usize {
        R::weight(item)
    }

    fn batch_limit(&self) -> usize {
        self.limit
    }

    fn deadline(&self) -> Time {
        self.options.call.deadline
    }
}

impl<R: BatchRequest> Batch<R> {
    fn new(config: &Config, items: Vec<R::Item>, limit: usize, options: &RawOptions) -> Self {
        let shard = BatchShard { options: options.clone(), limit, request: PhantomData };
        let mut sharded = Sharded::new(shard, config.operation_concurrency);
        sharded.add(items, route::budget(config, budget::RAW), false);
        Batch { sharded, collected: R::Collected::default(), error: None }
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> Poll<Result<R::Collected, Error>> {
        while let Some(reply) = self.sharded.next_finished(cx) {
            if let Err(error) = reply.map_err(Error::from).and_then(|reply| self.take(reply)) {
                self.error.get_or_insert(error);
            }
        }
        if !self.sharded.is_idle() {
            return Poll::Pending;
        }
        Poll::Ready(self.error.take().map_or_else(|| Ok(std::mem::take(&mut self.collected)), Err))
    }

    fn take(&mut self, reply: ShardReply<R::Item, R::Response>) -> Result<(), Error> {
        R::collect(&reply.items, reply.result?, &mut self.collected).map_err(|message| Error::Refused {
            operation: R::FACTS.name,
            address: reply.address,
            message: message.into(),
        })
    }
}

impl<R: BatchRequest> Machine for Batch<R> {
    type Output = Result<R::Collected, Error>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.sharded.run(cx);
        self.collect(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        self.sharded.handle(cx, token, event);
        self.collect(cx)
    }
}

impl BatchGet {
    fn align(&self, found: Vec<(usize, Bytes)>) -> Vec<Option<Bytes>> {
        let mut values = vec![None; self.len];
        for (place, value) in found {
            values[place] = Some(value);
        }
        values
    }
}

impl Machine for BatchGet {
    type Output = Result<Vec<Option<Bytes>>, Error>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.batch.start(cx).map_ok(|found| self.align(found))
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        self.batch.handle(cx, token, event).map_ok(|found| self.align(found))
    }
}

impl BatchRequest for kvrpcpb::RawBatchGetRequest {
    type Item = WantedKey;
    /// Values and their places.
    type Collected = Vec<(usize, Bytes)>;

    fn of(wanted: &[WantedKey], options: &RawOptions) -> Self {
        let keys = wanted.iter().map(|wanted| wanted.key.to_bytes()).collect();
        kvrpcpb::RawBatchGetRequest { keys, cf: options.column_family.clone(), ..Default::default() }
    }

    fn collect(
        wanted: &[WantedKey],
        response: kvrpcpb::RawBatchGetResponse,
        found: &mut Vec<(usize, Bytes)>,
    ) -> Result<(), String> {
        let mut wanted = InOrder::new(wanted);
        for pair in response.pairs {
            // What nobody asked for interests nobody.
            let places = wanted.find(&pair.key).map_or(&[][..], |wanted| &wanted.places);
            found.extend(places.iter().map(|place| (*place, pair.value.clone())));
        }
        Ok(())
    }
}

impl BatchRequest for kvrpcpb::RawBatchPutRequest {
    type Item = RawPair;
    type Collected = ();

    fn of(pairs: &[RawPair], options: &RawOptions) -> Self {
        let ttls: Vec<_> = pairs.iter().map(|pair| ttl_seconds(pair.ttl)).collect();
        let all_forever = ttls.iter().all(|ttl| *ttl == 0);
        let pairs = pairs.iter().map(|pair| kvrpcpb::KvPair {
            key: pair.key.to_bytes(),
            value: pair.value.clone(),
            ..Default::default()
        });
        kvrpcpb::RawBatchPutRequest {
            pairs: pairs.collect(),
            ttls: if all_forever { Vec::new() } else { ttls },
            cf: options.column_family.clone(),
            for_cas: options.atomic,
            ..Default::default()
        }
    }

    fn weight(pair: &RawPair) -> usize {
        pair.key.len() + pair.value.len()
    }

    fn collect(_: &[RawPair], response: kvrpcpb::RawBatchPutResponse, (): &mut ()) -> Result<(), String> {
        refusal(response.error)
    }
}

impl BatchRequest for kvrpcpb::RawBatchDeleteRequest {
    type Item = Key;
    type Collected = ();

    fn of(keys: &[Key], options: &RawOptions) -> Self {
        let keys = keys.iter().map(Key::to_bytes).collect();
        kvrpcpb::RawBatchDeleteRequest {
            keys,
            cf: options.column_family.clone(),
            for_cas: options.atomic,
            ..Default::default()
        }
    }

    fn collect(_: &[Key], response: kvrpcpb::RawBatchDeleteResponse, (): &mut ()) -> Result<(), String> {
        refusal(response.error)
    }
}

impl Keyed for RawPair {
    fn key(&self) -> &Key {
        &self.key
    }
}
