//! Having the disk write what the page cache holds of a file, a little at a time.

use super::is_unsupported;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes of the file that are looked at at a time.
const PIECE_BYTES: i64 = 1 << 20;

/// Has the disk write the first `bytes` of `file`, as far as they are newer in the page cache, and waits for each piece before the next: a
/// flush would have it write everything at once, and whoever writes meanwhile would wait behind it all. Nothing is durable afterwards
/// without a flush, which then has little left to do.
///
/// # Errors
///
/// The system's, of a write: the flush may not tell it again.
pub fn write_out(file: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    let end = i64::try_from(bytes).unwrap_or(i64::MAX);
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let mut offset = 0;
    while offset < end {
        // SAFETY: no memory is passed; the descriptor is open, because it is borrowed.
        if unsafe { libc::sync_file_range(file.as_raw_fd(), offset, PIECE_BYTES, flags) } != 0 {
            let error = io::Error::last_os_error();
            return if is_unsupported(&error) { Ok(()) } else { Err(error) };
        }
        offset += PIECE_BYTES;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::page_cache::unwritten_pages;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn what_the_cache_holds_was_written_afterwards() {
        // Beside the test program, which lies on a disk, as temporary files need not.
        let program = std::env::current_exe().unwrap();
        let mut file = tempfile::tempfile_in(program.parent().unwrap()).unwrap();
        let content = vec![1; 3_500_000];
        let bytes = content.len() as u64;
        file.write_all(&content).unwrap();
        write_out(file.as_fd(), bytes).unwrap();
        match unwritten_pages(file.as_fd(), 0, bytes) {
            Some(pages) => assert_eq!(pages, 0),
            None => eprintln!("this kernel has no cachestat"),
        }
    }

    #[test]
    fn an_error_is_told() {
        let (receiver, _sender) = rustix::pipe::pipe().unwrap();
        assert_eq!(write_out(receiver.as_fd(), 1).unwrap_err().raw_os_error(), Some(libc::ESPIPE));
    }
}
