//! `mcpctl call`: one tool, once. One request without a session, so there is nothing to open before it and nothing to leave behind.

use std::io::Read;
use std::time::Duration;

use mcp_wire::message::{META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_PROTOCOL_VERSION, Message};
use mcp_wire::mirrored::MirroredParams;
use mcp_wire::refusal::{HEADER_MISMATCH, INVALID_PARAMS, NOT_ALLOWED};
use mcp_wire::version::NEWEST_MODERN;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::args::{CallArgs, CallOutput, Global};
use crate::failure::{Exit, Failure};
use crate::mcp::endpoints::Endpoints;
use crate::mcp::exchange::{Came, Exchange, Failed};
use crate::mcp::link::{Ask, Link, json_rpc_error};
use crate::mcp::{say, token};
use crate::{out, show};

pub(crate) async fn call(global: &Global, args: &CallArgs) -> Result<Exit, Failure> {
    let arguments = arguments(&args.args)?;
    let token = token(&args.gateway)?;
    let endpoints = Endpoints::of(global, &args.gateway, &token).await?;
    let link = Link::new(endpoints, &token)?;
    let calling = Calling { link, tool: &args.tool };
    let limit = Duration::from_secs(args.timeout);
    let called = tokio::time::timeout(limit, Box::pin(calling.run(arguments))).await;
    let result = called.unwrap_or_else(|_| {
        let why = format!("no result within {} s; the call may have had an effect", args.timeout);
        Err(calling
            .failure(why)
            .next("--timeout SECONDS gives it longer")
            .with_exit(Exit::TimedOut))
    })?;
    match args.output {
        CallOutput::Json => show::json(&result)?,
        CallOutput::Text => print(&result),
    }
    if result["isError"] == true {
        let why = "it says so itself; what it answered stands on standard output";
        return Err(Failure::new(format!("tool {:?} failed", args.tool), why)
            .next("mcpctl get tools (do the arguments fit what it asks for, and is its server healthy?)"));
    }
    Ok(Exit::Done)
}

fn arguments(text: &str) -> Result<Value, Failure> {
    let mut read = String::new();
    let text = match text {
        "-" => {
            let got = std::io::stdin().take(64 << 20).read_to_string(&mut read);
            got.map_err(|error| {
                Failure::usage("cannot read the arguments from standard input", error.to_string())
                    .next("echo '{}' | mcpctl call TOOL --args -")
            })?;
            read.as_str()
        }
        text => text,
    };
    let wrong =
        |why: String| Failure::usage("cannot use --args", why).next("mcpctl call TOOL --args '{\"name\":\"value\"}'");
    match serde_json::from_str::<Value>(text) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err(wrong("it is JSON, but not an object".to_owned())),
        Err(error) => Err(wrong(format!("it is not JSON: {error}"))),
    }
}

struct Calling<'a> {
    link: Link,
    tool: &'a str,
}

