//! Many keys, a child machine for each region's share, re-split on a miss.
//!
//! ```text
//!   add(items) ──► grouping ──► child per region and batch ──► finished
//!                     ▲                  │
//!                     └── Relocate ──────┘   (only that child's items, with its budget)
//! ```

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::task::Poll;

use super::grouping::{Group, Grouped, Grouping, Keyed, Unlocated};
use crate::backoff::Backoff;
use crate::canary::Canary;
use crate::knowledge::regions::Region;
use crate::machine::{Context, Event, FanOut, Machine, Token};
use crate::time::Time;

/// How the items of an operation are put into children.
pub trait Shard {
    /// What is distributed.
    type Item: Keyed + Clone + Debug + Eq + Hash;
    /// What a share of it ends with.
    type Output: Clone + Debug + Eq + Hash;
    /// The machine of one share.
    type Child: Machine<Output = ShardEnd<Self::Item, Self::Output>> + Clone + Debug + Eq + Hash;

    /// The machine for `items` of one region. `is_retry` tells that the items were in a request before.
    fn child(
        &self,
        cx: &mut Context<'_>,
        region: Arc<Region>,
        items: Vec<Self::Item>,
        backoff: Backoff,
        is_retry: bool,
    ) -> Self::Child;

    /// How much of a batch an item fills; a batch is closed as soon as it holds [`Shard::batch_limit`].
    fn weight(&self, item: &Self::Item) -> usize;

    /// The weight at which a batch is closed.
    fn batch_limit(&self) -> usize;

    /// When locating items must be over.
    fn deadline(&self) -> Time {
        Time::MAX
    }
}

/// How a child of [`Sharded`] ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ShardEnd<I, T> {
    /// Done, for better or worse.
    Done(T),
    /// These items have to be located anew.
    Relocate {
        /// What is left to do.
        items: Vec<I>,
        /// What is left of the budget.
        backoff: Backoff,
    },
}

/// Runs a [`Shard`]'s children, at most `limit` at a time. Not a machine itself but, like [`FanOut`], a part to build one
/// on: add items (or ready groups), pass events on, take the outputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sharded<S: Shard> {
    shard: S,
    tasks: FanOut<Task<S>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Task<S: Shard> {
    Grouping { grouping: Grouping<S::Item>, is_retry: bool },
    Child(S::Child),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum TaskEnd<S: Shard> {
    Grouped { grouped: Box<Grouped<S::Item>>, is_retry: bool },
    Child(ShardEnd<S::Item, S::Output>),
}

impl<S: Shard> Sharded<S> {
    /// Nothing to do yet.
    #[must_use]
    pub fn new(shard: S, limit: usize) -> Self {
        Sharded { shard, tasks: FanOut::new(limit) }
    }

    /// The policy the children are made by.
    #[must_use]
    pub fn shard(&self) -> &S {
        &self.shard
    }

    /// The policy, to be changed for children yet to be made.
    pub fn shard_mut(&mut self) -> &mut S {
        &mut self.shard
    }

    /// Adds items to be located. [`Sharded::run`] starts them.
    pub fn add(&mut self, items: Vec<S::Item>, backoff: Backoff, is_retry: bool) {
        if !items.is_empty() {
            let grouping = Grouping::new(items, backoff).with_deadline(self.shard.deadline());
            self.tasks.add(Task::Grouping { grouping, is_retry });
        }
    }

    /// The same, but if all their regions are known, which is cheaper, that is the end of locating them.
    pub fn add_known(&mut self, cx: &mut Context<'_>, items: Vec<S::Item>, backoff: Backoff, is_retry: bool) {
        if items.is_empty() {
            return;
        }
        let mut grouping = Grouping::new(items, backoff).with_deadline(self.shard.deadline());
        match grouping.group_known(cx) {
            Some((groups, backoff)) => self.add_groups(cx, groups, &backoff, is_retry),
            None => {
                self.tasks.add(Task::Grouping { grouping, is_retry });
            }
        }
    }

    fn add_groups(&mut self, cx: &mut Context<'_>, groups: Vec<Group<S::Item>>, backoff: &Backoff, is_retry: bool) {
        for group in groups {
            self.add_group(cx, group, backoff, is_retry);
        }
    }

    /// Adds items whose region is known already.
    pub fn add_group(&mut self, cx: &mut Context<'_>, group: Group<S::Item>, backoff: &Backoff, is_retry: bool) {
        let (shard, tasks) = (&self.shard, &mut self.tasks);
        divide(shard, group, |Group { region, items }| {
            // What is located anew meets the same obstacle as before: its sleeps go on growing.
            let backoff = if is_retry { backoff.clone() } else { backoff.fork() };
            tasks.add(Task::Child(shard.child(cx, region, items, backoff, is_retry)));
        });
    }

    /// Starts what there is room for.
    pub fn run(&mut self, cx: &mut Context<'_>) {
        self.tasks.run(cx);
    }

    /// Routes an event to the child that waits for it.
    pub fn handle(&mut self, cx: &mut Context<'_>, token: Token, event: Event) {
        self.tasks.handle(cx, token, event);
    }

    /// Takes the next output. `Err` if items could not be located at all: they are handed back, since their owner knows
    /// what was sent of them before.
    pub fn next_finished(&mut self, cx: &mut Context<'_>) -> Option<Result<S::Output, Unlocated<S::Item>>> {
        while let Some((_, end)) = self.tasks.next_finished(cx) {
            match end {
                TaskEnd::Child(ShardEnd::Done(output)) => return Some(Ok(output)),
                TaskEnd::Child(ShardEnd::Relocate { .. }) if cx.config().has_canary(Canary::MovedKeysForgotten) => {}
                TaskEnd::Child(ShardEnd::Relocate { items, backoff }) => self.add(items, backoff, true),
                TaskEnd::Grouped { grouped, is_retry } => match *grouped {
                    Grouped { result: Ok(groups), backoff } => self.add_groups(cx, groups, &backoff, is_retry),
                    Grouped { result: Err(unlocated), .. } => return Some(Err(unlocated)),
                },
            }
        }
        None
    }

    /// Whether any child that has not ended, or any item that is being located, is like that.
    pub fn any_unfinished(&self, child: impl Fn(&S::Child) -> bool, item: impl Fn(&S::Item) -> bool) -> bool {
        let mut tasks = self.tasks.waiting().chain(self.tasks.running()).map(|(_, task)| task);
        tasks.any(|task| match task {
            Task::Child(one) => child(one),
            Task::Grouping { grouping, .. } => grouping.items().any(&item),
        })
    }

    /// The children that have not been started.
    pub fn waiting(&self) -> impl Iterator<Item = &S::Child> {
        self.tasks.waiting().filter_map(|(_, task)| match task {
            Task::Child(child) => Some(child),
            Task::Grouping { .. } => None,
        })
    }

    /// Forgets everything that is not finished.
    pub fn cancel_all(&mut self, cx: &mut Context<'_>) {
        self.tasks.cancel_all(cx);
    }

    /// Whether all is done and taken.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.tasks.is_idle()
    }
}

