//! `cargo run --release -p mcp-tests --bin model`: see [`mcp_tests::model`].

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Err(why) = mcp_tests::model::main() else {
        return ExitCode::SUCCESS;
    };
    // Nobody is left to be told if this cannot be written.
    writeln!(std::io::stderr(), "{why}").unwrap_or(());
    ExitCode::FAILURE
}
