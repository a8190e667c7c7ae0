//! Many operations at once.

use bytes::Bytes;
use tikv_core::config::Config;
use tikv_core::engine::{Engine, EngineCommand, Operation, StoreCallId};
use tikv_core::keyspace::KeyCodec;
use tikv_core::raw::{self, RawOptions};
use tikv_core::rng::Rng;
use tikv_core::time::Time;
use tikv_proto::kvrpcpb;

use crate::keys;
use crate::world::{self, Size};

const NOW: Time = Time::from_millis(1);

/// An engine in which raw gets wait for their answers.
#[derive(Debug)]
pub struct Running {
    config: Config,
    options: RawOptions,
    engine: Engine,
    waiting: Vec<StoreCallId>,
    rng: Rng,
    value: Bytes,
}

impl Running {
    /// So many gets have been sent.
    #[must_use]
    pub fn new(operations: usize) -> Self {
        let config = Config::default();
        let engine = Engine::new(config.clone(), vec!["pd:2379".to_owned()], 1);
        world::fill(engine.knowledge(KeyCodec::Raw), Size { regions: 1000, stores: 3 });
        let (options, waiting, value) = (RawOptions::new(&config), Vec::new(), Bytes::from(vec![7; 64]));
        let mut running = Running { config, options, engine, waiting, rng: Rng::new(1), value };
        assert!((0..operations).all(|_| running.send()), "the call of a get");
        running
    }

    /// One of the gets, whichever, is answered and ends, and another one begins. Whether all that happened.
    pub fn replace(&mut self) -> bool {
        let any = self.rng.below(self.waiting.len() as u64) as usize;
        let answer = kvrpcpb::RawGetResponse { value: self.value.clone(), ..Default::default() };
        self.engine.handle_reply(NOW, self.waiting.swap_remove(any), Ok(answer.into()));
        self.engine.poll_outcome().is_some() && self.send()
    }

    fn send(&mut self) -> bool {
        let key = keys::key(self.rng.below(keys::KEYS));
        let Ok(get) = raw::get(&self.config, key, &self.options) else { return false };
        self.engine.start(NOW, Operation::RawGet(get));
        let Some(EngineCommand::Call { id, .. }) = self.engine.poll_command() else { return false };
        self.waiting.push(id);
        self.engine.poll_command().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_operations_run_after_an_answer_as_before() {
        let mut running = Running::new(10);
        assert!((0..100).all(|_| running.replace()));
        assert_eq!((running.engine.running(), running.engine.calls_under_way()), (10, 10));
    }
}
