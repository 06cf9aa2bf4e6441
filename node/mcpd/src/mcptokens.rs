//! MCP tokens: issued, shown, revoked, deleted. The bearer exists here from the moment it is minted until the answer is built.

use http::StatusCode;
use mcp_api::auth::Introspection;
use mcp_api::list::List;
use mcp_api::problem::Code;
use mcp_api::rbac::RoleBindingBody;
use mcp_api::tokens::{McpTokenBody, MintedToken, NewMcpToken};
use mcp_api::write::Removed;
use mcp_api::{parse_time, show_time, ttl};
use mcp_model::apply::tokens::{definition_name, name_key};
use mcp_model::authority::Principal;
use mcp_model::command::{Command, Reply, TokenGrant};
use mcp_model::ids::Id;
use mcp_model::names::Name;
use mcp_model::rbac::{Resource, Role, RoleBinding, Verb};
use mcp_model::records::{McpToken, NodeRecord, RbacDefinition, TokenStatus};
use mcp_model::tables::{self, Table, Tables};
use mcp_model::token::PlainToken;
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::body::{self, Faults, Parsed, READ};
use crate::call::{Admitted, NamedToken};
use crate::caller::Credential;
use crate::fault::Fault;
use crate::port::Written;
use crate::rbac::read_bindings;
use crate::{limits, page, projects};

/// `?project=`, `?name=` and `?status=` narrow it down. Everybody sees their own; who holds the right sees others too.
pub(crate) async fn list(it: Admitted) -> Result<Answer, Fault> {
    let page = it.call.page()?;
    let version = it.call.api.replica.auth_index();
    let caller = it.caller.clone();
    let query = |key| it.call.query(key).map(str::to_owned);
    let (project, name, status) = (query("project"), query("name"), query("status"));
    if status
        .as_deref()
        .is_some_and(|s| !["active", "expired", "revoked"].contains(&s))
    {
        let mut faults = Faults::default();
        faults.add("status", "the values are active, expired and revoked");
        faults.refuse()?;
    }
    let list = it.call.api.read(move |t| {
        let wanted = |token: McpToken| {
            let fits = name.as_deref().is_none_or(|n| n == token.name.as_str())
                && status.as_deref().is_none_or(|s| s == status_word(token.status));
            let token = fits.then(|| NamedToken::of(t, token))?;
            let fits = project.is_none() || project == token.project;
            (fits && caller.may(Verb::See, &token)).then(|| show(t, &token))
        };
        // The active token of a name is found without a search.
        if let (Some(project), Some(name), Some("active")) = (&project, &name, status.as_deref()) {
            let project = projects::find(t, project);
            let found = project.and_then(|p| tables::by_name(t, Table::TokenNames, &name_key(p.id, name)));
            let items = found.and_then(wanted).into_iter().collect();
            return List {
                items,
                more: None,
                resource_version: version.to_string(),
            };
        }
        page::collect(t, &page, version, wanted)
    });
    Ok(Answer::ok(&list.await?))
}

pub(crate) async fn get(it: Admitted) -> Result<Answer, Fault> {
    let token = it.token().clone();
    let body = it.call.api.read(move |t| show(t, &token)).await?;
    Ok(Answer::ok(&body).version(&body.resource_version))
}

/// Says to a token what it is. Anything but a token that is let in gets 401.
pub(crate) async fn introspect(it: Admitted) -> Result<Answer, Fault> {
    let Credential::Token { token, project } = &it.caller.credential else {
        return Err(Fault::not_authenticated(
            "introspection takes the token itself as the bearer, not a session",
        ));
    };
    let (id, project) = (it.call.api.writer.cluster_status().node, project.clone());
    let nodes = it
        .call
        .api
        .read(|t| tables::list::<NodeRecord>(t, None, limits::NODES_MAX))
        .await?;
    // The gateway of the node that answers comes first: it is known to be there.
    let (own, others): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| node.id == id);
    let gateways = own.into_iter().chain(others).map(|node| node.gateway_url);
    Ok(Answer::ok(&Introspection {
        active: true,
        id: token.id.to_string(),
        name: token.name.to_string(),
        project,
        sha: token.hash.to_string(),
        expires_at: token.expires_ms.map(show_time),
        gateways: gateways.filter(|url| !url.is_empty()).collect(),
    }))
}

