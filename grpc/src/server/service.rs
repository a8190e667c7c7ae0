//! What answers calls.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;

use super::{RequestStream, Responder};
use crate::{Metadata, Status};

/// A handler in progress. It is dropped when the client cancels the call or the connection is lost before the call is
/// answered.
pub type Handler = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Answers calls, of all methods that it knows.
///
/// A closure is a service as well. For calls with one message and one answer see [`unary`], for several methods [`Router`].
pub trait Service: Send + Sync {
    /// Takes a call. `responder` gets its answer; what is to be awaited for it belongs in the future, which runs beside all
    /// other calls of the connection.
    fn call(&self, call: IncomingCall, responder: Responder) -> Handler;
}

impl<F: Fn(IncomingCall, Responder) -> Handler + Send + Sync> Service for F {
    fn call(&self, call: IncomingCall, responder: Responder) -> Handler {
        self(call, responder)
    }
}

/// A call as it arrived.
#[derive(Debug)]
pub struct IncomingCall {
    pub(super) uri: Uri,
    /// What the client sent with the request.
    pub metadata: Metadata,
    /// How long the client is going to wait, from the arrival of the request. Not enforced here.
    pub timeout: Option<Duration>,
    /// The client's messages.
    pub requests: RequestStream,
}

impl IncomingCall {
    /// The method: `/package.Service/Method`.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The host that the client means to talk to.
    pub fn authority(&self) -> Option<&str> {
        self.uri.authority().map(http::uri::Authority::as_str)
    }
}

/// Sends each method to its own service. A method that has none is answered with `Unimplemented`.
#[derive(Clone, Default)]
pub struct Router {
    services: BTreeMap<Cow<'static, str>, Arc<dyn Service>>,
}

impl Router {
    /// No methods.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the method at `path` (`/package.Service/Method`), replacing one that was there.
    pub fn with(mut self, path: impl Into<Cow<'static, str>>, service: impl Service + 'static) -> Self {
        self.services.insert(path.into(), Arc::new(service));
        self
    }
}

impl Service for Router {
    fn call(&self, call: IncomingCall, responder: Responder) -> Handler {
        match self.services.get(call.path()) {
            Some(service) => service.call(call, responder),
            None => {
                responder.finish(Status::unimplemented(call.path()));
                // Of a future without data no box is made.
                Box::pin(std::future::ready(()))
            }
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.services.keys()).finish()
    }
}

/// A service for calls with one message and one answer.
///
/// ```
/// use std::sync::Arc;
/// use tikv_grpc::server::{Router, serve_connection, unary};
///
/// let router = Router::new().with("/echo.Echo/Echo", unary(|message| async { Ok(message) }));
/// # let io = tokio::io::duplex(64).0;
/// let connection = serve_connection(io, Arc::new(router), Default::default());
/// # drop(connection);
/// ```
pub fn unary<F, Answer>(answer: F) -> impl Service
where
    F: Fn(Bytes) -> Answer + Clone + Send + Sync + 'static,
    Answer: Future<Output = Result<Bytes, Status>> + Send,
{
    move |mut call: IncomingCall, responder: Responder| -> Handler {
        let answer = answer.clone();
        Box::pin(async move {
            responder.reply(match call.requests.single().await {
                Ok(message) => answer(message).await,
                Err(status) => Err(status),
            });
        })
    }
}
