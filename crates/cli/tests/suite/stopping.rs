//! What a signal lets a server finish.

use crate::support::{Client, Server, bytes, check, directory, name, wait_for};
use std::io::Write;
use std::time::Duration;

/// Whoever was told to go on is answered, also where the server heard of the signal just then.
#[test]
fn who_was_told_to_continue_is_answered_by_a_server_that_stops() {
    let directory = directory();
    for round in 0..8 {
        let mut server = Server::start(&directory.path().join("data"), &["--workers", "1"]);
        let before = server.stat("blocks");
        let clients: Vec<_> = (0..64).map(|_| server.connect()).collect();
        let clients: Vec<_> =
            clients.into_iter().map(|client| std::thread::spawn(move || put_until_the_end(client))).collect();
        server.wait_for_stat("blocks", |blocks| blocks >= before + 200 + 13 * round);
        server.signal("-TERM");
        let answered: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(answered >= 200, "{answered}");
        assert!(server.wait().success());
    }
}

/// Stores blocks, each after it was told to continue, until the server closes the connection. Returns how many.
fn put_until_the_end(mut client: Client) -> u64 {
    let mut answered = 0;
    loop {
        let body = fastrand::u64(..).to_le_bytes();
        let head = "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n";
        if client.stream.write_all(head.as_bytes()).is_err() {
            return answered;
        }
        let Some(interim) = client.read_reply(true) else { return answered };
        assert_eq!(interim.status, 100);
        std::thread::sleep(Duration::from_millis(2));
        client.stream.write_all(&body).unwrap();
        let reply = client.read_reply(false).expect("it was told to continue");
        assert!(matches!(reply.status, 200 | 201), "{}", reply.status);
        answered += 1;
        if reply.headers.get("connection").is_some_and(|connection| connection == "close") {
            return answered;
        }
    }
}

#[test]
fn a_signal_lets_requests_finish_and_a_second_one_does_not() {
    let directory = directory();
    let data = directory.path().join("data");
    let mut server = Server::start(&data, &[]);
    let body = bytes(4, 100_000);
    let mut busy = server.connect();
    busy.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
    busy.send(&body[..50_000]);
    let mut idle = server.connect();
    assert_eq!(idle.request("GET", "/-/health", &[], b"").status, 200);
    server.wait_for_body();
    server.signal("-TERM");
    assert!(idle.is_at_end(), "an idle connection is closed");
    // Each worker stops listening when it hears of it.
    wait_for("a refusal", || std::net::TcpStream::connect(server.address).err());
    busy.send(&body[50_000..]);
    let reply = busy.read_reply(false).unwrap();
    assert_eq!((reply.text(), reply.header("connection")), (name(&body), "close"));
    assert!(server.wait().success());
    check(&data);

    let mut server = Server::start(&data, &["--drain-timeout", "60s"]);
    let mut stuck = server.connect();
    stuck.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
    server.wait_for_body();
    server.signal("-INT");
    server.wait_for_log("stopping: finishing what is under way");
    server.signal("-INT");
    // Had it waited for the request, it would have ended in order.
    assert_eq!(server.wait().code(), Some(130));
    let server = Server::start(&data, &[]);
    assert_eq!(server.connect().request("GET", &format!("/{}", name(&body)), &[], b"").body, body);
    server.stop();
    check(&data);
}
