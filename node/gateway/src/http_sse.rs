//! HTTP+SSE of 2024-11-05, for clients that speak nothing newer: `GET /projects/P/sse` opens a stream whose first event says where
//! to post, and what is posted there is answered on the stream.
//!
//! The stream lives on the replica that opened it. A message may come to any: that one admits it, and the peer connection carries it
//! to the one that holds the stream, which admits it once more and carries it out. The id in the URL is a sealed session.
//!
//! Such clients take a URL and nothing else, so the token may be the password of HTTP Basic here and nowhere else, and only where the
//! project says `allowSse`: the wrong direction is to allow it, because URLs are kept in more places than headers are.

mod carry;
mod post;
mod stream;

use std::sync::Arc;

use axum::extract::Request as HttpRequest;
use axum::response::Response;
use dashmap::DashMap;
use http::{Method, StatusCode};
use mcp_model::ids::{Id, NodeId};
use mcp_model::token::TokenHash;
use mcp_wire::refusal::{NOT_ALLOWED, Refusal};
use tokio::sync::mpsc;

use crate::admit::Permit;
use crate::endpoint::{Endpoint, Part, Serves};
use crate::{Inner, bearer, respond, router};

pub(crate) use self::carry::{decode as decode_posted, hear, rooms};
pub(crate) use self::post::decode as decode_address;
pub(crate) use self::stream::Registered;

/// Messages of one client that are being carried out at once.
const RUNNING_MAX: usize = 64;
/// Events that wait for a client that reads slowly; who has more to say waits.
const EVENTS_MAX: usize = 64;

/// The streams of this node.
pub(crate) struct Streams {
    pub(crate) me: NodeId,
    open: Arc<DashMap<Id, Arc<Open>>>,
}

/// An open stream.
struct Open {
    token: TokenHash,
    project: Id,
    /// The one server that its path names.
    only: Option<Id>,
    events: mpsc::Sender<bytes::Bytes>,
    running: Arc<tokio::sync::Semaphore>,
    agreed: std::sync::Mutex<Agreed>,
}

/// What `initialize` settled.
#[derive(Clone, Copy)]
struct Agreed {
    revision: mcp_wire::version::Revision,
    can: mcp_wire::can::ClientCan,
}

impl Streams {
    pub(crate) fn new(me: NodeId) -> Streams {
        Streams {
            me,
            open: Arc::default(),
        }
    }

    /// Whether the stream of a session is here.
    pub(crate) fn holds(&self, session: Id) -> bool {
        self.open.contains_key(&session)
    }
}

/// Answers at the two paths.
pub(crate) async fn serve(gateway: Arc<Inner>, request: HttpRequest, endpoint: Endpoint, part: Part) -> Response {
    if let Some(refused) = router::foreign(&gateway, request.version(), request.uri(), request.headers()) {
        return refused;
    }
    let hash = match bearer::read_or_basic(request.headers(), request.uri()) {
        Ok(hash) => hash,
        Err(denial) => return router::deny(&gateway, None, &endpoint, denial),
    };
    if gateway.stopping.is_cancelled() {
        return respond::overloaded("this node is stopping", gateway.limits.retry_after_s, None);
    }
    match (part, request.method()) {
        (Part::Stream, &Method::GET) => stream::open(gateway, request, hash, &endpoint).await,
        (Part::Messages, &Method::POST) => post::post(gateway, request, hash, &endpoint).await,
        (Part::Stream | Part::Messages, _) => respond::method_not_allowed(Serves::HttpSse(part).methods()),
    }
}

/// Lets a request in, if its project allows this transport.
async fn admitted(gateway: &Arc<Inner>, hash: TokenHash, endpoint: &Endpoint) -> Result<Permit, Response> {
    let wanted = endpoint.wanted();
    let permit = gateway.admission.admit(hash, wanted).await;
    let permit = permit.map_err(|denial| router::deny(gateway, Some(hash), endpoint, denial))?;
    match not_allowed(gateway, &permit) {
        None => Ok(permit),
        Some(refused) => Err(refused),
    }
}

/// The refusal of a project that does not allow it. Its reader holds a good token of this project, and may know why.
fn not_allowed(gateway: &Inner, permit: &Permit) -> Option<Response> {
    let project = permit.project();
    if project.spec.allow_sse {
        return None;
    }
    gateway
        .audit
        .refuse(Some(permit.hash()), Some(project.name.as_str()), "sse_not_allowed");
    let why = format!(
        "project \"{0}\" does not allow HTTP+SSE: use /projects/{0}/mcp, or let it: mcpctl create project {0} --allow-sse --force",
        project.name
    );
    let refusal = Refusal::bad(NOT_ALLOWED, why).with_status(StatusCode::FORBIDDEN);
    Some(respond::refusal(&refusal, None))
}
