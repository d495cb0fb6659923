//! The HTTP contract, over real sockets against a real server: what a client can count on.

use crate::support::{BLOCK_BYTES_MAX, Client, Reply, Server, bytes, check, directory, name, wait_for};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

fn server() -> (tempfile::TempDir, Server) {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"), &["--workers", "2"]);
    (directory, server)
}

fn sizes() -> Vec<usize> {
    let borders = (0..8).map(|class| 4096usize << class);
    let mut sizes: Vec<_> = borders.flat_map(|border| [border - 1, border, border + 1]).collect();
    sizes.retain(|size| *size <= BLOCK_BYTES_MAX);
    sizes.extend([0, 1, 2, 511, 512, 513]);
    let mut random = fastrand::Rng::with_seed(11);
    sizes.extend((0..40).map(|_| random.usize(0..=BLOCK_BYTES_MAX)));
    sizes
}

fn assert_block(reply: &Reply, body: &[u8]) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.body == body, "other bytes than those stored");
    assert_eq!(reply.header("etag"), format!("\"{}\"", name(body)));
    assert_eq!(reply.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(reply.header("content-type"), "application/octet-stream");
    assert!(reply.header("date").ends_with(" GMT"));
}

/// Every class border and random sizes, through each of the three write forms (and chunked), come out identical.
fn round_trip(client: &mut dyn FnMut() -> Client, seed: u64) {
    for (number, size) in sizes().into_iter().enumerate() {
        let mut client = client();
        let (first, second, third) = (bytes(seed, size), bytes(seed + 1, size), bytes(seed + 2, size));
        let reply = client.request("PUT", "/", &[], &first);
        assert_eq!((reply.status, reply.text()), (200, name(&first)), "the bare name and nothing else");
        assert_eq!(reply.header("content-type"), "text/plain");
        let path = format!("/{}", name(&second));
        let status = client.request("PUT", &path, &[], &second).status;
        assert!(status == 201 || (status == 200 && size < 3), "{status}");
        assert_eq!(client.request("PUT", &path, &[], &second).status, 200);
        let reply = if number % 2 == 0 {
            client.request("POST", "/", &[], &third)
        } else {
            client.put_chunked("POST", "/", &third, 1 + size / 3)
        };
        assert!(reply.status == 201 || (reply.status == 200 && size < 3), "{}", reply.status);
        assert_eq!((reply.header("location"), reply.text()), (&*format!("/{}", name(&third)), name(&third)));
        assert_eq!(client.request("POST", "/", &[], &third).status, 200);
        for body in [&first, &second, &third] {
            let path = format!("/{}", name(body));
            assert_block(&client.request("GET", &path, &[], b""), body);
            let head = client.request("HEAD", &path.to_uppercase(), &[], b"");
            assert_eq!((head.status, head.header("content-length")), (200, &*size.to_string()));
        }
    }
}

#[test]
fn every_size_survives_over_one_connection_and_over_many() {
    let (_directory, server) = server();
    let mut client = server.connect();
    for (number, size) in sizes().into_iter().enumerate() {
        let body = bytes(1000 + number as u64, size);
        assert_eq!(client.request("PUT", "/", &[], &body).text(), name(&body));
        assert_block(&client.request("GET", &format!("/{}", name(&body)), &[], b""), &body);
    }
    round_trip(&mut || server.connect(), 50_000);
    let data = server.data.clone();
    server.stop();
    check(&data);
}

#[test]
fn a_block_that_is_too_large_is_refused_from_its_head() {
    let (_directory, server) = server();
    let mut client = server.connect();
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", BLOCK_BYTES_MAX + 1).as_bytes());
    // Nothing of the body was sent.
    let reply = client.read_reply(false).unwrap();
    assert_eq!(reply.status, 413);
    assert!(reply.text().contains("524289") && reply.text().contains("524288"), "{}", reply.text());
    assert!(client.is_at_end());
    let reply = server.connect().request("PUT", "/", &["Expect: 100-continue"], &bytes(1, BLOCK_BYTES_MAX + 1));
    assert_eq!(reply.status, 413);
    let reply = server.connect().put_chunked("PUT", "/", &bytes(1, BLOCK_BYTES_MAX + 1), 60_000);
    assert_eq!(reply.status, 413);
    assert_eq!(server.stat("blocks"), 0);
}

