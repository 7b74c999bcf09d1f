//! The `cascade` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    cascade_runtime::sandbox::compile_child_main()
}
