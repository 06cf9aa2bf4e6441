//! `mcpctl describe`.

use mcp_api::groups::GroupBody;
use mcp_api::list::List;
use mcp_api::nodes::NodeBody;
use mcp_api::projects::{ProjectBody, ProjectTool};
use mcp_api::rbac::RbacBody;
use mcp_api::secrets::SecretBody;
use mcp_api::servers::{ServerBody, ServerTools};
use mcp_api::serviceaccounts::ServiceAccountBody;
use mcp_api::users::UserBody;

use crate::api::{Api, encoded};
use crate::args::{DescribeArgs, Global};
use crate::failure::{Exit, Failure};
use crate::kinds::Kind;
use crate::show::{self, Object, printable};
use crate::{clock, get, tools};

/// Longest part of a tool's description that is shown, in characters.
const DESCRIPTION_CHARS: usize = 72;

pub(crate) async fn describe(global: &Global, args: &DescribeArgs) -> Result<Exit, Failure> {
    let target = get::target(&args.kind, args.name.as_slice())?;
    let [name] = target.names.as_slice() else {
        return Err(
            Failure::usage("cannot describe", format!("name one {}", target.kind.singular()))
                .next(format!("mcpctl get {}", target.kind.plural())),
        );
    };
    let api = Api::of(global)?;
    match target.kind {
        Kind::McpTokens => print(
            &get::token(global, &api, &args.project, name, "describe").await?,
            Vec::new(),
        ),
        Kind::Projects => {
            let project: ProjectBody = get::one(&api, name).await?;
            let tools = project_tools(&api, &project.name).await?;
            print(&project, vec![("Tools", tools)]);
        }
        Kind::Servers => {
            let server: ServerBody = get::one(&api, name).await?;
            let tools = server_tools(&api, &server.spec.name).await?;
            print(&server, tools);
        }
        Kind::Tools => tools::describe(&api, name).await?,
        Kind::Nodes => print(&get::one::<NodeBody>(&api, name).await?, Vec::new()),
        Kind::Rbac => print(&get::one::<RbacBody>(&api, name).await?, Vec::new()),
        Kind::Users => print(&get::one::<UserBody>(&api, name).await?, Vec::new()),
        Kind::Groups => print(&get::one::<GroupBody>(&api, name).await?, Vec::new()),
        Kind::ServiceAccounts => print(&get::one::<ServiceAccountBody>(&api, name).await?, Vec::new()),
        Kind::Secrets => print(&get::one::<SecretBody>(&api, name).await?, Vec::new()),
        Kind::Sessions => print(&get::session(&api, name).await?, Vec::new()),
    }
    Ok(Exit::Done)
}

fn print<T: Object>(object: &T, more: Vec<(&'static str, String)>) {
    let mut pairs = object.details(clock::wall_ms());
    pairs.extend(more);
    for (_, value) in &mut pairs {
        *value = value.lines().map(printable).collect::<Vec<_>>().join("\n");
    }
    show::pairs(&pairs);
}

async fn project_tools(api: &Api, name: &str) -> Result<String, Failure> {
    let path = format!("projects/{}/tools", encoded(name));
    let tools: List<ProjectTool> = api.get("list the project's tools", &path).await?;
    Ok(lines(
        tools.items.iter().map(|t| (t.name.as_str(), t.description.as_deref())),
    ))
}

async fn server_tools(api: &Api, name: &str) -> Result<Vec<(&'static str, String)>, Failure> {
    let path = format!("servers/{}/tools", encoded(name));
    let tools: ServerTools = api.get("list the server's tools", &path).await?;
    let health = match (tools.healthy, &tools.reason) {
        (Some(true), _) => "healthy".to_owned(),
        (Some(false), reason) => format!("unhealthy: {}", reason.as_deref().unwrap_or("no reason given")),
        (None, _) => "not asked yet".to_owned(),
    };
    let text = |tool: &serde_json::Value, key| tool.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    let named: Vec<_> = tools
        .tools
        .iter()
        .map(|t| (text(t, "name"), text(t, "description")))
        .collect();
    let list = lines(
        named
            .iter()
            .map(|(name, description)| (name.as_deref().unwrap_or("?"), description.as_deref())),
    );
    let held: Vec<&str> = tools
        .watched
        .iter()
        .filter(|w| w.held)
        .map(|w| w.name.as_str())
        .collect();
    let history = tools::history(tools.changes.iter());
    Ok(vec![
        ("Health", health),
        ("Fetched", tools.fetched_at.unwrap_or_else(|| "never".to_owned())),
        ("Tools", list),
        (
            "Held back",
            if held.is_empty() {
                "none".to_owned()
            } else {
                held.join("\n")
            },
        ),
        ("History", history),
    ])
}

fn lines<'a>(tools: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let line = |(name, description): (&str, Option<&str>)| {
        let first = description.and_then(|d| d.lines().next()).unwrap_or_default();
        let short: String = first.chars().take(DESCRIPTION_CHARS).collect();
        if short.is_empty() {
            name.to_owned()
        } else {
            format!("{name}: {short}")
        }
    };
    let lines: Vec<String> = tools.map(line).collect();
    if lines.is_empty() {
        "none that you may see".to_owned()
    } else {
        lines.join("\n")
    }
}
