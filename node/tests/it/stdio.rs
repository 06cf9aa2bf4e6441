//! Servers that are child processes of a machine, from their start to the end of all that they leave behind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::child::alive;
use super::cluster::{founded, mint, three_voters};
use super::machines::{Machine, ask};
use super::until;

/// An MCP server that says on its stderr who it is, leaves a grandchild in its group and one in a session of its own, and counts its
/// calls. It writes the pids of all three into a file.
const COUNTER: &str = r#"#!/bin/sh
echo "serving as $$" >&2
sleep 600 & left=$!
setsid sleep 600 & gone=$!
echo "$$ $left $gone" >> "$1"
count=0
while read -r line; do
    id=$(printf %s "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
    case "$line" in
    *'"method":"initialize"'*) said='{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"counter","version":"1"}}' ;;
    *'"method":"tools/list"'*) said='{"tools":[{"name":"count","inputSchema":{"type":"object"}}]}' ;;
    *'"method":"tools/call"'*) count=$((count + 1)); echo "counted to $count" >&2; said="{\"content\":[{\"type\":\"text\",\"text\":\"$$ $count\"}]}" ;;
    *) said= ;;
    esac
    [ -z "$id" ] && continue
    if [ -n "$said" ]; then echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":$said}"
    else echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{\"code\":-32601,\"message\":\"no\"}}"; fi
done
"#;

/// The counter as a server of the cluster, and the file with its pids.
fn counter(root: &Path, machine: &Machine, session: &str, more: &Value) -> PathBuf {
    let (script, pids) = (root.join("counter.sh"), root.join("pids"));
    std::fs::write(&script, COUNTER).unwrap();
    std::fs::write(&pids, "").unwrap();
    let mut server = json!({"name": "counter", "transport": "stdio", "command": "/bin/sh", "args": [script, pids]});
    for (field, value) in more.as_object().unwrap() {
        server[field] = value.clone();
    }
    machine.must("POST", "servers", session, &server);
    let project = json!({"name": "demo", "servers": ["counter"], "toolNaming": "plain"});
    machine.must("POST", "projects", session, &project);
    pids
}

/// The families that were started so far: server, and its two grandchildren.
fn families(pids: &Path) -> Vec<Vec<i32>> {
    let text = std::fs::read_to_string(pids).unwrap();
    let family = |line: &str| line.split(' ').map(|pid| pid.parse().unwrap()).collect();
    text.lines().map(family).collect()
}

fn count(machine: &Machine, token: &str) -> Option<String> {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "count", "arguments": {}}});
    let (_, answer) = ask(machine.gateway, "POST", "/projects/demo/mcp", Some(token), Some(&call))?;
    Some(answer["result"]["content"][0]["text"].as_str()?.to_owned())
}

#[test]
fn a_server_that_nobody_uses_is_stopped_with_all_that_it_has_left_behind_and_serves_the_next_call() {
    let root = tempfile::tempdir().unwrap();
    let (machine, session) = founded(root.path(), "node-1");
    let limits = json!({"limits": {"idleStopSeconds": 1}});
    let pids = counter(root.path(), &machine, &session, &limits);
    let token = mint(&machine, &session, "ci");
    until("it serves", || count(&machine, &token).is_some());
    until("it is stopped with its family", || {
        let families = families(&pids);
        !families.is_empty() && families.iter().flatten().all(|pid| !alive(*pid))
    });
    let before = families(&pids).len();
    until("it is shown as idle", || {
        machine.must("GET", "servers/counter", &session, &Value::Null)["status"]["process"] == "idle"
    });
    // Its lists are served without it.
    let shown = machine.must("GET", "servers/counter", &session, &Value::Null);
    assert_eq!(
        (&shown["status"]["health"], &shown["status"]["tools"], &shown["limits"]),
        (&json!("healthy"), &json!(1), &limits["limits"]),
        "{shown}"
    );
    assert_eq!(families(&pids).len(), before, "it was started to be looked at");
    until("it serves again", || count(&machine, &token).is_some());
    let started = families(&pids);
    assert!(started.len() > before, "{started:?}");
}

#[test]
fn what_the_children_of_a_server_say_is_shown_with_the_node_of_each_and_gone_on_with() {
    let root = tempfile::tempdir().unwrap();
    let ([one, two, three], session) = three_voters(root.path());
    let pids = counter(root.path(), &one, &session, &json!({}));
    let token = mint(&one, &session, "ci");
    for machine in [&one, &two, &three] {
        until("it serves", || count(machine, &token).is_some());
    }
    let mut logs = Value::Null;
    until("every machine is heard through the second", || {
        logs = two.must("GET", "servers/counter/logs", &session, &Value::Null);
        let texts = |node: &str| -> Vec<String> {
            let lines = logs["lines"].as_array().unwrap().iter();
            let of_it = lines.filter(|line| line["node"] == node);
            of_it.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
        };
        let counted = |node: &&str| {
            let texts = texts(node);
            texts.iter().any(|text| text.starts_with("serving as ")) && texts.contains(&"counted to 1".to_owned())
        };
        ["node-1", "node-2", "node-3"].iter().all(counted)
    });
    assert!(families(&pids).len() >= 3);
    // Going on behind that, only what is new comes; of one machine only its own.
    let after = logs["after"].as_str().unwrap().to_owned();
    let more = |query: &str| {
        let path = format!("servers/counter/logs?after={after}{query}");
        let more = one.must("GET", &path, &session, &Value::Null);
        let lines = more["lines"].as_array().unwrap().clone();
        let shown = |line: &Value| format!("{}: {}", line["node"].as_str().unwrap(), line["text"].as_str().unwrap());
        lines.iter().map(shown).collect::<Vec<_>>()
    };
    assert!(count(&three, &token).is_some());
    until("the new line is there", || more("") == ["node-3: counted to 2"]);
    assert_eq!(more("&node=node-1"), [""; 0]);
    let shown = one.must("GET", "servers/counter", &session, &Value::Null);
    assert_eq!(shown["status"]["process"], "running", "{shown}");
}

