//! Rows of the index with a flipped bit, met by the real program: each costs its own block alone, in reads, lists and checks, and a client that
//! asks for it again and again does not fill the log.

use crate::damaged_files::{OPTIONS, Outcome, PAGE_BYTES, change, damaged, flip, make, outcome_of, stores};
use crate::support::{Client, Server, check_output, directory, number};
use std::time::Duration;

/// A bit of the row of a name: the name, where the block lies, or the checksum. The block answers with an error, all others with
/// their bytes.
#[test]
fn a_row_of_the_index_with_a_flipped_bit() {
    let directory = directory();
    for store in &stores(&directory) {
        let index = std::fs::read(store.path.join("index")).unwrap();
        for (name, _) in store.blocks.iter().filter(|(_, body)| body.is_some()).step_by(20) {
            let row = newest_row(&index, name);
            for byte in [0, 3, 31, 32, 33, 34, 42, 45, 46, 49] {
                let outcome = outcome_of(store, |path| flip(&path.join("index"), row + byte..row + byte + 1, 1));
                let Outcome::Opened { right, errors } = outcome else { panic!("byte {byte} of {name}: {outcome:?}") };
                assert!(errors >= 1 && right + errors == store.blocks.len() && right > errors, "{right} and {errors}");
                let output = check_output(
                    damaged(store, |path| flip(&path.join("index"), row + byte..row + byte + 1, 1)).path(),
                );
                assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
            }
        }
    }
}

/// The list has every other block, and of many names that are asked for the others have their answer: the one counts as missing, so that its
/// client sends it, and is told.
#[test]
fn a_damaged_row_costs_lists_its_block_alone() {
    let directory = directory();
    let store = make(&directory.path().join("store"), 1, false);
    let index = std::fs::read(store.path.join("index")).unwrap();
    let stored: Vec<_> = store.blocks.iter().filter_map(|(name, body)| Some((name.clone(), body.as_ref()?))).collect();
    let names: String = stored.iter().map(|(name, _)| format!("{name}\n")).collect();
    for (name, body) in stored.iter().step_by(20) {
        let row = newest_row(&index, name);
        // The name, the place, and the checksum.
        for byte in [31, 34, 46] {
            let damaged = damaged(&store, |path| flip(&path.join("index"), row + byte..row + byte + 1, 1));
            let server = Server::start(damaged.path(), &OPTIONS);
            let mut client = server.connect();
            for limit in [1, 7, 1000] {
                let others = stored.iter().map(|(other, _)| other).filter(|other| *other != name);
                assert!(walk(&mut client, limit).iter().eq(others), "{limit} at a time");
            }
            let missing = client.request("POST", "/-/missing", &["Content-Type: text/plain"], names.as_bytes());
            assert_eq!(missing.status, 200, "{}", missing.text());
            assert_eq!(missing.text(), format!("{name}\n"));
            assert_eq!(client.request("PUT", &format!("/{name}"), &[], body).status, 500);
            let log = server.stop();
            assert!(log.contains("the index is damaged: blocks are not listed"), "{log}");
            assert!(log.contains("the index is damaged: a block counts as missing"), "{log}");
        }
    }
}

/// The names that a walk over the list comes upon.
fn walk(client: &mut Client, limit: usize) -> Vec<String> {
    let mut listed: Vec<String> = Vec::new();
    loop {
        let after = listed.last().cloned().unwrap_or_default();
        let page = client.request("GET", &format!("/-/blocks?limit={limit}&after={after}"), &[], b"");
        assert_eq!(page.status, 200, "{}", page.text());
        if page.body.is_empty() {
            return listed;
        }
        listed.extend(page.text().lines().map(|line| line[..64].to_owned()));
    }
}

/// Requests that fail one after the other, as fast as a client can ask, do not fill the log: it has some of them, and how many it has not.
#[test]
fn requests_that_fail_write_only_so_many_lines() {
    const REQUESTS: usize = 2000;
    let directory = directory();
    let store = make(&directory.path().join("store"), 1, false);
    let index = std::fs::read(store.path.join("index")).unwrap();
    let (name, _) = store.blocks.iter().find(|(_, body)| body.is_some()).unwrap();
    let at = newest_row(&index, name) + 34;
    flip(&store.path.join("index"), at..at + 1, 1);
    let server = Server::start(&store.path, &OPTIONS);
    let mut client = server.connect();
    let request = format!("GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut fail = |count| {
        client.send(request.repeat(count).as_bytes());
        (0..count).for_each(|_| assert_eq!(client.read_reply(false).unwrap().status, 500));
    };
    (0..REQUESTS / 50).for_each(|_| fail(50));
    // A line of the next second says how many were left out.
    std::thread::sleep(Duration::from_secs(1));
    fail(1);
    let log = server.stop();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("a request failed")).collect();
    let left_out = lines.iter().filter(|line| line.contains("\"left_out\":")).map(|line| number(line, "left_out"));
    let left_out = usize::try_from(left_out.sum::<u64>()).unwrap();
    assert!(left_out > 0, "{} lines", lines.len());
    assert_eq!(lines.len() + left_out, REQUESTS + 1);
    assert!(lines[0].contains(name.as_str()) || lines[0].contains("index"), "{}", lines[0]);
}

/// The row right behind the place of a name that only the journal has tells whether that name is in the index, too. A check names the
/// row, and reads every other block.
#[test]
fn a_damaged_row_does_not_end_a_check() {
    let directory = directory();
    let path = directory.path().join("killed");
    let mut store = make(&path, 2, false);
    let in_index: Vec<_> = store.blocks.iter().filter_map(|(name, body)| body.as_ref().map(|_| name.clone())).collect();
    let server = Server::start(&path, &OPTIONS);
    change(&server, &mut store.blocks, 3, 20);
    server.kill();
    let stored = store.blocks.values().flatten().count();
    let index = std::fs::read(path.join("index")).unwrap();
    let behind = |name: &String| in_index.get(in_index.partition_point(|other| other < name));
    let mut rows: Vec<_> = store.blocks.keys().filter(|name| !in_index.contains(name)).filter_map(behind).collect();
    rows.dedup();
    assert!(rows.len() > 3, "else nothing is tested");
    for name in &rows[..3] {
        let at = newest_row(&index, name) + 34;
        let output = check_output(damaged(&store, |path| flip(&path.join("index"), at..at + 1, 1)).path());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["faults"].to_string().contains(&format!("block {name}")), "{report}");
        assert_eq!((output.status.code(), report["verified"].as_u64()), (Some(1), Some(stored as u64 - 1)), "{report}");
    }
}

/// Where the row of a name lies in the newest copy of its page; older ones are not used any more.
fn newest_row(index: &[u8], name: &str) -> u64 {
    let hash: Vec<_> = (0..64).step_by(2).map(|at| u8::from_str_radix(&name[at..at + 2], 16).unwrap()).collect();
    let rows = index.windows(32).enumerate().filter(|(_, window)| *window == hash).map(|(at, _)| at as u64);
    rows.max_by_key(|at| index[usize::try_from(at / PAGE_BYTES * PAGE_BYTES).unwrap()]).unwrap()
}
