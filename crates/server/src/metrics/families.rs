//! Families of series, as the library has them.

use buddy_store::histogram::HistogramSnapshot;
use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// Names and values of labels.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Nanoseconds to a second: times are counted in the former and told in the latter.
pub(super) const SECOND: f64 = 1e9;
/// For histograms of anything that is told as it is counted.
pub(super) const ONE: f64 = 1.0;

/// Families, in the order in which they are told.
#[derive(Default)]
pub(super) struct Families(Vec<MetricFamily>);

/// One family that is being filled. A family without any series is not told.
pub(super) struct Family<'a> {
    families: &'a mut Families,
    family: MetricFamily,
    metrics: Vec<Metric>,
}

impl Families {
    /// A number that only grows. Its name ends in `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help).add(&[], value);
    }

    /// Several of those, by labels.
    pub(super) fn counters(&mut self, name: &str, help: &str) -> Family<'_> {
        debug_assert!(name.ends_with("_total"), "{name}");
        self.family(name, help, MetricType::COUNTER)
    }

    /// A number that goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.gauges(name, help).add(&[], value);
    }

    /// The same, in seconds or another unit that has parts.
    pub(super) fn fraction(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help).add_fraction(&[], value);
    }

    /// Several of those, by labels.
    pub(super) fn gauges(&mut self, name: &str, help: &str) -> Family<'_> {
        debug_assert!(!name.ends_with("_total"), "{name}");
        self.family(name, help, MetricType::GAUGE)
    }

    /// How often values fell between bounds. `unit`: how many of the units that are counted make one that is told.
    pub(super) fn histogram(&mut self, name: &str, help: &str, unit: f64, snapshot: &HistogramSnapshot) {
        self.histograms(name, help).add_histogram(&[], unit, snapshot);
    }

    /// Several of those, by labels.
    pub(super) fn histograms(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, help, MetricType::HISTOGRAM)
    }

    fn family(&mut self, name: &str, help: &str, kind: MetricType) -> Family<'_> {
        let mut family = MetricFamily::default();
        family.set_name(format!("buddy_{name}"));
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Family { families: self, family, metrics: Vec::new() }
    }

    /// All of it as text.
    pub(super) fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.0)
    }
}

impl Drop for Family<'_> {
    fn drop(&mut self) {
        if !self.metrics.is_empty() {
            let mut family = std::mem::take(&mut self.family);
            family.set_metric(std::mem::take(&mut self.metrics));
            self.families.0.push(family);
        }
    }
}

impl Family<'_> {
    /// Adds a series of counters or gauges.
    pub(super) fn add(&mut self, labels: Labels<'_>, value: u64) {
        // Exact up to 2^53, like everything that Prometheus keeps.
        self.add_fraction(labels, value as f64);
    }

    /// The same, of a value that has parts.
    pub(super) fn add_fraction(&mut self, labels: Labels<'_>, value: f64) {
        let mut metric = metric(labels);
        if self.family.get_field_type() == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// Adds a series of histograms.
    pub(super) fn add_histogram(&mut self, labels: Labels<'_>, unit: f64, snapshot: &HistogramSnapshot) {
        let buckets = snapshot.cumulative.iter().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / unit);
            bucket.set_cumulative_count(*count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(snapshot.count);
        histogram.set_sample_sum(snapshot.sum as f64 / unit);
        let mut metric = metric(labels);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }
}

fn metric(labels: Labels<'_>) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}
