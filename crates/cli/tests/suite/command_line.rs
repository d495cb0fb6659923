//! What is said to a command line, a variable or a file that makes no sense.

use crate::support::{directory, program};

/// Runs the program, which is to end by itself; its exit status, and the one line that it said.
fn refused(variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = program();
    command.args(arguments).envs(variables.iter().copied());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    (output.status.code(), said)
}

#[test]
fn what_makes_no_sense_ends_with_2_and_is_named() {
    let directory = directory();
    let store = directory.path().join("store");
    let file = directory.path().join("buddy.toml");
    std::fs::write(&file, "workers = 0").unwrap();
    let serve = |options: &[&str]| {
        let arguments = [&["serve", "--data", store.to_str().unwrap(), "--listen", "127.0.0.1:0"], options].concat();
        refused(&[], &arguments)
    };
    for (options, named) in [
        (&["--workers", "x"][..], "--workers"),
        (&["--workers", "0"], "workers is 0"),
        (&["--capacity", "1"], "capacity is 1"),
        (&["--capacity", "20EB"], "too large"),
        (&["--log-level", "nix"], "log-level is \"nix\""),
        (&["--cors-origin", "foo"], "cors-origin"),
        (&["--receive-buffers", "0"], "receive-buffers is 0"),
        (&["--listen-tls", "127.0.0.1:0"], "needs tls-certificate"),
        (&["--config", file.to_str().unwrap()], "workers is 0"),
    ] {
        let (status, said) = serve(options);
        assert!(status == Some(2) && said.contains(named), "{options:?}: {status:?}: {said}");
    }
    let (status, said) = refused(&[("BUDDY_LISEN", "1")], &["serve", "--data", store.to_str().unwrap()]);
    assert!(status == Some(2) && said.contains("BUDDY_LISEN"), "{status:?}: {said}");
    for (options, named) in [
        (&["--size", "15"][..], "size"),
        (&["--connections", "0"], "connections"),
        (&["--mix", "1/1/1"], "--op mixed"),
        (&["--target", "127.0.0.1:1"], "127.0.0.1:1"),
    ] {
        let (status, said) = refused(&[], &[&["bench"], options].concat());
        assert!(status == Some(2) && said.contains(named), "{options:?}: {status:?}: {said}");
    }
    assert!(!store.exists(), "a store was made");
    // What makes sense and cannot be done is another thing.
    let (status, said) = refused(&[], &["bench", "--target", "http://127.0.0.1:1", "--connections", "1"]);
    assert!(status == Some(1), "{status:?}: {said}");
}
