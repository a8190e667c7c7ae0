//! Requests that are for a store as a whole, or that change regions.

use std::time::Duration;

use tikv_core::key::{Key, KeyRange};
use tikv_core::request::{Request, RequestKind, Response};
use tikv_core::time::Time;
use tikv_proto::errorpb;
use tikv_proto::kvrpcpb::{
    self, ApiVersion, GetHealthFeedbackResponse, GetLockWaitInfoResponse, PhysicalScanLockRequest,
    PhysicalScanLockResponse, RawBatchScanRequest, RawBatchScanResponse, ScanLockRequest, SplitRegionRequest,
    SplitRegionResponse, StoreSafeTsRequest, StoreSafeTsResponse,
};
use tikv_proto::tikvpb::{BatchCommandsEmptyRequest, BatchCommandsEmptyResponse};

use super::check::{Entry, check, check_split};
use super::requests::{refused, unknown};
use super::{CallId, Cluster, Postponed, Region, StoreReply, encoded};
use crate::status::{CallError, Status};
use crate::storage::Outcome;

/// TiKV answers an empty command at once if it asks for less delay.
const SHORTEST_DELAY_MS: u64 = 10;

impl Cluster {
    /// Executes a request that no region's check guards. `None` if the answer comes later.
    pub(super) fn execute_for_store(
        &mut self,
        now: Time,
        call: CallId,
        store_id: u64,
        context: &kvrpcpb::Context,
        request: Request,
    ) -> Option<StoreReply> {
        let reply = match request {
            Request::SplitRegion(request) => Ok(self.split_region(store_id, context, &request).into()),
            Request::StoreSafeTs(request) => Ok(self.store_safe_ts(now, &request).into()),
            Request::LockWaitInfo(_) => {
                let entries = self.waits.entries(now, store_id);
                Ok(GetLockWaitInfoResponse { entries, ..GetLockWaitInfoResponse::default() }.into())
            }
            Request::GetHealthFeedback(_) => {
                let health_feedback = self.topology.store_mut(store_id).ok().map(super::Store::health_feedback);
                Ok(GetHealthFeedbackResponse { health_feedback, ..GetHealthFeedbackResponse::default() }.into())
            }
            Request::BroadcastTxnStatus(request) => {
                at_once(RequestKind::BroadcastTxnStatus, self.storage.handle(&KeyRange::ALL, &*request).outcome)
            }
            Request::UnsafeDestroyRange(request) => {
                at_once(RequestKind::UnsafeDestroyRange, self.storage.handle(&KeyRange::ALL, &*request).outcome)
            }
            Request::PhysicalScanLock(request) => self.scan_all_locks(&request),
            Request::Empty(request) => return self.answer_empty(now, call, store_id, &request),
            other => Err(unknown(other.kind()).into()),
        };
        Some(reply)
    }

    // ---- Regions ----

    fn split_region(
        &mut self,
        store_id: u64,
        context: &kvrpcpb::Context,
        request: &SplitRegionRequest,
    ) -> SplitRegionResponse {
        match self.try_split_region(store_id, context, request) {
            Ok(response) => response,
            Err(error) => SplitRegionResponse { region_error: Some(error), ..SplitRegionResponse::default() },
        }
    }

    #[allow(deprecated)] // Older clients send one key, and look for the left and the right half.
    fn try_split_region(
        &mut self,
        store_id: u64,
        context: &kvrpcpb::Context,
        request: &SplitRegionRequest,
    ) -> Result<SplitRegionResponse, Box<errorpb::Error>> {
        let is_plain = request.is_raw_kv && self.topology.api_version() != ApiVersion::V2;
        let one = Some(&request.split_key).filter(|key| !key.is_empty());
        let asked = one.map_or(request.split_keys.as_slice(), std::slice::from_ref);
        let mut keys: Vec<Key> =
            asked.iter().map(|key| if is_plain { Key::from(key.clone()) } else { encoded(key) }).collect();
        keys.sort();

        let (region, keys) = check_split(&self.topology, store_id, context, &keys)?;
        let region_id = region.id();
        let parts = self.topology.split_region(region_id, &keys);
        let parts = parts.map_err(|error| Box::new(super::region_error::other(error.to_string())))?;
        let regions: Vec<_> =
            parts.iter().filter_map(|id| self.topology.regions().get(*id)).map(|part| part.meta.clone()).collect();
        let mut response = SplitRegionResponse::default();
        if let [left, right] = regions.as_slice() {
            response.left = Some(left.clone().into());
            response.right = Some(right.clone().into());
        }
        response.regions = regions;
        Ok(response)
    }

