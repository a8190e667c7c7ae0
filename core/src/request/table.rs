//! The table of commands and what is generated from it.

use bytes::Bytes;
use prost::Message;
use tikv_proto::tikvpb::{BatchCommandsEmptyRequest, BatchCommandsEmptyResponse};
use tikv_proto::{coprocessor, debugpb, errorpb, kvrpcpb, mpp};

use super::{Access, KeyedRequest, Method, RequestFacts, Shared, StoreRequest, StoreResponse};

macro_rules! method {
    (batch $slot:literal) => {
        Method::Unary { batch_slot: Some($slot) }
    };
    (unary) => {
        Method::Unary { batch_slot: None }
    };
    (stream) => {
        Method::ServerStreaming
    };
    (batch_only $slot:literal) => {
        Method::BatchOnly { batch_slot: $slot }
    };
}

// The scope of a command: "region" has a context that names the region and may be answered by a region error; "store"
// has the same fields but goes to a store as a whole; "context" has a context only; "plain" has neither.
macro_rules! is_regional {
    (region) => {
        true
    };
    ($other:ident) => {
        false
    };
}

macro_rules! with_context {
    (plain, $message:expr, $context:expr) => {
        $message
    };
    ($scope:ident, $message:expr, $context:expr) => {{
        let mut message = $message.into_inner();
        message.context = Some(Box::new($context));
        Shared::new(message)
    }};
}

macro_rules! takes_context {
    (plain) => {
        false
    };
    ($scope:ident) => {
        true
    };
}

macro_rules! split_context {
    (plain, $message:expr) => {
        (None, Shared::new($message))
    };
    ($scope:ident, $message:expr) => {{
        let mut message = $message;
        let context = message.context.take();
        (context.map(|context| *context), Shared::new(message))
    }};
}

macro_rules! region_error {
    (plain, $response:expr) => {{
        let _ = $response;
        None
    }};
    (context, $response:expr) => {{
        let _ = $response;
        None
    }};
    ($scope:ident, $response:expr) => {
        $response.region_error.as_deref()
    };
}

macro_rules! take_region_error {
    (plain, $response:expr) => {{
        let _ = $response;
        None
    }};
    (context, $response:expr) => {{
        let _ = $response;
        None
    }};
    ($scope:ident, $response:expr) => {
        $response.region_error.take()
    };
}

// Responses that are larger than all others are boxed: each answer that is passed on takes the space of the largest.
macro_rules! stored_type {
    ($response:ty) => { $response };
    ($response:ty, boxed) => { Box<$response> };
}

macro_rules! stored {
    ($response:expr) => {
        $response
    };
    ($response:expr, boxed) => {
        Box::new($response)
    };
}

