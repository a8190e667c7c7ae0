//! How a snapshot reads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tikv_proto::kvrpcpb;

use super::ReadThrough;
use crate::config::Config;
use crate::error::Error;
use crate::request::RequestContext;
use crate::route::CallOptions;
use crate::time::whole_ms;
use crate::timestamp::Timestamp;

/// What a read may see. client-go: `txnsnapshot.IsoLevel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// What was committed at or before the read's timestamp, exactly. The default.
    #[default]
    Snapshot,
    /// The newest committed versions at or before the timestamp; locks are ignored, so that the same read repeated may see
    /// more.
    ReadCommitted,
    /// As [`Isolation::ReadCommitted`], but a lock or a newer version is reported as a write conflict.
    ReadCommittedCheckTs,
}

/// How urgent TiKV takes requests to be. client-go: `txnutil.Priority`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Behind the others.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before the others.
    High,
}

/// How a snapshot reads. Cheap to clone.
///
/// client-go: the setters of `txnsnapshot.KVSnapshot`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotOptions {
    /// The timestamp; [`Timestamp::MAX`] for the newest committed version.
    pub read_ts: Timestamp,
    /// How RPCs are sent: deadline, time limit of a get, and the context of every request.
    pub call: CallOptions,
    /// Time limit of one RPC that scans or reads many keys.
    pub batch_timeout: Duration,
    /// Another time limit for the first RPC of each read. client-go: `SetKVReadTimeout`.
    pub first_timeout: Option<Duration>,
    /// Whether values come with their commit timestamps (not from scans, which cannot tell). Locks of committed
    /// transactions then cannot be read through: they have to be gone. client-go: `WithReturnCommitTS`.
    pub need_commit_ts: bool,
    /// Whether scans leave values out. client-go: `SetKeyOnly`.
    pub key_only: bool,
    /// Scans return every n-th pair; 0 or 1 for all. client-go: `SetSampleStep`.
    pub sample_step: u32,
    /// Pairs in a page of a scan. client-go: `SetScanBatchSize`.
    pub scan_batch_size: u32,
    /// Keys of one batch-get RPC.
    pub batch_get_size: usize,
}

impl SnapshotOptions {
    /// The defaults, at `read_ts`.
    #[must_use]
    pub fn new(read_ts: Timestamp, config: &Config) -> Self {
        SnapshotOptions {
            read_ts,
            call: CallOptions::new(config),
            batch_timeout: config.batch_call_timeout,
            first_timeout: None,
            need_commit_ts: false,
            key_only: false,
            sample_step: 0,
            scan_batch_size: config.scan_batch_size,
            batch_get_size: config.batch_get_size,
        }
    }

    /// What reads may see.
    #[must_use]
    pub fn isolation(self, isolation: Isolation) -> Self {
        let level = match isolation {
            Isolation::Snapshot => kvrpcpb::IsolationLevel::Si,
            Isolation::ReadCommitted => kvrpcpb::IsolationLevel::Rc,
            Isolation::ReadCommittedCheckTs => kvrpcpb::IsolationLevel::RcCheckTs,
        };
        self.with_context(|context| context.set_isolation_level(level))
    }

    /// How urgent the reads are.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        let priority = match priority {
            Priority::Low => kvrpcpb::CommandPri::Low,
            Priority::Normal => kvrpcpb::CommandPri::Normal,
            Priority::High => kvrpcpb::CommandPri::High,
        };
        self.call.context.priority = priority.into();
        self
    }

    /// Whether TiKV shall not keep what it read in its block cache: for large scans of cold data.
    #[must_use]
    pub fn not_fill_cache(self, not_fill_cache: bool) -> Self {
        self.with_context(|context| context.not_fill_cache = not_fill_cache)
    }

    /// Marks the requests of one task, among which TiKV schedules fairly.
    #[must_use]
    pub fn task_id(self, task_id: u64) -> Self {
        self.with_context(|context| context.task_id = task_id)
    }

    /// A tag by which TiKV counts what requests cost.
    #[must_use]
    pub fn resource_group_tag(self, tag: Bytes) -> Self {
        self.with_context(|context| context.resource_group_tag = tag)
    }

    /// The resource group that pays.
    #[must_use]
    pub fn resource_group(self, name: &str) -> Self {
        self.with_context(|context| {
            context.resource_control_context.get_or_insert_default().resource_group_name = name.to_owned();
        })
    }

    /// Who asks, for TiKV's statistics.
    #[must_use]
    pub fn request_source(self, source: &str) -> Self {
        self.with_context(|context| context.request_source = source.to_owned())
    }

    /// Lets a store refuse reads that would wait longer than this, so that another replica serves them; zero for never.
    /// Rounded down to milliseconds. client-go: `SetLoadBasedReplicaReadThreshold`.
    #[must_use]
    pub fn busy_threshold(mut self, threshold: Duration) -> Self {
        self.call.context.busy_threshold_ms = u32::try_from(threshold.as_millis()).unwrap_or(0);
        self
    }

    /// Changes the context of all requests.
    #[must_use]
    pub fn with_context(mut self, update: impl FnOnce(&mut RequestContext)) -> Self {
        self.call = self.call.with_context(update);
        self
    }

    /// Refuses timestamps that PD cannot have given: reading at one would hold up every later commit.
    pub(super) fn check(&self) -> Result<(), Error> {
        let ts = self.read_ts;
        if ts.is_zero() || (ts.version() >= i64::MAX as u64 && ts != Timestamp::MAX) {
            return Err(Error::InvalidArgument(Arc::from(format!("a read at timestamp {ts}"))));
        }
        Ok(())
    }

    /// The options of the next RPC. `met_lock`: from now on only the leader can say more, however busy it is.
    pub(super) fn call_options(
        &self,
        timeout: Duration,
        first: bool,
        met_lock: bool,
        read_through: &ReadThrough,
    ) -> CallOptions {
        let timeout = self.first_timeout.filter(|_| first).unwrap_or(timeout);
        let mut call = self.call.clone().with_timeout(timeout);
        let max_execution_duration_ms = whole_ms(timeout);
        call.context.max_execution_duration_ms = max_execution_duration_ms;
        if met_lock {
            call.context.stale_read = false;
            call.context.busy_threshold_ms = 0;
        }
        let names_locks = |rest: &RequestContext| !rest.resolved_locks.is_empty() || !rest.committed_locks.is_empty();
        if read_through.is_empty() && !call.context.rest().is_some_and(names_locks) {
            return call;
        }
        call.with_context(|context| read_through.write_into(context))
    }
}
