//! What survives the death of the process: everything that was acknowledged, and nothing that was deleted.

use crate::support::oracle::{owners, under_load, verify};
use crate::support::{Server, bytes, check, directory, name, setting};
use std::time::Duration;

/// The process is killed under load again and again, on one store, and restarted at once.
fn kill_rounds(durability: &str, rounds: u64, seed: u64) {
    eprintln!("KILL_SEED={seed}");
    let directory = directory();
    let data = directory.path().join("data");
    let options = ["--durability", durability, "--workers", "3", "--checkpoint-names", "200"];
    let mut random = fastrand::Rng::with_seed(seed);
    let mut owners = owners(8, seed);
    for round in 0..rounds {
        let server = Server::start(&data, &options);
        verify(&mut owners, &mut server.connect());
        let calm = Duration::from_millis(random.u64(20..400));
        under_load(&mut owners, server.address, calm, |_| server.kill());
        if round % 5 == 4 {
            check(&data);
        }
    }
    let server = Server::start(&data, &options);
    let found = verify(&mut owners, &mut server.connect());
    assert_eq!(server.stat("blocks"), found.stored);
    server.stop();
    check(&data);
}

#[test]
fn kill_minus_nine_loses_nothing() {
    kill_rounds("sync", setting("KILL_ROUNDS", 20), setting("KILL_SEED", 1));
}

#[test]
fn kill_minus_nine_loses_nothing_in_relaxed_mode_either() {
    kill_rounds("relaxed", setting("KILL_ROUNDS", 20) / 2, setting("KILL_SEED", 2));
}

#[test]
fn an_orderly_stop_and_start_keep_everything() {
    let directory = directory();
    let data = directory.path().join("data");
    let bodies: Vec<_> = (0..30).map(|seed| bytes(seed, 1 + 3000 * usize::try_from(seed).unwrap())).collect();
    let server = Server::start(&data, &[]);
    let mut client = server.connect();
    for body in &bodies {
        client.request("PUT", "/", &[], body);
    }
    assert_eq!(client.request("DELETE", &format!("/{}", name(&bodies[5])), &[], b"").status, 204);
    server.stop();
    assert!(check(&data).contains("\"clean\": true"));
    let server = Server::start(&data, &["--durability", "relaxed"]);
    let mut client = server.connect();
    for (number, body) in bodies.iter().enumerate() {
        let reply = client.request("GET", &format!("/{}", name(body)), &[], b"");
        assert_eq!(reply.status, if number == 5 { 404 } else { 200 });
        assert!(number == 5 || reply.body == *body);
    }
    server.stop();
}

/// A store that nobody writes to does not keep names in memory until the next burst comes, or the process dies.
#[test]
fn a_while_after_the_last_change_all_names_are_in_the_index() {
    let directory = directory();
    let data = directory.path().join("data");
    let server = Server::start(&data, &["--journal-size", "64MiB"]);
    let mut client = server.connect();
    for seed in 0..1100 {
        client.put_block(&bytes(seed, 100));
    }
    assert_eq!((server.stat("names_active"), server.stat("checkpoints")), (1100, 0));
    server.wait_for_stat("names_active", |names| names == 0);
    assert_eq!((server.wait_for_stat("checkpoints", |count| count > 0), server.stat("journal_bytes_used")), (1, 0));
    server.kill();
    let server = Server::start(&data, &[]);
    assert_eq!((server.stat("blocks"), server.stat("names_active")), (1100, 0));
    server.connect().get_block(&bytes(7, 100));
    server.stop();
}
