//! Clients that remember when each change of their blocks began and was answered, on the clock of a write log, and what the store
//! may therefore say of each block after a power cut at any point of that log.

use super::oracle::Found;
use super::{Client, Server, bytes, name};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Blocks that a client comes to have.
const BLOCKS_MAX: usize = 12;
/// Size classes of blocks: mostly small ones, so that there are many changes for what is written.
const CLASSES: [u32; 8] = [0, 0, 0, 0, 1, 1, 2, 4];

/// A change that was answered, of one state to the other.
struct Change {
    /// Length of the log when it was asked for, …
    begun: usize,
    /// … and when the answer was there.
    answered: usize,
    stored: bool,
}

struct Block {
    body: Vec<u8>,
    path: String,
    changes: Vec<Change>,
}

impl Block {
    /// What the store may say of it, when the log was cut at `cut` and what was answered before `kept` must be there.
    fn states(&self, cut: usize, kept: usize) -> BTreeSet<bool> {
        let mut states = BTreeSet::from([false]);
        for change in &self.changes {
            if change.answered <= kept {
                states = BTreeSet::from([change.stored]);
            } else if change.begun < cut {
                states.insert(change.stored);
            }
        }
        states
    }
}

/// A client, and its blocks. No other client touches them.
pub struct Owner {
    seed: u64,
    random: fastrand::Rng,
    blocks: Vec<Block>,
}

/// Clients whose blocks follow from `seed`.
pub fn owners(count: u64, seed: u64) -> Vec<Owner> {
    let seeds = (0..count).map(|number| seed.wrapping_mul(1000) + number);
    seeds.map(|seed| Owner { seed, random: fastrand::Rng::with_seed(seed), blocks: Vec::new() }).collect()
}

/// All owners at work, each on a connection of its own, until `wait` returns. Every operation is answered then.
pub fn under_load(
    owners: &mut [Owner],
    address: SocketAddr,
    position: impl Fn() -> usize + Copy + Send + Sync,
    wait: impl FnOnce(),
) {
    let ending = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for owner in owners {
            scope.spawn(|| owner.work(address, position, &ending));
        }
        wait();
        ending.store(true, Ordering::SeqCst);
    });
}

/// Holds the store to what all owners know, after a cut at `cut` when what was answered before `kept` must be there.
pub fn verify(owners: &[Owner], server: &Server, cut: usize, kept: usize) -> Found {
    let mut client = server.connect();
    let mut found = Found::default();
    for block in owners.iter().flat_map(|owner| &owner.blocks) {
        let reply = client.request("GET", &block.path, &[], b"");
        let stored = match reply.status {
            200 => true,
            404 => false,
            status => panic!("{status}: {}", reply.text()),
        };
        let states = block.states(cut, kept);
        assert!(states.contains(&stored), "{}: stored is {stored}, but should be {states:?}", block.path);
        assert!(!stored || reply.body == block.body, "{} leads to bytes that are not its own", block.path);
        *match (states.len(), stored) {
            (1, true) => &mut found.kept,
            (1, false) => &mut found.absent,
            _ => &mut found.either,
        } += 1;
        found.stored += u64::from(stored);
    }
    found
}

/// When each change was answered.
pub fn answers(owners: &[Owner]) -> Vec<usize> {
    let blocks = owners.iter().flat_map(|owner| &owner.blocks);
    blocks.flat_map(|block| block.changes.iter().map(|change| change.answered)).collect()
}

impl Owner {
    fn new_block(&mut self) -> usize {
        let class = CLASSES[self.random.usize(..CLASSES.len())];
        let body = bytes(self.seed << 32 | self.blocks.len() as u64, self.random.usize(1..=4096 << class));
        let path = format!("/{}", name(&body));
        self.blocks.push(Block { body, path, changes: Vec::new() });
        self.blocks.len() - 1
    }

    /// Stores a block that is new.
    pub fn store_one_more(&mut self, address: SocketAddr, position: impl Fn() -> usize) {
        let number = self.new_block();
        step(&mut Client::connect(address), &mut self.blocks[number], 0, &position);
    }

    fn work(&mut self, address: SocketAddr, position: impl Fn() -> usize, ending: &AtomicBool) {
        let mut client = Client::connect(address);
        while !ending.load(Ordering::SeqCst) {
            let wants_new = self.blocks.is_empty() || (self.random.u8(0..3) == 0 && self.blocks.len() < BLOCKS_MAX);
            let number = if wants_new { self.new_block() } else { self.random.usize(..self.blocks.len()) };
            let choice = self.random.u8(0..10);
            step(&mut client, &mut self.blocks[number], choice, &position);
        }
    }
}

/// One operation, which must succeed as it should.
fn step(client: &mut Client, block: &mut Block, choice: u8, position: &impl Fn() -> usize) {
    let before = block.changes.last().is_some_and(|change| change.stored);
    let begun = position();
    let stored = match choice {
        0..5 => {
            let reply = client.request("PUT", &block.path, &[], &block.body);
            assert_eq!(reply.status, if before { 200 } else { 201 }, "{}: {}", block.path, reply.text());
            true
        }
        5..8 => {
            let reply = client.request("DELETE", &block.path, &[], b"");
            assert_eq!(reply.status, if before { 204 } else { 404 }, "{}: {}", block.path, reply.text());
            false
        }
        _ => {
            let reply = client.request("GET", &block.path, &[], b"");
            assert_eq!(reply.status, if before { 200 } else { 404 }, "{}: {}", block.path, reply.text());
            assert!(!before || reply.body == block.body, "{} leads to bytes that are not its own", block.path);
            return;
        }
    };
    if stored != before {
        block.changes.push(Change { begun, answered: position(), stored });
    }
}
