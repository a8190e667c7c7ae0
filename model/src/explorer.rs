//! Explores all states of a model, breadth first.
//!
//! ```text
//!   states of depth n ──► every action of each ──► states not seen before: depth n + 1 ──► … until there are none
//! ```
//!
//! Of a state that has been left behind only its fingerprint and its parent's are kept, so that the shortest way to a broken
//! property can be told. The numbers are the same in every run, however many threads work.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

#[cfg(test)]
mod tests;

/// What can be explored.
pub trait Model: Sync {
    /// A state of the whole.
    type State: Clone + Send + Sync;
    /// One step.
    type Action: Clone;

    /// Where it begins.
    fn initial(&self) -> Self::State;

    /// Everything that can happen next; nothing in a state that is final.
    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;

    /// What comes of it.
    fn next(&self, state: &Self::State, action: &Self::Action) -> Self::State;

    /// Tells states apart.
    fn fingerprint(&self, state: &Self::State) -> u64;

    /// What must hold in every state.
    ///
    /// # Errors
    ///
    /// The property that does not.
    fn check(&self, state: &Self::State, is_final: bool) -> Result<(), &'static str>;

    /// A step, for people.
    fn describe(&self, state: &Self::State, action: &Self::Action) -> String;
}

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// States after which to give up.
    pub states: usize,
    /// Threads that work.
    pub threads: usize,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps between them.
    pub transitions: usize,
    /// States in which nothing more can happen.
    pub final_states: usize,
    /// Steps on the longest of the shortest ways to a state.
    pub depth: usize,
    /// Whether there was nothing left to explore.
    pub complete: bool,
    /// The first broken property.
    pub broken: Option<Broken>,
}

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub property: &'static str,
    /// A shortest way to a state in which it does not hold.
    pub steps: Vec<String>,
}

/// Explores `model` until nothing is left, a property is broken, or a limit is reached.
pub fn explore<M: Model>(model: &M, limits: Limits) -> Explored {
    let seen = Seen::default();
    let initial = model.initial();
    let root = model.fingerprint(&initial);
    seen.insert(root, root);
    let mut explored = Explored { states: 1, transitions: 0, final_states: 0, depth: 0, complete: false, broken: None };
    let mut frontier = vec![initial];
    while !frontier.is_empty() && explored.states < limits.states {
        let level = expand(model, &seen, &frontier, limits.threads);
        explored.transitions += level.transitions;
        explored.final_states += level.final_states;
        explored.states += level.next.len();
        if let Some((fingerprint, property)) = level.broken {
            explored.broken = Some(Broken { property, steps: way_to(model, &seen, root, fingerprint) });
            break;
        }
        frontier = level.next;
        explored.depth += usize::from(!frontier.is_empty());
    }
    explored.complete = frontier.is_empty() && explored.broken.is_none();
    explored
}

struct Level<S> {
    next: Vec<S>,
    transitions: usize,
    final_states: usize,
    broken: Option<(u64, &'static str)>,
}

impl<S> Default for Level<S> {
    fn default() -> Self {
        Level { next: Vec::new(), transitions: 0, final_states: 0, broken: None }
    }
}

/// Checks all states of one depth and takes every step from them.
fn expand<M: Model>(model: &M, seen: &Seen, frontier: &[M::State], threads: usize) -> Level<M::State> {
    const CHUNK: usize = 64;
    let taken = AtomicUsize::new(0);
    let work = || {
        let mut level = Level::default();
        loop {
            let from = taken.fetch_add(CHUNK, Ordering::Relaxed);
            let Some(chunk) = frontier.get(from..frontier.len().min(from + CHUNK)).filter(|it| !it.is_empty()) else {
                return level;
            };
            for state in chunk {
                visit(model, seen, state, &mut level);
            }
        }
    };
    let threads = threads.min(frontier.len().div_ceil(CHUNK)).max(1);
    if threads == 1 {
        return work();
    }
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Level::default();
        for worker in workers {
            let level = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.next.extend(level.next);
            all.transitions += level.transitions;
            all.final_states += level.final_states;
            all.broken = [all.broken, level.broken].into_iter().flatten().min();
        }
        all
    })
}

fn visit<M: Model>(model: &M, seen: &Seen, state: &M::State, level: &mut Level<M::State>) {
    let actions = model.actions(state);
    let parent = model.fingerprint(state);
    if let Err(property) = model.check(state, actions.is_empty()) {
        level.broken = [level.broken, Some((parent, property))].into_iter().flatten().min();
        return;
    }
    level.transitions += actions.len();
    level.final_states += usize::from(actions.is_empty());
    for action in actions {
        let next = model.next(state, &action);
        if seen.insert(model.fingerprint(&next), parent) {
            level.next.push(next);
        }
    }
}

/// Goes back from parent to parent, and then the same way forth.
fn way_to<M: Model>(model: &M, seen: &Seen, root: u64, target: u64) -> Vec<String> {
    let mut way = vec![target];
    while let Some(parent) = way.last().filter(|it| **it != root).and_then(|it| seen.parent(*it)) {
        way.push(parent);
    }
    let mut state = model.initial();
    let mut steps = Vec::new();
    for expected in way.into_iter().rev().skip(1) {
        let step = model.actions(&state).into_iter().find_map(|action| {
            let next = model.next(&state, &action);
            (model.fingerprint(&next) == expected).then_some((action, next))
        });
        let Some((action, next)) = step else {
            steps.push("…a step that cannot be told again: the model is not deterministic".to_owned());
            break;
        };
        steps.push(model.describe(&state, &action));
        state = next;
    }
    steps
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explored { states, transitions, final_states, depth, complete, broken } = self;
        write!(f, "{states} states, {transitions} transitions, {final_states} final states, depth {depth}")?;
        match broken {
            None if *complete => f.write_str(", all explored"),
            None => f.write_str(", limit reached"),
            Some(Broken { property, steps }) => {
                write!(f, "\nBROKEN: {property}")?;
                steps.iter().enumerate().try_for_each(|(index, step)| write!(f, "\n{:>4}. {step}", index + 1))
            }
        }
    }
}

/// Fingerprints seen, with their parents'. In shards, so that threads seldom meet.
#[derive(Debug)]
struct Seen(Vec<Mutex<HashMap<u64, u64, BuildHasherDefault<AsIs>>>>);

impl Default for Seen {
    fn default() -> Self {
        Seen((0..64).map(|_| Mutex::default()).collect())
    }
}

impl Seen {
    fn insert(&self, fingerprint: u64, parent: u64) -> bool {
        let mut shard = self.shard(fingerprint).lock().unwrap_or_else(PoisonError::into_inner);
        let before = shard.len();
        shard.entry(fingerprint).or_insert(parent);
        shard.len() > before
    }

    fn parent(&self, fingerprint: u64) -> Option<u64> {
        self.shard(fingerprint).lock().unwrap_or_else(PoisonError::into_inner).get(&fingerprint).copied()
    }

    fn shard(&self, fingerprint: u64) -> &Mutex<HashMap<u64, u64, BuildHasherDefault<AsIs>>> {
        &self.0[(fingerprint >> 58) as usize]
    }
}

/// Fingerprints need no hashing.
#[derive(Clone, Copy, Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}
