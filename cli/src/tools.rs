//! Tools: `get tools`, `describe tool`, and `approve`, which lets in what has changed on a server whose tools are pinned.

use mcp_api::list::List;
use mcp_api::projects::ProjectTool;
use mcp_api::servers::{ServerBody, ServerTools, ToolApproval, ToolApprovals, ToolChangeBody, WatchedTool};
use mcp_api::write::Written;
use mcp_api::{visible, visible_json};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{Answer, Api, encoded};
use crate::args::{ApproveArgs, GetArgs, Global};
use crate::failure::{Exit, Failure};
use crate::kinds::Kind;
use crate::show::{self, Object, ago_or};
use crate::{clock, get, out};

/// A tool in a list.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToolRow {
    /// As the clients of a project see it, or `SERVER/TOOL`.
    name: String,
    server: String,
    tool: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    held: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed_at: Option<String>,
}

impl Object for ToolRow {
    const KIND: Kind = Kind::Tools;
    const COLUMNS: &'static [&'static str] = &["NAME", "SERVER", "STATE", "DESCRIPTION"];
    const WIDE: &'static [&'static str] = &["CHANGED", "DIGEST"];
    const FIELDS: &'static [&'static str] = &["server", "tool", "description", "held"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn full_name(&self) -> String {
        visible(&format!("tool/{}/{}", self.server, self.tool))
    }

    fn is_written_by_hand(&self) -> bool {
        false
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        let description = self.description.as_deref().and_then(|text| text.lines().next());
        vec![
            self.name.clone(),
            self.server.clone(),
            if self.held { "held" } else { "offered" }.to_owned(),
            description.unwrap_or_default().chars().take(72).collect(),
            ago_or(self.changed_at.as_ref(), now_ms, "-"),
            self.digest
                .as_ref()
                .map_or("-".to_owned(), |digest| digest.chars().take(12).collect()),
        ]
    }

    fn spec(&self) -> Value {
        let description = self.description.as_deref().map(visible);
        serde_json::json!({"server": self.server, "tool": visible(&self.tool), "description": description, "held": self.held})
    }

    fn details(&self, _now_ms: u64) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// `get tools`: of a project, of some servers, or of all that one may see; or one tool as `SERVER/TOOL`.
pub(crate) async fn list(global: &Global, args: &GetArgs, names: &[String]) -> Result<Exit, Failure> {
    let api = Api::of(global)?;
    let mut rows = Vec::new();
    match (args.project.known(global)?, names) {
        (Some(project), _) if args.project.project.is_some() || names.is_empty() => {
            let path = format!("projects/{}/tools", encoded(&project));
            let tools: List<ProjectTool> = api.list("list the project's tools", &path, "").await?;
            let of = |tool: &ProjectTool| {
                let full_name = format!("{}/{}", tool.server, tool.tool);
                names.is_empty() || names.contains(&tool.server) || names.contains(&full_name)
            };
            rows.extend(tools.items.into_iter().filter(of).map(of_project));
        }
        (_, []) => {
            let servers: List<ServerBody> = api.list("list servers", "servers", "").await?;
            for server in servers.items {
                rows.extend(of_server(&tools_of(&api, &server.spec.name).await?));
            }
        }
        (_, names) => {
            for name in names {
                let (server, tool) = name.split_once('/').unwrap_or((name, ""));
                let mut some = of_server(&tools_of(&api, server).await?);
                some.retain(|row| tool.is_empty() || row.tool == tool);
                if !tool.is_empty() && some.is_empty() {
                    return Err(missing(&format!("get tool {name:?}"), server, tool));
                }
                rows.extend(some);
            }
        }
    }
    rows.sort_by_key(Object::order);
    let list = List {
        items: rows,
        more: None,
        resource_version: String::new(),
    };
    show::list(args.output.output, &list)?;
    Ok(Exit::Done)
}

fn of_project(tool: ProjectTool) -> ToolRow {
    ToolRow {
        name: tool.name,
        server: tool.server,
        tool: tool.tool,
        description: tool.description,
        held: tool.held,
        digest: None,
        changed_at: None,
    }
}

fn of_server(tools: &ServerTools) -> Vec<ToolRow> {
    let row = |tool: &Value| {
        let name = text(tool, "name")?;
        let watched = tools.watched.iter().find(|watched| watched.name == name);
        Some(ToolRow {
            name: format!("{}/{name}", tools.server),
            server: tools.server.clone(),
            description: text(tool, "description"),
            held: watched.is_some_and(|watched| watched.held),
            digest: watched.map(|watched| watched.digest.clone()),
            changed_at: watched.map(|watched| watched.changed_at.clone()),
            tool: name,
        })
    };
    tools.tools.iter().filter_map(row).collect()
}

fn text(tool: &Value, key: &str) -> Option<String> {
    tool.get(key)?.as_str().map(str::to_owned)
}

async fn tools_of(api: &Api, server: &str) -> Result<ServerTools, Failure> {
    let path = format!("servers/{}/tools", encoded(server));
    api.get(&format!("list the tools of server {server:?}"), &path).await
}

fn missing(what: &str, server: &str, tool: &str) -> Failure {
    let why = format!("server {server:?} has no tool {tool:?} that you may see");
    Failure::new(format!("cannot {what}"), why)
        .next(format!("mcpctl get tools {server}"))
        .with_exit(Exit::NotFound)
}

/// `SERVER/TOOL` as a server and a tool.
fn parts<'a>(what: &str, name: &'a str) -> Result<(&'a str, &'a str), Failure> {
    let parts = name
        .split_once('/')
        .filter(|(server, tool)| !server.is_empty() && !tool.is_empty());
    parts.ok_or_else(|| {
        Failure::usage(format!("cannot {what} {name:?}"), "a tool is named SERVER/TOOL").next("mcpctl get tools")
    })
}