#[test]
fn the_empty_block_touches_nobody_else() {
    let (_directory, server) = server();
    let mut client = server.connect();
    let other = bytes(1, 5000);
    client.request("PUT", "/", &[], &other);
    let empty = format!("/{}", name(b""));
    assert_eq!(client.request("PUT", &empty, &[], b"").status, 201);
    assert_block(&client.request("GET", &empty, &[], b""), b"");
    assert_eq!((server.stat("blocks"), server.stat("bytes_allocated")), (2, 8192));
    assert_eq!(client.request("DELETE", &empty, &[], b"").status, 204);
    assert_eq!(client.request("GET", &empty, &[], b"").status, 404);
    assert_eq!(client.request("POST", "/", &["X: y"], b"").status, 201);
    assert_block(&client.request("GET", &format!("/{}", name(&other)), &[], b""), &other);
    let data = server.data.clone();
    server.stop();
    check(&data);
}

/// What the Zig original's clients do.
#[test]
fn clients_of_the_original_work_unchanged() {
    let (_directory, server) = server();
    let mut client = server.connect();
    let body = b"hello";
    let reply = client.request("PUT", "/", &[], body);
    assert_eq!((reply.status, &reply.body[..]), (200, name(body).as_bytes()));
    let path = format!("/{}", reply.text());
    assert_eq!(client.request("GET", &path, &[], b"").body, body);
    let deleted = client.request("DELETE", &path, &[], b"").status;
    assert!((200..300).contains(&deleted));
    assert_eq!(client.request("GET", &path, &[], b"").status, 404);
}

#[test]
fn errors_are_problem_details_that_name_the_value_and_the_limit() {
    let (_directory, server) = server();
    let mut client = server.connect();
    let absent = format!("/{}", name(b"nowhere"));
    let cases: &[(&str, &str, &[u8], u16, &str)] = &[
        ("GET", "/abc", b"", 400, "64 hex digits"),
        ("GET", &format!("{absent}0"), b"", 400, "65 characters"),
        ("PUT", "/xyz", b"body", 400, "64 hex digits"),
        ("GET", &absent, b"", 404, "there is no block"),
        ("HEAD", &absent, b"", 404, ""),
        ("DELETE", &absent, b"", 404, "there is no block"),
        ("GET", "/a/b", b"", 404, "/a/b"),
        ("GET", "/-/nothing", b"", 404, "/-/nothing"),
        ("PUT", &absent, b"other", 422, "nothing was stored"),
        ("GET", "/", b"", 405, "PUT, POST"),
        ("POST", &absent, b"x", 405, "GET, HEAD, PUT, DELETE"),
        ("BREW", &absent, b"", 405, "GET, HEAD, PUT, DELETE"),
        ("DELETE", "/-/stats", b"", 405, "GET, HEAD"),
        ("GET", &absent, b"a body that means nothing", 404, "there is no block"),
    ];
    for (method, path, body, status, detail) in cases {
        let reply = client.request(method, path, &[], body);
        assert_eq!(reply.status, *status, "{method} {path}: {}", reply.text());
        assert_eq!(reply.header("content-type"), "application/problem+json");
        assert!(reply.text().contains(detail), "{method} {path}: {}", reply.text());
        if *status == 405 {
            assert!(reply.text().contains(reply.header("allow")) && !reply.header("allow").is_empty());
        }
    }
    // The connection has survived all of them.
    assert_eq!(client.request("GET", "/-/health", &[], b"").text(), "ok\n");
    assert_eq!(server.stat("blocks"), 0);
}

#[test]
fn malformed_requests_are_refused_and_end_the_connection() {
    let (_directory, server) = server();
    let hash = name(b"x");
    let cases: &[(String, u16)] = &[
        ("nonsense\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".into(), 505),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx".into(), 400),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n".into(), 400),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".into(), 501),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n".into(), 400),
        ("PUT / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\nx".into(), 417),
        (format!("GET /{hash} HTTP/1.1\r\nHost: a\r\nLong: {}\r\n\r\n", "x".repeat(17_000)), 431),
        (format!("GET /{hash} HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(100)), 431),
    ];
    for (request, status) in cases {
        let mut client = server.connect();
        client.send(request.as_bytes());
        let reply = client.read_reply(false).unwrap();
        assert_eq!(reply.status, *status, "{request:.60}: {}", reply.text());
        assert_eq!(reply.header("connection"), "close");
        assert!(client.is_at_end());
    }
    let mut client = server.connect();
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\n\r\nGET /-/health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_reply(false).unwrap().status, 411);
    assert!(client.is_at_end(), "what follows may be a body, and is not taken for a request");
}

