//! What is posted: admitted here, and carried to the node that holds the stream.

use std::sync::Arc;

use axum::extract::Request as HttpRequest;
use axum::response::Response;
use http::StatusCode;
use mcp_model::ids::NodeId;
use mcp_model::token::TokenHash;
use mcp_wire::message::Message;
use mcp_wire::refusal::{Refusal, SESSION_NOT_FOUND};

use super::carry::{self, Became, Posted};
use crate::body::{self, Refused, Sender};
use crate::endpoint::Endpoint;
use crate::metrics::Metrics;

use crate::{Inner, respond, router};

pub(super) async fn post(gateway: Arc<Inner>, request: HttpRequest, hash: TokenHash, endpoint: &Endpoint) -> Response {
    let Ok(room) = gateway.request_room.clone().try_acquire_owned() else {
        return respond::overloaded("this node is busy", gateway.limits.retry_after_s, None);
    };
    let (parts, body) = request.into_parts();
    let wanted = endpoint.wanted();
    let received = match body::receive(&gateway, &parts.headers, body, Sender { hash, wanted }).await {
        Ok(received) => received,
        Err(Refused::Denied(denial)) => return router::deny(&gateway, Some(hash), endpoint, denial),
        Err(Refused::Answer(response)) => return *response,
    };
    let permit = match super::admitted(&gateway, hash, endpoint).await {
        Ok(permit) => permit,
        Err(refused) => return refused,
    };
    if let Some(refused) = router::too_large(&gateway, &gateway.quotas.limits(&permit), &received) {
        return refused;
    }
    let Some((id, node)) = address(parts.uri.query().unwrap_or_default()) else {
        return no_session();
    };
    let project = permit.project().id;
    // It lasts as long as its stream, however long that is.
    let Ok(session) = gateway.sessions.open(id, hash, project, 0) else {
        return no_session();
    };
    let message = match Message::read(received.bytes) {
        Ok(message) => message,
        Err(refusal) => {
            Metrics::add(&gateway.metrics.malformed);
            return respond::refusal(&refusal, None);
        }
    };
    let posted = Posted {
        session: session.uuid,
        token: hash.0,
        message: message.bytes().to_vec(),
    };
    let became = match node == gateway.http_sse.me {
        true => carry::take(&gateway, posted, (room, received.room)),
        false => carry::send(&gateway, node, &posted).await,
    };
    match became {
        Some(Became::Taken) => respond::text(StatusCode::ACCEPTED, "Accepted"),
        Some(Became::Full) => {
            let why = "too many messages of this client at once";
            respond::overloaded(why, gateway.limits.retry_after_s, message.id())
        }
        // With its node the stream is gone too, so there is nobody to answer.
        Some(Became::Gone) | None => no_session(),
    }
}

fn no_session() -> Response {
    let refusal = Refusal::bad(SESSION_NOT_FOUND, "Session not found").with_status(StatusCode::NOT_FOUND);
    respond::refusal(&refusal, None)
}

/// The sealed session and the node that the URL names. A node that is not the stream's has no such stream.
fn address(query: &str) -> Option<(&str, NodeId)> {
    let (mut session, mut node) = (None, None);
    for pair in query.split('&') {
        match pair.split_once('=')? {
            ("session", value) if session.is_none() => session = Some(value),
            ("node", value) if node.is_none() => node = Some(NodeId(value.parse().ok()?)),
            (_, _) => return None,
        }
    }
    Some((session?, node?))
}

/// For the fuzzer: a query as an address.
pub(crate) fn decode(query: &str) {
    if let Some((session, node)) = address(query) {
        assert_eq!(
            address(&format!("session={session}&node={}", node.0)),
            Some((session, node))
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_both_parts_once() {
        assert_eq!(address("session=abc&node=7"), Some(("abc", NodeId(7))));
        assert_eq!(address("node=7&session=abc"), Some(("abc", NodeId(7))));
        for bad in [
            "",
            "session=abc",
            "node=7",
            "session=a&session=b&node=7",
            "session=a&node=x",
            "session=a&node=7&x=1",
            "session",
        ] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }
}
