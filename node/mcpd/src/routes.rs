//! The one table of routes: method, path, the right that a caller needs, and who answers.
//!
//! Admission reads it, the tests walk over it, and nothing is served that does not stand in it.

use std::fmt;

use http::Method;
use mcp_model::rbac::{Resource, Verb};

use crate::answer::Answer;
use crate::call::{Admitted, Call};
use crate::fault::Fault;
use crate::port::Pending;
use crate::{auth, can_i, mcptokens, nodes, projects, rbac, servers, tools, users};

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
            Right::Token(verb) => write!(
                f,
                "role:{},resource:mcptokens,name:{{project}}/{{name}}, or owning it",
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

/// One route.
pub struct Route {
    method: Method,
    path: &'static str,
    pub(crate) access: Access,
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
}

/// A route's line in the table.
macro_rules! route {
    ($method:ident $path:literal, Open, $handler:path) => {
        Route {
            method: Method::$method,
            path: concat!("/api/v1", $path),
            access: Access::Open(|call| Box::pin($handler(call))),
        }
    };
    ($method:ident $path:literal, $right:expr, $handler:path) => {
        Route {
            method: Method::$method,
            path: concat!("/api/v1", $path),
            access: Access::For($right, |call| Box::pin($handler(call))),
        }
    };
}

/// Every route of `/api/v1`.
pub static ROUTES: &[Route] = &{
    use Resource::{McpTokens, Nodes, Projects, Rbac, Servers, Users};
    use Right::{Caller, On, Some, Token};
    use Verb::{Create, Delete, See, Update};
    [
        route!(POST "/auth/login", Open, auth::login),
        route!(POST "/auth/logout", Caller, auth::logout),
        route!(GET "/auth/whoami", Caller, auth::whoami),
        route!(GET "/auth/can-i", Caller, can_i::can_i),
        route!(GET "/version", Caller, nodes::version),
        route!(GET "/cluster/status", Some(See, Nodes), nodes::status),
        route!(GET "/nodes", Some(See, Nodes), nodes::list),
        route!(GET "/nodes/{name}", On(See, Nodes), nodes::get),
        route!(GET "/users", Some(See, Users), users::list),
        route!(POST "/users", Some(Create, Users), users::create),
        route!(GET "/users/{name}", On(See, Users), users::get),
        route!(PATCH "/users/{name}", On(Update, Users), users::change),
        route!(GET "/rbac", Some(See, Rbac), rbac::list),
        route!(POST "/rbac", Some(Create, Rbac), rbac::create),
        route!(GET "/rbac/{name}", On(See, Rbac), rbac::get),
        route!(PUT "/rbac/{name}", On(Update, Rbac), rbac::replace),
        route!(DELETE "/rbac/{name}", On(Delete, Rbac), rbac::delete),
        route!(GET "/servers", Some(See, Servers), servers::list),
        route!(POST "/servers", Some(Create, Servers), servers::create),
        route!(GET "/servers/{name}", On(See, Servers), servers::get),
        route!(PUT "/servers/{name}", On(Update, Servers), servers::replace),
        route!(DELETE "/servers/{name}", On(Delete, Servers), servers::delete),
        route!(GET "/servers/{name}/tools", On(See, Servers), tools::of_server),
        route!(GET "/projects", Some(See, Projects), projects::list),
        route!(POST "/projects", Some(Create, Projects), projects::create),
        route!(GET "/projects/{name}", On(See, Projects), projects::get),
        route!(PUT "/projects/{name}", On(Update, Projects), projects::replace),
        route!(PATCH "/projects/{name}", On(Update, Projects), projects::change),
        route!(DELETE "/projects/{name}", On(Delete, Projects), projects::delete),
        route!(GET "/projects/{name}/servers", On(See, Projects), servers::of_project),
        route!(GET "/projects/{name}/tools", On(See, Projects), tools::of_project),
        route!(GET "/mcptokens", Caller, mcptokens::list),
        route!(POST "/mcptokens", Some(Create, McpTokens), mcptokens::create),
        route!(GET "/mcptokens/introspect", Caller, mcptokens::introspect),
        route!(GET "/mcptokens/{id}", Token(See), mcptokens::get),
        route!(POST "/mcptokens/{id}/revoke", Token(Delete), mcptokens::revoke),
        route!(DELETE "/mcptokens/{id}", Token(Delete), mcptokens::delete),
    ]
};
