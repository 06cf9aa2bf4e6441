//! What servers offer, from the replicated lists: nothing here asks a server.

use mcp_api::projects::ProjectTool;
use mcp_api::servers::ServerTools;
use mcp_api::show_time;
use mcp_model::authority::Rights;
use mcp_model::rbac::{Resource, Verb};
use mcp_model::records::{Health, Server, ToolList, ToolNaming};
use mcp_model::tables::{self, Tables};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::answer::Answer;
use crate::call::Admitted;
use crate::fault::Fault;
use crate::page::to_hex;
use crate::{projects, servers};

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
        let naming = project.spec.tool_naming;
        let servers = projects::attached(t, &project);
        let tools = servers.iter().flat_map(|server| {
            let tools = visible(t, server, &rights);
            tools.into_iter().filter_map(|tool| under(naming, server, &tool))
        });
        Some(tools.map(|tool| (tool_key(&tool), tool)).collect::<Vec<_>>())
    });
    let items = items.await?.ok_or_else(|| Fault::not_found("project", &it.name))?;
    Ok(Answer::ok(&page.cut(items, version)?))
}

/// Names are as long as a server likes, a page's mark is not.
fn tool_key(tool: &ProjectTool) -> Vec<u8> {
    let digest = Sha256::digest(format!("{}/{}", tool.server, tool.tool));
    let (first, _) = digest.split_at(16);
    first.to_vec()
}

fn under(naming: ToolNaming, server: &Server, tool: &Value) -> Option<ProjectTool> {
    let own = tool.get("name")?.as_str()?;
    Some(ProjectTool {
        name: match naming {
            ToolNaming::Prefixed => format!("{}__{own}", server.name),
            ToolNaming::Plain => own.to_owned(),
        },
        server: server.name.to_string(),
        tool: own.to_owned(),
        description: tool.get("description").and_then(Value::as_str).map(str::to_owned),
    })
}

fn show(tables: &dyn Tables, server: &Server, rights: &Rights) -> ServerTools {
    let list: Option<ToolList> = tables::by_id(tables, server.id);
    let offered = list.as_ref().filter(|l| l.offer.is_some());
    ServerTools {
        server: server.name.to_string(),
        healthy: list.as_ref().map(|l| l.health == Health::Healthy),
        reason: list.as_ref().and_then(|l| match &l.health {
            Health::Healthy => None,
            Health::Unhealthy { reason } => Some(reason.clone()),
        }),
        digest: offered.map(|l| to_hex(&l.digest)),
        fetched_at: offered.map(|l| show_time(l.fetched_ms)),
        tools: visible(tables, server, rights),
    }
}

/// The tools that the caller may see.
fn visible(tables: &dyn Tables, server: &Server, rights: &Rights) -> Vec<Value> {
    let list: Option<ToolList> = tables::by_id(tables, server.id);
    let offer = list.and_then(|l| l.offer).unwrap_or_default();
    let tools: Vec<Value> = serde_json::from_str(&offer.tools).unwrap_or_default();
    let seen = |tool: &Value| {
        let name = tool.get("name").and_then(Value::as_str).unwrap_or_default();
        rights.allow(Verb::See, Resource::Tools, &format!("{}/{name}", server.name))
    };
    tools.into_iter().filter(seen).collect()
}
