//! The data directory: its files, who may use them, and how they come into being.
//!
//! One process at a time is enforced by `flock` on the very open files that the rings write through: after `kill -9` the kernel
//! goes on writing what was in flight and frees that lock only afterwards, whereas a lock file of its own would be free at
//! once.

use super::directory_error::{LockError, OpenDirectoryError};
use super::page_cache::is_cached;
use super::probe::{
    direct_writes_spare_sent_pages, durable_write_takes_longer_by, first_and_next_write_take, read_takes,
};
use super::real::Descriptors;
use super::set_aside::{set_aside, unshare};
use super::stamp::Stamp;
use crate::index::is_too_short;
use rustix::fs::{Advice, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause between two attempts to lock.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// An open, locked data directory.
pub struct DataDirectory {
    path: PathBuf,
    /// The blocks.
    pub data: Descriptors,
    /// The journal.
    pub journal: Descriptors,
    /// Whether the file system writes past its cache.
    pub direct: bool,
}

/// What a directory is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Looking: nothing is created or changed.
    Read,
    /// Serving: files are created where there is no store yet.
    Write,
}

impl DataDirectory {
    /// Opens and locks the directory at `path`. Waits up to `lock_timeout` for another process to let go.
    ///
    /// # Errors
    ///
    /// [`OpenDirectoryError`]
    pub fn open(path: &Path, access: Access, lock_timeout: Duration) -> Result<DataDirectory, OpenDirectoryError> {
        match access {
            Access::Read => refuse_missing(path)?,
            Access::Write => {
                make_directory(path)?;
                refuse_foreign(path)?;
            }
        }
        let open = |name: &str| -> Result<_, OpenDirectoryError> {
            let path = path.join(name);
            let (file, direct) = open_direct(&path, access).map_err(OpenDirectoryError::io(&path))?;
            lock(&file, &path, access, lock_timeout)?;
            Ok((Arc::new(file), direct))
        };
        let (data, direct) = open("data")?;
        let (journal, _) = open("journal")?;
        let data_path = path.join("data");
        let cached = open_cached(&data_path).map_err(OpenDirectoryError::io(&data_path))?;
        let mut send_cached = false;
        if access == Access::Write {
            sync_names(path)?;
            send_cached = direct && direct_writes_spare_sent_pages(&data_path, &data);
        }
        // What was not proven to be written past the cache is not known to be read past it.
        let pass_cache = send_cached && is_cached(cached.as_fd(), 0, 1).is_some();
        Ok(DataDirectory {
            path: path.to_owned(),
            data: Descriptors { direct: data, cached: Some(Arc::new(cached)), send_cached, pass_cache },
            journal: Descriptors { direct: journal, cached: None, send_cached: false, pass_cache: false },
            direct,
        })
    }

    /// How much longer a write of blocks takes that is on stable storage when it returns; `None` where that cannot be told.
    #[must_use]
    pub fn durable_write_takes_longer_by(&self) -> Option<Duration> {
        durable_write_takes_longer_by(&self.path.join("data"), &self.data.direct)
    }

    /// How long durable writes of blocks take to space that is set aside and that nobody has written to, and to the same space again; `None`
    /// where that cannot be told, or no space can be set aside.
    #[must_use]
    pub fn first_and_next_write_take(&self) -> Option<(Duration, Duration)> {
        first_and_next_write_take(&self.path.join("data"), &self.data.direct)
    }

    /// How long the disk takes to read a small block; `None` where that cannot be told, or blocks are always read through the page cache.
    #[must_use]
    pub fn read_takes(&self) -> Option<Duration> {
        self.data.pass_cache.then(|| read_takes(&self.path.join("data"), &self.data.direct)).flatten()
    }

    /// Path of the index file.
    #[must_use]
    pub fn index_path(&self) -> PathBuf {
        self.path.join("index")
    }

