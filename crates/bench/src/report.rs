//! The result, as a table and for JSON.

use crate::plan::{Operation, Plan, Sizes, Workload};
use crate::run::Usage;
use crate::tally::{FailureKind, OperationTally, Tally};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Above this part of its threads' time the generator may be what was measured.
const BUSY: f64 = 0.9;
const NONE_ANSWERED: &str = "no request was answered in the measured time: give more --seconds";
const LONGER_THAN_MEASURED: &str =
    "a request took longer than the measured time, so rates say little: give more --seconds";

/// What was used while it was measured.
pub(crate) struct Window {
    pub(crate) measured: Duration,
    pub(crate) usage: Usage,
}

/// What a server's processes used.
#[derive(Clone, Copy)]
pub(crate) struct ProcessUsage {
    /// None where a process has ended.
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) memory_bytes: u64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    target: String,
    operation: String,
    size: String,
    connections: usize,
    idle_connections: usize,
    idle_closed: usize,
    threads: usize,
    /// Requests a second that were asked for.
    rate: Option<f64>,
    verified: bool,
    seed: u64,
    warm_up_s: f64,
    seconds: f64,
    /// Together.
    #[serde(flatten)]
    total: Figures,
    operations: BTreeMap<Operation, Figures>,
    /// The warm-up's included.
    failed: u64,
    failed_in_warm_up: u64,
    errors: Errors,
    reconnects: u64,
    unsent: u64,
    /// Blocks that were stored, before the measured time, too.
    stored: u64,
    /// What makes the figures say less than they seem to.
    warnings: Vec<&'static str>,
    generator: Generator,
    server: Option<Server>,
}

/// Of requests that succeeded.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    requests: u64,
    requests_per_second: f64,
    bytes_per_second: f64,
    latency_us: Latency,
}

#[derive(Clone, Debug, Serialize)]
struct Latency {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p99_9: f64,
    max: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Errors {
    status: BTreeMap<u16, u64>,
    kinds: BTreeMap<&'static str, u64>,
    first: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Generator {
    /// None where there were no requests.
    cpu_us_per_request: Option<f64>,
    /// CPU time by wall time; 1 is one core.
    busy: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Server {
    /// None where there were no requests, or a process has ended meanwhile.
    cpu_us_per_request: Option<f64>,
    /// None where a process has ended meanwhile.
    busy: Option<f64>,
    memory_bytes: u64,
}

impl Figures {
    fn new(tally: &OperationTally, seconds: f64) -> Figures {
        let latency = &tally.latency_ns;
        let us = |ns: u64| ns as f64 / 1000.0;
        let requests = latency.len();
        Figures {
            requests,
            requests_per_second: requests as f64 / seconds,
            bytes_per_second: tally.bytes as f64 / seconds,
            latency_us: Latency {
                mean: latency.mean() / 1000.0,
                p50: us(latency.value_at_quantile(0.5)),
                p90: us(latency.value_at_quantile(0.9)),
                p99: us(latency.value_at_quantile(0.99)),
                p99_9: us(latency.value_at_quantile(0.999)),
                max: us(latency.max()),
            },
        }
    }
}

impl Report {
    pub(crate) fn new(plan: &Plan, tally: &Tally, window: &Window) -> Report {
        let seconds = window.measured.as_secs_f64();
        let total = Figures::new(&tally.total(), seconds);
        // What failed has cost something, too.
        let answered = total.requests + tally.failed_in_measurement();
        let by_request = |cpu: f64| (answered > 0).then(|| cpu * 1e6 / answered as f64);
        let server = window.usage.server().map(|usage| Server {
            cpu_us_per_request: usage.cpu_seconds.and_then(by_request),
            busy: usage.cpu_seconds.map(|cpu| cpu / seconds),
            memory_bytes: usage.memory_bytes,
        });
        let cpu = window.usage.generator_seconds();
        let warnings = warnings(answered, total.latency_us.max, seconds);
        Report {
            target: plan.target.url.clone(),
            operation: match plan.workload {
                Workload::Only(operation) => operation.to_string(),
                Workload::Mixed(shares) => format!("mixed {}/{}/{}", shares.get, shares.put, shares.delete),
            },
            size: match plan.sizes {
                Sizes::Fixed(bytes) => bytes.to_string(),
                Sizes::AllClasses => "mix".to_owned(),
            },
            connections: plan.connections,
            idle_connections: plan.idle_connections,
            idle_closed: tally.idle_closed,
            threads: plan.threads,
            rate: plan.rate,
            verified: plan.compares(),
            seed: plan.seed,
            warm_up_s: plan.warm_up.as_secs_f64(),
            seconds,
            total,
            operations: tally.operations.iter().map(|(kind, tally)| (*kind, Figures::new(tally, seconds))).collect(),
            failed: tally.failed(),
            failed_in_warm_up: tally.failed_in_warm_up,
            errors: Errors::new(tally),
            reconnects: tally.reconnects,
            unsent: tally.unsent,
            stored: tally.stored,
            warnings,
            generator: Generator { cpu_us_per_request: by_request(cpu), busy: cpu / seconds },
            server,
        }
    }

    /// Whether every request succeeded, and there were any.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.failed == 0 && self.total.requests > 0
    }
}

fn warnings(answered: u64, latency_max_us: f64, seconds: f64) -> Vec<&'static str> {
    if answered == 0 {
        return vec![NONE_ANSWERED];
    }
    if latency_max_us > seconds * 1e6 { vec![LONGER_THAN_MEASURED] } else { Vec::new() }
}

impl Errors {
    fn new(tally: &Tally) -> Errors {
        let mut errors = Errors { status: BTreeMap::new(), kinds: BTreeMap::new(), first: tally.first_failure.clone() };
        for (kind, count) in &tally.failures {
            match (kind, kind.name()) {
                (FailureKind::Status(status), _) => errors.status.insert(*status, *count),
                (_, Some(name)) => errors.kinds.insert(name, *count),
                (_, None) => None,
            };
        }
        errors
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_load(out)?;
        writeln!(
            out,
            "\n{:8}{:>12}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "", "requests/s", "MB/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"
        )?;
        for (operation, figures) in &self.operations {
            write_row(out, &operation.to_string(), figures)?;
        }
        if self.operations.len() != 1 {
            write_row(out, "all", &self.total)?;
        }
        writeln!(out)?;
        self.write_errors(out)?;
        for warning in &self.warnings {
            writeln!(out, "warning     {warning}")?;
        }
        self.write_usage(out)
    }
}

impl Report {
    fn write_load(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pace = self.rate.map_or("closed loop".to_owned(), |rate| format!("{rate} requests/s"));
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let verified = if self.verified { ", verified" } else { "" };
        write!(out, "{}: {}, size {}, ", self.target, self.operation, self.size)?;
        write!(out, "{} connection{}", self.connections, plural(self.connections))?;
        if self.idle_connections > 0 {
            write!(out, " and {} idle", self.idle_connections)?;
        }
        if self.idle_closed > 0 {
            write!(out, " ({} of them closed by the server meanwhile)", self.idle_closed)?;
        }
        writeln!(out, ", {} thread{}, {pace}{verified}", self.threads, plural(self.threads))?;
        writeln!(out, "{:.1} s after {:.1} s of warm-up, seed {}", self.seconds, self.warm_up_s, self.seed)
    }

