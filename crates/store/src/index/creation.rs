//! How the index file comes into being: as a whole or not at all.
//!
//! libmdbx writes the pages of a new file one after the other. What a power cut leaves of them could not be told from an index that
//! is damaged, and would have to be refused. So a new index is made under another name, and gets its own when it is durable.

use super::{IndexError, locks};
use crate::files::directory_of;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What its name has at the end while it is being made.
const NEW: &str = ".new";

/// Where there is no file at `path`, or an empty one, makes an index there, with the help of `make`, which makes one that was not
/// there. What is left of an attempt that was cut off is removed.
pub(super) fn make_if_new(path: &Path, make: impl FnOnce(&Path) -> Result<(), IndexError>) -> Result<(), IndexError> {
    let path = match std::fs::metadata(path) {
        Ok(file) if file.len() > 0 => return Ok(()),
        // It may be a link to where the index is to lie.
        Ok(_) => path.canonicalize().map_err(failed)?,
        Err(error) if error.kind() == ErrorKind::NotFound => end_of_links(path)?,
        Err(error) => return Err(failed(error)),
    };
    let new = with_suffix(&path, NEW);
    remove(&new)?;
    make(&new)?;
    File::open(&new).and_then(|file| file.sync_all()).map_err(failed)?;
    std::fs::rename(&new, &path).map_err(failed)?;
    remove(&locks::path(&new))?;
    File::open(directory_of(&path)).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Where links lead that end where nothing is. What has its name there in the end must not replace a link instead.
fn end_of_links(path: &Path) -> Result<PathBuf, IndexError> {
    let Ok(link) = std::fs::read_link(path) else { return Ok(path.to_owned()) };
    let target = directory_of(path).join(link);
    match std::fs::metadata(directory_of(&target)) {
        Ok(_) => end_of_links(&target),
        Err(error) => Err(failed(io::Error::new(
            error.kind(),
            format!("{} is a link to {}: {error}", path.display(), target.display()),
        ))),
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove(path: &Path) -> Result<(), IndexError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

fn failed(error: io::Error) -> IndexError {
    IndexError::System { action: "created", reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(text: &'static str) -> impl FnOnce(&Path) -> Result<(), IndexError> {
        move |path| {
            assert!(!path.exists(), "what an earlier attempt left is gone");
            std::fs::write(path, text).map_err(failed)
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_index_has_its_name_only_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let cut_off = make_if_new(&path, |new| {
            std::fs::write(new, "ind").unwrap();
            Err(IndexError::Damaged("power cut".to_owned()))
        });
        assert!(cut_off.is_err());
        assert_eq!(names(directory.path()), ["index.new"]);
        make_if_new(&path, write("index")).unwrap();
        assert_eq!(names(directory.path()), ["index"]);
        make_if_new(&path, |_| panic!("it is there")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"index");
    }

    #[test]
    fn an_index_comes_to_lie_where_a_link_leads() {
        let directory = tempfile::tempdir().unwrap();
        let (here, there) = (directory.path().join("index"), directory.path().join("there"));
        std::fs::write(&there, b"").unwrap();
        symlink("there", &here).unwrap();
        make_if_new(&here, write("index")).unwrap();
        assert_eq!(names(directory.path()), ["index", "there"]);
        assert!(here.is_symlink() && std::fs::read(&there).unwrap() == b"index");
    }

    #[test]
    fn an_index_comes_to_lie_where_a_link_to_nothing_leads() {
        let directory = tempfile::tempdir().unwrap();
        let (here, there) = (directory.path().join("here"), directory.path().join("there"));
        std::fs::create_dir(&here).unwrap();
        symlink("../there/link", here.join("index")).unwrap();
        let error = make_if_new(&here.join("index"), |_| panic!("nowhere")).unwrap_err();
        assert!(error.to_string().contains("there/link") && error.to_string().contains("No such file"), "{error}");
        // As where a disk is not mounted yet.
        assert!(here.join("index").is_symlink() && !there.exists());
        std::fs::create_dir(&there).unwrap();
        symlink(there.join("blocks"), there.join("link")).unwrap();
        make_if_new(&here.join("index"), write("index")).unwrap();
        assert!(here.join("index").is_symlink() && there.join("link").is_symlink());
        assert_eq!((names(&here), names(&there)), (vec!["index".into()], vec!["blocks".into(), "link".into()]));
        assert_eq!(std::fs::read(there.join("blocks")).unwrap(), b"index");
    }
}
