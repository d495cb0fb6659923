//! What survives the death of the process: everything that was acknowledged, and nothing that was deleted.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing, missing_docs)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Client, Server, bytes, check, directory, name, setting};

/// Blocks of one client, and what it knows of each. No other client touches them.
struct Owner {
    seed: u64,
    random: fastrand::Rng,
    blocks: Vec<Block>,
}

struct Block {
    body: Vec<u8>,
    /// What the store must say: stored, absent, or (after an operation that was cut off) either.
    stored: Option<bool>,
}

impl Owner {
    fn new(seed: u64) -> Owner {
        Owner { seed, random: fastrand::Rng::with_seed(seed), blocks: Vec::new() }
    }

    fn new_block(&mut self) -> usize {
        let class = self.random.u32(0..8);
        let size = self.random.usize(1..=4096 << class);
        let number = self.blocks.len() as u64;
        self.blocks.push(Block { body: bytes(self.seed << 32 | number, size), stored: Some(false) });
        self.blocks.len() - 1
    }

    /// Puts, puts again, reads and deletes until the connection breaks.
    fn work(&mut self, address: SocketAddr, stopping: &AtomicBool) {
        let mut client = Client::connect(address);
        while !stopping.load(Ordering::Relaxed) {
            let number = if self.blocks.is_empty() || self.random.u8(0..3) == 0 {
                self.new_block()
            } else {
                self.random.usize(..self.blocks.len())
            };
            if !self.step(&mut client, number) {
                return;
            }
        }
    }

    fn step(&mut self, client: &mut Client, number: usize) -> bool {
        let choice = self.random.u8(0..10);
        let block = &mut self.blocks[number];
        let path = format!("/{}", name(&block.body));
        let before = block.stored;
        let (method, expected) = match choice {
            0..5 => ("PUT", true),
            5..7 => ("DELETE", false),
            _ => ("GET", before.unwrap_or_default()),
        };
        if method != "GET" && before != Some(expected) {
            block.stored = None;
        }
        let body = if method == "PUT" { &block.body[..] } else { b"" };
        let Some(reply) = client.try_request(method, &path, &[], body) else { return false };
        match (method, reply.status) {
            ("PUT", 200 | 201) => assert!(before.is_none() || (reply.status == 201) == (before == Some(false))),
            ("DELETE", 204) => assert_ne!(before, Some(false)),
            ("DELETE", 404) => assert_ne!(before, Some(true)),
            ("GET", 200) => assert!(before != Some(false) && reply.body == block.body, "{path}"),
            ("GET", 404) => assert_ne!(before, Some(true), "{path} is lost"),
            other => panic!("{other:?}: {}", reply.text()),
        }
        block.stored = Some(match method {
            "GET" => reply.status == 200,
            _ => expected,
        });
        true
    }

    /// Every block is as it must be; from here on that is known.
    fn verify(&mut self, client: &mut Client) {
        for block in &mut self.blocks {
            let path = format!("/{}", name(&block.body));
            let reply = client.request("GET", &path, &[], b"");
            let stored = match reply.status {
                200 => true,
                404 => false,
                status => panic!("{status}: {}", reply.text()),
            };
            assert!(block.stored.is_none_or(|expected| expected == stored), "{path}: stored is {stored}");
            assert!(!stored || reply.body == block.body, "{path} leads to bytes that are not its own");
            block.stored = Some(stored);
        }
    }
}

/// The process is killed under load again and again, on one store, and restarted at once.
fn kill_rounds(durability: &str, rounds: u64, seed: u64) {
    eprintln!("KILL_SEED={seed}");
    let directory = directory();
    let data = directory.path().join("data");
    let options = ["--durability", durability, "--workers", "3", "--checkpoint-names", "200"];
    let mut random = fastrand::Rng::with_seed(seed);
    let mut owners: Vec<_> = (0..8).map(|number| Owner::new(seed.wrapping_mul(100) + number)).collect();
    for round in 0..rounds {
        let server = Server::start(&data, &options);
        let address = server.address;
        let mut client = server.connect();
        for owner in &mut owners {
            owner.verify(&mut client);
        }
        let stopping = Arc::new(AtomicBool::new(false));
        let working: Vec<_> = owners
            .drain(..)
            .map(|mut owner| {
                let stopping = Arc::clone(&stopping);
                std::thread::spawn(move || {
                    owner.work(address, &stopping);
                    owner
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(random.u64(20..400)));
        server.kill();
        stopping.store(true, Ordering::Relaxed);
        owners = working.into_iter().map(|thread| thread.join().unwrap()).collect();
        if round % 5 == 4 {
            check(&data);
        }
    }
    let server = Server::start(&data, &options);
    let mut client = server.connect();
    for owner in &mut owners {
        owner.verify(&mut client);
    }
    let stored = owners.iter().flat_map(|owner| &owner.blocks).filter(|block| block.stored == Some(true)).count();
    assert_eq!(server.stat("blocks"), stored as u64);
    server.stop();
    check(&data);
}

#[test]
fn kill_minus_nine_loses_nothing() {
    kill_rounds("sync", setting("KILL_ROUNDS", 20), setting("KILL_SEED", 1));
}

#[test]
fn kill_minus_nine_loses_nothing_in_relaxed_mode_either() {
    kill_rounds("relaxed", setting("KILL_ROUNDS", 20) / 2, setting("KILL_SEED", 2));
}

#[test]
fn an_orderly_stop_and_start_keep_everything() {
    let directory = directory();
    let data = directory.path().join("data");
    let bodies: Vec<_> = (0..30).map(|seed| bytes(seed, 1 + 3000 * usize::try_from(seed).unwrap())).collect();
    let server = Server::start(&data, &[]);
    let mut client = server.connect();
    for body in &bodies {
        client.request("PUT", "/", &[], body);
    }
    assert_eq!(client.request("DELETE", &format!("/{}", name(&bodies[5])), &[], b"").status, 204);
    server.stop();
    assert!(check(&data).contains("\"clean\": true"));
    let server = Server::start(&data, &["--durability", "relaxed"]);
    let mut client = server.connect();
    for (number, body) in bodies.iter().enumerate() {
        let reply = client.request("GET", &format!("/{}", name(body)), &[], b"");
        assert_eq!(reply.status, if number == 5 { 404 } else { 200 });
        assert!(number == 5 || reply.body == *body);
    }
    server.stop();
}
