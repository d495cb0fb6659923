//! What a block costs the engine in CPU, piece by piece: its hash, its extent, its name, its record in the journal.
//!
//! `cargo bench -p buddy-store`, or `-- names` for a part. Each piece is measured in a state that a store under load has: a
//! fragmented file, a generation that is full, a batch of a frame.
#![allow(clippy::unwrap_used, missing_docs)]

use buddy_store::allocator::Allocator;
use buddy_store::checkpoint::{CheckpointJob, checkpoint};
use buddy_store::extent::{Extent, ExtentRun, SizeClass};
use buddy_store::index::{Index, MdbxIndex, Meta, Totals};
use buddy_store::journal::{FrameHeader, JournalRecord, encode_frame, frame_bytes};
use buddy_store::names::{Generation, NameState};
use buddy_store::record::Record;
use buddy_store::{BLOCK_BYTES_MAX, Hash, Hasher};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;

/// As many names as a small checkpoint gathers: one that the journal does not make earlier gathers up to 524,288.
const GENERATION_NAMES: usize = 65_536;
/// Names of the index that a checkpoint is written to, and of the checkpoint.
const INDEX_NAMES: u64 = 2_000_000;
const CHECKPOINT_NAMES: u32 = 262_144;
/// 1 GiB.
const FILE_MACROBLOCKS: u64 = 1024;
/// Extents that a worker's pool asks for at a time.
const POOL_EXTENTS: u32 = 16;

fn hash_of(number: u64) -> Hash {
    Hash::of(&number.to_le_bytes())
}

fn record(number: u64) -> Record {
    Record::new(Extent::new(SizeClass::SMALLEST, number), 4096).unwrap()
}

fn hashing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hash");
    let bytes: Vec<u8> = (0..BLOCK_BYTES_MAX).map(|index| index.to_le_bytes()[0]).collect();
    for length in [4096, 65_536, 524_288] {
        let (block, _) = bytes.split_at(length);
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_with_input(BenchmarkId::from_parameter(length), block, |bencher, block| {
            bencher.iter(|| Hash::of(black_box(block)));
        });
    }
    for (length, name) in [(4096, "4 KiB"), (65_536, "64 KiB")] {
        for count in [1, 2, 8, 16, 32] {
            hash_together(&mut group, &format!("{count} of {name}"), &vec![length; count]);
        }
    }
    // As bodies of many sizes are received: the long one comes last.
    hash_together(&mut group, "8 of 8 to 64 KiB", &[1, 2, 3, 4, 5, 6, 7, 8].map(|number| number * 8192));
    group.finish();
}

/// Messages of these lengths, each in one piece.
fn hash_together(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, lengths: &[usize]) {
    let messages: Vec<Vec<u8>> = lengths.iter().map(|length| vec![7; *length]).collect();
    group.throughput(Throughput::Bytes(lengths.iter().sum::<usize>() as u64));
    group.bench_function(BenchmarkId::new("together", name), |bencher| {
        bencher.iter(|| {
            let mut hashers = vec![Hasher::new(); messages.len()];
            Hasher::update_together(hashers.iter_mut().zip(black_box(&messages).iter().map(Vec::as_slice)));
            hashers.into_iter().map(Hasher::finish).collect::<Vec<Hash>>()
        });
    });
}

/// A file of 4 KiB extents, of which a random half is free.
fn fragmented() -> Allocator {
    let mut allocator = Allocator::new();
    allocator.grow(FILE_MACROBLOCKS);
    let mut runs = Vec::new();
    allocator.allocate(SizeClass::SMALLEST, u32::MAX, &mut runs);
    let mut random = fastrand::Rng::with_seed(1);
    for mut run in runs {
        while let Some(extent) = run.pop_first() {
            if random.bool() {
                allocator.release(extent);
            }
        }
    }
    allocator
}

fn whole() -> Allocator {
    let mut allocator = Allocator::new();
    allocator.grow(FILE_MACROBLOCKS);
    allocator
}

/// A pool's worth of extents taken and given back.
fn take_and_give_back(allocator: &mut Allocator, runs: &mut Vec<ExtentRun>, class: SizeClass) {
    allocator.allocate(class, POOL_EXTENTS, runs);
    for mut run in runs.drain(..) {
        while let Some(extent) = run.pop_first() {
            allocator.release(extent);
        }
    }
}

