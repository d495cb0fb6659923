//! Why a data directory cannot be used, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// What to do where files are lost, or do not belong together.
pub(crate) const PUT_BACK: &str = "put back data, journal and index, all three from one copy (docs/operating.md)";

/// Another process has the lock.
#[derive(Debug, thiserror::Error)]
#[error("{path} is in use by another process (waited {waited_s:.1} s for its lock): stop that one first", path = path.display())]
pub struct LockError {
    pub(super) path: PathBuf,
    pub(super) waited_s: f64,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenDirectoryError {
    /// Another process uses it.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// It does not exist, and was not to be created.
    #[error("there is no store at {}", .0.display())]
    Missing(PathBuf),
    /// A file is there that no store has written.
    #[error(
        "{} is not a file of a store: nothing was changed; choose another directory, or, where there was a store, {PUT_BACK}",
        .0.display()
    )]
    Foreign(PathBuf),
    /// A file is missing that every store has.
    #[error("{} is missing: it was lost or moved; nothing was changed; {PUT_BACK}", .0.display())]
    Lost(PathBuf),
    /// There are blocks, but nothing that says which.
    #[error(
        "{}: the data file holds {data_bytes} bytes, but the index is empty: it was lost or replaced; nothing was changed; {PUT_BACK}",
        path.display()
    )]
    IndexLost {
        /// The directory.
        path: PathBuf,
        /// Bytes of the data file.
        data_bytes: u64,
    },
    /// A file or directory cannot be created, opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenDirectoryError {
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> OpenDirectoryError {
        let path = path.to_owned();
        move |source| OpenDirectoryError::Io { path: path.clone(), source }
    }
}
