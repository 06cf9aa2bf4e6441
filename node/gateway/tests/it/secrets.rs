//! Secrets: where they are configured to go, and nowhere else.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use mcp_gateway::limits::Limits;
use mcp_model::command::{Command, Reply};
use mcp_model::ids::Id;
use mcp_model::names::Name;
use mcp_model::records::{Health, ServerSpec, ToolNaming, Transport};
use mcp_model::secrets::seal_context;
use mcp_store::seal::Seal;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::peer::Peer;
use crate::world::{SEAL_KEY, Token, World, call, request, until};

const RUN: &str = "role:run,resource:servers";

fn sealed(id: Id, values: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    let seal = |(key, value): &(&str, &str)| {
        let sealed = Seal::new(&SEAL_KEY).seal(&seal_context(id, key), value.as_bytes(), [3; 12]);
        ((*key).to_owned(), sealed)
    };
    values.iter().map(seal).collect()
}

fn create(world: &World, id: u128, name: &str, values: &[(&str, &str)]) -> Id {
    let id = Id::from_u128(id);
    world.admin(Command::CreateSecret {
        id,
        name: Name::parse(name).unwrap(),
        description: String::new(),
        values: sealed(id, values),
    });
    id
}

fn rotate(world: &World, id: Id, name: &str, values: &[(&str, &str)]) -> Reply {
    world.admin(Command::UpdateSecret {
        id,
        name: Name::parse(name).unwrap(),
        description: String::new(),
        values: sealed(id, values),
        if_version: None,
    })
}

fn http(url: &str, authorization: &str) -> Transport {
    Transport::Http {
        url: url.to_owned(),
        headers: BTreeMap::from([("authorization".to_owned(), authorization.to_owned())]),
    }
}

fn stdio(args: &[&str], env: &[(&str, &str)]) -> Transport {
    Transport::Stdio {
        command: env!("CARGO_BIN_EXE_gateway-test-peer").into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        cwd: None,
    }
}

/// A project `demo` with this one server, and a token that may run it.
fn demo(world: &World, transport: Transport) -> (Id, Token) {
    let server = world.server("peer", transport);
    world.project("demo", &[server], ToolNaming::Plain);
    (server, world.token("demo", &[RUN]))
}

/// What the cluster says of a server that does not answer.
async fn unhealthy(world: &World, server: Id, word: &str) -> String {
    until(&format!("the reason names {word}"), || async {
        let lists = world.nodes[0].replica.view().lists();
        match &lists.get(&server)?.list.health {
            Health::Unhealthy { reason } if reason.contains(word) => Some(reason.clone()),
            _ => None,
        }
    })
    .await
}

#[tokio::test]
async fn a_header_carries_the_secret_and_a_rotated_one_the_next_call() {
    let world = World::new().await;
    let secret = create(&world, 1_000, "git", &[("token", "canary-1")]);
    let (peer, url) = Peer::start(false, &["echo", "slow"]).await;
    let (_, token) = demo(&world, http(&url, "Bearer ${secret:git/token}"));
    world.listed(0, "demo", &token, "echo").await;
    world.listed(1, "demo", &token, "echo").await;
    let sent = |peer: &Peer| -> Vec<String> {
        let calls = peer.calls("tools/call");
        let sent = calls
            .iter()
            .map(|(headers, _)| headers["authorization"].to_str().unwrap().to_owned());
        sent.collect()
    };
    world.post(1, "demo", &token, &call(1, "echo")).await;
    assert_eq!(sent(&peer), ["Bearer canary-1"]);

    // What runs on the old value ends, and nothing more is sent with it.
    let url = format!("{}/projects/demo/mcp", world.nodes[1].base);
    let bearer = format!("Bearer {}", token.bearer);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    let slow = request(
        2,
        "tools/call",
        json!({"name": "slow", "_meta": {"progressToken": "p"}}),
    );
    let open = world.send(http::Method::POST, &url, &headers, slow.to_string()).await;
    until("the slow call has arrived", || async {
        (sent(&peer).len() == 2).then_some(())
    })
    .await;
    rotate(&world, secret, "git", &[("token", "canary-2")]);
    let ended = open.whole().await;
    assert!(!ended.body.contains("result"), "{}", ended.body);
    for node in [0, 1] {
        let answer = world.post(node, "demo", &token, &call(3, "echo")).await;
        assert_eq!(answer.code(), 0, "{}", answer.json());
    }
    assert_eq!(sent(&peer)[2..], ["Bearer canary-2", "Bearer canary-2"]);
}

#[tokio::test]
async fn a_child_gets_secrets_in_its_arguments_and_environment() {
    let world = World::new().await;
    create(&world, 1_000, "git", &[("token", "canary-1"), ("user", "canary-2")]);
    let transport = stdio(
        &["legacy", "--token=${secret:git/token}"],
        &[("LOGIN", "${secret:git/user}:${secret:git/token}")],
    );
    let (_, token) = demo(&world, transport);
    world.listed(0, "demo", &token, "env").await;
    let env: Value = serde_json::from_str(&world.post(0, "demo", &token, &call(1, "env")).await.text()).unwrap();
    assert_eq!(env["LOGIN"], "canary-2:canary-1");
    let args = world.post(0, "demo", &token, &call(1, "args")).await.text();
    assert!(args.contains("--token=canary-1"), "{args}");
}

/// The process of the child that a node runs for a server.
async fn child_of(world: &World, node: usize, server: Id) -> PathBuf {
    until("the child runs", || async {
        let states = world.nodes[node].gateway.server_states();
        let stderr = states.into_iter().find(|s| s.server == server)?.stderr;
        let pid = stderr.iter().find_map(|line| line.strip_prefix("pid "))?;
        Some(PathBuf::from(format!("/proc/{pid}")))
    })
    .await
}

