//! Giving memory back to the system.

/// At this size an allocation is a mapping of its own: it comes zeroed, takes what is touched of it, and is gone when it is freed.
#[cfg(target_env = "gnu")]
const MAPPING_BYTES_MIN: libc::c_int = 1 << 20;

/// Lets large allocations be mappings. By itself glibc raises its bound to the largest that was ever freed: tables of names that
/// are no longer needed then stay with the process, and new ones are cleared in one go by the thread that everybody waits for.
pub(crate) fn map_large_allocations() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time, from any thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPING_BYTES_MIN);
    }
}

/// Lets the allocator return what it holds free, where it can. After a burst of connections that is most of the process.
pub(crate) fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
