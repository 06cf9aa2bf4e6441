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
use crate::level::Logs;
use crate::limits;
use crate::message::{Kind, Message};
use crate::refusal::{INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, Refusal};
use crate::splice::{Backward, Supply};
use crate::timers;

/// One message of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Progress or a log message of this call.
    Notification(Bytes),
    /// A request of the server for the client. It is owed an answer under its id: [`Frames::reply`].
    Request(Message),
    /// The server no longer wants the answer to its request of this id, raw JSON.
    Withdrawn(Box<str>),
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
    logs: Logs,
    limits: CallLimits,
    until: Instant,
    /// Ends the call then. Few calls have to wait for anything once there are frames: made when one does.
    total: Option<Pin<Box<Sleep>>>,
    /// The same for the silence since the last message. It outlives a wait that is given up: whoever looks again and again must
    /// not put it off for ever.
    silence: Option<Pin<Box<Sleep>>>,
    finished: bool,
    /// Requests of the server that wait for an answer: their ids, raw JSON.
    asked: Vec<Box<str>>,
    /// How many there were in all.
    asked_in_all: usize,
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
            silence: None,
            finished: false,
            asked: Vec::new(),
            asked_in_all: 0,
        }
    }

    /// The next frame; none after the response. May be dropped and called again without a loss.
    pub async fn next(&mut self) -> Result<Option<Frame>, UpstreamError> {
        while !self.finished {
            let message = self.next_message().await.inspect_err(|_| self.finished = true)?;
            if self.asked_in_all > limits::ASKED_IN_ALL_MAX {
                self.finished = true;
                let why = format!("it asked more than {} times in one call", limits::ASKED_IN_ALL_MAX);
                return Err(UpstreamError::after(Cause::Rubbish(why)));
            }
            let frame = self.frame(&message);
            // What belongs to nobody here does not keep the call alive, or a server could do so for ever with it. Its log does,
            // whether the client wants it or not: somebody is at work.
            if frame.is_some() || message.method() == Some("notifications/message") {
                self.silence = None;
            }
            if frame.is_some() {
                return Ok(frame);
            }
        }
        Ok(None)
    }

    async fn next_message(&mut self) -> Result<Message, UpstreamError> {
        let CallLimits { idle_ms, total_ms, .. } = self.limits;
        // A server that waits for a client is silent for good reason; whoever waits for the client has a deadline.
        let idle_ms = if self.asked.is_empty() { idle_ms } else { total_ms };
        let late = |limit_ms| Err(UpstreamError::after(Cause::Deadline(limit_ms)));
        let (source, total, until) = (&mut self.source, &mut self.total, self.until);
        let silence = &mut self.silence;
        let mut next = pin!(async {
            match source {
                Source::Http(http) => http.next(idle_ms).await,
                Source::Stdio(stdio) => stdio.next().await,
            }
        });
        poll_fn(|cx| {
            if let Poll::Ready(next) = next.as_mut().poll(cx) {
                return Poll::Ready(next);
            }
            let silence = silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(idle_ms))));
            if timers::poll(silence, cx).is_ready() {
                return Poll::Ready(late(idle_ms));
            }
            let total = total.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            timers::poll(total, cx).map(|()| late(total_ms))
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
            (Kind::Notification, Some("notifications/message")) if self.logs.want(message) => {
                Some(Frame::Notification(message.bytes().clone()))
            }
            (Kind::Notification, Some("notifications/elicitation/complete")) if self.supply == Supply::Nothing => {
                Some(Frame::Notification(message.bytes().clone()))
            }
            (Kind::Notification, Some("notifications/cancelled")) => self.withdrawn(message),
            (Kind::Notification, _) => None,
            (Kind::Request, _) => self.asked(message),
        }
    }

    fn asked(&mut self, request: &Message) -> Option<Frame> {
        self.asked_in_all += 1;
        let id = request.id().unwrap_or("null");
        if self.asked.len() >= limits::ASKED_MAX || self.asked.iter().any(|asked| **asked == *id) {
            let refusal = Refusal::bad(
                INVALID_REQUEST,
                "too many requests wait for the client, or this one twice",
            );
            self.source.say_if_room(refusal.body(Some(id)));
            return None;
        }
        self.asked.push(id.into());
        Some(Frame::Request(request.clone()))
    }

    fn withdrawn(&mut self, notification: &Message) -> Option<Frame> {
        let id = notification.cancelled_id()?;
        let at = self.asked.iter().position(|asked| **asked == *id)?;
        Some(Frame::Withdrawn(self.asked.swap_remove(at)))
    }

    /// From here on the answer is to another request of the client: its id and progress token, raw JSON.
    pub fn rebind(&mut self, id: String, progress_token: Option<String>, supply: Supply) {
        self.id = id;
        self.progress_token = progress_token;
        self.supply = supply;
    }

    /// Answers a request of the server: a response that bears the id of the request. Nothing is sent if none is owed.
    pub fn reply(&mut self, id: &str, body: Bytes) {
        if let Some(at) = self.asked.iter().position(|asked| **asked == *id) {
            self.asked.swap_remove(at);
            // It is the server's turn again.
            self.silence = None;
            self.source.say(body);
        }
    }

    /// Refuses a request for which there is no client.
    pub fn refuse(&mut self, request: &Message) {
        let id = request.id().unwrap_or("null");
        let refusal = Refusal::bad(METHOD_NOT_FOUND, "no client can be asked in this call");
        self.reply(id, refusal.body(Some(id)));
    }

    /// Sends a notification that belongs to the call.
    pub fn tell(&self, notification: Bytes) {
        self.source.say(notification);
    }
}

impl Drop for Frames {
    /// A server that waits for a client which is gone would wait for long.
    fn drop(&mut self) {
        for id in std::mem::take(&mut self.asked) {
            let refusal = Refusal::bad(INTERNAL_ERROR, "the client has not answered and will not");
            self.source.say(refusal.body(Some(&id)));
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

    fn say(&self, body: Bytes) {
        match self {
            Source::Http(http) => http.say(body),
            Source::Stdio(stdio) => stdio.say(body),
        }
    }

    /// The same of an answer that a server can have as often as it asks: it waits for none for ever.
    fn say_if_room(&self, body: Bytes) {
        match self {
            Source::Http(http) => http.say_if_room(body),
            Source::Stdio(stdio) => stdio.say(body),
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
