//! Random workloads that end in order, by a kill, or by a power cut at any event, judged by an oracle.
//!
//! Every run follows from its seed, which a failing test prints. `SIMULATION_SEED=7 cargo test -p buddy-store simulation` runs
//! seed 7 alone; `SIMULATION_SEEDS=500` runs so many seeds instead of the few that suffice in passing.

use super::disk::{Cut, Fault, Kind, PlannedFault};
use super::steps::EIO;
use super::workload::{Ended, Run, Workload};
use super::world::{DATA, JOURNAL, World, small_settings};
use crate::settings::{DataSync, Durability, LookupPath, NewSpace, Settings};
use std::time::Duration;

/// The seeds to run: `count` of them, unless the environment says otherwise.
pub(super) fn seeds(count: u64) -> impl Iterator<Item = Seed> {
    let number = |name| std::env::var(name).ok().map(|value: String| value.parse::<u64>().unwrap());
    let range = match (number("SIMULATION_SEED"), number("SIMULATION_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, seeds) => 0..seeds.unwrap_or(count),
    };
    range.map(Seed)
}

/// A seed that tells its number where the test fails.
pub(super) struct Seed(pub(super) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with SIMULATION_SEED={}", self.0);
        }
    }
}

pub(super) fn run(seed: u64, blocks: usize, settings: Settings) -> Run {
    Run::new(World::new(seed, blocks, settings), seed)
}

pub(super) const WAYS_TO_BE_DURABLE: [(Durability, Option<DataSync>); 3] = [
    (Durability::Sync, Some(DataSync::PerWrite)),
    (Durability::Sync, Some(DataSync::PerFrame)),
    (Durability::Relaxed, None),
];

