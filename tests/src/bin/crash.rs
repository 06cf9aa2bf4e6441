//! `cargo run -p mcp-tests --bin crash -- --rounds 30`: see [`mcp_tests::crash`].

fn main() -> anyhow::Result<()> {
    mcp_tests::crash::main()
}
