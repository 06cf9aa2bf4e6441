//! Verbs that take a kind and names.

use clap::Args;

use super::{OutputArg, ProjectArg};

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
