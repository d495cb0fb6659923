//! `/-/metrics`, read as a scraper reads it.

use crate::support::{Server, directory};
use std::collections::{BTreeMap, BTreeSet};

/// One scrape: types and explanations of the families, and every series.
#[derive(Debug, Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    helps: BTreeSet<String>,
    series: BTreeMap<String, f64>,
}

/// Reads the text format strictly; anything that is not in it fails.
fn parse(text: &str) -> Scrape {
    let mut scrape = Scrape::default();
    let mut family = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.trim().is_empty() && scrape.helps.insert(name.to_owned()), "{line}");
            family = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family, "HELP and TYPE of one family follow each other");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert_eq!(scrape.types.insert(name.to_owned(), kind.to_owned()), None, "a family comes once: {line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = check_series(series);
            let base = match scrape.types[&family].as_str() {
                "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap(),
                _ => name,
            };
            assert_eq!(base, family, "{line}");
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert_eq!(scrape.series.insert(series.to_owned(), value), None, "a series comes once: {line}");
        }
    }
    check_histograms(&scrape);
    assert_eq!(scrape.helps, scrape.types.keys().cloned().collect());
    scrape
}

/// The name of a series, whose form is checked: `name` or `name{label="value",…}`.
fn check_series(series: &str) -> &str {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, rest)) => (name, rest.strip_suffix('}').unwrap()),
    };
    assert!(is_name(name), "{series}");
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once('=').unwrap();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
        assert!(is_name(name) && !value.contains(['"', '\\', '\n']), "{series}");
    }
    name
}

/// Buckets grow, and the last holds everything.
fn check_histograms(scrape: &Scrape) {
    for name in scrape.types.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
        let mut by_labels: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (series, count) in &scrape.series {
            let Some(rest) = series.strip_prefix(&format!("{name}_bucket{{")) else { continue };
            let (labels, bound) = rest.trim_end_matches("\"}").split_once("le=\"").unwrap();
            by_labels
                .entry(labels.trim_end_matches(',').to_owned())
                .or_default()
                .push((bound.parse().unwrap(), *count));
        }
        assert!(!by_labels.is_empty(), "{name} has no buckets");
        for (labels, mut buckets) in by_labels {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{name} {labels}: {buckets:?}");
            let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let last = buckets.last().unwrap();
            assert_eq!((last.0, last.1), (f64::INFINITY, scrape.series[&format!("{name}_count{braces}")]));
            assert!(scrape.series.contains_key(&format!("{name}_sum{braces}")));
        }
    }
}

impl Scrape {
    fn of(server: &Server) -> Scrape {
        let reply = server.connect().request("GET", "/-/metrics", &[], b"");
        assert_eq!((reply.status, reply.header("content-type")), (200, "text/plain; version=0.0.4"));
        parse(&reply.text())
    }

    /// A series, 0 where it has not appeared yet.
    fn get(&self, series: &str) -> f64 {
        self.series.get(&format!("buddy_{series}")).copied().unwrap_or(0.0)
    }
}

#[test]
fn every_line_is_well_formed_and_every_family_is_documented() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--capacity", "64MiB", "--workers", "2"]);
    let scrape = Scrape::of(&server);
    let docs = include_str!("../../../../docs/metrics.md");
    let documented: BTreeSet<String> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `buddy_")?.split('|').next())
        .flat_map(|names| names.split('`').filter(|name| !name.trim().is_empty() && !name.starts_with(',')))
        .map(|name| format!("buddy_{}", name.trim_start_matches("buddy_")))
        .collect();
    let told: BTreeSet<String> = scrape.types.keys().cloned().collect();
    assert_eq!(told, documented);
    let head = server.connect().request("HEAD", "/-/metrics", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let posted = server.connect().request("POST", "/-/metrics", &[], b"");
    assert_eq!((posted.status, posted.header("allow")), (405, "GET, HEAD"));
    server.stop();
}

