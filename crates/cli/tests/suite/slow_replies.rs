//! Replies to clients that take them slowly: begun, and not to be finished as they began.

use crate::support::tls::{self, Identity, exchange};
use crate::support::{BLOCK_BYTES_MAX, Client, Server, bytes, directory, name, narrow, narrow_network, wait_for};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

fn get(body: &[u8]) -> Vec<u8> {
    format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", name(body)).into_bytes()
}

/// A reply that has begun and cannot be finished ends the connection: what was said instead would be taken for bytes of the block.
/// Only root can have sockets that take less than such a reply at a time.
#[test]
fn a_reply_that_cannot_be_finished_is_cut_off() {
    narrow_network::within(16 << 10, || {
        let directory = directory();
        let options = [&LITTLE_MEMORY[..], &["--verify-reads", "all"]].concat();
        let server = Server::start(&directory.path().join("data"), &options);
        let large = bytes(1, BLOCK_BYTES_MAX);
        let blocks: Vec<_> = (0..10).map(|number| bytes(10 + number as u64, 32_700 - 391 * number)).collect();
        let mut client = server.connect();
        client.put_block(&large);
        blocks.iter().for_each(|body| client.put_block(body));
        // It takes half of the memory for replies, and reads nothing.
        let mut deaf = Client::new(narrow(server.address));
        deaf.send(&get(&large));
        wait_until_taken(&mut client, BLOCK_BYTES_MAX);
        let mut slow: Vec<_> = blocks.iter().map(|_| Client::new(narrow(server.address))).collect();
        slow.iter_mut().zip(&blocks).for_each(|(client, body)| client.send(&get(body).repeat(400)));
        slow.iter().for_each(|client| assert!(client.stream.peek(&mut [0]).unwrap() > 0));
        std::thread::sleep(Duration::from_millis(500));
        // The bytes change on the disk, so that they are not sent any more.
        let path = server.data.join("data");
        let (data, file) = (std::fs::read(&path).unwrap(), std::fs::File::options().write(true).open(&path).unwrap());
        for body in &blocks {
            let at = data.windows(64).step_by(4096).position(|window| window == &body[..64]).unwrap() * 4096;
            file.write_all_at(b"other bytes", at as u64).unwrap();
        }
        let cut_off: Vec<_> = slow.iter_mut().zip(&blocks).map(|(client, body)| is_cut_off(client, body)).collect();
        assert!(cut_off.contains(&true), "each reply was sent as a whole: nothing was tested");
    });
}

