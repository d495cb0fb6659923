//! Tasks, their wakers, and the queue of tasks that are ready to be polled.
//!
//! A waker may be sent to any thread, so the queue is behind a mutex; it is uncontended but for wakes from other
//! threads (checkpointer, signals), and the executor takes the whole queue at once. Messages between rings do not go
//! through it: they have queues of their own, see [`crate::Remote`].

use crate::remote::Shared;
use crate::sync::{AtomicBool, Ordering};
use pin_project_lite::pin_project;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// Number of a task in its executor; the main future of `block_on` has [`MAIN`].
pub(crate) type TaskId = usize;
pub(crate) const MAIN: TaskId = usize::MAX;

/// Wakes one task. `queued` keeps a task from standing in the ready queue twice.
pub(crate) struct TaskWaker {
    id: TaskId,
    queued: AtomicBool,
    shared: Arc<Shared>,
}

impl TaskWaker {
    pub(crate) fn new(id: TaskId, shared: Arc<Shared>) -> Arc<TaskWaker> {
        Arc::new(TaskWaker { id, queued: AtomicBool::new(false), shared })
    }

    /// To be called right before the task is polled: a wake during the poll must queue it again.
    ///
    /// A swap, not a store: what the poll reads must not be read before this is seen. Otherwise another thread could change
    /// it, find the task still queued, and wake nobody.
    pub(crate) fn begin_poll(&self) {
        self.queued.swap(false, Ordering::AcqRel);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.shared.push_ready(self.id);
        }
    }
}

struct Task {
    /// Taken out while it is being polled.
    polled: Option<Polled>,
    handle: Arc<TaskWaker>,
}

struct Polled {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
}

/// All tasks of one executor.
#[derive(Default)]
pub(crate) struct Tasks {
    slots: RefCell<Slab<Task>>,
}

impl Tasks {
    /// Adds a task that is polled when its turn comes.
    pub(crate) fn spawn<F: Future + 'static>(&self, shared: &Arc<Shared>, future: F) -> JoinHandle<F::Output>
    where
        F::Output: 'static,
    {
        let (id, handle) = self.add(shared, future);
        if let Some(task) = self.slots.borrow().get(id) {
            task.handle.wake_by_ref();
        }
        handle
    }

    /// Adds a task and polls it.
    pub(crate) fn spawn_polled<F: Future + 'static>(&self, shared: &Arc<Shared>, future: F) -> JoinHandle<F::Output>
    where
        F::Output: 'static,
    {
        let (id, handle) = self.add(shared, future);
        self.poll(id);
        handle
    }

    fn add<F: Future + 'static>(&self, shared: &Arc<Shared>, future: F) -> (TaskId, JoinHandle<F::Output>)
    where
        F::Output: 'static,
    {
        let state = Rc::new(JoinState { output: Cell::new(None), waiting: Cell::new(None) });
        let future = Box::pin(Joined { state: Rc::clone(&state), future });
        let mut slots = self.slots.borrow_mut();
        let entry = slots.vacant_entry();
        let id = entry.key();
        let handle = TaskWaker::new(id, Arc::clone(shared));
        let waker = Waker::from(Arc::clone(&handle));
        entry.insert(Task { polled: Some(Polled { future, waker }), handle });
        (id, JoinHandle { state })
    }

    /// Polls task `id` once. A wake for a task that has ended is harmless.
    pub(crate) fn poll(&self, id: TaskId) {
        let mut polled = {
            let mut slots = self.slots.borrow_mut();
            let Some(task) = slots.get_mut(id) else { return };
            let Some(polled) = task.polled.take() else { return };
            task.handle.begin_poll();
            polled
        };
        let poll = polled.future.as_mut().poll(&mut Context::from_waker(&polled.waker));
        let mut slots = self.slots.borrow_mut();
        match poll {
            Poll::Pending => {
                if let Some(task) = slots.get_mut(id) {
                    task.polled = Some(polled);
                }
            }
            Poll::Ready(()) => {
                slots.try_remove(id);
                drop(slots);
                drop(polled);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Drops every task. Destructors may wake or spawn: spawned ones are dropped too.
    pub(crate) fn clear(&self) {
        loop {
            let taken = std::mem::take(&mut *self.slots.borrow_mut());
            if taken.is_empty() {
                return;
            }
            drop(taken);
        }
    }
}

pin_project! {
    /// Runs a future and hands its output over. A struct, since an `async` block would hold the future twice: as it was given, and
    /// where it is awaited.
    struct Joined<F: Future> {
        state: Rc<JoinState<F::Output>>,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Joined<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let Poll::Ready(output) = this.future.poll(context) else { return Poll::Pending };
        this.state.finish(output);
        Poll::Ready(())
    }
}

struct JoinState<T> {
    output: Cell<Option<T>>,
    waiting: Cell<Option<Waker>>,
}

impl<T> JoinState<T> {
    fn finish(&self, output: T) {
        self.output.set(Some(output));
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

/// Waits for a task's result. Dropping it lets the task run on by itself.
#[must_use = "a task runs without its handle: drop it explicitly to say so"]
pub struct JoinHandle<T> {
    state: Rc<JoinState<T>>,
}

impl<T> JoinHandle<T> {
    /// Lets the task run on by itself, its result unseen.
    pub fn detach(self) {}
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match self.state.output.take() {
            Some(output) => Poll::Ready(output),
            None => {
                self.state.waiting.set(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}
