//! Runs a target over the inputs that are kept for it. Part of the tests of every crate that has targets.

use std::path::Path;

/// Runs `target` over `fuzz/corpus/{name}`.
pub(crate) fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut inputs: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "nothing is kept in {}", folder.display());
    for input in inputs {
        // Shown where the target fails: the last one is the culprit.
        println!("{}", input.display());
        target(&std::fs::read(&input).unwrap());
    }
}
