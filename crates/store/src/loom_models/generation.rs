//! Readers beside the writer see whole states, and none that is older than what they saw.
//!
//! Real: [`Generation`], with chunks of two entries and a fixed seed. Not modelled: the `OnceLock` that holds a chunk.

use super::{model, name, occupied, record};
use crate::names::Generation;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use std::sync::Arc;

/// The number of a name's state, which must be whole.
fn number(generation: &Generation, key: u8) -> u64 {
    let Some(state) = generation.get(&name(key)) else { return 0 };
    let found = state.record().expect("never removed");
    let number = u64::from(found.length());
    assert_eq!(found, record(number), "made of two states");
    number
}

#[test]
fn states_are_whole_and_never_go_back() {
    model(|| {
        let generation = Arc::new(Generation::new(3));
        let reader = thread::spawn({
            let generation = Arc::clone(&generation);
            move || {
                let mut newest = 0;
                for _ in 0..3 {
                    let number = number(&generation, 1);
                    assert!(number >= newest, "an older state came back");
                    newest = number;
                }
            }
        });
        for number in 1..=3 {
            assert!(generation.insert(&name(1), occupied(number)));
        }
        reader.join().unwrap();
    });
}

/// Four slots: some of these names begin their probe where the first one stands.
#[test]
fn a_name_behind_another_is_its_own() {
    for key in 2..=6 {
        model(move || {
            let generation = Arc::new(Generation::new(2));
            let reader = thread::spawn({
                let generation = Arc::clone(&generation);
                move || {
                    let second = number(&generation, key);
                    let first = number(&generation, 1);
                    assert!(matches!((first, second), (1, 0 | 2) | (0, 0)), "the second came after the first");
                }
            });
            assert!(generation.insert(&name(1), occupied(1)));
            assert!(generation.insert(&name(key), occupied(2)));
            reader.join().unwrap();
        });
    }
}

/// What is told of by other means, however, must be there.
#[test]
fn what_was_acknowledged_is_found() {
    model(|| {
        let generation = Arc::new(Generation::new(3));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let reader = thread::spawn({
            let (generation, acknowledged) = (Arc::clone(&generation), Arc::clone(&acknowledged));
            move || {
                let told = acknowledged.load(Ordering::Acquire);
                assert!(number(&generation, 1) >= told);
                assert!(generation.len() as u64 >= told);
            }
        });
        for number in 1..=2 {
            assert!(generation.insert(&name(1), occupied(number)));
            acknowledged.store(number, Ordering::Release);
        }
        reader.join().unwrap();
    });
}
