//! Servers that keep state: one child per session, on the node that opened the session. A request of it that comes to another node is
//! forwarded there ([`crate::forward`]); once that node, or its process, is gone, the session is, and its client opens another.
//!
//! A child ends with its session, with the token of the session, with its server, and when nobody has used it for long. One that has
//! ended is not started again behind the client's back: what it remembered is gone, and that is said once.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use mcp_model::admission::Denial;
use mcp_model::ids::Id;
use mcp_model::records::{Server, Transport};
use mcp_model::token::TokenHash;
use mcp_wire::refusal::{INVALID_REQUEST, Refusal};
use mcp_wire::upstream::UpstreamError;
use tokio_util::sync::CancellationToken;

use crate::admit::Wanted;
use crate::dispatch::{Request, refuse};
use crate::upstreams::Lane;
use crate::{Inner, forward, protocol};

/// How long it is until a node without a lease looks again at what became of a token.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Whether each session has a child of this server.
pub(crate) fn is_stateful(server: &Server) -> bool {
    server.spec.stateful && matches!(server.spec.transport, Transport::Stdio { .. })
}

/// The answer of the node that holds the child of this request's session, or the refusal of a request that can have none. `None`: the
/// child is, or will be, here; or the server keeps no state.
pub(crate) async fn elsewhere(gateway: &Arc<Inner>, request: &Arc<Request>, server: &Server) -> Option<Response> {
    if !is_stateful(server) {
        return None;
    }
    let Some(session) = &request.call.session else {
        let why = format!(
            "server \"{0}\" keeps state for each session, and this request belongs to none: open one with initialize (revision \
             2025-11-25 or older), or let all share one process: stateful: false",
            server.name
        );
        return Some(refuse(request, &Refusal::inside(INVALID_REQUEST, why)));
    };
    let no_session = || Some(refuse(request, &protocol::no_session()));
    let here = gateway.sessions.home();
    match session.home {
        Some(home) if home == here => None,
        // Another run of this node had it; or who forwarded it was wrong.
        Some(home) if home.node == here.node || request.forwarded => no_session(),
        Some(home) => match forward::to(gateway, request, home.node, Some(home.run)).await {
            Some(response) => Some(response),
            None => no_session(),
        },
        None => no_session(),
    }
}

/// The way to a server for a call of this session.
pub(crate) fn lane(gateway: &Arc<Inner>, request: &Request, server: &Server) -> Result<Lane, UpstreamError> {
    let session = request.call.session.as_ref().filter(|_| is_stateful(server));
    let Some(session) = session else {
        return gateway.upstreams.lane(server);
    };
    let idle_ms = gateway.quotas.limits(&request.permit).session_idle_ms;
    let (lane, ends) = gateway.upstreams.lane_of_session(server, session.uuid, idle_ms)?;
    if let Some(ends) = ends {
        let project = request.permit.project().name.to_string();
        let watch = Watch {
            gateway: gateway.clone(),
            server: server.id,
            session: session.uuid,
            token: request.permit.hash(),
            project,
        };
        tokio::spawn(watch.run(ends));
    }
    Ok(lane)
}

/// Ends a child when the token of its session is taken away.
struct Watch {
    gateway: Arc<Inner>,
    server: Id,
    session: Id,
    token: TokenHash,
    project: String,
}

impl Watch {
    async fn run(self, ends: CancellationToken) {
        tokio::select! {
            () = ends.cancelled() => {}
            () = self.until_cut() => self.gateway.upstreams.end_session_at(self.server, self.session),
        }
    }

    /// Until the token is refused, or its project has no such server any more. A permit is let go as soon as it is cut: a revoke waits
    /// for that.
    async fn until_cut(&self) {
        loop {
            match self
                .gateway
                .admission
                .admit(self.token, Wanted::Named(&self.project))
                .await
            {
                Ok(permit) if permit.policy().attached(permit.project()).all(|s| s.id != self.server) => return,
                Ok(permit) => permit.cut().await,
                Err(Denial::NoLease | Denial::TooMany) => tokio::time::sleep(LOOK_AGAIN).await,
                Err(_) => return,
            }
        }
    }
}
