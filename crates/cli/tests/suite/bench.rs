//! The load generator against a real server, and against one that misbehaves as it is told.

use crate::support::load::{Fake, Manners, bench, complaint, good, interrupted, report, saved};
use crate::support::{Server, check, directory, name, program};
use serde_json::Value;
use std::net::TcpListener;
use std::sync::atomic::Ordering;

#[test]
fn every_operation_is_measured_and_verified() {
    let directory = directory();
    let data = directory.path().join("data");
    let server = Server::start(&data, &["--workers", "2"]);
    let pid = server.pid().to_string();
    for arguments in [
        &["--op", "put", "--size", "mix"][..],
        &["--op", "get", "--size", "mix"],
        &["--op", "get", "--size", "512KiB", "--blocks", "8"],
        &["--op", "head"],
        &["--op", "delete", "--blocks", "5000", "--warm-up", "0"],
        &["--op", "mixed", "--size", "mix", "--threads", "2"],
        &["--op", "mixed", "--mix", "1/1/8", "--path", "/{hash}"],
    ] {
        let report = good(&bench(server.address, &[arguments, &["--verify", "--pid", &pid]].concat()));
        assert_eq!(report["verified"], !["head", "delete"].contains(&arguments[1]), "these have nothing to compare");
        assert!(report["server"]["memory_bytes"].as_u64().unwrap() > 0);
        let latency = &report["latency_us"];
        let of = |name: &str| latency[name].as_f64().unwrap();
        assert!(0.0 < of("p50") && of("p50") <= of("p99") && of("p99") <= of("max"), "{latency}");
        let requests = |operation: &Value| operation["requests"].as_u64().unwrap();
        let operations = report["operations"].as_object().unwrap();
        assert_eq!(operations.values().map(requests).sum::<u64>(), requests(&report));
        let expected = if arguments[1] == "mixed" { &["get", "put", "delete"][..] } else { &arguments[1..2] };
        assert!(operations.keys().all(|operation| expected.contains(&operation.as_str())), "{operations:?}");
    }
    server.stop();
    check(&data);
}

/// What is reported as stored is stored, and what as deleted is gone.
#[test]
fn names_are_saved_read_and_deleted() {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"), &["--workers", "2"]);
    let file = directory.path().join("names");
    let file = file.to_str().unwrap();
    // On a disk with much else to do a write may take longer than other runs.
    let put = ["--op", "put", "--seconds", "3", "--save-names", file, "--threads", "2", "--seed", "7"];
    good(&bench(server.address, &put));
    let names = std::fs::read_to_string(file).unwrap();
    let stored = server.stat("blocks");
    assert_eq!(names.lines().count() as u64, stored);
    let first = names.lines().next().unwrap();
    let body = server.connect().request("GET", &format!("/{first}"), &[], b"").body;
    assert_eq!((name(&body).as_str(), body.len()), (first, 4096));
    good(&bench(server.address, &["--op", "get", "--names", file, "--verify"]));
    assert_eq!(server.stat("blocks"), stored, "nothing was stored to be read");
    let text = ["--op", "delete", "--names", file, "--warm-up", "0", "--seconds", "60"];
    let report = good(&bench(server.address, &text));
    assert_eq!((report["requests"].as_u64().unwrap(), server.stat("blocks")), (stored, 0), "it ends with the names");
    let other = directory.path().join("others");
    let again = bench(server.address, &[&text[..], &["--save-names", other.to_str().unwrap()]].concat());
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(self::report(&again)["errors"]["status"]["404"], stored);
    assert_eq!(std::fs::read_to_string(other).unwrap(), "", "what is not there is not left");
}

/// Names of what is still there are not lost.
#[test]
fn what_could_not_be_deleted_is_saved() {
    let directory = directory();
    let file = directory.path().join("names");
    let server = Fake::start(Manners::KeepsAll);
    for operation in [&["delete", "--seconds", "60"][..], &["mixed", "--mix", "0/1/9", "--seconds", "0.1"]] {
        server.blocks.lock().unwrap().clear();
        let arguments = ["--path", "/{name}", "--warm-up", "0", "--save-names", file.to_str().unwrap(), "--op"];
        let report = report(&bench(server.address, &[&arguments, operation].concat()));
        assert!(report["errors"]["status"]["500"].as_u64().unwrap() > 0, "{report:#}");
        assert!(saved(&file) == server.stored(), "{operation:?}");
    }
}

