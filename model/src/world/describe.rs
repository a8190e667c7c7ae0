//! Steps for people.

use bytes::Bytes;
use tikv_core::machine::Call;
use tikv_core::request::{Request, Response};
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::KeyError;

use super::messages::{Message, Stage, Waiter};
use super::{Action, World};

impl World {
    pub(super) fn describe(&self, action: &Action) -> String {
        let message = |place: usize| self.messages.get(place).map_or_else(String::new, |it| describe(it));
        match *action {
            Action::Begin(client) => format!("client {client} begins its operation {}", self.clients[client].begun),
            Action::Execute(place) => format!("executed: {}", message(place)),
            Action::Duplicate(place) => format!("copied: {}", message(place)),
            Action::Answer(place) => format!("answered: {}", message(place)),
            Action::BeImpatient(place) => format!("waits no longer: {}", message(place)),
            Action::WakeOthers => "the store wakes all whose lock has gone".to_owned(),
            Action::TimeOut(place) => format!("timed out: {}", message(place)),
            Action::Refuse(place) => format!("not sent: {}", message(place)),
            Action::Wake(client, task, _) => format!("client {client}: machine {task} wakes"),
            Action::Abandon(client) => format!("client {client}: the owner loses interest"),
            Action::Crash(client) => format!("client {client} dies"),
            Action::Split => "the region splits".to_owned(),
            Action::Leap => "time passes".to_owned(),
        }
    }
}

fn describe(message: &Message) -> String {
    let who = match message.waiter {
        Some(Waiter { client, task, .. }) => format!("{} of client {client}, machine {task}", call(&message.call)),
        None => format!("{} of nobody", call(&message.call)),
    };
    match &message.stage {
        Stage::Answered(answer) => format!("{who}: {}", gist(answer)),
        Stage::Queued(_) => format!("{who}, which waits"),
        Stage::Sent => who,
    }
}

fn gist(answer: &Response) -> String {
    if answer.region_error().is_some() {
        return "region error".to_owned();
    }
    match answer {
        Response::Prewrite(it) if it.errors.is_empty() => format!("locked, min_commit_ts {}", ts(it.min_commit_ts)),
        Response::Commit(it) => it.error.as_ref().map_or("committed".to_owned(), |error| format!("{error:?}")),
        Response::CheckTxnStatus(it) => {
            let (commit_ts, action) = (ts(it.commit_version), it.action());
            format!("{action:?}, ttl {}, commit_ts {commit_ts}, {:?}", it.lock_ttl, it.error)
        }
        Response::CheckSecondaryLocks(it) => format!("{} locks, commit_ts {}", it.locks.len(), ts(it.commit_ts)),
        Response::BatchGet(it) => {
            let pairs = it.pairs.iter().map(|pair| match &pair.error {
                Some(_) => "locked".to_owned(),
                None => format!("{:?} = {:?}", pair.key, pair.value),
            });
            format!("[{}]", pairs.collect::<Vec<_>>().join(", "))
        }
        Response::PessimisticLock(it) => match it.errors.first() {
            Some(error) => key_error(error),
            None => format!("locked, {:?}, {:?}", it.values, it.results),
        },
        other => format!("{other:?}"),
    }
}

fn key_error(error: &KeyError) -> String {
    match error {
        KeyError { locked: Some(lock), .. } => format!("locked by {}", ts(lock.lock_version)),
        KeyError { deadlock: Some(_), .. } => "deadlock".to_owned(),
        KeyError { conflict: Some(conflict), .. } => format!("conflict with {}", ts(conflict.conflict_commit_ts)),
        other => format!("{other:?}"),
    }
}

fn call(call: &Call) -> String {
    match &call.request {
        Request::Prewrite(it) => {
            let keys: Vec<_> = it.mutations.iter().map(|mutation| mutation.key.clone()).collect();
            format!("Prewrite {} of {}", names(&keys), ts(it.start_version))
        }
        Request::PessimisticLock(it) => {
            let keys: Vec<_> = it.mutations.iter().map(|mutation| mutation.key.clone()).collect();
            let how = if it.wake_up_mode == 0 { "" } else { " by force" };
            format!("PessimisticLock {} of {} at {}{how}", names(&keys), ts(it.start_version), ts(it.for_update_ts))
        }
        Request::PessimisticRollback(it) => {
            let (start_ts, for_update_ts) = (ts(it.start_version), ts(it.for_update_ts));
            format!("PessimisticRollback {} of {start_ts} up to {for_update_ts}", names(&it.keys))
        }
        Request::TxnHeartBeat(it) => format!("TxnHeartBeat of {}", ts(it.start_version)),
        Request::Commit(it) => {
            format!("Commit {} of {} at {}", names(&it.keys), ts(it.start_version), ts(it.commit_version))
        }
        Request::BatchRollback(it) => format!("BatchRollback {} of {}", names(&it.keys), ts(it.start_version)),
        Request::ResolveLock(it) => {
            format!("ResolveLock {} of {} at {}", names(&it.keys), ts(it.start_version), ts(it.commit_version))
        }
        Request::CheckTxnStatus(it) => {
            let primary = names(std::slice::from_ref(&it.primary_key));
            format!("CheckTxnStatus of {} on {primary} at {}", ts(it.lock_ts), ts(it.current_ts))
        }
        Request::CheckSecondaryLocks(it) => {
            format!("CheckSecondaryLocks {} of {}", names(&it.keys), ts(it.start_version))
        }
        Request::BatchGet(it) => format!("BatchGet {} at {}", names(&it.keys), ts(it.version)),
        Request::Scan(it) => format!("Scan at {}", ts(it.version)),
        other => format!("{other:?}"),
    }
}

fn names(keys: &[Bytes]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| String::from_utf8_lossy(key)).collect();
    keys.join(",")
}

/// Leaps of PD's clock and timestamps given: all that differs.
fn ts(version: u64) -> String {
    let ts = Timestamp::from_version(version);
    match version {
        0 => "0".to_owned(),
        u64::MAX => "max".to_owned(),
        _ => format!("{}s#{}", ts.physical_ms() % 1_000_000 / 1_000, ts.logical()),
    }
}
