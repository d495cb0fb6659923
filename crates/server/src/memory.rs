//! Giving memory back to the system.

/// Lets the allocator return what it holds free, where it can. After a burst of connections that is most of the process.
pub(crate) fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
