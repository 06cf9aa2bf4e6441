//! A small world: replicas that apply the same commands, a gateway on each, a clock that is moved by hand.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mcp_gateway::cluster::{Cluster, PortFuture, Report, Unavailable};
use mcp_gateway::limits::Limits;
use mcp_gateway::{Gateway, GatewayConfig};
use mcp_model::clock::{Clock, Reading};
use mcp_model::command::{Actor, Command, Envelope, Reply, TokenGrant};
use mcp_model::ids::{CommandId, Id, NodeId};
use mcp_model::names::{Email, Name};
use mcp_model::records::{ProjectSpec, ServerSpec, ToolNaming, Transport};
use mcp_model::token::PlainToken;
use mcp_store::{ApplyEntry, Replica, ReplicaOptions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) const ADMIN: Id = Id::from_u128(1);
pub(crate) const LEASE_MS: u64 = 2_000;

/// A clock that stands until it is moved.
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn forward(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn back(&self, ms: u64) {
        self.0.fetch_sub(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn reading(&self) -> Reading {
        Reading::both_ms(self.0.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> u64 {
        1_800_000_000_000 + self.0.load(Ordering::SeqCst)
    }
}

/// The commands of the cluster and who has applied how many of them.
pub(crate) struct Log {
    entries: Mutex<Vec<Vec<u8>>>,
    replicas: Mutex<Vec<(Arc<Replica>, usize, bool)>>,
    pub(crate) clock: Arc<TestClock>,
}

impl Log {
    /// Commits a command; every replica that is not held back applies it.
    pub(crate) fn commit(&self, actor: Actor, command: Command) -> Reply {
        let mut entries = self.entries.lock().unwrap();
        let id = CommandId(u128::try_from(entries.len()).unwrap() + 1);
        let envelope = Envelope {
            id,
            now_ms: self.clock.wall_ms(),
            actor,
            command,
        };
        entries.push(envelope.encode());
        drop(entries);
        let mut reply = None;
        let held: Vec<bool> = self.replicas.lock().unwrap().iter().map(|(_, _, held)| *held).collect();
        for (at, _) in held.iter().enumerate().filter(|(_, held)| !**held) {
            reply = self.catch_up(at).or(reply);
        }
        reply.unwrap()
    }

    /// Keeps a replica from applying what comes.
    pub(crate) fn hold(&self, at: usize) {
        self.replicas.lock().unwrap()[at].2 = true;
    }

    /// Applies what a replica lacks; the last reply.
    pub(crate) fn catch_up(&self, at: usize) -> Option<Reply> {
        let entries = self.entries.lock().unwrap().clone();
        let mut replicas = self.replicas.lock().unwrap();
        let (replica, applied, _) = &mut replicas[at];
        let mut last = None;
        while *applied < entries.len() {
            let index = u64::try_from(*applied).unwrap() + 1;
            let entry = ApplyEntry {
                index,
                commands: vec![entries[*applied].clone()],
            };
            last = replica.apply(&[entry], b"mark").unwrap().remove(0).pop();
            *applied += 1;
        }
        last.map(|outcome| outcome.reply)
    }
}

/// The gateways by node, for what they tell each other.
type Peers = Arc<Mutex<Vec<(NodeId, Gateway)>>>;

/// The port of one node.
pub(crate) struct FakeCluster {
    at: usize,
    peers: Peers,
    /// Whether the other nodes cannot be reached.
    pub(crate) alone: AtomicBool,
    log: Weak<Log>,
    pub(crate) prober: AtomicBool,
    pub(crate) leaderless: AtomicBool,
    pub(crate) freshened: AtomicU64,
    pub(crate) published: AtomicU64,
    /// Nodes that do not answer this one.
    pub(crate) gone: Mutex<Vec<NodeId>>,
}

impl Cluster for FakeCluster {
    fn freshen(&self) -> PortFuture<'_, Result<(), Unavailable>> {
        Box::pin(async {
            if self.leaderless.load(Ordering::SeqCst) {
                return Err(Unavailable::NoLeader);
            }
            self.freshened.fetch_add(1, Ordering::SeqCst);
            self.log.upgrade().unwrap().catch_up(self.at);
            Ok(())
        })
    }

    fn report_tools(&self, report: Report) -> PortFuture<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            self.published.fetch_add(1, Ordering::SeqCst);
            let Report { list, node, prints } = report;
            self.log
                .upgrade()
                .unwrap()
                .commit(Actor::System, Command::ReportTools { list, node, prints });
            Ok(())
        })
    }

    fn record_token_use(&self, uses: Vec<(Id, u64)>) -> PortFuture<'_, Result<(), Unavailable>> {
        Box::pin(async {
            self.log
                .upgrade()
                .unwrap()
                .commit(Actor::System, Command::RecordTokenUse { uses });
            Ok(())
        })
    }

    fn others(&self) -> Vec<NodeId> {
        let me = NodeId(u64::try_from(self.at).unwrap() + 1);
        let peers = self.peers.lock().unwrap();
        peers.iter().map(|(id, _)| *id).filter(|id| *id != me).collect()
    }

    fn tell(&self, to: NodeId, message: Vec<u8>, _: Duration) -> PortFuture<'_, Result<Vec<u8>, Unavailable>> {
        let peer = self.peers.lock().unwrap().iter().find(|(id, _)| *id == to).cloned();
        Box::pin(async move {
            match peer.filter(|_| !self.alone.load(Ordering::SeqCst)) {
                Some((_, gateway)) => Ok(gateway.hear(&message).await),
                None => Err(Unavailable::NotReached),
            }
        })
    }

    fn is_prober(&self) -> bool {
        self.prober.load(Ordering::SeqCst)
    }

    fn answers(&self, node: NodeId) -> bool {
        !self.gone.lock().unwrap().contains(&node)
    }
}