    /// Whose the data file is, as far as it says so.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        Stamp::of(self.data.direct.as_fd())
    }

    /// Says whose the data file is, where the file system has room for it.
    pub fn put_stamp(&self, stamp: Stamp) {
        if let Err(error) = stamp.put_on(self.data.direct.as_fd()) {
            tracing::debug!(%error, "the data file could not be given its stamp");
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file system that the journal lies on.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn file_system_bytes(&self) -> io::Result<u64> {
        let status = rustix::fs::fstatvfs(&self.journal.direct)?;
        Ok(status.f_blocks.saturating_mul(status.f_frsize))
    }

    /// Bytes that are free where the journal lies; `None` where the file system has no size of its own.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn journal_bytes_free(&self) -> io::Result<Option<u64>> {
        let status = rustix::fs::fstatvfs(&self.journal.direct)?;
        Ok((status.f_blocks > 0).then(|| status.f_bavail.saturating_mul(status.f_frsize)))
    }

    /// Leaves nothing in the journal, and has the disk keep space for `bytes` of it, or for none.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn empty_journal(&self, bytes: u64) -> io::Result<()> {
        let empty = || Ok(rustix::fs::ftruncate(&self.journal.direct, 0)?);
        empty()?;
        // Asked for more than there is, a file system may take all that there is before it says so.
        if self.journal_bytes_free()?.is_some_and(|free| free < bytes) {
            return Err(Errno::NOSPC.into());
        }
        set_aside(&self.journal.direct, bytes).or_else(|error| empty().and(Err(error)))
    }

    /// Has the disk keep space for all of the journal, and for it alone: what copied it may have left out its zeros, or made it share its space.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn keep_journal(&self) -> io::Result<()> {
        let bytes = u64::try_from(rustix::fs::fstat(&self.journal.direct)?.st_size).unwrap_or(0);
        set_aside(&self.journal.direct, bytes)?;
        unshare(&self.journal.direct, bytes)
    }

    /// Makes the directory's entries durable.
    ///
    /// # Errors
    ///
    /// [`OpenDirectoryError`]
    pub fn sync(&self) -> Result<(), OpenDirectoryError> {
        sync_directory(&self.path)
    }
}

/// Makes a directory, and those above it that are missing, durably.
fn make_directory(path: &Path) -> Result<(), OpenDirectoryError> {
    if path.exists() && !path.is_dir() {
        return Err(OpenDirectoryError::io(path)(Errno::NOTDIR.into()));
    }
    let changed = directories_to_change(path);
    std::fs::create_dir_all(path).map_err(OpenDirectoryError::io(path))?;
    changed.into_iter().try_for_each(sync_directory)
}

/// The directories that are to have a new one in them when the one at `path` is made with all above it.
fn directories_to_change(path: &Path) -> Vec<&Path> {
    let missing = path.ancestors().take_while(|directory| !directory.as_os_str().is_empty() && !directory.exists());
    missing.map(directory_of).collect()
}

/// The directory that the name of a file lies in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names of the files of a directory durable. One that is empty was made just now, perhaps where a link leads.
fn sync_names(path: &Path) -> Result<(), OpenDirectoryError> {
    sync_directory(path)?;
    for file in ["data", "journal"].map(|name| path.join(name)) {
        if file.is_symlink() && length_of(&file)? == Some(0) {
            sync_directory(directory_of(&file.canonicalize().map_err(OpenDirectoryError::io(&file))?))?;
        }
    }
    Ok(())
}

/// Bytes of a file; `None` where there is none.
fn length_of(path: &Path) -> Result<Option<u64>, OpenDirectoryError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenDirectoryError::io(path)(error)),
    }
}

/// Refuses a directory without a store, or with a part of one.
fn refuse_missing(path: &Path) -> Result<(), OpenDirectoryError> {
    let length = |name| length_of(&path.join(name));
    match (length("data")?, length("journal")?, length("index")?) {
        // Where one was being made there is none yet. The index may be a link to a file that was made for it.
        (None | Some(0), _, None | Some(0)) => Err(OpenDirectoryError::Missing(path.to_owned())),
        (None, ..) => Err(OpenDirectoryError::Lost(path.join("data"))),
        (_, None, _) => Err(OpenDirectoryError::Lost(path.join("journal"))),
        (_, _, None) => Err(OpenDirectoryError::Lost(path.join("index"))),
        (Some(_), Some(_), Some(_)) => Ok(()),
    }
}

