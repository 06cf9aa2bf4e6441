//! Servers.

use std::collections::BTreeMap;

use http::StatusCode;
use mcp_api::servers::{HIDDEN, ServerBody, ServerSpecBody, ServerSpecFields};
use mcp_api::show_time;
use mcp_model::authority::Rights;
use mcp_model::command::Command;
use mcp_model::ids::Id;
use mcp_model::names::Name;
use mcp_model::rbac::{Action, Resource, Verb};
use mcp_model::records::{Server, ServerSpec, Transport};
use mcp_model::secrets::referred;
use mcp_model::tables::{self, Table, Tables};

use crate::answer::Answer;
use crate::body::{self, Faults, Parsed, READ};
use crate::call::Admitted;
use crate::fault::Fault;
use crate::noun::renamed;
use crate::port::Written;
use crate::projects::{self, id_of, removed};
use crate::{limited, limits, page, tools};

pub(crate) async fn list(it: Admitted) -> Result<Answer, Fault> {
    let page = it.call.page()?;
    let version = it.call.api.replica.auth_index();
    let rights = it.caller.rights.clone();
    let running = it.call.api.children.running().await;
    let list = it.call.api.read(move |t| {
        page::collect(t, &page, version, |server: Server| {
            let seen = rights.allow(Verb::See, Resource::Servers, server.name.as_str());
            seen.then(|| show(t, &server, &rights, &running))
        })
    });
    Ok(Answer::ok(&list.await?))
}

/// The servers attached to a project, as far as the caller may see them.
pub(crate) async fn of_project(it: Admitted) -> Result<Answer, Fault> {
    let page = it.call.page()?;
    let version = it.call.api.replica.auth_index();
    let (name, rights) = (it.name.clone(), it.caller.rights.clone());
    let running = it.call.api.children.running().await;
    let items = it.call.api.read(move |t| {
        let project = projects::find(t, &name)?;
        let seen = projects::attached(t, &project).into_iter();
        let seen = seen.filter(|s| rights.allow(Verb::See, Resource::Servers, s.name.as_str()));
        Some(
            seen.map(|s| (s.id.to_bytes().to_vec(), show(t, &s, &rights, &running)))
                .collect::<Vec<_>>(),
        )
    });
    let items = items.await?.ok_or_else(|| Fault::not_found("project", &it.name))?;
    Ok(Answer::ok(&page.cut(items, version)?))
}

pub(crate) async fn get(it: Admitted) -> Result<Answer, Fault> {
    let (name, rights) = (it.name.clone(), it.caller.rights.clone());
    let running = it.call.api.children.running().await;
    let body = it
        .call
        .api
        .read(move |t| find(t, &name).map(|s| show(t, &s, &rights, &running)))
        .await?;
    let body = body.ok_or_else(|| Fault::not_found("server", &it.name))?;
    Ok(Answer::ok(&body).version(&body.resource_version))
}

pub(crate) async fn create(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<ServerSpecBody>(&it.call.body)?;
    let name = faults.check("name", Name::parse(&value.name));
    let limits = limited::read_server(&value.limits, &mut faults);
    let spec = read_spec(value, &mut faults);
    faults.refuse()?;
    let (name, spec) = (name.expect(READ), spec.expect(READ));
    it.caller.rights.need(Verb::Create, Resource::Servers, name.as_str())?;
    may_run(&it.caller.rights, &spec)?;
    let id = it.call.api.new_id();
    let written = it
        .propose(Command::CreateLimitedServer { id, name, spec, limits })
        .await?;
    changed(&it, written, StatusCode::CREATED).await
}

pub(crate) async fn replace(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<ServerSpecBody>(&it.call.body)?;
    if !value.name.is_empty() && value.name != it.name {
        faults.add("name", renamed("server"));
    }
    let (name, if_version) = (it.object(), it.call.if_version()?);
    let command = update(&it, name, value, faults, if_version)?;
    let written = it.propose(command).await?;
    changed(&it, written, StatusCode::OK).await
}

/// Changes the fields that are given.
pub(crate) async fn change(it: Admitted) -> Result<Answer, Fault> {
    let written = it.change_of(|| Box::pin(changed_server(&it))).await?;
    changed(&it, written, StatusCode::OK).await
}

