//! Models of sleeping and waking: every order of what the threads do, and every value that their loads may return.
//!
//! Real: [`Shared`], [`Remote::wake`] and [`TaskWaker`]. Modelled: the kernel's wait and what ends it, by a [`Bell`]; the queues between
//! rings, by [`queue`], with the orderings of the real ones; and a ring's turn, by [`Sleeper`]. A wake that is lost is a deadlock,
//! which loom reports.
//!
//! Loom does not know that a swap reads the very store before its own, so it may report what no processor does where a swap
//! changes nothing; a compare-exchange that fails writes nothing.

use super::{Remote, Shared};
use crate::task::{TaskId, TaskWaker};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use std::array;
use std::sync::Arc;
use std::task::Waker;

/// Tries every order with at most so many preemptions, unless `LOOM_MAX_PREEMPTIONS` says otherwise.
const PREEMPTIONS_MAX: usize = 3;

fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS_MAX);
    builder.check(run);
}

/// What makes a wait in the kernel return, at once where it was rung before.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.heard.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.heard.wait(rung).unwrap();
        }
        *rung = false;
    }

    /// Entering the kernel without waiting takes in what has completed.
    fn take_in(&self) {
        *self.rung.lock().unwrap() = false;
    }
}

/// As many as any model sends.
const QUEUE_SLOTS: usize = 2;

/// A queue with one producer and one consumer, with the orderings of `rtrb`.
struct Queue {
    slots: [UnsafeCell<usize>; QUEUE_SLOTS],
    pushed: AtomicUsize,
}

struct Producer(Arc<Queue>);

struct Consumer {
    queue: Arc<Queue>,
    taken: usize,
}

fn queue() -> (Producer, Consumer) {
    let slots = array::from_fn(|_| UnsafeCell::new(0));
    let queue = Arc::new(Queue { slots, pushed: AtomicUsize::new(0) });
    (Producer(Arc::clone(&queue)), Consumer { queue, taken: 0 })
}

impl Producer {
    fn push(&mut self, message: usize) {
        let at = self.0.pushed.load(Ordering::Relaxed);
        // SAFETY: no consumer looks at this slot before it is pushed.
        self.0.slots[at].with_mut(|slot| unsafe { *slot = message });
        self.0.pushed.store(at + 1, Ordering::Release);
    }
}

impl Consumer {
    fn take(&mut self) -> Option<usize> {
        if self.taken == self.queue.pushed.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: it was pushed, and is not written again.
        let message = self.queue.slots[self.taken].with(|slot| unsafe { *slot });
        self.taken += 1;
        Some(message)
    }
}

/// A ring with one task: its turns, in the order of `Runtime::turn_until_ready` and `Inner::advance`.
struct Sleeper {
    shared: Arc<Shared>,
    task: Arc<TaskWaker>,
}

const TASK: TaskId = 7;

impl Sleeper {
    fn new(shared: &Arc<Shared>) -> Sleeper {
        Sleeper { shared: Arc::clone(shared), task: TaskWaker::new(TASK, Arc::clone(shared)) }
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.task))
    }

    /// Runs turns until `poll` says that the task has ended. `hook` runs at the start of each and at the last look before sleep;
    /// it says whether it found what the task waits for. `leave` is what is done when the kernel is entered.
    fn run(&self, mut hook: impl FnMut() -> bool, mut poll: impl FnMut() -> bool, mut leave: impl FnMut()) {
        let _running = self.shared.enter();
        let waker = self.waker();
        let mut hook = || {
            if hook() {
                waker.wake_by_ref();
            }
        };
        waker.wake_by_ref();
        let mut ready = Vec::new();
        loop {
            hook();
            self.shared.take_ready(&mut ready);
            for id in ready.drain(..) {
                assert_eq!(id, TASK);
                self.task.begin_poll();
                if poll() {
                    leave();
                    return;
                }
            }
            leave();
            self.shared.bell.take_in();
            if !self.shared.has_ready() {
                self.shared.sleep(&mut hook, || {
                    leave();
                    self.shared.bell.wait();
                });
            }
        }
    }
}

