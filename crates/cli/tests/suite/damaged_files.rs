//! Damaged and foreign files, met by the real program: it refuses in one line and changes nothing, or recovers as documented. It
//! never crashes, and never serves bytes that are not the block's; what is lost is announced.

use crate::support::{Client, Server, bytes, check, check_output, directory, name};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(super) const OPTIONS: [&str; 6] = ["--journal-size", "4MiB", "--workers", "2", "--checkpoint-names", "64"];
const FILES: [&str; 3] = ["data", "journal", "index"];
pub(super) const PAGE_BYTES: u64 = 4096;
const JOURNAL_BYTES: u64 = 4 << 20;

/// A stopped store and what it holds.
pub(super) struct Store {
    pub(super) path: PathBuf,
    /// Names, with their bytes or none where they were deleted.
    pub(super) blocks: BTreeMap<String, Option<Vec<u8>>>,
}

/// A store at `path` with blocks in the index and, where the process is `killed`, more in the journal.
pub(super) fn make(path: &Path, seed: u64, killed: bool) -> Store {
    let mut blocks = BTreeMap::new();
    let server = Server::start(path, &OPTIONS);
    change(&server, &mut blocks, seed, 60);
    server.stop();
    if killed {
        let server = Server::start(path, &OPTIONS);
        change(&server, &mut blocks, seed + 1000, 20);
        server.kill();
    }
    Store { path: path.to_owned(), blocks }
}

/// Stores blocks of all size classes and deletes every sixth.
pub(super) fn change(server: &Server, blocks: &mut BTreeMap<String, Option<Vec<u8>>>, seed: u64, count: u64) {
    let mut client = server.connect();
    for number in 0..count {
        let size = (4096 << (number % 7)) - usize::try_from(number).unwrap();
        let body = bytes(seed * 1000 + number, size);
        let path = format!("/{}", name(&body));
        assert_eq!(client.request("PUT", &path, &[], &body).status, 201);
        let deleted = number % 6 == 5;
        if deleted {
            assert_eq!(client.request("DELETE", &path, &[], b"").status, 204);
        }
        blocks.insert(name(&body), (!deleted).then_some(body));
    }
}

/// What became of a damaged store.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was not opened, for this reason, and is as it was.
    Refused(String),
    /// It is served, but not written.
    ReadOnly(String),
    /// It is served: so many of its blocks (and of the absence of deleted ones) are right; the rest are errors.
    Opened { right: usize, errors: usize },
}

impl Outcome {
    #[track_caller]
    fn is_refused(&self, why: &str) {
        assert!(matches!(self, Outcome::Refused(reason) if reason.contains(why)), "{self:?}");
    }

    #[track_caller]
    fn is_read_only(&self, why: &str) {
        assert!(matches!(self, Outcome::ReadOnly(reason) if reason.contains(why)), "{self:?}");
    }

    #[track_caller]
    fn is_whole(&self, store: &Store) {
        assert!(
            matches!(self, Outcome::Opened { right, errors: 0 } if *right == store.blocks.len()),
            "{self:?} of {}",
            store.blocks.len()
        );
    }
}

fn snapshot(path: &Path) -> Vec<Option<Vec<u8>>> {
    FILES.iter().map(|file| std::fs::read(path.join(file)).ok()).collect()
}

/// A damaged copy of a store.
pub(super) fn damaged(store: &Store, damage: impl Fn(&Path)) -> TempDir {
    let directory = directory();
    for file in FILES {
        std::fs::copy(store.path.join(file), directory.path().join(file)).unwrap();
    }
    damage(directory.path());
    directory
}