async fn changed_server(it: &Admitted) -> Result<Command, Fault> {
    let name = it.name.clone();
    let before = it.call.api.read(move |t| find(t, &name)).await?;
    let before = before.ok_or_else(|| Fault::not_found("server", &it.name))?;
    let (rights, shown) = (it.caller.rights.clone(), before.clone());
    let current = it.call.api.read(move |t| show(t, &shown, &rights, &[])).await?.spec;
    let Parsed { value, mut faults } = body::parse_onto::<ServerSpecBody>(&current, &it.call.body)?;
    if value.name != it.name {
        faults.add("name", renamed("server"));
    }
    let if_version = it.call.if_version()?.or(Some(before.origin.version));
    update(it, before.name, value, faults, if_version)
}

fn update(
    it: &Admitted,
    name: Name,
    value: ServerSpecBody,
    mut faults: Faults,
    if_version: Option<u64>,
) -> Result<Command, Fault> {
    for (field, values) in [("env", &value.env), ("headers", &value.headers)] {
        for (key, _) in values.iter().filter(|(_, v)| *v == HIDDEN) {
            faults.add(
                format!("{field}.{key}"),
                "this stands for a value that you could not read: write the value itself",
            );
        }
    }
    let limits = limited::read_server(&value.limits, &mut faults);
    let spec = read_spec(value, &mut faults);
    faults.refuse()?;
    let spec = spec.expect(READ);
    may_run(&it.caller.rights, &spec)?;
    Ok(Command::UpdateLimitedServer {
        name,
        spec,
        limits,
        if_version,
    })
}

pub(crate) async fn delete(it: Admitted) -> Result<Answer, Fault> {
    let (name, if_version) = (it.object(), it.call.if_version()?);
    let written = it.propose(Command::DeleteServer { name, if_version }).await?;
    removed(&it, &written, "server").await
}

async fn changed(it: &Admitted, written: Written, status: StatusCode) -> Result<Answer, Fault> {
    let id = id_of(&written)?;
    it.see(&written).await?;
    let rights = it.caller.rights.clone();
    let body = it
        .call
        .api
        .read(move |t| tables::by_id::<Server>(t, id).map(|s| show(t, &s, &rights, &[])))
        .await?;
    let body = body.ok_or_else(|| Fault::not_found("server", &id.to_string()))?;
    let version = body.resource_version.clone();
    Ok(it.answer(&written, status, body).await?.version(&version))
}

/// A stdio server runs a command on the nodes.
fn may_run(rights: &Rights, spec: &ServerSpec) -> Result<(), Fault> {
    match spec.transport {
        Transport::Stdio { .. } => Ok(rights.need_action(Action::Exec)?),
        Transport::Http { .. } | Transport::Sse { .. } => Ok(()),
    }
}

/// The server of that name.
pub(crate) fn find(tables: &dyn Tables, name: &str) -> Option<Server> {
    tables::by_name(tables, Table::ServerNames, name.as_bytes())
}

fn show(tables: &dyn Tables, server: &Server, rights: &Rights, running: &[(Id, bool)]) -> ServerBody {
    let open = rights.allow(Verb::Update, Resource::Servers, server.name.as_str());
    let values = |map: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        let shown = |value: &String| if open { value.clone() } else { HIDDEN.to_owned() };
        map.iter().map(|(key, value)| (key.clone(), shown(value))).collect()
    };
    let spec = &server.spec;
    let mut fields = ServerSpecFields {
        name: server.name.to_string(),
        description: spec.description.clone(),
        transport: String::new(),
        command: None,
        args: Vec::new(),
        env: BTreeMap::new(),
        cwd: None,
        url: None,
        headers: BTreeMap::new(),
        connect_ms: spec.connect_ms,
        response_ms: spec.response_ms,
        stateful: spec.stateful,
        pin_tools: spec.pin_tools,
        limits: limited::show_server(tables, server.id),
    };
    match &spec.transport {
        Transport::Stdio {
            command,
            args,
            env,
            cwd,
        } => {
            fields.transport = "stdio".to_owned();
            fields.command = Some(command.clone());
            fields.args = args.clone();
            fields.env = values(env);
            fields.cwd = cwd.clone();
        }
        Transport::Http { url, headers } => {
            fields.transport = "http".to_owned();
            fields.url = Some(url.clone());
            fields.headers = values(headers);
        }
        Transport::Sse { url, headers } => {
            fields.transport = "sse".to_owned();
            fields.url = Some(url.clone());
            fields.headers = values(headers);
        }
    }
    ServerBody {
        id: server.id.to_string(),
        spec: fields,
        status: tools::status(tables, server, rights, running),
        created_at: show_time(server.origin.created_ms),
        created_by: server.origin.created_by.clone(),
        resource_version: server.origin.version.to_string(),
    }
}

