//! Rounds of a modern request (2026-07-28, multi round-trip requests): a result `input_required` with what the server wants to know,
//! and the request once more with the answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::fields::read_fields;
use crate::message::Message;
use crate::splice::Edits;

/// What a server wants to know before it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InputRequired {
    /// Its questions.
    pub questions: Vec<Question>,
    /// To be repeated with the answers, raw JSON.
    pub state: Option<String>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The server's name for it.
    pub key: String,
    /// `elicitation/create`, `sampling/createMessage` or `roots/list`.
    pub method: String,
    /// Raw JSON, an object.
    pub params: String,
}

/// What a client sends along when it repeats a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retry {
    /// `params.requestState`, if it is a plain string.
    pub state: String,
    /// `params.inputResponses`: key and raw JSON.
    pub answers: Vec<(String, String)>,
}

/// Whether a response may be one that asks: seldom, and found faster than read.
pub fn may_ask(response: &[u8]) -> bool {
    memchr::memmem::find(response, b"\"input_required\"").is_some()
}

/// The result of a response, if it is not the last one. An error says what is wrong with it.
pub fn input_required(response: &Message) -> Option<Result<InputRequired, String>> {
    let result = response.result()?;
    if !may_ask(result.as_bytes()) {
        return None;
    }
    const NAMES: [&str; 3] = ["resultType", "inputRequests", "requestState"];
    let [kind, requests, state] = read_fields(result, &NAMES).ok()?;
    (kind? == r#""input_required""#).then(|| {
        let mut required = InputRequired {
            questions: Vec::new(),
            state: state.filter(|state| state.starts_with('"')).map(str::to_owned),
        };
        let requests: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(requests.unwrap_or("{}")).map_err(|error| format!("inputRequests: {error}"))?;
        for (key, request) in requests {
            let fields = read_fields(request.get(), &["method", "params"]);
            let [method, params] = fields.map_err(|fault| format!("inputRequests: {fault:?}"))?;
            let method = method.and_then(|raw| serde_json::from_str(raw).ok());
            required.questions.push(Question {
                key,
                method: method.ok_or("inputRequests: a request without a method")?,
                params: params.filter(|raw| raw.starts_with('{')).unwrap_or("{}").to_owned(),
            });
        }
        Ok(required)
    })
}

/// What a client sends along, if this is not the first time that it sends the request.
pub fn retry_of(request: &Message) -> Option<Retry> {
    memchr::memmem::find(request.bytes(), b"requestState")?;
    let [state, answers] = read_fields(request.params()?, &["requestState", "inputResponses"]).ok()?;
    let state: String = serde_json::from_str(state?).ok()?;
    let answers: BTreeMap<String, Box<RawValue>> = serde_json::from_str(answers.unwrap_or("{}")).unwrap_or_default();
    let answers = answers.into_iter().map(|(key, raw)| (key, raw.get().to_owned()));
    Some(Retry {
        state,
        answers: answers.collect(),
    })
}

