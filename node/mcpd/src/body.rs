//! Bodies of requests: received within limits, read strictly, with every fault named.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use mcp_api::problem::{Code, FieldFault};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::limits;

/// Receives a JSON body.
pub(crate) async fn receive(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Bytes, Fault> {
    if !is_json(headers) {
        return Err(Fault::new(
            Code::UnsupportedMediaType,
            "the body must be sent with Content-Type: application/json",
        ));
    }
    let too_large = || Fault::new(Code::TooLarge, format!("the body is larger than {bytes_max} bytes"));
    if announced(headers).is_some_and(|bytes| bytes > bytes_max) {
        return Err(too_large());
    }
    let received = tokio::time::timeout(limits::BODY_WAIT, axum::body::to_bytes(body, bytes_max)).await;
    let late = |_| Fault::new(Code::BadRequest, "the body did not arrive in time");
    received.map_err(late)?.map_err(|error| {
        // axum gives one error for a body over the limit and for a broken connection, of which nobody reads the answer.
        tracing::debug!(%error, "body refused");
        too_large()
    })
}

/// How long the body will be, if its sender says so.
pub(crate) fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// What was read from a body, and the faults found on the way.
#[derive(Debug)]
pub(crate) struct Parsed<T> {
    pub(crate) value: T,
    pub(crate) faults: Faults,
}

/// Why a field that was read can be relied on.
pub(crate) const READ: &str = "a field without a fault was read";

/// Faults by field, at most one of each.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<FieldFault>);

impl Faults {
    pub(crate) fn add(&mut self, field: impl Into<String>, detail: impl std::fmt::Display) {
        let field = field.into();
        if self.0.len() < limits::FAULTS_MAX && self.0.iter().all(|f| f.field != field) {
            self.0.push(FieldFault::new(field, detail));
        }
    }

    /// Notes the error of a field, if it is one.
    pub(crate) fn check<T, E: std::fmt::Display>(
        &mut self,
        field: impl Into<String>,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|error| self.add(field, error)).ok()
    }

    /// Refuses a text that is too long.
    pub(crate) fn text(&mut self, field: &str, text: &str, bytes_max: usize) {
        if text.len() > bytes_max {
            self.add(field, format!("at most {bytes_max} bytes"));
        } else if text.contains('\0') {
            self.add(field, "it holds a NUL");
        }
    }

    /// A no that lists them all, if there are any.
    pub(crate) fn refuse(self) -> Result<(), Fault> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Fault::invalid(self.0))
    }
}

/// Reads a body. Fields of the wrong type and unknown ones become faults and are left out of the value, so that the caller
/// can add what it finds wrong with the rest.
pub(crate) fn parse<T: DeserializeOwned + Default>(body: &[u8]) -> Result<Parsed<T>, Fault> {
    // Structs can be read from arrays too, which nobody means.
    let object = body.trim_ascii_start().starts_with(b"{");
    if let (true, Ok(value)) = (object, serde_json::from_slice(body)) {
        return Ok(Parsed {
            value,
            faults: Faults::default(),
        });
    }
    let mut json: Value = serde_json::from_slice(body)
        .map_err(|error| Fault::new(Code::BadRequest, format!("the body is not JSON: {error}")))?;
    if !json.is_object() {
        return Err(Fault::new(Code::BadRequest, "the body must be a JSON object"));
    }
    let mut faults = Faults::default();
    for _ in 0..limits::FAULTS_MAX {
        match serde_path_to_error::deserialize::<_, T>(&json) {
            Ok(value) if faults.0.is_empty() => {
                // What a map cannot show: a field that stands there twice.
                let why = serde_json::from_slice::<T>(body)
                    .err()
                    .map_or_else(String::new, |e| without_value(&e.to_string()));
                drop(value);
                return Err(Fault::new(Code::BadRequest, format!("the body cannot be read: {why}")));
            }
            Ok(value) => return Ok(Parsed { value, faults }),
            Err(error) => {
                let path = error.path().to_string();
                faults.add(path.as_str(), without_value(&error.inner().to_string()));
                if !take_out(&mut json, error.path()) {
                    break;
                }
            }
        }
    }
    faults.refuse()?;
    Err(Fault::new(Code::BadRequest, "the body cannot be read"))
}

/// What serde says of a wrong value, without the value: it may be a password that somebody wrote as a number.
fn without_value(why: &str) -> String {
    let names_it = ["invalid type: ", "invalid value: ", "unknown variant "]
        .iter()
        .any(|prefix| why.starts_with(prefix));
    match why.rsplit_once(", expected ") {
        Some((_, expected)) if names_it => format!("wrong type or value: expected {expected}"),
        _ => why.to_owned(),
    }
}

/// Reads a patch (RFC 7396) on top of what is there: what is given takes its place, and `null` the default's.
pub(crate) fn parse_onto<T: DeserializeOwned + Default>(
    current: &impl Serialize,
    patch: &[u8],
) -> Result<Parsed<T>, Fault> {
    let unreadable = |error| Fault::new(Code::BadRequest, format!("the body is not JSON: {error}"));
    let Once(patch) = serde_json::from_slice(patch).map_err(unreadable)?;
    let mut whole = serde_json::to_value(current).expect("bodies are plain data");
    merge(&mut whole, Value::Object(patch));
    parse(&serde_json::to_vec(&whole).expect("JSON is plain data"))
}

