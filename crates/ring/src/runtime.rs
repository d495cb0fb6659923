//! The loop: run what is ready, then the hooks, enter the kernel, and sleep only when there is nothing left, and nothing has come
//! within a moment where things have come quickly lately.
//!
//! A *turn* is: start hooks (take messages in) → poll every ready task, and whom they wake → end hooks (send messages, gather
//! writes, give up snapshots) → enter the kernel → wake the tasks whose operations completed → hooks for long work. Hooks are how
//! queues between threads are looked at once a turn without anybody waking anyone. [`Ring::submit_early`] has the kernel entered
//! between two rounds of polling, too.

use crate::busy_poll::BusyPoll;
use crate::config::RingConfig;
use crate::driver::Driver;
use crate::hooks::Hooks;
use crate::remote::{self, Doors, Remote, Shared};
use crate::setup::{self, SetupError};
use crate::shuffle::Shuffle;
use crate::task::{JoinHandle, MAIN, TaskWaker, Tasks};
use crate::timer::{Deadline, Limited, Sleep, Timers};
use crate::traffic::Traffic;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Rounds of polling in one turn before the kernel is entered all the same, so that tasks that keep waking each other do
/// not starve I/O.
const ROUNDS_PER_TURN_MAX: usize = 16;

/// A point in time so far away that nothing reaches it.
const FAR_AWAY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The kernel is entered at most so often before timers fire. Each time takes in 20 completions or more.
const ARRIVAL_ENTRIES_MAX: usize = 1024;

/// After the ring's own bell could not be listened to it is tried again.
const BELL_RETRY: Duration = Duration::from_millis(10);

struct Inner {
    /// None on a simulated ring.
    driver: RefCell<Option<Driver>>,
    tasks: Tasks,
    shared: Arc<Shared>,
    timers: RefCell<Timers>,
    now: Cell<Instant>,
    traffic: Traffic,
    busy_poll: BusyPoll,
    start_hooks: Hooks,
    end_hooks: Hooks,
    over_hooks: Hooks,
    /// Chooses the order in which ready tasks are polled on a simulated ring.
    shuffle: Option<Shuffle>,
    /// What was asked of the kernel leaves before the turn ends.
    submit_early: Cell<bool>,
}

/// A handle to the ring of this thread: starts operations, tasks and timers.
#[derive(Clone)]
pub struct Ring {
    inner: Rc<Inner>,
}

/// Owns a ring and runs its tasks. Dropping it drops the tasks and waits until the kernel is done with every buffer.
pub struct Runtime {
    ring: Ring,
}

impl Runtime {
    /// Sets up a ring for the calling thread, which must be the one that uses it.
    ///
    /// # Errors
    ///
    /// [`SetupError`] says why io_uring cannot be had and what to do about it.
    pub fn new(config: RingConfig) -> Result<Runtime, SetupError> {
        let uring = setup::build(config.submission_entries)?;
        let failed = |error| setup::classify(error, config.submission_entries);
        let doors = Doors { ring: duplicate(&uring).map_err(failed)?, event: remote::event().map_err(failed)? };
        let event = doors.event.try_clone().map_err(failed)?;
        let runtime = Runtime::with(Some(Driver::new(uring)), Shared::new(Some(doors)), None, config.busy_poll);
        let ring = runtime.ring();
        let event = crate::file::File::new(&ring, Arc::new(event));
        let bell_ring = ring.clone();
        ring.spawn(async move {
            let mut counter = vec![0; 8];
            loop {
                let (result, buffer) = event.read_at(counter, 0..8, 0).await;
                counter = buffer;
                if result.is_err() {
                    bell_ring.sleep(BELL_RETRY).await;
                }
            }
        })
        .detach();
        Ok(runtime)
    }

    /// A ring without a kernel behind it, for simulations on one thread: time jumps to the next timer when nothing is
    /// ready, and `seed` decides the order in which ready tasks are polled. Operations on it fail with `ENOSYS`.
    #[must_use]
    pub fn simulated(seed: u64) -> Runtime {
        Runtime::with(None, Shared::new(None), Some(Shuffle::new(seed)), Duration::ZERO)
    }