/// Damages a copy of a store, and checks and serves it. What holds in every case is asserted here.
pub(super) fn outcome_of(store: &Store, damage: impl Fn(&Path)) -> Outcome {
    let directory = damaged(store, damage);
    let path = directory.path();
    let before = snapshot(path);
    let checked = check_output(path);
    let complaint = String::from_utf8(checked.stderr).unwrap();
    assert!(matches!(checked.status.code(), Some(0..=2)), "check: {}: {complaint}", checked.status);
    assert!(!complaint.contains("panicked") && complaint.lines().count() <= 1, "{complaint}");
    assert!(snapshot(path) == before, "a check changes nothing");
    if matches!(checked.status.code(), Some(0 | 1)) {
        let report: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
        assert_eq!(report["ok"], checked.status.success(), "{report}");
        assert_eq!(report["faults"].as_array().unwrap().is_empty(), checked.status.success(), "{report}");
    }
    match Server::start_or_end(path, &OPTIONS) {
        Ok(server) => look_at(server, store),
        Err((status, log)) => {
            assert_eq!(status.code(), Some(1), "serve: {status}: {log}");
            let plain: Vec<_> = log.lines().filter(|line| !line.starts_with('{')).collect();
            assert!(plain.len() == 1 && plain[0].starts_with("buddy-blocks: "), "{log}");
            assert!(snapshot(path) == before, "it was changed although it was refused: {log}");
            assert!(!checked.status.success(), "the check finds it, too");
            Outcome::Refused(log)
        }
    }
}

/// Reads everything, stores more, reads again, and stops.
fn look_at(mut server: Server, store: &Store) -> Outcome {
    let mut client = server.connect();
    let ready = client.request("GET", "/-/ready", &[], b"");
    let read_only = (ready.status != 200).then(|| ready.text());
    let (right, errors) = read_all(&mut client, store, read_only.is_some());
    if read_only.is_none() {
        // Enough for a checkpoint (64), and to overwrite what is wrongly taken for free.
        for number in 0..70 {
            let body = bytes(77_000 + number, 5000);
            let reply = client.request("PUT", "/", &[], &body);
            assert!(matches!(reply.status, 200 | 500..), "{}", reply.text());
            let read = client.request("GET", &format!("/{}", name(&body)), &[], b"");
            assert!(reply.status != 200 || (read.status == 200 && read.body == body) || read.status >= 500);
        }
        read_all(&mut client, store, false);
    }
    drop(client);
    server.signal("-TERM");
    let status = server.wait();
    assert!(status.success() && !server.log().contains("panicked"), "{status}: {}", server.log());
    read_only.map_or(Outcome::Opened { right, errors }, Outcome::ReadOnly)
}

/// Every block has its bytes, or there is an error; what is lost, or is there again, was announced. Counts both.
fn read_all(client: &mut Client, store: &Store, announced: bool) -> (usize, usize) {
    let (mut right, mut errors) = (0, 0);
    for (name, body) in &store.blocks {
        let reply = client.request("GET", &format!("/{name}"), &[], b"");
        match (reply.status, body) {
            (200, _) => {
                assert_eq!(crate::support::name(&reply.body), *name, "other bytes");
                assert!(body.is_some() || announced, "{name} was deleted and is there again");
                right += 1;
            }
            (404, body) => {
                assert!(body.is_none() || announced, "{name} is lost");
                right += 1;
            }
            (500.., _) => errors += 1,
            (status, _) => panic!("{status}: {}", reply.text()),
        }
    }
    (right, errors)
}

/// A store that was stopped in order, and one that was killed.
pub(super) fn stores(directory: &TempDir) -> [Store; 2] {
    [make(&directory.path().join("stopped"), 1, false), make(&directory.path().join("killed"), 2, true)]
}

fn resize(file: &Path, bytes: u64) {
    OpenOptions::new().write(true).open(file).unwrap().set_len(bytes).unwrap();
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).unwrap().len()
}

fn write_garbage(file: &Path, range: Range<u64>) {
    let garbage = bytes(5, usize::try_from(range.end - range.start).unwrap());
    OpenOptions::new().write(true).open(file).unwrap().write_all_at(&garbage, range.start).unwrap();
}

