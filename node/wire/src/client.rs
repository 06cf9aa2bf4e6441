//! An MCP client for the command line: opens a legacy session over streamable HTTP with a bearer, lists tools, calls
//! one. Its errors are sorted by what the reader of `test mcp` has to know: could the server be reached, did it take
//! the token, did it keep the contract.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use ::http::{Method, Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use rustls::ClientConfig;
use serde_json::Value;

use crate::limits;
use crate::message::Message;
use crate::pool::{Pool, Target};
use crate::reach::Reach;
use crate::upstream::{CallLimits, Cause, Frame, HttpConfig, HttpPool, Outgoing, Upstream, UpstreamError};

/// Why a client call failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// The server could not be reached, or did not answer in time.
    #[error("{0}")]
    Transport(String),
    /// The server refused the bearer: 401 or 403.
    #[error("HTTP status {status}: {detail}")]
    Auth {
        /// The status.
        status: u16,
        /// What it means.
        detail: &'static str,
    },
    /// The server answered, but not as MCP says; or it answered a request with an error.
    #[error("{0}")]
    Contract(String),
}

/// What `initialize` answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Greeting {
    /// The revision both speak.
    pub protocol_version: &'static str,
    /// Name and version of the server.
    pub server_info: Value,
    /// Its instructions for the model.
    pub instructions: Option<String>,
}

/// A tool as it was listed.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its description, if it has one.
    pub description: Option<String>,
    /// The whole entry.
    pub entry: Value,
}

/// What a tool call gave back.
#[derive(Debug, Clone, PartialEq)]
pub struct Called {
    /// Whether the tool itself says that it failed.
    pub is_error: bool,
    /// The whole result.
    pub result: Value,
    /// Notifications that came before it, in order.
    pub notifications: Vec<Value>,
}

/// An MCP client.
pub struct Client {
    upstream: Upstream,
}

