//! What a node says and refuses when it starts: separate processes, real files.

use std::path::Path;

use serde_json::{Value, json};

use super::machines::{Machine, ask, ask_tls, done, free_port};
use super::until;

/// What it has said since, line by line.
fn said(machine: &Machine, since: usize) -> Vec<String> {
    machine.logged()[since..].lines().map(str::to_owned).collect()
}

/// The one line in which all of these words stand.
#[track_caller]
fn line<'a>(lines: &'a [String], words: &[&str]) -> &'a str {
    let found: Vec<&String> = lines
        .iter()
        .filter(|line| words.iter().all(|word| line.contains(word)))
        .collect();
    assert_eq!(found.len(), 1, "{words:?} in {lines:#?}");
    found[0]
}

#[test]
fn a_listener_in_plain_http_is_said_at_every_start_and_louder_where_others_reach_it() {
    let root = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(root.path(), "node-1");
    done(&machine.init(&["--tls", "off"]));
    let off = "tls = \"off\"";
    for _ in 0..2 {
        let since = machine.start_with(&[], &[]);
        machine.ready();
        let lines = said(&machine, since);
        for (listener, port) in [("\"gateway\"", machine.gateway), ("\"API\"", machine.api)] {
            let at = format!("127.0.0.1:{port}");
            let line = line(&lines, &[off, listener, &at]);
            assert!(
                line.contains("INFO") && line.contains("on this machine alone"),
                "{line}"
            );
        }
        machine.stop();
    }

    // Where other machines come: a warning, for that listener alone.
    let everywhere = format!("0.0.0.0:{}", machine.api);
    let since = machine.start_with(&["--api-listen", &everywhere], &[]);
    machine.ready();
    let lines = said(&machine, since);
    let open = line(&lines, &[off, "\"API\"", &everywhere]);
    assert!(
        open.contains("WARN") && open.contains("bearers travel in the clear"),
        "{open}"
    );
    assert!(line(&lines, &[off, "\"gateway\""]).contains("INFO"));
    machine.stop();

    // Nothing of it where there is TLS.
    let text = std::fs::read_to_string(machine.config()).unwrap();
    std::fs::write(machine.config(), text.replace(off, "tls = \"auto\"")).unwrap();
    let since = machine.start_with(&[], &[]);
    let ca = machine.dir.join("ca.crt");
    until("it is ready", || {
        matches!(ask_tls(machine.api, &ca, "/readyz"), Ok(((200, _), _)))
    });
    let lines = said(&machine, since);
    assert!(!lines.iter().any(|line| line.contains(off)), "{lines:#?}");
}

