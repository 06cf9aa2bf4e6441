//! One request and what comes back for it, whichever nodes that takes. What is safe to repeat is repeated when a node is lost in
//! the middle; of anything else its caller is told that it may have been done.

use std::time::Duration;

use bytes::Bytes;
use mcp_wire::headers::{METHOD, NAME, PROTOCOL_VERSION, encode_value};
use mcp_wire::message::{Kind, Message};
use mcp_wire::mirrored::MirroredParams;
use mcp_wire::refusal::{INTERNAL_ERROR, NOT_ALLOWED, Refusal, UPSTREAM_FAILED};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::mcp::link::{Answer, Ask, Events, Link, Refused, Unanswered};

/// How often a safe request is begun again after its node was lost.
const TRIES_MAX: u32 = 5;
/// Pause before a subscription is taken up again.
const RESUME_PAUSE: Duration = Duration::from_millis(250);

/// Requests that may be carried out twice without harm: they read, or say the same thing again.
const SAFE: [&str; 14] = [
    "initialize",
    "server/discover",
    "ping",
    "tools/list",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
    "logging/setLevel",
    LISTEN,
];

/// The request that stays open.
pub(crate) const LISTEN: &str = "subscriptions/listen";

/// A request under way.
pub(crate) struct Exchange<'a> {
    link: &'a Link,
    ask: Ask,
    /// A stream that is to last, not an answer to wait for.
    lasting: bool,
    method: String,
    events: Option<Events>,
    tries: u32,
    /// The session that the answer opened.
    pub(crate) session: Option<String>,
    /// How often it was begun again.
    pub(crate) resumed: u32,
}

/// What came.
pub(crate) enum Came {
    /// A notification, or a request of the server.
    Said(Message),
    /// The response.
    Answered(Message),
    /// There is none: a notification or a response was taken in.
    Accepted,
    /// The stream was ended without a response, as it may be once its request was cancelled.
    Ended,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The gateway refused it.
    Refused(Refused),
    /// No node took it.
    NotSent(String),
    /// It may have been done.
    Lost(String),
}

impl Ask {
    /// A message to post, with the headers that a session, or the modern era, wants.
    pub(crate) fn post(message: &Message, session: HeaderMap, mirrored: Option<&MirroredParams>) -> Ask {
        let headers = if message.names_protocol_version() {
            modern_headers(message, mirrored)
        } else {
            session
        };
        let repeatable = match message.kind() {
            Kind::Request => message.method().is_some_and(|method| SAFE.contains(&method)),
            // A doubled notification tells nothing new, and a doubled response finds nobody who waits.
            Kind::Notification | Kind::Response => true,
        };
        Ask {
            method: Method::POST,
            body: message.bytes().clone(),
            headers,
            repeatable,
        }
    }

    /// The stream of a session.
    pub(crate) fn listen(session: HeaderMap) -> Ask {
        Ask {
            method: Method::GET,
            body: Bytes::new(),
            headers: session,
            repeatable: true,
        }
    }

    /// The end of a session.
    pub(crate) fn end(session: HeaderMap) -> Ask {
        Ask {
            method: Method::DELETE,
            ..Ask::listen(session)
        }
    }
}

/// The headers of a modern request repeat what its body says.
fn modern_headers(message: &Message, mirrored: Option<&MirroredParams>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let method = message.method().unwrap_or_default();
    if let Some(version) = message.meta_version() {
        headers.insert(PROTOCOL_VERSION, encode_value(version));
    }
    headers.insert(METHOD, encode_value(method));
    let name = match method {
        "tools/call" | "prompts/get" => message.name(),
        "resources/read" => message.uri(),
        _ => None,
    };
    if let Some(name) = name {
        headers.insert(NAME, encode_value(name));
    }
    for (name, value) in mirrored.map(|m| m.build(message.arguments())).unwrap_or_default() {
        headers.insert(name, value);
    }
    headers
}

