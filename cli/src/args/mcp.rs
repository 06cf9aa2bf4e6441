//! Verbs that speak MCP. The token is no argument: those can be read by others.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates;

use crate::complete;

/// Which gateway, and with which token.
#[derive(Args)]
pub(crate) struct GatewayArgs {
    /// The project; without it the token's own
    #[arg(short, long, env = "MCPCTL_PROJECT", hide_env_values = true, value_name = "NAME", add = ArgValueCandidates::new(complete::projects))]
    pub(crate) project: Option<String>,
    /// URLs of gateways, comma-separated; they are tried in turn. Without it the nodes of the context are asked where theirs are
    #[arg(
        long,
        env = "MCPCTL_GATEWAY",
        hide_env_values = true,
        value_name = "URL[,URL]",
        value_delimiter = ','
    )]
    pub(crate) server: Vec<String>,
    /// A file that holds the token, instead of MCPCTL_TOKEN
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Mcp {
    /// Bridge standard input and output to the gateway, for clients that speak stdio only
    ///
    /// A message a line, as MCP says; nothing else comes on standard output. When a node goes away another one is used: the
    /// session goes on, what only reads is asked again, and a call that may have had an effect is answered with an error that
    /// says so. Ends when its input does, and when the token is not taken any more.
    #[command(after_help = "Examples:\n  \
        MCPCTL_TOKEN=$TOK mcpctl mcp stdio --project demo\n  \
        mcpctl mcp stdio --token-file ~/.demo.token --server https://gw-1:3200,https://gw-2:3200\n\n\
        Exit codes:\n  \
        0 the client ended it, 1 no gateway was found, 2 usage, 4 the token is not taken")]
    Stdio(StdioArgs),
}

#[derive(Args)]
pub(crate) struct StdioArgs {
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
}

/// How the result of a call is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Default)]
pub(crate) enum CallOutput {
    /// The texts of it
    #[default]
    Text,
    /// The result as the server sent it
    Json,
}

#[derive(Args)]
pub(crate) struct CallArgs {
    /// The tool, as it is listed
    pub(crate) tool: String,
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
    /// Its arguments: a JSON object; - reads it from standard input
    #[arg(long, default_value = "{}", value_name = "JSON")]
    pub(crate) args: String,
    /// Longest wait for the result, in seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: CallOutput,
}

/// The clients that there are stanzas for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ClientName {
    /// Claude Code
    Claude,
    /// Claude Desktop, over stdio
    ClaudeDesktop,
    /// Cursor
    Cursor,
    /// Visual Studio Code
    Vscode,
    /// vLLM, over HTTP+SSE
    Vllm,
    /// The Python SDK, 2.x
    Python,
    /// The Python SDK, 1.x
    #[value(name = "python-1")]
    Python1,
    /// FastMCP
    Fastmcp,
    /// LangChain
    Langchain,
    /// The OpenAI Agents SDK
    OpenaiAgents,
    /// The TypeScript SDK
    Typescript,
    /// The MCP Inspector
    Inspector,
    /// mcp-remote, over stdio
    McpRemote,
    /// curl
    Curl,
}

#[derive(Args)]
pub(crate) struct ConnectArgs {
    /// The client
    #[arg(value_enum)]
    pub(crate) client: ClientName,
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
}