pub(crate) async fn create(it: Admitted) -> Result<Answer, Fault> {
    let Parsed { value, faults } = body::parse::<NewMcpToken>(&it.call.body)?;
    let asked = read_new(value, faults, it.call.api.clock.wall_ms())?;
    let full_name = format!("{}/{}", asked.project, asked.name);
    it.caller.rights.need(Verb::Create, Resource::McpTokens, &full_name)?;
    if let TokenGrant::Bindings(bindings) = &asked.grant {
        bindings.iter().try_for_each(|b| it.caller.rights.need_cover(b))?;
    }
    let api = &it.call.api;
    let plain = PlainToken::from_bytes(&Zeroizing::new(api.random()));
    let id = api.new_id();
    let command = Command::IssueToken {
        id,
        name: asked.name.clone(),
        project: asked.project.clone(),
        hash: plain.hash(),
        shown_prefix: plain.shown_prefix(),
        description: asked.description.clone(),
        expires_ms: asked.expires_ms,
        grant: asked.grant.clone(),
        replace: asked.replace,
    };
    let written = it.propose(command).await?;
    minted(&it, written, id, plain, &asked).await
}

/// The one answer that shows a bearer. It is given even when this node cannot read the token back yet: there is no other.
async fn minted(it: &Admitted, written: Written, own: Id, plain: PlainToken, asked: &Asked) -> Result<Answer, Fault> {
    let Reply::TokenIssued { id, replaced, bindings } = written.reply.clone() else {
        return Err(Fault::new(Code::StoreFailed, "the answer is not that of an issue"));
    };
    let first = id == own;
    let seen = it.see(&written).await;
    let read = it
        .call
        .api
        .read(move |t| tables::by_id(t, id).map(|token| show(t, &NamedToken::of(t, token))));
    let read = match seen {
        Ok(()) => read.await?,
        Err(fault) if !first => return Err(fault),
        Err(_) => None,
    };
    let mcptoken = match read {
        Some(body) => body,
        None if first => asked.body(it, &written, own, &plain, &bindings),
        None => return Err(Fault::not_found("mcptoken", &id.to_string())),
    };
    let name = format!("{}/{}", asked.project, asked.name);
    tracing::info!(token = %name, index = written.index, by = it.caller.rights.who(), "token issued");
    let status = if first { StatusCode::CREATED } else { StatusCode::OK };
    let minted = MintedToken {
        hint: hint(&asked.name, &asked.project, &bindings),
        token: first.then(|| plain.expose().to_owned()),
        replaced: replaced.map(|id| id.to_string()),
        mcptoken,
    };
    it.answer(&written, status, minted).await
}

/// What to know about a token that can do little.
fn hint(name: &Name, project: &Name, bindings: &[RoleBinding]) -> Option<String> {
    let again =
        format!("mcpctl create mcptoken {name} -p {project} --force --bind role:run,resource:servers,name:SERVER");
    if bindings.is_empty() {
        return Some(format!(
            "this token has no bindings: it sees no tools and calls none; make one that does: {again}"
        ));
    }
    let views = |b: &RoleBinding| matches!(b, RoleBinding::On { role: Role::View, .. });
    bindings
        .iter()
        .all(views)
        .then(|| format!("this token only has view: it lists tools and calls none; calling takes run: {again}"))
}

pub(crate) async fn revoke(it: Admitted) -> Result<Answer, Fault> {
    let id = it.token().token.id;
    let written = it.propose(Command::RevokeToken { id }).await?;
    let Reply::TokenRevoked { already, .. } = written.reply else {
        return Err(Fault::new(Code::StoreFailed, "the answer is not that of a revoke"));
    };
    gone(&it, written, already).await
}

pub(crate) async fn delete(it: Admitted) -> Result<Answer, Fault> {
    let id = it.token().token.id;
    let written = it.propose(Command::DeleteToken { id }).await?;
    gone(&it, written, false).await
}

async fn gone(it: &Admitted, written: Written, already: bool) -> Result<Answer, Fault> {
    let token = it.token();
    let (name, by) = (token.full_name(), it.caller.rights.who());
    let effective = written.receipt.as_ref().is_some_and(|r| r.effective());
    tracing::info!(token = %name, index = written.index, effective, by, "token revoked");
    let removed = Removed {
        kind: "mcptoken".to_owned(),
        name,
        id: token.token.id.to_string(),
        already,
    };
    it.answer(&written, StatusCode::OK, removed).await
}

