//! Names to be read and deleted: from a file, or of what was stored before.
//!
//! In a mixed load a name that is being read is not deleted: a reply of 404 is always a failure.

use crate::name::Name;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// How often another name is tried where one is being read.
const DELETE_ATTEMPTS: usize = 8;

/// Why a file of names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// The system's.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else than a name.
    #[error("{path}, line {line}: a name is 64 hex digits")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Nothing to read or to delete.
    #[error("{0}: no names")]
    Empty(PathBuf),
}

/// Reads names, one a line; those that are there twice count once.
///
/// # Errors
///
/// [`NamesError`]
pub fn read_names(path: &Path) -> Result<Vec<Name>, NamesError> {
    let failed = |source| NamesError::File { path: path.to_owned(), source };
    let mut lines = BufReader::new(File::open(path).map_err(failed)?);
    let (mut names, mut seen, mut line) = (Vec::new(), HashSet::new(), Vec::new());
    for number in 1.. {
        line.clear();
        if lines.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        let name = Name::from_hex(line.trim_ascii_end());
        let name = name.ok_or_else(|| NamesError::Line { path: path.to_owned(), line: number })?;
        if seen.insert(name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err(NamesError::Empty(path.to_owned()));
    }
    Ok(names)
}

/// A file that is to hold names, one a line, as [`read_names`] reads them. They are written to a new file beside it, which takes its
/// place when it is whole: what cannot be written costs nobody an older file. Dropped without names it leaves nothing behind.
pub struct NamesFile {
    path: PathBuf,
    /// What is written takes this place at the end; `None` where it is no regular file, but a pipe or a device: it is written to.
    partial: Option<PathBuf>,
    file: File,
}

impl NamesFile {
    /// Finds out whether names can be written, rather than when they are there.
    ///
    /// # Errors
    ///
    /// [`NamesError::File`]
    pub fn create(path: &Path) -> Result<NamesFile, NamesError> {
        let is_special = path.metadata().is_ok_and(|metadata| !metadata.is_file());
        // A link stays one, to another file.
        let path = if is_special { path.to_owned() } else { path.canonicalize().unwrap_or_else(|_| path.to_owned()) };
        let partial = (!is_special).then(|| partial_path(&path));
        let written = partial.as_ref().unwrap_or(&path);
        let file = File::options().write(true).create_new(!is_special).open(written);
        let file = file.map_err(|source| NamesError::File { path: written.clone(), source })?;
        Ok(NamesFile { path, partial, file })
    }

    /// Writes names, and puts them in place.
    ///
    /// # Errors
    ///
    /// [`NamesError::File`]
    pub fn write(mut self, names: &[Name]) -> Result<(), NamesError> {
        self.write_all(names).map_err(|source| NamesError::File { path: self.path.clone(), source })
    }

    fn write_all(&mut self, names: &[Name]) -> io::Result<()> {
        let mut file = BufWriter::new(&self.file);
        for name in names {
            file.write_all(&name.to_hex())?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
        drop(file);
        if let Some(partial) = &self.partial {
            std::fs::rename(partial, &self.path)?;
            self.partial = None;
        }
        Ok(())
    }
}

impl Drop for NamesFile {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            // Where that fails it says by its name what it is.
            let _ = std::fs::remove_file(partial);
        }
    }
}

/// A file beside `path` that nobody else writes to: other runs may be saving to the same file.
fn partial_path(path: &Path) -> PathBuf {
    let mut partial = path.to_owned().into_os_string();
    partial.push(format!(".{}-{:08x}.partial", std::process::id(), fastrand::u32(..)));
    PathBuf::from(partial)
}

/// The names that one thread reads and deletes.
#[derive(Default)]
pub(crate) struct NamePool {
    names: Vec<Name>,
    /// Names that are being read, and by how many.
    reading: HashMap<Name, usize>,
}

impl NamePool {
    pub(crate) fn new(names: Vec<Name>) -> NamePool {
        NamePool { names, reading: HashMap::new() }
    }

    pub(crate) fn into_names(self) -> Vec<Name> {
        self.names
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn add(&mut self, name: Name) {
        self.names.push(name);
    }

    /// Any name.
    pub(crate) fn pick(&self, random: &mut fastrand::Rng) -> Option<Name> {
        random.choice(&self.names).copied()
    }

    /// Any name, which is not taken by [`NamePool::take`] before [`NamePool::end_reading`].
    pub(crate) fn begin_reading(&mut self, random: &mut fastrand::Rng) -> Option<Name> {
        let name = self.pick(random)?;
        *self.reading.entry(name).or_default() += 1;
        Some(name)
    }

    pub(crate) fn end_reading(&mut self, name: Name) {
        if let Some(readers) = self.reading.get_mut(&name) {
            *readers -= 1;
            if *readers == 0 {
                self.reading.remove(&name);
            }
        }
    }

    /// Takes any name out that nobody reads; `None` where there is none, or none was found.
    pub(crate) fn take(&mut self, random: &mut fastrand::Rng) -> Option<Name> {
        for _ in 0..DELETE_ATTEMPTS.min(self.names.len()) {
            let index = random.usize(..self.names.len());
            let name = self.names.get(index)?;
            if !self.reading.contains_key(name) {
                return Some(self.names.swap_remove(index));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u8) -> Name {
        Name::hash_of(&[&[number]])
    }

    #[test]
    fn what_is_being_read_is_not_taken() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut pool = NamePool::new(vec![name(1)]);
        assert_eq!(pool.begin_reading(&mut random), Some(name(1)));
        assert_eq!(pool.begin_reading(&mut random), Some(name(1)));
        assert_eq!(pool.take(&mut random), None);
        pool.end_reading(name(1));
        assert_eq!(pool.take(&mut random), None, "it is still being read once");
        pool.add(name(2));
        pool.end_reading(name(1));
        let taken = [pool.take(&mut random).unwrap(), pool.take(&mut random).unwrap()];
        assert!(taken.contains(&name(1)) && taken.contains(&name(2)));
        assert_eq!((pool.take(&mut random), pool.pick(&mut random), pool.len()), (None, None, 0));
    }
}
