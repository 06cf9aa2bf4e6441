//! Lists on separate machines: a server that one of them alone may reach is listed by all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use super::cluster::{mint, three_voters};
use super::machines::{Machine, ask};
use super::until;

/// An MCP server over HTTP: one tool, one answer per connection. Ends with the test's process.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

fn serve(stream: TcpStream) {
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = match message["method"].as_str() {
        Some("initialize") => {
            json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "far"}})
        }
        Some("tools/list") => json!({"tools": [{"name": "far_away", "inputSchema": {"type": "object"}}]}),
        Some("tools/call") => json!({"content": [{"type": "text", "text": "from afar"}]}),
        _ => Value::Null,
    };
    let (status, body) = match result {
        Value::Null if message["id"].is_null() => ("202 Accepted", String::new()),
        Value::Null => ("405 Method Not Allowed", String::new()),
        result => (
            "200 OK",
            json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string(),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = reader.into_inner();
    // Whoever asked may have gone.
    if stream.write_all(format!("{head}{body}").as_bytes()).is_err() {
        eprintln!("an answer was not wanted any more");
    }
}

fn tools(machine: &Machine, token: &str) -> Vec<String> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
    let answer = ask(machine.gateway, "POST", "/projects/demo/mcp", Some(token), Some(&body));
    let answer = answer.map_or(Value::Null, |(_, answer)| answer);
    let tools = answer["result"]["tools"].as_array().cloned().unwrap_or_default();
    tools
        .iter()
        .map(|tool| tool["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_server_that_one_machine_alone_may_reach_is_listed_by_all_three() {
    let root = tempfile::tempdir().unwrap();
    let ([one, mut two, three], session) = three_voters(root.path());
    // The second machine alone may connect to private addresses.
    let config = std::fs::read_to_string(two.config()).unwrap();
    assert!(config.contains("\n# allow_private = false\n"), "{config}");
    let config = config.replace("\n# allow_private = false\n", "\nallow_private = true\n");
    std::fs::write(two.config(), config).unwrap();
    two.stop();
    two.start();
    two.ready();

    let url = format!("http://127.0.0.1:{}/mcp", server());
    one.must(
        "POST",
        "servers",
        &session,
        &json!({"name": "far", "transport": "http", "url": url}),
    );
    let project = json!({"name": "demo", "servers": ["far"], "toolNaming": "plain"});
    one.must("POST", "projects", &session, &project);
    let token = mint(&one, &session, "ci");
    for machine in [&one, &two, &three] {
        until(&format!("{} lists it", machine.name), || {
            tools(machine, &token) == ["far_away"]
        });
    }
    let shown = three.must("GET", "servers/far", &session, &Value::Null);
    assert_eq!(
        (
            &shown["status"]["health"],
            &shown["status"]["node"],
            &shown["status"]["tools"]
        ),
        (&json!("healthy"), &json!("node-2"), &json!(1)),
        "{shown}"
    );
    // And called through all three: the machine that may reach it carries the call out.
    let call =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "far_away", "arguments": {}}});
    let called = |machine: &Machine| {
        let (_, answer) = ask(machine.gateway, "POST", "/projects/demo/mcp", Some(&token), Some(&call)).unwrap();
        answer
    };
    for machine in [&one, &two, &three] {
        // One that has just started is not known to answer yet.
        until(&format!("{} has it called", machine.name), || {
            called(machine)["result"]["content"][0]["text"] == "from afar"
        });
    }

    // The machine goes: the last good list stays.
    two.kill();
    until("it is known that nobody reaches it", || {
        one.must("GET", "servers/far", &session, &Value::Null)["status"]["health"] == "unhealthy"
    });
    for machine in [&one, &three] {
        assert_eq!(tools(machine, &token), ["far_away"]);
    }
    // What a machine may not reach, it says: a call through it names the setting.
    until("the setting is named", || {
        called(&three)["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("allow_private"))
    });
}
