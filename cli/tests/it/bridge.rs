//! `mcpctl mcp stdio`: a client that speaks stdio, nodes that die.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::gateways::{Gateway, Shared, TOKEN};
use crate::world::{World, assert_told};

/// Longest wait for a line: a node that is gone must be found out within it.
const LINE_WAIT: Duration = Duration::from_secs(40);

/// A client on stdio.
struct Client {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Client {
    fn start(args: &[&str], env: &[(&str, &str)]) -> Client {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcpctl"));
        command
            .args(["mcp", "stdio"])
            .args(args)
            .env_clear()
            .env("HOME", "/nowhere");
        command.envs(env.iter().copied());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Client { child, input, lines }
    }

    fn of(nodes: &[&Gateway]) -> Client {
        let urls: Vec<&str> = nodes.iter().map(|node| node.url.as_str()).collect();
        Client::start(
            &["--project", "demo", "--server", &urls.join(",")],
            &[("MCPCTL_TOKEN", TOKEN)],
        )
    }

    fn say(&mut self, message: &Value) {
        self.say_line(&message.to_string());
    }

    fn say_line(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
    }

    /// The next line: nothing but MCP comes.
    #[track_caller]
    fn hear(&mut self) -> Value {
        let line = self.lines.recv_timeout(LINE_WAIT).expect("a line in time");
        let message: Value = serde_json::from_str(&line).expect("a line is JSON");
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }

    /// The response to a request, and what came before it.
    #[track_caller]
    fn ask(&mut self, id: u64, method: &str, params: &Value) -> (Value, Vec<Value>) {
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        self.response(id)
    }

    #[track_caller]
    fn response(&mut self, id: u64) -> (Value, Vec<Value>) {
        let mut before = Vec::new();
        loop {
            let message = self.hear();
            if message["id"] == id && message.get("method").is_none() {
                return (message, before);
            }
            before.push(message);
        }
    }

    #[track_caller]
    fn open(&mut self) -> String {
        let params =
            json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let (greeting, _) = self.ask(0, "initialize", &params);
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        greeting["result"]["serverInfo"]["name"].as_str().unwrap().to_owned()
    }

    /// Closes its side and waits for the end: exit code and what was said on standard error.
    fn leave(mut self) -> (i32, String) {
        drop(self.input.take());
        self.end()
    }

    fn end(self) -> (i32, String) {
        let done = self.child.wait_with_output().unwrap();
        let (code, err) = (done.status.code().unwrap(), String::from_utf8(done.stderr).unwrap());
        if code != 0 {
            assert_told(&err);
        }
        (code, err)
    }
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..4_000 {
        if so() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("{what} did not happen in time");
}

fn cluster() -> (Arc<Shared>, Gateway, Gateway) {
    let shared = Arc::new(Shared::default());
    let (one, two) = (Gateway::start("one", &shared), Gateway::start("two", &shared));
    (shared, one, two)
}

fn modern(params: Value) -> Value {
    let mut params = params;
    params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}});
    params
}

#[test]
fn a_legacy_session_passes_through_in_both_directions() {
    let (shared, one, two) = cluster();
    let mut client = Client::of(&[&one, &two]);
    assert_eq!(client.open(), "one");
    let (called, before) = client.ask(
        1,
        "tools/call",
        &json!({"name": "echo", "arguments": {"message": "hi"}}),
    );
    assert_eq!(called["result"]["content"][0]["text"], "hi");
    assert_eq!(
        before[0]["method"], "notifications/progress",
        "progress comes before the response"
    );
    // A request of the server comes on the session's stream, and its answer goes back.
    until("the session's stream", || shared.stream_holder().is_some());
    shared.say(&json!({"jsonrpc": "2.0", "id": "ask-1", "method": "roots/list"}));
    assert_eq!(client.hear()["id"], "ask-1");
    client.say(&json!({"jsonrpc": "2.0", "id": "ask-1", "result": {"roots": []}}));
    until("the answer", || {
        shared.told.lock().unwrap().iter().any(|told| told["id"] == "ask-1")
    });
    assert_eq!(
        shared.headers.lock().unwrap()["response"]["mcp-protocol-version"],
        "2025-06-18"
    );
    // What is not MCP is answered as MCP says, and the session goes on.
    client.say_line("this is not JSON");
    assert_eq!(client.hear()["error"]["code"], -32700);
    client.say_line("[]");
    assert_eq!(client.hear()["error"]["code"], -32600);
    let (code, err) = client.leave();
    assert_eq!(code, 0, "{err}");
    assert!(
        shared.sessions.lock().unwrap().is_empty(),
        "the session is ended at the gateway"
    );
    assert!(!err.contains(TOKEN) && err.contains("bridging"), "{err}");
}

