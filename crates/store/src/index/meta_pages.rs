//! What the index file says of itself before libmdbx opens it: whether its meta pages are whole, and whether it is as long as they say.
//!
//! libmdbx mends what it finds, or stumbles over it; what is refused has to stay as it is. So this looks first.

use super::IndexError;
use crate::files::PUT_BACK;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a page of the index.
pub(super) const INDEX_PAGE_BYTES: u64 = 4096;

/// The file begins with so many meta pages.
const META_PAGES: u32 = 3;
/// A meta page begins with its flags at 10, its number at 16, a magic number with the version of libmdbx's format at 20, the number of
/// its transaction at 28, and at 56 that of the first page that was never used.
const META_HEAD_BYTES: usize = 60;
const META_PAGE_FLAG: u16 = 8;
const META_PAGE_MAGIC: u64 = 0x5965_9dbd_ef4c_1103;

/// Read at once of a file that is read as a whole.
const READ_BYTES: usize = 1 << 20;

/// True of a file that is shorter than its meta pages, and so than every index that libmdbx makes. It takes such a file for one that it
/// may make anew.
pub(crate) fn is_too_short(file_bytes: u64) -> bool {
    file_bytes < u64::from(META_PAGES) * INDEX_PAGE_BYTES
}

/// libmdbx begins with three meta pages, of which the newest whole one counts. Where one is damaged it writes it anew; opened
/// read-only it cannot, and follows a null pointer instead: such a file is refused before.
pub(super) fn refuse_damaged_meta_pages(path: &Path) -> Result<(), IndexError> {
    let file = File::open(path).map_err(|error| IndexError::System { action: "opened", reason: error.to_string() })?;
    if file.metadata().is_ok_and(|file| file.len() == 0) {
        return Err(IndexError::Damaged(format!("it is empty: it was lost or replaced; {PUT_BACK}")));
    }
    for number in 0..META_PAGES {
        if MetaPage::read(&file, number).is_none() {
            return Err(IndexError::Damaged(format!("meta page {number} is not whole (serving the store mends one)")));
        }
    }
    Ok(())
}

/// What a meta page says.
struct MetaPage {
    transaction: u64,
    used_bytes: u64,
}

impl MetaPage {
    /// `None` where it is not whole.
    fn read(file: &File, number: u32) -> Option<MetaPage> {
        let mut page = [0; META_HEAD_BYTES];
        file.read_exact_at(&mut page, u64::from(number) * INDEX_PAGE_BYTES).ok()?;
        let whole = page.get(10..12) == Some(&META_PAGE_FLAG.to_le_bytes())
            && page.get(16..20) == Some(&number.to_le_bytes())
            && page.get(20..28) == Some(&META_PAGE_MAGIC.to_le_bytes());
        let transaction = u64::from_le_bytes(page.get(28..36)?.try_into().ok()?);
        let used_pages = u32::from_le_bytes(page.get(56..60)?.try_into().ok()?);
        whole.then_some(MetaPage { transaction, used_bytes: u64::from(used_pages) * INDEX_PAGE_BYTES })
    }
}

/// A file that is shorter than what its newest meta page uses was truncated: a commit makes those pages durable first. libmdbx begins
/// with an older meta page then, makes the file as long as it was, and finds zeros; but what is refused has to stay as it is.
pub(super) fn refuse_truncated(path: &Path) -> Result<(), IndexError> {
    // What cannot be read is for libmdbx to refuse, or to make.
    let Ok(file) = File::open(path) else { return Ok(()) };
    let newest = (0..META_PAGES).filter_map(|number| MetaPage::read(&file, number)).max_by_key(|page| page.transaction);
    let used_bytes = newest.map_or(0, |page| page.used_bytes);
    match file.metadata() {
        Ok(file) if file.len() < used_bytes => {
            let bytes = file.len();
            Err(IndexError::Damaged(format!("it was truncated to {bytes} bytes, and what it holds takes {used_bytes}")))
        }
        _ => Ok(()),
    }
}

/// A page that the disk cannot read would end the process when it is looked at, because the file is mapped. Who looks at all of it
/// reads all of it before, which can be told.
pub(super) fn refuse_unreadable_places(path: &Path) -> Result<(), IndexError> {
    let failed = |error: std::io::Error| IndexError::System { action: "opened", reason: error.to_string() };
    let file = File::open(path).map_err(failed)?;
    let mut piece = vec![0; READ_BYTES];
    let mut offset = 0;
    loop {
        match file.read_at(&mut piece, offset) {
            Ok(0) => return Ok(()),
            Ok(bytes) => offset += bytes as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(IndexError::Damaged(format!("at {offset} it cannot be read: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let index = directory.path().join("index");
        std::fs::write(&index, vec![1; 3 * READ_BYTES / 2]).unwrap();
        refuse_unreadable_places(&index).unwrap();
        // A directory can be opened, and not read.
        let error = refuse_unreadable_places(directory.path()).unwrap_err();
        assert!(
            matches!(&error, IndexError::Damaged(reason) if reason.contains("at 0 it cannot be read: ")),
            "{error}"
        );
    }
}
