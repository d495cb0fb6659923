//! The process dies at a named point of every step of writing, checkpointing, growth and recovery; then the store opens again, and
//! everything that was acknowledged is there.

use crate::support::oracle::{Owner, owners, under_load, verify};
use crate::support::{Client, Server, check, check_output, directory};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

const OPTIONS: [&str; 6] = ["--workers", "3", "--checkpoint-names", "100", "--journal-size", "4MiB"];
const SIGABRT: i32 = 6;

/// Points that a server under load comes to, and how often it may before it dies.
const UNDER_LOAD: [(&str, u32); 15] = [
    ("block-written", 50),
    ("frame-begun", 50),
    ("frame-written", 50),
    ("frame-durable", 50),
    ("frame-published", 50),
    ("frame-answered", 50),
    ("generation-sealed", 3),
    ("checkpoint-prepared", 3),
    ("checkpoint-committed", 3),
    ("generation-dropped", 3),
    ("growth-written", 2),
    ("growth-flushed", 2),
    ("zeros-written", 3),
    ("zeros-flushed", 3),
    // As often as it takes: the journal is written round.
    ("journal-begins-again", 0),
];

/// Points on the way to a store that is open.
const WHILE_OPENING: [&str; 5] =
    ["journal-replayed", "recovery-flushed", "checkpoint-prepared", "checkpoint-committed", "recovery-committed"];

fn die_under_load(data: &Path, owners: &mut [Owner], more: &[&str], point: &str, times_before: u32) {
    assert!(dies_under_load(data, owners, more, point, times_before), "it died at {point} before it could serve");
}

/// False where it has died before it could serve.
fn dies_under_load(data: &Path, owners: &mut [Owner], more: &[&str], point: &str, times_before: u32) -> bool {
    let options = [&OPTIONS[..], more].concat();
    let Ok(mut server) = Server::try_start_dying(data, &options, point, times_before) else { return false };
    let Ok(stream) = TcpStream::connect(server.address) else { return false };
    verify(owners, &mut Client::new(stream));
    under_load(owners, server.address, Duration::ZERO, |_| {
        assert_eq!(server.wait().signal(), Some(SIGABRT), "{point}: {}", server.log());
    });
    true
}

fn reopen(data: &Path, owners: &mut [Owner]) {
    let server = Server::start(data, &OPTIONS);
    let found = verify(owners, &mut server.connect());
    assert_eq!(server.stat("blocks"), found.stored);
    server.stop();
    check(data);
}

#[test]
fn a_process_that_dies_anywhere_loses_nothing() {
    for (durability, data_sync) in [("sync", "write"), ("sync", "frame"), ("relaxed", "write")] {
        let mode = ["--durability", durability, "--data-sync", data_sync, "--sync-interval", "20ms"];
        let directory = directory();
        let data = directory.path().join("data");
        let mut owners = owners(8, 7);
        for (point, times_before) in UNDER_LOAD {
            if point.starts_with("growth") || point.starts_with("zeros") {
                // A store that is new has to make space, some of it before it serves.
                let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
                let (data, mut owners) = (directory.path().join("data"), crate::support::oracle::owners(8, 8));
                let options = [&mode[..], &["--new-space", "zeros"]].concat();
                dies_under_load(&data, &mut owners, &options, point, times_before);
                reopen(&data, &mut owners);
                continue;
            }
            die_under_load(&data, &mut owners, &mode, point, times_before);
            reopen(&data, &mut owners);
        }
        if durability == "relaxed" {
            die_under_load(&data, &mut owners, &mode, "data-flushed", 2);
            reopen(&data, &mut owners);
        }
    }
}

/// A check says that there is none, and finds nothing damaged.
fn is_no_store_yet(data: &Path) {
    let output = check_output(data);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("there is no store at"), "{}: {said}", output.status);
}

/// The index may be a link to a file on another disk, which is empty until the index is made.
#[test]
fn a_store_whose_making_was_cut_off_is_none_yet() {
    let directory = directory();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    is_no_store_yet(&data);
    std::fs::write(data.join("data"), "").unwrap();
    std::fs::write(data.join("journal"), vec![0; 4096]).unwrap();
    is_no_store_yet(&data);
    std::fs::write(directory.path().join("index"), "").unwrap();
    symlink("../index", data.join("index")).unwrap();
    is_no_store_yet(&data);
    // Where blocks are, there was an index that knew them.
    let lost = |why: &str| {
        std::fs::write(data.join("data"), "block").unwrap();
        let output = check_output(&data);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(why), "{}: {said}", output.status);
        std::fs::write(data.join("data"), "").unwrap();
    };
    lost("the index is damaged: it is empty");
    assert!(Server::try_start_dying(&data, &OPTIONS, "journal-made", 0).is_err());
    is_no_store_yet(&data);
    lost("but the index is empty: it was lost or replaced");
}

#[test]
fn a_process_that_dies_while_opening_can_be_opened() {
    let directory = directory();
    let data = directory.path().join("data");
    let died = Server::try_start_dying(&data, &OPTIONS, "journal-made", 0);
    assert!(died.is_err(), "the first opening makes a journal");
    is_no_store_yet(&data);
    let mut owners = owners(8, 9);
    for point in WHILE_OPENING {
        die_under_load(&data, &mut owners, &[], "frame-durable", 300);
        for _ in 0..2 {
            assert!(Server::try_start_dying(&data, &OPTIONS, point, 0).is_err(), "{point} lies on the way");
        }
        reopen(&data, &mut owners);
    }
}
