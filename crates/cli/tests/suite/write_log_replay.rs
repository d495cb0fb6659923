//! The real program on real file systems on disks that forget what was not flushed.
//!
//! A server works under load on file systems whose disks log every write and every flush. Then the power is cut at points of that
//! log: a disk has what it had flushed, and of the rest anything. The file systems recover, the store opens, and is held to what had
//! been answered before that point. A missing flush, of the store, of libmdbx or of the file system, is a loss here.
//!
//! A disk of these flushes all that it holds, so on one disk a flush of the journal hides that one of the data is missing. Therefore
//! there are two layouts: all on one disk, and data, journal and index on a disk each, as if the device could make single writes
//! durable (FUA).
//!
//! Needs root, loop devices, `/dev/fuse`, `mkfs.ext4` and `mkfs.xfs`; a test that finds one missing says so and passes.
//! `REPLAY_ROUNDS`, `REPLAY_CUTS` and `REPLAY_SEED` choose how many runs under load of each layout and mode, how many cuts of each,
//! and which.

use crate::support::history::{Owner, answers, owners, under_load, verify};
use crate::support::logged_disks::Disks;
use crate::support::loop_device::{Kind, Mount, or_skip};
use crate::support::oracle::Found;
use crate::support::write_log::{Entry, Image, Keep, Record, SECTOR_BYTES};
use crate::support::{Client, Server, check, check_output, directory, setting};
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// More than the least that xfs is made for. In memory a disk takes what was written to it.
const DISK_BYTES: u64 = 512 << 20;
/// First many at once, for large frames, then few, so that there are enough frames to go around the journal; each until the log
/// has so many entries more.
const CROWD: usize = 64;
const CROWD_ENTRIES: usize = 3000;
const FEW: usize = 3;
const FEW_ENTRIES: usize = 10_000;
/// A load that has not come to as many by then ends.
const LOAD_TIME_MAX: Duration = Duration::from_secs(30);
const FLUSH_TIME_MAX: Duration = Duration::from_secs(30);
const OPTIONS: [&str; 6] = ["--workers", "3", "--checkpoint-names", "200", "--journal-size", "4MiB"];

/// On which disks the parts of a store lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    OneDisk,
    DisksApart,
}

impl Layout {
    fn disks(self) -> usize {
        match self {
            Layout::OneDisk => 1,
            Layout::DisksApart => 3,
        }
    }

    /// The disks of data, journal and index.
    fn places(self) -> [usize; 3] {
        match self {
            Layout::OneDisk => [0, 0, 0],
            Layout::DisksApart => [0, 1, 2],
        }
    }
}

/// How writes are made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    SyncWrite,
    SyncFrame,
    Relaxed,
}

impl Mode {
    fn options(self) -> &'static [&'static str] {
        match self {
            Mode::SyncWrite => &["--data-sync", "write"],
            Mode::SyncFrame => &["--data-sync", "frame"],
            Mode::Relaxed => &["--durability", "relaxed", "--sync-interval", "50ms"],
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    kind: Kind,
    layout: Layout,
    mode: Mode,
}

impl Setup {
    /// Options of a server; what is done about new space goes with the layout, so that every mode has both.
    fn options(self) -> Vec<&'static str> {
        let new_space = match self.layout {
            Layout::OneDisk => "unwritten",
            Layout::DisksApart => "zeros",
        };
        OPTIONS.iter().chain(self.mode.options()).chain(&["--new-space", new_space]).copied().collect()
    }
}

/// Disks with file systems on them, mounted. What is declared first goes first.
struct Machine {
    mounts: Vec<Mount>,
    disks: Disks,
    directory: tempfile::TempDir,
}

impl Machine {
    /// Blank disks with new file systems, and where the files of a store shall lie.
    fn new(setup: Setup) -> Result<Machine, String> {
        let mut machine = Machine::serve(vec![Image::default(); setup.layout.disks()])?;
        for disk in 0..setup.layout.disks() {
            Mount::make(setup.kind, &machine.disks.file(disk))?;
        }
        machine.mount(setup)?;
        let store = machine.store();
        std::fs::create_dir(&store).unwrap();
        for (name, disk) in ["data", "journal", "index"].into_iter().zip(setup.layout.places()) {
            if disk > 0 {
                std::fs::File::create(machine.mounts[disk].path().join(name)).unwrap();
                symlink(Path::new("../..").join(format!("mounted-{disk}/{name}")), store.join(name)).unwrap();
            }
        }
        for mount in &machine.mounts {
            rustix::fs::syncfs(std::fs::File::open(mount.path()).unwrap()).unwrap();
        }
        machine.disks.begin_log();
        Ok(machine)
    }