/// Inverts what `mask` says of every byte of a range.
pub(super) fn flip(file: &Path, range: Range<u64>, mask: u8) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut content = vec![0; usize::try_from(range.end - range.start).unwrap()];
    file.read_exact_at(&mut content, range.start).unwrap();
    content.iter_mut().for_each(|byte| *byte ^= mask);
    file.write_all_at(&content, range.start).unwrap();
}

fn take_from(other: &Store, path: &Path, file: &str) {
    std::fs::copy(other.path.join(file), path.join(file)).unwrap();
}

#[test]
fn a_journal_that_is_not_as_it_was_left() {
    let directory = directory();
    let other = make(&directory.path().join("other"), 50, true);
    let stores = stores(&directory);
    for store in &stores {
        for bytes in [0, 1 << 20] {
            outcome_of(store, |path| resize(&path.join("journal"), bytes)).is_refused("truncated or replaced");
        }
        let missing = outcome_of(store, |path| std::fs::remove_file(path.join("journal")).unwrap());
        missing.is_refused("journal is missing");
        outcome_of(store, |path| take_from(&other, path, "journal")).is_refused("the journal is another store's");
    }
    let zeros = |path: &Path| {
        resize(&path.join("journal"), 0);
        resize(&path.join("journal"), JOURNAL_BYTES);
    };
    let garbage = |path: &Path| write_garbage(&path.join("journal"), 0..JOURNAL_BYTES);
    let [stopped, killed] = &stores;
    // Nothing was in it.
    outcome_of(stopped, zeros).is_whole(stopped);
    outcome_of(stopped, garbage).is_whole(stopped);
    outcome_of(killed, zeros).is_read_only("the journal is damaged or was replaced");
    outcome_of(killed, garbage).is_read_only("the journal is damaged or was replaced");
    // In the first run of a store nothing was checkpointed yet.
    let mut first = Store { path: directory.path().join("first"), blocks: BTreeMap::new() };
    let server = Server::start(&first.path, &["--journal-size", "4MiB", "--workers", "2"]);
    change(&server, &mut first.blocks, 4, 20);
    server.kill();
    outcome_of(&first, |_| {}).is_whole(&first);
    outcome_of(&first, zeros).is_read_only("the journal is damaged or was replaced");
    outcome_of(&first, garbage).is_read_only("the journal is damaged or was replaced");
}

#[test]
fn an_index_that_was_truncated() {
    let directory = directory();
    for store in &stores(&directory) {
        let truncated = |bytes| outcome_of(store, |path| resize(&path.join("index"), bytes));
        truncated(0).is_refused("the index is empty");
        for bytes in [100, PAGE_BYTES, 2 * PAGE_BYTES] {
            truncated(bytes).is_refused("is not a file of a store");
        }
        for pages in [3, 6] {
            truncated(pages * PAGE_BYTES).is_refused("the index is damaged");
        }
        let all = length(&store.path.join("index"));
        for bytes in [10 * PAGE_BYTES, 12 * PAGE_BYTES, 14 * PAGE_BYTES + 1] {
            truncated(bytes);
        }
        // Nothing was in the rest.
        for bytes in [all / 2, all - PAGE_BYTES] {
            truncated(bytes).is_whole(store);
        }
    }
}

/// libmdbx keeps three meta pages and finds damage of pages by what their heads and nodes must be like; it has no checksums.
#[test]
fn an_index_with_damaged_pages() {
    let directory = directory();
    for store in &stores(&directory) {
        for page in 0..14 {
            outcome_of(store, |path| flip(&path.join("index"), page * PAGE_BYTES..(page + 1) * PAGE_BYTES, 0xff));
        }
        // Transaction numbers, geometry and roots of the meta pages.
        for page in 0..3 {
            for byte in [28, 60, 100] {
                let at = page * PAGE_BYTES + byte;
                outcome_of(store, |path| flip(&path.join("index"), at..at + 1, 1));
            }
        }
        let all = length(&store.path.join("index"));
        let garbage = outcome_of(store, |path| write_garbage(&path.join("index"), 3 * PAGE_BYTES..all));
        garbage.is_refused("the index is damaged");
    }
}

