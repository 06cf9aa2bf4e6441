//! From documents to objects: both forms, every fault.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::files::Document;
use super::{Fault, Manifest, canonical};
use crate::kinds::Kind;
use crate::show::VERSION;

/// Fields of a document beside those of its object.
const FRAME: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];

/// Reads all documents, and notes everything that is wrong with any of them.
pub(crate) fn manifests(documents: Vec<Document>, faults: &mut Vec<Fault>) -> Vec<Manifest> {
    let mut all: Vec<Manifest> = Vec::new();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for document in documents {
        let Some(manifest) = one(document, faults) else {
            continue;
        };
        match seen.get(&manifest.full_name()) {
            Some(first) => {
                let why = format!("{} is described in {first} already", manifest.full_name());
                faults.push(manifest.fault_of_all(why));
            }
            None => {
                seen.insert(manifest.full_name(), manifest.origin.clone());
                all.push(manifest);
            }
        }
    }
    all
}

/// Reads one document.
pub(crate) fn one(document: Document, faults: &mut Vec<Fault>) -> Option<Manifest> {
    let Document { origin, value } = document;
    let before = faults.len();
    let mut note = |field: &str, why: String, kind: Option<Kind>| {
        faults.push(Fault {
            origin: origin.clone(),
            field: field.to_owned(),
            why,
            kind,
        });
    };
    let Value::Object(mut fields) = value else {
        note("", "not an object with kind, name and fields".to_owned(), None);
        return None;
    };
    if let Some(version) = fields.remove("apiVersion").filter(|v| v != VERSION) {
        note("apiVersion", format!("{version} is not {VERSION:?}"), None);
    }
    let kind = match fields.remove("kind") {
        None => Err("it is missing".to_owned()),
        Some(Value::String(kind)) => kind.parse::<Kind>().map_err(|why| format!("{kind:?}: {why}")),
        Some(other) => Err(format!("{other} is not a text")),
    };
    let kind = match kind {
        Ok(kind) if kind.takes("apply") => kind,
        Ok(kind) => {
            note("kind", format!("{} are not written in files", kind.plural()), None);
            return None;
        }
        Err(why) => {
            note("kind", why, None);
            return None;
        }
    };
    let flat = !fields.contains_key("spec") && !fields.contains_key("metadata");
    let (name, spec, prefix) = if flat {
        (flat_name(kind, &mut fields), fields, "")
    } else {
        let (name, spec) = framed(fields, kind, &mut note);
        (name, spec, "spec.")
    };
    let place = if flat { "name" } else { "metadata.name" };
    let name = match name {
        Some(Value::String(name)) => name,
        Some(other) => {
            note(place, format!("{other} is not a text"), Some(kind));
            String::new()
        }
        None => {
            note(place, "it is missing".to_owned(), Some(kind));
            String::new()
        }
    };
    // Its name is checked together with its fields.
    let (name, spec) = canonical(kind, name, spec, &mut |field, why| match field {
        "name" => note(place, why, Some(kind)),
        field => note(&format!("{prefix}{field}"), why, Some(kind)),
    })?;
    let manifest = Manifest {
        kind,
        name,
        spec,
        prefix,
        origin,
    };
    (faults.len() == before).then_some(manifest)
}

/// The original's form: all fields beside each other.
fn flat_name(kind: Kind, fields: &mut Map<String, Value>) -> Option<Value> {
    if let (Kind::McpTokens, Some(project)) = (kind, fields.remove("projectName")) {
        fields.entry("project").or_insert(project);
    }
    // A user's name is what people call them; what bindings say is the e-mail.
    match kind {
        Kind::Users => fields.remove("email").or_else(|| fields.remove("name")),
        _ => fields.remove("name"),
    }
}

/// The form with `metadata` and `spec`.
fn framed(
    mut fields: Map<String, Value>,
    kind: Kind,
    note: &mut impl FnMut(&str, String, Option<Kind>),
) -> (Option<Value>, Map<String, Value>) {
    for field in fields.keys().filter(|field| !FRAME.contains(&field.as_str())) {
        note(
            field,
            "unknown: beside spec there are apiVersion, kind and metadata".to_owned(),
            Some(kind),
        );
    }
    let mut name = None;
    match fields.remove("metadata") {
        Some(Value::Object(mut metadata)) => {
            name = metadata.remove("name");
            for field in metadata.keys() {
                note(
                    &format!("metadata.{field}"),
                    "unknown: metadata has a name".to_owned(),
                    Some(kind),
                );
            }
        }
        None => {}
        Some(other) => note("metadata", format!("{other} is not an object"), Some(kind)),
    }
    let spec = match fields.remove("spec") {
        Some(Value::Object(mut spec)) => {
            if let (Kind::McpTokens, Some(project)) = (kind, spec.remove("projectName")) {
                spec.entry("project").or_insert(project);
            }
            spec
        }
        None | Some(Value::Null) => Map::new(),
        Some(other) => {
            note("spec", format!("{other} is not an object"), Some(kind));
            Map::new()
        }
    };
    (name, spec)
}

