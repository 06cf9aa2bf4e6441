//! What is shown of projects, servers, tokens and nodes.

use mcp_api::nodes::NodeBody;
use mcp_api::projects::ProjectBody;
use mcp_api::servers::ServerBody;
use mcp_api::tokens::McpTokenBody;

use super::words::{at, bindings, by, listed, or_none};
use super::{Object, ago, ago_or};
use crate::kinds::Kind;

impl Object for ProjectBody {
    const KIND: Kind = Kind::Projects;
    const COLUMNS: &'static [&'static str] = &["NAME", "SERVERS", "TOOL NAMING", "DESCRIPTION"];
    const WIDE: &'static [&'static str] = &["CREATED", "VERSION", "ID"];
    const FIELDS: &'static [&'static str] = &[
        "description",
        "servers",
        "gated",
        "proxyModel",
        "toolNaming",
        "instructions",
        "limits",
        "allowSse",
    ];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            listed(&self.servers),
            self.tool_naming.clone(),
            self.description.clone(),
            ago(&self.created_at, now_ms),
            self.resource_version.clone(),
            self.id.clone(),
        ]
    }

    fn details(&self, now_ms: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("Description", self.description.clone()),
            ("Servers", listed(&self.servers)),
            ("Tool naming", self.tool_naming.clone()),
            ("Gated", self.gated.to_string()),
            (
                "HTTP+SSE",
                if self.allow_sse { "allowed" } else { "not allowed" }.to_owned(),
            ),
            ("Proxy model", self.proxy_model.clone().unwrap_or_default()),
            ("Instructions", self.instructions.clone().unwrap_or_default()),
            ("Limits", limits(&self.limits)),
            ("Conditions", or_none(conditions(self))),
            ("Created", by(&self.created_at, &self.created_by, now_ms)),
            ("Version", self.resource_version.clone()),
        ]
    }
}

impl Object for ServerBody {
    const KIND: Kind = Kind::Servers;
    const COLUMNS: &'static [&'static str] = &["NAME", "TRANSPORT", "HEALTH", "TOOLS", "AGE", "TARGET", "DESCRIPTION"];
    const WIDE: &'static [&'static str] = &["ASKED BY", "CREATED", "VERSION", "ID"];
    const FIELDS: &'static [&'static str] = &[
        "description",
        "transport",
        "command",
        "args",
        "env",
        "cwd",
        "url",
        "headers",
        "connectMs",
        "responseMs",
        "stateful",
        "pinTools",
        "limits",
    ];

    fn name(&self) -> String {
        self.spec.name.clone()
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        vec![
            self.spec.name.clone(),
            self.spec.transport.clone(),
            health(self),
            tools(self),
            age(self.status.fetched_at.as_ref(), now_ms),
            target(self),
            self.spec.description.clone(),
            self.status.node.clone().unwrap_or_else(|| "-".to_owned()),
            ago(&self.created_at, now_ms),
            self.resource_version.clone(),
            self.id.clone(),
        ]
    }

    fn details(&self, now_ms: u64) -> Vec<(&'static str, String)> {
        let map = |map: &std::collections::BTreeMap<String, String>, between: &str| {
            map.iter()
                .map(|(key, value)| format!("{key}{between}{value}"))
                .collect::<Vec<_>>()
                .join("\n")
        };
        vec![
            ("Name", self.spec.name.clone()),
            ("Id", self.id.clone()),
            ("Description", self.spec.description.clone()),
            ("Transport", self.spec.transport.clone()),
            ("Target", target(self)),
            ("Environment", map(&self.spec.env, "=")),
            ("Directory", self.spec.cwd.clone().unwrap_or_default()),
            ("Headers", map(&self.spec.headers, ": ")),
            ("Connect limit", format!("{} ms", self.spec.connect_ms)),
            ("Response limit", format!("{} ms", self.spec.response_ms)),
            ("Stateful", self.spec.stateful.to_string()),
            ("Pinned tools", self.spec.pin_tools.to_string()),
            ("Limits", limits(&self.spec.limits)),
            ("Process", self.status.process.clone().unwrap_or_default()),
            ("Asked by", self.status.node.clone().unwrap_or_default()),
            ("Created", by(&self.created_at, &self.created_by, now_ms)),
            ("Version", self.resource_version.clone()),
        ]
    }
}

/// `idle` where all is well and nobody uses it, so that it was stopped.
fn health(server: &ServerBody) -> String {
    match (server.status.health.as_str(), server.status.process.as_deref()) {
        ("healthy", Some("idle")) => "idle".to_owned(),
        (health, _) => health.to_owned(),
    }
}

