//! A node is killed and started again, with tokens in its store: how long from the start of the process until it says that it is ready.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::task::JoinSet;

use super::Plan;
use super::table::{duration, heading, table, thousands};
use crate::clock::now_ns;
use crate::cluster::Cluster;
use crate::process::is_alive;

const REPLICAS: [u16; 2] = [3, 1];
/// Who mints at once.
const WRITERS: usize = 16;
const DEATH_WAIT: Duration = Duration::from_secs(10);

/// Three replicas, one of which is killed, and a replica alone.
pub(super) async fn run(plan: &Plan, program: &Path, dir: &Path) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for replicas in REPLICAS {
        let dir = dir.join(format!("ready-{replicas}"));
        std::fs::create_dir_all(&dir)?;
        let mut cluster = Cluster::start(program, &dir, replicas).await?;
        fill(&cluster, plan.ready_tokens).await?;
        let mut times = Vec::new();
        for round in 0..plan.readies {
            times.push(start_again(&mut cluster, round % usize::from(replicas)).await?);
        }
        cluster.stop().await?;
        times.sort_unstable();
        let at = |index: usize| times.get(index).copied().map_or_else(String::new, duration);
        rows.push(vec![
            replicas.to_string(),
            thousands(plan.ready_tokens as u64),
            times.len().to_string(),
            at(times.len() / 2),
            at(times.len().saturating_sub(1)),
        ]);
    }
    heading(
        "Ready",
        "kill -9 of a node and its start at once, each node in turn, the leader among them: from the start of the process to the first 200 of /readyz, which \
         is asked for every 5 ms. It holds a lease then. Until the first snapshot the state is made from the whole log.",
    );
    table(&["replicas", "tokens", "starts", "median", "slowest"], &rows);
    Ok(())
}

/// Mints tokens, at one node.
async fn fill(cluster: &Cluster, tokens: usize) -> anyhow::Result<()> {
    let project = json!({ "name": "bench", "servers": [] });
    cluster.api(0).await?.must("POST", "projects", &project).await?;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let mut api = cluster.api(0).await?;
        let share = (tokens + WRITERS - 1 - writer) / WRITERS;
        writers.spawn(async move {
            for token in 0..share {
                api.mint(&format!("ready-{writer}-{token}"), "bench").await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(filled) = writers.join_next().await {
        filled?.context("a token was not minted")?;
    }
    Ok(())
}

/// Kills a node and starts it again. Gives the time from the start until it is ready, in nanoseconds.
async fn start_again(cluster: &mut Cluster, node: usize) -> anyhow::Result<u64> {
    let pid = cluster.nodes[node].pid;
    cluster.kill(node)?;
    let died = async {
        while is_alive(pid) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEATH_WAIT, died)
        .await
        .context("a node outlived kill -9")?;
    let began = now_ns();
    cluster.restart(node).await?;
    Ok(now_ns() - began)
}
