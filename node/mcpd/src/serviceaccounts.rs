//! Service accounts, and the sessions that are opened for them.

use http::StatusCode;
use mcp_api::serviceaccounts::{
    NewSession, OpenedSession, ServiceAccountBody, ServiceAccountChange, ServiceAccountSpec,
};
use mcp_api::{show_time, ttl};
use mcp_model::command::Command;
use mcp_model::names::Name;
use mcp_model::rbac::{Resource, Verb};
use mcp_model::records::ServiceAccount;
use mcp_model::tables::{Table, Tables};
use mcp_model::token::PlainSession;
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::body::{self, Faults, Parsed, READ};
use crate::call::Admitted;
use crate::fault::Fault;
use crate::limits;
use crate::noun::{self, Noun, changed, renamed};
use crate::projects::{id_of, removed};

impl Noun for ServiceAccount {
    const RESOURCE: Resource = Resource::ServiceAccounts;
    const NOUN: &'static str = "serviceaccount";
    const NAMES: Table = Table::ServiceAccountNames;
    type Body = ServiceAccountBody;

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn version(&self) -> u64 {
        self.origin.version
    }

    fn show(&self, _: &dyn Tables) -> ServiceAccountBody {
        ServiceAccountBody {
            id: self.id.to_string(),
            name: self.name.to_string(),
            description: self.description.clone(),
            created_at: show_time(self.origin.created_ms),
            created_by: self.origin.created_by.clone(),
            resource_version: self.origin.version.to_string(),
        }
    }
}

pub(crate) async fn list(it: Admitted) -> Result<Answer, Fault> {
    noun::list::<ServiceAccount>(it).await
}

pub(crate) async fn get(it: Admitted) -> Result<Answer, Fault> {
    noun::get::<ServiceAccount>(it).await
}

pub(crate) async fn create(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<ServiceAccountSpec>(&it.call.body)?;
    let name = faults.check("name", Name::parse(&value.name));
    faults.text("description", &value.description, limits::TEXT_BYTES_MAX);
    faults.refuse()?;
    let name = name.expect(READ);
    it.caller
        .rights
        .need(Verb::Create, Resource::ServiceAccounts, name.as_str())?;
    let command = Command::CreateServiceAccount {
        id: it.call.api.new_id(),
        name,
        description: value.description,
    };
    let written = it.propose(command).await?;
    changed::<ServiceAccount>(&it, written, StatusCode::CREATED).await
}

pub(crate) async fn replace(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<ServiceAccountSpec>(&it.call.body)?;
    if !value.name.is_empty() && value.name != it.name {
        faults.add("name", renamed("service account"));
    }
    update(&it, value.description, faults).await
}

pub(crate) async fn change(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<ServiceAccountChange>(&it.call.body)?;
    if value.description.is_none() {
        faults.add("description", "it is missing: there is nothing else to change");
    }
    update(&it, value.description.unwrap_or_default(), faults).await
}

async fn update(it: &Admitted, description: String, mut faults: Faults) -> Result<Answer, Fault> {
    faults.text("description", &description, limits::TEXT_BYTES_MAX);
    faults.refuse()?;
    let command = Command::UpdateServiceAccount {
        name: it.object(),
        description,
        if_version: it.call.if_version()?,
    };
    let written = it.propose(command).await?;
    changed::<ServiceAccount>(it, written, StatusCode::OK).await
}

pub(crate) async fn delete(it: Admitted) -> Result<Answer, Fault> {
    let (name, if_version) = (it.object(), it.call.if_version()?);
    let written = it.propose(Command::DeleteServiceAccount { name, if_version }).await?;
    removed(&it, &written, "serviceaccount").await
}

/// Opens a session for whoever holds all that the account confers. The one answer that shows its bearer.
pub(crate) async fn open_session(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, mut faults } = body::parse::<NewSession>(&it.call.body)?;
    let expires_ms = read_ttl(&it, value.ttl.as_deref(), &mut faults);
    faults.refuse()?;
    let expires_ms = expires_ms.expect(READ);
    let plain = PlainSession::from_bytes(&Zeroizing::new(it.call.api.random()));
    let command = Command::OpenServiceSession {
        account: it.object(),
        hash: plain.hash(),
        expires_ms,
    };
    let written = it.propose(command).await?;
    let id = id_of(&written)?;
    let first = id == plain.hash().short_id();
    tracing::info!(account = %it.name, index = written.index, by = it.caller.rights.who(), "session opened");
    let opened = OpenedSession {
        id: id.to_string(),
        service_account: it.name.clone(),
        token: first.then(|| plain.expose().to_owned()),
        expires_at: show_time(expires_ms),
    };
    let status = if first { StatusCode::CREATED } else { StatusCode::OK };
    it.answer(&written, status, opened).await
}

fn read_ttl(it: &Admitted, ttl: Option<&str>, faults: &mut Faults) -> Option<u64> {
    let now_ms = it.call.api.clock.wall_ms();
    let Some(ttl) = ttl else {
        return Some(now_ms + limits::SESSION_MS);
    };
    let expires_ms = faults.check("ttl", ttl::expiry(ttl, now_ms))?;
    match expires_ms {
        Some(at) if at <= now_ms => faults.add("ttl", "this lies in the past"),
        Some(at) if at <= now_ms + limits::SERVICE_SESSION_MS_MAX => return Some(at),
        Some(_) | None => faults.add("ttl", "a session ends after 90 days at the latest"),
    }
    None
}
