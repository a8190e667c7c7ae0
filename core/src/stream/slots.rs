//! Values by consecutive ids.

use std::collections::VecDeque;

/// A window over consecutive ids: an id's value is found by subtraction. Ids begin at 1 and are never used twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slots<T> {
    first: u64,
    window: VecDeque<Option<T>>,
    occupied: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { first: 1, window: VecDeque::new(), occupied: 0 }
    }
}

impl<T> Slots<T> {
    /// Adds a value and returns its id.
    pub(super) fn insert(&mut self, value: T) -> u64 {
        let id = self.first + self.window.len() as u64;
        self.window.push_back(Some(value));
        self.occupied += 1;
        id
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        let index = self.index(id)?;
        self.window.get_mut(index)?.as_mut()
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<T> {
        let index = self.index(id)?;
        let value = self.window.get_mut(index)?.take()?;
        self.occupied -= 1;
        while let Some(None) = self.window.front() {
            self.window.pop_front();
            self.first += 1;
        }
        Some(value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        (self.first..).zip(&self.window).filter_map(|(id, value)| Some((id, value.as_ref()?)))
    }

    /// Empties the window; ids go on.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.first += self.window.len() as u64;
        self.occupied = 0;
        std::mem::take(&mut self.window).into_iter().flatten()
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.occupied
    }

    /// From the oldest value to the newest, values since removed included.
    pub(super) fn window(&self) -> usize {
        self.window.len()
    }

    fn index(&self, id: u64) -> Option<usize> {
        usize::try_from(id.checked_sub(self.first)?).ok()
    }
}
