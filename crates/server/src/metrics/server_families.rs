//! What the HTTP side tells.

use super::counters::{self, Levels, WorkerMetrics};
use super::families::{Families, SECOND};
use crate::limits::REPLY_MEMORY_SHARE;
use crate::worker::Worker;
use buddy_store::statistics::Gauge;

/// Adds all families of the server.
pub(super) fn add(families: &mut Families, worker: &Worker) {
    let settings = worker.session.settings();
    families
        .gauges("info", "The version of the server and how durable its writes are; always 1.")
        .add(&[("version", env!("CARGO_PKG_VERSION")), ("durability", settings.durability.name())], 1);
    families.fraction("uptime_seconds", "Time since the server was started.", worker.state.uptime().as_secs_f64());
    requests(families, worker);
    connections(families, worker);
    buffers(families, worker);
}

fn requests(families: &mut Families, worker: &Worker) {
    let workers = worker.state.metrics();
    let mut family =
        families.counters("http_requests_total", "Requests, by method and status; none: the client was gone.");
    for (method, status, count) in counters::requests(workers.clone()) {
        family.add(&[("method", method), ("status", &status)], count);
    }
    drop(family);
    let mut family = families.histograms(
        "http_request_duration_seconds",
        "Time from the complete head of a request to the end of its answer, by method and class of status.",
    );
    for (method, class, times) in counters::times(workers.clone()) {
        family.add_histogram(&[("method", method), ("class", class)], SECOND, &times);
    }
    drop(family);
    let mut family =
        families.counters("access_refused_total", "Requests that their senders had no right to, by what was missing.");
    for (reason, count) in counters::refusals(workers.clone()) {
        family.add(&[("reason", reason)], count);
    }
    drop(family);
    let received = sum(workers.clone(), |levels| &levels.received_bytes);
    families.counter("network_receive_bytes_total", "Bytes received from clients.", received);
    let sent = sum(workers, |levels| &levels.sent_bytes);
    families.counter("network_transmit_bytes_total", "Bytes sent to clients.", sent);
}

fn sum<'a>(workers: impl Iterator<Item = &'a WorkerMetrics>, level: impl Fn(&Levels) -> &Gauge) -> u64 {
    workers.map(|worker| level(&worker.levels).get()).sum()
}

fn connections(families: &mut Families, worker: &Worker) {
    let mut family = families.gauges("connections", "Open connections, by the worker that serves them.");
    for (number, count) in worker.state.connections_by_worker().into_iter().enumerate() {
        family.add(&[("worker", &number.to_string())], count as u64);
    }
    drop(family);
    let limit = worker.limits.connections_max as u64;
    families.gauge("connections_limit", "Connections that may be open at a time.", limit);
    let count = |counter: fn(&counters::ConnectionCounters) -> u64| -> u64 {
        worker.state.metrics().map(|metrics| counter(&metrics.connections)).sum()
    };
    let accepted = count(|connections| connections.accepted.get());
    families.counter("connections_accepted_total", "Connections that were accepted.", accepted);
    let refused = count(|connections| connections.refused.get());
    families.counter(
        "connections_refused_total",
        "Connections that were one too many, on the whole or of one peer.",
        refused,
    );
    let failed = count(|connections| connections.failed.get());
    let help = "Times that accepting connections began to fail, for want of descriptors or memory for example.";
    families.counter("accept_errors_total", help, failed);
}

fn buffers(families: &mut Families, worker: &Worker) {
    let workers = worker.state.metrics();
    let count = workers.clone().count() as u64;
    let uploads = sum(workers.clone(), |levels| &levels.upload_buffer_bytes);
    let replies = sum(workers.clone(), |levels| &levels.reply_buffer_bytes);
    let mut family = families.gauges("buffer_bytes", "Buffers for blocks that are in use, by what for.");
    family.add(&[("use", "uploads")], uploads);
    family.add(&[("use", "replies")], replies);
    drop(family);
    let limit = worker.limits.buffer_bytes_max as u64;
    let reply_limit = limit / REPLY_MEMORY_SHARE as u64;
    let mut family = families.gauges("buffer_limit_bytes", "Buffers for blocks that there may be, by what for.");
    family.add(&[("use", "uploads")], (limit - reply_limit) * count);
    family.add(&[("use", "replies")], reply_limit * count);
    drop(family);
    let in_use = sum(workers, |levels| &levels.receive_buffers);
    families.gauge("receive_buffers_in_use", "Buffers that hold received heads.", in_use);
    let all = u64::from(worker.receive_buffers.count()) * count;
    families.gauge("receive_buffers", "Buffers for received heads, in use or not.", all);
}
