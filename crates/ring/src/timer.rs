//! Sleeping, timeouts, and deadlines that cost nothing to move.

use crate::runtime::Ring;
use pin_project_lite::pin_project;
use std::borrow::Borrow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Wakers by the time at which they are due; the number tells equal times apart.
#[derive(Default)]
pub(crate) struct Timers {
    due: BTreeMap<(Instant, u64), Waker>,
    sequence: u64,
}

pub(crate) type TimerKey = (Instant, u64);

impl Timers {
    fn insert(&mut self, at: Instant, waker: Waker) -> TimerKey {
        self.sequence = self.sequence.wrapping_add(1);
        let key = (at, self.sequence);
        self.due.insert(key, waker);
        key
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes one waker that is due, if any.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Waker> {
        let entry = self.due.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}

/// One registration with the ring's timers, withdrawn when dropped.
struct Registration {
    ring: Ring,
    key: Option<TimerKey>,
    /// Who is woken. Kept beside the timers, so that what stands is found to stand without a search.
    waker: Option<Waker>,
}

impl Registration {
    fn new(ring: &Ring) -> Registration {
        Registration { ring: ring.clone(), key: None, waker: None }
    }

    /// Makes sure that `waker` is woken at `at` at the latest. An earlier registration is kept: it wakes once for nothing.
    fn arm(&mut self, at: Instant, waker: &Waker) {
        let is_same = self.waker.as_ref().is_some_and(|registered| registered.will_wake(waker));
        if is_same && self.stands_until(at) {
            return;
        }
        let key = self.ring.with_timers(|timers| {
            // One that was later, or somebody else's.
            let due = self.key.and_then(|key| timers.due.remove(&key).map(|_| key.0));
            timers.insert(due.map_or(at, |due| due.min(at)), waker.clone())
        });
        (self.key, self.waker) = (Some(key), Some(waker.clone()));
    }

    /// True where it is due at `at` at the latest and was not fired: it is only when its time has come.
    fn stands_until(&self, at: Instant) -> bool {
        self.key.is_some_and(|(due, _)| due <= at && due > self.ring.now())
    }

    /// Moves a registration that is later than `at` to `at`.
    fn advance(&mut self, at: Instant) {
        let Some(key) = self.key.filter(|(due, _)| *due > at) else { return };
        self.key = self.ring.with_timers(|timers| {
            let waker = timers.due.remove(&key)?;
            Some(timers.insert(at, waker))
        });
    }

    fn disarm(&mut self) {
        if let Some(key) = self.key.take() {
            self.ring.with_timers(|timers| timers.due.remove(&key));
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.disarm();
    }
}

/// Resolves at a point in time; see [`Ring::sleep`].
pub struct Sleep {
    until: Instant,
    registration: Registration,
}

impl Sleep {
    pub(crate) fn new(ring: &Ring, until: Instant) -> Sleep {
        Sleep { until, registration: Registration::new(ring) }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.registration.ring.now() >= self.until {
            self.registration.disarm();
            return Poll::Ready(());
        }
        let until = self.until;
        self.registration.arm(until, context.waker());
        Poll::Pending
    }
}

/// A time limit has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// A time limit for one task's operations, one after the other.
///
/// Moving it is a store, not a registration: the timer that stands fires at its old time, finds that the limit has moved,
/// and is set again. So a connection can give every request a limit of its own for nothing.
pub struct Deadline {
    at: Cell<Instant>,
    registration: Cell<Option<Registration>>,
    ring: Ring,
}

impl Deadline {
    /// A limit that lies `timeout` from now.
    #[must_use]
    pub fn new(ring: &Ring, timeout: Duration) -> Deadline {
        Deadline { at: Cell::new(ring.after(timeout)), registration: Cell::new(None), ring: ring.clone() }
    }

    /// Moves the limit to `timeout` from the beginning of this turn.
    pub fn set(&self, timeout: Duration) {
        // From the beginning of the turn: it is set several times for each request.
        let at = self.ring.later_than_now(timeout);
        // Later is a store; earlier needs the timer to know.
        if at < self.at.replace(at)
            && let Some(mut registration) = self.registration.take()
        {
            registration.advance(at);
            self.registration.set(Some(registration));
        }
    }

    /// Runs `operation` until the limit, which may be moved meanwhile.
    ///
    /// # Errors
    ///
    /// [`Elapsed`] where the limit came first; the operation is dropped.
    pub fn limit<F: Future>(&self, operation: F) -> Limited<&Deadline, F> {
        Limited { deadline: self, operation }
    }

    fn poll_limited<F: Future>(
        &self,
        operation: Pin<&mut F>,
        context: &mut Context<'_>,
    ) -> Poll<Result<F::Output, Elapsed>> {
        if let Poll::Ready(output) = operation.poll(context) {
            return Poll::Ready(Ok(output));
        }
        if self.ring.now() >= self.at.get() {
            return Poll::Ready(Err(Elapsed));
        }
        let mut registration = self.registration.take().unwrap_or_else(|| Registration::new(&self.ring));
        registration.arm(self.at.get(), context.waker());
        self.registration.set(Some(registration));
        Poll::Pending
    }
}

pin_project! {
    /// An operation with a time limit; see [`Deadline::limit`]. A struct, since an `async fn` would hold the operation twice: as its
    /// argument, and where it is pinned.
    pub struct Limited<D, F> {
        deadline: D,
        #[pin]
        operation: F,
    }
}

impl<D, F> Limited<D, F> {
    pub(crate) fn new(deadline: D, operation: F) -> Limited<D, F> {
        Limited { deadline, operation }
    }
}

impl<D: Borrow<Deadline>, F: Future> Future for Limited<D, F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let deadline: &Deadline = (*this.deadline).borrow();
        deadline.poll_limited(this.operation, context)
    }
}
