//! Clients that put, get and delete blocks at random, and an oracle that watches them.

use super::disk::{Cut, PlannedFault, STALL_MAX};
use super::oracle::{Operation, Oracle};
use super::world::{Open, World, totals_of};
use crate::error::StoreError;
use crate::settings::Durability;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) clients: usize,
    /// Operations of all clients together.
    pub(crate) operations: usize,
    /// Of 100 operations: how many put, how many delete; the others get.
    pub(crate) puts: u32,
    pub(crate) deletes: u32,
}

impl Default for Workload {
    fn default() -> Workload {
        Workload { clients: 4, operations: 60, puts: 50, deletes: 30 }
    }
}

/// How a boot ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// All operations were carried out and the store was stopped in order.
    InOrder,
    /// The power went.
    Cut,
    /// All operations were carried out and the process died.
    Killed,
}

/// A world and what is known of it.
pub(crate) struct Run {
    pub(crate) world: Rc<World>,
    oracle: Rc<RefCell<Oracle>>,
    random: Rc<RefCell<fastrand::Rng>>,
    /// When the last boot that came up ended, in its own time.
    ended_at: Option<Instant>,
    /// The power has gone since.
    power_was_cut: bool,
    /// Strike in the next boot, once it has come up.
    pub(crate) faults: Vec<PlannedFault>,
    /// The last boot has turned read-only.
    pub(crate) read_only: bool,
}

impl Run {
    pub(crate) fn new(world: World, seed: u64) -> Run {
        let oracle = Oracle::new(world.blocks.len(), Instant::now());
        Run {
            world: Rc::new(world),
            oracle: Rc::new(RefCell::new(oracle)),
            random: Rc::new(RefCell::new(fastrand::Rng::with_seed(seed ^ 0x5eed))),
            ended_at: None,
            power_was_cut: false,
            faults: Vec::new(),
            read_only: false,
        }
    }

    pub(crate) fn world(&mut self) -> &mut World {
        Rc::get_mut(&mut self.world).unwrap()
    }

    /// Boots, compares what is there with what must be, runs the workload, and ends it: in order, by killing the process, or by
    /// a power cut if one is set on the disk.
    pub(crate) fn boot(&mut self, workload: Workload, stop_in_order: bool) -> Ended {
        let runtime = self.world().runtime();
        let ring = runtime.ring();
        let (world, oracle, random) = (Rc::clone(&self.world), Rc::clone(&self.oracle), Rc::clone(&self.random));
        let survivors_since = self.survivors_since();
        let (main_ring, disk) = (ring.clone(), self.world.disk.clone());
        let came_up = Rc::new(Cell::new(false));
        let main_came_up = Rc::clone(&came_up);
        let read_only = Rc::new(Cell::new(false));
        let main_read_only = Rc::clone(&read_only);
        let faults = std::mem::take(&mut self.faults);
        let main = ring.spawn(async move {
            let open = Rc::new(world.open(&main_ring).await.unwrap());
            assert_eq!(open.shared.health.read_only(), None);
            verify_reopened(&world, &open, &oracle, survivors_since).await;
            main_came_up.set(true);
            world.disk.plan_faults(faults);
            let clients: Vec<_> = (0..workload.clients)
                .map(|client| {
                    let seed = random.borrow_mut().u64(..);
                    let client = Client {
                        world: Rc::clone(&world),
                        open: Rc::clone(&open),
                        oracle: Rc::clone(&oracle),
                        random: fastrand::Rng::with_seed(seed),
                        session: client % open.sessions.len(),
                    };
                    main_ring.spawn(client.run(workload.operations / workload.clients, workload))
                })
                .collect();
            for client in clients {
                client.await;
            }
            main_read_only.set(open.shared.health.read_only().is_some());
            if stop_in_order {
                let open = Rc::into_inner(open).unwrap_or_else(|| panic!("clients have ended"));
                open.stop().await;
            }
        });
        // The power can go at any moment: nothing completes then, but timers go on.
        let watched = ring.clone();
        let ended = runtime.run(async move {
            let mut main = std::pin::pin!(main);
            loop {
                if watched.timeout(Duration::from_micros(200), main.as_mut()).await.is_ok() {
                    return if stop_in_order { Ended::InOrder } else { Ended::Killed };
                }
                if disk.is_cut() {
                    return Ended::Cut;
                }
            }
        });
        self.read_only = read_only.get();
        if came_up.get() {
            self.ended_at = Some(ring.now());
            self.power_was_cut = false;
        }
        drop((runtime, ring));
        let ended = ended.unwrap_or(Ended::Cut);
        if ended == Ended::InOrder {
            // The file may have been growing: what is in flight when a process ends arrives or does not.
            self.world.restore(Cut::Crash);
        }
        ended
    }