    fn with(driver: Option<Driver>, shared: Arc<Shared>, shuffle: Option<Shuffle>, busy_poll: Duration) -> Runtime {
        let inner = Inner {
            driver: RefCell::new(driver),
            tasks: Tasks::default(),
            shared,
            timers: RefCell::default(),
            now: Cell::new(Instant::now()),
            traffic: Traffic::default(),
            busy_poll: BusyPoll::new(busy_poll),
            start_hooks: Hooks::default(),
            end_hooks: Hooks::default(),
            over_hooks: Hooks::default(),
            shuffle,
            submit_early: Cell::new(false),
        };
        Runtime { ring: Ring { inner: Rc::new(inner) } }
    }

    /// The handle that operations, tasks and timers are started with.
    #[must_use]
    pub fn ring(&self) -> Ring {
        self.ring.clone()
    }

    /// Runs tasks until `main` has ended.
    pub fn block_on<F: Future>(&self, main: F) -> F::Output {
        match self.run(main) {
            Some(output) => output,
            // Only a simulated ring can find that nothing will ever happen again.
            None => unreachable_deadlock(),
        }
    }

    /// Like [`Runtime::block_on`]; `None` where a simulated ring finds that nothing can happen any more.
    pub fn run<F: Future>(&self, main: F) -> Option<F::Output> {
        let _running = self.ring.inner.shared.enter();
        self.turn_until_ready(main)
    }

    fn turn_until_ready<F: Future>(&self, main: F) -> Option<F::Output> {
        let mut main = pin!(main);
        let inner = &*self.ring.inner;
        let handle = TaskWaker::new(MAIN, Arc::clone(&inner.shared));
        let waker = Waker::from(Arc::clone(&handle));
        waker.wake_by_ref();
        inner.refresh_now();
        let mut ready = Vec::new();
        let mut output = None;
        loop {
            inner.start_hooks.run();
            for _ in 0..ROUNDS_PER_TURN_MAX {
                inner.shared.take_ready(&mut ready);
                if ready.is_empty() {
                    break;
                }
                if let Some(shuffle) = &inner.shuffle {
                    shuffle.shuffle(&mut ready);
                }
                for id in ready.drain(..) {
                    if id != MAIN {
                        inner.tasks.poll(id);
                    } else if output.is_none() {
                        handle.begin_poll();
                        if let Poll::Ready(ready) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                            output = Some(ready);
                        }
                    }
                }
                if output.is_some() {
                    break;
                }
                if inner.submit_early.take() {
                    inner.enter(Wait::No);
                }
            }
            inner.end_hooks.run();
            if output.is_some() {
                // The turn is finished all the same: what it sent to other threads must leave.
                inner.enter(Wait::No);
                return output;
            }
            if !inner.advance() {
                return None;
            }
        }
    }
}

fn later(now: Instant, duration: Duration) -> Instant {
    now.checked_add(duration).unwrap_or_else(|| now + FAR_AWAY)
}

#[allow(clippy::panic)]
fn unreachable_deadlock() -> ! {
    panic!("a simulation came to a standstill: no task is ready, no timer is set")
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let inner = &self.ring.inner;
        inner.tasks.clear();
        inner.start_hooks.clear();
        inner.end_hooks.clear();
        inner.over_hooks.clear();
        // Dropping a hook may have dropped what spawned anew.
        inner.tasks.clear();
        inner.drain();
    }
}

/// Whether entering the kernel waits for a completion.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    Forever,
    AtMost(Duration),
}

/// A duplicate of the ring's own descriptor, for messages from other rings.
fn duplicate(uring: &io_uring::IoUring) -> std::io::Result<std::os::fd::OwnedFd> {
    // SAFETY: the descriptor is open for as long as `uring` is borrowed.
    unsafe { BorrowedFd::borrow_raw(uring.as_raw_fd()) }.as_fd().try_clone_to_owned()
}

