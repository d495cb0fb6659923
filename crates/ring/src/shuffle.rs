//! The order in which a simulated ring polls its ready tasks: any, as a seed decides.

use std::cell::Cell;

/// Decides orders, each different from the last.
pub(crate) struct Shuffle {
    /// Of xorshift64*; never zero.
    state: Cell<u64>,
}

impl Shuffle {
    pub(crate) fn new(seed: u64) -> Shuffle {
        // splitmix64, so that neighbouring seeds differ.
        let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        Shuffle { state: Cell::new((mixed ^ mixed >> 31).max(1)) }
    }

    /// Puts items in another order (Fisher-Yates).
    pub(crate) fn shuffle<T>(&self, items: &mut [T]) {
        let mut state = self.state.get();
        for last in (1..items.len()).rev() {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let choice = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
            items.swap(last, usize::try_from(choice).unwrap_or(0) % (last + 1));
        }
        self.state.set(state);
    }
}