fn allocating(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("allocator");
    group.throughput(Throughput::Elements(u64::from(POOL_EXTENTS)));
    for (name, mut allocator) in [("fragmented", fragmented()), ("whole", whole())] {
        let mut runs = Vec::new();
        group.bench_function(BenchmarkId::new("allocate and release", name), |bencher| {
            bencher.iter(|| take_and_give_back(&mut allocator, &mut runs, black_box(SizeClass::SMALLEST)));
        });
    }
    group.finish();
}

fn names(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("names");
    let hashes: Vec<Hash> = (0..2 * GENERATION_NAMES as u64).map(hash_of).collect();
    let (stored, absent) = hashes.split_at(GENERATION_NAMES);
    let filled = || {
        let generation = Generation::new(GENERATION_NAMES);
        for (hash, number) in stored.iter().zip(0..) {
            generation.insert(hash, NameState::Occupied(record(number)));
        }
        generation
    };
    let generation = filled();
    for (name, hashes) in [("found", stored), ("absent", absent)] {
        // Not in the order in which they came in, in which their entries lie.
        let mut hashes = hashes.to_vec();
        fastrand::Rng::with_seed(1).shuffle(&mut hashes);
        let mut hashes = hashes.iter().cycle();
        group.bench_function(BenchmarkId::new("get", name), |bencher| {
            bencher.iter(|| generation.get(black_box(hashes.next().unwrap())));
        });
    }
    group.sample_size(10);
    group.throughput(Throughput::Elements(GENERATION_NAMES as u64));
    group.bench_function("fill a generation", |bencher| {
        bencher.iter_batched(|| (), |()| filled(), BatchSize::PerIteration);
    });
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    let header =
        FrameHeader { store_id: [7; 16], epoch: 1, first_sequence: 1, durable_up_to: 0, previous_crc: 0x1234_5678 };
    for count in [1, 64, 1024] {
        let records: Vec<_> = (0..count)
            .map(|number| JournalRecord::Occupied { hash: hash_of(number), record: record(number) })
            .collect();
        let mut target = vec![0; frame_bytes(&records)];
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("encode a frame", count), |bencher| {
            bencher.iter(|| encode_frame(&header, black_box(&records), &mut target));
        });
    }
    group.finish();
}

/// A checkpoint of names in random order into an index that holds many: its flushes included, so it needs a disk of its own.
fn checkpoints(criterion: &mut Criterion) {
    let names = u64::from(CHECKPOINT_NAMES);
    let mut group = criterion.benchmark_group("checkpoint");
    group.sample_size(10);
    group.throughput(Throughput::Elements(names));
    let directory = tempfile::tempdir_in(".").unwrap();
    let index = MdbxIndex::open(&directory.path().join("index")).unwrap();
    let mut next = 0;
    let mut job = || {
        next += names;
        checkpoint_of(next - names..next)
    };
    index.reserve(names).unwrap();
    (0..INDEX_NAMES / names).for_each(|_| drop(checkpoint(&index, &job()).unwrap()));
    group.bench_function(BenchmarkId::new("new names", INDEX_NAMES), |bencher| {
        bencher.iter_batched(&mut job, |job| checkpoint(&index, &job).unwrap(), BatchSize::PerIteration);
    });
    group.finish();
}

fn checkpoint_of(numbers: std::ops::Range<u64>) -> CheckpointJob {
    let generation = Generation::new(CHECKPOINT_NAMES as usize);
    for number in numbers {
        assert!(generation.insert(&hash_of(number), NameState::Occupied(record(number))));
    }
    let meta = Meta {
        store_id: [7; 16],
        epoch: 1,
        sequence: 1,
        journal_bytes: 1 << 26,
        journal_offset: 0,
        journal_crc: 0,
        clean: false,
        totals: Totals::default(),
    };
    CheckpointJob {
        generation: Arc::new(generation),
        quarantined: Vec::new(),
        meta,
        names_max: CHECKPOINT_NAMES.into(),
    }
}

criterion_group!(engine, hashing, allocating, names, frames, checkpoints);
criterion_main!(engine);
