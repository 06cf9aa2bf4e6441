//! The description of the API (OpenAPI 3.1), made from the table of routes and the types of the bodies: it cannot say what
//! the code does not do. Given to every caller, like the version; strangers learn nothing here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use http::Method;
use mcp_api::headers::{IDEMPOTENCY_KEY, MCP_INDEX, MCP_MIN_INDEX, PROBLEM_JSON};
use mcp_api::problem::Code;
use mcp_api::{List, Problem, write};
use mcp_model::token::{SESSION_PREFIX, TOKEN_PREFIX};
use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Object, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::answer::Answer;
use crate::call::{Admitted, QUERY};
use crate::fault::Fault;
use crate::routes::{Access, Gives, ROUTES, Route};

type Part = (String, RefOr<Schema>);

/// A type of bodies, as far as the description needs to know it.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    name: fn() -> Cow<'static, str>,
    own: fn() -> RefOr<Schema>,
    listed: fn() -> RefOr<Schema>,
    changed: fn() -> RefOr<Schema>,
    parts: fn(&mut Vec<Part>),
    parts_changed: fn(&mut Vec<Part>),
}

impl Shape {
    pub(crate) const fn of<T: ToSchema + 'static>() -> Shape {
        Shape {
            name: T::name,
            own: T::schema,
            listed: <List<T> as PartialSchema>::schema,
            changed: <write::Written<T> as PartialSchema>::schema,
            parts: T::schemas,
            parts_changed: <write::Written<T> as ToSchema>::schemas,
        }
    }

    fn reference(&self) -> Value {
        json!({"$ref": format!("#/components/schemas/{}", (self.name)())})
    }

    fn collect(&self, parts: &mut Vec<Part>) {
        parts.push(((self.name)().into_owned(), (self.own)()));
        (self.parts)(parts);
    }
}

impl Gives {
    fn shape(&self) -> Option<&Shape> {
        match self {
            Gives::One(shape) | Gives::Pages(shape) | Gives::Change(shape) => Some(shape),
            Gives::File => None,
        }
    }

    fn media_type(&self) -> &'static str {
        match self {
            Gives::One(_) | Gives::Pages(_) | Gives::Change(_) => "application/json",
            Gives::File => "application/octet-stream",
        }
    }

    fn schema(&self) -> Value {
        match self {
            Gives::One(shape) => shape.reference(),
            Gives::Pages(shape) => value((shape.listed)()),
            Gives::Change(shape) => value((shape.changed)()),
            Gives::File => json!({"type": "string", "format": "binary"}),
        }
    }
}

/// What `/openapi.json` answers.
pub(crate) struct Document;

impl PartialSchema for Document {
    fn schema() -> RefOr<Schema> {
        let object = Object::builder().schema_type(Type::Object);
        object.description(Some("An OpenAPI 3.1 document.")).into()
    }
}

impl ToSchema for Document {}

/// The document itself.
pub(crate) async fn get(_: Admitted) -> Result<Answer, Fault> {
    Ok(Answer::ok(document()))
}

/// The description of the API.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "mcpnode",
                "version": "v1",
                "description": "The control plane. Every node serves it; a change goes to the leader by itself.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "security": [{"session": []}, {"mcptoken": []}],
            "paths": paths(),
            "components": {
                "schemas": schemas(),
                "responses": problems(),
                "securitySchemes": {
                    "session": bearer(&format!("A session: {SESSION_PREFIX}…, from POST /api/v1/auth/login.")),
                    "mcptoken": bearer(&format!("A token of a project: {TOKEN_PREFIX}…; it reaches its project alone.")),
                },
            },
        })
    })
}

fn bearer(description: &str) -> Value {
    json!({"type": "http", "scheme": "bearer", "description": description})
}

fn paths() -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        let method = route.method().as_str().to_lowercase();
        paths.entry(route.path()).or_default().insert(method, operation(route));
    }
    json!(paths)
}

fn operation(route: &Route) -> Value {
    let tag = route.path().split('/').nth(3).unwrap_or_default();
    let right = route
        .right()
        .map_or_else(|| "none: open to everybody".to_owned(), |r| r.to_string());
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.told.summary,
        "description": format!("Right: {right}."),
        "tags": [tag.strip_suffix(".json").unwrap_or(tag)],
        "parameters": parameters(route),
        "responses": responses(route),
    });
    if let Some(body) = &route.told.takes {
        operation["requestBody"] = json!({
            "required": true,
            "content": {"application/json": {"schema": body.reference()}},
        });
    }
    if route.right().is_none() {
        operation["security"] = json!([]);
    }
    operation
}

