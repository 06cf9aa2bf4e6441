//! Backups of a cluster.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{OutputArg, Waiting};

#[derive(Subcommand)]
pub(crate) enum Backup {
    /// Write the cluster's objects into a file, while everything goes on
    ///
    /// Users with their password hashes, groups, service accounts, projects, servers, secrets (sealed), definitions, tokens (as
    /// hashes) and the marks of refused ones. Not in it: nodes, certificates, sessions, the audit, and the data key without which
    /// nobody can open the secrets: keep `data.key` of one node somewhere else.
    #[command(
        after_help = "Examples:\n  mcpctl backup save monday.backup\n  mcpctl backup save \"$(date +%F).backup\" -o json"
    )]
    Save(SaveArgs),
    /// Say whether every byte of a backup is as it was written, and what it holds; no node is asked
    #[command(
        after_help = "Examples:\n  mcpctl backup verify monday.backup\n  mcpctl backup verify monday.backup -o json"
    )]
    Verify(VerifyArgs),
    /// Make the cluster's objects those of a backup: all of it, or nothing
    ///
    /// Nobody is let in by it who is refused now: tokens that were revoked, deleted or expired since stay refused, and so do
    /// tokens that this cluster never knew. Tokens that the backup does not know are revoked. Who is disabled stays disabled, and
    /// passwords stay as they are. All streams and running calls end; who still holds their rights comes back at once.
    #[command(
        after_help = "Examples:\n  mcpctl backup restore monday.backup --dry-run\n  mcpctl backup restore monday.backup\n  \
        mcpctl backup restore monday.backup --revive-tokens --dry-run"
    )]
    Restore(RestoreArgs),
}

#[derive(Args)]
pub(crate) struct SaveArgs {
    /// The file to write; it must not exist
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The backup
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    pub(crate) file: PathBuf,
    /// Let tokens in again that are refused now, although they were revoked or deleted since; what comes back is listed
    #[arg(long)]
    pub(crate) revive_tokens: bool,
    /// Take a backup of another cluster, too
    #[arg(long)]
    pub(crate) other_cluster: bool,
    /// Say what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Ask again what became of this restore, and carry it out if it was not: what an unknown outcome names
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}