/// What was stored by then can be removed.
#[test]
fn names_are_saved_where_nothing_was_measured() {
    let directory = directory();
    let file = directory.path().join("names");
    let path = file.to_str().unwrap();
    for (phase, arguments) in
        [("storing", ["--op", "get", "--blocks", "100000000"]), ("warm-up", ["--op", "put", "--warm-up", "1h"])]
    {
        let server = Fake::start(Manners::Good);
        let more = ["--path", "/{name}", "--threads", "2", "--connections", "4", "--save-names", path];
        let output = interrupted(&server, &[&arguments[..], &more].concat());
        assert!(complaint(&output).contains("stopped before anything was measured"), "{phase}");
        assert!(!server.stored().is_empty());
        assert!(saved(&file) == server.stored(), "{phase}");
    }
}

/// Where one block cannot be stored the others are not stored, either, but for those that are under way.
#[test]
fn storing_ends_with_the_first_refusal() {
    let directory = directory();
    let file = directory.path().join("names");
    let server = Fake::start(Manners::RefusesOne);
    let arguments = ["--op", "get", "--path", "/{name}", "--blocks", "20000", "--threads", "2"];
    let output = bench(server.address, &[&arguments[..], &["--save-names", file.to_str().unwrap()]].concat());
    assert!(complaint(&output).contains("storing blocks to be read failed: PUT /"));
    let stored = server.stored();
    assert!(stored.len() < 10_000, "{} were stored", stored.len());
    assert!(saved(&file) == stored);
}

#[test]
fn the_table_names_what_people_look_for() {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"), &["--workers", "1"]);
    let output = program()
        .args([
            "bench",
            "--seconds",
            "200ms",
            "--warm-up",
            "0",
            "--connections",
            "2",
            "--pid",
            &server.pid().to_string(),
        ])
        .args(["--target", &format!("http://{}/", server.address)])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["requests/s", "p99.9 ms", "put ", "errors      none", "generator ", "server ", "closed loop", "seed "]
    {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(output.stderr.is_empty(), "no progress where nobody looks");
}

#[test]
fn an_open_loop_sends_what_is_due() {
    let server = Fake::start(Manners::Good);
    let report = good(&bench(server.address, &["--path", "/{name}", "--rate", "100", "--seconds", "1"]));
    let [requests, unsent] = ["requests", "unsent"].map(|name| report[name].as_u64().unwrap());
    assert_eq!(requests + unsent, 100);
}

/// What comes after the last request that was due was measured, too.
#[test]
fn an_open_loop_lasts_until_its_end() {
    let server = Fake::start(Manners::Good);
    let report =
        good(&bench(server.address, &["--path", "/{name}", "--rate", "2", "--seconds", "1", "--warm-up", "0"]));
    assert_eq!([&report["seconds"], &report["requests_per_second"]], [1.0, 2.0]);
}

#[test]
fn other_servers_are_measured_by_paths_of_ones_own() {
    let server = Fake::start(Manners::Good);
    let template = "/{shard:2}/{name}";
    for operation in ["put", "get", "head", "mixed"] {
        let report = good(&bench(server.address, &["--op", operation, "--path", template, "--verify"]));
        assert_eq!(report["verified"], ["get", "mixed"].contains(&operation), "only GET has something to compare");
    }
    let paths: Vec<String> = server.blocks.lock().unwrap().keys().cloned().collect();
    assert!(paths.iter().all(|path| path.len() == 68 && path[1..3] == path[4..6]), "{:?}", paths.first());
    let closing = Fake::start(Manners::Closes);
    let report = good(&bench(closing.address, &["--op", "get", "--path", template]));
    assert_eq!(report["reconnects"], report["requests"], "those of the time before do not count");
}

#[test]
fn idle_connections_are_made_and_do_nothing() {
    let server = Fake::start(Manners::Good);
    good(&bench(server.address, &["--path", "/{name}", "--connections", "3", "--idle", "5", "--threads", "2"]));
    assert_eq!(server.connections.load(Ordering::Relaxed), 8);
}

/// Ctrl-C ends the load, not the report.
#[test]
fn an_interrupted_run_reports_what_was_measured() {
    let arguments = ["--path", "/{name}", "--seconds", "1h", "--warm-up", "0", "--connections", "2"];
    good(&interrupted(&Fake::start(Manners::Good), &arguments));
    let server = Fake::start(Manners::Good);
    let report = good(&interrupted(&server, &[&arguments[..], &["--rate", "0.01"]].concat()));
    assert_eq!((report["requests"].as_u64(), server.stored().len()), (Some(1), 1), "what was not due is not sent");
}

/// Each kind of failure is counted as what it is, and makes the command fail.
#[test]
fn failures_are_counted_by_status_and_by_kind() {
    for (manners, operation, group, kind) in [
        (Manners::Refuses, "put", "status", "503"),
        (Manners::BreaksOff, "put", "kinds", "closed"),
        (Manners::Babbles, "put", "kinds", "malformed"),
        (Manners::Silent, "put", "kinds", "timeout"),
        (Manners::Forges, "get", "kinds", "wrong body"),
    ] {
        let server = Fake::start(manners);
        let timeout = if manners == Manners::Silent { "100ms" } else { "60s" };
        let arguments = ["--op", operation, "--path", "/{name}", "--verify", "--timeout", timeout];
        let output = bench(server.address, &arguments);
        let report = report(&output);
        assert_eq!(output.status.code(), Some(1), "{report:#}");
        let count = report["errors"][group][kind].as_u64().unwrap_or_else(|| panic!("no {kind}: {report:#}"));
        assert_eq!(report["failed"], count, "{report:#}");
        assert!(report["errors"]["first"].as_str().unwrap().contains(&operation.to_uppercase()), "{report:#}");
    }
    // The names of such a server are none.
    let server = Fake::start(Manners::Good);
    let report = report(&bench(server.address, &["--op", "put"]));
    assert!(report["errors"]["kinds"]["wrong name"].as_u64().unwrap() > 0, "{report:#}");
}

#[test]
fn idle_connections_that_are_gone_are_counted() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--idle-timeout", "100ms"]);
    let report = report(&bench(server.address, &["--op", "put", "--idle", "3", "--seconds", "1"]));
    assert_eq!((report["idle_connections"].as_u64(), report["idle_closed"].as_u64()), (Some(3), Some(3)), "{report:#}");
}

