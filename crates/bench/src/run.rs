//! Threads, phases, sampling.

use crate::body::Noise;
use crate::name::Name;
use crate::pace::Schedule;
use crate::plan::{Plan, PlanError};
use crate::processes;
use crate::report::{ProcessUsage, Report, Window};
use crate::tally::Tally;
use crate::worker::{Common, Left, Live, Worksheet, share, sum};
use buddy_ring::SetupError;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often memory is looked at and progress shown.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);
/// How often is looked whether all threads have ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// From when all threads are ready to the first request.
const START_DELAY: Duration = Duration::from_millis(5);

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The plan makes no sense.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Nobody there, or too many connections.
    #[error("{url}: {reason}")]
    Connect {
        /// The server.
        url: String,
        /// What happened.
        reason: String,
    },
    /// Blocks to be read could not be stored.
    #[error("storing blocks to be read failed: {0}")]
    Storing(String),
    /// No io_uring.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// No threads, no memory.
    #[error("{0}")]
    System(#[from] io::Error),
    /// Everything was deleted before anything was measured.
    #[error("all names were deleted during the warm-up: give more, or make it shorter")]
    NamesRanOut,
    /// Told to stop before anything was measured.
    #[error("stopped before anything was measured")]
    Interrupted,
    /// A bug of ours.
    #[error("a thread of the generator has died")]
    Thread,
}

/// What was measured, and what is stored.
pub struct Outcome {
    /// The figures, or why there are none.
    pub report: Result<Report, BenchError>,
    /// Names of blocks that were given, stored or perhaps stored, and not deleted. Those that were given are not among them where the load
    /// never began.
    pub names: Vec<Name>,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// Blocks to be read are being stored: so many of so many.
    Storing(u64, u64),
    /// The load runs.
    Load {
        /// Since its start.
        elapsed: Duration,
        /// Warm-up and measurement together.
        total: Duration,
        /// Good replies since its start.
        requests: u64,
        /// Requests that failed since its start.
        failures: u64,
    },
}

/// Does what the plan says. `observe` is called twice a second; setting `stop` ends the load early, with what was measured by then.
/// Requests that fail are part of the report.
pub fn run(plan: Plan, stop: Arc<AtomicBool>, observe: &mut dyn FnMut(Progress)) -> Outcome {
    let mut names = Vec::new();
    let report = measure(plan, stop, observe, &mut names);
    Outcome { report, names }
}

/// Adds to `names` what is stored at the end, whether or not anything could be measured.
fn measure(
    plan: Plan,
    stop: Arc<AtomicBool>,
    observe: &mut dyn FnMut(Progress),
    names: &mut Vec<Name>,
) -> Result<Report, BenchError> {
    plan.check()?;
    let common = Arc::new(Common {
        body_seed: plan.body_seed(),
        plan,
        address: OnceLock::new(),
        noise: Arc::new(Noise::new()),
        stop,
        given_up: AtomicBool::new(false),
    });
    let crew = Crew::start(&common)?;
    let plan = &common.plan;
    let mut ready = crew.wait_until_ready(plan, observe);
    if common.stop.load(Ordering::Relaxed) {
        ready = ready.and(Err(BenchError::Interrupted));
    }
    if let Err(error) = ready {
        // Threads that wait to begin end, as the way to tell them closes; others see that.
        common.given_up.store(true, Ordering::Relaxed);
        let left = crew.join();
        if plan.names.is_empty() {
            names.extend(left.into_iter().flatten().flat_map(|left| left.names));
        }
        return Err(error);
    }
    let start = Instant::now() + START_DELAY;
    let measure = start + plan.warm_up;
    let schedule = Schedule { start, measure, end: measure + plan.duration };
    for go in &crew.go {
        // A thread that has died is found when it is joined.
        let _ = go.send(schedule);
    }
    let usage = crew.watch(schedule, &common, observe);
    let mut left = crew.join();
    names.extend(left.iter_mut().flatten().flat_map(|left| std::mem::take(&mut left.names)));
    let mut left: Vec<Left> = left.into_iter().collect::<Option<_>>().ok_or(BenchError::Thread)?;
    let ended = left.iter().map(|left| left.ended).max().unwrap_or(measure).min(schedule.end);
    let measured = ended.saturating_duration_since(measure);
    let mut tally = Tally::default();
    left.iter_mut().for_each(|left| tally.add(std::mem::take(&mut left.tally)));
    if measured.is_zero() {
        let stopped = common.stop.load(Ordering::Relaxed);
        return Err(if stopped { BenchError::Interrupted } else { BenchError::NamesRanOut });
    }
    Ok(Report::new(plan, &tally, &Window { measured, usage }))
}