#[test]
fn a_node_that_dies_in_mid_session_is_replaced_and_no_call_is_made_twice() {
    let (shared, mut one, two) = cluster();
    let mut client = Client::of(&[&one, &two]);
    client.open();
    until("the session's stream", || shared.stream_holder().is_some());
    client.say(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "slow"}}));
    assert_eq!(client.hear()["method"], "notifications/progress");
    client.say(&json!({"jsonrpc": "2.0", "id": 2, "method": "prompts/list"}));
    until("the list is asked for", || shared.saw("one prompts/list") == 1);
    one.kill();
    let mut lines = vec![client.hear(), client.hear(), client.hear()];
    let find = |lines: &mut Vec<Value>, so: &dyn Fn(&Value) -> bool| {
        let at = lines.iter().position(so).unwrap_or_else(|| panic!("{lines:?}"));
        lines.remove(at)
    };
    let lost = find(&mut lines, &|line| line["id"] == 1);
    assert_eq!(lost["error"]["code"], -32010, "{lost}");
    assert_eq!(lost["error"]["data"]["effect"], "possible", "{lost}");
    let listed = find(&mut lines, &|line| line["id"] == 2);
    assert!(
        listed.get("result").is_some(),
        "what only reads is asked again: {listed}"
    );
    let told = find(&mut lines, &|line| line["method"] == "notifications/tools/list_changed");
    assert!(told.get("id").is_none());
    assert_eq!((shared.saw("one tools/call"), shared.saw("two tools/call")), (1, 0));
    // The session is the same one, and its stream is open on the other node.
    let (called, _) = client.ask(
        3,
        "tools/call",
        &json!({"name": "echo", "arguments": {"message": "still"}}),
    );
    assert_eq!(called["result"]["content"][0]["text"], "still");
    assert_eq!(shared.stream_holder().as_deref(), Some("two"));
    assert_eq!(shared.saw("two initialize"), 0);
    let (code, err) = client.leave();
    assert_eq!(code, 0);
    assert!(err.contains(&format!("going on with {}", two.url)), "{err}");
}

#[test]
fn a_session_that_nobody_knows_any_more_is_opened_anew() {
    let (shared, one, two) = cluster();
    let mut client = Client::of(&[&one, &two]);
    client.open();
    until("the session's stream", || shared.stream_holder().is_some());
    shared.sessions.lock().unwrap().clear();
    let (called, _) = client.ask(
        1,
        "tools/call",
        &json!({"name": "echo", "arguments": {"message": "again"}}),
    );
    assert_eq!(called["result"]["content"][0]["text"], "again");
    assert_eq!(shared.saw("one initialize"), 2);
    until("the stream of the new session", || shared.saw("one GET") == 2);
    assert_eq!(client.leave().0, 0);
}

#[test]
fn the_modern_era_passes_with_the_headers_that_it_wants() {
    let (shared, mut one, two) = cluster();
    let mut client = Client::of(&[&one, &two]);
    let call = |name: &str| modern(json!({"name": name, "arguments": {"region": "eu", "message": "hi"}}));
    let (called, _) = client.ask(1, "tools/call", &call("regional"));
    assert_eq!(
        called["result"]["content"][0]["text"], "hi",
        "its list was looked at: {called}"
    );
    let headers = shared.headers.lock().unwrap()["tools/call"].clone();
    assert_eq!(
        (headers["mcp-param-region"].as_str(), headers["mcp-name"].as_str()),
        ("eu", "regional")
    );
    assert_eq!(headers["mcp-protocol-version"], "2026-07-28");
    assert!(!headers.contains_key("mcp-session-id"));
    // A cancelled request is left, and nothing more is heard of it.
    client.say(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call("slow")}));
    assert_eq!(client.hear()["method"], "notifications/progress");
    client.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}));
    until("the cancelled stream is left", || shared.stream_holder().is_none());
    assert!(shared.told.lock().unwrap().is_empty(), "nothing is posted for it");
    // A subscription is taken up again elsewhere: acknowledged once, and what may have been missed is said.
    client.say(&json!({"jsonrpc": "2.0", "id": 3, "method": "subscriptions/listen", "params": modern(json!({}))}));
    assert_eq!(client.hear()["method"], "notifications/subscriptions/acknowledged");
    one.kill();
    let changed = client.hear();
    assert_eq!(changed["method"], "notifications/tools/list_changed");
    assert_eq!(changed["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 3);
    assert_eq!(shared.saw("two subscriptions/listen"), 1);
    assert_eq!(client.leave().0, 0);
    drop(two);
}

#[test]
fn a_token_that_is_revoked_in_mid_session_ends_the_bridge() {
    let (shared, one, two) = cluster();
    let mut client = Client::of(&[&one, &two]);
    client.open();
    client.say(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "slow"}}));
    assert_eq!(client.hear()["method"], "notifications/progress");
    *shared.refuses_the_token.lock().unwrap() = true;
    let (refused, _) = client.ask(2, "tools/list", &json!({}));
    assert_eq!(refused["error"]["code"], -32003, "{refused}");
    assert_eq!(refused["error"]["data"]["httpStatus"], 401);
    let (rest, _) = client.response(1);
    assert!(
        rest["error"]["message"]
            .as_str()
            .unwrap()
            .contains("may have had an effect"),
        "{rest}"
    );
    let (code, err) = client.end();
    assert_eq!(code, 4, "{err}");
    assert!(
        err.contains("error: ") && err.contains("cause: ") && err.contains("next:  "),
        "{err}"
    );
    assert!(!err.contains(TOKEN));
}

