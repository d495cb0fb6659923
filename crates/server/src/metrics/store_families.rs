//! What the store tells.

use super::families::{Families, Family, ONE, SECOND};
use buddy_store::Settings;
use buddy_store::extent::{SIZE_CLASSES, SizeClass};
use buddy_store::shared::Shared;
use buddy_store::statistics::{Counter, FreeExtents, Gauge, Statistics};
use buddy_store::worker_statistics::{ERROR_KINDS, WorkerStatistics};

/// Adds all families of the store.
pub(super) fn add(families: &mut Families, shared: &Shared, settings: &Settings) {
    let statistics = &shared.statistics;
    space(families, statistics, settings);
    health(families, shared);
    blocks(families, shared);
    pools(families, shared);
    journal(families, statistics);
    checkpoints(families, statistics);
    controller(families, shared);
}

/// Adds a series for each size of extents, and a ninth, of size 0, where there is a value for what has no extent.
fn by_size(mut family: Family<'_>, values: impl IntoIterator<Item = u64>) {
    let sizes = SizeClass::all().map(SizeClass::bytes).chain([0]);
    for (size, value) in sizes.zip(values) {
        family.add(&[("size", &size.to_string())], value);
    }
}

fn space(families: &mut Families, statistics: &Statistics, settings: &Settings) {
    let totals = statistics.totals();
    by_size(families.gauges("blocks", "Blocks that are stored, by the bytes of their extents."), totals.blocks);
    by_size(families.gauges("stored_bytes", "Sum of their lengths."), totals.bytes_stored);
    let allocated = totals.by_class().filter(|class| class.class.is_some()).map(|class| class.bytes_allocated());
    by_size(families.gauges("allocated_bytes", "Sum of their extents."), allocated);
    let held = statistics.bytes_held.get();
    families.gauge("held_bytes", "Extents in pools, in requests, or waiting for readers.", held);
    let suspect = statistics.bytes_suspect.get();
    families.gauge("suspect_bytes", "Of those held: extents that could not be written.", suspect);
    let free = || statistics.free_extents();
    by_size(families.gauges("free_extents", "Free extents, by their bytes."), free().map(|free| free.count));
    by_size(families.gauges("free_bytes", "The same, in bytes."), free().map(FreeExtents::bytes));
    let quarantined = statistics.quarantined_extents.get();
    families.gauge("quarantined_extents", "Extents out of service because their bytes were damaged.", quarantined);
    families.gauge("quarantined_bytes", "The same, in bytes.", statistics.bytes_quarantined.get());
    families.gauge("file_bytes", "The data file.", statistics.file_bytes.get());
    if let Some(capacity) = settings.capacity_bytes {
        families.gauge("capacity_bytes", "What the data file may grow to; missing: there is no limit.", capacity);
    }
}

fn health(families: &mut Families, shared: &Shared) {
    let read_only = u64::from(shared.health.read_only().is_some());
    families.gauge("read_only", "1 where nothing is written any more.", read_only);
    let statistics = &shared.statistics;
    let corrupt = statistics.corrupt_reads.get();
    families.counter("corrupt_reads_total", "Reads that found a damaged block.", corrupt);
    families.counter("scrub_passes_total", "Times that the scrub came to the end.", statistics.scrub_passes.get());
    families.counter("scrubbed_blocks_total", "Blocks that the scrub has read.", statistics.scrubbed_blocks.get());
    families.counter("scrubbed_bytes_total", "Bytes that the scrub has read.", statistics.scrubbed_bytes.get());
    let progress = statistics.scrub_position.get() as f64 / u64::MAX as f64;
    families.fraction(
        "scrub_progress_ratio",
        "The part of all names that the scrub has passed, from 0 to 1.",
        progress,
    );
    let mut family = families.counters("store_errors_total", "Operations on blocks that failed, by what went wrong.");
    for (number, kind) in ERROR_KINDS.iter().enumerate() {
        let count = of_workers(shared, |worker| worker.errors.get(number).map_or(0, |counter| counter.get()));
        family.add(&[("kind", kind)], count);
    }
}

fn of_workers(shared: &Shared, number: impl Fn(&WorkerStatistics) -> u64) -> u64 {
    shared.workers.iter().map(|worker| number(worker)).sum()
}

