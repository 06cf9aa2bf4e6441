//! The stream on which a server over HTTP says that its lists have changed: the GET stream of a legacy session, or
//! `subscriptions/listen` of the modern era. A child process says it on its output, without being asked.

use std::time::Duration;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderValue, Method};
use bytes::Bytes;

use super::answer::Messages;
use super::http::{HttpLink, answer_to_server, is_list_change, request};
use super::{CallLimits, Cause, Link, Outgoing, Upstream, UpstreamError};
use crate::can::ClientCan;
use crate::message::{Kind, Message};
use crate::sse::SseReader;
use crate::version::Era;

/// Longest silence on the stream before it is opened anew, in milliseconds: a server that is gone without a word is noticed, and a
/// quiet one costs a request every quarter of an hour.
const SILENCE_MS: u64 = 900_000;
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const WANTED: &str =
    r#"{"notifications":{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}}"#;

/// How listening ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The server has no such stream: it is of no use to ask again.
    Nothing,
    /// The stream ended.
    AllThereWas,
}

impl Upstream {
    /// Listens for changes of the lists until the stream ends, and counts them for [`Upstream::changes`]. Whoever drops this closes
    /// the stream.
    pub async fn listen(&self) -> Result<Heard, UpstreamError> {
        match &self.link {
            Link::Stdio(_) => Ok(Heard::Nothing),
            Link::Http(link) => {
                let listened = async {
                    match self.open().await?.revision.era() {
                        Era::Legacy => link.listen(self.own).await,
                        Era::Modern => self.subscribe().await,
                    }
                };
                tokio::select! {
                    biased;
                    // Where resources are watched, the one stream that there is tells of the lists too.
                    () = link.stream_is_held() => std::future::pending().await,
                    heard = listened => heard,
                }
            }
        }
    }

    async fn subscribe(&self) -> Result<Heard, UpstreamError> {
        let message = Message::request(0, "subscriptions/listen", WANTED);
        let mut frames = match self.call(Outgoing::new(&message)).await {
            Ok(frames) => frames,
            Err(UpstreamError {
                cause: Cause::Status(400 | 404 | 405 | 501),
                ..
            }) => return Ok(Heard::Nothing),
            Err(error) => return Err(error),
        };
        while let Some(frame) = frames.next().await? {
            if let super::Frame::Request(asked) = &frame {
                frames.refuse(asked);
            }
            // The answer to it is an error, or comes at its end.
            if let super::Frame::Response { is_error, .. } = frame {
                return Ok(if is_error { Heard::Nothing } else { Heard::AllThereWas });
            }
        }
        Ok(Heard::AllThereWas)
    }
}

impl HttpLink {
    async fn listen(&self, own: ClientCan) -> Result<Heard, UpstreamError> {
        let session = self.open(own).await?;
        let Some(target) = self.target() else {
            return Ok(Heard::Nothing);
        };
        let mut headers = session.headers().clone();
        headers.remove(CONTENT_TYPE);
        headers.insert(::http::header::ACCEPT, EVENTS);
        let limits = CallLimits {
            idle_ms: SILENCE_MS,
            ..self.limits()
        };
        let wait = Duration::from_millis(self.limits().idle_ms);
        let opened = self
            .pool()
            .request(target, request(Method::GET, &headers, Bytes::new()), wait)
            .await;
        let answer = opened.map_err(|error| super::http::sending_failed(&error, self.limits().idle_ms))?;
        let kind = answer
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        match answer.status().as_u16() {
            200 if kind.starts_with("text/event-stream") => {}
            401 | 403 | 429 | 500..=599 => return Err(UpstreamError::before(Cause::Status(answer.status().as_u16()))),
            // A session that is gone is made anew by the next call or probe.
            404 if session.has_id() => return Err(UpstreamError::before(Cause::SessionGone)),
            _ => return Ok(Heard::Nothing),
        }
        let mut messages = Messages::Events {
            body: answer.into_body(),
            reader: SseReader::new(limits.answer_bytes_max),
        };
        loop {
            let message = match messages.next(&limits).await {
                Ok(message) => message,
                Err(UpstreamError {
                    cause: Cause::Closed(_) | Cause::Deadline(_),
                    ..
                }) => return Ok(Heard::AllThereWas),
                Err(error) => return Err(error),
            };
            match message.kind() {
                Kind::Notification if is_list_change(&message) => self.lists_changed(),
                Kind::Request => self.post_aside(&session, answer_to_server(&message)),
                Kind::Notification | Kind::Response => {}
            }
        }
    }
}
