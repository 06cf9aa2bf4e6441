//! The command line, word by word: here what all commands share, in one module per family what is theirs.

mod apply;
mod auth;
mod backup;
mod cluster;
mod config;
mod create;
mod mcp;
mod objects;
mod test;
mod waiting;

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::engine::ArgValueCandidates;

use crate::{complete, jsonpath};

pub(crate) use apply::{ApplyArgs, DiffArgs, FilesArg};
pub(crate) use auth::{Auth, CanIArgs, LoginArgs, LogoutArgs, PasswdArgs};
pub(crate) use backup::{Backup, RestoreArgs, SaveArgs, VerifyArgs};
pub(crate) use cluster::{
    Cluster, JoinToken, JoinTokenArgs, NewJoinTokenArgs, NodeArgs, RemoveNodeArgs, RevokeJoinTokenArgs,
};
pub(crate) use config::Config;
pub(crate) use create::{
    Create, CreateGroup, CreateProject, CreateRbac, CreateSecret, CreateServer, CreateServiceAccount, CreateSession,
    CreateToken, CreateUser,
};
pub(crate) use mcp::{CallArgs, CallOutput, ClientName, ConnectArgs, GatewayArgs, Mcp, StdioArgs};
pub(crate) use objects::{
    ApproveArgs, DescribeArgs, EditArgs, ExplainArgs, GetArgs, LogsArgs, RemoveArgs, RotateArgs, WaitArgs,
};
pub(crate) use test::{Report, Test, TestMcpArgs};
pub(crate) use waiting::Waiting;

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
        Environment (a flag goes before it, a context comes after it):\n  \
        MCPCTL_SERVER, MCPCTL_CACERT, MCPCTL_CONTEXT  as --api, --cacert, --context\n  \
        MCPCTL_SESSION                                the session, instead of the one that login keeps\n  \
        MCPCTL_PROJECT, MCPCTL_OUTPUT                 as -p, -o\n  \
        MCPCTL_TOKEN                                  the token for test mcp, mcp stdio, call\n  \
        MCPCTL_GATEWAY                                as --server of mcp stdio, call\n\n\
        Exit codes:\n  \
        0 done, 1 error, 2 usage, 3 not found, 4 not logged in or not allowed, 5 no leader (nothing was changed),\n  \
        6 outcome unknown, or committed but not yet effective everywhere (safe to repeat), 124 a wait timed out"
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
        help_heading = "Cluster",
        env = "MCPCTL_SERVER",
        hide_env_values = true,
        value_name = "URL[,URL]",
        value_delimiter = ','
    )]
    pub(crate) api: Vec<String>,
    /// The context to use instead of the current one
    #[arg(
        long,
        global = true,
        help_heading = "Cluster",
        env = "MCPCTL_CONTEXT",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub(crate) context: Option<String>,
    /// PEM file with certificates to trust besides the system's
    #[arg(
        long,
        global = true,
        help_heading = "Cluster",
        env = "MCPCTL_CACERT",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) cacert: Option<PathBuf>,
    /// Whether the context was named on the command line and the nodes were not: then it goes before the environment.
    #[arg(skip)]
    pub(crate) context_rules: bool,
}

