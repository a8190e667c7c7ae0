//! Reading requests and telling faults apart.

use std::fmt::Write;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tikv::{Error, Key};

/// How long one command may take when the request does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The fields of an answer, or why there are none.
pub(crate) type Outcome = Result<Value, Fault>;

/// An error as the protocol has it.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Fault { kind: "other", message: message.into() }
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Fault { kind: "unsupported", message: message.into() }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault { kind: kind_of(&error), message: error.to_string() }
    }
}

fn kind_of(error: &Error) -> &'static str {
    match error {
        error if error.is_undetermined() => "undetermined",
        error if error.is_timeout() => "timeout",
        Error::Pd(_) => "other",
        error if error.is_retryable() => "conflict",
        _ => "other",
    }
}

/// Where a scan begins and ends.
pub(crate) type Range = (Bound<Key>, Bound<Key>);

/// One line from stdin.
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) cmd: String,
    fields: Value,
}

impl Request {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let fields: Value = serde_json::from_str(line).ok()?;
        Some(Request { id: fields["id"].as_u64()?, cmd: fields["cmd"].as_str()?.to_owned(), fields })
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.fields["timeout_ms"].as_u64().map_or(DEFAULT_TIMEOUT, Duration::from_millis)
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.fields[name].as_str().unwrap_or_default()
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.fields[name].as_u64().unwrap_or_default()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.fields[name].as_bool().unwrap_or_default()
    }

    pub(crate) fn key(&self) -> Result<Key, Fault> {
        Ok(self.bytes("key")?.into())
    }

    pub(crate) fn bytes(&self, name: &str) -> Result<Bytes, Fault> {
        self.optional_bytes(name)?.ok_or_else(|| Fault::other(format!("{name} is missing")))
    }

    /// `None` where the field is null or absent.
    pub(crate) fn optional_bytes(&self, name: &str) -> Result<Option<Bytes>, Fault> {
        match &self.fields[name] {
            Value::Null => Ok(None),
            value => decode(value).map(Some),
        }
    }

    pub(crate) fn keys(&self) -> Result<Vec<Key>, Fault> {
        self.fields["keys"].as_array().into_iter().flatten().map(|key| Ok(decode(key)?.into())).collect()
    }

    pub(crate) fn pairs(&self) -> Result<Vec<(Key, Bytes)>, Fault> {
        let pairs = self.fields["pairs"].as_array().into_iter().flatten();
        pairs.map(|pair| Ok((decode(&pair[0])?.into(), decode(&pair[1])?))).collect()
    }

    pub(crate) fn range(&self) -> Result<Range, Fault> {
        let start = Bound::Included(self.bytes("start")?.into());
        let end = match self.bytes("end")? {
            end if end.is_empty() => Bound::Unbounded,
            end => Bound::Excluded(end.into()),
        };
        Ok((start, end))
    }

    pub(crate) fn limit(&self) -> u32 {
        u32::try_from(self.number("limit")).unwrap_or(u32::MAX)
    }
}

/// Bytes as they go over the wire.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn decode(value: &Value) -> Result<Bytes, Fault> {
    let digits = value.as_str().unwrap_or("?").as_bytes();
    let bytes = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
        _ => None,
    });
    bytes.collect::<Option<Vec<u8>>>().map(Bytes::from).ok_or_else(|| Fault::other("hex expected"))
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
