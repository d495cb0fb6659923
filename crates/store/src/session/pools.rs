//! Blank extents at hand, so that a put never waits for an allocation.
//!
//! Each size class has a pool that is filled up to its target whenever it falls below half of it. Targets follow demand: a class
//! that runs dry doubles its target; one that is hardly used gives extents back. While space is short, targets are one, and who waits
//! gets one.
//!
//! Blocks that fill an extent of the largest class have a pool of their own: theirs may be space that nobody has written yet.

use super::exchange::Exchange;
use crate::extent::{Extent, ExtentRun, SIZE_CLASSES, SizeClass};
use crate::messages::{Refusal, Reply, Request};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::worker_statistics::WorkerStatistics;
use buddy_ring::{Ring, WaitLine};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// One for each size class, and one for blocks that fill an extent of the largest.
const POOLS: usize = SIZE_CLASSES + 1;

/// A pool never holds more than this.
const POOL_BYTES_MAX: u64 = 16 << 20;
/// The pools of a worker together never hold more than this.
pub(crate) const POOLS_BYTES_MAX: u64 = POOLS as u64 * POOL_BYTES_MAX;
/// Targets are looked at this often while the pools are used.
const ADJUST_INTERVAL: Duration = Duration::from_secs(1);

/// The pools of one worker.
pub(crate) struct Pools {
    ring: Ring,
    exchange: Rc<Exchange>,
    shared: Arc<Shared>,
    counted: Arc<WorkerStatistics>,
    pools: [Pool; POOLS],
    /// Targets are being looked at.
    adjusting: Cell<bool>,
    closed: Cell<bool>,
}

struct Pool {
    class: SizeClass,
    whole: bool,
    runs: RefCell<VecDeque<ExtentRun>>,
    count: Cell<u32>,
    target: Cell<u32>,
    target_min: u32,
    target_max: u32,
    /// Extents taken since targets were last looked at.
    taken: Cell<u32>,
    filling: Cell<bool>,
    line: WaitLine,
    /// How often, and last why, extents were refused.
    refusals: Cell<(u64, Refusal)>,
}

impl Pools {
    pub(crate) fn new(
        ring: &Ring,
        exchange: &Rc<Exchange>,
        shared: &Arc<Shared>,
        counted: &Arc<WorkerStatistics>,
        settings: &Settings,
    ) -> Rc<Pools> {
        let mut classes = SizeClass::all();
        let pools = std::array::from_fn(|number| {
            let class = classes.next().unwrap_or(SizeClass::LARGEST);
            let target_max = u32::try_from(POOL_BYTES_MAX / class.bytes()).unwrap_or(u32::MAX);
            let target = settings.pool_targets.get(class.index()).copied().unwrap_or(1).clamp(1, target_max);
            Pool {
                class,
                whole: number == SIZE_CLASSES,
                runs: RefCell::default(),
                count: Cell::new(0),
                target: Cell::new(target),
                target_min: target,
                target_max,
                taken: Cell::new(0),
                filling: Cell::new(false),
                line: WaitLine::default(),
                refusals: Cell::new((0, Refusal::NoSpace)),
            }
        });
        Rc::new(Pools {
            ring: ring.clone(),
            exchange: Rc::clone(exchange),
            shared: Arc::clone(shared),
            counted: Arc::clone(counted),
            pools,
            adjusting: Cell::new(false),
            closed: Cell::new(false),
        })
    }

    #[allow(clippy::indexing_slicing)] // A class is below SIZE_CLASSES by construction, and only the largest has two pools.
    fn pool(&self, class: SizeClass, whole: bool) -> &Pool {
        &self.pools[class.index() + usize::from(whole)]
    }