#[test]
fn a_store_keeps_what_it_is_given_through_orderly_stops() {
    for seed in seeds(20) {
        let mut run = run(seed.0, 20, small_settings(2));
        for _ in 0..3 {
            assert_eq!(run.boot(Workload::default(), true), Ended::InOrder);
            run.check();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing() {
    for seed in seeds(20) {
        for durability in [Durability::Sync, Durability::Relaxed] {
            let mut run = run(seed.0, 20, Settings { durability, ..small_settings(2) });
            for _ in 0..3 {
                assert_eq!(run.boot(Workload::default(), false), Ended::Killed);
                run.restore(Cut::Crash);
                run.check();
            }
            assert_eq!(run.boot(Workload::default(), true), Ended::InOrder);
            run.check();
        }
    }
}

/// Lets the power go, or the process die, at each event of a boot in turn, up to its end. Returns how often.
pub(super) fn cut_at_every_event(prepare: impl Fn() -> Run, operations: usize, seed: u64) -> u64 {
    let workload = Workload { operations, ..Workload::default() };
    (1..).take_while(|event| cut_at(*event, prepare(), workload, seed, |_| {})).count() as u64
}

/// Lets the power go, or the process die, at an event of a boot, and has `look` look at what is left; false where the boot ended before.
pub(super) fn cut_at(event: u64, mut run: Run, workload: Workload, seed: u64, look: impl FnOnce(&World)) -> bool {
    run.world.disk.cut_power_at(run.world.disk.events() + event);
    if run.boot(workload, true) == Ended::InOrder {
        return false;
    }
    // Twice as often in pieces: there are many ways to do that.
    let mut random = fastrand::Rng::with_seed(seed << 32 | event);
    run.restore(*random.choice(&[Cut::LoseAll, Cut::Random, Cut::Random, Cut::Crash]).unwrap());
    look(&run.world);
    run.check();
    assert_eq!(run.boot(Workload { operations: 20, ..Workload::default() }, true), Ended::InOrder);
    run.check();
    true
}

#[test]
fn power_cuts_at_every_event() {
    let mut cuts = 0;
    for seed in seeds(20) {
        let (durability, data_sync) = WAYS_TO_BE_DURABLE[seed.0 as usize % WAYS_TO_BE_DURABLE.len()];
        let sync_interval = Duration::from_millis(2);
        let settings = Settings { durability, data_sync, sync_interval, ..small_settings(2) };
        let cuts_of_seed = cut_at_every_event(|| run(seed.0, 20, settings.clone()), 250, seed.0);
        assert!(cuts_of_seed > 100, "{cuts_of_seed}");
        cuts += cuts_of_seed;
    }
    println!("{cuts} cuts");
}

/// The process was killed under load; the power goes at each event of the recovery and of what follows it.
#[test]
fn power_cuts_while_recovering_from_a_kill() {
    let mut cuts = 0;
    for seed in seeds(12) {
        let (durability, data_sync) = WAYS_TO_BE_DURABLE[seed.0 as usize % WAYS_TO_BE_DURABLE.len()];
        let killed = || {
            let mut run = run(seed.0, 12, Settings { durability, data_sync, ..small_settings(2) });
            // The power goes for the process only, with writes in flight.
            run.world.disk.cut_power_at(50);
            assert_eq!(run.boot(Workload { operations: 200, ..Workload::default() }, true), Ended::Cut);
            run.restore(Cut::Crash);
            run
        };
        cuts += cut_at_every_event(killed, 8, seed.0);
    }
    println!("{cuts} cuts");
}

/// Settings and workload of a long history, by its seed.
fn history(random: &mut fastrand::Rng, seed: u64) -> (Run, Workload) {
    let settings = Settings {
        durability: if random.bool() { Durability::Relaxed } else { Durability::Sync },
        data_sync: Some(if random.bool() { DataSync::PerFrame } else { DataSync::PerWrite }),
        new_space: Some(if random.bool() { NewSpace::Zeros } else { NewSpace::Unwritten }),
        lookup: if random.u8(0..4) == 0 { LookupPath::Controller } else { LookupPath::Worker },
        checkpoint_names: random.usize(2..20),
        pool_targets: [random.u32(1..4); 8],
        sync_interval: Duration::from_millis(random.u64(1..30)),
        ..small_settings(random.usize(1..4))
    };
    // Few names mean many changes of each, and the same extents again and again.
    let mut run = run(seed, random.usize(2..20), settings);
    if random.bool() {
        run.world.disk.stall_now_and_then();
    }
    if random.u8(0..4) == 0 {
        run.world().checkpoint_pause = Duration::from_millis(random.u64(1..60));
    }
    let puts = random.u32(20..60);
    let workload = Workload {
        clients: random.usize(1..12),
        operations: random.usize(20..200),
        puts,
        deletes: random.u32(10..=90 - puts),
    };
    (run, workload)
}

/// A frame that fails ends all writing, and all flushing: what is lost of a relaxed store when the power goes then is not bound by the
/// interval.
fn write_that_fails(random: &mut fastrand::Rng, durability: Durability) -> PlannedFault {
    let fault = *random.choice(&[EIO, Fault::Error(libc::ENOSPC), Fault::Short]).unwrap();
    let file = if durability == Durability::Sync && random.u8(0..8) == 0 { JOURNAL } else { DATA };
    PlannedFault { file, kind: Kind::Write, after: random.u64(0..60), fault }
}

/// Histories of several boots, each ended in order, by a kill or by a power cut, some during recovery, some twice in a row; in some of
/// them writes of blocks fail, or of frames.
#[test]
fn histories_of_kills_and_power_cuts() {
    let mut cuts = 0;
    for seed in seeds(300) {
        let mut random = fastrand::Rng::with_seed(seed.0);
        let (mut run, workload) = history(&mut random, seed.0);
        for _ in 0..random.usize(2..6) {
            if random.u8(0..4) > 0 {
                // Half of them early: during recovery, or soon after.
                let events = if random.bool() { 30 } else { workload.operations as u64 };
                run.world.disk.cut_power_at(run.world.disk.events() + random.u64(1..=events));
            }
            if random.u8(0..3) == 0 {
                let durability = run.world.settings.durability;
                run.faults = (0..random.usize(1..6)).map(|_| write_that_fails(&mut random, durability)).collect();
            }
            let ended = run.boot(workload, random.bool());
            cuts += u64::from(ended == Ended::Cut);
            if ended != Ended::InOrder {
                run.restore(*random.choice(&[Cut::LoseAll, Cut::Random, Cut::Random, Cut::Crash]).unwrap());
            }
            run.check();
        }
    }
    println!("{cuts} cuts");
}

/// A checkpoint takes so long that the journal fills up: nothing of it is overwritten before the checkpoint is made.
#[test]
fn a_full_journal_keeps_what_no_checkpoint_has() {
    for seed in seeds(6) {
        for cut in [Cut::LoseAll, Cut::Random] {
            let mut random = fastrand::Rng::with_seed(seed.0);
            let mut run = run(seed.0, 12, Settings { checkpoint_names: 4000, ..small_settings(2) });
            run.world().journal_bytes = 2 << 20;
            run.world().checkpoint_pause = Duration::from_secs(1);
            // One client: a frame for each change. The journal is written round while its second checkpoint is under way.
            let workload = Workload { clients: 1, operations: 4000, puts: 50, deletes: 48 };
            run.world.disk.cut_power_at(random.u64(1000..1200));
            assert_eq!(run.boot(workload, true), Ended::Cut);
            run.restore(cut);
            run.check();
            assert_eq!(run.boot(Workload::default(), true), Ended::InOrder);
            run.check();
        }
    }
}
