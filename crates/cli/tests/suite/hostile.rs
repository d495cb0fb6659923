//! Clients that are slow, stuck or rude, beside one that is well-behaved: it must not notice them.

use crate::support::{
    BLOCK_BYTES_MAX, Client, Reply, Server, bytes, check, directory, memory_kib, name, narrow, wait_until_stopped,
};
use std::io::Write;
use std::time::Duration;

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

/// There are fewer pipes for large replies than clients here, and none of them reads. Others get their replies all the same; the block is
/// deleted and its place used again. Some of them leave; the others read what is on its way, and every byte is the block's.
#[test]
fn large_replies_arrive_whole_whoever_holds_the_pipes() {
    let (_directory, server) = patient_server(&["--workers", "1", "--capacity", "64MiB"]);
    let large = bytes(2, BLOCK_BYTES_MAX);
    let mut client = impatient(&server);
    client.put_block(&large);
    for _ in 0..3 {
        client.get_block(&large);
    }
    let mut deaf: Vec<_> = (0..100).map(|_| impatient(&server)).collect();
    for client in &mut deaf {
        client.send(&get(&large).repeat(30));
    }
    for _ in 0..10 {
        client.get_block(&large);
    }
    assert_eq!(client.request("DELETE", &format!("/{}", name(&large)), &[], b"").status, 204);
    for seed in 0..400 {
        let body = bytes(1000 + seed, BLOCK_BYTES_MAX);
        client.put_block(&body);
        assert_eq!(client.request("DELETE", &format!("/{}", name(&body)), &[], b"").status, 204);
    }
    // What was on its way to them must not come to others.
    drop(deaf.drain(..20));
    client.put_block(&large);
    for _ in 0..100 {
        client.get_block(&large);
    }
    assert_eq!(client.request("DELETE", &format!("/{}", name(&large)), &[], b"").status, 204);
    for client in &mut deaf {
        let statuses = (0..30).map(|_| {
            let reply = client.read_reply(false).unwrap();
            assert!(reply.status == 404 || reply.body == large, "{}", reply.status);
            reply.status
        });
        let statuses: Vec<_> = statuses.collect();
        assert!(statuses.is_sorted() && statuses[0] == 200, "{statuses:?}");
    }
    // The pipes are empty again.
    client.put_block(&large);
    for _ in 0..3 {
        client.get_block(&large);
    }
    for client in &mut deaf {
        client.get_block(&large);
    }
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

/// Small blocks are copied into buffers of which there are few: clients that leave their replies unread must not have them all.
#[test]
fn clients_that_do_not_read_small_replies_leave_memory_for_others() {
    let (_directory, server) = patient_server(&["--workers", "1", "--buffer-memory", "2MiB"]);
    let small = bytes(2, 32_768);
    impatient(&server).request("PUT", "/", &[], &small);
    let mut deaf: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for client in &mut deaf {
        // As much as the system takes for it, and more: that takes a while.
        send_some(client, &get(&small).repeat(400));
    }
    for seed in 0..8 {
        std::thread::sleep(Duration::from_millis(500));
        let mut client = impatient(&server);
        assert!(client.request("GET", &format!("/{}", name(&small)), &[], b"").body == small);
        let body = bytes(seed, 10_000);
        assert_eq!(client.request("PUT", "/", &[], &body).status, 200);
    }
}

/// A client that does not read an answer holds it once, not also what it was made from.
#[test]
fn metrics_that_are_not_read_are_held_once() {
    const CLIENTS: u64 = 60;
    let (_directory, server) = patient_server(&["--workers", "1"]);
    let mut client = impatient(&server);
    let bytes = client.request("GET", "/-/metrics", &[], b"").body.len() as u64;
    let before = memory_kib(&server) * 1024;
    let deaf: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = narrow(server.address);
            // More than the system takes.
            client.write_all("GET /-/metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(150).as_bytes()).unwrap();
            client
        })
        .collect();
    // As long as some of it is taken, answers are made.
    let mut requests = 0;
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let metrics = client.request("GET", "/-/metrics", &[], b"").text();
        let (_, count) = metrics.split_once("buddy_http_requests_total{method=\"GET\",status=\"200\"} ").unwrap();
        let count: u64 = count.lines().next().unwrap().parse().unwrap();
        if count == requests + 1 {
            break;
        }
        requests = count;
    }
    let each = (memory_kib(&server) * 1024 - before) / CLIENTS;
    drop(deaf);
    // The answer, the requests behind it, and room that the allocator keeps between them; with its source it was 3.7 times as much.
    assert!(each < bytes * 3, "{each} bytes for an answer of {bytes}");
}

