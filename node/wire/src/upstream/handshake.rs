//! The opening exchange with an upstream: `initialize`, or `server/discover` where a server knows only that.

use ::http::HeaderValue;
use serde_json::Value;

use super::{Cause, UpstreamError};
use crate::fields::read_fields;
use crate::message::Message;
use crate::refusal::UNSUPPORTED_VERSION;
use crate::splice::own_modern_meta;
use crate::version::{Era, NEWEST_LEGACY, NEWEST_MODERN, Revision};

/// What the opening exchange said about a server.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The revision both speak.
    pub revision: Revision,
    /// The server's capabilities.
    pub capabilities: Value,
    /// Name and version of the server, as it says itself.
    pub server_info: Value,
    /// Its instructions for the model, if it has any.
    pub instructions: Option<String>,
    /// The session id of an HTTP upstream.
    pub(super) session_id: Option<HeaderValue>,
}

impl Opened {
    /// Whether resources can be watched.
    pub(super) fn can_watch(&self) -> Result<(), UpstreamError> {
        match self.capabilities["resources"]["subscribe"] == true {
            true => Ok(()),
            false => Err(UpstreamError::before(Cause::Unsupported("subscriptions to resources"))),
        }
    }

    /// Whether the server declares this capability.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.get(capability).is_some_and(Value::is_object)
    }
}

/// The transport's part: one exchange before a session exists.
pub(super) trait Exchange {
    /// Sends a request of this era and gives back the response, with the session id that came with it.
    async fn ask(&self, era: Era, method: &str, params: &str) -> Result<(Message, Option<HeaderValue>), UpstreamError>;

    /// Tells the server that the legacy session is in use.
    async fn say_initialized(&self, opened: &Opened) -> Result<(), UpstreamError>;
}

/// Opens a session of the older era, or finds out that the server knows only the newer one. It is told what the clients can do for whom
/// the session is.
pub(super) async fn open(exchange: &impl Exchange, capabilities: &str) -> Result<Opened, UpstreamError> {
    let params = format!(
        r#"{{"protocolVersion":"{}","capabilities":{},"clientInfo":{}}}"#,
        NEWEST_LEGACY.as_str(),
        capabilities,
        crate::OWN_INFO,
    );
    let refused = match exchange.ask(Era::Legacy, "initialize", &params).await {
        Ok((response, session_id)) => match response.result() {
            // It knows no `initialize`, and answers all the same.
            Some(result) if answers_as_modern(result) => "it names a revision without initialize".to_owned(),
            Some(result) => {
                let opened = initialized(result, session_id)?;
                exchange.say_initialized(&opened).await?;
                return Ok(opened);
            }
            None => response.error().unwrap_or("no result").chars().take(300).collect(),
        },
        Err(UpstreamError {
            cause: Cause::Status(status),
            ..
        }) if is_refusal(status) => {
            format!("HTTP status {status}")
        }
        Err(error) => return Err(error),
    };
    discover(exchange)
        .await?
        .ok_or_else(|| handshake_failed(&format!("initialize was refused: {refused}")))
}

/// Statuses with which a modern-only server may refuse `initialize`; 401, 403 and 5xx say something else.
pub(super) fn is_refusal(status: u16) -> bool {
    matches!(status, 400 | 404 | 405 | 406 | 415 | 422)
}

fn answers_as_modern(result: &str) -> bool {
    let version = read_fields(result, &["protocolVersion"])
        .ok()
        .and_then(|[version]| version);
    let revision = version.and_then(|version| Revision::parse(version.trim_matches('"')));
    revision.is_some_and(|revision| revision.era() == Era::Modern)
}

fn initialized(result: &str, session_id: Option<HeaderValue>) -> Result<Opened, UpstreamError> {
    let result: Value = serde_json::from_str(result).map_err(|error| handshake_failed(&error.to_string()))?;
    let version = result["protocolVersion"].as_str().unwrap_or_default();
    let revision = Revision::parse(version)
        .filter(|revision| revision.era() == Era::Legacy)
        .ok_or_else(|| handshake_failed(&format!("unknown protocol version \"{version}\"")))?;
    Ok(opened(revision, &result, &result["serverInfo"], session_id))
}

fn opened(revision: Revision, result: &Value, server_info: &Value, session_id: Option<HeaderValue>) -> Opened {
    Opened {
        revision,
        capabilities: result["capabilities"].clone(),
        server_info: server_info.clone(),
        instructions: result["instructions"].as_str().map(str::to_owned),
        session_id,
    }
}

