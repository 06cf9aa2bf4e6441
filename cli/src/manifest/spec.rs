//! The fields of each kind: read strictly, put into the one form in which the API says them, and so comparable.

use std::collections::BTreeMap;

use mcp_api::groups::{GroupBody, GroupSpec};
use mcp_api::projects::{ProjectBody, ProjectSpecBody};
use mcp_api::rbac::{RbacBody, RbacSpec, RoleBindingBody, SubjectBody};
use mcp_api::secrets::SecretBody;
use mcp_api::servers::{HIDDEN, ServerBody, ServerSpecBody};
use mcp_api::serviceaccounts::{ServiceAccountBody, ServiceAccountSpec};
use mcp_api::tokens::{McpTokenBody, NewMcpToken};
use mcp_api::users::UserBody;
use mcp_api::{names, parse_time, ttl};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::clock;
use crate::kinds::Kind;
use crate::show::Object;

/// Most faults of one document.
const FAULTS_MAX: usize = 50;

/// Takes the field and what is wrong with it.
pub(crate) type Note<'a> = &'a mut dyn FnMut(&str, String);

/// A user in a file. The password counts when the user is made, and is never compared or shown.
#[derive(Clone, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct UserFile {
    /// For people. What bindings say is the e-mail, which stands in metadata.name.
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    /// Whether their sessions and tokens are refused.
    disabled: bool,
    /// The first password. Without one they cannot log in with a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

/// A secret in a file. Without data it keeps its values.
#[derive(Clone, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct SecretFile {
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    /// Its values, by key; all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<BTreeMap<String, String>>,
}

/// The name and the fields in the API's own form, or nothing when they are too wrong to be read. Every fault is noted.
pub(crate) fn canonical(kind: Kind, name: String, mut spec: Map<String, Value>, note: Note) -> Option<(String, Value)> {
    let named = match kind {
        Kind::Users => names::email(&name),
        _ => names::name(&name),
    };
    if kind != Kind::Users && spec.remove("name").is_some_and(|inner| inner != name.as_str()) {
        note("name", "it is another one than the object's".to_owned());
    }
    if kind == Kind::McpTokens && spec.remove("force").is_some() {
        note("force", "not a field of a file: it is a flag of apply".to_owned());
    }
    let spec = fields(kind, spec, note);
    match named {
        Ok(name) => Some((name, spec?)),
        // A missing name was noted by whoever looked for it.
        Err(_) if name.is_empty() => None,
        Err(why) => {
            note("name", why);
            None
        }
    }
}

/// The fields of an object that the API showed, in the same form.
pub(crate) fn full(kind: Kind, body: &Value) -> Value {
    let picked = fields_of(kind)
        .iter()
        .filter_map(|f| Some(((*f).to_owned(), body.get(*f)?.clone())));
    let picked = picked.filter(|(_, value)| !value.is_null());
    fields(kind, picked.collect(), &mut |_, _| {}).unwrap_or(Value::Null)
}

fn fields_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Projects => ProjectBody::FIELDS,
        Kind::Servers => ServerBody::FIELDS,
        Kind::McpTokens => McpTokenBody::FIELDS,
        Kind::Rbac => RbacBody::FIELDS,
        Kind::Users => UserBody::FIELDS,
        Kind::Groups => GroupBody::FIELDS,
        Kind::ServiceAccounts => ServiceAccountBody::FIELDS,
        Kind::Secrets => SecretBody::FIELDS,
        Kind::Nodes | Kind::Tools | Kind::Sessions => &[],
    }
}

fn fields(kind: Kind, spec: Map<String, Value>, note: Note) -> Option<Value> {
    match kind {
        Kind::Projects => said(typed::<ProjectSpecBody>(spec, note)?),
        Kind::Servers => said(server(typed(spec, note)?, note)),
        Kind::McpTokens => {
            let mut said = said(token(typed(spec, note)?, note))?;
            said.as_object_mut()?.remove("force");
            said.as_object_mut()?.remove("name");
            Some(said)
        }
        Kind::Rbac => said(rbac(typed(spec, note)?, note)),
        Kind::Users => said(typed::<UserFile>(spec, note)?),
        Kind::Groups => said(group(typed(spec, note)?, note)),
        Kind::ServiceAccounts => said(typed::<ServiceAccountSpec>(spec, note)?),
        Kind::Secrets => said(typed::<SecretFile>(spec, note)?),
        Kind::Nodes | Kind::Tools | Kind::Sessions => None,
    }
}

fn said(spec: impl Serialize) -> Option<Value> {
    serde_json::to_value(spec).ok()
}

