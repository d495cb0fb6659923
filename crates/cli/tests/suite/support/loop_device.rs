//! Real file systems in files of their own, on loop devices: made, mounted, filled, cut off from their disk, and taken away again.

use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl, opcode};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A kind of file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
        }
    }

    /// The command that makes one, with its journal (log), which both have by default.
    fn make(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Kind::Ext4 => ("mkfs.ext4", &["-q", "-F", "-O", "has_journal"]),
            Kind::Xfs => ("mkfs.xfs", &["-q", "-f"]),
        }
    }
}

/// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`: from here on nothing reaches the disk.
const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// `EXT4_GOING_FLAGS_NOLOGFLUSH` and `XFS_FSOP_GOING_FLAGS_NOLOGFLUSH`: not even what the file system's journal holds in memory.
const NO_LOG_FLUSH: u32 = 2;
const MOUNT_ATTEMPTS: usize = 4;
/// After `kill -9` the kernel lets go of files only when what was in flight is over.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(30);

/// A file system in a file, on a loop device. Unmounted and detached when dropped, also by a panic.
pub struct Mount {
    kind: Kind,
    image: PathBuf,
    path: PathBuf,
    mounted: bool,
}

/// Makes what a test needs that mounts file systems. Where that cannot be had here, says why: the test is to pass then.
pub fn or_skip<T>(make: impl FnOnce() -> Result<T, String>) -> Option<T> {
    mounting_is_possible().and_then(|()| make()).inspect_err(|reason| eprintln!("skipped: {reason}")).ok()
}

/// Where nothing can be mounted, why.
fn mounting_is_possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root can mount file systems".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err("there are no loop devices".to_owned());
    }
    Ok(())
}

impl Mount {
    /// Makes a file system in the file `image`.
    pub fn make(kind: Kind, image: &Path) -> Result<(), String> {
        let (make, options) = kind.make();
        run(Command::new(make).args(options).arg(image))
    }

    /// Mounts the file system in the file `image` on the directory `path`, which is made for it.
    pub fn new(kind: Kind, image: &Path, path: &Path) -> Result<Mount, String> {
        std::fs::create_dir(path).unwrap();
        let mut mount = Mount { kind, image: image.to_owned(), path: path.to_owned(), mounted: false };
        mount.mount()?;
        Ok(mount)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn mount(&mut self) -> Result<(), String> {
        // The loop device that this takes is detached by unmounting. Another test may want the same one at the same time.
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop", "-t", self.kind.name()]).arg(&self.image).arg(&self.path);
        let mut mounted = run(&mut mount);
        for _ in 1..MOUNT_ATTEMPTS {
            if mounted.is_err() {
                std::thread::sleep(Duration::from_millis(100));
                mounted = run(&mut mount);
            }
        }
        self.mounted = mounted.is_ok();
        mounted
    }

    /// Unmounts it and mounts it again: the file system recovers from its own journal.
    pub fn again(&mut self) -> Result<(), String> {
        self.unmount()?;
        self.mount()
    }

    fn unmount(&mut self) -> Result<(), String> {
        unmount(&self.path)?;
        self.mounted = false;
        Ok(())
    }
}

/// Unmounts what is mounted on `path`, as soon as nobody uses it any more.
fn unmount(path: &Path) -> Result<(), String> {
    let began = Instant::now();
    while let Err(error) = run(Command::new("umount").arg(path)) {
        if began.elapsed() > UNMOUNT_TIMEOUT {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// As [`unmount`]; where somebody uses it on and on, it goes when they do.
pub fn unmount_at_last(path: &Path) {
    if unmount(path).is_err() {
        let _ = run(Command::new("umount").arg("-l").arg(path));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted {
            unmount_at_last(&self.path);
        }
    }
}

/// A mounted file system in a sparse file, which is removed when this is dropped.
pub struct FileSystem {
    mount: Mount,
    /// Holds the image and the place where it is mounted.
    _directory: tempfile::TempDir,
}

impl FileSystem {
    /// Makes and mounts a file system of so many bytes; where that is not possible here, why.
    pub fn create(kind: Kind, bytes: u64) -> Result<FileSystem, String> {
        let directory = super::directory();
        let (image, path) = (directory.path().join("image"), directory.path().join("mounted"));
        File::create(&image).and_then(|image| image.set_len(bytes)).unwrap();
        Mount::make(kind, &image)?;
        Ok(FileSystem { mount: Mount::new(kind, &image, &path)?, _directory: directory })
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.mount.path().to_owned()
    }

    /// Cuts the file system off from its disk, as a power cut does: what was not written yet never will be.
    pub fn cut_power(&self) {
        let root = File::open(self.path()).unwrap();
        // SAFETY: a number that both file systems know; they read a `u32` for it.
        let shutdown: Setter<SHUTDOWN, u32> = unsafe { Setter::new(NO_LOG_FLUSH) };
        // SAFETY: the file is open, and what is passed is what the number asks for.
        let done: Result<(), Errno> = unsafe { ioctl(&root, shutdown) };
        done.unwrap();
    }

    /// Puts a file on it that takes all space that is left.
    pub fn fill_with(&self, name: &str) {
        let mut file = match File::create(self.path().join(name)) {
            Ok(file) => file,
            // There is not even space for the name.
            Err(error) if error.kind() == ErrorKind::StorageFull => return,
            Err(error) => panic!("{name}: {error}"),
        };
        let mut piece = vec![0xf0; 1 << 20];
        while !piece.is_empty() {
            match file.write_all(&piece).and_then(|()| file.sync_data()) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => piece.truncate(piece.len() / 2),
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }

    /// Power is back: the file system recovers from its own journal.
    pub fn mount_again(&mut self) {
        self.mount.again().unwrap();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", text.lines().next().unwrap_or("it failed")))
}
