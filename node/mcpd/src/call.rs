//! A request on its way to its handler, and the decision whether its caller may make it.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use mcp_model::command::Refusal;
use mcp_model::ids::{Id, NodeId};
use mcp_model::names::{Email, Name};
use mcp_model::rbac::{Action, Resource, Verb};
use mcp_model::records::{Group, McpToken, NodeRecord, Project, RbacDefinition, Secret, Server, ServiceAccount, User};
use mcp_model::tables::{self, Tables};

use crate::caller::Caller;
use crate::fault::Fault;
use crate::router::Api;
use crate::routes::{Right, Route};
use crate::sessions::OwnedSession;

/// Every query parameter that means something to some route, and what.
pub(crate) const QUERY: [(&str, &str); 17] = [
    (
        "wait",
        "`effective` (the default): answer once no replica admits any more what was taken away. `committed`: answer once it is agreed.",
    ),
    (
        "timeoutSeconds",
        "How long to wait for `effective`, 1 to 300; 15 if not given. After it the answer is 202, with what is known by then.",
    ),
    (
        "consistency",
        "`linearizable`: show everything that was acknowledged anywhere before this request.",
    ),
    ("limit", "Objects on one page, 1 to 1000; 500 if not given."),
    ("continue", "What the page before gave, to read on."),
    ("project", "Of this project."),
    ("user", "Of the user with this e-mail."),
    ("serviceAccount", "Of the service account with this name."),
    ("name", "Of this name."),
    ("status", "`active`, `expired` or `revoked`."),
    (
        "verb",
        "What is to be done: `get`, `run`, `create`, `update`, `delete`, `grant`, …",
    ),
    ("resource", "To what: `servers`, `projects`, `tools`, …"),
    (
        "action",
        "Instead of verb and resource: `logs`, `backup`, `restore`, `cluster` or `exec`.",
    ),
    ("tail", "Lines of each node, the newest, 0 to 2000; 200 if not given."),
    ("sinceSeconds", "Only what is not older than this."),
    ("node", "Of this node alone, by name or id."),
    ("after", "What an answer gave as `after`: only what came later."),
];

/// A request that has arrived.
pub(crate) struct Call {
    pub(crate) api: Arc<Api>,
    pub(crate) route: &'static Route,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) peer: Option<IpAddr>,
}

/// A request whose caller was let in and holds the right that the route takes. There is no second way to get one.
pub(crate) struct Admitted {
    pub(crate) call: Call,
    pub(crate) caller: Caller,
    /// Name of the object in the path; empty if the path names none.
    pub(crate) name: String,
    /// The token that the path names.
    pub(crate) token: Option<Box<NamedToken>>,
    /// The session that the path names.
    pub(crate) session: Option<Box<OwnedSession>>,
}

/// A token with the name of its project.
#[derive(Debug, Clone)]
pub(crate) struct NamedToken {
    pub(crate) token: McpToken,
    pub(crate) project: Option<String>,
}

impl NamedToken {
    pub(crate) fn of(tables: &dyn Tables, token: McpToken) -> NamedToken {
        let project: Option<Project> = tables::by_id(tables, token.project);
        NamedToken {
            token,
            project: project.map(|p| p.name.to_string()),
        }
    }

    /// `project/name`: what bindings say.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.project.as_deref().unwrap_or("-"), self.token.name)
    }
}

impl Caller {
    /// Whether the caller may do this with a token: its owner may, and whoever holds the right.
    pub(crate) fn may(&self, verb: Verb, token: &NamedToken) -> bool {
        let owns = !self.rights.is_token() && self.rights.principal() == Some(token.token.owner);
        owns || self.rights.allow(verb, Resource::McpTokens, &token.full_name())
    }
}

impl Call {
    pub(crate) fn query(&self, key: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn param(&self, key: &str) -> &str {
        self.params
            .iter()
            .find(|(k, _)| k == key)
            .map_or("", |(_, value)| value.as_str())
    }

    /// Decides whether the caller holds the right that the route takes.
    pub(crate) async fn authorize(self, caller: Caller, right: Right) -> Result<Admitted, Fault> {
        let mut admitted = Admitted {
            call: self,
            caller,
            name: String::new(),
            token: None,
            session: None,
        };
        match right {
            Right::Caller => {}
            Right::Some(verb, resource) => admitted.need_some(verb, resource)?,
            Right::On(verb, resource) => {
                admitted.name = admitted.object_name(resource).await?;
                admitted.caller.rights.need(verb, resource, &admitted.name)?;
            }
            Right::Cluster => admitted.caller.rights.need_cluster()?,
            Right::Logs => {
                admitted.caller.rights.need_action(Action::Logs)?;
                admitted.name = admitted.object_name(Resource::Servers).await?;
                admitted
                    .caller
                    .rights
                    .need(Verb::See, Resource::Servers, &admitted.name)?;
            }
            Right::Backup => admitted.caller.rights.need_action(Action::Backup)?,
            Right::Restore => admitted.caller.rights.need_restore()?,
            Right::Token(verb) => admitted.token = Some(admitted.object_token(verb).await?),
            Right::Session(verb) => admitted.session = Some(admitted.object_session(verb).await?),
        }
        Ok(admitted)
    }
}

impl Admitted {
    fn need_some(&self, verb: Verb, resource: Resource) -> Result<(), Fault> {
        if self.caller.rights.allow_some(verb, resource) {
            return Ok(());
        }
        let who = self.caller.rights.who().to_owned();
        let need = format!("role:{},resource:{}", verb.least_role().as_str(), resource.as_str());
        Err(Fault::from(Refusal::Forbidden { who, need }))
    }