#[test]
fn an_index_of_another_store_or_of_another_time() {
    let directory = directory();
    let other = make(&directory.path().join("other"), 50, false);
    for store in &stores(&directory) {
        outcome_of(store, |path| take_from(&other, path, "index")).is_refused("the journal is another store's");
    }
    let path = directory.path().join("later");
    let mut store = make(&path, 1, false);
    let index = std::fs::read(path.join("index")).unwrap();
    let server = Server::start(&path, &OPTIONS);
    change(&server, &mut store.blocks, 3, 20);
    server.stop();
    let older = outcome_of(&store, |path| std::fs::write(path.join("index"), &index).unwrap());
    older.is_read_only("the index is older than the journal");
}

/// The journal has gone round since: nothing of it is as that index knows it. It is left alone all the same, and when the right index is
/// put back everything is there.
#[test]
fn an_index_of_long_ago_changes_nothing() {
    let directory = directory();
    let path = directory.path().join("store");
    let mut store = make(&path, 1, false);
    let old = std::fs::read(path.join("index")).unwrap();
    let server = Server::start(&path, &OPTIONS);
    let mut client = server.connect();
    // Each has a frame of its own, of 4 KiB.
    for number in 0..JOURNAL_BYTES / 4096 + 200 {
        client.put_block(&number.to_le_bytes());
    }
    change(&server, &mut store.blocks, 3, 20);
    server.kill();
    let new = std::fs::read(path.join("index")).unwrap();
    // As on a file system that keeps no attributes.
    let _ = rustix::fs::removexattr(path.join("data"), "user.buddy-blocks");
    std::fs::write(path.join("index"), &old).unwrap();
    let journal = std::fs::read(path.join("journal")).unwrap();
    for _ in 0..2 {
        let server = Server::start(&path, &OPTIONS);
        let ready = server.connect().request("GET", "/-/ready", &[], b"").text();
        assert!(ready.contains("the index is older than the journal"), "{ready}");
        server.stop();
        assert!(std::fs::read(path.join("journal")).unwrap() == journal, "the journal was changed");
    }
    std::fs::write(path.join("index"), &new).unwrap();
    let server = Server::start(&path, &OPTIONS);
    let (right, errors) = read_all(&mut server.connect(), &store, false);
    assert_eq!((right, errors), (store.blocks.len(), 0));
    server.stop();
    check(&path);
}

/// What a later version has written is not damaged: a check says that it cannot tell.
#[test]
fn a_journal_of_a_later_version() {
    let directory = directory();
    let store = make(&directory.path().join("killed"), 2, true);
    let of_a_later_version = |path: &Path| {
        let mut journal = std::fs::read(path.join("journal")).unwrap();
        let first = first_live_frame(&journal);
        let frame = &mut journal[first];
        frame[8] = 9;
        frame[68..72].fill(0);
        let crc = crc32c(frame);
        frame[68..72].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(path.join("journal"), &journal).unwrap();
    };
    let output = check_output(damaged(&store, of_a_later_version).path());
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    outcome_of(&store, of_a_later_version).is_refused("format version 9");
}

/// Of the frames of the last run, that with the lowest sequence number.
fn first_live_frame(journal: &[u8]) -> Range<usize> {
    let number = |at: usize| u64::from_le_bytes(journal[at..at + 8].try_into().unwrap());
    let frames = (0..journal.len()).step_by(4096).filter(|at| journal[*at..].starts_with(b"BBFRAME\0"));
    let first = frames.min_by_key(|at| (std::cmp::Reverse(number(at + 32)), number(at + 40))).unwrap();
    let bytes = u32::from_le_bytes(journal[first + 12..first + 16].try_into().unwrap());
    first..first + usize::try_from(bytes).unwrap()
}

