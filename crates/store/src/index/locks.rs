//! The file of libmdbx's locks, beside the index, keeps its space on the disk.
//!
//! libmdbx makes it empty when the last one closes the index, and writes to it through a mapping when the first one opens it. On a disk
//! that has become full meanwhile that write ends the process with SIGBUS, where a system call would have told. So the space is set
//! aside before the index is opened, which can be told, and again after it was closed. That holds where space that is set aside is
//! what is written to: on ext4, xfs and tmpfs, not on file systems that copy on write.

use super::IndexError;
use super::creation::with_suffix;
use super::environment::READERS_MAX;
use crate::files::set_aside;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// What libmdbx adds to the name of the index.
const SUFFIX: &str = "-lck";
/// Bytes of a slot of a reader, and more than the head before them takes. What libmdbx makes of them is the same number of pages.
const SLOT_BYTES: u64 = 32;
const HEAD_BYTES: u64 = 1024;

/// The path of the locks of the index at `index`.
pub(super) fn path(index: &Path) -> PathBuf {
    with_suffix(index, SUFFIX)
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
/// [`IndexError::System`] where there is less than they need, or this user may not use them.
pub(super) fn keep_space(index: &Path) -> Result<(), IndexError> {
    let path = path(index);
    let failed = |error: std::io::Error| IndexError::System {
        action: "opened",
        reason: format!("its locks, {}: {error}", path.display()),
    };
    let file = match open_or_create(&path, index) {
        Ok(file) => file,
        // Where nothing can be written nobody else writes, and there is no need for locks.
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    set_aside(&file, 2 * needed_bytes()).or_else(|_| set_aside(&file, needed_bytes())).map_err(failed)
}

/// Opens the file of locks, or makes it for whoever may read the index, who may write it then: an administrator who looks at a store
/// does not lock its owner out.
fn open_or_create(path: &Path, index: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return opened,
    }
    // Only what was made here is given away: not what a link leads to.
    let file = match options.clone().create_new(true).mode(0o660).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return options.open(path),
        made => made?,
    };
    if let Ok(index) = std::fs::metadata(index) {
        // Only an administrator can give a file away; nobody else has to.
        let _ = fchown(&file, Some(index.uid()), Some(index.gid()));
        let readers = index.mode() & 0o444;
        let _ = file.set_permissions(Permissions::from_mode(readers | readers >> 1));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::MdbxIndex;

    fn kept_bytes(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().blocks() * 512
    }

    /// The path of an index, where the file system can set space aside; some say so and do not.
    fn index_or_skip() -> Option<(tempfile::TempDir, PathBuf)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("try");
        set_aside(File::create(&path).unwrap(), 4096).unwrap();
        if kept_bytes(&path) == 0 {
            eprintln!("skipped: {} cannot set space aside", directory.path().display());
            return None;
        }
        let index = directory.path().join("index");
        Some((directory, index))
    }

    #[test]
    fn space_is_kept_and_nothing_else_changes() {
        let Some((_directory, index)) = index_or_skip() else { return };
        for content in [&b""[..], b"locks"] {
            std::fs::write(path(&index), content).unwrap();
            keep_space(&index).unwrap();
            assert_eq!(std::fs::read(path(&index)).unwrap(), content);
            assert!(kept_bytes(&path(&index)) >= 2 * needed_bytes());
        }
    }

    #[test]
    fn locks_are_for_whoever_the_index_is_for() {
        let directory = tempfile::tempdir().unwrap();
        let index = directory.path().join("index");
        std::fs::write(&index, b"").unwrap();
        std::fs::set_permissions(&index, Permissions::from_mode(0o640)).unwrap();
        // Where this is not run by root it can only be given to oneself.
        let other = std::os::unix::fs::chown(&index, Some(65534), Some(65534)).is_ok();
        keep_space(&index).unwrap();
        let (index, locks) = (std::fs::metadata(&index).unwrap(), std::fs::metadata(path(&index)).unwrap());
        assert_eq!((locks.uid(), locks.gid()), (index.uid(), index.gid()));
        assert!(!other || locks.uid() == 65534);
        assert_eq!((index.mode() & 0o777, locks.mode() & 0o777), (0o640, 0o660), "whatever the process masks");
    }

    #[test]
    fn what_a_link_leads_to_is_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let (index, there) = (directory.path().join("index"), directory.path().join("there"));
        std::os::unix::fs::symlink(&there, path(&index)).unwrap();
        assert!(keep_space(&index).is_err());
        assert!(!there.exists());
        std::fs::write(&there, b"").unwrap();
        keep_space(&index).unwrap();
    }

    #[test]
    fn there_is_space_for_all_of_the_locks_while_the_index_is_open_and_when_it_was_closed() {
        let Some((_directory, path_of_index)) = index_or_skip() else { return };
        let index = MdbxIndex::open(&path_of_index).unwrap();
        let locks = path(&path_of_index);
        let locks_bytes = std::fs::metadata(&locks).unwrap().len();
        assert_eq!(locks_bytes, needed_bytes(), "a page more may be one that a full disk does not have");
        drop(index);
        assert!(kept_bytes(&locks) >= needed_bytes());
        drop(MdbxIndex::open_read_only(&path_of_index).unwrap());
        assert!(kept_bytes(&locks) >= needed_bytes());
    }
}
