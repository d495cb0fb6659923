//! Where a server can be reached: several addresses at once, Unix sockets, and TLS.

use crate::support::tls::{Identity, TlsClient, connect, exchange};
use crate::support::{Server, bytes, directory, name, program, wait_for};
use rustls::HandshakeKind;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Stores blocks and reads them again, all on one connection.
fn store_and_read(stream: &mut (impl Read + Write), seed: u64) {
    for (number, length) in [0, 1, 4096, 5000, 40_000, 524_288, 524_287].into_iter().enumerate() {
        let body = bytes(seed * 100 + number as u64, length);
        let path = format!("/{}", name(&body));
        let (status, _) = exchange(stream, "PUT", &path, &body).unwrap();
        assert!(matches!(status, 200 | 201), "{status}");
        // From memory, and, read again, from the page cache.
        for _ in 0..2 {
            let (status, read) = exchange(stream, "GET", &path, b"").unwrap();
            assert!(status == 200 && read == body, "{status}");
        }
        assert_eq!(exchange(stream, "HEAD", &path, b"").unwrap().0, 200);
    }
    assert_eq!(exchange(stream, "GET", "/-/health", b"").unwrap(), (200, b"ok\n".to_vec()));
}

#[test]
fn a_server_listens_on_several_addresses_of_all_kinds() {
    let directory = directory();
    let socket = directory.path().join("socket");
    let unix = format!("unix:{}", socket.display());
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has_ipv6 {
        eprintln!("this machine has no IPv6: it is not listened on");
    }
    let listen = ["127.0.0.1:0", unix.as_str()].into_iter().chain(has_ipv6.then_some("[::1]:0"));
    let listen = listen.collect::<Vec<_>>().join(",");
    let options = ["--listen", &listen, "--unix-mode", "0600", "--workers", "2"];
    let data = directory.path().join("data");
    let server = Server::start(&data, &options);
    store_and_read(&mut TcpStream::connect(server.address).unwrap(), 1);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    // Both workers accept from the one socket.
    let mut clients: Vec<_> = (0..8).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    for (seed, client) in clients.iter_mut().enumerate() {
        store_and_read(client, 2 + seed as u64);
    }
    let stats = server.connect().request("GET", "/-/stats", &[], b"").text();
    let (_, counts) = stats.split_once("\"worker_connections\":").unwrap();
    let counts = counts.trim_start_matches([' ', '[', '\n']).split(']').next().unwrap();
    let counts: Vec<u32> = counts.split(',').map(|count| count.trim().parse().unwrap()).collect();
    assert!(counts.len() == 2 && counts.iter().all(|count| *count >= 4), "{counts:?}");
    if has_ipv6 {
        let address: SocketAddr = server.addresses[2].parse().unwrap();
        store_and_read(&mut TcpStream::connect(address).unwrap(), 1);
    }
    // The socket is in use, and stays so; one that a killed server left behind is not.
    let other = Server::try_start(&directory.path().join("other"), &options).err().unwrap();
    assert!(other.contains(&format!("cannot listen on {unix}: it is in use by another process")), "{other}");
    store_and_read(&mut UnixStream::connect(&socket).unwrap(), 20);
    server.kill();
    assert!(socket.exists());
    let server = Server::start(&data, &options);
    store_and_read(&mut UnixStream::connect(&socket).unwrap(), 21);
    server.stop();
    assert!(!socket.exists());
    std::fs::write(&socket, "mine").unwrap();
    let refused = Server::try_start(&data, &options).err().unwrap();
    assert!(refused.contains("there is a file that is no socket"), "{refused}");
    assert_eq!(std::fs::read(&socket).unwrap(), b"mine");
}

/// A server with a listener for TLS beside the plain one.
fn start_with_tls(data: &Path, identity: &Identity, more: &[&str]) -> (Server, SocketAddr) {
    let (certificate, key) = identity.write_to(data.parent().unwrap());
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let mut options = vec!["--listen-tls", "127.0.0.1:0", "--tls-certificate", &certificate, "--tls-key", &key];
    options.extend_from_slice(more);
    let server = Server::start(data, &options);
    let address = server.addresses[1].strip_suffix(" (TLS)").unwrap().parse().unwrap();
    (server, address)
}

