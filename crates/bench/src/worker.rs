//! A thread of the generator: its ring, its connections, its names.

use crate::body::Noise;
use crate::client::Client;
use crate::connection::{Connection, Trouble};
use crate::name::Name;
use crate::pace::{Pace, Schedule};
use crate::plan::{Operation, Plan};
use crate::request::{Request, RequestWriter};
use crate::run::BenchError;
use crate::tally::{FailureKind, Tally};
use crate::template::Template;
use crate::work::{Answer, Stock};
use buddy_ring::{JoinHandle, Ring, RingConfig, Runtime, WaitLine};
use rustix::thread::set_current_timer_slack;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How often is looked whether connections that wait are to stop.
const STOP_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long replies that are under way are waited for then.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// What threads share.
pub(crate) struct Common {
    pub(crate) plan: Plan,
    /// See [`Plan::body_seed`].
    pub(crate) body_seed: u64,
    /// The address of the target that has answered: all connections are made to one.
    pub(crate) address: OnceLock<SocketAddr>,
    pub(crate) noise: Arc<Noise>,
    /// Set from outside.
    pub(crate) stop: Arc<AtomicBool>,
    /// Nothing can be measured any more: whoever prepares for it may end.
    pub(crate) given_up: AtomicBool,
}

/// What a thread shows while it runs.
#[derive(Default)]
pub(crate) struct Live {
    pub(crate) stored: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) failures: AtomicU64,
}

/// What a thread leaves behind.
pub(crate) struct Left {
    pub(crate) tally: Tally,
    pub(crate) names: Vec<Name>,
    /// When its last connection had its last reply, or stopped waiting until more is due; or when it was told to stop.
    pub(crate) ended: Instant,
}

/// A thread that is to be.
pub(crate) struct Worksheet {
    pub(crate) common: Arc<Common>,
    pub(crate) index: usize,
    pub(crate) names: Vec<Name>,
    pub(crate) live: Arc<Live>,
    /// Told when the load may begin, or why it cannot.
    pub(crate) ready: Sender<Result<(), BenchError>>,
    /// Tells when the load begins; closed where it does not.
    pub(crate) go: Receiver<Schedule>,
}

/// The state of a thread.
pub(crate) struct Worker {
    pub(crate) ring: Ring,
    pub(crate) noise: Arc<Noise>,
    pub(crate) writer: RequestWriter,
    pub(crate) stock: RefCell<Stock>,
    pub(crate) tally: RefCell<Tally>,
    common: Arc<Common>,
    live: Arc<Live>,
    /// Of connections that wait until a request is due, and may be told to stop before.
    waiting: WaitLine,
    /// What each connection has asked for and has no answer to.
    asked: RefCell<Vec<Option<Request>>>,
    ran_out_of_names: Cell<bool>,
    ended: Cell<Instant>,
    /// When it was first seen that it is to stop.
    stopped: Cell<Option<Instant>>,
}

/// A part of `count` for thread `index` of `threads`; all parts together are `count`.
pub(crate) fn share(count: usize, index: usize, threads: usize) -> usize {
    count / threads + usize::from(index < count % threads)
}

impl Worksheet {
    /// The thread. `None` where it has no ring.
    pub(crate) fn run(self) -> Option<Left> {
        // Due times are kept to the microsecond, not to the default of 50. Without it they are a little late.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        // Looking for answers before they come would count as work: how near the limit the generator is could not be told.
        let config = RingConfig { submission_entries: 1024, busy_poll: Duration::ZERO };
        let runtime = match Runtime::new(config) {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = self.ready.send(Err(error.into()));
                return None;
            }
        };
        let worker = self.worker(runtime.ring());
        // Idle connections live until the end.
        let (clients, idle) = match runtime.block_on(prepare(&worker, self.index)) {
            Ok(prepared) => prepared,
            Err(error) => {
                let _ = self.ready.send(Err(error));
                return Some(worker.leave());
            }
        };
        // Where nobody hears it nobody tells to begin, either.
        let _ = self.ready.send(Ok(()));
        let Ok(schedule) = self.go.recv() else { return Some(worker.leave()) };
        let plan = &worker.common.plan;
        let pace = Rc::new(Pace::new(schedule, plan.rate, self.index, plan.threads));
        runtime.block_on(async {
            let ring = &worker.ring;
            let tasks = clients.into_iter().map(|client| ring.spawn(client.load(Rc::clone(&pace), schedule.measure)));
            worker.outcomes(tasks.collect()).await;
        });
        let mut left = worker.leave();
        left.tally.idle_closed = idle.iter().filter(|connection| connection.is_over()).count();
        // Where no names were left no connection was missing.
        let until = worker.stopped.get().unwrap_or(pace.end());
        left.tally.unsent = if worker.ran_out_of_names.get() { 0 } else { pace.unsent(until) };
        Some(left)
    }

    fn worker(&self, ring: Ring) -> Rc<Worker> {
        let plan = &self.common.plan;
        let template = plan.template.clone().unwrap_or_else(Template::plain);
        Rc::new(Worker {
            noise: Arc::clone(&self.common.noise),
            writer: RequestWriter::new(&plan.target, template, plan.token.as_ref()),
            stock: RefCell::new(Stock::new(plan, self.common.body_seed, self.index, self.names.clone())),
            tally: RefCell::default(),
            common: Arc::clone(&self.common),
            live: Arc::clone(&self.live),
            waiting: WaitLine::default(),
            asked: RefCell::new(vec![None; share(plan.connections, self.index, plan.threads)]),
            ran_out_of_names: Cell::new(false),
            ended: Cell::new(ring.now()),
            stopped: Cell::new(None),
            ring,
        })
    }
}

