//! The server's own stream: what it says outside calls. The older era opens it with GET, the newer one with
//! `subscriptions/listen`. It is held while somebody wants to hear it, opened again when it ends, and what was watched is watched
//! again when the server has forgotten us.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ::http::header::{ACCEPT, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use bytes::Bytes;
use serde_json::json;

use super::{HttpLink, OWN, Resuming, Session, Wire, answer_to_server, is_list_change, request};
use crate::headers;
use crate::message::{Kind, Message};
use crate::splice::own_modern_meta;
use crate::upstream::answer::Messages;
use crate::upstream::watching::updated_uri;
use crate::upstream::{CallLimits, Cause, UpstreamError};
use crate::version::Era;

const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Until a stream is taken up again that does not say when; and at least, whatever it says.
const RETRY_MS: u64 = 1_000;
const RETRY_LEAST_MS: u64 = 50;
/// A stream that has been silent for so long is opened anew: some middleman may have forgotten it.
pub(super) const SILENCE_MS: u64 = 600_000;
/// Until a stream that ended is opened again; doubled as long as that fails.
pub(super) const AGAIN_MS: (u64, u64) = (250, 60_000);

/// Holds the stream open until the link is gone.
pub(super) async fn hold(link: Weak<HttpLink>) {
    let mut wait_ms = AGAIN_MS.0;
    let mut last: Option<Arc<Session>> = None;
    loop {
        let Some(held) = link.upgrade() else { return };
        let changed = held.watched.changed();
        match open(&held, &mut last).await {
            Ok(messages) => {
                wait_ms = AGAIN_MS.0;
                let wire = held.wire.clone();
                // Only who uses the link keeps it.
                drop(held);
                tokio::select! {
                    () = read(&wire, last.as_ref(), messages) => {}
                    // What the newer era watches is said when the stream is opened.
                    () = changed, if is_modern(last.as_ref()) => continue,
                }
            }
            // It has none: what it says comes with calls, or not at all. A server that is started anew may have one.
            Err(UpstreamError {
                cause: Cause::Status(405),
                ..
            }) => wait_ms = AGAIN_MS.1,
            Err(error) => {
                tracing::debug!(%error, "the stream of an upstream is not open");
                wait_ms = (wait_ms * 2).min(AGAIN_MS.1);
            }
        }
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
}

fn is_modern(session: Option<&Arc<Session>>) -> bool {
    session.is_some_and(|session| session.opened.revision.era() == Era::Modern)
}

/// Opens it, in a new session if the server has forgotten the old one.
async fn open(link: &HttpLink, last: &mut Option<Arc<Session>>) -> Result<Messages, UpstreamError> {
    let session = link.open(OWN).await?;
    if session.opened.revision.era() == Era::Modern {
        let messages = listen(&link.wire, &session, &link.watched.uris()).await;
        *last = Some(session);
        return messages;
    }
    let is_new = last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &session));
    match link.get_stream(&session).await? {
        Err(StatusCode::NOT_FOUND) => {
            link.forget(OWN, &session);
            Err(UpstreamError::before(Cause::SessionGone))
        }
        Err(status) => Err(UpstreamError::before(Cause::Status(status.as_u16()))),
        Ok(messages) => {
            if is_new && last.is_some() {
                watch_again(link).await;
            }
            *last = Some(session);
            Ok(messages)
        }
    }
}

async fn watch_again(link: &HttpLink) {
    for uri in link.watched.uris() {
        if let Err(error) = link.ask("resources/subscribe", &uri).await {
            tracing::debug!(%error, "a resource is no longer watched");
        }
    }
}

impl HttpLink {
    /// Opens the GET stream of a legacy session. The inner error is the status of a server that has none: 405 as well where it
    /// answers and that is no stream.
    pub(in crate::upstream) async fn get_stream(
        &self,
        session: &Session,
    ) -> Result<Result<Messages, StatusCode>, UpstreamError> {
        get(&self.wire, &session.headers, None).await
    }
}

