//! Projects.

use http::StatusCode;
use mcp_api::problem::Code;
use mcp_api::projects::{ProjectBody, ProjectChange, ProjectSpecBody};
use mcp_api::show_time;
use mcp_api::write::Removed;
use mcp_model::authority::Rights;
use mcp_model::command::{Command, Refusal, Reply};
use mcp_model::ids::Id;
use mcp_model::names::Name;
use mcp_model::rbac::{Resource, Verb};
use mcp_model::records::{Project, ProjectSpec, Server, ToolNaming};
use mcp_model::tables::{self, Table, Tables};

use crate::answer::Answer;
use crate::body::{self, Faults, Parsed, READ};
use crate::call::Admitted;
use crate::fault::Fault;
use crate::port::Written;
use crate::{limited, limits, page, tools};

pub(crate) async fn list(it: Admitted) -> Result<Answer, Fault> {
    let page = it.call.page()?;
    let version = it.call.api.replica.auth_index();
    let rights = it.caller.rights.clone();
    let list = it.call.api.read(move |t| {
        page::collect(t, &page, version, |project: Project| {
            let seen = rights.allow(Verb::See, Resource::Projects, project.name.as_str());
            seen.then(|| show(t, &project))
        })
    });
    Ok(Answer::ok(&list.await?))
}

pub(crate) async fn get(it: Admitted) -> Result<Answer, Fault> {
    let body = read(&it, it.name.clone()).await?;
    Ok(Answer::ok(&body).version(&body.resource_version))
}

pub(crate) async fn create(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<ProjectSpecBody>(&it.call.body)?;
    let name = faults.check("name", Name::parse(&value.name));
    let limits = limited::read_project(&value.limits, &mut faults);
    let spec = read_spec(&it, value, faults, Vec::new()).await?;
    let name = name.expect(READ);
    it.caller.rights.need(Verb::Create, Resource::Projects, name.as_str())?;
    let id = it.call.api.new_id();
    let written = it
        .propose(Command::CreateLimitedProject {
            id,
            name: name.clone(),
            spec,
            limits,
        })
        .await?;
    changed(&it, written, StatusCode::CREATED).await
}

pub(crate) async fn replace(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<ProjectSpecBody>(&it.call.body)?;
    if !value.name.is_empty() && value.name != it.name {
        faults.add(
            "name",
            "a project cannot be renamed: leave it out or repeat the one in the path",
        );
    }
    let before = load(&it).await?;
    let name = before.name.clone();
    let limits = limited::read_project(&value.limits, &mut faults);
    let spec = read_spec(&it, value, faults, before.spec.servers).await?;
    let if_version = it.call.if_version()?;
    let written = it
        .propose(Command::UpdateLimitedProject {
            name,
            spec,
            limits,
            if_version,
        })
        .await?;
    changed(&it, written, StatusCode::OK).await
}

/// Changes the fields that are given.
pub(crate) async fn change(it: Admitted) -> Result<Answer, Fault> {
    let written = it.change_of(|| Box::pin(changed_project(&it))).await?;
    changed(&it, written, StatusCode::OK).await
}

async fn changed_project(it: &Admitted) -> Result<Command, Fault> {
    let Parsed { value, mut faults } = body::parse::<ProjectChange>(&it.call.body)?;
    let before = load(it).await?;
    let (name, version) = (before.name.clone(), before.origin.version);
    let attached = before.spec.servers.clone();
    let merged = merge(show_record(it, before).await?, value);
    let limits = limited::read_project(&merged.limits, &mut faults);
    let spec = read_spec(it, merged, faults, attached).await?;
    let if_version = it.call.if_version()?.or(Some(version));
    Ok(Command::UpdateLimitedProject {
        name,
        spec,
        limits,
        if_version,
    })
}

pub(crate) async fn delete(it: Admitted) -> Result<Answer, Fault> {
    let (name, if_version) = (it.object(), it.call.if_version()?);
    let written = it.propose(Command::DeleteProject { name, if_version }).await?;
    removed(&it, &written, "project").await
}

/// The answer to the removal of a named object.
pub(crate) async fn removed(it: &Admitted, written: &Written, kind: &str) -> Result<Answer, Fault> {
    let Reply::Deleted { id } = written.reply else {
        return Err(Fault::new(Code::StoreFailed, "the answer is not that of a removal"));
    };
    let object = Removed {
        kind: kind.to_owned(),
        name: it.name.clone(),
        id: id.to_string(),
        already: false,
    };
    it.answer(written, StatusCode::OK, object).await
}

/// The id in the reply to a change.
pub(crate) fn id_of(written: &Written) -> Result<Id, Fault> {
    match written.reply {
        Reply::Created { id } | Reply::Updated { id } | Reply::Deleted { id } => Ok(id),
        _ => Err(Fault::new(Code::StoreFailed, "the answer is not that of a change")),
    }
}

async fn changed(it: &Admitted, written: Written, status: StatusCode) -> Result<Answer, Fault> {
    let id = id_of(&written)?;
    it.see(&written).await?;
    let body = it
        .call
        .api
        .read(move |t| tables::by_id::<Project>(t, id).map(|p| show(t, &p)))
        .await?;
    let body = body.ok_or_else(|| Fault::not_found("project", &id.to_string()))?;
    let version = body.resource_version.clone();
    Ok(it.answer(&written, status, body).await?.version(&version))
}