/// Reads fields. Those of a wrong type and those that are unknown are noted and left out, so that the rest is looked at too.
fn typed<T: DeserializeOwned>(spec: Map<String, Value>, note: Note) -> Option<T> {
    let mut json = Value::Object(spec);
    for _ in 0..FAULTS_MAX {
        match serde_path_to_error::deserialize::<_, T>(&json) {
            Ok(value) => return Some(value),
            Err(error) => {
                note(&error.path().to_string(), error.inner().to_string());
                if !take_out(&mut json, error.path()) {
                    return None;
                }
            }
        }
    }
    None
}

/// Takes the field at the end of the path out. `false`: there is none that could be missed.
fn take_out(json: &mut Value, path: &serde_path_to_error::Path) -> bool {
    use serde_path_to_error::Segment;
    let mut at = json;
    let segments: Vec<&Segment> = path.iter().collect();
    let Some((Segment::Map { key: last }, way)) = segments.split_last() else {
        return false;
    };
    for segment in way {
        let next = match segment {
            Segment::Map { key } => at.get_mut(key.as_str()),
            Segment::Seq { index } => at.get_mut(*index),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        let Some(next) = next else { return false };
        at = next;
    }
    at.as_object_mut()
        .is_some_and(|fields| fields.remove(last.as_str()).is_some())
}

fn server(mut spec: ServerSpecBody, note: Note) -> ServerSpecBody {
    if spec.transport.is_empty() {
        match (&spec.command, &spec.url) {
            (Some(_), None) => spec.transport = "stdio".to_owned(),
            (None, Some(_)) => spec.transport = "http".to_owned(),
            (Some(_), Some(_)) | (None, None) => {
                note(
                    "transport",
                    "it is missing: stdio with a command, http or sse with a url".to_owned(),
                );
            }
        }
    }
    for (field, map) in [("env", &spec.env), ("headers", &spec.headers)] {
        for (key, _) in map.iter().filter(|(_, value)| *value == HIDDEN) {
            let why = "the value was hidden from whoever wrote this file: write it, or ${secret:NAME/KEY}";
            note(&format!("{field}.{key}"), why.to_owned());
        }
    }
    spec
}

fn token(spec: NewMcpToken, note: Note) -> NewMcpToken {
    if spec.project.is_empty() {
        note("project", "it is missing".to_owned());
    } else if let Err(why) = names::name(&spec.project) {
        note("project", why);
    }
    if !["empty", "clone"].contains(&spec.rbac.as_str()) {
        note("rbac", format!("{:?}: the values are empty and clone", spec.rbac));
    }
    if let Some(Err(why)) = spec.ttl.as_deref().map(|ttl| ttl::expiry(ttl, clock::wall_ms())) {
        note("ttl", why.to_string());
    }
    if spec.expires_at.as_deref().is_some_and(|at| parse_time(at).is_none()) {
        note("expiresAt", "not a date or time (RFC 3339)".to_owned());
    }
    if spec.ttl.is_some() && spec.expires_at.is_some() {
        note("expiresAt", "give either ttl or expiresAt".to_owned());
    }
    let role_bindings = bindings(&spec.role_bindings, note);
    NewMcpToken { role_bindings, ..spec }
}

fn rbac(spec: RbacSpec, note: Note) -> RbacSpec {
    let mut subjects = Vec::new();
    for (at, subject) in spec.subjects.iter().enumerate() {
        match subject.read() {
            Ok(read) => subjects.push(SubjectBody::from(&read)),
            Err(why) => note(&format!("subjects[{at}]"), why.to_string()),
        }
    }
    if spec.subjects.is_empty() {
        note("subjects", "name at least one".to_owned());
    }
    if spec.role_bindings.is_empty() {
        note("roleBindings", "name at least one".to_owned());
    }
    let role_bindings = bindings(&spec.role_bindings, note);
    RbacSpec {
        subjects,
        role_bindings,
        ..spec
    }
}

/// `resource: server` and `resource: servers` are the same binding.
fn bindings(bindings: &[RoleBindingBody], note: Note) -> Vec<RoleBindingBody> {
    let mut all = Vec::new();
    for (at, binding) in bindings.iter().enumerate() {
        match binding.read() {
            Ok(read) => all.push(RoleBindingBody::from(&read)),
            Err(why) => note(&format!("roleBindings[{at}]"), why.to_string()),
        }
    }
    all
}

fn group(mut spec: GroupSpec, note: Note) -> GroupSpec {
    for (at, member) in spec.members.iter_mut().enumerate() {
        match names::email(member) {
            Ok(email) => *member = email,
            Err(why) => note(&format!("members[{at}]"), why),
        }
    }
    // Who is a member has no order.
    spec.members.sort_unstable();
    spec.members.dedup();
    spec
}
