//! The program: everything stands in the library, so that what it decodes can be tried from outside.

use std::process::ExitCode;

/// Buffers are made on one thread and dropped on another all the time, which the system's allocator answers with locks: 11 % of the
/// time of a call went there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mcpnode::main()
}
