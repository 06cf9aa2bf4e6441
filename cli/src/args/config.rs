//! `mcpctl config`.

use clap::Subcommand;
use clap_complete::engine::ArgValueCandidates;

use super::OutputArg;
use crate::complete;

#[derive(Subcommand)]
pub(crate) enum Config {
    /// List the contexts
    #[command(after_help = "Examples:\n  mcpctl config get-contexts\n  mcpctl config get-contexts -o name")]
    GetContexts(OutputArg),
    /// Make a context the current one
    #[command(after_help = "Examples:\n  mcpctl config use-context prod\n  mcpctl config use-context default")]
    UseContext {
        /// Its name
        #[arg(add = ArgValueCandidates::new(complete::contexts))]
        name: String,
    },
    /// Make a context, or change one
    #[command(
        after_help = "Examples:\n  mcpctl config set-context prod --server https://a:3100,https://b:3100,https://c:3100\n  \
        mcpctl config set-context prod -p demo"
    )]
    SetContext {
        /// Its name
        #[arg(add = ArgValueCandidates::new(complete::contexts))]
        name: String,
        /// API URLs of the nodes; they are tried in turn
        #[arg(long, value_name = "URL[,URL]", value_delimiter = ',')]
        server: Vec<String>,
        /// The project that -p stands for when it is not given
        #[arg(short, long)]
        project: Option<String>,
    },
    /// Forget a context and its session
    #[command(
        after_help = "Examples:\n  mcpctl config delete-context old\n  mcpctl logout --context old && mcpctl config delete-context old"
    )]
    DeleteContext {
        /// Its name
        #[arg(add = ArgValueCandidates::new(complete::contexts))]
        name: String,
    },
    /// Print the configuration, without sessions
    #[command(after_help = "Examples:\n  mcpctl config view\n  mcpctl config view | grep servers -A3")]
    View,
}