/// Seeds by chance are below this: JavaScript and jq take numbers for floating-point ones, which hold no larger ones exactly.
const RANDOM_SEEDS: u64 = 1 << 53;

/// A seed that nobody had before.
#[must_use]
pub fn random_seed() -> u64 {
    fastrand::u64(..RANDOM_SEEDS)
}

/// The threads of a run.
struct Crew {
    threads: Vec<JoinHandle<Option<Left>>>,
    live: Vec<Arc<Live>>,
    go: Vec<Sender<Schedule>>,
    ready: Receiver<Result<(), BenchError>>,
}

impl Crew {
    fn start(common: &Arc<Common>) -> Result<Crew, BenchError> {
        let (ready_sender, ready) = mpsc::channel();
        let mut crew = Crew { threads: Vec::new(), live: Vec::new(), go: Vec::new(), ready };
        let threads = common.plan.threads;
        let mut names = common.plan.names.as_slice();
        for index in 0..threads {
            let (part, rest) = names.split_at(share(common.plan.names.len(), index, threads).min(names.len()));
            names = rest;
            let (go_sender, go) = mpsc::channel();
            let live = Arc::<Live>::default();
            let worksheet = Worksheet {
                common: Arc::clone(common),
                index,
                names: part.to_vec(),
                live: Arc::clone(&live),
                ready: ready_sender.clone(),
                go,
            };
            let thread = std::thread::Builder::new().name(format!("load-{index}")).spawn(move || worksheet.run())?;
            crew.threads.push(thread);
            crew.live.push(live);
            crew.go.push(go_sender);
        }
        Ok(crew)
    }

    fn wait_until_ready(&self, plan: &Plan, observe: &mut dyn FnMut(Progress)) -> Result<(), BenchError> {
        let total = plan.blocks_to_store() as u64;
        let mut waiting = self.threads.len();
        let mut interrupted = Ok(());
        while waiting > 0 {
            match self.ready.recv_timeout(SAMPLE_INTERVAL) {
                // Who stops because another thread has given up says no more than that.
                Ok(Err(BenchError::Interrupted)) => {
                    interrupted = Err(BenchError::Interrupted);
                    waiting -= 1;
                }
                Ok(ready) => {
                    ready?;
                    waiting -= 1;
                }
                Err(RecvTimeoutError::Timeout) if total > 0 => {
                    observe(Progress::Storing(sum(&self.live, |live| &live.stored), total));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(BenchError::Thread),
            }
        }
        interrupted
    }

    /// Looks at processes until the load has ended, or is to stop: replies that are waited for then are not measured.
    fn watch(&self, schedule: Schedule, common: &Common, observe: &mut dyn FnMut(Progress)) -> Usage {
        let is_over = || common.stop.load(Ordering::Relaxed) || self.threads.iter().all(JoinHandle::is_finished);
        let mut show = |now: Instant| {
            observe(Progress::Load {
                elapsed: now.saturating_duration_since(schedule.start),
                total: schedule.end.duration_since(schedule.start),
                requests: sum(&self.live, |live| &live.requests),
                failures: sum(&self.live, |live| &live.failures),
            });
        };
        let mut next_sample = schedule.start + SAMPLE_INTERVAL;
        let mut wait = |until: Instant, sample: &mut dyn FnMut()| {
            while Instant::now() < until && !is_over() {
                let now = Instant::now();
                if now >= next_sample {
                    next_sample += SAMPLE_INTERVAL;
                    show(now);
                    sample();
                }
                std::thread::sleep(LOOK_INTERVAL.min(until.saturating_duration_since(now)));
            }
        };
        wait(schedule.measure, &mut || {});
        let mut usage = Usage::begin(&common.plan.pids);
        wait(schedule.end, &mut || usage.sample_memory());
        usage.finish();
        usage
    }

    /// What each thread has left; `None` of one that has died.
    fn join(self) -> Vec<Option<Left>> {
        drop(self.go);
        self.threads.into_iter().map(|thread| thread.join().ok().flatten()).collect()
    }
}

/// What the generator and the server use between begin and end.
pub(crate) struct Usage {
    pids: Vec<u32>,
    generator_seconds: f64,
    server_seconds: Option<f64>,
    memory_bytes: u64,
}

impl Usage {
    /// A process that is named twice counts once.
    fn begin(pids: &[u32]) -> Usage {
        let mut pids = pids.to_vec();
        pids.sort_unstable();
        pids.dedup();
        let mut usage = Usage {
            generator_seconds: own_cpu_seconds(),
            server_seconds: server_cpu_seconds(&pids),
            pids,
            memory_bytes: 0,
        };
        usage.sample_memory();
        usage
    }