impl Object for McpTokenBody {
    const KIND: Kind = Kind::McpTokens;
    const COLUMNS: &'static [&'static str] =
        &["NAME", "PROJECT", "PREFIX", "CREATED", "LAST USED", "EXPIRES", "STATUS"];
    const WIDE: &'static [&'static str] = &["OWNER", "BINDINGS", "ID"];
    const FIELDS: &'static [&'static str] = &["project", "description", "roleBindings", "expiresAt"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn full_name(&self) -> String {
        let project = self.project.as_deref();
        project.map_or_else(
            || format!("mcptoken/{}", self.id),
            |p| format!("mcptoken/{p}/{}", self.name),
        )
    }

    fn is_written_by_hand(&self) -> bool {
        self.status == "active"
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            self.project.clone().unwrap_or_else(|| "-".to_owned()),
            self.prefix.clone(),
            ago(&self.created_at, now_ms),
            ago_or(self.last_used_at.as_ref(), now_ms, "never"),
            ago_or(self.expires_at.as_ref(), now_ms, "never"),
            self.status.clone(),
            self.owner.clone().unwrap_or_else(|| "-".to_owned()),
            bindings(&self.role_bindings, " "),
            self.id.clone(),
        ]
    }

    fn details(&self, now_ms: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("Project", self.project.clone().unwrap_or_else(|| "gone".to_owned())),
            ("Owner", self.owner.clone().unwrap_or_else(|| "gone".to_owned())),
            ("Prefix", self.prefix.clone()),
            ("Description", self.description.clone()),
            ("Status", self.status.clone()),
            ("Bindings", or_none(bindings(&self.role_bindings, "\n"))),
            ("Created", by(&self.created_at, &self.created_by, now_ms)),
            ("Last used", at(self.last_used_at.as_ref(), now_ms)),
            ("Expires", at(self.expires_at.as_ref(), now_ms)),
            ("Revoked", at(self.revoked_at.as_ref(), now_ms)),
            ("Version", self.resource_version.clone()),
        ]
    }
}

impl Object for NodeBody {
    const KIND: Kind = Kind::Nodes;
    const COLUMNS: &'static [&'static str] = &["NAME", "ROLE", "STATE", "API", "GATEWAY"];
    const WIDE: &'static [&'static str] = &["PEER ADDRESS", "CREATED", "ID"];
    const FIELDS: &'static [&'static str] = &["peerAddress", "apiUrl", "gatewayUrl"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            self.role.clone(),
            self.state.clone(),
            self.api_url.clone(),
            self.gateway_url.clone(),
            self.peer_address.clone(),
            ago(&self.created_at, now_ms),
            self.id.clone(),
        ]
    }

    fn details(&self, now_ms: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("Role", self.role.clone()),
            ("State", self.state.clone()),
            ("API", self.api_url.clone()),
            ("Gateway", self.gateway_url.clone()),
            ("Peer address", self.peer_address.clone()),
            ("Created", ago(&self.created_at, now_ms)),
            ("Version", self.resource_version.clone()),
        ]
    }
}

fn target(server: &ServerBody) -> String {
    match (&server.spec.command, &server.spec.url) {
        (Some(command), _) => {
            let words = std::iter::once(command).chain(&server.spec.args);
            words.map(String::as_str).collect::<Vec<_>>().join(" ")
        }
        (None, Some(url)) => url.clone(),
        (None, None) => String::new(),
    }
}

/// How many tools a server lists; with those that wait for approval where there are any.
fn tools(server: &ServerBody) -> String {
    match (server.status.health.as_str(), server.status.held) {
        ("unknown", _) => "-".to_owned(),
        (_, 0) => server.status.tools.to_string(),
        (_, held) => format!("{} ({held} held)", server.status.tools),
    }
}

/// How old a list is.
fn age(fetched_at: Option<&String>, now_ms: u64) -> String {
    let ago = ago_or(fetched_at, now_ms, "-");
    ago.strip_suffix(" ago").unwrap_or(&ago).to_owned()
}

/// Limits as people write them, a line each.
fn limits(limits: &impl serde::Serialize) -> String {
    let mut lines = Vec::new();
    let value = serde_json::to_value(limits).unwrap_or_default();
    for (name, value) in value.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(parts) => lines.extend(parts.iter().map(|(part, value)| format!("{name}.{part} {value}"))),
            None => lines.push(format!("{name} {value}")),
        }
    }
    or_none(lines.join("\n"))
}

fn conditions(project: &ProjectBody) -> String {
    let lines = project.conditions.iter().map(|c| format!("{}: {}", c.kind, c.message));
    lines.collect::<Vec<_>>().join("\n")
}
