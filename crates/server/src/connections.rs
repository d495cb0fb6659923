//! The connections of a worker, as it sees them: which of them wait for a request, and how they end when the server stops.

use buddy_ring::{Ring, Socket};
use slab::Slab;
use std::cell::RefCell;
use std::time::Duration;

/// Connections that were cut off have this long to end.
const CUT_OFF_GRACE: Duration = Duration::from_secs(1);
/// While the worker waits for them to end it looks this often.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Open connections, each under a key.
#[derive(Default)]
pub(crate) struct Connections(RefCell<Slab<Entry>>);

/// A connection, as its worker sees it.
struct Entry {
    socket: Socket,
    /// It waits for a request.
    idle: bool,
}

impl Connections {
    /// Takes one in; returns its key.
    pub(crate) fn insert(&self, socket: Socket) -> usize {
        self.0.borrow_mut().insert(Entry { socket, idle: false })
    }

    /// One has ended.
    pub(crate) fn remove(&self, key: usize) {
        self.0.borrow_mut().try_remove(key);
    }

    /// Notes whether one waits for a request.
    pub(crate) fn set_idle(&self, key: usize, idle: bool) {
        if let Some(entry) = self.0.borrow_mut().get_mut(key) {
            entry.idle = idle;
        }
    }

    /// Makes what one waits for end: bytes to come, or to be taken.
    pub(crate) fn interrupt(&self, key: usize) {
        if let Some(entry) = self.0.borrow().get(key) {
            entry.socket.interrupt();
        }
    }

    /// Ends those that wait for a request, lets the others finish the one they are at, and cuts off those that do not within `timeout`.
    pub(crate) async fn drain(&self, ring: &Ring, timeout: Duration) {
        // A head that has just arrived is not lost: what is interrupted is a receive that has nothing yet …
        self.for_each_idle(Socket::interrupt);
        ring.sleep(LOOK_INTERVAL).await;
        // … and what still waits then may wait for something else.
        self.for_each_idle(Socket::finish_receiving);
        self.wait_for_all(ring, timeout).await;
        let left = self.0.borrow().len();
        if left > 0 {
            tracing::warn!(connections = left, "connections are cut off: they did not finish in time");
            for (_, entry) in self.0.borrow().iter() {
                entry.socket.cut_off();
            }
            self.wait_for_all(ring, CUT_OFF_GRACE).await;
        }
    }

    fn for_each_idle(&self, end: impl Fn(&Socket)) {
        self.0.borrow().iter().filter(|(_, entry)| entry.idle).for_each(|(_, entry)| end(&entry.socket));
    }

    async fn wait_for_all(&self, ring: &Ring, timeout: Duration) {
        let all_ended = async {
            while !self.0.borrow().is_empty() {
                ring.sleep(LOOK_INTERVAL).await;
            }
        };
        // Those that are left are the caller's to judge.
        let _ = ring.timeout(timeout, all_ended).await;
    }
}
