//! What this package decodes, each as a function of bytes that anybody may have sent: none may panic. `tests/fuzz` runs them, under
//! libFuzzer and in `cargo test`.

use mcp_api::auth::{LoginRequest, SetupRequest};
use mcp_api::backup::RestoreRequest;
use mcp_api::cluster::NewJoinToken;
use mcp_api::groups::{GroupChange, GroupSpec};
use mcp_api::problem::{Code, Problem};
use mcp_api::projects::{ProjectBody, ProjectChange, ProjectSpecBody};
use mcp_api::rbac::{RbacSpec, RoleBindingBody, SubjectBody};
use mcp_api::receipt::ReceiptBody;
use mcp_api::secrets::{SecretChange, SecretSpec};
use mcp_api::servers::ServerSpecBody;
use mcp_api::serviceaccounts::{NewSession, ServiceAccountChange, ServiceAccountSpec};
use mcp_api::tokens::NewMcpToken;
use mcp_api::users::{NewUser, PasswordChange, PasswordReset, UserChange, UserSpec};
use mcp_model::ids::{Id, NodeId};
use mcp_model::names::{Email, Name};
use mcp_model::rbac::{Action, Pattern, Resource, Role, RoleBinding, Subject};
use mcp_model::token::{PlainJoin, PlainSession, PlainSetup, PlainToken, TokenHash};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::hosts::AllowedHosts;
use crate::{body, page};

/// A decoder with its name.
pub type Decoder = (&'static str, fn(&[u8]));

/// Every decoder.
pub const ALL: [Decoder; 5] = [
    ("body", a_body),
    ("patch", patch),
    ("names", names),
    ("bearers", bearers),
    ("query", query),
];

/// As a body: a value or a no, and what was read can be written and read again.
fn one<T: DeserializeOwned + Default + Serialize>(bytes: &[u8]) {
    let Ok(parsed) = body::parse::<T>(bytes) else { return };
    let written = serde_json::to_vec(&parsed.value).expect("bodies are plain data");
    let again = serde_json::from_slice::<T>(&written);
    assert!(
        again.is_ok(),
        "{}: {:?}",
        String::from_utf8_lossy(&written),
        again.err()
    );
}

/// As a body that is only read: its secrets are not written anywhere.
fn read_only<T: DeserializeOwned + Default>(bytes: &[u8]) {
    let _read = body::parse::<T>(bytes).is_ok();
}

/// As each body that a route takes, and as what clients read of the answers.
fn a_body(bytes: &[u8]) {
    one::<GroupSpec>(bytes);
    one::<GroupChange>(bytes);
    one::<ProjectSpecBody>(bytes);
    one::<ProjectChange>(bytes);
    one::<RbacSpec>(bytes);
    one::<ServerSpecBody>(bytes);
    one::<ServiceAccountSpec>(bytes);
    one::<ServiceAccountChange>(bytes);
    one::<NewMcpToken>(bytes);
    one::<UserSpec>(bytes);
    one::<UserChange>(bytes);
    one::<NewJoinToken>(bytes);
    one::<NewSession>(bytes);
    read_only::<RestoreRequest>(bytes);
    read_only::<SecretSpec>(bytes);
    read_only::<SecretChange>(bytes);
    read_only::<NewUser>(bytes);
    read_only::<LoginRequest>(bytes);
    read_only::<SetupRequest>(bytes);
    read_only::<PasswordChange>(bytes);
    read_only::<PasswordReset>(bytes);
    let _answer = serde_json::from_slice::<Problem>(bytes).is_ok();
    let _answer = serde_json::from_slice::<ReceiptBody>(bytes).is_ok();
    let _answer = serde_json::from_slice::<ProjectBody>(bytes).is_ok();
}

/// As a patch on top of objects that are there.
fn patch(bytes: &[u8]) {
    let server = json!({"name": "a", "transport": "stdio", "env": {"A": "1"}, "args": ["b"], "cwd": "/"});
    let _server = body::parse_onto::<ServerSpecBody>(&server, bytes).is_ok();
    let rules = json!({"name": "a", "subjects": [{"kind": "User", "name": "a@b.c"}], "roleBindings": []});
    let _rules = body::parse_onto::<RbacSpec>(&rules, bytes).is_ok();
}

/// What parses is shown as what parses to the same.
macro_rules! shown_as_it_is_read {
    ($text:expr, $($type:ty),+) => {
        $(if let Ok(value) = $text.parse::<$type>() {
            let shown = value.to_string();
            assert_eq!(shown.parse::<$type>().ok(), Some(value), "{shown}");
        })+
    };
}

/// Names, ids, patterns and bindings, as texts.
fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let text = &*text;
    if let Ok(name) = Name::parse(text) {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(email) = Email::parse(text) {
        assert_eq!(Email::parse(email.as_str()), Ok(email));
    }
    let _pattern = Pattern::parse(text).is_ok();
    shown_as_it_is_read!(text, Id, NodeId, RoleBinding, Subject);
    let _words = (
        text.parse::<Resource>().is_ok(),
        text.parse::<Role>().is_ok(),
        text.parse::<Action>().is_ok(),
    );
    if let Ok(binding) = RoleBindingBody::parse(text) {
        let _read = binding.read().is_ok();
    }
    if let Ok(subject) = SubjectBody::parse(text) {
        let _read = subject.read().is_ok();
    }
    let _code = Code::parse(text);
    let _time = mcp_api::parse_time(text);
    let _expiry = mcp_api::ttl::expiry(text, 1_700_000_000_000).is_ok();
    let _allowed = AllowedHosts::new(["localhost"]).allow(Some(text));
}

/// Bearers of every kind: what is read is shown as it was given.
fn bearers(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let text = &*text;
    let given = [
        PlainToken::parse(text).map(|bearer| bearer.expose().to_string()),
        PlainSession::parse(text).map(|bearer| bearer.expose().to_string()),
        PlainSetup::parse(text).map(|bearer| bearer.expose().to_string()),
        PlainJoin::parse(text).map(|bearer| bearer.expose().to_string()),
    ];
    for shown in given.into_iter().flatten() {
        assert_eq!(shown, text);
    }
    if let Some(hash) = TokenHash::from_hex(text) {
        assert!(hash.to_string().eq_ignore_ascii_case(text));
    }
}

/// What an earlier page gave.
fn query(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    page::decode_continue(&text);
    let _query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(
        &http::Uri::try_from(format!("/api/v1/users?{text}")).unwrap_or_default(),
    )
    .is_ok();
}
