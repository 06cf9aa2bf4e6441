//! Commands: through any node, once, and not lost.

use std::sync::Arc;
use std::time::Duration;

use mcp_model::clock::Clock;
use mcp_model::command::{Actor, Reply};
use mcp_model::ids::NodeId;
use mcp_model::records::ClusterRecord;
use mcp_model::tables;
use mcp_raft::{Node, NodeOptions, WaitFor, WriteFailed};
use mcp_store::log::RaftLog;
use mcp_store::{Replica, ReplicaOptions};

use crate::cluster::{ADMIN, Ca, Cluster, LIMIT, Site, TestClock, envelope, issue};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_goes_through_any_node_and_is_read_on_any_other() {
    let cluster = Cluster::of(3).await;
    for at in 0..3u8 {
        let written = cluster.issue(usize::from(at), at + 1).await;
        assert!(
            matches!(written.outcome.reply, Reply::TokenIssued { .. }),
            "{written:?}"
        );
        for other in 0..3 {
            cluster.sites[other].node().freshen().await.unwrap();
            assert!(
                cluster.knows(other, at + 1),
                "minted through {at}, unknown on {other} after asking"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_share_entries_and_each_gets_its_own_answer() {
    let cluster = Arc::new(Cluster::of(3).await);
    let before = cluster.sites[0].node().status().last_log;
    let writes = (1..=200u8).map(|n| {
        let cluster = Arc::clone(&cluster);
        tokio::spawn(async move { cluster.issue(usize::from(n) % 3, n).await })
    });
    for (n, written) in (1..=200u128).zip(writes.collect::<Vec<_>>()) {
        let reply = written.await.unwrap().outcome.reply;
        assert!(matches!(reply, Reply::TokenIssued { id, .. } if id == mcp_model::ids::Id::from_u128(n + 1_000)));
    }
    let leader = cluster.leader().unwrap();
    let entries = cluster.sites[leader].node().status().last_log - before;
    assert!(entries < 200, "{entries} entries for 200 commands: nothing was batched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_command_is_carried_out_once_through_whichever_node() {
    let cluster = Cluster::of(3).await;
    let envelope = envelope(Actor::User(ADMIN), issue(7));
    let mut outcomes = Vec::new();
    for site in &cluster.sites {
        outcomes.push(
            site.node()
                .write(&envelope, WaitFor::Committed, LIMIT)
                .await
                .unwrap()
                .outcome,
        );
    }
    assert!(outcomes.iter().all(|o| *o == outcomes[0]), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_quorum_nothing_is_acknowledged() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().unwrap();
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    cluster.stop(others[0]).await;
    cluster.stop(others[1]).await;
    let node = cluster.sites[leader].node();
    let failed = node
        .write(
            &envelope(Actor::User(ADMIN), issue(7)),
            WaitFor::Committed,
            Duration::from_secs(1),
        )
        .await;
    assert!(
        matches!(failed, Err(WriteFailed::OutcomeUnknown | WriteFailed::NoLeader)),
        "{failed:?}"
    );
    cluster.start(others[0]).await;
    cluster.until("there is a leader", |c| c.leader().is_some()).await;
    cluster.issue(others[0], 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_whole_cluster_that_stops_comes_back_with_everything() {
    let mut cluster = Cluster::of(3).await;
    for n in 1..=20 {
        cluster.issue(usize::from(n) % 3, n).await;
    }
    cluster.revoke(1, 20).await;
    for at in 0..3 {
        cluster.stop(at).await;
    }
    for at in 0..3 {
        cluster.start(at).await;
    }
    cluster
        .until("all admit again", |c| c.sites.iter().all(Site::admits))
        .await;
    for at in 0..3 {
        for n in 1..=19 {
            assert!(cluster.knows(at, n), "token {n} is missing on {at}");
        }
        assert!(!cluster.knows(at, 20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_single_node_is_a_cluster() {
    let mut cluster = Cluster::of(1).await;
    cluster.issue(0, 7).await;
    assert!(cluster.revoke(0, 7).await.receipt.unwrap().effective());
    cluster.stop(0).await;
    cluster.start(0).await;
    cluster
        .until("it leads and admits again", |c| c.sites[0].admits())
        .await;
    cluster.issue(0, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stranger_begins_a_cluster_of_its_own() {
    let cluster = Cluster::of(1).await;
    let dir = tempfile::tempdir().unwrap();
    let options = ReplicaOptions {
        lease_ms: 2_000,
        had_data: false,
        random: Arc::new(|| 3),
    };
    let replica = Replica::open(dir.path(), options).unwrap();
    let log = RaftLog::open_or_create(&dir.path().join("raft-log.redb"), Arc::new(|| 0)).unwrap();
    let me = NodeId(77);
    let options = NodeOptions {
        cluster: "test".to_owned(),
        me,
        timers: Default::default(),
        snapshot_entries: 100,
        kept_entries: 10,
        compare_every: mcp_raft::COMPARE_EVERY,
        snapshots: dir.path().join("snapshots"),
        disk: Default::default(),
        free_bytes: Arc::new(|| None),
        random: Arc::new(|| 3),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Of another authority: it is turned away, hears nothing, and begins nothing with who does not answer it.
    let foreign = Ca::new();
    let tls = foreign.tls(me, &foreign);
    let node = Node::start(options, replica, log, Arc::new(TestClock), tls, listener)
        .await
        .unwrap();
    let members = vec![
        mcp_raft::Member {
            id: me,
            name: "new".to_owned(),
            address,
        },
        mcp_raft::Member {
            id: cluster.sites[0].id,
            name: "old".to_owned(),
            address: cluster.sites[0].gate.address.clone(),
        },
    ];
    let begun = node.bootstrap(&members).await.unwrap();
    assert!(
        matches!(&begun, mcp_raft::Begun::Unknown(silent) if silent[0].id == cluster.sites[0].id),
        "who does not say that it has no membership may have one: {begun:?}"
    );
    assert!(node.status().leader.is_none(), "and it cannot win a vote there");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_lags_behind_the_log_is_sent_a_snapshot_and_keeps_it_over_a_restart() {
    let mut cluster = Cluster::of(3).await;
    let down = (cluster.leader().unwrap() + 1) % 3;
    cluster.stop(down).await;
    let up = (down + 1) % 3;
    // One entry each, for several snapshots and purges: what the node last saw is no longer in anybody's log.
    for round in 0..2u8 {
        for n in 1..=120 {
            if round == 0 {
                cluster.issue(up, n).await;
            } else if n <= 100 {
                cluster.revoke(up, n).await;
            }
        }
    }
    cluster.start(down).await;
    cluster.until("it admits", |c| c.sites[down].admits()).await;
    let check = |cluster: &Cluster, at: usize| {
        for n in 1..=120 {
            assert_eq!(cluster.knows(at, n), n > 100, "token {n} on {at}");
        }
    };
    check(&cluster, down);
    for at in 0..3 {
        cluster.stop(at).await;
    }
    for at in 0..3 {
        cluster.start(at).await;
    }
    cluster
        .until("all admit again", |c| c.sites.iter().all(Site::admits))
        .await;
    for at in 0..3 {
        check(&cluster, at);
    }
}

/// Rule 9: the time that the cluster goes by never goes back, so nobody but the leader may move it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_whose_clock_is_ten_minutes_off_does_not_move_the_clusters_time() {
    let cluster = Cluster::of(3).await;
    let now_ms = TestClock.wall_ms();
    for (at, n) in (0..3usize).zip(7..) {
        let mut ahead = envelope(Actor::User(ADMIN), issue(n));
        ahead.now_ms = now_ms + 600_000;
        let written = cluster.sites[at].node().write(&ahead, WaitFor::Committed, LIMIT).await;
        assert!(matches!(written.unwrap().outcome.reply, Reply::TokenIssued { .. }));
    }
    let leader = cluster.leader().unwrap();
    let record = cluster.sites[leader]
        .replica()
        .read(|t| tables::load::<ClusterRecord>(t, &[0]));
    assert_eq!(record.unwrap().unwrap().time_ms, now_ms);
}
