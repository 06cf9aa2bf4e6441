//! What a server asks the client of a call: put on the stream of that call, and the answer taken back to the server.

use std::time::Duration;

use bytes::Bytes;
use mcp_wire::message::Message;
use mcp_wire::refusal::{INTERNAL_ERROR, METHOD_NOT_FOUND, Refusal};
use mcp_wire::rounds::as_result;
use mcp_wire::version::Era;

use super::{Flight, Stage, Step};
use crate::metrics::Metrics;
use crate::relay::{Heard, hold};

impl Flight {
    /// Puts a request of the server to the client, on its stream or, in the modern era, by the result. None if there is nobody who could
    /// answer; the server is told so.
    pub(super) fn ask(&mut self, asked: &Message) -> Option<Step> {
        let call = &self.request.call;
        if call.era() == Era::Modern {
            return self.ask_by_result(asked);
        }
        let refusal = match call.accepts.events {
            true => call.can().refusal_of(asked),
            false => Some(Refusal::bad(
                METHOD_NOT_FOUND,
                "the client takes no stream in this call",
            )),
        };
        let message = match refusal {
            Some(refusal) => Err(refusal),
            None => {
                let wait = Duration::from_millis(self.gateway.limits.client_reply_ms);
                if self.asking.is_none() {
                    self.asking = self.gateway.relay.listen(&self.request).map(Box::new);
                }
                let message = self.asking.as_mut().and_then(|asking| asking.ask(asked, wait));
                message.ok_or_else(|| Refusal::bad(INTERNAL_ERROR, "the client cannot be asked"))
            }
        };
        if message.is_err() {
            Metrics::add(&self.gateway.metrics.asked_refused);
        }
        match message {
            Ok(message) => {
                Metrics::add(&self.gateway.metrics.asked);
                Some(Step::Message(message))
            }
            Err(refusal) => {
                let id = asked.id().unwrap_or("null");
                self.answer_server(id, refusal.body(Some(id)));
                None
            }
        }
    }

    /// Ends the client's request with what the server wants to know. The call goes on when the client comes back.
    fn ask_by_result(&mut self, asked: &Message) -> Option<Step> {
        let call = &self.request.call;
        let may = matches!(
            call.message.method(),
            Some("tools/call" | "prompts/get" | "resources/read")
        );
        let refusal = match may {
            true => call.can().refusal_of(asked),
            false => Some(Refusal::bad(
                METHOD_NOT_FOUND,
                "the client cannot be asked in this call",
            )),
        };
        let state = match (refusal, std::mem::replace(&mut self.stage, Stage::Waiting)) {
            (None, Stage::Flowing(frames)) => match hold(&self.gateway, &self.request, &self.target, frames, asked) {
                Ok(state) => Ok(state),
                Err(frames) => {
                    self.stage = Stage::Flowing(*frames);
                    Err(Refusal::bad(INTERNAL_ERROR, "too many calls wait for their clients"))
                }
            },
            // Who holds it has looked at what the client can.
            (_, Stage::Held(held)) => held.keep().ok_or_else(|| Refusal::bad(INTERNAL_ERROR, "no state")),
            (refusal, stage) => {
                self.stage = stage;
                Err(refusal.unwrap_or_else(|| Refusal::bad(INTERNAL_ERROR, "the client cannot be asked")))
            }
        };
        match state {
            Ok(state) => {
                Metrics::add(&self.gateway.metrics.asked);
                let id = self.request.call.message.id().unwrap_or("null");
                let bytes = as_result(asked, id, &state);
                let is_error = false;
                Some(Step::Response { bytes, is_error })
            }
            Err(refusal) => {
                Metrics::add(&self.gateway.metrics.asked_refused);
                let id = asked.id().unwrap_or("null");
                self.answer_server(id, refusal.body(Some(id)));
                matches!(self.stage, Stage::Waiting).then(|| self.gives_up(&refusal.message))
            }
        }
    }

    /// Hands on what came of a request to the client: what the client has to be told of that.
    pub(super) fn hear(&mut self, heard: Heard) -> Option<Bytes> {
        match heard {
            Heard::Reply { server_id, response } => {
                self.answer_server(&server_id, response);
                None
            }
            Heard::Progress(notification) => {
                if let Stage::Flowing(frames) = &self.stage {
                    frames.tell(notification);
                }
                None
            }
            Heard::Late { server_id, notice } => {
                Metrics::add(&self.gateway.metrics.asked_late);
                let why = format!(
                    "the client has not answered within {} ms",
                    self.gateway.limits.client_reply_ms
                );
                let refusal = Refusal::bad(INTERNAL_ERROR, why);
                self.answer_server(&server_id, refusal.body(Some(&server_id)));
                Some(notice)
            }
        }
    }

    fn answer_server(&mut self, id: &str, response: Bytes) {
        if let Stage::Flowing(frames) = &mut self.stage {
            frames.reply(id, response);
        }
    }
}
