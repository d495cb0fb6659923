//! The file of libmdbx's locks, beside the index, keeps its space on the disk.
//!
//! libmdbx makes it empty when the last one closes the index, and writes to it through a mapping when the first one opens it. On a disk
//! that has become full meanwhile that write ends the process with SIGBUS, where a system call would have told. So the space is set
//! aside before the index is opened, which can be told, and again after it was closed.

use super::IndexError;
use super::environment::READERS_MAX;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What libmdbx adds to the name of the index.
const SUFFIX: &str = "-lck";
/// Bytes of a slot of a reader, and more than the head before them takes.
const SLOT_BYTES: u64 = 32;
const HEAD_BYTES: u64 = 4096;

/// The path of the locks of the index at `index`.
fn path(index: &Path) -> PathBuf {
    let mut name = index.as_os_str().to_owned();
    name.push(SUFFIX);
    PathBuf::from(name)
}

/// Bytes that the locks take at most.
fn needed_bytes() -> u64 {
    (READERS_MAX * SLOT_BYTES + HEAD_BYTES).next_multiple_of(rustix::param::page_size() as u64)
}

/// Sets space aside for the locks of the index at `index`, where they may be written: twice what they need if there is so much, since
/// space that lies in many pieces costs some more. Neither the content of their file nor its length changes.
///
/// # Errors
///
/// [`IndexError::System`] where there is less than they need.
pub(super) fn keep_space(index: &Path) -> Result<(), IndexError> {
    let path = path(index);
    let failed = |error: std::io::Error| IndexError::System {
        action: "opened",
        reason: format!("no space for its locks, {}: {error}", path.display()),
    };
    let file = match OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(&path) {
        Ok(file) => file,
        // Locks that cannot be written are not needed, or libmdbx says why they are.
        Err(error) if matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) => {
            return Ok(());
        }
        Err(error) => return Err(failed(error)),
    };
    set_aside(&file, 2 * needed_bytes())
        .or_else(|_| set_aside(&file, needed_bytes()))
        .map_err(|error| failed(error.into()))
}

fn set_aside(file: &File, bytes: u64) -> Result<(), Errno> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
        // Not every file system can; most can.
        Err(Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::MdbxIndex;
    use std::os::unix::fs::MetadataExt;

    fn kept_bytes(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().blocks() * 512
    }

    #[test]
    fn space_is_kept_and_nothing_else_changes() {
        let directory = tempfile::tempdir().unwrap();
        let index = directory.path().join("index");
        for content in [&b""[..], b"locks"] {
            std::fs::write(path(&index), content).unwrap();
            keep_space(&index).unwrap();
            assert_eq!(std::fs::read(path(&index)).unwrap(), content);
            assert!(kept_bytes(&path(&index)) >= 2 * needed_bytes());
        }
    }

    #[test]
    fn there_is_space_for_all_of_the_locks_while_the_index_is_open_and_when_it_was_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path_of_index = directory.path().join("index");
        let index = MdbxIndex::open(&path_of_index).unwrap();
        let locks = path(&path_of_index);
        let locks_bytes = std::fs::metadata(&locks).unwrap().len();
        assert!((1..=needed_bytes()).contains(&locks_bytes), "{locks_bytes} bytes");
        drop(index);
        assert!(kept_bytes(&locks) >= needed_bytes());
        drop(MdbxIndex::open_read_only(&path_of_index).unwrap());
        assert!(kept_bytes(&locks) >= needed_bytes());
    }
}
