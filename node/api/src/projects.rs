//! Projects.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::{ProjectLimitsBody, is_default};

/// A project to make, or all that is written about one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProjectSpecBody {
    /// Its name. In a PUT it stands in the path and may be left out here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// For people.
    pub description: String,
    /// Names of the attached servers, in the order in which they are listed.
    pub servers: Vec<String>,
    /// Has an effect once gated sessions exist.
    pub gated: bool,
    /// Kept for the original's files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_model: Option<String>,
    /// `prefixed` or `plain`.
    pub tool_naming: String,
    /// Told to clients that connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// What its tokens may use.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: ProjectLimitsBody,
    /// Whether its clients may speak HTTP+SSE of 2024-11-05, with the token as the password in a URL: URLs are kept in more places
    /// than headers are.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_sse: bool,
}

impl Default for ProjectSpecBody {
    fn default() -> ProjectSpecBody {
        ProjectSpecBody {
            name: String::new(),
            description: String::new(),
            servers: Vec::new(),
            gated: true,
            proxy_model: None,
            tool_naming: "prefixed".to_owned(),
            instructions: None,
            limits: ProjectLimitsBody::default(),
            allow_sse: false,
        }
    }
}

/// What is to change of a project: what is left out stays.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProjectChange {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Names of the attached servers, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers: Option<Vec<String>>,
    /// Has an effect once gated sessions exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gated: Option<bool>,
    /// Kept for the original's files. An empty text takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_model: Option<String>,
    /// `prefixed` or `plain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_naming: Option<String>,
    /// Told to clients that connect. An empty text takes them away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// What its tokens may use: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<ProjectLimitsBody>,
    /// Whether its clients may speak HTTP+SSE of 2024-11-05, with the token as the password in a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_sse: Option<bool>,
}

/// A project.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProjectBody {
    /// Its id.
    pub id: String,
    /// In its URL.
    pub name: String,
    /// For people.
    pub description: String,
    /// Names of the attached servers.
    pub servers: Vec<String>,
    /// Has an effect once gated sessions exist.
    pub gated: bool,
    /// Kept for the original's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_model: Option<String>,
    /// `prefixed` or `plain`.
    pub tool_naming: String,
    /// Told to clients that connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// What its tokens may use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: ProjectLimitsBody,
    /// What somebody should look at; none where all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ConditionBody>,
    /// Whether its clients may speak HTTP+SSE of 2024-11-05, with the token as the password in a URL.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_sse: bool,
    /// When it was made.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// Log index of its last change, as a decimal string.
    pub resource_version: String,
}

/// Something about a project that somebody should look at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConditionBody {
    /// `NameCollision`, `ServerUnhealthy`, `ToolsHeld`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is about, in a sentence.
    pub message: String,
}

/// A tool as the clients of a project see it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProjectTool {
    /// Under the project's naming.
    pub name: String,
    /// The server that has it.
    pub server: String,
    /// Its name there.
    pub tool: String,
    /// As the server describes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it is kept back until somebody approves it.
    #[serde(default)]
    pub held: bool,
}