fn operation_id(route: &Route) -> String {
    let words = route.told.handler.split("::").map(str::trim);
    words.collect::<Vec<_>>().join("_")
}

fn parameters(route: &Route) -> Vec<Value> {
    let one = |place: &str, name: &str, description: &str| {
        json!({
            "name": name,
            "in": place,
            "required": place == "path",
            "description": description,
            "schema": {"type": "string"},
        })
    };
    let mut all = Vec::new();
    for name in route
        .path()
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    {
        all.push(one(
            "path",
            name,
            PATH.iter().find(|(key, _)| *key == name).map_or("", |(_, what)| what),
        ));
    }
    for name in route.query_keys() {
        all.push(one(
            "query",
            name,
            QUERY.iter().find(|(key, _)| *key == name).map_or("", |(_, what)| what),
        ));
    }
    if matches!(route.access, Access::For(..)) {
        let what = "Wait until this node has applied this log index: read what was written through another.";
        all.push(one("header", MCP_MIN_INDEX, what));
    }
    if matches!(route.told.gives, Gives::Change(_)) {
        let what =
            "The same key with the same request is carried out once, however often it is sent, to whichever node.";
        all.push(one("header", IDEMPOTENCY_KEY, what));
    }
    if route.told.matches {
        let what = "The resourceVersion that the object must still have.";
        all.push(one("header", "If-Match", what));
    }
    all
}

/// What stands in paths, and what it is.
const PATH: [(&str, &str); 2] = [
    ("name", "Its name (of a user: the e-mail), or its id."),
    ("id", "Its id."),
];

fn responses(route: &Route) -> Value {
    let content = json!({route.told.gives.media_type(): {"schema": route.told.gives.schema()}});
    let yes = |description: &str| {
        let index = json!({"description": "A log index that this node has applied.", "schema": {"type": "string"}});
        json!({"description": description, "content": content, "headers": {MCP_INDEX: index}})
    };
    let mut all = Map::new();
    let changes = matches!(route.told.gives, Gives::Change(_));
    let makes = changes && route.method() == Method::POST && route.told.takes.is_some();
    if makes {
        all.insert("201".to_owned(), yes("Made."));
        all.insert("200".to_owned(), yes("Made before, by the same request."));
    } else {
        all.insert("200".to_owned(), yes("Done."));
    }
    if changes {
        all.insert(
            "202".to_owned(),
            yes("Committed, and not yet effective on every replica."),
        );
    }
    let named = route.path().contains('{');
    for status in statuses() {
        let can = match status {
            404 => named || route.told.takes.is_some(),
            405 => false,
            409 | 504 => changes,
            413 | 415 => route.told.takes.is_some(),
            _ => true,
        };
        if can {
            let reference = json!({"$ref": format!("#/components/responses/Problem{status}")});
            all.insert(status.to_string(), reference);
        }
    }
    Value::Object(all)
}

/// The statuses of problems.
fn statuses() -> Vec<u16> {
    let mut statuses: Vec<u16> = Code::ALL.iter().map(|code| code.status()).collect();
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

fn problems() -> Value {
    let problem = Shape::of::<Problem>().reference();
    let one = |status: u16| {
        let codes = Code::ALL.iter().filter(|code| code.status() == status);
        let lines: Vec<String> = codes.map(|c| format!("`{}`: {}.", c.as_str(), c.row().2)).collect();
        let content = json!({PROBLEM_JSON: {"schema": problem}});
        (
            format!("Problem{status}"),
            json!({"description": lines.join(" "), "content": content}),
        )
    };
    Value::Object(statuses().into_iter().map(one).collect())
}

fn schemas() -> Value {
    let mut parts = Vec::new();
    Shape::of::<Problem>().collect(&mut parts);
    for route in ROUTES {
        route.told.takes.iter().for_each(|shape| shape.collect(&mut parts));
        route
            .told
            .gives
            .shape()
            .iter()
            .for_each(|shape| shape.collect(&mut parts));
        if let Gives::Change(shape) = &route.told.gives {
            (shape.parts_changed)(&mut parts);
        }
    }
    let all: BTreeMap<String, Value> = parts.into_iter().map(|(name, schema)| (name, value(schema))).collect();
    json!(all)
}

fn value(schema: RefOr<Schema>) -> Value {
    let mut schema = serde_json::to_value(schema).expect("schemas are plain data");
    tell(&mut schema);
    schema
}

/// Makes descriptions out of the comments.
fn tell(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(comment)) = fields.get_mut("description") {
                *comment = mcp_api::told(comment);
            }
            fields.values_mut().for_each(tell);
        }
        Value::Array(items) => items.iter_mut().for_each(tell),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
