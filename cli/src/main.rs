//! The program: everything stands in the library, so that what it decodes can be tried from outside.

use std::process::ExitCode;

fn main() -> ExitCode {
    mcpctl::main()
}