/// Waits until replies have at least so much memory.
fn wait_until_taken(client: &mut Client, bytes: usize) {
    let began = Instant::now();
    loop {
        let metrics = client.request("GET", "/-/metrics", &[], b"").text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("buddy_buffer_bytes{use=\"replies\"} ")).unwrap();
        if line.parse::<usize>().unwrap() >= bytes {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "they have not taken it");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Clients that ask for large blocks and read nothing have half of the memory for replies at most: others get theirs.
fn clients_that_do_not_read_leave_memory_for_others<C: Read + Write>(
    address: SocketAddr,
    connect: impl Fn(TcpStream) -> C,
) {
    let blocks = [BLOCK_BYTES_MAX, 300_000, 40_000, 5000].map(|length| bytes(length as u64, length));
    let mut client = connect(TcpStream::connect(address).unwrap());
    for body in &blocks {
        assert_eq!(exchange(&mut client, "PUT", "/", body).unwrap().0, 200);
    }
    let mut deaf: Vec<_> = (0..20).map(|_| connect(narrow(address))).collect();
    deaf.iter_mut().for_each(|client| client.write_all(&get(&blocks[0])).unwrap());
    std::thread::sleep(Duration::from_millis(500));
    let read = |client: &mut C, body: &Vec<u8>| {
        let (status, reply) = exchange(client, "GET", &format!("/{}", name(body)), b"").unwrap();
        assert!(status == 200 && reply == *body, "{status}, {} bytes", reply.len());
    };
    blocks.iter().cycle().take(20).for_each(|body| read(&mut client, body));
    // They listen at last, and get what they asked for first.
    deaf.iter_mut().for_each(|client| read(client, &blocks[0]));
}

const LITTLE_MEMORY: [&str; 6] = ["--workers", "1", "--buffer-memory", "4MiB", "--body-timeout", "10min"];

#[test]
fn clients_that_do_not_read_leave_memory_for_others_where_blocks_are_verified() {
    let directory = directory();
    let options = [&LITTLE_MEMORY[..], &["--verify-reads", "all"]].concat();
    let server = Server::start(&directory.path().join("data"), &options);
    clients_that_do_not_read_leave_memory_for_others(server.address, |stream| stream);
}

#[test]
fn clients_that_do_not_read_leave_memory_for_others_through_tls() {
    let directory = directory();
    let identity = Identity::new();
    let (certificate, key) = identity.write_to(directory.path());
    let files = ["--tls-certificate", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let options = [&LITTLE_MEMORY[..], &["--listen-tls", "127.0.0.1:0"], &files].concat();
    let server = Server::start(&directory.path().join("data"), &options);
    let address = server.addresses[1].strip_suffix(" (TLS)").unwrap().parse().unwrap();
    let config = identity.client_config();
    clients_that_do_not_read_leave_memory_for_others(address, |stream| tls::over(stream, &config));
}

/// What goes out a little at a time, to clients that take a little at a time, is what was asked for, byte by byte.
#[test]
fn slow_readers_get_every_byte_while_memory_is_scarce() {
    narrow_network::within(4608, || {
        let directory = directory();
        let options = [&LITTLE_MEMORY[..], &["--verify-reads", "all"]].concat();
        let server = Server::start(&directory.path().join("data"), &options);
        let blocks = [BLOCK_BYTES_MAX, 100_000, 32_768, 5000, 100].map(|length| bytes(length as u64, length));
        let mut client = server.connect();
        blocks.iter().for_each(|body| client.put_block(body));
        let mut deaf = narrow(server.address);
        deaf.write_all(&get(&blocks[0])).unwrap();
        wait_until_taken(&mut client, BLOCK_BYTES_MAX);
        std::thread::scope(|scope| {
            for seed in 0..24 {
                let (blocks, mut stream) = (&blocks, narrow(server.address));
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let asked: Vec<_> = (0..30).map(|_| &blocks[random.usize(1..blocks.len())]).collect();
                    stream.write_all(&asked.iter().flat_map(|body| get(body)).collect::<Vec<_>>()).unwrap();
                    let mut received = Vec::new();
                    for body in asked {
                        read_slowly(&mut stream, &mut received, &mut random, body);
                    }
                });
            }
        });
    });
}

/// Reads a reply, a little at a time, and takes it out of what was received.
fn read_slowly(stream: &mut TcpStream, received: &mut Vec<u8>, random: &mut fastrand::Rng, body: &[u8]) {
    loop {
        let head = received.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        if let Some(bytes) = head.map(|head| head + body.len())
            && received.len() >= bytes
        {
            assert!(received.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&received[..100]));
            assert!(received[bytes - body.len()..bytes] == *body, "other bytes in the place of {}", body.len());
            received.drain(..bytes);
            return;
        }
        let mut piece = vec![0; random.usize(1..8192)];
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "it was cut off");
        received.extend_from_slice(&piece[..count]);
        if random.u8(..) < 64 {
            std::thread::sleep(Duration::from_millis(random.u64(0..60)));
        }
    }
}

