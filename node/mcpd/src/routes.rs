//! The one table of routes: method, path, the right that a caller needs, who answers, and what it takes and gives.
//!
//! Admission reads it, the tests walk over it, the description of the API is made from it, and nothing is served that does
//! not stand in it.

use std::fmt;

use http::Method;
use mcp_api::auth::{CanI, Introspection, LoginAnswer, LoginRequest, SetupRequest, WhoAmI};
use mcp_api::backup::{RestoreBody, RestorePart, RestorePartBody, RestoreRequest};
use mcp_api::cluster::{JoinTokenBody, JoinTokenEntry, NewJoinToken, NodeChanged};
use mcp_api::groups::{GroupBody, GroupChange, GroupSpec};
use mcp_api::logs::ServerLogs;
use mcp_api::nodes::{ClusterBody, NodeBody};
use mcp_api::projects::{ProjectBody, ProjectChange, ProjectSpecBody, ProjectTool};
use mcp_api::rbac::{RbacBody, RbacSpec};
use mcp_api::secrets::{SecretBody, SecretChange, SecretSpec};
use mcp_api::servers::{ServerBody, ServerSpecBody, ServerTools, ToolApprovals};
use mcp_api::serviceaccounts::{
    NewSession, OpenedSession, ServiceAccountBody, ServiceAccountChange, ServiceAccountSpec,
};
use mcp_api::sessions::SessionBody;
use mcp_api::tokens::{McpTokenBody, MintedToken, NewMcpToken};
use mcp_api::users::{NewUser, PasswordChange, PasswordReset, UserBody, UserChange, UserSpec};
use mcp_api::version::VersionBody;
use mcp_api::write::Removed;
use mcp_model::rbac::{Resource, Verb};

use crate::answer::Answer;
use crate::call::{Admitted, Call};
use crate::fault::Fault;
use crate::openapi::{self, Document, Shape};
use crate::port::Pending;
use crate::{
    auth, backup, can_i, cluster, groups, logs, mcptokens, nodes, projects, rbac, secrets, servers, serviceaccounts,
    sessions, tools, users,
};

/// What a caller of a route must hold. Decided before the handler runs; what depends on the body is decided again, by the
/// handler where it can be and by the state always.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// Being somebody. The answer is about the caller, or holds only what the caller may see.
    Caller,
    /// The verb on the object that the path names.
    On(Verb, Resource),
    /// The verb on at least one object of this kind.
    Some(Verb, Resource),
    /// The verb on the token that the path names, or owning it.
    Token(Verb),
    /// The action `cluster`, held by somebody who is no token.
    Cluster,
    /// The action `logs`, and seeing the server that the path names.
    Logs,
    /// The action `backup`. A token has none.
    Backup,
    /// The action `restore` together with `admin` on everything, held by somebody who is no token.
    Restore,
    /// The verb on the sessions of whose session the path names, or its being one's own.
    Session(Verb),
}

/// The right as people write it.
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Right::Caller => f.write_str("any caller"),
            Right::On(verb, resource) => write!(
                f,
                "role:{},resource:{},name:{{name}}",
                verb.least_role().as_str(),
                resource.as_str()
            ),
            Right::Some(verb, resource) => {
                write!(f, "role:{},resource:{}", verb.least_role().as_str(), resource.as_str())
            }
            Right::Cluster => f.write_str("action:cluster (never a token's)"),
            Right::Logs => f.write_str("action:logs and role:view,resource:servers,name:{name}"),
            Right::Backup => f.write_str("action:backup"),
            Right::Restore => f.write_str("action:restore and role:admin,resource:* (never a token's)"),
            Right::Token(verb) => write!(
                f,
                "role:{},resource:mcptokens,name:{{project}}/{{name}}, or owning it",
                verb.least_role().as_str()
            ),
            Right::Session(verb) => write!(
                f,
                "role:{},resource:sessions,name:{{whose}}, or its being one's own",
                verb.least_role().as_str()
            ),
        }
    }
}

