//! Walks over all names, beside clients that store and delete others: what is there throughout is listed once, in order.

use super::steps::boot;
use super::tests::seeds;
use super::world::{Block, Open, World, small_settings};
use crate::error::StoreError;
use crate::hash::Hash;
use crate::session::Listed;
use crate::settings::{LookupPath, Settings};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Walks from the first name to the last, in pages of random sizes.
async fn walk(open: &Open, session: usize, random: &mut fastrand::Rng) -> Result<Vec<Listed>, StoreError> {
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let after = all.last().map(|last| last.hash);
        let count = random.usize(1..=12);
        let page = open.sessions[session].list(after, count).await?.blocks;
        assert!(page.len() <= count);
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
        open.ring.sleep(Duration::from_micros(random.u64(0..400))).await;
    }
}

/// Stores and deletes blocks at random, for ever.
async fn churn(open: Rc<Open>, blocks: Rc<Vec<Block>>, session: usize, mut random: fastrand::Rng) {
    loop {
        let block = &blocks[random.usize(..blocks.len())];
        if random.bool() {
            open.put(session, block).await.unwrap();
        } else {
            open.sessions[session].delete(&block.hash).await.unwrap();
        }
    }
}

fn small_blocks(range: std::ops::Range<u32>, seed: u64) -> Vec<Block> {
    range.map(|number| Block::new([number.to_le_bytes().to_vec(), seed.to_le_bytes().to_vec()].concat())).collect()
}

#[test]
fn a_walk_lists_what_is_there_throughout_once() {
    for seed in seeds(60) {
        let mut random = fastrand::Rng::with_seed(seed.0);
        let settings = Settings {
            checkpoint_names: random.usize(2..20),
            lookup: if random.u8(0..4) == 0 { LookupPath::Controller } else { LookupPath::Worker },
            ..small_settings(2)
        };
        let mut world = World::new(seed.0, 0, settings);
        world.checkpoint_pause = Duration::from_micros(random.u64(0..2000));
        boot(&mut world, async |_, open| {
            let (kept, changing) = (small_blocks(0..random.u32(0..60), seed.0), small_blocks(100..140, seed.0));
            let (open, changing) = (Rc::new(open), Rc::new(changing));
            for client in 0..3 {
                let random = fastrand::Rng::with_seed(seed.0 << 8 | client as u64);
                open.ring.spawn(churn(Rc::clone(&open), Rc::clone(&changing), client % 2, random)).detach();
            }
            // Some of them while others come and go: they lie in every stage.
            for block in &kept {
                open.put(0, block).await.unwrap();
            }
            let lengths: BTreeMap<Hash, u32> =
                kept.iter().chain(&*changing).map(|block| (block.hash, block.bytes.len() as u32)).collect();
            for _ in 0..5 {
                let listed = walk(&open, random.usize(0..2), &mut random).await.unwrap();
                assert!(listed.is_sorted_by(|a, b| a.hash < b.hash), "in order, and none twice");
                assert!(listed.iter().all(|block| lengths.get(&block.hash) == Some(&block.length)));
                let is_listed = |block: &Block| listed.iter().any(|listed| listed.hash == block.hash);
                assert!(kept.iter().all(is_listed), "what is there throughout is listed");
            }
        });
    }
}

/// With nobody beside it a walk lists just what is there, from whatever stage.
#[test]
fn a_walk_over_a_quiet_store_lists_what_is_there_and_nothing_else() {
    for seed in seeds(20) {
        let mut random = fastrand::Rng::with_seed(seed.0);
        let mut world = World::new(seed.0, 0, Settings { checkpoint_names: 16, ..small_settings(1) });
        boot(&mut world, async |_, open| {
            let blocks = small_blocks(0..50, seed.0);
            let mut expected = Vec::new();
            for block in &blocks {
                open.put(0, block).await.unwrap();
                if random.u8(0..3) == 0 {
                    assert!(open.sessions[0].delete(&block.hash).await.unwrap());
                } else {
                    expected.push(Listed { hash: block.hash, length: block.bytes.len() as u32 });
                }
            }
            expected.sort_by_key(|block| block.hash);
            for count in [1, 2, 7, 1000] {
                let listing = open.sessions[0].list(None, count).await.unwrap();
                assert_eq!(listing.blocks, expected[..count.min(expected.len())]);
                assert_eq!(listing.damaged.count, 0);
            }
            assert_eq!(walk(&open, 0, &mut random).await.unwrap(), expected);
            for block in &blocks {
                let is_expected = expected.iter().any(|listed| listed.hash == block.hash);
                assert_eq!(open.sessions[0].is_stored(&block.hash).await.unwrap(), is_expected);
            }
        });
    }
}
