//! The load generator where something ends: names, time, a connection, the disk, patience. What it says must be true even so.

use crate::support::load::{Fake, Manners, bench, complaint, good, interrupted, interrupted_when, report, saved};
use crate::support::{Server, directory, name, program, program_under};
use buddy_bench::{Name, NamesFile};
use serde_json::Value;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Files of a directory.
fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn names_that_cannot_be_saved_cost_nobody_the_report() {
    let server = Fake::start(Manners::Good);
    let output = bench(server.address, &["--path", "/{name}", "--save-names", "/dev/full"]);
    assert!(report(&output)["requests"].as_u64().unwrap() > 0);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/dev/full: No space left on device"), "{said}");
}

#[test]
fn names_that_cannot_be_saved_cost_nobody_the_names_of_before() {
    let directory = directory();
    let [file, given] = ["names", "given"].map(|name| directory.path().join(name));
    std::fs::write(&file, name(b"x")).unwrap();
    let many: String = (0..30_000_u32).map(|number| name(&number.to_le_bytes()) + "\n").collect();
    std::fs::write(&given, many).unwrap();
    let server = Fake::start(Manners::Good);
    // Room for what the generator keeps in memory, not for all names.
    let output = program_under("-f 1200")
        .args(["bench", "--target", &format!("http://{}", server.address), "--json", "--path", "/{name}"])
        .args(["--seconds", "0.1", "--warm-up", "0", "--connections", "2"])
        .args(["--names", given.to_str().unwrap(), "--save-names", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(report(&output)["requests"].as_u64().unwrap() > 0);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("File too large"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), name(b"x"));
    assert_eq!(files(directory.path()), ["given", "names"], "nothing half done is left behind");
}

/// What lies beside the file is not ours, whatever it is called, and two runs do not write into one file.
#[test]
fn names_are_written_to_a_file_that_was_not_there() {
    let directory = directory();
    let [file, partial, precious] = ["names", "names.partial", "precious"].map(|name| directory.path().join(name));
    std::fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, &partial).unwrap();
    let server = Fake::start(Manners::Good);
    good(&bench(server.address, &["--path", "/{name}", "--save-names", file.to_str().unwrap()]));
    assert_eq!(saved(&file), server.stored());
    assert_eq!(std::fs::read_to_string(&partial).unwrap(), "precious");
    assert_eq!(files(directory.path()), ["names", "names.partial", "precious"]);

    let [first, second] = [b"first", b"other"].map(|text| name(text));
    let runs = [&first, &second].map(|name| (name, NamesFile::create(&file).unwrap()));
    for (name, run) in runs {
        run.write(&[Name::from_hex(name.as_bytes()).unwrap()]).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{name}\n"));
    }
    drop(NamesFile::create(&file).unwrap());
    assert_eq!(files(directory.path()), ["names", "names.partial", "precious"]);
}

#[test]
fn a_server_that_is_not_there_leaves_no_file_of_names() {
    let directory = directory();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = directory.path().join("names");
    complaint(&bench(free, &["--save-names", file.to_str().unwrap()]));
    assert_eq!(files(directory.path()), [""; 0]);
}

/// Nobody waited for a connection; there was nothing left to be asked for.
#[test]
fn names_that_run_out_leave_nothing_unsent() {
    let server = Fake::start(Manners::Good);
    let arguments = ["--op", "delete", "--path", "/{name}", "--rate", "4", "--seconds", "30", "--warm-up", "0"];
    let report = good(&bench(server.address, &[&arguments[..], &["--blocks", "3", "--connections", "4"]].concat()));
    let number = |name: &str| report[name].as_f64().unwrap();
    assert_eq!((number("requests"), number("unsent")), (3.0, 0.0));
    // The last one was due half a second after the first.
    let last = 0.5 + report["latency_us"]["max"].as_f64().unwrap() / 1e6 + 1e-6;
    assert!(number("seconds") <= last, "{} s, although the last reply came after {last} s", number("seconds"));
}