#[cfg(test)]
mod tests {
    use super::super::files;
    use super::*;

    fn read(text: &str) -> (Vec<Manifest>, Vec<String>) {
        let (mut documents, mut faults) = (Vec::new(), Vec::new());
        files::read("a.yaml", text, &mut documents, &mut faults);
        let manifests = manifests(documents, &mut faults);
        (manifests, faults.iter().map(Fault::line).collect())
    }

    #[test]
    fn both_forms_and_json_say_the_same() {
        let forms = [
            "apiVersion: mcpctl/v1\nkind: project\nmetadata: {name: demo}\nspec: {servers: [git], gated: false}\n",
            "kind: project\nname: demo\nservers: [git]\ngated: false\n",
            "kind: Project\nmetadata: {name: demo}\nspec:\n  servers:\n  - git\n  gated: false\n  toolNaming: prefixed\n",
            r#"{"kind": "projects", "name": "demo", "servers": ["git"], "gated": false}"#,
            r#"[{"kind": "proj", "name": "demo", "servers": ["git"], "gated": false}]"#,
        ];
        let all: Vec<Manifest> = forms
            .iter()
            .map(|text| {
                let (mut manifests, faults) = read(text);
                assert!(faults.is_empty() && manifests.len() == 1, "{text}: {faults:?}");
                manifests.remove(0)
            })
            .collect();
        for manifest in &all {
            assert_eq!((manifest.kind, manifest.name.as_str()), (Kind::Projects, "demo"));
            assert_eq!(manifest.spec, all[0].spec);
        }
        let (tokens, faults) = read("kind: mcptoken\nname: ci\nprojectName: vllm\nttl: 30d\n");
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(tokens[0].full_name(), "mcptoken/vllm/ci");
    }

    #[test]
    fn every_fault_of_every_document_is_named_with_its_place() {
        let text = "kind: project\nmetadata: {name: Demo, labels: {}}\nspec: {gated: maybe, colour: red}\n---\n\
            kind: pod\n---\nkind: rbac\nname: r\nsubjects: [{kind: Robot, name: x}]\nroleBindings: [{role: king, resource: servers}, {action: logs, role: view}]\n---\n\
            kind: server\nname: s\n---\n[]\n---\n- 1\n---\nkind: mcptoken\nname: t\nttl: soon\n---\nkind: node\nname: n\n---\napiVersion: v2\nkind: group\nname: g\n";
        let (_, faults) = read(text);
        let expected = [
            "a.yaml, document 1: metadata.labels: unknown",
            "a.yaml, document 1: spec.colour: unknown field",
            "a.yaml, document 1: spec.gated: invalid type",
            "a.yaml, document 1: metadata.name: ",
            "a.yaml, document 2: kind: \"pod\": the kinds are",
            "a.yaml, document 3: subjects[0]: ",
            "a.yaml, document 3: roleBindings[0]: ",
            "a.yaml, document 3: roleBindings[1]: ",
            "a.yaml, document 4: transport: ",
            "a.yaml, document 6, element 1: not an object",
            "a.yaml, document 7: project: ",
            "a.yaml, document 7: ttl: ",
            "a.yaml, document 8: kind: nodes are not written in files",
            "a.yaml, document 9: apiVersion: ",
        ];
        for line in expected {
            assert!(
                faults.iter().any(|f| f.starts_with(line)),
                "{line} is not in {faults:#?}"
            );
        }
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    }

    #[test]
    fn what_stands_there_twice_is_refused() {
        let (_, faults) = read("kind: project\nname: a\nname: b\n");
        assert!(
            faults[0].contains("not YAML") && faults[0].contains("duplicate"),
            "{faults:?}"
        );
        let (_, faults) = read("kind: project\nname: a\n---\nkind: proj\nmetadata: {name: a}\nspec: {}\n");
        assert_eq!(
            faults,
            ["a.yaml, document 2: project/a is described in a.yaml, document 1 already"]
        );
    }
}
