//! Protocol revisions and the two eras.
//!
//! *Legacy* revisions open with `initialize` and keep a session; the *modern* one carries everything in `_meta` of each
//! request. Which of the two a request belongs to is decided per request, from its body first.

use http::HeaderMap;

use crate::headers;
use crate::message::Message;

/// A protocol revision we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// 2024-11-05, the first one.
    R20241105,
    /// 2025-03-26: streamable HTTP.
    R20250326,
    /// 2025-06-18: the version header.
    R20250618,
    /// 2025-11-25: the newest legacy revision.
    R20251125,
    /// 2026-07-28: stateless.
    R20260728,
}

/// How a request conveys version, identity and capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// `initialize`, then a session.
    Legacy,
    /// `_meta` and headers on every request.
    Modern,
}

/// The newest legacy revision: what we answer to a legacy client whose own revision we do not know.
pub const NEWEST_LEGACY: Revision = Revision::R20251125;
/// The newest modern revision.
pub const NEWEST_MODERN: Revision = Revision::R20260728;

impl Revision {
    /// All revisions, newest first: the order of `supported` in refusals.
    pub const ALL: [Revision; 5] = [
        Revision::R20260728,
        Revision::R20251125,
        Revision::R20250618,
        Revision::R20250326,
        Revision::R20241105,
    ];

    /// The revision of this name, if we speak it.
    pub fn parse(text: &str) -> Option<Revision> {
        Revision::ALL.into_iter().find(|revision| revision.as_str() == text)
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Revision::R20241105 => "2024-11-05",
            Revision::R20250326 => "2025-03-26",
            Revision::R20250618 => "2025-06-18",
            Revision::R20251125 => "2025-11-25",
            Revision::R20260728 => "2026-07-28",
        }
    }

    /// The era it belongs to.
    pub const fn era(self) -> Era {
        match self {
            Revision::R20260728 => Era::Modern,
            Revision::R20241105 | Revision::R20250326 | Revision::R20250618 | Revision::R20251125 => Era::Legacy,
        }
    }
}

/// The era of one request: modern `_meta` or headers mean modern; `initialize` or a session id mean legacy.
///
/// The body goes first, because it is what is acted upon. A modern header over a body without `_meta` is modern as
/// well, so that the caller is told what is missing instead of being served under other rules than it believes.
pub fn era_of(message: &Message, headers: &HeaderMap) -> Era {
    if message.names_protocol_version() {
        return Era::Modern;
    }
    if message.method() == Some("initialize") || headers.contains_key(headers::SESSION_ID) {
        return Era::Legacy;
    }
    let named = headers
        .get(headers::PROTOCOL_VERSION)
        .and_then(|value| value.to_str().ok());
    match named.map(Revision::parse) {
        Some(Some(revision)) => revision.era(),
        Some(None) | None if headers.contains_key(headers::METHOD) => Era::Modern,
        Some(None) | None => Era::Legacy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn era_is_decided_per_request() {
        let modern = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        let bare = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
        type Headers = &'static [(&'static str, &'static str)];
        let rows: [(&str, Headers, Era); 8] = [
            (modern, &[], Era::Modern),
            (modern, &[("mcp-session-id", "x")], Era::Modern),
            (initialize, &[], Era::Legacy),
            (initialize, &[("mcp-protocol-version", "2026-07-28")], Era::Legacy),
            (bare, &[], Era::Legacy),
            (bare, &[("mcp-protocol-version", "2025-06-18")], Era::Legacy),
            (bare, &[("mcp-protocol-version", "2026-07-28")], Era::Modern),
            (bare, &[("mcp-method", "tools/list")], Era::Modern),
        ];
        for (body, pairs, expected) in rows {
            let message = Message::read(Bytes::from_static(body.as_bytes())).unwrap();
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(
                    http::HeaderName::from_static(name),
                    http::HeaderValue::from_static(value),
                );
            }
            assert_eq!(era_of(&message, &headers), expected, "{body} {pairs:?}");
        }
    }
}
