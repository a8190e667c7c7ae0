//! The HTTP request that a call is.

use std::borrow::Cow;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme as HttpScheme};
use http::{Method, Request, Uri, Version};

use crate::call::write_timeout;
use crate::compression::Encoding;
use crate::{Call, Error, ErrorKind, Options, Scheme};

/// What all requests of a connection have in common.
#[derive(Debug)]
pub(super) struct Template {
    scheme: HttpScheme,
    authority: Authority,
    user_agent: HeaderValue,
    encoding: Encoding,
}

impl Template {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let user_agent = HeaderValue::from_str(&options.user_agent);
        Ok(Self {
            scheme: match options.scheme {
                Scheme::Http => HttpScheme::HTTP,
                Scheme::Https => HttpScheme::HTTPS,
            },
            authority: authority(&options.authority)?,
            user_agent: user_agent.map_err(|_| invalid(format!("user agent `{}`", options.user_agent)))?,
            encoding: options.compression,
        })
    }

    pub(super) fn request(&self, call: Call) -> Result<Request<()>, Error> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.path_and_query = Some(path(call.path)?);
        parts.authority = Some(match &call.authority {
            None => self.authority.clone(),
            Some(name) => authority(name)?,
        });
        let uri = Uri::from_parts(parts).map_err(|error| invalid(error.to_string()))?;

        let mut headers = call.metadata.into_headers();
        self.write_headers(&mut headers);
        if let Some(timeout) = call.timeout {
            write_timeout(timeout, &mut headers);
        }

        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn write_headers(&self, headers: &mut HeaderMap) {
        headers.reserve(6);
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(USER_AGENT, self.user_agent.clone());
        self.encoding.announce(headers);
    }
}

fn path(path: Cow<'static, str>) -> Result<PathAndQuery, Error> {
    if !path.starts_with('/') {
        return Err(invalid(format!("the path `{path}` does not start with `/`")));
    }
    let parsed = match path {
        Cow::Borrowed(path) => PathAndQuery::from_maybe_shared(bytes::Bytes::from_static(path.as_bytes())),
        Cow::Owned(path) => PathAndQuery::try_from(path),
    };
    parsed.map_err(|error| invalid(format!("path: {error}")))
}

fn authority(name: &str) -> Result<Authority, Error> {
    name.parse().map_err(|_| invalid(format!("`{name}` is no authority")))
}

fn invalid(reason: String) -> Error {
    Error::before_sending(ErrorKind::InvalidCall(reason))
}
