//! A small MCP server over stdio, for tests. Argument: the mode it runs in (`legacy`, `modern`, `crash`, `mute`: it reads and says nothing,
//! `resources`: as `legacy`, and its resources can be watched; `counter`: as `legacy`, with other tools).

#![allow(
    clippy::unwrap_used,
    reason = "a peer that cannot go on ends, which is what tests see"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

/// The pause between two steps of progress.
const STEP: Duration = Duration::from_millis(2);

/// What calls leave behind for later ones to ask about.
#[derive(Default)]
struct Seen {
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Default)]
struct Said {
    cancelled: Vec<Value>,
    answers: Vec<Value>,
    counted: u64,
}

impl Seen {
    fn note(&self, note: impl FnOnce(&mut Said)) {
        note(&mut self.said.lock().unwrap());
        self.more.notify_all();
    }

    /// Waits for the answer to a request of ours.
    fn answer_to(&self, id: &Value) -> Value {
        let waits = |said: &mut Said| !said.answers.iter().any(|answer| answer["id"] == *id);
        let said = self.more.wait_while(self.said.lock().unwrap(), waits).unwrap();
        said.answers.iter().find(|answer| answer["id"] == *id).unwrap().clone()
    }
}

fn main() {
    let mode = std::env::args().nth(1).unwrap_or_else(|| "legacy".to_owned());
    let rest: Vec<String> = std::env::args().skip(2).collect();
    eprintln!("pid {}", std::process::id());
    eprintln!("starting in mode {mode} {}", rest.join(" "));
    if mode == "crash" {
        std::process::exit(1);
    }
    let seen = Arc::new(Seen::default());
    for line in std::io::stdin().lock().lines() {
        let message: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if mode == "mute" {
            continue;
        }
        receive(message, &mode, &seen);
    }
}

fn receive(message: Value, mode: &str, seen: &Arc<Seen>) {
    let modern = mode == "modern";
    let Some(method) = message["method"].as_str() else {
        seen.note(|said| said.answers.push(message));
        return;
    };
    let unknown = || error(&message, -32601, "Method not found");
    match (method, modern) {
        ("initialize", false) => result(
            &message,
            json!({
                "protocolVersion": "2025-06-18",
                "capabilities": match mode {
                    "resources" => json!({"tools": {}, "resources": {"subscribe": true}}),
                    _ => json!({"tools": {}, "prompts": {}}),
                },
                "serverInfo": {"name": "peer", "version": "1"},
            }),
        ),
        ("server/discover", true) => result(
            &message,
            json!({
                "resultType": "complete",
                "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}},
                "ttlMs": 0,
                "cacheScope": "public",
            }),
        ),
        ("initialize" | "server/discover", _) => unknown(),
        ("tools/list", _) if mode == "counter" => {
            let tools = ["count", "progress", "hang", "cancelled"]
                .map(|name| json!({"name": name, "inputSchema": {"type": "object"}}));
            result(&message, json!({"tools": tools}));
        }
        ("tools/list", _) if message["params"]["cursor"] == "2" => {
            let tools = ["progress", "env", "args", "consult"]
                .map(|name| json!({"name": name, "inputSchema": {"type": "object"}}));
            result(&message, json!({"tools": tools}));
        }
        ("tools/list", _) => {
            let tools = json!([{"name": "echo", "inputSchema": {"type": "object"}}]);
            result(&message, json!({"tools": tools, "nextCursor": "2"}));
        }
        ("notifications/cancelled", _) => {
            let id = message["params"]["requestId"].clone();
            seen.note(|said| said.cancelled.push(id));
        }
        ("tools/call", _) => {
            let seen = Arc::clone(seen);
            std::thread::spawn(move || call(&message, &seen));
        }
        ("resources/list", false) if mode == "resources" => {
            result(&message, json!({"resources": [{"uri": "note://1", "name": "note"}]}));
        }
        ("resources/subscribe" | "resources/unsubscribe", false) if mode == "resources" => result(&message, json!({})),
        ("ping", _) => result(&message, json!({})),
        _ if message.get("id").is_some() => unknown(),
        _ => {}
    }
}

fn call(request: &Value, seen: &Seen) {
    let params = &request["params"];
    match params["name"].as_str().unwrap_or_default() {
        "echo" => answer(request, params.to_string()),
        "progress" => progress(request),
        "hang" => {}
        "count" => {
            let mut said = seen.said.lock().unwrap();
            said.counted += 1;
            answer(request, format!("{} {}", std::process::id(), said.counted));
        }
        "die" => {
            eprintln!("going down");
            std::process::exit(3);
        }
        "cancelled" => answer(request, json!(seen.said.lock().unwrap().cancelled).to_string()),
        "answers" => answer(request, json!(seen.said.lock().unwrap().answers).to_string()),
        "rubbish" => {
            write("this is not JSON");
            answer(request, "after rubbish".to_owned());
        }
        "flood" => write(&"x".repeat(1 << 20)),
        "changed" => {
            send(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
            answer(request, "changed".to_owned());
        }
        "env" => answer(request, json!(std::env::vars().collect::<BTreeMap<_, _>>()).to_string()),
        "args" => answer(request, json!(std::env::args().collect::<Vec<_>>()).to_string()),
        "ask" => {
            send(&json!({"jsonrpc": "2.0", "id": "s1", "method": "sampling/createMessage", "params": {}}));
            send(&json!({"jsonrpc": "2.0", "id": "s2", "method": "ping"}));
            answer(request, "asked".to_owned());
        }
        // Asks the client what the arguments say, and answers with what came of it.
        "consult" => {
            let asks = params["arguments"]["asks"].as_array().cloned().unwrap_or_default();
            for ask in &asks {
                let mut asked = ask.clone();
                asked["jsonrpc"] = json!("2.0");
                send(&asked);
            }
            let owed = asks.iter().filter(|ask| ask.get("id").is_some());
            let answers: Vec<Value> = owed.map(|ask| seen.answer_to(&ask["id"])).collect();
            answer(request, json!(answers).to_string());
        }
        other => error(request, -32602, &format!("Unknown tool: {other}")),
    }
}

fn progress(request: &Value) {
    let token = &request["params"]["_meta"]["progressToken"];
    let (_never_sends, never) = mpsc::channel::<()>();
    for step in 0..20 {
        let message = json!({"level": "info", "data": step});
        send(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": message}));
        let progress = json!({"progressToken": token, "progress": step});
        send(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress}));
        // Nothing comes: this is the pause.
        assert!(never.recv_timeout(STEP).is_err());
    }
    answer(request, "done".to_owned());
}

fn answer(request: &Value, text: String) {
    result(request, json!({"content": [{"type": "text", "text": text}]}));
}

fn result(request: &Value, result: Value) {
    send(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
}

fn error(request: &Value, code: i64, message: &str) {
    send(&json!({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message}}));
}

fn send(message: &Value) {
    write(&message.to_string());
}

/// One line, whole: several calls answer at once.
fn write(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}
