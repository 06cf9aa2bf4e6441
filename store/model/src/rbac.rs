//! Roles, resources, patterns and bindings: what a grant says and what it covers. Denied unless granted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{Email, Name};
use crate::token::TokenHash;

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

/// Which names a binding is about: one, or all that begin alike (`list_*`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Pattern {
    text: String,
    open: bool,
}

/// Longest pattern: two names, a slash and room for a tool's name.
pub const PATTERN_BYTES_MAX: usize = 256;

impl Pattern {
    /// Reads `name`, `prefix*` or `*`.
    pub fn parse(text: &str) -> Result<Pattern, BindingError> {
        let open = text.ends_with('*');
        let text = text.strip_suffix('*').unwrap_or(text);
        if text.contains('*') {
            return Err(BindingError::StarInside);
        }
        if text.len() > PATTERN_BYTES_MAX || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(BindingError::BadName);
        }
        let text = text.to_owned();
        Ok(Pattern { text, open })
    }

    /// The same for what servers offer: `server__tool` is read as `server/tool`.
    fn parse_offered(text: &str) -> Result<Pattern, BindingError> {
        let mut pattern = Pattern::parse(text)?;
        if !pattern.text.contains('/') {
            pattern.text = pattern.text.replacen("__", "/", 1);
        }
        Ok(pattern)
    }

    /// Whether `name` is one of these names.
    pub fn matches(&self, name: &str) -> bool {
        if self.open {
            name.starts_with(&self.text)
        } else {
            name == self.text
        }
    }

    /// Whether every name of `other` is one of these.
    pub fn covers(&self, other: &Pattern) -> bool {
        if self.open {
            other.text.starts_with(&self.text)
        } else {
            !other.open && other.text == self.text
        }
    }

    /// The part before the first `/`, as a pattern of servers: what `tools: server/tool` says about servers.
    fn server_part(&self) -> Pattern {
        match self.text.split_once('/') {
            Some((server, _)) => Pattern {
                text: server.to_owned(),
                open: false,
            },
            None => self.clone(),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.open { "*" } else { "" })
    }
}

/// One line of a grant. Append-only.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum RoleBinding {
    /// A role on a resource, on all of its names or on some.
    On {
        /// What may be done.
        role: Role,
        /// With what.
        resource: Resource,
        /// With which of them; `None`: with all.
        name: Option<Pattern>,
    },
    /// An action.
    Action(Action),
}

/// Why a text is no role binding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum BindingError {
    #[error("a role binding must not be empty: write role:ROLE,resource:RESOURCE[,name:NAME] or action:ACTION")]
    Empty,
    #[error("{0:?} is not key:value: write role:ROLE,resource:RESOURCE[,name:NAME] or action:ACTION")]
    NotAPair(String),
    #[error("{0:?} has no value")]
    EmptyValue(String),
    #[error("unknown key {0:?}: the keys are role, resource, name and action")]
    UnknownKey(String),
    #[error("{0:?} is given twice")]
    Twice(String),
    #[error("a role is missing: add role:view, run, create, delete, edit or admin")]
    MissingRole,
    #[error("a resource is missing: add resource:servers, for example")]
    MissingResource,
    #[error("action stands alone: it cannot be combined with role, resource or name")]
    ActionWithOthers,
    #[error("unknown role {0:?}: the roles are view, run, create, delete, edit, admin")]
    UnknownRole(String),
    #[error(
        "unknown resource {0:?}: the resources are users, groups, serviceaccounts, projects, servers, tools, secrets, \
         mcptokens, rbac, audit, nodes, prompts, proxymodels, sessions and *"
    )]
    UnknownResource(String),
    #[error("unknown action {0:?}: the actions are logs, backup, restore, cluster, exec and *")]
    UnknownAction(String),
    #[error("* may stand only at the end of a name")]
    StarInside,
    #[error("a name in a binding has at most 256 characters and no spaces or control characters")]
    BadName,
    #[error("{0:?} is not a subject: write User:EMAIL, Group:NAME, ServiceAccount:NAME or McpToken:SHA256")]
    BadSubject(String),
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

impl RoleBinding {
    /// A role on every name of a resource.
    pub const fn all(role: Role, resource: Resource) -> RoleBinding {
        RoleBinding::On {
            role,
            resource,
            name: None,
        }
    }

