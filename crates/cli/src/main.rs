//! `buddy-blocks`. Everything is in the library of the same name, where fuzz targets reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    buddy_blocks::main()
}
