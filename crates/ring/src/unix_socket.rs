//! Unix sockets that are listened on, and their files.
//!
//! Invariants: a socket that somebody listens on is never taken away; nobody connects before the file has its mode. The file stays when
//! a process is killed, so one that nobody listens on is removed; the directory is locked meanwhile, or two processes that start at once
//! might each take the other's for such a one.

use crate::listener::{Address, ListenError, bind_error};
use rustix::fs::{Access, AtFlags, CWD, FlockOperation, Mode};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the lock of a directory is waited for, and how often it is asked for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// The same by a server that stops, which may still have requests.
const LOCK_TIMEOUT_AT_END: Duration = Duration::from_millis(100);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// The file of a socket. It is removed when listening ends, unless another has taken its place.
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    removed: AtomicBool,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<SocketFile> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(SocketFile {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            removed: AtomicBool::new(false),
        })
    }

    /// Removes it when the first of those who listen stops: the others need not wait for the lock.
    pub(crate) fn remove(&self) {
        if !self.removed.swap(true, Ordering::Relaxed) {
            self.remove_now();
        }
    }

    /// Removes it, if it is still this one. The directory is locked meanwhile: who starts to listen may have found that it is left over,
    /// and be about to put another in its place.
    fn remove_now(&self) {
        // Until the end of this function.
        let Ok(directory) = File::open(directory_of(&self.path)) else { return };
        if lock_patiently(&directory, &self.path, LOCK_TIMEOUT_AT_END).is_err() {
            return;
        }
        let is_this = |metadata: &Metadata| (metadata.dev(), metadata.ino()) == (self.device, self.inode);
        if std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| is_this(&metadata)) {
            // What cannot be removed is found to be left over by the next to start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove_now();
    }
}

/// A socket that is bound to nothing yet.
pub(crate) fn new() -> io::Result<OwnedFd> {
    Socket::new(Domain::UNIX, Type::STREAM, None).map(OwnedFd::from)
}

/// Makes sure that a socket at `path` could be listened on: that nobody listens there, nothing else is there, and one may be made there.
pub(crate) fn check(path: &Path) -> Result<(), ListenError> {
    let failed = |error| bind_error(&Address::Unix(path.to_owned()), error);
    SockAddr::unix(path).map_err(failed)?;
    rustix::fs::accessat(
        CWD,
        directory_of(path),
        Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )
    .map_err(|error| failed(error.into()))?;
    state_of(path).map(drop)
}

/// The directory that a socket is in.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether two paths are those of one file, which need not be there.
pub(crate) fn is_same(path: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let directory = std::fs::metadata(directory_of(path)).ok()?;
        Some((directory.dev(), directory.ino(), path.file_name()?.to_owned()))
    };
    path == other || place(path).is_some_and(|found| place(other) == Some(found))
}

/// Listens at `path`, which only those can use whom the mode allows to write.
pub(crate) fn listen(socket: &OwnedFd, path: &Path, mode: u32, backlog: i32) -> Result<SocketFile, ListenError> {
    let failed = |error| bind_error(&Address::Unix(path.to_owned()), error);
    let directory = File::open(directory_of(path)).map_err(failed)?;
    lock_patiently(&directory, path, LOCK_TIMEOUT)?;
    if state_of(path)? == FileState::LeftOver {
        std::fs::remove_file(path).map_err(failed)?;
    }
    let socket = socket2::SockRef::from(socket);
    socket.bind(&SockAddr::unix(path).map_err(failed)?).map_err(failed)?;
    let file = SocketFile::of(path).map_err(failed)?;
    // Before it listens nobody can connect, whatever mode it was made with.
    let with_mode = rustix::fs::chmod(path, Mode::from_raw_mode(mode)).map_err(io::Error::from);
    let listening = with_mode.and_then(|()| socket.listen(backlog));
    // Where it failed, the file is removed now, which takes the lock again.
    drop(directory);
    listening.map_err(failed)?;
    Ok(file)
}