/// Bytes that the system keeps for a client, as `/proc/net/tcp` tells.
fn queued_bytes(server: &Server, client: &Client) -> u64 {
    let port = |address: std::net::SocketAddr| format!(":{:04X}", address.port());
    let (own, peer) = (port(server.address), port(client.stream.local_addr().unwrap()));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let columns = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = columns.into_iter().find(|row| row[1].ends_with(&own) && row[2].ends_with(&peer)).unwrap();
    u64::from_str_radix(row[4].split(':').next().unwrap(), 16).unwrap()
}

#[test]
fn the_system_queues_little_for_a_client_that_does_not_read() {
    let (_directory, server) = patient_server(&[]);
    let large = bytes(2, BLOCK_BYTES_MAX);
    impatient(&server).request("PUT", "/", &[], &large);
    let mut deaf = server.connect();
    send_some(&mut deaf, &get(&large).repeat(40));
    let (mut queued, mut before) = (queued_bytes(&server, &deaf), 0);
    while queued == 0 || queued != before {
        std::thread::sleep(Duration::from_millis(300));
        (before, queued) = (queued, queued_bytes(&server, &deaf));
    }
    assert!(queued < 1 << 20, "{queued} bytes");
}

/// Reads a little every now and then, so that there is always some progress.
fn trickle(client: &mut Client) -> std::time::Duration {
    use std::io::Read;
    let began = std::time::Instant::now();
    // The system tells the sender of what it has taken in steps of 64 KiB.
    let mut bytes = vec![0; 30_000];
    while client.stream.read(&mut bytes).is_ok_and(|read| read > 0) && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(100));
    }
    began.elapsed()
}

#[test]
fn clients_that_read_or_send_too_slowly_on_the_whole_are_given_up() {
    let directory = directory();
    let options = ["--body-timeout", "1s", "--min-transfer-rate", "1MiB"];
    let server = Server::start(&directory.path().join("data"), &options);
    let large = bytes(2, BLOCK_BYTES_MAX);
    impatient(&server).request("PUT", "/", &[], &large);
    let mut reader = server.connect();
    // Many more than the system takes for it.
    send_some(&mut reader, &get(&large).repeat(40));
    let mut sender = server.connect();
    sender.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n");
    let sending = std::thread::spawn(move || {
        for _ in 0..200 {
            if sender.stream.write_all(b"x").is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        sender.read_reply(false)
    });
    std::thread::spawn(move || trickle(&mut reader));
    server.wait_for_stat("connections", |connections| connections <= 1);
    // Sent to while it is refused a client may lose the refusal.
    if let Some(reply) = sending.join().unwrap() {
        let (_, rest) = reply.text().split_once("after ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let bytes: u32 = rest.split(' ').next().unwrap().parse().unwrap();
        assert!(reply.status == 408 && bytes < 150, "{}", reply.text());
    }
}

#[test]
fn heads_that_come_byte_by_byte_are_read() {
    let (_directory, server) = patient_server(&[]);
    let mut client = impatient(&server);
    let fields: String = (0..60).map(|number| format!("X-{number}: {}\r\n", "y".repeat(20))).collect();
    let request = format!("GET /-/health HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    for byte in request.as_bytes() {
        client.send(&[*byte]);
    }
    assert_eq!(client.read_reply(false).unwrap().text(), "ok\n");
    assert_eq!(client.request("GET", "/-/health", &[], b"").status, 200);
}

/// A client on another loopback address.
fn connect_from(server: &Server, address: [u8; 4]) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&server.address.into()).unwrap();
    Client::new(socket.into())
}

#[test]
fn one_peer_cannot_take_the_connections_of_others() {
    let (_directory, server) = patient_server(&["--workers", "2", "--max-connections-per-peer", "3"]);
    let mut greedy: Vec<_> = (0..3).map(|_| connect_from(&server, [127, 0, 0, 2])).collect();
    for client in &mut greedy {
        assert_eq!(client.request("GET", "/-/health", &[], b"").status, 200);
    }
    for _ in 0..20 {
        let reply = connect_from(&server, [127, 0, 0, 2]).read_reply(false).unwrap();
        assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
        assert!(reply.text().contains("3 connections from 127.0.0.2"), "{}", reply.text());
    }
    assert_eq!(connect_from(&server, [127, 0, 0, 3]).request("GET", "/-/health", &[], b"").status, 200);
    // However they end, they make room.
    drop(greedy.pop());
    server.wait_for_stat("connections", |connections| connections == 3);
    assert_eq!(connect_from(&server, [127, 0, 0, 2]).request("GET", "/-/health", &[], b"").status, 200);
}

