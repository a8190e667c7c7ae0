//! Sessions that ask what became of a transaction whose outcome was not known.

use std::time::Duration;

use tikv_core::engine::Operation;
use tikv_core::error::Error;
use tikv_core::key::Key;
use tikv_core::lock::{OutcomeOf, TxnOutcome};
use tikv_core::route::CallOptions;
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;

use super::World;
use crate::simulate::check::{Check, End, Rule, ensure};
use crate::simulate::session::State;

impl World {
    /// Of every second one, before its end is noted.
    pub(super) fn will_ask(&mut self, index: usize, session: usize, start_ts: Timestamp) -> bool {
        let asks = self.clients[index].sessions[session].rng.below(2) == 0;
        if asks {
            self.history.ask_outcome(start_ts);
        }
        asks
    }

    pub(super) fn ask_outcome(&mut self, index: usize, session: usize, start_ts: Timestamp, primary: Key) -> Check {
        let config = self.config_of(index);
        let question = OutcomeOf::new(config, start_ts, primary, CallOptions::new(config));
        match question {
            Ok(question) => {
                self.clients[index].sessions[session].state = State::Asking(start_ts);
                self.start(index, session, Operation::OutcomeOf(question), Time::MAX);
                Ok(())
            }
            Err(error) => self.on_told(index, session, start_ts, Err(error)),
        }
    }

    pub(super) fn on_told(
        &mut self,
        index: usize,
        session: usize,
        start_ts: Timestamp,
        result: Result<TxnOutcome, Error>,
    ) -> Check {
        let end = match result {
            Ok(TxnOutcome::Committed(commit_ts)) => End::Committed(Some(commit_ts)),
            Ok(TxnOutcome::RolledBack) => End::RolledBack,
            Ok(TxnOutcome::Open { for_up_to }) => {
                ensure(for_up_to > Duration::ZERO, Rule::PlausibleError, || {
                    format!("transaction {start_ts} is open, but cannot last")
                })?;
                End::Undetermined
            }
            Err(error) => {
                self.check_error(start_ts, &error)?;
                End::Undetermined
            }
        };
        self.totals.found_out += u64::from(end != End::Undetermined);
        self.history.told_outcome(start_ts, end)?;
        self.end_session(index, session, matches!(end, End::Committed(_)))
    }
}
