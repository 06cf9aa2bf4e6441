//! The demo MCP server that `mcpnode dev` puts behind the gateway: a child process that speaks MCP over stdio, like any other.
//!
//! echo, add, time, a slow tool with progress, a resource and a prompt: enough to see every kind of answer pass.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_model::clock::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::clock::SystemClock;

const VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
const RESOURCE: &str = "demo://greeting";
/// Answers that wait for a reader of our standard output.
const QUEUE: usize = 256;
/// Most steps and longest step of the slow tool.
const STEPS_MAX: u64 = 100;
const STEP_MS_MAX: u64 = 10_000;

type Running = Arc<Mutex<HashMap<String, AbortHandle>>>;

/// Serves until standard input ends.
pub(crate) async fn run() -> anyhow::Result<()> {
    let (out, mut answers) = mpsc::channel::<Value>(QUEUE);
    let writer = tokio::spawn(async move {
        let mut stdout = tokio::io::stdout();
        while let Some(answer) = answers.recv().await {
            let line = format!("{answer}\n");
            if stdout.write_all(line.as_bytes()).await.is_err() || stdout.flush().await.is_err() {
                return;
            }
        }
    });
    let running = Running::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let Ok(message) = serde_json::from_str::<Value>(&line) else {
            out.send(failure(&Value::Null, -32700, "not JSON")).await?;
            continue;
        };
        receive(message, &out, &running).await;
    }
    drop(out);
    writer.await?;
    Ok(())
}

async fn receive(message: Value, out: &mpsc::Sender<Value>, running: &Running) {
    let method = message["method"].as_str().unwrap_or_default().to_owned();
    let Some(id) = message.get("id").cloned() else {
        if method == "notifications/cancelled" {
            cancel(&message["params"]["requestId"], running);
        }
        return;
    };
    if method.is_empty() {
        return;
    }
    if method == "tools/call" && message["params"]["name"] == "slow" {
        let task = tokio::spawn(slow(
            id.clone(),
            message["params"].clone(),
            out.clone(),
            Arc::clone(running),
        ));
        lock(running).insert(id.to_string(), task.abort_handle());
        return;
    }
    // The receiver is gone only when standard output is, and then nobody waits for this.
    out.send(answer(&id, &method, &message["params"])).await.unwrap_or(());
}

fn cancel(request: &Value, running: &Running) {
    if let Some(task) = lock(running).remove(&request.to_string()) {
        task.abort();
    }
}

fn lock(running: &Running) -> std::sync::MutexGuard<'_, HashMap<String, AbortHandle>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(id: &Value, method: &str, params: &Value) -> Value {
    let result = match method {
        "initialize" => Ok(hello(params)),
        "ping" => Ok(json!({})),
        "tools/list" => Ok(tools()),
        "tools/call" => call(params),
        "resources/list" => Ok(resources()),
        "resources/templates/list" => Ok(json!({ "resourceTemplates": [] })),
        "resources/read" => read(params),
        "prompts/list" => Ok(prompts()),
        "prompts/get" => prompt(params),
        _ => Err((-32601, format!("method {method:?} is not known here"))),
    };
    match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err((code, message)) => failure(id, code, &message),
    }
}

fn failure(id: &Value, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}

fn hello(params: &Value) -> Value {
    let asked = params["protocolVersion"].as_str().unwrap_or_default();
    let version = VERSIONS.iter().find(|v| **v == asked).unwrap_or(&VERSIONS[0]);
    json!({
        "protocolVersion": version,
        "capabilities": { "tools": {}, "resources": {}, "prompts": {} },
        "serverInfo": { "name": "mcpnode-demo", "title": "mcpnode demo", "version": env!("CARGO_PKG_VERSION") },
        "instructions": "A demo server: echo, add, time, and a slow tool that reports progress."
    })
}

fn object(properties: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required })
}

fn tools() -> Value {
    let number = json!({ "type": "number" });
    let text = json!({ "type": "string", "description": "What comes back" });
    let count = json!({ "type": "integer", "minimum": 1, "maximum": STEPS_MAX, "default": 5, "description": "Steps" });
    let wait = json!({ "type": "integer", "minimum": 0, "maximum": STEP_MS_MAX, "default": 200, "description": "Milliseconds per step" });
    json!({ "tools": [
        { "name": "echo", "description": "Gives a message back", "inputSchema": object(json!({ "message": text }), &["message"]) },
        { "name": "add", "description": "Adds two numbers", "inputSchema": object(json!({ "a": number, "b": number }), &["a", "b"]) },
        { "name": "time", "description": "The time of the node that runs this server, UTC", "inputSchema": object(json!({}), &[]) },
        { "name": "slow", "description": "Takes its time and reports progress", "inputSchema": object(json!({ "steps": count, "step_ms": wait }), &[]) },
    ] })
}

