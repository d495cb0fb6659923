//! The real program on real file systems: power cuts as far as they can be had with those, and disks that are full.
//!
//! Needs root, loop devices, `mkfs.ext4` and `mkfs.xfs`; a test that finds one missing says so and passes. Each file system lies in
//! a sparse file of its own, and is taken away again however the test ends.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing, missing_docs)]

mod support;

use std::time::Duration;
use support::loop_device::{FileSystem, Kind};
use support::oracle::{Found, owners, under_load, verify};
use support::{Server, check, setting};

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
    let Some(mut disk) = FileSystem::create(kind, DISK_BYTES) else { return };
    eprintln!("{kind:?}: POWER_CUT_ROUNDS={rounds} POWER_CUT_SEED={seed}");
    let data = disk.path().join("data");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut owners = owners(OWNERS, seed);
    let (mut kept, mut absent, mut either) = (0, 0, 0);
    let mut count = |found: Found| {
        kept += found.kept;
        absent += found.absent;
        either += found.either;
    };
    for round in 0..rounds {
        let data_sync = ["write", "frame"][usize::from(random.bool())];
        let options =
            ["--workers", "3", "--checkpoint-names", "200", "--journal-size", "4MiB", "--data-sync", data_sync];
        let server = Server::start(&data, &options);
        count(verify(&mut owners, &mut server.connect()));
        let calm = Duration::from_millis(random.u64(20..400));
        // The process may still answer, and is held to what it says then, too.
        let agony = Duration::from_millis(random.u64(0..20));
        under_load(&mut owners, server.address, calm, || {
            disk.cut_power();
            std::thread::sleep(agony);
            server.kill();
        });
        disk.mount_again();
        let report = check(&data);
        assert!(report.contains("\"clean\": false"), "round {round}: {report}");
    }
    let server = Server::start(&data, &[]);
    let found = verify(&mut owners, &mut server.connect());
    count(found);
    assert_eq!(server.stat("blocks"), found.stored);
    server.stop();
    check(&data);
    eprintln!(
        "{kind:?}: {rounds} power cuts; after them {kept} times an acknowledged block was there, {absent} times a deleted one was \
         gone, and {either} unanswered operations had happened or not; {} blocks in the end",
        found.stored
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
