//! What is said when the process ends because a mapped file, which is the index, cannot be read.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::stderr;
use signal_hook::consts::SIGBUS;
use signal_hook::low_level::{emulate_default_handler, register};

const MESSAGE: &[u8] = b"buddy-blocks: a file that is mapped cannot be read: the disk that the index lies on fails, or the index was \
cut short meanwhile. This process ends; what was acknowledged is as safe as that disk. The log of the kernel may say more, and \
`buddy-blocks check` says what cannot be read.\n";

/// Has SIGBUS explained before it ends the process.
pub(crate) fn explain() {
    let handler = || {
        // A pipe that nobody reads must not keep the process from ending.
        let mut outlet = [PollFd::from_borrowed_fd(stderr(), PollFlags::OUT)];
        if poll(&mut outlet, Some(&Timespec::default())) == Ok(1) {
            // Where it cannot be said there is nobody to tell.
            let _ = rustix::io::write(stderr(), MESSAGE);
        }
        let _ = emulate_default_handler(SIGBUS);
    };
    // SAFETY: the handler only makes system calls that are allowed in one (signal-safety(7)): it neither allocates nor takes locks.
    let _ = unsafe { register(SIGBUS, handler) };
}