fn text(text: impl Into<String>) -> Value {
    json!({ "content": [{ "type": "text", "text": text.into() }] })
}

fn utc(wall_ms: u64) -> Option<String> {
    jiff::Timestamp::from_millisecond(i64::try_from(wall_ms).ok()?)
        .ok()
        .map(|t| t.to_string())
}

/// A tool's own failure: an answer that the model reads, not a protocol error.
fn tool_error(why: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": why }], "isError": true })
}

fn call(params: &Value) -> Result<Value, (i64, String)> {
    let arguments = &params["arguments"];
    match params["name"].as_str().unwrap_or_default() {
        "echo" => Ok(arguments["message"]
            .as_str()
            .map_or_else(|| tool_error("message must be a string"), text)),
        "add" => Ok(match (arguments["a"].as_f64(), arguments["b"].as_f64()) {
            (Some(a), Some(b)) => text((a + b).to_string()),
            _ => tool_error("a and b must be numbers"),
        }),
        "time" => Ok(utc(SystemClock.wall_ms()).map_or_else(|| tool_error("the clock is off"), text)),
        other => Err((-32602, format!("there is no tool {other:?}"))),
    }
}

async fn slow(id: Value, params: Value, out: mpsc::Sender<Value>, running: Running) {
    let arguments = &params["arguments"];
    let steps = arguments["steps"].as_u64().unwrap_or(5).clamp(1, STEPS_MAX);
    let step = Duration::from_millis(arguments["step_ms"].as_u64().unwrap_or(200).min(STEP_MS_MAX));
    let token = &params["_meta"]["progressToken"];
    for done in 1..=steps {
        tokio::time::sleep(step).await;
        if !token.is_null() {
            let progress = json!({ "progressToken": token, "progress": done, "total": steps, "message": format!("step {done} of {steps}") });
            let notification = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": progress });
            out.send(notification).await.unwrap_or(());
        }
    }
    lock(&running).remove(&id.to_string());
    let result = text(format!("{steps} steps done"));
    out.send(json!({ "jsonrpc": "2.0", "id": id, "result": result }))
        .await
        .unwrap_or(());
}

fn resources() -> Value {
    json!({ "resources": [{ "uri": RESOURCE, "name": "greeting", "description": "A greeting", "mimeType": "text/plain" }] })
}

fn read(params: &Value) -> Result<Value, (i64, String)> {
    if params["uri"] != RESOURCE {
        return Err((-32002, format!("there is no resource {}", params["uri"])));
    }
    Ok(json!({ "contents": [{ "uri": RESOURCE, "mimeType": "text/plain", "text": "Hello from behind the gateway." }] }))
}

fn prompts() -> Value {
    let argument = json!({ "name": "topic", "description": "About what", "required": true });
    json!({ "prompts": [{ "name": "explain", "description": "Asks for a short explanation", "arguments": [argument] }] })
}

fn prompt(params: &Value) -> Result<Value, (i64, String)> {
    if params["name"] != "explain" {
        return Err((-32602, format!("there is no prompt {}", params["name"])));
    }
    let Some(topic) = params["arguments"]["topic"].as_str() else {
        return Err((-32602, "the argument \"topic\" is missing".to_owned()));
    };
    let content = json!({ "type": "text", "text": format!("Explain {topic} in three sentences.") });
    Ok(json!({ "description": "A short explanation", "messages": [{ "role": "user", "content": content }] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_answer_and_say_what_is_wrong() {
        let call = |name: &str, arguments: Value| call(&json!({ "name": name, "arguments": arguments }));
        assert_eq!(
            call("echo", json!({ "message": "hi" })).unwrap()["content"][0]["text"],
            "hi"
        );
        assert_eq!(
            call("add", json!({ "a": 2, "b": 3.5 })).unwrap()["content"][0]["text"],
            "5.5"
        );
        assert_eq!(call("add", json!({ "a": "x" })).unwrap()["isError"], true);
        assert_eq!(call("nope", json!({})).unwrap_err().0, -32602);
    }
}
