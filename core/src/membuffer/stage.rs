//! Undoing writes: stages and checkpoints.

use super::log::{Moment, NewRecord, Record};
use super::{KeyFlags, MemBuffer, Stored, ValueRef};

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
    /// assert_eq!(buffer.get(b"a").and_then(|value| value.as_put()).as_deref(), Some(&b"1"[..]));
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

    /// Ends a stage and all within it, and keeps what they wrote.
    ///
    /// # Errors
    ///
    /// [`StageError::NotOpen`].
    pub fn release_nested(&mut self, stage: Stage) -> Result<(), StageError> {
        self.end_nested(stage, MemBuffer::release)
    }

    /// Ends a stage and all within it, and undoes what they wrote, as [`MemBuffer::cleanup`] does.
    ///
    /// # Errors
    ///
    /// [`StageError::NotOpen`].
    pub fn cleanup_nested(&mut self, stage: Stage) -> Result<(), StageError> {
        self.end_nested(stage, MemBuffer::cleanup)
    }

    fn end_nested(
        &mut self,
        stage: Stage,
        end: impl Fn(&mut Self, Stage) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        if !self.stages.contains(&stage) {
            return Err(StageError::NotOpen);
        }
        while let Some(innermost) = self.stages.last().copied().filter(|_| self.stages.contains(&stage)) {
            end(self, innermost)?;
        }
        Ok(())
    }

    /// Marks the present as a moment to go back to, as often as one likes.
    pub fn checkpoint(&mut self) -> Checkpoint {
        Checkpoint(self.log.mark())
    }

    /// Undoes every write since the checkpoint, those of released stages included, with flags as in
    /// [`MemBuffer::cleanup`]. The checkpoint must be one of this buffer.
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
    pub fn staged(&self, stage: Stage) -> Result<impl Iterator<Item = (Stored<'_>, ValueRef<'_>)>, StageError> {
        if !self.stages.contains(&stage) {
            return Err(StageError::NotOpen);
        }
        let records = self.log.since(self.log.end_at(stage.start));
        let newest = records.filter(|(place, record)| self.tree.get(&self.log, record.key()) == Some(*place));
        Ok(newest.filter_map(|(_, record)| Some((record.stored_key(), record.value()?))))
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

    /// Cuts the log. Keys that are left with persistent flags get a new record behind the cut.
    fn undo_since(&mut self, moment: Moment) {
        let end = self.log.end_at(moment);
        let mut kept = Vec::new();
        while let Some(place) = self.log.pop_since(end) {
            let record = self.log.record(place);
            if record.is_dead() {
                continue;
            }
            let spot = self.tree.find(&self.log, record.key());
            self.size -= record.value_len();
            if let Some(previous) = record.previous() {
                self.size += self.log.record(previous).value_len();
                let flags = record.flags();
                self.log.set_flags(previous, flags);
                self.tree.set(spot, previous);
                continue;
            }
            let flags = flags_without_value(&record);
            let key = record.key().to_vec();
            self.size -= key.len();
            self.tree.remove(spot, &key);
            kept.extend(flags.map(|flags| (key, flags)));
        }
        self.log.truncate(end);
        kept.iter().for_each(|(key, flags)| self.keep_flags(key, *flags));
    }

    fn keep_flags(&mut self, key: &[u8], flags: KeyFlags) {
        // There was room for this key a moment ago.
        let Ok(place) = self.log.append(NewRecord { key, value: None, flags }) else { return };
        let spot = self.tree.find(&self.log, key);
        self.tree.insert(&self.log, spot, key, place);
        self.size += key.len();
    }
}

/// The flags of a key that loses its value; `None` if nothing is left to know of it. A key that had no value loses nothing.
fn flags_without_value(record: &Record<'_>) -> Option<KeyFlags> {
    let persistent = record.flags().persistent();
    match record.has_value() {
        true => (!persistent.is_none()).then_some(persistent),
        false => Some(record.flags()),
    }
}
