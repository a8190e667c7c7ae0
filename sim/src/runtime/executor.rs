//! Tasks and timers on one thread and on virtual time.

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::Hasher;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tikv::BoxFuture;
use tikv_core::rng::Rng;
use tikv_core::time::Time;

/// Polls without time passing after which the tasks are taken to wake each other forever.
const MOST_POLLS_AT_ONE_TIME: u32 = 1_000_000;

/// Runs tasks one poll at a time, whichever of the woken ones the seed picks; time passes when none is woken.
pub(super) struct Executor {
    state: Mutex<State>,
    woken: Arc<Woken>,
}

/// What [`Executor::step`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It polled a task.
    Polled,
    /// It is to be polled by the caller, who holds it: [`Executor::MAIN`].
    PollMain,
    /// It let time pass until the next timer.
    TimePassed,
    /// No task is woken, and no timer is set: nothing will ever happen.
    Stalled,
    /// Tasks wake each other, and time does not pass.
    Spinning,
}

type TaskId = u64;

struct State {
    now: Time,
    rng: Rng,
    tasks: BTreeMap<TaskId, BoxFuture<'static, ()>>,
    ready: Vec<TaskId>,
    next_task: TaskId,
    timers: BTreeMap<(Time, u64), Waker>,
    next_timer: u64,
    polls_at_this_time: u32,
    trace: Trace,
}

/// The tasks that were woken. In a lock of its own: wakers are called whatever other lock is held.
#[derive(Default)]
struct Woken(Mutex<Vec<TaskId>>);

struct TaskWaker {
    task: TaskId,
    woken: Arc<Woken>,
}

impl Executor {
    /// The task that the caller of [`Executor::step`] holds itself.
    const MAIN: TaskId = 0;

    pub(super) fn new(seed: u64) -> Self {
        let state = State {
            now: Time::ZERO,
            rng: Rng::new(seed),
            tasks: BTreeMap::new(),
            ready: vec![Self::MAIN],
            next_task: Self::MAIN + 1,
            timers: BTreeMap::new(),
            next_timer: 0,
            polls_at_this_time: 0,
            trace: Trace::default(),
        };
        Executor { state: Mutex::new(state), woken: Arc::default() }
    }

    pub(super) fn now(&self) -> Time {
        self.lock().now
    }

    pub(super) fn spawn(&self, task: BoxFuture<'static, ()>) {
        let mut state = self.lock();
        let id = state.next_task;
        state.next_task += 1;
        state.tasks.insert(id, task);
        state.ready.push(id);
    }

    /// Wakes `waker` at `at`. The timer's name, to cancel it.
    pub(super) fn set_timer(&self, at: Time, waker: Waker) -> (Time, u64) {
        let mut state = self.lock();
        let name = (at, state.next_timer);
        state.next_timer += 1;
        state.timers.insert(name, waker);
        name
    }

    pub(super) fn cancel_timer(&self, name: (Time, u64)) {
        let waker = self.lock().timers.remove(&name);
        // What a waker drops may come back here.
        drop(waker);
    }

    /// The waker of [`Executor::MAIN`].
    pub(super) fn main_waker(&self) -> Waker {
        self.waker(Self::MAIN)
    }

    /// Makes [`Executor::MAIN`] the next to be polled, as for a new future.
    pub(super) fn wake_main(&self) {
        self.woken.push(Self::MAIN);
    }

    /// Does one thing.
    pub(super) fn step(&self) -> Step {
        let Some(task) = self.pick() else { return self.pass_time() };
        if self.lock().polls_at_this_time > MOST_POLLS_AT_ONE_TIME {
            return Step::Spinning;
        }
        if task == Self::MAIN {
            return Step::PollMain;
        }
        // A task that has ended may still be woken.
        let Some(mut future) = self.lock().tasks.remove(&task) else { return Step::Polled };
        let waker = self.waker(task);
        match Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            // Dropped while no lock is held: it may spawn, and wake.
            Poll::Ready(()) => drop(future),
            Poll::Pending => drop(self.lock().tasks.insert(task, future)),
        }
        Step::Polled
    }

    /// Ends all tasks.
    pub(super) fn clear(&self) {
        // Tasks may spawn others while they are dropped.
        loop {
            let tasks = std::mem::take(&mut self.lock().tasks);
            let timers = std::mem::take(&mut self.lock().timers);
            if tasks.is_empty() && timers.is_empty() {
                return;
            }
        }
    }

    /// Tasks that have not ended.
    pub(super) fn tasks(&self) -> usize {
        self.lock().tasks.len()
    }

    /// Tells apart runs that differ in what was polled when.
    pub(super) fn fingerprint(&self) -> u64 {
        self.lock().trace.finish()
    }

    fn pick(&self) -> Option<TaskId> {
        let woken = self.woken.take();
        let mut state = self.lock();
        for task in woken {
            if !state.ready.contains(&task) {
                state.ready.push(task);
            }
        }
        if state.ready.is_empty() {
            return None;
        }
        let ready = state.ready.len() as u64;
        let index = state.rng.below(ready) as usize;
        let task = state.ready.swap_remove(index);
        state.polls_at_this_time += 1;
        let now = state.now;
        state.trace.add(now, task);
        Some(task)
    }

    fn pass_time(&self) -> Step {
        let due = {
            let mut state = self.lock();
            let Some((&(at, _), _)) = state.timers.first_key_value() else { return Step::Stalled };
            state.now = state.now.max(at);
            state.polls_at_this_time = 0;
            let later = state.timers.split_off(&(at, u64::MAX));
            std::mem::replace(&mut state.timers, later)
        };
        due.into_values().for_each(Waker::wake);
        Step::TimePassed
    }

    fn waker(&self, task: TaskId) -> Waker {
        Waker::from(Arc::new(TaskWaker { task, woken: self.woken.clone() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Woken {
    fn push(&self, task: TaskId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    fn take(&self) -> Vec<TaskId> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.woken.push(self.task);
    }
}

/// FNV-1a, since the standard hashers promise nothing from one release to the next.
struct Trace(u64);

impl Trace {
    fn add(&mut self, now: Time, task: TaskId) {
        self.write_u128(now.saturating_since(Time::ZERO).as_nanos());
        self.write_u64(task);
    }
}

impl Default for Trace {
    fn default() -> Self {
        Trace(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Trace {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