/// `describe tool SERVER/TOOL`.
pub(crate) async fn describe(api: &Api, name: &str) -> Result<(), Failure> {
    let (server, tool) = parts("describe tool", name)?;
    let tools = tools_of(api, server).await?;
    let Some(entry) = tools
        .tools
        .iter()
        .find(|entry| text(entry, "name").as_deref() == Some(tool))
    else {
        return Err(missing(&format!("describe tool {name:?}"), server, tool));
    };
    let watched = tools.watched.iter().find(|watched| watched.name == tool);
    let now_ms = clock::wall_ms();
    let json = |key: &str| {
        let text = entry
            .get(key)
            .and_then(|value| serde_json::to_string_pretty(value).ok());
        text.map_or_else(|| "-".to_owned(), |text| visible_json(&text))
    };
    let long = |key: &str| {
        let text = text(entry, key).unwrap_or_default();
        text.lines().map(visible).collect::<Vec<_>>().join("\n")
    };
    let mut pairs = vec![
        ("Name", visible(tool)),
        ("Server", server.to_owned()),
        ("Title", long("title")),
    ];
    pairs.extend(watched.map_or_else(Vec::new, |watched| state(watched, now_ms)));
    pairs.extend([
        ("Description", long("description")),
        ("Input", json("inputSchema")),
        ("Output", json("outputSchema")),
        ("Annotations", json("annotations")),
        (
            "History",
            history(tools.changes.iter().filter(|change| change.tool == tool)),
        ),
    ]);
    show::pairs(&pairs);
    Ok(())
}

fn state(watched: &WatchedTool, now_ms: u64) -> Vec<(&'static str, String)> {
    let since = |time: &String| format!("{time} ({})", show::ago(time, now_ms));
    let state = match (watched.held, &watched.approved) {
        (false, _) => "offered".to_owned(),
        (true, None) => "held back: nobody has approved it".to_owned(),
        (true, Some(digest)) => format!("held back: what was approved is {digest}"),
    };
    vec![
        ("State", state),
        ("Digest", watched.digest.clone()),
        ("First seen", since(&watched.first_seen_at)),
        (
            "Changed",
            format!("{} by {}", since(&watched.changed_at), watched.seen_by),
        ),
    ]
}

