//! What the client was told of its commits, and what it says of them.

use std::collections::BTreeMap;

use tikv_core::engine::StoreCallId;
use tikv_core::error::{Error, Fault};
use tikv_core::key::Key;
use tikv_core::machine::Call;
use tikv_core::request::{Request, Response};
use tikv_core::timestamp::Timestamp;
use tikv_core::txn::CommitOutcome;
use tikv_proto::kvrpcpb::{CommitRequest, CommitResponse};

/// A commit, and what was answered to the requests for its primary.
#[derive(Clone, Debug)]
pub(super) struct TrackedCommit {
    start_ts: Timestamp,
    primary: Key,
    /// The timestamp of a request that was answered with success.
    committed: Option<Timestamp>,
    /// Whether an attempt may have been executed of which no later answer tells.
    is_open: bool,
}

impl TrackedCommit {
    pub(super) fn new(start_ts: Timestamp, primary: Key) -> Self {
        TrackedCommit { start_ts, primary, committed: None, is_open: false }
    }
}

/// All commits of a story.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    commits: BTreeMap<usize, TrackedCommit>,
    /// Requests for primaries on their way: whose, and at which timestamp.
    sent: BTreeMap<StoreCallId, (usize, Timestamp)>,
}

impl Ledger {
    pub(super) fn begin(&mut self, index: usize, commit: Option<TrackedCommit>) {
        self.commits.extend(commit.map(|commit| (index, commit)));
    }

    pub(super) fn sent(&mut self, id: StoreCallId, call: &Call) {
        let Request::Commit(request) = &call.request else { return };
        let named = self.commits.iter_mut().find(|(_, commit)| names_primary(request, commit));
        let Some((index, commit)) = named.map(|(index, commit)| (*index, commit)) else { return };
        assert!(commit.committed.is_none(), "commits once more what is committed: {call:?}");
        self.sent.insert(id, (index, Timestamp::from_version(request.commit_version)));
    }

    pub(super) fn cancelled(&mut self, id: StoreCallId) {
        if let Some(commit) = self.sent.remove(&id).and_then(|(index, _)| self.commits.get_mut(&index)) {
            commit.is_open = true;
        }
    }

    pub(super) fn answered(&mut self, id: StoreCallId, reply: &Result<Response, Fault>) {
        let Some((index, commit_ts)) = self.sent.remove(&id) else { return };
        let Some(commit) = self.commits.get_mut(&index) else { return };
        match reply {
            Ok(Response::Commit(CommitResponse { region_error: Some(error), .. })) => {
                // The one tells that it does not know, the other that somebody else may go on with it.
                let is_told_otherwise = error.not_leader.is_none() && error.disk_full.is_none();
                commit.is_open |=
                    error.undetermined_result.is_some() || (error.stale_command.is_some() && is_told_otherwise);
            }
            Ok(Response::Commit(response)) => {
                commit.is_open = false;
                commit.committed = response.error.is_none().then_some(commit_ts);
            }
            Ok(_) => commit.is_open = true,
            Err(fault) => commit.is_open |= fault.may_be_executed(),
        }
    }

    pub(super) fn check(&self, index: usize, result: &Result<CommitOutcome, Error>) {
        let Some(commit) = self.commits.get(&index) else { return };
        match result {
            Ok(CommitOutcome { commit_ts: Some(commit_ts), .. }) => {
                assert_eq!(commit.committed, Some(*commit_ts), "reported committed, but never told so: {commit:?}");
            }
            // Nothing but absences to check.
            Ok(CommitOutcome { commit_ts: None, .. }) => assert!(!commit.is_open && commit.committed.is_none()),
            Err(error) if error.is_undetermined() => {}
            Err(error) => {
                assert!(!commit.is_open, "reported as failed, but an attempt is open: {error:?}, {commit:?}");
                assert!(commit.committed.is_none(), "reported as failed, but committed: {error:?}, {commit:?}");
            }
        }
    }
}

fn names_primary(request: &CommitRequest, commit: &TrackedCommit) -> bool {
    request.start_version == commit.start_ts.version()
        && request.keys.iter().any(|key| key[..] == *commit.primary.as_slice())
}