/// Another server that starts holds the lock for a moment; anybody who may read the directory can hold it for ever.
fn lock_patiently(directory: &File, path: &Path, timeout: Duration) -> Result<(), ListenError> {
    let give_up = Instant::now() + timeout;
    loop {
        match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < give_up => std::thread::sleep(LOCK_RETRY),
            Err(Errno::WOULDBLOCK) => return Err(ListenError::DirectoryLocked(path.to_owned())),
            Err(error) => return Err(bind_error(&Address::Unix(path.to_owned()), error.into())),
        }
    }
}

/// What is where a socket is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FileState {
    Nothing,
    /// A socket that nobody listens on.
    LeftOver,
}

fn state_of(path: &Path) -> Result<FileState, ListenError> {
    let failed = |error| bind_error(&Address::Unix(path.to_owned()), error);
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(FileState::Nothing),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(ListenError::NoSocket(path.to_owned())),
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // Who listens may have as many connections waiting as it takes.
    probe.set_nonblocking(true).map_err(failed)?;
    match probe.connect(&SockAddr::unix(path).map_err(failed)?) {
        Ok(()) => Err(ListenError::InUse(path.to_owned())),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock => Err(ListenError::InUse(path.to_owned())),
            ErrorKind::ConnectionRefused => Ok(FileState::LeftOver),
            ErrorKind::NotFound => Ok(FileState::Nothing),
            _ => Err(failed(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn listen_at(path: &Path, backlog: i32) -> Result<(OwnedFd, SocketFile), ListenError> {
        check(path)?;
        let socket = new().unwrap();
        let file = listen(&socket, path, 0o640, backlog)?;
        Ok((socket, file))
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (listener, file) = listen_at(&path, 5).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert!(UnixStream::connect(&path).is_ok());
        assert!(matches!(listen_at(&path, 5), Err(ListenError::InUse(_))));
        assert!(UnixStream::connect(&path).is_ok(), "who tried in vain has changed nothing");
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_left_over_is_replaced_and_what_is_not_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists() && check(&path).is_ok());
        let (_listener, old) = listen_at(&path, 5).unwrap();
        // Another has taken its place: it is not removed with the first.
        std::fs::remove_file(&path).unwrap();
        let (_other, _new) = listen_at(&path, 5).unwrap();
        drop(old);
        assert!(UnixStream::connect(&path).is_ok());
        let file = directory.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(matches!(listen_at(&file, 5), Err(ListenError::NoSocket(_))));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }

    /// Who starts has found that nobody listens any more, and has not removed the file yet.
    #[test]
    fn what_somebody_may_be_about_to_replace_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (listener, file) = listen_at(&path, 5).unwrap();
        let starter = File::open(directory.path()).unwrap();
        rustix::fs::flock(&starter, FlockOperation::LockExclusive).unwrap();
        drop((listener, file));
        assert!(path.exists());
        drop(starter);
        let (listener, file) = listen_at(&path, 5).unwrap();
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_listened_on_in_the_end_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let unbound = OwnedFd::from(Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap());
        assert!(matches!(listen(&unbound, &path, 0o640, 5), Err(ListenError::Other { .. })));
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_somebody_keeps_locked_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let other = File::open(directory.path()).unwrap();
        rustix::fs::flock(&other, FlockOperation::LockShared).unwrap();
        assert!(matches!(listen_at(&path, 5), Err(ListenError::DirectoryLocked(_))));
        drop(other);
        assert!(listen_at(&path, 5).is_ok());
    }

    #[test]
    fn one_with_a_full_queue_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (_listener, _file) = listen_at(&path, 0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            if client.connect(&SockAddr::unix(&path).unwrap()).is_err() {
                break;
            }
            waiting.push(client);
            assert!(waiting.len() < 100);
        }
        assert!(matches!(check(&path), Err(ListenError::InUse(_))));
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        for path in
            ["a".repeat(200).as_str(), "no/directory", "file/socket", ".."].map(|name| directory.path().join(name))
        {
            let checked = check(&path);
            assert!(matches!(checked, Err(ListenError::Other { .. } | ListenError::NoSocket(_))), "{}", path.display());
        }
    }
}
