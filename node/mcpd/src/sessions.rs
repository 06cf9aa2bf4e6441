//! Sessions: who is logged in, and ending it.

use http::StatusCode;
use mcp_api::sessions::SessionBody;
use mcp_api::show_time;
use mcp_api::write::Removed;
use mcp_model::authority::Principal;
use mcp_model::command::Command;
use mcp_model::ids::Id;
use mcp_model::rbac::{Resource, Verb};
use mcp_model::records::Session;
use mcp_model::tables::{self, Table, Tables};

use crate::answer::Answer;
use crate::call::Admitted;
use crate::caller::{Caller, Credential};
use crate::fault::Fault;
use crate::page;

/// A session with whose it is.
#[derive(Debug, Clone)]
pub(crate) struct OwnedSession {
    pub(crate) session: Session,
    owner: Principal,
}

impl OwnedSession {
    fn of(tables: &dyn Tables, session: Session) -> Option<OwnedSession> {
        let owner = Principal::of(tables, session.user)?;
        Some(OwnedSession { session, owner })
    }

    /// The session that the API calls by this id: the first half of its hash.
    pub(crate) fn by_id(tables: &dyn Tables, id: Id) -> Option<OwnedSession> {
        let rows = tables.scan(Table::Sessions, &id.to_bytes(), None, 1);
        let (key, _) = rows.first()?;
        OwnedSession::of(tables, tables::load(tables, key)?)
    }

    fn show(&self, caller: &Caller) -> SessionBody {
        let Session {
            hash,
            expires_ms,
            origin,
            ..
        } = &self.session;
        let (user, service_account) = match &self.owner {
            Principal::User(user) => (Some(user.email.to_string()), None),
            Principal::ServiceAccount(account) => (None, Some(account.name.to_string())),
        };
        let current = matches!(&caller.credential, Credential::Session(own) if own.hash == *hash);
        SessionBody {
            id: hash.short_id().to_string(),
            user,
            service_account,
            current,
            created_at: show_time(origin.created_ms),
            created_by: origin.created_by.clone(),
            expires_at: show_time(*expires_ms),
            resource_version: origin.version.to_string(),
        }
    }
}

impl Caller {
    /// Whether the caller may do this with a session: whose it is may, and whoever holds the right.
    pub(crate) fn may_with(&self, verb: Verb, session: &OwnedSession) -> bool {
        let owns = !self.rights.is_token() && self.rights.principal() == Some(session.session.user);
        owns || self.rights.allow(verb, Resource::Sessions, session.owner.name())
    }

    /// The same, with a no that names the right.
    pub(crate) fn need_with(&self, verb: Verb, session: &OwnedSession) -> Result<(), Fault> {
        if self.may_with(verb, session) {
            return Ok(());
        }
        Ok(self.rights.need(verb, Resource::Sessions, session.owner.name())?)
    }
}

/// `?user=` and `?serviceAccount=` narrow it down. Everybody sees their own; who holds the right sees others too. What has
/// expired is left out.
pub(crate) async fn list(it: Admitted) -> Result<Answer, Fault> {
    let page = it.call.page()?;
    let version = it.call.api.replica.auth_index();
    let caller = it.caller.clone();
    let query = |key| it.call.query(key).map(str::to_owned);
    let (user, account) = (query("user").map(|u| u.to_lowercase()), query("serviceAccount"));
    let now_ms = it.call.api.clock.wall_ms();
    let list = it.call.api.read(move |t| {
        page::collect(t, &page, version, |session: Session| {
            let open = session.expires_ms > now_ms;
            let session = open.then(|| OwnedSession::of(t, session)).flatten()?;
            let fits = match &session.owner {
                Principal::User(u) => account.is_none() && user.as_deref().is_none_or(|e| e == u.email.as_str()),
                Principal::ServiceAccount(a) => {
                    user.is_none() && account.as_deref().is_none_or(|n| n == a.name.as_str())
                }
            };
            (fits && caller.may_with(Verb::See, &session)).then(|| session.show(&caller))
        })
    });
    Ok(Answer::ok(&list.await?))
}

pub(crate) async fn close(it: Admitted) -> Result<Answer, Fault> {
    let closed = it.session.as_deref().expect("the route's right names a session");
    let hash = closed.session.hash;
    let written = it.propose(Command::CloseSession { hash }).await?;
    let removed = Removed {
        kind: "session".to_owned(),
        name: closed.owner.who(),
        id: hash.short_id().to_string(),
        already: false,
    };
    it.answer(&written, StatusCode::OK, removed).await
}