    // ---- The whole store ----

    fn store_safe_ts(&self, now: Time, request: &StoreSafeTsRequest) -> StoreSafeTsResponse {
        let range = request.key_range.clone().unwrap_or_default();
        let safe_ts = self.safe_ts(now, &KeyRange::new(range.start_key, range.end_key));
        StoreSafeTsResponse { safe_ts: safe_ts.version() }
    }

    /// As a scan of the locks of all regions.
    fn scan_all_locks(&mut self, request: &PhysicalScanLockRequest) -> StoreReply {
        let scan = ScanLockRequest {
            max_version: request.max_ts,
            start_key: request.start_key.clone(),
            limit: request.limit,
            ..ScanLockRequest::default()
        };
        match self.storage.handle(&KeyRange::ALL, &scan).outcome {
            Outcome::Answer(scanned) => {
                let error = scanned.error.map(|error| format!("{error:?}")).unwrap_or_default();
                Ok(PhysicalScanLockResponse { error, locks: scanned.locks }.into())
            }
            Outcome::Wait(_) => Err(unknown(RequestKind::PhysicalScanLock).into()),
            Outcome::Refused(refusal) => Err(refused(refusal).into()),
        }
    }

    fn answer_empty(
        &mut self,
        now: Time,
        call: CallId,
        store_id: u64,
        request: &BatchCommandsEmptyRequest,
    ) -> Option<StoreReply> {
        let reply = Ok(BatchCommandsEmptyResponse { test_id: request.test_id }.into());
        if request.delay_time < SHORTEST_DELAY_MS {
            return Some(reply);
        }
        let at = now + Duration::from_millis(request.delay_time);
        self.later.insert((at, call), Postponed::Reply { store_id, reply });
        None
    }

    // ---- Outside of the table of commands ----

    /// Scans several ranges of raw keys in one region: an old command which the table of commands leaves out.
    ///
    /// # Errors
    ///
    /// If the store does not run, or a real one would have died of the request.
    pub fn raw_batch_scan(
        &mut self,
        now: Time,
        store_id: u64,
        request: &RawBatchScanRequest,
    ) -> Result<RawBatchScanResponse, CallError> {
        self.advance(now);
        if !self.topology.is_running(store_id) {
            return Err(CallError::Unreachable);
        }
        let context = request.context.as_deref().cloned().unwrap_or_default();
        let region = match check(&self.topology, store_id, &context, Entry::Read { read_ts: 0 }, |_: &Region| 0) {
            Ok(region) => region,
            Err(error) => return Ok(RawBatchScanResponse { region_error: Some(error), ..Default::default() }),
        };
        let is_encoded = self.topology.api_version() == ApiVersion::V2;
        let range = if is_encoded { super::txn_range(&region.bounds()) } else { region.bounds() };
        match self.storage.handle(&range, request).outcome {
            Outcome::Answer(response) => Ok(response),
            Outcome::Wait(_) => Err(Status::unimplemented("waiting in a scan").into()),
            Outcome::Refused(refusal) => Err(refused(refusal).into()),
        }
    }
}

/// The reply to a request that never waits.
fn at_once<T: Into<Response>>(kind: RequestKind, outcome: Outcome<T>) -> StoreReply {
    match outcome {
        Outcome::Answer(response) => Ok(response.into()),
        Outcome::Wait(_) => Err(unknown(kind).into()),
        Outcome::Refused(refusal) => Err(refused(refusal).into()),
    }
}
