//! `mcpctl connect CLIENT`: what to write into that client's configuration, or program. Each text is run as it is by the end-to-end
//! suite where the client can be run there; `docs/CLIENTS.md` shows the same ones. No token is in them: a place for it, or the name
//! of the environment variable that holds it.

use mcp_api::list::List;
use mcp_api::nodes::NodeBody;

use crate::api::Api;
use crate::args::{ClientName, ConnectArgs, Global};
use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::mcp::endpoints::{Endpoint, Endpoints};
use crate::{mcp, out, settings};

/// A client.
struct Stanza {
    /// What is printed.
    text: &'static str,
    /// Where it goes and what else there is to know: for people.
    note: &'static str,
}

impl ClientName {
    fn stanza(self) -> Stanza {
        let of = |text, note| Stanza { text, note };
        match self {
            ClientName::Claude => of(
                include_str!("connect/claude.json"),
                "Claude Code: .mcp.json of the directory you work in. It takes the token from the environment: export MCPCTL_TOKEN=...",
            ),
            ClientName::ClaudeDesktop => of(
                include_str!("connect/claude-desktop.json"),
                "Claude Desktop: claude_desktop_config.json. Write the token into a file that only you can read (umask 077) and name it there",
            ),
            ClientName::Cursor => of(
                include_str!("connect/cursor.json"),
                "Cursor: .cursor/mcp.json. It takes the token from the environment: export MCPCTL_TOKEN=...",
            ),
            ClientName::Vscode => of(
                include_str!("connect/vscode.json"),
                "VS Code: .vscode/mcp.json. It asks for the token once and keeps it in its own store",
            ),
            ClientName::Vllm => of(
                include_str!("connect/vllm.yaml"),
                "vLLM: a file for vllm serve MODEL --config FILE (chmod 600: the token stands in it). It speaks HTTP+SSE, which the project must \
                 allow: mcpctl create project PROJECT --allow-sse --force. vLLM always says http://, so the gateway's listener is without TLS",
            ),
            ClientName::Python => of(include_str!("connect/python.py"), "Python: mcp 2.x (pip install mcp)"),
            ClientName::Python1 => of(
                include_str!("connect/python-1.py"),
                "Python: mcp 1.x (pip install 'mcp<2')",
            ),
            ClientName::Fastmcp => of(include_str!("connect/fastmcp.py"), "FastMCP (pip install fastmcp)"),
            ClientName::Langchain => of(
                include_str!("connect/langchain.py"),
                "LangChain (pip install langchain-mcp-adapters)",
            ),
            ClientName::OpenaiAgents => of(
                include_str!("connect/openai-agents.py"),
                "OpenAI Agents SDK (pip install openai-agents)",
            ),
            ClientName::Typescript => of(
                include_str!("connect/typescript.mjs"),
                "TypeScript (npm install @modelcontextprotocol/client)",
            ),
            ClientName::Inspector => of(
                include_str!("connect/inspector.json"),
                "Inspector: a file (chmod 600: the token stands in it) for npx @modelcontextprotocol/inspector --cli --config FILE --server PROJECT --method tools/list",
            ),
            ClientName::McpRemote => of(
                include_str!("connect/mcp-remote.json"),
                "mcp-remote, for clients that speak stdio only; mcpctl mcp stdio goes on when a node is gone, and this does not",
            ),
            ClientName::Curl => of(
                include_str!("connect/curl.sh"),
                "curl, for a look. The token comes from the environment and does not stand in arguments, which others can read",
            ),
        }
    }
}

pub(crate) async fn connect(global: &Global, args: &ConnectArgs) -> Result<Exit, Failure> {
    let project = project(global, args)?;
    let gateways = gateways(global, args, &project).await?;
    let stanza = args.client.stanza();
    eprintln!("{}", stanza.note);
    out::bytes(filled(stanza.text, &project, &gateways)?.as_bytes());
    Ok(Exit::Done)
}

/// A text with the names and addresses in place.
fn filled(text: &str, project: &str, gateways: &[String]) -> Result<String, Failure> {
    let first = gateways.first().map(String::as_str).unwrap_or_default();
    let url = Endpoint::of(first, Some(project))?.url;
    let host = first.split_once("://").map_or(first, |(_, host)| host);
    let text = text.replace("{{url}}", &url).replace("{{project}}", project);
    Ok(text
        .replace("{{gateways}}", &gateways.join(","))
        .replace("{{host}}", host))
}

fn project(global: &Global, args: &ConnectArgs) -> Result<String, Failure> {
    let config = Config::load()?;
    let context = global.context.as_ref().or(config.current_context.as_ref());
    let from_context = || context.and_then(|name| config.context(name)?.project.clone());
    let project = args.gateway.project.clone().or_else(from_context);
    project.ok_or_else(|| {
        Failure::usage(
            "cannot connect a client",
            "no project is named, and each has its own URL",
        )
        .next("mcpctl connect CLIENT -p PROJECT (mcpctl get projects lists them)")
    })
}

/// The gateways: as the command line says, or as the cluster tells the token, or whoever is logged in.
async fn gateways(global: &Global, args: &ConnectArgs, project: &str) -> Result<Vec<String>, Failure> {
    let given: Vec<&String> = args.gateway.server.iter().filter(|s| !s.trim().is_empty()).collect();
    if !given.is_empty() {
        return given.into_iter().map(|url| settings::normal(url)).collect();
    }
    let has_token =
        args.gateway.token_file.is_some() || std::env::var_os("MCPCTL_TOKEN").is_some_and(|t| !t.is_empty());
    let gateways = match has_token {
        true => {
            let endpoints = Endpoints::of(global, &args.gateway, &mcp::token(&args.gateway)?).await?;
            let root = |endpoint: Endpoint| endpoint.life_url.trim_end_matches("/livez").to_owned();
            endpoints.list.into_iter().map(root).collect()
        }
        false => {
            let nodes: List<NodeBody> = Api::of(global)?.list("find the gateways", "nodes", "").await?;
            let urls = nodes.items.into_iter().map(|node| node.gateway_url);
            urls.filter(|url| !url.is_empty()).collect::<Vec<_>>()
        }
    };
    if gateways.is_empty() {
        let why = "the nodes have not said yet where their gateways are";
        return Err(
            Failure::new(format!("cannot connect a client to project {project:?}"), why)
                .next("mcpctl get nodes, and then: --server URL"),
        );
    }
    Ok(gateways)
}
