//! Streams that clients hold open: what ten thousand of them take of a node, and how long a change of a list takes to reach all of them.
//!
//! The node's places for connections are set for it, and this machine's addresses are trusted as proxies are: one address has a quarter
//! of the places otherwise. Every stream is that of a session of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Plan;
use super::table::{duration, heading, table, thousands};
use super::ways::{Helper, LEGACY, open_session, wait_until_listed};
use crate::api::{host_of, request};
use crate::clock::now_ns;
use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::process::resident_kib;

const SETTINGS: [(&str, &str); 2] = [
    ("MCPNODE_GATEWAY_CONNECTIONS_MAX", "18000"),
    ("MCPNODE_GATEWAY_TRUSTED_PROXIES", "127.0.0.0/8"),
];
/// Who opens streams at once.
const OPENERS: usize = 32;
/// Streams of one token at most: it may have 10,000 sessions.
const OF_A_TOKEN: usize = 2_500;
/// Everybody is told within this time, or the run fails.
const TOLD_WAIT: Duration = Duration::from_secs(60);
const CLOSED_WAIT: Duration = Duration::from_secs(60);

/// Opens the streams, has a list changed, and closes them.
pub(super) async fn run(plan: &Plan, program: &Path, dir: &Path) -> anyhow::Result<()> {
    let dir = dir.join("streams");
    std::fs::create_dir_all(&dir)?;
    let cluster = Cluster::start_with(program, &dir, 3, &SETTINGS).await?;
    let upstream = Helper::start(&["upstream"]).await?;
    let tokens = set_up(&cluster, &upstream, plan.streams.div_ceil(OF_A_TOKEN)).await?;
    let node = cluster.nodes[0].clone();
    let address = host_of(&node.gateway_url)?.to_owned();
    let (fresh, began) = (resident_kib(node.pid)?, now_ns());
    let (told, mut hears) = mpsc::unbounded_channel();
    let mut streams = open(&address, &tokens, plan.streams, &told).await?;
    let (opened_ns, held) = (now_ns() - began, resident_kib(node.pid)?);
    let mut rounds = Vec::new();
    for _ in 0..plan.changes {
        rounds.push(change(&address, &tokens[0], plan.streams, &mut hears).await?);
    }
    let after = resident_kib(node.pid)?;
    streams.abort_all();
    while streams.join_next().await.is_some() {}
    none_open(&node.api_url).await?;
    let left = resident_kib(node.pid)?;

    heading(
        "Streams",
        "GET streams of as many legacy sessions on one of three replicas, over HTTP/1. A change: from when the answer to the call that changes \
         the upstream's list is read until a stream has read list_changed; the upstream says so on the stream of that call, and the node waits 300 ms for more changes before it asks for the list.",
    );
    let mib = |kib: u64| format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024);
    let each = |kib: u64| {
        format!(
            "{} bytes",
            kib.saturating_sub(fresh) * 1024 / plan.streams.max(1) as u64
        )
    };
    let mut rows = vec![
        vec![
            "streams, opened within".to_owned(),
            format!("{}, {}", thousands(plan.streams as u64), duration(opened_ns)),
        ],
        vec!["resident memory before".to_owned(), mib(fresh)],
        vec!["with them, each".to_owned(), format!("{}, {}", mib(held), each(held))],
        vec![
            "after the changes, each".to_owned(),
            format!("{}, {}", mib(after), each(after)),
        ],
        vec![
            "once all are abandoned (the sessions are still good)".to_owned(),
            mib(left),
        ],
    ];
    for (n, mut times) in rounds.into_iter().enumerate() {
        times.sort_unstable();
        let at = |percent: usize| duration(times[(times.len() - 1) * percent / 100]);
        let figure = format!("{}, {}, {}", at(50), at(99), at(100));
        rows.push(vec![format!("change {}: told half, 99 %, all after", n + 1), figure]);
    }
    table(&["what", "figure"], &rows);
    cluster.stop().await
}

