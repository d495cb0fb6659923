//! No extent is reused while it is read.
//!
//! Real: [`Clock`], [`Reads`], [`Held`]. The look-up is the weakest there can be, one relaxed load, so that everything that is
//! found to hold, holds by the clock.

use super::{Bytes, extent, model};
use crate::clock::{Clock, Held, Reads};
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use std::rc::Rc;
use std::sync::Arc;

const WRITTEN: u64 = 1;
const REUSED: u64 = 2;

/// A block, and the name that leads to it.
struct Block {
    number: usize,
    named: AtomicBool,
    bytes: Bytes,
}

impl Block {
    fn look_up(&self) -> bool {
        self.named.load(Ordering::Relaxed)
    }

    fn read(&self) {
        assert_eq!(self.bytes.read(), WRITTEN, "another block's bytes");
    }
}

struct World {
    clock: Arc<Clock>,
    blocks: Vec<Block>,
}

impl World {
    fn new(workers: usize, pins: usize, blocks: usize) -> Arc<World> {
        let block = |number| Block { number, named: AtomicBool::new(true), bytes: Bytes::new(WRITTEN) };
        Arc::new(World { clock: Clock::new(workers, pins), blocks: (0..blocks).map(block).collect() })
    }

    fn reads(&self, worker: usize) -> Rc<Reads> {
        Reads::new(Arc::clone(&self.clock), worker)
    }

    fn drain(&self, held: &mut Held) {
        held.look_at_pins_again();
        held.drain(&self.clock, |extent| {
            let number = usize::try_from(extent.number()).unwrap();
            self.blocks[number].bytes.write(REUSED);
        });
    }

    /// The controller: removes every name, one after the other, and reuses what it may.
    fn remove_and_reuse(&self) -> Held {
        let mut held = Held::default();
        for block in &self.blocks {
            block.named.store(false, Ordering::Relaxed);
            held.push(self.clock.tag_removals(), extent(block.number as u64));
            self.drain(&mut held);
        }
        held
    }
}

/// Runs the controller beside `workers`; in the end everything must be free.
fn run(world: &Arc<World>, workers: Vec<fn(&World)>) {
    let workers: Vec<_> = workers
        .into_iter()
        .map(|work| {
            let world = Arc::clone(world);
            thread::spawn(move || work(&world))
        })
        .collect();
    let mut held = world.remove_and_reuse();
    world.drain(&mut held);
    for worker in workers {
        worker.join().unwrap();
    }
    world.drain(&mut held);
    assert!(held.is_empty(), "nobody reads any more");
    assert!(world.blocks.iter().all(|block| block.bytes.read() == REUSED));
}

fn read_one(world: &World, worker: usize) {
    let _guard = world.reads(worker).begin();
    let block = &world.blocks[0];
    if block.look_up() {
        block.read();
    }
}

#[test]
fn a_read_holds_what_it_found() {
    model(|| run(&World::new(1, 0, 1), vec![|world| read_one(world, 0)]));
}

#[test]
fn two_workers_hold_the_same_extent() {
    model(|| run(&World::new(2, 0, 1), vec![|world| read_one(world, 0), |world| read_one(world, 1)]));
}

#[test]
fn one_read_after_the_other() {
    model(|| {
        run(
            &World::new(1, 0, 2),
            vec![|world| {
                let reads = world.reads(0);
                for block in &world.blocks {
                    let _guard = reads.begin();
                    if block.look_up() {
                        block.read();
                    }
                }
            }],
        );
    });
}

/// The younger read does not publish while the older one does; when the older ends, the younger goes on holding.
#[test]
fn reads_that_overlap() {
    model(|| {
        run(
            &World::new(1, 0, 2),
            vec![|world| {
                let reads = world.reads(0);
                let guards = [0, 1].map(|number| {
                    let guard = reads.begin();
                    (world.blocks[number].look_up(), guard)
                });
                for (number, (found, guard)) in guards.into_iter().enumerate() {
                    if found {
                        world.blocks[number].read();
                    }
                    drop(guard);
                }
            }],
        );
    });
}

#[test]
fn a_pinned_read_holds_what_it_found() {
    model(|| {
        run(
            &World::new(1, 1, 1),
            vec![|world| {
                let mut guard = world.reads(0).begin();
                if world.blocks[0].look_up() {
                    guard.pin(extent(0));
                    world.blocks[0].read();
                }
            }],
        );
    });
}

/// The first slot is let go and taken again: how many slots are used falls to none and rises.
#[test]
fn pins_come_and_go() {
    model(|| {
        run(
            &World::new(1, 2, 2),
            vec![|world| {
                let reads = world.reads(0);
                for block in &world.blocks {
                    let mut guard = reads.begin();
                    if block.look_up() {
                        guard.pin(extent(block.number as u64));
                        block.read();
                    }
                }
            }],
        );
    });
}

/// Two long reads at a time, in two slots; the first slot is let go before the second.
#[test]
fn two_pins_at_a_time() {
    model(|| {
        run(
            &World::new(1, 2, 2),
            vec![|world| {
                let reads = world.reads(0);
                let guards = [0, 1].map(|number| {
                    let mut guard = reads.begin();
                    let found = world.blocks[number].look_up();
                    if found {
                        guard.pin(extent(number as u64));
                    }
                    (found, guard)
                });
                for (number, (found, guard)) in guards.into_iter().enumerate() {
                    if found {
                        world.blocks[number].read();
                    }
                    drop(guard);
                }
            }],
        );
    });
}
