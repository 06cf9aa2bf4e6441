//! Body and headers to a [`Call`]: one message, its era and revision, its session. The body decides.

use http::HeaderMap;
use http::header::ACCEPT;
use mcp_wire::can::ClientCan;
use mcp_wire::headers;
use mcp_wire::message::{Kind, Message};
use mcp_wire::refusal::{INVALID_PARAMS, METHOD_NOT_FOUND, Refusal, SESSION_NOT_FOUND};
use mcp_wire::version::{Era, NEWEST_LEGACY, Revision, era_of};

use crate::admit::Permit;
use crate::session::{Session, Sessions};

/// A message with everything about it decided that does not depend on rights.
pub(crate) struct Call {
    pub(crate) message: Message,
    pub(crate) revision: Revision,
    pub(crate) session: Option<Session>,
    pub(crate) accepts: Accepts,
}

/// Which kinds of answer a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepts {
    pub(crate) json: bool,
    pub(crate) events: bool,
}

const BOTH: Accepts = Accepts {
    json: true,
    events: true,
};
const USUAL: &str = "application/json, text/event-stream";

impl Call {
    /// Reads a message that a permitted client sent.
    pub(crate) fn read(
        message: Message,
        headers: &HeaderMap,
        permit: &Permit,
        sessions: &Sessions,
    ) -> Result<Call, Refusal> {
        let accepts = Accepts::of(headers);
        if era_of(&message, headers) == Era::Modern {
            let revision = match message.kind() {
                Kind::Request => headers::check_modern(&message, headers)?,
                Kind::Notification => modern_notification(headers)?,
                Kind::Response => return Err(Refusal::bad(INVALID_PARAMS, "a modern client sends no responses")),
            };
            return Ok(Call {
                message,
                revision,
                session: None,
                accepts,
            });
        }
        if message.method() == Some("initialize") {
            let wanted = message.initialize_version().and_then(Revision::parse);
            let revision = wanted
                .filter(|revision| revision.era() == Era::Legacy)
                .unwrap_or(NEWEST_LEGACY);
            return Ok(Call {
                message,
                revision,
                session: None,
                accepts,
            });
        }
        let session = session(headers, permit, sessions)?;
        let revision = match &session {
            Some(session) => session.revision,
            None => legacy_revision(headers)?,
        };
        Ok(Call {
            message,
            revision,
            session,
            accepts,
        })
    }

    /// What the client can do for a server that is called.
    pub(crate) fn can(&self) -> ClientCan {
        match (&self.session, self.era()) {
            (Some(session), _) => session.can,
            (None, Era::Modern) => self
                .message
                .meta_capabilities()
                .map_or(ClientCan::NOTHING, ClientCan::read),
            (None, Era::Legacy) => ClientCan::NOTHING,
        }
    }

    pub(crate) fn era(&self) -> Era {
        self.revision.era()
    }

    /// The refusal of a method that there is not; the modern era says it by the HTTP status as well.
    pub(crate) fn unknown_method(&self) -> Refusal {
        let method = self.message.method().unwrap_or_default();
        let refusal = Refusal::inside(METHOD_NOT_FOUND, format!("Method not found: {method}"));
        match self.era() {
            Era::Legacy => refusal,
            Era::Modern => refusal.with_status(http::StatusCode::NOT_FOUND),
        }
    }
}

/// The header requirements of a modern notification are not defined; the version must still be one of ours.
fn modern_notification(headers: &HeaderMap) -> Result<Revision, Refusal> {
    let named = headers
        .get(headers::PROTOCOL_VERSION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    Revision::parse(named)
        .filter(|revision| revision.era() == Era::Modern)
        .ok_or_else(|| Refusal::unsupported_version(named))
}

/// The session that the header names, if it names one.
pub(crate) fn session(headers: &HeaderMap, permit: &Permit, sessions: &Sessions) -> Result<Option<Session>, Refusal> {
    let Some(id) = headers.get(headers::SESSION_ID) else {
        return Ok(None);
    };
    let opened = id.to_str().ok().and_then(|id| {
        sessions
            .open(id, permit.hash(), permit.project().id, permit.at_ms())
            .ok()
    });
    match opened {
        Some(session) => Ok(Some(session)),
        None => Err(no_session()),
    }
}

/// There is no such session, or it is another token's, or it is over.
pub(crate) fn no_session() -> Refusal {
    Refusal::bad(SESSION_NOT_FOUND, "Session not found").with_status(http::StatusCode::NOT_FOUND)
}

/// The revision of a legacy request without a session. No header means 2025-03-26, as the specification says.
fn legacy_revision(headers: &HeaderMap) -> Result<Revision, Refusal> {
    let Some(value) = headers.get(headers::PROTOCOL_VERSION) else {
        return Ok(Revision::R20250326);
    };
    let named = value.to_str().unwrap_or_default();
    Revision::parse(named)
        .filter(|revision| revision.era() == Era::Legacy)
        .ok_or_else(|| Refusal::unsupported_version(named))
}

impl Accepts {
    /// What the `Accept` headers say. None at all, or one that names neither kind, counts as both: a client that reads
    /// nothing of what MCP answers with could not have meant that.
    pub(crate) fn of(headers: &HeaderMap) -> Accepts {
        let mut accepts = Accepts {
            json: false,
            events: false,
        };
        // What the specification asks for, as nearly every client writes it.
        if headers.get(ACCEPT).is_some_and(|value| value == USUAL) {
            return BOTH;
        }
        for value in headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
            for range in value.split(',') {
                let kind = range.split(';').next().unwrap_or_default().trim();
                let is = |names: [&str; 2]| names.iter().any(|name| kind.eq_ignore_ascii_case(name));
                if kind == "*/*" {
                    accepts = BOTH;
                } else if is(["application/json", "application/*"]) {
                    accepts.json = true;
                } else if is(["text/event-stream", "text/*"]) {
                    accepts.events = true;
                }
            }
        }
        match accepts {
            Accepts {
                json: false,
                events: false,
            } => BOTH,
            some => some,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn accept_headers_are_read_leniently() {
        let rows: [(&[&str], bool, bool); 6] = [
            (&[], true, true),
            (&["application/json, text/event-stream"], true, true),
            (&["application/json;q=0.9", "TEXT/event-stream"], true, true),
            (&["application/json"], true, false),
            (&["text/event-stream"], false, true),
            (&["image/png"], true, true),
        ];
        for (values, json, events) in rows {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(Accepts::of(&headers), Accepts { json, events }, "{values:?}");
        }
    }
}