fn crc32c(bytes: &[u8]) -> u32 {
    let shift = |crc: u32, _| crc >> 1 ^ (0x82f6_3b78 * (crc & 1));
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

/// The data file says whose it is, and how new, where the file system has room for that.
#[test]
fn files_of_different_copies_of_a_store() {
    let directory = directory();
    let path = directory.path().join("store");
    let store = make(&path, 1, false);
    let earlier: Vec<_> = ["index", "journal"].map(|file| (file, std::fs::read(path.join(file)).unwrap())).into();
    let server = Server::start(&path, &OPTIONS);
    server.connect().put_block(b"stored later");
    server.stop();
    if !has_stamp(&path.join("data")) {
        return eprintln!("skipped: files have no attributes here");
    }
    earlier.iter().for_each(|(file, content)| std::fs::write(path.join(file), content).unwrap());
    let older = "index and journal are older than the data file";
    let output = check_output(&path);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains(older));
    let mut server = Server::start(&path, &OPTIONS);
    let mut client = server.connect();
    assert!(client.request("GET", "/-/ready", &[], b"").text().contains(older));
    assert_eq!(client.request("PUT", "/", &[], b"more").status, 503);
    read_all(&mut client, &store, true);
    server.signal("-TERM");
    assert!(server.wait().success());
    // As the message says, for files that belong together after all.
    rustix::fs::removexattr(path.join("data"), "user.buddy-blocks").unwrap();
    Server::start(&path, &OPTIONS).stop();

    let other = make(&directory.path().join("other"), 50, false);
    std::fs::rename(other.path.join("data"), path.join("data")).unwrap();
    let error = Server::try_start(&path, &OPTIONS).err().unwrap();
    assert!(error.contains("the data file is another store's"), "{error}");
    let output = check_output(&path);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}

fn has_stamp(data: &Path) -> bool {
    rustix::fs::getxattr(data, "user.buddy-blocks", &mut [0; 64]).is_ok()
}

#[test]
fn a_data_file_that_is_too_short_or_too_long() {
    let directory = directory();
    for store in &stores(&directory) {
        for bytes in [0, (3 << 20) + 5000] {
            outcome_of(store, |path| resize(&path.join("data"), bytes)).is_read_only("the data file was truncated");
        }
        let missing = outcome_of(store, |path| std::fs::remove_file(path.join("data")).unwrap());
        missing.is_refused("data is missing");
        let end = length(&store.path.join("data"));
        outcome_of(store, |path| write_garbage(&path.join("data"), end..end + 3_000_000)).is_whole(store);
    }
}

/// Any bit of the part of the index that is used.
#[test]
fn an_index_with_any_flipped_bit() {
    let directory = directory();
    let count = std::env::var("FLIPPED_BITS").map_or(40, |count| count.parse().unwrap());
    for store in &stores(&directory) {
        let index = std::fs::read(store.path.join("index")).unwrap();
        let used = index.iter().rposition(|byte| *byte != 0).unwrap() as u64;
        for number in 0..count {
            let random = u64::from_le_bytes(bytes(number, 8).try_into().unwrap());
            let (at, mask) = (random / 8 % used, 1 << (random % 8));
            eprintln!("bit mask {mask} of byte {at} of {used}");
            outcome_of(store, |path| flip(&path.join("index"), at..at + 1, mask));
        }
    }
}

/// What serving does not notice: blocks that are read are not hashed, unless that is asked for.
#[test]
fn damage_that_only_a_check_finds() {
    let directory = directory();
    let other = make(&directory.path().join("other"), 50, true);
    for store in &stores(&directory) {
        let output = check_output(damaged(store, |path| take_from(&other, path, "data")).path());
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
