//! What clients know of their own blocks, and hold the store to, whatever is done to it.

use super::{Client, bytes, name};
use std::net::{SocketAddr, TcpStream};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Long runs go on with the blocks that they have, so that they end up with a bounded store.
const BLOCKS_MAX: usize = 300;

/// Blocks of one client, and what it knows of each. No other client touches them.
pub struct Owner {
    seed: u64,
    random: fastrand::Rng,
    blocks: Vec<Block>,
}

struct Block {
    body: Vec<u8>,
    /// What the store must say: stored, absent, or (after an operation whose answer did not come, or does not hold) either.
    stored: Option<bool>,
}

/// Clients whose blocks follow from `seed`.
pub fn owners(count: u64, seed: u64) -> Vec<Owner> {
    let seeds = (0..count).map(|number| seed.wrapping_mul(100) + number);
    seeds.map(|seed| Owner { seed, random: fastrand::Rng::with_seed(seed), blocks: Vec::new() }).collect()
}

/// Every owner at work, each on a connection of its own, for some calm time and until `fail` has made the server end.
pub fn under_load(owners: &mut [Owner], address: SocketAddr, calm: Duration, fail: impl FnOnce(&Failure)) {
    let failure = Failure(AtomicU8::new(CALM));
    std::thread::scope(|scope| {
        for owner in owners {
            scope.spawn(|| owner.work(address, &failure));
        }
        std::thread::sleep(calm);
        failure.0.store(FAILING, Ordering::SeqCst);
        fail(&failure);
    });
}

/// How far the failure of a server has come.
pub struct Failure(AtomicU8);

const CALM: u8 = 0;
/// It may refuse and break off; what it answers holds.
const FAILING: u8 = 1;
/// Its file system is being shut down: what it answers may rest on what the kernel says, and the kernel may be wrong.
const SHUTTING_DOWN: u8 = 2;
/// The file system is shut down: what is asked from here on holds again.
const SHUT_DOWN: u8 = 3;

impl Failure {
    /// While `shut_down` runs, a file system confirms writes that it does not keep. Linux 6.18 does that with xfs: a durable write whose
    /// extents were converted just before the log is aborted finds nothing to wait for, and returns as if it were durable.
    pub fn shutting_down(&self, shut_down: impl FnOnce()) {
        self.0.store(SHUTTING_DOWN, Ordering::SeqCst);
        shut_down();
        self.0.store(SHUT_DOWN, Ordering::SeqCst);
    }

    fn stage(&self) -> u8 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Whether an operation that was begun at one stage and answered at another met no file system that was being shut down.
fn holds(begun: u8, answered: u8) -> bool {
    answered < SHUTTING_DOWN || begun == SHUT_DOWN
}

/// What a verification found, in blocks.
#[derive(Clone, Copy, Default, Debug)]
pub struct Found {
    /// Acknowledged as stored: they are there, with their bytes.
    pub kept: u64,
    /// Acknowledged as deleted, or never stored: they are not there.
    pub absent: u64,
    /// Of operations that were not answered, or while the file system was being shut down: there, with their bytes, or not.
    pub either: u64,
    /// All that are there.
    pub stored: u64,
}

impl AddAssign for Found {
    fn add_assign(&mut self, other: Found) {
        self.kept += other.kept;
        self.absent += other.absent;
        self.either += other.either;
        self.stored += other.stored;
    }
}

/// Holds the store to what all owners know.
pub fn verify(owners: &mut [Owner], client: &mut Client) -> Found {
    let mut found = Found::default();
    for owner in owners {
        owner.verify(client, &mut found);
    }
    found
}

impl Owner {
    fn new_block(&mut self) -> usize {
        let class = self.random.u32(0..8);
        let size = self.random.usize(1..=4096 << class);
        let number = self.blocks.len() as u64;
        self.blocks.push(Block { body: bytes(self.seed << 32 | number, size), stored: Some(false) });
        self.blocks.len() - 1
    }

    /// Puts, puts again, reads and deletes until the connection breaks or, once it is failing, the server refuses.
    fn work(&mut self, address: SocketAddr, failure: &Failure) {
        // Others may have brought a server to its end before this one came.
        let Ok(stream) = TcpStream::connect(address) else { return };
        let mut client = Client::new(stream);
        loop {
            let wants_new = self.random.u8(0..3) == 0 && self.blocks.len() < BLOCKS_MAX;
            let number = if self.blocks.is_empty() || wants_new {
                self.new_block()
            } else {
                self.random.usize(..self.blocks.len())
            };
            if !self.step(&mut client, number, failure) {
                return;
            }
        }
    }

    /// One operation. False where it was not answered, or refused by a server that is failing.
    fn step(&mut self, client: &mut Client, number: usize, failure: &Failure) -> bool {
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
        let begun = failure.stage();
        let Some(reply) = client.try_request(method, &path, &[], body) else { return false };
        match (method, reply.status) {
            ("PUT", 200 | 201) => assert!(before.is_none() || (reply.status == 201) == (before == Some(false))),
            ("DELETE", 204) => assert_ne!(before, Some(false)),
            ("DELETE", 404) => assert_ne!(before, Some(true)),
            ("GET", 200) => assert!(before != Some(false) && reply.body == block.body, "{path}"),
            ("GET", 404) => assert_ne!(before, Some(true), "{path} is lost"),
            (_, 500..) if failure.stage() != CALM => return false,
            other => panic!("{other:?}: {}", reply.text()),
        }
        if method != "GET" && before.is_some() && holds(begun, failure.stage()) {
            block.stored = Some(expected);
        }
        true
    }

    /// Every block is as it must be; from here on that is known.
    fn verify(&mut self, client: &mut Client, found: &mut Found) {
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
            *match block.stored {
                Some(true) => &mut found.kept,
                Some(false) => &mut found.absent,
                None => &mut found.either,
            } += 1;
            found.stored += u64::from(stored);
            block.stored = Some(stored);
        }
    }
}
