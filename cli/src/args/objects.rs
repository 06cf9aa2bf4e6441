//! Verbs that take a kind and names.

use clap::Args;
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter};

use super::{OutputArg, ProjectArg, Waiting};
use crate::complete;

#[derive(Args)]
pub(crate) struct GetArgs {
    /// projects, servers, tools, mcptokens, users, groups, serviceaccounts, secrets, rbac, sessions, nodes; or KIND/NAME; or all
    #[arg(add = ArgValueCandidates::new(complete::kinds))]
    pub(crate) kind: String,
    /// Names or ids; none: all. Of tools: servers, or SERVER/TOOL
    #[arg(add = ArgValueCompleter::new(complete::names))]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) project: ProjectArg,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct DescribeArgs {
    /// project, server, tool, mcptoken, user, group, serviceaccount, secret, rbac, session, node; or KIND/NAME
    #[arg(add = ArgValueCandidates::new(complete::kinds))]
    pub(crate) kind: String,
    /// Name or id
    #[arg(add = ArgValueCompleter::new(complete::names))]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) project: ProjectArg,
}

#[derive(Args)]
pub(crate) struct RemoveArgs {
    /// project, server, mcptoken, user, group, serviceaccount, secret, rbac, session; or KIND/NAME
    #[arg(add = ArgValueCandidates::new(complete::kinds))]
    pub(crate) kind: String,
    /// Names or ids
    #[arg(add = ArgValueCompleter::new(complete::names))]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) project: ProjectArg,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct LogsArgs {
    /// server; or server/NAME
    #[arg(add = ArgValueCandidates::new(complete::kinds))]
    pub(crate) kind: String,
    /// Name or id
    #[arg(add = ArgValueCompleter::new(complete::names))]
    pub(crate) name: Option<String>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The newest lines of each node, at most 2000; 200 if neither this nor --since is given
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(0..=2_000))]
    pub(crate) tail: Option<u32>,
    /// Only what is not older than this: 30s, 10m, 2h, 1d, or a time such as 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Of this node alone
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::nodes))]
    pub(crate) node: Option<String>,
    /// Say when each line was read
    #[arg(long)]
    pub(crate) timestamps: bool,
}

#[derive(Args)]
pub(crate) struct EditArgs {
    /// project, server, user, group, serviceaccount, rbac; or KIND/NAME
    #[arg(add = ArgValueCandidates::new(complete::kinds))]
    pub(crate) kind: String,
    /// Name or id
    #[arg(add = ArgValueCompleter::new(complete::names))]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Args)]
pub(crate) struct WaitArgs {
    /// project, server, mcptoken, node, …; or KIND/NAME
    #[arg(add = ArgValueCandidates::new(complete::kinds))]
    pub(crate) kind: String,
    /// Name or id
    #[arg(add = ArgValueCompleter::new(complete::names))]
    pub(crate) name: Option<String>,
    /// create, delete, revoked (a token: refused everywhere), healthy (a server), ready (a node), or jsonpath=TEMPLATE=VALUE
    #[arg(long = "for", value_name = "STATE")]
    pub(crate) state: String,
    /// Longest wait: 30s, 5m, 1h
    #[arg(long, default_value = "30s", value_parser = seconds, value_name = "TIME")]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) project: ProjectArg,
}

/// A wait, in seconds. A number alone counts seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(digits) => (digits, &text[digits.len()..]),
        None => (text, "s"),
    };
    let factor = match unit {
        "h" => 3_600,
        "m" => 60,
        _ => 1,
    };
    let count: u64 = digits.parse().map_err(|_| "write 30s, 5m or 1h".to_owned())?;
    count
        .checked_mul(factor)
        .filter(|s| *s <= 7 * 86_400)
        .ok_or_else(|| "a week is the longest wait".to_owned())
}

#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// KIND, or KIND.FIELD[.FIELD]
    #[arg(value_name = "KIND[.FIELD]", add = ArgValueCandidates::new(complete::kinds))]
    pub(crate) path: String,
}

#[derive(Args)]
pub(crate) struct RotateArgs {
    /// mcptoken or secret; or KIND/NAME
    #[arg(add = ArgValueCandidates::new(complete::kinds))]
    pub(crate) kind: String,
    /// Its name
    #[arg(add = ArgValueCompleter::new(complete::names))]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) project: ProjectArg,
    /// A secret: the key that gets a new value
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// A secret: read the new value from this file instead of asking for it; - is standard input
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) from_file: Option<String>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Args)]
pub(crate) struct ApproveArgs {
    /// tool, or server for all of its tools that wait; or KIND/NAME
    #[arg(add = ArgValueCandidates::new(complete::kinds))]
    pub(crate) kind: String,
    /// SERVER/TOOL, or the server
    #[arg(add = ArgValueCompleter::new(complete::names))]
    pub(crate) names: Vec<String>,
    /// What is approved, as describe shows it; without it what the tool is now
    #[arg(long, value_name = "SHA256")]
    pub(crate) digest: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}
