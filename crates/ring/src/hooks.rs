//! What runs in every turn of a ring: at its start, at its end, or when it is over.

use std::cell::RefCell;

/// What runs in every turn.
#[derive(Default)]
pub(crate) struct Hooks(RefCell<Vec<Box<dyn FnMut()>>>);

impl Hooks {
    pub(crate) fn add(&self, hook: impl FnMut() + 'static) {
        self.0.borrow_mut().push(Box::new(hook));
    }

    /// Runs all of them. Those that are added meanwhile run the next time.
    pub(crate) fn run(&self) {
        let mut hooks = std::mem::take(&mut *self.0.borrow_mut());
        for hook in &mut hooks {
            hook();
        }
        let mut added = self.0.borrow_mut();
        hooks.append(&mut added);
        *added = hooks;
    }

    pub(crate) fn clear(&self) {
        let hooks = std::mem::take(&mut *self.0.borrow_mut());
        drop(hooks);
    }
}