impl Cli {
    /// Reads the command line.
    pub(crate) fn read() -> Result<Cli, clap::Error> {
        let matches = Cli::command().try_get_matches()?;
        let mut cli = Cli::from_arg_matches(&matches)?;
        let said = |name: &str| {
            let (mut at, mut said) = (Some(&matches), false);
            while let Some(matches) = at {
                said |= matches.value_source(name) == Some(ValueSource::CommandLine);
                at = matches.subcommand().map(|(_, inner)| inner);
            }
            said
        };
        cli.global.context_rules = said("context") && !said("api");
        Ok(cli)
    }
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
    #[command(after_help = "Examples:\n  mcpctl logout\n  mcpctl logout --context prod")]
    Logout(LogoutArgs),
    /// Change one's password, or set somebody else's; their sessions end
    #[command(after_help = "Examples:\n  \
        mcpctl passwd\n  printf '%s\\n' \"$NEW\" | mcpctl passwd alice@example.com --password-stdin")]
    Passwd(PasswdArgs),
    /// Show who one is and what one was granted
    #[command(after_help = "Examples:\n  mcpctl whoami\n  mcpctl whoami -o 'jsonpath={.user.email}'")]
    Whoami(OutputArg),
    /// Ask about rights
    #[command(
        subcommand,
        after_help = "Examples:\n  mcpctl auth can-i run servers/git\n  mcpctl auth can-i --list"
    )]
    Auth(Auth),
    /// List objects, or show some
    #[command(after_help = "Examples:\n  \
        mcpctl get mcptokens\n  mcpctl get mcptoken ci -p demo\n  mcpctl get project demo -o yaml\n  mcpctl get nodes -o wide\n  \
        mcpctl get projects -o 'jsonpath={.items[*].metadata.name}'\n  mcpctl get all -o yaml > everything.yaml")]
    Get(GetArgs),
    /// Show one object in detail
    #[command(after_help = "Examples:\n  mcpctl describe mcptoken ci -p demo\n  mcpctl describe server/time")]
    Describe(DescribeArgs),
    /// Make an object
    #[command(
        subcommand,
        after_help = "Examples:\n  mcpctl create server time --command mcp-server-time\n  mcpctl create project demo --server time"
    )]
    Create(Create),
    /// Make objects as files say, or change them to that; what is so already stays untouched
    ///
    /// A file is the whole text of its objects: what it leaves out takes its default. Every fault of every document is
    /// reported before anything is changed. Objects are written in the order in which they need each other.
    #[command(after_help = "Examples:\n  \
        mcpctl apply -f demo.yaml\n  mcpctl apply -f config/ -f - --dry-run < more.yaml\n  \
        mcpctl get project demo -o yaml | mcpctl apply -f -\n  \
        mcpctl apply -f token.yaml --token-out ci.token")]
    Apply(ApplyArgs),
    /// Show what apply would change: exit code 1 if there is something
    #[command(after_help = "Examples:\n  mcpctl diff -f demo.yaml\n  mcpctl diff -R -f config/")]
    Diff(DiffArgs),
    /// Change an object in $EDITOR
    #[command(after_help = "Examples:\n  mcpctl edit project demo\n  EDITOR='code --wait' mcpctl edit server/time")]
    Edit(EditArgs),
    /// Show what the child processes of a stdio server have written to their stderr, on all nodes
    ///
    /// Each node keeps the last 2,000 lines of a server, 256 KiB at most, in memory, also when the server is stopped or starts again.
    /// The node stands in front of a line where there are several, and the end of the session's id where each session has its child.
    #[command(after_help = "Examples:\n  \
        mcpctl logs server time\n  mcpctl logs server time -f --since 10m\n  mcpctl logs server/time --node node-2 --tail 50 --timestamps")]
    Logs(LogsArgs),
    /// Wait until an object is in a state: exit code 124 if that takes too long
    #[command(after_help = "Examples:\n  \
        mcpctl wait mcptoken ci -p demo --for revoked\n  mcpctl wait server time --for healthy --timeout 2m\n  \
        mcpctl wait project demo --for delete\n  mcpctl wait node node-2 --for 'jsonpath={.role}=voter'")]
    Wait(WaitArgs),
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
    #[command(
        subcommand,
        after_help = "Examples:\n  mcpctl cluster status\n  mcpctl cluster join-token --ttl 10m > join.token"
    )]
    Cluster(Cluster),
    /// Backups: save the cluster's objects, verify a file, restore one
    #[command(
        subcommand,
        after_help = "Examples:\n  mcpctl backup save monday.backup\n  mcpctl backup restore monday.backup --dry-run"
    )]
    Backup(Backup),
    /// Replace what was given out: a token's bearer under the same name, a secret's value
    #[command(after_help = "Examples:\n  \
        TOK=$(mcpctl rotate mcptoken ci -p demo)\n  mcpctl rotate secret git --key token --from-file token.txt")]
    Rotate(RotateArgs),
    /// Let in what has changed on a server whose tools are pinned
    #[command(after_help = "Examples:\n  \
        mcpctl describe tool wiki/search && mcpctl approve tool wiki/search\n  mcpctl approve tool wiki/search --digest 5f3c...\n  \
        mcpctl approve server wiki")]
    Approve(ApproveArgs),
    /// Say what the fields of a kind mean
    #[command(after_help = "Examples:\n  mcpctl explain project\n  mcpctl explain rbac.roleBindings.role")]
    Explain(ExplainArgs),
    /// List the kinds of objects, with their names and verbs
    #[command(after_help = "Examples:\n  mcpctl api-resources\n  mcpctl api-resources -o name")]
    ApiResources(OutputArg),
    /// Call a tool through the gateway
    #[command(after_help = "Examples:\n  \
        MCPCTL_TOKEN=$TOK mcpctl call time__get_current_time --args '{\"timezone\":\"Europe/Warsaw\"}'\n  \
        mcpctl call -p demo git__git_log --args - -o json < arguments.json\n\n\
        Exit codes:\n  \
        0 done, 1 the tool or its server failed, 2 usage, 3 no such tool, 4 the token is not taken or may not call it,\n  \
        5 no node took it (nothing was done), 6 it may have been done, 124 no result in time")]
    Call(CallArgs),
    /// Print what a client needs to know to use a project: its configuration, or a program
    ///
    /// The text is on standard output and where it goes on standard error. No token is in it. docs/CLIENTS.md shows them all.
    #[command(after_help = "Examples:\n  \
        mcpctl connect claude -p demo > .mcp.json\n  \
        mcpctl connect vllm -p demo --server http://gw:3200")]
    Connect(ConnectArgs),
    /// Speak MCP: bridge a client on standard input and output
    #[command(
        subcommand,
        after_help = "Examples:\n  MCPCTL_TOKEN=$TOK mcpctl mcp stdio\n  mcpctl mcp stdio -p demo --token-file ci.token"
    )]
    Mcp(Mcp),
    /// Check an MCP endpoint
    #[command(
        subcommand,
        after_help = "Examples:\n  MCPCTL_TOKEN=$TOK mcpctl test mcp https://gw.example:3200/projects/demo/mcp\n  mcpctl test mcp http://127.0.0.1:3200/projects/demo/mcp --expect-tools echo"
    )]
    Test(Test),
    /// Contexts: which clusters there are
    #[command(
        subcommand,
        after_help = "Examples:\n  mcpctl config get-contexts\n  mcpctl config use-context prod"
    )]
    Config(Config),
    /// Print a completion script; it asks this program, so it knows every command and the names of objects
    #[command(after_help = "Examples:\n  \
        source <(mcpctl completion bash)\n  mcpctl completion zsh > ~/.zfunc/_mcpctl\n  \
        mcpctl completion fish > ~/.config/fish/completions/mcpctl.fish")]
    Completion(CompletionArgs),
    /// Show the versions of this program and of the node
    #[command(after_help = "Examples:\n  mcpctl version\n  mcpctl version -o json")]
    Version(OutputArg),
}

