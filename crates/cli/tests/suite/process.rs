//! The program as its operator meets it: options, errors, signals, and who may use a store.

use crate::support::{BLOCK_BYTES_MAX, Server, bytes, check, check_output, directory, name, program, program_under};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

/// What a command that must fail says: one line that names the program.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it did not fail: {text}");
    assert!(text.starts_with("buddy-blocks: "), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "more than one line: {text}");
    text
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn alone_it_says_what_it_can_do() {
    let output = run(&[]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("serve") && help.contains("check"), "{help}");
    let output = run(&["serve", "--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    for option in [
        "--listen",
        "--data",
        "--workers",
        "--durability",
        "--sync-interval",
        "--lookup",
        "--capacity",
        "--pool-targets",
        "--checkpoint-names",
        "--lock-timeout",
        "--config",
        "BUDDY_LISTEN",
        "127.0.0.1:10001",
        "TOML",
    ] {
        assert!(help.contains(option), "{option} is missing: {help}");
    }
}

#[test]
fn nonsense_is_refused_with_the_value_and_the_limit() {
    let directory = directory();
    let file = directory.path().join("options.toml");
    let with_file = |content: &str| {
        std::fs::write(&file, content).unwrap();
        program().args(["serve", "--config", text(&file)]).output().unwrap()
    };
    assert!(complaint(&run(&["serve", "--workers", "0"])).contains("workers is 0: it must be between 1 and 1024"));
    assert!(complaint(&run(&["serve", "--capacity", "12"])).contains("capacity is 12 bytes"));
    assert!(complaint(&run(&["serve", "--log-level", "loud"])).contains("\"loud\""));
    assert!(complaint(&run(&["serve", "--config", "/nowhere"])).contains("/nowhere"));
    let unknown = complaint(&with_file("workers = 1\nlisen = \"127.0.0.1:1\""));
    assert!(unknown.contains("options.toml, line 2") && unknown.contains("lisen"), "{unknown}");
    assert!(complaint(&with_file("capacity = -5")).contains("-5 is not a size"));
    assert!(complaint(&run(&["serve", "--idle-timeout", "5000years"])).contains("between 1ms and 1day"));
    let variable = program().arg("serve").env("BUDDY_LISEN", "x").output().unwrap();
    assert!(complaint(&variable).contains("BUDDY_LISEN"));
    for bad in [
        &["serve", "--capacity", "lots"][..],
        &["serve", "--sync-interval", "soon"],
        &["serve", "--nothing"],
        &["serve", "--workers", "-1"],
    ] {
        let output = run(bad);
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
        let said = complaint(&output);
        assert!(said.contains(bad.last().unwrap()), "{said}");
    }
}

#[test]
fn the_command_line_wins_over_variables_and_those_over_the_file() {
    let directory = directory();
    let file = directory.path().join("options.toml");
    let data = directory.path().join("data");
    std::fs::write(
        &file,
        "listen = \"127.0.0.1:1\"\ncapacity = \"64MiB\"\nlookup = \"controller\"\njournal-size = \"4MiB\"\n",
    )
    .unwrap();
    let server = Server::start(&data, &["--config", text(&file), "--workers", "1", "--journal-size", "4MiB"]);
    assert_ne!(server.address.port(), 1);
    assert_eq!(server.stat("capacity_bytes"), 64 << 20);
    assert_eq!(server.stat("journal_bytes"), 4 << 20);
    let body = bytes(1, 9000);
    let mut client = server.connect();
    client.request("PUT", "/", &[], &body);
    assert_eq!(client.request("GET", &format!("/{}", name(&body)), &[], b"").body, body, "--lookup controller");
    assert_eq!(client.request("DELETE", &format!("/{}", name(&body)), &[], b"").status, 204);
    assert_eq!(client.request("GET", &format!("/{}", name(&body)), &[], b"").status, 404);
}

#[test]
fn a_port_in_use_is_refused_before_anything_is_opened() {
    let directory = directory();
    let server = Server::start(&directory.path().join("one"), &[]);
    let two = directory.path().join("two");
    let output = run(&["serve", "--listen", &server.address.to_string(), "--data", text(&two)]);
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(
        said.contains("the port is in use by another process") && said.contains(&server.address.to_string()),
        "{said}"
    );
    assert!(!output.status.success() && !two.exists());
}

#[test]
fn a_store_in_use_is_refused_and_waited_for() {
    let directory = directory();
    let data = directory.path().join("data");
    let server = Server::start(&data, &[]);
    let said = Server::try_start(&data, &["--lock-timeout", "50ms"]).err().unwrap();
    assert!(said.contains("is in use by another process"), "{said}");
    let output = run(&["check", "--data", text(&data)]);
    assert!(complaint(&output).contains("is in use by another process"));
    let waiting = std::thread::spawn({
        let data = data.clone();
        move || Server::start(&data, &["--lock-timeout", "20s"])
    });
    std::thread::sleep(Duration::from_millis(200));
    server.stop();
    waiting.join().unwrap().stop();
}

#[test]
fn a_store_can_be_checked_by_several_at_once() {
    let directory = directory();
    let data = directory.path().join("data");
    let server = Server::start(&data, &[]);
    server.connect().put_block(&bytes(1, 10_000));
    server.stop();
    for _ in 0..5 {
        let start = || program().args(["check", "--verify", "--data", text(&data)]).stdout(Stdio::null()).spawn();
        let checks: Vec<_> = (0..8).map(|_| start().unwrap()).collect();
        for mut check in checks {
            assert!(check.wait().unwrap().success());
        }
    }
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let directory = directory();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let said = complaint(&run(&["serve", "--listen", "127.0.0.1:0", "--data", text(&file.join("x"))]));
    assert!(said.contains("file/x"), "{said}");
    let said = complaint(&run(&["serve", "--listen", "127.0.0.1:0", "--data", "/proc/store"]));
    assert!(said.contains("/proc/store"), "{said}");
    let said = complaint(&run(&["check", "--data", text(&directory.path().join("none"))]));
    assert!(said.contains("there is no store at"), "{said}");
}

/// A damaged, foreign or lost file: a clear line, and nothing is changed.
#[test]
fn foreign_and_lost_files_are_named_and_left_alone() {
    let directory = directory();
    let data = directory.path().join("data");
    let server = Server::start(&data, &[]);
    server.connect().request("PUT", "/", &[], &bytes(1, 10_000));
    server.stop();
    let index = std::fs::read(data.join("index")).unwrap();
    let refused = |what: &str| {
        let said = Server::try_start(&data, &[]).err().unwrap();
        assert!(said.contains(what), "{said}");
        assert!(!check_output(&data).status.success());
    };
    std::fs::write(data.join("index"), vec![7; index.len()]).unwrap();
    refused("the index is damaged");
    std::fs::remove_file(data.join("index")).unwrap();
    let said = Server::try_start(&data, &[]).err().unwrap();
    assert!(said.contains("the index is empty: it was lost or replaced"), "{said}");
    std::fs::write(data.join("index"), &index).unwrap();
    let journal = std::fs::read(data.join("journal")).unwrap();
    std::fs::write(data.join("journal"), &journal[..journal.len() / 2]).unwrap();
    refused("truncated or replaced");
    std::fs::write(data.join("journal"), &journal).unwrap();
    let server = Server::start(&data, &[]);
    assert_eq!(server.stat("blocks"), 1, "with its files back it opens");
}

/// However few descriptors there are: where it is for want of them that a ring cannot be made, what is said names the remedy.
#[test]
fn a_ring_without_descriptors_names_the_remedy() {
    let directory = directory();
    let mut named = 0;
    for limit in 5..100 {
        let mut limited = program_under(&format!("-n {limit}"));
        let data = directory.path().join(limit.to_string());
        match Server::start_from(&mut limited, &data, &["--workers", "2"]) {
            Ok(server) => {
                server.stop();
                break;
            }
            Err((_, log)) => {
                assert!(!log.contains("setting up io_uring failed"), "{limit} descriptors: {log}");
                named += u32::from(log.contains("io_uring") && log.contains("ulimit -n"));
            }
        }
    }
    assert!(named > 0);
}

/// Where the file system serves O_DIRECT through its cache, or not at all, every reply is copied, and the log says so.
#[test]
fn a_file_system_without_direct_writes_works_and_is_named() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let server = Server::start(&directory.path().join("data"), &[]);
    assert!(server.log().contains("every reply is copied"), "{}", server.log());
    let mut client = server.connect();
    for size in [100, 40_000, 524_288] {
        let body = bytes(6, size);
        client.request("PUT", "/", &[], &body);
        assert!(client.request("GET", &format!("/{}", name(&body)), &[], b"").body == body);
    }
    let data = server.data.clone();
    server.stop();
    check(&data);
}