    /// The name of the object in the path, where its id may stand too. Whether it exists is not asked of a name: who may not
    /// see it does not learn it.
    async fn object_name(&self, resource: Resource) -> Result<String, Fault> {
        let given = self.call.param("name").to_owned();
        let kind = kind_of(resource);
        let unknown = Fault::not_found(kind, &given);
        let id: Option<Id> = given.parse().ok();
        let node: Option<NodeId> = (resource == Resource::Nodes).then(|| given.parse().ok()).flatten();
        let name = match (id, node) {
            (Some(id), _) => self.call.api.read(move |t| name_by_id(t, resource, id)).await?,
            (None, Some(node)) => {
                let found = self
                    .call
                    .api
                    .read(move |t| tables::load::<NodeRecord>(t, &node.0.to_be_bytes()))
                    .await?;
                found.map(|n| n.name.to_string())
            }
            (None, None) if resource == Resource::Users => Email::parse(&given).ok().map(|e| e.to_string()),
            (None, None) => Name::parse(&given).ok().map(|n| n.to_string()),
        };
        name.ok_or(unknown)
    }

    /// The token in the path. Who may not see it is told what is told of one that does not exist.
    async fn object_token(&self, verb: Verb) -> Result<Box<NamedToken>, Fault> {
        let given = self.call.param("id").to_owned();
        let unknown = || {
            Fault::not_found("mcptoken", &given).hint("tokens are addressed by id here: mcpctl get mcptokens -o wide")
        };
        let id: Id = given.parse().map_err(|_| unknown())?;
        let found = self
            .call
            .api
            .read(move |t| tables::by_id(t, id).map(|token| NamedToken::of(t, token)))
            .await?;
        let token = found.filter(|token| self.caller.may(Verb::See, token) || self.caller.may(verb, token));
        let token = token.ok_or_else(unknown)?;
        if !self.caller.may(verb, &token) {
            self.caller.rights.need(verb, Resource::McpTokens, &token.full_name())?;
        }
        Ok(Box::new(token))
    }

    /// The session in the path, in the same way.
    async fn object_session(&self, verb: Verb) -> Result<Box<OwnedSession>, Fault> {
        let given = self.call.param("id").to_owned();
        let unknown = || Fault::not_found("session", &given);
        let id: Id = given.parse().map_err(|_| unknown())?;
        let found = self.call.api.read(move |t| OwnedSession::by_id(t, id)).await?;
        let seen = |s: &OwnedSession| self.caller.may_with(Verb::See, s) || self.caller.may_with(verb, s);
        let session = found.filter(seen).ok_or_else(unknown)?;
        self.caller.need_with(verb, &session)?;
        Ok(Box::new(session))
    }

    /// The token in the path, for routes that name one.
    pub(crate) fn token(&self) -> &NamedToken {
        self.token.as_deref().expect("the route's right names a token")
    }

    /// The name in the path, for commands.
    pub(crate) fn object(&self) -> Name {
        Name::parse(&self.name).expect("the route's right has parsed it")
    }
}

fn name_by_id(tables: &dyn Tables, resource: Resource, id: Id) -> Option<String> {
    match resource {
        Resource::Users => tables::by_id::<User>(tables, id).map(|r| r.email.to_string()),
        Resource::Projects => tables::by_id::<Project>(tables, id).map(|r| r.name.to_string()),
        Resource::Servers => tables::by_id::<Server>(tables, id).map(|r| r.name.to_string()),
        Resource::Rbac => tables::by_id::<RbacDefinition>(tables, id).map(|r| r.name),
        Resource::Groups => tables::by_id::<Group>(tables, id).map(|r| r.name.to_string()),
        Resource::Secrets => tables::by_id::<Secret>(tables, id).map(|r| r.name.to_string()),
        // Sessions are opened for a service account, and named after it.
        Resource::ServiceAccounts | Resource::Sessions => {
            tables::by_id::<ServiceAccount>(tables, id).map(|r| r.name.to_string())
        }
        Resource::Tools
        | Resource::McpTokens
        | Resource::Audit
        | Resource::Nodes
        | Resource::Prompts
        | Resource::ProxyModels
        | Resource::Any => None,
    }
}

fn kind_of(resource: Resource) -> &'static str {
    match resource {
        Resource::Users => "user",
        Resource::Projects => "project",
        Resource::Servers => "server",
        Resource::Nodes => "node",
        Resource::McpTokens => "mcptoken",
        Resource::Groups => "group",
        Resource::Secrets => "secret",
        Resource::ServiceAccounts | Resource::Sessions => "serviceaccount",
        other => other.as_str(),
    }
}
