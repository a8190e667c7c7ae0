//! The buffer against a model that is slow and obvious: a whole copy of the values at every stage and checkpoint.

use std::collections::BTreeMap;

use quickcheck::{Arbitrary, Gen, quickcheck};

use super::*;
use crate::rng::Rng;

#[derive(Clone, Debug)]
enum Step {
    Set(u8, Vec<u8>, Vec<FlagOp>),
    Delete(u8, Vec<FlagOp>),
    UpdateFlags(u8, Vec<FlagOp>),
    Stage,
    Release,
    Cleanup,
    Checkpoint,
    Revert(usize),
    Share,
}

const OPS: [FlagOp; 7] = [
    FlagOp::SetKeyLocked,
    FlagOp::DelKeyLocked,
    FlagOp::SetPresumeKeyNotExists,
    FlagOp::DelPresumeKeyNotExists,
    FlagOp::SetKeyLockedValueExists,
    FlagOp::SetNeedConstraintCheckInPrewrite,
    FlagOp::SetAssertNone,
];

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let key = u8::arbitrary(g) % 6;
        let ops = (0..usize::arbitrary(g) % 3).map(|_| *g.choose(&OPS).unwrap()).collect();
        match u8::arbitrary(g) % 17 {
            0..=4 => Step::Set(key, vec![u8::arbitrary(g); usize::arbitrary(g) % 20 + 1], ops),
            5..=6 => Step::Delete(key, ops),
            7..=8 => Step::UpdateFlags(key, ops),
            9..=10 => Step::Stage,
            11 => Step::Release,
            12 => Step::Cleanup,
            13 => Step::Checkpoint,
            14 => Step::Share,
            _ => Step::Revert(usize::arbitrary(g)),
        }
    }
}

type Values = BTreeMap<Key, Value>;

#[derive(Default)]
struct Model {
    values: Values,
    /// Every key that is known.
    flags: BTreeMap<Key, KeyFlags>,
    stages: Vec<ModelStage>,
    checkpoints: Vec<ModelCheckpoint>,
    dirty: bool,
    clock: u64,
}

struct ModelStage {
    opened: u64,
    before: Values,
    /// Something was written, and is not undone.
    wrote: bool,
}

struct ModelCheckpoint {
    taken: u64,
    values: Values,
    /// For each stage that was open, whether it had written.
    wrote: Vec<bool>,
}

impl Model {
    fn write(&mut self, key: Key, value: Value, ops: &[FlagOp]) {
        self.values.insert(key.clone(), value);
        let flags = self.flags.get(&key).copied().unwrap_or_default();
        self.set_flags(key, flags.apply(&[FlagOp::DelNeedConstraintCheckInPrewrite]).apply(ops));
        if let Some(stage) = self.stages.last_mut() {
            stage.wrote = true;
        }
    }

    fn set_flags(&mut self, key: Key, flags: KeyFlags) {
        self.dirty |= self.stages.is_empty() || !flags.persistent().is_none();
        self.flags.insert(key, flags);
    }

    fn release(&mut self) {
        let stage = self.stages.pop().unwrap();
        match self.stages.last_mut() {
            Some(outer) => outer.wrote |= stage.wrote,
            None => self.dirty |= stage.wrote,
        }
    }

    fn cleanup(&mut self) {
        let stage = self.stages.pop().unwrap();
        let wrote: Vec<_> = self.stages.iter().map(|stage| stage.wrote).collect();
        self.go_back(stage.opened, stage.before, &wrote);
    }

    /// Whether the checkpoint is in reach.
    fn revert(&mut self, index: usize) -> bool {
        let checkpoint = &self.checkpoints[index];
        let (taken, values, mut wrote) = (checkpoint.taken, checkpoint.values.clone(), checkpoint.wrote.clone());
        if self.stages.last().is_some_and(|stage| stage.opened > taken) {
            return false;
        }
        // Stages that have been released since are part of the one that is innermost now.
        if let Some(depth) = self.stages.len().checked_sub(1) {
            let released = wrote.drain(depth..).any(|wrote| wrote);
            wrote.push(released);
            self.stages[depth].wrote = released;
        }
        self.go_back(taken, values, &wrote);
        true
    }

