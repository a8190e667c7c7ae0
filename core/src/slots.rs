//! Values by consecutive ids.

use std::collections::{BTreeMap, VecDeque};

/// A window may have this many places without a value, and then as many again as four times its values.
const EMPTY_PLACES: usize = 64;

/// A window over consecutive ids: an id's value is found by subtraction. Ids begin at 1 and are never used twice.
///
/// A value that stays while thousands of newer ones come and go would stretch the window. It is moved out of it to the
/// stragglers, at most once in its life, so that the space follows from the number of values and not from their ages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slots<T> {
    /// Values older than the window.
    stragglers: BTreeMap<u64, T>,
    /// The id of the first place of the window.
    first: u64,
    window: VecDeque<Option<T>>,
    /// Values in the window.
    occupied: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { stragglers: BTreeMap::new(), first: 1, window: VecDeque::new(), occupied: 0 }
    }
}

impl<T> Slots<T> {
    /// The id that the next value will get.
    pub(crate) fn next_id(&self) -> u64 {
        self.first + self.window.len() as u64
    }

    /// Adds a value and returns its id.
    pub(crate) fn insert(&mut self, value: T) -> u64 {
        let id = self.next_id();
        self.window.push_back(Some(value));
        self.occupied += 1;
        while self.window.len() > EMPTY_PLACES + 5 * self.occupied {
            self.pop_front();
        }
        id
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        match self.index(id) {
            Some(index) => matches!(self.window.get(index), Some(Some(_))),
            None => self.stragglers.contains_key(&id),
        }
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        match self.index(id) {
            Some(index) => self.window.get_mut(index)?.as_mut(),
            None => self.stragglers.get_mut(&id),
        }
    }

    #[inline]
    pub(crate) fn remove(&mut self, id: u64) -> Option<T> {
        let Some(index) = self.index(id) else { return self.stragglers.remove(&id) };
        let value = self.window.get_mut(index)?.take()?;
        self.occupied -= 1;
        while let Some(None) = self.window.front() {
            self.pop_front();
        }
        Some(value)
    }

    /// Every id with its value, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let window = (self.first..).zip(&self.window).filter_map(|(id, value)| Some((id, value.as_ref()?)));
        self.stragglers.iter().map(|(id, value)| (*id, value)).chain(window)
    }

    /// Takes every value, the oldest first; ids go on.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.first += self.window.len() as u64;
        self.occupied = 0;
        let window = std::mem::take(&mut self.window).into_iter().flatten();
        std::mem::take(&mut self.stragglers).into_values().chain(window)
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.stragglers.len() + self.occupied
    }

    fn pop_front(&mut self) {
        if let Some(value) = self.window.pop_front().flatten() {
            self.occupied -= 1;
            self.stragglers.insert(self.first, value);
        }
        self.first += 1;
    }

    /// The place in the window; `None` for ids before it.
    fn index(&self, id: u64) -> Option<usize> {
        usize::try_from(id.checked_sub(self.first)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    #[test]
    fn the_window_is_no_longer_than_its_values_justify() {
        let mut slots = Slots::default();
        let slow: Vec<u64> = (0..3).map(|n| slots.insert(n)).collect();
        for n in 0..10_000 {
            let id = slots.insert(n);
            assert_eq!(slots.remove(id), Some(n));
            assert!(slots.window.len() <= EMPTY_PLACES + 5 * 4);
        }
        assert_eq!((slots.len(), slots.stragglers.len()), (3, 3));
        assert_eq!(slots.iter().map(|(id, _)| id).collect::<Vec<_>>(), slow);
        assert_eq!(slow.iter().map(|id| slots.remove(*id)).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
        assert_eq!(slots.len(), 0);
    }

    quickcheck! {
        /// Inserts where the step is none, removes the n-th oldest (modulo their number) where it is some.
        fn slots_are_a_map_by_growing_ids(steps: Vec<Option<usize>>) -> bool {
            let (mut slots, mut model) = (Slots::default(), BTreeMap::new());
            let mut newest = 0;
            for (value, step) in steps.into_iter().cycle().take(500).enumerate() {
                match step.and_then(|n| n.checked_rem(model.len())) {
                    Some(n) => {
                        let id = model.keys().nth(n).copied().unwrap_or_default();
                        assert_eq!(slots.get_mut(id), model.get_mut(&id));
                        assert_eq!(slots.remove(id), model.remove(&id));
                        assert_eq!((slots.remove(id), slots.contains(id)), (None, false));
                    }
                    None => {
                        let id = slots.insert(value);
                        assert!(id > newest && slots.contains(id));
                        newest = id;
                        model.insert(id, value);
                    }
                }
                assert_eq!(slots.len(), model.len());
                assert!(slots.iter().eq(model.iter().map(|(id, value)| (*id, value))));
            }
            slots.take_all().eq(model.into_values())
        }
    }
}