#[test]
fn deleting_needs_no_warm_up() {
    let server = Fake::start(Manners::Good);
    let output = program()
        .args(["bench", "--target", &format!("http://{}", server.address), "--json", "--path", "/{name}"])
        .args(["--op", "delete", "--blocks", "50", "--connections", "2"])
        .output()
        .unwrap();
    let report = good(&output);
    assert_eq!((report["requests"].as_u64(), report["warm_up_s"].as_f64()), (Some(50), Some(0.0)));
}

/// What the comparison holds beside the number of blocks that are there.
#[test]
fn all_that_was_stored_is_counted() {
    let directory = directory();
    let server = Server::start(directory.path(), &["--workers", "1"]);
    for arguments in [&["--op", "put"][..], &["--op", "get"]] {
        let before = server.stat("blocks");
        let report = good(&bench(server.address, arguments));
        assert_eq!(report["stored"].as_u64(), Some(server.stat("blocks") - before), "{report:#}");
    }
}

/// RFC 9112, section 9.3.1: a connection may end at any time, and a request that may be repeated is.
#[test]
fn a_reply_lost_with_a_used_connection_is_asked_for_again() {
    let server = Fake::start(Manners::LosesReplies);
    for operation in ["put", "get", "delete"] {
        let arguments = ["--op", operation, "--path", "/{name}", "--warm-up", "0", "--blocks", "50", "--verify"];
        let report = good(&bench(server.address, &arguments));
        assert!(report["reconnects"].as_u64().unwrap() > 0, "{report:#}");
    }
}

#[test]
fn a_reply_that_ends_early_is_not_called_none() {
    let server = Fake::start(Manners::CutsOff);
    let report = report(&bench(server.address, &["--path", "/{name}"]));
    assert!(report["errors"]["kinds"]["closed"].as_u64().unwrap() > 0, "{report:#}");
    assert!(report["errors"]["first"].as_str().unwrap().contains("in the middle of its answer"), "{report:#}");
}

/// As at a normal end: a reply that is late counts, the time that it takes does not.
#[test]
fn the_measured_time_ends_with_the_interruption() {
    let server = Fake::start(Manners::Slow);
    let arguments = ["--path", "/{name}", "--seconds", "1h", "--warm-up", "0", "--connections", "2"];
    let report = good(&interrupted(&server, &arguments));
    let seconds = report["seconds"].as_f64().unwrap();
    let latency = report["latency_us"]["max"].as_f64().unwrap() / 1e6;
    assert!(seconds < 0.9 * latency, "{seconds} s, although it was stopped before the reply came after {latency} s");
    assert_eq!(report["requests"].as_u64(), Some(server.stored().len() as u64), "{report:#}");
}

#[test]
fn what_was_due_before_an_interruption_is_unsent() {
    let server = Fake::start(Manners::Slow);
    let arguments = ["--path", "/{name}", "--seconds", "1h", "--warm-up", "0", "--connections", "1", "--rate", "100"];
    let report = good(&interrupted_when(server.address, &arguments, || server.stored().len() == 2));
    let number = |name: &str| report[name].as_f64().unwrap();
    assert!(number("unsent") > 0.0, "{report:#}");
    assert_eq!(number("requests") + number("unsent"), (number("seconds") * 100.0).ceil(), "{report:#}");
}

