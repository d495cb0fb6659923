//! Accepting connections: many at once, none where descriptors are short, and a listener that is broken.

use crate::support::{Reply, Server, directory, name, wait_until_stopped};
use std::time::Duration;

fn start(options: &[&str]) -> (tempfile::TempDir, Server) {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"), options);
    (directory, server)
}

/// No descriptors are left: who is connected is served, who is not waits, and when descriptors are free again all is as before.
#[test]
fn a_server_out_of_descriptors_serves_who_is_connected_and_recovers() {
    let (_directory, server) = start(&[]);
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

/// Connections that come at once are not accepted one a turn: who is connected already asks right behind them, and not for long.
#[test]
fn connections_that_come_at_once_are_accepted_many_a_turn() {
    let (_directory, server) = start(&["--workers", "1"]);
    let mut client = server.connect();
    let accepted = |metrics: &Reply| metrics.sum_of("buddy_connections_accepted_total ");
    let before = accepted(&client.request("GET", "/-/metrics", &[], b""));
    server.signal("-STOP");
    wait_until_stopped(&server);
    let crowd: Vec<_> = (0..100).map(|_| server.connect()).collect();
    client.send(b"GET /-/metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    server.signal("-CONT");
    let meanwhile = accepted(&client.read_reply(false).unwrap()) - before;
    assert!(meanwhile >= 8, "{meanwhile} were accepted");
    for mut client in crowd {
        assert_eq!(client.request("GET", "/-/health", &[], b"").status, 200);
    }
    server.stop();
}

/// Ends the listening of a server from outside, as `ss -K` does.
fn break_listener(server: &Server) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(server.pid()).unwrap()).unwrap();
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().map(Result::unwrap);
    let sockets = descriptors.filter(|entry| {
        // One that is gone by now was no listener.
        std::fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    });
    let listener = sockets.map(|entry| entry.file_name().to_string_lossy().parse().unwrap()).find_map(|number| {
        let socket = rustix::process::pidfd_getfd(&process, number, rustix::process::PidfdGetfdFlags::empty()).unwrap();
        rustix::net::sockopt::socket_acceptconn(&socket).unwrap().then_some(socket)
    });
    rustix::net::shutdown(listener.unwrap(), rustix::net::Shutdown::Read).unwrap();
}

/// A listener that is broken for good is told of, and who is connected is served.
#[test]
fn a_listener_that_breaks_is_told_of() {
    let (_directory, server) = start(&["--workers", "1"]);
    let mut client = server.connect();
    client.put_block(b"before");
    break_listener(&server);
    server.wait_for_log("connections cannot be accepted for now");
    client.get_block(b"before");
    // It is tried again and again, and counts once.
    std::thread::sleep(Duration::from_millis(500));
    let metrics = client.request("GET", "/-/metrics", &[], b"");
    assert_eq!(metrics.sum_of("buddy_accept_errors_total "), 1);
    server.stop();
}