/// A token to be made, once read.
struct Asked {
    name: Name,
    project: Name,
    description: String,
    expires_ms: Option<u64>,
    grant: TokenGrant,
    replace: bool,
}

impl Asked {
    /// What is certain about a token that this node has not applied yet.
    fn body(
        &self,
        it: &Admitted,
        written: &Written,
        id: Id,
        plain: &PlainToken,
        bindings: &[RoleBinding],
    ) -> McpTokenBody {
        McpTokenBody {
            id: id.to_string(),
            name: self.name.to_string(),
            project: Some(self.project.to_string()),
            owner: Some(it.caller.principal.who()),
            prefix: plain.shown_prefix(),
            description: self.description.clone(),
            role_bindings: bindings.iter().map(RoleBindingBody::from).collect(),
            status: status_word(TokenStatus::Active).to_owned(),
            created_at: show_time(it.call.api.clock.wall_ms()),
            created_by: it.caller.rights.who().to_owned(),
            expires_at: self.expires_ms.map(show_time),
            last_used_at: None,
            revoked_at: None,
            resource_version: written.index.to_string(),
        }
    }
}

fn read_new(body: NewMcpToken, mut faults: Faults, now_ms: u64) -> Result<Asked, Fault> {
    let name = faults.check("name", Name::parse(&body.name));
    let project = faults.check("project", Name::parse(&body.project));
    faults.text("description", &body.description, limits::TEXT_BYTES_MAX);
    let bindings = read_bindings(&body.role_bindings, &mut faults);
    let grant = match body.rbac.as_str() {
        "empty" => TokenGrant::Bindings(bindings),
        "clone" => {
            if !body.role_bindings.is_empty() {
                faults.add(
                    "roleBindings",
                    "rbac clone takes the creator's bindings: leave these out, or write rbac empty",
                );
            }
            TokenGrant::Clone
        }
        other => {
            faults.add("rbac", format!("{other:?}: the values are empty and clone"));
            TokenGrant::Clone
        }
    };
    let expires_ms = match (&body.ttl, &body.expires_at) {
        (Some(_), Some(_)) => {
            faults.add("expiresAt", "give either ttl or expiresAt");
            None
        }
        (Some(ttl), None) => faults.check("ttl", ttl::expiry(ttl, now_ms)).flatten(),
        (None, Some(at)) => faults.check("expiresAt", parse_time(at).ok_or("not a date or time (RFC 3339)")),
        (None, None) => None,
    };
    if expires_ms.is_some_and(|at| at <= now_ms) {
        let field = if body.ttl.is_some() { "ttl" } else { "expiresAt" };
        faults.add(field, "this lies in the past");
    }
    faults.refuse()?;
    let (name, project) = (name.expect(READ), project.expect(READ));
    Ok(Asked {
        name,
        project,
        description: body.description,
        expires_ms,
        grant,
        replace: body.force,
    })
}

fn status_word(status: TokenStatus) -> &'static str {
    match status {
        TokenStatus::Active => "active",
        TokenStatus::Expired => "expired",
        TokenStatus::Revoked => "revoked",
    }
}

fn show(tables: &dyn Tables, token: &NamedToken) -> McpTokenBody {
    let NamedToken { token, project } = token;
    let owner = Principal::of(tables, token.owner);
    let name = definition_name(token.id);
    let definition: Option<RbacDefinition> = tables::by_name(tables, Table::RbacNames, name.as_bytes());
    let bindings = definition.map(|d| d.role_bindings).unwrap_or_default();
    McpTokenBody {
        id: token.id.to_string(),
        name: token.name.to_string(),
        project: project.clone(),
        owner: owner.map(|p| p.who()),
        prefix: token.shown_prefix.clone(),
        description: token.description.clone(),
        role_bindings: bindings.iter().map(RoleBindingBody::from).collect(),
        status: status_word(token.status).to_owned(),
        created_at: show_time(token.origin.created_ms),
        created_by: token.origin.created_by.clone(),
        expires_at: token.expires_ms.map(show_time),
        last_used_at: token.last_used_ms.map(show_time),
        revoked_at: token.revoked_ms.map(show_time),
        resource_version: token.origin.version.to_string(),
    }
}