    /// From the parts that YAML and JSON name.
    pub fn from_parts(
        role: Option<&str>,
        resource: Option<&str>,
        name: Option<&str>,
        action: Option<&str>,
    ) -> Result<RoleBinding, BindingError> {
        if let Some(action) = action {
            if role.is_some() || resource.is_some() || name.is_some() {
                return Err(BindingError::ActionWithOthers);
            }
            return action.parse().map(RoleBinding::Action);
        }
        let role = role.ok_or(BindingError::MissingRole)?.parse()?;
        let resource = resource.ok_or(BindingError::MissingResource)?.parse()?;
        let parse = match resource {
            Resource::Tools | Resource::Prompts => Pattern::parse_offered,
            _ => Pattern::parse,
        };
        let name = name.map(parse).transpose()?;
        Ok(RoleBinding::On { role, resource, name })
    }
}

/// Reads the command line's form: `role:edit,resource:servers,name:my-*` or `action:logs`. Spaces around parts are dropped.
impl FromStr for RoleBinding {
    type Err = BindingError;

    fn from_str(text: &str) -> Result<RoleBinding, BindingError> {
        if text.trim().is_empty() {
            return Err(BindingError::Empty);
        }
        let keys = ["role", "resource", "name", "action"];
        let mut parts: [Option<&str>; 4] = [None; 4];
        for pair in text.split(',').map(str::trim) {
            let (key, value) = pair
                .split_once(':')
                .ok_or_else(|| BindingError::NotAPair(pair.to_owned()))?;
            let (key, value) = (key.trim(), value.trim());
            let slot = keys
                .iter()
                .position(|k| *k == key)
                .ok_or_else(|| BindingError::UnknownKey(key.to_owned()))?;
            if value.is_empty() {
                return Err(BindingError::EmptyValue(key.to_owned()));
            }
            if parts[slot].replace(value).is_some() {
                return Err(BindingError::Twice(key.to_owned()));
            }
        }
        let [role, resource, name, action] = parts;
        RoleBinding::from_parts(role, resource, name, action)
    }
}

impl fmt::Display for RoleBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoleBinding::On {
                role,
                resource,
                name: None,
            } => {
                write!(f, "role:{},resource:{}", role.as_str(), resource.as_str())
            }
            RoleBinding::On {
                role,
                resource,
                name: Some(name),
            } => {
                write!(f, "role:{},resource:{},name:{name}", role.as_str(), resource.as_str())
            }
            RoleBinding::Action(action) => write!(f, "action:{}", action.as_str()),
        }
    }
}

/// Who a definition grants to. Append-only.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Subject {
    /// A person.
    User(Email),
    /// Everybody in a group.
    Group(Name),
    /// A program with sessions of its own.
    ServiceAccount(Name),
    /// One token, by the hash of its bearer.
    McpToken(TokenHash),
}

impl FromStr for Subject {
    type Err = BindingError;

    fn from_str(text: &str) -> Result<Subject, BindingError> {
        let bad = || BindingError::BadSubject(text.to_owned());
        let (kind, name) = text.split_once(':').ok_or_else(bad)?;
        match kind.trim() {
            "User" => Email::parse(name.trim()).map(Subject::User).map_err(|_| bad()),
            "Group" => Name::parse(name.trim()).map(Subject::Group).map_err(|_| bad()),
            "ServiceAccount" => Name::parse(name.trim()).map(Subject::ServiceAccount).map_err(|_| bad()),
            "McpToken" => TokenHash::from_hex(name.trim()).map(Subject::McpToken).ok_or_else(bad),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::User(email) => write!(f, "User:{email}"),
            Subject::Group(name) => write!(f, "Group:{name}"),
            Subject::ServiceAccount(name) => write!(f, "ServiceAccount:{name}"),
            Subject::McpToken(hash) => write!(f, "McpToken:{hash}"),
        }
    }
}

/// Everything that one subject was granted. An empty one denies.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Grants {
    bindings: Vec<RoleBinding>,
}

impl FromIterator<RoleBinding> for Grants {
    fn from_iter<I: IntoIterator<Item = RoleBinding>>(bindings: I) -> Grants {
        Grants {
            bindings: bindings.into_iter().collect(),
        }
    }
}

impl Grants {
    /// The single bindings.
    pub fn bindings(&self) -> &[RoleBinding] {
        &self.bindings
    }

    /// The single bindings, to be gathered with others.
    pub fn into_bindings(self) -> Vec<RoleBinding> {
        self.bindings
    }

    /// Whether nothing at all was granted.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    /// Whether `verb` is granted on this one `name` of `resource`.
    pub fn allow(&self, verb: Verb, resource: Resource, name: &str) -> bool {
        self.bindings.iter().any(|b| binding_allows(b, verb, resource, name))
    }

    /// Whether `verb` is granted on any name of `resource`: whether a list can hold anything at all.
    pub fn allow_some(&self, verb: Verb, resource: Resource) -> bool {
        self.bindings.iter().any(|b| match b {
            RoleBinding::On { role, resource: on, .. } => {
                role.verbs().contains(&verb) && (*on == resource || *on == Resource::Any)
            }
            RoleBinding::Action(_) => false,
        })
    }

