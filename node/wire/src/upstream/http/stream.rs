//! The server's own stream: what it says outside calls. The older era opens it with GET, the newer one with
//! `subscriptions/listen`. It is held while somebody wants to hear it, opened again when it ends, and what was watched is watched
//! again when the server has forgotten us.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ::http::header::{ACCEPT, CONTENT_TYPE};
use ::http::{HeaderValue, Method, StatusCode};
use bytes::Bytes;
use serde_json::json;

use super::{HttpLink, Session, Wire, answer_to_server, is_list_change, request};
use crate::can::ClientCan;
use crate::headers;
use crate::message::{Kind, Message};
use crate::splice::own_modern_meta;
use crate::sse::SseReader;
use crate::upstream::answer::Messages;
use crate::upstream::watching::updated_uri;
use crate::upstream::{CallLimits, Cause, UpstreamError};
use crate::version::Era;

const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
/// A stream that has been silent for so long is opened anew: some middleman may have forgotten it.
const SILENCE_MS: u64 = 600_000;
/// Until a stream that ended is opened again; doubled as long as that fails.
const AGAIN_MS: (u64, u64) = (250, 60_000);

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
    let session = link.open(ClientCan::ALL).await?;
    if session.opened.revision.era() == Era::Modern {
        let messages = listen(&link.wire, &session, &link.watched.uris()).await;
        *last = Some(session);
        return messages;
    }
    let is_new = last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &session));
    match link.get_stream(&session).await? {
        Err(StatusCode::NOT_FOUND) => {
            link.forget(ClientCan::ALL, &session);
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
        let wire = &self.wire;
        let mut all = session.headers.clone();
        all.insert(ACCEPT, EVENTS);
        all.remove(CONTENT_TYPE);
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
            StatusCode::OK if is_stream => Ok(Messages::Events {
                body: answer.into_body(),
                reader: SseReader::new(wire.config.limits.answer_bytes_max),
            }),
            StatusCode::OK => Err(StatusCode::METHOD_NOT_ALLOWED),
            status => Err(status),
        })
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
            Kind::Notification if is_list_change(&message) => wire.changes.send_modify(|count| *count += 1),
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
                    wire.post_aside(session, answer_to_server(&message));
                }
            }
        }
    }
}
