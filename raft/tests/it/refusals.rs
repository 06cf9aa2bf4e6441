//! What is late, repeated, or from somebody whose time is over changes nothing, and the log says what was refused.

use std::io::Write;
use std::sync::{Arc, Mutex};

use mcp_model::clock::Clock;
use mcp_model::command::{Actor, Envelope};
use mcp_model::ids::{Incarnation, NodeId};
use mcp_model::lease::RequestId;
use mcp_raft::WaitFor;
use tracing::subscriber::DefaultGuard;

use crate::cluster::{ADMIN, Cluster, LIMIT, TestClock, envelope, issue};
use crate::peers::{LEASE, NOT_LEADER, RENEW, Says, send};

/// What this thread, and so every node of a test with one thread, has logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn listen() -> (Lines, DefaultGuard) {
        let lines = Lines::default();
        let into = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || into.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    /// Whether one line has all of these.
    fn has(&self, parts: &[&str]) -> bool {
        let bytes = self.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().any(|line| parts.iter().all(|part| line.contains(part)))
    }
}

/// Whether a renewal in the name of a node is granted by another.
async fn renews(cluster: &Cluster, from: NodeId, to: usize, incarnation: u64, request: u64) -> bool {
    let site = &cluster.sites[to];
    let says = Says {
        cluster: "test",
        lease: LEASE,
        from,
        to: site.id,
    };
    let body = postcard::to_stdvec(&(Incarnation(incarnation), RequestId(request))).unwrap();
    let client = cluster.ca.client(Some((&cluster.ca, from)));
    let answer = send(client, &site.gate.address, site.id, &says, RENEW, body).await;
    answer.unwrap().1 != NOT_LEADER
}

#[tokio::test]
async fn a_renewal_that_is_repeated_or_was_overtaken_is_refused_and_logged() {
    let (lines, _listening) = Lines::listen();
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().unwrap();
    let member = cluster.sites[(leader + 2) % 3].id;
    assert!(renews(&cluster, member, leader, 7, 5).await);
    // Repeated; and one that was sent before it and took longer, by three seconds or by a millisecond.
    for request in [5, 4] {
        assert!(!renews(&cluster, member, leader, 7, request).await);
        let request = format!("request=RequestId({request})");
        let (node, incarnation) = (format!("node={member}"), "incarnation=Incarnation(7)");
        assert!(
            lines.has(&["WARN", "a renewal was refused", &node, incarnation, &request]),
            "{request}"
        );
    }
    assert!(renews(&cluster, member, leader, 7, 6).await, "the next one is good");
}

#[tokio::test]
async fn a_renewal_that_comes_to_one_who_leads_no_more_is_refused_and_logged() {
    let (lines, _listening) = Lines::listen();
    let mut cluster = Cluster::of(3).await;
    let old = cluster.leader().unwrap();
    let member = cluster.sites[(old + 1) % 3].id;
    assert!(renews(&cluster, member, old, 7, 1).await);
    cluster.sites[old]
        .node()
        .step_down(cluster.sites[old].id)
        .await
        .unwrap();
    cluster
        .until("another leads", |c| c.leader().is_some_and(|leader| leader != old))
        .await;
    assert!(!renews(&cluster, member, old, 7, 2).await);
    assert!(lines.has(&["WARN", "a renewal was refused: this node does not lead"]));
    let leader = cluster.leader().unwrap();
    cluster.stop(leader).await;
    cluster
        .until("whoever had asked the old one knows that its answer is void", |_| {
            lines.has(&["WARN", "a renewal was given up: whom it was sent to leads no more"])
                || lines.has(&["WARN", "the lease could not be renewed"])
        })
        .await;
}

#[tokio::test]
async fn a_grant_that_nobody_waits_for_any_more_is_refused_and_logged() {
    let (lines, _listening) = Lines::listen();
    let cluster = Cluster::of(1).await;
    let gate = cluster.sites[0].replica().gate();
    let now = TestClock.reading();
    let (incarnation, request) = gate.begin(now).unwrap();
    gate.granted(incarnation, request, 0, || 0);
    let held = gate.deadline();
    // Again; for a request that was never made; and for a run that is over.
    let never = RequestId(u64::MAX);
    let before = Incarnation(incarnation.0 ^ 1);
    for (incarnation, request) in [(incarnation, request), (incarnation, never), (before, request)] {
        gate.granted(incarnation, request, 0, || 0);
        let (i, r) = (format!("incarnation={incarnation:?}"), format!("request={request:?}"));
        assert!(lines.has(&["WARN", "a grant was refused", &i, &r]), "{i} {r}");
    }
    assert_eq!(gate.deadline(), held);
}

#[tokio::test]
async fn a_confirmation_of_an_incarnation_that_has_ended_is_refused_and_logged() {
    let (lines, _listening) = Lines::listen();
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().unwrap();
    let other = cluster.sites[(leader + 1) % 3].id;
    let node = format!("node={other}");
    // The leader hears of another run of that node; so what the one that runs confirms is of one that has ended, until it renews again.
    for request in 1..=100u8 {
        cluster.issue(leader, request).await;
        assert!(renews(&cluster, other, leader, 7, u64::from(request)).await);
        let receipt = cluster.revoke(leader, request).await.receipt.unwrap();
        assert!(receipt.effective());
        if lines.has(&["WARN", "a confirmation was refused", &node, "earlier incarnation"]) {
            return;
        }
    }
    panic!("no confirmation was refused");
}

#[tokio::test]
async fn a_command_with_a_clock_that_is_ten_minutes_off_gets_the_leaders_time_and_a_line() {
    let (lines, _listening) = Lines::listen();
    let cluster = Cluster::of(3).await;
    let follower = (cluster.leader().unwrap() + 1) % 3;
    for (token, off_ms) in [(1, 600_000_u64), (2, 0)] {
        let envelope = Envelope {
            now_ms: 1_000 + off_ms,
            ..envelope(Actor::User(ADMIN), issue(token))
        };
        let node = cluster.sites[follower].node();
        node.write(&envelope, WaitFor::Committed, LIMIT).await.unwrap();
        if off_ms > 0 {
            let said = format!("said_ms={}", envelope.now_ms);
            assert!(lines.has(&["WARN", "a command's time was refused", &said, "IssueToken"]));
        }
    }
    cluster
        .until("the cluster's time is the leader's", |c| {
            let cluster: Option<mcp_model::records::ClusterRecord> = c.sites[follower]
                .replica()
                .read(|t| mcp_model::tables::load(t, &[0]))
                .unwrap();
            c.knows(follower, 2) && cluster.unwrap().time_ms == 1_000
        })
        .await;
}
