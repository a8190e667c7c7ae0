//! Sorts keys by region.
//!
//! ```text
//!   start ──► (next key) ──► Locating ──► group of all keys in that region ──► next key … ──► done
//! ```

use std::sync::Arc;
use std::task::Poll;

use super::locate::{Locate, Located, Place, not_of_place};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::machine::{Context, Event, Machine, Token};
use crate::time::Time;

/// Something that belongs to the region of a key: a key itself, a pair, a mutation.
pub trait Keyed {
    /// Its key.
    fn key(&self) -> &Key;
}

impl Keyed for Key {
    fn key(&self) -> &Key {
        self
    }
}

/// Looks keys up among items that are in the order of their keys. Who asks in that order, as TiKV answers, pays one comparison
/// for a key.
#[derive(Clone, Debug)]
pub(crate) struct InOrder<'a, I> {
    items: &'a [I],
    /// Behind the one that was found last.
    next: usize,
}

impl<'a, I: Keyed> InOrder<'a, I> {
    /// Nothing has been found yet.
    pub(crate) fn new(items: &'a [I]) -> Self {
        InOrder { items, next: 0 }
    }

    /// The item of `key`.
    pub(crate) fn find(&mut self, key: &[u8]) -> Option<&'a I> {
        let is_next = self.items.get(self.next).is_some_and(|item| item.key().as_slice() == key);
        let index = match is_next {
            true => self.next,
            false => self.items.binary_search_by(|item| item.key().as_slice().cmp(key)).ok()?,
        };
        self.next = index + 1;
        self.items.get(index)
    }
}

/// Items of one region, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group<I> {
    /// The region.
    pub region: Arc<Region>,
    /// At least one item.
    pub items: Vec<I>,
}

/// The end of a [`Grouping`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grouped<I> {
    /// The groups in the order of their keys, or why there are none.
    pub result: Result<Vec<Group<I>>, Unlocated<I>>,
    /// What is left of the budget.
    pub backoff: Backoff,
}

/// Items whose region could not be found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unlocated<I> {
    /// All that were to be grouped: of those located before the failure nothing was made either.
    pub items: Vec<I>,
    /// Why.
    pub error: Error,
}

impl<I> From<Unlocated<I>> for Error {
    fn from(unlocated: Unlocated<I>) -> Error {
        unlocated.error
    }
}

/// Sorts items by region, locating regions as needed. client-go: `RegionCache.GroupKeysByRegion`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grouping<I> {
    /// In descending order: the next is at the end.
    items: Vec<I>,
    groups: Vec<Group<I>>,
    backoff: Backoff,
    deadline: Time,
    locating: Option<Box<Locate>>,
}

impl<I: Keyed> Grouping<I> {
    /// Groups `items`, which need not be sorted.
    #[must_use]
    pub fn new(mut items: Vec<I>, backoff: Backoff) -> Self {
        if !items.is_sorted_by(|a, b| a.key() <= b.key()) {
            // Stable: items of equal keys keep their order.
            items.sort_by(|a, b| a.key().cmp(b.key()));
        }
        items.reverse();
        Grouping { items, groups: Vec::new(), backoff, deadline: Time::MAX, locating: None }
    }

    /// Gives up at `deadline`.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Time) -> Self {
        self.deadline = deadline;
        self
    }

    /// The groups and the budget, if all regions are known; else those of the first keys, up to one that is not known, are
    /// remembered.
    pub(super) fn group_known(&mut self, cx: &Context<'_>) -> Option<(Vec<Group<I>>, Backoff)> {
        let is_known = self.group_up_to_unknown(cx).is_none();
        is_known.then(|| (std::mem::take(&mut self.groups), self.backoff.take()))
    }

    /// The items that are not done with.
    pub(super) fn items(&self) -> impl Iterator<Item = &I> {
        self.groups.iter().flat_map(|group| &group.items).chain(&self.items)
    }

    fn locate_next(&mut self, cx: &mut Context<'_>) -> Poll<Grouped<I>> {
        while let Some(next) = self.group_up_to_unknown(cx) {
            let locate = Locate::new(Place::Of(next), self.backoff.take());
            let mut locate = Box::new(locate.with_deadline(self.deadline));
            match locate.start(cx) {
                Poll::Ready(located) => {
                    if let Err(error) = self.on_located(located) {
                        return self.fail(error);
                    }
                }
                Poll::Pending => {
                    self.locating = Some(locate);
                    return Poll::Pending;
                }
            }
        }
        let groups = std::mem::take(&mut self.groups);
        self.done(Ok(groups))
    }

    /// The first key whose region is not known.
    fn group_up_to_unknown(&mut self, cx: &Context<'_>) -> Option<Key> {
        while let Some(next) = self.items.last() {
            let region = cx.knowledge().regions.lookup(cx.now(), next.key().as_slice());
            if region.is_none_or(|region| self.take_group(region).is_err()) {
                return self.items.last().map(|next| next.key().clone());
            }
        }
        None
    }

    fn fail(&mut self, error: Error) -> Poll<Grouped<I>> {
        let located = std::mem::take(&mut self.groups).into_iter().flat_map(|group| group.items);
        let items = located.chain(std::mem::take(&mut self.items)).collect();
        self.done(Err(Unlocated { items, error }))
    }

    fn on_located(&mut self, located: Located) -> Result<(), Error> {
        self.backoff = located.backoff;
        self.take_group(located.result?)
    }

    fn take_group(&mut self, region: Arc<Region>) -> Result<(), Error> {
        let behind = self.items.iter().rposition(|item| !region.range.is_before_end(item.key().as_slice()));
        let mut items = match behind {
            Some(index) => self.items.split_off(index + 1),
            None => std::mem::take(&mut self.items),
        };
        items.reverse();
        if items.is_empty() {
            return Err(not_of_place(&region));
        }
        if self.groups.is_empty() && self.items.is_empty() {
            self.groups = Vec::with_capacity(1);
        }
        self.groups.push(Group { region, items });
        Ok(())
    }

    fn done(&mut self, result: Result<Vec<Group<I>>, Unlocated<I>>) -> Poll<Grouped<I>> {
        Poll::Ready(Grouped { result, backoff: self.backoff.take() })
    }
}

impl<I: Keyed> Machine for Grouping<I> {
    type Output = Grouped<I>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Grouped<I>> {
        self.locate_next(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Grouped<I>> {
        let Some(mut locate) = self.locating.take() else { return Poll::Pending };
        match locate.handle(cx, token, event) {
            Poll::Pending => {
                self.locating = Some(locate);
                Poll::Pending
            }
            Poll::Ready(located) => match self.on_located(located) {
                Ok(()) => self.locate_next(cx),
                Err(error) => self.fail(error),
            },
        }
    }
}