/// A server whose list changes on demand, and tokens of a project that has it.
async fn set_up(cluster: &Cluster, upstream: &Helper, tokens: usize) -> anyhow::Result<Vec<String>> {
    let mut api = cluster.api(0).await?;
    let url = format!("http://{}/mcp/changing", upstream.address);
    api.must(
        "POST",
        "servers",
        &json!({ "name": "bench", "transport": "http", "url": url }),
    )
    .await?;
    api.must("POST", "projects", &json!({ "name": "streams", "servers": ["bench"] }))
        .await?;
    let mut all = Vec::new();
    for number in 0..tokens {
        all.push(api.mint(&format!("load-{number}"), "streams").await?.1);
    }
    wait_until_listed(&mut api, "streams", 1).await?;
    Ok(all)
}

fn headers(token: &str) -> Vec<(String, String)> {
    [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("authorization", &format!("Bearer {token}")),
        ("mcp-protocol-version", LEGACY),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Opens streams. Each says when it has read a `list_changed`.
async fn open(
    address: &str,
    tokens: &[String],
    count: usize,
    told: &mpsc::UnboundedSender<u64>,
) -> anyhow::Result<JoinSet<()>> {
    let mut openers = JoinSet::new();
    for opener in 0..OPENERS {
        let (address, tokens) = (address.to_owned(), tokens.to_owned());
        let share = (opener..count).step_by(OPENERS).collect::<Vec<_>>();
        openers.spawn(async move {
            let mut opened = Vec::with_capacity(share.len());
            for number in share {
                opened.push(open_one(&address, &tokens[number / OF_A_TOKEN]).await?);
            }
            anyhow::Ok(opened)
        });
    }
    let mut streams = JoinSet::new();
    while let Some(opened) = openers.join_next().await {
        for stream in opened?? {
            streams.spawn(listen(stream, told.clone()));
        }
    }
    Ok(streams)
}

async fn open_one(address: &str, token: &str) -> anyhow::Result<TcpStream> {
    let mut all = headers(token);
    let session = open_session(address, "/projects/streams/mcp", &all)
        .await?
        .context("no session")?;
    all.push(("mcp-session-id".to_owned(), session));
    let all: Vec<(&str, &str)> = all
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(&request("GET", address, "/projects/streams/mcp", &all, b""))
        .await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    if &head[9..] != b"200" {
        bail!("a stream got {}", String::from_utf8_lossy(&head));
    }
    Ok(stream)
}

async fn listen(mut stream: TcpStream, told: mpsc::UnboundedSender<u64>) {
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        // A notice is written whole, and comments by themselves.
        if memchr::memmem::find(&buffer[..read], b"tools/list_changed").is_some() && told.send(now_ns()).is_err() {
            return;
        }
    }
}

/// Has the list changed; gives how long each stream took to hear of it.
async fn change(
    address: &str,
    token: &str,
    streams: usize,
    hears: &mut mpsc::UnboundedReceiver<u64>,
) -> anyhow::Result<Vec<u64>> {
    let all = headers(token);
    let all: Vec<(&str, &str)> = all
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "bench__work", "arguments": { "change": 1 } } });
    let call = request(
        "POST",
        address,
        "/projects/streams/mcp",
        &all,
        call.to_string().as_bytes(),
    );
    let mut connection = Connection::open(address).await?;
    let answer = connection.ask(&call).await?;
    if !answer.holds(b"\"result\"") {
        bail!("the list was not changed: {}", String::from_utf8_lossy(answer.body));
    }
    let began = now_ns();
    let all_told = async {
        let mut times = Vec::with_capacity(streams);
        while times.len() < streams {
            let at = hears.recv().await.context("no stream is open")?;
            times.push(at.saturating_sub(began));
        }
        anyhow::Ok(times)
    };
    tokio::time::timeout(TOLD_WAIT, all_told)
        .await
        .context("not every stream was told in time")?
}

async fn none_open(api_url: &str) -> anyhow::Result<()> {
    let host = host_of(api_url)?;
    let closed = async {
        let mut connection = Connection::open(host).await?;
        let asked = request("GET", host, "/metrics", &[], b"");
        while !connection.ask(&asked).await?.holds(b"mcpnode_gateway_streams 0") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(CLOSED_WAIT, closed)
        .await
        .context("streams that are closed are still counted")?
}