#[test]
fn the_cluster_says_where_the_gateways_are() {
    let world = World::new();
    world.run("create project demo").done();
    let made = world.run("create mcptoken ci -p demo").done();
    let token = made
        .out
        .lines()
        .find(|line| line.starts_with("mcpctl_pat_"))
        .unwrap()
        .to_owned();
    let env = [("MCPCTL_SERVER", world.url.as_str()), ("MCPCTL_TOKEN", token.as_str())];
    // Nobody is asked anything before the client asks: what listens at the addresses that these nodes name is not ours.
    let (code, err) = Client::start(&[], &env).leave();
    let urls: Vec<String> = (3201..=3203)
        .map(|port| format!("http://127.0.0.1:{port}/mcp"))
        .collect();
    assert!(code == 0 && err.contains(&urls.join(", ")), "{err}");
    let (code, err) = Client::start(&["-p", "demo"], &env).leave();
    assert!(
        code == 0 && err.contains("http://127.0.0.1:3202/projects/demo/mcp"),
        "{err}"
    );
    let said = |args: &[&str], env: &[(&str, &str)]| Client::start(args, env).leave();
    let (code, err) = said(&["-p", "other"], &env);
    assert!(code == 4 && err.contains("is for project \"demo\""), "{err}");
    let (code, err) = said(&[], &[("MCPCTL_SERVER", world.url.as_str())]);
    assert!(code == 4 && err.contains("MCPCTL_TOKEN is not set"), "{err}");
    let (code, err) = said(&["--token-file", "/nowhere/token"], &env);
    assert!(code == 2 && err.contains("/nowhere/token"), "{err}");
    world.run("revoke mcptoken ci -p demo").done();
    let (code, err) = said(&[], &env);
    assert!(code == 4 && !err.contains(&token), "{err}");
}

#[test]
fn a_tool_is_called_and_each_outcome_has_its_exit_code() {
    let (shared, mut one, two) = cluster();
    let world = World::new();
    let servers = format!("{},{}", one.url, two.url);
    let call = |rest: &[&str], input: &str| {
        let mut args: Vec<String> = ["call", "--server", &servers, "-p", "demo"].map(str::to_owned).into();
        args.extend(rest.iter().map(|word| (*word).to_owned()));
        world.run_with(&[("MCPCTL_TOKEN", TOKEN)], &args, input)
    };
    let said = call(&["echo", "--args", r#"{"message":"hi there"}"#], "").done();
    assert_eq!((said.out.as_str(), said.err.as_str()), ("hi there\n", "mcpctl: 1/2\n"));
    let said = call(&["echo", "--args", "-", "-o", "json"], r#"{"message":"from input"}"#).done();
    let result: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(result["content"][0]["text"], "from input");
    let said = call(&["regional", "--args", r#"{"message":"x","region":"eu"}"#], "").done();
    assert_eq!(said.out, "x\n");
    let said = call(&["fail", "--args", r#"{"message":"no"}"#], "");
    assert!(
        said.code == 1 && !said.out.is_empty() && said.err.contains("error: tool \"fail\" failed\n"),
        "{said:?}"
    );
    call(&["unknown"], "").fails(3, "cannot call \"unknown\"", "Unknown tool", "");
    call(&["echo", "--args", "{"], "").fails(2, "cannot use --args", "not JSON", "mcpctl call");
    call(&["echo", "--args", "[]"], "").fails(2, "cannot use --args", "not an object", "mcpctl call");
    call(&["slow", "--timeout", "1"], "")
        .code
        .eq(&124)
        .then_some(())
        .unwrap();
    one.kill();
    call(&["echo", "--args", r#"{"message":"on the other"}"#], "").done();
    *shared.refuses_the_token.lock().unwrap() = true;
    call(&["echo"], "").fails(4, "cannot call", "not valid", "mcpctl get mcptokens");
    drop(two);
    call(&["echo"], "").fails(5, "cannot call", "no node of the gateway", "mcpctl cluster status");
}