    /// A blank extent; `whole`: for a block that fills it. Waits where the pool is dry.
    ///
    /// # Errors
    ///
    /// [`Refusal`] where there is none to be had.
    pub(crate) async fn take(self: &Rc<Self>, class: SizeClass, whole: bool) -> Result<Extent, Refusal> {
        self.adjust_while_used();
        let pool = self.pool(class, whole);
        pool.taken.set(pool.taken.get().saturating_add(1));
        if pool.line.is_empty()
            && let Some(extent) = pool.pop()
        {
            if pool.count.get() < self.target(pool) / 2 {
                self.start_filling(class, whole);
            }
            return Ok(extent);
        }
        if let Some(dry) = self.counted.pool_dry.get(class.index()) {
            dry.add(1);
        }
        if !pool.filling.get() {
            pool.target.set(pool.target.get().saturating_mul(2).min(pool.target_max));
        }
        let (refusals_before, _) = pool.refusals.get();
        pool.line
            .wait_for(|| {
                let (refusals, refusal) = pool.refusals.get();
                match pool.pop() {
                    Some(extent) => Some(Ok(extent)),
                    None if refusals != refusals_before => Some(Err(refusal)),
                    None => {
                        self.start_filling(class, whole);
                        None
                    }
                }
            })
            .await
    }

    /// Takes an extent back that its operation did not need.
    pub(crate) fn put(&self, extent: Extent) {
        self.put_runs([ExtentRun::new(extent, 1)]);
    }

    /// Takes extents in.
    pub(crate) fn put_runs(&self, runs: impl IntoIterator<Item = ExtentRun>) {
        for run in runs {
            self.pool(run.class(), false).put(run);
        }
    }

    /// Everything the pools of a class hold.
    pub(crate) fn take_all(&self, class: SizeClass) -> Vec<ExtentRun> {
        self.pools.iter().filter(|pool| pool.class == class).flat_map(Pool::take_all).collect()
    }

    fn target(&self, pool: &Pool) -> u32 {
        if self.shared.health.space_is_short() { 1 } else { pool.target.get() }
    }

    /// Tells everybody how full the pools are.
    pub(crate) fn tell_levels(&self) {
        let gauges = self.counted.pool_extents.iter().zip(&self.counted.pool_targets);
        // The largest class has two pools, one behind the other.
        for (pools, (extents, target)) in self.pools.chunk_by(|one, next| one.class == next.class).zip(gauges) {
            extents.set(pools.iter().map(|pool| u64::from(pool.count.get())).sum());
            target.set(pools.iter().map(|pool| u64::from(pool.target.get())).sum());
        }
    }

    /// Fills every pool up to its target.
    pub(crate) async fn fill(self: &Rc<Self>) {
        for pool in &self.pools {
            self.fill_pool(pool).await;
        }
    }

    fn start_filling(self: &Rc<Self>, class: SizeClass, whole: bool) {
        if !self.pool(class, whole).filling.get() && !self.closed.get() {
            let pools = Rc::clone(self);
            self.pool(class, whole).filling.set(true);
            self.ring.spawn(async move { pools.fill_pool(pools.pool(class, whole)).await }).detach();
        }
    }

    async fn fill_pool(&self, pool: &Pool) {
        pool.filling.set(true);
        let count = pool.wanted(self.target(pool));
        let (class, whole) = (pool.class, pool.whole);
        let reply = self.exchange.request(|id| Request::Allocate { id, class, count, whole }).await;
        pool.filling.set(false);
        match reply {
            Reply::Allocated { runs, .. } => runs.into_iter().for_each(|run| pool.put(run)),
            Reply::Failed { refusal, .. } => {
                pool.refusals.set((pool.refusals.get().0 + 1, refusal));
                pool.line.wake_first();
            }
            _ => {}
        }
        // Who still waits starts the next filling.
        pool.line.wake_first();
    }

    /// Looks at the targets every now and then, until the pools have not been used for a while: an idle worker has no timer.
    fn adjust_while_used(self: &Rc<Self>) {
        if !self.adjusting.replace(true) {
            let pools = Rc::clone(self);
            self.ring
                .spawn(async move {
                    loop {
                        pools.ring.sleep(ADJUST_INTERVAL).await;
                        let used = pools.pools.iter().any(|pool| pool.taken.get() > 0);
                        pools.adjust().await;
                        if pools.closed.get() || (!used && pools.are_small()) {
                            pools.adjusting.set(false);
                            return;
                        }
                    }
                })
                .detach();
        }
    }