pub(crate) type Open = fn(Call) -> Pending<'static, Result<Answer, Fault>>;
pub(crate) type ForCaller = fn(Admitted) -> Pending<'static, Result<Answer, Fault>>;

/// Who may come to a route, and who answers. A handler for callers cannot be reached without having been admitted.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    Open(Open),
    For(Right, ForCaller),
}

/// What is said of a route in the description of the API.
#[derive(Clone, Copy)]
pub(crate) struct Told {
    /// In a few words, as an order.
    pub(crate) summary: &'static str,
    /// Where it is carried out: `users::list`. Unique.
    pub(crate) handler: &'static str,
    /// The body it takes.
    pub(crate) takes: Option<Shape>,
    pub(crate) gives: Gives,
    /// Query parameters beside those that follow from `gives`.
    pub(crate) query: &'static [&'static str],
    /// Whether `If-Match` is heeded.
    pub(crate) matches: bool,
}

/// What a route answers with when all is well.
#[derive(Clone, Copy)]
pub(crate) enum Gives {
    /// A body.
    One(Shape),
    /// Some objects, page by page.
    Pages(Shape),
    /// A file.
    File,
    /// The object after a change, with the receipt where there is one.
    Change(Shape),
}

/// One route.
pub struct Route {
    method: Method,
    path: &'static str,
    pub(crate) access: Access,
    pub(crate) told: Told,
}

impl Route {
    /// Its method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Its path, with `{…}` for what varies.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// The right it takes; `None`: it is open to everybody.
    pub fn right(&self) -> Option<Right> {
        match self.access {
            Access::Open(_) => None,
            Access::For(right, _) => Some(right),
        }
    }

    /// The query parameters that mean something to it. Others are faults, so that a slip does not pass for a filter.
    pub(crate) fn query_keys(&self) -> Vec<&'static str> {
        let own = self.told.query.iter().copied();
        let shared: &[&str] = match self.told.gives {
            Gives::Pages(_) => &["limit", "continue"],
            Gives::Change(_) => &["wait", "timeoutSeconds"],
            Gives::One(_) | Gives::File => &[],
        };
        let callers: &[&str] = match self.access {
            Access::Open(_) => &[],
            Access::For(..) => &["consistency"],
        };
        own.chain(shared.iter().copied())
            .chain(callers.iter().copied())
            .collect()
    }

    const fn query(mut self, keys: &'static [&'static str]) -> Route {
        self.told.query = keys;
        self
    }

    const fn matching(mut self) -> Route {
        self.told.matches = true;
        self
    }
}

/// A route's line in the table: who may come, who answers, and what the description of the API says of it.
macro_rules! route {
    ($method:ident $path:literal, Open, $handler:path, $summary:literal, $($body:tt)+) => {
        route!(@ $method $path, Access::Open(|call| Box::pin($handler(call))), $handler, $summary, $($body)+)
    };
    ($method:ident $path:literal, $right:expr, $handler:path, $summary:literal, $($body:tt)+) => {
        route!(@ $method $path, Access::For($right, |call| Box::pin($handler(call))), $handler, $summary, $($body)+)
    };
    (@ $method:ident $path:literal, $access:expr, $handler:path, $summary:literal, takes $takes:ty, $($gives:tt)+) => {
        route!(@@ $method $path, $access, $handler, $summary, Option::Some(Shape::of::<$takes>()), $($gives)+)
    };
    (@ $method:ident $path:literal, $access:expr, $handler:path, $summary:literal, $($gives:tt)+) => {
        route!(@@ $method $path, $access, $handler, $summary, Option::None, $($gives)+)
    };
    (@@ $method:ident $path:literal, $access:expr, $handler:path, $summary:literal, $takes:expr, File) => {
        route!(@@@ $method $path, $access, $handler, $summary, $takes, Gives::File)
    };
    (@@ $method:ident $path:literal, $access:expr, $handler:path, $summary:literal, $takes:expr, $way:ident $gives:ty) => {
        route!(@@@ $method $path, $access, $handler, $summary, $takes, Gives::$way(Shape::of::<$gives>()))
    };
    (@@@ $method:ident $path:literal, $access:expr, $handler:path, $summary:literal, $takes:expr, $gives:expr) => {
        Route {
            method: Method::$method,
            path: concat!("/api/v1", $path),
            access: $access,
            told: Told {
                summary: $summary,
                handler: stringify!($handler),
                takes: $takes,
                gives: $gives,
                query: &[],
                matches: false,
            },
        }
    };
}

