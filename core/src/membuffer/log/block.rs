//! Memory for records: appended to, cut off at the end, and shared with readers once nothing is written any more.

use bytes::Bytes;

use super::Place;

/// Records begin at multiples of this many bytes.
pub(super) const UNIT: usize = 8;
/// A [`Place`] counts this many units in a block: 1 MiB.
const OFFSET_BITS: u32 = 17;
const BLOCK_UNITS: usize = 1 << OFFSET_BITS;
const FIRST_BLOCK_BYTES: usize = 512;
/// One less than a [`Place`] can tell apart, so that the end of the last block is a place as well.
const MAX_BLOCKS: usize = (1 << (u32::BITS - OFFSET_BITS)) - 1;

/// Longest records altogether, in bytes: 32 GiB.
pub(in super::super) const MAX_BYTES: usize = MAX_BLOCKS * BLOCK_UNITS * UNIT;

/// Blocks that double in size up to 1 MiB, so that a small transaction takes little and a large one copies nothing as it
/// grows. A record that does not fit a whole block has one of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    list: Vec<Block>,
    /// Room in all blocks.
    room: usize,
}

#[derive(Clone, Debug)]
pub(in super::super) struct Block {
    content: Content,
    /// Bytes it may hold. A clone's memory is shorter until it is written.
    room: usize,
}

#[derive(Clone, Debug)]
enum Content {
    Own(Vec<u8>),
    /// Nobody writes it any more; keys and values read from it share it.
    Shared(Bytes),
}

impl Block {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Own(bytes) => bytes,
            Content::Shared(bytes) => bytes,
        }
    }

    /// The memory, if it is shared.
    pub(in super::super) fn shared(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Own(_) => None,
            Content::Shared(bytes) => Some(bytes),
        }
    }
}

impl Place {
    fn new(block: usize, offset: usize) -> Self {
        Place(((block << OFFSET_BITS) + (offset / UNIT).min(BLOCK_UNITS)) as u32)
    }

    #[inline]
    fn block(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize
    }

    #[inline]
    fn offset(self) -> usize {
        (self.0 as usize & (BLOCK_UNITS - 1)) * UNIT
    }
}

impl Blocks {
    /// Where the next record is at the earliest.
    pub(super) fn end(&self) -> Place {
        match self.list.last() {
            Some(block) => Place::new(self.list.len() - 1, block.bytes().len()),
            None => Place(0),
        }
    }

    /// A block, and what is in it from a place on.
    #[inline]
    pub(super) fn at(&self, place: Place) -> (&Block, &[u8]) {
        let block = &self.list[place.block()];
        (block, &block.bytes()[place.offset()..])
    }

    /// What is from a place on, to be changed. Memory that is shared is copied first.
    pub(super) fn at_mut(&mut self, place: Place) -> &mut [u8] {
        let content = &mut self.list[place.block()].content;
        if let Content::Shared(bytes) = content {
            *content = Content::Own(std::mem::take(bytes).into());
        }
        match content {
            Content::Own(bytes) => &mut bytes[place.offset()..],
            Content::Shared(_) => &mut [],
        }
    }

    /// Whether what is at a place is shared: changing it means to copy a block.
    pub(super) fn is_shared(&self, place: Place) -> bool {
        self.list[place.block()].shared().is_some()
    }

    /// A place for a record of `size` bytes and the memory to append it to; `None` if there is no place left.
    #[inline]
    pub(super) fn reserve(&mut self, size: usize) -> Option<(Place, &mut Vec<u8>)> {
        let fits = match self.list.last() {
            Some(Block { content: Content::Own(bytes), room }) => bytes.len() + size <= *room,
            _ => false,
        };
        if !fits {
            self.add_block(size)?;
        }
        let index = self.list.len() - 1;
        match &mut self.list.last_mut()?.content {
            Content::Own(bytes) => Some((Place::new(index, bytes.len()), bytes)),
            Content::Shared(_) => None,
        }
    }

    #[cold]
    fn add_block(&mut self, size: usize) -> Option<()> {
        if self.list.len() == MAX_BLOCKS {
            return None;
        }
        let doubled = FIRST_BLOCK_BYTES << self.list.len().min(usize::BITS as usize / 2);
        let room = doubled.min(BLOCK_UNITS * UNIT).max(size);
        if self.list.is_empty() {
            // Most transactions need no third one.
            self.list = Vec::with_capacity(2);
        }
        self.list.push(Block { content: Content::Own(Vec::with_capacity(room)), room });
        self.room += room;
        Some(())
    }

    /// Forgets everything from a place on.
    pub(super) fn truncate(&mut self, end: Place) {
        let (kept, offset) = (end.block(), end.offset());
        while self.list.len() > kept + usize::from(offset > 0) {
            self.room -= self.list.pop().map_or(0, |block| block.room);
        }
        if let Some(block) = self.list.get_mut(kept) {
            match &mut block.content {
                Content::Own(bytes) => bytes.truncate(offset),
                Content::Shared(bytes) => bytes.truncate(offset),
            }
        }
    }

    /// Makes all memory shareable.
    pub(super) fn share(&mut self) {
        for block in &mut self.list {
            if let Content::Own(bytes) = &mut block.content {
                block.content = Content::Shared(std::mem::take(bytes).into());
            }
        }
    }

    /// Memory taken, in bytes, without what is left of the last block.
    pub(super) fn footprint(&self) -> usize {
        self.room - self.list.last().map_or(0, |block| block.room - block.bytes().len())
    }
}