/// Under `ulimit -v` the index is mapped for less. It keeps its space meanwhile, also where the process dies right then, and when the
/// limit is gone.
#[test]
fn a_small_address_space_takes_nothing_from_the_index() {
    let directory = directory();
    let data = directory.path().join("data");
    let sizes = || {
        let index = std::fs::metadata(data.join("index")).unwrap();
        (index.len(), index.blocks())
    };
    let limited = || program_under("-v 4000000");
    let body = bytes(1, 10_000);
    let server = Server::start(&data, &[]);
    server.connect().put_block(&body);
    server.stop();
    let made = sizes();
    let checked = limited().args(["check", "--data", text(&data)]).output().unwrap();
    assert_eq!(checked.status.code(), Some(2));
    assert!(complaint(&checked).contains("the address space is too small for it (`ulimit -v`)"));
    for mut program in [limited(), program()] {
        let died = Server::start_from(program.env("FAILPOINTS", "journal-replayed=return"), &data, &[]);
        assert!(died.is_err_and(|(status, _)| status.signal().is_some()));
        assert!(sizes() >= made && sizes().1 >= made.1, "{:?}, then {:?}", made, sizes());
    }
    let server = Server::start_from(&mut limited(), &data, &[]).unwrap_or_else(|(_, log)| panic!("{log}"));
    assert!(server.log().contains("it can grow to less"), "{}", server.log());
    server.connect().get_block(&body);
    server.stop();
    check(&data);
    assert!(sizes() >= made && sizes().1 >= made.1, "{:?}, then {:?}", made, sizes());
    let (status, log) = Server::start_from(&mut program_under("-v 600000"), &data, &[]).err().unwrap();
    assert!(status.code() == Some(1) && log.contains("the address space is too small for it (`ulimit -v`)"), "{log}");
}

