//! Places in which tests let the process die. Programs that are not built for tests have none.

/// Dies here, if `FAILPOINTS` says so (see crate `fail`).
#[inline]
pub(crate) fn crash_point(_name: &str) {
    fail::fail_point!(_name, |_| std::process::abort());
}