    /// Whether the action is granted.
    pub fn allow_action(&self, action: Action) -> bool {
        let holds = |b: &RoleBinding| matches!(b, RoleBinding::Action(held) if *held == action || *held == Action::Any);
        self.bindings.iter().any(holds)
    }

    /// Whether this holds everything that `wanted` would give: verb by verb, pattern by pattern. The creator's ceiling.
    pub fn cover(&self, wanted: &RoleBinding) -> bool {
        match wanted {
            // Who restores a backup decides about everything: it counts as `admin *`, also where it is one of all actions.
            RoleBinding::Action(action @ (Action::Restore | Action::Any)) => {
                self.allow_action(*action) && self.is_admin_of_all()
            }
            RoleBinding::Action(action) => self.allow_action(*action),
            RoleBinding::On { role, resource, name } => role
                .verbs()
                .iter()
                .all(|verb| self.bindings.iter().any(|b| binding_covers(b, *verb, *resource, name))),
        }
    }

    /// Whether `admin` on everything was granted.
    pub fn is_admin_of_all(&self) -> bool {
        let all = |b: &RoleBinding| matches!(b, RoleBinding::On { role: Role::Admin, resource: Resource::Any, name } if covers_all(name.as_ref()));
        self.bindings.iter().any(all)
    }
}

fn covers_all(name: Option<&Pattern>) -> bool {
    name.is_none_or(|p| p.open && p.text.is_empty())
}

fn binding_allows(binding: &RoleBinding, verb: Verb, resource: Resource, name: &str) -> bool {
    let RoleBinding::On {
        role,
        resource: on,
        name: pattern,
    } = binding
    else {
        return false;
    };
    if !role.verbs().contains(&verb) {
        return false;
    }
    let matches = |name: &str| pattern.as_ref().is_none_or(|p| p.matches(name));
    if (*on == resource || *on == Resource::Any) && matches(name) {
        return true;
    }
    // What is granted on a server holds for what the server offers.
    let server = name.split_once('/').map_or(name, |(server, _)| server);
    matches!(on, Resource::Servers | Resource::Any) && of_a_server(resource, verb) && matches(server)
}

fn binding_covers(binding: &RoleBinding, verb: Verb, resource: Resource, wanted: &Option<Pattern>) -> bool {
    let RoleBinding::On {
        role,
        resource: on,
        name: pattern,
    } = binding
    else {
        return false;
    };
    if !role.verbs().contains(&verb) {
        return false;
    }
    let covers = |wanted: Option<&Pattern>| match (pattern, wanted) {
        (None, _) => true,
        (held, None) => covers_all(held.as_ref()),
        (Some(held), Some(wanted)) => held.covers(wanted),
    };
    if (*on == resource || *on == Resource::Any) && covers(wanted.as_ref()) {
        return true;
    }
    matches!(on, Resource::Servers | Resource::Any)
        && of_a_server(resource, verb)
        && covers(wanted.as_ref().map(Pattern::server_part).as_ref())
}

