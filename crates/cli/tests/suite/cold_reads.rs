//! What is read from the disk, how, and what of it stays in the page cache: of a block that is read once nothing does, one that is read
//! again is served from there.

use crate::support::{Client, Server, bytes, check, directory, name};
use buddy_store::files::is_cached;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

const PAGE: usize = 4096;

/// Pages of the data file that are cached; `None` where the kernel cannot tell.
fn cached_pages(data: &Path) -> Option<usize> {
    let file = File::open(data.join("data")).unwrap();
    let pages = file.metadata().unwrap().len() / PAGE as u64;
    (0..pages).map(|page| is_cached(file.as_fd(), page * PAGE as u64, 1).map(usize::from)).sum()
}

/// A store of which nothing is cached, with a client whose server expects that what it reads may not be. `None` where reads cannot
/// pass the cache.
fn cold_store(data: &Path) -> Option<(Server, Client)> {
    let server = Server::start(data, &["--workers", "1"]);
    let mut client = server.connect();
    client.put_block(&bytes(1, PAGE));
    if cached_pages(data) != Some(0) {
        eprintln!("not tested: this kernel has no cachestat, or this file system writes through its cache");
        return None;
    }
    // Nobody expects this one not to be cached, nor the next where the disk was faster than the look whether it had to be asked.
    for seed in 1000..1100 {
        let body = bytes(seed, PAGE);
        client.put_block(&body);
        let before = cached_pages(data);
        client.get_block(&body);
        if cached_pages(data) == before {
            return Some((server, client));
        }
    }
    panic!("a hundred blocks that were not cached, and each was read through the cache");
}

#[test]
fn a_block_is_cached_when_it_is_read_for_the_second_time() {
    let directory = directory();
    let data = directory.path().join("data");
    let Some((server, mut client)) = cold_store(&data) else { return };
    for size in [1, 511, 4095, 4096, 4097, 5000, 20_000, 32_767, 32_768, 32_769, 100_000, 524_287, 524_288] {
        let body = bytes(size as u64, size);
        client.put_block(&body);
        let before = cached_pages(&data).unwrap();
        client.get_block(&body);
        assert_eq!(cached_pages(&data).unwrap(), before, "{size} bytes, read once");
        client.get_block(&body);
        let after = before + size.div_ceil(PAGE);
        assert_eq!(cached_pages(&data).unwrap(), after, "{size} bytes, read twice");
        client.get_block(&body);
        assert_eq!(cached_pages(&data).unwrap(), after, "{size} bytes, read three times");
    }
    server.stop();
    check(&data);
}

#[test]
fn what_others_have_cached_is_served_from_the_cache() {
    let directory = directory();
    let data = directory.path().join("data");
    let Some((server, mut client)) = cold_store(&data) else { return };
    let bodies: Vec<_> = (10..30).map(|seed| bytes(seed, PAGE)).collect();
    bodies.iter().for_each(|body| client.put_block(body));
    std::fs::read(data.join("data")).unwrap();
    // The process's own count of what was read from the disk for it.
    let read_bytes = || {
        let io = std::fs::read_to_string(format!("/proc/{}/io", server.pid())).unwrap();
        io.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.parse::<u64>().ok()).unwrap()
    };
    let before = read_bytes();
    bodies.iter().for_each(|body| client.get_block(body));
    assert_eq!(read_bytes(), before);
    server.stop();
}

#[test]
fn ranges_of_blocks_that_only_the_disk_has_are_right_wherever_they_begin() {
    let directory = directory();
    let data = directory.path().join("data");
    let Some((server, mut client)) = cold_store(&data) else { return };
    for (seed, size) in [(40, 4096), (50, 10_000), (60, 32_768), (70, 300_000)] {
        let ranges = [(0, 1), (0, size), (1, 100), (511, 4000), (size / 2, size), (4096, 8192), (size - 1, size)];
        for (number, (start, end)) in ranges.into_iter().enumerate() {
            // Another block for each, so that each is read for the first time.
            let body = bytes(seed + number as u64, size);
            if start < end && end <= size {
                client.put_block(&body);
                for _ in 0..3 {
                    let range = format!("Range: bytes={start}-{}", end - 1);
                    let reply = client.request("GET", &format!("/{}", name(&body)), &[&range], b"");
                    assert!(reply.status == 206 && reply.body == body[start..end], "{size}: {start}..{end}");
                }
                client.get_block(&body);
            }
        }
    }
    server.stop();
    check(&data);
}
