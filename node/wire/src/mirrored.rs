//! `x-mcp-header`: tool parameters that are repeated as `Mcp-Param-*` headers (2026-07-28, streamable HTTP).
//!
//! Compiled once per tool when its list is read; a call of a tool without such parameters, which is nearly every call,
//! costs nothing here.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::headers::{decode_value, encode_value};
use crate::refusal::{HEADER_MISMATCH, Refusal};

/// Largest integer that every JSON reader holds exactly.
const SAFE_INTEGER: i64 = (1 << 53) - 1;

/// The mirrored parameters of one tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirroredParams {
    list: Vec<Mirrored>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirrored {
    path: Vec<String>,
    header: HeaderName,
    kind: Primitive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Primitive {
    String,
    Integer,
    Boolean,
}

impl MirroredParams {
    /// Reads the annotations of an `inputSchema`. An error says why the tool must not be listed to modern clients.
    pub fn compile(input_schema: &Value) -> Result<MirroredParams, String> {
        let mut list = Vec::new();
        walk(input_schema, Some(&mut Vec::new()), &mut list)?;
        Ok(MirroredParams { list })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Checks the headers of a call against its raw arguments: present together and equal, or absent together.
    pub fn check(&self, arguments: Option<&str>, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.list.is_empty() {
            return Ok(());
        }
        let arguments = parse(arguments);
        for mirrored in &self.list {
            mirrored.check(&arguments, headers)?;
        }
        Ok(())
    }

    /// The headers for a call with these raw arguments.
    pub fn build(&self, arguments: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
        if self.list.is_empty() {
            return Vec::new();
        }
        let arguments = parse(arguments);
        let header = |mirrored: &Mirrored| {
            let text = mirrored.render(&arguments)?;
            Some((mirrored.header.clone(), encode_value(&text)))
        };
        self.list.iter().filter_map(header).collect()
    }
}

fn parse(arguments: Option<&str>) -> Value {
    arguments
        .and_then(|raw| serde_json::from_str(raw).ok())
        .unwrap_or(Value::Null)
}

impl Mirrored {
    fn value<'a>(&self, arguments: &'a Value) -> Option<&'a Value> {
        self.path
            .iter()
            .try_fold(arguments, |node, key| node.get(key))
            .filter(|value| !value.is_null())
    }

    fn render(&self, arguments: &Value) -> Option<String> {
        match self.value(arguments)? {
            Value::String(text) => Some(text.clone()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn check(&self, arguments: &Value, headers: &HeaderMap) -> Result<(), Refusal> {
        let mismatch = |why: &str| Refusal::bad(HEADER_MISMATCH, format!("Header mismatch: {} {why}", self.header));
        let mut values = headers.get_all(&self.header).iter();
        let given = values.next();
        if values.next().is_some() {
            return Err(mismatch("is given more than once"));
        }
        match (given, self.render(arguments)) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(mismatch("is missing, but the argument is present")),
            (Some(_), None) => Err(mismatch("is present, but the argument is absent")),
            (Some(given), Some(expected)) => {
                let text = decode_value(given).ok_or_else(|| mismatch("holds a value that cannot be read"))?;
                let same = text == expected || (self.kind == Primitive::Integer && same_integer(&text, &expected));
                if same {
                    Ok(())
                } else {
                    Err(mismatch("does not match the argument"))
                }
            }
        }
    }
}

/// Integers compare as numbers: `42.0` is `42`. Anything but plain decimals compares as text.
fn same_integer(one: &str, other: &str) -> bool {
    let integer = |text: &str| {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let zero = !fraction.is_empty() && fraction.bytes().all(|byte| byte == b'0');
        zero.then(|| whole.parse::<i64>().ok())
            .flatten()
            .filter(|number| number.abs() <= SAFE_INTEGER)
    };
    integer(one).is_some_and(|number| integer(other) == Some(number))
}

/// Walks all schema positions. `path` is the chain of `properties` keys, none once the chain is broken.
fn walk(schema: &Value, path: Option<&mut Vec<String>>, list: &mut Vec<Mirrored>) -> Result<(), String> {
    let Value::Object(schema) = schema else { return Ok(()) };
    let mut path = path;
    if let Some(annotation) = schema.get("x-mcp-header") {
        let mirrored = mirrored(annotation, schema.get("type"), path.as_deref().map(Vec::as_slice))?;
        if list.iter().any(|other| other.header == mirrored.header) {
            return Err(format!("x-mcp-header {annotation} is given to two properties"));
        }
        list.push(mirrored);
    }
    for (keyword, value) in schema {
        match (keyword.as_str(), value) {
            ("enum" | "const" | "default" | "examples", _) => {}
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties {
                    if let Some(path) = path.as_deref_mut() {
                        path.push(name.clone());
                        walk(property, Some(path), list)?;
                        path.pop();
                    } else {
                        walk(property, None, list)?;
                    }
                }
            }
            ("patternProperties" | "$defs" | "definitions" | "dependentSchemas", Value::Object(schemas)) => {
                schemas.values().try_for_each(|schema| walk(schema, None, list))?;
            }
            (_, Value::Array(schemas)) => schemas.iter().try_for_each(|schema| walk(schema, None, list))?,
            (_, schema) => walk(schema, None, list)?,
        }
    }
    Ok(())
}

fn mirrored(annotation: &Value, kind: Option<&Value>, path: Option<&[String]>) -> Result<Mirrored, String> {
    let path = path
        .filter(|path| !path.is_empty())
        .ok_or("x-mcp-header stands where no argument is")?;
    let token = annotation
        .as_str()
        .filter(|token| !token.is_empty())
        .ok_or("x-mcp-header must be a token")?;
    let header = HeaderName::try_from(format!("mcp-param-{}", token.to_ascii_lowercase()))
        .map_err(|_| format!("x-mcp-header {annotation} is not a header name"))?;
    let kind = match kind.and_then(Value::as_str) {
        Some("string") => Primitive::String,
        Some("integer") => Primitive::Integer,
        Some("boolean") => Primitive::Boolean,
        Some(_) | None => {
            return Err(format!(
                "x-mcp-header {annotation} is not on a string, integer or boolean"
            ));
        }
    };
    Ok(Mirrored {
        path: path.to_vec(),
        header,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn annotations_are_compiled_or_refused() {
        let good = json!({"type":"object","properties":{
            "region":{"type":"string","x-mcp-header":"Region"},
            "x-mcp-header":{"type":"string"},
            "deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"}}},
            "free":{"type":"string","default":{"x-mcp-header":"no"}}}});
        assert_eq!(MirroredParams::compile(&good).unwrap().list.len(), 2);
        let bad = [
            json!({"x-mcp-header":"Root","type":"string"}),
            json!({"properties":{"a":{"type":"number","x-mcp-header":"A"}}}),
            json!({"properties":{"a":{"x-mcp-header":"A"}}}),
            json!({"properties":{"a":{"type":"string","x-mcp-header":""}}}),
            json!({"properties":{"a":{"type":"string","x-mcp-header":"a b"}}}),
            json!({"properties":{"a":{"type":"string","x-mcp-header":7}}}),
            json!({"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}),
            json!({"properties":{"a":{"type":"array","items":{"type":"string","x-mcp-header":"A"}}}}),
            json!({"oneOf":[{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}]}),
            json!({"$defs":{"a":{"type":"string","x-mcp-header":"A"}}}),
        ];
        for schema in bad {
            assert!(MirroredParams::compile(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn headers_and_arguments_come_together_and_agree() {
        let schema =
            json!({"properties":{"n":{"type":"integer","x-mcp-header":"N"},"s":{"type":"string","x-mcp-header":"S"}}});
        let params = MirroredParams::compile(&schema).unwrap();
        let check = |arguments: &str, pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            params.check(Some(arguments), &headers).is_ok()
        };
        assert!(check("{}", &[]));
        assert!(check(r#"{"n":null}"#, &[]));
        assert!(check(
            r#"{"n":42,"s":"é"}"#,
            &[("mcp-param-n", "42.0"), ("mcp-param-s", "=?base64?w6k=?=")]
        ));
        assert!(!check(r#"{"n":42}"#, &[]));
        assert!(!check(r#"{"n":42}"#, &[("mcp-param-n", "43")]));
        assert!(!check(r#"{"n":42}"#, &[("mcp-param-n", "42"), ("mcp-param-n", "42")]));
        assert!(!check("{}", &[("mcp-param-n", "42")]));
        assert!(!check(r#"{"s":"a"}"#, &[("mcp-param-s", "=?base64?!?=")]));
        let built = params.build(Some(r#"{"n":-7,"s":" x"}"#));
        let mut headers = HeaderMap::new();
        headers.extend(built.into_iter().map(|(name, value)| (Some(name), value)));
        assert_eq!(headers["mcp-param-n"], "-7");
        assert_eq!(headers["mcp-param-s"], "=?base64?IHg=?=");
    }
}