pub(crate) struct Node {
    pub(crate) replica: Arc<Replica>,
    pub(crate) gateway: Gateway,
    pub(crate) cluster: Arc<FakeCluster>,
    pub(crate) base: String,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) stop: CancellationToken,
}

/// What secrets are sealed under.
pub(crate) const SEAL_KEY: [u8; 32] = [9; 32];

pub(crate) struct World {
    pub(crate) log: Arc<Log>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) nodes: Vec<Node>,
    http: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    next: AtomicU64,
}

impl Drop for World {
    fn drop(&mut self) {
        self.nodes.iter().for_each(|node| node.stop.cancel());
    }
}

impl World {
    /// Two nodes with leases; the first probes.
    pub(crate) async fn new() -> World {
        World::with(Limits {
            audit_sync_ms: 50,
            debounce_ms: 0,
            ..Limits::default()
        })
        .await
    }

    pub(crate) async fn with(limits: Limits) -> World {
        World::apart(limits, |_| Vec::new()).await
    }

    /// Nodes that start children in different ways, by their place.
    pub(crate) async fn apart(limits: Limits, child_of: fn(usize) -> Vec<String>) -> World {
        let clock = Arc::new(TestClock(AtomicU64::new(1_000_000)));
        let log = Arc::new(Log {
            entries: Mutex::default(),
            replicas: Mutex::default(),
            clock: clock.clone(),
        });
        let mut nodes = Vec::new();
        let peers = Peers::default();
        for at in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let options = ReplicaOptions {
                lease_ms: LEASE_MS,
                had_data: false,
                random: Arc::new(|| 42),
            };
            let replica = Replica::open(dir.path(), options).unwrap();
            log.replicas.lock().unwrap().push((replica.clone(), 0, false));
            let cluster = Arc::new(FakeCluster {
                at,
                peers: peers.clone(),
                alone: AtomicBool::new(false),
                log: Arc::downgrade(&log),
                prober: AtomicBool::new(at == 0),
                leaderless: AtomicBool::new(false),
                freshened: AtomicU64::new(0),
                published: AtomicU64::new(0),
                gone: Mutex::default(),
            });
            let config = GatewayConfig {
                node: NodeId(u64::try_from(at).unwrap() + 1),
                cluster_key: [7; 32],
                seal: mcp_store::seal::Seal::new(&SEAL_KEY),
                audit_dir: dir.path().join("audit"),
                allowed_hosts: GatewayConfig::loopback_hosts(),
                allowed_origins: vec!["https://trusted.example".into()],
                child_command: child_of(at),
                tls: mcp_wire::tls::client_config(&[]),
                reach: mcp_wire::reach::Reach::checked(true, Vec::new()),
                limits,
            };
            let gateway = Gateway::open(config, replica.clone(), clock.clone(), cluster.clone()).unwrap();
            peers
                .lock()
                .unwrap()
                .push((NodeId(u64::try_from(at).unwrap() + 1), gateway.clone()));
            let base = serve(gateway.router()).await;
            let stop = CancellationToken::new();
            let (running, until) = (gateway.clone(), stop.clone());
            tokio::spawn(async move { running.run(until).await });
            nodes.push(Node {
                replica,
                gateway,
                cluster,
                base,
                dir,
                stop,
            });
        }
        let http = Client::builder(TokioExecutor::new()).build_http();
        let world = World {
            log,
            clock,
            nodes,
            http,
            next: AtomicU64::new(100),
        };
        let email = Email::parse("admin@example.com").unwrap();
        let command = Command::InitCluster {
            cluster_id: Id::from_u128(9),
            admin: ADMIN,
            email,
            password_hash: None,
            rbac: Id::from_u128(2),
        };
        world.log.commit(Actor::System, command);
        world.nodes.iter().for_each(|node| world.lease(node));
        world
    }

    /// Gives a node a lease that begins now.
    pub(crate) fn lease(&self, node: &Node) {
        let (incarnation, request) = node.replica.gate().begin(self.clock.reading()).unwrap();
        node.replica
            .gate()
            .granted(incarnation, request, 0, || node.replica.auth_index());
    }

    fn id(&self) -> Id {
        Id::from_u128(u128::from(self.next.fetch_add(1, Ordering::SeqCst)))
    }

    /// The administrator does something that must be allowed.
    pub(crate) fn admin(&self, command: Command) -> Reply {
        let reply = self.log.commit(Actor::User(ADMIN), command);
        assert!(!matches!(reply, Reply::Refused(_)), "{reply:?}");
        reply
    }

    pub(crate) fn server(&self, name: &str, transport: Transport) -> Id {
        self.server_with(name, spec(transport))
    }

    pub(crate) fn server_with(&self, name: &str, spec: ServerSpec) -> Id {
        let id = self.id();
        self.admin(Command::CreateServer {
            id,
            name: Name::parse(name).unwrap(),
            spec,
        });
        id
    }

    pub(crate) fn stdio(&self, name: &str, mode: &str) -> Id {
        self.server(
            name,
            Transport::Stdio {
                command: env!("CARGO_BIN_EXE_gateway-test-peer").into(),
                args: vec![mode.to_owned()],
                env: Default::default(),
                cwd: None,
            },
        )
    }

    pub(crate) fn http(&self, name: &str, url: &str) -> Id {
        self.server(
            name,
            Transport::Http {
                url: url.to_owned(),
                headers: Default::default(),
            },
        )
    }

    pub(crate) fn project(&self, name: &str, servers: &[Id], tool_naming: ToolNaming) -> Id {
        let spec = ProjectSpec {
            description: String::new(),
            servers: servers.to_vec(),
            gated: true,
            allow_sse: false,
            proxy_model: None,
            tool_naming,
            instructions: Some("be careful".into()),
        };
        let id = self.id();
        self.admin(Command::CreateProject {
            id,
            name: Name::parse(name).unwrap(),
            spec,
        });
        id
    }

    /// A token of a project with these bindings.
    pub(crate) fn token(&self, project: &str, bindings: &[&str]) -> Token {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let mut bytes = [1; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        let plain = PlainToken::from_bytes(&bytes);
        let id = self.id();
        self.admin(Command::IssueToken {
            id,
            name: Name::parse(&format!("t{number}")).unwrap(),
            project: Name::parse(project).unwrap(),
            hash: plain.hash(),
            shown_prefix: plain.shown_prefix(),
            description: String::new(),
            expires_ms: None,
            grant: TokenGrant::Bindings(bindings.iter().map(|binding| binding.parse().unwrap()).collect()),
            replace: false,
        });
        Token {
            id,
            bearer: plain.expose().to_owned(),
        }
    }

    pub(crate) fn revoke(&self, token: &Token) {
        self.admin(Command::RevokeToken { id: token.id });
    }

    /// A message of a session for the project `demo`.
    pub(crate) async fn in_session(&self, node: usize, token: &Token, session: &str, message: &Value) -> Open {
        let url = format!("{}/projects/demo/mcp", self.nodes[node].base);
        let bearer = format!("Bearer {}", token.bearer);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-session-id", session),
        ];
        self.send(Method::POST, &url, &headers, message.to_string()).await
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Open {
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = url.parse().unwrap();
        for (name, value) in headers {
            request
                .headers_mut()
                .append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let response = self.http.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Open {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// Posts a message to a project on a node, as a legacy client without a session.
    pub(crate) async fn post(&self, node: usize, project: &str, token: &Token, message: &Value) -> Answer {
        self.post_with(node, project, token, &[], message.to_string()).await
    }

    pub(crate) async fn post_with(
        &self,
        node: usize,
        project: &str,
        token: &Token,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let url = format!("{}/projects/{project}/mcp", self.nodes[node].base);
        let authorization = format!("Bearer {}", token.bearer);
        let mut all = vec![
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        ];
        all.extend_from_slice(headers);
        self.send(Method::POST, &url, &all, body).await.whole().await
    }

    /// Time passes, and the nodes go on holding leases.
    pub(crate) fn pass(&self, ms: u64) {
        self.clock.forward(ms);
        self.nodes.iter().for_each(|node| self.lease(node));
    }

    /// What a node has audited with this reason.
    pub(crate) fn audited(&self, node: usize, reason: &str) -> Vec<Value> {
        let dir = self.nodes[node].dir.path().join("audit");
        let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let text: String = files.filter_map(|file| std::fs::read_to_string(file).ok()).collect();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["reason"] == reason).collect()
    }

    /// Waits until a tool is listed.
    pub(crate) async fn listed(&self, node: usize, project: &str, token: &Token, tool: &str) {
        until(&format!("{tool} is listed"), || async {
            let answer = self
                .post(node, project, token, &request(1, "tools/list", json!({})))
                .await;
            names(&answer.json()).contains(&tool.to_owned()).then_some(())
        })
        .await;
    }
}

pub(crate) fn spec(transport: Transport) -> ServerSpec {
    ServerSpec {
        description: String::new(),
        transport,
        connect_ms: 5_000,
        response_ms: 5_000,
        stateful: false,
        pin_tools: false,
    }
}

pub(crate) struct Token {
    pub(crate) id: Id,
    pub(crate) bearer: String,
}

/// An answer whose body is still to come.
pub(crate) struct Open {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
}

impl Open {
    pub(crate) async fn whole(self) -> Answer {
        let body = tokio::time::timeout(Duration::from_secs(20), self.body.collect())
            .await
            .unwrap()
            .unwrap()
            .to_bytes();
        Answer {
            status: self.status,
            headers: self.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// The next chunk; none when the stream has ended.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame())
            .await
            .unwrap()?;
        Some(String::from_utf8(frame.ok()?.into_data().ok()?.to_vec()).unwrap())
    }

    /// The next message of an event stream.
    pub(crate) async fn next_message(&mut self) -> Value {
        loop {
            let chunk = self.chunk().await.unwrap();
            if let Some(data) = chunk.lines().find_map(|line| line.strip_prefix("data: ")) {
                return serde_json::from_str(data).unwrap();
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The messages of an event stream, or the one of a JSON body.
    pub(crate) fn messages(&self) -> Vec<Value> {
        if !self.body.starts_with("event:") && !self.body.starts_with(':') {
            return vec![self.json()];
        }
        self.body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }

    /// The JSON-RPC error code, 0 if there is none.
    pub(crate) fn code(&self) -> i64 {
        self.json()["error"]["code"].as_i64().unwrap_or(0)
    }

    pub(crate) fn text(&self) -> String {
        let json = self.messages().pop().unwrap();
        json["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("no text: {json}"))
            .to_owned()
    }
}

pub(crate) fn request(id: u64, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

pub(crate) fn call(id: u64, tool: &str) -> Value {
    request(id, "tools/call", json!({"name": tool, "arguments": {"a": 1}}))
}

pub(crate) fn names(list: &Value) -> Vec<String> {
    let tools = list["result"]["tools"]
        .as_array()
        .unwrap_or_else(|| panic!("no tools: {list}"));
    tools
        .iter()
        .map(|tool| tool["name"].as_str().unwrap().to_owned())
        .collect()
}

pub(crate) async fn serve(router: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

/// Waits until something holds, at most twenty seconds.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    for _ in 0..1000 {
        if let Some(found) = probe().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never came true: {what}");
}
