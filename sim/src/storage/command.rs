//! What every command has in common: how it runs, and how its errors become a response.

use bytes::Bytes;
use tikv_core::codec::memcomparable::encoded_len;
use tikv_core::key::{Key, KeyRange};
use tikv_core::timestamp::Timestamp;
use tikv_proto::errorpb;
use tikv_proto::kvrpcpb::{self, LockInfo};

use super::batch::Batch;
use super::errors::{Error, MAX_KEY_BYTES, error_pair};
use super::txn::Txn;
use super::{Handled, Refusal, ReleasedLock, Storage};

/// A request that [`Storage::handle`] can answer: the request types of TiKV's key-value RPCs. Sealed.
pub trait Command: sealed::Sealed {
    /// The response type of the RPC.
    type Response;

    #[doc(hidden)]
    fn run(
        &self,
        storage: &mut Storage,
        region: &KeyRange,
        context: Option<&kvrpcpb::Context>,
    ) -> Handled<Self::Response>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! commands {
    ($($request:ident => $response:ident,)*) => {$(
        impl sealed::Sealed for kvrpcpb::$request {}

        impl Command for kvrpcpb::$request {
            type Response = kvrpcpb::$response;

            fn run(
                &self,
                storage: &mut Storage,
                region: &KeyRange,
                context: Option<&kvrpcpb::Context>,
            ) -> Handled<Self::Response> {
                storage.run(region, context.or(self.context.as_deref()), |cx| self.execute(cx))
            }
        }
    )*};
}

commands! {
    GetRequest => GetResponse,
    BatchGetRequest => BatchGetResponse,
    ScanRequest => ScanResponse,
    ScanLockRequest => ScanLockResponse,
    PrewriteRequest => PrewriteResponse,
    PessimisticLockRequest => PessimisticLockResponse,
    PessimisticRollbackRequest => PessimisticRollbackResponse,
    CommitRequest => CommitResponse,
    BatchRollbackRequest => BatchRollbackResponse,
    CleanupRequest => CleanupResponse,
    TxnHeartBeatRequest => TxnHeartBeatResponse,
    CheckTxnStatusRequest => CheckTxnStatusResponse,
    CheckSecondaryLocksRequest => CheckSecondaryLocksResponse,
    ResolveLockRequest => ResolveLockResponse,
    BroadcastTxnStatusRequest => BroadcastTxnStatusResponse,
    FlushRequest => FlushResponse,
    BufferBatchGetRequest => BufferBatchGetResponse,
    DeleteRangeRequest => DeleteRangeResponse,
    UnsafeDestroyRangeRequest => UnsafeDestroyRangeResponse,
    GcRequest => GcResponse,
    MvccGetByKeyRequest => MvccGetByKeyResponse,
    MvccGetByStartTsRequest => MvccGetByStartTsResponse,
    RawGetRequest => RawGetResponse,
    RawBatchGetRequest => RawBatchGetResponse,
    RawPutRequest => RawPutResponse,
    RawBatchPutRequest => RawBatchPutResponse,
    RawDeleteRequest => RawDeleteResponse,
    RawBatchDeleteRequest => RawBatchDeleteResponse,
    RawScanRequest => RawScanResponse,
    RawBatchScanRequest => RawBatchScanResponse,
    RawDeleteRangeRequest => RawDeleteRangeResponse,
    RawGetKeyTtlRequest => RawGetKeyTtlResponse,
    RawCasRequest => RawCasResponse,
    RawChecksumRequest => RawChecksumResponse,
}

/// How a request runs.
pub(super) trait Execute {
    type Response: Reply;

    /// Answers, having changed the storage, or fails without a change other than to max_ts.
    fn execute(&self, cx: &mut Context<'_>) -> Result<Self::Response, Error>;
}

/// A response that can carry errors.
pub(super) trait Reply: Default {
    /// Sets the error of the region that kept the command from running.
    fn set_region_error(&mut self, error: Box<errorpb::Error>);

    /// Sets the error of the command.
    fn set_error(&mut self, error: &Error);
}

/// The world of one command.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) storage: &'a mut Storage,
    /// The keys that belong to the region asked.
    pub(super) region: &'a KeyRange,
    /// The options that came with the request.
    pub(super) options: Option<&'a kvrpcpb::Context>,
    pub(super) released: Vec<ReleasedLock>,
    pub(super) acquired: Vec<LockInfo>,
}

impl Context<'_> {
    /// Whether an option is set.
    pub(super) fn has_option(&self, option: impl FnOnce(&kvrpcpb::Context) -> bool) -> bool {
        self.options.is_some_and(option)
    }