impl Client {
    /// A client of the MCP endpoint `url`. Every wait is at most `timeout_ms`.
    pub fn new(tls: Arc<ClientConfig>, url: &str, bearer: &str, timeout_ms: u64) -> Result<Client, ClientError> {
        let url = parse_url(url)?;
        let mut headers = HeaderMap::new();
        if !bearer.is_empty() {
            let mut value = HeaderValue::try_from(format!("Bearer {bearer}"))
                .map_err(|_| ClientError::Transport("the token holds characters that no header can carry".into()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let limits = CallLimits {
            first_byte_ms: None,
            idle_ms: timeout_ms,
            total_ms: timeout_ms,
            handshake_ms: timeout_ms,
            answer_bytes_max: limits::ANSWER_BYTES_MAX,
        };
        Ok(Client {
            // Whoever types at a command line is not asked by servers.
            upstream: Upstream::http(
                &HttpPool::new(tls, Reach::anywhere()),
                HttpConfig { url, headers, limits },
            )
            .on_its_own(),
        })
    }

    /// Opens the session.
    pub async fn initialize(&self) -> Result<Greeting, ClientError> {
        let opened = self.upstream.open().await.map_err(sort)?;
        Ok(Greeting {
            protocol_version: opened.revision.as_str(),
            server_info: opened.server_info.clone(),
            instructions: opened.instructions.clone(),
        })
    }

    /// All tools, every page.
    pub async fn tools(&self) -> Result<Vec<Tool>, ClientError> {
        let mut tools = Vec::new();
        let mut params = "{}".to_owned();
        for _ in 0..limits::LIST_PAGES_MAX {
            let response = self.upstream.request("tools/list", &params).await.map_err(sort)?;
            let page: Value = parse(response.result().unwrap_or_default())?;
            let entries = page["tools"]
                .as_array()
                .ok_or_else(|| contract("tools/list: no \"tools\" in the result"))?;
            for entry in entries {
                let name = entry["name"]
                    .as_str()
                    .ok_or_else(|| contract("tools/list: a tool without a name"))?;
                let description = entry["description"].as_str().map(str::to_owned);
                tools.push(Tool {
                    name: name.to_owned(),
                    description,
                    entry: entry.clone(),
                });
            }
            match page["nextCursor"].as_str() {
                Some(cursor) => params = serde_json::json!({ "cursor": cursor }).to_string(),
                None => return Ok(tools),
            }
        }
        Err(contract("tools/list: too many pages"))
    }

    /// Calls a tool and collects what comes.
    pub async fn call(&self, tool: &str, arguments: &Value) -> Result<Called, ClientError> {
        let params = serde_json::json!({
            "name": tool, "arguments": arguments, "_meta": { "progressToken": "mcpctl" },
        });
        let message = Message::request(0, "tools/call", &params.to_string());
        let mut frames = self.upstream.call(Outgoing::new(&message)).await.map_err(sort)?;
        let mut notifications = Vec::new();
        while let Some(frame) = frames.next().await.map_err(sort)? {
            match frame {
                Frame::Notification(bytes) => notifications.push(parse(&String::from_utf8_lossy(&bytes))?),
                Frame::Response { bytes, .. } => {
                    let response: Value = parse(&String::from_utf8_lossy(&bytes))?;
                    if let Some(error) = response.get("error") {
                        return Err(contract(&format!("tools/call {tool}: {error}")));
                    }
                    let result = response["result"].clone();
                    let is_error = result["isError"].as_bool().unwrap_or(false);
                    return Ok(Called {
                        is_error,
                        result,
                        notifications,
                    });
                }
                Frame::Request(asked) => frames.refuse(&asked),
                Frame::Withdrawn(_) => {}
            }
        }
        Err(contract("tools/call: no response"))
    }

    /// Ends the session at the server.
    pub async fn close(&self) {
        self.upstream.close().await;
    }
}

/// GETs `url` and gives back the status and at most 64 KiB of the body: the health preflight of `test mcp`.
pub async fn get(tls: Arc<ClientConfig>, url: &str, timeout_ms: u64) -> Result<(StatusCode, Bytes), ClientError> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.method_mut() = Method::GET;
    let target = parse_url(url)?;
    let target = Target::of(&target)
        .ok_or_else(|| ClientError::Transport(format!("\"{url}\" is not a URL: its host cannot be asked for")))?;
    let pool = Pool::new(tls, Reach::anywhere());
    let exchange = async {
        let answer = pool
            .request(&target, request, Duration::from_millis(timeout_ms))
            .await
            .map_err(|error| transport(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), 64 << 10).collect().await;
        let body = body
            .map_err(|error| ClientError::Transport(error.to_string()))?
            .to_bytes();
        Ok((status, body))
    };
    tokio::time::timeout(Duration::from_millis(timeout_ms), exchange)
        .await
        .unwrap_or_else(|_| Err(ClientError::Transport(format!("no answer within {timeout_ms} ms"))))
}

fn parse_url(url: &str) -> Result<Uri, ClientError> {
    let wrong = |why: &str| ClientError::Transport(format!("\"{url}\" is not a URL: {why}"));
    let uri: Uri = url.parse().map_err(|_| wrong("it cannot be parsed"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        (_, _) => Err(wrong("it must begin with http:// or https://")),
    }
}

fn parse(text: &str) -> Result<Value, ClientError> {
    serde_json::from_str(text).map_err(|error| contract(&format!("unusable answer: {error}")))
}

fn contract(why: &str) -> ClientError {
    ClientError::Contract(why.to_owned())
}

fn transport(error: &dyn std::error::Error) -> ClientError {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    ClientError::Transport(format!("{error}: {innermost}"))
}

fn sort(error: UpstreamError) -> ClientError {
    match error.cause {
        Cause::Status(status @ 401) => ClientError::Auth {
            status,
            detail: "the token is unknown, expired or revoked",
        },
        Cause::Status(status @ 403) => ClientError::Auth {
            status,
            detail: "the token may not use this endpoint",
        },
        Cause::Connect(_) | Cause::Down(_) | Cause::Deadline(_) | Cause::Closed(_) | Cause::Status(_) => {
            ClientError::Transport(error.cause.to_string())
        }
        Cause::Busy(_)
        | Cause::Resting(_)
        | Cause::Rubbish(_)
        | Cause::TooMuch(_)
        | Cause::SessionGone
        | Cause::Handshake(_)
        | Cause::Refused(_)
        | Cause::Unsupported(_)
        | Cause::Held(_) => ClientError::Contract(error.cause.to_string()),
    }
}
