//! Several messages at once, in the ways that take this processor the least time.

use super::lanes::{self, LANES};
use super::pair;
use super::sha256::{INITIAL, Message};
use sha2::block_api::compress256;
use std::cmp::Reverse;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How this processor hashes several messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ways {
    /// It can do [two at once](pair).
    pub(super) pairs: bool,
    /// From this many on, one in [each lane](lanes) takes less time.
    pub(super) lanes_min: usize,
}

/// What is hashed to see how long it takes: 4 KiB of each message.
const SAMPLE_BLOCKS: usize = 64;
/// Lanes that are quicker only where nearly all are full are not worth gathering so many, and would be at one start and not at the next.
const LANES_MIN_MAX: usize = 12;
/// The fastest of this many times counts: something else may run in between.
const SAMPLES: u32 = 5;

impl Ways {
    /// What this processor does best. It is measured once, which takes a tenth of a millisecond.
    pub(super) fn of_this_processor() -> Ways {
        static MEASURED: OnceLock<Ways> = OnceLock::new();
        *MEASURED.get_or_init(Ways::measured)
    }

    /// With so many at once each takes the least time.
    pub(super) fn together_max(self) -> usize {
        match self {
            Ways { lanes_min: ..=LANES, .. } => LANES,
            Ways { pairs: true, .. } => 2,
            Ways { pairs: false, .. } => 1,
        }
    }

    fn measured() -> Ways {
        let pairs = Ways { pairs: pair::is_supported(), lanes_min: usize::MAX };
        if !lanes::is_supported() {
            return pairs;
        }
        let (two, lanes) = (time(pairs, 2), time(Ways { lanes_min: 1, ..pairs }, LANES));
        // Any number takes as long as all in lanes, and half of it as many times as long as two in pairs.
        let lanes_min = (1..).zip(1..=LANES).find(|(count, _)| two * *count > lanes * 2).map(|(_, count)| count);
        Ways { lanes_min: lanes_min.filter(|count| *count <= LANES_MIN_MAX).unwrap_or(usize::MAX), ..pairs }
    }
}

/// How long so many messages take.
fn time(ways: Ways, count: usize) -> Duration {
    let mut messages = vec![(INITIAL, vec![[0; 64]; SAMPLE_BLOCKS]); count];
    let once = |_| {
        let began = Instant::now();
        compress(messages.iter_mut().map(|(state, blocks)| Message { state, blocks }).collect(), ways);
        began.elapsed()
    };
    (0..SAMPLES).map(once).min().unwrap_or_default()
}

/// Takes all blocks of each message into its state.
pub(super) fn compress(mut messages: Vec<Message<'_>>, ways: Ways) {
    longest_first(&mut messages);
    while messages.len() >= ways.lanes_min && lanes::compress(&mut messages) {
        longest_first(&mut messages);
    }
    compress_in_pairs(messages, ways.pairs);
}

/// The longest first, without those that are done: what is left of the last one has nothing beside it.
fn longest_first(messages: &mut Vec<Message<'_>>) {
    messages.retain(|message| !message.blocks.is_empty());
    messages.sort_unstable_by_key(|message| Reverse(message.blocks.len()));
}

fn compress_in_pairs(messages: Vec<Message<'_>>, pairs: bool) {
    let mut messages = messages.into_iter();
    let Some(mut left) = messages.next() else { return };
    for mut next in messages {
        let together = left.blocks.len().min(next.blocks.len());
        if !(pairs && pair::compress([left.state, next.state], [left.blocks, next.blocks])) {
            compress256(left.state, left.blocks.get(..together).unwrap_or_default());
            compress256(next.state, next.blocks.get(..together).unwrap_or_default());
        }
        left.advance(together);
        next.advance(together);
        // The longer one goes on beside whatever comes after.
        if left.blocks.is_empty() {
            left = next;
        }
    }
    compress256(left.state, left.blocks);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_can_uses_what_it_has() {
        let ways = Ways::of_this_processor();
        assert_eq!(ways.pairs, pair::is_supported());
        assert!(ways.together_max() >= if ways.pairs { 2 } else { 1 });
        assert!(
            ways.lanes_min == usize::MAX || (lanes::is_supported() && (1..=LANES_MIN_MAX).contains(&ways.lanes_min)),
            "{ways:?}"
        );
    }
}