/// Reads what was written about a server. `None`: there are faults.
fn read_spec(body: ServerSpecBody, faults: &mut Faults) -> Option<ServerSpec> {
    faults.text("description", &body.description, limits::TEXT_BYTES_MAX);
    for (field, ms) in [("connectMs", body.connect_ms), ("responseMs", body.response_ms)] {
        if !(1..=limits::SERVER_DEADLINE_MS_MAX).contains(&ms) {
            faults.add(field, format!("from 1 to {} ms", limits::SERVER_DEADLINE_MS_MAX));
        }
    }
    let transport = match body.transport.as_str() {
        "stdio" => read_stdio(&body, faults),
        "http" | "sse" => read_remote(&body, faults),
        "" => {
            faults.add("transport", "it is missing: write stdio, http or sse");
            None
        }
        other => {
            faults.add("transport", format!("{other:?}: the values are stdio, http and sse"));
            None
        }
    };
    let transport = transport?;
    if let Err((field, why)) = referred(&transport) {
        faults.add(field, why);
    }
    Some(ServerSpec {
        description: body.description,
        transport,
        connect_ms: body.connect_ms,
        response_ms: body.response_ms,
        stateful: body.stateful,
        pin_tools: body.pin_tools,
    })
}

fn read_stdio(body: &ServerSpecBody, faults: &mut Faults) -> Option<Transport> {
    if body.url.is_some() {
        faults.add("url", "a stdio server has a command and no url");
    }
    if !body.headers.is_empty() {
        faults.add(
            "headers",
            "a stdio server has no headers: env is its way to get settings",
        );
    }
    let command = body.command.clone().filter(|c| !c.is_empty());
    if command.is_none() {
        faults.add("command", "a stdio server needs one");
    }
    let many = body.args.len() > limits::SERVER_ENTRIES_MAX;
    if many {
        faults.add("args", format!("at most {}", limits::SERVER_ENTRIES_MAX));
    }
    for (at, text) in body.args.iter().enumerate().filter(|_| !many) {
        faults.text(&format!("args[{at}]"), text, limits::TEXT_BYTES_MAX);
    }
    faults.text("command", command.as_deref().unwrap_or(""), limits::TEXT_BYTES_MAX);
    faults.text("cwd", body.cwd.as_deref().unwrap_or(""), limits::TEXT_BYTES_MAX);
    read_map("env", &body.env, faults, |key| {
        !key.is_empty() && !key.contains('=') && !key.contains('\0')
    });
    Some(Transport::Stdio {
        command: command?,
        args: body.args.clone(),
        env: body.env.clone(),
        cwd: body.cwd.clone(),
    })
}

fn read_remote(body: &ServerSpecBody, faults: &mut Faults) -> Option<Transport> {
    let stdio_only = [
        ("command", body.command.is_some()),
        ("args", !body.args.is_empty()),
        ("env", !body.env.is_empty()),
        ("cwd", body.cwd.is_some()),
    ];
    for (field, _) in stdio_only.iter().filter(|(_, given)| *given) {
        faults.add(
            *field,
            format!("a server over {} has a url and runs nothing", body.transport),
        );
    }
    read_map("headers", &body.headers, faults, |key| {
        http::HeaderName::try_from(key).is_ok()
    });
    for (key, value) in &body.headers {
        if http::HeaderValue::from_str(value).is_err() {
            faults.add(format!("headers.{key}"), "not a header value");
        }
    }
    let Some(url) = body.url.clone() else {
        faults.add("url", "a server over http or sse needs one");
        return None;
    };
    let good = url.parse::<http::Uri>().is_ok_and(|uri| {
        let plain = uri
            .authority()
            .is_some_and(|a| !a.as_str().contains('@') && !a.host().is_empty());
        matches!(uri.scheme_str(), Some("http" | "https")) && plain
    });
    if !good {
        faults.add("url", "an absolute http or https URL without user name and password");
    }
    let headers = body.headers.clone();
    Some(match body.transport.as_str() {
        "sse" => Transport::Sse { url, headers },
        _ => Transport::Http { url, headers },
    })
}

fn read_map(field: &str, map: &BTreeMap<String, String>, faults: &mut Faults, good: impl Fn(&str) -> bool) {
    if map.len() > limits::SERVER_ENTRIES_MAX {
        faults.add(field, format!("at most {}", limits::SERVER_ENTRIES_MAX));
        return;
    }
    for (key, value) in map {
        if !good(key) {
            faults.add(format!("{field}.{key}"), "not a name that can stand there");
        }
        faults.text(&format!("{field}.{key}"), value, limits::TEXT_BYTES_MAX);
    }
}