/// A refusal that is not taken keeps no buffer that heads are received in. Which of many replies leaves room for none of it, and is no longer
/// waited for, depends on the system: one will.
#[test]
fn refusals_that_are_not_read_leave_buffers_for_others() {
    narrow_network::within(16 << 10, || {
        let directory = directory();
        let options =
            ["--workers", "1", "--receive-buffers", "1", "--body-timeout", "10min", "--idle-timeout", "10min"];
        let server = Server::start(&directory.path().join("data"), &options);
        let mut deaf: Vec<_> = (0..250).map(|_| narrow(server.address)).collect();
        deaf.iter().for_each(|client| client.set_nonblocking(true).unwrap());
        // One after the other, so that each reply finds what is left of the room.
        for number in 0..deaf.len() {
            for client in &mut deaf[number..] {
                let _ = client.write(b"GET /-/health HTTP/1.1\r\nHost: a\r\n\r\n");
            }
        }
        std::thread::sleep(Duration::from_millis(500));
        for client in &mut deaf {
            let _ = client.write(b"GET / HTTP/1.1\r\n\r\n");
        }
        std::thread::sleep(Duration::from_millis(500));
        let mut client = server.connect();
        client.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(client.request("GET", "/-/health", &[], b"").status, 200);
    });
}

/// Names as they are written one a line.
fn lines(names: &[u8]) -> String {
    names.chunks(32).map(|name| name.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n").collect()
}

/// Clients that ask for long answers made of names, and do not read them, have half of the memory for uploads at most while others wait for
/// some: those that took nothing for longest are cut off.
fn answers_that_are_not_read_leave_memory_for_others(server: &Server, request: &[u8], answer: &[u8]) {
    // What is asked for takes half a megabyte, and there are three for uploads.
    let deaf: Vec<_> = (0..12).map(|_| narrow(server.address)).collect();
    std::thread::scope(|scope| {
        for mut client in &deaf {
            scope.spawn(move || client.write_all(request).unwrap());
        }
    });
    let mut client = server.connect();
    (0..20).for_each(|seed| client.put_block(&bytes(seed, BLOCK_BYTES_MAX)));
    let mut whole = 0;
    for mut client in deaf {
        let mut received = Vec::new();
        client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let _ = client.read_to_end(&mut received);
        whole += usize::from(received.ends_with(answer));
    }
    assert!((1..=6).contains(&whole), "{whole} answers");
}

/// The same of those that ask which of many names are missing.
fn missing_names_that_are_not_read_leave_memory_for_others(content_type: &str, names: &[u8]) {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"), &LITTLE_MEMORY);
    let head = format!(
        "POST /-/missing HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        names.len()
    );
    answers_that_are_not_read_leave_memory_for_others(&server, &[head.as_bytes(), names].concat(), names);
}

#[test]
fn answers_that_are_not_read_leave_memory_for_others_as_text() {
    let names = lines(&bytes(1, 16_384 * 32));
    missing_names_that_are_not_read_leave_memory_for_others("text/plain", names.as_bytes());
}

#[test]
fn answers_that_are_not_read_leave_memory_for_others_as_bytes() {
    missing_names_that_are_not_read_leave_memory_for_others("application/octet-stream", &bytes(1, 16_384 * 32));
}

/// A list of as many blocks as one may have: 670 KB, more than a connection takes that nobody reads.
const LIST: &[u8] = b"GET /-/blocks?limit=10000 HTTP/1.1\r\nHost: a\r\n\r\n";
/// Bytes of the memory that it has.
const LIST_MEMORY_BYTES: u64 = 512 << 10;

/// Stores as many blocks as a list may have, and returns the list.
fn store_a_list_of_blocks(server: &Server) -> Vec<u8> {
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let mut client = server.connect();
            scope.spawn(move || {
                for batch in 0..25 {
                    let puts = (0..50).map(|number| (thread * 25 + batch) * 50 + number);
                    let put = |number: u32| {
                        [&b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"[..], &number.to_be_bytes()].concat()
                    };
                    client.send(&puts.flat_map(put).collect::<Vec<_>>());
                    (0..50).for_each(|_| assert_eq!(client.read_reply(false).unwrap().status, 200));
                }
            });
        }
    });
    let list = server.connect().request("GET", "/-/blocks?limit=10000", &[], b"");
    assert_eq!((list.status, list.text().lines().count()), (200, 10_000));
    list.body
}

