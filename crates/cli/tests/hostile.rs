//! Clients that are slow, stuck or rude, beside one that is well-behaved: it must not notice them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::time::Duration;
use support::{BLOCK_BYTES_MAX, Client, Server, bytes, check, directory, name};

/// A server whose timeouts are longer than this test, so that nothing is resolved by waiting.
fn patient_server(options: &[&str]) -> (tempfile::TempDir, Server) {
    let directory = directory();
    let timeouts =
        ["--body-timeout", "10min", "--head-timeout", "10min", "--idle-timeout", "10min", "--drain-timeout", "1s"];
    let server = Server::start(&directory.path().join("data"), &[&timeouts, options].concat());
    (directory, server)
}

/// A client for which not to be answered is a failure.
fn impatient(server: &Server) -> Client {
    let client = server.connect();
    client.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client
}

fn get(body: &[u8]) -> Vec<u8> {
    format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", name(body)).into_bytes()
}

/// Sends without waiting: what the server does not take is not sent.
fn send_some(client: &mut Client, bytes: &[u8]) {
    use std::io::Write;
    client.stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    let _ = client.stream.write_all(bytes);
}

#[test]
fn a_client_that_does_not_read_holds_back_no_extents() {
    let (_directory, server) = patient_server(&["--capacity", "64MiB"]);
    let (small, large) = (bytes(1, 32_768), bytes(2, BLOCK_BYTES_MAX));
    let mut client = impatient(&server);
    for body in [&small, &large] {
        client.request("PUT", "/", &[], body);
        // So that it is cached.
        assert!(client.request("GET", &format!("/{}", name(body)), &[], b"").body == **body);
    }
    let mut deaf: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for (number, client) in deaf.iter_mut().enumerate() {
        let body = if number % 2 == 0 { &small } else { &large };
        send_some(client, &get(body).repeat(400));
    }
    std::thread::sleep(Duration::from_millis(1500));
    for seed in 0..1000 {
        let body = bytes(1000 + seed, 100_000);
        assert_eq!(client.request("PUT", "/", &[], &body).status, 200, "number {seed}");
        assert_eq!(client.request("DELETE", &format!("/{}", name(&body)), &[], b"").status, 204);
    }
    let data = server.data.clone();
    server.stop();
    check(&data);
}

#[test]
fn clients_that_pipeline_and_do_not_read_do_not_silence_a_worker() {
    let (_directory, server) = patient_server(&["--workers", "2"]);
    let large = bytes(2, BLOCK_BYTES_MAX);
    impatient(&server).request("PUT", "/", &[], &large);
    let mut deaf: Vec<_> = (0..140).map(|_| server.connect()).collect();
    for client in &mut deaf {
        send_some(client, &get(&large).repeat(30));
    }
    for seed in 0..8 {
        let mut client = impatient(&server);
        assert_eq!(client.request("GET", "/-/health", &[], b"").status, 200);
        let body = bytes(seed, 10_000);
        assert_eq!(client.request("PUT", "/", &[], &body).status, 200);
    }
}

#[test]
fn uploads_that_do_not_begin_take_nothing_from_others() {
    let (_directory, server) = patient_server(&["--workers", "2", "--buffer-memory", "4MiB"]);
    let mut stalled = Vec::new();
    for number in 0..200 {
        let mut client = server.connect();
        let framing = if number % 2 == 0 { "Transfer-Encoding: chunked" } else { "Content-Length: 500000" };
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes());
        stalled.push(client);
    }
    // And some that have begun, and take all the memory that uploads may have.
    for _ in 0..20 {
        let mut client = server.connect();
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\nx");
        stalled.push(client);
    }
    let body = bytes(1, 300_000);
    let mut client = impatient(&server);
    assert_eq!(client.request("GET", "/-/health", &[], b"").status, 200);
    assert_eq!(
        client.request("GET", &format!("/{}", name(&body)), &[], b"").status,
        404,
        "reads have memory of their own"
    );
    drop(stalled);
    assert_eq!(client.request("PUT", "/", &[], &body).status, 200);
    assert!(client.request("GET", &format!("/{}", name(&body)), &[], b"").body == body);
}

#[test]
fn a_reply_is_not_lost_when_the_server_ends_a_connection_with_requests_unread() {
    let (_directory, server) = patient_server(&[]);
    let large = bytes(2, BLOCK_BYTES_MAX);
    impatient(&server).request("PUT", "/", &[], &large);
    for _ in 0..10 {
        let mut client = impatient(&server);
        let mut requests =
            format!("GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", name(&large)).into_bytes();
        requests.extend(get(&large).repeat(1000));
        client.send(&requests);
        assert!(client.read_reply(false).unwrap().body == large);
        assert!(client.is_at_end());
    }
}

#[test]
fn connections_are_spread_over_the_workers() {
    let (_directory, server) = patient_server(&["--workers", "4"]);
    let mut clients: Vec<_> = (0..12).map(|_| impatient(&server)).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/-/health", &[], b"").status, 200);
    }
    let stats = clients[0].request("GET", "/-/stats", &[], b"").text();
    let json: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let counts: Vec<_> =
        json["worker_connections"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).collect();
    assert_eq!(counts.iter().sum::<u64>(), 12);
    assert!(counts.iter().all(|count| (2..=4).contains(count)), "{counts:?}");
}

#[test]
fn a_server_that_stops_cuts_off_who_does_not_finish() {
    let (_directory, mut server) = patient_server(&[]);
    let mut stuck = server.connect();
    stuck.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
    std::thread::sleep(Duration::from_millis(100));
    server.signal("-TERM");
    assert!(server.wait().success());
    assert!(server.log().contains("cut off"), "{}", server.log());
}

/// No descriptors are left: who is connected is served, who is not waits, and when descriptors are free again all is as before.
#[test]
fn a_server_out_of_descriptors_serves_who_is_connected_and_recovers() {
    let (_directory, server) = patient_server(&[]);
    let mut client = server.connect();
    assert_eq!(client.request("PUT", "/", &[], b"before").status, 200);
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    let limit = format!("--nofile={0}:{0}", open + 10);
    let limited = std::process::Command::new("prlimit").args(["--pid", &server.pid().to_string(), &limit]).status();
    assert!(limited.unwrap().success());
    let crowd: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for round in 0..50u8 {
        let body = [round; 5000];
        assert_eq!(client.request("POST", "/", &[], &body).status, 201);
        assert!(client.request("GET", &format!("/{}", name(&body)), &[], b"").body == body);
    }
    drop(crowd);
    for round in 0..50u8 {
        assert_eq!(server.connect().request("POST", "/", &[], &[round; 5000]).status, 200);
    }
    server.stop();
}
