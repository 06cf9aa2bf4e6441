//! The stream: it says where to post, then what comes of that, and which lists have changed.

use std::sync::{Arc, Mutex};

use axum::extract::Request as HttpRequest;
use axum::response::Response;
use bytes::Bytes;
use dashmap::DashMap;
use http::StatusCode;
use mcp_model::ids::Id;
use mcp_model::token::TokenHash;
use mcp_wire::refusal::{INTERNAL_ERROR, Refusal};
use mcp_wire::version::Revision;
use tokio::sync::{Semaphore, mpsc};

use super::{Agreed, EVENTS_MAX, Open, RUNNING_MAX};
use crate::dispatch::over_quota;
use crate::endpoint::Endpoint;
use crate::protocol::Accepts;
use crate::quotas::Use;

use crate::upstreams::Upstreams;
use crate::{Inner, respond, router, streams};
use mcp_wire::can::ClientCan;

/// Takes a stream out of the node's when it ends.
pub(crate) struct Registered {
    open: Arc<DashMap<Id, Arc<Open>>>,
    upstreams: Arc<Upstreams>,
    session: Id,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.open.remove(&self.session);
        self.upstreams.end_session(self.session);
    }
}

pub(super) async fn open(gateway: Arc<Inner>, request: HttpRequest, hash: TokenHash, endpoint: &Endpoint) -> Response {
    if !Accepts::of(request.headers()).events {
        return respond::empty(StatusCode::NOT_ACCEPTABLE);
    }
    let Ok(room) = gateway.stream_room.clone().try_acquire_owned() else {
        return respond::overloaded("this node is busy", gateway.limits.retry_after_s, None);
    };
    let permit = match super::admitted(&gateway, hash, endpoint).await {
        Ok(permit) => permit,
        Err(refused) => return refused,
    };
    let held = match gateway.enter(&permit, Use::Stream) {
        Ok(held) => held,
        Err(over) => return over_quota(&gateway, &permit, &over, None),
    };
    let only = match &endpoint.server {
        None => None,
        Some(server) => match router::attached(&permit, server) {
            Some(id) => Some(id),
            None => return respond::empty(StatusCode::NOT_FOUND),
        },
    };
    let agreed = Agreed {
        revision: Revision::R20241105,
        can: ClientCan::default(),
    };
    let project = permit.project().id;
    let issued = gateway
        .sessions
        .issue(hash, project, agreed.revision, agreed.can, permit.at_ms());
    let Some((session, id)) = issued else {
        return respond::refusal(
            &Refusal::inside(INTERNAL_ERROR, "no random bytes for a session id"),
            None,
        );
    };
    let (events, inbox) = mpsc::channel(EVENTS_MAX);
    let open = Open {
        token: hash,
        project,
        only,
        events,
        running: Arc::new(Semaphore::new(RUNNING_MAX)),
        agreed: Mutex::new(agreed),
    };
    let streams = &gateway.http_sse;
    streams.open.insert(session.uuid, Arc::new(open));
    let registered = Registered {
        open: streams.open.clone(),
        upstreams: gateway.upstreams.clone(),
        session: session.uuid,
    };
    // The path that the client knows: whoever stands in front of us may have put something before ours.
    let path = request.uri().path().trim_end_matches("sse");
    let first = format!(
        "event: endpoint\ndata: {path}messages?session={id}&node={}\n\n",
        streams.me.0
    );
    streams::http_sse(
        gateway,
        permit,
        (session.uuid, only),
        (room, held),
        Bytes::from(first),
        (inbox, registered),
    )
}
