//! The real program on real file systems: power cuts as far as they can be had with those, and disks that are full.
//!
//! Needs root, loop devices, `mkfs.ext4` and `mkfs.xfs`; a test that finds one missing says so and passes. Each file system lies in
//! a sparse file of its own, and is taken away again however the test ends.

use crate::support::loop_device::{FileSystem, Kind, or_skip};
use crate::support::oracle::{Found, owners, under_load, verify};
use crate::support::{Client, Server, bytes, check, name, setting};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Large enough for all blocks that the owners of a long run ever have, and for the least that xfs is made for.
const DISK_BYTES: u64 = 1 << 30;
const OWNERS: u64 = 8;

/// Under load the file system is cut off from its disk, the process dies, the file system recovers, and so does the store; again and
/// again on one store. `POWER_CUT_ROUNDS` and `POWER_CUT_SEED` choose how often, and which load.
///
/// What this tests is the store against what a real file system makes of a cut: sizes, allocations and conversions of extents that
/// its journal did not get, data past them. What it does not test is a missing flush: the image behind the loop device is a file in
/// the page cache, so a write that completed is never lost, flushed or not. That is for the simulated disk of
/// `crates/store/src/simulation` to find.
fn power_cuts(kind: Kind) {
    let (rounds, seed) = (setting("POWER_CUT_ROUNDS", 3), setting("POWER_CUT_SEED", 1));
    let Some(mut disk) = or_skip(|| FileSystem::create(kind, DISK_BYTES)) else { return };
    eprintln!("{kind:?}: POWER_CUT_ROUNDS={rounds} POWER_CUT_SEED={seed}");
    let data = disk.path().join("data");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut owners = owners(OWNERS, seed);
    let mut sum = Found::default();
    for round in 0..rounds {
        let data_sync = ["write", "frame"][usize::from(random.bool())];
        let new_space = ["zeros", "unwritten"][usize::from(random.bool())];
        let ways = ["--data-sync", data_sync, "--new-space", new_space];
        let options = [&["--workers", "3", "--checkpoint-names", "200", "--journal-size", "4MiB"], &ways[..]].concat();
        let server = Server::start(&data, &options);
        sum += verify(&mut owners, &mut server.connect());
        let calm = Duration::from_millis(random.u64(20..400));
        // The process may still answer, and is held to what it says then, too.
        let agony = Duration::from_millis(random.u64(0..20));
        under_load(&mut owners, server.address, calm, |failure| {
            failure.shutting_down(|| disk.cut_power());
            std::thread::sleep(agony);
            server.kill();
        });
        disk.mount_again();
        let report = check(&data);
        assert!(report.contains("\"clean\": false"), "round {round}: {report}");
    }
    let server = Server::start(&data, &[]);
    let found = verify(&mut owners, &mut server.connect());
    sum += found;
    assert_eq!(server.stat("blocks"), found.stored);
    server.stop();
    check(&data);
    eprintln!(
        "{kind:?}: {rounds} power cuts; after them {} times an acknowledged block was there, {} times a deleted one was gone, and {} \
         unanswered operations had happened or not; {} blocks in the end",
        sum.kept, sum.absent, sum.either, found.stored
    );
}

#[test]
fn power_cuts_on_ext4_lose_nothing() {
    power_cuts(Kind::Ext4);
}

#[test]
fn power_cuts_on_xfs_lose_nothing() {
    power_cuts(Kind::Xfs);
}

/// Connections that fill the disk, each with blocks of its own.
const WRITERS: u64 = 64;
/// A writer that was refused so often takes the disk for full.
const REFUSALS: usize = 5;
/// Size classes of those blocks: mostly small ones, so that there are many names.
const CLASSES: [u32; 8] = [0, 0, 1, 1, 2, 3, 5, 7];

/// One connection, and the blocks whose storing was acknowledged to it.
struct Writer {
    client: Client,
    random: fastrand::Rng,
    stored: Vec<Vec<u8>>,
}

impl Writer {
    fn new(server: &Server, seed: u64) -> Writer {
        Writer { client: server.connect(), random: fastrand::Rng::with_seed(seed), stored: Vec::new() }
    }