/// Every route of `/api/v1`.
pub static ROUTES: &[Route] = &{
    use Resource::{Groups, McpTokens, Nodes, Projects, Rbac, Secrets, Servers, ServiceAccounts, Sessions, Users};
    use Right::{Backup, Caller, Cluster, Logs, On, Restore, Session, Some, Token};
    use Verb::{Create, Delete, Grant, See, Update};
    [
        route!(POST "/auth/login", Open, auth::login, "Open a session", takes LoginRequest, One LoginAnswer),
        route!(POST "/auth/setup", Open, auth::setup, "Set the first password", takes SetupRequest, One LoginAnswer),
        route!(POST "/auth/logout", Caller, auth::logout, "End the caller's session", Change Removed),
        route!(POST "/auth/password", Caller, auth::change_password, "Change the caller's password", takes PasswordChange, Change UserBody),
        route!(GET "/auth/whoami", Caller, auth::whoami, "Show who the caller is", One WhoAmI),
        route!(GET "/auth/can-i", Caller, can_i::can_i, "Ask whether the caller may do something", One CanI)
            .query(&["verb", "resource", "name", "action"]),
        route!(GET "/version", Caller, nodes::version, "Show what answers", One VersionBody),
        route!(GET "/openapi.json", Caller, openapi::get, "Describe the API", One Document),
        route!(GET "/cluster/status", Some(See, Nodes), nodes::status, "Show the cluster", One ClusterBody),
        route!(POST "/cluster/join-tokens", Cluster, cluster::join_token, "Let one machine join", takes NewJoinToken, Change JoinTokenBody),
        route!(GET "/cluster/join-tokens", Cluster, cluster::join_tokens, "List join tokens", Pages JoinTokenEntry),
        route!(DELETE "/cluster/join-tokens/{id}", Cluster, cluster::withdraw_join, "Withdraw a join token", Change Removed),
        route!(POST "/cluster/nodes/{name}/promote", Cluster, cluster::promote, "Let a node vote", Change NodeChanged),
        route!(POST "/cluster/nodes/{name}/demote", Cluster, cluster::demote, "Let a node only follow", Change NodeChanged),
        route!(DELETE "/cluster/nodes/{name}", Cluster, cluster::remove, "Remove a node for ever", Change NodeChanged),
        route!(GET "/backup", Backup, backup::save, "Take a backup of the cluster's objects", File),
        route!(POST "/backup/restores/{name}/parts", Restore, backup::stage, "Lay down a piece of a backup", takes RestorePart, Change RestorePartBody),
        route!(POST "/backup/restores/{name}", Restore, backup::finish, "Restore the backup that was laid down", takes RestoreRequest, Change RestoreBody),
        route!(DELETE "/backup/restores/{name}", Restore, backup::forget, "Forget a backup that was laid down", Change Removed),
        route!(GET "/nodes", Some(See, Nodes), nodes::list, "List nodes", Pages NodeBody),
        route!(GET "/nodes/{name}", On(See, Nodes), nodes::get, "Show a node", One NodeBody),
        route!(GET "/users", Some(See, Users), users::list, "List users", Pages UserBody),
        route!(POST "/users", Some(Create, Users), users::create, "Make a user", takes NewUser, Change UserBody),
        route!(GET "/users/{name}", On(See, Users), users::get, "Show a user", One UserBody),
        route!(PUT "/users/{name}", On(Update, Users), users::replace, "Replace a user", takes UserSpec, Change UserBody).matching(),
        route!(PATCH "/users/{name}", On(Update, Users), users::change, "Change a user", takes UserChange, Change UserBody).matching(),
        route!(DELETE "/users/{name}", On(Delete, Users), users::delete, "Delete a user with all that is theirs", Change Removed)
            .matching(),
        route!(POST "/users/{name}/password", On(Update, Users), users::reset_password, "Reset a password", takes PasswordReset, Change UserBody),
        route!(GET "/groups", Some(See, Groups), groups::list, "List groups", Pages GroupBody),
        route!(POST "/groups", Some(Create, Groups), groups::create, "Make a group", takes GroupSpec, Change GroupBody),
        route!(GET "/groups/{name}", On(See, Groups), groups::get, "Show a group", One GroupBody),
        route!(PUT "/groups/{name}", On(Update, Groups), groups::replace, "Replace a group", takes GroupSpec, Change GroupBody)
            .matching(),
        route!(PATCH "/groups/{name}", On(Update, Groups), groups::change, "Change a group", takes GroupChange, Change GroupBody)
            .matching(),
        route!(DELETE "/groups/{name}", On(Delete, Groups), groups::delete, "Delete a group", Change Removed).matching(),
        route!(GET "/serviceaccounts", Some(See, ServiceAccounts), serviceaccounts::list, "List service accounts", Pages ServiceAccountBody),
        route!(POST "/serviceaccounts", Some(Create, ServiceAccounts), serviceaccounts::create, "Make a service account", takes ServiceAccountSpec, Change ServiceAccountBody),
        route!(GET "/serviceaccounts/{name}", On(See, ServiceAccounts), serviceaccounts::get, "Show a service account", One ServiceAccountBody),
        route!(PUT "/serviceaccounts/{name}", On(Update, ServiceAccounts), serviceaccounts::replace, "Replace a service account", takes ServiceAccountSpec, Change ServiceAccountBody)
            .matching(),
        route!(PATCH "/serviceaccounts/{name}", On(Update, ServiceAccounts), serviceaccounts::change, "Change a service account", takes ServiceAccountChange, Change ServiceAccountBody)
            .matching(),
        route!(DELETE "/serviceaccounts/{name}", On(Delete, ServiceAccounts), serviceaccounts::delete, "Delete a service account with all that is its", Change Removed)
            .matching(),
        route!(POST "/serviceaccounts/{name}/sessions", On(Create, Sessions), serviceaccounts::open_session, "Open a session for a service account", takes NewSession, Change OpenedSession),
        route!(GET "/sessions", Caller, sessions::list, "List sessions", Pages SessionBody).query(&["user", "serviceAccount"]),
        route!(DELETE "/sessions/{id}", Session(Delete), sessions::close, "Close a session", Change Removed),
        route!(GET "/secrets", Some(See, Secrets), secrets::list, "List secrets", Pages SecretBody),
        route!(POST "/secrets", Some(Create, Secrets), secrets::create, "Make a secret", takes SecretSpec, Change SecretBody),
        route!(GET "/secrets/{name}", On(See, Secrets), secrets::get, "Show a secret without its values", One SecretBody),
        route!(PUT "/secrets/{name}", On(Update, Secrets), secrets::replace, "Replace a secret's values", takes SecretSpec, Change SecretBody)
            .matching(),
        route!(PATCH "/secrets/{name}", On(Update, Secrets), secrets::change, "Change some of a secret's values", takes SecretChange, Change SecretBody)
            .matching(),
        route!(DELETE "/secrets/{name}", On(Delete, Secrets), secrets::delete, "Delete a secret", Change Removed).matching(),
        route!(GET "/rbac", Some(See, Rbac), rbac::list, "List definitions", Pages RbacBody),
        route!(POST "/rbac", Some(Grant, Rbac), rbac::create, "Make a definition", takes RbacSpec, Change RbacBody),
        route!(GET "/rbac/{name}", On(See, Rbac), rbac::get, "Show a definition", One RbacBody),
        route!(PUT "/rbac/{name}", On(Grant, Rbac), rbac::replace, "Write a definition", takes RbacSpec, Change RbacBody)
            .matching(),
        route!(PATCH "/rbac/{name}", On(Grant, Rbac), rbac::change, "Change a definition", takes RbacSpec, Change RbacBody)
            .matching(),
        route!(DELETE "/rbac/{name}", On(Delete, Rbac), rbac::delete, "Delete a definition", Change Removed).matching(),
        route!(GET "/servers", Some(See, Servers), servers::list, "List servers", Pages ServerBody),
        route!(POST "/servers", Some(Create, Servers), servers::create, "Make a server", takes ServerSpecBody, Change ServerBody),
        route!(GET "/servers/{name}", On(See, Servers), servers::get, "Show a server", One ServerBody),
        route!(PUT "/servers/{name}", On(Update, Servers), servers::replace, "Replace a server", takes ServerSpecBody, Change ServerBody)
            .matching(),
        route!(PATCH "/servers/{name}", On(Update, Servers), servers::change, "Change a server", takes ServerSpecBody, Change ServerBody)
            .matching(),
        route!(DELETE "/servers/{name}", On(Delete, Servers), servers::delete, "Delete a server", Change Removed).matching(),
        route!(GET "/servers/{name}/tools", On(See, Servers), tools::of_server, "Show what a server offers", One ServerTools),
        route!(POST "/servers/{name}/tools/approve", On(Update, Servers), tools::approve, "Let changed tools of a pinned server in", takes ToolApprovals, Change ServerTools),
        route!(GET "/servers/{name}/logs", Logs, logs::of_server, "Show what a server's children have written to their stderr", One ServerLogs)
            .query(&["tail", "sinceSeconds", "node", "after"]),
        route!(GET "/projects", Some(See, Projects), projects::list, "List projects", Pages ProjectBody),
        route!(POST "/projects", Some(Create, Projects), projects::create, "Make a project", takes ProjectSpecBody, Change ProjectBody),
        route!(GET "/projects/{name}", On(See, Projects), projects::get, "Show a project", One ProjectBody),
        route!(PUT "/projects/{name}", On(Update, Projects), projects::replace, "Replace a project", takes ProjectSpecBody, Change ProjectBody)
            .matching(),
        route!(PATCH "/projects/{name}", On(Update, Projects), projects::change, "Change a project", takes ProjectChange, Change ProjectBody)
            .matching(),
        route!(DELETE "/projects/{name}", On(Delete, Projects), projects::delete, "Delete a project and its tokens", Change Removed)
            .matching(),
        route!(GET "/projects/{name}/servers", On(See, Projects), servers::of_project, "List a project's servers", Pages ServerBody),
        route!(GET "/projects/{name}/tools", On(See, Projects), tools::of_project, "List a project's tools", Pages ProjectTool),
        route!(GET "/mcptokens", Caller, mcptokens::list, "List tokens", Pages McpTokenBody)
            .query(&["project", "name", "status"]),
        route!(POST "/mcptokens", Some(Create, McpTokens), mcptokens::create, "Make a token", takes NewMcpToken, Change MintedToken),
        route!(GET "/mcptokens/introspect", Caller, mcptokens::introspect, "Tell a token what it is", One Introspection),
        route!(GET "/mcptokens/{id}", Token(See), mcptokens::get, "Show a token", One McpTokenBody),
        route!(POST "/mcptokens/{id}/revoke", Token(Delete), mcptokens::revoke, "Revoke a token and keep its record", Change Removed),
        route!(DELETE "/mcptokens/{id}", Token(Delete), mcptokens::delete, "Revoke a token and remove it", Change Removed),
    ]
};