impl Inner {
    /// The end of a turn: operations to the kernel, completions from it, time. False where a simulation stands still.
    fn advance(&self) -> bool {
        if self.driver.borrow().is_none() {
            return self.advance_simulation();
        }
        self.enter(Wait::No);
        self.over_hooks.run();
        // What has ended beside that work is not kept waiting for the next one's.
        self.enter(Wait::No);
        if !self.shared.has_ready() {
            self.wait();
        }
        self.refresh_now();
        self.take_in_arrivals();
        self.fire_timers();
        true
    }

    /// What has ended before a timer is due is known before it fires. The kernel hands over a few completions each time it is entered
    /// (since Linux 6.13): after a moment in which this thread stood still there are more of them.
    fn take_in_arrivals(&self) {
        let is_due = || self.timers.borrow().next().is_some_and(|at| at <= self.now.get());
        let has_more = || self.driver.borrow_mut().as_mut().is_some_and(Driver::has_deferred);
        for _ in 0..ARRIVAL_ENTRIES_MAX {
            if !is_due() || !has_more() {
                return;
            }
            self.enter(Wait::No);
        }
    }

    fn refresh_now(&self) {
        if self.driver.borrow().is_some() {
            self.now.set(Instant::now());
        }
    }

    /// Waits until there may be something to do.
    fn wait(&self) {
        let began = Instant::now();
        if self.timers.borrow().next().is_some_and(|at| at <= began) {
            return;
        }
        if let Some(duration) = self.busy_poll.duration(began) {
            self.poll_busily(began, duration);
        }
        if self.shared.has_ready() {
            self.busy_poll.found();
        } else {
            self.sleep();
            self.busy_poll.slept(began.elapsed());
        }
    }

    /// Looks for something to do until there is some, a timer is due or `duration` has passed.
    fn poll_busily(&self, began: Instant, duration: Duration) {
        let end = began + duration;
        let end = self.timers.borrow().next().map_or(end, |at| at.min(end));
        let mut now = began;
        loop {
            self.start_hooks.run();
            self.enter(Wait::No);
            if self.shared.has_ready() || now >= end {
                return;
            }
            let before = now;
            std::thread::yield_now();
            now = Instant::now();
            if !self.busy_poll.yielded(now - before, now) {
                return;
            }
        }
    }

    /// Waits in the kernel, unless a last look at everything that could hold work finds some.
    fn sleep(&self) {
        let last_look = || {
            self.start_hooks.run();
            // What a hook has freed may be what others wait for.
            self.bury();
        };
        self.shared.sleep(last_look, || {
            let wait = match self.timers.borrow().next() {
                None => Wait::Forever,
                Some(at) => Wait::AtMost(at.saturating_duration_since(Instant::now())),
            };
            if wait != Wait::AtMost(Duration::ZERO) {
                self.enter(wait);
            }
        });
    }

    /// Enters the kernel and takes in what has completed.
    fn enter(&self, wait: Wait) {
        if let Some(driver) = self.driver.borrow_mut().as_mut() {
            match wait {
                Wait::No => driver.enter(),
                Wait::Forever => driver.enter_and_wait(None),
                Wait::AtMost(timeout) => driver.enter_and_wait(Some(timeout)),
            }
            driver.reap();
        }
        self.bury();
    }

    /// Discards what completed operations of dropped futures owned.
    fn bury(&self) {
        let graveyard = self.driver.borrow_mut().as_mut().map(Driver::take_graveyard);
        for (payload, completion) in graveyard.unwrap_or_default() {
            payload.discard(completion);
        }
    }

    /// Waits until the kernel is done with everything that dropped futures have left behind.
    fn drain(&self) {
        while self.driver.borrow_mut().as_mut().is_some_and(Driver::outlast_abandoned) {
            self.bury();
        }
    }

    fn fire_timers(&self) {
        let now = self.now.get();
        loop {
            // The borrow ends before the waker runs.
            let Some(waker) = self.timers.borrow_mut().pop_due(now) else { return };
            waker.wake();
        }
    }