/// How data is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// As the API answers.
    Json,
    /// As `apply` takes it.
    Yaml,
    /// KIND/NAME.
    Name,
    /// What a template picks.
    JsonPath(&'static str),
}

/// The words for [`Format`].
pub(crate) const FORMATS: [&str; 6] = ["table", "wide", "json", "yaml", "name", "jsonpath="];

impl Format {
    fn parse(text: &str) -> Result<Format, String> {
        match text {
            "table" => Ok(Format::Table),
            "wide" => Ok(Format::Wide),
            "json" => Ok(Format::Json),
            "yaml" => Ok(Format::Yaml),
            "name" => Ok(Format::Name),
            _ => {
                let template = text.strip_prefix("jsonpath=");
                let template = template.ok_or_else(|| format!("the formats are {}TEMPLATE", FORMATS.join(", ")))?;
                jsonpath::Template::parse(template)?;
                // Once per run, and needed until its end.
                Ok(Format::JsonPath(Box::leak(template.to_owned().into_boxed_str())))
            }
        }
    }
}

#[derive(Args)]
pub(crate) struct OutputArg {
    /// table, wide, json (as the API answers), yaml (as apply takes it), name, jsonpath=TEMPLATE
    #[arg(short, long, env = "MCPCTL_OUTPUT", hide_env_values = true, value_parser = Format::parse, default_value = "table", value_name = "FORMAT",
        add = ArgValueCandidates::new(complete::formats))]
    pub(crate) output: Format,
}

#[derive(Args)]
pub(crate) struct ProjectArg {
    /// The project
    #[arg(short, long, env = "MCPCTL_PROJECT", hide_env_values = true, value_name = "NAME", add = ArgValueCandidates::new(complete::projects))]
    pub(crate) project: Option<String>,
}

#[derive(Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    pub(crate) shell: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The commands of a line as a shell would take it apart, each beginning with the program.
    fn parsed(line: &str) -> Vec<Vec<String>> {
        let (mut found, mut words, mut word, mut quote) = (Vec::new(), Vec::new(), None::<String>, None);
        for c in line.chars().chain([';']) {
            match (quote, c) {
                (Some(q), c) if q == c => quote = None,
                (Some(_), c) => word.get_or_insert_default().push(c),
                (None, '\'' | '"') => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (None, ' ' | ';' | '|' | '&' | '(' | ')' | '<' | '>') => {
                    words.extend(word.take());
                    if c == '<' || c == '>' {
                        words.push(c.to_string());
                    } else if c != ' ' {
                        found.push(std::mem::take(&mut words));
                    }
                }
                (None, c) => word.get_or_insert_default().push(c),
            }
        }
        let program = |words: Vec<String>| {
            let from = words.iter().position(|word| word == "mcpctl")?;
            let until = words.iter().position(|word| word == "<" || word == ">");
            Some(words[from..until.unwrap_or(words.len())].to_vec())
        };
        found.into_iter().filter_map(program).collect()
    }

    /// Whoever pastes an example gets past the command line, for every command and every group of commands.
    #[test]
    fn every_example_is_a_command_line_that_can_be_read() {
        fn walk(command: &clap::Command, seen: &mut usize) {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in after
                .replace("\\\n", " ")
                .lines()
                .filter(|line| line.starts_with("  ") && line.contains("mcpctl "))
            {
                for words in parsed(line) {
                    let read = Cli::command().try_get_matches_from(&words);
                    assert!(read.is_ok(), "{line}\n{}", read.unwrap_err());
                    *seen += 1;
                }
            }
            command.get_subcommands().for_each(|inner| walk(inner, seen));
        }
        let mut seen = 0;
        walk(&Cli::command(), &mut seen);
        assert!(seen > 100, "{seen}");
    }
}
