//! `mcpctl version`.

use mcp_api::version::VersionBody;
use serde_json::json;

use crate::api::Api;
use crate::args::{Format, Global, OutputArg};
use crate::failure::{Exit, Failure};
use crate::{out, show};

const OWN: &str = env!("CARGO_PKG_VERSION");

/// Shows both versions. Where no node can be asked, its own is shown all the same, and the command fails.
pub(crate) async fn version(global: &Global, args: &OutputArg) -> Result<Exit, Failure> {
    let node = match Api::of(global) {
        Ok(api) => api.get::<VersionBody>("ask for the version", "version").await,
        Err(failure) => Err(failure),
    };
    match args.output {
        Format::Json | Format::Yaml | Format::JsonPath(_) => {
            let node = node.as_ref().ok();
            show::other(args.output, &json!({"client": {"version": OWN}, "server": node}))?;
        }
        Format::Table | Format::Wide | Format::Name => {
            out::line(&format!("mcpctl {OWN}"));
            if let Ok(node) = &node {
                out::line(&format!(
                    "mcpnode {} (node {}, api {})",
                    node.version, node.node, node.api
                ));
            }
        }
    }
    node.map(|_| Exit::Done)
}
