//! The words of a grant: resources, roles and the verbs that they allow, actions.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::BindingError;

/// What a right is held on. Append-only: its position is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the variants are the resources' own names")]
pub enum Resource {
    Users,
    Groups,
    ServiceAccounts,
    Projects,
    Servers,
    Tools,
    Secrets,
    McpTokens,
    Rbac,
    Audit,
    Nodes,
    Prompts,
    ProxyModels,
    Sessions,
    /// Every resource.
    Any,
}

/// Every resource with its plural name and the other forms that are read for it.
const RESOURCES: [(Resource, &str, &[&str]); 15] = [
    (Resource::Users, "users", &["user"]),
    (Resource::Groups, "groups", &["group"]),
    (Resource::ServiceAccounts, "serviceaccounts", &["serviceaccount", "sa"]),
    (Resource::Projects, "projects", &["project", "proj"]),
    (Resource::Servers, "servers", &["server", "srv"]),
    (Resource::Tools, "tools", &["tool"]),
    (Resource::Secrets, "secrets", &["secret"]),
    (Resource::McpTokens, "mcptokens", &["mcptoken", "token", "tokens"]),
    (Resource::Rbac, "rbac", &["rbacs"]),
    (Resource::Audit, "audit", &[]),
    (Resource::Nodes, "nodes", &["node"]),
    (Resource::Prompts, "prompts", &["prompt"]),
    (Resource::ProxyModels, "proxymodels", &["proxymodel"]),
    (Resource::Sessions, "sessions", &["session"]),
    (Resource::Any, "*", &[]),
];

impl Resource {
    /// The plural name, as in YAML and paths.
    pub fn as_str(self) -> &'static str {
        RESOURCES
            .iter()
            .find(|(r, ..)| *r == self)
            .map_or("?", |(_, name, _)| name)
    }
}

/// What a role binding lets its subject do with a resource. Append-only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Get, list, watch.
    View,
    /// View and use: call a server's tools, read its resources, get its prompts.
    Run,
    /// Create, and nothing else.
    Create,
    /// Delete, and nothing else.
    Delete,
    /// View, run, create, change, delete.
    Edit,
    /// Edit, and grant what one holds oneself.
    Admin,
}

const ROLES: [(Role, &str); 6] = [
    (Role::View, "view"),
    (Role::Run, "run"),
    (Role::Create, "create"),
    (Role::Delete, "delete"),
    (Role::Edit, "edit"),
    (Role::Admin, "admin"),
];

/// What somebody is about to do. Roles are sets of these.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Verb {
    /// Get, list, watch.
    See,
    /// Call, read, get through the gateway.
    Use,
    /// Make a new one.
    Create,
    /// Change one.
    Update,
    /// Remove one.
    Delete,
    /// Hand the other rights on.
    Grant,
}

impl Role {
    /// The verbs that the role allows.
    pub const fn verbs(self) -> &'static [Verb] {
        match self {
            Role::View => &[Verb::See],
            Role::Run => &[Verb::See, Verb::Use],
            Role::Create => &[Verb::Create],
            Role::Delete => &[Verb::Delete],
            Role::Edit => &[Verb::See, Verb::Use, Verb::Create, Verb::Update, Verb::Delete],
            Role::Admin => &[
                Verb::See,
                Verb::Use,
                Verb::Create,
                Verb::Update,
                Verb::Delete,
                Verb::Grant,
            ],
        }
    }

    /// The role's name.
    pub fn as_str(self) -> &'static str {
        ROLES.iter().find(|(r, _)| *r == self).map_or("?", |(_, name)| name)
    }
}

impl Verb {
    /// The weakest role that has the verb: what a refusal tells its reader to ask for.
    pub const fn least_role(self) -> Role {
        match self {
            Verb::See => Role::View,
            Verb::Use => Role::Run,
            Verb::Create => Role::Create,
            Verb::Update => Role::Edit,
            Verb::Delete => Role::Delete,
            Verb::Grant => Role::Admin,
        }
    }
}

/// A right that is not about a resource. Append-only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Action {
    /// Read servers' logs.
    Logs,
    /// Save a backup.
    Backup,
    /// Restore one. Counts as `admin` on everything.
    Restore,
    /// Change the cluster's membership.
    Cluster,
    /// Decide which commands run on the nodes.
    Exec,
    /// Every action.
    Any,
}

const ACTIONS: [(Action, &str); 6] = [
    (Action::Logs, "logs"),
    (Action::Backup, "backup"),
    (Action::Restore, "restore"),
    (Action::Cluster, "cluster"),
    (Action::Exec, "exec"),
    (Action::Any, "*"),
];

impl Action {
    /// The action's name.
    pub fn as_str(self) -> &'static str {
        ACTIONS.iter().find(|(a, _)| *a == self).map_or("?", |(_, name)| name)
    }
}

impl FromStr for Resource {
    type Err = BindingError;

    fn from_str(text: &str) -> Result<Resource, BindingError> {
        let found = RESOURCES
            .iter()
            .find(|(_, name, others)| *name == text || others.contains(&text));
        found
            .map(|(r, ..)| *r)
            .ok_or_else(|| BindingError::UnknownResource(text.to_owned()))
    }
}

impl FromStr for Role {
    type Err = BindingError;

    fn from_str(text: &str) -> Result<Role, BindingError> {
        let found = ROLES.iter().find(|(_, name)| *name == text);
        found
            .map(|(r, _)| *r)
            .ok_or_else(|| BindingError::UnknownRole(text.to_owned()))
    }
}

impl FromStr for Action {
    type Err = BindingError;

    fn from_str(text: &str) -> Result<Action, BindingError> {
        let found = ACTIONS.iter().find(|(_, name)| *name == text);
        found
            .map(|(a, _)| *a)
            .ok_or_else(|| BindingError::UnknownAction(text.to_owned()))
    }
}
