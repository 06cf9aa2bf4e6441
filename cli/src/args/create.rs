//! `mcpctl create`.

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;

use super::{OutputArg, ProjectArg, Waiting};
use crate::complete;

#[derive(Subcommand)]
pub(crate) enum Create {
    /// Make a project: some servers under one URL
    #[command(
        alias = "proj",
        after_help = "Examples:\n  \
        mcpctl create project demo --server time --server git --tool-naming plain\n  mcpctl create project demo --force --description new"
    )]
    Project(CreateProject),
    /// Make a server: an MCP server behind the gateway
    #[command(
        alias = "srv",
        after_help = "Examples:\n  \
        mcpctl create server time --transport stdio --command uvx --arg mcp-server-time --env TZ=UTC\n  \
        mcpctl create server wiki --url https://wiki.example/mcp --header 'X-Team: core'"
    )]
    Server(CreateServer),
    /// Make a token: it is shown once, alone on its line
    #[command(
        alias = "token",
        after_help = "Examples:\n  \
        TOK=$(mcpctl create mcptoken ci -p demo --bind role:run,resource:servers --ttl 30d)\n  \
        mcpctl create mcptoken ci -p demo --rbac clone --force\n  \
        mcpctl create mcptoken one -p demo --bind role:run,resource:tools,name:git/log*"
    )]
    Mcptoken(CreateToken),
    /// Grant rights
    #[command(after_help = "Examples:\n  \
        mcpctl create rbac developers --subject User:alice@example.com \\\n    \
        --roleBindings role:edit,resource:servers --roleBindings role:view,resource:servers,name:my-ha --roleBindings action:logs\n  \
        mcpctl create rbac callers --subject Group:team --roleBindings role:run,resource:tools,name:git/*")]
    Rbac(CreateRbac),
    /// Make a user
    #[command(after_help = "Examples:\n  \
        mcpctl create user alice@example.com --name Alice\n  \
        printf %s \"$PASSWORD\" | mcpctl create user bob@example.com --password-stdin")]
    User(CreateUser),
    /// Make a group: users who are granted things together
    #[command(after_help = "Examples:\n  \
        mcpctl create group team --member alice@example.com --member bob@example.com\n  \
        mcpctl create group team --force --member carol@example.com")]
    Group(CreateGroup),
    /// Make a service account: a program that needs no password
    #[command(
        alias = "sa",
        after_help = "Examples:\n  \
        mcpctl create serviceaccount deploy --description 'rolls out'\n  \
        mcpctl create serviceaccount deploy && mcpctl create session --serviceaccount deploy"
    )]
    Serviceaccount(CreateServiceAccount),
    /// Make a secret: servers refer to it as ${secret:NAME/KEY}; its values are never shown again
    ///
    /// Values come from files, standard input or the terminal. Not from arguments, which every user of this machine can read.
    #[command(after_help = "Examples:\n  \
        mcpctl create secret git --key token\n  \
        mcpctl create secret git --from-file token=token.txt\n  \
        vault read -field=token git | mcpctl create secret git --from-file token=- --force")]
    Secret(CreateSecret),
    /// Open a session for a service account: its bearer is shown once, alone on its line
    #[command(after_help = "Examples:\n  \
        export MCPCTL_SESSION=$(mcpctl create session --serviceaccount deploy)\n  \
        mcpctl create session --serviceaccount deploy --ttl 12h")]
    Session(CreateSession),
}

#[derive(Args)]
pub(crate) struct CreateGroup {
    /// Its name
    pub(crate) name: String,
    /// E-mail of a member; repeatable
    #[arg(long, value_name = "EMAIL", add = ArgValueCandidates::new(complete::users))]
    pub(crate) member: Vec<String>,
    /// For people
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// If it exists, add these members and change what is given here
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct CreateServiceAccount {
    /// Its name
    pub(crate) name: String,
    /// For people
    #[arg(long)]
    pub(crate) description: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct CreateSecret {
    /// Its name
    pub(crate) name: String,
    /// A key whose value is asked for on the terminal; repeatable
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Vec<String>,
    /// A key whose value is what a file holds, without a line break at its end; - is standard input; repeatable
    #[arg(long, value_name = "KEY=FILE")]
    pub(crate) from_file: Vec<String>,
    /// Keys and values from lines KEY=VALUE of a file; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) from_env_file: Option<String>,
    /// Not taken: see what is printed
    #[arg(long, hide = true, value_name = "KEY=VALUE")]
    pub(crate) from_literal: Vec<String>,
    /// For people
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// If it exists, set these keys and keep the others
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct CreateSession {
    /// For whom
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::service_accounts))]
    pub(crate) serviceaccount: String,
    /// 12h, 30d or a date; 24 hours if not given, 90 days at most
    #[arg(long)]
    pub(crate) ttl: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct CreateProject {
    /// Its name
    pub(crate) name: String,
    /// A server to attach; repeatable
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::servers))]
    pub(crate) server: Vec<String>,
    /// How its tools are named: SERVER__TOOL, or TOOL alone
    #[arg(long, value_parser = ["prefixed", "plain"])]
    pub(crate) tool_naming: Option<String>,
    /// For people
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Told to the models that connect
    #[arg(long)]
    pub(crate) instructions: Option<String>,
    /// Gated sessions
    #[arg(long)]
    pub(crate) gated: Option<bool>,
    /// Clients may speak HTTP+SSE of 2024-11-05, with the token as the password in a URL (vLLM)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) allow_sse: Option<bool>,
    /// The proxy model
    #[arg(long)]
    pub(crate) proxy_model: Option<String>,
    /// If it exists, change what is given here and keep its tokens
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct CreateServer {
    /// Its name: the prefix of its tools
    pub(crate) name: String,
    /// How it is reached; follows from --command or --url if missing
    #[arg(long, value_parser = ["stdio", "http", "sse"])]
    pub(crate) transport: Option<String>,
    /// stdio: the program
    #[arg(long)]
    pub(crate) command: Option<String>,
    /// stdio: an argument; repeatable
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
    /// stdio: an environment variable; repeatable. @FILE reads the value from a file
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// stdio: where it runs
    #[arg(long)]
    pub(crate) cwd: Option<String>,
    /// http and sse: where it is
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// http and sse: a header to send; repeatable. @FILE reads the value from a file
    #[arg(long, value_name = "NAME: VALUE")]
    pub(crate) header: Vec<String>,
    /// For people
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Longest wait for a connection, ms
    #[arg(long)]
    pub(crate) connect_ms: Option<u64>,
    /// Longest silence while an answer is awaited, ms
    #[arg(long)]
    pub(crate) response_ms: Option<u64>,
    /// If it exists, replace it
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct CreateToken {
    /// Unique among the project's active tokens
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) project: ProjectArg,
    /// empty: only what --bind says; clone: what you hold yourself, without what a token never has
    #[arg(long, value_parser = ["empty", "clone"], default_value = "empty")]
    pub(crate) rbac: String,
    /// A role binding, role:ROLE,resource:RESOURCE[,name:NAME]; repeatable
    #[arg(long, value_name = "BINDING")]
    pub(crate) bind: Vec<String>,
    /// 30d, 12h, never, or a date
    #[arg(long)]
    pub(crate) ttl: Option<String>,
    /// For people
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Revoke the active token of that name first
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct CreateRbac {
    /// Its name
    pub(crate) name: String,
    /// User:EMAIL, Group:NAME, ServiceAccount:NAME or McpToken:SHA256; repeatable
    #[arg(long)]
    pub(crate) subject: Vec<String>,
    /// role:ROLE,resource:RESOURCE[,name:NAME] or action:ACTION; repeatable
    #[arg(long = "roleBindings", alias = "role-bindings", value_name = "BINDING")]
    pub(crate) role_bindings: Vec<String>,
    /// Gone: see what is printed
    #[arg(long, hide = true)]
    pub(crate) binding: Vec<String>,
    /// Gone: see what is printed
    #[arg(long, hide = true)]
    pub(crate) operation: Vec<String>,
    /// If it exists, replace it
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct CreateUser {
    /// How bindings name them
    pub(crate) email: String,
    /// For people
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Read the password from standard input instead of asking for it
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Without a password they cannot log in
    #[arg(long, conflicts_with = "password_stdin")]
    pub(crate) no_password: bool,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}
