//! The leader is killed: how long until a write is acknowledged again, and how long no call was answered meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::Plan;
use super::table::{duration, heading, table};
use crate::api::{Api, host_of, request};
use crate::clock::now_ns;
use crate::cluster::Cluster;
use crate::connection::Connection;

/// How long one write may take before the next survivor is asked.
const TRY: Duration = Duration::from_millis(200);
const WRITE_WAIT: Duration = Duration::from_secs(30);
const MODERN: &str = "2026-07-28";

/// Kills the leader a few times over, and starts it again each time.
pub(super) async fn run(plan: &Plan, cluster: &mut Cluster) -> anyhow::Result<()> {
    let all: Vec<usize> = (0..cluster.nodes.len()).collect();
    let mut rows = Vec::new();
    for round in 0..plan.failovers {
        let leader = cluster.leader(&all).await?;
        let survivors: Vec<usize> = all.iter().copied().filter(|node| *node != leader).collect();
        let (_, token) = cluster
            .api(leader)
            .await?
            .mint(&format!("failover-{round}"), "bench")
            .await?;
        let calls = Calls::begin(cluster, survivors[0], token).await?;
        let mut patient = cluster.api(survivors[1]).await?;
        let killed = now_ns();
        cluster.kill(leader)?;
        let one = async {
            let answered = patient.mint(&format!("patient-{round}"), "bench").await;
            (now_ns() - killed, answered)
        };
        let retried = async {
            let written = tokio::time::timeout(WRITE_WAIT, first_write(cluster, &survivors, round)).await;
            written.map(|()| now_ns() - killed)
        };
        let ((answered_after, answer), written) = tokio::join!(one, retried);
        let written = written.context("no write was acknowledged in time")?;
        let gap = calls.end().await?;
        let began = now_ns();
        cluster.restart(leader).await?;
        rows.push(vec![
            (round + 1).to_string(),
            duration(written),
            format!(
                "{}, {}",
                duration(answered_after),
                if answer.is_ok() { "done" } else { "refused" }
            ),
            duration(gap),
            duration(now_ns() - began),
        ]);
    }
    heading(
        "Failover",
        "kill -9 of the leader, with three replicas. Clients see 503 or wait while there is no leader; calls need none while the leases last.",
    );
    table(
        &[
            "kill",
            "first acknowledged write, retried every 200 ms",
            "one write sent at the kill",
            "longest gap of calls on a survivor",
            "start of the killed one until it holds a lease",
        ],
        &rows,
    );
    Ok(())
}

async fn first_write(cluster: &Cluster, survivors: &[usize], round: usize) {
    for attempt in 0.. {
        let node = survivors[attempt % survivors.len()];
        let write = async {
            let mut api = Api::open(&cluster.nodes[node].api_url, &cluster.session).await?;
            api.mint(&format!("failed-over-{round}-{attempt}"), "bench").await
        };
        if matches!(tokio::time::timeout(TRY, write).await, Ok(Ok(_))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Calls on a survivor, one after the other.
struct Calls {
    stop: Arc<AtomicBool>,
    gap: tokio::task::JoinHandle<anyhow::Result<u64>>,
}

impl Calls {
    async fn begin(cluster: &Cluster, node: usize, token: String) -> anyhow::Result<Calls> {
        let host = host_of(&cluster.nodes[node].gateway_url)?.to_owned();
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": { "name": "bench", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let arguments: Value = json!({ "n": 1 });
        let params = json!({ "name": "bench__work", "arguments": arguments, "_meta": meta });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
        let bearer = format!("Bearer {token}");
        let headers = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("authorization", bearer.as_str()),
            ("mcp-protocol-version", MODERN),
            ("mcp-method", "tools/call"),
            ("mcp-name", "bench__work"),
        ];
        let bytes = request("POST", &host, "/projects/bench/mcp", &headers, body.as_bytes());
        let mut connection = Connection::open(&host).await?;
        let first = connection.ask(&bytes).await?;
        anyhow::ensure!(
            first.status == 200 && first.holds(b"\"result\""),
            "HTTP {}: {}",
            first.status,
            String::from_utf8_lossy(first.body)
        );
        let stop = Arc::new(AtomicBool::new(false));
        let gap = tokio::spawn(longest_gap(connection, bytes, Arc::clone(&stop)));
        Ok(Calls { stop, gap })
    }

    /// The longest time between two answered calls, in nanoseconds.
    async fn end(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.gap.await?
    }
}

async fn longest_gap(mut connection: Connection, bytes: Vec<u8>, stop: Arc<AtomicBool>) -> anyhow::Result<u64> {
    let (mut longest, mut answered) = (0, now_ns());
    while !stop.load(Ordering::Relaxed) {
        let answer = connection.ask(&bytes).await?;
        if answer.status == 200 && answer.holds(b"\"result\"") {
            let now = now_ns();
            longest = longest.max(now - answered);
            answered = now;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(longest.max(now_ns() - answered))
}