    pub(super) fn begin(&mut self, start_ts: Timestamp) -> Txn<'_> {
        let Storage { data, max_ts, .. } = &mut *self.storage;
        Txn { data, max_ts, batch: Batch::new(start_ts) }
    }

    /// Makes the changes of a command that acquires no pessimistic lock.
    pub(super) fn apply(&mut self, batch: Batch) {
        self.apply_locks(batch, false);
    }

    /// Makes the changes of a command. Its pessimistic locks stay in memory if `in_memory`.
    pub(super) fn apply_locks(&mut self, mut batch: Batch, in_memory: bool) {
        self.released.append(&mut batch.released);
        self.acquired.append(&mut batch.acquired);
        self.storage.data.apply(batch, in_memory);
    }

    /// Remembers that a transaction is known to be committed.
    pub(super) fn learn_commit(&mut self, start_ts: Timestamp) {
        self.storage.txn_status_cache.insert(start_ts, true);
    }
}

/// The keys of a write command, of which there must be some: TiKV cannot make a latch of none.
pub(super) fn keys_of(keys: &[Bytes]) -> Result<Vec<Key>, Error> {
    if keys.is_empty() {
        return Err(Error::Refused(Refusal::NoKeys));
    }
    Ok(keys.iter().cloned().map(Key::from).collect())
}

/// Fails if a key takes more room than TiKV's limit.
pub(super) fn check_key_sizes<'a>(keys: impl IntoIterator<Item = &'a Bytes>) -> Result<(), Error> {
    let too_large = keys.into_iter().map(|key| encoded_len(key.len())).find(|size| *size > MAX_KEY_BYTES);
    too_large.map_or(Ok(()), |size| Err(Error::KeyTooLarge { size }))
}

/// How a response type carries the error of its command.
macro_rules! reply {
    ($($response:ident: $response_as:ident = $error:ident => $value:expr;)*) => {$(
        impl Reply for kvrpcpb::$response {
            fn set_region_error(&mut self, error: Box<errorpb::Error>) {
                self.region_error = Some(error);
            }

            fn set_error(&mut self, $error: &Error) {
                let $response_as = self;
                $value;
            }
        }
    )*};
}

reply! {
    GetResponse: this = error => this.error = Some(Box::new(error.key_error()));
    ScanLockResponse: this = error => this.error = Some(Box::new(error.key_error()));
    BufferBatchGetResponse: this = error => this.error = Some(Box::new(error.key_error()));
    BatchRollbackResponse: this = error => this.error = Some(Box::new(error.key_error()));
    ResolveLockResponse: this = error => this.error = Some(Box::new(error.key_error()));
    CommitResponse: this = error => this.error = Some(Box::new(error.key_error()));
    CleanupResponse: this = error => this.error = Some(Box::new(error.key_error()));
    TxnHeartBeatResponse: this = error => this.error = Some(Box::new(error.key_error()));
    CheckTxnStatusResponse: this = error => this.error = Some(Box::new(error.key_error()));
    CheckSecondaryLocksResponse: this = error => this.error = Some(Box::new(error.key_error()));

    PrewriteResponse: this = error => this.errors = vec![error.key_error()];
    FlushResponse: this = error => this.errors = vec![error.key_error()];
    PessimisticLockResponse: this = error => this.errors = vec![error.key_error()];
    PessimisticRollbackResponse: this = error => this.errors = vec![error.key_error()];

    // The error is also the only pair, for clients that look nowhere else.
    ScanResponse: this = error => {
        this.error = Some(Box::new(error.key_error()));
        this.pairs = vec![error_pair(error)];
    };
    BatchGetResponse: this = error => {
        this.error = Some(Box::new(error.key_error()));
        this.pairs = vec![error_pair(error)];
    };

    MvccGetByKeyResponse: this = error => this.error = error.message();
    MvccGetByStartTsResponse: this = error => this.error = error.message();
    DeleteRangeResponse: this = error => this.error = error.message();
    UnsafeDestroyRangeResponse: this = error => this.error = error.message();
    GcResponse: this = error => this.error = Some(Box::new(error.key_error()));

    RawGetResponse: this = error => this.error = error.message();
    RawPutResponse: this = error => this.error = error.message();
    RawBatchPutResponse: this = error => this.error = error.message();
    RawDeleteResponse: this = error => this.error = error.message();
    RawBatchDeleteResponse: this = error => this.error = error.message();
    RawDeleteRangeResponse: this = error => this.error = error.message();
    RawGetKeyTtlResponse: this = error => this.error = error.message();
    RawCasResponse: this = error => this.error = error.message();
    RawChecksumResponse: this = error => this.error = error.message();
    RawBatchGetResponse: this = error => this.pairs = vec![error_pair(error)];
    RawScanResponse: this = error => this.kvs = vec![error_pair(error)];
    RawBatchScanResponse: this = error => this.kvs = vec![error_pair(error)];
}
