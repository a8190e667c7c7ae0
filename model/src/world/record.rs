//! What the history is told.

use tikv_core::config::Config;
use tikv_core::engine::Outcome;
use tikv_core::key::Key;
use tikv_core::machine::Call;
use tikv_core::request::{Request, Response};
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{Action as TxnAction, CheckTxnStatusResponse};

use super::World;
use crate::history::{History, Read, Reported, property};
use crate::session::Note;

impl World {
    /// Whether the time of a transaction that was rolled back on a question was up.
    pub(super) fn check_expiry(&mut self, config: &Config, call: &Call, answer: &Response) {
        let (Request::CheckTxnStatus(request), Response::CheckTxnStatus(answer)) = (&call.request, answer) else {
            return;
        };
        if is_rollback(answer) {
            let start_ts = Timestamp::from_version(request.lock_ts);
            let is_pessimistic = self.history.txn(start_ts).is_some_and(|txn| txn.is_pessimistic);
            let least_ttl = if is_pessimistic { config.managed_lock_ttl } else { config.lock_ttl };
            let least_ttl_ms = u64::try_from(least_ttl.as_millis()).unwrap_or(u64::MAX);
            if start_ts.physical_ms().saturating_add(least_ttl_ms) >= self.clock.physical_ms() {
                self.history.edit(|history| history.broken = Some(property::ALIVE));
            } else if is_pessimistic {
                self.history.edit(|history| history.expire(start_ts));
            }
        }
    }
}

fn is_rollback(answer: &CheckTxnStatusResponse) -> bool {
    answer.error.is_none()
        && answer.region_error.is_none()
        && matches!(
            answer.action(),
            TxnAction::TtlExpireRollback | TxnAction::LockNotExistRollback | TxnAction::TtlExpirePessimisticRollback
        )
}

pub(super) fn note(history: &mut History, note: Note) {
    match note {
        Note::Locked(start_ts, keys) => {
            // What was locked before has been noted then.
            for key in keys.into_iter().filter(|key| key.is_locked && !key.lock_ts.is_zero()) {
                history.locked(start_ts, key.key, key.lock_ts, key.value);
            }
        }
        Note::Committing(start_ts) => history.commit_locks(start_ts),
        Note::Dropped(start_ts) => history.drop_locks(start_ts),
    }
}

/// What the caller of an operation is told. A read that fails says nothing.
pub(super) fn record(history: &mut History, end: Outcome, owner: (usize, usize), keys: Vec<Key>) {
    match end {
        Outcome::Commit(result) | Outcome::PipelinedCommit(result) => history.report(
            owner,
            match result {
                Ok(outcome) => outcome.commit_ts.map_or(Reported::Nothing, Reported::Committed),
                Err(error) if error.is_undetermined() => Reported::Undetermined,
                Err(_) => Reported::Failed,
            },
        ),
        Outcome::LockKeys(_) | Outcome::PessimisticRollback(()) | Outcome::Flush(_) => {
            history.report(owner, Reported::Failed);
        }
        Outcome::SnapshotBatchGet(read) | Outcome::SnapshotScan(read) => {
            let read_ts = read.read_through.read_ts();
            if let Ok(pairs) = read.result {
                let pairs = pairs.into_iter().map(|pair| (pair.key, pair.value.bytes)).collect();
                history.read(Read { read_ts, keys, pairs });
            }
        }
        other => unreachable!("nobody has begun {other:?}"),
    }
}
