//! `mcpctl apply` and `mcpctl diff`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Waiting;

#[derive(Args)]
pub(crate) struct FilesArg {
    /// A file, a directory (its .yaml, .yml and .json files), or - for standard input; repeatable
    #[arg(short, long = "filename", value_name = "FILE", required = true, value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,
    /// Go down into directories
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

#[derive(Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) from: FilesArg,
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Mint tokens whose names were revoked
    #[arg(long)]
    pub(crate) force: bool,
    /// Store the minted token here (0600) instead of printing it; a directory gets one file per token, PROJECT.NAME
    #[arg(long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub(crate) token_out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    pub(crate) from: FilesArg,
}
