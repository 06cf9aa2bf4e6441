//! What servers offer, from the replicated lists: nothing here asks a server. And who lets changed tools in.

use std::collections::BTreeMap;

use http::StatusCode;
use mcp_api::projects::{ConditionBody, ProjectTool};
use mcp_api::servers::{ServerStatus, ServerTools, ToolApprovals, ToolChangeBody, WatchedTool};
use mcp_api::show_time;
use mcp_model::authority::Rights;
use mcp_model::command::Command;
use mcp_model::ids::{Id, NodeId};
use mcp_model::rbac::{Resource, Verb};
use mcp_model::records::{Enrolment, Health, NodeRecord, Project, Server, ToolList, ToolNaming};
use mcp_model::tables::{self, Tables};
use mcp_model::toolnames::{self, NAME_BYTES_MAX, Offering};
use mcp_model::watch::{Happened, ToolChange, ToolWatch};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::answer::Answer;
use crate::body::{self, Parsed};
use crate::call::Admitted;
use crate::fault::Fault;
use crate::page::to_hex;
use crate::{projects, servers};

/// Tools that are approved at once.
const APPROVALS_MAX: usize = 1_000;
/// Names that one condition lists.
const NAMES_MAX: usize = 20;

pub(crate) async fn of_server(it: Admitted) -> Result<Answer, Fault> {
    let (name, rights) = (it.name.clone(), it.caller.rights.clone());
    let body = it
        .call
        .api
        .read(move |t| servers::find(t, &name).map(|s| show(t, &s, &rights)))
        .await?;
    Ok(Answer::ok(&body.ok_or_else(|| Fault::not_found("server", &it.name))?))
}

/// The tools of a project under the names that its clients see.
pub(crate) async fn of_project(it: Admitted) -> Result<Answer, Fault> {
    let page = it.call.page()?;
    let version = it.call.api.replica.auth_index();
    let (name, rights) = (it.name.clone(), it.caller.rights.clone());
    let items = it.call.api.read(move |t| {
        let project = projects::find(t, &name)?;
        let tools = in_project(t, &project).into_iter();
        let seen = tools.filter(|tool| may_see(&rights, &tool.server, &tool.tool));
        Some(seen.map(|tool| (tool_key(&tool), tool)).collect::<Vec<_>>())
    });
    let items = items.await?.ok_or_else(|| Fault::not_found("project", &it.name))?;
    Ok(Answer::ok(&page.cut(items, version)?))
}

/// Lets tools of a pinned server in as they look now.
pub(crate) async fn approve(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<ToolApprovals>(&it.call.body)?;
    if value.tools.is_empty() || value.tools.len() > APPROVALS_MAX {
        faults.add("tools", format!("name 1 to {APPROVALS_MAX} of them"));
    }
    let mut tools = Vec::new();
    for (at, tool) in value.tools.iter().take(APPROVALS_MAX).enumerate() {
        match from_hex(&tool.digest) {
            Some(digest) => tools.push((tool.name.clone(), digest)),
            None => faults.add(
                format!("tools[{at}].digest"),
                "64 hexadecimal digits, as the tool is shown with",
            ),
        }
    }
    faults.refuse()?;
    let server = it.object();
    let written = it.propose(Command::ApproveTools { server, tools }).await?;
    it.see(&written).await?;
    let (name, rights) = (it.name.clone(), it.caller.rights.clone());
    let body = it
        .call
        .api
        .read(move |t| servers::find(t, &name).map(|s| show(t, &s, &rights)))
        .await?;
    let body = body.ok_or_else(|| Fault::not_found("server", &it.name))?;
    it.answer(&written, StatusCode::OK, body).await
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(digest)
}

/// Names are as long as a server likes, a page's mark is not.
fn tool_key(tool: &ProjectTool) -> Vec<u8> {
    let digest = Sha256::digest(format!("{}/{}", tool.server, tool.tool));
    let (first, _) = digest.split_at(16);
    first.to_vec()
}

/// What is known of one server, read once.
struct Known {
    server: Server,
    list: Option<ToolList>,
    watch: Option<ToolWatch>,
}

impl Known {
    fn read(tables: &dyn Tables, server: &Server) -> Known {
        Known {
            list: tables::by_id(tables, server.id),
            watch: tables::by_id(tables, server.id),
            server: server.clone(),
        }
    }

