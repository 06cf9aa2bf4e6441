//! `tests/chaos/run --minutes 2`: see [`mcp_tests::chaos`].

fn main() -> std::process::ExitCode {
    mcp_tests::chaos::main()
}
