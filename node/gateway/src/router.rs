//! The gateway's listener: paths, hosts, origins, sizes. Everything behind it has been admitted.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response;
use bytes::Bytes;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, StatusCode, Uri, Version};
use mcp_model::admission::Denial;
use mcp_model::ids::Id;
use mcp_model::limits::ProjectLimits;
use mcp_model::names::Name;
use mcp_wire::message::Message;
use mcp_wire::refusal::{INVALID_REQUEST, NOT_ALLOWED, Refusal};
use tokio::sync::OwnedSemaphorePermit;

use crate::admit::Permit;
use crate::body::{self, Received, Refused, Sender};
use crate::dispatch::{Request, dispatch, over_quota};
use crate::endpoint::{Endpoint, Serves};
use crate::metrics::Metrics;
use crate::protocol::{self, Accepts, Call};
use crate::quotas::{Held, OverQuota, Use};
use crate::session::Session;
use crate::{Inner, bearer, http_sse, relay, respond, streams};

/// Everything that is asked of the gateway.
pub(crate) fn router(gateway: Arc<Inner>) -> Router {
    Router::new().fallback(answer).with_state(gateway)
}

/// Answers a request.
pub(crate) async fn answer(State(gateway): State<Arc<Inner>>, request: HttpRequest) -> Response {
    let Some((serves, endpoint)) = Endpoint::of(request.uri().path()) else {
        return respond::empty(StatusCode::NOT_FOUND);
    };
    match serves {
        Serves::Mcp => mcp(gateway, request, endpoint).await,
        Serves::HttpSse(part) => http_sse::serve(gateway, request, endpoint, part).await,
        Serves::Alive | Serves::Ready if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            respond::method_not_allowed(serves.methods())
        }
        Serves::Alive => respond::text(StatusCode::OK, "ok\n"),
        Serves::Ready => ready(&gateway),
    }
}

