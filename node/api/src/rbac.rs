//! Role bindings, subjects and definitions.

use mcp_model::rbac::{BindingError, RoleBinding, Subject};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One line of a grant: `{role, resource[, name]}` or `{action}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RoleBindingBody {
    /// `view`, `run`, `create`, `delete`, `edit` or `admin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// On what: `servers`, `projects`, `tools`, `mcptokens`, … or `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// On which of them; nothing: on all. May end in `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Instead of the three: `logs`, `backup`, `restore`, `cluster`, `exec` or `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}

impl From<&RoleBinding> for RoleBindingBody {
    fn from(binding: &RoleBinding) -> RoleBindingBody {
        match binding {
            RoleBinding::On { role, resource, name } => RoleBindingBody {
                role: Some(role.as_str().to_owned()),
                resource: Some(resource.as_str().to_owned()),
                name: name.as_ref().map(ToString::to_string),
                action: None,
            },
            RoleBinding::Action(action) => RoleBindingBody {
                action: Some(action.as_str().to_owned()),
                ..RoleBindingBody::default()
            },
        }
    }
}

impl RoleBindingBody {
    /// Reads the command line's form: `role:edit,resource:servers,name:my-*` or `action:logs`.
    pub fn parse(text: &str) -> Result<RoleBindingBody, BindingError> {
        text.parse::<RoleBinding>().map(|b| RoleBindingBody::from(&b))
    }

    /// The binding that this says.
    pub fn read(&self) -> Result<RoleBinding, BindingError> {
        let (role, resource) = (self.role.as_deref(), self.resource.as_deref());
        RoleBinding::from_parts(role, resource, self.name.as_deref(), self.action.as_deref())
    }
}

/// The command line's form.
impl std::fmt::Display for RoleBindingBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            ("role", &self.role),
            ("resource", &self.resource),
            ("name", &self.name),
            ("action", &self.action),
        ];
        let given = parts
            .iter()
            .filter_map(|(key, value)| Some(format!("{key}:{}", value.as_ref()?)));
        f.write_str(&given.collect::<Vec<_>>().join(","))
    }
}

/// Who is granted something: `{kind: User, name: alice@test.com}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SubjectBody {
    /// `User`, `Group`, `ServiceAccount` or `McpToken`.
    pub kind: String,
    /// E-mail, name, or SHA-256 of the token.
    pub name: String,
}

impl From<&Subject> for SubjectBody {
    fn from(subject: &Subject) -> SubjectBody {
        let (kind, name) = match subject {
            Subject::User(email) => ("User", email.to_string()),
            Subject::Group(name) => ("Group", name.to_string()),
            Subject::ServiceAccount(name) => ("ServiceAccount", name.to_string()),
            Subject::McpToken(hash) => ("McpToken", hash.to_string()),
        };
        SubjectBody {
            kind: kind.to_owned(),
            name,
        }
    }
}

impl SubjectBody {
    /// Reads the command line's form: `User:alice@test.com`.
    pub fn parse(text: &str) -> Result<SubjectBody, BindingError> {
        text.parse::<Subject>().map(|s| SubjectBody::from(&s))
    }

    /// The subject that this says.
    pub fn read(&self) -> Result<Subject, BindingError> {
        format!("{}:{}", self.kind, self.name).parse()
    }
}

/// A definition to write.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RbacSpec {
    /// Its name. In a PUT it stands in the path and may be left out here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Who is granted it.
    pub subjects: Vec<SubjectBody>,
    /// What they are granted.
    pub role_bindings: Vec<RoleBindingBody>,
}

/// A definition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RbacBody {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Who is granted it.
    pub subjects: Vec<SubjectBody>,
    /// What they are granted.
    pub role_bindings: Vec<RoleBindingBody>,
    /// When it was made.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// Log index of its last change, as a decimal string.
    pub resource_version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_have_one_form_in_bodies_and_on_the_command_line() {
        for text in [
            "role:edit,resource:servers",
            "role:view,resource:servers,name:my-ha",
            "action:logs",
        ] {
            let body = RoleBindingBody::parse(text).unwrap();
            assert_eq!(body.to_string(), text);
            assert_eq!(RoleBindingBody::from(&body.read().unwrap()), body);
        }
        let json = serde_json::to_string(&RoleBindingBody::parse("action:logs").unwrap()).unwrap();
        assert_eq!(json, r#"{"action":"logs"}"#);
        assert_eq!(
            SubjectBody::parse("User:Alice@Test.com").unwrap().name,
            "alice@test.com"
        );
    }
}
