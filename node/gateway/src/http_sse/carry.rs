//! From the replica that a message came to, to the one that holds the stream, and there to the answer.

use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use mcp_model::admission::Denial;
use mcp_model::ids::{Id, NodeId};
use mcp_model::token::TokenHash;
use mcp_wire::headers::SESSION_ID;
use mcp_wire::message::Message;
use mcp_wire::refusal::{INTERNAL_ERROR, Refusal};
use mcp_wire::sse;
use mcp_wire::version::{Era, NEWEST_LEGACY, Revision};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::{Agreed, Open};
use crate::admit::{Permit, Wanted};
use crate::body::KIB;
use crate::dispatch::{Request, dispatch, over_quota};
use crate::limits::SMALL_BODY_BYTES;
use crate::protocol::{Accepts, Call};
use crate::quotas::Use;
use crate::session::Session;
use crate::{Inner, respond};

/// The first byte of what is said here, so that it is told from whatever else gateways say to each other.
const MARK: u8 = 0xf5;
/// How long another node may take to hear a message.
const TELL_WAIT: Duration = Duration::from_secs(5);

/// A message that was posted for a stream.
#[derive(Serialize, Deserialize)]
pub(crate) struct Posted {
    pub(crate) session: Id,
    pub(crate) token: [u8; 32],
    pub(crate) message: Vec<u8>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Became {
    /// It is being carried out, and answered on the stream.
    Taken,
    /// There is no such stream any more.
    Gone,
    /// There is no room for it.
    Full,
}

/// Its places: among the requests of this node, and among the larger bodies.
pub(crate) type Rooms = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// A message on its way to its answer.
struct Errand {
    gateway: Arc<Inner>,
    open: Arc<Open>,
    session: Id,
    message: Message,
    rooms: Rooms,
}

/// Sends a message to the node that holds the stream; none if that cannot be reached.
pub(super) async fn send(gateway: &Inner, node: NodeId, posted: &Posted) -> Option<Became> {
    let said = postcard::to_extend(posted, vec![MARK]).ok()?;
    let answer = gateway.cluster.tell(node, said, TELL_WAIT).await.ok()?;
    postcard::from_bytes(&answer).ok()
}

/// A message as another node sent it; none if it is about something else.
fn posted(said: &[u8]) -> Option<Posted> {
    postcard::from_bytes(said.strip_prefix(&[MARK])?).ok()
}

/// For the fuzzer: bytes as what another node said.
pub(crate) fn decode(said: &[u8]) {
    if let Some(posted) = posted(said) {
        let again = postcard::to_extend(&posted, vec![MARK]).expect("plain data always encodes");
        assert!(super::carry::posted(&again).is_some());
    }
}

/// Hears what another node sends: admitted there, and by nobody here yet. None if it is no message for a stream.
pub(crate) fn hear(gateway: &Arc<Inner>, said: &[u8]) -> Option<Vec<u8>> {
    let posted = posted(said)?;
    let became = match rooms(gateway, posted.message.len()) {
        Some(rooms) => take(gateway, posted, rooms).unwrap_or(Became::Gone),
        None => Became::Full,
    };
    postcard::to_stdvec(&became).ok()
}

/// Room for a message of this size, as for one that a client brings here itself.
pub(crate) fn rooms(gateway: &Inner, bytes: usize) -> Option<Rooms> {
    let request = gateway.request_room.clone().try_acquire_owned().ok()?;
    if bytes <= SMALL_BODY_BYTES {
        return Some((request, None));
    }
    let kib = u32::try_from(bytes.div_ceil(KIB)).ok()?;
    let body = gateway.body_room.clone().try_acquire_many_owned(kib).ok()?;
    Some((request, Some(body)))
}

/// Carries a message out, if its stream is here.
pub(super) fn take(gateway: &Arc<Inner>, posted: Posted, rooms: Rooms) -> Option<Became> {
    let open = gateway.http_sse.open.get(&posted.session).map(|open| open.clone())?;
    if !open.token.same_as(&TokenHash(posted.token)) {
        return None;
    }
    let Ok(running) = open.running.clone().try_acquire_owned() else {
        return Some(Became::Full);
    };
    let message = Message::read(Bytes::from(posted.message)).ok()?;
    let errand = Errand {
        gateway: gateway.clone(),
        open,
        session: posted.session,
        message,
        rooms,
    };
    tokio::spawn(async move {
        let _running = running;
        Box::pin(errand.run()).await;
    });
    Some(Became::Taken)
}

impl Errand {
    /// Admits the message on this replica, carries it out and says on the stream what came of it.
    async fn run(self) {
        let (open, id) = (self.open.clone(), self.message.id().map(str::to_owned));
        let response = self.answer().await;
        // A client that leaves has no use for the answer; dropping it ends the call.
        tokio::select! {
            () = open.events.closed() => {}
            () = pour(&open, response, id.as_deref()) => {}
        }
    }

