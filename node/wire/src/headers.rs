//! The HTTP headers of MCP: names, the value encoding, and the check of a modern request's headers against its body
//! (2026-07-28, streamable HTTP, "Request Metadata"). The body decides; a header that disagrees is `-32020`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::message::{META_CLIENT_CAPABILITIES, META_PROTOCOL_VERSION, Message};
use crate::refusal::{HEADER_MISMATCH, INVALID_PARAMS, Refusal};
use crate::version::{Era, Revision};

/// `MCP-Protocol-Version`.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Method`.
pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`.
pub const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// `Mcp-Session-Id`, legacy.
pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

const SENTINEL: (&str, &str) = ("=?base64?", "?=");

/// The parameter that `Mcp-Name` mirrors, for the methods that need the header.
fn mirrored_name(message: &Message) -> Option<Option<&str>> {
    match message.method()? {
        "tools/call" | "prompts/get" => Some(message.name()),
        "resources/read" => Some(message.uri()),
        _ => None,
    }
}

/// A value as a header: as it is where that is safe, otherwise in the base64 sentinel form.
pub fn encode_value(text: &str) -> HeaderValue {
    let plain = text.bytes().all(|byte| matches!(byte, 0x20..=0x7e | b'\t'))
        && text.trim_matches([' ', '\t']) == text
        && !(text.starts_with(SENTINEL.0) && text.ends_with(SENTINEL.1));
    let value = match plain {
        true => HeaderValue::from_str(text),
        false => HeaderValue::from_str(&format!("{}{}{}", SENTINEL.0, STANDARD.encode(text), SENTINEL.1)),
    };
    value.expect("visible ASCII is a header value")
}

/// The text of a header value; none if it holds bytes it must not, or a sentinel that does not decode.
pub fn decode_value(value: &HeaderValue) -> Option<Cow<'_, str>> {
    let text = value.to_str().ok()?;
    let coded = text
        .strip_prefix(SENTINEL.0)
        .and_then(|rest| rest.strip_suffix(SENTINEL.1));
    match coded {
        None => Some(Cow::Borrowed(text)),
        Some(coded) => String::from_utf8(STANDARD.decode(coded).ok()?).ok().map(Cow::Owned),
    }
}

/// Checks a modern request: the required `_meta` keys (`-32602`), the headers against the body (`-32020`), and that we
/// speak the version (`-32022`), in this order, so that a client which contradicts itself is told that first.
pub fn check_modern(message: &Message, headers: &HeaderMap) -> Result<Revision, Refusal> {
    let missing = |key: &str| Refusal::bad(INVALID_PARAMS, format!("params._meta lacks the required \"{key}\""));
    if !message.names_protocol_version() {
        return Err(missing(META_PROTOCOL_VERSION));
    }
    if !message.meta_capabilities().is_some_and(|raw| raw.starts_with('{')) {
        return Err(missing(META_CLIENT_CAPABILITIES));
    }
    let version = message
        .meta_version()
        .ok_or_else(|| Refusal::bad(INVALID_PARAMS, format!("\"{META_PROTOCOL_VERSION}\" must be a string")))?;
    check_header(headers, &PROTOCOL_VERSION, "MCP-Protocol-Version", version, Plain)?;
    check_header(
        headers,
        &METHOD,
        "Mcp-Method",
        message.method().unwrap_or_default(),
        Plain,
    )?;
    if let Some(Some(name)) = mirrored_name(message) {
        check_header(headers, &NAME, "Mcp-Name", name, MayBeEncoded)?;
    }
    match Revision::parse(version) {
        Some(revision) if revision.era() == Era::Modern => Ok(revision),
        Some(_) | None => Err(Refusal::unsupported_version(version)),
    }
}

#[derive(Clone, Copy)]
enum Coding {
    Plain,
    MayBeEncoded,
}
use Coding::{MayBeEncoded, Plain};

fn check_header(
    headers: &HeaderMap,
    name: &HeaderName,
    shown: &str,
    expected: &str,
    coding: Coding,
) -> Result<(), Refusal> {
    let mismatch = |why: String| Refusal::bad(HEADER_MISMATCH, format!("Header mismatch: {shown} {why}"));
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or_else(|| mismatch("is missing".into()))?;
    if values.next().is_some() {
        return Err(mismatch("is given more than once".into()));
    }
    let text = match coding {
        Plain => value.to_str().ok().map(Cow::Borrowed),
        MayBeEncoded => decode_value(value),
    };
    match text {
        Some(text) if text == expected => Ok(()),
        Some(text) => Err(mismatch(format!(
            "header value '{text}' does not match body value '{expected}'"
        ))),
        None => Err(mismatch("holds a value that cannot be read".into())),
    }
}

/// The headers of a modern request to an upstream, from what its body will say.
pub fn modern_headers(revision: Revision, method: &str, name: Option<&str>, headers: &mut HeaderMap) {
    headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(revision.as_str()));
    headers.insert(METHOD, encode_value(method));
    if let Some(name) = name {
        headers.insert(NAME, encode_value(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn values_are_encoded_as_the_specification_shows() {
        let rows = [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ];
        for (text, header) in rows {
            assert_eq!(encode_value(text), header);
            assert_eq!(decode_value(&encode_value(text)).unwrap(), text);
        }
        for bad in ["=?base64?!!?=", "=?base64?/w==?=", "=?base64?YQ?=", "=?base64?YR==?="] {
            assert_eq!(decode_value(&HeaderValue::from_static(bad)), None, "{bad}");
        }
    }

    fn call(meta: &str, name: &str) -> Message {
        let name = serde_json::to_string(name).unwrap();
        Message::read(Bytes::from(format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{name},"_meta":{{{meta}}}}}}}"#
        )))
        .unwrap()
    }

    #[test]
    fn headers_must_repeat_what_the_body_says() {
        let good =
            r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}"#;
        let old =
            r#""io.modelcontextprotocol/protocolVersion":"1900-01-01","io.modelcontextprotocol/clientCapabilities":{}"#;
        let bare = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
        let version = ("mcp-protocol-version", "2026-07-28");
        let method = ("mcp-method", "tools/call");
        type Headers<'a> = &'a [(&'static str, &'static str)];
        let rows: [(&str, &str, Headers<'_>, i32); 12] = [
            (good, "echo", &[version, method, ("mcp-name", "echo")], 0),
            (good, "é", &[version, method, ("mcp-name", "=?base64?w6k=?=")], 0),
            (good, "echo", &[method, ("mcp-name", "echo")], -32020),
            (good, "echo", &[version, ("mcp-name", "echo")], -32020),
            (good, "echo", &[version, method], -32020),
            (good, "echo", &[version, method, ("mcp-name", "other")], -32020),
            (good, "echo", &[version, method, ("mcp-name", "=?base64?!?=")], -32020),
            (
                good,
                "echo",
                &[version, method, ("mcp-name", "echo"), ("mcp-name", "echo")],
                -32020,
            ),
            (
                good,
                "echo",
                &[version, ("mcp-method", "tools/list"), ("mcp-name", "echo")],
                -32020,
            ),
            (
                good,
                "echo",
                &[("mcp-protocol-version", "2025-11-25"), method, ("mcp-name", "echo")],
                -32020,
            ),
            (
                old,
                "echo",
                &[("mcp-protocol-version", "1900-01-01"), method, ("mcp-name", "echo")],
                -32022,
            ),
            (bare, "echo", &[version, method, ("mcp-name", "echo")], -32602),
        ];
        for (meta, name, pairs, code) in rows {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let got = check_modern(&call(meta, name), &headers);
            assert_eq!(
                got.as_ref().err().map_or(0, |refusal| refusal.code),
                code,
                "{name} {pairs:?} {got:?}"
            );
        }
    }
}
