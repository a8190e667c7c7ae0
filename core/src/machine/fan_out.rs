//! Many children at once, under a limit.

use std::collections::VecDeque;
use std::task::Poll;

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
/// where they were put when they were added: they are large.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FanOut<M: Machine> {
    limit: usize,
    next_id: u32,
    /// In the order in which they were added: those that run, then those that wait.
    children: VecDeque<(ChildId, Box<M>)>,
    /// How many run.
    running: usize,
    /// Who waits for which answer, in the order of the tokens.
    routes: Vec<(Token, ChildId)>,
    finished: VecDeque<(ChildId, M::Output)>,
}

impl<M: Machine> FanOut<M> {
    /// No children yet; at most `limit` (but at least one) will run at once.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        FanOut {
            limit: limit.max(1),
            next_id: 0,
            children: VecDeque::new(),
            running: 0,
            routes: Vec::new(),
            finished: VecDeque::new(),
        }
    }

    /// Adds a child, to be started by the next [`FanOut::run`].
    pub fn add(&mut self, child: M) -> ChildId {
        let id = ChildId(self.next_id);
        self.next_id += 1;
        self.children.push_back((id, Box::new(child)));
        id
    }

    /// Starts waiting children while there is room.
    pub fn run(&mut self, cx: &mut Context<'_>) {
        while self.running < self.limit {
            let Some((id, child)) = self.children.get_mut(self.running) else { return };
            let (id, mark) = (*id, cx.mark());
            match child.start(cx) {
                Poll::Pending => {
                    self.running += 1;
                    self.route(mark, cx.mark(), id);
                }
                Poll::Ready(output) => {
                    self.children.remove(self.running);
                    self.finish(id, output);
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
        let child = &mut self.children[place].1;
        let mark = cx.mark();
        match child.handle(cx, token, event) {
            Poll::Pending => self.route(mark, cx.mark(), id),
            Poll::Ready(output) => {
                self.children.remove(place);
                self.running -= 1;
                self.routes.retain(|(_, owner)| *owner != id);
                self.finish(id, output);
            }
        }
        true
    }

    /// Takes the next finished child's output; starts waiting children when none is left to take.
    pub fn next_finished(&mut self, cx: &mut Context<'_>) -> Option<(ChildId, M::Output)> {
        if self.finished.is_empty() {
            self.run(cx);
        }
        self.finished.pop_front()
    }

    /// Forgets all children, and cancels what the running ones wait for. Outputs not yet taken are kept.
    pub fn cancel_all(&mut self, cx: &mut Context<'_>) {
        self.routes.drain(..).for_each(|(token, _)| cx.cancel(token));
        self.children.clear();
        self.running = 0;
    }

    /// Forgets the children that have not started.
    pub fn cancel_waiting(&mut self) {
        self.children.truncate(self.running);
    }

    /// Whether no child waits, runs or has an output to be taken.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.children.is_empty() && self.finished.is_empty()
    }

    /// The children that run now.
    pub fn running(&self) -> impl Iterator<Item = (ChildId, &M)> {
        self.children.range(..self.running).map(|(id, child)| (*id, &**child))
    }

    /// The children that wait to be started.
    pub fn waiting(&self) -> impl Iterator<Item = (ChildId, &M)> {
        self.children.range(self.running..).map(|(id, child)| (*id, &**child))
    }

    /// How many children wait to be started.
    #[must_use]
    pub fn waiting_len(&self) -> usize {
        self.children.len() - self.running
    }

    fn finish(&mut self, id: ChildId, output: M::Output) {
        // Outputs are large, and most are taken before the next one comes.
        if self.finished.capacity() == 0 {
            self.finished.reserve_exact(1);
        }
        self.finished.push_back((id, output));
    }

    /// What was issued between two marks is for this child.
    fn route(&mut self, from: Token, until: Token, id: ChildId) {
        self.routes.extend((from.0..until.0).map(|token| (Token(token), id)));
    }
}
