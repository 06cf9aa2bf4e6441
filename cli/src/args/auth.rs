//! Logging in, and asking about rights.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;

use super::Waiting;
use crate::complete;

#[derive(Args)]
pub(crate) struct LoginArgs {
    /// Who (asked for if missing)
    #[arg(long, short = 'u', value_name = "EMAIL")]
    pub(crate) email: Option<String>,
    /// Read the password from standard input instead of asking for it
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// The first time: set the password with the secret in this file, which `mcpnode init` wrote. It works once
    #[arg(long, value_name = "FILE")]
    pub(crate) setup_secret_file: Option<PathBuf>,
    /// API URLs of the nodes, kept in the context
    #[arg(long, value_name = "URL[,URL]", value_delimiter = ',')]
    pub(crate) server: Vec<String>,
}

#[derive(Args)]
pub(crate) struct LogoutArgs {
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Subcommand)]
pub(crate) enum Auth {
    /// Ask whether one may do something: exit code 0 yes, 1 no
    #[command(after_help = "Examples:\n  \
        mcpctl auth can-i create servers\n  mcpctl auth can-i run tools/git/log\n  mcpctl auth can-i exec\n  \
        mcpctl auth can-i --list")]
    CanI(CanIArgs),
}

#[derive(Args)]
pub(crate) struct CanIArgs {
    /// get, run, create, update, delete, grant; or an action: logs, backup, restore, cluster, exec
    #[arg(required_unless_present = "list", add = ArgValueCandidates::new(complete::verbs))]
    pub(crate) verb: Option<String>,
    /// servers, projects, tools, …; or RESOURCE/NAME
    #[arg(add = ArgValueCandidates::new(complete::kinds))]
    pub(crate) resource: Option<String>,
    /// Of this name; without one: of any
    pub(crate) name: Option<String>,
    /// Show everything that one was granted
    #[arg(long, conflicts_with = "verb")]
    pub(crate) list: bool,
}

#[derive(Args)]
pub(crate) struct PasswdArgs {
    /// Whose; nobody: one's own
    #[arg(add = ArgValueCandidates::new(complete::users))]
    pub(crate) email: Option<String>,
    /// Read from standard input instead of asking: the new password, for one's own the present one on a line before it
    #[arg(long)]
    pub(crate) password_stdin: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}
