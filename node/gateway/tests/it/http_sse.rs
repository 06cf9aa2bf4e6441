//! HTTP+SSE of 2024-11-05: a stream that says where to post, and answers there; on any replica, where the project allows it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use mcp_gateway::limits::Limits;
use mcp_model::command::Command;
use mcp_model::limits::ProjectLimits;
use mcp_model::names::Name;
use mcp_model::records::{ProjectSpec, ToolNaming};
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::world::{Answer, Open, Token, World, call, names, request, until};

const RUN: &str = "role:run,resource:servers";

fn basic(token: &Token) -> String {
    format!("Basic {}", STANDARD.encode(format!("token:{}", token.bearer)))
}

/// Lets the clients of a project speak the old transport, or no longer.
fn allow(world: &World, project: &str, servers: Vec<mcp_model::ids::Id>, allow_sse: bool) {
    world.admin(Command::UpdateProject {
        name: Name::parse(project).unwrap(),
        spec: ProjectSpec {
            description: String::new(),
            servers,
            gated: true,
            proxy_model: None,
            tool_naming: ToolNaming::Prefixed,
            instructions: None,
            allow_sse,
        },
        if_version: None,
    });
}

/// A client that has its stream open.
struct Client {
    stream: Open,
    read: String,
    /// The path to post to.
    address: String,
    authorization: String,
}

impl Client {
    async fn open(world: &World, node: usize, token: &Token) -> Client {
        let url = format!("{}/projects/demo/sse", world.nodes[node].base);
        let authorization = basic(token);
        let headers = [
            ("authorization", authorization.as_str()),
            ("accept", "text/event-stream"),
        ];
        let stream = world.send(Method::GET, &url, &headers, "").await;
        assert_eq!(stream.status.as_u16(), 200);
        assert_eq!(stream.headers["x-accel-buffering"], "no");
        let mut client = Client {
            stream,
            read: String::new(),
            address: String::new(),
            authorization,
        };
        let event = client.event().await.unwrap();
        client.address = event.strip_prefix("event: endpoint\ndata: ").unwrap().to_owned();
        assert!(
            client.address.starts_with("/projects/demo/messages?session="),
            "{event}"
        );
        client
    }

    /// The next event that is no comment; none when the stream has ended.
    async fn event(&mut self) -> Option<String> {
        loop {
            while let Some((event, rest)) = self.read.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.read = rest;
                if !event.starts_with(':') {
                    return Some(event);
                }
            }
            let chunk = self.stream.chunk().await?;
            self.read.push_str(&chunk);
        }
    }

    async fn message(&mut self) -> Value {
        let event = self.event().await.unwrap();
        serde_json::from_str(event.strip_prefix("event: message\ndata: ").unwrap()).unwrap()
    }

    async fn post(&self, world: &World, node: usize, message: &Value) -> Answer {
        let url = format!("{}{}", world.nodes[node].base, self.address);
        let headers = [
            ("authorization", self.authorization.as_str()),
            ("content-type", "application/json"),
        ];
        world
            .send(Method::POST, &url, &headers, message.to_string())
            .await
            .whole()
            .await
    }

    /// Posts a request to a node and waits for its response on the stream: what came before it, and it.
    async fn ask(&mut self, world: &World, node: usize, message: &Value) -> (Vec<Value>, Value) {
        assert_eq!(self.post(world, node, message).await.status.as_u16(), 202);
        let mut before = Vec::new();
        loop {
            let came = self.message().await;
            if came["id"] == message["id"] {
                return (before, came);
            }
            before.push(came);
        }
    }
}

fn initialize() -> Value {
    initialize_with(json!({}))
}

fn initialize_with(capabilities: Value) -> Value {
    let params = json!({"protocolVersion": "2024-11-05", "capabilities": capabilities, "clientInfo": {"name": "t"}});
    request(0, "initialize", params)
}

#[tokio::test]
async fn a_client_of_2024_speaks_to_any_replica_and_is_answered_on_its_stream() {
    let world = World::new().await;
    let (_peer, url) = Peer::start(false, &["progress", "a"]).await;
    let server = world.http("peer", &url);
    world.project("demo", &[], ToolNaming::Prefixed);
    allow(&world, "demo", vec![server], true);
    let token = world.token("demo", &[RUN]);
    world.listed(0, "demo", &token, "peer__a").await;
    world.listed(1, "demo", &token, "peer__a").await;
    let mut client = Client::open(&world, 0, &token).await;
    let (_, greeting) = client.ask(&world, 1, &initialize()).await;
    assert_eq!(greeting["result"]["protocolVersion"], "2024-11-05", "{greeting}");
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(client.post(&world, 1, &initialized).await.status.as_u16(), 202);
    for node in [0, 1] {
        let (_, listed) = client.ask(&world, node, &request(1, "tools/list", json!({}))).await;
        assert_eq!(names(&listed), ["peer__progress", "peer__a"]);
        let params = json!({"name": "peer__progress", "_meta": {"progressToken": "mine"}});
        let (before, called) = client.ask(&world, node, &request(2, "tools/call", params)).await;
        assert_eq!(called["result"]["content"][0]["text"], "progress", "{called}");
        let steps: Vec<u64> = before.iter().filter_map(|m| m["params"]["progress"].as_u64()).collect();
        assert!(!steps.is_empty() && steps.is_sorted(), "{before:?}");
        let (_, unknown) = client.ask(&world, node, &call(3, "peer__nothing")).await;
        assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
    }
    let bad = client.post(&world, 1, &json!([])).await;
    assert_eq!((bad.status.as_u16(), bad.code()), (400, -32600));
}