/// Runs a ring that waits for messages from `queues`, until it has `messages` of them.
fn receive(shared: &Arc<Shared>, mut queues: Vec<Consumer>, messages: usize) {
    let taken = std::cell::Cell::new(0);
    let hook = || {
        let found = queues.iter_mut().filter_map(Consumer::take).count();
        taken.set(taken.get() + found);
        found > 0
    };
    Sleeper::new(shared).run(hook, || taken.get() == messages, || {});
}

#[test]
fn a_message_wakes_the_ring_that_sleeps() {
    model(|| {
        let shared = Shared::new(None);
        let (mut producer, consumer) = queue();
        let remote = Remote::new(Arc::clone(&shared));
        let sender = thread::spawn(move || {
            for message in 0..2 {
                producer.push(message);
                remote.wake();
            }
        });
        receive(&shared, vec![consumer], 2);
        sender.join().unwrap();
    });
}

#[test]
fn two_that_wake_at_once_lose_neither_message() {
    model(|| {
        let shared = Shared::new(None);
        let mut consumers = Vec::new();
        for message in 0..2 {
            let (mut producer, consumer) = queue();
            consumers.push(consumer);
            let remote = Remote::new(Arc::clone(&shared));
            thread::spawn(move || {
                producer.push(message);
                remote.wake();
            });
        }
        receive(&shared, consumers, 2);
    });
}

/// As the checkpointer and signals do it: the waker of a task, from a thread without a ring. A wake during the poll queues the task
/// again; a wake while it is queued must not be needed.
#[test]
fn a_task_that_another_thread_wakes_sees_why() {
    model(|| {
        let shared = Shared::new(None);
        let sleeper = Sleeper::new(&shared);
        let steps = Arc::new(AtomicUsize::new(0));
        let waking = thread::spawn({
            let (waker, steps) = (sleeper.waker(), Arc::clone(&steps));
            move || {
                for step in 1..=2 {
                    steps.store(step, Ordering::Relaxed);
                    waker.wake_by_ref();
                }
            }
        });
        sleeper.run(|| false, || steps.load(Ordering::Relaxed) == 2, || {});
        waking.join().unwrap();
    });
}

/// A worker and the controller: each sleeps until the other has sent, and wakes it by a message of its own ring, as
/// [`Remote::wake_from`] does: decided after the queue was filled, on its way when the kernel is next entered.
#[test]
fn two_rings_that_ask_and_answer_never_both_sleep() {
    model(|| {
        let (worker, controller) = (Shared::new(None), Shared::new(None));
        let (mut requests, mut taken_requests) = queue();
        let (mut replies, mut taken_replies) = queue();
        let answering = thread::spawn({
            let (worker, controller) = (Arc::clone(&worker), Arc::clone(&controller));
            move || {
                let (asked, due) = (std::cell::Cell::new(0), std::cell::Cell::new(false));
                let mut answered = 0;
                Sleeper::new(&controller).run(
                    || {
                        let found = std::iter::from_fn(|| taken_requests.take()).count();
                        asked.set(asked.get() + found);
                        found > 0
                    },
                    || {
                        while answered < asked.get() {
                            replies.push(answered);
                            answered += 1;
                            due.set(due.get() || worker.wake_is_due());
                        }
                        answered == 2
                    },
                    || {
                        if due.take() {
                            worker.write_event();
                        }
                    },
                );
            }
        });
        let (answered, due) = (std::cell::Cell::new(0), std::cell::Cell::new(false));
        let mut asked = 0;
        Sleeper::new(&worker).run(
            || {
                let found = taken_replies.take().is_some();
                answered.set(answered.get() + usize::from(found));
                found
            },
            || {
                if asked < 2 && asked == answered.get() {
                    requests.push(asked);
                    asked += 1;
                    due.set(due.get() || controller.wake_is_due());
                }
                answered.get() == 2
            },
            || {
                if due.take() {
                    controller.write_event();
                }
            },
        );
        answering.join().unwrap();
    });
}