/// Divides a group into batches as `shard` wants them, each of them a group again, in the order of the items.
pub(crate) fn divide<S: Shard>(shard: &S, group: Group<S::Item>, mut take: impl FnMut(Group<S::Item>)) {
    if is_batch(shard, &group.items) {
        return take(group);
    }
    let mut items = group.items.into_iter();
    while items.len() > 0 {
        let len = batch_len(shard, items.as_slice());
        take(Group { region: Arc::clone(&group.region), items: items.by_ref().take(len).collect() });
    }
}

/// Whether these items need not be divided.
pub(crate) fn is_batch<S: Shard>(shard: &S, items: &[S::Item]) -> bool {
    !items.is_empty() && batch_len(shard, items) == items.len()
}

/// How many of the items go into the first batch.
fn batch_len<S: Shard>(shard: &S, items: &[S::Item]) -> usize {
    let mut weight = 0_usize;
    let fills = items.iter().position(|item| {
        weight = weight.saturating_add(shard.weight(item));
        weight >= shard.batch_limit()
    });
    fills.map_or(items.len(), |last| last + 1)
}

impl<S: Shard> Machine for Task<S> {
    type Output = TaskEnd<S>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<TaskEnd<S>> {
        match self {
            Task::Grouping { grouping, is_retry } => {
                let is_retry = *is_retry;
                grouping.start(cx).map(|grouped| TaskEnd::Grouped { grouped: Box::new(grouped), is_retry })
            }
            Task::Child(child) => child.start(cx).map(TaskEnd::Child),
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<TaskEnd<S>> {
        match self {
            Task::Grouping { grouping, is_retry } => {
                let is_retry = *is_retry;
                grouping
                    .handle(cx, token, event)
                    .map(|grouped| TaskEnd::Grouped { grouped: Box::new(grouped), is_retry })
            }
            Task::Child(child) => child.handle(cx, token, event).map(TaskEnd::Child),
        }
    }
}
