//! Histograms with fixed bounds, counted by one thread and read by any: no lock, no allocation and no locked instruction when a value
//! is counted.

use crate::statistics::Counter;

/// How often values fell between given bounds. `N`: number of bounds; values above the last are counted too.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    /// Ascending. A value belongs to the first that is not below it.
    bounds: &'static [u64; N],
    counts: [Counter; N],
    beyond: Counter,
    sum: Counter,
}

/// A histogram at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistogramSnapshot {
    /// Each bound, and how many values did not exceed it.
    pub cumulative: Vec<(u64, u64)>,
    /// How many values there were.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
}

impl<const N: usize> Histogram<N> {
    /// An empty histogram.
    #[must_use]
    pub fn new(bounds: &'static [u64; N]) -> Histogram<N> {
        debug_assert!(bounds.is_sorted());
        Histogram {
            bounds,
            counts: std::array::from_fn(|_| Counter::default()),
            beyond: Counter::default(),
            sum: Counter::default(),
        }
    }

    /// Counts a value. For the one thread that owns the histogram.
    pub fn record(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts.get(place).unwrap_or(&self.beyond).add(1);
        self.sum.add(value);
    }

    /// What was counted until now. While the owner goes on counting, the sum may be of a few values more or fewer than the count.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut count = 0;
        let mut cumulative = Vec::with_capacity(N);
        for (bound, counter) in self.bounds.iter().zip(&self.counts) {
            count += counter.get();
            cumulative.push((*bound, count));
        }
        count += self.beyond.get();
        HistogramSnapshot { cumulative, count, sum: self.sum.get() }
    }
}

impl HistogramSnapshot {
    /// Adds another of the same bounds.
    pub fn add(&mut self, other: &HistogramSnapshot) {
        debug_assert_eq!(self.cumulative.len(), other.cumulative.len(), "histograms of the same bounds");
        for ((_, mine), (_, others)) in self.cumulative.iter_mut().zip(&other.cumulative) {
            *mine += others;
        }
        self.count += other.count;
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_between_their_bounds() {
        let histogram = Histogram::new(&[1, 10, 100]);
        for value in [0, 1, 2, 10, 11, 100, 101, 5000] {
            histogram.record(value);
        }
        let mut snapshot = histogram.snapshot();
        assert_eq!(snapshot.cumulative, [(1, 2), (10, 4), (100, 6)]);
        assert_eq!((snapshot.count, snapshot.sum), (8, 5225));
        snapshot.add(&histogram.snapshot());
        assert_eq!((snapshot.cumulative[1], snapshot.count, snapshot.sum), ((10, 8), 16, 10_450));
    }
}