    fn write_errors(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.errors.status.iter().map(|(status, count)| format!("{count} × status {status}"));
        let kinds = self.errors.kinds.iter().map(|(kind, count)| format!("{count} × {kind}"));
        let warm_up = Some(self.failed_in_warm_up).filter(|count| *count > 0);
        let warm_up = warm_up.map(|count| format!("{count} of them in the warm-up"));
        let all: Vec<String> = status.chain(kinds).chain(warm_up).collect();
        match &self.errors.first {
            None => writeln!(out, "errors      none")?,
            Some(first) => writeln!(out, "errors      {}; the first: {first}", all.join(", "))?,
        }
        if self.reconnects > 0 {
            writeln!(out, "reconnects  {}: the server closed connections between requests", self.reconnects)?;
        }
        if self.unsent > 0 {
            writeln!(out, "unsent      {} requests were due and found no connection free until the end", self.unsent)?;
        }
        Ok(())
    }

    fn write_usage(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Generator { cpu_us_per_request, busy } = self.generator;
        write!(out, "generator   {}{:.0} % of a core", cpu_text(cpu_us_per_request), busy * 100.0)?;
        if busy > BUSY * self.threads as f64 {
            write!(out, ": it may be what limits the figures, try more --threads")?;
        }
        writeln!(out)?;
        let Some(server) = &self.server else { return Ok(()) };
        let memory = server.memory_bytes as f64 / f64::from(1 << 20);
        match server.busy {
            Some(busy) => writeln!(
                out,
                "server      {}{:.0} % of a core, at most {memory:.1} MiB of its own",
                cpu_text(server.cpu_us_per_request),
                busy * 100.0
            ),
            None => {
                writeln!(out, "server      a process of it has ended meanwhile; at most {memory:.1} MiB of its own")
            }
        }
    }
}

/// Nothing, where there were no requests.
fn cpu_text(us_per_request: Option<f64>) -> String {
    us_per_request.map_or_else(String::new, |us| format!("{us:.2} µs of CPU a request, "))
}

fn write_row(out: &mut fmt::Formatter<'_>, name: &str, figures: &Figures) -> fmt::Result {
    let ms = |us: f64| us / 1000.0;
    let latency = &figures.latency_us;
    writeln!(
        out,
        "{name:8}{:>12.0}{:>10.1}{:>10.3}{:>10.3}{:>10.3}{:>10.3}{:>10.3}",
        figures.requests_per_second,
        figures.bytes_per_second / 1e6,
        ms(latency.p50),
        ms(latency.p90),
        ms(latency.p99),
        ms(latency.p99_9),
        ms(latency.max)
    )
}
