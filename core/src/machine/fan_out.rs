//! Many children at once, under a limit.

use std::collections::VecDeque;
use std::task::Poll;

use smallvec::SmallVec;

use super::{Context, Event, Machine, Token};

/// Names a child of a [`FanOut`], in the order in which children were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(pub u32);

/// Runs many machines of one kind, at most `limit` at a time, and routes events to the child that waits for them.
///
/// Not a machine itself but the part that its owner builds on: the owner adds children (also later, when one has to be
/// replaced by several), passes events on, and takes finished outputs one by one.
///
/// ```text
/// fan_out.add(child);                       any number of times
/// fan_out.run(cx);                          starts children up to the limit
/// fan_out.handle(cx, token, event);         in the owner's handle()
/// while let Some((id, output)) = fan_out.next_finished(cx) { … add more, or cancel_all … }
/// if fan_out.is_idle() { … all done … }
/// ```
///
/// A child owns the tokens that it issues: they lie between the marks of the outbox before and after its step. Children stay
/// where they were put when they were added: they are large. Most operations have one, for which nothing else is allocated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FanOut<M: Machine> {
    limit: usize,
    next_id: u32,
    /// How many of `children` were started; how many of these have ended.
    started: u32,
    ended: u32,
    /// In the order in which they were added: those that were started, then those that are the next.
    children: SmallVec<[Place<M, M::Output>; 1]>,
    /// All further ones.
    queue: VecDeque<Place<M, M::Output>>,
    /// Who waits for which answer, in the order of the tokens.
    routes: SmallVec<[(Token, ChildId); 1]>,
}

type Place<M, O> = (ChildId, Box<Child<M, O>>);

/// What is in a child's place, until its output is taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Child<M, O> {
    Machine(M),
    Ended(O),
}

impl<M: Machine> FanOut<M> {
    /// No children yet; at most `limit` (but at least one) will run at once.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        FanOut {
            limit: limit.max(1),
            next_id: 0,
            started: 0,
            ended: 0,
            children: SmallVec::new(),
            queue: VecDeque::new(),
            routes: SmallVec::new(),
        }
    }

    /// Adds a child, to be started by the next [`FanOut::run`].
    pub fn add(&mut self, child: M) -> ChildId {
        let id = ChildId(self.next_id);
        self.next_id += 1;
        let child = (id, Box::new(Child::Machine(child)));
        // So that few have to be moved when one is taken out, however many there are.
        if self.queue.is_empty() && self.children.len() < self.limit {
            self.children.push(child);
        } else {
            self.queue.push_back(child);
        }
        id
    }

    /// Starts waiting children while there is room.
    pub fn run(&mut self, cx: &mut Context<'_>) {
        while self.running_len() < self.limit {
            let next = self.started as usize;
            if next == self.children.len() {
                let Some(child) = self.queue.pop_front() else { return };
                self.children.push(child);
            }
            self.started += 1;
            let (id, child) = &mut self.children[next];
            let Child::Machine(machine) = &mut **child else { continue };
            let (id, mark) = (*id, cx.mark());
            match machine.start(cx) {
                Poll::Pending => self.route(mark, cx.mark(), id),
                Poll::Ready(output) => {
                    **child = Child::Ended(output);
                    self.ended += 1;
                }
            }
        }
    }

    /// Whether a running child issued `token`.
    #[must_use]
    pub fn waits_for(&self, token: Token) -> bool {
        self.routes.binary_search_by_key(&token, |(token, _)| *token).is_ok()
    }

    /// Routes an event to the child that issued `token`. Returns false if none did (or it is gone).
    pub fn handle(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> bool {
        let Ok(route) = self.routes.binary_search_by_key(&token, |(token, _)| *token) else { return false };
        let (_, id) = self.routes.remove(route);
        let Ok(place) = self.children.binary_search_by_key(&id, |(id, _)| *id) else { return false };
        let child = &mut *self.children[place].1;
        let Child::Machine(machine) = child else { return false };
        let mark = cx.mark();
        match machine.handle(cx, token, event) {
            Poll::Pending => self.route(mark, cx.mark(), id),
            Poll::Ready(output) => {
                *child = Child::Ended(output);
                self.ended += 1;
                self.routes.retain(|(_, owner)| *owner != id);
            }
        }
        true
    }

    /// Takes the output of a finished child, of several that of the first that was added; starts waiting children when none
    /// is left to take.
    pub fn next_finished(&mut self, cx: &mut Context<'_>) -> Option<(ChildId, M::Output)> {
        if self.ended == 0 {
            self.run(cx);
        }
        if self.ended == 0 {
            return None;
        }
        let is_ended = |(_, child): &Place<M, M::Output>| matches!(**child, Child::Ended(_));
        let (id, child) = match self.children.len() {
            1 => self.children.pop()?,
            _ => self.children.remove(self.children.iter().position(is_ended)?),
        };
        self.started -= 1;
        self.ended -= 1;
        match *child {
            Child::Ended(output) => Some((id, output)),
            Child::Machine(_) => None,
        }
    }

    /// Forgets all children, and cancels what the running ones wait for. Outputs not yet taken are kept.
    pub fn cancel_all(&mut self, cx: &mut Context<'_>) {
        self.routes.drain(..).for_each(|(token, _)| cx.cancel(token));
        self.children.retain(|(_, child)| matches!(**child, Child::Ended(_)));
        self.started = self.ended;
        self.queue.clear();
    }

    /// Whether no child waits, runs or has an output to be taken.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.children.is_empty() && self.queue.is_empty()
    }

    /// The children that run now.
    pub fn running(&self) -> impl Iterator<Item = (ChildId, &M)> {
        self.children[..self.started as usize].iter().filter_map(of_machine)
    }

    /// The children that wait to be started.
    pub fn waiting(&self) -> impl Iterator<Item = (ChildId, &M)> {
        self.children[self.started as usize..].iter().chain(&self.queue).filter_map(of_machine)
    }

    fn running_len(&self) -> usize {
        (self.started - self.ended) as usize
    }

    /// What was issued between two marks is for this child.
    fn route(&mut self, from: Token, until: Token, id: ChildId) {
        // One at a time: there is one, most of the time.
        for token in from.0..until.0 {
            self.routes.push((Token(token), id));
        }
    }
}

fn of_machine<M, O>((id, child): &Place<M, O>) -> Option<(ChildId, &M)> {
    match &**child {
        Child::Machine(machine) => Some((*id, machine)),
        Child::Ended(_) => None,
    }
}
