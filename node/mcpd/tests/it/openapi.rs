//! The description of the API: whole, valid, and true of every answer that any test gets.

use std::collections::BTreeSet;

use mcp_api::problem::Code;
use mcpd::openapi::document;
use mcpd::routes::ROUTES;
use serde_json::Value;

use crate::client::{Client, Reply, user};
use crate::node::Node;

/// Checks an answer against what the description says of its route and status. Called for every answer in these tests.
pub(crate) fn conforms(method: &str, path: &str, reply: &Reply) {
    let path = path.split('?').next().unwrap();
    let Some(operation) = operation(method, path) else {
        return;
    };
    let status = reply.status.as_u16().to_string();
    let told = &operation["responses"][&status];
    assert!(
        told.is_object(),
        "{method} {path} answers {status}, which its description leaves out: {}",
        reply.raw
    );
    let told = told["$ref"].as_str().map_or(told, at);
    let (kind, content) = told["content"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(reply.header("content-type"), kind, "{method} {path}");
    if kind == "application/octet-stream" {
        return;
    }
    let mut faults = Vec::new();
    check(&content["schema"], &reply.body, "", &mut faults);
    assert!(faults.is_empty(), "{method} {path} {status}: {faults:?}\n{}", reply.raw);
}

fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let fits = |template: &str| {
        let (a, b): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a == b || a.starts_with('{'))
    };
    let paths = document()["paths"].as_object().unwrap();
    let found = paths
        .get(path)
        .or_else(|| paths.iter().find(|(t, _)| fits(t)).map(|(_, item)| item))?;
    found.get(method.to_lowercase())
}

fn at(reference: &str) -> &'static Value {
    let pointer = reference.strip_prefix('#').unwrap();
    document()
        .pointer(pointer)
        .unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

/// What of JSON Schema stands in the description. A word that is not known here fails: nothing is passed over in silence.
fn check(schema: &Value, value: &Value, path: &str, faults: &mut Vec<String>) {
    for (word, what) in schema.as_object().unwrap() {
        let fine = match word.as_str() {
            "description" | "default" | "format" | "minimum" | "propertyNames" | "writeOnly" => true,
            "$ref" => {
                check(at(what.as_str().unwrap()), value, path, faults);
                true
            }
            "allOf" => {
                what.as_array()
                    .unwrap()
                    .iter()
                    .for_each(|s| check(s, value, path, faults));
                true
            }
            "oneOf" => what.as_array().unwrap().iter().filter(|s| accepts(s, value)).count() == 1,
            "type" => match what {
                Value::Array(types) => types.iter().any(|t| is(t, value)),
                one => is(one, value),
            },
            "enum" => what.as_array().unwrap().contains(value),
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                items.for_each(|(i, item)| check(what, item, &format!("{path}[{i}]"), faults));
                true
            }
            "required" => what
                .as_array()
                .unwrap()
                .iter()
                .all(|f| value.get(f.as_str().unwrap()).is_some()),
            "properties" => {
                for (field, schema) in what.as_object().unwrap() {
                    if let Some(value) = value.get(field) {
                        check(schema, value, &format!("{path}.{field}"), faults);
                    }
                }
                true
            }
            "additionalProperties" if what == false => {
                let fields = value.as_object().into_iter().flatten();
                fields
                    .into_iter()
                    .all(|(field, _)| schema["properties"].get(field).is_some())
            }
            "additionalProperties" if what.is_object() => {
                let fields = value.as_object().into_iter().flatten();
                fields.for_each(|(field, value)| check(what, value, &format!("{path}.{field}"), faults));
                true
            }
            _ => false,
        };
        if !fine {
            faults.push(format!("{path}: {word} {what}"));
        }
    }
}

fn accepts(schema: &Value, value: &Value) -> bool {
    let mut faults = Vec::new();
    check(schema, value, "", &mut faults);
    faults.is_empty()
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("no type {other}"),
    }
}

/// Every object in the document that has the field, with its value.
fn all<'a>(value: &'a Value, field: &str, found: &mut Vec<(&'a Value, &'a Value)>) {
    if let Some(what) = value.get(field) {
        found.push((value, what));
    }
    let inner: Vec<&Value> = match value {
        Value::Object(fields) => fields.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    inner.into_iter().for_each(|v| all(v, field, found));
}

#[tokio::test]
async fn it_is_given_to_every_caller_and_to_no_stranger() {
    let node = Node::start();
    let nobody = user(&node, "nobody@test.com", &[]).await;
    let reply = nobody.get("openapi.json").await.is(200);
    assert_eq!(&reply.body, document());
    Client::anybody(&node)
        .get("openapi.json")
        .await
        .refuses(401, "not_authenticated");
}

#[test]
fn every_route_is_in_it_and_nothing_else() {
    let told: BTreeSet<String> = document()["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object()
                .unwrap()
                .keys()
                .map(move |m| format!("{} {path}", m.to_uppercase()))
        })
        .collect();
    let routes: BTreeSet<String> = ROUTES.iter().map(|r| format!("{} {}", r.method(), r.path())).collect();
    assert_eq!(told, routes);
}

