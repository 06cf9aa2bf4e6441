//! Faults that were found once, each with the test that failed until it was gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mcp_model::clock::Reading;
use mcp_model::command::{Actor, Command};
use mcp_model::ids::Id;
use mcp_model::names::{Email, Name};
use mcp_model::records::{ProjectSpec, ToolNaming};
use mcp_raft::{WaitFor, WriteFailed};
use mcp_store::{ApplyEntry, Replica, ReplicaOptions};

use crate::cluster::{ADMIN, Cluster, LIMIT, Site, envelope, issue};

/// Rule 5: a renewal that is granted while an older state is being installed must give nothing, for the view goes back under it.
#[test]
fn a_renewal_during_a_resync_to_an_older_state_gives_no_lease() {
    let dir = tempfile::tempdir().unwrap();
    let next = AtomicU64::new(1);
    let options = ReplicaOptions {
        lease_ms: 60_000,
        had_data: false,
        random: Arc::new(move || next.fetch_add(1, Ordering::Relaxed)),
    };
    let replica = Replica::open(dir.path(), options).unwrap();
    let apply = |index: u64, commands: Vec<Vec<u8>>| {
        let entry = ApplyEntry { index, commands };
        replica.apply(&[entry], b"mark").unwrap();
    };
    // Enough rows that putting the older state in place takes a moment.
    let email = |n: u64| Email::parse(&format!("u{n}@example.com")).unwrap();
    let init = Command::InitCluster {
        cluster_id: Id::from_u128(9),
        admin: ADMIN,
        email: email(0),
        password_hash: None,
        rbac: Id::from_u128(2),
    };
    let users = (1..2_000_u64).map(|n| Command::CreateUser {
        id: Id::from_u128(10_000 + u128::from(n)),
        email: email(n),
        name: String::new(),
        password_hash: None,
    });
    let users = users.map(|user| envelope(Actor::User(ADMIN), user).encode());
    let init = envelope(Actor::System, init).encode();
    apply(1, std::iter::once(init).chain(users).collect());
    let old = dir.path().join("old.snap");
    replica.write_snapshot(&old).unwrap();
    apply(2, Vec::new());
    let before = replica.gate().incarnation();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            replica.install_snapshot(&old).unwrap();
            done.store(true, Ordering::Release);
        });
        // What renew::run does, over and over: the leader grants at index 2, which is committed.
        while !done.load(Ordering::Acquire) {
            let (incarnation, request) = replica.gate().begin(Reading::both_ms(1)).unwrap();
            replica.gate().granted(incarnation, request, 2, || replica.auth_index());
        }
    });
    assert_ne!(replica.gate().incarnation(), before);
    assert_eq!(replica.auth_index(), 1, "the older state is in place");
    assert!(
        !replica.gate().holds(Reading::both_ms(2)),
        "a lease that was granted at index 2 holds over a view at index 1"
    );
}

/// Somebody writes all the time: the leader that stops must not take part in that, or nobody may vote.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_stops_under_load_is_succeeded_before_it_is_gone() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().unwrap();
    let other = (leader + 1) % 3;
    let (node, replica) = cluster.sites[leader].running.take().unwrap();
    let load = async {
        for n in 10..200_u8 {
            let issue = envelope(Actor::User(ADMIN), issue(n));
            let limit = Duration::from_secs(5);
            if cluster.sites[other]
                .node()
                .write(&issue, WaitFor::Committed, limit)
                .await
                .is_err()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = load => {}
        () = node.shutdown() => {}
    }
    let led = cluster.leader().is_some();
    drop((node, replica));
    assert!(led, "nobody leads when the leader is gone");
}