/// Where the limit is a little more than a size that the index might have, too: it leaves others as much as it takes. How much of it the program
/// has taken before depends on how it was built.
#[test]
fn a_small_address_space_has_room_for_more_than_the_index() {
    const CLIENTS: u64 = 32;
    const BLOCKS: u64 = 8;
    let directory = directory();
    for kib in (2_180_000..2_300_000).step_by(10_000) {
        let data = directory.path().join(kib.to_string());
        let mut limited = program_under(&format!("-v {kib}"));
        let started = Server::start_from(&mut limited, &data, &["--checkpoint-names", "64"]);
        let server = started.unwrap_or_else(|(status, log)| panic!("{kib} KiB: {status}: {log}"));
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let mut connection = server.connect();
                scope.spawn(move || {
                    for number in 0..BLOCKS {
                        connection.put_block(&bytes(client * BLOCKS + number, BLOCK_BYTES_MAX));
                    }
                });
            }
        });
        assert!(server.stat("checkpoints") >= 3);
        let log = server.stop();
        assert!(!log.contains("Cannot allocate memory"), "{kib} KiB: {log}");
        check(&data);
        std::fs::remove_dir_all(&data).unwrap();
    }
}

#[test]
fn check_names_every_fault() {
    let directory = directory();
    let data = directory.path().join("data");
    let server = Server::start(&data, &[]);
    let mut client = server.connect();
    let bodies: Vec<_> = (0..20).map(|seed| bytes(seed, 4096)).collect();
    for body in &bodies {
        client.request("PUT", "/", &[], body);
    }
    server.stop();
    assert!(check(&data).contains("\"verified\": 20"));
    // A bit that changes by itself.
    let mut file = std::fs::read(data.join("data")).unwrap();
    let at = file.windows(64).position(|window| window == &bodies[7][..64]).unwrap();
    file[at + 100] ^= 4;
    std::fs::write(data.join("data"), &file).unwrap();
    let output = check_output(&data);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((json["ok"].as_bool(), json["fault_count"].as_u64()), (Some(false), Some(1)));
    assert!(json["faults"][0].as_str().unwrap().contains(&name(&bodies[7])), "{json}");
    let text = program().args(["check", "--verify", "--data"]).arg(&data).output().unwrap();
    assert_eq!(text.status.code(), Some(1));
    assert!(String::from_utf8(text.stdout).unwrap().contains(&format!("fault: block {}", name(&bodies[7]))));
    assert!(
        program().args(["check", "--data"]).arg(&data).status().unwrap().success(),
        "without --verify it is not seen"
    );
}

