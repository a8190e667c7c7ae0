//! Undoing writes: stages and checkpoints.

use super::log::{Moment, Version};
use super::{Entry, MemBuffer, Value};
use crate::key::Key;

/// An open stage, as [`MemBuffer::stage`] gave it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stage {
    /// Unique: a moment of its own.
    pub(super) start: Moment,
    depth: usize,
}

impl Stage {
    /// How many stages were open once this was opened: 1 for the outermost.
    #[must_use]
    pub fn depth(self) -> usize {
        self.depth
    }
}

/// A moment to go back to, as [`MemBuffer::checkpoint`] gave it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint(Moment);

/// A stage or checkpoint cannot be ended or gone back to now. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StageError {
    /// The stage was ended before.
    #[error("the stage is not open")]
    NotOpen,
    /// Stages opened later must be ended first.
    #[error("stage {depth} of {open} is not the innermost one")]
    NotInnermost {
        /// Depth of the stage.
        depth: usize,
        /// Stages that are open.
        open: usize,
    },
    /// A stage that was opened after the checkpoint must be ended first.
    #[error("a stage was opened after the checkpoint and is still open")]
    StageOpen,
}

impl MemBuffer {
    /// Opens a stage within the current one: what is written from here on can be undone as a whole. A statement of a
    /// transaction, say.
    ///
    /// ```
    /// use tikv_core::membuffer::MemBuffer;
    ///
    /// let mut buffer = MemBuffer::new();
    /// buffer.set("a", "1")?;
    /// let stage = buffer.stage();
    /// buffer.set("a", "2")?;
    /// buffer.cleanup(stage)?;
    /// assert_eq!(buffer.get(b"a").and_then(|value| value.as_put()), Some(&"1".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stage(&mut self) -> Stage {
        let stage = Stage { start: self.log.mark(), depth: self.stages.len() + 1 };
        self.stages.push(stage);
        stage
    }

    /// Ends the innermost stage and keeps what it wrote.
    ///
    /// # Errors
    ///
    /// [`StageError::NotInnermost`], [`StageError::NotOpen`].
    pub fn release(&mut self, stage: Stage) -> Result<(), StageError> {
        self.check_innermost(stage)?;
        self.stages.pop();
        if self.stages.is_empty() && self.log.written_since(stage.start) {
            self.dirty = true;
            self.base_changes += 1;
        }
        Ok(())
    }

    /// Ends the innermost stage and undoes what it wrote. Flags stay, unless the key has no value left: then only the
    /// [persistent](super::KeyFlags::persistent) ones do. No effect on a stage that was ended before, so that it can be
    /// called on every way out.
    ///
    /// # Errors
    ///
    /// [`StageError::NotInnermost`].
    pub fn cleanup(&mut self, stage: Stage) -> Result<(), StageError> {
        match self.check_innermost(stage) {
            Err(StageError::NotOpen) => return Ok(()),
            other => other?,
        }
        self.undo_since(stage.start);
        self.stages.pop();
        Ok(())
    }

    /// Marks the present as a moment to go back to, as often as one likes.
    pub fn checkpoint(&mut self) -> Checkpoint {
        Checkpoint(self.log.mark())
    }

    /// Undoes every write since the checkpoint, those of released stages included, with flags as in
    /// [`MemBuffer::cleanup`].
    ///
    /// # Errors
    ///
    /// [`StageError::StageOpen`].
    pub fn revert(&mut self, checkpoint: Checkpoint) -> Result<(), StageError> {
        let Checkpoint(moment) = checkpoint;
        if self.stages.last().is_some_and(|stage| stage.start >= moment) {
            return Err(StageError::StageOpen);
        }
        if self.stages.is_empty() && self.log.written_since(moment) {
            self.base_changes += 1;
        }
        self.undo_since(moment);
        Ok(())
    }

    /// Whether any stage is open.
    #[must_use]
    pub fn is_staging(&self) -> bool {
        !self.stages.is_empty()
    }

    /// The keys written in an open stage and those within it, with their newest values. The last written comes first.
    /// client-go: `InspectStage`.
    ///
    /// # Errors
    ///
    /// [`StageError::NotOpen`].
    pub fn staged(&self, stage: Stage) -> Result<impl Iterator<Item = (&Key, &Value)>, StageError> {
        if !self.stages.contains(&stage) {
            return Err(StageError::NotOpen);
        }
        let newest = |key: &Key| self.entries.get(key).and_then(|entry| entry.newest);
        let versions = self.log.since(stage.start).filter(move |(place, version)| newest(&version.key) == Some(*place));
        Ok(versions.map(|(_, version)| (&version.key, &version.value)))
    }

    fn check_innermost(&self, stage: Stage) -> Result<(), StageError> {
        if self.stages.last() == Some(&stage) {
            Ok(())
        } else if self.stages.contains(&stage) {
            Err(StageError::NotInnermost { depth: stage.depth, open: self.stages.len() })
        } else {
            Err(StageError::NotOpen)
        }
    }

    fn undo_since(&mut self, moment: Moment) {
        while let Some(version) = self.log.pop_since(moment) {
            self.undo(&version);
        }
    }

    fn undo(&mut self, version: &Version) {
        self.footprint -= version.footprint();
        self.size -= version.value.len();
        let Some(entry) = self.entries.get_mut(&version.key) else { return };
        entry.newest = version.previous;
        if let Some(place) = version.previous {
            self.size += self.log.get(place).value.len();
            return;
        }
        entry.flags = entry.flags.persistent();
        if entry.flags.is_none() {
            self.entries.remove(&version.key);
            self.size -= version.key.len();
            self.footprint -= Entry::footprint(&version.key);
        }
    }
}
