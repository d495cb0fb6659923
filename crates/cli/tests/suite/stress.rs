//! Many clients at once, every byte verified.

use crate::support::{Server, bytes, check, directory, name, setting};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The same block from many connections at once occupies one extent; exactly one client is told that it is new.
#[test]
fn the_same_block_ten_thousand_times_occupies_one_extent() {
    let directory = directory();
    let data = directory.path().join("data");
    let server = Server::start(&data, &["--workers", "4"]);
    let body = bytes(1, 20_000);
    let path = format!("/{}", name(&body));
    for round in 0..3 {
        let created = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    let mut client = server.connect();
                    for _ in 0..if round == 0 { 313 } else { 5 } {
                        let reply = client.request("POST", "/", &[], &body);
                        assert_eq!(reply.text(), name(&body));
                        created.fetch_add(u64::from(reply.status == 201), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(created.into_inner(), 1, "exactly one is told 201");
        assert_eq!((server.stat("blocks"), server.stat("bytes_allocated")), (1, 32_768));
        let mut client = server.connect();
        assert_eq!(client.request("DELETE", &path, &[], b"").status, 204);
        assert_eq!(client.request("DELETE", &path, &[], b"").status, 404);
        assert_eq!((server.stat("blocks"), server.stat("bytes_allocated")), (0, 0));
    }
    let mut client = server.connect();
    client.request("PUT", "/", &[], &body);
    server.stop();
    assert!(check(&data).contains("\"blocks\": 1,"));
}

/// Clients put, read, delete and put again the same blocks, of all sizes: no wrong byte, no error, and nothing is left behind.
#[test]
fn put_get_delete_and_put_again_from_sixteen_clients() {
    const KEYS: usize = 48;
    let seconds = setting("STRESS_SECONDS", 20);
    let directory = directory();
    let data = directory.path().join("data");
    let server = Server::start(&data, &["--workers", "4", "--checkpoint-names", "500"]);
    let held = server.stat("bytes_held");
    let bodies: Vec<_> = (0..KEYS)
        .map(|key| {
            let class = key % 8;
            bytes(key as u64, (4096 << class) - key * 7)
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(seconds);
    let operations = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for client_number in 0..16 {
            let (server, bodies, operations) = (&server, &bodies, &operations);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(client_number);
                let mut client = server.connect();
                while Instant::now() < until {
                    let body = &bodies[random.usize(..KEYS)];
                    let path = format!("/{}", name(body));
                    match random.u8(0..10) {
                        0..3 => assert_eq!(client.request("PUT", "/", &[], body).text(), name(body)),
                        3 => assert_eq!(client.put_chunked("PUT", "/", body, 5000).text(), name(body)),
                        4..6 => {
                            let status = client.request("DELETE", &path, &[], b"").status;
                            assert!(status == 204 || status == 404, "{status}");
                        }
                        _ => {
                            let reply = client.request("GET", &path, &[], b"");
                            assert!(reply.status == 404 || (reply.status == 200 && reply.body == *body), "{path}");
                        }
                    }
                    operations.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    eprintln!("{} operations in {seconds} s", operations.into_inner());
    let mut client = server.connect();
    for body in &bodies {
        client.request("DELETE", &format!("/{}", name(body)), &[], b"");
    }
    drop(client);
    assert_eq!((server.stat("blocks"), server.stat("bytes_stored"), server.stat("bytes_allocated")), (0, 0, 0));
    server.wait_for_stat("connections", |connections| connections == 1);
    server.wait_for_stat("bytes_held", |now| now <= held);
    server.stop();
    assert!(check(&data).contains("\"blocks\": 0,"));
}

/// 100 checkpoints of the same names over and over, on one worker, while another has looked a name up and sleeps: the index
/// uses its pages again.
#[test]
fn an_idle_worker_does_not_make_the_index_grow() {
    let directory = directory();
    let data = directory.path().join("data");
    let server = Server::start(&data, &["--workers", "2", "--checkpoint-names", "256"]);
    let mut client = server.connect();
    let bodies: Vec<_> = (0..256).map(|seed| bytes(seed, 100)).collect();
    let mut until_checkpoints = |count: u64| {
        while server.stat("checkpoints") < count {
            for body in &bodies {
                assert_eq!(client.request("PUT", "/", &[], body).status, 200);
                assert_eq!(client.request("DELETE", &format!("/{}", name(body)), &[], b"").status, 204);
            }
        }
        server.stat("index_used_bytes")
    };
    until_checkpoints(2);
    // Several connections lie on each worker, whoever else is just leaving.
    let mut idle: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for client in &mut idle {
        assert_eq!(client.request("GET", &format!("/{}", name(b"absent")), &[], b"").status, 404);
    }
    let before = until_checkpoints(10);
    let after = until_checkpoints(110);
    assert!(after <= before * 3 / 2, "the index grew from {before} to {after} bytes");
    server.stop();
}

/// Replies are on their way, in sockets that nobody reads yet, made of pages of the cache. Their block is removed and its extent, and all
/// others, are written again and again: the replies stay what they were.
#[test]
fn replies_in_sockets_keep_their_bytes_when_the_extent_is_written_again() {
    let directory = directory();
    let data = directory.path().join("data");
    let server = Server::start(&data, &["--workers", "2", "--capacity", "8MiB"]);
    let mut client = server.connect();
    for round in 0..10 {
        let block = bytes(round, 524_288);
        let path = format!("/{}", name(&block));
        assert_eq!(client.request("POST", "/", &[], &block).status, 201);
        assert!(client.request("GET", &path, &[], b"").body == block, "cached from here on");
        let mut readers: Vec<_> = (0..6).map(|_| server.connect()).collect();
        for reader in &mut readers {
            reader.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(client.request("DELETE", &path, &[], b"").status, 204);
        for seed in 0..40 {
            let other = bytes(1000 + round * 100 + seed, 524_288);
            // Where readers still hold the place there is less of it.
            let status = client.request("POST", "/", &[], &other).status;
            assert!(status == 201 || status == 507, "{status}");
            client.request("DELETE", &format!("/{}", name(&other)), &[], b"");
        }
        for reader in &mut readers {
            let reply = reader.read_reply(false).unwrap();
            // The block may have been removed before a reader was heard.
            assert!(reply.status == 404 || reply.body == block, "{}", reply.status);
        }
    }
    server.stop();
    check(&data);
}
