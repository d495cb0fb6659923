//! Look-up, clock and reuse together: what a worker finds, wherever it finds it, it reads whole.
//!
//! Real: [`Clock`], [`Reads`], [`Held`], [`Names`] with its look-up. Modelled: the index, the extents' bytes, the order of
//! `Controller::publish`.

use super::index::{Index, Reader};
use super::{Bytes, extent, model, name, occupied, record};
use crate::clock::{Clock, Held, Reads};
use crate::names::{NameState, Names};
use loom::thread;
use std::sync::Arc;

struct World {
    names: Names,
    index: Arc<Index>,
    clock: Arc<Clock>,
    /// An extent holds the number of the block that lies there.
    extent: Bytes,
}

impl World {
    fn publish(&self, state: NameState) {
        assert!(self.names.load().active().insert(&name(1), state));
    }

    /// A worker reads the block twice; the second read lasts.
    fn read(&self) {
        let reads = Reads::new(Arc::clone(&self.clock), 0);
        let mut reader = Reader::new(&self.index);
        for lasts in [false, true] {
            let mut guard = reads.begin();
            let (found, _) = self.names.look_up(&name(1), |seen| reader.block(seen)).unwrap();
            if let Some(found) = found {
                assert_eq!(found, record(1));
                if lasts {
                    guard.pin(extent(1));
                }
                assert_eq!(self.extent.read(), 1, "another block's bytes");
            }
        }
    }

    fn drain(&self, held: &mut Held) {
        held.look_at_pins_again();
        held.drain(&self.clock, |freed| {
            assert_eq!(freed, extent(1));
            self.extent.write(2);
        });
    }
}

fn run(indexed: bool, control: fn(&World, &mut Held)) {
    model(move || {
        let index = Index::new(u64::from(indexed));
        let (names, clock) = (Names::new(2), Clock::new(1, 1));
        let world = Arc::new(World { names, index, clock, extent: Bytes::new(1) });
        if !indexed {
            world.publish(occupied(1));
        }
        let worker = thread::spawn({
            let world = Arc::clone(&world);
            move || world.read()
        });
        let mut held = Held::default();
        control(&world, &mut held);
        world.drain(&mut held);
        worker.join().unwrap();
        world.drain(&mut held);
        assert!(held.is_empty());
    });
}

#[test]
fn a_block_of_the_index_is_removed_and_its_extent_reused() {
    run(true, |world, held| {
        world.publish(NameState::Removed);
        held.push(world.clock.tag_removals(), extent(1));
        let sealed = world.names.seal(2).unwrap();
        world.drain(held);
        world.index.commit(&sealed);
        world.names.drop_sealed();
    });
}

#[test]
fn a_block_is_sealed_removed_and_its_extent_reused() {
    run(false, |world, held| {
        let sealed = world.names.seal(2).unwrap();
        world.publish(NameState::Removed);
        held.push(world.clock.tag_removals(), extent(1));
        world.drain(held);
        world.index.commit(&sealed);
        world.names.drop_sealed();
    });
}