async fn read(it: &Admitted, name: String) -> Result<ProjectBody, Fault> {
    let unknown = Fault::not_found("project", &name);
    let found = it.call.api.read(move |t| find(t, &name).map(|p| show(t, &p))).await?;
    found.ok_or(unknown)
}

async fn load(it: &Admitted) -> Result<Project, Fault> {
    let name = it.name.clone();
    let found = it.call.api.read(move |t| find(t, &name)).await?;
    found.ok_or_else(|| Fault::not_found("project", &it.name))
}

async fn show_record(it: &Admitted, project: Project) -> Result<ProjectBody, Fault> {
    it.call.api.read(move |t| show(t, &project)).await
}

/// The project of that name.
pub(crate) fn find(tables: &dyn Tables, name: &str) -> Option<Project> {
    tables::by_name(tables, Table::ProjectNames, name.as_bytes())
}

/// The attached servers, in order.
pub(crate) fn attached(tables: &dyn Tables, project: &Project) -> Vec<Server> {
    project
        .spec
        .servers
        .iter()
        .filter_map(|id| tables::by_id(tables, *id))
        .collect()
}

fn show(tables: &dyn Tables, project: &Project) -> ProjectBody {
    let spec = &project.spec;
    ProjectBody {
        id: project.id.to_string(),
        name: project.name.to_string(),
        description: spec.description.clone(),
        servers: attached(tables, project).iter().map(|s| s.name.to_string()).collect(),
        gated: spec.gated,
        proxy_model: spec.proxy_model.clone(),
        tool_naming: match spec.tool_naming {
            ToolNaming::Prefixed => "prefixed".to_owned(),
            ToolNaming::Plain => "plain".to_owned(),
        },
        instructions: spec.instructions.clone(),
        limits: limited::show_project(tables, project.id),
        conditions: tools::conditions(tables, project),
        allow_sse: spec.allow_sse,
        created_at: show_time(project.origin.created_ms),
        created_by: project.origin.created_by.clone(),
        resource_version: project.origin.version.to_string(),
    }
}

fn merge(before: ProjectBody, change: ProjectChange) -> ProjectSpecBody {
    let text = |new: Option<String>, old: Option<String>| new.or(old).filter(|t| !t.is_empty());
    ProjectSpecBody {
        name: before.name,
        description: change.description.unwrap_or(before.description),
        servers: change.servers.unwrap_or(before.servers),
        gated: change.gated.unwrap_or(before.gated),
        proxy_model: text(change.proxy_model, before.proxy_model),
        tool_naming: change.tool_naming.unwrap_or(before.tool_naming),
        instructions: text(change.instructions, before.instructions),
        limits: change.limits.unwrap_or(before.limits),
        allow_sse: change.allow_sse.unwrap_or(before.allow_sse),
    }
}

/// Reads what was written about a project, all faults at once. Servers that are attached already need no right.
async fn read_spec(
    it: &Admitted,
    body: ProjectSpecBody,
    mut faults: Faults,
    attached: Vec<Id>,
) -> Result<ProjectSpec, Fault> {
    faults.text("description", &body.description, limits::TEXT_BYTES_MAX);
    faults.text(
        "instructions",
        body.instructions.as_deref().unwrap_or(""),
        limits::INSTRUCTIONS_BYTES_MAX,
    );
    faults.text(
        "proxyModel",
        body.proxy_model.as_deref().unwrap_or(""),
        limits::TEXT_BYTES_MAX,
    );
    let tool_naming = match body.tool_naming.as_str() {
        "prefixed" => ToolNaming::Prefixed,
        "plain" => ToolNaming::Plain,
        other => {
            faults.add("toolNaming", format!("{other:?}: the values are prefixed and plain"));
            ToolNaming::Prefixed
        }
    };
    let (names, rights) = (body.servers.clone(), it.caller.rights.clone());
    let found = it
        .call
        .api
        .read(move |t| resolve(t, &rights, &names, &attached))
        .await?;
    let mut servers = Vec::new();
    for (at, found) in found?.into_iter().enumerate() {
        let field = format!("servers[{at}]");
        match faults.check(field.clone(), found) {
            Some(id) if servers.contains(&id) => faults.add(field, "named twice"),
            Some(id) => servers.push(id),
            None => {}
        }
    }
    faults.refuse()?;
    let spec = ProjectSpec {
        description: body.description,
        servers,
        gated: body.gated,
        proxy_model: body.proxy_model.filter(|t| !t.is_empty()),
        tool_naming,
        instructions: body.instructions.filter(|t| !t.is_empty()),
        allow_sse: body.allow_sse,
    };
    Ok(spec)
}

/// Ids of servers by name. The right to use one comes before the question whether it exists.
fn resolve(
    tables: &dyn Tables,
    rights: &Rights,
    names: &[String],
    attached: &[Id],
) -> Result<Vec<Result<Id, String>>, Refusal> {
    let one = |name: &String| {
        let Ok(name) = Name::parse(name) else {
            return Ok(Err(format!("{name:?} is not a name")));
        };
        let server: Option<Server> = tables::by_name(tables, Table::ServerNames, name.as_str().as_bytes());
        if !server.as_ref().is_some_and(|s| attached.contains(&s.id)) {
            rights.need(Verb::Use, Resource::Servers, name.as_str())?;
        }
        Ok(server
            .map(|s| s.id)
            .ok_or_else(|| format!("there is no server {name:?}")))
    };
    names.iter().map(one).collect()
}
