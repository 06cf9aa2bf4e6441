//! The command line, word by word.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
        printf %s \"$PASSWORD\" | mcpctl login --email admin@example.com --password-stdin")]
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
pub(crate) struct LoginArgs {
    /// Who (asked for if missing)
    #[arg(long, short = 'u', value_name = "EMAIL")]
    pub(crate) email: Option<String>,
    /// Read the password from standard input instead of asking for it
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// API URLs of the nodes, kept in the context
    #[arg(long, value_name = "URL[,URL]", value_delimiter = ',')]
    pub(crate) server: Vec<String>,
}

#[derive(Subcommand)]
pub(crate) enum Auth {
    /// Ask whether one may do something: exit code 0 yes, 1 no
    #[command(after_help = "Examples:\n  \
        mcpctl auth can-i create servers\n  mcpctl auth can-i run tools git/log\n  mcpctl auth can-i exec")]
    CanI(CanIArgs),
}

#[derive(Args)]
pub(crate) struct CanIArgs {
    /// get, run, create, update, delete, grant; or an action: logs, backup, restore, cluster, exec
    pub(crate) verb: String,
    /// servers, projects, tools, …
    pub(crate) resource: Option<String>,
    /// Of this name; without one: of any
    pub(crate) name: Option<String>,
}

#[derive(Args)]
pub(crate) struct GetArgs {
    /// projects, servers, mcptokens, nodes, rbac, users; or KIND/NAME
    pub(crate) kind: String,
    /// Names or ids; none: all
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) project: ProjectArg,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct DescribeArgs {
    /// project, server, mcptoken, node, rbac, user; or KIND/NAME
    pub(crate) kind: String,
    /// Name or id
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) project: ProjectArg,
}

#[derive(Args)]
pub(crate) struct RemoveArgs {
    /// project, server, mcptoken, rbac; or KIND/NAME
    pub(crate) kind: String,
    /// Names or ids
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) project: ProjectArg,
    /// Return when the change is committed, before it is effective on every replica
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

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

#[derive(Subcommand)]
pub(crate) enum Config {
    /// List the contexts
    #[command(after_help = "Example:\n  mcpctl config get-contexts")]
    GetContexts(OutputArg),
    /// Make a context the current one
    #[command(after_help = "Example:\n  mcpctl config use-context prod")]
    UseContext {
        /// Its name
        name: String,
    },
    /// Make a context, or change one
    #[command(
        after_help = "Example:\n  mcpctl config set-context prod --server https://a:3100,https://b:3100,https://c:3100"
    )]
    SetContext {
        /// Its name
        name: String,
        /// API URLs of the nodes; they are tried in turn
        #[arg(long, value_name = "URL[,URL]", value_delimiter = ',')]
        server: Vec<String>,
        /// The project that -p stands for when it is not given
        #[arg(short, long)]
        project: Option<String>,
    },
    /// Print the configuration, without sessions
    #[command(after_help = "Example:\n  mcpctl config view")]
    View,
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