#[test]
fn a_connection_ends_after_as_many_requests_as_it_may_have() {
    let (_directory, server) = patient_server(&["--max-requests-per-connection", "3", "--max-head-size", "2KiB"]);
    let mut client = impatient(&server);
    client.send(&get(b"x").repeat(5));
    for last in [false, false, true] {
        let reply = client.read_reply(false).unwrap();
        assert_eq!((reply.status, reply.header("connection") == "close"), (404, last));
    }
    assert!(client.is_at_end());
    let mut client = impatient(&server);
    assert_eq!(client.request("GET", "/-/health", &[&format!("Long: {}", "x".repeat(2048))], b"").status, 431);
}

/// A request for missing names, cut off at each of its bytes by a reset or by half of a farewell: the memory that it had is free
/// again, of which a block needs much.
#[test]
fn names_that_are_cut_off_at_any_byte_leave_nothing_behind() {
    let (_directory, server) = patient_server(&["--workers", "1", "--buffer-memory", "2MiB"]);
    let lines = format!("{}\n", name(b"x")).repeat(4);
    let length = lines.len();
    let request = format!(
        "POST /-/missing HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{lines}"
    );
    for cut in 0..request.len() {
        let mut client = server.connect();
        client.send(&request.as_bytes()[..cut]);
        if cut % 2 == 0 {
            socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        } else {
            client.stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(client.read_reply(false).is_none(), "half a request has no answer");
        }
    }
    // Each would have kept a page of the memory for uploads.
    server.wait_for_stat("connections", |connections| connections == 1);
    let mut client = impatient(&server);
    for seed in 0..4 {
        assert_eq!(client.request("PUT", "/", &[], &bytes(seed, BLOCK_BYTES_MAX)).status, 200);
    }
}

/// Two workers' worth of look-ups under way, and requests beside them that are answered in between.
#[test]
fn looking_many_names_up_does_not_hold_others_up() {
    let (_directory, server) = patient_server(&["--workers", "1"]);
    let names = bytes(5, 32 * 16_384);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, names, stop) = (impatient(&server), names.clone(), std::sync::Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut answers = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) || answers == 0 {
                    let reply =
                        client.request("POST", "/-/missing", &["Content-Type: application/octet-stream"], &names);
                    assert!(reply.body == names, "none of them is stored");
                    answers += 1;
                }
            })
        })
        .collect();
    let mut client = impatient(&server);
    for number in 0..100u32 {
        let body = number.to_le_bytes();
        assert_eq!(client.request("PUT", "/", &[], &body).status, 200);
        assert!(client.request("GET", &format!("/{}", name(&body)), &[], b"").body == body);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    asking.into_iter().for_each(|thread| thread.join().unwrap());
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
    server.wait_for_body();
    server.signal("-TERM");
    assert!(server.wait().success());
    assert!(server.log().contains("cut off"), "{}", server.log());
}

/// Head and pages of a cached block go to a socket that has room without a wait: whoever asks for many at once gets one a turn all the
/// same, and another client, whose request arrives right behind, is answered before the rest.
#[test]
fn a_client_that_asks_for_much_at_once_lets_others_have_their_turn() {
    const ASKED: u8 = 20;
    let (_directory, server) = patient_server(&["--workers", "1"]);
    let (body, large) = (bytes(1, 40_000), bytes(2, BLOCK_BYTES_MAX));
    let (mut greedy, mut other) = (impatient(&server), impatient(&server));
    for body in [&body, &large] {
        greedy.put_block(body);
        // So that it is cached, and that the client's system has room for what follows.
        (0..20).for_each(|_| greedy.get_block(body));
    }
    let gets = |metrics: &Reply| metrics.sum_of("buddy_http_requests_total{method=\"GET\",status=\"200\"}");
    let before = gets(&other.request("GET", "/-/metrics", &[], b""));
    server.signal("-STOP");
    wait_until_stopped(&server);
    greedy.send(&get(&body).repeat(ASKED.into()));
    other.send(b"GET /-/metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    server.signal("-CONT");
    let meanwhile = gets(&other.read_reply(false).unwrap()) - before;
    assert!(meanwhile < u64::from(ASKED) / 4, "{meanwhile} replies went first");
    (0..ASKED).for_each(|_| greedy.read_reply(false).unwrap().assert_block(&body));
    server.stop();
}

/// A client that writes all of its request before it reads is not cut off in the middle, however long it takes to send what was refused.
#[test]
fn who_goes_on_sending_what_was_refused_can_read_why() {
    let (_directory, server) = patient_server(&[]);
    let body = bytes(1, 400_000);
    impatient(&server).put_block(&body);
    let mut slow = server.connect();
    let (path, length) = (name(&body), body.len());
    let head = format!("PUT /{path} HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\nContent-Length: {length}\r\n\r\n");
    slow.send(head.as_bytes());
    for piece in body.chunks(16_000) {
        slow.send(piece);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(slow.read_reply(false).unwrap().status, 412);
    server.stop();
}
