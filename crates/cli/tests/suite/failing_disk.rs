//! A disk that fails under the index: what was acknowledged stays, what is still there is served, and the reason is said.
//!
//! One needs root, loop devices, `/dev/fuse` and `mkfs.ext4`; where one is missing it says so and passes.

use crate::support::logged_disks::{Disks, Failing};
use crate::support::loop_device::{Kind, Mount, or_skip};
use crate::support::write_log::Image;
use crate::support::{Server, bytes, check, directory, name};
use std::fs::File;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const OPTIONS: [&str; 6] = ["--journal-size", "4MiB", "--workers", "1", "--checkpoint-names", "64"];
const DISK_BYTES: u64 = 256 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
const SIGBUS: i32 = 7;

/// A store whose index lies on a disk of its own, and the blocks that the index knows.
struct Store {
    path: PathBuf,
    indexed: Vec<Vec<u8>>,
    // Dropped in this order: the directory is where the others are.
    mount: Mount,
    disks: Disks,
    _directory: TempDir,
}

impl Store {
    fn make() -> Option<Store> {
        let directory = directory();
        let (path, disk, mounted) =
            (directory.path().join("store"), directory.path().join("disks"), directory.path().join("mounted"));
        let indexed: Vec<_> = (0..200).map(|seed| bytes(seed, 4096)).collect();
        let server = Server::start(&path, &OPTIONS);
        let mut client = server.connect();
        indexed.iter().for_each(|body| client.put_block(body));
        server.stop();
        std::fs::create_dir(&disk).unwrap();
        let (disks, mount) = or_skip(|| {
            let disks = Disks::serve(vec![Image::default()], DISK_BYTES, &disk)?;
            Mount::make(Kind::Ext4, &disks.file(0))?;
            let mount = Mount::new(Kind::Ext4, &disks.file(0), &mounted)?;
            Ok((disks, mount))
        })?;
        std::fs::copy(path.join("index"), mounted.join("index")).unwrap();
        std::fs::remove_file(path.join("index")).unwrap();
        symlink(Path::new("../mounted/index"), path.join("index")).unwrap();
        Some(Store { path, indexed, mount, disks, _directory: directory })
    }
}

#[test]
fn an_index_that_cannot_be_written_makes_the_store_read_only_and_loses_nothing() {
    an_index_on_a_disk_that_fails(Failing::Broken, "Input/output error");
}

/// A flush that fails for want of space is one that failed.
#[test]
fn an_index_that_cannot_be_flushed_for_want_of_space_makes_the_store_read_only_and_says_why() {
    an_index_on_a_disk_that_fails(Failing::Full, "No space left on device");
}

fn an_index_on_a_disk_that_fails(failing: Failing, reason: &str) {
    let Some(mut store) = Store::make() else { return };
    let server = Server::start(&store.path, &OPTIONS);
    let mut client = server.connect();
    store.disks.fail(Some(failing));
    let began = Instant::now();
    let mut acknowledged = Vec::new();
    let refused = loop {
        let body = bytes(1000 + acknowledged.len() as u64, 4096);
        let reply = client.request("PUT", &format!("/{}", name(&body)), &[], &body);
        if reply.status != 201 {
            break reply;
        }
        acknowledged.push(body);
        assert!(began.elapsed() < PATIENCE, "{} blocks and no checkpoint", acknowledged.len());
    };
    assert!(acknowledged.len() >= 64, "the index is not on the way of a PUT");
    assert_eq!(refused.status, 503, "{}", refused.text());
    let ready = client.request("GET", "/-/ready", &[], b"");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("index") && ready.text().contains(reason), "{}", ready.text());
    assert_eq!(client.request("DELETE", &format!("/{}", name(&acknowledged[0])), &[], b"").status, 503);
    for body in acknowledged.iter().chain(&store.indexed) {
        let reply = client.request("GET", &format!("/{}", name(body)), &[], b"");
        assert!(reply.body == *body, "{}: {}; {}", reply.status, reply.text(), server.log());
    }
    // In order, although libmdbx takes no orders any more.
    server.stop();

    store.disks.fail(None);
    store.mount.again().unwrap();
    let server = Server::start(&store.path, &OPTIONS);
    let mut client = server.connect();
    acknowledged.iter().chain(&store.indexed).for_each(|body| client.get_block(body));
    client.put_block(b"it can be written again");
    server.stop();
    check(&store.path);
}

#[test]
fn an_index_that_cannot_be_read_ends_the_server_with_the_reason() {
    let directory = directory();
    let blocks: Vec<_> = (0..200).map(|seed| bytes(seed, 4096)).collect();
    let server = Server::start(directory.path(), &OPTIONS);
    let mut client = server.connect();
    blocks.iter().for_each(|body| client.put_block(body));
    server.stop();
    // From here on nobody writes to the index.
    let mut server = Server::start(directory.path(), &OPTIONS);
    let mut client = server.connect();
    // What a mapping finds beyond the end of its file is what it finds where the disk cannot be read.
    File::options().write(true).open(directory.path().join("index")).unwrap().set_len(8192).unwrap();
    for body in &blocks {
        match client.try_request("GET", &format!("/{}", name(body)), &[], b"") {
            Some(reply) => assert_eq!(reply.status, 200),
            None => break,
        }
    }
    let status = server.wait();
    assert_eq!(status.signal(), Some(SIGBUS), "{status}: {}", server.log());
    assert!(server.log().contains("buddy-blocks: a file that is mapped cannot be read"), "{}", server.log());
}
