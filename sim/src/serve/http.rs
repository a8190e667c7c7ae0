//! HTTP/1, for what PD and stores tell and take in JSON.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// The longest body that is read.
const LONGEST_BODY_BYTES: usize = 1 << 20;

/// What answers requests.
pub(super) trait HttpService: Send + Sync {
    fn answer(&self, request: &HttpRequest) -> HttpAnswer;
}

/// A request as it has arrived.
#[derive(Debug)]
pub(super) struct HttpRequest {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) body: Bytes,
}

impl HttpRequest {
    /// The parts of the path.
    pub(super) fn path(&self) -> Vec<&str> {
        self.uri.path().split('/').filter(|part| !part.is_empty()).collect()
    }

    /// The parameters after the path. None of those that matter here needs an escape.
    pub(super) fn parameters(&self) -> BTreeMap<&str, &str> {
        let pairs = self.uri.query().unwrap_or_default().split('&');
        pairs.filter_map(|pair| pair.split_once('=')).collect()
    }
}

/// A status, and what is said beside it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HttpAnswer {
    status: StatusCode,
    body: Option<Value>,
}

impl HttpAnswer {
    /// Success without a word.
    pub(super) const DONE: HttpAnswer = HttpAnswer { status: StatusCode::OK, body: None };
    /// There is no such path.
    pub(super) const NOT_FOUND: HttpAnswer = HttpAnswer { status: StatusCode::NOT_FOUND, body: None };
    /// The path is served, but for other methods.
    pub(super) const WRONG_METHOD: HttpAnswer = HttpAnswer { status: StatusCode::METHOD_NOT_ALLOWED, body: None };

    pub(super) fn json(body: Value) -> Self {
        HttpAnswer { status: StatusCode::OK, body: Some(body) }
    }

    pub(super) fn failed(status: StatusCode, message: impl Into<String>) -> Self {
        HttpAnswer { status, body: Some(Value::String(message.into())) }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let body = self.body.map_or_else(Bytes::new, |body| body.to_string().into());
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
        response
    }
}

/// Answers what comes on a connection, until the client leaves.
pub(super) async fn serve_connection(stream: TcpStream, service: Arc<dyn HttpService>) -> Result<(), hyper::Error> {
    let answer = service_fn(move |request| answer(service.clone(), request));
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await
}

async fn answer(service: Arc<dyn HttpService>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    // Who sends more than this is not answered but cut off.
    let body = Limited::new(body, LONGEST_BODY_BYTES).collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(service.answer(&HttpRequest { method: head.method, uri: head.uri, body }).into_response())
}
