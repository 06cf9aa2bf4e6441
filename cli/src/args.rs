//! The command line, word by word: here what all commands share, in one module per family what is theirs.

mod auth;
mod cluster;
mod config;
mod create;
mod objects;
mod test;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use auth::{Auth, CanIArgs, LoginArgs};
pub(crate) use cluster::{Cluster, JoinTokenArgs, NodeArgs, RemoveNodeArgs};
pub(crate) use config::Config;
pub(crate) use create::{Create, CreateProject, CreateRbac, CreateServer, CreateToken, CreateUser};
pub(crate) use objects::{DescribeArgs, GetArgs, RemoveArgs};
pub(crate) use test::{Report, Test, TestMcpArgs};

#[derive(Parser)]
#[command(
    name = "mcpctl",
    version,
    about = "Controls an MCP gateway: projects, servers, tokens, who may do what",
    after_help = "Examples:\n  \
        mcpctl login --server http://127.0.0.1:3100 --email admin@example.com\n  \
        mcpctl create server time --transport stdio --command mcp-server-time\n  \
        mcpctl create project demo --server time\n  \
        TOK=$(mcpctl create mcptoken ci -p demo --bind role:run,resource:servers | grep mcpctl_pat_)\n  \
        mcpctl test mcp http://127.0.0.1:3200/projects/demo/mcp\n  \
        mcpctl revoke mcptoken ci -p demo\n\n\
        Exit codes:\n  \
        0 done, 1 error, 2 usage, 3 not found, 4 not logged in or not allowed, 5 no leader (nothing was changed),\n  \
        6 outcome unknown, or committed but not yet effective everywhere (safe to repeat)"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which nodes, and on whose behalf. A session is never an argument: it stands in the context or in `MCPCTL_SESSION`.
#[derive(Args)]
pub(crate) struct Global {
    /// API URLs of the nodes, comma-separated; they are tried in turn
    #[arg(
        long,
        global = true,
        env = "MCPCTL_SERVER",
        value_name = "URL[,URL]",
        value_delimiter = ','
    )]
    pub(crate) api: Vec<String>,
    /// The context to use instead of the current one
    #[arg(long, global = true, env = "MCPCTL_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// PEM file with certificates to trust besides the system's
    #[arg(long, global = true, env = "MCPCTL_CACERT", value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Open a session and keep it in the context
    #[command(after_help = "Examples:\n  \
        mcpctl login --server http://127.0.0.1:3100 --email admin@example.com\n  \
        printf %s \"$PASSWORD\" | mcpctl login --email admin@example.com --password-stdin\n  \
        mcpctl login --server https://127.0.0.1:3100 --cacert ca.crt --email admin@mcpnode.local --setup-secret-file setup.secret")]
    Login(LoginArgs),
    /// End the session
    #[command(after_help = "Example:\n  mcpctl logout")]
    Logout,
    /// Show who one is and what one was granted
    #[command(after_help = "Example:\n  mcpctl whoami -o json")]
    Whoami(OutputArg),
    /// Ask about rights
    #[command(subcommand)]
    Auth(Auth),
    /// List objects, or show some
    #[command(after_help = "Examples:\n  \
        mcpctl get mcptokens\n  mcpctl get mcptoken ci -p demo\n  mcpctl get project demo -o yaml\n  mcpctl get nodes -o wide")]
    Get(GetArgs),
    /// Show one object in detail
    #[command(after_help = "Examples:\n  mcpctl describe mcptoken ci -p demo\n  mcpctl describe server/time")]
    Describe(DescribeArgs),
    /// Make an object
    #[command(subcommand)]
    Create(Create),
    /// Remove objects; whatever they let in is refused everywhere before this returns
    #[command(
        after_help = "Examples:\n  mcpctl delete mcptoken ci -p demo\n  mcpctl delete project demo\n  mcpctl delete server time git"
    )]
    Delete(RemoveArgs),
    /// Revoke tokens and keep their records; no replica takes them any more when this returns
    #[command(
        after_help = "Examples:\n  mcpctl revoke mcptoken ci -p demo\n  mcpctl revoke mcptoken ci -p demo --no-wait"
    )]
    Revoke(RemoveArgs),
    /// Who is in the cluster: status, joining, voting, removal
    #[command(subcommand)]
    Cluster(Cluster),
    /// Check an MCP endpoint
    #[command(subcommand)]
    Test(Test),
    /// Contexts: which clusters there are
    #[command(subcommand)]
    Config(Config),
    /// Print a completion script
    #[command(after_help = "Example:\n  source <(mcpctl completion bash)")]
    Completion(CompletionArgs),
    /// Show the versions of this program and of the node
    #[command(after_help = "Example:\n  mcpctl version")]
    Version(OutputArg),
}

/// How data is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Default)]
pub(crate) enum Format {
    /// Columns
    #[default]
    Table,
    /// More columns
    Wide,
    /// As the API answers
    Json,
    /// As `apply` takes it
    Yaml,
    /// KIND/NAME
    Name,
}

#[derive(Args)]
pub(crate) struct OutputArg {
    /// How to print
    #[arg(short, long, env = "MCPCTL_OUTPUT", value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[derive(Args)]
pub(crate) struct ProjectArg {
    /// The project
    #[arg(short, long, env = "MCPCTL_PROJECT", value_name = "NAME")]
    pub(crate) project: Option<String>,
}

#[derive(Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
