//! `cargo run --release -p mcp-tests --bin bench`: see [`mcp_tests::bench`].

fn main() -> anyhow::Result<()> {
    mcp_tests::bench::main()
}