/// A server that says nothing does not keep anybody waiting who has had enough.
#[test]
fn an_interruption_does_not_wait_for_replies() {
    let patient = ["--path", "/{name}", "--seconds", "1h", "--warm-up", "0", "--connections", "4", "--timeout", "1h"];
    let output = interrupted(&Fake::start(Manners::Silent), &patient);
    let report = report(&output);
    assert_eq!([&report["requests"], &report["failed"], &report["stored"]], [0, 0, 0], "{report:#}");
    assert_eq!(output.status.code(), Some(1), "nothing was measured");

    // While blocks are stored; and where nobody accepts connections.
    let silent = Fake::start(Manners::Silent);
    let output = interrupted(&silent, &[&patient[..], &["--op", "get"]].concat());
    assert!(complaint(&output).contains("stopped before anything was measured"));
    let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    deaf.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    deaf.listen(1).unwrap();
    let address = deaf.local_addr().unwrap().as_socket().unwrap();
    let has_come = || {
        let mut events = [rustix::event::PollFd::from_borrowed_fd(deaf.as_fd(), rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut events, Some(&rustix::time::Timespec::default())).unwrap() > 0
    };
    assert!(complaint(&interrupted_when(address, &patient, has_come)).contains("stopped before anything was measured"));
}

/// A connection that is not made in time was not made.
#[test]
fn connecting_in_vain_is_not_waiting_for_an_answer() {
    let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    deaf.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    deaf.listen(1).unwrap();
    let address = deaf.local_addr().unwrap().as_socket().unwrap();
    assert!(complaint(&bench(address, &["--timeout", "200ms"])).contains("could not connect: timed out"));
}

/// Whether it was deleted nobody knows.
#[test]
fn a_delete_that_was_interrupted_keeps_its_name() {
    let directory = directory();
    let file = directory.path().join("names");
    let server = Fake::start(Manners::OnlyStores);
    let arguments = ["--op", "delete", "--path", "/{name}", "--seconds", "1h", "--timeout", "1h", "--blocks", "20"];
    let more = ["--connections", "4", "--threads", "2", "--save-names", file.to_str().unwrap()];
    let output = interrupted_when(server.address, &[&arguments[..], &more].concat(), || {
        server.waiting.load(Ordering::Relaxed) == 4
    });
    assert_eq!(report(&output)["failed"], 0);
    assert!(saved(&file) == server.stored() && server.stored().len() == 20);
}

/// Whether it was stored nobody knows; where it was it can be removed.
#[test]
fn a_put_that_was_not_answered_keeps_its_name() {
    let directory = directory();
    let file = directory.path().join("names");
    let path = file.to_str().unwrap();
    for manners in [Manners::BreaksOff, Manners::CutsOff, Manners::Babbles, Manners::Silent] {
        let server = Fake::start(manners);
        let timeout = if manners == Manners::Silent { "100ms" } else { "60s" };
        let arguments = ["--path", "/{name}", "--timeout", timeout, "--warm-up", "0", "--save-names", path];
        let report = report(&bench(server.address, &arguments));
        let names = saved(&file);
        assert!(!server.stored().is_empty() && names.is_superset(&server.stored()));
        assert_eq!(report["failed"].as_u64(), Some(names.len() as u64), "{report:#}");
        // Of those that are stored first, too.
        let server = Fake::start(manners);
        complaint(&bench(server.address, &[&arguments[..], &["--op", "get"]].concat()));
        assert!(!server.stored().is_empty() && saved(&file).is_superset(&server.stored()));
    }
    // A refusal is an answer.
    let server = Fake::start(Manners::Refuses);
    bench(server.address, &["--path", "/{name}", "--save-names", path]);
    assert!(saved(&file).is_empty());
}

#[test]
fn a_put_that_was_interrupted_keeps_its_name() {
    let directory = directory();
    let file = directory.path().join("names");
    let arguments = ["--seconds", "1h", "--timeout", "1h", "--warm-up", "0", "--save-names", file.to_str().unwrap()];
    for (connections, template) in [(4, &["--path", "/{name}"][..]), (1, &[])] {
        let server = Fake::start(Manners::Silent);
        let more = ["--connections", &connections.to_string()];
        interrupted_when(server.address, &[&arguments[..], &more, template].concat(), || {
            server.waiting.load(Ordering::Relaxed) == connections
        });
        // The server would have named it by its body.
        let hashes = server.blocks.lock().unwrap().values().map(|body| name(body)).collect();
        assert_eq!(saved(&file), if template.is_empty() { hashes } else { server.stored() });
        assert_eq!(saved(&file).len(), connections);
    }
}

#[test]
fn what_was_too_slow_to_be_measured_is_said() {
    let server = Fake::start(Manners::Slow);
    let arguments = ["--path", "/{name}", "--connections", "2", "--seconds", "0.2"];
    let output = bench(server.address, &[&arguments[..], &["--warm-up", "0.1"]].concat());
    let report_of_none = report(&output);
    assert_eq!((output.status.code(), &report_of_none["failed"]), (Some(1), &Value::from(0)));
    assert!(report_of_none["warnings"][0].as_str().unwrap().contains("no request was answered in the measured time"));
    assert_eq!(report_of_none["generator"]["cpu_us_per_request"], Value::Null);
    let report = good(&bench(server.address, &[&arguments[..], &["--warm-up", "0"]].concat()));
    assert!(report["warnings"][0].as_str().unwrap().contains("longer than the measured time"), "{report:#}");
}

/// Bodies are told apart by their seed and number: with the same seed those of a run before would be stored anew.
#[test]
fn the_seed_of_the_names_makes_no_body_twice() {
    let directory = directory();
    let file = directory.path().join("names");
    let server = Fake::start(Manners::Good);
    let path = ["--path", "/{name}", "--seed", "5", "--warm-up", "0"];
    good(&bench(server.address, &[&path[..], &["--save-names", file.to_str().unwrap()]].concat()));
    let mixed = ["--op", "mixed", "--mix", "10/45/45", "--names", file.to_str().unwrap()];
    let report = good(&bench(server.address, &[&path[..], &mixed].concat()));
    assert_eq!(report["seed"], 5);
}

#[test]
fn names_of_others_say_no_body() {
    let directory = directory();
    let file = directory.path().join("names");
    std::fs::write(&file, name(b"x")).unwrap();
    let server = Fake::start(Manners::Good);
    let arguments = ["--op", "get", "--path", "/{name}", "--names", file.to_str().unwrap()];
    let said = complaint(&bench(server.address, &[&arguments[..], &["--verify"]].concat()));
    assert!(said.contains(&name(b"x")) && said.contains("does not say which body"), "{said}");
    assert_eq!(report(&bench(server.address, &arguments))["errors"]["kinds"], serde_json::json!({}));
}

#[test]
fn a_token_is_sent_and_never_said() {
    let directory = directory();
    let [tokens, file] = ["tokens.toml", "token"].map(|name| directory.path().join(name));
    let drawn = program().args(["token", "bench", "--rights", "read,write,delete"]).output().unwrap();
    let text = String::from_utf8(drawn.stdout).unwrap();
    let [token, line] = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>()[..] else {
        panic!("{text}")
    };
    std::fs::write(&tokens, line).unwrap();
    let server = Server::start(&directory.path().join("data"), &["--tokens", tokens.to_str().unwrap()]);
    let refused = report(&bench(server.address, &[]));
    assert!(refused["errors"]["status"]["401"].as_u64().unwrap() > 0, "{refused:#}");
    let with_token = ["--token-file", file.to_str().unwrap(), "--op", "mixed", "--size", "mix"];
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let output = bench(server.address, &with_token);
    good(&output);
    assert!(!String::from_utf8_lossy(&output.stdout).contains(token));
    for nonsense in [format!("{token} {token}"), format!("{token}\n{token}"), String::new(), "buddy_ü".to_owned()] {
        std::fs::write(&file, &nonsense).unwrap();
        let said = complaint(&bench(server.address, &with_token));
        assert!(said.contains("token") && !said.contains("buddy_"), "{said}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(complaint(&bench(server.address, &with_token)).contains("No such file"));
}
