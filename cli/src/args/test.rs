//! `mcpctl test`.

use clap::{Args, Subcommand, ValueEnum};

#[derive(Subcommand)]
pub(crate) enum Test {
    /// Open a session, list the tools, call one: 0 pass, 1 not reached or not let in, 2 contract broken
    #[command(after_help = "Examples:\n  \
        mcpctl test mcp https://host/projects/demo/mcp --expect-tools begin_session\n  \
        mcpctl test mcp https://host/projects/demo/mcp --tool echo --args '{\"message\":\"hi\"}' --timeout 10 -o json --no-health\n\n\
        Exit codes:\n  \
        0 pass, 1 transport or authentication failure, 2 contract failure (a missing tool, isError, invalid --args), 64 usage")]
    Mcp(TestMcpArgs),
}

/// How `test mcp` reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Default)]
pub(crate) enum Report {
    /// Line by line
    #[default]
    Text,
    /// One object
    Json,
}

#[derive(Args)]
pub(crate) struct TestMcpArgs {
    /// The endpoint: https://HOST/projects/PROJECT/mcp
    pub(crate) url: String,
    /// The token; better in MCPCTL_TOKEN, where other users of this machine cannot read it
    #[arg(long, env = "MCPCTL_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Tools that must be listed, comma-separated; repeatable
    #[arg(long, value_name = "TOOL[,TOOL]", value_delimiter = ',')]
    pub(crate) expect_tools: Vec<String>,
    /// A tool to call
    #[arg(long)]
    pub(crate) tool: Option<String>,
    /// Its arguments: a JSON object
    #[arg(long, requires = "tool")]
    pub(crate) args: Option<String>,
    /// Longest wait for each answer, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    /// How to report
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Report,
    /// Do not look at BASE/healthz first
    #[arg(long)]
    pub(crate) no_health: bool,
}
