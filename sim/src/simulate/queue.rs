//! What is going to happen, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tikv_core::rng::Rng;
use tikv_core::time::Time;

/// Events in the order of their times; those of the same time in random order.
#[derive(Clone, Debug)]
pub(super) struct Queue<E> {
    /// Time, a random number, and where the event is.
    order: BinaryHeap<Reverse<(Time, u64, usize)>>,
    /// The events themselves, so that the heap moves small things only.
    events: Vec<Option<E>>,
    free: Vec<usize>,
    rng: Rng,
}

impl<E> Queue<E> {
    pub(super) fn new(rng: Rng) -> Self {
        Queue { order: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), rng }
    }

    pub(super) fn push(&mut self, at: Time, event: E) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.events[slot] = Some(event);
                slot
            }
            None => {
                self.events.push(Some(event));
                self.events.len() - 1
            }
        };
        self.order.push(Reverse((at, self.rng.next_u64(), slot)));
    }

    pub(super) fn pop(&mut self) -> Option<(Time, E)> {
        let Reverse((at, _, slot)) = self.order.pop()?;
        self.free.push(slot);
        self.events[slot].take().map(|event| (at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_their_times_whatever_order_they_were_added_in() {
        let mut queue = Queue::new(Rng::new(1));
        for ms in [5, 1, 9, 3, 1] {
            queue.push(Time::from_millis(ms), ms);
        }
        let popped: Vec<u64> = std::iter::from_fn(|| queue.pop()).map(|(_, ms)| ms).collect();
        assert_eq!(popped, [1, 1, 3, 5, 9]);
    }

    #[test]
    fn events_of_one_time_come_in_an_order_that_follows_from_the_seed() {
        let order = |seed| {
            let mut queue = Queue::new(Rng::new(seed));
            (0..20).for_each(|event| queue.push(Time::ZERO, event));
            std::iter::from_fn(|| queue.pop()).map(|(_, event)| event).collect::<Vec<i32>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
