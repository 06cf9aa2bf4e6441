//! The stream on which a server over HTTP says that its lists have changed: the GET stream of a legacy session, or
//! `subscriptions/listen` of the modern era. A child process says it on its output, without being asked.

use ::http::StatusCode;

use super::http::{HttpLink, answer_to_server, is_list_change};
use super::{CallLimits, Cause, For, Link, Outgoing, Upstream, UpstreamError};
use crate::message::{Kind, Message};
use crate::version::Era;

/// Longest silence on the stream before it is opened anew, in milliseconds: a server that is gone without a word is noticed, and a
/// quiet one costs a request every quarter of an hour.
const SILENCE_MS: u64 = 900_000;
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
                        Era::Legacy => link.listen(For::Us(self.own)).await,
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
        let outgoing = Outgoing {
            can: self.own,
            own: true,
            ..Outgoing::new(&message)
        };
        let mut frames = match self.call(outgoing).await {
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
    async fn listen(&self, whose: For) -> Result<Heard, UpstreamError> {
        let session = self.open(whose).await?;
        let limits = CallLimits {
            idle_ms: SILENCE_MS,
            ..self.limits()
        };
        let mut messages = match self.get_stream(&session).await? {
            Ok(messages) => messages,
            // A session that is gone is made anew by the next call or probe.
            Err(StatusCode::NOT_FOUND) if session.has_id() => return Err(UpstreamError::before(Cause::SessionGone)),
            Err(status) => {
                return match status.as_u16() {
                    code @ (401 | 403 | 429 | 500..=599) => Err(UpstreamError::before(Cause::Status(code))),
                    _ => Ok(Heard::Nothing),
                };
            }
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