    fn advance_simulation(&self) -> bool {
        self.over_hooks.run();
        if self.shared.has_ready() {
            return true;
        }
        self.start_hooks.run();
        if self.shared.has_ready() {
            return true;
        }
        let Some(next) = self.timers.borrow().next() else { return false };
        self.now.set(self.now.get().max(next));
        self.fire_timers();
        true
    }
}

impl Ring {
    /// Starts a task on this ring.
    pub fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output>
    where
        F::Output: 'static,
    {
        self.inner.tasks.spawn(&self.inner.shared, future)
    }

    /// Starts a task and polls it at once: what it asks the kernel for leaves with this turn, also where an end hook starts it.
    pub fn spawn_polled<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output>
    where
        F::Output: 'static,
    {
        self.inner.tasks.spawn_polled(&self.inner.shared, future)
    }

    /// The time at the start of this turn.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.inner.now.get()
    }

    /// The time when `duration` has passed from this very moment.
    pub(crate) fn after(&self, duration: Duration) -> Instant {
        let now = if self.inner.driver.borrow().is_some() { Instant::now() } else { self.now() };
        later(now, duration)
    }

    /// The time when `duration` has passed from the start of this turn.
    pub(crate) fn later_than_now(&self, duration: Duration) -> Instant {
        later(self.now(), duration)
    }

    /// Waits for `duration`.
    #[must_use]
    pub fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(self, self.after(duration))
    }

    /// Ends this task's part of the turn: whoever else is ready runs, the kernel is entered, and the hooks of a turn have run when it
    /// goes on. For work that would keep others waiting.
    pub async fn next_turn(&self) {
        // Timers fire between turns.
        Sleep::new(self, self.now() + Duration::from_nanos(1)).await;
    }

    /// Runs `operation` for at most `duration`.
    ///
    /// # Errors
    ///
    /// [`crate::Elapsed`] where time ran out first; the operation is dropped.
    pub fn timeout<F: Future>(&self, duration: Duration, operation: F) -> Limited<Deadline, F> {
        Limited::new(Deadline::new(self, duration), operation)
    }

    /// Adds a hook that runs at the start of every turn and once more before the ring goes to sleep: a hook that finds a
    /// message must make some task ready, or the message waits until something else wakes the ring.
    pub fn on_turn_start(&self, hook: impl FnMut() + 'static) {
        self.inner.start_hooks.add(hook);
    }

    /// Adds a hook that runs after the tasks of a turn, before the kernel is entered at its end.
    pub fn on_turn_end(&self, hook: impl FnMut() + 'static) {
        self.inner.end_hooks.add(hook);
    }

    /// Adds a hook that runs when the kernel has been told what this turn asked for, before the next one: for work that takes long. What
    /// a turn has begun goes on beside it. The turn in which the main future ends is the last, and has no such end.
    pub fn on_turn_over(&self, hook: impl FnMut() + 'static) {
        self.inner.over_hooks.add(hook);
    }

    /// Has what was asked of the kernel leave as soon as everybody has been polled who is ready now, not with the end of the turn: for what a
    /// disk would wait for.
    pub fn submit_early(&self) {
        self.inner.submit_early.set(true);
    }

    /// The way for other threads to wake this ring.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote::new(Arc::clone(&self.inner.shared))
    }

    /// Bytes that were received through sockets of this ring.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.inner.traffic.received()
    }

    /// Bytes that were sent through sockets of this ring.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.inner.traffic.sent()
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.inner.traffic
    }

    /// Number of tasks that have not ended.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.inner.tasks.len()
    }

    /// True where both are handles to one ring.
    pub(crate) fn is_same(&self, other: &Ring) -> bool {
        Rc::ptr_eq(&self.inner, &other.inner)
    }

    /// Works on the driver; `None` on a simulated ring.
    pub(crate) fn with_driver<T>(&self, work: impl FnOnce(&mut Driver) -> T) -> Option<T> {
        self.inner.driver.borrow_mut().as_mut().map(work)
    }

    pub(crate) fn with_timers<T>(&self, work: impl FnOnce(&mut Timers) -> T) -> T {
        work(&mut self.inner.timers.borrow_mut())
    }
}
