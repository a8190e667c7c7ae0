//! Callers who look at the RPCs that their operations send.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tikv_core::error::Fault;
use tikv_core::machine::Call;
use tikv_core::request::{CallContext, RequestContext, RequestKind, Response};
use tikv_core::time::Time;

/// Sees the RPCs to stores, before they are sent and when they have ended: to count them, to time them, to tag them.
///
/// [`Client::with_interceptor`](crate::Client::with_interceptor) says whose. Questions to PD are not shown. Both methods are
/// called on the task of the operation, and hold it up for as long as they take.
///
/// client-go: `interceptor.RPCInterceptor`, with which an RPC can also be kept from being sent; here, tests order such faults
/// from the simulated cluster.
pub trait Interceptor: Send + Sync + 'static {
    /// An RPC is about to be sent. Its context may be changed, but for region, epoch and peer, which have to be true.
    fn before(&self, rpc: &mut OutgoingRpc<'_>) {
        let _ = rpc;
    }

    /// An RPC has ended.
    fn after(&self, rpc: &EndedRpc<'_>) {
        let _ = rpc;
    }
}

/// An RPC that is about to be sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct OutgoingRpc<'a> {
    /// What is asked.
    pub request: RequestKind,
    /// The store.
    pub store_id: u64,
    /// Where the store listens.
    pub address: &'a str,
    /// The options that go with it: priority, source, resource group.
    pub context: &'a mut RequestContext,
}

/// An RPC that has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct EndedRpc<'a> {
    /// What was asked.
    pub request: RequestKind,
    /// The store.
    pub store_id: u64,
    /// Where the store listens.
    pub address: &'a str,
    /// How long it took.
    pub elapsed: Duration,
    /// The answer, or what came instead; `None` if nobody waits for it any more.
    pub reply: Option<Result<&'a Response, &'a Fault>>,
}

/// Those who look, the outermost first. Most operations have none.
#[derive(Clone, Default)]
pub(crate) struct Interceptors(Option<Arc<[Arc<dyn Interceptor>]>>);

/// An RPC that somebody looks at, until it has ended.
pub(crate) struct Watched {
    by: Arc<[Arc<dyn Interceptor>]>,
    request: RequestKind,
    store_id: u64,
    address: Arc<str>,
    since: Time,
}

impl Interceptors {
    /// The same and one more, inside all others.
    pub(crate) fn with(&self, interceptor: Arc<dyn Interceptor>) -> Self {
        let known = self.0.iter().flat_map(|known| known.iter().cloned());
        Interceptors(Some(known.chain([interceptor]).collect()))
    }

    /// Shows them a call that is about to be sent.
    pub(crate) fn before(&self, now: Time, call: &mut Call) -> Option<Box<Watched>> {
        let by = self.0.as_ref()?;
        let Call { store_id, address, context, request, .. } = call;
        let (request, mut message) = (request.kind(), context.to_message());
        let mut rpc = OutgoingRpc { request, store_id: *store_id, address, context: &mut message };
        by.iter().for_each(|one| one.before(&mut rpc));
        *context = CallContext::from(message);
        let (by, store_id, address) = (Arc::clone(by), *store_id, Arc::clone(address));
        Some(Box::new(Watched { by, request, store_id, address, since: now }))
    }
}

impl Watched {
    /// Shows them how it ended, from the inside out.
    pub(crate) fn after(&self, now: Time, reply: Option<Result<&Response, &Fault>>) {
        let Watched { by, request, store_id, address, since } = self;
        let elapsed = now.saturating_since(*since);
        let ended = EndedRpc { request: *request, store_id: *store_id, address, elapsed, reply };
        by.iter().rev().for_each(|one| one.after(&ended));
    }
}

impl fmt::Debug for Interceptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} interceptors", self.0.as_ref().map_or(0, |known| known.len()))
    }
}
