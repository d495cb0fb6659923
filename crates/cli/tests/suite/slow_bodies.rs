//! Bodies that arrive slowly, where there is memory for few, beside clients that are not slow: those must not notice them, and the
//! slow ones go on as far as there is room for what they have sent.
//!
//! The timeouts of the servers are longer than the tests, so that nothing is resolved by waiting.

use crate::support::tls::{self, Identity};
use crate::support::{BLOCK_BYTES_MAX, Client, Server, bytes, check, directory, name};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// A worker that has memory for three large blocks, of which slow ones may have half.
fn server(options: &[&str]) -> (tempfile::TempDir, Server) {
    let directory = directory();
    let limits = ["--workers", "1", "--buffer-memory", "2MiB", "--body-timeout", "10min"];
    let server = Server::start(&directory.path().join("data"), &[&limits, options].concat());
    (directory, server)
}

/// A client that is fast, and for which not to be answered is a failure.
fn store_blocks(server: &Server, seed: u64, count: u64) {
    let mut client = server.connect();
    client.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for (number, length) in (0..count).zip([1, 4096, 70_000, BLOCK_BYTES_MAX].into_iter().cycle()) {
        let body = bytes(seed + number, length);
        assert_eq!(client.request("PUT", "/", &[], &body).status, 200, "number {number}");
        assert!(client.request("GET", &format!("/{}", name(&body)), &[], b"").body == body, "number {number}");
    }
}

/// How a body is framed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunks,
}

/// A request whose body is on its way.
struct Slow<S> {
    stream: S,
    body: Vec<u8>,
    sent: usize,
    framing: Framing,
}

impl<S: Read + Write> Slow<S> {
    /// Sends the head, and so many bytes of the body.
    fn begin(mut stream: S, framing: Framing, body: Vec<u8>, bytes: usize) -> Slow<S> {
        let length = match framing {
            Framing::Length => format!("Content-Length: {}", body.len()),
            Framing::Chunks => "Transfer-Encoding: chunked".to_owned(),
        };
        stream.write_all(format!("PUT / HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n").as_bytes()).unwrap();
        let mut slow = Slow { stream, body, sent: 0, framing };
        slow.send(bytes);
        slow
    }

    fn send(&mut self, bytes: usize) {
        let piece = &self.body[self.sent..self.sent + bytes];
        match self.framing {
            Framing::Length => self.stream.write_all(piece).unwrap(),
            Framing::Chunks => {
                self.stream.write_all(&[format!("{bytes:x}\r\n").as_bytes(), piece, b"\r\n"].concat()).unwrap();
            }
        }
        self.stream.flush().unwrap();
        self.sent += bytes;
    }

    /// Sends the rest, in two parts, and reads the reply's head and the name in it.
    fn finish(mut self) {
        let rest = self.body.len() - self.sent;
        self.send(rest / 2);
        self.send(rest - rest / 2);
        if self.framing == Framing::Chunks {
            self.stream.write_all(b"0\r\n\r\n").unwrap();
        }
        let mut reply = Vec::new();
        let expected = name(&self.body);
        while !reply.ends_with(expected.as_bytes()) {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap_or_else(|error| {
                panic!("{error} after {}", String::from_utf8_lossy(&reply));
            });
            reply.push(byte[0]);
        }
        assert!(reply.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&reply));
    }
}

fn slow_bodies_keep_room_for_what_they_have<S: Read + Write>(
    server: &Server,
    framing: Framing,
    connect: impl Fn() -> S,
) {
    // Each has a buffer for a large block, as long as there are any, and needs an eighth of that.
    let mut slow: Vec<_> = (0..8).map(|seed| Slow::begin(connect(), framing, bytes(seed, 400_000), 40_000)).collect();
    store_blocks(server, 1000, 40);
    for slow in &mut slow {
        slow.send(10);
    }
    store_blocks(server, 2000, 40);
    // None of them was harmed, and each finds room for the rest.
    slow.into_iter().for_each(Slow::finish);
    for seed in 0..8 {
        let body = bytes(seed, 400_000);
        assert!(server.connect().request("GET", &format!("/{}", name(&body)), &[], b"").body == body);
    }
}

#[test]
fn bodies_with_a_length_keep_room_for_what_they_have() {
    let (_directory, server) = server(&[]);
    slow_bodies_keep_room_for_what_they_have(&server, Framing::Length, || TcpStream::connect(server.address).unwrap());
    let data = server.data.clone();
    server.stop();
    check(&data);
}

