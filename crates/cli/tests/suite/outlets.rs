//! What the process says goes to standard output and standard error, which may be closed, or full like any disk; and files may not be
//! allowed to grow (`ulimit -f`). None of that ends it otherwise than in order.

use crate::support::{Client, Server, bytes, check, directory, name, program, program_under};
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Where there is no such device a pipe that nobody reads does as well.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").map_or_else(|_| closed(), Stdio::from)
}

/// A pipe that nobody reads any more.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server that cannot say where it listens. Killed when dropped.
struct Mute {
    child: Child,
    address: SocketAddr,
}

impl Mute {
    fn start(program: &mut Command, data: &Path) -> Mute {
        let address = free_address();
        let child = program
            .args(["serve", "--journal-size", "4MiB", "--workers", "1", "--log-level", "debug", "--data"])
            .arg(data)
            .args(["--listen", &address.to_string()])
            .spawn()
            .unwrap();
        Mute { child, address }
    }

    fn connect(&mut self) -> Client {
        let began = Instant::now();
        loop {
            if let Ok(stream) = TcpStream::connect(self.address) {
                return Client::new(stream);
            }
            assert_eq!(self.child.try_wait().unwrap(), None, "it has ended");
            assert!(began.elapsed() < PATIENCE, "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(mut self) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        let began = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
        };
        assert!(status.success(), "{status}");
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_cannot_be_written_does_not_end_the_server() {
    for stderr in [full(), closed()] {
        let directory = directory();
        let mut server = Mute::start(program().stderr(stderr), directory.path());
        let mut client = server.connect();
        client.put_block(b"said to nobody");
        client.get_block(b"said to nobody");
        assert_eq!(client.request("BREW", "/", &[], b"").status, 405);
        drop(client);
        server.stop();
        check(directory.path());
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let directory = directory();
    // Full from the beginning, and somebody has the other end.
    let (_reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'.'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let mut program = program();
    program.env("BUDDY_ANONYMOUS", "write").stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut server = Mute::start(&mut program, directory.path());
    let mut client = server.connect();
    // More lines than may wait to be written: there are 100 a second, at most.
    for _ in 0..600 {
        assert_eq!(client.request("GET", &format!("/{}", name(b"x")), &[], b"").status, 403);
        std::thread::sleep(Duration::from_millis(10));
    }
    client.put_block(b"still served");
    drop(client);
    server.stop();
    check(directory.path());
}

#[test]
fn a_report_that_cannot_be_written_is_an_error() {
    let directory = directory();
    Server::start(directory.path(), &[]).stop();
    let data = directory.path().to_str().unwrap();
    for arguments in [
        &["check", "--data", data][..],
        &["check", "--json", "--data", data],
        &["token", "somebody", "--rights", "read"],
    ] {
        for stdout in [full(), closed()] {
            let output = program().args(arguments).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
            let output = output.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            let expected = if arguments[0] == "check" { 2 } else { 1 };
            assert_eq!(output.status.code(), Some(expected), "{arguments:?}: {said}");
            assert!(said.contains("standard output cannot be written: "), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn what_cannot_be_said_changes_no_exit_status() {
    for stderr in [full, closed] {
        let mut nonsense = program().args(["serve", "--workers", "none"]).stderr(stderr()).spawn().unwrap();
        assert_eq!(nonsense.wait().unwrap().code(), Some(2));
        let mut failing = program().args(["check", "--data", "/nowhere"]).stderr(stderr()).spawn().unwrap();
        assert_eq!(failing.wait().unwrap().code(), Some(2));
    }
}

#[test]
fn files_that_may_not_grow_are_a_full_store() {
    let directory = directory();
    let data = directory.path().join("data");
    // In blocks of 512 bytes.
    let mut limited = program_under(&format!("-f {}", (40 << 20) / 512));
    let mut server = Mute::start(limited.stderr(Stdio::null()), &data);
    let mut client = server.connect();
    let blocks: Vec<_> = (0..120).map(|seed| bytes(seed, 512 << 10)).collect();
    let mut put = |body: &Vec<u8>| client.request("PUT", &format!("/{}", name(body)), &[], body).status;
    let statuses: Vec<_> = blocks.iter().map(&mut put).collect();
    let stored = statuses.iter().filter(|status| **status == 201).count();
    assert!((60..=80).contains(&stored), "{stored} blocks of half a MiB");
    // The file may grow a little once more, a second later.
    let refused = statuses.iter().filter(|status| **status == 507).count();
    assert!(refused >= 40 && statuses.iter().all(|status| [201, 507].contains(status)), "{statuses:?}");
    client.get_block(&blocks[59]);
    assert_eq!(client.request("DELETE", &format!("/{}", name(&blocks[0])), &[], b"").status, 204);
    let began = Instant::now();
    let last = bytes(1000, 512 << 10);
    while client.request("PUT", &format!("/{}", name(&last)), &[], &last).status != 201 {
        assert!(began.elapsed() < PATIENCE, "there is space again");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(client);
    server.stop();
    check(&data);
}