/// A leader that is frozen (SIGSTOP, a hung machine) takes connections and says nothing: neither a campaign nor a write may wait
/// for its answer. (How many elections that takes is the benchmark's business: a busy machine adds some.)
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_frozen_leader_is_succeeded_and_writes_go_on() {
    let mut cluster = Cluster::of(3).await;
    // On a runtime of its own, so that it can be frozen.
    let ice = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let frozen = (cluster.leader().unwrap() + 1) % 3;
    cluster.stop(frozen).await;
    cluster = ice
        .spawn(async move {
            cluster.start(frozen).await;
            cluster
        })
        .await
        .unwrap();
    cluster
        .until("all hold a lease", |c| c.sites.iter().all(Site::admits))
        .await;
    while cluster.leader() != Some(frozen) {
        cluster.until("somebody leads", |c| c.leader().is_some()).await;
        let Some(leader) = cluster.leader().filter(|leader| *leader != frozen) else {
            continue;
        };
        cluster.stop(leader).await;
        cluster.until("another leads", |c| c.leader().is_some()).await;
        cluster.start(leader).await;
        cluster
            .until("all hold a lease", |c| c.sites.iter().all(Site::admits))
            .await;
    }
    let others: Vec<usize> = (0..3).filter(|at| *at != frozen).collect();
    let before = cluster.sites[frozen].node().status().term;
    let (thaw, thawed) = std::sync::mpsc::channel::<()>();
    ice.spawn(async move { thawed.recv().unwrap_or(()) });
    let successor = |c: &Cluster| others.iter().copied().find(|at| c.sites[*at].node().leads());
    cluster.until("somebody else leads", |c| successor(c).is_some()).await;
    cluster
        .until("both admit", |c| others.iter().all(|at| c.sites[*at].admits()))
        .await;
    // A write that is forwarded to the frozen leader must find its successor.
    for n in 20..40 {
        cluster.issue(others[usize::from(n) % 2], n).await;
    }
    assert!(cluster.sites[others[0]].node().status().term > before);
    thaw.send(()).unwrap();
    ice.shutdown_background();
}

/// A command that no append can carry must be refused, or it stands in front of every later one for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_command_that_is_too_long_stops_nobody_else() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().unwrap();
    let spec = ProjectSpec {
        description: String::new(),
        servers: Vec::new(),
        gated: true,
        allow_sse: false,
        proxy_model: None,
        tool_naming: ToolNaming::Plain,
        instructions: Some("x".repeat(9 * 1024 * 1024)),
    };
    let long = Command::CreateProject {
        id: Id::from_u128(60),
        name: Name::parse("long").unwrap(),
        spec,
    };
    let node = cluster.sites[leader].node();
    let limit = Duration::from_secs(3);
    let first = node
        .write(&envelope(Actor::User(ADMIN), long), WaitFor::Committed, limit)
        .await;
    let then = node
        .write(&envelope(Actor::User(ADMIN), issue(7)), WaitFor::Committed, limit)
        .await;
    assert!(matches!(first, Err(WriteFailed::TooLong)), "{:?}", first.map(|_| ()));
    assert!(then.is_ok(), "{:?}", then.map(|_| ()));
}

/// openraft gives an append one heartbeat interval; an entry that takes longer to arrive must arrive all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_command_of_nearly_the_greatest_length_arrives() {
    let cluster = Cluster::of(3).await;
    let command = Command::CreateProject {
        id: Id::from_u128(61),
        name: Name::parse("long").unwrap(),
        spec: ProjectSpec {
            description: String::new(),
            servers: Vec::new(),
            gated: true,
            allow_sse: false,
            proxy_model: None,
            tool_naming: ToolNaming::Plain,
            instructions: Some("x".repeat(1_000_000)),
        },
    };
    let written = cluster.write(1, Actor::User(ADMIN), command, WaitFor::Committed).await;
    for site in &cluster.sites {
        let mut at = site.replica().auth_index_watch();
        let arrived = tokio::time::timeout(LIMIT, at.wait_for(|at| *at >= written.outcome.index)).await;
        assert!(arrived.is_ok());
    }
}
