//! DeleteRange and UnsafeDestroyRange: drop everything stored in a range, whatever its timestamps.

use tikv_core::key::KeyRange;
use tikv_proto::errorpb;
use tikv_proto::kvrpcpb::{
    DeleteRangeRequest, DeleteRangeResponse, UnsafeDestroyRangeRequest, UnsafeDestroyRangeResponse,
};

use super::Refusal;
use super::command::{Context, Execute};
use super::errors::Error;

impl Execute for DeleteRangeRequest {
    type Response = DeleteRangeResponse;

    /// An empty end is the empty key here, not the end of all keys. Pessimistic locks in memory survive.
    fn execute(&self, cx: &mut Context<'_>) -> Result<DeleteRangeResponse, Error> {
        if self.start_key >= self.end_key {
            return Err(invalid_range("invalid delete range command"));
        }
        let range = KeyRange::new(self.start_key.clone(), self.end_key.clone());
        check_within(&range, cx.region)?;
        if !self.notify_only {
            cx.storage.data.delete_range(&range);
        }
        Ok(DeleteRangeResponse::default())
    }
}

impl Execute for UnsafeDestroyRangeRequest {
    type Response = UnsafeDestroyRangeResponse;

    /// Works on the whole store, past regions and replication.
    fn execute(&self, cx: &mut Context<'_>) -> Result<UnsafeDestroyRangeResponse, Error> {
        if self.start_key.is_empty() || self.end_key.is_empty() {
            return Err(Error::Refused(Refusal::UnboundedDestroy));
        }
        cx.storage.data.delete_range(&KeyRange::new(self.start_key.clone(), self.end_key.clone()));
        Ok(UnsafeDestroyRangeResponse::default())
    }
}

/// A range that cannot be deleted fails as it is applied, as an error of the region.
pub(super) fn invalid_range(message: &str) -> Error {
    Error::Region(Box::new(errorpb::Error { message: message.to_owned(), ..errorpb::Error::default() }))
}

/// Fails unless the whole range, empty end included, lies in the region.
pub(super) fn check_within(range: &KeyRange, region: &KeyRange) -> Result<(), Error> {
    if !region.contains(range.start.as_slice()) {
        return Err(Error::key_not_in_region(range.start.to_bytes(), region));
    }
    let ends_outside = !region.end.is_empty() && (range.end.is_empty() || range.end > region.end);
    if ends_outside { Err(Error::key_not_in_region(range.end.to_bytes(), region)) } else { Ok(()) }
}
