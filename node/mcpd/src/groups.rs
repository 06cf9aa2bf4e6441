//! Groups. Written and shown with e-mails, kept with ids.

use http::StatusCode;
use mcp_api::groups::{GroupBody, GroupChange, GroupSpec};
use mcp_api::show_time;
use mcp_model::command::Command;
use mcp_model::ids::Id;
use mcp_model::names::{Email, Name};
use mcp_model::rbac::{Resource, Verb};
use mcp_model::records::{Group, User};
use mcp_model::tables::{self, Table, Tables};

use crate::answer::Answer;
use crate::body::{self, Faults, Parsed, READ};
use crate::call::Admitted;
use crate::fault::Fault;
use crate::noun::{self, Noun, changed, renamed};
use crate::projects::removed;
use crate::{limits, users};

impl Noun for Group {
    const RESOURCE: Resource = Resource::Groups;
    const NOUN: &'static str = "group";
    const NAMES: Table = Table::GroupNames;
    type Body = GroupBody;

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn version(&self) -> u64 {
        self.origin.version
    }

    fn show(&self, tables: &dyn Tables) -> GroupBody {
        let members = self.members.iter().filter_map(|id| tables::by_id::<User>(tables, *id));
        GroupBody {
            id: self.id.to_string(),
            name: self.name.to_string(),
            description: self.description.clone(),
            members: members.map(|user| user.email.to_string()).collect(),
            created_at: show_time(self.origin.created_ms),
            created_by: self.origin.created_by.clone(),
            resource_version: self.origin.version.to_string(),
        }
    }
}

pub(crate) async fn list(it: Admitted) -> Result<Answer, Fault> {
    noun::list::<Group>(it).await
}

pub(crate) async fn get(it: Admitted) -> Result<Answer, Fault> {
    noun::get::<Group>(it).await
}

pub(crate) async fn create(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<GroupSpec>(&it.call.body)?;
    let name = faults.check("name", Name::parse(&value.name));
    faults.text("description", &value.description, limits::TEXT_BYTES_MAX);
    let members = find_members(&it, "members", value.members, &mut faults).await?;
    faults.refuse()?;
    let name = name.expect(READ);
    it.caller.rights.need(Verb::Create, Resource::Groups, name.as_str())?;
    let command = Command::CreateGroup {
        id: it.call.api.new_id(),
        name,
        description: value.description,
        members,
    };
    let written = it.propose(command).await?;
    changed::<Group>(&it, written, StatusCode::CREATED).await
}

pub(crate) async fn replace(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<GroupSpec>(&it.call.body)?;
    if !value.name.is_empty() && value.name != it.name {
        faults.add("name", renamed("group"));
    }
    faults.text("description", &value.description, limits::TEXT_BYTES_MAX);
    let members = find_members(&it, "members", value.members, &mut faults).await?;
    faults.refuse()?;
    let command = Command::UpdateGroup {
        name: it.object(),
        description: value.description,
        members,
        if_version: it.call.if_version()?,
    };
    let written = it.propose(command).await?;
    changed::<Group>(&it, written, StatusCode::OK).await
}

/// Changes the fields that are given.
pub(crate) async fn change(it: Admitted) -> Result<Answer, Fault> {
    let written = it.change_of(|| Box::pin(changed_group(&it))).await?;
    changed::<Group>(&it, written, StatusCode::OK).await
}

async fn changed_group(it: &Admitted) -> Result<Command, Fault> {
    let Parsed { value, mut faults } = body::parse::<GroupChange>(&it.call.body)?;
    let before: Group = noun::load(it).await?;
    let description = value.description.unwrap_or(before.description);
    faults.text("description", &description, limits::TEXT_BYTES_MAX);
    let excluded = !value.add_members.is_empty() || !value.remove_members.is_empty();
    let members = match value.members {
        Some(_) if excluded => {
            faults.add(
                "members",
                "these are all of them: leave addMembers and removeMembers out",
            );
            Vec::new()
        }
        Some(all) => find_members(it, "members", all, &mut faults).await?,
        None => {
            let added = find_members(it, "addMembers", value.add_members, &mut faults).await?;
            let removed = find_members(it, "removeMembers", value.remove_members, &mut faults).await?;
            let added: Vec<Id> = added.into_iter().filter(|id| !before.members.contains(id)).collect();
            let all = before.members.into_iter().chain(added);
            all.filter(|id| !removed.contains(id)).collect()
        }
    };
    faults.refuse()?;
    Ok(Command::UpdateGroup {
        name: it.object(),
        description,
        members,
        if_version: it.call.if_version()?.or(Some(before.origin.version)),
    })
}

pub(crate) async fn delete(it: Admitted) -> Result<Answer, Fault> {
    let (name, if_version) = (it.object(), it.call.if_version()?);
    let written = it.propose(Command::DeleteGroup { name, if_version }).await?;
    removed(&it, &written, "group").await
}

/// Ids of users by e-mail. Whoever may write groups may know who is there to be put into one.
async fn find_members(
    it: &Admitted,
    field: &'static str,
    emails: Vec<String>,
    faults: &mut Faults,
) -> Result<Vec<Id>, Fault> {
    let find = |tables: &dyn Tables, email: &String| -> Result<Id, String> {
        let email = Email::parse(email).map_err(|why| format!("{email:?}: {why}"))?;
        let user = users::find(tables, email.as_str());
        user.map(|u| u.id).ok_or_else(|| format!("there is no user {email:?}"))
    };
    let found = it
        .call
        .api
        .read(move |t| emails.iter().map(|email| find(t, email)).collect::<Vec<_>>())
        .await?;
    let mut members = Vec::new();
    for (at, found) in found.into_iter().enumerate() {
        let field = format!("{field}[{at}]");
        match faults.check(field.clone(), found) {
            Some(id) if members.contains(&id) => faults.add(field, "named twice"),
            Some(id) => members.push(id),
            None => {}
        }
    }
    Ok(members)
}
