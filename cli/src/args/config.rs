//! `mcpctl config`.

use clap::Subcommand;

use super::OutputArg;

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