    /// Its tools that are offered.
    fn tools(&self) -> Vec<Value> {
        let offer = self.list.as_ref().and_then(|list| list.offer.as_ref());
        let tools: Vec<Value> = offer
            .and_then(|o| serde_json::from_str(&o.tools).ok())
            .unwrap_or_default();
        let is_offered = |tool: &Value| name_of(tool).is_some_and(|name| toolnames::unfit(name).is_none());
        tools.into_iter().filter(is_offered).collect()
    }

    /// Whether a tool waits for approval.
    fn holds(&self, tool: &str) -> bool {
        let approved = |watch: &ToolWatch| {
            let seen = watch.tools.get(tool);
            seen.is_some_and(|seen| seen.approved == Some(seen.print.whole))
        };
        self.server.spec.pin_tools && !self.watch.as_ref().is_some_and(approved)
    }

    fn reason(&self) -> Option<String> {
        self.list.as_ref().and_then(|list| match &list.health {
            Health::Healthy => None,
            Health::Unhealthy { reason } => Some(reason.clone()),
        })
    }

    fn is_healthy(&self) -> Option<bool> {
        self.list.as_ref().map(|list| list.health == Health::Healthy)
    }

    fn fetched_at(&self) -> Option<String> {
        let offered = self.list.as_ref().filter(|list| list.offer.is_some());
        offered.map(|list| show_time(list.fetched_ms))
    }
}

fn name_of(tool: &Value) -> Option<&str> {
    tool.get("name")?.as_str()
}

fn may_see(rights: &Rights, server: &str, tool: &str) -> bool {
    rights.allow(Verb::See, Resource::Tools, &format!("{server}/{tool}"))
}

/// Every tool of a project, as clients see it.
fn in_project(tables: &dyn Tables, project: &Project) -> Vec<ProjectTool> {
    let known: Vec<Known> = projects::attached(tables, project)
        .iter()
        .map(|s| Known::read(tables, s))
        .collect();
    let tools: Vec<Vec<Value>> = known.iter().map(Known::tools).collect();
    let names: Vec<Vec<&str>> = tools
        .iter()
        .map(|tools| tools.iter().filter_map(name_of).collect())
        .collect();
    let offerings = known.iter().zip(&names).map(|(known, tools)| Offering {
        server: known.server.name.as_str(),
        tools,
    });
    let offerings: Vec<Offering<'_>> = offerings.collect();
    let shown = toolnames::shown(project.spec.tool_naming, &offerings, NAME_BYTES_MAX);
    let mut all = Vec::new();
    for ((known, tools), shown) in known.iter().zip(&tools).zip(shown) {
        for (tool, shown) in tools.iter().zip(shown) {
            let (Some(name), Some(own)) = (shown, name_of(tool)) else {
                continue;
            };
            all.push(ProjectTool {
                name,
                server: known.server.name.to_string(),
                tool: own.to_owned(),
                description: tool.get("description").and_then(Value::as_str).map(str::to_owned),
                held: known.holds(own),
            });
        }
    }
    all
}

/// What somebody should look at in a project.
pub(crate) fn conditions(tables: &dyn Tables, project: &Project) -> Vec<ConditionBody> {
    let known: Vec<Known> = projects::attached(tables, project)
        .iter()
        .map(|s| Known::read(tables, s))
        .collect();
    let mut conditions = Vec::new();
    let mut add = |kind: &str, message: String| {
        let kind = kind.to_owned();
        conditions.push(ConditionBody { kind, message });
    };
    if project.spec.tool_naming == ToolNaming::Plain {
        for (name, servers) in collisions(&known).into_iter().take(NAMES_MAX) {
            let servers = servers.join(", ");
            add(
                "NameCollision",
                format!("tool {name:?} is offered by {servers}: clients see it as SERVER__{name} of each"),
            );
        }
    }
    for known in &known {
        let server = &known.server.name;
        if let Some(reason) = known.reason() {
            add("ServerUnhealthy", format!("server {server} does not answer: {reason}"));
        }
        let watch = known.watch.as_ref().filter(|_| known.server.spec.pin_tools);
        let held: Vec<&str> = watch
            .iter()
            .flat_map(|w| w.held())
            .map(|seen| seen.print.name.as_str())
            .collect();
        if !held.is_empty() {
            let some = held.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
            add(
                "ToolsHeld",
                format!("{} tools of server {server} wait for approval: {some}", held.len()),
            );
        }
    }
    conditions
}