    /// What happened later than this may have been lost; `None`: nothing may.
    fn survivors_since(&self) -> Option<Instant> {
        let settings = &self.world.settings;
        // A flush takes two operations, and it may have to wait for one that is under way.
        let lost = settings.sync_interval + 4 * STALL_MAX;
        match (settings.durability, self.ended_at) {
            (Durability::Relaxed, Some(ended_at)) if self.power_was_cut => ended_at.checked_sub(lost),
            _ => None,
        }
    }

    /// After a boot that did not end in order: what has survived.
    pub(crate) fn restore(&mut self, cut: Cut) {
        self.world.restore(cut);
        self.power_was_cut |= cut != Cut::Crash;
    }

    /// The store as it lies there is in order.
    pub(crate) fn check(&mut self) {
        if let Some(report) = self.world().check() {
            assert_eq!(report.faults, Vec::<String>::new());
        }
    }
}

/// Every name is as it must be, with its own bytes, and those that are stored are what is counted.
async fn verify_reopened(world: &World, open: &Open, oracle: &Rc<RefCell<Oracle>>, since: Option<Instant>) {
    let mut found = Vec::new();
    for (key, block) in world.blocks.iter().enumerate() {
        let stored = open.get(0, block).await.unwrap();
        oracle.borrow_mut().reopened(key, since, stored, open.ring.now());
        found.extend(stored.then_some(block));
    }
    assert_eq!(open.shared.statistics.totals(), totals_of(found));
}

struct Client {
    world: Rc<World>,
    open: Rc<Open>,
    oracle: Rc<RefCell<Oracle>>,
    random: fastrand::Rng,
    session: usize,
}

impl Client {
    async fn run(mut self, operations: usize, workload: Workload) {
        for _ in 0..operations {
            let key = self.random.usize(..self.world.blocks.len());
            let choice = self.random.u32(0..100);
            if choice < workload.puts {
                self.put(key).await;
            } else if choice < workload.puts + workload.deletes {
                self.delete(key).await;
            } else {
                self.get(key).await;
            }
        }
    }

    fn now(&self) -> Instant {
        self.open.ring.now()
    }

    async fn put(&mut self, key: usize) {
        let begun = self.oracle.borrow_mut().begin(key, Operation::Put, self.now());
        let result = self.open.put(self.session, &self.world.blocks[key]).await;
        self.end(key, begun, Operation::Put, result.map(drop));
    }

    async fn delete(&mut self, key: usize) {
        let begun = self.oracle.borrow_mut().begin(key, Operation::Delete, self.now());
        let result = self.open.sessions[self.session].delete(&self.world.blocks[key].hash).await;
        self.end(key, begun, Operation::Delete, result.map(drop));
    }

    fn end(&self, key: usize, begun: u64, operation: Operation, result: Result<(), StoreError>) {
        let mut oracle = self.oracle.borrow_mut();
        match result {
            Ok(()) => oracle.acknowledged(key, begun, operation, self.now()),
            Err(StoreError::NoSpace | StoreError::ReadOnly | StoreError::Busy | StoreError::Io { .. }) => {
                oracle.failed(key, begun, operation);
            }
            Err(error) => panic!("{operation:?} of block {key}: {error}"),
        }
    }

    async fn get(&mut self, key: usize) {
        let began = self.now();
        match self.open.get(self.session, &self.world.blocks[key]).await {
            Ok(stored) => self.oracle.borrow().looked_up(key, began, stored),
            Err(StoreError::Io { .. }) => {}
            Err(error) => panic!("get of block {key}: {error}"),
        }
    }
}
