//! The timestamp oracle.

use tikv_core::time::Time;
use tikv_core::timestamp::{LOGICAL_BITS, Timestamp};
use tikv_proto::pdpb::{
    GetExternalTimestampRequest, GetExternalTimestampResponse, GetMinTsRequest, GetMinTsResponse,
    SetExternalTimestampRequest, SetExternalTimestampResponse, Timestamp as PdTimestamp, TsoRequest, TsoResponse,
};
use tikv_proto::{pdpb, tsopb};

use super::{Answer, Asked, Pd};
use crate::status::{Code, Status};

/// Hands out timestamps, each greater than all before it, whatever the caller's clock does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Oracle {
    /// The wall clock at [`Time::ZERO`].
    pub(super) wall_clock_ms: u64,
    physical_ms: u64,
    logical: u64,
}

/// One more than the largest logical part, and the largest number of timestamps in one request.
const LOGICAL_LIMIT: u64 = 1 << LOGICAL_BITS;

impl Oracle {
    pub(super) fn new(wall_clock_ms: u64) -> Self {
        Oracle { wall_clock_ms, physical_ms: 0, logical: 0 }
    }

    /// The last of `count` new timestamps of the same millisecond.
    fn take(&mut self, now: Time, count: u32) -> Result<PdTimestamp, Status> {
        let count = u64::from(count);
        if count == 0 || count >= LOGICAL_LIMIT {
            return Err(Status::new(Code::Unknown, "tso count should be positive and fit the logical part"));
        }
        let by_clock = self.wall_clock_ms.saturating_add(now.as_millis());
        if by_clock > self.physical_ms {
            (self.physical_ms, self.logical) = (by_clock, 0);
        }
        if self.logical + count >= LOGICAL_LIMIT {
            (self.physical_ms, self.logical) = (self.physical_ms + 1, 0);
        }
        self.logical += count;
        Ok(PdTimestamp { physical: self.physical_ms as i64, logical: self.logical as i64, suffix_bits: 0 })
    }

    fn last(&self) -> Timestamp {
        Timestamp::compose(self.physical_ms, self.logical)
    }

    fn jump_to(&mut self, ts: Timestamp) {
        if ts > self.last() {
            (self.physical_ms, self.logical) = (ts.physical_ms(), ts.logical());
        }
    }
}

impl Pd {
    /// A new timestamp, as a client would get it.
    pub fn next_timestamp(&mut self, now: Time) -> Timestamp {
        match self.oracle.take(now, 1) {
            Ok(ts) => Timestamp::compose(ts.physical as u64, ts.logical as u64),
            // One always fits.
            Err(_) => self.oracle.last(),
        }
    }

    /// Makes all timestamps from now on greater than `ts`, as an administrator does who resets the oracle.
    pub fn advance_timestamps(&mut self, ts: Timestamp) {
        self.oracle.jump_to(ts);
    }

    /// Lets PD's wall clock jump ahead, and go on from there.
    pub fn advance_clock(&mut self, ms: u64) {
        self.oracle.wall_clock_ms = self.oracle.wall_clock_ms.saturating_add(ms);
    }

    /// PD's wall clock, in milliseconds since 1970.
    #[must_use]
    pub fn wall_clock_ms(&self, now: Time) -> u64 {
        self.oracle.wall_clock_ms.saturating_add(now.as_millis())
    }
}

pub(super) fn tso(cx: &mut Asked<'_>, request: &TsoRequest) -> Answer<TsoResponse> {
    let sent = request.header.as_ref().map_or(0, |header| header.cluster_id);
    cx.check_cluster(sent)?;
    let timestamp = timestamp(cx, request.count)?;
    Ok(TsoResponse { header: cx.header(), count: request.count, timestamp: Some(timestamp) })
}

/// The same, as the separate service would answer; PD serves its one keyspace group itself.
pub(super) fn tso_service(cx: &mut Asked<'_>, request: &tsopb::TsoRequest) -> Answer<tsopb::TsoResponse> {
    let sent = request.header.as_ref().map_or(0, |header| header.cluster_id);
    cx.check_cluster(sent)?;
    let timestamp = timestamp(cx, request.count)?;
    let header = tsopb::ResponseHeader { cluster_id: cx.topology.cluster_id(), ..tsopb::ResponseHeader::default() };
    Ok(tsopb::TsoResponse { header: Some(header), count: request.count, timestamp: Some(timestamp) })
}

fn timestamp(cx: &mut Asked<'_>, count: u32) -> Result<PdTimestamp, Status> {
    if !cx.leads() {
        return Err(Status::new(Code::Unknown, "generate timestamp failed, requested not leader anymore"));
    }
    cx.pd.oracle.take(cx.now, count)
}

pub(super) fn get_min_ts(cx: &mut Asked<'_>, _: &GetMinTsRequest) -> Answer<GetMinTsResponse> {
    let timestamp = cx.pd.oracle.take(cx.now, 1)?;
    Ok(GetMinTsResponse { header: cx.header(), timestamp: Some(timestamp) })
}

pub(super) fn get_external_timestamp(
    cx: &mut Asked<'_>,
    _: &GetExternalTimestampRequest,
) -> Answer<GetExternalTimestampResponse> {
    Ok(GetExternalTimestampResponse { header: cx.header(), timestamp: cx.pd.external_timestamp })
}

/// It never goes back, and never beyond what the oracle has given.
pub(super) fn set_external_timestamp(
    cx: &mut Asked<'_>,
    request: &SetExternalTimestampRequest,
) -> Answer<SetExternalTimestampResponse> {
    let asked = request.timestamp;
    let newest = cx.pd.next_timestamp(cx.now).version();
    let refusal = if asked > newest {
        Some("the external timestamp should not be larger than global ts")
    } else if asked <= cx.pd.external_timestamp {
        Some("the external timestamp should be larger than current external timestamp")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        return Ok(SetExternalTimestampResponse { header: cx.failed(pdpb::ErrorType::InvalidValue, refusal) });
    }
    cx.pd.external_timestamp = asked;
    Ok(SetExternalTimestampResponse { header: cx.header() })
}