fn blocks(families: &mut Families, shared: &Shared) {
    let help = "Blocks that were stored and were new, by the bytes of their extents.";
    let created = |class| of_workers(shared, |worker| worker.created.get(class).map_or(0, Counter::get));
    by_size(families.counters("blocks_created_total", help), (0..=SIZE_CLASSES).map(created));
    let created = of_workers(shared, |worker| worker.created_bytes.get());
    families.counter("created_bytes_total", "Bytes of blocks that were stored and were new.", created);
    let existed = of_workers(shared, |worker| worker.existed.get());
    families.counter("dedup_hits_total", "Blocks that were to be stored and were there already.", existed);
    let bytes = of_workers(shared, |worker| worker.existed_bytes.get());
    families.counter("dedup_hit_bytes_total", "Bytes of those: they were not written.", bytes);
}

fn pools(families: &mut Families, shared: &Shared) {
    let classes = || 0..SIZE_CLASSES;
    let extents = |class| of_workers(shared, |worker| worker.pool_extents.get(class).map_or(0, Gauge::get));
    by_size(families.gauges("pool_extents", "Blank extents at hand, by their bytes."), classes().map(extents));
    let targets = |class| of_workers(shared, |worker| worker.pool_targets.get(class).map_or(0, Gauge::get));
    let help = "Blank extents that are to be at hand, by their bytes.";
    by_size(families.gauges("pool_target_extents", help), classes().map(targets));
    let dry = |class| of_workers(shared, |worker| worker.pool_dry.get(class).map_or(0, Counter::get));
    let help = "Times that an extent was wanted and none was at hand, by its bytes.";
    by_size(families.counters("pool_dry_total", help), classes().map(dry));
}

fn journal(families: &mut Families, statistics: &Statistics) {
    families.gauge("journal_size_bytes", "The journal.", statistics.journal_bytes.get());
    families.gauge("journal_used_bytes", "The part of it that is needed.", statistics.journal_bytes_used.get());
    let records = statistics.frame_records.snapshot();
    families.histogram("journal_frame_records", "Changes in each frame of the journal.", ONE, &records);
    let bytes = statistics.frame_bytes.snapshot();
    families.histogram("journal_frame_bytes", "Bytes of each frame.", ONE, &bytes);
    let time = statistics.frame_time.snapshot();
    let help = "Time from the beginning of a frame to its answers, with the flush of the blocks that it names.";
    families.histogram("journal_frame_duration_seconds", help, SECOND, &time);
    let time = statistics.flush_time.snapshot();
    families.histogram("flush_duration_seconds", "Time of each flush of the data file.", SECOND, &time);
}

fn checkpoints(families: &mut Families, statistics: &Statistics) {
    let time = statistics.checkpoint_time.snapshot();
    families.histogram("checkpoint_duration_seconds", "Time of each checkpoint.", SECOND, &time);
    let lag = statistics.checkpoint_lag().as_secs_f64();
    families.fraction("checkpoint_lag_seconds", "Age of the oldest change that no checkpoint has yet.", lag);
    let mut family = families.gauges("names", "Changes that are not in the index yet, by stage.");
    family.add(&[("stage", "active")], statistics.names_active.get());
    family.add(&[("stage", "sealed")], statistics.names_sealed.get());
    drop(family);
    families.gauge("index_size_bytes", "The index file, allocated ahead of need.", statistics.index_bytes.get());
    let used = statistics.index_used_bytes.get();
    families.gauge("index_used_bytes", "The part of it that was ever used.", used);
}

fn controller(families: &mut Families, shared: &Shared) {
    let statistics = &shared.statistics;
    let batches = statistics.batch_requests.snapshot();
    families.histogram("controller_batch_requests", "Requests that the controller took at a time.", ONE, &batches);
    let outstanding = of_workers(shared, |worker| worker.requests_outstanding.get());
    let mut family = families.gauges("controller_queue", "What waits at the controller, by what for.");
    family.add(&[("wait", "reply")], outstanding);
    family.add(&[("wait", "frame")], statistics.changes_gathered.get());
    family.add(&[("wait", "checkpoint")], statistics.requests_deferred.get());
    family.add(&[("wait", "space")], statistics.requests_starved.get());
}