#[test]
fn it_keeps_the_rules_of_openapi_3_1() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let named: BTreeSet<&str> = path
            .split('/')
            .filter_map(|p| p.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        for (method, operation) in item.as_object().unwrap() {
            assert!(["get", "put", "post", "patch", "delete"].contains(&method.as_str()));
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{id} stands for two operations");
            let parameters = operation["parameters"].as_array().unwrap();
            let given = |place: &str| -> Vec<&str> {
                let some = parameters.iter().filter(|p| p["in"] == place);
                some.map(|p| p["name"].as_str().unwrap()).collect()
            };
            assert_eq!(
                given("path").into_iter().collect::<BTreeSet<_>>(),
                named,
                "{method} {path}"
            );
            let unique: BTreeSet<_> = parameters
                .iter()
                .map(|p| (p["in"].as_str(), p["name"].as_str()))
                .collect();
            assert_eq!(unique.len(), parameters.len(), "{method} {path} has a parameter twice");
            for parameter in parameters {
                assert!(
                    !parameter["description"].as_str().unwrap().is_empty(),
                    "{method} {path} {parameter}"
                );
            }
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{method} {path}");
            let statuses = operation["responses"].as_object().unwrap().keys();
            assert!(statuses.clone().any(|s| s.starts_with('2')) && statuses.clone().any(|s| s.starts_with('5')));
            assert!(method != "get" || operation["requestBody"].is_null(), "{path}");
        }
    }
    let mut references = Vec::new();
    all(document, "$ref", &mut references);
    assert!(references.len() > 100, "{}", references.len());
    references
        .iter()
        .for_each(|(_, to)| assert!(at(to.as_str().unwrap()).is_object()));
    for (name, response) in document["components"]["responses"].as_object().unwrap() {
        assert!(!response["description"].as_str().unwrap().is_empty(), "{name}");
    }
}

#[test]
fn every_body_and_every_field_says_what_it_means() {
    let schemas = &document()["components"]["schemas"];
    for (name, schema) in schemas.as_object().unwrap() {
        let said = |schema: &Value| schema["description"].as_str().is_some_and(|text| text.len() > 3);
        assert!(said(schema), "{name} has no description");
        let mut objects = Vec::new();
        all(schema, "properties", &mut objects);
        for (_, properties) in objects {
            for (field, schema) in properties.as_object().unwrap() {
                let choices = schema["oneOf"].as_array().into_iter().flatten();
                assert!(
                    said(schema) || choices.into_iter().any(said),
                    "{name}.{field} has no description"
                );
            }
        }
    }
}

#[test]
fn what_is_never_answered_is_marked_so() {
    let schemas = document()["components"]["schemas"].as_object().unwrap();
    let mut marked = 0;
    for (name, schema) in schemas {
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            let secret = field.to_lowercase().ends_with("password") || field == "setupSecret";
            assert_eq!(schema["writeOnly"] == true, secret, "{name}.{field}");
            marked += usize::from(secret);
        }
    }
    assert!(marked >= 6, "{marked}");
    assert!(
        !document().to_string().contains("`Debug`"),
        "a description is for those who do not read the code"
    );
}

#[test]
fn the_codes_of_problems_are_all_there() {
    let told = &document()["components"]["schemas"]["Code"]["enum"];
    let codes: Vec<Value> = Code::ALL.iter().map(|code| code.as_str().into()).collect();
    assert_eq!(told.as_array().unwrap(), &codes);
}

#[test]
fn what_is_not_as_described_is_noticed() {
    let list = &operation("GET", "/api/v1/projects").unwrap()["responses"]["200"]["content"]["application/json"];
    let good = serde_json::json!({"items": [], "resourceVersion": "1"});
    assert!(accepts(&list["schema"], &good));
    for bad in [
        serde_json::json!({"items": []}),
        serde_json::json!({"items": {}, "resourceVersion": "1"}),
        serde_json::json!({"items": [{"name": "a"}], "resourceVersion": "1"}),
        serde_json::json!({"items": [], "resourceVersion": 1}),
    ] {
        assert!(!accepts(&list["schema"], &bad), "{bad}");
    }
}