#[tokio::test]
async fn what_runs_on_a_secret_ends_when_it_is_rotated_or_deleted_though_nobody_calls() {
    type Change = fn(&World, Id);
    let changes: [(&str, Change); 2] = [
        ("rotated", |world, secret| {
            rotate(world, secret, "git", &[("token", "canary-2")]);
        }),
        ("deleted", |world, _| {
            let name = Name::parse("git").unwrap();
            world.admin(Command::DeleteSecret { name, if_version: None });
        }),
    ];
    for (what, change) in changes {
        // A child that never answers keeps the one who probes it waiting, so that nobody else asks for it.
        let world = World::with(Limits {
            probe_ms: 600_000,
            ..Limits::default()
        })
        .await;
        let secret = create(&world, 1_000, "git", &[("token", "canary-1")]);
        let spec = ServerSpec {
            description: String::new(),
            transport: stdio(&["mute"], &[("TOKEN", "${secret:git/token}")]),
            connect_ms: 600_000,
            response_ms: 600_000,
            stateful: false,
            pin_tools: false,
        };
        let (id, name) = (Id::from_u128(2_000), Name::parse("mute").unwrap());
        world.admin(Command::CreateServer { id, name, spec });
        let child = child_of(&world, 0, id).await;
        assert!(child.exists(), "{what}");
        change(&world, secret);
        until(&format!("the child of the secret that was {what} is gone"), || async {
            (!child.exists()).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_missing_secret_or_key_is_named_and_comes_right_when_it_is_there() {
    let world = World::new().await;
    let (peer, url) = Peer::start(false, &["echo"]).await;
    let (server, token) = demo(&world, http(&url, "Bearer ${secret:git/token}"));
    let reason = unhealthy(&world, server, "git").await;
    assert!(reason.contains("there is no secret \"git\""), "{reason}");
    assert!(
        peer.seen.lock().unwrap().is_empty(),
        "the server was asked without its secret"
    );
    let secret = create(&world, 1_000, "git", &[("user", "canary-1"), ("token", "canary-2")]);
    world.listed(0, "demo", &token, "echo").await;
    rotate(&world, secret, "git", &[("user", "canary-1")]);
    let refused = world.post(0, "demo", &token, &call(1, "echo")).await;
    assert_eq!(refused.code(), -32010);
    let cause = refused.json()["error"]["data"]["cause"].to_string();
    assert!(
        cause.contains("the secret \\\"git\\\" has no key \\\"token\\\""),
        "{cause}"
    );
    assert!(!refused.json().to_string().contains("canary"));

    // Sealed under another key, as after a restore into another cluster.
    let other = Seal::new(&[1; 32]).seal(&seal_context(secret, "token"), b"canary-3", [4; 12]);
    world.admin(Command::UpdateSecret {
        id: secret,
        name: Name::parse("git").unwrap(),
        description: String::new(),
        values: BTreeMap::from([("token".to_owned(), other)]),
        if_version: None,
    });
    let refused = world.post(0, "demo", &token, &call(1, "echo")).await.json().to_string();
    assert!(
        refused.contains("cannot be opened") && !refused.contains("canary"),
        "{refused}"
    );
    let name = Name::parse("git").unwrap();
    world.admin(Command::DeleteSecret { name, if_version: None });
    let refused = world.post(0, "demo", &token, &call(1, "echo")).await.json().to_string();
    assert!(refused.contains("there is no secret"), "{refused}");
    assert!(
        peer.calls("tools/call").is_empty(),
        "nothing was sent without the secret"
    );
}

/// All that is logged, at trace level.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logged {
    type Writer = Logged;

    fn make_writer(&'a self) -> Logged {
        self.clone()
    }
}

#[tokio::test]
async fn a_secret_that_a_dying_child_repeats_is_in_no_log_status_or_answer() {
    let logged = Logged::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(logged.clone())
        .finish();
    // For all threads: what a node logs beside this one counts too.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let world = World::new().await;
    create(&world, 1_000, "git", &[("token", "canary-1\ncanary-2")]);
    let (server, token) = demo(&world, stdio(&["crash", "--token=${secret:git/token}"], &[]));
    let reason = unhealthy(&world, server, "").await;
    let state = until("the child has failed", || async {
        let states = world.nodes[0].gateway.server_states();
        states.into_iter().find(|s| s.server == server && !s.stderr.is_empty())
    })
    .await;
    // A stale list keeps its tools, so that somebody calls.
    let list = json!([{"name": "echo"}]).to_string();
    let mut known = mcp_model::records::ToolList::clone(&world.nodes[0].replica.view().lists()[&server].list);
    known.offer = Some(mcp_model::records::Offer {
        tools: list,
        ..Default::default()
    });
    world
        .log
        .commit(mcp_model::command::Actor::System, Command::PublishTools { list: known });
    let refused = world.post(0, "demo", &token, &call(1, "echo")).await;
    assert_eq!(refused.code(), -32010);
    let listed = world
        .post(0, "demo", &token, &request(1, "tools/list", json!({})))
        .await;
    let log = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("upstream"), "nothing was logged");
    for (what, text) in [
        ("reason", reason),
        ("state", format!("{state:?}")),
        ("answer", refused.json().to_string()),
        ("list", listed.json().to_string()),
        ("log", log),
    ] {
        assert!(!text.contains("canary"), "{what}: {text}");
    }
}
