//! What a call has asked its client and waits for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use mcp_wire::message::{Kind, Message};
use mcp_wire::splice::{Backward, Supply, ask, progress_for};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::{Asked, Relay, Word};

/// The requests of one call that wait for the client. Nobody listens for it any more when this is dropped.
pub(crate) struct Asking {
    relay: Arc<Relay>,
    /// The last one, or what they have in common.
    asked: Asked,
    words: mpsc::Receiver<Word>,
    /// The longest waiting first.
    pending: Vec<Pending>,
    timer: Option<Pin<Box<Sleep>>>,
}

struct Pending {
    number: u32,
    /// Ours, raw JSON.
    id: String,
    /// The server's, raw JSON.
    server_id: Box<str>,
    /// Under which the server wants progress, raw JSON.
    progress_token: Option<Box<str>>,
    until: Instant,
}

/// What came of a request.
pub(crate) enum Heard {
    /// The client's response, as it goes to the server, whose id it bears.
    Reply { server_id: Box<str>, response: Bytes },
    /// The client's progress, as it goes to the server.
    Progress(Bytes),
    /// The client has not answered in time: to be said to the server, and by this notification to the client.
    Late { server_id: Box<str>, notice: Bytes },
}

impl Asking {
    pub(super) fn new(relay: Arc<Relay>, asked: Asked, words: mpsc::Receiver<Word>) -> Asking {
        Asking {
            relay,
            asked,
            words,
            pending: Vec::new(),
            timer: None,
        }
    }

    /// A server's request as it goes to the client, who may take so long to answer. None if it has no id, or the system no random
    /// bytes.
    pub(crate) fn ask(&mut self, request: &Message, wait: Duration) -> Option<Bytes> {
        self.asked.number += 1;
        let id = self.relay.seals.seal(&self.asked)?;
        let message = ask(request, &id);
        self.pending.push(Pending {
            number: self.asked.number,
            id,
            server_id: request.id()?.into(),
            progress_token: request.progress_token().map(Box::from),
            // A deadline is what a timer rings at; nothing is decided by the runtime's clock.
            until: tokio::time::sleep(wait).deadline(),
        });
        Some(message)
    }

    /// The server no longer wants an answer: the notification that tells the client.
    pub(crate) fn withdraw(&mut self, server_id: &str) -> Option<Bytes> {
        let at = self.pending.iter().position(|one| *one.server_id == *server_id)?;
        let id = self.pending.remove(at).id;
        Some(cancelled(&id, "the server no longer waits for it"))
    }

    /// What comes next of what was asked.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        while let Poll::Ready(Some(word)) = self.words.poll_recv(cx) {
            if let Some(heard) = self.hear(&word) {
                return Poll::Ready(heard);
            }
        }
        let Some(until) = self.pending.first().map(|one| one.until) else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx).map(|()| {
            let late = self.pending.remove(0);
            Heard::Late {
                server_id: late.server_id,
                notice: cancelled(&late.id, "no answer in time"),
            }
        })
    }

    fn hear(&mut self, word: &Word) -> Option<Heard> {
        let at = self.pending.iter().position(|one| one.number == word.number)?;
        if word.message.kind() != Kind::Response {
            let token = self.pending[at].progress_token.as_ref()?;
            return progress_for(&word.message, token).map(Heard::Progress);
        }
        let server_id = self.pending.remove(at).server_id;
        let back = Backward {
            id: &server_id,
            progress_token: None,
            supply: Supply::Nothing,
        };
        let response = back.response(&word.message);
        Some(Heard::Reply { server_id, response })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.relay.ears.remove(&self.asked.call);
    }
}

fn cancelled(id: &str, reason: &str) -> Bytes {
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"{reason}"}}}}"#
    ))
}
