//! Records of the write column family: what happened to a key, newest first.

use std::fmt;

use bytes::Bytes;
use tikv_core::timestamp::Timestamp;

/// From this many records on, reading follows [`LastChange::Exist`] instead of walking. TiKV: `SEEK_BOUND`.
pub(super) const SEEK_BOUND: u64 = 8;

/// The timestamp right before `ts`. Zero stays.
pub(super) fn right_before(ts: Timestamp) -> Timestamp {
    Timestamp::from_version(ts.version().saturating_sub(1))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum WriteKind {
    Put,
    Delete,
    Lock,
    Rollback,
}

/// Where the newest Put or Delete below a record without data is to be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum LastChange {
    #[default]
    Unknown,
    NotExist,
    Exist {
        commit_ts: Timestamp,
        /// Records to step over, as far as the writer could tell.
        versions: u64,
    },
}

/// A version of a key, stored at its commit_ts (a Rollback at its start_ts).
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) kind: WriteKind,
    pub(super) start_ts: Timestamp,
    pub(super) short_value: Option<Bytes>,
    /// Another transaction, whose start_ts is this commit_ts, has been rolled back on this key.
    pub(super) has_overlapped_rollback: bool,
    /// Set when the record was rewritten: the commit_ts of the next newer Put or Delete, zero if there was none. If that
    /// version is not there when a reader finds this one, this one had already been collected.
    pub(super) gc_fence: Option<Timestamp>,
    pub(super) last_change: LastChange,
}

/// The value that marks a Rollback which must not be collapsed.
const PROTECTED: &[u8] = b"p";

impl Write {
    pub(super) fn new(kind: WriteKind, start_ts: Timestamp, short_value: Option<Bytes>) -> Self {
        Write {
            kind,
            start_ts,
            short_value,
            has_overlapped_rollback: false,
            gc_fence: None,
            last_change: LastChange::Unknown,
        }
    }

    pub(super) fn rollback(start_ts: Timestamp, protected: bool) -> Self {
        Write::new(WriteKind::Rollback, start_ts, protected.then_some(Bytes::from_static(PROTECTED)))
    }

    pub(super) fn is_data(&self) -> bool {
        matches!(self.kind, WriteKind::Put | WriteKind::Delete)
    }

    pub(super) fn is_protected_rollback(&self) -> bool {
        self.kind == WriteKind::Rollback && self.short_value.as_deref() == Some(PROTECTED)
    }

    /// Whether a record at `commit_ts` says that the transaction which started then was rolled back.
    pub(super) fn rolls_back(&self, start_ts: Timestamp, commit_ts: Timestamp) -> bool {
        commit_ts == start_ts && (self.kind == WriteKind::Rollback || self.has_overlapped_rollback)
    }

    /// Whether the record, found as the newest one at `read_ts`, still counts: its fence, if any, lies later.
    pub(super) fn is_valid_at(&self, read_ts: Timestamp) -> bool {
        !self.gc_fence.is_some_and(|fence| !fence.is_zero() && fence <= read_ts)
    }

    /// Whether the record, found as the newest one of all, had already been collected.
    pub(super) fn is_fenced(&self) -> bool {
        self.gc_fence.is_some_and(|fence| !fence.is_zero())
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{:?}", self.kind, self.start_ts)?;
        if self.is_protected_rollback() {
            f.write_str(" protected")?;
        }
        if self.has_overlapped_rollback {
            write!(f, " +rollback, fence {:?}", self.gc_fence)?;
        }
        Ok(())
    }
}
