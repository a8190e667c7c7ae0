//! Under what a request is sent.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::take;
use std::sync::Arc;

use bytes::BufMut;
use prost::Message;
use prost::encoding::{bool, int32, message, uint32, uint64};
use tikv_proto::metapb;

use super::RequestContext;

/// Region, epoch, peer and options of a request. It means what a [`RequestContext`] means, and costs less to copy and to
/// encode: only what changes from call to call, or from transaction to transaction, has a field. The rest is shared by all
/// that is sent under the same settings, and has been encoded once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CallContext {
    /// The region; zero until routing has found it.
    pub region_id: u64,
    /// Its epoch.
    pub region_epoch: Option<metapb::RegionEpoch>,
    /// The replica that is asked.
    pub peer: Option<metapb::Peer>,
    /// How TiKV ranks the request: a [`CommandPri`](tikv_proto::kvrpcpb::CommandPri).
    pub priority: i32,
    /// Whether to write when disks are (almost) full: a [`DiskFullOpt`](tikv_proto::kvrpcpb::DiskFullOpt).
    pub disk_full_opt: i32,
    /// How long TiKV may work on it; zero for a limit of TiKV's own.
    pub max_execution_duration_ms: u64,
    /// Where the transaction comes from, for change data capture.
    pub txn_source: u64,
    /// The store may refuse a read that would wait longer; zero for never.
    pub busy_threshold_ms: u32,
    /// Whether TiKV syncs its log for this.
    pub sync_log: bool,
    /// Whether a follower may answer, with what the leader would say.
    pub replica_read: bool,
    /// Whether any replica may answer, with what it has already.
    pub stale_read: bool,
    /// Whether the same may have been asked before.
    pub is_retry_request: bool,
    /// None if no other field of the message is set, so that there is one way only to write a context.
    rest: Option<Arc<Rest>>,
}

/// The fields of a message that have none in [`CallContext`].
struct Rest {
    message: RequestContext,
    encoded: Box<[u8]>,
}

impl CallContext {
    /// The same, changed as a message: for fields that are not here. Dearer than to set one that is.
    #[must_use]
    pub fn updated(self, update: impl FnOnce(&mut RequestContext)) -> Self {
        let mut message = self.to_message();
        update(&mut message);
        CallContext::from(message)
    }

    /// The context as a message.
    #[must_use]
    pub fn to_message(&self) -> RequestContext {
        self.rest().map_or_else(|| self.over(RequestContext::default()), |rest| self.over(rest.clone()))
    }

    /// A message with all that has no field here; `None` if none of it is set.
    #[must_use]
    pub fn rest(&self) -> Option<&RequestContext> {
        self.rest.as_ref().map(|rest| &rest.message)
    }

    /// Length in bytes of the message.
    pub(super) fn encoded_len(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.encoded.len()) + self.fields_len()
    }

    /// Appends the message. That fields do not come in the order of their numbers means nothing to its readers.
    pub(super) fn encode_raw(&self, space: &mut &mut [u8]) {
        if let Some(rest) = &self.rest {
            space.put_slice(&rest.encoded);
        }
        self.encode_fields(space);
    }
}

impl Rest {
    fn of(message: RequestContext) -> Option<Arc<Rest>> {
        let encoded = message.encode_to_vec().into_boxed_slice();
        (!encoded.is_empty()).then(|| Arc::new(Rest { message, encoded }))
    }
}

/// What has to be said of each field: its number and its type in `kvrpcpb.Context`.
macro_rules! fields {
    ($($number:literal $name:ident: $kind:ident,)+; $($message_number:literal $message:ident,)+) => {
        impl CallContext {
            fn fields_len(&self) -> usize {
                $((if self.$name == Default::default() { 0 } else { $kind::encoded_len($number, &self.$name) }) +)+
                $(self.$message.as_ref().map_or(0, |field| message::encoded_len($message_number, field)) +)+
                0
            }

            fn encode_fields(&self, space: &mut &mut [u8]) {
                $(if self.$name != Default::default() {
                    $kind::encode($number, &self.$name, space);
                })+
                $(if let Some(field) = &self.$message {
                    message::encode($message_number, field, space);
                })+
            }

            /// The message with the fields that are here.
            fn over(&self, message: RequestContext) -> RequestContext {
                RequestContext { $($name: self.$name,)+ $($message: self.$message,)+ ..message }
            }
        }

        impl From<RequestContext> for CallContext {
            fn from(mut message: RequestContext) -> Self {
                CallContext {
                    $($name: take(&mut message.$name),)+
                    $($message: take(&mut message.$message),)+
                    rest: Rest::of(message),
                }
            }
        }
    };
}

fields! {
    1 region_id: uint64,
    6 priority: int32,
    9 sync_log: bool,
    12 replica_read: bool,
    14 max_execution_duration_ms: uint64,
    17 stale_read: bool,
    19 disk_full_opt: int32,
    20 is_retry_request: bool,
    25 txn_source: uint64,
    27 busy_threshold_ms: uint32,
    ;
    2 region_epoch,
    3 peer,
}

impl PartialEq for Rest {
    fn eq(&self, other: &Self) -> bool {
        self.message == other.message
    }
}

impl Eq for Rest {}

impl Hash for Rest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.message.hash(state);
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}
