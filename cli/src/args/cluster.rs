//! Who is in the cluster.

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;

use super::{OutputArg, Waiting};
use crate::complete;

#[derive(Subcommand)]
pub(crate) enum Cluster {
    /// Show the cluster: who leads, who votes, who answers
    #[command(after_help = "Examples:\n  mcpctl cluster status\n  mcpctl cluster status -o json")]
    Status(OutputArg),
    /// List the nodes with their addresses
    #[command(after_help = "Examples:\n  mcpctl cluster nodes\n  mcpctl cluster nodes -o wide")]
    Nodes(OutputArg),
    /// Make a token that lets one machine join (it is shown once, alone on its line); list those there are, or revoke one
    #[command(
        after_help = "Examples:\n  mcpctl cluster join-token > join.token\n  mcpctl cluster join-token --ttl 10m --role learner > join.token\n  \
        mcpctl cluster join-token list\n\n\
        Then, on the new machine:\n  mcpnode join node-1.example:3300 --token-file join.token --data-dir /var/lib/mcpnode"
    )]
    JoinToken(JoinTokenArgs),
    /// Let a node vote, once it has caught up
    #[command(
        after_help = "Examples:\n  mcpctl cluster promote node-3\n  mcpctl cluster promote 00c0ffee00c0ffee -o json"
    )]
    Promote(NodeArgs),
    /// Let a node only follow: it serves, and does not vote
    #[command(after_help = "Examples:\n  mcpctl cluster demote node-3\n  mcpctl cluster demote node-3 -o json")]
    Demote(NodeArgs),
    /// Remove a node for ever: it admits nobody any more when this returns, and its id never comes back
    #[command(after_help = "Examples:\n  mcpctl cluster remove node-3\n  mcpctl cluster remove node-3 --no-wait")]
    Remove(RemoveNodeArgs),
}

/// Without a verb it makes one.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct JoinTokenArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<JoinToken>,
    #[command(flatten)]
    pub(crate) new: NewJoinTokenArgs,
}

#[derive(Subcommand)]
pub(crate) enum JoinToken {
    /// Make one: the same as without a verb
    #[command(
        after_help = "Examples:\n  mcpctl cluster join-token create > join.token\n  mcpctl cluster join-token create --ttl 10m > join.token"
    )]
    Create(NewJoinTokenArgs),
    /// List those there are: open, used by a machine, or expired
    #[command(after_help = "Examples:\n  mcpctl cluster join-token list\n  mcpctl cluster join-token list -o json")]
    List(OutputArg),
    /// End one before its time: a machine that has come in by it stays
    #[command(
        alias = "delete",
        after_help = "Examples:\n  mcpctl cluster join-token revoke 01890a5d-ac96-774b-bcce-b302099a8057\n  \
        mcpctl cluster join-token revoke 01890a5d-ac96-774b-bcce-b302099a8057 -o name"
    )]
    Revoke(RevokeJoinTokenArgs),
}

#[derive(Args)]
pub(crate) struct NewJoinTokenArgs {
    /// How long it lets in: at most 7d
    #[arg(long, default_value = "1h", value_name = "TIME")]
    pub(crate) ttl: String,
    /// What becomes of the machine: it votes once it has caught up, or only follows
    #[arg(long, default_value = "voter", value_parser = ["voter", "learner"])]
    pub(crate) role: String,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct RevokeJoinTokenArgs {
    /// Its id, as the list shows it
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct NodeArgs {
    /// Its name or id
    #[arg(add = ArgValueCandidates::new(complete::nodes))]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct RemoveNodeArgs {
    /// Its name or id
    #[arg(add = ArgValueCandidates::new(complete::nodes))]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}
