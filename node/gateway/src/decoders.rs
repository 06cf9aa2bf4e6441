//! What this package decodes, each as a function of bytes that anybody may have sent or written: none may panic. `tests/fuzz` runs
//! them, under libFuzzer and in `cargo test`. The messages themselves are read by `mcp_wire`.

use std::path::Path;

use http::header::{AUTHORIZATION, HeaderValue};
use http::{HeaderMap, Uri};
use mcp_model::ids::{Id, NodeId};
use mcp_model::token::TokenHash;

use crate::endpoint::Endpoint;
use crate::session::Sessions;
use crate::{audit, bearer, catalog, childlogs, forward, http_sse, protocol, relay, streams};

/// A decoder with its name.
pub type Decoder = (&'static str, fn(&[u8]));

/// Every decoder.
pub const ALL: [Decoder; 12] = [
    ("audit", an_audit_segment),
    ("session", session),
    ("asked", relay::decode_asked),
    ("said", relay::decode_said),
    ("held", relay::decode_held),
    ("bearer", a_bearer),
    ("path", path),
    ("lists", catalog::decode_lists),
    ("listen", streams::decode_filter),
    ("posted", posted),
    ("children", asked_of_children),
    ("forward", asked_to_carry),
];

/// The text of an audit segment.
fn an_audit_segment(bytes: &[u8]) {
    let path = Path::new("audit-00000000000000000001.jsonl");
    let _whole = audit::verify_text(path, bytes).is_ok();
    let _seq = audit::last_seq_of(path, bytes);
}

/// A session id that nobody issued opens nothing; what is sealed in one is read whatever it is.
fn session(bytes: &[u8]) {
    let sessions = Sessions::new(NodeId(1), &[7; 32], 60_000, 4);
    let token = TokenHash([1; 32]);
    let project = Id::from_u128(2);
    let id = String::from_utf8_lossy(bytes);
    assert!(
        sessions.open(&id, token, project, 1).is_err(),
        "nobody has sealed {id:?}"
    );
    sessions.decode_sealed(bytes, token, project);
}

/// The first line is a header's value, the rest a path with its query.
fn a_bearer(bytes: &[u8]) {
    let (value, uri) = match memchr(bytes) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &b"/mcp"[..]),
    };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(value) {
        headers.append(AUTHORIZATION, value);
    }
    let _accepts = protocol::Accepts::of(&headers);
    if let Ok(uri) = Uri::try_from(uri) {
        let _hash = bearer::read(&headers, &uri).is_ok();
        let _basic = bearer::read_or_basic(&headers, &uri).is_ok();
        http_sse::decode_address(uri.query().unwrap_or_default());
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

/// What another node said of a message for a stream.
fn posted(bytes: &[u8]) {
    http_sse::decode_posted(bytes);
    let mut marked = vec![0xf5];
    marked.extend_from_slice(bytes);
    http_sse::decode_posted(&marked);
}

/// What another node asked about children, and what it answered.
fn asked_of_children(bytes: &[u8]) {
    childlogs::decode(bytes);
    let mut marked = vec![0xf4];
    marked.extend_from_slice(bytes);
    childlogs::decode(&marked);
}

/// What another node asked to be carried out, and what it answered.
fn asked_to_carry(bytes: &[u8]) {
    forward::decode(bytes);
    let mut marked = vec![0xf3];
    marked.extend_from_slice(bytes);
    forward::decode(&marked);
}

/// Whose endpoint a path is: names in it are names, however they were coded.
fn path(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for path in [
        text.to_string(),
        format!("/projects/{text}/mcp"),
        format!("/projects/{text}/sse"),
    ] {
        let _endpoint = Endpoint::of(&path).is_some();
    }
}
