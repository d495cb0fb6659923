//! Freeing removed extents: when nobody can read one any more, the page cache forgets it, and only then may another block lie there.
//!
//! Nobody waits for it. Pages that were read just now take the kernel milliseconds to forget, and a moment may release many thousand
//! extents at once, so this is a task of its own, which lets requests have their turn in between.

use super::{Controller, State};
use crate::files::BlockFile;
use std::rc::Rc;
use std::time::Duration;

/// While removed extents wait for readers, they are looked at this often.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);
/// So many extents are freed in one turn: finding that the cache has nothing of one takes less than a microsecond.
const EXTENTS_A_TURN: usize = 128;

impl<F: BlockFile> Controller<F> {
    /// Begins to free what nobody can read any more, and looks again soon while anything is left that somebody may read.
    pub(super) fn drain(self: &Rc<Self>, state: &mut State) {
        state.space.drain(&self.shared.clock);
        if state.space.has_unread() && !std::mem::replace(&mut state.freeing, true) {
            let controller = Rc::clone(self);
            self.ring.spawn(async move { controller.free_unread().await }).detach();
        }
        if state.space.is_draining() {
            self.settle_after(
                DRAIN_INTERVAL,
                state,
                |timers| &mut timers.drain,
                |state| state.space.look_at_pins_again(),
            );
        }
    }

    /// Frees a few extents at a time, until there are none.
    async fn free_unread(self: Rc<Self>) {
        while self.state.borrow().space.has_unread() {
            self.free_some().await;
            self.settle(&mut self.state.borrow_mut());
            self.ring.next_turn().await;
        }
        self.state.borrow_mut().freeing = false;
    }

    /// Frees at once what the cache has nothing of. What it has it forgets, all of that side by side: one by one the kernel's threads
    /// and this one would wake each other for each.
    async fn free_some(self: &Rc<Self>) {
        let mut forgotten = Vec::new();
        for _ in 0..EXTENTS_A_TURN {
            let Some(extent) = self.state.borrow_mut().space.take_unread() else { break };
            if self.data.may_have_cached(extent.offset(), extent.bytes()) {
                let data = self.data.clone();
                let forget = async move { data.forget_cached(extent.offset(), extent.bytes()).await };
                forgotten.push((extent, self.ring.spawn(forget)));
            } else {
                self.state.borrow_mut().space.free_unread(extent);
            }
        }
        for (extent, forgotten) in forgotten {
            forgotten.await;
            self.state.borrow_mut().space.free_unread(extent);
        }
    }
}
