//! A node's stores when it starts: opened, made good where they were damaged, or waited for.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use mcp_model::clock::Clock;
use mcp_model::ids::{Id, NodeId};
use mcp_model::records::ClusterRecord;
use mcp_model::tables;
use mcp_raft::recover::{self, LogLost, Opened, Opening, Whole};
use mcp_raft::{Member, Node, PeerTls};
use mcp_store::Replica;
use mcp_store::log::Ticks;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use crate::certificates::Listeners;
use crate::config::Config;
use crate::identity::{Identity, write_private};
use crate::{limits, listen, random};

/// Who the other members are, noted outside of the stores: a node that has lost those must know whom to ask.
const PEERS_FILE: &str = "peers.json";
/// How often, and after which pauses, stores are tried that another process has open.
const IN_USE_TRIES: u32 = 40;
const IN_USE_PAUSE: Duration = Duration::from_millis(50);

/// One other member, as it is noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Noted {
    id: String,
    name: String,
    address: String,
}

/// Opens the stores of a node. One whose log is lost is dead to the others until they have let it go: so long this does not
/// return, and `/readyz` says why.
pub(crate) async fn open(
    config: &Config,
    identity: &Identity,
    clock: &Arc<dyn Clock>,
    tls: &PeerTls,
    certificates: &Listeners,
) -> anyhow::Result<Whole> {
    let (dir, cluster) = (config.data_dir.clone(), identity.cluster()?);
    let ticks: Ticks = {
        let clock = Arc::clone(clock);
        Arc::new(move || clock.reading().boot_ns)
    };
    let opening = Opening {
        dir: dir.clone(),
        had_data: identity.had_data,
        lease_ms: config.timers.lease_ms,
        me: identity.node()?,
        known: noted(&dir),
        now_ms: clock.wall_ms(),
        random: Arc::new(random::number),
        ticks,
    };
    let whole = match open_free(opening).await? {
        Opened::Whole(whole) => whole,
        Opened::LogLost(lost) => wait_to_be_let_go(*lost, config, cluster, tls, certificates, clock).await?,
    };
    refuse_another_cluster(&whole.replica, cluster, &dir)?;
    Ok(whole)
}

/// Whoever was killed a moment ago may still have the files open.
async fn open_free(opening: Opening) -> anyhow::Result<Opened> {
    let mut tries = (0..IN_USE_TRIES).rev();
    loop {
        let opening = opening.clone();
        let opened = tokio::task::spawn_blocking(move || recover::open(opening)).await?;
        match opened {
            Err(error) if error.is_in_use() && tries.next().is_some() => tokio::time::sleep(IN_USE_PAUSE).await,
            opened => return Ok(opened?),
        }
    }
}

async fn wait_to_be_let_go(
    lost: LogLost,
    config: &Config,
    cluster: Id,
    tls: &PeerTls,
    certificates: &Listeners,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Whole> {
    let told = watch::Sender::new(format!("this node has lost its log ({})", lost.why));
    let stop = watch::Sender::new(false);
    let listener = listen::bind("API", config.api.listen).await?;
    let (_, places) = limits::places(config);
    let door = listen::Door::new(listener, &certificates.api, places, clock);
    let waiting = tokio::spawn(listen::serve(door, not_ready(told.subscribe()), stop.subscribe()));
    let whole = lost.be_let_go(cluster.to_string(), tls.clone(), told).await;
    stop.send_replace(true);
    waiting.await?;
    Ok(whole?)
}

/// `/readyz` of a node that is nothing yet.
fn not_ready(why: watch::Receiver<String>) -> Router {
    let answer = move || async move {
        let report = json!({ "ready": false, "reasons": [why.borrow().as_str()] });
        let kind = [(header::CONTENT_TYPE, "application/json")];
        (StatusCode::SERVICE_UNAVAILABLE, kind, format!("{report:#}\n"))
    };
    Router::new().route("/readyz", get(answer))
}

/// What was noted of the others. Nothing that helps is no fault: the state knows them too, as a rule.
fn noted(dir: &Path) -> Vec<Member> {
    noted_in(&fs::read(dir.join(PEERS_FILE)).unwrap_or_default())
}

/// The members that a note of them names.
pub(crate) fn noted_in(note: &[u8]) -> Vec<Member> {
    let noted: Vec<Noted> = serde_json::from_slice(note).unwrap_or_default();
    let member = |noted: Noted| {
        Some(Member {
            id: noted.id.parse::<NodeId>().ok()?,
            name: noted.name,
            address: noted.address,
        })
    };
    noted.into_iter().filter_map(member).collect()
}

/// Notes who the others are, whenever that changes, for as long as the node runs.
pub(crate) async fn keep_noted(node: Arc<Node>, dir: std::path::PathBuf) {
    let mut index = node.index_watch();
    let mut known = Vec::new();
    loop {
        let status = node.status();
        let others = status.members.into_iter().filter(|member| member.id != status.me);
        let others: Vec<Noted> = others
            .map(|member| Noted {
                id: member.id.to_string(),
                name: member.name,
                address: member.address,
            })
            .collect();
        if others != known && !others.is_empty() {
            let noted = serde_json::to_string_pretty(&others)
                .context("the others can be noted")
                .and_then(|text| write_private(&dir.join(PEERS_FILE), text.as_bytes()));
            match noted {
                Ok(()) => known = others,
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the other members are not noted"),
            }
        }
        if index.changed().await.is_err() {
            return;
        }
    }
}

fn refuse_another_cluster(replica: &Replica, cluster: Id, dir: &Path) -> anyhow::Result<()> {
    let kept = replica.read(|t| tables::load::<ClusterRecord>(t, &[0]))?;
    let other = kept.map(|kept| kept.cluster_id).filter(|kept| *kept != cluster);
    let Some(other) = other else { return Ok(()) };
    anyhow::bail!(
        "the state in {} is that of cluster {other}, but node.json says {cluster}: the files of two nodes are mixed up. Put back \
         the files that belong together, or move the directory away and join anew",
        dir.display()
    )
}
