//! Creating an io_uring with the best flags that the kernel has, and saying clearly why it cannot be created.

use io_uring::IoUring;
use std::io;

/// Why a ring could not be set up. Each line tells the operator what to change.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The kernel was built without io_uring or with one that is too old.
    #[error(
        "this kernel's io_uring is missing or too old: Linux 6.1 or later is needed, built with CONFIG_IO_URING; or a container \
         runtime hides it, as Podman does: use a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Missing,
    /// io_uring exists and may not be used.
    #[error(
        "io_uring is forbidden here: allow the system calls io_uring_setup, io_uring_enter and io_uring_register \
         (container runtimes block them by default: use a seccomp profile that allows them), and set the sysctl \
         kernel.io_uring_disabled to 0"
    )]
    Forbidden,
    /// Locked memory or descriptors ran out.
    #[error("not enough resources for an io_uring of {entries} entries ({source}): raise `ulimit -l` and `ulimit -n`")]
    Resources {
        /// Entries of the submission queue that were asked for.
        entries: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error("setting up io_uring failed: {0}")]
    Other(io::Error),
}

/// Creates a ring with `entries` submission and `4 × entries` completion entries.
///
/// `SINGLE_ISSUER | DEFER_TASKRUN` (Linux 6.1) let the kernel hand over completions only when this thread asks, which
/// saves interrupts of its work; `COOP_TASKRUN` alone (5.19) is next best. Older kernels lack operations that are needed here.
pub(crate) fn build(entries: u32) -> Result<IoUring, SetupError> {
    let attempts: [fn(&mut io_uring::Builder); 2] = [
        |builder| {
            builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun().setup_taskrun_flag();
        },
        |builder| {
            builder.setup_coop_taskrun().setup_taskrun_flag();
        },
    ];
    for configure in attempts {
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(entries.saturating_mul(4)).setup_submit_all();
        configure(&mut builder);
        match builder.build(entries) {
            Ok(ring) => return Ok(ring),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(classify(error, entries)),
        }
    }
    Err(SetupError::Missing)
}

/// Why a ring of `entries` entries cannot be set up, by what the system said to any step of it.
pub(crate) fn classify(error: io::Error, entries: u32) -> SetupError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => SetupError::Missing,
        Some(libc::EPERM | libc::EACCES) => SetupError::Forbidden,
        Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE) => SetupError::Resources { entries, source: error },
        _ => SetupError::Other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_remedy() {
        let of = |errno| classify(io::Error::from_raw_os_error(errno), 256).to_string();
        assert!(of(libc::ENOSYS).contains("Linux 6.1") && of(libc::ENOSYS).contains("seccomp"));
        assert!(of(libc::EPERM).contains("seccomp"));
        assert!(of(libc::ENOMEM).contains("ulimit -l"));
        assert!(of(libc::EMFILE).contains("256 entries"));
    }

    #[test]
    fn a_ring_can_be_built_here() {
        assert!(build(8).is_ok());
    }
}
