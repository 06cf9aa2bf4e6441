//! Stores that are damaged while a node is stopped: what is found, set aside, and where what is missing comes from.

use std::path::{Path, PathBuf};

use mcp_model::command::Actor;
use mcp_raft::WaitFor;
use mcp_raft::recover::OpenError;

use crate::cluster::{ADMIN, Cluster, Site, issue};

/// Writes enough for a snapshot and a purge, and a little behind it.
async fn busy_cluster(n: u64) -> Cluster {
    let cluster = Cluster::of(n).await;
    for token in 1..=130u8 {
        cluster
            .write(0, Actor::User(ADMIN), issue(token), WaitFor::Committed)
            .await;
    }
    cluster
        .until("every node has a snapshot", |c| {
            c.sites.iter().all(|site| snapshot_of(site).is_some())
        })
        .await;
    cluster
}

fn snapshot_of(site: &Site) -> Option<PathBuf> {
    let files = std::fs::read_dir(site.dir().join("snapshots")).ok()?;
    let mut files = files.filter_map(|entry| Some(entry.ok()?.path()));
    files.find(|path| path.extension().is_some_and(|e| e == "snap"))
}

/// Alters bytes all over a file, so that it is certain to be found.
fn ruin(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let step = (bytes.len() / 50).max(1);
    bytes
        .iter_mut()
        .skip(step / 2)
        .step_by(step)
        .for_each(|byte| *byte ^= 0x5a);
    std::fs::write(path, bytes).unwrap();
}

fn was_set_aside(site: &Site, file: &str) -> bool {
    let names = std::fs::read_dir(site.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let prefix = format!("{file}.corrupt-");
    names
        .filter_map(|name| name.into_string().ok())
        .any(|name| name.starts_with(&prefix))
}

async fn complete(cluster: &Cluster, at: usize, upto: u8) {
    cluster
        .until("the node has everything and a lease", |c| {
            (1..=upto).all(|token| c.knows(at, token)) && c.sites[at].admits()
        })
        .await;
}

fn is_voter(cluster: &Cluster, at: usize, of: usize) -> bool {
    let id = cluster.sites[of].id;
    cluster.sites[at]
        .node()
        .status()
        .members
        .iter()
        .any(|m| m.id == id && m.voter)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_damaged_state_is_rebuilt_from_snapshot_and_log_even_alone() {
    for nodes in [1, 3] {
        let mut cluster = busy_cluster(nodes).await;
        cluster.stop(0).await;
        ruin(&cluster.sites[0].dir().join("state.redb"));
        cluster.start(0).await;
        complete(&cluster, 0, 130).await;
        assert!(was_set_aside(&cluster.sites[0], "state.redb"));
        assert!(!was_set_aside(&cluster.sites[0], "raft-log.redb"));
        cluster.issue(0, 131).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_state_that_is_older_than_the_log_is_rebuilt_too() {
    let mut cluster = Cluster::of(1).await;
    cluster.stop(0).await;
    let state = cluster.sites[0].dir().join("state.redb");
    let old = std::fs::read(&state).unwrap();
    cluster.start(0).await;
    for token in 1..=130u8 {
        cluster.issue(0, token).await;
    }
    cluster
        .until("a snapshot", |c| snapshot_of(&c.sites[0]).is_some())
        .await;
    cluster.stop(0).await;
    std::fs::write(&state, old).unwrap();
    cluster.start(0).await;
    complete(&cluster, 0, 130).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_lost_its_log_is_let_go_and_taken_back_as_a_voter() {
    let mut cluster = busy_cluster(3).await;
    for with_state in [false, true, false] {
        cluster.until("somebody leads", |c| c.leader().is_some()).await;
        let lost = cluster.leader().unwrap();
        cluster.stop(lost).await;
        ruin(&cluster.sites[lost].dir().join("raft-log.redb"));
        if with_state {
            ruin(&cluster.sites[lost].dir().join("state.redb"));
        }
        cluster.start(lost).await;
        complete(&cluster, lost, 130).await;
        let other = (lost + 1) % 3;
        cluster
            .until("it votes again", |c| {
                is_voter(c, other, lost) && is_voter(c, lost, lost)
            })
            .await;
        assert!(was_set_aside(&cluster.sites[lost], "raft-log.redb"));
        let mark = cluster.sites[lost].dir().join("raft-log.lost");
        cluster.until("nothing of it is pending", |_| !mark.exists()).await;
    }
    // It counts again: with it and one other, the third may go.
    cluster.stop(1).await;
    cluster.issue(0, 131).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn state_log_and_snapshot_may_all_be_damaged() {
    let mut cluster = busy_cluster(3).await;
    cluster.stop(2).await;
    let snapshot = snapshot_of(&cluster.sites[2]).unwrap();
    for path in [
        cluster.sites[2].dir().join("raft-log.redb"),
        cluster.sites[2].dir().join("state.redb"),
        snapshot,
    ] {
        ruin(&path);
    }
    // Who the others are stood in the state, and beside it.
    cluster.noted = false;
    assert!(matches!(cluster.try_start(2).await, Err(OpenError::Alone { .. })));
    cluster.noted = true;
    cluster.start(2).await;
    complete(&cluster, 2, 130).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_single_node_that_lost_its_log_refuses_and_changes_nothing() {
    let mut cluster = busy_cluster(1).await;
    cluster.stop(0).await;
    let log = cluster.sites[0].dir().join("raft-log.redb");
    let good = std::fs::read(&log).unwrap();
    ruin(&log);
    let bad = std::fs::read(&log).unwrap();
    let error = cluster.try_start(0).await.unwrap_err();
    assert!(error.to_string().contains("restore"), "{error}");
    assert!(!was_set_aside(&cluster.sites[0], "raft-log.redb"));
    assert_eq!(std::fs::read(&log).unwrap(), bad);
    std::fs::write(&log, good).unwrap();
    cluster.start(0).await;
    complete(&cluster, 0, 130).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_without_its_log_waits_while_the_others_cannot_decide_without_it() {
    let mut cluster = busy_cluster(3).await;
    for at in [1, 2] {
        cluster.stop(at).await;
    }
    ruin(&cluster.sites[2].dir().join("raft-log.redb"));
    // Node 2 and the one that runs would be a majority, if what it has forgotten did not matter.
    let waited = tokio::time::timeout(std::time::Duration::from_secs(4), cluster.start(2)).await;
    assert!(waited.is_err(), "it must not take part");
    assert!(!cluster.sites[0].admits(), "nobody may admit");
    cluster.start(1).await;
    cluster.start(2).await;
    complete(&cluster, 2, 130).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_damaged_snapshot_is_not_handed_to_anybody() {
    let mut cluster = busy_cluster(3).await;
    cluster.stop(2).await;
    for token in 131..=250u8 {
        cluster
            .write(0, Actor::User(ADMIN), issue(token), WaitFor::Committed)
            .await;
    }
    for at in [0, 1] {
        let newer = |c: &Cluster| snapshot_of(&c.sites[at]).is_some();
        cluster.until("a snapshot", newer).await;
        ruin(&snapshot_of(&cluster.sites[at]).unwrap());
    }
    cluster.start(2).await;
    complete(&cluster, 2, 250).await;
}