    fn sample_memory(&mut self) {
        let now = self.pids.iter().filter_map(|pid| processes::memory_bytes(*pid)).sum();
        self.memory_bytes = self.memory_bytes.max(now);
    }

    fn finish(&mut self) {
        self.sample_memory();
        self.generator_seconds = own_cpu_seconds() - self.generator_seconds;
        let before = self.server_seconds;
        self.server_seconds = server_cpu_seconds(&self.pids).zip(before).map(|(after, before)| after - before);
    }

    pub(crate) fn generator_seconds(&self) -> f64 {
        self.generator_seconds
    }

    /// `None` where no process was named.
    pub(crate) fn server(&self) -> Option<ProcessUsage> {
        (!self.pids.is_empty())
            .then_some(ProcessUsage { cpu_seconds: self.server_seconds, memory_bytes: self.memory_bytes })
    }
}

/// All of them; `None` where one has ended, and took what it used along.
fn server_cpu_seconds(pids: &[u32]) -> Option<f64> {
    pids.iter().map(|pid| processes::cpu_seconds(*pid)).sum()
}

fn own_cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::plan;
    use crate::plan::{Operation, Sizes, Workload};
    use crate::template::Template;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_seed_by_chance_is_a_number_everywhere() {
        assert!((0..1000).all(|_| random_seed() < 1 << 53));
    }

    #[test]
    fn a_process_that_is_named_twice_counts_once() {
        let pid = std::process::id();
        assert_eq!(Usage::begin(&[pid, pid]).pids, [pid]);
    }

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";

    /// A server that gives each request, counted from 0 over all connections, its answer; `None` ends the connection.
    fn server(answer: impl Fn(usize) -> Option<&'static [u8]> + Send + Sync + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, requests) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
                std::thread::spawn(move || {
                    // A small request comes in one piece.
                    while stream.read(&mut [0; 1024]).is_ok_and(|length| length > 0) {
                        let Some(reply) = answer(requests.fetch_add(1, Ordering::Relaxed)) else { break };
                        let _ = stream.write_all(reply);
                    }
                });
            }
        });
        address
    }

    /// Small requests to a server, over one connection.
    fn short_plan(operation: Operation, address: SocketAddr) -> Plan {
        let mut plan = plan(Workload::Only(operation));
        (plan.connections, plan.sizes, plan.duration) = (1, Sizes::Fixed(16), Duration::from_millis(50));
        plan.target.addresses = vec![address];
        plan.names = vec![Name::hash_of(&[])];
        plan
    }

    /// A host may have addresses at which nobody listens.
    #[test]
    fn the_address_that_answers_is_used() {
        let deaf = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut plan = short_plan(Operation::Get, deaf);
        plan.target.addresses.push(server(|_| Some(OK)));
        assert!(run(plan.clone(), Arc::default(), &mut |_| {}).report.unwrap().is_success());
        plan.target.addresses = vec![deaf, deaf];
        let error = run(plan, Arc::default(), &mut |_| {}).report.unwrap_err().to_string();
        assert!(error.contains("Connection refused"), "{error}");
    }

    #[test]
    fn what_fails_in_the_warm_up_is_counted_apart() {
        const WRONG: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
        for (reply, group, kind) in [(BUSY, "status", "503"), (WRONG, "kinds", "wrong body")] {
            let address = server(move |number| Some(if number < 2 { reply } else { OK }));
            let mut plan = short_plan(Operation::Get, address);
            (plan.warm_up, plan.verify) = (Duration::from_millis(200), true);
            let report = run(plan, Arc::default(), &mut |_| {}).report.unwrap();
            assert!(!report.is_success());
            let json = serde_json::to_value(&report).unwrap();
            assert_eq!([&json["failed"], &json["failed_in_warm_up"], &json["errors"][group][kind]], [2, 2, 2]);
            assert!(json["errors"]["first"].as_str().unwrap().contains(kind), "{json:#}");
            assert!(json["requests"].as_u64().unwrap() > 0);
            let text = report.to_string();
            assert!(text.contains(kind) && text.contains(", 2 of them in the warm-up; the first: GET /"), "{text}");
        }
    }

    /// What was sent a second time was sent a first time.
    #[test]
    fn a_put_that_is_refused_when_it_is_repeated_keeps_its_name() {
        let address = server(|number| match number {
            0 => Some(OK),
            1 => None,
            _ => Some(BUSY),
        });
        let mut plan = short_plan(Operation::Put, address);
        (plan.template, plan.keep_names, plan.names) = (Some(Template::plain()), true, Vec::new());
        let outcome = run(plan, Arc::default(), &mut |_| {});
        assert_eq!(outcome.names.len(), 2, "one that is stored, and one of which nobody knows");
        assert!(!outcome.report.unwrap().is_success());
    }
}