/// Makes this thread's connections, and stores its part of the blocks.
async fn prepare(worker: &Rc<Worker>, index: usize) -> Result<(Vec<Client>, Vec<Connection>), BenchError> {
    let plan = &worker.common.plan;
    let made = worker.unless_stopped(make_connections(worker, index)).await;
    let (clients, idle) = made.unwrap_or(Err(BenchError::Interrupted))?;
    let left = Rc::new(Cell::new(share(plan.blocks_to_store(), index, plan.threads)));
    let tasks = clients.into_iter().map(|mut client| {
        let left = Rc::clone(&left);
        worker.ring.spawn(async move {
            let stored = client.store(&left).await;
            (client, stored)
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let count = tasks.len();
    let (mut prepared, mut first_error) = (Vec::new(), None);
    for (client, stored) in worker.outcomes(tasks).await {
        prepared.push(client);
        first_error = first_error.or(stored.err());
    }
    match first_error {
        Some(error) => Err(BenchError::Storing(error)),
        None if prepared.len() < count => Err(BenchError::Interrupted),
        None => Ok((prepared, idle)),
    }
}

/// Those of this thread: for requests, and to be idle.
async fn make_connections(worker: &Rc<Worker>, index: usize) -> Result<(Vec<Client>, Vec<Connection>), BenchError> {
    let plan = &worker.common.plan;
    let failed = |trouble: Trouble| BenchError::Connect { url: plan.target.url.clone(), reason: trouble.to_string() };
    let (mut clients, mut idle) = (Vec::new(), Vec::new());
    for index in 0..share(plan.connections, index, plan.threads) {
        let connection = Some(worker.connect().await.map_err(failed)?);
        clients.push(Client { worker: Rc::clone(worker), index, connection, is_measured: false });
    }
    for _ in 0..share(plan.idle_connections, index, plan.threads) {
        idle.push(worker.connect().await.map_err(failed)?);
    }
    Ok((clients, idle))
}

impl Worker {
    /// Connects to the address that has answered before; at first to each in turn, until one answers. Where none does, what is wrong with
    /// the first is said.
    pub(crate) async fn connect(&self) -> Result<Connection, Trouble> {
        if let Some(address) = self.common.address.get() {
            return self.connect_to(*address).await;
        }
        let mut first_trouble = None;
        for address in &self.common.plan.target.addresses {
            match self.connect_to(*address).await {
                Ok(connection) => {
                    // Another thread may have been faster.
                    let _ = self.common.address.set(*address);
                    return Ok(connection);
                }
                Err(trouble) => first_trouble = first_trouble.or(Some(trouble)),
            }
        }
        Err(first_trouble.unwrap_or_else(|| Trouble::Connect(io::ErrorKind::NotFound.into())))
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<Connection, Trouble> {
        let plan = &self.common.plan;
        Connection::open(&self.ring, address, plan.timeout, plan.congestion_control.as_deref()).await
    }

    /// Does `work`, unless it is told to stop before that is done.
    async fn unless_stopped<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        while !self.is_stopped() {
            if let Ok(done) = self.ring.timeout(STOP_LOOK_INTERVAL, work.as_mut()).await {
                return Some(done);
            }
        }
        None
    }

    /// What comes of tasks. When it is told to stop those that wait until something is due end at once; those that wait for a reply have
    /// [`STOP_PATIENCE`], and go on no more after it: nothing comes of them, and the end of the runtime is theirs.
    async fn outcomes<T>(&self, tasks: Vec<JoinHandle<T>>) -> Vec<T> {
        let mut outcomes = Vec::new();
        for mut task in tasks {
            loop {
                let is_patient = self.stopped.get().is_none_or(|stopped| stopped.elapsed() < STOP_PATIENCE);
                let interval = if is_patient { STOP_LOOK_INTERVAL } else { Duration::ZERO };
                match self.ring.timeout(interval, &mut task).await {
                    Ok(outcome) => outcomes.push(outcome),
                    Err(_) if is_patient => {
                        if self.is_stopped() {
                            self.waiting.wake_first();
                        }
                        continue;
                    }
                    Err(_) => {}
                }
                break;
            }
        }
        outcomes
    }

    /// Whether it is to stop. What is measured ends when that is first seen, however long replies are waited for then.
    pub(crate) fn is_stopped(&self) -> bool {
        let is_stopped = self.common.stop.load(Ordering::Relaxed) || self.common.given_up.load(Ordering::Relaxed);
        if is_stopped && self.stopped.get().is_none() {
            self.stopped.set(Some(Instant::now()));
        }
        is_stopped
    }

    /// Without this block there is nothing to measure: nobody stores any more.
    pub(crate) fn give_up(&self) {
        self.common.given_up.store(true, Ordering::Relaxed);
    }

    /// Waits until `due`, or until it is told to stop. The first in line wakes the next.
    pub(crate) async fn wait_until(&self, due: Instant) {
        // From this very moment, as the ring does: the turn may have begun a while ago.
        let duration = due.saturating_duration_since(Instant::now());
        if duration <= STOP_LOOK_INTERVAL {
            // Whom nobody would tell any earlier need not stand in line.
            return self.ring.sleep(duration).await;
        }
        let stopped = self.waiting.wait_for(|| self.is_stopped().then_some(()));
        // Which of the two it was is looked up by who goes on.
        let _ = self.ring.timeout(duration, stopped).await;
    }

    /// What is left of it when nothing is sent any more.
    fn leave(&self) -> Left {
        for request in self.asked.take().into_iter().flatten() {
            self.stock.borrow_mut().abandon(request, &self.noise);
        }
        let ended = self.stopped.get().unwrap_or(self.ended.get());
        Left { tally: self.tally.take(), names: self.stock.borrow_mut().take_names(), ended }
    }

    pub(crate) fn next_request(&self) -> Option<Request> {
        self.stock.borrow_mut().next(&self.noise)
    }

    /// There is nothing left to ask for.
    pub(crate) fn note_out_of_names(&self) {
        self.ran_out_of_names.set(true);
    }

    /// Connection `index` of this thread asks for something.
    pub(crate) fn begin(&self, index: usize, request: Request) {
        self.set_asked(index, Some(request));
    }

    /// It has its answer, or knows that there is none.
    pub(crate) fn finish(&self, index: usize) {
        self.set_asked(index, None);
    }

    /// It has failed, though the server may have done it.
    pub(crate) fn doubt(&self, request: Request) {
        self.stock.borrow_mut().doubt(request, &self.noise);
    }

    fn set_asked(&self, index: usize, request: Option<Request>) {
        if let Some(asked) = self.asked.borrow_mut().get_mut(index) {
            *asked = request;
        }
    }

    /// Until now something has happened.
    pub(crate) fn note_end(&self) {
        self.ended.set(self.ring.now());
    }

    /// The end of a request of the load. `latency` is there where it is measured: in the warm-up only failures count.
    pub(crate) fn record(
        &self,
        request: Request,
        outcome: Result<Answer, (FailureKind, Option<String>)>,
        latency: Option<Duration>,
    ) {
        let settled = outcome.as_ref().map_err(|(kind, _)| *kind).copied();
        let operation = self.stock.borrow_mut().settle(request, settled);
        let count = if outcome.is_ok() { &self.live.requests } else { &self.live.failures };
        // Only this thread writes it.
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let mut tally = self.tally.borrow_mut();
        tally.stored += u64::from(operation == Operation::Put && outcome.is_ok());
        match (outcome, latency) {
            (Ok(answer), Some(latency)) => tally.success(operation, latency, answer.bytes),
            (Ok(_), None) => {}
            (Err(failed), latency) => {
                tally.failure(failed.0, || self.describe(request, &failed));
                tally.failed_in_warm_up += u64::from(latency.is_none());
            }
        }
    }

    /// A block that was stored before the load.
    pub(crate) fn settle_stored(&self, request: Request, answer: Answer) {
        self.stock.borrow_mut().settle(request, Ok(answer));
        self.tally.borrow_mut().stored += 1;
        self.live.stored.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn describe(&self, request: Request, (kind, said): &(FailureKind, Option<String>)) -> String {
        let what = match kind {
            FailureKind::Status(status) => format!("status {status}"),
            other => other.name().unwrap_or_default().to_owned(),
        };
        let said = said.as_ref().map(|said| format!(": {said}")).unwrap_or_default();
        format!("{}: {what}{said}", self.writer.describe(request))
    }
}

/// The numbers of all threads, added.
pub(crate) fn sum(lives: &[Arc<Live>], of: impl Fn(&Live) -> &AtomicU64) -> u64 {
    lives.iter().map(|live| of(live).load(Ordering::Relaxed)).sum()
}
