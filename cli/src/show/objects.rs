//! What is shown of each kind.

use mcp_api::nodes::NodeBody;
use mcp_api::projects::ProjectBody;
use mcp_api::rbac::{RbacBody, RoleBindingBody};
use mcp_api::servers::ServerBody;
use mcp_api::tokens::McpTokenBody;
use mcp_api::users::UserBody;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Object, ago, ago_or};
use crate::kinds::Kind;

impl Object for ProjectBody {
    const KIND: Kind = Kind::Projects;
    const COLUMNS: &'static [&'static str] = &["NAME", "SERVERS", "TOOL NAMING", "DESCRIPTION"];
    const WIDE: &'static [&'static str] = &["CREATED", "VERSION", "ID"];

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

    fn spec(&self) -> Value {
        picked(
            self,
            &[
                "description",
                "servers",
                "gated",
                "proxyModel",
                "toolNaming",
                "instructions",
            ],
        )
    }

    fn details(&self, now_ms: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("Description", self.description.clone()),
            ("Servers", listed(&self.servers)),
            ("Tool naming", self.tool_naming.clone()),
            ("Gated", self.gated.to_string()),
            ("Proxy model", self.proxy_model.clone().unwrap_or_default()),
            ("Instructions", self.instructions.clone().unwrap_or_default()),
            ("Created", by(&self.created_at, &self.created_by, now_ms)),
            ("Version", self.resource_version.clone()),
        ]
    }
}

impl Object for ServerBody {
    const KIND: Kind = Kind::Servers;
    const COLUMNS: &'static [&'static str] = &["NAME", "TRANSPORT", "TARGET", "DESCRIPTION"];
    const WIDE: &'static [&'static str] = &["CREATED", "VERSION", "ID"];

    fn name(&self) -> String {
        self.spec.name.clone()
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        vec![
            self.spec.name.clone(),
            self.spec.transport.clone(),
            target(self),
            self.spec.description.clone(),
            ago(&self.created_at, now_ms),
            self.resource_version.clone(),
            self.id.clone(),
        ]
    }

    fn spec(&self) -> Value {
        let fields = [
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
        ];
        picked(self, &fields)
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
            ("Created", by(&self.created_at, &self.created_by, now_ms)),
            ("Version", self.resource_version.clone()),
        ]
    }
}

impl Object for McpTokenBody {
    const KIND: Kind = Kind::McpTokens;
    const COLUMNS: &'static [&'static str] =
        &["NAME", "PROJECT", "PREFIX", "CREATED", "LAST USED", "EXPIRES", "STATUS"];
    const WIDE: &'static [&'static str] = &["OWNER", "BINDINGS", "ID"];

    fn name(&self) -> String {
        self.name.clone()
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

    fn spec(&self) -> Value {
        picked(self, &["project", "description", "roleBindings", "expiresAt"])
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

    fn spec(&self) -> Value {
        picked(self, &["peerAddress", "apiUrl", "gatewayUrl"])
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

impl Object for RbacBody {
    const KIND: Kind = Kind::Rbac;
    const COLUMNS: &'static [&'static str] = &["NAME", "SUBJECTS", "BINDINGS"];
    const WIDE: &'static [&'static str] = &["CREATED", "VERSION", "ID"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            subjects(self, " "),
            bindings(&self.role_bindings, " "),
            ago(&self.created_at, now_ms),
            self.resource_version.clone(),
            self.id.clone(),
        ]
    }

    fn spec(&self) -> Value {
        picked(self, &["subjects", "roleBindings"])
    }

    fn details(&self, now_ms: u64) -> Vec<(&'static str, String)> {
        vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("Subjects", or_none(subjects(self, "\n"))),
            ("Bindings", or_none(bindings(&self.role_bindings, "\n"))),
            ("Created", by(&self.created_at, &self.created_by, now_ms)),
            ("Version", self.resource_version.clone()),
        ]
    }
}

impl Object for UserBody {
    const KIND: Kind = Kind::Users;
    const COLUMNS: &'static [&'static str] = &["EMAIL", "NAME", "DISABLED", "CREATED"];
    const WIDE: &'static [&'static str] = &["VERSION", "ID"];

    fn name(&self) -> String {
        self.email.clone()
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        vec![
            self.email.clone(),
            self.name.clone(),
            self.disabled.to_string(),
            ago(&self.created_at, now_ms),
            self.resource_version.clone(),
            self.id.clone(),
        ]
    }

    fn spec(&self) -> Value {
        picked(self, &["name", "disabled"])
    }

    fn details(&self, now_ms: u64) -> Vec<(&'static str, String)> {
        vec![
            ("E-mail", self.email.clone()),
            ("Id", self.id.clone()),
            ("Name", self.name.clone()),
            ("Disabled", self.disabled.to_string()),
            ("Created", by(&self.created_at, &self.created_by, now_ms)),
            ("Version", self.resource_version.clone()),
        ]
    }
}

/// These fields of an object, without those that say nothing.
fn picked(object: &impl Serialize, fields: &[&str]) -> Value {
    let all = serde_json::to_value(object).unwrap_or(Value::Null);
    let said =
        |value: &&Value| !value.is_null() && **value != json!("") && **value != json!([]) && **value != json!({});
    let some = fields
        .iter()
        .filter_map(|f| Some(((*f).to_owned(), all.get(f).filter(said)?.clone())));
    Value::Object(some.collect::<Map<_, _>>())
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

fn subjects(definition: &RbacBody, between: &str) -> String {
    let subjects = definition.subjects.iter().map(|s| format!("{}:{}", s.kind, s.name));
    subjects.collect::<Vec<_>>().join(between)
}

fn bindings(bindings: &[RoleBindingBody], between: &str) -> String {
    bindings
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(between)
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "-".to_owned()
    } else {
        names.join(",")
    }
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}

fn by(time: &str, who: &str, now_ms: u64) -> String {
    format!("{time} ({}) by {who}", ago(time, now_ms))
}

fn at(time: Option<&String>, now_ms: u64) -> String {
    time.map_or_else(|| "never".to_owned(), |t| format!("{t} ({})", ago(t, now_ms)))
}