#[test]
fn a_full_store_refuses_blocks_and_goes_on_with_everything_else() {
    let directory = directory();
    let data = directory.path().join("data");
    let server = Server::start(&data, &["--capacity", "16MiB", "--workers", "2"]);
    let mut client = server.connect();
    let mut stored = Vec::new();
    let refused = loop {
        let body = bytes(1000 + stored.len() as u64, 300_000);
        let reply = client.request("PUT", "/", &[], &body);
        if reply.status != 200 {
            break reply;
        }
        stored.push(body);
    };
    assert_eq!(refused.status, 507);
    assert!(stored.len() >= 25, "only {} blocks of 512 KiB fitted into 16 MiB", stored.len());
    for body in &stored {
        assert!(client.request("GET", &format!("/{}", name(body)), &[], b"").body == *body);
    }
    assert_eq!(client.request("PUT", "/", &[], &stored[3]).status, 200, "what is there needs no space");
    for body in stored.drain(..3) {
        assert_eq!(client.request("DELETE", &format!("/{}", name(&body)), &[], b"").status, 204);
    }
    for seed in 0..3 {
        let body = bytes(seed, 300_000);
        assert_eq!(client.request("PUT", "/", &[], &body).status, 200, "deleting has made room");
        stored.push(body);
    }
    server.stop();
    check(&data);
}

/// The README's session, command by command, prints what the README says.
#[test]
fn the_curl_session_of_the_readme_works_as_printed() {
    let directory = directory();
    let server = Server::start(&directory.path().join("data"), &[]);
    let readme = include_str!("../../../../README.md").replace("127.0.0.1:10001", &server.address.to_string());
    let session = readme.split("```console\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut commands = 0;
    for step in session.split("$ ").skip(1) {
        let (command, expected) = step.split_once('\n').unwrap();
        let output = Command::new("sh").args(["-c", &command.replace("curl", "curl --silent")]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), expected.trim_end(), "{command}");
        commands += 1;
    }
    assert_eq!(commands, 5);
    server.stop();
}

/// A part of a block that is verified takes all of it into memory, where there may be little.
#[test]
fn samples_find_a_flipped_bit_where_memory_is_scarce() {
    let directory = directory();
    let data = directory.path().join("data");
    let victim = bytes(1, BLOCK_BYTES_MAX);
    flip_a_bit_of(&data, std::slice::from_ref(&victim), 0);
    let options = ["--workers", "1", "--verify-reads", "sampled", "--buffer-memory", "2MiB"];
    let server = Server::start(&data, &options);
    let mut client = server.connect();
    let found = (0..1000).any(|_| {
        let reply = client.request("GET", &format!("/{}", name(&victim)), &["Range: bytes=0-99"], b"");
        reply.status != 206
    });
    assert!(found, "nothing was verified");
    server.stop();
}

/// Flips a bit of a block of a stopped store; returns the block.
fn flip_a_bit(data: &Path) -> Vec<u8> {
    let bodies: Vec<_> = (0..20).map(|seed| bytes(seed, 3000 + 5000 * usize::try_from(seed).unwrap())).collect();
    flip_a_bit_of(data, &bodies, 13);
    bodies[13].clone()
}

/// The same of one of these blocks, which are stored.
fn flip_a_bit_of(data: &Path, bodies: &[Vec<u8>], victim: usize) {
    let server = Server::start(data, &[]);
    let mut client = server.connect();
    for body in bodies {
        assert_eq!(client.request("PUT", "/", &[], body).status, 200);
    }
    server.stop();
    let victim = &bodies[victim];
    let path = data.join("data");
    let mut file = std::fs::read(&path).unwrap();
    let at = file.chunks(4096).position(|page| page.starts_with(&victim[..64])).unwrap() * 4096;
    file[at + 777] ^= 4;
    std::fs::write(&path, file).unwrap();
}

/// A flipped bit is named by `check --verify`, never served where reads are verified, found by the scrub, and healed by storing the
/// block again.
#[test]
fn a_flipped_bit_is_found_and_never_served() {
    for options in [["--verify-reads", "all"], ["--scrub-rate", "100MiB"]] {
        let directory = directory();
        let data = directory.path().join("data");
        let victim = flip_a_bit(&data);
        let report = check_output(&data);
        assert!(!report.status.success());
        assert!(String::from_utf8_lossy(&report.stdout).contains(&name(&victim)));
        let server = Server::start(&data, &options);
        let mut client = server.connect();
        let path = format!("/{}", name(&victim));
        if options[0] == "--verify-reads" {
            let reply = client.request("GET", &path, &[], b"");
            assert!(reply.status == 404 && reply.text().contains("is damaged"), "{}", reply.text());
        }
        server.wait_for_stat("quarantined_extents", |count| count == 1);
        assert_eq!(client.request("GET", &path, &[], b"").status, 404);
        assert!(client.request("GET", "/-/stats", &[], b"").text().contains(&name(&victim)), "stats list it");
        assert_eq!(client.request("POST", "/", &[], &victim).status, 201);
        assert!(client.request("GET", &path, &[], b"").body == victim);
        server.stop();
        assert!(check(&data).contains(&format!("which was block {}", name(&victim))));
    }
}