#[test]
fn what_cannot_be_measured_is_said_in_one_line() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(complaint(&bench(free, &[])).contains("could not connect: Connection refused"));
    let refusing = Fake::start(Manners::Refuses);
    assert!(complaint(&bench(refusing.address, &["--op", "get"])).contains("storing blocks to be read failed: PUT /"));
    let address = Fake::start(Manners::Good).address;
    assert!(complaint(&bench(address, &["--target", "https://localhost"])).contains("only http://"));
    assert!(complaint(&bench(address, &["--target", "http://127.0.0.1:100001"])).contains("not a port"));
    assert!(complaint(&bench(address, &["--pid", "4194304999"])).contains("4194304999"));
    assert!(
        complaint(&bench(address, &["--size", "1MiB"])).contains("size is 1048576: it must be between 16 and 524288")
    );
    assert!(complaint(&bench(address, &["--congestion-control", "nonsense"])).contains("\"nonsense\" cannot be used"));
    assert!(complaint(&bench(address, &["--path", "/{file}"])).contains("{file} is not {name}"));
    assert!(complaint(&bench(address, &["--save-names", "/nowhere/names"])).contains("/nowhere/names"));
    let directory = directory();
    let file = directory.path().join("names");
    // What cannot be measured costs nobody the names of before.
    std::fs::write(&file, name(b"x")).unwrap();
    let path = file.to_str().unwrap();
    let given = directory.path().join("given");
    std::fs::write(&given, name(b"y")).unwrap();
    for (address, names) in [(free, &["--names", given.to_str().unwrap()][..]), (refusing.address, &[])] {
        complaint(&bench(address, &[&["--op", "get", "--save-names", path], names].concat()));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), name(b"x"));
    }
    for (text, said) in [("", "no names"), ("nonsense\n", "names, line 1: a name is 64 hex digits")] {
        std::fs::write(&file, text).unwrap();
        let output = bench(address, &["--op", "get", "--names", file.to_str().unwrap()]);
        assert!(complaint(&output).contains(said));
    }
}