/// A request in a session: status, session of the answer, and body.
fn in_session(machine: &Machine, token: &str, session: Option<&str>, message: &Value) -> Option<(u16, String, Value)> {
    let body = message.to_string();
    let session = session.map_or(String::new(), |session| format!("mcp-session-id: {session}\r\n"));
    let head = format!(
        "POST /projects/demo/mcp HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nauthorization: Bearer {token}\r\ncontent-type: \
         application/json\r\naccept: application/json, text/event-stream\r\n{session}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        machine.gateway,
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", machine.gateway)).ok()?;
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, rest) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let named = |line: &&str| line.to_ascii_lowercase().starts_with("mcp-session-id:");
    let session = head.lines().find(named).and_then(|line| line.split_once(": "));
    // Whatever stands around it: a length, chunks.
    let json = rest
        .find('{')
        .and_then(|from| rest.rfind('}').map(|to| &rest[from..=to]));
    let json = json
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default();
    Some((status, session.map_or(String::new(), |(_, id)| id.to_owned()), json))
}

#[test]
fn each_session_has_its_child_on_one_of_three_machines_which_all_reach_until_that_machine_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let ([one, mut two, three], session) = three_voters(root.path());
    let pids = counter(root.path(), &one, &session, &json!({"stateful": true}));
    let token = mint(&one, &session, "ci");
    let open = |machine: &Machine| {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t"}});
        let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let mut id = String::new();
        until("a session is opened", || {
            id = in_session(machine, &token, None, &message).map_or(String::new(), |(_, id, _)| id);
            !id.is_empty()
        });
        id
    };
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "count", "arguments": {}}});
    let counted = |machine: &Machine, id: &str| in_session(machine, &token, Some(id), &call).unwrap();
    let text = |answer: &Value| answer["result"]["content"][0]["text"].as_str().map(str::to_owned);
    let (mine, theirs) = (open(&two), open(&three));
    let mut first = Value::Null;
    until("the first call goes through", || {
        first = counted(&one, &mine).2;
        text(&first).is_some()
    });
    let first = text(&first).unwrap();
    let (pid, _) = first.split_once(' ').unwrap();
    for (count, machine) in [(2, &two), (3, &three), (4, &one), (5, &two)] {
        let (_, _, answer) = counted(machine, &mine);
        assert_eq!(
            text(&answer),
            Some(format!("{pid} {count}")),
            "{}: {answer}",
            machine.name
        );
    }
    let (_, _, other) = counted(&two, &theirs);
    let other = text(&other).unwrap();
    assert!(other.ends_with(" 1") && !other.starts_with(pid), "{other}");

    // The machine that holds it goes, with all that it has started; the client is told to open another session.
    let held: Vec<i32> = families(&pids)
        .into_iter()
        .find(|family| family[0].to_string() == pid)
        .unwrap();
    two.kill();
    until("its children are gone", || held.iter().all(|pid| !alive(*pid)));
    until("the session is no more", || {
        let (status, _, answer) = counted(&one, &mine);
        assert!(text(&answer).is_none(), "{answer}");
        status == 404 && answer["error"]["code"] == -32001
    });
    // Nor is it when the machine is back: what its child remembered is not.
    two.start();
    two.ready();
    for machine in [&one, &two] {
        let (status, _, answer) = counted(machine, &mine);
        assert_eq!(
            (status, &answer["error"]["code"]),
            (404, &json!(-32001)),
            "{}: {answer}",
            machine.name
        );
    }
    let again = open(&one);
    until("another session serves", || text(&counted(&three, &again).2).is_some());
    // Nobody else's was touched, and a revoke ends it.
    let (_, _, answer) = counted(&one, &theirs);
    assert!(text(&answer).unwrap().ends_with(" 2"), "{answer}");
    let (pid, _) = other.split_once(' ').unwrap();
    let pid: i32 = pid.parse().unwrap();
    assert!(alive(pid));
    let tokens = one.must("GET", "mcptokens?project=demo", &session, &Value::Null);
    let id = tokens["items"][0]["id"].as_str().unwrap();
    one.must("POST", &format!("mcptokens/{id}/revoke"), &session, &json!({}));
    assert_eq!(counted(&two, &theirs).0, 401);
    until("its child is gone", || !alive(pid));
}
