//! `mcpctl create`.

use clap::{Args, Subcommand};

use super::{OutputArg, ProjectArg};

#[derive(Subcommand)]
pub(crate) enum Create {
    /// Make a project: some servers under one URL
    #[command(
        visible_alias = "proj",
        after_help = "Examples:\n  \
        mcpctl create project demo --server time --server git --tool-naming plain\n  mcpctl create project demo --force --description new"
    )]
    Project(CreateProject),
    /// Make a server: an MCP server behind the gateway
    #[command(
        visible_alias = "srv",
        after_help = "Examples:\n  \
        mcpctl create server time --transport stdio --command uvx --arg mcp-server-time --env TZ=UTC\n  \
        mcpctl create server wiki --url https://wiki.example/mcp --header 'X-Team: core'"
    )]
    Server(CreateServer),
    /// Make a token: it is shown once, alone on its line
    #[command(
        visible_alias = "token",
        after_help = "Examples:\n  \
        TOK=$(mcpctl create mcptoken ci -p demo --bind role:run,resource:servers --ttl 30d)\n  \
        mcpctl create mcptoken ci -p demo --rbac clone --force\n  \
        mcpctl create mcptoken one -p demo --bind role:run,resource:tools,name:git/log*"
    )]
    Mcptoken(CreateToken),
    /// Grant rights
    #[command(after_help = "Example:\n  \
        mcpctl create rbac developers --subject User:alice@example.com \\\n    \
        --roleBindings role:edit,resource:servers --roleBindings role:view,resource:servers,name:my-ha --roleBindings action:logs")]
    Rbac(CreateRbac),
    /// Make a user
    #[command(after_help = "Example:\n  mcpctl create user alice@example.com --name Alice")]
    User(CreateUser),
}

#[derive(Args)]
pub(crate) struct CreateProject {
    /// Its name
    pub(crate) name: String,
    /// A server to attach; repeatable
    #[arg(long, value_name = "NAME")]
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
    /// The proxy model
    #[arg(long)]
    pub(crate) proxy_model: Option<String>,
    /// If it exists, change what is given here and keep its tokens
    #[arg(long)]
    pub(crate) force: bool,
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
    #[arg(long = "roleBindings", visible_alias = "role-bindings", value_name = "BINDING")]
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
