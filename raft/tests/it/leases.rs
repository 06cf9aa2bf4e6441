//! The promise, on real nodes: leases, receipts, cuts and what a restart forgets.

use mcp_model::clock::Clock;
use mcp_model::receipt::Proof;

use crate::cluster::{Cluster, Site, TestClock};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revoke_with_everybody_well_is_applied_everywhere() {
    let cluster = Cluster::of(3).await;
    cluster.issue(1, 7).await;
    let written = cluster.revoke(2, 7).await;
    let receipt = written.receipt.unwrap();
    assert!(receipt.effective());
    assert_eq!(receipt.replicas.len(), 3);
    assert!(
        receipt.replicas.iter().all(|r| r.proof == Proof::Applied),
        "{receipt:?}"
    );
    for at in 0..3 {
        assert!(
            !cluster.knows(at, 7),
            "node {at} still knows the token when the revoke is answered"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_is_cut_off_refuses_before_the_revoke_is_answered() {
    let cluster = Cluster::of(3).await;
    cluster.issue(0, 7).await;
    cluster
        .until("all know the token", |c| (0..3).all(|at| c.knows(at, 7)))
        .await;
    let leader = cluster.leader().unwrap();
    let cut = (leader + 1) % 3;
    // Nobody reaches it, so no entry does. It still reaches the others, and its renewals are granted at an index that it never
    // applies.
    cluster.sites[cut].gate.set(false);
    let written = cluster.revoke(leader, 7).await;
    assert!(
        !cluster.sites[cut].admits(),
        "the cut-off replica still holds a lease when the revoke is answered"
    );
    assert!(cluster.knows(cut, 7), "it was really cut off");
    let receipt = written.receipt.unwrap();
    assert!(receipt.effective());
    let line = receipt
        .replicas
        .iter()
        .find(|r| r.node == cluster.sites[cut].id)
        .unwrap();
    assert_eq!(line.proof, Proof::LeaseRanOut);
    assert!(receipt.took_ms >= 500, "{receipt:?}");
    cluster.sites[cut].gate.set(true);
    cluster.until("it comes back", |c| c.sites[cut].admits()).await;
    assert!(
        !cluster.knows(cut, 7),
        "it has a lease again and does not know of the revoke"
    );
}

/// Rule 6: what counts is when a renewal arrived. An office that has lasted for `W` excuses nobody who has renewed since.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_old_office_still_waits_for_whoever_renewed_lately() {
    let cluster = Cluster::of(3).await;
    cluster.issue(0, 7).await;
    let wait_ms = mcp_model::timers::Timers::default().wait_ms();
    let office = || cluster.sites.iter().map(|s| s.node().status().term).max();
    // A busy machine may bring about another election; then its office has to grow old.
    let mut before = None;
    while before != office() {
        before = office();
        let began = TestClock.reading();
        cluster
            .until("the office is older than W", |_| {
                TestClock.reading().ms_since(began) > wait_ms
            })
            .await;
        cluster
            .until("all admit", |c| {
                c.leader().is_some() && c.sites.iter().all(Site::admits)
            })
            .await;
    }
    let leader = cluster.leader().unwrap();
    let cut = (leader + 1) % 3;
    cluster.sites[cut].gate.set(false);
    let written = cluster.revoke(leader, 7).await;
    assert!(
        !cluster.sites[cut].admits(),
        "the cut-off replica still holds a lease when the revoke is answered"
    );
    assert!(written.receipt.unwrap().effective());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deadline_that_comes_first_is_not_called_effective() {
    let cluster = Cluster::of(3).await;
    cluster.issue(0, 7).await;
    let leader = cluster.leader().unwrap();
    cluster.sites[(leader + 1) % 3].gate.set(false);
    let envelope = crate::cluster::envelope(
        mcp_model::command::Actor::User(crate::cluster::ADMIN),
        crate::cluster::revoke(7),
    );
    let node = cluster.sites[leader].node();
    let soon = std::time::Duration::from_millis(400);
    let written = node.write(&envelope, mcp_raft::WaitFor::Effective, soon).await.unwrap();
    let receipt = written.receipt.unwrap();
    assert!(!receipt.effective());
    assert_eq!(receipt.refusing(), 2);
    // The same command again waits for the rest, and carries out nothing twice.
    let again = node
        .write(&envelope, mcp_raft::WaitFor::Effective, crate::cluster::LIMIT)
        .await
        .unwrap();
    assert_eq!(again.outcome, written.outcome);
    assert!(again.receipt.unwrap().effective());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_without_a_quorum_loses_its_own_lease() {
    let cluster = Cluster::of(3).await;
    // Nobody reaches anybody: whoever leads goes on leading, and has no quorum.
    for site in &cluster.sites {
        site.gate.set(false);
    }
    cluster
        .until("nobody admits", |c| !c.sites.iter().any(Site::admits))
        .await;
    for site in &cluster.sites {
        site.gate.set(true);
    }
    cluster
        .until("all admit again", |c| c.sites.iter().all(Site::admits))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_survivors_keep_their_leases_when_the_leader_goes() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().unwrap();
    let survivors: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    let replicas: Vec<_> = survivors
        .iter()
        .map(|at| std::sync::Arc::clone(cluster.sites[*at].replica()))
        .collect();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let watch = tokio::task::spawn_blocking(move || {
        let mut lapses = 0;
        while stopped.recv_timeout(std::time::Duration::from_millis(5))
            == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            lapses += replicas.iter().filter(|r| !r.gate().holds(TestClock.reading())).count();
        }
        lapses
    });
    cluster.stop(leader).await;
    cluster.until("another leads", |c| c.leader().is_some()).await;
    let written = cluster.issue(survivors[0], 9).await;
    assert!(!written.outcome.restricts);
    stop.send(()).unwrap();
    assert_eq!(watch.await.unwrap(), 0, "a survivor was without a lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restarted_node_admits_nobody_before_it_has_caught_up() {
    let mut cluster = Cluster::of(3).await;
    cluster.issue(0, 7).await;
    let down = (cluster.leader().unwrap() + 1) % 3;
    cluster.stop(down).await;
    let up = (down + 1) % 3;
    let receipt = cluster.revoke(up, 7).await.receipt.unwrap();
    assert!(receipt.effective());
    // Nobody reaches it: it has its old state and cannot learn better.
    cluster.sites[down].gate.set(false);
    cluster.start(down).await;
    assert!(!cluster.sites[down].admits());
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    assert!(
        !cluster.sites[down].admits(),
        "it got a lease without the entries that it vouches for"
    );
    cluster.sites[down].gate.set(true);
    cluster.until("it admits", |c| c.sites[down].admits()).await;
    assert!(!cluster.knows(down, 7));
}