fn merge(current: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *current = patch;
        return;
    };
    if !current.is_object() {
        *current = Value::Object(Map::new());
    }
    let Value::Object(fields) = current else { return };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(&key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// An object in which no field stands twice.
struct Once(Map<String, Value>);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Once, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Once;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut fields = Map::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if fields.contains_key(&key) {
                        return Err(serde::de::Error::custom(format!("field {key:?} stands there twice")));
                    }
                    fields.insert(key, value);
                }
                Ok(Once(fields))
            }
        }
        from.deserialize_map(Fields)
    }
}

/// Takes the part at `path` out. `false`: there is nothing to take. An element of a list keeps its place, because those behind it
/// would be named wrongly: an empty object stands in for it, and if that does not fit either, an empty text. What is wrong with
/// the stand-in is a fault of the same field, and so not told.
fn take_out(json: &mut Value, path: &serde_path_to_error::Path) -> bool {
    use serde_path_to_error::Segment;
    let segments: Vec<&Segment> = path.iter().collect();
    let Some((last, way)) = segments.split_last() else {
        return false;
    };
    let mut at = json;
    for segment in way {
        let next = match segment {
            Segment::Map { key } => at.get_mut(key.as_str()),
            Segment::Seq { index } => at.get_mut(*index),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        let Some(next) = next else { return false };
        at = next;
    }
    match (last, at) {
        (Segment::Map { key }, Value::Object(fields)) => fields.remove(key).is_some(),
        (Segment::Seq { index }, Value::Array(elements)) => elements.get_mut(*index).is_some_and(stand_in),
        _ => false,
    }
}

/// Puts something empty in the place of an element. `false`: all was tried.
fn stand_in(element: &mut Value) -> bool {
    let next = match element {
        Value::String(text) if text.is_empty() => return false,
        Value::Object(fields) if fields.is_empty() => Value::String(String::new()),
        _ => Value::Object(Map::new()),
    };
    *element = next;
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcp_api::projects::ProjectSpecBody;
    use mcp_api::rbac::RbacSpec;
    use mcp_api::servers::ServerSpecBody;

    fn fields<T: DeserializeOwned + Default + std::fmt::Debug>(body: &str) -> Vec<String> {
        match parse::<T>(body.as_bytes()) {
            Ok(parsed) => parsed.faults.0.into_iter().map(|f| f.field).collect(),
            Err(fault) => vec![fault.code().as_str().to_owned()],
        }
    }

    #[test]
    fn every_fault_is_listed_with_its_field() {
        let all = fields::<ProjectSpecBody>(r#"{"name":"a","gated":"yes","servers":{},"colour":1,"x":2}"#);
        assert_eq!(all, ["colour", "gated", "servers", "x"]);
        assert_eq!(
            fields::<RbacSpec>(r#"{"name":"a","roleBindings":[{"role":1},{"rolle":"x"}]}"#),
            ["roleBindings[0].role", "roleBindings[1].rolle"]
        );
        assert_eq!(
            fields::<RbacSpec>(r#"{"name":"a","subjects":[7,{"kind":1}],"roleBindings":["x",{"role":1}]}"#),
            [
                "roleBindings[0]",
                "roleBindings[1].role",
                "subjects[0]",
                "subjects[1].kind"
            ]
        );
        let of_texts = r#"{"name":"a","args":[1,"b",{}],"colour":1}"#;
        assert_eq!(fields::<ServerSpecBody>(of_texts), ["args[0]", "args[2]", "colour"]);
        assert!(fields::<ProjectSpecBody>(r#"{"name":"a"}"#).is_empty());
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let current = serde_json::json!({"name": "a", "transport": "stdio", "env": {"A": "1", "B": "2"}, "cwd": "/"});
        let patch = br#"{"env":{"A":null,"C":"3"},"cwd":null,"description":"d"}"#;
        let spec: ServerSpecBody = parse_onto(&current, patch).unwrap().value;
        let env: Vec<_> = spec.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(env, [("B", "2"), ("C", "3")]);
        assert_eq!(
            (spec.cwd, spec.description.as_str(), spec.transport.as_str()),
            (None, "d", "stdio")
        );
        for bad in [&b"[]"[..], b"1", b"{", br#"{"cwd":"/","cwd":"/x"}"#] {
            let fault = parse_onto::<ServerSpecBody>(&current, bad).unwrap_err();
            assert_eq!(fault.code(), Code::BadRequest);
        }
        let unknown = parse_onto::<ServerSpecBody>(&current, br#"{"colour":1}"#).unwrap();
        assert_eq!(unknown.faults.0[0].field, "colour");
    }

    #[test]
    fn what_is_not_an_object_or_says_things_twice_is_not_read() {
        for body in ["", "[]", "1", "{", r#"{"name":"a","name":"b"}"#] {
            assert_eq!(fields::<ProjectSpecBody>(body), ["bad_request"], "{body}");
        }
    }
}
