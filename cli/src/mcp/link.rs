//! HTTP to the gateways of a cluster: one request goes to the node that answered last, and to the next one when that is known
//! to have done nothing with it, or when doing it twice is no harm.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mcp_wire::headers::SESSION_ID;
use mcp_wire::limits;
use mcp_wire::message::Message;
use mcp_wire::sse::SseReader;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, redirect};

use crate::api::{chain, is_loopback};
use crate::clock;
use crate::failure::Failure;
use crate::mcp::endpoints::{Endpoint, Endpoints};
use crate::mcp::say;

/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(3);
/// Longest wait for a sign of life.
const LIFE_WAIT: Duration = Duration::from_millis(1_500);
/// A node that answered this recently is not asked for a sign of life first, ms.
const FRESH_MS: u64 = 2_000;
/// After this much silence a node is asked whether it lives: gateways send a comment on quiet streams more often than that.
const QUIET: Duration = Duration::from_secs(20);
/// How long a request goes round the nodes while none of them can take it, ms: longer than a failover.
const ROUNDS_MS: u64 = 10_000;
/// Pause between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(250);

/// The gateways of a cluster, as one bearer.
pub(crate) struct Link {
    endpoints: Endpoints,
    nodes: Mutex<Vec<Arc<Node>>>,
    /// The node that answered last.
    at: AtomicUsize,
    bearer: HeaderValue,
}

struct Node {
    endpoint: Endpoint,
    http: Client,
    /// When it last answered, in steady ms; 0: never.
    answered_ms: AtomicU64,
}

/// A request, the same for every node.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) body: Bytes,
    pub(crate) headers: HeaderMap,
    /// Whether doing it twice is no harm.
    pub(crate) repeatable: bool,
}

/// What a gateway answered.
pub(crate) enum Answer {
    /// One message, and the session that it opened, if it did.
    Message(Message, Option<String>),
    /// Messages, one after the other.
    Events(Events, Option<String>),
    /// Taken in; there is nothing to say.
    Accepted,
    /// Refused before anything was done.
    Refused(Refused),
}

/// An HTTP status that is no success.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) url: String,
    /// Code, message and data of the JSON-RPC error in the body, if there is one.
    pub(crate) error: Option<(i32, String, Option<serde_json::Value>)>,
    pub(crate) retry_after: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// No node took it.
    NotSent(String),
    /// A node took it and is gone: it may have been done.
    Lost(String),
}

/// Why one node gave no answer.
enum Miss {
    /// It was not reached, or cannot do anything now.
    Unable(String),
    /// It was reached and said nothing that counts.
    Lost(String),
}

/// An event stream of a gateway.
pub(crate) struct Events {
    node: Arc<Node>,
    response: Response,
    reader: SseReader,
}

impl Link {
    /// The gateways that `endpoints` knows.
    pub(crate) fn new(endpoints: Endpoints, bearer: &str) -> Result<Link, Failure> {
        let mut header = HeaderValue::from_str(&format!("Bearer {bearer}")).map_err(|_| {
            Failure::usage("cannot use the token", "it holds characters that no header can carry")
                .next("export MCPCTL_TOKEN=mcpctl_pat_...")
        })?;
        header.set_sensitive(true);
        let nodes = endpoints.list.iter().map(|e| Node::new(e.clone(), &endpoints));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        Ok(Link {
            endpoints,
            nodes: Mutex::new(nodes),
            at: AtomicUsize::new(0),
            bearer: header,
        })
    }