    fn go_back(&mut self, moment: u64, values: Values, wrote: &[bool]) {
        for key in self.values.keys().filter(|key| !values.contains_key(*key)) {
            let flags = self.flags[key].persistent();
            if flags.is_none() {
                self.flags.remove(key);
            } else {
                self.flags.insert(key.clone(), flags);
            }
        }
        // What a later checkpoint would bring back is gone for good.
        for later in self.checkpoints.iter_mut().filter(|checkpoint| checkpoint.taken > moment) {
            later.values = values.clone();
            later.wrote = wrote.to_vec();
        }
        self.values = values;
    }

    fn size(&self) -> usize {
        self.flags.keys().map(Key::len).sum::<usize>()
            + self.values.values().filter_map(Value::as_put).map(Bytes::len).sum::<usize>()
    }
}

/// The buffer and its model, step by step.
#[derive(Default)]
struct Pair {
    buffer: MemBuffer,
    model: Model,
    stages: Vec<Stage>,
    checkpoints: Vec<Checkpoint>,
}

impl Pair {
    fn step(&mut self, step: Step) {
        let Pair { buffer, model, stages, checkpoints } = self;
        model.clock += 1;
        match step {
            Step::Set(key, value, ops) => {
                buffer.set_with_flags([key], value.clone(), &ops).unwrap();
                model.write(Key::from(&[key]), Value::Put(value.into()), &ops);
            }
            Step::Delete(key, ops) => {
                buffer.delete_with_flags([key], &ops).unwrap();
                model.write(Key::from(&[key]), Value::Tombstone, &ops);
            }
            Step::UpdateFlags(key, ops) => {
                buffer.update_flags([key], &ops).unwrap();
                let flags = model.flags.get([key].as_slice()).copied().unwrap_or_default();
                model.set_flags(Key::from(&[key]), flags.apply(&ops));
            }
            Step::Stage => {
                stages.push(buffer.stage());
                model.stages.push(ModelStage { opened: model.clock, before: model.values.clone(), wrote: false });
            }
            Step::Release => {
                let Some(stage) = stages.pop() else { return };
                buffer.release(stage).unwrap();
                model.release();
            }
            Step::Cleanup => {
                let Some(stage) = stages.pop() else { return };
                buffer.cleanup(stage).unwrap();
                model.cleanup();
            }
            Step::Checkpoint => {
                checkpoints.push(buffer.checkpoint());
                let wrote = model.stages.iter().map(|stage| stage.wrote).collect();
                model.checkpoints.push(ModelCheckpoint { taken: model.clock, values: model.values.clone(), wrote });
            }
            Step::Share => buffer.share(),
            Step::Revert(index) => {
                let Some(index) = index.checked_rem(checkpoints.len()) else { return };
                let expected = if model.revert(index) { Ok(()) } else { Err(StageError::StageOpen) };
                assert_eq!(buffer.revert(checkpoints[index]), expected);
            }
        }
        self.check();
    }

    fn check(&self) {
        let Pair { buffer, model, stages, .. } = self;
        let expected: Vec<_> = model.values.clone().into_iter().collect();
        assert_reads(buffer, &expected);
        let flagged = buffer.iter_with_flags(&KeyRange::ALL);
        assert!(flagged.map(|item| (item.key.to_key(), item.flags)).eq(model.flags.clone()));
        assert_eq!((buffer.len(), buffer.size()), (model.flags.len(), model.size()));
        assert_eq!(buffer.is_dirty(), model.dirty);

        let base = model.stages.first().map_or(&model.values, |stage| &stage.before);
        assert!(buffer.snapshot().iter(&KeyRange::ALL).map(owned).eq(base.clone()));
        for (stage, model_stage) in stages.iter().zip(&model.stages) {
            self.check_stage(*stage, model_stage);
        }
        validate(buffer);
    }

