//! What an extended attribute of the data file says: which store it belongs to, and which opening used it last. The file itself has no
//! room for that. A copy may come without it, and not every file system has any: then nothing is known.

use crate::format::StoreId;
use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

const NAME: &CStr = c"user.buddy-blocks";

/// Whose a data file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The store.
    pub store_id: StoreId,
    /// The epoch of the index in which blocks were last written to it.
    pub epoch: u64,
}

const BYTES: usize = size_of::<StoreId>() + size_of::<u64>();

impl Stamp {
    /// Reads the stamp of `file`; `None` where there is none.
    #[must_use]
    pub fn of(file: BorrowedFd<'_>) -> Option<Stamp> {
        let mut value = [0; BYTES];
        if fgetxattr(file, NAME, &mut value) != Ok(BYTES) {
            return None;
        }
        let (store_id, epoch) = value.split_last_chunk()?;
        Some(Stamp { store_id: store_id.try_into().ok()?, epoch: u64::from_le_bytes(*epoch) })
    }

    /// Puts the stamp on `file`, where the file system can have one. It need not be durable: an older one says less, and nothing that is
    /// wrong.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn put_on(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let mut value = self.store_id.to_vec();
        value.extend(self.epoch.to_le_bytes());
        match fsetxattr(file, NAME, &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_put_on_a_file_is_found_there() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let file = std::fs::File::create(directory.path().join("data")).unwrap();
        assert_eq!(Stamp::of(file.as_fd()), None);
        for epoch in [1, u64::MAX] {
            let stamp = Stamp { store_id: *b"sixteen bytes id", epoch };
            stamp.put_on(file.as_fd()).unwrap();
            assert!(
                Stamp::of(file.as_fd()).is_none_or(|found| found == stamp),
                "where the file system has none it is lost"
            );
        }
        let _ = fsetxattr(&file, NAME, b"something else", XattrFlags::empty());
        assert_eq!(Stamp::of(file.as_fd()), None);
    }
}