fn ready(gateway: &Inner) -> Response {
    if gateway.stopping.is_cancelled() {
        return respond::text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    match gateway.admission.has_lease() {
        true => respond::text(StatusCode::OK, "ready\n"),
        false => respond::text(StatusCode::SERVICE_UNAVAILABLE, "no lease\n"),
    }
}

async fn mcp(gateway: Arc<Inner>, request: HttpRequest, endpoint: Endpoint) -> Response {
    if let Some(refused) = foreign(&gateway, request.version(), request.uri(), request.headers()) {
        return refused;
    }
    let hash = match bearer::read(request.headers(), request.uri()) {
        Ok(hash) => hash,
        Err(denial) => return deny(&gateway, None, &endpoint, denial),
    };
    if gateway.stopping.is_cancelled() {
        return respond::overloaded("this node is stopping", gateway.limits.retry_after_s, None);
    }
    let streaming = request.method() == Method::GET;
    let rooms = if streaming {
        &gateway.stream_room
    } else {
        &gateway.request_room
    };
    let Ok(room) = rooms.clone().try_acquire_owned() else {
        return respond::overloaded("this node is busy", gateway.limits.retry_after_s, None);
    };
    let (parts, body) = request.into_parts();
    let wanted = endpoint.wanted();
    let received = match parts.method {
        Method::POST => {
            let sender = Sender { hash, wanted };
            match body::receive(&gateway, &parts.headers, body, sender).await {
                Ok(received) => received,
                Err(Refused::Denied(denial)) => return deny(&gateway, Some(hash), &endpoint, denial),
                Err(Refused::Answer(response)) => return *response,
            }
        }
        Method::GET | Method::DELETE => Received::default(),
        _ => return respond::method_not_allowed(Serves::Mcp.methods()),
    };
    let permit = match gateway.admission.admit(hash, wanted).await {
        Ok(permit) => permit,
        Err(denial) => return deny(&gateway, Some(hash), &endpoint, denial),
    };
    let limits = gateway.quotas.limits(&permit);
    if let Some(refused) = too_large(&gateway, &limits, &received) {
        return refused;
    }
    let of = if streaming { Use::Stream } else { Use::Request };
    let held = gateway
        .quotas
        .rate(&permit, &limits)
        .and_then(|()| gateway.quotas.take(&permit, of, &limits));
    let held = match held {
        Ok(held) => held,
        Err(over) => return over_quota(&gateway, &permit, &over, id_in(received.bytes).as_deref()),
    };
    let only = match &endpoint.server {
        None => None,
        Some(server) => match attached(&permit, server) {
            Some(id) => Some(id),
            None => return respond::empty(StatusCode::NOT_FOUND),
        },
    };
    match parts.method {
        Method::POST => post(gateway, permit, only, &parts.headers, received, (room, held)).await,
        Method::GET => open_stream(gateway, permit, only, &parts.headers, (room, held)),
        _ => end_session(&gateway, &permit, &parts.headers).await,
    }
}

/// A place of this node, and one of the token and its project.
pub(crate) type Room = (OwnedSemaphorePermit, Held);

impl Inner {
    /// A place among those of a token and its project.
    pub(crate) fn enter(&self, permit: &Permit, of: Use) -> Result<Held, OverQuota> {
        let limits = self.quotas.limits(permit);
        self.quotas.rate(permit, &limits)?;
        self.quotas.take(permit, of, &limits)
    }

    /// Whether a session was used lately; then it is used now. One that was not is over.
    pub(crate) fn is_alive(&self, session: &Session, permit: &Permit) -> bool {
        let alive = self.living.uses(session, permit, &self.quotas, &self.replica);
        if !alive {
            self.sessions.end(session.uuid);
        }
        alive
    }
}

/// The id of a request that is refused before anybody has looked into it.
fn id_in(body: Bytes) -> Option<String> {
    Message::read(body).ok()?.id().map(str::to_owned)
}

/// The refusal of a body that is larger than the project allows.
pub(crate) fn too_large(gateway: &Inner, limits: &ProjectLimits, received: &Received) -> Option<Response> {
    let bytes = u64::try_from(received.bytes.len()).unwrap_or(u64::MAX);
    let most = limits.body_bytes.filter(|most| bytes > *most)?;
    Metrics::add(&gateway.metrics.malformed);
    let why = format!("the body is larger than the {most} bytes that the project allows");
    let refusal = Refusal::bad(INVALID_REQUEST, why).with_status(StatusCode::PAYLOAD_TOO_LARGE);
    Some(respond::refusal(&refusal, id_in(received.bytes.clone()).as_deref()))
}

/// The server of this name in the permit's project.
pub(crate) fn attached(permit: &Permit, name: &Name) -> Option<Id> {
    permit
        .policy()
        .attached(permit.project())
        .find(|server| server.name == *name)
        .map(|server| server.id)
}

async fn post(
    gateway: Arc<Inner>,
    permit: Permit,
    only: Option<Id>,
    headers: &HeaderMap,
    received: Received,
    (room, held): Room,
) -> Response {
    let read = Message::read(received.bytes)
        .map_err(|refusal| (refusal, None))
        .and_then(|message| {
            let id = message.id().map(str::to_owned);
            let call = Call::read(message, headers, &permit, &gateway.sessions);
            let call = call.and_then(|call| match &call.session {
                Some(session) if !gateway.is_alive(session, &permit) => Err(protocol::no_session()),
                Some(_) | None => Ok(call),
            });
            call.map_err(|refusal| (refusal, id))
        });
    match read {
        Ok(call) => {
            let request = Arc::new(Request {
                permit,
                call,
                only,
                forwarded: false,
                _rooms: (room, received.room),
                _held: held,
                place: OnceLock::new(),
            });
            dispatch(gateway, request, headers).await
        }
        Err((refusal, id)) => {
            Metrics::add(&gateway.metrics.malformed);
            respond::refusal(&refusal, id.as_deref())
        }
    }
}

/// The GET stream of a legacy session. Without a session there is nothing to listen to.
fn open_stream(gateway: Arc<Inner>, permit: Permit, only: Option<Id>, headers: &HeaderMap, room: Room) -> Response {
    match protocol::session(headers, &permit, &gateway.sessions) {
        Err(refusal) => respond::refusal(&refusal, None),
        Ok(None) => respond::method_not_allowed("POST"),
        Ok(Some(_)) if !Accepts::of(headers).events => respond::empty(StatusCode::NOT_ACCEPTABLE),
        Ok(Some(session)) if !gateway.is_alive(&session, &permit) => respond::refusal(&protocol::no_session(), None),
        Ok(Some(session)) => streams::legacy(gateway, permit, only, session.uuid, room),
    }
}

async fn end_session(gateway: &Inner, permit: &Permit, headers: &HeaderMap) -> Response {
    match protocol::session(headers, permit, &gateway.sessions) {
        Err(refusal) => respond::refusal(&refusal, None),
        Ok(None) => respond::method_not_allowed("POST"),
        Ok(Some(session)) => {
            relay::end_session(gateway, session.uuid).await;
            respond::empty(StatusCode::NO_CONTENT)
        }
    }
}

pub(crate) fn deny(
    gateway: &Inner,
    hash: Option<mcp_model::token::TokenHash>,
    endpoint: &Endpoint,
    denial: Denial,
) -> Response {
    gateway.metrics.deny(denial);
    gateway
        .audit
        .refuse(hash, endpoint.project.as_ref().map(Name::as_str), denial.reason());
    respond::denial(denial, gateway.limits.retry_after_s, None)
}

/// The answer to a request for a host that is not ours, or from a web page that is not trusted.
pub(crate) fn foreign(gateway: &Inner, version: Version, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    // Of two Host headers, whoever stands in front of us may have meant the other one: that is none.
    let mut hosts = headers.get_all(HOST).iter();
    let authority = match (uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), ..) => authority.as_str(),
        (None, Some(host), None) => host.to_str().unwrap_or_default(),
        (None, ..) => "",
    };
    let refused = |status, why| {
        Some(respond::refusal(
            &Refusal::bad(NOT_ALLOWED, why).with_status(status),
            None,
        ))
    };
    if !allows_host(&gateway.allowed_hosts, authority) {
        let status = if version == Version::HTTP_2 {
            StatusCode::MISDIRECTED_REQUEST
        } else {
            StatusCode::FORBIDDEN
        };
        return refused(status, "this host is not served here");
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    let trusted = origins.all(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        let own = origin
            .split_once("://")
            .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(authority));
        own || gateway
            .allowed_origins
            .iter()
            .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    });
    if trusted {
        None
    } else {
        refused(StatusCode::FORBIDDEN, "this origin is not allowed")
    }
}

/// Whether an authority is one of the allowed hosts: `host` (any port), `host:port`, or `*`.
fn allows_host(allowed: &[String], authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => authority,
    };
    let matches = |allowed: &String| {
        allowed == "*" || allowed.eq_ignore_ascii_case(authority) || allowed.eq_ignore_ascii_case(host)
    };
    allowed.iter().any(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_with_or_without_a_port() {
        let allowed = [
            "localhost".to_owned(),
            "[::1]".to_owned(),
            "gw.example.com:3200".to_owned(),
        ];
        for good in [
            "localhost",
            "localhost:3200",
            "LOCALHOST:1",
            "[::1]",
            "[::1]:3200",
            "gw.example.com:3200",
        ] {
            assert!(allows_host(&allowed, good), "{good}");
        }
        for bad in [
            "",
            "evil.com",
            "gw.example.com",
            "gw.example.com:1",
            "localhost.evil.com",
            "[::2]:3200",
        ] {
            assert!(!allows_host(&allowed, bad), "{bad}");
        }
        assert!(allows_host(&["*".to_owned()], "anything:1"));
    }
}
