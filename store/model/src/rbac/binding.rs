//! One line of a grant, and how people write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Action, Pattern, Resource, Role};

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