#[test]
fn counters_move_as_requests_are_made() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--workers", "2"]);
    let before = Scrape::of(&server);
    let mut client = server.connect();
    let block = vec![7; 5000];
    assert_eq!(client.request("POST", "/", &[], &block).status, 201);
    let stored = client.request("POST", "/", &[], &block);
    assert_eq!(stored.status, 200);
    let path = format!("/{}", stored.text());
    for _ in 0..3 {
        assert_eq!(client.request("GET", &path, &[], b"").body, block);
    }
    assert_eq!(client.request("DELETE", &path, &[], b"").status, 204);
    assert_eq!(client.request("GET", &path, &[], b"").status, 404);
    assert_eq!(client.request("PATCH", &path, &[], b"").status, 405);
    client.send(b"nonsense\r\n\r\n");
    assert_eq!(client.read_reply(false).unwrap().status, 400);
    assert!(client.is_at_end(), "what ends a connection is counted before that");
    let after = Scrape::of(&server);
    let moved = |series: &str| after.get(series) - before.get(series);
    for (series, by) in [
        ("http_requests_total{method=\"POST\",status=\"201\"}", 1.0),
        ("http_requests_total{method=\"POST\",status=\"200\"}", 1.0),
        // The first scrape was counted after it was written.
        ("http_requests_total{method=\"GET\",status=\"200\"}", 4.0),
        ("http_requests_total{method=\"DELETE\",status=\"204\"}", 1.0),
        ("http_requests_total{method=\"GET\",status=\"404\"}", 1.0),
        ("http_requests_total{method=\"other\",status=\"405\"}", 1.0),
        ("http_requests_total{method=\"malformed\",status=\"400\"}", 1.0),
        ("http_request_duration_seconds_count{method=\"POST\",class=\"2xx\"}", 2.0),
        ("http_request_duration_seconds_count{method=\"GET\",class=\"4xx\"}", 1.0),
        ("dedup_hits_total", 1.0),
        ("dedup_hit_bytes_total", 5000.0),
        ("blocks_created_total{size=\"8192\"}", 1.0),
        ("created_bytes_total", 5000.0),
        ("journal_frame_records_sum", 2.0),
        ("journal_frame_duration_seconds_count", 2.0),
        ("connections_accepted_total", 2.0),
        ("blocks{size=\"8192\"}", 0.0),
    ] {
        assert_eq!(moved(series), by, "{series}");
    }
    assert!(moved("network_receive_bytes_total") > 10_000.0, "two bodies");
    assert!(moved("network_transmit_bytes_total") > 15_000.0, "three blocks");
    assert!(moved("journal_frame_bytes_sum") >= 8192.0, "two frames of at least a page");
    assert!(moved("controller_batch_requests_sum") >= 2.0);
    assert!(after.get("pool_extents{size=\"4096\"}") >= 2.0, "each worker has some at hand");
    assert!(after.get("connections{worker=\"0\"}") + after.get("connections{worker=\"1\"}") >= 1.0);
    assert!(after.get("names{stage=\"active\"}") >= 1.0);
    server.stop();
}

/// Bytes of extents, as labels have them.
const SIZES: [u64; 8] = [4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144, 524_288];

/// Blocks of all sizes, and what is told of each, by the scrape and by `/-/stats`, before and after everything is opened again.
/// The kernel takes a power of two of them.
#[test]
fn buffers_for_heads_are_those_there_are() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--receive-buffers", "100", "--workers", "2"]);
    let metrics = server.connect().request("GET", "/-/metrics", &[], b"").text();
    assert!(metrics.contains("\nbuddy_receive_buffers 256\n"), "{metrics}");
}

