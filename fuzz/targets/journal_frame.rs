#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| buddy_store::journal::fuzzing::journal_frame(bytes));
