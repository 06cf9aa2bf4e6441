//! Definitions: who is granted what.

use http::StatusCode;
use mcp_api::rbac::{RbacBody, RbacSpec, RoleBindingBody, SubjectBody};
use mcp_api::show_time;
use mcp_model::apply::rbac::NONE_YET;
use mcp_model::command::Command;
use mcp_model::names::Name;
use mcp_model::rbac::{Resource, RoleBinding, Subject, Verb};
use mcp_model::records::RbacDefinition;
use mcp_model::tables::{self, Table};

use crate::answer::Answer;
use crate::body::{self, Faults, Parsed, READ};
use crate::call::Admitted;
use crate::fault::Fault;
use crate::noun::renamed;
use crate::page;
use crate::port::Written;
use crate::projects::{id_of, removed};

pub(crate) async fn list(it: Admitted) -> Result<Answer, Fault> {
    let page = it.call.page()?;
    let version = it.call.api.replica.auth_index();
    let rights = it.caller.rights.clone();
    let list = it.call.api.read(move |t| {
        page::collect(t, &page, version, |definition: RbacDefinition| {
            let seen = rights.allow(Verb::See, Resource::Rbac, &definition.name);
            seen.then(|| show(&definition))
        })
    });
    Ok(Answer::ok(&list.await?))
}

pub(crate) async fn get(it: Admitted) -> Result<Answer, Fault> {
    let name = it.name.clone();
    let found = it.call.api.read(move |t| {
        let found: Option<RbacDefinition> = tables::by_name(t, Table::RbacNames, name.as_bytes());
        found.map(|d| show(&d))
    });
    let body = found.await?.ok_or_else(|| Fault::not_found("rbac", &it.name))?;
    Ok(Answer::ok(&body).version(&body.resource_version))
}

pub(crate) async fn create(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<RbacSpec>(&it.call.body)?;
    let name = faults.check("name", Name::parse(&value.name));
    let (subjects, role_bindings) = read_spec(&it, &value, faults)?;
    let name = name.expect(READ);
    it.caller.rights.need(Verb::Grant, Resource::Rbac, name.as_str())?;
    let (id, if_version) = (it.call.api.new_id(), Some(NONE_YET));
    let command = Command::WriteRbac {
        id,
        name: name.clone(),
        subjects,
        role_bindings,
        if_version,
    };
    let written = it.propose(command).await.map_err(|fault| taken(fault, &name))?;
    changed(&it, written, StatusCode::CREATED).await
}

pub(crate) async fn replace(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<RbacSpec>(&it.call.body)?;
    if !value.name.is_empty() && value.name != it.name {
        faults.add("name", renamed("definition"));
    }
    let (subjects, role_bindings) = read_spec(&it, &value, faults)?;
    let (id, name, if_version) = (it.call.api.new_id(), it.object(), it.call.if_version()?);
    let written = it
        .propose(Command::WriteRbac {
            id,
            name,
            subjects,
            role_bindings,
            if_version,
        })
        .await?;
    changed(&it, written, StatusCode::OK).await
}

/// Changes the fields that are given.
pub(crate) async fn change(it: Admitted) -> Result<Answer, Fault> {
    let written = it.change_of(|| Box::pin(changed_rbac(&it))).await?;
    changed(&it, written, StatusCode::OK).await
}

async fn changed_rbac(it: &Admitted) -> Result<Command, Fault> {
    let name = it.name.clone();
    let before = it
        .call
        .api
        .read(move |t| tables::by_name::<RbacDefinition>(t, Table::RbacNames, name.as_bytes()))
        .await?;
    let before = before.ok_or_else(|| Fault::not_found("rbac", &it.name))?;
    let current = RbacSpec {
        name: before.name,
        subjects: before.subjects.iter().map(SubjectBody::from).collect(),
        role_bindings: before.role_bindings.iter().map(RoleBindingBody::from).collect(),
    };
    let Parsed { value, mut faults } = body::parse_onto::<RbacSpec>(&current, &it.call.body)?;
    if value.name != it.name {
        faults.add("name", renamed("definition"));
    }
    let (subjects, role_bindings) = read_spec(it, &value, faults)?;
    Ok(Command::WriteRbac {
        id: before.id,
        name: it.object(),
        subjects,
        role_bindings,
        if_version: it.call.if_version()?.or(Some(before.origin.version)),
    })
}

pub(crate) async fn delete(it: Admitted) -> Result<Answer, Fault> {
    let (name, if_version) = (it.object(), it.call.if_version()?);
    let written = it.propose(Command::DeleteRbac { name, if_version }).await?;
    removed(&it, &written, "rbac").await
}

fn taken(fault: Fault, name: &Name) -> Fault {
    use mcp_api::problem::Code;
    if fault.code() != Code::VersionMismatch {
        return fault;
    }
    Fault::new(Code::NameTaken, format!("rbac {name:?} exists already"))
        .hint(format!("choose another name, or see: mcpctl describe rbac {name}"))
}

/// Reads subjects and bindings, and measures the bindings against what the caller holds.
fn read_spec(it: &Admitted, spec: &RbacSpec, mut faults: Faults) -> Result<(Vec<Subject>, Vec<RoleBinding>), Fault> {
    let subjects = spec.subjects.iter().enumerate();
    let subjects: Vec<Subject> = subjects
        .filter_map(|(at, s)| faults.check(format!("subjects[{at}]"), s.read()))
        .collect();
    let role_bindings = read_bindings(&spec.role_bindings, &mut faults);
    if spec.subjects.is_empty() {
        faults.add("subjects", "name at least one");
    }
    if spec.role_bindings.is_empty() {
        faults.add("roleBindings", "name at least one");
    }
    faults.refuse()?;
    role_bindings.iter().try_for_each(|b| it.caller.rights.need_cover(b))?;
    Ok((subjects, role_bindings))
}

/// Reads bindings, noting each one's fault.
pub(crate) fn read_bindings(bindings: &[RoleBindingBody], faults: &mut Faults) -> Vec<RoleBinding> {
    let bindings = bindings.iter().enumerate();
    bindings
        .filter_map(|(at, b)| faults.check(format!("roleBindings[{at}]"), b.read()))
        .collect()
}

async fn changed(it: &Admitted, written: Written, status: StatusCode) -> Result<Answer, Fault> {
    let id = id_of(&written)?;
    it.see(&written).await?;
    let body = it
        .call
        .api
        .read(move |t| tables::by_id::<RbacDefinition>(t, id).map(|d| show(&d)))
        .await?;
    let body = body.ok_or_else(|| Fault::not_found("rbac", &id.to_string()))?;
    let version = body.resource_version.clone();
    Ok(it.answer(&written, status, body).await?.version(&version))
}

fn show(definition: &RbacDefinition) -> RbacBody {
    RbacBody {
        id: definition.id.to_string(),
        name: definition.name.clone(),
        subjects: definition.subjects.iter().map(SubjectBody::from).collect(),
        role_bindings: definition.role_bindings.iter().map(RoleBindingBody::from).collect(),
        created_at: show_time(definition.origin.created_ms),
        created_by: definition.origin.created_by.clone(),
        resource_version: definition.origin.version.to_string(),
    }
}
