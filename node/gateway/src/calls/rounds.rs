//! A modern server that wants to know something of a legacy client: its `input_required` becomes requests on the client's stream, and
//! the call goes to the server once more with the answers.

use std::time::Duration;

use bytes::Bytes;
use mcp_wire::can::ClientCan;
use mcp_wire::message::Message;
use mcp_wire::refusal::{MISSING_CAPABILITY, Refusal, UPSTREAM_FAILED};
use mcp_wire::rounds::{self, InputRequired, Question};
use mcp_wire::version::Era;
use serde_json::json;

use super::{Flight, Stage, Step, open};
use crate::metrics::Metrics;
use crate::relay::{Heard, urls};

/// Rounds of one call.
const ROUNDS_MAX: u32 = 10;

/// What the client was asked in this round.
pub(super) struct Round {
    questions: Vec<Question>,
    /// Raw JSON.
    answers: Vec<Option<String>>,
    state: Option<String>,
}

impl Flight {
    /// What a response of the server means; none if the call goes on.
    pub(super) fn responded(&mut self, bytes: Bytes, is_error: bool) -> Option<Step> {
        let may_ask = !is_error && self.request.call.era() == Era::Legacy && rounds::may_ask(&bytes);
        let asks = may_ask.then(|| Message::read(bytes.clone()).ok()).flatten();
        match asks.as_ref().and_then(rounds::input_required) {
            None if is_error && self.request.call.era() == Era::Modern => self.refused(bytes),
            None => Some(Step::Response { bytes, is_error }),
            Some(Ok(required)) => self.begin_round(required),
            Some(Err(why)) => Some(self.gives_up(&why)),
        }
    }

    /// An error of the server for a modern client: where it is that a URL has to be visited first, the client is asked to.
    fn refused(&self, bytes: Bytes) -> Option<Step> {
        let is_error = true;
        let urls = Message::read(bytes.clone())
            .ok()
            .as_ref()
            .and_then(rounds::urls_required);
        let Some(questions) = urls else {
            return Some(Step::Response { bytes, is_error });
        };
        let call = &self.request.call;
        let id = call.message.id();
        if !call.can().has(ClientCan::URL) {
            let needed = json!({"requiredCapabilities": {"elicitation": {"url": {}}}});
            let why = "the server wants the user to visit a URL, and the client does not declare elicitation.url";
            let bytes = Refusal::bad(MISSING_CAPABILITY, why).with_data(needed).body(id);
            return Some(Step::Response { bytes, is_error });
        }
        let Some(state) = urls::state(&self.gateway, &self.request, &self.target) else {
            return Some(Step::Response { bytes, is_error });
        };
        Metrics::add(&self.gateway.metrics.asked);
        Some(Step::Response {
            bytes: rounds::asks(&questions, id.unwrap_or("null"), &state),
            is_error: false,
        })
    }

    fn begin_round(&mut self, required: InputRequired) -> Option<Step> {
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX {
            return Some(self.gives_up(&format!("it has asked {ROUNDS_MAX} times and asks again")));
        }
        let InputRequired { questions, state } = required;
        if questions.is_empty() && state.is_none() {
            return Some(self.gives_up("it wants to know something and does not say what"));
        }
        let call = &self.request.call;
        if !questions.is_empty() && !call.accepts.events {
            return Some(self.gives_up("it asks the client, which takes no stream in this call"));
        }
        let can = call.can();
        if let Some(refusal) = questions.iter().find_map(|one| can.refusal(&one.method, &one.params)) {
            return Some(self.gives_up(&format!("it asks what cannot be asked: {}", refusal.message)));
        }
        if self.asking.is_none() {
            self.asking = self.gateway.relay.listen(&self.request).map(Box::new);
        }
        let wait = Duration::from_millis(self.gateway.limits.client_reply_ms);
        for (number, question) in (0..).zip(&questions) {
            let elicitation = self.gateway.relay.fresh_name();
            let request = elicitation.and_then(|id| rounds::as_request(question, number, &id));
            let asked = request.and_then(|request| self.asking.as_mut()?.ask(&request, wait));
            let Some(asked) = asked else {
                return Some(self.gives_up("the client cannot be asked"));
            };
            Metrics::add(&self.gateway.metrics.asked);
            self.ready.push_back(asked);
        }
        self.stage = Stage::Waiting;
        let answers = vec![None; questions.len()];
        self.round = Some(Box::new(Round {
            questions,
            answers,
            state,
        }));
        self.end_round()
    }

    /// What came of a question. None if the call goes on.
    pub(super) fn heard_in_round(&mut self, heard: Heard) -> Option<Step> {
        let round = self.round.as_mut()?;
        let (server_id, response) = match heard {
            Heard::Progress(_) => return None,
            Heard::Late { .. } => {
                Metrics::add(&self.gateway.metrics.asked_late);
                return Some(self.gives_up("the client was asked and has not answered in time"));
            }
            Heard::Reply { server_id, response } => (server_id, response),
        };
        let at: usize = server_id.parse().ok()?;
        let response = Message::read(response).ok()?;
        let answer = match (response.result(), &*round.questions.get(at)?.method) {
            (Some(result), _) => result.to_owned(),
            (None, "elicitation/create") => json!({"action": "cancel"}).to_string(),
            (None, method) => {
                let error: String = response.error().unwrap_or_default().chars().take(300).collect();
                let why = format!("the client answered {method} with an error: {error}");
                return Some(self.gives_up(&why));
            }
        };
        round.answers[at] = Some(answer);
        self.end_round()
    }

    /// Sends the call once more, if everything is answered.
    fn end_round(&mut self) -> Option<Step> {
        let round = self.round.take_if(|round| round.answers.iter().all(Option::is_some))?;
        let Round {
            questions,
            answers,
            state,
        } = *round;
        let keys = questions.into_iter().map(|question| question.key);
        let answers: Vec<(String, String)> = keys.zip(answers.into_iter().flatten()).collect();
        let Some(message) = rounds::again(&self.request.call.message, &answers, state.as_deref()) else {
            return Some(self.gives_up("the call has answers in it already"));
        };
        let lane = self.gateway.upstreams.lane(&self.target.listed.server);
        let (gateway, request, target) = (self.gateway.clone(), self.request.clone(), self.target.clone());
        self.stage = Stage::Opening(Box::pin(open(gateway, lane, request, target, Some(message))));
        None
    }

    pub(super) fn gives_up(&mut self, cause: &str) -> Step {
        Metrics::add(&self.gateway.metrics.calls_failed);
        let server = self.target.listed.server.name.as_str();
        let message = format!("server \"{server}\": {cause}; the request may have had an effect");
        let data = json!({"server": server, "cause": cause, "effect": "possible"});
        let refusal = Refusal::inside(UPSTREAM_FAILED, message).with_data(data);
        Step::Response {
            bytes: refusal.body(self.request.call.message.id()),
            is_error: true,
        }
    }
}
