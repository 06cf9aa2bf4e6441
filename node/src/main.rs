//! The program: everything stands in the library, so that what it decodes can be tried from outside.

use std::process::ExitCode;

/// Buffers are made on one thread and dropped on another all the time, which the system's allocator answers with locks: 11 % of the
/// time of a call went there. jemalloc also gives large pieces back at once: hashing one password takes 19 MiB for 20 ms (decision 18).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    mcpnode::main()
}
