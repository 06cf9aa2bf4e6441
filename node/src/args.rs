//! The command line of `mcpnode`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// An MCP gateway appliance: gateway, replicated store and control plane in one program.
#[derive(Debug, Parser)]
#[command(name = "mcpnode", version, about, propagate_version = true)]
#[command(after_help = "Examples:\n  mcpnode dev --replicas 3\n  mcpnode serve --config /etc/mcpnode/mcpnode.toml")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node from its configuration file
    #[command(
        after_help = "Examples:\n  mcpnode serve --config mcpnode.toml\n  mcpnode serve --config mcpnode.toml --api-listen 0.0.0.0:3100"
    )]
    Serve(ServeArgs),
    /// Run a whole cluster on this machine, with a demo server, a project and a token: for trying out and for developing
    #[command(
        after_help = "Examples:\n  mcpnode dev --replicas 3\n  mcpnode dev --replicas 3 --processes --data-dir ./dev --env-file ./dev.env"
    )]
    Dev(DevArgs),
    /// Run a stdio MCP server so that it ends with the node (used by the node itself)
    #[command(hide = true)]
    Child {
        /// The command and its arguments
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        argv: Vec<String>,
    },
    /// Be the demo MCP server on standard input and output (used by `dev`)
    #[command(hide = true)]
    DemoServer,
}

/// Flags of `mcpnode serve`. They win over the environment, which wins over the file.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration file
    #[arg(
        long,
        short = 'c',
        env = "MCPNODE_CONFIG",
        value_name = "FILE",
        default_value = "mcpnode.toml"
    )]
    pub(crate) config: PathBuf,
    /// Where the node keeps its data
    #[arg(long, env = "MCPNODE_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address of the gateway's listener
    #[arg(long, env = "MCPNODE_GATEWAY_LISTEN", value_name = "HOST:PORT")]
    pub(crate) gateway_listen: Option<String>,
    /// Address of the API's listener
    #[arg(long, env = "MCPNODE_API_LISTEN", value_name = "HOST:PORT")]
    pub(crate) api_listen: Option<String>,
    /// Address of the peers' listener
    #[arg(long, env = "MCPNODE_PEER_LISTEN", value_name = "HOST:PORT")]
    pub(crate) peer_listen: Option<String>,
}

/// Flags of `mcpnode dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// How many replicas
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) replicas: u16,
    /// Where their data goes; a directory that `dev` made before is started again [default: a fresh temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Write the lines to paste into this file, as `export` lines, readable by its owner only
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,
    /// Make this file once every replica holds a lease
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// Run each replica as a process of its own, that can be killed, paused and started again
    #[arg(long)]
    pub(crate) processes: bool,
}
