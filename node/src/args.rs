//! The command line of `mcpnode`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// An MCP gateway appliance: gateway, replicated store and control plane in one program.
#[derive(Debug, Parser)]
#[command(name = "mcpnode", version, about, propagate_version = true)]
#[command(
    after_help = "Examples:\n  mcpnode dev --replicas 3\n  mcpnode init --data-dir /var/lib/mcpnode\n  mcpnode serve --config /var/lib/mcpnode/mcpnode.toml"
)]
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
    /// Make the first node of a new cluster: authority, certificates, keys, configuration, and the first administrator
    #[command(
        after_help = "Examples:\n  mcpnode init --data-dir /var/lib/mcpnode\n  mcpnode init --data-dir /var/lib/mcpnode --name node-1 --peer-listen 0.0.0.0:3300 --advertise node-1.example:3300 \\\n    --api-listen 0.0.0.0:3100 --gateway-listen 0.0.0.0:3200 --admin-email ops@example.com"
    )]
    Init(InitArgs),
    /// Make a node of this machine in a cluster that exists, with a token of `mcpctl cluster join-token`, and run it
    #[command(
        after_help = "Examples:\n  mcpnode join node-1.example:3300 --token-file join.token --data-dir /var/lib/mcpnode \\\n    --name node-2 --peer-listen 0.0.0.0:3300 --advertise node-2.example:3300\n  mcpnode join 10.0.0.1:3300 --token-file join.token --data-dir /var/lib/mcpnode --advertise 10.0.0.2:3300 --no-start"
    )]
    Join(JoinArgs),
    /// Run a whole cluster on this machine, with a demo server, a project and a token: for trying out and for developing
    #[command(
        after_help = "Examples:\n  mcpnode dev --replicas 3\n  mcpnode dev --replicas 3 --processes --data-dir ./dev --env-file ./dev.env"
    )]
    Dev(DevArgs),
    /// Run a stdio MCP server so that it ends with the node (used by the node itself)
    #[command(hide = true)]
    Child {
        /// The soft limit on open files that the command gets [default: as it is]
        #[arg(long, value_name = "N")]
        open_files: Option<u64>,
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
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address of the gateway's listener
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) gateway_listen: Option<String>,
    /// Address of the API's listener
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) api_listen: Option<String>,
    /// Address of the peers' listener
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) peer_listen: Option<String>,
}

/// What `init` and `join` write into the configuration of the node that they make. `MCPNODE_*` variables count too.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Where the node will keep its data: an empty directory, or one that is not there yet
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// What people will call it [default: the machine's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Address of the gateway's listener [default: 127.0.0.1:3200]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) gateway_listen: Option<String>,
    /// Address of the API's listener [default: 127.0.0.1:3100]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) api_listen: Option<String>,
    /// Address of the peers' listener [default: 127.0.0.1:3300]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) peer_listen: Option<String>,
    /// What the other nodes connect to, if not that
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// What clients call the gateway, if not by its address
    #[arg(long, value_name = "URL")]
    pub(crate) gateway_url: Option<String>,
    /// What mcpctl calls the API, if not by its address
    #[arg(long, value_name = "URL")]
    pub(crate) api_url: Option<String>,
    /// TLS of gateway and API: auto, or off behind something that terminates it [default: auto]
    #[arg(long, value_name = "MODE", value_parser = ["auto", "off"])]
    pub(crate) tls: Option<String>,
}

/// Flags of `mcpnode init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// The first administrator
    #[arg(long, value_name = "EMAIL", default_value = "admin@mcpnode.local")]
    pub(crate) admin_email: String,
}

/// Flags of `mcpnode join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The peers' listener of any node of the cluster: HOST, HOST:PORT or https://HOST:PORT
    pub(crate) url: String,
    /// The file that holds the join token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Only make the node, and do not run it
    #[arg(long)]
    pub(crate) no_start: bool,
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