#[test]
fn requests_may_be_pipelined_and_are_answered_in_order() {
    let (_directory, server) = server();
    let mut client = server.connect();
    let bodies: Vec<_> = (0..20).map(|number| bytes(number, 1 + 997 * usize::try_from(number).unwrap())).collect();
    let mut stream = Vec::new();
    for body in &bodies {
        stream.extend(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).bytes());
        stream.extend(body);
        stream.extend(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", name(body)).bytes());
        stream.extend(
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n",
        );
    }
    // In pieces that cut heads and bodies anywhere.
    let mut sender = client.stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(5);
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.usize(1..=rest.len().min(9000)));
            sender.write_all(piece).unwrap();
            rest = after;
        }
    });
    for body in &bodies {
        assert_eq!(client.read_reply(false).unwrap().text(), name(body));
        assert_block(&client.read_reply(false).unwrap(), body);
        assert_eq!(client.read_reply(false).unwrap().text(), name(b"abc"));
    }
    writer.join().unwrap();
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_and_one_that_does_not_wait_needs_none() {
    let (_directory, server) = server();
    let mut client = server.connect();
    let body = bytes(3, 100_000);
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(head.as_bytes());
    assert_eq!(client.read_reply(false).unwrap().status, 100);
    client.send(&body);
    assert_eq!(client.read_reply(false).unwrap().text(), name(&body));
    let reply = client.request("PUT", "/abc", &["Expect: 100-continue"], b"");
    assert_eq!(reply.status, 400, "refused without asking for the body");
    let mut client = server.connect();
    let mut all = head.into_bytes();
    all.extend(&body);
    client.send(&all);
    let reply = client.read_reply(false).unwrap();
    let reply = if reply.status == 100 { client.read_reply(false).unwrap() } else { reply };
    assert_eq!(reply.text(), name(&body));
}