macro_rules! unstored {
    ($response:expr) => {
        $response
    };
    ($response:expr, boxed) => {
        *$response
    };
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $response:ty $([$layout:ident])?, $text:literal, $path:literal,
        ($($method:tt)+), $scope:ident, $access:ident $(, $shares_messages:ident)? $(=> $key:ident)?;)+) => {
        /// Which command a request is. client-go: `tikvrpc.CmdType`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum RequestKind {
            $($(#[$doc])* $name,)+
        }

        /// A request to a store, without its context.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Request {
            $($(#[$doc])* $name(Shared<$request>),)+
        }

        /// A store's response.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Response {
            $($(#[$doc])* $name(stored_type!($response $(, $layout)?)),)+
        }

        impl RequestKind {
            /// Every command, in the order of the table.
            pub const ALL: &'static [RequestKind] = &[$(RequestKind::$name,)+];

            /// The facts of the command.
            #[must_use]
            pub const fn facts(self) -> RequestFacts {
                match self {
                    $(RequestKind::$name => RequestFacts {
                        name: $text,
                        path: $path,
                        method: method!($($method)+),
                        access: Access::$access,
                        regional: is_regional!($scope),
                    },)+
                }
            }

            /// Whether the request message has a context field.
            #[must_use]
            pub const fn takes_context(self) -> bool {
                match self {
                    $(RequestKind::$name => takes_context!($scope),)+
                }
            }

            /// Decodes a request of this kind as a server receives it: the context, if it has one, and the rest.
            ///
            /// # Errors
            ///
            /// If the bytes are not such a message.
            pub fn decode_request(
                self,
                bytes: Bytes,
            ) -> Result<(Option<kvrpcpb::Context>, Request), prost::DecodeError> {
                match self {
                    $(RequestKind::$name => {
                        let (context, message) = split_context!($scope, <$request>::decode(bytes)?);
                        Ok((context, Request::$name(message)))
                    })+
                }
            }

            /// Decodes a response of this kind.
            ///
            /// # Errors
            ///
            /// If the bytes are not such a message.
            pub fn decode_response(self, bytes: Bytes) -> Result<Response, prost::DecodeError> {
                match self {
                    $(RequestKind::$name => {
                        <$response>::decode(bytes).map(|response| Response::$name(stored!(response $(, $layout)?)))
                    })+
                }
            }
        }

        impl Request {
            /// Which command it is.
            #[must_use]
            pub const fn kind(&self) -> RequestKind {
                match self {
                    $(Request::$name(_) => RequestKind::$name,)+
                }
            }

            /// The request with `context` inside, as a server sees it; unchanged if it takes none. For simulations:
            /// transports encode the two side by side ([`Request::encode_with_context`]).
            #[must_use]
            pub fn with_context(self, context: kvrpcpb::Context) -> Request {
                match self {
                    $(Request::$name(message) => {
                        let _ = &context;
                        Request::$name(with_context!($scope, message, context))
                    })+
                }
            }

            pub(super) fn message_len(&self) -> usize {
                match self {
                    $(Request::$name(message) => message.encoded_len(),)+
                }
            }

            pub(super) fn encode_message(&self, buffer: &mut &mut [u8]) {
                match self {
                    $(Request::$name(message) => message.encode_raw(buffer),)+
                }
            }
        }

        impl Response {
            /// Which command it answers.
            #[must_use]
            pub const fn kind(&self) -> RequestKind {
                match self {
                    $(Response::$name(_) => RequestKind::$name,)+
                }
            }

            /// The region error it carries, if any.
            #[must_use]
            pub fn region_error(&self) -> Option<&errorpb::Error> {
                match self {
                    $(Response::$name(response) => region_error!($scope, response),)+
                }
            }

            /// The message as it travels.
            #[must_use]
            pub fn encode_to_bytes(&self) -> Bytes {
                match self {
                    $(Response::$name(response) => response.encode_to_vec().into(),)+
                }
            }

            /// A response of `kind` that carries nothing but `error`; `None` if `kind` knows no region errors.
            /// client-go: `tikvrpc.GenRegionErrorResp`.
            #[must_use]
            pub fn of_region_error(kind: RequestKind, error: errorpb::Error) -> Option<Response> {
                let error = Box::new(error);
                match kind {
                    $(RequestKind::$name => of_region_error!($scope, $name, $response, error $(, $layout)?),)+
                }
            }
        }

        $(typed! { $name($request) -> $response $([$layout])?, $scope $(, $shares_messages)? $(=> $key)? })+
        $($(
            impl KeyedRequest for $request {
                fn key(&self) -> &Bytes {
                    &self.$key
                }
            }
        )?)+
    };
}

macro_rules! of_region_error {
    (region, $name:ident, $response:ty, $error:expr $(, $layout:ident)?) => {{
        let mut response = <$response>::default();
        response.region_error = Some($error);
        Some(Response::$name(stored!(response $(, $layout)?)))
    }};
    ($other:ident, $name:ident, $response:ty, $error:expr $(, $layout:ident)?) => {{
        let _ = $error;
        None
    }};
}

// Implements the typed view of a row. Of two rows with the same messages only one can have it.
macro_rules! typed {
    ($name:ident($request:ty) -> $response:ty $([$layout:ident])?, $scope:ident, shares_messages) => {};
    ($name:ident($request:ty) -> $response:ty $([$layout:ident])?, $scope:ident $(=> $key:ident)?) => {
        impl StoreRequest for $request {
            type Response = $response;
            const KIND: RequestKind = RequestKind::$name;

            fn wrap(request: Shared<Self>) -> Request {
                Request::$name(request)
            }

            fn unwrap_response(response: Response) -> Result<$response, Box<Response>> {
                match response {
                    Response::$name(response) => Ok(unstored!(response $(, $layout)?)),
                    other => Err(Box::new(other)),
                }
            }

            $(fn routing_key(&self) -> Option<&Bytes> {
                Some(&self.$key)
            })?
        }

        impl From<$response> for Response {
            fn from(response: $response) -> Response {
                Response::$name(stored!(response $(, $layout)?))
            }
        }

        impl From<$request> for Request {
            fn from(request: $request) -> Request {
                Request::$name(Shared::new(request))
            }
        }

        impl StoreResponse for $response {
            fn region_error(&self) -> Option<&errorpb::Error> {
                region_error!($scope, self)
            }

            fn take_region_error(&mut self) -> Option<Box<errorpb::Error>> {
                take_region_error!($scope, self)
            }
        }
    };
}

requests! {
    /// Newest version of a key at a timestamp.
    Get(kvrpcpb::GetRequest) -> kvrpcpb::GetResponse, "Get", "/tikvpb.Tikv/KvGet",
        (batch 1), region, Read => key;
    /// Newest versions of the keys in a range at a timestamp.
    Scan(kvrpcpb::ScanRequest) -> kvrpcpb::ScanResponse, "Scan", "/tikvpb.Tikv/KvScan",
        (batch 2), region, Read;
    /// First phase of a commit: locks and provisional values.
    Prewrite(kvrpcpb::PrewriteRequest) -> kvrpcpb::PrewriteResponse, "Prewrite", "/tikvpb.Tikv/KvPrewrite",
        (batch 3), region, Write;
    /// Second phase of a commit.
    Commit(kvrpcpb::CommitRequest) -> kvrpcpb::CommitResponse, "Commit", "/tikvpb.Tikv/KvCommit",
        (batch 4), region, Write;
    /// Rolls one key back unless its transaction is alive.
    Cleanup(kvrpcpb::CleanupRequest) -> kvrpcpb::CleanupResponse, "Cleanup", "/tikvpb.Tikv/KvCleanup",
        (batch 6), region, Write => key;
    /// [`Request::Get`] of several keys.
    BatchGet(kvrpcpb::BatchGetRequest) -> kvrpcpb::BatchGetResponse, "BatchGet", "/tikvpb.Tikv/KvBatchGet",
        (batch 7), region, Read;
    /// Rolls keys of a transaction back.
    BatchRollback(kvrpcpb::BatchRollbackRequest) -> kvrpcpb::BatchRollbackResponse, "BatchRollback", "/tikvpb.Tikv/KvBatchRollback",
        (batch 8), region, Write;
    /// Locks in a range older than a timestamp.
    ScanLock(kvrpcpb::ScanLockRequest) -> kvrpcpb::ScanLockResponse, "ScanLock", "/tikvpb.Tikv/KvScanLock",
        (batch 9), region, Read;
    /// Commits or rolls back the locks of finished transactions.
    ResolveLock(kvrpcpb::ResolveLockRequest) -> kvrpcpb::ResolveLockResponse, "ResolveLock", "/tikvpb.Tikv/KvResolveLock",
        (batch 10), region, Write;
    /// Removes old versions (legacy; the server collects by itself).
    Gc(kvrpcpb::GcRequest) -> kvrpcpb::GcResponse, "GC", "/tikvpb.Tikv/KvGC",
        (batch 11), region, Write;
    /// Removes all versions in a range, without a transaction.
    DeleteRange(kvrpcpb::DeleteRangeRequest) -> kvrpcpb::DeleteRangeResponse, "DeleteRange", "/tikvpb.Tikv/KvDeleteRange",
        (batch 12), region, Write;
    /// Locks keys before their values are known.
    PessimisticLock(kvrpcpb::PessimisticLockRequest) -> kvrpcpb::PessimisticLockResponse [boxed], "PessimisticLock", "/tikvpb.Tikv/KvPessimisticLock",
        (batch 23), region, Write;
    /// Releases pessimistic locks.
    PessimisticRollback(kvrpcpb::PessimisticRollbackRequest) -> kvrpcpb::PessimisticRollbackResponse, "PessimisticRollback", "/tikvpb.Tikv/KVPessimisticRollback",
        (batch 24), region, Write;
    /// Extends the life of a transaction.
    TxnHeartBeat(kvrpcpb::TxnHeartBeatRequest) -> kvrpcpb::TxnHeartBeatResponse, "TxnHeartBeat", "/tikvpb.Tikv/KvTxnHeartBeat",
        (batch 26), region, Write => primary_lock;
    /// What became of a transaction, asked at its primary key.
    CheckTxnStatus(kvrpcpb::CheckTxnStatusRequest) -> kvrpcpb::CheckTxnStatusResponse, "CheckTxnStatus", "/tikvpb.Tikv/KvCheckTxnStatus",
        (batch 25), region, Write => primary_key;
    /// Whether the secondaries of an async-commit transaction are locked.
    CheckSecondaryLocks(kvrpcpb::CheckSecondaryLocksRequest) -> kvrpcpb::CheckSecondaryLocksResponse, "CheckSecondaryLocks", "/tikvpb.Tikv/KvCheckSecondaryLocks",
        (batch 33), region, Write;
    /// Takes a range back to an old version.
    FlashbackToVersion(kvrpcpb::FlashbackToVersionRequest) -> kvrpcpb::FlashbackToVersionResponse, "FlashbackToVersion", "/tikvpb.Tikv/KvFlashbackToVersion",
        (batch 35), region, Write;
    /// Readies a range for a flashback.
    PrepareFlashbackToVersion(kvrpcpb::PrepareFlashbackToVersionRequest) -> kvrpcpb::PrepareFlashbackToVersionResponse, "PrepareFlashbackToVersion", "/tikvpb.Tikv/KvPrepareFlashbackToVersion",
        (batch 36), region, Write;
    /// A part of a pipelined transaction.
    Flush(kvrpcpb::FlushRequest) -> kvrpcpb::FlushResponse, "Flush", "/tikvpb.Tikv/KvFlush",
        (batch 37), region, Write;
    /// Reads what a pipelined transaction has flushed.
    BufferBatchGet(kvrpcpb::BufferBatchGetRequest) -> kvrpcpb::BufferBatchGetResponse, "BufferBatchGet", "/tikvpb.Tikv/KvBufferBatchGet",
        (batch 38), region, Read;
    /// Value of a raw key.
    RawGet(kvrpcpb::RawGetRequest) -> kvrpcpb::RawGetResponse, "RawGet", "/tikvpb.Tikv/RawGet",
        (batch 13), region, Read => key;
    /// Values of raw keys.
    RawBatchGet(kvrpcpb::RawBatchGetRequest) -> kvrpcpb::RawBatchGetResponse, "RawBatchGet", "/tikvpb.Tikv/RawBatchGet",
        (batch 14), region, Read;
    /// Writes a raw key.
    RawPut(kvrpcpb::RawPutRequest) -> kvrpcpb::RawPutResponse, "RawPut", "/tikvpb.Tikv/RawPut",
        (batch 15), region, Write => key;
    /// Writes raw keys.
    RawBatchPut(kvrpcpb::RawBatchPutRequest) -> kvrpcpb::RawBatchPutResponse, "RawBatchPut", "/tikvpb.Tikv/RawBatchPut",
        (batch 16), region, Write;
    /// Deletes a raw key.
    RawDelete(kvrpcpb::RawDeleteRequest) -> kvrpcpb::RawDeleteResponse, "RawDelete", "/tikvpb.Tikv/RawDelete",
        (batch 17), region, Write => key;
    /// Deletes raw keys.
    RawBatchDelete(kvrpcpb::RawBatchDeleteRequest) -> kvrpcpb::RawBatchDeleteResponse, "RawBatchDelete", "/tikvpb.Tikv/RawBatchDelete",
        (batch 18), region, Write;
    /// Deletes a range of raw keys.
    RawDeleteRange(kvrpcpb::RawDeleteRangeRequest) -> kvrpcpb::RawDeleteRangeResponse, "RawDeleteRange", "/tikvpb.Tikv/RawDeleteRange",
        (batch 20), region, Write;
    /// Raw pairs in a range.
    RawScan(kvrpcpb::RawScanRequest) -> kvrpcpb::RawScanResponse, "RawScan", "/tikvpb.Tikv/RawScan",
        (batch 19), region, Read;
    /// Remaining life of a raw key.
    RawGetKeyTtl(kvrpcpb::RawGetKeyTtlRequest) -> kvrpcpb::RawGetKeyTtlResponse, "RawGetKeyTTL", "/tikvpb.Tikv/RawGetKeyTTL",
        (unary), region, Read => key;
    /// Writes a raw key if it has an expected value.
    RawCompareAndSwap(kvrpcpb::RawCasRequest) -> kvrpcpb::RawCasResponse, "RawCompareAndSwap", "/tikvpb.Tikv/RawCompareAndSwap",
        (unary), region, Write => key;
    /// Checksum of raw ranges.
    RawChecksum(kvrpcpb::RawChecksumRequest) -> kvrpcpb::RawChecksumResponse, "RawChecksum", "/tikvpb.Tikv/RawChecksum",
        (unary), region, Read;
    /// Drops a range from a whole store, at once.
    UnsafeDestroyRange(kvrpcpb::UnsafeDestroyRangeRequest) -> kvrpcpb::UnsafeDestroyRangeResponse, "UnsafeDestroyRange", "/tikvpb.Tikv/UnsafeDestroyRange",
        (unary), store, Control;
    /// Starts to observe locks up to a timestamp.
    RegisterLockObserver(kvrpcpb::RegisterLockObserverRequest) -> kvrpcpb::RegisterLockObserverResponse, "RegisterLockObserver", "/tikvpb.Tikv/RegisterLockObserver",
        (unary), context, Control;
    /// Locks observed so far.
    CheckLockObserver(kvrpcpb::CheckLockObserverRequest) -> kvrpcpb::CheckLockObserverResponse, "CheckLockObserver", "/tikvpb.Tikv/CheckLockObserver",
        (unary), context, Control;
    /// Ends the observation of locks.
    RemoveLockObserver(kvrpcpb::RemoveLockObserverRequest) -> kvrpcpb::RemoveLockObserverResponse, "RemoveLockObserver", "/tikvpb.Tikv/RemoveLockObserver",
        (unary), context, Control;
    /// Locks of a whole store.
    PhysicalScanLock(kvrpcpb::PhysicalScanLockRequest) -> kvrpcpb::PhysicalScanLockResponse, "PhysicalScanLock", "/tikvpb.Tikv/PhysicalScanLock",
        (unary), context, Control;
    /// Timestamp up to which a store can serve stale reads.
    StoreSafeTs(kvrpcpb::StoreSafeTsRequest) -> kvrpcpb::StoreSafeTsResponse, "StoreSafeTS", "/tikvpb.Tikv/GetStoreSafeTS",
        (unary), plain, Control;
    /// Who waits for which lock.
    LockWaitInfo(kvrpcpb::GetLockWaitInfoRequest) -> kvrpcpb::GetLockWaitInfoResponse, "LockWaitInfo", "/tikvpb.Tikv/GetLockWaitInfo",
        (unary), store, Control;
    /// How healthy a store feels.
    GetHealthFeedback(kvrpcpb::GetHealthFeedbackRequest) -> kvrpcpb::GetHealthFeedbackResponse, "GetHealthFeedback", "/tikvpb.Tikv/GetHealthFeedback",
        (batch 39), store, Control;
    /// Tells a store of the state of pipelined transactions.
    BroadcastTxnStatus(kvrpcpb::BroadcastTxnStatusRequest) -> kvrpcpb::BroadcastTxnStatusResponse, "BroadcastTxnStatus", "/tikvpb.Tikv/BroadcastTxnStatus",
        (batch 40), context, Control;
    /// Coprocessor request to a region.
    Coprocessor(coprocessor::Request) -> coprocessor::Response [boxed], "Cop", "/tikvpb.Tikv/Coprocessor",
        (batch 22), region, Read;
    /// Coprocessor request answered in a stream.
    CoprocessorStream(coprocessor::Request) -> coprocessor::Response [boxed], "CopStream", "/tikvpb.Tikv/CoprocessorStream",
        (stream), region, Read, shares_messages;
    /// Coprocessor request to many regions of a TiFlash store.
    BatchCoprocessor(coprocessor::BatchRequest) -> coprocessor::BatchResponse [boxed], "BatchCop", "/tikvpb.Tikv/BatchCoprocessor",
        (stream), context, Read;
    /// Starts a task on TiFlash.
    DispatchMppTask(mpp::DispatchTaskRequest) -> mpp::DispatchTaskResponse, "DispatchMPPTask", "/tikvpb.Tikv/DispatchMPPTask",
        (unary), plain, Control;
    /// Result stream of a TiFlash task.
    EstablishMppConnection(mpp::EstablishMppConnectionRequest) -> mpp::MppDataPacket [boxed], "EstablishMPPConnection", "/tikvpb.Tikv/EstablishMPPConnection",
        (stream), plain, Control;
    /// Cancels TiFlash tasks.
    CancelMppTask(mpp::CancelTaskRequest) -> mpp::CancelTaskResponse, "CancelMPPTask", "/tikvpb.Tikv/CancelMPPTask",
        (unary), plain, Control;
    /// Whether TiFlash takes tasks.
    MppAlive(mpp::IsAliveRequest) -> mpp::IsAliveResponse, "MPPAlive", "/tikvpb.Tikv/IsAlive",
        (unary), plain, Control;
    /// All versions of a key.
    MvccGetByKey(kvrpcpb::MvccGetByKeyRequest) -> kvrpcpb::MvccGetByKeyResponse, "MvccGetByKey", "/tikvpb.Tikv/MvccGetByKey",
        (unary), region, Read;
    /// All versions a transaction wrote.
    MvccGetByStartTs(kvrpcpb::MvccGetByStartTsRequest) -> kvrpcpb::MvccGetByStartTsResponse, "MvccGetByStartTS", "/tikvpb.Tikv/MvccGetByStartTs",
        (unary), region, Read;
    /// Splits a region.
    SplitRegion(kvrpcpb::SplitRegionRequest) -> kvrpcpb::SplitRegionResponse, "SplitRegion", "/tikvpb.Tikv/SplitRegion",
        (unary), region, Control;
    /// Statistics of a region.
    DebugGetRegionProperties(debugpb::GetRegionPropertiesRequest) -> debugpb::GetRegionPropertiesResponse, "DebugGetRegionProperties", "/debugpb.Debug/GetRegionProperties",
        (unary), plain, Control;
    /// Compacts TiFlash data.
    Compact(kvrpcpb::CompactRequest) -> kvrpcpb::CompactResponse, "Compact", "/tikvpb.Tikv/Compact",
        (unary), plain, Control;
    /// A system table of TiFlash.
    GetTiFlashSystemTable(kvrpcpb::TiFlashSystemTableRequest) -> kvrpcpb::TiFlashSystemTableResponse, "GetTiFlashSystemTable", "/tikvpb.Tikv/GetTiFlashSystemTable",
        (unary), plain, Control;
    /// Answered after a delay; measures the stream.
    Empty(BatchCommandsEmptyRequest) -> BatchCommandsEmptyResponse, "Unknown", "",
        (batch_only 255), plain, Control;
}