    /// Stores a new block. False where there was no space, which must be said in the right way.
    fn put(&mut self) -> bool {
        let class = CLASSES[self.random.usize(..CLASSES.len())];
        let size = self.random.usize(1..=4096 << class);
        let body = bytes(self.random.u64(..), size);
        let reply = self.client.request("PUT", &format!("/{}", name(&body)), &[], &body);
        match reply.status {
            201 => self.stored.push(body),
            507 => {}
            503 => assert!(!reply.header("retry-after").is_empty(), "{}", reply.text()),
            status => panic!("{status}: {}", reply.text()),
        }
        reply.status == 201
    }

    fn read(&mut self, number: usize) {
        let body = &self.stored[number];
        let reply = self.client.request("GET", &format!("/{}", name(body)), &[], b"");
        assert!(reply.status == 200 && reply.body == *body, "{}: {}", reply.status, name(body));
    }

    /// Stores blocks until there is no space any more, and reads on meanwhile.
    fn fill(&mut self) {
        let mut refusals = 0;
        while refusals < REFUSALS {
            refusals += usize::from(!self.put());
            if !self.stored.is_empty() {
                let number = self.random.usize(..self.stored.len());
                self.read(number);
            }
        }
    }

    fn read_all(&mut self) {
        (0..self.stored.len()).for_each(|number| self.read(number));
    }

    /// Deletes every other block.
    fn delete_half(&mut self) {
        let mut number = 0;
        while number < self.stored.len() {
            let path = format!("/{}", name(&self.stored[number]));
            assert_eq!(self.client.request("DELETE", &path, &[], b"").status, 204, "{path}");
            assert_eq!(self.client.request("GET", &path, &[], b"").status, 404, "{path}");
            self.stored.swap_remove(number);
            number += 1;
        }
    }
}

/// All writers at once.
fn all(writers: &mut [Writer], work: impl Fn(&mut Writer) + Copy + Send) {
    std::thread::scope(|scope| {
        for writer in writers {
            scope.spawn(move || work(writer));
        }
    });
}