    /// Disks with something on them, which their file systems recover.
    fn restarted(setup: Setup, images: Vec<Image>) -> Machine {
        let mut machine = Machine::serve(images).unwrap();
        machine.mount(setup).unwrap();
        machine
    }

    fn serve(images: Vec<Image>) -> Result<Machine, String> {
        let directory = directory();
        let path = directory.path().join("disks");
        std::fs::create_dir(&path).unwrap();
        Ok(Machine { mounts: Vec::new(), disks: Disks::serve(images, DISK_BYTES, &path)?, directory })
    }

    fn mount(&mut self, setup: Setup) -> Result<(), String> {
        for disk in 0..setup.layout.disks() {
            let path = self.directory.path().join(format!("mounted-{disk}"));
            self.mounts.push(Mount::new(setup.kind, &self.disks.file(disk), &path)?);
        }
        Ok(())
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("mounted-0/store")
    }
}

/// Waits until `done`, at most so long. False where it was not.
fn wait_for(longest: Duration, mut done: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !done() {
        if began.elapsed() > longest {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// How often a relaxed store had flushed its data, at some time between two lengths of the log.
#[derive(Clone, Copy)]
struct Flushes {
    before: usize,
    count: u64,
    after: usize,
}

/// The flushes of one process, looked at again and again.
struct Watched {
    client: Client,
    seen: Vec<Flushes>,
}

impl Watched {
    fn new(server: &Server) -> Watched {
        Watched { client: server.connect(), seen: Vec::new() }
    }

    fn look(&mut self, disks: &Disks) {
        let before = disks.position();
        let metrics = self.client.request("GET", "/-/metrics", &[], b"").text();
        let count = metrics.lines().find_map(|line| line.strip_prefix("buddy_flush_duration_seconds_count "));
        self.seen.push(Flushes { before, count: count.unwrap().parse().unwrap(), after: disks.position() });
    }
}

/// What was answered before this must be there after a cut at `cut`.
fn kept(setup: Setup, flushes: &[Vec<Flushes>], restart: &Range<usize>, cut: usize) -> usize {
    match setup.mode {
        Mode::SyncWrite | Mode::SyncFrame => cut,
        // A flush may have been under way when they were counted. The one after it began later, and has ended, that of the journal as
        // well, when the data is flushed once more. (That all bytes are on the disk is not enough: the file system must have noted
        // that they were written.)
        Mode::Relaxed => {
            let of_process = |seen: &Vec<Flushes>| {
                let last = seen.iter().rev().find(|later| later.after <= cut)?.count;
                Some(seen.iter().rev().find(|earlier| earlier.count + 3 <= last)?.before)
            };
            // A process that opens a store makes all that it finds durable before it says where it listens.
            let recovered = if cut >= restart.end { restart.start } else { 0 };
            flushes.iter().filter_map(of_process).max().unwrap_or(0).max(recovered)
        }
    }
}

/// What was done to the disks.
struct Run {
    record: Record,
    /// The store was made, and open, from here on.
    made: usize,
    /// While the server that was killed started again.
    restart: Range<usize>,
    /// Flushes of each of the two processes.
    flushes: Vec<Vec<Flushes>>,
}

/// A server under load, from its first start, and killed and started again between the two parts of the load.
fn run_under_load(setup: Setup, owners: &mut [Owner]) -> Run {
    let machine = Machine::new(setup).unwrap();
    let disks = &machine.disks;
    let mut server = Server::start(&machine.store(), &setup.options());
    let (made, mut restart) = (disks.position(), 0..0);
    let mut flushes = Vec::new();
    let mut watched = Watched::new(&server);
    for (clients, entries) in [(CROWD, CROWD_ENTRIES), (FEW, FEW_ENTRIES)] {
        if clients == FEW {
            restart.start = disks.position();
            server.kill();
            server = Server::start(&machine.store(), &setup.options());
            restart.end = disks.position();
            flushes.push(std::mem::replace(&mut watched, Watched::new(&server)).seen);
        }
        let enough = disks.position() + entries;
        let position = || disks.position();
        under_load(&mut owners[..clients], server.address, position, || {
            wait_for(LOAD_TIME_MAX, || {
                watched.look(disks);
                disks.position() >= enough
            });
        });
    }
    // In every mode all of it becomes durable by itself. More changes show that: each has to be flushed.
    let last = answers(owners).into_iter().max().unwrap_or_default();
    flushes.push(watched.seen.clone());
    let done = wait_for(FLUSH_TIME_MAX, || {
        owners[0].store_one_more(server.address, || disks.position());
        watched.look(disks);
        flushes[1].clone_from(&watched.seen);
        kept(setup, &flushes, &restart, disks.position()) >= last
    });
    assert!(done, "what was answered is not flushed");
    let record = disks.record();
    server.kill();
    Run { record, made, restart, flushes }
}

/// Cuts the power at `cut`, lets everything recover, and compares. Now and then the power goes again meanwhile.
fn cut_and_compare(setup: Setup, run: &Run, owners: &[Owner], cut: usize, random: &mut fastrand::Rng) -> Found {
    let record = &run.record;
    let kept = kept(setup, &run.flushes, &run.restart, cut);
    let keep: Vec<_> = record.disks.iter().map(|_| Keep::any(random)).collect();
    eprintln!("  cut at {cut} of {}, {keep:?}", record.entries.len());
    let mut images = record.after_cut(cut, &keep, random);
    if random.u8(..4) == 0 {
        let machine = Machine::restarted(setup, images);
        let server = Server::start(&machine.store(), &setup.options());
        let recovery = machine.disks.record();
        server.kill();
        let again = random.usize(..=recovery.entries.len());
        let keep: Vec<_> = record.disks.iter().map(|_| Keep::any(random)).collect();
        eprintln!("    and at {again} of {} of the recovery, {keep:?}", recovery.entries.len());
        images = recovery.after_cut(again, &keep, random);
    }
    let machine = Machine::restarted(setup, images);
    // Before anything is mended.
    check(&machine.store());
    let server = Server::start(&machine.store(), &setup.options());
    let found = verify(owners, &server, cut, kept);
    assert_eq!(server.connect().request("GET", "/-/ready", &[], b"").status, 200, "{}", server.log());
    assert_eq!(server.stat("blocks"), found.stored);
    server.stop();
    check(&machine.store());
    found
}

/// A point of the log: any, or one at which something has just been answered, or while the server started again.
fn any_cut(run: &Run, answers: &[usize], random: &mut fastrand::Rng) -> usize {
    match random.u8(..5) {
        0 => random.usize(run.restart.start..=run.restart.end),
        1..3 if !answers.is_empty() => answers[random.usize(..answers.len())],
        _ => random.usize(run.made..=run.record.entries.len()),
    }
}

/// One run under load, and power cuts of it.
fn replay(setup: Setup, cuts: u64, seed: u64) {
    eprintln!("{setup:?}, seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut owners = owners(CROWD as u64, seed);
    let run = run_under_load(setup, &mut owners);
    let record = &run.record;
    let answers = answers(&owners);
    let flushes = record.entries.iter().filter(|entry| matches!(entry, Entry::Flush { .. })).count();
    let mut sum = Found::default();
    for _ in 0..cuts {
        let cut = any_cut(&run, &answers, &mut random);
        sum += cut_and_compare(setup, &run, &owners, cut, &mut random);
    }
    eprintln!(
        "{setup:?}: {} changes, {} writes and flushes, {flushes} of them flushes; after {cuts} power cuts {} times a block that had to \
         be there was, {} times one that had to be gone was, and {} might be either",
        answers.len(),
        record.entries.len(),
        sum.kept,
        sum.absent,
        sum.either
    );
}

/// Whether such disks can be had here. Where not, says why.
fn is_possible(kind: Kind) -> bool {
    let setup = Setup { kind, layout: Layout::DisksApart, mode: Mode::SyncWrite };
    or_skip(|| Machine::new(setup)).is_some()
}

fn replays(kind: Kind) {
    if !is_possible(kind) {
        return;
    }
    let (rounds, cuts, seed) = (setting("REPLAY_ROUNDS", 1), setting("REPLAY_CUTS", 4), setting("REPLAY_SEED", 1));
    eprintln!("{kind:?}: REPLAY_ROUNDS={rounds} REPLAY_CUTS={cuts} REPLAY_SEED={seed}");
    for round in 0..rounds {
        for layout in [Layout::OneDisk, Layout::DisksApart] {
            for mode in [Mode::SyncWrite, Mode::SyncFrame, Mode::Relaxed] {
                replay(Setup { kind, layout, mode }, cuts, seed + round);
            }
        }
    }
}

/// There is no store yet, or a whole one.
fn check_what_came_to_be(store: &Path) {
    let output = check_output(store);
    let said = String::from_utf8_lossy(&output.stderr);
    let is_none = output.status.code() == Some(2) && said.contains("there is no store at");
    assert!(output.status.success() || is_none, "{}: {said}{}", output.status, String::from_utf8_lossy(&output.stdout));
}

/// The power goes while a store is being made: nothing is in it, but it must come to be.
fn cuts_while_a_store_is_made(kind: Kind) {
    if !is_possible(kind) {
        return;
    }
    let (cuts, seed) = (3 * setting("REPLAY_CUTS", 4), setting("REPLAY_SEED", 1));
    let setup = Setup { kind, layout: Layout::OneDisk, mode: Mode::SyncWrite };
    let record = {
        let machine = Machine::new(setup).unwrap();
        let server = Server::start(&machine.store(), &setup.options());
        let record = machine.disks.record();
        server.kill();
        record
    };
    eprintln!("{kind:?}: REPLAY_SEED={seed}, {cuts} cuts of {} writes and flushes", record.entries.len());
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..cuts {
        let (cut, keep) = (random.usize(..=record.entries.len()), Keep::any(&mut random));
        eprintln!("  cut at {cut}, {keep:?}");
        let machine = Machine::restarted(setup, record.after_cut(cut, &[keep], &mut random));
        check_what_came_to_be(&machine.store());
        let server = Server::start(&machine.store(), &setup.options());
        assert_eq!((server.stat("blocks"), server.connect().request("PUT", "/", &[], b"block").status), (0, 200));
        server.stop();
        assert!(check(&machine.store()).contains("\"clean\": true"));
    }
}

#[test]
fn a_store_comes_to_be_through_power_cuts_on_ext4() {
    cuts_while_a_store_is_made(Kind::Ext4);
}

#[test]
fn a_store_comes_to_be_through_power_cuts_on_xfs() {
    cuts_while_a_store_is_made(Kind::Xfs);
}

#[test]
fn what_was_answered_survives_on_ext4_what_was_not_flushed_does_not() {
    replays(Kind::Ext4);
}

#[test]
fn what_was_answered_survives_on_xfs_what_was_not_flushed_does_not() {
    replays(Kind::Xfs);
}

/// The disks themselves: what a cut must leave, must not leave, and may.
#[test]
fn a_cut_keeps_what_was_flushed_and_only_what_was_written() {
    /// Behind the first page, which is never torn.
    const FIRST: u64 = 4096;
    let write = |disk, number: u64, value: u8| Entry::Write {
        disk,
        offset: FIRST + number * SECTOR_BYTES as u64,
        bytes: vec![value; 2 * SECTOR_BYTES].into(),
    };
    let entries = vec![
        write(0, 0, 1),
        write(1, 0, 2),
        Entry::Flush { disk: 0 },
        write(0, 1, 3),
        write(1, 7, 4),
        Entry::Flush { disk: 1 },
    ];
    let record = Record { disks: vec![Image::default(); 2], entries };
    let sectors = |images: &[Image], disk: usize| -> Vec<u8> {
        let mut bytes = vec![0; 10 * SECTOR_BYTES];
        images[disk].read(FIRST, &mut bytes);
        bytes.chunks(SECTOR_BYTES).map(|sector| sector.iter().copied().max().unwrap()).collect()
    };
    let mut random = fastrand::Rng::with_seed(1);
    assert_eq!([record.flushed(2), record.flushed(5), record.flushed(6)], [[0, 0], [3, 0], [3, 6]]);
    let nothing = record.after_cut(5, &[Keep::Nothing; 2], &mut random);
    assert_eq!(sectors(&nothing, 0), [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(sectors(&nothing, 1), [0; 10]);
    let everything = record.after_cut(5, &[Keep::Everything; 2], &mut random);
    assert_eq!(sectors(&everything, 0), [1, 3, 3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(sectors(&everything, 1), [2, 2, 0, 0, 0, 0, 0, 4, 4, 0]);
    let flushed = record.after_cut(6, &[Keep::Nothing; 2], &mut random);
    assert_eq!(sectors(&flushed, 1), sectors(&everything, 1));
    let seen = |keep: Keep, random: &mut fastrand::Rng| {
        let cuts = (0..200).map(|_| sectors(&record.after_cut(5, &[keep; 2], random), 0)[..3].to_vec());
        cuts.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(seen(Keep::SomeWrites, &mut random), [[1, 1, 0], [1, 3, 3]]);
    assert_eq!(seen(Keep::SomeSectors, &mut random), [[1, 1, 0], [1, 1, 3], [1, 3, 0], [1, 3, 3]]);
}
