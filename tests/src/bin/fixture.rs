//! `cargo run -p mcp-tests --bin fixture`: see [`mcp_tests::fixture`].

fn main() -> anyhow::Result<()> {
    mcp_tests::fixture::main()
}