/// Refuses a directory whose files are somebody else's, before anything is created or changed: a store is made only where none
/// of its files says anything yet.
fn refuse_foreign(path: &Path) -> Result<(), OpenDirectoryError> {
    let length = |name| length_of(&path.join(name)).map(Option::unwrap_or_default);
    let (data, index) = (length("data")?, length("index")?);
    if index == 0 && data > 0 {
        return Err(OpenDirectoryError::IndexLost { path: path.to_owned(), data_bytes: data });
    }
    if index > 0 && is_too_short(index) {
        return Err(OpenDirectoryError::Foreign(path.join("index")));
    }
    let journal = path.join("journal");
    // They were there, durably, before the index was.
    for file in [path.join("data"), journal.clone()] {
        if index > 0 && !file.exists() {
            return Err(OpenDirectoryError::Lost(file));
        }
    }
    if index == 0 && !is_blank(&journal).map_err(OpenDirectoryError::io(&journal))? {
        return Err(OpenDirectoryError::Foreign(journal));
    }
    Ok(())
}

/// True where a file is missing or holds nothing but zeros, as a journal does that was being made.
fn is_blank(path: &Path) -> io::Result<bool> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let mut piece = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(true);
        }
        if piece.iter().take(read).any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
}

fn sync_directory(path: &Path) -> Result<(), OpenDirectoryError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(OpenDirectoryError::io(path))
}

/// Opens a file past the cache, or, where the file system cannot, through it. True: past it.
pub(super) fn open_direct(path: &Path, access: Access) -> io::Result<(OwnedFd, bool)> {
    let flags = OFlags::CLOEXEC
        | match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR | OFlags::CREATE,
        };
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
    match rustix::fs::open(path, flags | OFlags::DIRECT, mode) {
        Ok(file) => Ok((file, true)),
        Err(Errno::INVAL) => Ok((rustix::fs::open(path, flags, mode)?, false)),
        Err(error) => Err(error.into()),
    }
}

/// Opens a file for reading through the cache, without readahead: neighbours in the file are strangers.
pub(super) fn open_cached(path: &Path) -> io::Result<OwnedFd> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::fadvise(&file, 0, None, Advice::Random)?;
    Ok(file)
}

