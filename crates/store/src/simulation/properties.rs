//! Random sequences of steps on the whole store against the plainest model: a set of keys.
//!
//! Storing allocates, writes and occupies; deleting releases; small generations make checkpoints frequent, small files make growth
//! frequent. Debug builds check after each batch that free, held and occupied pages tile the file; an orderly stop checks that
//! nothing is held, and `check` that index, pages, journal and bytes agree.

use super::disk::Cut;
use super::world::{Open, World, small_settings, totals_of};
use crate::index::Totals;
use crate::session::Stored;
use crate::settings::{DataSync, Durability, LookupPath, NewSpace, Settings};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

const KEYS: usize = 12;
const SESSIONS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Put(usize, usize),
    /// Several clients store the same block at once: exactly one is told that it is new.
    PutTogether(usize),
    /// A client that is gone after so many polls of its put.
    PutDropped(usize, usize),
    Delete(usize, usize),
    /// Several clients delete the same block at once: exactly one is told that it existed.
    DeleteTogether(usize),
    Get(usize, usize),
    /// Everything at once.
    Storm(u64),
    Reopen(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    let session = 0..SESSIONS;
    prop_oneof![
        10 => (key.clone(), session.clone()).prop_map(|(key, session)| Step::Put(key, session)),
        2 => key.clone().prop_map(Step::PutTogether),
        3 => (key.clone(), 0..12usize).prop_map(|(key, polls)| Step::PutDropped(key, polls)),
        8 => (key.clone(), session.clone()).prop_map(|(key, session)| Step::Delete(key, session)),
        2 => key.clone().prop_map(Step::DeleteTogether),
        4 => (key, session).prop_map(|(key, session)| Step::Get(key, session)),
        1 => any::<u64>().prop_map(Step::Storm),
        2 => any::<bool>().prop_map(Step::Reopen),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), 2..12usize, 1..4u32, 2..20usize).prop_map(
        |(relaxed, per_frame, zeros, controller, names, targets, requests)| Settings {
            data_sync: per_frame.then_some(DataSync::PerFrame),
            new_space: Some(if zeros { NewSpace::Zeros } else { NewSpace::Unwritten }),
            durability: if relaxed { Durability::Relaxed } else { Durability::Sync },
            lookup: if controller { LookupPath::Controller } else { LookupPath::Worker },
            checkpoint_names: names,
            pool_targets: [targets; 8],
            requests_max: requests,
            ..small_settings(SESSIONS)
        },
    )
}

/// Polls a future so many times, then drops it.
async fn drop_after(polls: usize, future: impl Future) {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 || future.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        left -= 1;
        Poll::Pending
    })
    .await;
}

struct Case {
    world: Rc<World>,
    model: BTreeSet<usize>,
}

impl Case {
    /// Runs the steps up to the next `Reopen` on one boot; returns what is left and how the boot is to end.
    fn boot(&mut self, steps: &[Step]) -> usize {
        let until = steps.iter().position(|step| matches!(step, Step::Reopen(_))).unwrap_or(steps.len());
        let in_order = !matches!(steps.get(until), Some(Step::Reopen(false)));
        let runtime = Rc::get_mut(&mut self.world).unwrap().runtime();
        let ring = runtime.ring();
        let world = Rc::clone(&self.world);
        let model = &mut self.model;
        runtime.block_on(async {
            let open = Rc::new(world.open(&ring).await.unwrap());
            for (key, block) in world.blocks.iter().enumerate() {
                assert_eq!(open.get(0, block).await.unwrap(), model.contains(&key), "block {key} after reopening");
            }
            for step in &steps[..until] {
                run_step(step, &world, &open, model).await;
            }
            // Tasks of puts whose clients are gone still hold the store.
            ring.sleep(Duration::from_millis(50)).await;
            assert_eq!(open.shared.statistics.totals(), model_totals(&world, model));
            if in_order {
                Rc::into_inner(open).unwrap().stop().await;
            }
        });
        drop((runtime, ring, world));
        self.world.restore(Cut::Crash);
        let report = Rc::get_mut(&mut self.world).unwrap().check().unwrap();
        assert_eq!(report.faults, Vec::<String>::new());
        assert_eq!(report.totals, model_totals(&self.world, &self.model));
        until + 1
    }
}

fn model_totals(world: &World, model: &BTreeSet<usize>) -> Totals {
    totals_of(model.iter().map(|key| &world.blocks[*key]))
}