#[tokio::test]
async fn it_is_let_in_only_where_the_project_says_so_and_basic_is_taken_nowhere_else() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Prefixed);
    world.project("other", &[], ToolNaming::Prefixed);
    let token = world.token("demo", &[RUN]);
    let base = world.nodes[0].base.clone();
    let get = async |path: &str, authorization: &str| {
        let headers = [("authorization", authorization), ("accept", "text/event-stream")];
        world.send(Method::GET, &format!("{base}{path}"), &headers, "").await
    };
    let bearer = format!("Bearer {}", token.bearer);
    for authorization in [basic(&token), bearer.clone()] {
        let refused = get("/projects/demo/sse", &authorization).await.whole().await;
        assert_eq!((refused.status.as_u16(), refused.code()), (403, -32003));
        assert!(refused.body.contains("does not allow HTTP+SSE"), "{refused:?}");
    }
    allow(&world, "demo", Vec::new(), true);
    assert_eq!(get("/projects/demo/sse", &basic(&token)).await.status.as_u16(), 200);
    assert_eq!(get("/projects/demo/sse", &bearer).await.status.as_u16(), 200);
    assert_eq!(get("/projects/other/sse", &basic(&token)).await.status.as_u16(), 403);
    assert_eq!(get("/projects/demo/mcp", &basic(&token)).await.status.as_u16(), 401);
    let plain = mcp_model::token::PlainToken::from_bytes(&[200; 32]);
    let stranger = Token {
        id: token.id,
        bearer: plain.expose().to_owned(),
    };
    assert_eq!(get("/projects/demo/sse", &basic(&stranger)).await.status.as_u16(), 401);
    assert_eq!(get("/projects/demo/sse", "Basic nonsense").await.status.as_u16(), 401);
    let url = format!("{base}/projects/demo/mcp");
    let headers = [("authorization", basic(&token))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let posted = world.send(Method::POST, &url, &headers, initialize().to_string()).await;
    assert_eq!(posted.status.as_u16(), 401, "Basic is for the old transport alone");
    // A stream whose project allows it no more answers nothing but that.
    let mut client = Client::open(&world, 0, &token).await;
    allow(&world, "demo", Vec::new(), false);
    assert_eq!(client.post(&world, 0, &initialize()).await.status.as_u16(), 403);
    world.revoke(&token);
    assert_eq!(client.event().await, None);
}

