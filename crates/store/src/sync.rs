//! What threads share is built from these: the standard library's and `arc_swap`'s, or, under `cfg(loom)`, loom's, which tries every
//! order of what threads do and every value that a load may return.

#[cfg(not(loom))]
pub(crate) use arc_swap::{ArcSwap, Guard};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(loom)]
pub(crate) use arc_swap_for_loom::{ArcSwap, Guard};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// # Safety
///
/// All zeros is a value.
#[cfg(not(loom))]
pub(crate) unsafe trait Zero {}

// SAFETY: it is 0.
#[cfg(not(loom))]
unsafe impl Zero for AtomicU32 {}

// SAFETY: it is 0.
#[cfg(not(loom))]
unsafe impl Zero for AtomicU64 {}

/// `count` zeros. Memory that the system hands out zeroed is not touched before it is used.
#[cfg(not(loom))]
pub(crate) fn zeros<T: Zero>(count: usize) -> Box<[T]> {
    // SAFETY: all zeros is a value of each.
    unsafe { Box::<[T]>::new_zeroed_slice(count).assume_init() }
}

/// `count` zeros.
#[cfg(loom)]
pub(crate) fn zeros<T: Default>(count: usize) -> Box<[T]> {
    (0..count).map(|_| T::default()).collect()
}

/// What names rely on of `arc_swap`, and no more: what a store makes visible is visible to a load that returns it. A load may
/// return an older value, as long as nothing says that it must know the newer.
#[cfg(loom)]
mod arc_swap_for_loom {
    use super::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};

    pub(crate) type Guard<T> = T;

    pub(crate) struct ArcSwap<T> {
        /// Everything that was ever stored …
        values: Mutex<Vec<Arc<T>>>,
        /// … and the place of the latest.
        latest: AtomicUsize,
    }

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(value: T) -> ArcSwap<T> {
            ArcSwap { values: Mutex::new(vec![Arc::new(value)]), latest: AtomicUsize::new(0) }
        }

        #[allow(clippy::indexing_slicing)]
        pub(crate) fn load_full(&self) -> Arc<T> {
            let place = self.latest.load(Ordering::Acquire);
            Arc::clone(&self.values.lock().unwrap_or_else(PoisonError::into_inner)[place])
        }

        pub(crate) fn load(&self) -> Guard<Arc<T>> {
            self.load_full()
        }

        pub(crate) fn store(&self, value: Arc<T>) {
            let place = {
                let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
                values.push(value);
                values.len() - 1
            };
            self.latest.store(place, Ordering::Release);
        }
    }
}