#[test]
fn lists_that_are_not_read_leave_memory_for_others() {
    let directory = directory();
    let options = [&LITTLE_MEMORY[..], &["--durability", "relaxed"]].concat();
    let server = Server::start(&directory.path().join("data"), &options);
    let list = store_a_list_of_blocks(&server);
    answers_that_are_not_read_leave_memory_for_others(&server, LIST, &list);
}

/// Lists that are read slowly, as many as would fill the memory for replies, hold up no reply that carries a block; and while there is
/// memory for all of them, each is sent to its end.
#[test]
fn lists_that_are_read_slowly_hold_up_no_reply() {
    let directory = directory();
    let options = ["--workers", "1", "--durability", "relaxed", "--body-timeout", "10min"];
    let server = Server::start(&directory.path().join("data"), &options);
    let list = store_a_list_of_blocks(&server);
    let mut slow: Vec<_> = (0..16).map(|_| narrow(server.address)).collect();
    slow.iter_mut().for_each(|client| client.write_all(LIST).unwrap());
    let mut client = server.connect();
    wait_for("the lists to have memory", || {
        let metrics = server.connect().request("GET", "/-/metrics", &[], b"");
        (metrics.sum_of("buddy_buffer_bytes") >= slow.len() as u64 * LIST_MEMORY_BYTES).then_some(())
    });
    client.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut received = vec![vec![0; 1000]; slow.len()];
    for _ in 0..3 {
        client.get_block(&7u32.to_be_bytes());
    }
    for (client, received) in slow.iter_mut().zip(&mut received) {
        client.read_exact(received).unwrap();
    }
    client.get_block(&7u32.to_be_bytes());
    let lists_stand = client.request("GET", "/-/metrics", &[], b"").sum_of("buddy_buffer_bytes");
    assert!(lists_stand >= slow.len() as u64 * LIST_MEMORY_BYTES, "{lists_stand}: there was nothing to wait for");
    std::thread::scope(|scope| {
        for (client, received) in slow.iter_mut().zip(&mut received) {
            let list = &list;
            scope.spawn(move || {
                let head = received.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
                let read = received.len();
                received.resize(head + list.len(), 0);
                client.read_exact(&mut received[read..]).unwrap();
                assert!(received.ends_with(list), "another list");
            });
        }
    });
}

/// A client that takes a part of a long reply every so often is too slow on the whole.
#[test]
fn a_reply_made_of_lines_may_not_take_for_ever() {
    let directory = directory();
    let limits = ["--workers", "1", "--body-timeout", "2s", "--min-transfer-rate", "1MiB"];
    let server = Server::start(&directory.path().join("data"), &limits);
    let mut slow = Client::new(narrow(server.address));
    let lines = lines(&bytes(1, 16_384 * 32));
    let head = format!(
        "POST /-/missing HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        lines.len()
    );
    slow.send(&[head.as_bytes(), lines.as_bytes()].concat());
    let (mut piece, mut received) = (vec![0; 32 << 10], 0);
    while let Ok(count @ 1..) = slow.stream.read(&mut piece) {
        received += count;
        std::thread::sleep(Duration::from_millis(count as u64 / 100));
    }
    assert!(received > 0 && received < lines.len(), "{received} of {} bytes", lines.len());
}

/// Reads replies to `GET` of a block until there are no more; false where all were whole, or another answer took the place of one.
fn is_cut_off(client: &mut Client, body: &[u8]) -> bool {
    client.stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut received = Vec::new();
    let _ = client.stream.read_to_end(&mut received);
    let mut rest = &received[..];
    while let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
        if !rest.starts_with(b"HTTP/1.1 200") {
            assert!(rest.starts_with(b"HTTP/1.1 404"));
            return false;
        }
        let sent = &rest[end + 4..];
        let bytes = sent.len().min(body.len());
        assert!(sent[..bytes] == body[..bytes], "something else in the place of bytes of the block");
        if bytes < body.len() {
            return true;
        }
        rest = &sent[bytes..];
    }
    false
}