fn collisions(known: &[Known]) -> BTreeMap<String, Vec<String>> {
    let names: Vec<Vec<&str>> = known
        .iter()
        .map(|known| known.watch.iter().flat_map(ToolWatch::names).collect())
        .collect();
    let offerings = known.iter().zip(&names).map(|(known, tools)| Offering {
        server: known.server.name.as_str(),
        tools,
    });
    let offerings: Vec<Offering<'_>> = offerings.collect();
    let owned = |servers: Vec<&str>| servers.into_iter().map(str::to_owned).collect();
    let collisions = toolnames::collisions(&offerings).into_iter();
    collisions
        .map(|(name, servers)| (name.to_owned(), owned(servers)))
        .collect()
}

/// How a server is doing.
pub(crate) fn status(tables: &dyn Tables, server: &Server, rights: &Rights, running: &[(Id, bool)]) -> ServerStatus {
    let known = Known::read(tables, server);
    let tools = known.tools();
    let seen = || {
        tools
            .iter()
            .filter_map(name_of)
            .filter(|tool| may_see(rights, server.name.as_str(), tool))
    };
    ServerStatus {
        health: match known.is_healthy() {
            Some(true) => "healthy",
            Some(false) => "unhealthy",
            None => "unknown",
        }
        .to_owned(),
        reason: known.reason(),
        process: process(server, running),
        tools: wide(seen().count()),
        held: wide(seen().filter(|tool| known.holds(tool)).count()),
        fetched_at: known.fetched_at(),
        node: known.watch.as_ref().map(|watch| node_name(tables, watch.node)),
    }
}

/// Whether a stdio server runs on some node.
fn process(server: &Server, running: &[(Id, bool)]) -> Option<String> {
    let (_, runs) = running.iter().find(|(id, _)| *id == server.id)?;
    Some(if *runs { "running" } else { "idle" }.to_owned())
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

pub(crate) fn node_name(tables: &dyn Tables, node: NodeId) -> String {
    let key = node.0.to_be_bytes();
    let enrolled: Option<Enrolment> = tables::load(tables, &key);
    let registered = || tables::load::<NodeRecord>(tables, &key).map(|node| node.name.to_string());
    enrolled
        .map(|e| e.name.to_string())
        .or_else(registered)
        .unwrap_or_else(|| format!("node {node}"))
}

fn show(tables: &dyn Tables, server: &Server, rights: &Rights) -> ServerTools {
    let known = Known::read(tables, server);
    let mut tools = known.tools();
    tools.retain(|tool| name_of(tool).is_some_and(|name| may_see(rights, server.name.as_str(), name)));
    let offered = known.list.as_ref().filter(|l| l.offer.is_some());
    let watched = tools.iter().filter_map(|tool| watched(tables, &known, name_of(tool)?));
    let changes = known.watch.iter().flat_map(|watch| &watch.changes);
    let changes = changes.filter(|change| may_see(rights, server.name.as_str(), &change.tool));
    ServerTools {
        server: server.name.to_string(),
        healthy: known.is_healthy(),
        reason: known.reason(),
        digest: offered.map(|l| to_hex(&l.digest)),
        fetched_at: known.fetched_at(),
        watched: watched.collect(),
        changes: changes.map(show_change).collect(),
        tools,
    }
}

fn watched(tables: &dyn Tables, known: &Known, name: &str) -> Option<WatchedTool> {
    let seen = known.watch.as_ref()?.tools.get(name)?;
    Some(WatchedTool {
        name: name.to_owned(),
        digest: to_hex(&seen.print.whole),
        approved: seen.approved.map(|digest| to_hex(&digest)),
        held: known.holds(name),
        first_seen_at: show_time(seen.first_ms),
        changed_at: show_time(seen.changed_ms),
        seen_by: node_name(tables, seen.node),
    })
}

fn show_change(change: &ToolChange) -> ToolChangeBody {
    ToolChangeBody {
        tool: change.tool.clone(),
        what: match change.happened {
            Happened::Added => "added",
            Happened::Description => "description",
            Happened::Schema => "schema",
            Happened::Both => "description and schema",
            Happened::Other => "other",
            Happened::Removed => "removed",
            Happened::Approved => "approved",
        }
        .to_owned(),
        from: change.from.map(|digest| to_hex(&digest)),
        to: change.to.map(|digest| to_hex(&digest)),
        by: change.by.clone(),
        at: show_time(change.time_ms),
    }
}