/// Space that was made is found again without a restart.
fn wait_for_space(writer: &mut Writer) {
    let began = Instant::now();
    while !writer.put() {
        assert!(began.elapsed() < Duration::from_secs(30), "there is space, but blocks are refused");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn stored(writers: &[Writer]) -> u64 {
    writers.iter().map(|writer| writer.stored.len() as u64).sum()
}

/// A disk becomes full, is relieved by deletes, is filled by a foreign file, and relieved again.
fn a_full_disk_refuses_blocks_and_goes_on_with_everything_else(kind: Kind, disk_bytes: u64) {
    let Some(disk) = or_skip(|| FileSystem::create(kind, disk_bytes)) else { return };
    let data = disk.path().join("data");
    let server = Server::start(&data, &["--workers", "2", "--journal-size", "4MiB", "--checkpoint-names", "64"]);
    let mut writers: Vec<_> = (0..WRITERS).map(|seed| Writer::new(&server, seed)).collect();
    all(&mut writers, Writer::fill);
    all(&mut writers, Writer::read_all);
    eprintln!("{} blocks on a full disk, {} MiB", stored(&writers), server.stat("file_bytes") >> 20);
    server.wait_for_stat("blocks", |count| count == stored(&writers));

    let checkpoints = server.stat("checkpoints");
    all(&mut writers, Writer::delete_half);
    server.wait_for_stat("checkpoints", |count| count >= checkpoints + 3);
    wait_for_space(&mut writers[0]);
    all(&mut writers, Writer::fill);
    all(&mut writers, Writer::delete_half);

    disk.fill_with("foreign");
    // As long as the file has room in itself blocks are accepted; then no more.
    all(&mut writers, Writer::fill);
    all(&mut writers, Writer::delete_half);
    all(&mut writers, Writer::read_all);
    // There may not have been space for its name.
    let _ = std::fs::remove_file(disk.path().join("foreign"));
    wait_for_space(&mut writers[0]);
    all(&mut writers, Writer::fill);
    all(&mut writers, Writer::read_all);
    eprintln!("{} blocks in the end, {} checkpoints", stored(&writers), server.stat("checkpoints"));

    assert_eq!(server.connect().request("GET", "/-/ready", &[], b"").status, 200);
    server.wait_for_stat("blocks", |count| count == stored(&writers));
    server.stop();
    check(&data);
}

/// A disk on which not one byte is free is no reason not to look at a store on it, to open it, and to read from it.
fn a_store_opens_on_a_full_disk(kind: Kind, disk_bytes: u64) {
    let Some(disk) = or_skip(|| FileSystem::create(kind, disk_bytes)) else { return };
    let data = disk.path().join("data");
    let options = ["--workers", "2", "--journal-size", "4MiB"];
    let mut server = Server::start(&data, &options);
    let mut stored = Writer::new(&server, 1);
    while stored.stored.len() < 100 {
        assert!(stored.put());
    }
    for (number, stopped) in ["stopped", "killed"].into_iter().enumerate() {
        if stopped == "killed" {
            server.kill();
        } else {
            server.stop();
        }
        disk.fill_with(stopped);
        check(&data);
        disk.fill_with(&format!("checked-{number}"));
        server = Server::start(&data, &options);
        stored.client = server.connect();
        stored.read_all();
        stored.delete_half();
        stored.read_all();
    }
    server.stop();
    check(&data);
}

#[test]
fn a_store_opens_on_a_full_ext4() {
    a_store_opens_on_a_full_disk(Kind::Ext4, 64 << 20);
}

#[test]
fn a_store_opens_on_a_full_xfs() {
    a_store_opens_on_a_full_disk(Kind::Xfs, 320 << 20);
}

#[test]
fn a_full_ext4_refuses_blocks_and_goes_on_with_everything_else() {
    a_full_disk_refuses_blocks_and_goes_on_with_everything_else(Kind::Ext4, 64 << 20);
}

#[test]
fn a_full_xfs_refuses_blocks_and_goes_on_with_everything_else() {
    a_full_disk_refuses_blocks_and_goes_on_with_everything_else(Kind::Xfs, 320 << 20);
}

/// The journal of a copy may be without space of its own, until the copy is opened: it has holes, or shares what the other has.
fn a_copy_on_a_full_disk_takes_deletes(kind: Kind, disk_bytes: u64, way: &str) {
    let Some(disk) = or_skip(|| FileSystem::create(kind, disk_bytes)) else { return };
    let (data, copy) = (disk.path().join("data"), disk.path().join("copy"));
    let options = ["--workers", "2", "--journal-size", "4MiB"];
    let server = Server::start(&data, &options);
    let mut writer = Writer::new(&server, 1);
    while writer.stored.len() < 100 {
        assert!(writer.put());
    }
    server.stop();
    let copied = Command::new("cp").args(["-a", way]).arg(&data).arg(&copy).status().unwrap();
    assert!(copied.success());
    let server = Server::start(&copy, &options);
    disk.fill_with("foreign");
    writer.client = server.connect();
    writer.delete_half();
    writer.read_all();
    assert_eq!(server.connect().request("GET", "/-/ready", &[], b"").status, 200);
    server.stop();
    check(&copy);
    Server::start(&copy, &options).stop();
}

#[test]
fn a_copy_with_holes_on_a_full_ext4_takes_deletes() {
    a_copy_on_a_full_disk_takes_deletes(Kind::Ext4, 256 << 20, "--sparse=always");
}

#[test]
fn a_copy_that_shares_its_space_on_a_full_xfs_takes_deletes() {
    a_copy_on_a_full_disk_takes_deletes(Kind::Xfs, 512 << 20, "--reflink=always");
}

/// A journal for which there is no space takes none: a smaller one finds it.
fn a_journal_that_does_not_fit_leaves_the_disk_as_it_was(kind: Kind, disk_bytes: u64) {
    let Some(disk) = or_skip(|| FileSystem::create(kind, disk_bytes)) else { return };
    let data = disk.path().join("data");
    for size in ["600MiB", "1TiB"] {
        let error = Server::try_start(&data, &["--journal-size", size]).err().unwrap();
        assert!(error.contains("there is no space for a journal of") && error.contains("are free"), "{error}");
        assert_eq!(std::fs::metadata(data.join("journal")).unwrap().blocks(), 0);
    }
    // As an earlier version left it.
    std::fs::write(data.join("journal"), vec![0; 20 << 20]).unwrap();
    let server = Server::start(&data, &["--journal-size", "8MiB"]);
    assert_eq!(std::fs::metadata(data.join("journal")).unwrap().len(), 8 << 20);
    server.connect().put_block(&bytes(1, 100_000));
    server.stop();
    check(&data);
}

#[test]
fn a_journal_that_does_not_fit_leaves_ext4_as_it_was() {
    a_journal_that_does_not_fit_leaves_the_disk_as_it_was(Kind::Ext4, 64 << 20);
}

#[test]
fn a_journal_that_does_not_fit_leaves_xfs_as_it_was() {
    a_journal_that_does_not_fit_leaves_the_disk_as_it_was(Kind::Xfs, 320 << 20);
}