/// What happened to tools, a line each, the latest first.
pub(crate) fn history<'a>(changes: impl DoubleEndedIterator<Item = &'a ToolChangeBody>) -> String {
    let short = |digest: &Option<String>| digest.as_deref().unwrap_or("-").chars().take(12).collect::<String>();
    let line = |change: &ToolChangeBody| {
        let what = match change.what.as_str() {
            what @ ("added" | "removed" | "approved") => what.to_owned(),
            "other" => "annotations changed".to_owned(),
            part => format!("{part} changed"),
        };
        let (from, to) = (short(&change.from), short(&change.to));
        format!(
            "{}  {}: {what} by {} ({from} -> {to})",
            change.at,
            visible(&change.tool),
            visible(&change.by)
        )
    };
    let lines: Vec<String> = changes.rev().take(20).map(line).collect();
    if lines.is_empty() {
        "none".to_owned()
    } else {
        lines.join("\n")
    }
}

/// `approve tool SERVER/TOOL`, or `approve server SERVER` for all of its tools that wait.
pub(crate) async fn approve(global: &Global, args: &ApproveArgs) -> Result<Exit, Failure> {
    let target = get::target(&args.kind, &args.names)?;
    if target.names.is_empty() || !matches!(target.kind, Kind::Tools | Kind::Servers) {
        let why = "name tools as SERVER/TOOL, or a server for all of its tools that wait";
        return Err(Failure::usage("cannot approve", why).next("mcpctl approve tool SERVER/TOOL"));
    }
    if args.digest.is_some() && (target.kind != Kind::Tools || target.names.len() > 1) {
        let why = "--digest says what one tool looks like";
        return Err(Failure::usage("cannot approve", why).next("mcpctl approve tool SERVER/TOOL --digest SHA256"));
    }
    let api = Api::of(global)?;
    for name in &target.names {
        match target.kind {
            Kind::Servers => of_all(&api, args, name).await?,
            _ => one(&api, args, name).await?,
        }
    }
    Ok(Exit::Done)
}

async fn one(api: &Api, args: &ApproveArgs, name: &str) -> Result<(), Failure> {
    let (server, tool) = parts("approve tool", name)?;
    let tools = tools_of(api, server).await?;
    let Some(watched) = tools.watched.iter().find(|watched| watched.name == tool) else {
        return Err(missing(&format!("approve tool {name:?}"), server, tool));
    };
    let digest = args.digest.clone().unwrap_or_else(|| watched.digest.clone());
    send(api, args, server, vec![(tool.to_owned(), digest)]).await
}

async fn of_all(api: &Api, args: &ApproveArgs, server: &str) -> Result<(), Failure> {
    let tools = tools_of(api, server).await?;
    let held = tools.watched.iter().filter(|watched| watched.held);
    let held: Vec<(String, String)> = held
        .map(|watched| (watched.name.clone(), watched.digest.clone()))
        .collect();
    if held.is_empty() {
        eprintln!("no tool of server {server:?} waits for approval");
        return Ok(());
    }
    send(api, args, server, held).await
}

async fn send(api: &Api, args: &ApproveArgs, server: &str, tools: Vec<(String, String)>) -> Result<(), Failure> {
    let approval = |(name, digest): &(String, String)| ToolApproval {
        name: name.clone(),
        digest: digest.clone(),
    };
    let body = ToolApprovals {
        tools: tools.iter().map(approval).collect(),
    };
    let what = format!("approve tools of server {server:?}");
    let path = format!("servers/{}/tools/approve", encoded(server));
    let answer: Answer<Written<ServerTools>> = api.write(&what, Method::POST, &path, &body).await?;
    if !matches!(
        args.output.output,
        crate::args::Format::Table | crate::args::Format::Wide
    ) {
        return show::other(args.output.output, &answer.body.object);
    }
    for (tool, digest) in &tools {
        let short: String = digest.chars().take(12).collect();
        out::line(&format!("tool \"{server}/{}\" approved as {short}", visible(tool)));
    }
    Ok(())
}
