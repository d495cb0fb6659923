//! Connections that say something wrong, or nothing, and end anyhow: afterwards everything is as it was, and meanwhile a well-behaved
//! client is served. Short by default; `GARBAGE_CONNECTIONS=1000000 GARBAGE_THREADS=64` and `GARBAGE_SEED` for more. About ten heads go
//! down each.

use crate::support::{Server, bytes, check, directory, memory_kib, name, setting};
use fastrand::Rng;
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the process may have more of afterwards: what allocators keep.
const MEMORY_SLACK_KIB: u64 = 16 * 1024;

/// Extents in pools, of which there are now more and now fewer.
const HELD_SLACK_BYTES: u64 = 1 << 20;

/// What is to be as it was before.
#[derive(Debug)]
struct Level {
    descriptors: usize,
    held_bytes: u64,
    memory_kib: u64,
}

impl Level {
    /// When nobody is connected any more but who asks, and what is not needed was given back.
    fn of(server: &Server) -> Level {
        server.wait_for_stat("connections", |connections| connections == 1);
        std::thread::sleep(Duration::from_secs(5));
        Level {
            descriptors: std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count(),
            held_bytes: server.stat("bytes_held"),
            memory_kib: memory_kib(server),
        }
    }
}

/// A request as it should be.
fn request(random: &mut Rng) -> Vec<u8> {
    let body = bytes(random.u64(..400), random.usize(..200).pow(2) / 8);
    let name = name(&body);
    let with_body = |head: String| [head.as_bytes(), &body].concat();
    match random.u8(..10) {
        0 => with_body(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())),
        1 => with_body(format!("PUT /{name} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())),
        2 => format!("DELETE /{name} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
        3 => format!("HEAD /{name}?x HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"{name}\"\r\n\r\n").into_bytes(),
        4 => format!("GET /{name} HTTP/1.1\r\nHost: a\r\nRange: bytes=1-100\r\n\r\n").into_bytes(),
        5 => b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec(),
        6 => format!(
            "POST /-/missing HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 65\r\n\r\n{name}\n"
        )
        .into_bytes(),
        7 => b"GET /-/blocks?limit=3 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        8 => b"OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec(),
        _ => format!("GET http://a/{name} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
    }
}

/// Several requests, with some of their bytes changed, left out, or put in.
fn conversation(random: &mut Rng) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..random.usize(1..20)).flat_map(|_| request(random)).collect();
    for _ in 0..random.usize(..4) {
        let at = random.usize(..bytes.len());
        match random.u8(..4) {
            0 => bytes[at] ^= 1 << random.u8(..8),
            1 => bytes.truncate(at.max(1)),
            2 => drop(bytes.splice(
                at..at,
                [b"\r\n".as_slice(), b"\0", b" ", b"Content-Length: 9\r\n"][random.usize(..4)].iter().copied(),
            )),
            _ => drop(bytes.drain(at..(at + random.usize(..50)).min(bytes.len()))),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// Says something and ends the connection at any moment, in any way. Whatever the server does to it is fine.
fn misbehave(server: &Server, random: &mut Rng) {
    let Ok(mut stream) = TcpStream::connect(server.address) else { return };
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
    if random.u8(..10) > 0 {
        let said = conversation(random);
        let cut = random.usize(..=said.len());
        let _ = stream.write_all(&said[..cut]);
        if random.bool() {
            let _ = stream.read(&mut [0; 4096]);
        }
        if random.bool() {
            let _ = stream.write_all(&said[cut..]);
        }
    }
    match random.u8(..4) {
        // A reset instead of an orderly end.
        0 | 1 => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
        2 => {
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read(&mut [0; 4096]);
        }
        _ => {}
    }
}

/// Lets connections misbehave until there were so many, beside a client that wants its answers.
fn misbehave_often(server: &Server, connections: u64, seed: u64) {
    let made = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..setting("GARBAGE_THREADS", 4) {
            let made = &made;
            scope.spawn(move || {
                let mut random = Rng::with_seed(seed + thread);
                while made.fetch_add(1, Ordering::Relaxed) < connections {
                    misbehave(server, &mut random);
                }
            });
        }
        scope.spawn(|| {
            let mut client = server.connect();
            let body = bytes(1_000_000, 30_000);
            while made.load(Ordering::Relaxed) < connections {
                assert!(matches!(client.request("PUT", &format!("/{}", name(&body)), &[], &body).status, 200 | 201));
                assert!(client.request("GET", &format!("/{}", name(&body)), &[], b"").body == body);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    });
}

#[test]
fn connections_that_say_anything_and_end_anyhow_leave_nothing_behind() {
    let (connections, seed) = (setting("GARBAGE_CONNECTIONS", 4000), setting("GARBAGE_SEED", 1));
    eprintln!("GARBAGE_CONNECTIONS={connections} GARBAGE_SEED={seed}");
    let directory = directory();
    let server = Server::start(&directory.path().join("data"), &["--workers", "2"]);
    // What pools and allocators grow to belongs to the level before.
    misbehave_often(&server, connections.min(20_000) / 4, seed + 1000);
    let before = Level::of(&server);
    misbehave_often(&server, connections, seed);
    let after = Level::of(&server);
    eprintln!("{before:?} before, {after:?} after");
    assert_eq!(after.descriptors, before.descriptors);
    assert!(after.held_bytes <= before.held_bytes + HELD_SLACK_BYTES);
    assert!(after.memory_kib <= before.memory_kib + MEMORY_SLACK_KIB);
    let data = server.data.clone();
    let log = server.stop();
    assert!(!log.contains("panicked"), "{log}");
    check(&data);
}