async fn run_step(step: &Step, world: &Rc<World>, open: &Rc<Open>, model: &mut BTreeSet<usize>) {
    let block = |key: &usize| &world.blocks[*key];
    match step {
        Step::Put(key, session) => {
            let stored = open.put(*session, block(key)).await.unwrap();
            assert_eq!(stored == Stored::Created, model.insert(*key));
        }
        Step::PutTogether(key) => {
            let created = together(world, open, *key, |open, world, key, session| async move {
                open.put(session, &world.blocks[key]).await.unwrap() == Stored::Created
            });
            assert_eq!(created.await, usize::from(model.insert(*key)));
        }
        Step::DeleteTogether(key) => {
            let existed = together(world, open, *key, |open, world, key, session| async move {
                open.sessions[session].delete(&world.blocks[key].hash).await.unwrap()
            });
            assert_eq!(existed.await, usize::from(model.remove(key)));
        }
        Step::PutDropped(key, polls) => {
            drop_after(*polls, open.put(0, block(key))).await;
            // It may be stored or not, now or a little later.
            open.ring.sleep(Duration::from_millis(20)).await;
            let stored = open.get(1, block(key)).await.unwrap();
            assert!(stored || !model.contains(key));
            if stored {
                model.insert(*key);
            }
        }
        Step::Delete(key, session) => {
            let existed = open.sessions[*session].delete(&block(key).hash).await.unwrap();
            assert_eq!(existed, model.remove(key));
        }
        Step::Get(key, session) => assert_eq!(open.get(*session, block(key)).await.unwrap(), model.contains(key)),
        Step::Storm(seed) => {
            storm(*seed, world, open).await;
            for key in 0..KEYS {
                if open.get(0, block(&key)).await.unwrap() {
                    model.insert(key)
                } else {
                    model.remove(&key)
                };
            }
        }
        Step::Reopen(_) => {}
    }
}

/// Does the same on every session several times at once; returns how many said true.
async fn together<F: Future<Output = bool> + 'static>(
    world: &Rc<World>,
    open: &Rc<Open>,
    key: usize,
    work: impl Fn(Rc<Open>, Rc<World>, usize, usize) -> F,
) -> usize {
    let tasks: Vec<_> = (0..3 * SESSIONS)
        .map(|task| open.ring.spawn(work(Rc::clone(open), Rc::clone(world), key, task % SESSIONS)))
        .collect();
    let mut count = 0;
    for task in tasks {
        count += usize::from(task.await);
    }
    count
}

/// Many clients put, delete and read the same few blocks at once: every byte that is read is the name's own.
async fn storm(seed: u64, world: &Rc<World>, open: &Rc<Open>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let tasks: Vec<_> = (0..24)
        .map(|_| {
            let (open, world) = (Rc::clone(open), Rc::clone(world));
            let (key, session, kind) = (random.usize(..KEYS), random.usize(..SESSIONS), random.u8(0..3));
            open.ring.clone().spawn(async move {
                let block = &world.blocks[key];
                match kind {
                    0 => drop(open.put(session, block).await.unwrap()),
                    1 => drop(open.sessions[session].delete(&block.hash).await.unwrap()),
                    _ => drop(open.get(session, block).await.unwrap()),
                }
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_store_agrees_with_a_set(
        seed: u64,
        settings in settings(),
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let mut case = Case { world: Rc::new(World::new(seed, KEYS, settings)), model: BTreeSet::new() };
        let mut rest = &steps[..];
        while !rest.is_empty() {
            let done = case.boot(rest);
            rest = rest.get(done..).unwrap_or_default();
        }
    }
}

/// A put dropped after each number of polls, up to one that lets it finish: nothing leaks, nothing is freed twice.
#[test]
fn a_put_dropped_at_each_of_its_awaits_leaks_nothing() {
    for durability in [Durability::Sync, Durability::Relaxed] {
        for polls in 0..40 {
            let settings = Settings { durability, ..small_settings(SESSIONS) };
            let mut case = Case { world: Rc::new(World::new(7, KEYS, settings)), model: BTreeSet::new() };
            let steps: Vec<_> = (0..KEYS).map(|key| Step::PutDropped(key, polls)).collect();
            case.boot(&steps);
            let steps: Vec<_> = (0..KEYS).map(|key| Step::Delete(key, 1)).collect();
            case.boot(&steps);
        }
    }
}