/// Who looks keeps out who writes, and nobody else who looks. NFS locks exclusively only what is open to be written.
fn lock(file: &OwnedFd, path: &Path, access: Access, timeout: Duration) -> Result<(), OpenDirectoryError> {
    let operation = match access {
        Access::Read => FlockOperation::NonBlockingLockShared,
        Access::Write => FlockOperation::NonBlockingLockExclusive,
    };
    let began = Instant::now();
    loop {
        match rustix::fs::flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if began.elapsed() < timeout => std::thread::sleep(LOCK_RETRY),
            Err(Errno::WOULDBLOCK) => {
                return Err(LockError { path: path.to_owned(), waited_s: began.elapsed().as_secs_f64() }.into());
            }
            Err(error) => return Err(OpenDirectoryError::io(path)(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::directory_error::PUT_BACK;
    use super::*;

    #[test]
    fn the_lock_lies_on_the_files_that_are_written_and_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(directory.path(), Access::Write, Duration::ZERO).unwrap();
        let refused = DataDirectory::open(directory.path(), Access::Write, Duration::from_millis(30)).err().unwrap();
        assert!(matches!(refused, OpenDirectoryError::Locked(_)));
        assert!(refused.to_string().contains("in use by another process"), "{refused}");
        assert!(refused.to_string().contains("stop that one first"), "{refused}");
        // What a ring still writes through keeps the lock, whatever else is closed.
        let written_through = first.data.direct.clone();
        drop(first);
        assert!(DataDirectory::open(directory.path(), Access::Write, Duration::ZERO).is_err());
        let waiting = std::thread::spawn({
            let path = directory.path().to_owned();
            move || DataDirectory::open(&path, Access::Write, Duration::from_secs(10)).is_ok()
        });
        std::thread::sleep(Duration::from_millis(30));
        drop(written_through);
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn many_may_look_while_nobody_serves() {
        let directory = tempfile::tempdir().unwrap();
        drop(DataDirectory::open(directory.path(), Access::Write, Duration::ZERO).unwrap());
        std::fs::write(directory.path().join("index"), b"index").unwrap();
        let open = |access| DataDirectory::open(directory.path(), access, Duration::ZERO);
        let looking = [open(Access::Read).unwrap(), open(Access::Read).unwrap()];
        std::fs::remove_file(directory.path().join("index")).unwrap();
        assert!(matches!(open(Access::Write), Err(OpenDirectoryError::Locked(_))));
        drop(looking);
        let serving = open(Access::Write).unwrap();
        std::fs::write(directory.path().join("index"), b"index").unwrap();
        assert!(matches!(open(Access::Read), Err(OpenDirectoryError::Locked(_))));
        drop(serving);
        open(Access::Read).unwrap();
    }

    #[test]
    fn a_missing_store_is_not_created_by_looking() {
        let directory = tempfile::tempdir().unwrap();
        let error = DataDirectory::open(&directory.path().join("none"), Access::Read, Duration::ZERO).err().unwrap();
        assert!(error.to_string().contains("there is no store at"), "{error}");
        assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none());
    }

    #[test]
    fn files_of_others_are_left_alone() {
        for (name, content) in [("journal", &b"notes"[..]), ("index", b"a to z")] {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join(name), content).unwrap();
            let error = DataDirectory::open(directory.path(), Access::Write, Duration::ZERO).err().unwrap();
            assert!(error.to_string().contains("is not a file of a store"), "{error}");
            assert!(error.to_string().contains(PUT_BACK), "{error}");
            assert_eq!(std::fs::read(directory.path().join(name)).unwrap(), content);
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing was created");
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("data"), b"blocks").unwrap();
        let error = DataDirectory::open(directory.path(), Access::Write, Duration::ZERO).err().unwrap();
        assert!(matches!(error, OpenDirectoryError::IndexLost { data_bytes: 6, .. }));
    }

    /// A file system is tried out where the blocks lie, which need not be where the directory lies.
    #[test]
    fn data_behind_a_link_is_sent_as_its_own_file_system_allows() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let opened = DataDirectory::open(here.path(), Access::Write, Duration::ZERO).unwrap();
        if !opened.data.sends_cached() {
            return eprintln!("skipped: no page is sent without a copy from {} either", here.path().display());
        }
        drop(opened);
        let data = here.path().join("data");
        std::fs::remove_file(&data).unwrap();
        std::os::unix::fs::symlink(there.path().join("blocks"), &data).unwrap();
        // What an earlier attempt has left goes, and nothing else is touched.
        std::fs::write(there.path().join("blocks.probe.tmp"), b"left").unwrap();
        std::fs::write(there.path().join("probe.tmp"), b"somebody's").unwrap();
        let opened = DataDirectory::open(here.path(), Access::Write, Duration::ZERO).unwrap();
        assert!(!opened.data.sends_cached(), "tmpfs overwrites pages that are being sent");
        assert!(opened.durable_write_takes_longer_by().is_some() && opened.first_and_next_write_take().is_some());
        assert_eq!(opened.read_takes(), None, "it is read through its cache");
        assert_eq!(names(there.path()), ["blocks", "probe.tmp"]);
        assert_eq!(names(here.path()), ["data", "journal"]);
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn every_directory_that_gets_another_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let (store, above) = (here.join("a/b/store"), here.join("a"));
        assert_eq!(directories_to_change(&store), [&*here.join("a/b"), &above, here]);
        make_directory(&store).unwrap();
        assert!(directories_to_change(&store).is_empty());
        assert_eq!(directories_to_change(Path::new("not here/store")), [Path::new("not here"), Path::new(".")]);
    }

    #[test]
    fn what_cannot_be_created_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let error = DataDirectory::open(&file.join("store"), Access::Write, Duration::ZERO).err().unwrap();
        assert!(error.to_string().contains("file/store"), "{error}");
    }
}