fn of_a_server(resource: Resource, verb: Verb) -> bool {
    matches!(resource, Resource::Tools | Resource::Prompts) && matches!(verb, Verb::See | Verb::Use)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(lines: &[&str]) -> Grants {
        lines.iter().map(|l| l.parse::<RoleBinding>().unwrap()).collect()
    }

    #[test]
    fn bindings_are_read_and_written_in_one_form() {
        for text in [
            "role:edit,resource:servers",
            "role:view,resource:servers,name:my-ha",
            "action:logs",
            "role:admin,resource:*",
        ] {
            assert_eq!(text.parse::<RoleBinding>().unwrap().to_string(), text);
        }
        let spaced: RoleBinding = " role : run , resource : tool , name : github__list_* "
            .parse()
            .unwrap();
        assert_eq!(spaced.to_string(), "role:run,resource:tools,name:github/list_*");
    }

    #[test]
    fn each_fault_of_a_binding_has_its_own_message() {
        let cases = [
            ("", BindingError::Empty),
            ("  ", BindingError::Empty),
            ("role", BindingError::NotAPair("role".into())),
            ("role:", BindingError::EmptyValue("role".into())),
            ("role:view,colour:red", BindingError::UnknownKey("colour".into())),
            ("role:view,role:edit", BindingError::Twice("role".into())),
            ("resource:servers", BindingError::MissingRole),
            ("role:view", BindingError::MissingResource),
            ("action:logs,role:view", BindingError::ActionWithOthers),
            ("action:logs,name:x", BindingError::ActionWithOthers),
            ("role:king,resource:servers", BindingError::UnknownRole("king".into())),
            (
                "role:view,resource:things",
                BindingError::UnknownResource("things".into()),
            ),
            ("action:dance", BindingError::UnknownAction("dance".into())),
            ("role:view,resource:servers,name:a*b", BindingError::StarInside),
        ];
        for (text, why) in cases {
            assert_eq!(text.parse::<RoleBinding>(), Err(why), "{text:?}");
        }
    }

    #[test]
    fn nothing_is_allowed_unless_granted() {
        let none = Grants::default();
        assert!(!none.allow(Verb::See, Resource::Servers, "git"));
        let one = grants(&["role:view,resource:servers,name:my-ha"]);
        assert!(one.allow(Verb::See, Resource::Servers, "my-ha"));
        assert!(!one.allow(Verb::See, Resource::Servers, "my-ha2"));
        assert!(!one.allow(Verb::Use, Resource::Servers, "my-ha"));
        assert!(!one.allow(Verb::See, Resource::Secrets, "my-ha"));
        assert!(!one.allow_action(Action::Logs));
    }

    #[test]
    fn a_right_on_a_server_holds_for_its_tools_and_not_the_other_way() {
        let server = grants(&["role:run,resource:servers,name:github"]);
        assert!(server.allow(Verb::Use, Resource::Tools, "github/list_issues"));
        assert!(!server.allow(Verb::Use, Resource::Tools, "gitlab/list_issues"));
        let tools = grants(&["role:run,resource:tools,name:github/list_*"]);
        assert!(tools.allow(Verb::Use, Resource::Tools, "github/list_issues"));
        assert!(!tools.allow(Verb::Use, Resource::Tools, "github/delete_repo"));
        assert!(!tools.allow(Verb::Use, Resource::Servers, "github"));
        let anything = grants(&["role:run,resource:*,name:github"]);
        assert!(anything.allow(Verb::Use, Resource::Tools, "github/list_issues"));
        assert!(!anything.allow(Verb::Use, Resource::Tools, "gitlab/list_issues"));
        let edit = grants(&["role:delete,resource:servers"]);
        assert!(!edit.allow(Verb::Delete, Resource::Tools, "github/x"));
    }

    #[test]
    fn the_ceiling_is_containment_of_verbs_and_patterns() {
        let cases = [
            (&["role:edit,resource:servers"][..], "role:run,resource:servers", true),
            (&["role:run,resource:servers"], "role:edit,resource:servers", false),
            (
                &["role:run,resource:servers,name:git*"],
                "role:run,resource:servers,name:github",
                true,
            ),
            (
                &["role:run,resource:servers,name:git*"],
                "role:run,resource:servers,name:gi*",
                false,
            ),
            (
                &["role:run,resource:servers,name:git*"],
                "role:run,resource:servers",
                false,
            ),
            (&["role:run,resource:servers,name:*"], "role:run,resource:servers", true),
            (
                &["role:run,resource:servers,name:git"],
                "role:run,resource:servers,name:git*",
                false,
            ),
            (
                &["role:run,resource:servers,name:git"],
                "role:run,resource:tools,name:git/list_*",
                true,
            ),
            (
                &["role:run,resource:servers,name:git"],
                "role:run,resource:tools,name:git*",
                false,
            ),
            (
                &["role:run,resource:servers,name:git*"],
                "role:run,resource:tools,name:git*",
                true,
            ),
            (&["role:run,resource:servers"], "role:run,resource:*", false),
            (&["role:edit,resource:*"], "role:admin,resource:servers", false),
            (&["role:admin,resource:*"], "role:admin,resource:rbac", true),
            (
                &["role:view,resource:servers", "role:create,resource:servers"],
                "role:edit,resource:servers",
                false,
            ),
            (&["action:logs"], "action:exec", false),
            (&["action:*"], "action:exec", true),
            (&["action:*"], "action:*", false),
            (&["action:*", "role:admin,resource:*"], "action:*", true),
            (&["action:exec"], "action:*", false),
            (&["action:*"], "action:restore", false),
            (&["action:*", "role:admin,resource:*"], "action:restore", true),
        ];
        for (held, wanted, expected) in cases {
            assert_eq!(
                grants(held).cover(&wanted.parse().unwrap()),
                expected,
                "{held:?} covers {wanted}"
            );
        }
    }

    #[test]
    fn subjects_read_back() {
        let sha = TokenHash::of("x").to_string();
        for text in [
            "User:alice@test.com",
            "Group:devs",
            "ServiceAccount:ci",
            &format!("McpToken:{sha}"),
        ] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        for bad in ["alice", "User:", "user:alice@test.com", "Group:A B", "McpToken:12"] {
            assert!(bad.parse::<Subject>().is_err(), "{bad}");
        }
    }
}