/// Opens the stream of a session, or takes up a stream of it after the event with this id.
pub(super) async fn get(
    wire: &Wire,
    headers: &HeaderMap,
    last_id: Option<&str>,
) -> Result<Result<Messages, StatusCode>, UpstreamError> {
    let mut all = headers.clone();
    all.insert(ACCEPT, EVENTS);
    all.remove(CONTENT_TYPE);
    if let Some(id) = last_id.and_then(|id| HeaderValue::from_str(id).ok()) {
        all.insert(LAST_EVENT_ID, id);
    }
    let target = wire.target.as_ref().ok_or_else(super::no_host)?;
    let idle_ms = wire.config.limits.idle_ms;
    let asked = request(Method::GET, &all, Bytes::new());
    let answer = wire.pool.request(target, asked, Duration::from_millis(idle_ms)).await;
    let answer = answer.map_err(|error| super::sending_failed(&error, idle_ms))?;
    let is_stream = answer
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("text/event-stream"));
    Ok(match answer.status() {
        StatusCode::OK if is_stream => Ok(Messages::events(
            answer.into_body(),
            wire.config.limits.answer_bytes_max,
        )),
        StatusCode::OK => Err(StatusCode::METHOD_NOT_ALLOWED),
        status => Err(status),
    })
}

/// The next message of an answer. A server of the older era may end a stream before the response, and asks by the id of an event to
/// be asked for the rest: then the stream is taken up again, after the time that it says. May be dropped and called again without a loss;
/// whoever calls has a deadline.
pub(super) async fn next_resumed(
    source: &mut Messages,
    resuming: &mut Option<Resuming>,
    wire: &Arc<Wire>,
    session: &Arc<Session>,
    limits: &CallLimits,
) -> Result<Message, UpstreamError> {
    loop {
        if let Some(resumed) = resuming {
            let resumed = resumed.await;
            *resuming = None;
            *source = resumed?;
        }
        let error = match source.next(limits).await {
            Ok(message) => return Ok(message),
            Err(error) => error,
        };
        let (Some(id), retry_ms) = source.resume_at() else {
            return Err(error);
        };
        if !matches!(error.cause, Cause::Closed(_)) || session.opened.revision.era() == Era::Modern {
            return Err(error);
        }
        *resuming = Some(Box::pin(resume(wire.clone(), session.clone(), id, retry_ms, error)));
    }
}

/// Takes a stream up again. `broken` is how it ended, which is the outcome if that is not to be had.
async fn resume(
    wire: Arc<Wire>,
    session: Arc<Session>,
    id: String,
    retry_ms: Option<u64>,
    broken: UpstreamError,
) -> Result<Messages, UpstreamError> {
    let wait_ms = retry_ms.unwrap_or(RETRY_MS).max(RETRY_LEAST_MS);
    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    match get(&wire, &session.headers, Some(&id)).await {
        Ok(Ok(mut messages)) => {
            // Until it names an event itself, it can be taken up again where it was.
            if let Messages::Events { reader, .. } = &mut messages {
                reader.resumes(id, retry_ms);
            }
            Ok(messages)
        }
        Ok(Err(status)) => Err(UpstreamError::after(Cause::Closed(format!(
            "the stream ended and cannot be taken up again: HTTP status {status}"
        )))),
        Err(error) => {
            tracing::debug!(%error, "a stream is not taken up again");
            Err(broken)
        }
    }
}

async fn listen(wire: &Arc<Wire>, session: &Session, uris: &[String]) -> Result<Messages, UpstreamError> {
    let id = wire.next_id();
    let mut wanted = json!({"toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true});
    if !uris.is_empty() {
        wanted["resourceSubscriptions"] = json!(uris);
    }
    let params = format!(r#"{{"notifications":{wanted},"_meta":{{{}}}}}"#, own_modern_meta());
    let message = Message::request(id, "subscriptions/listen", &params);
    let mut all = session.headers.clone();
    headers::modern_headers(session.opened.revision, "subscriptions/listen", None, &mut all);
    let answer = wire.post(&all, message.bytes().clone()).await?;
    wire.source(answer, id, false).await
}

/// Reads it to its end.
async fn read(wire: &Arc<Wire>, session: Option<&Arc<Session>>, mut messages: Messages) {
    let limits = CallLimits {
        idle_ms: SILENCE_MS,
        ..wire.config.limits
    };
    loop {
        let message = match messages.next(&limits).await {
            Ok(message) => message,
            Err(error) => return tracing::debug!(%error, "the stream of an upstream ended"),
        };
        match message.kind() {
            Kind::Notification if is_list_change(&message) => wire.lists_changed(),
            Kind::Notification => {
                if let Some(uri) = updated_uri(&message) {
                    wire.updates.tell(uri);
                }
            }
            // A response ends a modern subscription.
            Kind::Response => return,
            // Whether we are there is for us to say; other requests outside calls name nobody who could answer.
            Kind::Request => {
                if let Some(session) = session {
                    wire.post_aside(&session.headers, answer_to_server(&message));
                }
            }
        }
    }
}