    /// A stage lists all that differs from before, once; the history of each key reaches back before it.
    fn check_stage(&self, stage: Stage, model: &ModelStage) {
        let mut staged = Values::new();
        for (key, value) in self.buffer.staged(stage).unwrap() {
            assert_eq!(self.buffer.get(&key), Some(value));
            assert_eq!(staged.insert(key.to_key(), value.to_value()), None);
        }
        let changed = self.model.values.iter().filter(|(key, value)| model.before.get(*key) != Some(*value));
        changed.for_each(|(key, _)| assert!(staged.contains_key(key)));
        assert_eq!(!staged.is_empty(), model.wrote || self.inner_stage_wrote(stage));
        for (key, value) in &model.before {
            assert!(self.buffer.history(key.as_slice()).any(|older| older == *value));
        }
    }

    fn inner_stage_wrote(&self, stage: Stage) -> bool {
        self.model.stages[stage.depth()..].iter().any(|inner| inner.wrote)
    }
}

quickcheck! {
    fn a_buffer_does_what_its_model_does(steps: Vec<Step>) -> bool {
        let mut pair = Pair::default();
        steps.into_iter().for_each(|step| pair.step(step));
        true
    }

    fn a_clone_goes_its_own_way(before: Vec<Step>, after: Vec<Step>) -> bool {
        let mut pair = Pair::default();
        before.into_iter().for_each(|step| pair.step(step));
        let (copy, original) = (pair.buffer.clone(), pair.buffer.clone());
        after.into_iter().for_each(|step| pair.step(step));
        copy == original
    }
}

#[test]
fn random_keys_agree_with_an_ordered_map() {
    let mut rng = Rng::new(11);
    let mut random = |max: u64| -> Vec<u8> { (0..=rng.below(max)).map(|_| rng.below(256) as u8).collect() };
    let (mut buffer, mut map) = (MemBuffer::new(), Values::new());
    let keys: Vec<_> = (0..5_000).map(|_| Key::from(random(19))).collect();
    for key in &keys {
        buffer.set(key.clone(), key.to_bytes()).unwrap();
        map.insert(key.clone(), Value::Put(key.to_bytes()));
    }
    for (index, key) in keys.into_iter().enumerate() {
        if index % 3 == 0 {
            buffer.delete(key.clone()).unwrap();
            map.insert(key, Value::Tombstone);
        } else {
            let value = Bytes::from(random(19));
            buffer.set(key.clone(), value.clone()).unwrap();
            map.insert(key, Value::Put(value));
        }
    }
    assert_eq!(buffer.len(), map.len());
    assert_eq!(
        buffer.size(),
        map.iter().map(|(key, value)| key.len() + value.as_put().map_or(0, Bytes::len)).sum::<usize>()
    );
    assert_reads(&buffer, &map.into_iter().collect::<Vec<_>>());
}

#[test]
fn a_hundred_random_stages_within_each_other_agree_with_a_map() {
    for seed in 0..5 {
        let (mut rng, mut buffer) = (Rng::new(seed), MemBuffer::new());
        let mut maps = vec![Values::new()];
        let mut stages = Vec::new();
        for depth in 0..100 {
            let mut map = maps[depth].clone();
            stages.push(buffer.stage());
            for _ in 0..rng.range(16..64) {
                let key = key(rng.below(200) as u32);
                let value = Bytes::from(vec![depth as u8; rng.range(1..40) as usize]);
                buffer.set(key.clone(), value.clone()).unwrap();
                map.insert(key, Value::Put(value));
            }
            maps.push(map);
        }
        while let (Some(stage), Some(map)) = (stages.pop(), maps.pop()) {
            if rng.below(10) < 3 {
                buffer.cleanup(stage).unwrap();
            } else {
                buffer.release(stage).unwrap();
                *maps.last_mut().unwrap() = map;
            }
            assert_reads(&buffer, &maps.last().unwrap().clone().into_iter().collect::<Vec<_>>());
        }
    }
}
