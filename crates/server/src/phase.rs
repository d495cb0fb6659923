//! What the server is doing as a whole, and how workers hear of it.

use crate::server_state::ServerState;
use buddy_ring::{Ring, WaitLine};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

/// The phases of a server, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    Starting = 0,
    Serving = 1,
    Draining = 2,
}

/// One worker's eye on the phase: looks once a turn.
pub(crate) struct PhaseWatch {
    state: Arc<ServerState>,
    waiting: WaitLine,
}

impl PhaseWatch {
    pub(crate) fn start(ring: &Ring, state: &Arc<ServerState>) -> Rc<PhaseWatch> {
        let watch = Rc::new(PhaseWatch { state: Arc::clone(state), waiting: WaitLine::default() });
        let mut seen = state.phase();
        ring.on_turn_start({
            let watch = Rc::clone(&watch);
            move || {
                let phase = watch.state.phase();
                if phase != seen {
                    seen = phase;
                    watch.waiting.wake_first();
                }
            }
        });
        watch
    }

    /// True once the server is stopping.
    pub(crate) fn is_draining(&self) -> bool {
        self.state.phase() == Phase::Draining
    }

    /// Waits for a phase, or a later one.
    pub(crate) async fn reached(&self, phase: Phase) {
        if self.state.phase() < phase {
            self.waiting.wait_for(|| (self.state.phase() >= phase).then_some(())).await;
        }
    }

    /// Runs `operation` until the server drains; `None` where that came first.
    pub(crate) async fn unless_draining<F: Future>(&self, operation: F) -> Option<F::Output> {
        let mut operation = pin!(operation);
        let mut draining = pin!(self.reached(Phase::Draining));
        poll_fn(|context| {
            if draining.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            operation.as_mut().poll(context).map(Some)
        })
        .await
    }
}
