//! What comes back from one call: notifications in their order, then the response, each under the caller's own id and
//! token.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use super::http::HttpFrames;
use super::live::StdioFrames;
use super::{CallLimits, Cause, Outgoing, UpstreamError};
use crate::message::{Kind, Message};
use crate::splice::{Backward, Supply};
use crate::timers;

/// One message of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Progress or a log message of this call.
    Notification(Bytes),
    /// The response, which is the last.
    Response {
        /// The message.
        bytes: Bytes,
        /// Whether it is a JSON-RPC error.
        is_error: bool,
    },
}

/// The answer of an upstream as it arrives.
pub struct Frames {
    source: Source,
    id: String,
    progress_token: Option<String>,
    supply: Supply,
    logs: bool,
    limits: CallLimits,
    until: Instant,
    /// Ends the call then. Few calls have to wait for anything once there are frames: made when one does.
    total: Option<Pin<Box<Sleep>>>,
    finished: bool,
}

pub(super) enum Source {
    Http(Box<HttpFrames>),
    Stdio(StdioFrames),
}

impl Frames {
    pub(super) fn new(source: Source, outgoing: &Outgoing<'_>, limits: CallLimits) -> Frames {
        Frames {
            source,
            id: outgoing.message.id().unwrap_or("null").to_owned(),
            progress_token: outgoing.message.progress_token().map(str::to_owned),
            supply: outgoing.supply,
            logs: outgoing.logs,
            limits,
            until: timers::from_now(Duration::from_millis(limits.total_ms)),
            total: None,
            finished: false,
        }
    }

    /// The next frame; none after the response. May be dropped and called again without a loss.
    pub async fn next(&mut self) -> Result<Option<Frame>, UpstreamError> {
        while !self.finished {
            let message = self.next_message().await.inspect_err(|_| self.finished = true)?;
            if let Some(frame) = self.frame(&message) {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    async fn next_message(&mut self) -> Result<Message, UpstreamError> {
        let CallLimits { idle_ms, total_ms, .. } = self.limits;
        let late = |limit_ms| Err(UpstreamError::after(Cause::Deadline(limit_ms)));
        let (source, total, until) = (&mut self.source, &mut self.total, self.until);
        let mut next = pin!(async {
            match source {
                // It looks after the silence itself.
                Source::Http(http) => http.next().await,
                Source::Stdio(stdio) => tokio::time::timeout(Duration::from_millis(idle_ms), stdio.next())
                    .await
                    .unwrap_or_else(|_| late(idle_ms)),
            }
        });
        poll_fn(|cx| {
            if let Poll::Ready(next) = next.as_mut().poll(cx) {
                return Poll::Ready(next);
            }
            let total = total.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            total.as_mut().poll(cx).map(|()| late(total_ms))
        })
        .await
    }

    fn frame(&mut self, message: &Message) -> Option<Frame> {
        let back = Backward {
            id: &self.id,
            progress_token: self.progress_token.as_deref(),
            supply: self.supply,
        };
        match (message.kind(), message.method()) {
            (Kind::Response, _) => {
                self.finished = true;
                self.source.finish();
                Some(Frame::Response {
                    bytes: back.response(message),
                    is_error: message.error().is_some(),
                })
            }
            (Kind::Notification, Some("notifications/progress")) if self.source.is_own(message) => {
                back.progress(message).map(Frame::Notification)
            }
            (Kind::Notification, Some("notifications/message")) if self.logs => {
                Some(Frame::Notification(message.bytes().clone()))
            }
            (Kind::Notification | Kind::Request, _) => None,
        }
    }
}

impl Source {
    fn finish(&mut self) {
        match self {
            Source::Http(http) => http.finish(),
            Source::Stdio(stdio) => stdio.finish(),
        }
    }

    /// Whether a progress notification bears the token of this call.
    fn is_own(&self, message: &Message) -> bool {
        let id = match self {
            Source::Http(http) => http.id(),
            Source::Stdio(stdio) => stdio.id(),
        };
        message.progress_of().and_then(|token| token.parse().ok()) == Some(id)
    }
}
