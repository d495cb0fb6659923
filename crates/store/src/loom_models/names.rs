//! A name that moves from stage to stage is found in one of them.
//!
//! Real: [`Names`] with its look-up, generations. Modelled: the index, and the controller's order: publish, acknowledge; seal,
//! commit, drop.

use super::index::{Index, Reader};
use super::{model, name, occupied, record};
use crate::names::{NameState, Names};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use std::sync::Arc;

/// What the name is, one after the other. The first is in the index from the start.
const HISTORY: [Option<u64>; 3] = [Some(1), None, Some(2)];

struct World {
    names: Names,
    index: Arc<Index>,
    /// How far in the history clients were told.
    acknowledged: AtomicUsize,
}

impl World {
    fn publish(&self, step: usize) {
        let state = HISTORY[step].map_or(NameState::Removed, occupied);
        assert!(self.names.load().active().insert(&name(1), state));
        self.acknowledged.store(step, Ordering::Release);
    }

    fn seal(&self) -> Arc<crate::names::Generation> {
        self.names.seal(2).unwrap()
    }

    fn commit_and_drop(&self, generation: &crate::names::Generation) {
        self.index.commit(generation);
        self.names.drop_sealed();
    }
}

/// Looks the name up `times` times beside `control`: never older than what was acknowledged before, never older than before.
fn run(times: usize, rests: bool, control: fn(&World)) {
    model(move || {
        let (names, index) = (Names::new(2), Index::new(1));
        let world = Arc::new(World { names, index, acknowledged: AtomicUsize::new(0) });
        let worker = thread::spawn({
            let world = Arc::clone(&world);
            move || {
                let mut reader = Reader::new(&world.index);
                let mut newest = 0;
                for _ in 0..times {
                    newest = newest.max(world.acknowledged.load(Ordering::Acquire));
                    let (found, _) = world.names.look_up(&name(1), |seen| reader.block(seen)).unwrap();
                    let step = HISTORY.iter().position(|number| number.map(record) == found).unwrap();
                    assert!(step >= newest, "found state {step}, but {newest} was acknowledged or seen before");
                    newest = step;
                    if rests {
                        reader.rest();
                    }
                }
            }
        });
        control(&world);
        worker.join().unwrap();
    });
}

#[test]
fn a_removal_moves_into_the_index() {
    run(2, false, |world| {
        world.publish(1);
        let sealed = world.seal();
        world.commit_and_drop(&sealed);
    });
}

#[test]
fn a_name_comes_back_while_its_removal_is_sealed() {
    run(2, true, |world| {
        world.publish(1);
        let sealed = world.seal();
        world.publish(2);
        world.commit_and_drop(&sealed);
    });
}

#[test]
fn two_generations_move_into_the_index_one_after_the_other() {
    run(2, false, |world| {
        for step in [1, 2] {
            world.publish(step);
            let sealed = world.seal();
            world.commit_and_drop(&sealed);
        }
    });
}