    fn are_small(&self) -> bool {
        self.pools.iter().all(|pool| pool.target.get() == pool.target_min && pool.count.get() <= pool.target_min)
    }

    async fn adjust(&self) {
        for pool in &self.pools {
            if pool.taken.replace(0) <= pool.target.get() / 4 {
                pool.target.set((pool.target.get() / 2).max(pool.target_min));
            }
            let surplus = pool.count.get().saturating_sub(self.target(pool));
            if surplus > 0 && !self.closed.get() {
                let runs = pool.take_surplus(surplus);
                self.exchange.request(|id| Request::Return { id, runs, recalled: false }).await;
            }
        }
    }

    /// Gives everything back, for good.
    pub(crate) async fn give_back_all(&self) {
        self.closed.set(true);
        while self.pools.iter().any(|pool| pool.filling.get()) {
            self.ring.sleep(Duration::from_millis(1)).await;
        }
        let runs: Vec<ExtentRun> = SizeClass::all().flat_map(|class| self.take_all(class)).collect();
        self.exchange.request(|id| Request::Return { id, runs, recalled: false }).await;
    }
}

impl Pool {
    /// How many extents to ask for: up to the target, but one for each who waits in any case.
    fn wanted(&self, target: u32) -> u32 {
        let waiting = u32::try_from(self.line.len()).unwrap_or(u32::MAX);
        target.saturating_sub(self.count.get()).max(waiting).clamp(1, self.target_max)
    }

    fn put(&self, run: ExtentRun) {
        self.count.set(self.count.get() + run.count());
        self.runs.borrow_mut().push_back(run);
        self.line.wake_first();
    }

    fn take_all(&self) -> Vec<ExtentRun> {
        self.count.set(0);
        self.runs.borrow_mut().drain(..).collect()
    }

    /// The next extent: neighbours one after the other.
    fn pop(&self) -> Option<Extent> {
        let mut runs = self.runs.borrow_mut();
        let run = runs.front_mut()?;
        let extent = run.pop_first();
        if run.count() == 0 {
            runs.pop_front();
        }
        self.count.set(self.count.get() - u32::from(extent.is_some()));
        extent
    }

    /// Takes up to `surplus` extents out, whole runs from the back.
    fn take_surplus(&self, surplus: u32) -> Vec<ExtentRun> {
        let mut runs = self.runs.borrow_mut();
        let mut taken = Vec::new();
        let mut left = surplus;
        while let Some(run) = runs.pop_back_if(|run| run.count() <= left) {
            left -= run.count();
            self.count.set(self.count.get() - run.count());
            taken.push(run);
        }
        drop(runs);
        while left > 0
            && let Some(extent) = self.pop()
        {
            left -= 1;
            taken.push(ExtentRun::new(extent, 1));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

    #[test]
    fn who_waits_gets_an_extent_however_low_the_target() {
        let pool = Pool {
            class: SizeClass::SMALLEST,
            whole: false,
            runs: RefCell::default(),
            count: Cell::new(0),
            target: Cell::new(8),
            target_min: 8,
            target_max: 10,
            taken: Cell::new(0),
            filling: Cell::new(false),
            line: WaitLine::default(),
            refusals: Cell::new((0, Refusal::NoSpace)),
        };
        assert_eq!((pool.wanted(8), pool.wanted(1)), (8, 1));
        let wait = || Box::pin(pool.line.wait_for(|| None::<()>));
        let mut waiting: Vec<_> = (0..5).map(|_| wait()).collect();
        let mut context = Context::from_waker(Waker::noop());
        waiting.iter_mut().for_each(|waits| assert!(waits.as_mut().poll(&mut context).is_pending()));
        assert_eq!((pool.wanted(8), pool.wanted(1)), (8, 5), "one for each");
        waiting.extend((0..20).map(|_| wait()));
        waiting.iter_mut().for_each(|waits| assert!(waits.as_mut().poll(&mut context).is_pending()));
        assert_eq!(pool.wanted(1), 10, "but no more than a pool holds");
        drop(waiting);
        assert_eq!(pool.wanted(0), 1);
    }
}