/// For the fuzzer: a text as the result of `initialize`.
pub(crate) fn decode(result: &str) {
    let _opened = initialized(result, None).is_ok();
}

/// Asks for the modern era; none if the server does not speak it either.
pub(super) async fn discover(exchange: &impl Exchange) -> Result<Option<Opened>, UpstreamError> {
    let params = format!(r#"{{"_meta":{{{}}}}}"#, own_modern_meta());
    let mut answer = exchange.ask(Era::Modern, "server/discover", &params).await;
    if let Ok((refused, _)) = &answer
        && refused.error_code() == Some(UNSUPPORTED_VERSION)
        && refused
            .error()
            .is_some_and(|error| error.contains(NEWEST_MODERN.as_str()))
    {
        // It lists the revision as one that it speaks: what it refused may have been the one before.
        answer = exchange.ask(Era::Modern, "server/discover", &params).await;
    }
    let response = match answer {
        Ok((response, _)) => response,
        Err(UpstreamError {
            cause: Cause::Status(_),
            ..
        }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(result) = response
        .result()
        .and_then(|result| serde_json::from_str::<Value>(result).ok())
    else {
        return Ok(None);
    };
    let speaks = |version: &Value| version.as_str() == Some(NEWEST_MODERN.as_str());
    if !result["supportedVersions"]
        .as_array()
        .is_some_and(|versions| versions.iter().any(speaks))
    {
        return Ok(None);
    }
    let server_info = &result["_meta"][crate::message::META_SERVER_INFO];
    Ok(Some(opened(NEWEST_MODERN, &result, server_info, None)))
}

fn handshake_failed(why: &str) -> UpstreamError {
    UpstreamError::before(Cause::Handshake(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    /// Answers one request after another, and remembers what was asked.
    struct Script {
        answers: Mutex<VecDeque<Value>>,
        asked: Mutex<Vec<String>>,
    }

    impl Exchange for Script {
        async fn ask(
            &self,
            _era: Era,
            method: &str,
            _params: &str,
        ) -> Result<(Message, Option<HeaderValue>), UpstreamError> {
            self.asked.lock().unwrap().push(method.to_owned());
            let answer = self.answers.lock().unwrap().pop_front().unwrap();
            let mut whole = json!({"jsonrpc": "2.0", "id": 1});
            whole
                .as_object_mut()
                .unwrap()
                .extend(answer.as_object().unwrap().clone());
            Ok((Message::read(Bytes::from(whole.to_string())).unwrap(), None))
        }

        async fn say_initialized(&self, _opened: &Opened) -> Result<(), UpstreamError> {
            self.asked.lock().unwrap().push("initialized".to_owned());
            Ok(())
        }
    }

    async fn opening(answers: &[Value]) -> (Option<Revision>, Vec<String>) {
        let script = Script {
            answers: Mutex::new(answers.to_vec().into()),
            asked: Mutex::default(),
        };
        let opened = open(&script, "{}").await.ok();
        (opened.map(|opened| opened.revision), script.asked.into_inner().unwrap())
    }

    #[tokio::test]
    async fn a_server_is_opened_in_the_era_that_it_speaks() {
        let legacy = json!({"result": {"protocolVersion": "2025-06-18", "capabilities": {}}});
        let modern = json!({"result": {"supportedVersions": ["2026-07-28"], "capabilities": {}}});
        let as_modern = json!({"result": {"protocolVersion": "2026-07-28", "capabilities": {}}});
        let no = json!({"error": {"code": -32601, "message": "no"}});
        let others =
            |supported: &str| json!({"error": {"code": -32022, "message": "no", "data": {"supported": [supported]}}});
        let rows = [
            (vec![legacy], Some(Revision::R20250618), "initialize initialized"),
            (
                vec![no.clone(), modern.clone()],
                Some(NEWEST_MODERN),
                "initialize server/discover",
            ),
            (
                vec![as_modern, modern.clone()],
                Some(NEWEST_MODERN),
                "initialize server/discover",
            ),
            (
                vec![no.clone(), others("2026-07-28"), modern],
                Some(NEWEST_MODERN),
                "initialize server/discover server/discover",
            ),
            (
                vec![no.clone(), others("2030-01-01")],
                None,
                "initialize server/discover",
            ),
            (vec![no.clone(), no], None, "initialize server/discover"),
        ];
        for (answers, revision, asked) in rows {
            let (opened, said) = opening(&answers).await;
            assert_eq!((opened, said.join(" ").as_str()), (revision, asked), "{answers:?}");
        }
    }
}
