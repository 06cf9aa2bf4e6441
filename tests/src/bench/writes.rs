//! Writes that were acknowledged, per second: tokens minted at the leader.

use anyhow::Context;
use tokio::task::JoinSet;

use super::Plan;
use super::histogram::Histogram;
use super::table::{duration, heading, table, thousands};
use crate::api::Api;
use crate::clock::now_ns;
use crate::cluster::Cluster;

const WRITERS: [usize; 2] = [1, 16];

/// One writer, then sixteen, each sending its next write when the last one is acknowledged.
pub(super) async fn run(plan: &Plan, cluster: &Cluster) -> anyhow::Result<()> {
    let all: Vec<usize> = (0..cluster.nodes.len()).collect();
    let leader = cluster.leader(&all).await?;
    let mut rows = Vec::new();
    for writers in WRITERS {
        let mut running = JoinSet::new();
        let began = now_ns();
        let until = began + plan.writes_ms * 1_000_000;
        for writer in 0..writers {
            running.spawn(write(cluster.api(leader).await?, format!("w{writers}-{writer}"), until));
        }
        let mut latencies = Histogram::default();
        while let Some(written) = running.join_next().await {
            latencies.add(&written?.context("a write failed")?);
        }
        let rate = latencies.count() * 1_000_000_000 / (now_ns() - began).max(1);
        rows.push(vec![
            writers.to_string(),
            thousands(rate),
            duration(latencies.percentile(50)),
            duration(latencies.percentile(99)),
        ]);
    }
    heading(
        "Writes",
        "Tokens minted at the leader: on the disks of a majority before each is acknowledged.",
    );
    table(&["writers", "writes/s", "p50", "p99"], &rows);
    Ok(())
}

async fn write(mut api: Api, name: String, until: u64) -> anyhow::Result<Histogram> {
    let mut latencies = Histogram::default();
    let mut began = now_ns();
    while began < until {
        api.mint(&format!("{name}-{}", latencies.count()), "bench").await?;
        let ended = now_ns();
        latencies.record(ended - began);
        began = ended;
    }
    Ok(latencies)
}