#[test]
fn connections_are_kept_and_closed_as_the_client_asks() {
    let (_directory, server) = server();
    let mut client = server.connect();
    assert_eq!(client.request("GET", "/-/health", &["Connection: close"], b"").header("connection"), "close");
    assert!(client.is_at_end());
    let mut client = server.connect();
    client.send(b"GET /-/health HTTP/1.0\r\n\r\n");
    assert_eq!(client.read_reply(false).unwrap().status, 200);
    assert!(client.is_at_end());
    let mut client = server.connect();
    client.send(b"GET /-/health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.read_reply(false).unwrap().header("connection"), "keep-alive");
    client.send(b"GET http://example/-/ready?x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_reply(false).unwrap().text(), "ready\n");
}

/// A PUT cut off at each of its bytes: nothing is stored, leaked or held.
#[test]
fn a_connection_lost_at_any_byte_leaves_nothing_behind() {
    let (_directory, server) = server();
    let held = server.stat("bytes_held");
    let body = bytes(9, 300);
    for chunked in [false, true] {
        let mut request = if chunked {
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n12c\r\n".to_vec()
        } else {
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 300\r\n\r\n".to_vec()
        };
        request.extend(&body);
        if chunked {
            request.extend(b"\r\n0\r\n\r\n");
        }
        for cut in 0..request.len() {
            let mut client = server.connect();
            client.send(&request[..cut]);
            match cut % 3 {
                0 => drop(client),
                1 => client.stream.shutdown(Shutdown::Both).unwrap(),
                _ => {
                    // Half-closed: the server sees the end and has nothing to answer.
                    client.stream.shutdown(Shutdown::Write).unwrap();
                    let mut rest = Vec::new();
                    let _ = client.stream.read_to_end(&mut rest);
                    assert!(!rest.starts_with(b"HTTP/1.1 2"), "cut at {cut}");
                }
            }
        }
    }
    server.wait_for_stat("connections", |connections| connections == 1);
    assert_eq!(server.stat("blocks"), 0);
    server.wait_for_stat("bytes_held", |now| now <= held);
    let data = server.data.clone();
    server.stop();
    check(&data);
}

#[test]
fn a_client_that_stops_sending_or_reading_is_given_up() {
    let directory = directory();
    let timeouts = ["--head-timeout", "300ms", "--body-timeout", "300ms", "--idle-timeout", "300ms"];
    let server = Server::start(&directory.path().join("data"), &timeouts);
    let mut idle = server.connect();
    assert!(idle.is_at_end(), "closed without a word");
    let mut slow_head = server.connect();
    slow_head.send(b"GET / HT");
    assert_eq!(slow_head.read_reply(false).unwrap().status, 408);
    let mut slow_body = server.connect();
    slow_body.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    let reply = slow_body.read_reply(false).unwrap();
    assert_eq!(reply.status, 408);
    assert!(reply.text().contains("after 3 bytes"), "{}", reply.text());
    let mut slow_in_vain = server.connect();
    slow_in_vain.send(b"GET /-/health HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    let reply = slow_in_vain.read_reply(false).unwrap();
    assert_eq!(reply.status, 408, "{}", reply.text());
    assert!(reply.text().contains("after 3 bytes"), "{}", reply.text());
    let body = bytes(1, BLOCK_BYTES_MAX);
    let mut writer = server.connect();
    writer.request("PUT", "/", &[], &body);
    let mut deaf = server.connect();
    for _ in 0..64 {
        deaf.send(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", name(&body)).as_bytes());
    }
    // All are gone but the one that asks.
    server.wait_for_stat("connections", |connections| connections == 1);
    let mut steady = server.connect();
    for _ in 0..8 {
        steady.send(b"GET /-/hea");
        std::thread::sleep(Duration::from_millis(100));
        steady.send(b"lth HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(steady.read_reply(false).unwrap().status, 200, "slow, but within each limit");
    }
}

#[test]
fn more_connections_than_allowed_are_told_to_come_back() {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"), &["--max-connections", "4", "--workers", "2"]);
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/-/health", &[], b"").status, 200);
    }
    let mut fifth = server.connect();
    let reply = fifth.read_reply(false).unwrap();
    assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
    clients.pop();
    let ask = || server.connect().try_request("GET", "/-/health", &[], b"");
    wait_for("a place", || ask().filter(|reply| reply.status == 200));
}

#[test]
fn stats_hold_what_the_contract_names() {
    let (_directory, server) = server();
    let mut client = server.connect();
    client.request("PUT", "/", &[], &bytes(1, 5000));
    let stats = client.request("GET", "/-/stats", &[], b"");
    assert_eq!(stats.header("content-type"), "application/json");
    let json: serde_json::Value = serde_json::from_slice(&stats.body).unwrap();
    for (field, value) in [("blocks", 1), ("bytes_stored", 5000), ("bytes_allocated", 8192), ("connections", 1)] {
        assert_eq!(json[field], value, "{field}");
    }
    for field in [
        "bytes_held",
        "bytes_free",
        "file_bytes",
        "quarantined_extents",
        "names_active",
        "names_sealed",
        "journal_bytes_used",
        "checkpoints",
        "uptime_s",
        "format_version",
    ] {
        assert!(json[field].is_u64(), "{field}: {}", json[field]);
    }
    assert_eq!(json["free_extents"].as_array().unwrap().len(), 8);
    assert!(json["capacity_bytes"].is_null() && json["version"].is_string());
    assert_eq!(json["durability"], "sync");
    let sum =
        ["bytes_held", "bytes_free", "bytes_allocated"].iter().map(|field| json[*field].as_u64().unwrap()).sum::<u64>();
    assert_eq!(json["file_bytes"], sum);
}

/// A small body that means nothing is passed over, however it is framed, and the connection goes on.
#[test]
fn bodies_that_mean_nothing_are_passed_over() {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"), &[]);
    let mut client = server.connect();
    for body in [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        client.send(format!("GET /-/health HTTP/1.1\r\nHost: a\r\n{body}").as_bytes());
        assert_eq!(client.read_reply(false).unwrap().status, 200, "{body}");
        client.send(format!("DELETE /{} HTTP/1.1\r\nHost: a\r\n{body}", name(b"absent")).as_bytes());
        assert_eq!(client.read_reply(false).unwrap().status, 404, "{body}");
    }
    client.send(b"GET /-/health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n");
    client.send(&[b'x'; 0x10001]);
    let reply = client.read_reply(false).unwrap();
    assert!(reply.status == 400 && reply.text().contains("too large to be passed over"), "{}", reply.text());
    assert!(client.is_at_end());
}
