//! Rounds of a modern request (2026-07-28, multi round-trip requests): a result `input_required` with what the server wants to know,
//! and the request once more with the answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::fields::read_fields;
use crate::message::Message;
use crate::refusal::URL_REQUIRED;
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

/// The URLs that a legacy server wants to be visited before it does what it was asked, as modern questions. None if its response says
/// something else.
pub fn urls_required(response: &Message) -> Option<Vec<Question>> {
    if response.error_code() != Some(URL_REQUIRED) {
        return None;
    }
    let [data] = read_fields(response.error()?, &["data"]).ok()?;
    let [elicitations] = read_fields(data?, &["elicitations"]).ok()?;
    let elicitations: Vec<Box<RawValue>> = serde_json::from_str(elicitations?).ok()?;
    let question = |(number, params): (usize, &RawValue)| {
        let [mode] = read_fields(params.get(), &["mode"]).ok()?;
        (mode == Some(r#""url""#)).then(|| Question {
            key: format!("url{number}"),
            method: "elicitation/create".to_owned(),
            params: without_id(params.get()),
        })
    };
    let questions: Option<Vec<Question>> = elicitations
        .iter()
        .map(|one| &**one)
        .enumerate()
        .map(question)
        .collect();
    questions.filter(|questions| !questions.is_empty())
}

/// Whether a client has agreed to all that it was asked by elicitation.
pub fn all_accepted(answers: &[(String, String)]) -> bool {
    let accepted = |raw: &str| read_fields(raw, &["action"]).is_ok_and(|[action]| action == Some(r#""accept""#));
    !answers.is_empty() && answers.iter().all(|(_, raw)| accepted(raw))
}

/// The request as it was the first time: without what the client sends along.
pub fn first_time(request: &Message) -> Option<Message> {
    let mut params: BTreeMap<String, Box<RawValue>> = serde_json::from_str(request.params()?).ok()?;
    params.remove("requestState");
    params.remove("inputResponses");
    let mut edits = Edits::default();
    edits.replace(request.params_span()?, serde_json::to_vec(&params).ok()?);
    Message::read(edits.apply(request.bytes())).ok()
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
    asks(&[question_of(request)], id, state)
}

/// The response that puts questions to a modern client.
pub fn asks(questions: &[Question], id: &str, state: &str) -> Bytes {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let one = |question: &Question| {
        let (key, method) = (text(&question.key), text(&question.method));
        format!(r#"{key}:{{"method":{method},"params":{}}}"#, question.params)
    };
    let all: Vec<String> = questions.iter().map(one).collect();
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","inputRequests":{{{}}},"requestState":{}}}}}"#,
        all.join(","),
        text(state),
    ))
}

fn without_id(params: &str) -> String {
    let without = || -> Option<String> {
        let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(params).ok()?;
        members.remove("elicitationId")?;
        serde_json::to_string(&members).ok()
    };
    without().unwrap_or_else(|| params.to_owned())
}

/// A legacy server's request as a modern question: without the id of an elicitation, which that era does not know.
fn question_of(request: &Message) -> Question {
    let params = request.params().unwrap_or("{}");
    Question {
        key: request.id().unwrap_or("null").to_owned(),
        method: request.method().unwrap_or_default().to_owned(),
        params: without_id(params),
    }
}

/// For the fuzzer: a message as a response that asks, and as a request that answers.
pub(crate) fn decode(message: &Message) {
    if let Some(Ok(required)) = input_required(message) {
        for question in &required.questions {
            let _request = as_request(question, 7, "e");
        }
    }
    if let Some(questions) = urls_required(message) {
        let _read = Message::read(asks(&questions, "1", "state")).is_ok();
    }
    if let Some(first) = first_time(message) {
        assert_eq!((retry_of(&first), first.method()), (None, message.method()));
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
    fn urls_that_a_legacy_server_requires_are_questions_of_the_newer_era() {
        let response = message(
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32042,"message":"visit","data":{"elicitations":[{"mode":"url","elicitationId":"e","url":"https://a.example","message":"m"}]}}}"#,
        );
        let questions = urls_required(&response).unwrap();
        assert_eq!(
            asks(&questions, "4", "s"),
            r#"{"jsonrpc":"2.0","id":4,"result":{"resultType":"input_required","inputRequests":{"url0":{"method":"elicitation/create","params":{"message":"m","mode":"url","url":"https://a.example"}}},"requestState":"s"}}"#
        );
        for other in [
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32042,"message":"visit"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32042,"message":"visit","data":{"elicitations":[]}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32042,"message":"visit","data":{"elicitations":[{"mode":"form"}]}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no","data":{"elicitations":[{"mode":"url"}]}}}"#,
        ] {
            assert_eq!(urls_required(&message(other)), None, "{other}");
        }
        let retry = message(
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"requestState":"s","inputResponses":{},"name":"x"}}"#,
        );
        assert_eq!(first_time(&retry).unwrap().params(), Some(r#"{"name":"x"}"#));
        let said = |action: &str| ("url0".to_owned(), format!(r#"{{"action":"{action}"}}"#));
        assert!(all_accepted(&[said("accept")]));
        assert!(!all_accepted(&[said("accept"), said("decline")]) && !all_accepted(&[]));
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