/// The request once more, with the answers to what the server wanted to know. None if it cannot be: it holds answers already.
pub fn again(request: &Message, answers: &[(String, String)], state: Option<&str>) -> Option<Message> {
    let params = request.params_span()?;
    let said = read_fields(request.params()?, &["requestState", "inputResponses"]).ok()?;
    if said.iter().any(Option::is_some) {
        return None;
    }
    let answers: Vec<String> = answers
        .iter()
        .map(|(key, raw)| format!("{}:{raw}", serde_json::Value::from(key.as_str())))
        .collect();
    let mut members = format!(r#""inputResponses":{{{}}}"#, answers.join(","));
    if let Some(state) = state {
        members.push_str(&format!(r#","requestState":{state}"#));
    }
    let empty = request.params()?.trim_start_matches('{').trim_start().starts_with('}');
    if !empty {
        members.push(',');
    }
    let mut edits = Edits::default();
    edits.replace(params.start + 1..params.start + 1, members.into_bytes());
    Message::read(edits.apply(request.bytes())).ok()
}

/// A question as a request to a legacy client, under this id. Elicitation by URL has an id of its own there.
pub fn as_request(question: &Question, id: u64, elicitation_id: &str) -> Option<Message> {
    let [mode, known] = read_fields(&question.params, &["mode", "elicitationId"]).ok()?;
    let mut params = question.params.clone();
    if mode == Some(r#""url""#) && known.is_none() {
        params.insert_str(1, &format!(r#""elicitationId":"{elicitation_id}","#));
    }
    let method = serde_json::Value::from(question.method.as_str());
    let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#);
    Message::read(Bytes::from(text)).ok()
}

/// The response that puts a legacy server's request to a modern client. `id` is the client's, raw JSON; the question's name is the
/// id of the server's request.
pub fn as_result(request: &Message, id: &str, state: &str) -> Bytes {
    let question = question_of(request);
    let text = |text: &str| serde_json::Value::from(text).to_string();
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","inputRequests":{{{}:{{"method":{},"params":{}}}}},"requestState":{}}}}}"#,
        text(&question.key),
        text(&question.method),
        question.params,
        text(state),
    ))
}

/// A legacy server's request as a modern question: without the id of an elicitation, which that era does not know.
fn question_of(request: &Message) -> Question {
    let params = request.params().unwrap_or("{}");
    let known = read_fields(params, &["elicitationId"]).is_ok_and(|[id]| id.is_some());
    let without = |params: &str| -> Option<String> {
        let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(params).ok()?;
        members.remove("elicitationId");
        serde_json::to_string(&members).ok()
    };
    Question {
        key: request.id().unwrap_or("null").to_owned(),
        method: request.method().unwrap_or_default().to_owned(),
        params: known
            .then(|| without(params))
            .flatten()
            .unwrap_or_else(|| params.to_owned()),
    }
}

/// For the fuzzer: a message as a response that asks, and as a request that answers.
pub(crate) fn decode(message: &Message) {
    if let Some(Ok(required)) = input_required(message) {
        for question in &required.questions {
            let _request = as_request(question, 7, "e");
        }
    }
    let _retry = retry_of(message);
    if message.method().is_some() {
        let answers = [("a \"key\"".to_owned(), r#"{"action":"accept"}"#.to_owned())];
        if let Some(again) = again(message, &answers, Some(r#""state""#)) {
            let retry = retry_of(&again).expect("what is sent along is read back");
            assert_eq!((retry.state.as_str(), &retry.answers[..]), ("state", &answers[..]));
        }
        if message.id().is_some() {
            // It may be nested too deeply now.
            let result = as_result(message, "1", "state");
            let _read = Message::read(result).is_ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::read(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn questions_are_read_and_answered() {
        let response = message(
            r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","inputRequests":{"u":{"method":"elicitation/create","params":{"mode":"url","url":"https://a.example"}},"r":{"method":"roots/list"}},"requestState":"s\"1"}}"#,
        );
        let required = input_required(&response).unwrap().unwrap();
        assert_eq!(required.state.as_deref(), Some(r#""s\"1""#));
        let keys: Vec<&str> = required
            .questions
            .iter()
            .map(|question| question.key.as_str())
            .collect();
        assert_eq!(keys, ["r", "u"]);
        let url = as_request(&required.questions[1], 5, "e-9").unwrap();
        assert_eq!(
            url.params(),
            Some(r#"{"elicitationId":"e-9","mode":"url","url":"https://a.example"}"#)
        );
        let call = message(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#);
        let again = again(
            &call,
            &[("r".into(), r#"{"roots":[]}"#.into())],
            required.state.as_deref(),
        )
        .unwrap();
        assert_eq!(
            again.params(),
            Some(r#"{"inputResponses":{"r":{"roots":[]}},"requestState":"s\"1","name":"x"}"#)
        );
        let retry = retry_of(&again).unwrap();
        assert_eq!((retry.state.as_str(), retry.answers.len()), ("s\"1", 1));
        assert_eq!(super::again(&again, &[], None), None, "it has been answered");
    }

    #[test]
    fn what_only_mentions_it_asks_nothing() {
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"result":{"content":"input_required"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","x":"input_required"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"input_required"}}"#,
        ] {
            assert_eq!(input_required(&message(text)), None, "{text}");
        }
        let broken =
            message(r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","inputRequests":{"a":{}}}}"#);
        assert!(input_required(&broken).unwrap().is_err());
    }

    #[test]
    fn a_modern_client_is_asked_by_a_result() {
        let asked = message(
            r#"{"jsonrpc":"2.0","id":"s","method":"elicitation/create","params":{"mode":"url","elicitationId":"e","url":"u"}}"#,
        );
        let result = as_result(&asked, "4", "sealed");
        assert_eq!(
            result,
            r#"{"jsonrpc":"2.0","id":4,"result":{"resultType":"input_required","inputRequests":{"\"s\"":{"method":"elicitation/create","params":{"mode":"url","url":"u"}}},"requestState":"sealed"}}"#
        );
    }
}