#[tokio::test]
async fn the_stream_is_its_tokens_alone_and_ends_with_it() {
    let world = World::with(Limits {
        comment_every_ms: 100,
        audit_sync_ms: 50,
        debounce_ms: 0,
        ..Limits::default()
    })
    .await;
    let (peer, url) = Peer::start(false, &["hang"]).await;
    let server = world.http("peer", &url);
    world.project("demo", &[], ToolNaming::Prefixed);
    allow(&world, "demo", vec![server], true);
    let (token, other) = (world.token("demo", &[RUN]), world.token("demo", &[RUN]));
    world.listed(0, "demo", &token, "peer__hang").await;
    let mut client = Client::open(&world, 0, &token).await;
    assert_eq!(
        client.stream.chunk().await.unwrap(),
        ":\n\n",
        "a quiet stream carries comments"
    );
    client.ask(&world, 0, &initialize()).await;
    // Another token's post to it finds nothing, on either replica; and so does one whose address was changed.
    let own = std::mem::replace(&mut client.authorization, basic(&other));
    for node in [0, 1] {
        let refused = client.post(&world, node, &call(5, "peer__hang")).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (404, -32001));
    }
    client.authorization = own;
    let address = client.address.clone();
    for wrong in [
        address.replace("session=", "session=A"),
        address.replace("&node=1", "&node=9"),
        address.replace("&node=1", ""),
    ] {
        client.address = wrong;
        let refused = client.post(&world, 0, &call(5, "peer__hang")).await;
        assert_eq!(refused.status.as_u16(), 404, "{}", client.address);
    }
    client.address = address;
    assert!(peer.calls("tools/call").is_empty(), "nothing came to the upstream");
    for node in [0, 1] {
        assert_eq!(
            client.post(&world, node, &call(6, "peer__hang")).await.status.as_u16(),
            202
        );
    }
    until("both calls are at the upstream", || async {
        (peer.calls("tools/call").len() == 2).then_some(())
    })
    .await;
    world.revoke(&token);
    assert_eq!(client.event().await, None);
    until("the upstream sees both end", || async {
        (*peer.dropped.lock().unwrap() == 2).then_some(())
    })
    .await;
    // A client that leaves ends its calls as well.
    let mut leaving = Client::open(&world, 0, &other).await;
    leaving.ask(&world, 0, &initialize()).await;
    assert_eq!(
        leaving.post(&world, 0, &call(7, "peer__hang")).await.status.as_u16(),
        202
    );
    until("the call is at the upstream", || async {
        (peer.calls("tools/call").len() == 3).then_some(())
    })
    .await;
    drop(leaving);
    until("the upstream sees it end", || async {
        (*peer.dropped.lock().unwrap() == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_of_2024_is_asked_on_its_stream_and_answers_through_any_replica() {
    let world = World::new().await;
    let (_peer, url) = Peer::start(false, &["consult"]).await;
    let server = world.http("peer", &url);
    world.project("demo", &[], ToolNaming::Prefixed);
    allow(&world, "demo", vec![server], true);
    let (token, other) = (world.token("demo", &[RUN]), world.token("demo", &[RUN]));
    for node in [0, 1] {
        world.listed(node, "demo", &token, "peer__consult").await;
    }
    let mut client = Client::open(&world, 0, &token).await;
    let can = json!({"sampling": {}, "elicitation": {}});
    client.ask(&world, 1, &initialize_with(can)).await;
    let asks = [
        (
            "sampling/createMessage",
            json!({"messages": [], "maxTokens": 1}),
            json!({"role": "assistant"}),
        ),
        (
            "elicitation/create",
            json!({"message": "m", "requestedSchema": {}}),
            json!({"action": "decline"}),
        ),
    ];
    for (number, (method, params, result)) in (10..).zip(asks) {
        for node in [0, 1] {
            let asks = json!([{"id": format!("q{number}{node}"), "method": method, "params": params}]);
            let consult = json!({"name": "peer__consult", "arguments": {"asks": asks}});
            let called = request(number, "tools/call", consult);
            assert_eq!(client.post(&world, node, &called).await.status.as_u16(), 202);
            let asked = client.message().await;
            assert_eq!(
                (&asked["method"], &asked["params"]),
                (&json!(method), &params),
                "{asked}"
            );
            let reply = json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
            // Nobody else can answer.
            let stranger = Client::open(&world, 1, &other).await;
            let forged = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}});
            stranger.post(&world, 1 - node, &forged).await;
            assert_eq!(client.post(&world, 1 - node, &reply).await.status.as_u16(), 202);
            let done = client.message().await;
            let text = done["result"]["content"][0]["text"].as_str().unwrap_or_default();
            let answers: Value = serde_json::from_str(text).unwrap();
            assert_eq!(
                (&done["id"], &answers[0]["result"]),
                (&json!(number), &result),
                "{done}"
            );
        }
    }
    // What it has not declared it is not asked.
    let asks = json!([{"id": "r", "method": "roots/list"}]);
    let consult = request(
        20,
        "tools/call",
        json!({"name": "peer__consult", "arguments": {"asks": asks}}),
    );
    let (before, done) = client.ask(&world, 1, &consult).await;
    assert!(
        before.is_empty() && done.to_string().contains("-32601"),
        "{before:?} {done}"
    );
}

#[tokio::test]
async fn a_client_of_2024_may_post_as_much_as_its_project_allows_and_its_session_lasts_as_long_as_its_stream() {
    let world = World::with(Limits {
        session_ms: 60_000,
        audit_sync_ms: 50,
        debounce_ms: 0,
        ..Limits::default()
    })
    .await;
    world.project("demo", &[], ToolNaming::Prefixed);
    allow(&world, "demo", Vec::new(), true);
    let policy = world.nodes[0].replica.view().policy();
    world.admin(Command::UpdateLimitedProject {
        name: Name::parse("demo").unwrap(),
        spec: policy.project_named("demo").unwrap().spec.clone(),
        limits: ProjectLimits {
            body_bytes: Some(2_000),
            ..ProjectLimits::default()
        },
        if_version: None,
    });
    let token = world.token("demo", &[RUN]);
    let mut client = Client::open(&world, 0, &token).await;
    client.ask(&world, 1, &initialize()).await;
    assert_eq!(
        world.nodes[0].gateway.sessions(),
        0,
        "there is no session besides the stream's"
    );
    for node in [0, 1] {
        let large = request(1, "ping", json!({"x": "y".repeat(2_000)}));
        let refused = client.post(&world, node, &large).await;
        assert_eq!(refused.status.as_u16(), 413, "{refused:?}");
        assert!(
            refused.body.contains("2000 bytes") && refused.json()["id"] == 1,
            "{refused:?}"
        );
    }
    world.clock.forward(120_000);
    world.nodes.iter().for_each(|node| world.lease(node));
    for node in [0, 1] {
        let (_, pong) = client.ask(&world, node, &request(2, "ping", json!({}))).await;
        assert_eq!(pong["result"], json!({}), "{pong}");
    }
}
