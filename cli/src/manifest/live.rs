//! What there is of that which files describe.

use std::collections::{BTreeMap, BTreeSet};

use mcp_api::list::List;
use mcp_api::problem::Code;
use serde_json::Value;

use super::{Fault, Manifest, full};
use crate::api::{Api, encoded};
use crate::failure::Failure;
use crate::kinds::Kind;

/// What there is of an object.
#[derive(Debug, Clone)]
pub(crate) enum Live {
    Missing,
    /// Its fields in canonical form, and its version.
    Here {
        spec: Value,
        version: String,
    },
    /// A token of that name is active.
    Active,
    /// The tokens of that name are all revoked.
    Revoked,
}

/// The order in which objects need each other.
const ORDER: [Kind; 8] = [
    Kind::Secrets,
    Kind::Users,
    Kind::Groups,
    Kind::ServiceAccounts,
    Kind::Servers,
    Kind::Projects,
    Kind::Rbac,
    Kind::McpTokens,
];

/// Looks up what there is of each object, and whether everything that they refer to is there or in the files; then puts them
/// in the order in which they need each other.
pub(crate) async fn plan(
    api: &Api,
    mut manifests: Vec<Manifest>,
    faults: &mut Vec<Fault>,
) -> Result<Vec<(Manifest, Live)>, Failure> {
    let rank = |m: &Manifest| ORDER.iter().position(|kind| *kind == m.kind);
    manifests.sort_by_key(rank);
    let described: BTreeSet<(Kind, String)> = manifests.iter().map(|m| (m.kind, m.name.clone())).collect();
    let mut known: BTreeMap<(Kind, String), bool> = BTreeMap::new();
    let mut planned = Vec::new();
    for manifest in manifests {
        for (field, kind, name) in references(&manifest) {
            let key = (kind, name);
            if described.contains(&key) {
                continue;
            }
            if !known.contains_key(&key) {
                known.insert(key.clone(), exists(api, kind, &key.1).await?);
            }
            if known.get(&key) == Some(&false) {
                faults.push(manifest.fault(
                    &field,
                    format!(
                        "there is no {} {:?}, neither here nor in the files",
                        kind.singular(),
                        key.1
                    ),
                ));
            }
        }
        let live = look(api, &manifest).await?;
        if matches!((manifest.kind, &live), (Kind::Secrets, Live::Missing)) && manifest.spec["data"].is_null() {
            faults.push(manifest.fault("data", "there is no such secret yet: it needs values"));
        }
        planned.push((manifest, live));
    }
    Ok(planned)
}

/// Whether it exists. What the caller may not see is left to the API to decide.
async fn exists(api: &Api, kind: Kind, name: &str) -> Result<bool, Failure> {
    let what = format!("look for {} {name:?}", kind.singular());
    let path = format!("{}/{}", kind.plural(), encoded(name));
    match api.try_get::<Value>(&what, &path).await? {
        Ok(_) => Ok(true),
        Err(problem) if problem.code == Code::NotFound.as_str() => Ok(false),
        Err(problem) if problem.code == Code::Forbidden.as_str() => Ok(true),
        Err(problem) => Err(Failure::of_problem(&what, &problem)),
    }
}

async fn look(api: &Api, manifest: &Manifest) -> Result<Live, Failure> {
    let (kind, name) = (manifest.kind, &manifest.name);
    let what = format!("get {} {name:?}", kind.singular());
    if kind == Kind::McpTokens {
        let project = manifest.project().unwrap_or_default();
        let query = format!("&project={}&name={}", encoded(project), encoded(name));
        let found: List<Value> = api.list(&what, kind.plural(), &query).await?;
        let is = |status: &str| found.items.iter().any(|token| token["status"] == status);
        return Ok(match (is("active"), is("revoked")) {
            (true, _) => Live::Active,
            (false, true) => Live::Revoked,
            (false, false) => Live::Missing,
        });
    }
    let found: Option<Value> = api.find(&what, &format!("{}/{}", kind.plural(), encoded(name))).await?;
    Ok(found.map_or(Live::Missing, |body| Live::Here {
        spec: full(kind, &body),
        version: body["resourceVersion"].as_str().unwrap_or_default().to_owned(),
    }))
}

/// What an object names of others: field, kind, name.
fn references(manifest: &Manifest) -> Vec<(String, Kind, String)> {
    let list = |field: &str, kind: Kind| -> Vec<(String, Kind, String)> {
        let items = manifest.spec[field].as_array().into_iter().flatten().enumerate();
        let named = items.filter_map(|(at, item)| Some((format!("{field}[{at}]"), kind, item.as_str()?.to_owned())));
        named.collect()
    };
    match manifest.kind {
        Kind::Projects => list("servers", Kind::Servers),
        Kind::Groups => list("members", Kind::Users),
        Kind::McpTokens => {
            let project = manifest.project().unwrap_or_default().to_owned();
            vec![("project".to_owned(), Kind::Projects, project)]
        }
        Kind::Servers => secrets(&manifest.spec),
        Kind::Nodes
        | Kind::Tools
        | Kind::Rbac
        | Kind::Users
        | Kind::ServiceAccounts
        | Kind::Secrets
        | Kind::Sessions => Vec::new(),
    }
}

/// Secrets that a server refers to as `${secret:NAME/KEY}`.
fn secrets(spec: &Value) -> Vec<(String, Kind, String)> {
    let mut found = Vec::new();
    let mut note = |field: String, text: &str| {
        for part in text.split("${secret:").skip(1) {
            let name = part
                .split('}')
                .next()
                .and_then(|inside| inside.split_once('/'))
                .map(|(name, _)| name);
            if let Some(name) = name.filter(|name| mcp_api::names::name(name).is_ok()) {
                found.push((field.clone(), Kind::Secrets, name.to_owned()));
            }
        }
    };
    for (at, text) in spec["args"].as_array().into_iter().flatten().enumerate() {
        note(format!("args[{at}]"), text.as_str().unwrap_or_default());
    }
    for field in ["env", "headers"] {
        for (key, text) in spec[field].as_object().into_iter().flatten() {
            note(format!("{field}.{key}"), text.as_str().unwrap_or_default());
        }
    }
    found
}