#[test]
fn variables_of_the_original_count_or_are_said_to_be_needed_no_longer() {
    let root = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(root.path(), "node-1");
    done(&machine.init(&["--tls", "off"]));
    let since = machine.start_with(&[], &[]);
    machine.ready();
    let unneeded = "no longer needed";
    assert!(!said(&machine, since).iter().any(|line| line.contains(unneeded)));
    machine.stop();

    // The file says another port and another directory; variables win.
    let moved = root.path().join("moved");
    std::fs::rename(&machine.dir, &moved).unwrap();
    machine.dir.clone_from(&moved);
    let ports = [free_port(), free_port()];
    let [port, other] = ports.map(|port| port.to_string());
    let (before, moved) = (machine.gateway, moved.display().to_string());
    let env = [
        ("MCPLOCAL_HTTP_HOST", "localhost"),
        ("MCPLOCAL_HTTP_PORT", port.as_str()),
        ("MCPLOCAL_CACHE_DIR", moved.as_str()),
        ("MCPLOCAL_MCPD_URL", "http://127.0.0.1:3100"),
        ("MCPLOCAL_TOKEN_POSITIVE_TTL_MS", "30000"),
        ("MCPLOCAL_TOKEN_NEGATIVE_TTL_MS", "5000"),
    ];
    let since = machine.start_with(&[], &env);
    machine.ready();
    assert_eq!(ask(ports[0], "GET", "/healthz", None, None).unwrap().0, 200);
    assert!(
        ask(before, "GET", "/healthz", None, None).is_none(),
        "the file's port is not in use"
    );
    let lines = said(&machine, since);
    let warned = line(&lines, &[unneeded]);
    assert!(warned.contains("WARN"), "{warned}");
    for (name, _) in &env[3..] {
        assert!(warned.contains(name), "{name}: {warned}");
    }
    for (name, _) in &env[..3] {
        assert!(!warned.contains(name), "{name}: {warned}");
    }
    machine.stop();

    // Our own variables win over those, and only what is there is named.
    let own = format!("127.0.0.1:{other}");
    let since = machine.start_with(&[], &[&env[1..4], &[("MCPNODE_GATEWAY_LISTEN", own.as_str())]].concat());
    machine.ready();
    assert_eq!(ask(ports[1], "GET", "/healthz", None, None).unwrap().0, 200);
    assert!(ask(ports[0], "GET", "/healthz", None, None).is_none());
    let lines = said(&machine, since);
    let warned = line(&lines, &[unneeded]);
    assert!(
        warned.contains("MCPLOCAL_MCPD_URL") && !warned.contains("TTL"),
        "{warned}"
    );
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A machine is put back to what it was before its first start, and one of its founding members is in the cluster that it founded then.
#[test]
fn a_node_does_not_begin_a_second_cluster_beside_a_member_of_the_first() {
    let root = tempfile::tempdir().unwrap();
    let image = root.path().join("image");
    let mut one = Machine::new(root.path(), "node-1");
    done(&one.init(&["--tls", "off"]));
    copied(&one.dir, &image);
    one.start();
    one.ready();
    let session = one.set_up();
    let token_file = root.path().join("join.token");
    // One that does not vote, so that it waits for a leader and does not elect itself one.
    one.join_token(&session, &json!({"role": "learner"}), &token_file);
    let mut two = Machine::new(root.path(), "node-2");
    two.join_and_run(&one.peers_at(), &token_file);
    two.ready();
    let learner = ("node-2".to_owned(), "learner".to_owned());
    until("it follows", || two.members(&session).contains(&learner));
    two.stop();
    one.kill();

    std::fs::remove_dir_all(&one.dir).unwrap();
    copied(&image, &one.dir);
    let file = one.dir.join("founding.json");
    let mut founding = json_of(&file);
    let id = &json_of(&two.dir.join("node.json"))["nodeId"];
    let member = json!({"id": id, "name": "node-2", "address": two.peers_at()});
    founding["members"].as_array_mut().unwrap().push(member);
    std::fs::write(&file, founding.to_string()).unwrap();

    // While the other one is silent it may be in a cluster: nothing begins, and the log says who is waited for.
    let since = one.start_with(&[], &[]);
    let waits = "the cluster does not begin yet";
    until("it waits", || one.logged()[since..].contains(waits));
    let lines = said(&one, since);
    let warned = line(&lines, &[waits]);
    assert!(
        warned.contains("WARN") && warned.contains(&format!("node-2 at {}", two.peers_at())),
        "{warned}"
    );
    assert_ne!(ask(one.api, "GET", "/readyz", None, None).unwrap().0, 200);

    // Once it says that it is, the node ends, and again at every start.
    two.start();
    assert!(!one.ends(), "it begins a second cluster:\n{}", one.logged());
    let again = one.fails_to_start();
    for said in [&one.logged()[since..], &again] {
        for part in [
            "the cluster cannot begin",
            &format!("\"node-2\" at {} is in a cluster already", two.peers_at()),
            &format!("move {} away", one.dir.display()),
            "mcpctl cluster join-token",
            &format!("mcpnode join {} --token-file", two.peers_at()),
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    assert!(!one.logged()[since..].contains("a new cluster begins"));
    assert!(file.exists(), "what was decided is kept");
}