#[test]
fn what_is_stored_and_free_is_told_by_size() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--workers", "1"]);
    let mut client = server.connect();
    assert_eq!(client.request("POST", "/", &[], b"").status, 201);
    for (number, size) in (1_u8..).zip(SIZES) {
        for copy in 0..number {
            let length = usize::try_from(size).unwrap() - usize::from(copy);
            assert_eq!(client.request("POST", "/", &[], &vec![number; length]).status, 201);
        }
    }
    tells_sizes(&server);
    server.stop();
    let server = Server::start(directory.path(), &["--workers", "1"]);
    tells_sizes(&server);
    server.stop();
}

/// Of the smallest size there is one block, of the next two, and so on, each a byte shorter than the one before.
fn tells_sizes(server: &Server) {
    // Pools are filled, and the file grows, ahead of need: until that has come to rest scrape and stats are not of one moment.
    let settled = || {
        let reply = server.connect().request("GET", "/-/stats", &[], b"");
        let stats: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        let scrape = Scrape::of(server);
        let same = SIZES.iter().zip(stats["size_classes"].as_array().unwrap()).all(|(size, class)| {
            scrape.get(&format!("free_bytes{{size=\"{size}\"}}")) == class["bytes_free"].as_f64().unwrap()
        });
        same.then_some((stats, scrape))
    };
    let (stats, scrape) = (0..100).find_map(|_| settled()).unwrap();
    let classes = stats["size_classes"].as_array().unwrap();
    assert_eq!((classes.len(), scrape.get("blocks{size=\"0\"}")), (8, 1.0));
    for ((blocks, size), class) in (1..).zip(SIZES).zip(classes) {
        let stored = blocks * size - (0..blocks).sum::<u64>();
        let expected = [("blocks", blocks), ("bytes_stored", stored), ("bytes_allocated", blocks * size)];
        assert_eq!(class["bytes"], size);
        for ((field, value), family) in expected.into_iter().zip(["blocks", "stored_bytes", "allocated_bytes"]) {
            assert_eq!(class[field], value, "{field} of {size}");
            assert_eq!(scrape.get(&format!("{family}{{size=\"{size}\"}}")), value as f64, "{family} of {size}");
        }
        let free = scrape.get(&format!("free_extents{{size=\"{size}\"}}"));
        assert_eq!(class["bytes_free"].as_f64().unwrap(), free * size as f64);
    }
    assert_eq!(stats["blocks"], (1..=8).sum::<u64>() + 1, "and the empty one");
    for field in ["bytes_stored", "bytes_allocated", "bytes_free"] {
        let sum: u64 = classes.iter().map(|class| class[field].as_u64().unwrap()).sum();
        assert_eq!(stats[field], sum, "{field}");
    }
}

#[test]
fn a_store_that_is_full_and_one_that_is_checkpointed_say_so() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--capacity", "2MiB", "--checkpoint-names", "64", "--workers", "1"]);
    let mut client = server.connect();
    let mut refused = 0;
    for number in 0..6_u8 {
        refused += u64::from(client.request("POST", "/", &[], &vec![number; 524_288]).status == 507);
    }
    assert!(refused >= 2, "four such blocks fit at most");
    for number in 0..200_u32 {
        let stored = client.request("POST", "/", &[], &[]);
        let path = format!("/{}", stored.text());
        assert_eq!(client.request("DELETE", &path, &[], b"").status, 204, "{number}");
    }
    server.wait_for_stat("checkpoints", |checkpoints| checkpoints > 0);
    let scrape = Scrape::of(&server);
    assert_eq!(scrape.get("store_errors_total{kind=\"no_space\"}"), refused as f64);
    assert_eq!(scrape.get("capacity_bytes"), f64::from(2 << 20));
    assert_eq!(scrape.get("blocks_created_total{size=\"0\"}"), 200.0);
    assert!(scrape.get("pool_dry_total{size=\"524288\"}") >= 1.0);
    assert!(scrape.get("checkpoint_duration_seconds_count") >= 1.0);
    assert!(scrape.get("checkpoint_lag_seconds") < 3600.0);
    server.stop();
}
