//! The plainest child of [`Sharded`](super::Sharded): one RPC for the items of a region.

use std::sync::Arc;
use std::task::Poll;

use super::region_call::{CallEnd, CallError, RegionCall};
use super::sharded::ShardEnd;
use crate::error::Error;
use crate::machine::{Context, Event, Machine, Token};
use crate::request::StoreRequest;

/// One RPC for items of one region; the items are handed back if the region has changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShardCall<R, I> {
    items: Vec<I>,
    call: RegionCall<R>,
}

/// The answer to a [`ShardCall`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShardReply<I, T> {
    /// The items that were asked for.
    pub items: Vec<I>,
    /// The response.
    pub result: Result<T, Error>,
    /// The store that answered, or was asked last.
    pub address: Arc<str>,
}

impl<R: StoreRequest, I> ShardCall<R, I> {
    /// `call` must be a call to the region that holds `items`.
    pub fn new(items: Vec<I>, call: RegionCall<R>) -> Self {
        ShardCall { items, call }
    }

    fn end(&mut self, end: CallEnd<R::Response>) -> ShardEnd<I, ShardReply<I, R::Response>> {
        let items = std::mem::take(&mut self.items);
        if let Err(CallError::Relocate(_)) = end.result {
            return ShardEnd::Relocate { items, backoff: end.backoff };
        }
        let address = end.address().map_or_else(|| Arc::from(""), Arc::clone);
        ShardEnd::Done(ShardReply { items, result: end.into_result(R::FACTS.name), address })
    }
}

impl<R: StoreRequest, I> Machine for ShardCall<R, I> {
    type Output = ShardEnd<I, ShardReply<I, R::Response>>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.call.start(cx).map(|end| self.end(end))
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        self.call.handle(cx, token, event).map(|end| self.end(end))
    }
}