#[test]
fn bodies_in_chunks_keep_room_for_what_they_have() {
    let (_directory, server) = server(&[]);
    slow_bodies_keep_room_for_what_they_have(&server, Framing::Chunks, || TcpStream::connect(server.address).unwrap());
}

#[test]
fn bodies_through_tls_keep_room_for_what_they_have() {
    let directory = directory();
    let identity = Identity::new();
    let (certificate, key) = identity.write_to(directory.path());
    let files = ["--tls-certificate", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let (_directory, server) = server(&[&["--listen-tls", "127.0.0.1:0"], &files[..]].concat());
    let (address, config) =
        (server.addresses[1].strip_suffix(" (TLS)").unwrap().parse().unwrap(), identity.client_config());
    slow_bodies_keep_room_for_what_they_have(&server, Framing::Length, || tls::connect(address, &config));
}

/// What a client was told, if anything, without waiting.
fn told(client: &mut Client) -> Option<(u16, String)> {
    client.stream.set_nonblocking(true).unwrap();
    let is_told = client.stream.peek(&mut [0]).is_ok_and(|bytes| bytes > 0);
    client.stream.set_nonblocking(false).unwrap();
    let reply = is_told.then(|| client.read_reply(false).unwrap())?;
    Some((reply.status, reply.text()))
}

#[test]
fn slow_bodies_that_fill_half_of_the_memory_are_ended() {
    let (_directory, server) = server(&[]);
    let body = bytes(1, 400_000);
    let mut slow: Vec<_> = (0..8)
        .map(|_| {
            let mut client = server.connect();
            client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n");
            // More than half of its buffer: it cannot shrink.
            client.send(&body[..300_000]);
            client
        })
        .collect();
    store_blocks(&server, 1000, 40);
    let mut stored = 0;
    for client in &mut slow {
        match told(client) {
            Some((status, text)) => {
                assert_eq!(status, 408, "{text}");
                assert!(text.contains("given up after 300000 bytes") && text.contains("others waited"), "{text}");
            }
            None => {
                client.send(&body[300_000..]);
                let reply = client.read_reply(false).unwrap();
                assert_eq!((reply.status, reply.text()), (200, name(&body)));
                stored += 1;
            }
        }
    }
    assert!((1..=3).contains(&stored), "{stored}: as many as there was room for beside the fast ones");
    store_blocks(&server, 2000, 8);
}

/// The memory for names is as large as that for the largest block, and is needed as a whole.
#[test]
fn names_that_arrive_slowly_leave_memory_for_others() {
    let (_directory, server) = server(&[]);
    let names = bytes(5, 32 * 16_384);
    let head = format!(
        "POST /-/missing HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
        names.len()
    );
    let mut slow: Vec<_> = (0..8)
        .map(|_| {
            let mut client = server.connect();
            client.send(head.as_bytes());
            client.send(&names[..100]);
            client
        })
        .collect();
    store_blocks(&server, 1000, 40);
    let mut answered = 0;
    for client in &mut slow {
        match told(client) {
            Some((status, text)) => assert_eq!(status, 408, "{text}"),
            None => {
                client.send(&names[100..]);
                assert!(client.read_reply(false).unwrap().body == names);
                answered += 1;
            }
        }
    }
    assert!((1..=3).contains(&answered), "{answered}");
}

/// Sends much of a body, waits, and begins again as soon as it is ended.
fn reconnect_for_ever(server: &Server, stop: &AtomicBool, ended: &AtomicU32) {
    let begin = || {
        let mut client = server.connect();
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n");
        // What the system does not take while the server does not read is not sent.
        client.stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        let _ = client.stream.write_all(&[7; 300_000]);
        client
    };
    let mut clients: Vec<_> = (0..6).map(|_| begin()).collect();
    while !stop.load(Ordering::Relaxed) {
        for client in &mut clients {
            if told(client).is_some() {
                *client = begin();
                ended.fetch_add(1, Ordering::Relaxed);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Stops what looks at it when it is dropped, also by a failure.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn slow_bodies_that_begin_again_and_again_do_not_keep_others_out() {
    let (_directory, server) = server(&[]);
    let (stop, ended) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        for _ in 0..2 {
            scope.spawn(|| reconnect_for_ever(&server, &stop, &ended));
        }
        store_blocks(&server, 1000, 40);
    });
    assert!(ended.load(Ordering::Relaxed) > 0, "there was need to end some");
}
