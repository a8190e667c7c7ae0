//! Reads of the newest version, outside of transactions.

use tikv_core::engine::Operation;
use tikv_core::key::Key;
use tikv_core::snapshot::{self, Read, ReadThrough, SnapshotOptions};
use tikv_core::timestamp::Timestamp;

use super::World;
use crate::simulate::check::{Check, Newest};
use crate::simulate::session::State;

impl World {
    pub(super) fn read_newest(&mut self, index: usize, session: usize, key: Key) {
        let deadline = self.deadline_of_next(index, session);
        let mut options = SnapshotOptions::new(Timestamp::MAX, self.config_of(index));
        options.call.deadline = deadline;
        options.need_commit_ts = self.clients[index].sessions[session].rng.below(2) == 0;
        let read_through = ReadThrough::new(Timestamp::MAX);
        let get = snapshot::Get::new(self.config_of(index), key.clone(), options, read_through);
        let newest = self.history.begin_newest(&key);
        self.clients[index].sessions[session].state = State::ReadingNewest(key, newest);
        self.note_begin(index, session, Timestamp::ZERO);
        self.start(index, session, Operation::SnapshotGet(get), deadline);
    }

    pub(super) fn on_newest(
        &mut self,
        index: usize,
        session: usize,
        key: &Key,
        newest: Newest,
        read: Read<Option<snapshot::Value>>,
    ) -> Check {
        let succeeded = match read.result {
            Ok(value) => {
                self.history.read_newest(key, newest, value.as_ref())?;
                self.totals.read_only += 1;
                true
            }
            Err(error) => {
                self.check_error(Timestamp::ZERO, &error)?;
                self.totals.rolled_back += 1;
                false
            }
        };
        self.history.close(newest.open);
        self.note_end(index, session, Timestamp::ZERO, if succeeded { "read only" } else { "rolled back" });
        self.end_session(index, session, succeeded)
    }
}
