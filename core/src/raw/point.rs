//! One key, one RPC.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tikv_proto::kvrpcpb;

use super::RawOptions;
use crate::backoff::budget;
use crate::canary::Canary;
use crate::config::Config;
use crate::error::{Error, check_key};
use crate::key::Key;
use crate::machine::{Context, Event, Machine, Token};
use crate::request::KeyedRequest;
use crate::route::{self, CallEnd, CallError, RegionCall};

/// Value of a key, `None` if absent. An empty value is a value. client-go: `rawkv.Client.Get`.
pub type Get = Point<kvrpcpb::RawGetRequest>;
/// Writes a key. client-go: `rawkv.Client.Put`, `PutWithTTL`.
pub type Put = Point<kvrpcpb::RawPutRequest>;
/// Deletes a key, present or not. client-go: `rawkv.Client.Delete`.
pub type Delete = Point<kvrpcpb::RawDeleteRequest>;
/// Remaining life of a key. client-go: `rawkv.Client.GetKeyTTL`.
pub type GetKeyTtl = Point<kvrpcpb::RawGetKeyTtlRequest>;
/// Writes a key if it has an expected value. client-go: `rawkv.Client.CompareAndSwap`.
pub type CompareAndSwap = Point<kvrpcpb::RawCasRequest>;

/// A [`Get`] of `key`.
///
/// # Errors
///
/// [`Error::EmptyKey`], [`Error::KeyTooLarge`].
pub fn get(config: &Config, key: Key, options: &RawOptions) -> Result<Get, Error> {
    let request =
        kvrpcpb::RawGetRequest { key: key.into_bytes(), cf: options.column_family.clone(), ..Default::default() };
    Point::new(config, request, options)
}

/// A [`Put`] of `key`. The pair lives for `ttl` (whole seconds, rounded up), or for ever.
///
/// # Errors
///
/// [`Error::EmptyKey`], [`Error::KeyTooLarge`].
pub fn put(config: &Config, key: Key, value: Bytes, ttl: Option<Duration>, options: &RawOptions) -> Result<Put, Error> {
    let request = kvrpcpb::RawPutRequest {
        key: key.into_bytes(),
        value,
        ttl: ttl_seconds(ttl),
        cf: options.column_family.clone(),
        for_cas: options.atomic,
        ..Default::default()
    };
    Point::new(config, request, options)
}

/// A [`Delete`] of `key`.
///
/// # Errors
///
/// [`Error::EmptyKey`], [`Error::KeyTooLarge`].
pub fn delete(config: &Config, key: Key, options: &RawOptions) -> Result<Delete, Error> {
    let request = kvrpcpb::RawDeleteRequest {
        key: key.into_bytes(),
        cf: options.column_family.clone(),
        for_cas: options.atomic,
        ..Default::default()
    };
    Point::new(config, request, options)
}

/// A [`GetKeyTtl`] of `key`.
///
/// # Errors
///
/// [`Error::EmptyKey`], [`Error::KeyTooLarge`].
pub fn get_key_ttl(config: &Config, key: Key, options: &RawOptions) -> Result<GetKeyTtl, Error> {
    let request =
        kvrpcpb::RawGetKeyTtlRequest { key: key.into_bytes(), cf: options.column_family.clone(), ..Default::default() };
    Point::new(config, request, options)
}

/// A [`CompareAndSwap`] of `key`: `new` is written if the value is `previous` (`None`: if the key is absent). An attempt
/// that brought no answer is not repeated, since the repetition would compare with its own value: the outcome is then
/// [`Error::UndeterminedWrite`].
///
/// # Errors
///
/// [`Error::InvalidArgument`] without [`RawOptions::atomic`]; [`Error::EmptyKey`], [`Error::KeyTooLarge`].
pub fn compare_and_swap(
    config: &Config,
    key: Key,
    previous: Option<Bytes>,
    new: Bytes,
    options: &RawOptions,
) -> Result<CompareAndSwap, Error> {
    if !options.atomic {
        return Err(Error::InvalidArgument(Arc::from("compare_and_swap requires the atomic mode")));
    }
    let request = kvrpcpb::RawCasRequest {
        key: key.into_bytes(),
        value: new,
        previous_not_exist: previous.is_none(),
        previous_value: previous.unwrap_or_default(),
        cf: options.column_family.clone(),
        ..Default::default()
    };
    let mut point = Point::new(config, request, options)?;
    if !config.has_canary(Canary::SwapsRepeated) {
        point.call = point.call.at_most_once();
    }
    Ok(point)
}