impl Calling<'_> {
    async fn run(&self, arguments: Value) -> Result<Value, Failure> {
        let meta = |progress: bool| {
            let mut meta = json!({
                META_PROTOCOL_VERSION: NEWEST_MODERN.as_str(),
                META_CLIENT_CAPABILITIES: {},
                META_CLIENT_INFO: {"name": "mcpctl", "version": env!("CARGO_PKG_VERSION")},
            });
            if progress {
                meta["progressToken"] = "call".into();
            }
            meta
        };
        let params = json!({"name": self.tool, "arguments": arguments, "_meta": meta(true)}).to_string();
        let call = Message::request(1, "tools/call", &params);
        let answer = match self.exchange(&call, None).await {
            // What it repeats in headers, only the list of tools says.
            Err(Failed::Refused(refused)) if matches!(refused.error, Some((HEADER_MISMATCH, ..))) => {
                let list = Message::request(0, "tools/list", &json!({"_meta": meta(false)}).to_string());
                let tools = self
                    .exchange(&list, None)
                    .await
                    .map_err(|failed| self.refused(&failed))?;
                let mirrored = mirrored(&tools, self.tool);
                self.exchange(&call, mirrored.as_ref()).await
            }
            answer => answer,
        };
        let response = answer.map_err(|failed| self.refused(&failed))?;
        if let Some((code, message, data)) = json_rpc_error(response.bytes()) {
            return Err(self.error(code, &message, data.as_ref()));
        }
        let result = response
            .result()
            .and_then(|raw| serde_json::from_str::<Value>(raw).ok());
        let result = result.ok_or_else(|| {
            self.failure("the answer holds no result".to_owned())
                .next("mcpctl test mcp URL")
        })?;
        if result["resultType"] == "input_required" {
            let why = "the tool asks for input, and nobody is there to give it".to_owned();
            return Err(self
                .failure(why)
                .next("call it from a client that can ask people, see: mcpctl connect"));
        }
        Ok(result)
    }

    async fn exchange(&self, message: &Message, mirrored: Option<&MirroredParams>) -> Result<Message, Failed> {
        let mut exchange = Exchange::new(&self.link, Ask::post(message, HeaderMap::new(), mirrored), message);
        loop {
            match exchange.next().await? {
                Came::Said(said) => report(&said),
                Came::Answered(response) => return Ok(response),
                Came::Accepted | Came::Ended => {
                    return Err(Failed::Lost("its stream ended without a response".to_owned()));
                }
            }
        }
    }

    fn failure(&self, why: String) -> crate::failure::Unfinished {
        Failure::new(format!("cannot call {:?}", self.tool), why)
    }

    /// There was no answer inside MCP.
    fn refused(&self, failed: &Failed) -> Failure {
        let refusal = failed.refusal("tools/call");
        match failed {
            Failed::Refused(_) if failed.is_about_the_token() => self
                .failure(refusal.message)
                .next("mcpctl get mcptokens (is it for this project, and active?), and then set MCPCTL_TOKEN")
                .with_exit(Exit::NotAllowed),
            Failed::Refused(_) => self.error(refusal.code, &refusal.message, refusal.data.as_deref()),
            Failed::NotSent(_) => self
                .failure(refusal.message)
                .next("mcpctl cluster status (or run the command again in a moment)")
                .with_exit(Exit::NoLeader),
            Failed::Lost(_) => self
                .failure(refusal.message)
                .next("find out whether it was done, before you run the command again")
                .with_exit(Exit::Uncertain),
        }
    }

    /// The answer is an error.
    fn error(&self, code: i32, message: &str, data: Option<&Value>) -> Failure {
        let failure = self.failure(message.to_owned());
        let possible = data.is_some_and(|data| data["effect"] == "possible");
        match code {
            INVALID_PARAMS if message.starts_with("Unknown tool") => failure
                .next("mcpctl test mcp URL lists the tools")
                .with_exit(Exit::NotFound),
            NOT_ALLOWED => failure
                .next("mcpctl describe mcptoken NAME -p PROJECT")
                .with_exit(Exit::NotAllowed),
            _ if possible => failure
                .next("find out whether it was done, before you run the command again")
                .with_exit(Exit::Uncertain),
            _ => failure.next("mcpctl get servers, or: mcpctl test mcp URL"),
        }
    }
}

fn mirrored(list: &Message, tool: &str) -> Option<MirroredParams> {
    let result: Value = serde_json::from_str(list.result()?).ok()?;
    let found = result["tools"].as_array()?.iter().find(|entry| entry["name"] == tool)?;
    MirroredParams::compile(&found["inputSchema"]).ok()
}

/// What a tool says on its way goes to people.
fn report(said: &Message) {
    if let Some(text) = told(said) {
        say(&text);
    }
}

/// For the fuzzer: a message as what a gateway sends while a tool is called, and as the list of tools.
pub(crate) fn decode(message: &Message) {
    let _told = told(message);
    let _mirrored = mirrored(message, "tool");
}

fn told(said: &Message) -> Option<String> {
    let params = said.params().and_then(|raw| serde_json::from_str::<Value>(raw).ok());
    let params = params.unwrap_or_default();
    match said.method() {
        Some("notifications/progress") => {
            let total = params.get("total").map(|total| format!("/{total}")).unwrap_or_default();
            let message = params["message"].as_str().map(|m| format!(" {m}")).unwrap_or_default();
            Some(format!("{}{total}{message}", params["progress"]))
        }
        Some("notifications/message") => {
            let data = &params["data"];
            let text = data.as_str().map_or_else(|| data.to_string(), str::to_owned);
            Some(format!("{}: {text}", params["level"].as_str().unwrap_or("info")))
        }
        _ => None,
    }
}

/// The texts of a result; of what is no text, what it is.
fn print(result: &Value) {
    let content = result["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    for item in content {
        let text = item["text"].as_str().or_else(|| item["resource"]["text"].as_str());
        match text {
            Some(text) => out::line(&shown(text)),
            None => {
                let kind = item["type"].as_str().unwrap_or("content");
                let mime = item["mimeType"].as_str().unwrap_or_default();
                say(&format!("{kind} {mime}: not text; -o json shows it"));
            }
        }
    }
    if content.is_empty()
        && let Some(structured) = result.get("structuredContent")
    {
        out::line(&structured.to_string());
    }
}

/// A text whose lines stay lines and whose other control characters reach no terminal; files and pipes get it as it is.
fn shown(text: &str) -> String {
    use std::io::IsTerminal;
    if !std::io::stdout().is_terminal() {
        return text.to_owned();
    }
    text.lines()
        .map(|line| show::printable(line).to_string())
        .collect::<Vec<_>>()
        .join("\n")
}
