//! `/-/stats`: what the store holds and the server does, as JSON.

use crate::worker::Worker;
use buddy_store::format::FORMAT_VERSION;
use buddy_store::index::{ClassTotals, Totals};
use buddy_store::shared::Shared;
use buddy_store::statistics::FreeExtents;
use serde::Serialize;
use std::sync::PoisonError;

#[derive(Serialize)]
struct Stats {
    blocks: u64,
    bytes_stored: u64,
    bytes_allocated: u64,
    bytes_held: u64,
    bytes_suspect: u64,
    bytes_free: u64,
    file_bytes: u64,
    capacity_bytes: Option<u64>,
    quarantined_extents: u64,
    bytes_quarantined: u64,
    quarantine: Vec<QuarantinedExtent>,
    corrupt_reads: u64,
    scrub_passes: u64,
    scrubbed_blocks: u64,
    scrubbed_bytes: u64,
    free_extents: Vec<u64>,
    size_classes: Vec<SizeClassStats>,
    names_active: u64,
    names_sealed: u64,
    journal_bytes: u64,
    journal_bytes_used: u64,
    index_bytes: u64,
    index_used_bytes: u64,
    checkpoints: u64,
    frames: u64,
    records: u64,
    durability: &'static str,
    read_only: Option<String>,
    connections: usize,
    worker_connections: Vec<usize>,
    uptime_s: u64,
    version: &'static str,
    format_version: u32,
}

/// What there is of one size of extents.
#[derive(Serialize)]
struct SizeClassStats {
    bytes: u64,
    blocks: u64,
    bytes_stored: u64,
    bytes_allocated: u64,
    bytes_free: u64,
}

fn size_classes(totals: &Totals, free: &[FreeExtents]) -> Vec<SizeClassStats> {
    let of_class = |(class, free): (ClassTotals, &FreeExtents)| SizeClassStats {
        bytes: free.class.bytes(),
        blocks: class.blocks,
        bytes_stored: class.bytes_stored,
        bytes_allocated: class.bytes_allocated(),
        bytes_free: free.bytes(),
    };
    totals.by_class().zip(free).map(of_class).collect()
}

/// An extent that is out of service.
#[derive(Serialize)]
struct QuarantinedExtent {
    hash: String,
    offset: u64,
    bytes: u64,
    since_s: u64,
}

/// Extents that are listed; all are counted.
const LISTED_MAX: usize = 100;

fn quarantine(shared: &Shared) -> Vec<QuarantinedExtent> {
    let all = shared.quarantine.lock().unwrap_or_else(PoisonError::into_inner);
    let listed = all.iter().take(LISTED_MAX).map(|quarantined| QuarantinedExtent {
        hash: quarantined.hash.to_string(),
        offset: quarantined.extent.offset(),
        bytes: quarantined.extent.bytes(),
        since_s: quarantined.since_s,
    });
    listed.collect()
}

/// The body of the reply.
pub(crate) fn json(worker: &Worker) -> Vec<u8> {
    let shared = worker.session.shared();
    let statistics = &shared.statistics;
    let settings = worker.session.settings();
    let (totals, free): (_, Vec<_>) = (statistics.totals(), statistics.free_extents().collect());
    let stats = Stats {
        blocks: totals.block_count(),
        bytes_stored: totals.bytes_stored(),
        bytes_allocated: totals.bytes_allocated(),
        bytes_held: statistics.bytes_held.get(),
        bytes_suspect: statistics.bytes_suspect.get(),
        bytes_free: free.iter().map(|free| free.bytes()).sum(),
        file_bytes: statistics.file_bytes.get(),
        capacity_bytes: settings.capacity_bytes,
        quarantined_extents: statistics.quarantined_extents.get(),
        bytes_quarantined: statistics.bytes_quarantined.get(),
        quarantine: quarantine(shared),
        corrupt_reads: statistics.corrupt_reads.get(),
        scrub_passes: statistics.scrub_passes.get(),
        scrubbed_blocks: statistics.scrubbed_blocks.get(),
        scrubbed_bytes: statistics.scrubbed_bytes.get(),
        free_extents: free.iter().map(|free| free.count).collect(),
        size_classes: size_classes(&totals, &free),
        names_active: statistics.names_active.get(),
        names_sealed: statistics.names_sealed.get(),
        journal_bytes: statistics.journal_bytes.get(),
        journal_bytes_used: statistics.journal_bytes_used.get(),
        index_bytes: statistics.index_bytes.get(),
        index_used_bytes: statistics.index_used_bytes.get(),
        checkpoints: statistics.checkpoints.get(),
        frames: statistics.frames.get(),
        records: statistics.records.get(),
        durability: settings.durability.name(),
        read_only: shared.health.read_only().map(str::to_owned),
        connections: worker.state.connections(),
        worker_connections: worker.state.connections_by_worker(),
        uptime_s: worker.state.uptime().as_secs(),
        version: env!("CARGO_PKG_VERSION"),
        format_version: FORMAT_VERSION,
    };
    // Numbers and texts can always be written.
    let mut json = serde_json::to_vec_pretty(&stats).unwrap_or_default();
    json.push(b'\n');
    json
}
