//! What is run on the simulated store. A failing seed is printed; see `docs/reliability.md` for how to run it again.

use super::disk::Cut;
use super::workload::{Ended, Run, Workload};
use super::world::{World, small_settings};
use crate::settings::{Durability, LookupPath, Settings};

fn run(seed: u64, blocks: usize, settings: Settings) -> Run {
    Run::new(World::new(seed, blocks, settings), seed)
}

#[test]
fn a_store_keeps_what_it_is_given_through_orderly_stops() {
    for seed in 0..20 {
        let mut run = run(seed, 20, small_settings(2));
        for _ in 0..3 {
            assert_eq!(run.boot(Workload::default(), true), Ended::InOrder, "seed {seed}");
            run.check();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing() {
    for seed in 0..20 {
        for durability in [Durability::Sync, Durability::Relaxed] {
            let mut run = run(seed, 20, Settings { durability, ..small_settings(2) });
            for _ in 0..3 {
                assert_eq!(run.boot(Workload::default(), false), Ended::Killed, "seed {seed}");
                run.restore(Cut::Crash);
                run.check();
            }
            assert_eq!(run.boot(Workload::default(), true), Ended::InOrder, "seed {seed}");
            run.check();
        }
    }
}

#[test]
fn power_cuts_at_every_event() {
    for seed in 0..3 {
        for cut in [Cut::LoseAll, Cut::Random, Cut::Crash] {
            for event in 1.. {
                let lookup = if event % 5 == 0 { LookupPath::Controller } else { LookupPath::Worker };
                let mut run = run(seed, 20, Settings { lookup, ..small_settings(2) });
                run.world.disk.cut_power_at(event);
                let ended = run.boot(Workload { operations: 40, ..Workload::default() }, true);
                if ended == Ended::InOrder {
                    break;
                }
                run.restore(cut);
                run.check();
                assert_eq!(run.boot(Workload { operations: 20, ..Workload::default() }, true), Ended::InOrder);
                run.check();
            }
        }
    }
}