#[test]
fn blocks_go_through_tls_and_sessions_are_resumed() {
    let directory = directory();
    let identity = Identity::new();
    let (server, address) = start_with_tls(&directory.path().join("data"), &identity, &["--workers", "2"]);
    let config = identity.client_config();
    let mut clients: Vec<_> = (0..6).map(|_| connect(address, &config)).collect();
    for (seed, client) in clients.iter_mut().enumerate() {
        store_and_read(client, seed as u64);
    }
    let mut resuming = connect(address, &config);
    store_and_read(&mut resuming, 9);
    assert_eq!(resuming.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    // Pipelined requests, in one record.
    resuming.write_all("GET /-/health HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3).as_bytes()).unwrap();
    let mut answers = Vec::new();
    while answers.windows(5).filter(|window| window == b"\r\nok\n").count() < 3 {
        let mut piece = [0; 100];
        let count = resuming.read(&mut piece).unwrap();
        answers.extend_from_slice(&piece[..count]);
    }
    // What was stored through TLS is there without.
    store_and_read(&mut TcpStream::connect(server.address).unwrap(), 3);
    // Who does not speak TLS is told so, and who stops in the middle holds nothing.
    let mut plain = TcpStream::connect(address).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut alert = Vec::new();
    plain.read_to_end(&mut alert).unwrap();
    assert_eq!(alert.first(), Some(&21));
    let mut half = TcpStream::connect(address).unwrap();
    half.write_all(&[22, 3, 1, 1, 0, 1, 0, 0, 252]).unwrap();
    drop((plain, half, clients, resuming));
    server.wait_for_stat("connections", |connections| connections == 1);
    let log = server.stop();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_certificate_is_read_again_without_dropping_connections() {
    let directory = directory();
    let (old, new) = (Identity::new(), Identity::new());
    let (server, address) = start_with_tls(&directory.path().join("data"), &old, &[]);
    let mut first = connect(address, &old.client_config());
    store_and_read(&mut first, 1);
    let say = |text: &str| {
        server.signal("-HUP");
        let began = Instant::now();
        while !server.log().contains(text) {
            assert!(began.elapsed() < Duration::from_secs(30), "{}", server.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    // A key of another certificate changes nothing.
    let (_, key) = old.write_to(directory.path());
    std::fs::write(key, &new.key_pem).unwrap();
    say("does not belong to the certificate in");
    store_and_read(&mut connect(address, &old.client_config()), 2);
    new.write_to(directory.path());
    say("certificate and key were read again");
    store_and_read(&mut connect(address, &new.client_config()), 3);
    assert!(exchange(&mut connect(address, &old.client_config()), "GET", "/-/health", b"").is_err());
    store_and_read(&mut first, 4);
    server.stop();
}

/// While a store is opened, which may take a while, nobody can be told that the files are others now.
#[test]
fn a_certificate_that_was_replaced_while_the_store_opened_is_used() {
    let directory = directory();
    let data = directory.path().join("data");
    let (old, new) = (Identity::new(), Identity::new());
    let first = Server::start(&data, &[]);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| start_with_tls(&data, &old, &["--lock-timeout", "60s"]));
        // It has read the files and waits for the store.
        std::thread::sleep(Duration::from_secs(2));
        new.write_to(directory.path());
        first.stop();
        let (server, address) = second.join().unwrap();
        store_and_read(&mut connect(address, &new.client_config()), 1);
        server.stop();
    });
}

/// With TLS 1.3 a client has sent its first request before it hears that it needs a certificate. It hears so all the same.
#[test]
fn who_has_no_certificate_is_told_although_it_goes_on_sending() {
    let directory = directory();
    let identity = Identity::new();
    let (authority, _) = identity.write_to(directory.path());
    let authority = authority.display().to_string();
    let (server, address) = start_with_tls(&directory.path().join("data"), &identity, &["--tls-client-ca", &authority]);
    for _ in 0..20 {
        let mut client = connect(address, &identity.client_config());
        let refusal = exchange(&mut client, "PUT", "/", &bytes(1, 100_000)).unwrap_err().to_string();
        assert!(refusal.contains("CertificateRequired"), "{refusal}");
        assert_eq!(client.sock.read(&mut [0; 100]).unwrap(), 0);
    }
    server.stop();
}

#[test]
fn what_is_wrong_with_tls_is_said_at_start() {
    let directory = directory();
    let data = directory.path().join("data");
    let (certificate, key) = Identity::expired().write_to(directory.path());
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let refused = |options: &[&str], why: &str| {
        let said = Server::try_start(&data, options).err().unwrap();
        let plain: Vec<_> = said.lines().filter(|line| !line.starts_with('{')).collect();
        assert!(plain.len() == 1 && plain[0].starts_with("buddy-blocks: ") && plain[0].contains(why), "{said}");
        assert!(!data.exists(), "nothing was made");
    };
    let tls = ["--listen-tls", "127.0.0.1:0", "--tls-certificate", &certificate, "--tls-key", &key];
    refused(&tls, "the certificate is valid from Jan  1");
    Identity::new().write_to(directory.path());
    std::fs::write(&key, Identity::new().key_pem).unwrap();
    refused(&tls, "does not belong to the certificate in");
    std::fs::remove_file(&key).unwrap();
    refused(&tls, "key.pem: it cannot be read");
    refused(&tls[..2], "listen-tls needs tls-certificate and tls-key");
    refused(&tls[2..], "need listen-tls");
}

/// Clients in a drain: idle ones are told goodbye, and the server does not wait for those that never shook hands.
#[test]
fn a_server_with_tls_stops_in_order() {
    let directory = directory();
    let identity = Identity::new();
    let (server, address) =
        start_with_tls(&directory.path().join("data"), &identity, &["--drain-timeout", "20s", "--head-timeout", "60s"]);
    let mut idle = connect(address, &identity.client_config());
    store_and_read(&mut idle, 1);
    let silent = TcpStream::connect(address).unwrap();
    server.wait_for_stat("connections", |connections| connections == 3);
    server.signal("-TERM");
    let mut rest = Vec::new();
    assert_eq!(idle.read_to_end(&mut rest).unwrap(), 0, "ended by a goodbye");
    let log = server.stop_when_told();
    drop(silent);
    assert!(!log.contains("cut off"), "{log}");
}

/// An address that is lost to another while the store opens ends the server in order: the next start has nothing to make good.
#[test]
fn an_address_that_is_lost_while_the_store_opens_ends_the_server_in_order() {
    let directory = directory();
    let (data, socket) = (directory.path().join("data"), directory.path().join("socket"));
    let listen = format!("127.0.0.1:0,unix:{}", socket.display());
    let mut server = Server::start(&data, &[]);
    server.connect().put_block(b"before");
    server.signal("-TERM");
    assert!(server.wait().success());
    // It looks at its addresses first, and waits for the store, which this keeps.
    let kept = std::fs::File::open(data.join("data")).unwrap();
    kept.lock().unwrap();
    let child = program()
        .args(["serve", "--lock-timeout", "60s", "--listen", &listen, "--data"])
        .arg(&data)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let waits = |pid: u32| {
        let mut open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        open.any(|entry| std::fs::read_link(entry.unwrap().path()).is_ok_and(|file| file == data.join("data")))
    };
    wait_for("a server that waits for its store", || waits(child.id()).then_some(()));
    std::fs::write(&socket, "another's").unwrap();
    kept.unlock().unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success() && said.contains("there is a file that is no socket"), "{}: {said}", ended.status);
    let server = Server::start(&data, &[]);
    server.connect().get_block(b"before");
    let log = server.stop();
    assert!(!log.contains("was not stopped in order"), "{log}");
}

/// Encrypts `text` as a client, without sending it.
fn encrypted(client: &mut TlsClient, text: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    client.conn.writer().write_all(text).unwrap();
    while client.conn.wants_write() {
        client.conn.write_tls(&mut records).unwrap();
    }
    records
}

/// The time for a head begins with the first byte of a record, not when a record is complete.
#[test]
fn a_record_that_is_not_finished_is_a_head_that_is_not() {
    let directory = directory();
    let identity = Identity::new();
    let times = ["--head-timeout", "500ms", "--idle-timeout", "10min", "--drain-timeout", "1s"];
    let (server, address) = start_with_tls(&directory.path().join("data"), &identity, &times);
    let config = identity.client_config();
    // Before the first request, and after another.
    for before in [false, true] {
        let mut client = connect(address, &config);
        client.conn.complete_io(&mut client.sock).unwrap();
        if before {
            assert_eq!(exchange(&mut client, "GET", "/-/health", b"").unwrap().0, 200);
        }
        let records = encrypted(&mut client, b"GET /-/health HTTP/1.1\r\nHost: x\r\n\r\n");
        client.sock.write_all(&records[..records.len() - 1]).unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    }
    server.stop();
}

/// Empty lines before a request begin none (RFC 9112 section 2.2), and records may come in pieces.
#[test]
fn who_is_idle_through_tls_is_not_hurried() {
    let directory = directory();
    let identity = Identity::new();
    let times = ["--head-timeout", "2s", "--idle-timeout", "10min", "--drain-timeout", "1s"];
    let (server, address) = start_with_tls(&directory.path().join("data"), &identity, &times);
    let mut client = connect(address, &identity.client_config());
    assert_eq!(exchange(&mut client, "GET", "/-/health", b"").unwrap().0, 200);
    client.write_all(b"\r\n").unwrap();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(exchange(&mut client, "GET", "/-/health", b"").unwrap().0, 200);
    let records = encrypted(&mut client, b"GET /-/health HTTP/1.1\r\nHost: x\r\n\r\n");
    for byte in records {
        client.sock.write_all(&[byte]).unwrap();
    }
    let mut piece = [0; 100];
    let count = client.read(&mut piece).unwrap();
    assert!(piece[..count].starts_with(b"HTTP/1.1 200 "));
    server.stop();
}