    /// Where the nodes are, for people.
    pub(crate) fn shown(&self) -> String {
        let urls: Vec<String> = self.nodes().iter().map(|node| node.endpoint.url.clone()).collect();
        urls.join(", ")
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a request to the first node that can take it.
    pub(crate) async fn send(&self, ask: &Ask) -> Result<Answer, Unanswered> {
        let until_ms = clock::steady_ms() + ROUNDS_MS;
        loop {
            let nodes = self.nodes();
            let first = self.at.load(Ordering::Relaxed) % nodes.len();
            let mut misses = Vec::new();
            for at in (first..nodes.len()).chain(0..first) {
                let node = &nodes[at];
                let others = nodes.len() > 1;
                match self.try_node(node, ask, others).await {
                    Ok(answer) => {
                        if self.at.swap(at, Ordering::Relaxed) != at {
                            say(&format!("going on with {}", node.endpoint.url));
                        }
                        node.answered_ms.store(clock::steady_ms(), Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Err(Miss::Lost(why)) if !ask.repeatable => {
                        node.answered_ms.store(0, Ordering::Relaxed);
                        return Err(Unanswered::Lost(format!("{}: {why}", node.endpoint.url)));
                    }
                    Err(Miss::Unable(why) | Miss::Lost(why)) => {
                        node.answered_ms.store(0, Ordering::Relaxed);
                        misses.push(format!("{}: {why}", node.endpoint.url));
                    }
                }
            }
            if clock::steady_ms() >= until_ms {
                return Err(Unanswered::NotSent(misses.join("; ")));
            }
            tokio::time::sleep(ROUND_PAUSE).await;
            self.look_around().await;
        }
    }

    /// Asks the cluster once more which nodes it has, when none of the known ones answered.
    async fn look_around(&self) {
        let Some(list) = self.endpoints.again().await else {
            return;
        };
        let known = self.nodes();
        let node = |endpoint: Endpoint| {
            let same = known.iter().find(|node| node.endpoint == endpoint).cloned();
            same.map_or_else(|| Node::new(endpoint, &self.endpoints).ok(), Some)
        };
        let nodes: Vec<Arc<Node>> = list.into_iter().filter_map(node).collect();
        if !nodes.is_empty() {
            *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
        }
    }

    async fn try_node(&self, node: &Arc<Node>, ask: &Ask, others: bool) -> Result<Answer, Miss> {
        // A node that is frozen takes connections and never answers: find out before anything is asked of it.
        let stale = clock::steady_ms().saturating_sub(node.answered_ms.load(Ordering::Relaxed)) > FRESH_MS;
        if others && stale {
            node.lives().await.map_err(Miss::Unable)?;
        }
        let mut request = node
            .http
            .request(ask.method.clone(), &node.endpoint.url)
            .headers(ask.headers.clone())
            .header(AUTHORIZATION, self.bearer.clone());
        request = match ask.method == Method::POST {
            true => request
                .header(CONTENT_TYPE, "application/json")
                .header(ACCEPT, "application/json, text/event-stream")
                .body(ask.body.clone()),
            false => request.header(ACCEPT, "text/event-stream"),
        };
        let sent = node.while_it_lives(request.send()).await.map_err(Miss::Lost)?;
        let response = sent.map_err(|error| match error.is_connect() {
            true => Miss::Unable(chain(&error)),
            false => Miss::Lost(chain(&error)),
        })?;
        read(node, response).await
    }
}

/// What the status and the headers of a response make of it.
async fn read(node: &Arc<Node>, mut response: Response) -> Result<Answer, Miss> {
    let status = response.status();
    let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let (session, kind) = (header(SESSION_ID.as_str()), header("content-type").unwrap_or_default());
    if status.is_success() && kind.starts_with("text/event-stream") {
        let reader = SseReader::new(limits::ANSWER_BYTES_MAX);
        let node = node.clone();
        return Ok(Answer::Events(Events { node, response, reader }, session));
    }
    let retry_after = header("retry-after");
    let mut body = Vec::new();
    loop {
        let chunk = node.while_it_lives(response.chunk()).await.map_err(Miss::Lost)?;
        match chunk.map_err(|error| Miss::Lost(chain(&error)))? {
            Some(chunk) if body.len() + chunk.len() <= limits::ANSWER_BYTES_MAX => body.extend_from_slice(&chunk),
            Some(_) => return Err(Miss::Lost("the answer is too long".to_owned())),
            None => break,
        }
    }
    if status.is_success() {
        if body.is_empty() {
            return Ok(Answer::Accepted);
        }
        let message = Message::read(body.into());
        let message = message.map_err(|error| Miss::Lost(format!("unusable answer: {error}")))?;
        return Ok(Answer::Message(message, session));
    }
    let refused = Refused {
        status,
        url: node.endpoint.url.clone(),
        error: json_rpc_error(&body),
        retry_after,
    };
    match status {
        StatusCode::SERVICE_UNAVAILABLE if refused.may_have_had_an_effect() => Err(Miss::Lost(refused.shown())),
        StatusCode::SERVICE_UNAVAILABLE => Err(Miss::Unable(refused.shown())),
        // Somebody in between did not hear from the gateway.
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Err(Miss::Lost(refused.shown())),
        _ => Ok(Answer::Refused(refused)),
    }
}

/// Code, message and data of a JSON-RPC error.
pub(crate) fn json_rpc_error(body: &[u8]) -> Option<(i32, String, Option<serde_json::Value>)> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let error = body.get("error")?;
    let code = i32::try_from(error.get("code")?.as_i64()?).ok()?;
    let message = error.get("message")?.as_str()?.to_owned();
    Some((code, message, error.get("data").cloned()))
}

impl Refused {
    fn may_have_had_an_effect(&self) -> bool {
        let data = self.error.as_ref().and_then(|(_, _, data)| data.as_ref());
        data.is_some_and(|data| data["effect"] == "possible")
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        match &self.error {
            Some((_, message, _)) => format!("HTTP status {}: {message}", self.status.as_u16()),
            None => format!("HTTP status {}", self.status.as_u16()),
        }
    }
}

impl Node {
    fn new(endpoint: Endpoint, endpoints: &Endpoints) -> Result<Arc<Node>, Failure> {
        let builder = Client::builder()
            .user_agent(concat!("mcpctl/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_WAIT)
            .redirect(redirect::Policy::none())
            .tcp_nodelay(true)
            .tls_backend_preconfigured(endpoints.tls.as_ref().clone());
        let builder = match is_loopback(&endpoint.url) {
            true => builder.no_proxy(),
            false => builder,
        };
        let http = builder
            .build()
            .map_err(|error| Failure::new("cannot set up HTTP", chain(&error)).next(crate::api::SEE_CONFIG))?;
        Ok(Arc::new(Node {
            endpoint,
            http,
            answered_ms: AtomicU64::new(0),
        }))
    }

    /// Whether anything answers there, whatever it says.
    async fn lives(&self) -> Result<(), String> {
        let asked = self.http.get(&self.endpoint.life_url).timeout(LIFE_WAIT).send().await;
        asked.map(drop).map_err(|error| chain(&error))
    }

    /// Waits for as long as the node shows that it lives.
    async fn while_it_lives<T>(&self, waited_for: impl Future<Output = T>) -> Result<T, String> {
        let mut waited_for = std::pin::pin!(waited_for);
        loop {
            match tokio::time::timeout(QUIET, &mut waited_for).await {
                Ok(came) => return Ok(came),
                Err(_) => self.lives().await?,
            }
        }
    }
}

impl Events {
    /// The next message; none when the stream has ended. An error says why nothing more comes.
    pub(crate) async fn next(&mut self) -> Result<Option<Message>, String> {
        loop {
            while let Some(event) = self.reader.next_event().map_err(|error| error.to_string())? {
                if event.name == "message" && !event.data.is_empty() {
                    let message = Message::read(event.data);
                    return message.map(Some).map_err(|error| format!("unusable event: {error}"));
                }
            }
            let chunk = self.node.while_it_lives(self.response.chunk()).await?;
            match chunk.map_err(|error| chain(&error))? {
                Some(chunk) => self.reader.push(&chunk),
                None => return Ok(None),
            }
        }
    }

    /// Where it comes from.
    pub(crate) fn url(&self) -> &str {
        &self.node.endpoint.url
    }

    /// The node of this stream is not to be trusted until it has shown that it lives.
    pub(crate) fn doubt(&self) {
        self.node.answered_ms.store(0, Ordering::Relaxed);
    }
}
