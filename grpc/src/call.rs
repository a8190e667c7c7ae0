//! What a call says before its first message.

mod timeout;

use std::borrow::Cow;
use std::time::Duration;

use crate::Metadata;

pub(crate) use timeout::{read_timeout, write_timeout};

/// A call to a method, without its messages.
///
/// ```
/// use std::time::Duration;
/// use tikv_grpc::Call;
///
/// let mut call = Call::new("/tikvpb.Tikv/KvGet").with_timeout(Duration::from_secs(20));
/// call.metadata.insert("tikv-forwarded-host", "10.0.0.7:20160")?;
/// # Ok::<(), tikv_grpc::InvalidMetadata>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `/package.Service/Method`.
    pub path: Cow<'static, str>,
    /// Sent with the request.
    pub metadata: Metadata,
    /// How long the call may take, from now to its status. Told to the server (`grpc-timeout`), and enforced on this side
    /// where the connection has a [`Clock`](crate::Clock), by whoever waits for the call's answer. None by default.
    pub timeout: Option<Duration>,
    /// The host that the request names, where it is not [`Options::authority`](crate::Options::authority).
    pub authority: Option<String>,
}

impl Call {
    /// A call to the method at `path` (`/package.Service/Method`).
    pub fn new(path: impl Into<Cow<'static, str>>) -> Self {
        Self { path: path.into(), metadata: Metadata::new(), timeout: None, authority: None }
    }

    /// Limits the time that the call may take.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends metadata with the request.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }
}
