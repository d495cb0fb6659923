//! What the tests of the load generator have in common: running it, and a server that misbehaves as it is told.

use super::program;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Runs `bench` for a short while, unless told otherwise.
pub fn bench(address: SocketAddr, arguments: &[&str]) -> Output {
    let target = format!("http://{address}");
    let mut command = program();
    command.args(["bench", "--json"]).args(arguments);
    for (option, value) in [
        ("--target", target.as_str()),
        ("--seconds", "0.3"),
        ("--warm-up", "0.05"),
        ("--blocks", "200"),
        ("--connections", "8"),
    ] {
        if !arguments.contains(&option) {
            command.args([option, value]);
        }
    }
    command.output().unwrap()
}

/// Runs `bench` until something is stored, and then a signal comes. It must end soon.
pub fn interrupted(server: &Fake, arguments: &[&str]) -> Output {
    interrupted_when(server.address, arguments, || !server.stored().is_empty())
}

/// The same, with another moment for the signal.
pub fn interrupted_when(address: SocketAddr, arguments: &[&str], is_time: impl Fn() -> bool) -> Output {
    let mut bench = program()
        .args(["bench", "--target", &format!("http://{address}"), "--json"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !is_time() && bench.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &bench.id().to_string()]).status().unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(20);
    while bench.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            bench.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bench.wait_with_output().unwrap()
}

/// The names in a file.
pub fn saved(file: &Path) -> BTreeSet<String> {
    std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

pub fn report(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The report of a run in which everything went well.
pub fn good(output: &Output) -> Value {
    let report = report(output);
    assert!(output.status.success(), "{report:#}");
    assert!(report["requests"].as_u64().unwrap() > 0 && report["failed"] == 0, "{report:#}");
    assert_eq!(report["errors"]["first"], Value::Null);
    report
}

pub fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.stdout.is_empty(), "it did not fail: {text}");
    assert!(text.starts_with("buddy-blocks: ") && text.trim_end().lines().count() == 1, "{text}");
    text
}

/// How a [`Fake`] answers.
#[derive(Clone, Copy, PartialEq)]
pub enum Manners {
    Good,
    /// Ends the connection with every reply, and says so.
    Closes,
    Refuses,
    /// Refuses what comes over the first connection.
    RefusesOne,
    /// Deletes nothing.
    KeepsAll,
    /// Ends the connection instead of replying.
    BreaksOff,
    /// Every second request of a connection is done, and the connection ends instead of a reply.
    LosesReplies,
    /// Ends the connection in the middle of a body.
    CutsOff,
    Babbles,
    Silent,
    /// Stores, and says nothing to anything else.
    OnlyStores,
    /// Answers after a second.
    Slow,
    /// Changes a byte of every body.
    Forges,
}

/// A server that keeps bodies by path. Its threads end with the connections.
pub struct Fake {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    /// Requests that got no reply, and wait for one.
    pub waiting: Arc<AtomicUsize>,
    pub blocks: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

impl Fake {
    pub fn start(manners: Manners) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fake = Fake { address, connections: Arc::default(), waiting: Arc::default(), blocks: Arc::default() };
        let (blocks, connections) = (Arc::clone(&fake.blocks), Arc::clone(&fake.connections));
        let waiting = Arc::clone(&fake.waiting);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let number = connections.fetch_add(1, Ordering::Relaxed);
                let (blocks, waiting) = (Arc::clone(&blocks), Arc::clone(&waiting));
                let manners = match manners {
                    Manners::RefusesOne if number == 0 => Manners::Refuses,
                    Manners::RefusesOne => Manners::Good,
                    same => same,
                };
                std::thread::spawn(move || match manners {
                    Manners::LosesReplies => {
                        let _ = answer(&stream, &blocks, Manners::Good, &waiting);
                        let _ = answer(&stream, &blocks, Manners::BreaksOff, &waiting);
                    }
                    _ => while answer(&stream, &blocks, manners, &waiting).is_some() {},
                });
            }
        });
        fake
    }

    /// The names of what is there, where they are the paths.
    pub fn stored(&self) -> BTreeSet<String> {
        self.blocks.lock().unwrap().keys().map(|path| path[1..].to_owned()).collect()
    }
}

/// Answers one request; `None` where that was the last.
fn answer(
    stream: &TcpStream,
    blocks: &Mutex<HashMap<String, Vec<u8>>>,
    manners: Manners,
    waiting: &AtomicUsize,
) -> Option<()> {
    // Requests are not pipelined: nothing of the next is lost with the reader.
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| line != "\r\n") {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        lines.push(line);
    }
    let (method, rest) = lines[0].split_once(' ')?;
    let path = rest.split(' ').next()?.to_owned();
    let length = lines.iter().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    let is_put = method == "PUT";
    let (mut status, mut reply) = (200, Vec::new());
    match method {
        "PUT" if manners == Manners::Refuses => {}
        "DELETE" if manners == Manners::OnlyStores => {}
        "DELETE" if manners == Manners::KeepsAll => status = 500,
        "PUT" => drop(blocks.lock().unwrap().insert(path, body)),
        "DELETE" if blocks.lock().unwrap().remove(&path).is_some() => {}
        "GET" | "HEAD" if blocks.lock().unwrap().contains_key(&path) => {
            reply.clone_from(&blocks.lock().unwrap()[&path])
        }
        _ => status = 404,
    }
    match manners {
        Manners::BreaksOff => return None,
        // Until the client has had enough.
        Manners::Silent | Manners::OnlyStores if manners == Manners::Silent || !is_put => {
            waiting.fetch_add(1, Ordering::Relaxed);
            return reader.read_until(0, &mut Vec::new()).ok().filter(|_| false).map(drop);
        }
        Manners::CutsOff => {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345";
            return (&*stream).write_all(head.as_bytes()).ok().filter(|()| false);
        }
        Manners::Slow => std::thread::sleep(Duration::from_secs(1)),
        Manners::Babbles => return (&*stream).write_all(b"hello, who is there?\r\n\r\n").ok(),
        Manners::Refuses => status = 503,
        Manners::Forges => reply.iter_mut().skip(100).take(1).for_each(|byte| *byte ^= 1),
        _ => {}
    }
    let connection = if manners == Manners::Closes { "close" } else { "keep-alive" };
    let head = format!("HTTP/1.1 {status} X\r\nConnection: {connection}\r\nContent-Length: {}\r\n\r\n", reply.len());
    let sent = if method == "HEAD" { head.into_bytes() } else { [head.as_bytes(), &reply].concat() };
    let is_sent = (&*stream).write_all(&sent).ok();
    if manners == Manners::Closes { None } else { is_sent }
}
