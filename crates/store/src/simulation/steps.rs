//! Steps that tests of faults and of damage have in common.

use super::disk::{Cut, Fault};
use super::world::{Block, Open, World};
use crate::StoreError;
use crate::extent::Extent;
use crate::session::Stored;
use std::rc::Rc;

pub(super) const EIO: Fault = Fault::Error(libc::EIO);

/// Opens the store, does `work`, and kills the process, unless `work` has stopped the store.
pub(super) fn boot<T>(world: &mut World, work: impl AsyncFnOnce(&World, Open) -> T) -> T {
    let runtime = world.runtime();
    let ring = runtime.ring();
    let world_ref = &*world;
    let result = runtime.block_on(async {
        let open = world_ref.open(&ring).await.unwrap();
        work(world_ref, open).await
    });
    drop((runtime, ring));
    world.restore(Cut::Crash);
    result
}

pub(super) async fn put_all(world: &World, open: &Open) {
    for block in &world.blocks {
        assert!(open.put(0, block).await.is_ok());
    }
}

/// Stores blocks, all at once, half of them by each of two workers.
pub(super) async fn put_at_once(open: &Rc<Open>, blocks: &[Block]) -> Vec<Result<Stored, StoreError>> {
    let put = |(number, block): (usize, &Block)| {
        let (open, block) = (Rc::clone(open), block.clone());
        open.ring.clone().spawn(async move { open.put(number % 2, &block).await })
    };
    let puts: Vec<_> = blocks.iter().enumerate().map(put).collect();
    let mut results = Vec::new();
    for put in puts {
        results.push(put.await);
    }
    results
}

/// Removes blocks, all at once, by one worker.
pub(super) async fn remove_at_once(open: &Rc<Open>, blocks: &[Block]) {
    let remove = |block: &Block| {
        let (open, hash) = (Rc::clone(open), block.hash);
        open.ring.clone().spawn(async move { open.sessions[0].delete(&hash).await })
    };
    let removals: Vec<_> = blocks.iter().map(remove).collect();
    for removal in removals {
        assert!(removal.await.unwrap());
    }
}

/// Where a block lies that is not empty.
pub(super) async fn extent_of(open: &Open, block: &Block) -> Extent {
    open.sessions[0].find(&block.hash).await.unwrap().unwrap().record().extent().unwrap()
}

/// What a look-up and a read of a block come to.
pub(super) async fn outcome(open: &Open, block: &Block) -> &'static str {
    let Some(found) = open.sessions[0].find(&block.hash).await.unwrap() else { return "absent" };
    let buffer = open.buffers.take(block.bytes.len()).await.unwrap();
    let range = 0..found.record().length();
    match open.sessions[0].read(found, range, buffer, 0).await {
        (Err(StoreError::Corrupt(hash)), _) if hash == block.hash => "refused",
        (Err(error), _) => panic!("{error}"),
        (Ok(()), buffer) if buffer[..block.bytes.len()] == block.bytes => "there",
        (Ok(()), _) => "another block's bytes",
    }
}
