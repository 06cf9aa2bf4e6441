//! How long a revoke takes until it is effective on every replica, against one `fdatasync` of the same disk.

use std::io::Write;
use std::path::Path;

use anyhow::bail;
use serde_json::{Value, json};

use super::Plan;
use super::histogram::Histogram;
use super::table::{duration, heading, table};
use crate::clock::now_ns;
use crate::cluster::Cluster;

/// What a log entry weighs, roughly.
const SYNC_BYTES: usize = 512;

/// Mints and revokes at every node in turn, with samples of the disk in between.
pub(super) async fn run(plan: &Plan, cluster: &Cluster, dir: &Path) -> anyhow::Result<()> {
    let all: Vec<usize> = (0..cluster.nodes.len()).collect();
    let leader = cluster.leader(&all).await?;
    let mut disk = Disk::open(dir)?;
    let (mut synced, mut read, mut at_leader, mut at_follower) = (
        Histogram::default(),
        Histogram::default(),
        Histogram::default(),
        Histogram::default(),
    );
    let mut apis = Vec::new();
    for node in &all {
        apis.push(cluster.api(*node).await?);
    }
    for round in 0..plan.revokes {
        for _ in 0..plan.syncs.div_ceil(plan.revokes) {
            synced.record(disk.sync()?);
        }
        let node = round % apis.len();
        let api = &mut apis[node];
        let began = now_ns();
        api.must("GET", "version", &Value::Null).await?;
        read.record(now_ns() - began);
        let (id, _) = api.mint(&format!("revoke-{round}"), "bench").await?;
        let began = now_ns();
        let (status, revoked) = api.send("POST", &format!("mcptokens/{id}/revoke"), &json!({})).await?;
        let took = now_ns() - began;
        if status != 200 || revoked["receipt"]["effective"] != true {
            bail!("the revoke is not effective: HTTP {status}: {revoked}");
        }
        if node == leader {
            &mut at_leader
        } else {
            &mut at_follower
        }
        .record(took);
    }
    heading(
        "Revoke",
        "From the request to the answer \"effective\": three of three replicas refuse, have cut what was open, and have confirmed.",
    );
    let unit = synced.percentile(50).max(1);
    let row = |what: &str, taken: &Histogram| {
        let (half, most) = (taken.percentile(50), taken.percentile(99));
        let times = half * 10 / unit;
        vec![
            what.to_owned(),
            taken.count().to_string(),
            duration(half),
            duration(most),
            format!("{}.{}", times / 10, times % 10),
        ]
    };
    let rows = [
        row(&format!("fdatasync of {SYNC_BYTES} bytes on the same disk"), &synced),
        row("a request to the API that changes nothing", &read),
        row("revoke, sent to the leader", &at_leader),
        row("revoke, sent to a follower", &at_follower),
    ];
    table(&["what", "times", "p50", "p99", "in fdatasyncs"], &rows);
    Ok(())
}

/// A file to measure the disk with.
struct Disk(std::fs::File);

impl Disk {
    fn open(dir: &Path) -> anyhow::Result<Disk> {
        Ok(Disk(std::fs::File::create(dir.join("sync"))?))
    }

    fn sync(&mut self) -> anyhow::Result<u64> {
        self.0.write_all(&[7; SYNC_BYTES])?;
        let began = now_ns();
        self.0.sync_data()?;
        Ok(now_ns() - began)
    }
}
