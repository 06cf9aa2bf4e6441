//! `cargo run --release -p mcp-tests --bin sim -- --seeds 1000`: see [`mcp_tests::sim`].

fn main() -> anyhow::Result<()> {
    mcp_tests::sim::main()
}