impl<'a> Exchange<'a> {
    /// A request to be sent.
    pub(crate) fn new(link: &'a Link, ask: Ask, message: &Message) -> Exchange<'a> {
        let method = message.method().unwrap_or_default().to_owned();
        Exchange {
            link,
            ask,
            lasting: method == LISTEN,
            method,
            events: None,
            tries: 0,
            session: None,
            resumed: 0,
        }
    }

    /// What comes next.
    pub(crate) async fn next(&mut self) -> Result<Came, Failed> {
        loop {
            let Some(events) = &mut self.events else {
                if let Some(came) = self.begin().await? {
                    return Ok(came);
                }
                continue;
            };
            match events.next().await {
                Ok(Some(message)) if message.kind() == Kind::Response => return Ok(Came::Answered(message)),
                Ok(Some(message)) => return Ok(Came::Said(message)),
                Ok(None) if !self.lasting && !self.ask.repeatable => return Ok(Came::Ended),
                Ok(None) => self.resume("the stream ended").await?,
                Err(why) => {
                    events.doubt();
                    self.resume(&why).await?;
                }
            }
        }
    }

    async fn begin(&mut self) -> Result<Option<Came>, Failed> {
        let answer = self.link.send(&self.ask).await.map_err(|unanswered| match unanswered {
            Unanswered::NotSent(why) => Failed::NotSent(why),
            Unanswered::Lost(why) => Failed::Lost(why),
        })?;
        match answer {
            Answer::Message(message, session) => {
                self.session = session;
                Ok(Some(Came::Answered(message)))
            }
            Answer::Events(events, session) => {
                self.session = session;
                self.events = Some(events);
                Ok(None)
            }
            Answer::Accepted => Ok(Some(Came::Accepted)),
            Answer::Refused(refused) => Err(Failed::Refused(refused)),
        }
    }

    /// Begins again, if that is no harm.
    async fn resume(&mut self, why: &str) -> Result<(), Failed> {
        let Some(events) = self.events.take() else {
            return Ok(());
        };
        let why = format!("{}: {why}", events.url());
        if !self.ask.repeatable {
            return Err(Failed::Lost(why));
        }
        self.resumed += 1;
        if self.lasting {
            tokio::time::sleep(RESUME_PAUSE).await;
            return Ok(());
        }
        self.tries += 1;
        match self.tries {
            TRIES_MAX.. => Err(Failed::NotSent(why)),
            _ => Ok(()),
        }
    }

    /// The name of what was asked, for people.
    pub(crate) fn method(&self) -> &str {
        &self.method
    }
}

impl Failed {
    /// The JSON-RPC error that says it.
    pub(crate) fn refusal(&self, method: &str) -> Refusal {
        match self {
            Failed::Refused(refused) => {
                let (code, message, data) = refused.error.clone().unwrap_or_else(|| {
                    let code = match refused.status {
                        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => NOT_ALLOWED,
                        _ => INTERNAL_ERROR,
                    };
                    let message = format!("{} answered with HTTP status {}", refused.url, refused.status.as_u16());
                    (code, message, None)
                });
                let mut data = data.filter(serde_json::Value::is_object).unwrap_or_else(|| json!({}));
                data["httpStatus"] = refused.status.as_u16().into();
                if let Some(after) = &refused.retry_after {
                    data["retryAfter"] = after.as_str().into();
                }
                Refusal::inside(code, message).with_data(data)
            }
            Failed::NotSent(why) => {
                let message = format!("no node of the gateway can take {method}: {why}; the request had no effect");
                Refusal::inside(UPSTREAM_FAILED, message).with_data(json!({"cause": why, "effect": "none"}))
            }
            Failed::Lost(why) => {
                let message = format!(
                    "the node was lost while {method} was under way: {why}; it may have had an effect, so it was not repeated"
                );
                Refusal::inside(UPSTREAM_FAILED, message).with_data(json!({"cause": why, "effect": "possible"}))
            }
        }
    }

    /// Whether the token is what was refused.
    pub(crate) fn is_about_the_token(&self) -> bool {
        matches!(self, Failed::Refused(refused)
            if matches!(refused.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN))
    }
}