    async fn answer(self) -> Response {
        let gateway = self.gateway.clone();
        let permit = match gateway.admission.admit(self.open.token, Wanted::Own).await {
            Ok(permit) => permit,
            Err(denial) => return respond::denial(denial, gateway.limits.retry_after_s, None),
        };
        if let Some(refused) = super::not_allowed(&gateway, &permit) {
            return refused;
        }
        // The id of the session says so already; it is as cheap to look.
        if permit.project().id != self.open.project {
            return respond::denial(Denial::WrongProject, gateway.limits.retry_after_s, None);
        }
        let opening = self.message.method() == Some("initialize");
        let open = self.open.clone();
        let call = self.call(&permit, opening);
        let (token, project, at_ms) = (permit.hash(), permit.project().id, permit.at_ms());
        let held = match gateway.enter(&permit, Use::Request) {
            Ok(held) => held,
            Err(over) => return over_quota(&gateway, &permit, &over, None),
        };
        let request = Request {
            permit,
            call,
            only: open.only,
            forwarded: false,
            _rooms: self.rooms,
            _held: held,
            place: OnceLock::new(),
        };
        let response = dispatch(gateway.clone(), Arc::new(request), &HeaderMap::new()).await;
        if opening && let Some(id) = response.headers().get(SESSION_ID).and_then(|id| id.to_str().ok()) {
            // The answer opened a session of the newer kind. What was agreed on is in it, and goes on here.
            if let Ok(agreed) = gateway.sessions.open(id, token, project, at_ms) {
                *open.agreed.lock().unwrap_or_else(PoisonError::into_inner) = Agreed {
                    revision: agreed.revision,
                    can: agreed.can,
                };
                // Nobody uses that session: the stream's is the one that there is.
                gateway.living.end(agreed.uuid);
            }
        }
        response
    }

    fn call(&self, permit: &Permit, opening: bool) -> Call {
        let agreed = *self.open.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.message.initialize_version().and_then(Revision::parse);
        let revision = match opening {
            true => wanted.filter(|r| r.era() == Era::Legacy).unwrap_or(NEWEST_LEGACY),
            false => agreed.revision,
        };
        let session = Session {
            uuid: self.session,
            token: permit.hash(),
            project: permit.project().id,
            revision,
            can: agreed.can,
            issued_ms: permit.at_ms(),
            home: Some(self.gateway.sessions.home()),
        };
        Call {
            message: self.message.clone(),
            revision,
            session: Some(session).filter(|_| !opening),
            accepts: Accepts {
                json: true,
                events: true,
            },
        }
    }
}

/// Writes an answer to the stream: events as they come, a body as one, and a refusal under the id of the request.
async fn pour(open: &Open, response: Response, id: Option<&str>) {
    let status = response.status();
    let streamed = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "text/event-stream");
    let mut body: Body = response.into_body();
    if streamed {
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data()
                && open.events.send(data).await.is_err()
            {
                return;
            }
        }
        return;
    }
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return;
    };
    let event = match status {
        StatusCode::OK if !body.is_empty() => sse::event(&body),
        StatusCode::OK | StatusCode::ACCEPTED => return,
        _ if id.is_none() => return,
        refused => sse::event(&refusal(refused, &body).body(id)),
    };
    let _gone = open.events.send(event).await.is_err();
}

/// What an answer that is no success says, as an error that can stand on a stream.
fn refusal(status: StatusCode, body: &[u8]) -> Refusal {
    let said = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    let code = said["error"]["code"].as_i64().and_then(|code| i32::try_from(code).ok());
    let message = said["error"]["message"].as_str().unwrap_or("refused");
    let refusal = Refusal::inside(code.unwrap_or(INTERNAL_ERROR), message);
    let mut data = said["error"]["data"].clone();
    if !data.is_object() {
        data = serde_json::json!({});
    }
    data["httpStatus"] = status.as_u16().into();
    refusal.with_data(data)
}