/// Whole seconds, rounded up: a life that TiKV does not take for "for ever".
pub(super) fn ttl_seconds(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| (ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1))
}

/// One RPC for one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Point<R> {
    call: RegionCall<R>,
}

/// Remaining life of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ttl {
    /// This much.
    Remaining(Duration),
    /// It never expires.
    Forever,
}

/// The outcome of a [`CompareAndSwap`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Swapped {
    /// Whether the new value was written.
    pub swapped: bool,
    /// The value before, `None` if the key was absent.
    pub previous: Option<Bytes>,
}

/// A raw request for one key, and what its response means.
pub trait PointRequest: KeyedRequest {
    /// What the response means.
    type Output;

    /// Reads the response; `Err` is TiKV's refusal in words.
    ///
    /// # Errors
    ///
    /// TiKV's words.
    fn output(response: Self::Response) -> Result<Self::Output, String>;
}

impl<R: PointRequest> Point<R> {
    fn new(config: &Config, request: R, options: &RawOptions) -> Result<Self, Error> {
        check_key(request.key())?;
        let backoff = route::budget(config, budget::RAW);
        let call = RegionCall::to_key(request, options.call.clone(), backoff);
        Ok(Point { call })
    }

    fn end(&self, mut end: CallEnd<R::Response>) -> Result<R::Output, Error> {
        let operation = R::FACTS.name;
        let undetermined = matches!(end.result, Err(CallError::Undetermined(_)));
        let store = end.store.take();
        match end.into_result(operation) {
            Ok(response) => R::output(response).map_err(|message| {
                let address = store.map_or_else(|| Arc::from(""), |store| Arc::clone(&store.address));
                Error::Refused { operation, address, message: message.into() }
            }),
            Err(cause) if undetermined => {
                let key = self.call.request().key().clone().into();
                Err(Error::UndeterminedWrite { key, cause: Box::new(cause) })
            }
            Err(error) => Err(error),
        }
    }
}

impl<R: PointRequest> Machine for Point<R> {
    type Output = Result<R::Output, Error>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.call.start(cx).map(|end| self.end(end))
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        self.call.handle(cx, token, event).map(|end| self.end(end))
    }
}

impl PointRequest for kvrpcpb::RawGetRequest {
    type Output = Option<Bytes>;

    fn output(response: kvrpcpb::RawGetResponse) -> Result<Option<Bytes>, String> {
        refusal(response.error)?;
        Ok((!response.not_found).then_some(response.value))
    }
}

impl PointRequest for kvrpcpb::RawPutRequest {
    type Output = ();

    fn output(response: kvrpcpb::RawPutResponse) -> Result<(), String> {
        refusal(response.error)
    }
}

impl PointRequest for kvrpcpb::RawDeleteRequest {
    type Output = ();

    fn output(response: kvrpcpb::RawDeleteResponse) -> Result<(), String> {
        refusal(response.error)
    }
}

impl PointRequest for kvrpcpb::RawGetKeyTtlRequest {
    type Output = Option<Ttl>;

    fn output(response: kvrpcpb::RawGetKeyTtlResponse) -> Result<Option<Ttl>, String> {
        refusal(response.error)?;
        Ok(match response {
            kvrpcpb::RawGetKeyTtlResponse { not_found: true, .. } => None,
            kvrpcpb::RawGetKeyTtlResponse { ttl: 0, .. } => Some(Ttl::Forever),
            kvrpcpb::RawGetKeyTtlResponse { ttl, .. } => Some(Ttl::Remaining(Duration::from_secs(ttl))),
        })
    }
}

impl PointRequest for kvrpcpb::RawCasRequest {
    type Output = Swapped;

    fn output(response: kvrpcpb::RawCasResponse) -> Result<Swapped, String> {
        refusal(response.error)?;
        let previous = (!response.previous_not_exist).then_some(response.previous_value);
        Ok(Swapped { swapped: response.succeed, previous })
    }
}

pub(super) fn refusal(error: String) -> Result<(), String> {
    if error.is_empty() { Ok(()) } else { Err(error) }
}
